"""Operations of a whole model: one decode step, and the prefill of a context."""

from collections.abc import Sequence
from dataclasses import replace

from simulator.counts import layers
from simulator.counts.attention.registry import attention_operations
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.attention.tree import SharedLevel, stored_tokens, visible_levels
from simulator.counts.mlp import mlp
from simulator.counts.operation import Operation
from simulator.counts.pieces import Slice
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import DTYPE_BYTES, activation_dtype
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import WorkloadLike
from simulator.numeric import Numeric, ceil_div, maximum, minimum

# Query rows that one thread block of a flash kernel holds in prefill.
PREFILL_ROWS_PER_BLOCK = 128


def decode_operations(
    model: ModelShape, work: WorkloadLike, *, resident_blocks: int
) -> list[Operation]:
    """List the operations of one decode step on one GPU of the tensor-parallel group.

    Parameters
    ----------
    model, work
        The model and the question; numeric fields of ``work`` may be arrays.
    resident_blocks
        Thread blocks the GPU runs at once: flash kernels split the keys to fill them.

    Raises
    ------
    WorkloadError
        If the heads cannot be split over ``work.tensor_parallel`` GPUs.
    """
    check_split(model, work.tensor_parallel)
    tokens = work.prompts * work.samples * work.query_tokens
    part = _slice(model, work, tokens, positions=work.query_tokens)
    operations = layers.embedding(part)
    operations += layers.attention_input(part, model.layers)
    for window, count in _layers_by(model, "window").items():
        attention = attention_operations(
            decode_attention_shape(model, work, window, resident_blocks=resident_blocks),
            attention=work.attention,
            kernel=work.kernel,
            kv_layout=work.kv_layout,
            execution=work.execution,
            repeat=count,
        )
        operations += _marked(attention, window)
    operations += layers.attention_output(part, model.layers)
    for sparse, count in _layers_by(model, "sparse").items():
        operations += mlp(part, count, sparse=bool(sparse))
    return operations + layers.head(part, tokens)


def prefill_operations(model: ModelShape, work: WorkloadLike) -> list[Operation]:
    """List the operations that fill the cache with every prompt's context, once each.

    Standard attention with one cache copy per sample then copies it ``samples`` times. Of a tree
    that is stored once, each node is computed once, after all those above it.
    """
    check_split(model, work.tensor_parallel)
    levels = prefilled_levels(work)
    tokens = stored_tokens(levels)
    part = _slice(model, work, tokens, positions=work.context_tokens)
    operations = layers.embedding(part)
    operations += layers.attention_input(part, model.layers, absorbed=False)
    for window, count in _layers_by(model, "window").items():
        attention = _prefill_attention(model, work, levels, window, count)
        operations += _marked(attention, window)
    operations += layers.attention_output(part, model.layers, absorbed=False)
    for sparse, count in _layers_by(model, "sparse").items():
        operations += mlp(part, count, sparse=bool(sparse))
    operations += layers.head(part, work.prompts)
    if work.attention == "standard" and work.kv_layout == "copies":
        for window, count in _layers_by(model, "window").items():
            operations += _marked([_broadcast_cache(model, work, window, count)], window)
    return operations


def _layers_by(model: ModelShape, field: str) -> dict[int | None, int]:
    """Return how many layers have each value of a field of their group."""
    layers_by: dict[int | None, int] = {}
    for group in model.layer_groups:
        value = getattr(group, field)
        layers_by[value] = layers_by.get(value, 0) + group.count
    return layers_by


def _marked(operations: list[Operation], window: int | None) -> list[Operation]:
    """Mark the operations of layers with a sliding window by their names."""
    if window is None:
        return operations
    return [
        replace(
            operation,
            name=f"{operation.name}_windowed",
            within=f"{operation.within}_windowed" if operation.within else "",
        )
        for operation in operations
    ]


def check_split(model: ModelShape, ranks: int) -> None:
    """Refuse a tensor-parallel size over which the heads do not divide.

    Raises
    ------
    WorkloadError
        If a rank would hold a fraction of a head.
    """
    kv_splits = model.kv_heads % ranks == 0 or ranks % model.kv_heads == 0
    if model.heads % ranks or not kv_splits:
        valid = [
            size
            for size in range(1, model.heads + 1)
            if model.heads % size == 0
            and (model.kv_heads % size == 0 or size % model.kv_heads == 0)
        ]
        raise WorkloadError(
            f"tensor_parallel = {ranks} does not divide the {model.heads} heads and "
            f"{model.kv_heads} KV heads of {model.name}; it can be {', '.join(map(str, valid))}"
        )


def decode_attention_shape(
    model: ModelShape, work: WorkloadLike, window: int | None, *, resident_blocks: int
) -> AttentionShape:
    """Return the attention sizes of one layer on one GPU.

    With a sliding window of w tokens a query sees its sample's last w tokens: first its own, then
    the end of the context.
    """
    context, decoded = visible_tokens(work.context_tokens, work.decoded_tokens, window)
    compute = activation_dtype(work.weight_dtype)
    kv_heads, key_width, value_width, cache_width = rank_geometry(model, work.tensor_parallel)
    return AttentionShape(
        prompts=work.prompts,
        samples=work.samples,
        query_tokens=work.query_tokens,
        context_tokens=context,
        decoded_tokens=decoded,
        heads=model.heads // work.tensor_parallel,
        kv_heads=kv_heads,
        key_width=key_width,
        value_width=value_width,
        cache_width=cache_width,
        activation_bytes=DTYPE_BYTES[compute],
        kv_bytes=DTYPE_BYTES[work.kv_dtype],
        dtype=compute,
        resident_blocks=resident_blocks,
        levels=visible_levels(work, context) if work.tree else (),
    )


def visible_tokens(
    context: Numeric, decoded: Numeric, window: int | None
) -> tuple[Numeric, Numeric]:
    """Return how many context and own tokens a query sees through a sliding window.

    >>> visible_tokens(8192, 64, 4096)
    (4032, 64)
    """
    if window is None:
        return context, decoded
    own = minimum(decoded, window)
    return minimum(context, maximum(window - own, 0)), own


def rank_geometry(model: ModelShape, ranks: int) -> tuple[int, int, int, int]:
    """Return one GPU's KV heads, key width, value width and cached values per token and layer.

    KV heads are split over the GPUs, and replicated where there are fewer than GPUs. A latent
    cache (MLA) cannot be split; in decoding its keys are the cached vector itself, its values the
    vector without the rotary part (the absorbed form).
    """
    if model.latent is not None:
        latent = model.latent
        return 1, latent.kv_rank + latent.rope_dim, latent.kv_rank, model.cache_width
    kv_heads = max(1, model.kv_heads // ranks)
    return kv_heads, model.head_dim, model.head_dim, 2 * kv_heads * model.head_dim


def _slice(model: ModelShape, work: WorkloadLike, tokens: Numeric, *, positions: Numeric) -> Slice:
    """Return one GPU's slice of the model at work on ``tokens`` tokens."""
    return Slice(
        model=model,
        ranks=work.tensor_parallel,
        tokens=tokens,
        weight_dtype=work.weight_dtype,
        kv_dtype=work.kv_dtype,
        execution=work.execution,
        positions=positions,
    )


def prefilled_levels(work: WorkloadLike) -> tuple[SharedLevel, ...]:
    """Return what the prefill computes, from the root down: each level's nodes once.

    Without a tree, or where every sample gets a copy of its own, whole prompts.
    """
    copies = work.attention == "standard" and work.kv_layout == "copies"
    if work.tree and not copies:
        return visible_levels(work, work.context_tokens)
    return (SharedLevel(tokens=work.context_tokens, nodes=work.prompts),)


def _prefill_attention(
    model: ModelShape,
    work: WorkloadLike,
    levels: Sequence[SharedLevel],
    window: int | None,
    repeat: int,
) -> list[Operation]:
    """Return causal flash attention of every node of each level over itself and those above it.

    A query sees the tokens before it and itself: m (m + 1) / 2 pairs for m tokens, or with a window
    w < m w m - w (w - 1) / 2; a level has the pairs up to its end that are not those of the levels
    above it.
    """
    heads = model.heads // work.tensor_parallel
    if model.latent is not None:
        # Prefill expands the latent cache to full keys and values for every head.
        key_width = model.latent.nope_dim + model.latent.rope_dim
        value_width, kv_heads = model.latent.value_dim, heads
    else:
        kv_heads, key_width, value_width, _ = rank_geometry(model, work.tensor_parallel)
    compute = activation_dtype(work.weight_dtype)
    widths = key_width + value_width
    operations = []
    above: Numeric = 0
    pairs_above: Numeric = 0
    for index, level in enumerate(levels):
        end = above + level.tokens
        w = end if window is None else minimum(end, window)
        pairs = w * end - w * (w - 1) / 2
        keys = end if window is None else minimum(end, w + level.tokens)
        tokens = level.nodes * level.tokens
        row_bytes = tokens * DTYPE_BYTES[compute]
        kv_bytes = level.nodes * keys * DTYPE_BYTES[compute] * kv_heads * widths
        blocks = ceil_div(level.tokens, PREFILL_ROWS_PER_BLOCK)
        operations.append(
            Operation(
                name=f"prefill_attention_level_{index + 1}"
                if len(levels) > 1
                else "prefill_attention",
                kind="prefill_attention",
                flops=2 * level.nodes * (pairs - pairs_above) * heads * widths,
                bytes_read=row_bytes * heads * key_width + kv_bytes,
                bytes_written=row_bytes * heads * value_width,
                kv_bytes_read=kv_bytes,
                launches=minimum(tokens, 1),
                thread_blocks=level.nodes * heads * blocks,
                longest_block_flops=2 * PREFILL_ROWS_PER_BLOCK * w * widths,
                dtype=compute,
                repeat=repeat,
            )
        )
        above, pairs_above = end, pairs
    return operations


def _broadcast_cache(
    model: ModelShape, work: WorkloadLike, window: int | None, repeat: int
) -> Operation:
    """Return the copying of each context's cache to every sample, as contiguous caches need."""
    context, _ = visible_tokens(work.context_tokens, 0, window)
    *_, cache_width = rank_geometry(model, work.tensor_parallel)
    one_copy = work.prompts * context * cache_width * DTYPE_BYTES[work.kv_dtype]
    return Operation(
        name="kv_broadcast",
        kind="copy",
        bytes_read=one_copy,
        bytes_written=one_copy * work.samples,
        kv_bytes_read=one_copy,
        launches=2,
        repeat=repeat,
    )
