"""PyTorch kernels outside all setups, to measure and trace: repeats, chunks, one mask."""

from dataclasses import replace

from simulator.counts.attention import plain
from simulator.counts.attention.flash import flash_part
from simulator.counts.attention.shape import AttentionShape, CachePart, present
from simulator.counts.attention.way import PlainKernel
from simulator.counts.operation import Operation
from simulator.numeric import ceil_div, maximum, minimum, where

# Chunks of bifurcated_flash_chunked, and tokens per block of FlexAttention's mask.
CHUNKS = 4
MASK_BLOCK = 128


def standard_repeat_kv(shape: AttentionShape) -> list[Operation]:
    """KV heads repeated to query heads in memory, even for groups of one, then one call."""
    cache = shape.cached_bytes(shape.sequences * shape.tokens)
    repeat = replace(
        plain.moved("kv_repeat", cache, cache * shape.group, launches=2, kind="copy"),
        kv_bytes_read=cache,
    )
    repeated = shape._replace(kv_heads=shape.heads, cache_width=shape.cache_width * shape.group)
    return [repeat, *flash_part(repeated, repeated.whole())]


def bifurcated_flash_chunked(shape: AttentionShape) -> list[Operation]:
    """``bifurcated_flash`` with the context in chunks and a remainder, all merged."""
    tokens, own = shape.context_tokens, present(shape.decoded_tokens)
    context = present(tokens)
    chunks = minimum(CHUNKS, tokens)
    chunk_tokens = maximum(1, tokens // CHUNKS) * context
    rest = tokens - chunks * chunk_tokens
    chunk, remainder = (
        CachePart(name=name, tokens=size, caches=shape.prompts, sharers=shape.samples)
        for name, size in (("attention_context", chunk_tokens), ("attention_remainder", rest))
    )
    states = own + chunks + present(rest)
    alone = where(states > 1, 0, 1)
    # Query tokens are folded like samples.
    folded = shape._replace(samples=shape.samples * shape.query_tokens, query_tokens=1)
    return [
        *flash_part(shape, shape.decoded_part),
        plain.query_fold(shape, plain.merges_by_copy(folded) * context),
        *flash_part(shape, chunk, chunks=chunks),
        *flash_part(shape, remainder),
        plain.merge(shape, states),
        plain.unfold(shape, plain.folds_by_copy(shape, shape.samples) * context * alone),
    ]


def bifurcated_flex(shape: AttentionShape) -> list[Operation]:
    """Folding, one FlexAttention call over the packed cache, unfolding; for one shape only.

    The call computes every 128 x 128 block that its mask touches: more FLOPs than attention needs.
    """
    folds = plain.folds_by_copy(shape, shape.samples)
    kv_bytes = shape.context_copy_bytes + shape.decoded_bytes
    widths = shape.key_width + shape.value_width
    call = Operation(
        name="attention",
        kind="attention",
        flops=2 * shape.prompts * shape.kv_heads * _visited_pairs(shape) * widths,
        bytes_read=shape.query_bytes + kv_bytes,
        bytes_written=shape.output_bytes,
        kv_bytes_read=kv_bytes,
        dtype=shape.dtype,
    )
    return [plain.query_fold(shape, folds), call, plain.unfold(shape, folds)]


def _visited_pairs(shape: AttentionShape) -> int:
    """Return the number of (row, key) pairs in the blocks that a packed cache's mask touches."""
    group = shape.group
    rows = shape.samples * group
    context, own = shape.context_tokens, shape.decoded_tokens
    keys = context + shape.samples * own
    pairs = 0
    for start in range(0, rows, MASK_BLOCK):
        end = min(start + MASK_BLOCK, rows)
        own_start = context + start // group * own
        own_end = context + ((end - 1) // group + 1) * own
        # Half-open ranges of blocks: those of the context, then those of the rows' decoded tokens.
        context_blocks = ceil_div(context, MASK_BLOCK)
        first = max(own_start // MASK_BLOCK, context_blocks)
        last = ceil_div(own_end, MASK_BLOCK) if own else first
        seen = min(context_blocks * MASK_BLOCK, keys)
        seen += max(0, min(last * MASK_BLOCK, keys) - first * MASK_BLOCK)
        pairs += (end - start) * seen
    return pairs


PLAIN_VARIANTS = (
    PlainKernel("standard_repeat_kv", "standard", "flash", "copies", standard_repeat_kv),
    PlainKernel(
        "bifurcated_flash_chunked", "bifurcated", "flash", "shared", bifurcated_flash_chunked
    ),
    PlainKernel("bifurcated_flex", "bifurcated", "flash", "shared", bifurcated_flex),
)
