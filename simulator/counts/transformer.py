"""A decoder-only transformer as operations: one decode step, and the prefill of a context.

The functions follow the order of a step: embedding; then in each layer the projections to
queries, keys and values, attention, the output projection, and the MLP or its experts; at the end
the head. Operations are those of one GPU of the tensor-parallel group.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from simulator.counts.attention import latent, linear, sparse
from simulator.counts.attention.plain import rebuild
from simulator.counts.attention.registry import find_way
from simulator.counts.attention.shape import (
    AttentionShape,
    SharedLevel,
    causal_pairs,
    computed_levels,
    computed_tokens,
    present,
    shared_tokens,
    visible_levels,
)
from simulator.counts.experts import RoutedExperts, visited_experts
from simulator.counts.operation import Kind, Operation, repeated, streamed
from simulator.counts.pieces import (
    FLOAT_BYTES,
    INDEX_BYTES,
    Shard,
    all_gather,
    all_reduce,
    all_to_all,
    cache_write,
    gemm,
    norm,
    quantised,
    residual_add,
    rotary,
    stage_sends,
    vector_norm,
)
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import DTYPE_BYTES, is_low_precision
from simulator.inputs.formats import TensorGroup
from simulator.inputs.model import (
    PROJECTED_SIZES,
    Experts,
    Indexer,
    LayerGroup,
    LayerInputs,
    ModelShape,
    Product,
    State,
    gate_columns,
    norms_of_layer,
)
from simulator.inputs.parallelism import Parallelism
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, ceil_div, maximum, minimum, surely_positive

Item = TypeVar("Item")
# Query rows that one thread block of a flash kernel holds in prefill.
PREFILL_ROWS_PER_BLOCK = 128
TOP_K = 200  # default of gpt-fast's sampling and of the paper

# A layer with keys, values and an indexer of its own.
PLAIN = LayerGroup(count=1)
# Suffix of the operations that draft the further query tokens.
DRAFT = "_draft"
# What an operation has only if it is launched.
LAUNCHED = ("bytes_read", "bytes_written", "launches", "thread_blocks", "sequences")
# What decides the cost of each part of a layer, besides the model: fields of its group.
ATTENDED = ("indexes", *PROJECTED_SIZES, "window", "chunk")
PROJECTED = ("kv", "indexes", *PROJECTED_SIZES)
COPIED = ("kv", *ATTENDED)
FED_FORWARD = ("mlp", "intermediate_size", "norms_per_layer", "mixes")


def decode_operations(
    model: ModelShape, setup: Setup, work: Workload, *, resident_blocks: int
) -> list[Operation]:
    """List the operations of one decode step.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    resident_blocks
        Thread blocks the GPU runs at once: flash kernels split the keys to fill them.

    Raises
    ------
    WorkloadError
        If the heads cannot be split over the GPUs, or the kernel is unknown.
    """
    before, after = around_attention(model, setup, work)
    return before + attention_operations(model, setup, work, resident_blocks) + after


def attention_operations(
    model: ModelShape, setup: Setup, work: Workload, resident_blocks: int
) -> list[Operation]:
    """List the attention of a decode step, all layers together; see :func:`decode_operations`.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    resident_blocks
        Thread blocks the GPU runs at once.
    """
    shapes = attention_shapes(model, setup, work, resident_blocks)
    return _layers(shapes, lambda shape: attention(shape, setup))


def around_attention(
    model: ModelShape, setup: Setup, work: Workload
) -> tuple[list[Operation], list[Operation]]:
    """List the operations of a decode step except attention, all layers together.

    They depend on the step's tokens, not on the keys that these attend to.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.

    Raises
    ------
    WorkloadError
        If the heads cannot be split over the GPUs.
    """
    check_parallelism(model, setup)
    work = setup.passing(work)
    shard = Shard(model=model, setup=setup, tokens=work.tokens, positions=work.query_tokens)
    before, beside, after = _around(
        shard, [(shard, True, "")], lambda state: linear.decode(shard, state, work), work.tokens
    )
    before += beside
    for group, drafts, one in _drafting(model, work):
        # Each draft token passes alone: its embedding joins the hidden state before the layer.
        passing = Shard(model=model, setup=setup, tokens=one.tokens)
        layer, d = passing.of(group), model.hidden_size
        joined = [*embedding(passing), gemm(passing, "input_projection", 2 * d, d, group="mlp")]
        joined += attention_input(layer, group)
        before += repeated(joined, drafts, mark=DRAFT)
        left = [*attention_output(layer), *mlp(layer, group), *head(passing, one.tokens)]
        after += repeated(left, drafts, mark=DRAFT)
    return before, after


def _around(
    shard: Shard,
    projected: Sequence[tuple[Shard, bool, str]],
    mixed: Callable[[State], list[Operation]],
    heads: Numeric,
) -> tuple[list[Operation], list[Operation], list[Operation]]:
    """Return what comes before the attention of all layers, stands beside it, and comes after it.

    Parameters
    ----------
    shard
        All tokens that pass through the layers.
    projected
        Those that are projected together: whether latent attention is absorbed, and name suffix.
    mixed
        Gives a state's convolution and recurrence.
    heads
        Tokens that the head takes.
    """
    before, after = embedding(shard), []
    for group, layers, mark in attending(shard.model, *PROJECTED):
        for some, absorbed, suffix in projected:
            layer = some.of(group)
            projections = attention_input(layer, group, absorbed=absorbed)
            before += repeated(projections, layers, mark=mark + suffix)
            output = attention_output(layer, absorbed=absorbed)
            after += repeated(output, layers, mark=mark + suffix)
    beside = _states(shard, mixed) + _further_products(shard)
    after += [*_mlps(shard), *_added_inputs(shard), *stage_sends(shard), *head(shard, heads)]
    return before, beside, after


def _drafting(model: ModelShape, work: Workload) -> Iterator[tuple[LayerGroup, int, Workload]]:
    """Yield the kind of layer that drafts, its passes in a step, and the sizes of one; or nothing.

    A model with layers for multi-token prediction drafts all query tokens but the first with them.
    """
    group = model.drafting_group
    if group is not None and not surely_positive(2 - work.query_tokens):
        yield group, work.query_tokens - 1, work.but(query_tokens=1, accepted_tokens=1)


def kinds(
    model: ModelShape, *fields: str, having: Callable[[LayerGroup], Any] = lambda group: group.runs
) -> list[tuple[LayerGroup, int, str]]:
    """Return the layers that differ in some fields: one group of each kind, layers, name suffix.

    Parameters
    ----------
    model
        The model, whose groups are merged where these fields are equal.
    fields
        Fields of :class:`LayerGroup` that decide the cost of a part of a layer.
    having
        Whether a group has the part; by default all that a step runs.
    """
    groups = [group for group in model.layer_groups if having(group)]
    if len(groups) == 1:
        return [(groups[0], groups[0].count, _mark(groups[0], fields))]
    merged: dict[tuple[object, ...], tuple[LayerGroup, int]] = {}
    for group in groups:
        key = tuple(getattr(group, field) for field in fields)
        first, layers = merged.get(key, (group, 0))
        merged[key] = first, layers + group.count
    found: list[tuple[LayerGroup, int, str]] = []
    alike: Counter[tuple[str, str]] = Counter()  # dense and expert MLPs have names of their own
    for group, layers in merged.values():
        label = _mark(group, fields), group.mlp if "mlp" in fields else ""
        alike[label] += 1
        number = f"_{alike[label]}" if alike[label] > 1 else ""
        found.append((group, layers, label[0] + number))
    return found


def attending(model: ModelShape, *fields: str) -> list[tuple[LayerGroup, int, str]]:
    """Return the kinds, as :func:`kinds` does, of the layers that have attention."""
    return kinds(model, *fields, having=lambda group: group.attends and group.runs)


def _layers(
    found: Iterable[tuple[Item, int, str]], of: Callable[[Item], list[Operation]]
) -> list[Operation]:
    """Return the operations that each kind of layer has, for all its layers."""
    return [
        operation
        for kind, layers, mark in found
        for operation in repeated(of(kind), layers, mark=mark)
    ]


def _mark(group: LayerGroup, fields: Sequence[str]) -> str:
    """Return the name suffix of operations in layers that see only some tokens."""
    if "window" not in fields:
        return ""
    return "_windowed" if group.window else "_chunked" if group.chunk else ""


def attention_shapes(
    model: ModelShape, setup: Setup, work: Workload, resident_blocks: int
) -> Iterator[tuple[AttentionShape, int, str]]:
    """Yield each kind of layer's attention sizes, its number of layers, and its name suffix.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    resident_blocks
        Thread blocks the GPU runs at once.
    """
    for group, layers, mark in attending(model, *ATTENDED):
        shape = attention_shape(model, setup, work, group, resident_blocks=resident_blocks)
        yield shape, layers, mark
    for group, drafts, one in _drafting(model, work):
        shape = attention_shape(model, setup, one, group, resident_blocks=resident_blocks)
        yield shape, drafts, DRAFT


def prefill_operations(
    model: ModelShape, setup: Setup, work: Workload, *, cached_tokens: Numeric | None = None
) -> list[Operation]:
    """List the operations of the prefill, which computes every prompt's context once.

    With one cache copy per sample, standard attention then copies it ``samples`` times. In a tree
    that is stored once, each node is computed once, after the nodes above it.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    cached_tokens
        Tokens at the beginning of each prompt that its cache holds already, fewer than all.
    """
    check_parallelism(model, setup)
    work = setup.held(work)
    levels = prefilled_levels(setup, work, cached_tokens)
    shard = Shard(
        model=model, setup=setup, tokens=computed_tokens(levels), positions=work.context_tokens
    )
    # Prefill attends in the absorbed form where each query selects its own tokens.
    before, beside, after = _around(
        shard,
        [(shard, model.indexer is not None, "")],
        lambda state: linear.prefill(shard, state, levels, work),
        work.prompts,
    )
    if model.latent is not None and setup.mixed:
        store = latent.context_store(shard, model.latent, shared_tokens(levels))
        before += repeated([store], sum(layers for _, layers, _ in attending(model)))
    operations = [*before, *_prefill_attention(shard, levels, work), *beside, *after]
    if setup.copies:
        caching = [found for found in attending(model, *COPIED) if found[0].caches]
        operations += _layers(caching, lambda group: [_broadcast_cache(shard, work, group)])
    return operations


def mixed_operations(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    chunk: Workload,
    *,
    cached_tokens: Numeric,
    resident_blocks: int,
) -> list[Operation]:
    """List the operations of a decode step that also computes a chunk of a prompt.

    Decoded and prompt tokens pass through the same products, which read the weights once. Each
    kind attends in its own way; with a latent cache each is projected apart, absorbed or expanded.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    chunk
        The prompts up to the end of the chunk.
    cached_tokens
        Tokens of each prompt before the chunk.
    resident_blocks
        Thread blocks the GPU runs at once.
    """
    check_parallelism(model, setup)
    attended = attention_operations(model, setup, work, resident_blocks)
    work, chunk = setup.passing(work), setup.held(chunk)
    levels = prefilled_levels(setup, chunk, cached_tokens)
    tokens = computed_tokens(levels)
    decoding = Shard(model=model, setup=setup, tokens=work.tokens, positions=work.query_tokens)
    prefilling = replace(decoding, tokens=tokens, positions=tokens)
    both = replace(
        decoding, tokens=work.tokens + tokens, positions=decoding.positions + prefilling.positions
    )
    projected = [(both, True, "")]
    if model.latent is not None:
        absorbed = model.indexer is not None
        projected = [(decoding, True, ""), (prefilling, absorbed, "_chunk")]

    def mixing(state: State) -> list[Operation]:
        return [
            *linear.decode(decoding, state, work),
            *repeated(linear.prefill(prefilling, state, levels, chunk), 1, mark="_chunk"),
        ]

    before, beside, after = _around(both, projected, mixing, work.tokens + chunk.prompts)
    return [*before, *attended, *_prefill_attention(prefilling, levels, chunk), *beside, *after]


def check_parallelism(model: ModelShape, setup: Parallelism) -> None:
    """Refuse a model that cannot be laid over GPUs this way.

    Raises
    ------
    WorkloadError
        If a GPU would hold a fraction of a head, of an expert or of a layer.
    """
    check_split(model, setup.tensor_parallel)
    parts, stages = setup.expert_parallel, setup.pipeline_parallel
    if parts > 1 and model.experts is None:
        raise WorkloadError(f"expert_parallel = {parts}: {model.name} has no experts")
    if setup.expert_gpus % parts:
        raise WorkloadError(
            f"expert_parallel = {parts} does not divide the {setup.expert_gpus} GPUs of "
            f"tensor_parallel = {setup.tensor_parallel} x data_parallel = {setup.data_parallel}"
        )
    if model.experts is not None and model.experts.count % parts:
        raise WorkloadError(
            f"expert_parallel = {parts} does not divide the {model.experts.count} experts of "
            f"{model.name}"
        )
    if stages > model.layers:
        raise WorkloadError(
            f"pipeline_parallel = {stages} is more than the {model.layers} layers of {model.name}"
        )


def check_split(model: ModelShape, ranks: int) -> None:
    """Refuse a tensor-parallel size that does not divide the heads.

    Raises
    ------
    WorkloadError
        If a rank would hold a fraction of a head.
    """
    layers = model.attention_layers
    states = [group.state for group in model.layer_groups if group.state is not None]
    # Heads that must be split, those that may be copied instead, and their names.
    sizes = {
        (layer.heads, layer.kv_heads, "heads and {} KV heads")
        if layer.latent is None
        else (layer.heads, layer.latent.groups, "heads and {} latent vectors")
        for layer in layers
    }
    sizes |= {
        (state.v_heads, state.k_heads or state.v_heads, "state heads and {} key heads")
        for state in states
    }

    def refused(size: int) -> list[str]:
        return [
            f"{split} {words.format(copied)}"
            for split, copied, words in sorted(sizes)
            if split % size or (copied % size) * (size % copied)
        ]

    if refused(ranks):
        largest = max(split for split, *_ in sizes)
        valid = [str(size) for size in range(1, largest + 1) if not refused(size)]
        raise WorkloadError(
            f"tensor_parallel = {ranks} does not divide the {' or the '.join(refused(ranks))} of "
            f"{model.name}; it can be {', '.join(valid)}"
        )


# Embedding.


def embedding(shard: Shard) -> list[Operation]:
    """Look up the rows of the token table (and of a learned position table)."""
    model = shard.model
    tables = 2 if model.position_embeddings else 1
    hidden = shard.rows(model.hidden_size)
    width = model.embedding_size or model.hidden_size
    rows = shard.rows(width) + hidden * (tables - 1)
    read = rows + shard.tokens * INDEX_BYTES * tables
    written = shard.rows(width)
    launches = 1
    if tables > 1 and shard.eager:
        read, written, launches = read + 2 * hidden, written + 2 * hidden, 3
    operations = [
        streamed(
            "embedding", read, written, launches=launches, kind="gather", weight_bytes_read=rows
        ),
        *all_reduce("embedding_all_reduce", message_bytes=shard.rows(width), ranks=shard.ranks),
    ]
    if width != model.hidden_size:
        # The matrix between the hidden size and a token table of a different width (OPT-350m).
        projection = gemm(shard, "embedding_projection", width, model.hidden_size, group=None)
        operations.append(projection)
    if model.layer_inputs is not None:
        operations += _layer_inputs(shard, model.layer_inputs)
    return operations + _products(shard, model.products, None)


def _layer_inputs(shard: Shard, inputs: LayerInputs) -> list[Operation]:
    """Gather each token's vectors for all layers, and add a product of its embedding to them."""
    model = shard.model
    width = model.layers * inputs.width
    row = shard.rows(width)
    return [
        streamed(
            "layer_inputs",
            row + shard.tokens * INDEX_BYTES,
            row,
            kind="gather",
            weight_bytes_read=row,
        ),
        *all_reduce("layer_inputs_all_reduce", message_bytes=row, ranks=shard.ranks),
        gemm(shard, "layer_inputs_projection", model.hidden_size, shard.split(width), group=None),
        *all_gather("layer_inputs_all_gather", gathered_bytes=row, ranks=shard.ranks),
        vector_norm(shard, "layer_inputs_norm", shard.tokens * model.layers, inputs.width),
        streamed("layer_inputs_sum", 2 * row, row),
    ]


def _added_inputs(shard: Shard) -> list[Operation]:
    """Multiply each layer's own input with a gate on the layer's output, and add the product."""
    model, inputs = shard.model, shard.model.layer_inputs
    if inputs is None:
        return []
    d, row = model.hidden_size, shard.rows(inputs.width)
    layer = [
        gemm(shard, "layer_input_gate", d, shard.split(inputs.width), group="mlp"),
        streamed("layer_input_activation", 2 * row, row, kind="activation"),
        gemm(shard, "layer_input_up", shard.split(inputs.width), d, group="mlp"),
        *all_reduce("layer_input_all_reduce", message_bytes=shard.rows(d), ranks=shard.ranks),
        norm(shard, "layer_input_norm"),
    ]
    return repeated(layer, model.layers)


# Attention.


def attention_input(
    shard: Shard, group: LayerGroup = PLAIN, *, absorbed: bool = True
) -> list[Operation]:
    """Norm, projections to queries, keys and values, their norms, rotary, and cache write.

    Parameters
    ----------
    group
        The layer's group, which says whether it has keys and values and an indexer of its own.
    absorbed
        For latent attention: whether queries move into the latent space (decoding), or keys and
        values out of it (prefill, and an expanded cache).
    """
    model, kv, absorbed = shard.model, group.kv, absorbed and not shard.setup.expanded
    operations = [norm(shard, "attention_norm")] if model.norms_per_layer else []
    read = model.attention_input_size or model.hidden_size
    operations += quantised(shard, "attention_quantise", read)
    if model.latent is not None:
        operations += latent.projections(shard, model.latent, absorbed=absorbed)
        if model.indexer is not None and group.indexes:
            operations += sparse.projections(shard, model.indexer, model.latent)
        return operations
    kv_heads = 0 if kv == "earlier" else maximum(1, model.kv_heads // shard.ranks)
    query, key = shard.heads * model.head_dim, kv_heads * model.head_dim
    value = kv_heads * model.value_width
    columns = (model.query_rank or query) + key + (0 if kv == "tied" else value)
    gate, bias = gate_columns(model) // shard.ranks, model.qkv_bias
    if model.attention_gate == "head":  # a matrix of its own
        operations.append(gemm(shard, "gate_projection", model.hidden_size, gate))
    else:
        columns += gate
    operations.append(gemm(shard, "qkv_projection", read, columns, bias=bias))
    if model.query_rank is not None:
        operations += [
            vector_norm(shard, "query_norm", shard.tokens, model.query_rank),
            gemm(shard, "query_up_projection", model.query_rank, query),
        ]
    if model.qk_norm != "none":
        operations.append(_qk_norm(shard, kv_heads))
    if model.rotary:
        parts = 1 if kv == "earlier" else 2
        operations.append(rotary(shard, query + key, model.head_dim, parts=parts))
    return [*operations, cache_write(shard, key + value)] if kv != "earlier" else operations


def _qk_norm(shard: Shard, kv_heads: int) -> Operation:
    """Normalise queries, and keys if the layer has its own, per head or over all heads."""
    whole, width = shard.model.qk_norm == "all", shard.model.head_dim

    def normed(count: int) -> Operation:
        rows, row_width = (1, count * width) if whole else (count, width)
        return vector_norm(shard, "qk_norm", shard.tokens * rows, row_width)

    parts = [normed(count) for count in (shard.heads, kv_heads) if count]
    return streamed(
        "qk_norm",
        sum(part.bytes_read for part in parts),
        sum(part.bytes_written for part in parts),
        launches=sum(part.launches for part in parts) if shard.eager else 1,
        kind=parts[0].kind,
    )


def attention(shape: AttentionShape, setup: Setup) -> list[Operation]:
    """Return one layer's attention as the setup's kernel computes it.

    Raises
    ------
    WorkloadError
        If the kernel is unknown.
    """
    way = find_way(setup.kernel)
    operations = [rebuild(shape)] if setup.rebuilds else []
    if shape.indexer is not None:
        if shape.indexes:
            operations += sparse.scores(
                shape, shape.indexer, bifurcated=setup.bifurcated, rereads=setup.rereads
            )
        operations.append(sparse.attention(shape, shape.indexer))
    elif setup.eager and shape.expanded is None:  # plain code of the mixed form is no setup's
        operations += way.plain(shape, setup)
    elif setup.bifurcated:
        operations += way.bifurcated(shape)
    else:
        operations += way.standard(shape, rereads=setup.rereads)
    if not surely_positive(shape.tokens):
        exists = present(shape.tokens)
        for operation in operations:
            for name in LAUNCHED:
                setattr(operation, name, getattr(operation, name) * exists)
    low_precision = is_low_precision(shape.kv_bytes)
    for operation in operations:
        operation.low_precision_cache = operation.low_precision_cache or low_precision
    return operations


def attention_shape(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    group: LayerGroup | None = None,
    *,
    resident_blocks: int,
) -> AttentionShape:
    """Return the sizes of one layer's attention in a decode step.

    With a sliding window of w tokens, a query sees its sample's last w tokens: decoded tokens
    first, then the end of the context.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    group
        The layer's group; None for a layer with the model's sizes that sees all tokens.
    resident_blocks
        Thread blocks the GPU runs at once.
    """
    work = setup.passing(work)
    context, decoded = work.context_tokens, work.decoded_tokens
    if group is not None:
        context, decoded = visible_tokens(group, context, decoded)
        model = model.of(group)

    def widths(*, expanded: bool = False) -> dict[str, Any]:
        names = ("kv_heads", "key_width", "value_width", "cache_width")
        found = rank_geometry(model, setup, expanded=expanded)
        return dict(zip(names, found, strict=True))

    shape = AttentionShape(
        prompts=work.prompts,
        samples=work.samples,
        query_tokens=work.query_tokens,
        context_tokens=context,
        decoded_tokens=decoded,
        heads=model.heads // setup.tensor_parallel,
        **widths(),
        activation_bytes=DTYPE_BYTES[setup.activation_dtype],
        kv_bytes=setup.kv_bytes,
        dtype=setup.activation_dtype,
        resident_blocks=resident_blocks,
        sliced_queries=not model.rotary and model.qk_norm == "none" and model.latent is None,
        levels=visible_levels(work, context) if work.tree else (),
        kind="attention" if model.latent is None or setup.expanded else "latent_attention",
        indexer=model.indexer,
        indexes=group is None or group.indexes,
    )
    if model.latent is None or not setup.mixed:
        return shape
    expanded = shape._replace(kind="attention", **widths(expanded=True))
    return shape._replace(expanded=expanded)


def visible_tokens(
    group: LayerGroup, context: Numeric, decoded: Numeric
) -> tuple[Numeric, Numeric]:
    """Return how many context and decoded tokens a layer's queries see.

    Parameters
    ----------
    group
        The layer's group: with a sliding window, chunks, or neither.
    context, decoded
        Context and decoded tokens; the last of them is the query's own.

    Examples
    --------
    >>> visible_tokens(LayerGroup(count=1, window=4096), 8192, 64)
    (4032, 64)
    >>> visible_tokens(LayerGroup(count=1, chunk=8192), 8192, 64)
    (0, 64)
    """
    if group.window is not None:
        seen: Numeric = group.window
    elif group.chunk is not None:
        # Tokens since the chunk of the last one began.
        tokens = context + decoded
        seen = tokens - group.chunk * (ceil_div(tokens, group.chunk) - 1)
    else:
        return context, decoded
    own = minimum(decoded, seen)
    return minimum(context, maximum(seen - own, 0)), own


def rank_geometry(
    model: ModelShape, setup: Setup, *, expanded: bool = False
) -> tuple[int, int, int, int]:
    """Return one GPU's KV heads, key width, value width and cached values per token and layer.

    KV heads are split over the GPUs, and replicated if there are fewer than GPUs; so are the
    compressed vectors of a latent cache. The one of MLA cannot be split, unless it is kept
    expanded, and neither can the rotary key.

    Parameters
    ----------
    model
        The model with the sizes of the layer.
    setup
        How the step runs.
    expanded
        Whether a latent cache is taken as expanded, as a prefill does, whatever the cache keeps.
    """
    ranks = setup.tensor_parallel
    if model.latent is not None and (expanded or setup.expanded):
        heads, widths = model.heads // ranks, latent.expanded_widths(model.latent)
        return (heads, *widths, heads * sum(widths))
    if model.latent is not None:
        widths, cached = latent.absorbed_widths(model.latent), model.latent.cache_width(ranks)
        return (model.latent.groups_of(ranks), *widths, cached)
    kv_heads = maximum(1, model.kv_heads // ranks)
    widths = model.head_dim, model.value_width
    return (kv_heads, *widths, kv_heads * sum(widths))


def prefilled_levels(
    setup: Setup, work: Workload, cached_tokens: Numeric | None = None
) -> tuple[SharedLevel, ...]:
    """Return the levels that the prefill computes, from the root down, each node once.

    Without a tree, or if every sample gets its own copy, these are whole prompts. If the first
    tokens of each prompt are cached, they are a level of their own.

    Parameters
    ----------
    setup, work
        How the prompts run, and their sizes.
    cached_tokens
        Tokens at the beginning of each prompt that its cache holds already; None for no cache.
    """
    if cached_tokens is not None:
        computed = work.context_tokens - cached_tokens
        return (
            SharedLevel(tokens=cached_tokens, nodes=work.prompts, cached=True),
            SharedLevel(tokens=computed, nodes=work.prompts),
        )
    if work.tree and not setup.copies:
        return visible_levels(work, work.context_tokens)
    return (SharedLevel(tokens=work.context_tokens, nodes=work.prompts),)


def _prefill_attention(
    shard: Shard, levels: Sequence[SharedLevel], work: Workload
) -> list[Operation]:
    """Return the attention of all layers in a prefill."""
    indexer = shard.model.indexer

    def layer(group: LayerGroup) -> list[Operation]:
        if indexer is None:
            return _causal_prefill(shard.of(group), levels, group)
        return _sparse_prefill(shard.of(group), levels, group, work, indexer)

    return _layers(attending(shard.model, *ATTENDED), layer)


def _causal_prefill(
    shard: Shard, levels: Sequence[SharedLevel], group: LayerGroup
) -> list[Operation]:
    """Return causal flash attention of every node over itself and the nodes above it.

    A query sees itself and the tokens before it, within its window or chunk. A level has the pairs
    up to its end minus those of the levels above it.
    """
    heads, element = shard.heads, shard.element_bytes
    kv_heads, key_width, value_width, _ = rank_geometry(shard.model, shard.setup, expanded=True)
    widths = key_width + value_width
    operations = []
    for level, above, mark in computed_levels(levels):
        end = above + level.tokens
        pairs = _causal_pairs(group, end) - _causal_pairs(group, above)
        limit = group.window or group.chunk
        longest = end if limit is None else minimum(end, limit)
        keys = end if limit is None else minimum(end, longest + level.tokens)
        tokens = level.nodes * level.tokens
        row_bytes = tokens * element
        kv_bytes = level.nodes * keys * element * kv_heads * widths
        blocks = ceil_div(level.tokens, PREFILL_ROWS_PER_BLOCK)
        operations.append(
            Operation(
                name=f"prefill_attention{mark}",
                kind="prefill_attention" if shard.model.latent is None else "latent_prefill",
                flops=2 * level.nodes * pairs * heads * widths,
                bytes_read=row_bytes * heads * key_width + kv_bytes,
                bytes_written=row_bytes * heads * value_width,
                kv_bytes_read=kv_bytes,
                launches=minimum(tokens, 1),
                thread_blocks=level.nodes * heads * blocks,
                head_width=widths / 2,
                longest_block_flops=2 * PREFILL_ROWS_PER_BLOCK * longest * widths,
                dtype=shard.dtype,
            )
        )
    return operations


def _sparse_prefill(
    shard: Shard, levels: Sequence[SharedLevel], group: LayerGroup, work: Workload, indexer: Indexer
) -> list[Operation]:
    """Return every node's attention to the tokens that its queries select."""
    shape = attention_shape(shard.model, shard.setup, work, group, resident_blocks=1)
    operations: list[Operation] = []
    for level, above, mark in computed_levels(levels):
        found = sparse.prefill(
            shape, indexer, prompts=level.nodes, tokens=level.tokens, before=above
        )
        operations += repeated(found if group.indexes else found[-1:], 1, mark=mark)
    return operations


def _causal_pairs(group: LayerGroup, tokens: Numeric) -> Numeric:
    """Return the pairs of a query and a key that it sees, over the first tokens of a context.

    In chunks, these are the pairs of each chunk.
    """
    if group.chunk is not None:
        full = maximum(ceil_div(tokens, group.chunk) - 1, 0)
        rest = tokens - full * group.chunk
        return full * group.chunk * (group.chunk + 1) / 2 + rest * (rest + 1) / 2
    return causal_pairs(tokens, tokens if group.window is None else group.window)


def _broadcast_cache(shard: Shard, work: Workload, group: LayerGroup) -> Operation:
    """Return the copies of each context's cache to every sample, for contiguous caches."""
    context, _ = visible_tokens(group, work.context_tokens, 0)
    *_, cache_width = rank_geometry(shard.model.of(group), shard.setup)
    one_copy = work.prompts * context * cache_width * shard.setup.kv_bytes
    copies = one_copy * work.samples
    return streamed(
        "kv_broadcast", one_copy, copies, launches=2, kind="copy", kv_bytes_read=one_copy
    )


def attention_output(shard: Shard, *, absorbed: bool = True) -> list[Operation]:
    """Project the heads' outputs back to the hidden size, and sum over the ranks.

    Parameters
    ----------
    absorbed
        For latent attention: whether outputs first move out of the latent space. In the mixed form
        those over own tokens do, before they are merged with the others.
    """
    model, absorbed = shard.model, absorbed and not shard.setup.expanded
    operations, width = [], shard.heads * model.value_width
    if model.attention_gate != "none":
        gated = shard.rows(width)
        gate = shard.rows(shard.split(gate_columns(model)))
        operations.append(streamed("attention_gate", gated + gate, gated))
    if model.latent is not None:
        width = shard.heads * model.latent.value_dim
        if absorbed:
            operations.append(latent.value_projection(shard, model.latent))
    return [
        *operations,
        *quantised(shard, "output_quantise", width),
        gemm(shard, "output_projection", width, model.hidden_size, bias=model.output_bias),
        *all_reduce(
            "attention_all_reduce", message_bytes=shard.rows(model.hidden_size), ranks=shard.ranks
        ),
        *residual_add(shard, "attention_residual"),
    ]


# States: linear attention and state spaces.


def _states(shard: Shard, mixed: Callable[[State], list[Operation]]) -> list[Operation]:
    """Return the layers with a state; ``mixed`` gives a state's convolution and recurrence."""
    found = kinds(shard.model, "state", "attends", having=lambda group: group.state)
    return _layers(found, lambda group: _state_layer(shard, group, mixed))


def _state_layer(
    shard: Shard, group: LayerGroup, mixed: Callable[[State], list[Operation]]
) -> list[Operation]:
    """Return the projections of a layer with a state around its convolution and recurrence."""
    model, state = shard.model, group.state
    if state is None:
        return []
    d, width = model.hidden_size, shard.split(state.width)
    norms = [norm(shard, "state_norm")] if model.norms_per_layer and not group.attends else []
    columns = shard.split(state.columns) + state.copied_columns(shard.ranks)
    return [
        *norms,
        *quantised(shard, "state_quantise", d, group="state"),
        gemm(shard, "state_input_projection", d, columns, group="state"),
        *_products(shard, state.products, "state"),
        *mixed(state),
        _state_gate(shard, state),
        *quantised(shard, "state_output_quantise", width, group="state"),
        gemm(shard, "state_output_projection", width, d, group="state"),
        *all_reduce("state_all_reduce", message_bytes=shard.rows(d), ranks=shard.ranks),
        *residual_add(shard, "state_residual"),
    ]


def _state_gate(shard: Shard, state: State) -> Operation:
    """Return the gate on the output, and its norm but for scans and convolutions."""
    row = shard.rows(shard.split(state.width))
    if state.rule in ("scan", "convolution"):
        return streamed("state_gate", 2 * row, row)
    return vector_norm(shard, "state_gate", shard.tokens * shard.split(state.v_heads), state.v_dim)


def _further_products(shard: Shard) -> list[Operation]:
    """Return the further matrices of all layers."""
    found = kinds(shard.model, "products", having=lambda group: group.products)
    return _layers(found, lambda group: _products(shard, group.products))


def _products(
    shard: Shard, products: Sequence[Product], group: TensorGroup | None = "attention"
) -> list[Operation]:
    """Return further matrices, and the sums over the ranks of those that are split by rows."""
    operations = []
    for product in products:
        inner: Numeric = product.inner
        columns: Numeric = product.columns
        if product.split == "columns":
            columns = shard.split(product.columns)
        elif product.split == "rows":
            inner = shard.split(product.inner)
        operations.append(gemm(shard, product.name, inner, columns, group=group))
        if product.split == "rows":
            summed = shard.rows(product.columns)
            name = f"{product.name}_all_reduce"
            operations += all_reduce(name, message_bytes=summed, ranks=shard.ranks)
    return operations


# The MLP: dense, or a mixture of experts.


def _mlps(shard: Shard) -> list[Operation]:
    """Return the MLPs of all layers, grouped by kind."""
    return _layers(kinds(shard.model, *FED_FORWARD), lambda group: mlp(shard.of(group), group))


def mlp(shard: Shard, group: LayerGroup) -> list[Operation]:
    """Return the MLP's norms, the MLP or its experts, and the sum over ranks."""
    model = shard.model
    # A parallel block (one norm) feeds the MLP from the attention's norm; Gemma-2 has four norms.
    names = ("mlp_norm", "attention_post_norm", "mlp_post_norm")
    left = norms_of_layer(model, group) - group.mixes
    operations = [norm(shard, name) for name in names[: max(0, left)]]
    further = range(1, left - len(names) + 1)  # of experts beside a dense MLP (Gemma 4)
    operations += [norm(shard, f"further_norm_{number}") for number in further]
    if group.mlp == "none":
        return operations
    if group.mlp == "experts" and model.experts is not None:
        operations += _experts(shard, model.experts)
    else:
        inner = shard.split(model.intermediate_size)
        operations += _dense(shard, "mlp", inner, "mlp")
    reduced_bytes = shard.rows(model.hidden_size)
    operations += all_reduce("mlp_all_reduce", message_bytes=reduced_bytes, ranks=shard.ranks)
    return operations + residual_add(shard, "mlp_residual")


def _dense(shard: Shard, name: str, inner: Numeric, group: TensorGroup) -> list[Operation]:
    """Return up (and gate) projection, activation, and down projection."""
    d, bias = shard.model.hidden_size, shard.model.mlp_bias
    ups = 2 if shard.model.gated_mlp else 1
    matrices = ups if shard.eager else 1
    return [
        *quantised(shard, f"{name}_quantise", d, group=group),
        gemm(shard, f"{name}_up", d, ups * inner, matrices=matrices, bias=bias, group=group),
        _activation(shard, f"{name}_activation", inner),
        *quantised(shard, f"{name}_inner_quantise", inner, group=group),
        gemm(shard, f"{name}_down", inner, d, bias=bias, group=group),
    ]


def _activation(shard: Shard, name: str, inner: Numeric) -> Operation:
    """Return the activation; of a gated MLP, times the up projection."""
    row = shard.rows(inner)
    kind: Kind = "elementwise" if shard.eager else "activation"
    if not shard.model.gated_mlp:
        return streamed(name, row, row, kind=kind)
    if shard.eager:
        return streamed(name, 3 * row, 2 * row, launches=2)
    return streamed(name, 2 * row, row, kind=kind)


def _experts(shard: Shard, experts: Experts) -> list[Operation]:
    """Return a mixture of experts: router, routed experts, and the expert that all tokens share."""
    model, setup = shard.model, shard.setup
    parts = setup.expert_parallel
    tokens = setup.data_parallel * shard.tokens  # of all groups that share the experts
    choices = experts.count + experts.zero
    weighed = experts.count / choices if experts.zero else 1
    visited = weighed * visited_experts(
        choices, experts.per_token, tokens, routing=setup.routing, exponent=setup.routing_exponent
    )
    routed = RoutedExperts(
        tokens=shard.tokens,
        count=choices,
        pairs=tokens * experts.weighed_per_token / parts,
        visited=visited / parts,
        held=experts.count // parts,
        even=setup.routing == "balanced",
        parts=parts,
        hidden=experts.latent_size or model.hidden_size,
        inner=shard.split(experts.intermediate_size, over=setup.expert_slices),
        ups=2 if model.gated_mlp else 1,
        bias=experts.expert_bias,
        activations=shard.dtype,
        stored=shard.weights("experts"),
        multiplied=shard.product_dtype("experts"),
    )
    bias, d = experts.router_bias, model.hidden_size
    operations = [
        gemm(shard, each.name, each.inner, each.columns, group=None) for each in experts.router
    ] or [gemm(shard, "router", d, choices, bias=bias, group=None)]
    visits = routed.operations(eager=shard.eager, quantises=setup.quantises_apart)
    if setup.data_parallel > 1:
        visits = [_exchange(shard, experts, routed, "dispatch"), *visits]
        visits.append(_exchange(shard, experts, routed, "combine"))
    if experts.latent_size is not None:
        # Replicated on every rank, as engines do.
        latent, bias = experts.latent_size, model.mlp_bias
        visits = [
            gemm(shard, "experts_latent_projection", d, latent, bias=bias, group=None),
            *visits,
            gemm(shard, "experts_latent_output", latent, d, bias=bias, group=None),
        ]
    operations += visits
    if experts.shared_intermediate_size:
        if experts.shared_gate:
            operations.append(gemm(shard, "shared_expert_gate", model.hidden_size, 1, group=None))
        shared = shard.split(experts.shared_intermediate_size)
        operations += _dense(shard, "shared_expert", shared, "shared_experts")
    return operations


def _exchange(shard: Shard, experts: Experts, routed: RoutedExperts, name: str) -> Operation:
    """Return the tokens' way to the GPUs of their experts, or back.

    The GPUs of a group send different tokens of it. Each token goes to every GPU of each expert
    that it visits, as in DeepEP's kernels for decoding, or once to every GPU where that is less, as
    in an all-gather: (GPUs - 1) min(1, visits / parts) copies to others if experts are visited
    alike.
    """
    gpus = shard.setup.expert_gpus
    copies = (gpus - 1) * min(1.0, experts.weighed_per_token / shard.setup.expert_parallel)
    width = DTYPE_BYTES[shard.dtype]
    if name == "dispatch" and not shard.eager:
        width = min(width, DTYPE_BYTES[routed.multiplied])
    sent = shard.tokens / shard.ranks * copies * routed.hidden * width
    (operation,) = all_to_all(f"experts_{name}", sent_bytes=sent, ranks=gpus)
    return operation


# The head.


def head(shard: Shard, tokens: Numeric) -> list[Operation]:
    """Project ``tokens`` positions to the vocabulary, after the final norm, and sample."""
    model = shard.model
    logits = tokens * model.vocab_size * shard.element_bytes
    operations = [norm(shard, "final_norm")] if model.extra_norms else []
    width = model.embedding_size or model.hidden_size
    if width != model.hidden_size:
        projection = gemm(
            shard, "head_projection", model.hidden_size, width, group=None, tokens=tokens
        )
        operations.append(projection)
    columns, bias = shard.split(model.vocab_size), model.lm_head_bias
    return [
        *operations,
        gemm(shard, "lm_head", width, columns, bias=bias, group="head", tokens=tokens),
        *all_gather("logits_all_gather", gathered_bytes=logits, ranks=shard.ranks),
        _sampling(shard, tokens),
    ]


def _sampling(shard: Shard, tokens: Numeric) -> Operation:
    """Choose a token from each row of logits.

    Plain PyTorch, as in gpt-fast: divide by the temperature, top-k, compare with the last of
    them, fill, softmax, exponential noise, divide by it, argmax.
    """
    vocabulary = shard.model.vocab_size
    logits, chosen = tokens * vocabulary * shard.element_bytes, tokens * INDEX_BYTES
    if not shard.eager:
        # Softmax in float32, then one pass that samples from it.
        wide = tokens * vocabulary * FLOAT_BYTES
        return streamed("sampling", logits + wide, wide + chosen, launches=2)
    mask, pivots = tokens * vocabulary, tokens * shard.element_bytes
    likeliest = tokens * min(TOP_K, vocabulary) * (shard.element_bytes + INDEX_BYTES)
    return streamed(
        "sampling", 8 * logits + mask + pivots, 5 * logits + mask + likeliest + chosen, launches=8
    )
