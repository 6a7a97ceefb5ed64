"""Flash attention: logits stay on the chip, and the keys are split until they fill the GPU.

Standard: every sequence against its whole cache, its group's queries as rows. Bifurcated: flash on
the context with all samples' queries folded into rows, [1, g, b h / g, k], flash on the decoded
tokens, and a merge by log-sum-exp. In plain PyTorch, folding and merge are separate kernels.
"""

from dataclasses import dataclass

from simulator.counts.attention.plain import (
    folds_by_copy,
    merge,
    moved,
    query_fold,
    rebuild,
    unfold,
)
from simulator.counts.attention.shape import AttentionShape, present, several
from simulator.counts.attention.tree import CachePart
from simulator.counts.attention.way import PARTIAL_BYTES, PlainKernel, Way
from simulator.counts.operation import Operation
from simulator.inputs.setup import Setup
from simulator.numeric import Numeric, ceil_div, maximum, minimum, where

# Query rows that one thread block of a flash kernel holds (FlashAttention-2, split path).
ROWS_PER_BLOCK = 64
# A split shorter than two 128-token tiles costs more for its partial result than it gains.
TOKENS_PER_SPLIT = 256
MOST_SPLITS = 128  # FlashAttention-2 and -3 allow no more
# A kernel whose blocks fill the first share of the GPU does not split; a wave that fills the
# second counts as full.
ENOUGH_BLOCKS, FULL_WAVE = 0.8, 0.85
# Any number of blocks can be split to fill this many waves.
MOST_WAVES = 5


@dataclass(frozen=True, kw_only=True)
class Flash(Way):
    """Flash decoding as in FlashAttention-2 and -3: it folds queries and splits the keys."""

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return flash decoding, and the combine of its partial results."""
        return flash_part(shape, shape.whole(rereads=rereads), lse=False)

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return flash on each part of the cache, and one merge of all outputs."""
        shared = shape.expanded or shape
        operations: list[Operation] = []
        states: Numeric = 0
        *above, own = shape.parts
        for sizes, part in (*((shared, part) for part in above), (shape, own)):
            operations += flash_part(sizes, part)
            states = states + present(part.tokens)
        needed = where(states > 1, 1, 0)
        # Outputs of the absorbed form are merged after they have left the latent space.
        merged_bytes = (shared.output_bytes + shape.rows * PARTIAL_BYTES) * (states * needed)
        return [
            *operations,
            Operation(
                name="attention_merge",
                kind="combine",
                bytes_read=merged_bytes,
                bytes_written=shared.output_bytes * needed,
                launches=needed,
                # The partial outputs were written a moment ago.
                scratch_bytes=merged_bytes,
            ),
        ]

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the calls of PyTorch's flash operator, and the copies and merge around them."""
        if setup.bifurcated:
            return bifurcated_flash(shape)
        return standard_flash_expanded(shape) if setup.rereads else standard_flash(shape)

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:  # noqa: ARG002
        """Return the largest size of split-KV partials: the rows of all resident blocks."""
        rows = shape.resident_blocks * ROWS_PER_BLOCK
        return rows * (shape.value_width + 1) * PARTIAL_BYTES


def flash_part(
    shape: AttentionShape, part: CachePart, *, lse: bool = True, chunks: Numeric = 1
) -> list[Operation]:
    """Return flash attention over one part of the keys, and the combine of its partial results.

    Parameters
    ----------
    part
        The keys, and the sequences whose queries read each of its caches.
    lse
        Whether the kernel also writes the log-sum-exp, as a merge needs and PyTorch always does.
    chunks
        Chunks of the keys, each with the part's number of tokens and its own result.
    """
    exists = present(part.tokens)
    streams = part.caches * shape.kv_heads * maximum(chunks, 1)
    blocks = streams * row_blocks(shape, part.sharers)
    splits = flash_splits(blocks=blocks, tokens=part.tokens, resident=shape.resident_blocks)
    partials = where(splits > 1, splits, 0) * shape.rows * (shape.value_width + 1) * PARTIAL_BYTES
    partials = partials * chunks
    result = (shape.output_bytes + (shape.rows * PARTIAL_BYTES if lse else 0)) * chunks
    kv_bytes = shape.cached_bytes(part.caches * part.tokens * chunks)
    needed = where(splits > 1, 1, 0)
    waves = where(splits > 1, ceil_div(blocks * splits, shape.resident_blocks), 1)
    return [
        Operation(
            name=part.name,
            kind=shape.kind,
            flops=shape.flops(part.tokens * chunks),
            bytes_read=(shape.query_bytes + kv_bytes) * exists,
            bytes_written=where(splits > 1, partials, result) * exists,
            kv_bytes_read=kv_bytes,
            launches=exists,
            effective_blocks=_effective_blocks(
                streams=streams, tokens=part.tokens, splits=splits, waves=waves
            ),
            thread_blocks=blocks * splits * exists,
            sequences=part.caches * exists,
            reused_bytes=shape.cached_bytes(part.repeated_tokens),
            reused_footprint_bytes=shape.cached_bytes(part.stored_tokens),
            scratch_bytes=partials,
            dtype=shape.dtype,
        ),
        Operation(
            name=f"{part.name}_combine",
            kind="combine",
            bytes_read=partials,
            bytes_written=result * needed,
            launches=needed,
            splits=splits * needed,
            scratch_bytes=partials,
            within=part.name,
        ),
    ]


def row_blocks(shape: AttentionShape, samples: Numeric) -> Numeric:
    """Return the thread blocks that the query rows of one KV head fill."""
    return ceil_div(samples * shape.query_tokens * shape.group, ROWS_PER_BLOCK)


def flash_splits(*, blocks: Numeric, tokens: Numeric, resident: int) -> Numeric:
    """Return the number of parts into which a flash-decoding kernel splits the keys.

    Enough to fill the GPU in one wave, or in the fewest full waves if one leaves room idle; every
    part but the last has at least two tiles. A closed form of the rule of FlashAttention-2 and -3:
    ``num_splits_heuristic`` takes the smallest number whose occupancy is at least 85 % of the best
    one, and does not split blocks that fill 80 % of the GPU.

    Parameters
    ----------
    blocks
        Thread blocks without splitting.
    tokens
        Keys per sequence.
    resident
        Thread blocks the GPU runs at once.

    Examples
    --------
    >>> flash_splits(blocks=8, tokens=8192, resident=264)
    32
    >>> flash_splits(blocks=512, tokens=8192, resident=264)
    1
    >>> flash_splits(blocks=72, tokens=8192, resident=132)  # in one part, room for 60 is idle
    5
    """
    most = minimum(ceil_div(tokens, TOKENS_PER_SPLIT), MOST_SPLITS)
    splits = minimum(resident // blocks, most)
    for waves in range(MOST_WAVES, 0, -1):
        many = waves * resident // blocks
        fills = (many * blocks >= FULL_WAVE * waves * resident) * (many <= most)
        splits = where(fills, many, splits)
    return where(blocks < ENOUGH_BLOCKS * resident, maximum(1, splits), 1)


def _effective_blocks(
    *, streams: Numeric, tokens: Numeric, splits: Numeric, waves: Numeric = 1
) -> Numeric:
    """Return how many evenly loaded thread blocks would read the keys equally fast.

    Blocks with other query rows of the same KV head read the same keys, so they add nothing; the
    longest part, a whole number of tile pairs, finishes after the others; and blocks of a later
    wave wait for the earlier ones.

    >>> _effective_blocks(streams=8, tokens=8192, splits=32)
    256.0
    >>> _effective_blocks(streams=8, tokens=257, splits=2)  # the second part is one token long
    8.03125
    >>> _effective_blocks(streams=8, tokens=8192, splits=32, waves=2)
    128.0
    """
    tiles = ceil_div(ceil_div(tokens, TOKENS_PER_SPLIT), splits)
    longest = minimum(tokens, tiles * TOKENS_PER_SPLIT)
    return streams * maximum(tokens, 1) / (maximum(longest, 1) * waves)


# In plain PyTorch, built on its flash attention operator.


def standard_flash(shape: AttentionShape) -> list[Operation]:
    """One call over each sample's copy of the context."""
    return flash_part(shape, shape.whole())


def standard_flash_expanded(shape: AttentionShape) -> list[Operation]:
    """Return a call on decoded tokens, one on the context for every sample, and the merge."""
    # Prompts and KV heads become heads, new tokens and groups become rows: views if contiguous.
    heads = several(shape.prompts) * several(shape.samples * shape.query_tokens)
    rows = several(shape.query_tokens) * several(shape.group)
    needed = maximum(heads, rows) * several(shape.kv_heads) * present(shape.context_tokens)
    stored = shape.stored_context_tokens
    context = CachePart(
        name="attention_context",
        tokens=shape.context_tokens,
        caches=shape.sequences,
        sharers=1,
        repeated_tokens=shape.sequences * shape.context_tokens - stored,
        stored_tokens=stored,
    )
    return [
        *flash_part(shape, shape.decoded_part),
        query_fold(shape, needed),
        *flash_part(shape, context),
        merge(shape, present(shape.context_tokens) + present(shape.decoded_tokens)),
    ]


def standard_rebuilt(shape: AttentionShape) -> list[Operation]:
    """Concatenated keys and values for every sample, then one call."""
    return [rebuild(shape), *standard_flash(shape)]


def bifurcated_flash(shape: AttentionShape) -> list[Operation]:
    """Return a call on decoded tokens, one on the context with folded queries, and the merge.

    In a tree, each split level has its own folding and flash. If no single stride leads from a
    level's nodes to the prompts below them, its partial output and log-sum-exp are copied.
    """
    *shared, own = shape.parts
    operations = flash_part(shape, own)
    states, unfolds = present(own.tokens), 0
    for part in shared:
        exists = present(part.tokens)
        folds = folds_by_copy(shape, part.sharers) * exists
        between = several(part.caches) * several(shape.prompts // part.caches) * exists
        level = part.name.removeprefix("attention_context").removeprefix("attention")
        operations += [query_fold(shape, folds, level), *flash_part(shape, part)]
        if len(shape.levels) > 1:
            operations.append(_spread(shape, folds, between, level))
        states = states + exists
        unfolds = unfolds + folds * (1 - between)
    alone = where(states > 1, 0, 1)
    return [*operations, merge(shape, states), unfold(shape, unfolds * alone)]


def _spread(shape: AttentionShape, folds: Numeric, between: Numeric, level: str) -> Operation:
    """Return the copies that lay out a level's result by prompt.

    Parameters
    ----------
    folds
        1 where its queries were copied: an output has its queries' layout.
    between
        1 where it has more than one node but fewer than prompts.
    """
    lse = several(shape.kv_heads) * between
    copied_bytes = shape.output_bytes * folds * between + shape.rows * PARTIAL_BYTES * lse
    launches = folds * between + lse
    return moved(
        f"attention_spread{level}", copied_bytes, copied_bytes, launches=launches, kind="copy"
    )


PLAIN_FLASH = (
    PlainKernel(
        name="standard_flash",
        attention="standard",
        kernel="flash",
        kv_layout="copies",
        operations=standard_flash,
    ),
    PlainKernel(
        name="standard_flash_expanded",
        attention="standard",
        kernel="flash",
        kv_layout="shared",
        operations=standard_flash_expanded,
    ),
    PlainKernel(
        name="standard_rebuilt",
        attention="standard",
        kernel="flash",
        kv_layout="rebuilt",
        operations=standard_rebuilt,
    ),
    PlainKernel(
        name="bifurcated_flash",
        attention="bifurcated",
        kernel="flash",
        kv_layout="shared",
        operations=bifurcated_flash,
    ),
    # A tree with one shared level and decoded tokens is bifurcated attention.
    PlainKernel(
        name="prefix_tree",
        attention="bifurcated",
        kernel="flash",
        kv_layout="shared",
        operations=bifurcated_flash,
    ),
)
