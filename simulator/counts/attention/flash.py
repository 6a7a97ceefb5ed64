"""Flash attention: split-KV, its thread blocks, and the kernels built from it.

Symbols as in :mod:`simulator.counts.attention.registry`.
"""

from dataclasses import replace

from simulator.counts.attention.shape import AttentionShape, present
from simulator.counts.attention.tree import CachePart
from simulator.counts.operation import Operation
from simulator.inputs.workload import KvLayout
from simulator.numeric import Numeric, ceil_div, maximum, minimum, where

# Query rows that one thread block of a flash kernel holds (FlashAttention-2, split path).
ROWS_PER_BLOCK = 64
# A split shorter than two 128-token tiles pays more for its partial result than it gains.
TOKENS_PER_SPLIT = 256
MOST_SPLITS = 128  # FlashAttention-2 and -3 allow no more
# A kernel whose blocks fill this share of the GPU does not split; and a wave that fills so much
# of it is as good as a full one.
ENOUGH_BLOCKS, FULL_WAVE = 0.8, 0.85
# Within so many waves, blocks of any number can be split to fill them.
MOST_WAVES = 5
PARTIAL_BYTES = 4  # split-KV partial outputs and log-sum-exps are float32


def flash_standard(
    shape: AttentionShape, layout: KvLayout, repeat: int, *, lse: bool = False
) -> list[Operation]:
    """Flash decoding: every sequence against its whole cache, its group's queries as rows.

    Parameters
    ----------
    lse
        Whether the log-sum-exp is written too, as PyTorch's operator always does.
    """
    tokens = shape.context_tokens + shape.decoded_tokens
    streams = shape.sequences * shape.kv_heads
    blocks = streams * row_blocks(shape, 1)
    splits = flash_splits(blocks=blocks, tokens=tokens, resident=shape.resident_blocks)
    partials = _partial_bytes(shape, splits)
    result = shape.output_bytes + (shape.rows * PARTIAL_BYTES if lse else 0)
    read = standard_read(
        shape,
        "attention",
        layout,
        repeat,
        written=where(splits > 1, partials, result),
        effective_blocks=_streaming_blocks(
            streams=streams,
            tokens=tokens,
            splits=splits,
            waves=_waves(blocks=blocks, splits=splits, resident=shape.resident_blocks),
        ),
        thread_blocks=blocks * splits,
        partials=partials,
    )
    return [read, _combine(shape, "attention", splits, repeat, lse=lse)]


def flash_bifurcated(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Flash on the context with all samples' queries folded, flash on the suffix, LSE merge.

    Of a tree, flash on each level that is split, and one merge of all partial outputs.
    """
    parts = shape.parts
    flashes = [flash for part in parts for flash in flash_cache(shape, part, repeat)]
    states = sum(present(part.tokens) for part in parts)
    needed = where(states > 1, 1, 0)
    merged_bytes = (shape.output_bytes + shape.rows * PARTIAL_BYTES) * (states * needed)
    merge = Operation(
        name="attention_merge",
        kind="combine",
        bytes_read=merged_bytes,
        bytes_written=shape.output_bytes * needed,
        launches=needed,
        # The partial outputs were written a moment ago.
        scratch_bytes=merged_bytes,
        repeat=repeat,
    )
    return [*flashes, merge]


def flash_cache(shape: AttentionShape, part: CachePart, repeat: int) -> tuple[Operation, Operation]:
    """Return flash on one part of the cache for the queries of all its sharers, and its combine."""
    flash, combine = flash_part(
        shape,
        part.name,
        tokens=part.tokens,
        kv_bytes=shape.cached_bytes(part.caches * part.tokens),
        streams=part.caches * shape.kv_heads,
        sequences=part.caches,
        rows_blocks=row_blocks(shape, part.sharers),
        repeat=repeat,
    )
    if isinstance(part.stored_tokens, int) and part.stored_tokens == 0:
        return flash, combine
    flash = replace(
        flash,
        reused_bytes=shape.cached_bytes(part.repeated_tokens),
        reused_footprint_bytes=shape.cached_bytes(part.stored_tokens),
    )
    return flash, combine


def flash_suffix(shape: AttentionShape, repeat: int) -> tuple[Operation, Operation]:
    """Return flash on each sample's own tokens, and its combine."""
    return flash_cache(shape, shape.own_part, repeat)


def flash_part(
    shape: AttentionShape,
    name: str,
    *,
    tokens: Numeric,
    kv_bytes: Numeric,
    streams: Numeric,
    sequences: Numeric,
    rows_blocks: Numeric,
    repeat: int,
    chunks: Numeric = 1,
) -> tuple[Operation, Operation]:
    """Return flash attention over one part of the keys, with log-sum-exp, and its combine.

    Parameters
    ----------
    streams
        Key sequences that are read: one for each cache and KV head.
    sequences
        Caches that are read.
    rows_blocks
        Thread blocks over which the query rows of each are spread.
    chunks
        Chunks of the keys, each a stream with ``tokens`` keys and a result of its own.
    """
    exists = present(tokens)
    blocks = streams * rows_blocks
    splits = flash_splits(blocks=blocks, tokens=tokens, resident=shape.resident_blocks)
    partials = _partial_bytes(shape, splits) * chunks
    result = (shape.output_bytes + shape.rows * PARTIAL_BYTES) * chunks
    part = Operation(
        name=name,
        kind="attention",
        flops=shape.flops(tokens * chunks),
        bytes_read=(shape.query_bytes + kv_bytes) * exists,
        bytes_written=where(splits > 1, partials, result) * exists,
        kv_bytes_read=kv_bytes,
        launches=exists,
        effective_blocks=_streaming_blocks(
            streams=streams,
            tokens=tokens,
            splits=splits,
            waves=_waves(blocks=blocks, splits=splits, resident=shape.resident_blocks),
        ),
        thread_blocks=blocks * splits * exists,
        sequences=sequences * exists,
        scratch_bytes=partials,
        dtype=shape.dtype,
        repeat=repeat,
    )
    return part, _combine(shape, name, splits, repeat, lse=True, chunks=chunks)


def standard_read(
    shape: AttentionShape,
    name: str,
    layout: KvLayout,
    repeat: int,
    *,
    written: Numeric,
    effective_blocks: Numeric | None = None,
    thread_blocks: Numeric = 0,
    partials: Numeric = 0,
) -> Operation:
    """Return one kernel in which every sequence reads its whole cache."""
    read = shape.context_copy_bytes * shape.samples
    footprint = shape.context_stored_bytes if layout == "shared" else 0
    repeated = read - footprint if layout == "shared" else 0
    kv_bytes = read + shape.decoded_bytes
    return Operation(
        name=name,
        kind="attention",
        flops=shape.flops(shape.context_tokens + shape.decoded_tokens),
        bytes_read=shape.query_bytes + kv_bytes,
        bytes_written=written,
        kv_bytes_read=kv_bytes,
        effective_blocks=effective_blocks,
        thread_blocks=thread_blocks,
        sequences=0 if effective_blocks is None else shape.sequences,
        reused_bytes=repeated,
        reused_footprint_bytes=footprint,
        scratch_bytes=partials,
        dtype=shape.dtype,
        repeat=repeat,
    )


def rebuild(shape: AttentionShape, repeat: int) -> Operation:
    """Return the concatenation of one shared context with every sample's own cache."""
    written = shape.context_copy_bytes * shape.samples + shape.decoded_bytes
    read = shape.context_stored_bytes + shape.decoded_bytes
    return Operation(
        name="kv_concatenate",
        kind="copy",
        bytes_read=read,
        bytes_written=written,
        kv_bytes_read=read,
        launches=2,
        repeat=repeat,
    )


def _combine(
    shape: AttentionShape,
    within: str,
    splits: Numeric,
    repeat: int,
    *,
    lse: bool,
    chunks: Numeric = 1,
) -> Operation:
    """Return the kernel that adds up split-KV partials; it does not exist for one split."""
    needed = where(splits > 1, 1, 0)
    partials = _partial_bytes(shape, splits) * chunks
    result = (shape.output_bytes + (shape.rows * PARTIAL_BYTES if lse else 0)) * chunks
    return Operation(
        name=f"{within}_combine",
        kind="combine",
        bytes_read=partials,
        bytes_written=result * needed,
        launches=needed,
        splits=splits * needed,
        scratch_bytes=partials,
        within=within,
        repeat=repeat,
    )


def flash_splits(*, blocks: Numeric, tokens: Numeric, resident: int) -> Numeric:
    """Return into how many parts a flash-decoding kernel cuts the keys.

    Enough to fill the GPU once, or in the fewest waves that leave no room idle where one does;
    every part but the last at least two tiles. A closed form of the rule of FlashAttention-2 and -3
    (``num_splits_heuristic`` takes the smallest number that fills 85 % of the room as well as the
    best does, and does not split blocks that fill 80 % of them).

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
    >>> flash_splits(blocks=72, tokens=8192, resident=132)  # in one part room for 60 would be idle
    5
    """
    most = minimum(ceil_div(tokens, TOKENS_PER_SPLIT), MOST_SPLITS)
    splits = minimum(resident // blocks, most)
    for waves in range(MOST_WAVES, 0, -1):
        many = waves * resident // blocks
        fills = (many * blocks >= FULL_WAVE * waves * resident) * (many <= most)
        splits = where(fills, many, splits)
    return where(blocks < ENOUGH_BLOCKS * resident, maximum(1, splits), 1)


def _waves(*, blocks: Numeric, splits: Numeric, resident: int) -> Numeric:
    """Return in how many waves the thread blocks of a split kernel run."""
    return where(splits > 1, ceil_div(blocks * splits, resident), 1)


def _streaming_blocks(
    *, streams: Numeric, tokens: Numeric, splits: Numeric, waves: Numeric = 1
) -> Numeric:
    """Return how many evenly loaded thread blocks would read the keys as fast as these do.

    Blocks that hold other query rows of the same KV head read the same keys, so they add nothing;
    the longest part, a whole number of tile pairs, keeps its block busy after the others; and
    blocks of a later wave wait for those before.

    >>> _streaming_blocks(streams=8, tokens=8192, splits=32)
    256.0
    >>> _streaming_blocks(streams=8, tokens=257, splits=2)  # the second part is one token long
    8.03125
    >>> _streaming_blocks(streams=8, tokens=8192, splits=32, waves=2)
    128.0
    """
    tiles = ceil_div(ceil_div(tokens, TOKENS_PER_SPLIT), splits)
    longest = minimum(tokens, tiles * TOKENS_PER_SPLIT)
    return streams * maximum(tokens, 1) / (maximum(longest, 1) * waves)


def _partial_bytes(shape: AttentionShape, splits: Numeric) -> Numeric:
    """Return the bytes of all partial outputs and log-sum-exps; none for a single split."""
    return where(splits > 1, splits, 0) * shape.rows * (shape.value_width + 1) * PARTIAL_BYTES


def row_blocks(shape: AttentionShape, samples: Numeric) -> Numeric:
    """Return the thread blocks that the query rows of one KV head fill."""
    rows = samples * shape.query_tokens * (shape.heads // shape.kv_heads)
    return ceil_div(rows, ROWS_PER_BLOCK)
