"""Accounts of PyTorch kernels built on its flash attention operator."""

from dataclasses import replace

from simulator.counts.attention.flash import (
    PARTIAL_BYTES,
    flash_cache,
    flash_part,
    flash_standard,
    flash_suffix,
    rebuild,
    row_blocks,
)
from simulator.counts.attention.shape import AttentionShape, present
from simulator.counts.operation import Operation
from simulator.numeric import Numeric, ceil_div, maximum, minimum, where

# Chunks of bifurcated_flash_chunked, and tokens per block of FlexAttention's mask.
CHUNKS = 4
MASK_BLOCK = 128


def standard_flash(shape: AttentionShape, repeat: int) -> list[Operation]:
    """One call over one copy of the context per sample."""
    return flash_standard(shape, "copies", repeat, lse=True)


def standard_flash_expanded(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Own tokens, then the one context for every sample by a stride of 0, and their merge."""
    # Prompts and KV heads become heads, new tokens and groups rows: views if nothing lies between.
    folded, group = shape.samples * shape.query_tokens, shape.heads // shape.kv_heads
    heads = several(shape.prompts) * several(folded)
    rows = several(shape.query_tokens) * several(group)
    needed = maximum(heads, rows) * several(shape.kv_heads) * present(shape.context_tokens)
    context, combine = flash_part(
        shape,
        "attention_context",
        tokens=shape.context_tokens,
        kv_bytes=shape.context_copy_bytes * shape.samples,
        streams=shape.sequences * shape.kv_heads,
        sequences=shape.sequences,
        rows_blocks=row_blocks(shape, 1),
        repeat=repeat,
    )
    context = replace(
        context,
        reused_bytes=shape.context_copy_bytes * shape.samples - shape.context_stored_bytes,
        reused_footprint_bytes=shape.context_stored_bytes,
    )
    return [
        *flash_suffix(shape, repeat),
        query_fold(shape, needed, repeat),
        context,
        combine,
        merge(shape, present(shape.context_tokens) + present(shape.decoded_tokens), repeat),
    ]


def standard_rebuilt(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Keys and values concatenated for every sample, then one call."""
    return [rebuild(shape, repeat), *standard_flash(shape, repeat)]


def standard_repeat_kv(shape: AttentionShape, repeat: int) -> list[Operation]:
    """KV heads repeated to query heads in memory, group sizes of one included, then one call."""
    cache = shape.context_copy_bytes * shape.samples + shape.decoded_bytes
    group = shape.heads // shape.kv_heads
    repeated = Operation(
        name="kv_repeat",
        kind="copy",
        bytes_read=cache,
        bytes_written=cache * group,
        kv_bytes_read=cache,
        launches=2,
        repeat=repeat,
    )
    flash = flash_part(
        shape,
        "attention",
        tokens=shape.context_tokens + shape.decoded_tokens,
        kv_bytes=cache * group,
        streams=shape.sequences * shape.heads,
        sequences=shape.sequences,
        rows_blocks=1,
        repeat=repeat,
    )
    return [repeated, *flash]


def bifurcated_flash(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Own tokens; then the queries folded into rows and the context; and their merge.

    Of a tree, folding and flash for each level that is split. Where no single stride leads from a
    level's nodes to the prompts below them, its partial output and log-sum-exp are copied.
    """
    *shared, own = shape.parts
    operations = [*flash_cache(shape, own, repeat)]
    states, unfolds = present(own.tokens), 0
    for part in shared:
        exists = present(part.tokens)
        folds = folds_by_copy(shape, part.sharers) * exists
        between = several(part.caches) * several(shape.prompts // part.caches) * exists
        suffix = part.name.removeprefix("attention_context").removeprefix("attention")
        operations += [
            query_fold(shape, folds, repeat, suffix),
            *flash_cache(shape, part, repeat),
        ]
        if len(shape.levels) > 1:
            operations.append(_spread(shape, folds, between, repeat, suffix))
        states = states + exists
        unfolds = unfolds + folds * (1 - between)
    alone = where(states > 1, 0, 1)
    return [
        *operations,
        merge(shape, states, repeat),
        _unfold(shape, unfolds * alone, repeat),
    ]


def bifurcated_flash_chunked(shape: AttentionShape, repeat: int) -> list[Operation]:
    """As ``bifurcated_flash``, the context in chunks and a remainder, all merged."""
    tokens, own = shape.context_tokens, present(shape.decoded_tokens)
    context = present(tokens)
    chunks = minimum(CHUNKS, tokens)
    chunk_tokens = maximum(1, tokens // CHUNKS) * context
    rest = tokens - chunks * chunk_tokens
    token_bytes = shape.prompts * shape.cache_width * shape.kv_bytes
    streams = shape.prompts * shape.kv_heads
    chunked = flash_part(
        shape,
        "attention_context",
        tokens=chunk_tokens,
        kv_bytes=chunks * chunk_tokens * token_bytes,
        streams=streams * maximum(chunks, 1),
        sequences=shape.prompts,
        rows_blocks=row_blocks(shape, shape.samples),
        repeat=repeat,
        chunks=chunks,
    )
    remainder = flash_part(
        shape,
        "attention_remainder",
        tokens=rest,
        kv_bytes=rest * token_bytes,
        streams=streams,
        sequences=shape.prompts,
        rows_blocks=row_blocks(shape, shape.samples),
        repeat=repeat,
    )
    states = own + chunks + present(rest)
    alone = where(states > 1, 0, 1)
    # Query tokens are folded as samples are.
    folded = replace(shape, samples=shape.samples * shape.query_tokens, query_tokens=1)
    return [
        *flash_suffix(shape, repeat),
        query_fold(shape, merges_by_copy(folded) * context, repeat),
        *chunked,
        *remainder,
        merge(shape, states, repeat),
        _unfold(shape, folds_by_copy(shape, shape.samples) * context * alone, repeat),
    ]


def bifurcated_flex(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Folding, one FlexAttention call over the packed cache, the output put back; one shape only.

    The call computes every block of 128 x 128 that its mask touches, so more FLOPs than attention.
    """
    folds = folds_by_copy(shape, shape.samples)
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
        repeat=repeat,
    )
    return [query_fold(shape, folds, repeat), call, _unfold(shape, folds, repeat)]


def _visited_pairs(shape: AttentionShape) -> int:
    """Return the (row, key) pairs in the blocks that the mask of a packed cache touches."""
    group = shape.heads // shape.kv_heads
    rows = shape.samples * group
    context, own = shape.context_tokens, shape.decoded_tokens
    keys = context + shape.samples * own
    pairs = 0
    for start in range(0, rows, MASK_BLOCK):
        end = min(start + MASK_BLOCK, rows)
        own_start = context + start // group * own
        own_end = context + ((end - 1) // group + 1) * own
        # Blocks are half open: those of the context, and those of the rows' own tokens after them.
        context_blocks = ceil_div(context, MASK_BLOCK)
        first = max(own_start // MASK_BLOCK, context_blocks)
        last = ceil_div(own_end, MASK_BLOCK) if own else first
        seen = min(context_blocks * MASK_BLOCK, keys)
        seen += max(0, min(last * MASK_BLOCK, keys) - first * MASK_BLOCK)
        pairs += (end - start) * seen
    return pairs


def merge(shape: AttentionShape, states: Numeric, repeat: int) -> Operation:
    """Return the merge in float32: weights from the log-sum-exps, then a pass for each state.

    Concatenate, softmax; the first output times its weight makes a float32 sum, the others are
    added to it, the last into the outputs' own type.
    """
    needed = where(states > 1, 1, 0)
    lse_bytes = shape.rows * PARTIAL_BYTES
    output, wide = shape.output_bytes, shape.rows * shape.value_width * PARTIAL_BYTES
    further = states - 1
    read = 2 * states * lse_bytes + output + lse_bytes + further * (wide + output + lse_bytes)
    written = 2 * states * lse_bytes + wide * further + output
    return Operation(
        name="attention_merge",
        kind="combine",
        bytes_read=read * needed,
        bytes_written=written * needed,
        launches=(2 + states) * needed,
        # All of it was written a moment ago.
        scratch_bytes=read * needed,
        repeat=repeat,
    )


def query_fold(shape: AttentionShape, needed: Numeric, repeat: int, suffix: str = "") -> Operation:
    """Return the copy that folds samples and groups into rows, where a view cannot."""
    return Operation(
        name=f"query_fold{suffix}",
        kind="copy",
        bytes_read=shape.query_bytes * needed,
        bytes_written=shape.query_bytes * needed,
        launches=needed,
        repeat=repeat,
    )


def _unfold(shape: AttentionShape, needed: Numeric, repeat: int) -> Operation:
    """Return the copy that puts folded outputs back, where no merge does it."""
    return Operation(
        name="attention_unfold",
        kind="copy",
        bytes_read=shape.output_bytes * needed,
        bytes_written=shape.output_bytes * needed,
        launches=needed,
        repeat=repeat,
    )


def _spread(
    shape: AttentionShape, folds: Numeric, between: Numeric, repeat: int, suffix: str
) -> Operation:
    """Return the copies of a level's result that lay it out by prompt.

    Parameters
    ----------
    folds
        1 where its queries were copied: an output lies as its queries do.
    between
        1 where it has more than one node, and fewer than prompts.
    """
    output = shape.output_bytes * folds * between
    needed = several(shape.kv_heads) * between
    moved = output + shape.rows * PARTIAL_BYTES * needed
    return Operation(
        name=f"attention_spread{suffix}",
        kind="copy",
        bytes_read=moved,
        bytes_written=moved,
        launches=folds * between + needed,
        repeat=repeat,
    )


def folds_by_copy(shape: AttentionShape, sharers: Numeric) -> Numeric:
    """Return 1 where samples and the heads of a group are rows only after a copy."""
    group = shape.heads // shape.kv_heads
    folded = sharers * shape.query_tokens
    return several(folded) * several(shape.kv_heads) * several(group)


def merges_by_copy(shape: AttentionShape) -> Numeric:
    """Return 1 where merging prompts with KV heads, and samples with groups, needs a copy.

    Several query tokens are rows of their group already.
    """
    rows = shape.heads // shape.kv_heads * shape.query_tokens
    return several(shape.samples) * several(shape.kv_heads) * several(rows * shape.prompts)


def several(count: Numeric) -> Numeric:
    """Return 1 where there is more than one."""
    return where(count > 1, 1, 0)
