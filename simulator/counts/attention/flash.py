"""Flash attention: logits stay on the chip, and the keys are split until they fill the GPU.

Standard: every sequence against its whole cache, its group's queries as rows. Bifurcated: flash on
the context with all samples' queries folded into rows, [1, g, b h / g, k], flash on the decoded
tokens, and a merge by log-sum-exp. In plain PyTorch, folding and merge are separate kernels.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from simulator.counts.attention import plain
from simulator.counts.attention.shape import AttentionShape, CachePart, present, several
from simulator.counts.attention.way import PARTIAL_BYTES, PlainKernel, Way
from simulator.counts.operation import Operation, streamed
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, ceil_div, floor_div, maximum, minimum, surely_positive, where

# Query rows that one thread block of a flash kernel holds (FlashAttention-2, split path).
ROWS_PER_BLOCK = 64
# FlashInfer has smaller tiles for so few rows: its calls over 8-bit caches on L40S are too fast for
# padding to 64. Other kernels' calls of so few are far from compute-bound: padding does not show.
SMALL_TILE_ROWS = 16
# FlashInfer takes the smallest of three tiles that holds all query rows of a KV head.
FLASHINFER_ROWS = (16, 64, 128)
# A split shorter than two 128-token tiles costs more for its partial result than it gains.
TOKENS_PER_SPLIT = 256
MOST_SPLITS = 128  # FlashAttention-2 and -3 allow no more
# A kernel whose blocks fill the first share of the GPU does not split; a wave that fills the
# second counts as full.
ENOUGH_BLOCKS, FULL_WAVE = 0.8, 0.85
# Any number of blocks can be split to fill this many waves.
MOST_WAVES = 5


class SharedKernel(NamedTuple):
    """How a library's kernel reads the keys that several samples share.

    Attributes
    ----------
    folds
        Whether the query heads of a KV head become rows of the same block; otherwise each query
        head has blocks of its own.
    splits
        Whether several blocks share the keys of a KV head, to fill the GPU.
    rows
        Query rows of a thread block: the sizes to choose from, the smallest first. The blocks of a
        KV head run side by side, so that device memory sees their reads once.
    merges
        Whether a kernel of its own merges the parts; otherwise the last part's kernel does.
    """

    folds: bool = True
    splits: bool = True
    rows: tuple[int, ...] = (ROWS_PER_BLOCK,)
    merges: bool = True

    def query_rows(self, shape: AttentionShape, samples: Numeric) -> Numeric:
        """Return the query rows that share tiles."""
        return samples * shape.query_tokens * (shape.group if self.folds else 1)

    def row_blocks(self, shape: AttentionShape, samples: Numeric) -> Numeric:
        """Return the thread blocks that hold the query rows of one KV head."""
        of_head, tile = self._tiles(shape, samples)
        return ceil_div(of_head, tile) * (1 if self.folds else shape.group)

    def tile_rows_per_row(self, shape: AttentionShape, samples: Numeric) -> Numeric:
        """Return the rows of whole tiles that the matrix units multiply for each query row."""
        of_head, tile = self._tiles(shape, samples)
        padded = ceil_div(of_head, tile) * tile
        return where(of_head > SMALL_TILE_ROWS, padded / of_head, 1)

    def _tiles(self, shape: AttentionShape, samples: Numeric) -> tuple[Numeric, Numeric]:
        """Return the query rows that share tiles, and the rows of a tile."""
        of_head = self.query_rows(shape, samples)
        tile: Numeric = self.rows[-1]
        for rows in reversed(self.rows[:-1]):
            tile = where(of_head <= rows, rows, tile)
        return of_head, tile


FOLDED = SharedKernel()


@dataclass(frozen=True, kw_only=True)
class Flash(Way):
    """Flash decoding as in FlashAttention-2 and -3: it folds queries and splits the keys.

    Attributes
    ----------
    shared
        The kernel that reads the keys that several samples share.
    """

    shared: SharedKernel = FOLDED

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return flash decoding, and the combine of its partial results."""
        return flash_part(shape, shape.whole(rereads=rereads), lse=False)

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return flash on each part of the cache, and one merge of all outputs."""
        shared = shape.expanded or shape
        operations: list[Operation] = []
        states: Numeric = 0
        *levels, own = shape.parts
        for part in levels:
            operations += flash_part(shared, part, kernel=self.shared)
            states = states + present(part.tokens)
        suffix, combine = flash_part(shape, own)
        states = states + present(own.tokens)
        needed = where(states > 1, 1, 0)
        # Outputs of the absorbed form are merged after they have left the latent space.
        result_bytes = (shared.output_bytes + shape.rows * PARTIAL_BYTES) * needed
        merged_bytes = result_bytes * (states if self.shared.merges else states - 1)
        operations += [suffix, combine]
        if not self.shared.merges:
            # The last kernel reads the others' results and merges them with its own in registers.
            suffix.bytes_read = suffix.bytes_read + merged_bytes
            suffix.scratch_bytes = suffix.scratch_bytes + merged_bytes
            return operations
        merging = streamed(
            "attention_merge",
            merged_bytes,
            shared.output_bytes * needed,
            launches=needed,
            kind="combine",
            # The partial outputs were written a moment ago.
            scratch_bytes=merged_bytes,
        )
        return [*operations, merging]

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the calls of PyTorch's flash operator, and the copies and merge around them."""
        if setup.bifurcated:
            return bifurcated_flash(shape)
        return standard_flash_expanded(shape) if setup.rereads else standard_flash(shape)

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:  # noqa: ARG002
        """Return the most bytes of split-KV partial results: the rows of all resident blocks."""
        rows = shape.resident_blocks * ROWS_PER_BLOCK
        return rows * (shape.value_width + 1) * PARTIAL_BYTES


@dataclass(frozen=True, kw_only=True)
class EngineFlash(Flash):
    """The shared-prefix kernel of an engine, beside its ordinary flash decoding.

    Attributes
    ----------
    limits
        What it cannot serve: a sliding window, several levels of a tree, several prompts.
    """

    limits: tuple[Literal["windows", "trees", "prompts"], ...] = ()

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the fused operations: an engine's kernels are no PyTorch code."""
        return Way.plain(self, shape, setup)

    def refusal(self, model: ModelShape, work: Workload) -> str:
        """Say what of the question the engine computes without sharing; empty if nothing."""
        if model.latent is not None:
            return f"kernel {self.name!r} shares no latent cache; use flash"
        if "windows" in self.limits and any(group.limited for group in model.layer_groups):
            return f"kernel {self.name!r} shares no layers with a sliding window; use flash"
        if "trees" in self.limits and len(work.tree) > 1:
            return f"kernel {self.name!r} shares one prefix, not a tree of several; use flash"
        if "prompts" in self.limits and surely_positive(work.prompts - 1):
            return (
                f"prompts = {work.prompts}: kernel {self.name!r} reads once what all prompts "
                "share, and several share nothing; use flashinfer"
            )
        return ""


# vLLM 0.7 to 0.31 with FlashAttention-2: the prefix is one sequence whose queries are all samples'
# tokens. Calls of several query tokens fold no heads, and paged ones do not split the keys
# (vllm/v1/attention/backends/flash_attn.py @ 5704f34; PyTorch's flash_api.cpp @ 03b7c19).
VLLM_CASCADE = EngineFlash(
    name="vllm-cascade",
    shared=SharedKernel(folds=False, splits=False),
    limits=("windows", "trees", "prompts"),
    caution="vLLM switched cascade attention off by default in March 2026 and removed it in 0.32; "
    "over prefixes of 512 tokens it was measured slower than this model says (vllm#44397).",
)
# FlashInfer: a batch-prefill call for each level; rows are packed, keys are split
# (flashinfer-ai/flashinfer @ fb28d7242).
FLASHINFER = EngineFlash(name="flashinfer", shared=SharedKernel(rows=FLASHINFER_ROWS))
# TensorRT-LLM's beam search: 16 beams a block, so that the prefix is read once for every 16 beams,
# but by blocks that run side by side; the suffix kernel merges (TensorRT-LLM#14396).
TRTLLM_CASCADE = EngineFlash(
    name="trtllm-cascade",
    shared=SharedKernel(folds=False, rows=(16,), merges=False),
    limits=("windows", "trees"),
    caution="TRTLLM_ENABLE_CASCADE_MMHA switches it on, for beam search.",
)


def flash_part(
    shape: AttentionShape,
    part: CachePart,
    *,
    kernel: SharedKernel = FOLDED,
    lse: bool = True,
    chunks: Numeric = 1,
) -> list[Operation]:
    """Return flash attention over one part of the keys, and the combine of its partial results.

    Parameters
    ----------
    part
        The keys, and the sequences whose queries read each of its caches.
    kernel
        How it reads them.
    lse
        Whether the kernel also writes the log-sum-exp, as a merge needs and PyTorch always does.
    chunks
        Chunks of the keys, each with the part's number of tokens and its own result.
    """
    exists = present(part.tokens)
    streams = part.caches * shape.kv_heads * maximum(chunks, 1)
    blocks = streams * kernel.row_blocks(shape, part.sharers)
    splits: Numeric = 1
    if kernel.splits:
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
            head_width=(shape.key_width + shape.value_width) / 2,
            query_rows=kernel.query_rows(shape, part.sharers),
            tile_rows_per_row=kernel.tile_rows_per_row(shape, part.sharers),
            sequences=part.caches * exists,
            reused_bytes=shape.cached_bytes(part.repeated_tokens),
            reused_footprint_bytes=shape.cached_bytes(part.stored_tokens),
            together_bytes=together_bytes(shape, part),
            scratch_bytes=partials,
            dtype=shape.dtype,
        ),
        streamed(
            f"{part.name}_combine",
            partials,
            result * needed,
            launches=needed,
            kind="combine",
            splits=splits * needed,
            scratch_bytes=partials,
            within=part.name,
        ),
    ]


def together_bytes(
    shape: AttentionShape, part: CachePart, token_bytes: Numeric | None = None
) -> Numeric | None:
    """Return the repeated reads of keys stored once that one wave makes together.

    A wave runs the thread blocks of some caches at once, with all their KV heads. What these caches
    share comes from memory once in a wave at best; each wave reads it again. Split blocks divide
    the keys among them, so they do not change how many caches a wave holds.

    Parameters
    ----------
    part
        The keys.
    token_bytes
        What is read of each token; None for keys and values. [bytes]

    Returns
    -------
    Numeric
        Bytes; None if no keys are stored once for several caches.
    """
    if part.stored_tokens.__class__ is int and part.stored_tokens == 0:
        return None
    in_flight = shape.resident_blocks / (shape.kv_heads * FOLDED.row_blocks(shape, part.sharers))
    reads = part.stored_tokens + part.repeated_tokens
    from_memory = minimum(reads, maximum(part.stored_tokens, reads / in_flight))
    return (reads - from_memory) * (shape.cached_bytes(1) if token_bytes is None else token_bytes)


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
    splits = minimum(floor_div(resident, blocks), most)
    for waves in range(MOST_WAVES, 0, -1):
        many = floor_div(waves * resident, blocks)
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
        plain.query_fold(shape, needed),
        *flash_part(shape, context),
        plain.merge(shape, present(shape.context_tokens) + present(shape.decoded_tokens)),
    ]


def standard_rebuilt(shape: AttentionShape) -> list[Operation]:
    """Concatenated keys and values for every sample, then one call."""
    return [plain.rebuild(shape), *standard_flash(shape)]


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
        folds = plain.folds_by_copy(shape, part.sharers) * exists
        between = several(part.caches) * several(shape.prompts // part.caches) * exists
        level = part.name.removeprefix("attention_context").removeprefix("attention")
        operations += [plain.query_fold(shape, folds, level), *flash_part(shape, part)]
        if len(shape.levels) > 1:
            operations.append(_spread(shape, folds, between, level))
        states = states + exists
        unfolds = unfolds + folds * (1 - between)
    alone = where(states > 1, 0, 1)
    return [*operations, plain.merge(shape, states), plain.unfold(shape, unfolds * alone)]


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
    return plain.moved(
        f"attention_spread{level}", copied_bytes, copied_bytes, launches=launches, kind="copy"
    )


PLAIN_FLASH = (
    PlainKernel("standard_flash", "standard", "flash", "copies", standard_flash),
    PlainKernel("standard_flash_expanded", "standard", "flash", "shared", standard_flash_expanded),
    PlainKernel("standard_rebuilt", "standard", "flash", "rebuilt", standard_rebuilt),
    PlainKernel("bifurcated_flash", "bifurcated", "flash", "shared", bifurcated_flash),
    # A tree with one shared level and decoded tokens is bifurcated attention.
    PlainKernel("prefix_tree", "bifurcated", "flash", "shared", bifurcated_flash),
)
