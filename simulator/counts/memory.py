"""Memory of one GPU: weights, KV caches, workspace, and what an engine keeps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from simulator.counts.attention import linear, sparse
from simulator.counts.attention.registry import find_way
from simulator.counts.attention.shape import several, shared_tokens, stored_tokens, visible_levels
from simulator.counts.pieces import Shard
from simulator.counts.transformer import (
    attention_shapes,
    prefilled_levels,
    rank_geometry,
    visible_tokens,
)
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.model import (
    Matrix,
    ModelShape,
    count_parameters,
    draft_matrices,
    model_matrices,
)
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, ceil_div, maximum, minimum, named, where
from simulator.units import GIB

LOGIT_BYTES = 4  # sampling works on float32 logits

MemoryVerdict = Literal["fits", "too close to call", "does not fit"]
MEMORY_VERDICTS: tuple[MemoryVerdict, ...] = get_args(MemoryVerdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one GPU of the group, in bytes.

    Attributes
    ----------
    reserve_bytes
        What the process keeps beside these: ``PROCESS``, and ``COLLECTIVES`` of a group.
    capacity_bytes
        Memory that all of these may take.
    less_bytes, more_bytes
        How far the total may lie below and above what is said.
    """

    weights_bytes: Numeric
    kv_bytes: Numeric
    workspace_bytes: Numeric
    reserve_bytes: int
    capacity_bytes: Numeric
    less_bytes: Numeric
    more_bytes: Numeric

    @property
    def total_bytes(self) -> Numeric:
        """Weights, caches, workspace and reserve. [bytes]."""
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes + self.reserve_bytes

    @property
    def low_bytes(self) -> Numeric:
        """Lower end of the total's interval. [bytes]."""
        return self.total_bytes - self.less_bytes

    @property
    def high_bytes(self) -> Numeric:
        """Upper end of the total's interval. [bytes]."""
        return self.total_bytes + self.more_bytes

    @property
    def free_bytes(self) -> Numeric:
        """Memory left; negative if memory is short. [bytes]."""
        return self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> Numeric:
        """Whether everything fits, as far as one can say: see ``verdict``."""
        return self.free_bytes >= 0

    @property
    def surely_fits(self) -> Numeric:
        """Whether everything fits at the upper end of the interval."""
        return self.capacity_bytes >= self.high_bytes

    @property
    def verdict(self) -> MemoryVerdict:
        """Whether it fits, as sure as that is; an array of verdicts for arrays."""
        may_fit = self.capacity_bytes >= self.low_bytes
        return named(MEMORY_VERDICTS, where(self.surely_fits, 0, where(may_fit, 1, 2)))


def memory(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    *,
    card_bytes: Numeric,
    resident_blocks: int,
    prefill: bool = False,
) -> Memory:
    """Count the memory that a decode step, or a whole request, needs on one GPU.

    Parameters
    ----------
    model, setup, work
        The question; for a request, with the sizes of its last step, when caches are longest. They
        are allocated before the request starts, like engines' pools and static caches, so they
        count in the prefill too.
    card_bytes
        Memory of the GPU. [bytes]
    resident_blocks
        Thread blocks the GPU runs at once.
    prefill
        Whether to include the prefill. A serving engine always has room for its largest batch.
    """
    weights: Numeric = weights_bytes(model, setup)
    weights = weights + several(work.query_tokens) * draft_bytes(model, setup)
    workspace = workspace_bytes(model, setup, work, resident_blocks=resident_blocks)
    least = most = workspace
    if setup.graph or prefill:
        workspace, least, most = (
            maximum(workspace, prefill_workspace_bytes(model, setup, work, tokens=tokens))
            for tokens in prefill_tokens_at_once(setup, work, card_bytes)
        )
    kept, kept_low, kept_high = kept_bytes(setup)
    return Memory(
        weights_bytes=weights,
        kv_bytes=kv_cache_bytes(model, setup, work),
        workspace_bytes=workspace,
        reserve_bytes=kept,
        capacity_bytes=usable_bytes(
            setup, card_bytes, weights_bytes=weights, workspace_bytes=workspace, kept=kept
        ),
        less_bytes=workspace - least + kept - kept_low,
        more_bytes=most - workspace + kept_high - kept,
    )


def weights_bytes(model: ModelShape, setup: Setup) -> float:
    """Bytes of the weights on one GPU: every group of tensors in its own format.

    Towers that encode images or sound have 16 bits. Every rank holds its shard, and a copy of what
    cannot be split. The figure is that of a pipeline's fullest stage: the first has the embedding,
    the last the head.
    """
    stage = fullest_stage(model, setup.pipeline_parallel)
    count, formats = count_parameters(stage), setup.weights
    wide = DTYPE_BYTES[setup.activation_dtype]
    # vLLM shards towers like the decoder unless --mm-encoder-tp-mode is data (recalled).
    first = count.embedding * formats.of("embedding").bytes + model.tower_parameters * wide
    last = count.head * formats.of("head").bytes
    outside = (first + last if stage is model else maximum(first, last)) / setup.tensor_parallel
    return outside + count.norms * wide + _matrices_bytes(model_matrices(stage), setup)


def _matrices_bytes(matrices: Iterable[tuple[int, Matrix]], setup: Setup) -> float:
    """Return the bytes on one GPU of matrices, each with the number of layers that have it."""
    ranks, wide, held = setup.tensor_parallel, DTYPE_BYTES[setup.activation_dtype], 0.0
    for layers, matrix in matrices:
        narrow = setup.weights.of(matrix.group).bytes if matrix.group else wide
        parts = ranks if matrix.parts is None else minimum(ranks, matrix.parts)
        parts *= setup.data_parallel if matrix.group == "experts" else 1
        held += layers * (matrix.weights * narrow + matrix.further * wide) / parts
    return held


def fullest_stage(model: ModelShape, stages: int) -> ModelShape:
    """Return the layers of the fullest stage of a pipeline.

    It has an equal share of the layers of each kind, rounded up, as if the kinds were spread evenly
    over the model.

    Parameters
    ----------
    model
        The whole model.
    stages
        Number of stages.
    """
    if stages == 1:
        return model
    groups = tuple(
        group.but(
            count=ceil_div(group.count, stages),
            distinct=group.distinct and min(group.distinct, ceil_div(group.count, stages)),
        )
        for group in model.layer_groups
    )
    return model.but(layers=sum(group.count for group in groups), layer_groups=groups)


def draft_bytes(model: ModelShape, setup: Setup) -> float:
    """Bytes on one GPU of the layers that predict further tokens, held like the model's others.

    Engines load them only to draft.
    """
    return _matrices_bytes(draft_matrices(model), setup)


def index_bytes_per_token(model: ModelShape) -> Numeric:
    """Bytes of one token's index keys on one GPU, in all layers; 0 without an indexer.

    Every GPU of a group holds all of them.
    """
    if model.indexer is None:
        return 0
    layers = sum(group.count for group in model.layer_groups if group.attends and group.indexes)
    return layers * sparse.index_key_bytes(model.indexer)


def state_bytes_per_sequence(model: ModelShape, setup: Setup) -> Numeric:
    """Bytes of one sequence's states on one GPU, in all layers: however long the sequence is.

    Qwen3.5-27B 151 million bytes (48 layers of 48 heads, 128 x 128 values in fp32).
    """
    shard = Shard(model=model, setup=setup, tokens=1)
    return sum(
        group.count * linear.sequence_bytes(shard, group.state)
        for group in model.layer_groups
        if group.state is not None
    )


def kv_cache_bytes(model: ModelShape, setup: Setup, work: Workload) -> Numeric:
    """Bytes of the KV caches on one GPU.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.

    Notes
    -----
    One context copy per sample for the layout ``copies`` under standard attention, else one for
    all; each node of a tree once. A layer with a sliding window keeps only the window. The mixed
    form of latent attention keeps the shared context twice: compressed and expanded. Layers with a
    state keep one for every sequence. The figure is that of the fullest stage of a pipeline, and of
    the fullest data-parallel group.
    """
    model, work = fullest_stage(model, setup.pipeline_parallel), setup.held(work)
    values: Numeric = 0
    index_keys: Numeric = 0
    attending = [group for group in model.layer_groups if group.attends]
    for group in model.layer_groups:
        if not group.caches:
            continue
        *_, cache_width = rank_geometry(model.of(group), setup)
        context, decoded = visible_tokens(group, work.context_tokens, work.decoded_tokens)
        if work.tree and not setup.copies:
            shared = stored_tokens(visible_levels(work, context))
            stored = shared + work.prompts * decoded * work.samples
        else:
            stored = context * (work.samples if setup.copies else 1) + decoded * work.samples
            stored = work.prompts * stored
        values = values + group.count * cache_width * stored
        if model.drafting_group is not None and group is attending[-1]:
            drafting = several(work.query_tokens) * model.draft_layers
            values = values + drafting * cache_width * stored
        if model.indexer is not None and group.indexes:
            index_keys = index_keys + group.count * stored * sparse.index_key_bytes(model.indexer)
    if model.latent is not None and setup.mixed:
        *_, expanded_width = rank_geometry(model, setup, expanded=True)
        shared = shared_tokens(prefilled_levels(setup, work))
        layers = sum(group.count for group in model.layer_groups if group.attends)
        values = values + layers * shared * expanded_width
    states = work.prompts * work.samples * state_bytes_per_sequence(model, setup)
    return values * setup.kv_bytes + index_keys + states


def workspace_bytes(
    model: ModelShape, setup: Setup, work: Workload, *, resident_blocks: int
) -> Numeric:
    """Bytes of the largest set of intermediate tensors alive at once in a decode step.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.

    Notes
    -----
    Two hidden vectors, the widest MLP tensor and the logits of every token, and the attention
    kernel's workspace: its logits, a rebuilt or repeated cache, or split-KV partials.
    """
    tokens = setup.passing(work).tokens
    element = DTYPE_BYTES[setup.activation_dtype]
    inner = model.widest_mlp
    if model.experts is not None:
        visits = model.experts.per_token * model.experts.intermediate_size
        inner = maximum(inner, visits + model.experts.shared_intermediate_size)
    ups = 2 if model.gated_mlp else 1
    hidden = tokens * element * (2 * model.hidden_size + ups * inner / setup.tensor_parallel)
    logits = tokens * model.vocab_size * LOGIT_BYTES
    way = find_way(setup.kernel)
    attention: Numeric = 0
    for shape, *_ in attention_shapes(model, setup, work, resident_blocks):
        needed = way.workspace_bytes(shape, setup)
        if shape.indexer is not None:
            needed = sparse.scores_bytes(shape)
        attention = maximum(attention, needed)
    return maximum(hidden + attention, logits + tokens * element * model.hidden_size)


def prefill_workspace_bytes(
    model: ModelShape, setup: Setup, work: Workload, *, tokens: Numeric
) -> Numeric:
    """Bytes of the largest set of intermediate tensors alive at once in the prefill.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    tokens
        Context tokens that go through the model at once.

    Notes
    -----
    Each token that is processed at once has the residual stream and its norm (in plain PyTorch also
    the layer's input, which the caller still holds), plus queries, keys, values and output of the
    attention, or the tensors of the MLP. At the end come the logits of each prompt's last token.
    Attention is fused, so it keeps no logits.
    """
    element = DTYPE_BYTES[setup.activation_dtype]
    inner = maximum(_attention_values(model, setup), _mlp_values(model, setup))
    hidden = (3 if setup.eager else 2) * model.hidden_size
    logits = setup.held(work).prompts * model.vocab_size * LOGIT_BYTES
    return maximum(tokens * element * (hidden + inner), logits)


def prefill_tokens_at_once(
    setup: Setup, work: Workload, card_bytes: Numeric
) -> tuple[Numeric, Numeric, Numeric]:
    """Return the context tokens that go through the model at once, and the ends they may have.

    An engine processes them in batches, and keeps memory for its largest one; plain PyTorch
    processes all prompts whole.

    Parameters
    ----------
    setup, work
        How the prompts run, and their sizes.
    card_bytes
        Memory of the card. [bytes]

    Examples
    --------
    >>> work = Workload(context_tokens="32K", prompts=4)
    >>> [prefill_tokens_at_once(Setup(execution=e), work, 80e9)[0] for e in ("graph", "eager")]
    [8192, 131072]
    """
    if setup.graph:
        return batched_tokens(setup, card_bytes)
    tokens = stored_tokens(prefilled_levels(setup, work))
    return tokens, tokens, tokens


def _attention_values(model: ModelShape, setup: Setup) -> float:
    """Values per token of queries, keys, values and output in a prefill's attention."""
    values = 0.0
    for group in model.layer_groups:
        if group.attends:
            layer = model.of(group)
            kv_heads, key_width, value_width, _ = rank_geometry(layer, setup, expanded=True)
            heads = layer.heads // setup.tensor_parallel + kv_heads
            values = maximum(values, heads * (key_width + value_width))
        if group.state is not None:
            both = group.state.columns + group.state.width
            values = maximum(values, both / setup.tensor_parallel)
    return values


def _mlp_values(model: ModelShape, setup: Setup) -> Numeric:
    """Values per token in a layer's MLP: up (and gate) projections and their product.

    In a mixture of experts: those of every visited expert, their outputs until they are summed, and
    the output of shared experts.
    """
    tensors = 3 if model.gated_mlp else 2
    dense = tensors * model.widest_mlp / setup.tensor_parallel
    experts = model.experts
    if experts is None:
        return dense
    shared = tensors * experts.shared_intermediate_size / setup.tensor_parallel
    visit = tensors * experts.intermediate_size / setup.tensor_parallel + model.hidden_size
    after_shared = model.hidden_size if experts.shared_intermediate_size else 0
    sparse = maximum(shared, experts.per_token * visit + after_shared)
    some_dense = any(group.mlp == "dense" for group in model.layer_groups)
    return maximum(sparse, dense) if some_dense else sparse


# What an engine keeps of a card's memory, and what its share of that memory means.


class Kept(NamedTuple):
    """Memory that an engine keeps on each GPU beside weights, activations and caches.

    Attributes
    ----------
    value_bytes, low_bytes, high_bytes
        The constant, and the ends of its interval. [bytes]
    source
        Where it comes from: rows and error of a fit, or what it is carried from.
    """

    value_bytes: int
    low_bytes: int
    high_bytes: int
    source: str


# What the driver, the CUDA context, libraries, CUDA graphs and the sampler take.
# tests/golden/test_engine_memory.py has the logs and repeats the fit.
PROCESS = Kept(
    value_bytes=int(1.6 * GIB),
    low_bytes=int(0.4 * GIB),
    high_bytes=int(2.7 * GIB),
    source="vLLM, 15 start-up logs (2024 to 2026): median, least and most of card x share less "
    "weights, caches and activations; with each log left out of the fit in turn, its KV tokens are "
    "off by 2.1 % (median), at most by 22 % or 3 % of the card",
)
# Buffers of NCCL and of the all-reduce kernels of a tensor-parallel group.
COLLECTIVES = Kept(
    value_bytes=int(1.1 * GIB),
    low_bytes=int(0.4 * GIB),
    high_bytes=int(2.0 * GIB),
    source="carried: one SGLang log (four H100, vllm issue 21348) less what one process keeps; "
    "ends recalled",
)

# Tokens of the largest prefill batch if none are given. vLLM's server takes the larger number on
# cards from this memory on, as do SGLang (chunked_prefill_size) on these and TensorRT-LLM
# (max_num_tokens) on all; vLLM's other defaults lie between the ends. All recalled.
LARGE_CARD_BYTES = 70 * GIB
SMALL_BATCH_TOKENS, LARGE_BATCH_TOKENS, LARGEST_BATCH_TOKENS = 2048, 8192, 16384


def batched_tokens(setup: Setup, card_bytes: Numeric) -> tuple[Numeric, int, int]:
    """Return the tokens of the largest prefill batch an engine allows, and the ends it may have.

    Parameters
    ----------
    setup
        How the step runs; a given ``max_batched_tokens`` leaves no doubt.
    card_bytes
        Memory of the card. [bytes]

    Examples
    --------
    >>> batched_tokens(Setup(), 24 * GIB), batched_tokens(Setup(max_batched_tokens=4096), 24 * GIB)
    ((2048, 2048, 16384), (4096, 4096, 4096))
    """
    given = setup.max_batched_tokens
    if given is not None:
        return given, given, given
    usual = where(card_bytes >= LARGE_CARD_BYTES, LARGE_BATCH_TOKENS, SMALL_BATCH_TOKENS)
    if setup.engine == "trtllm":
        usual = LARGE_BATCH_TOKENS
    return usual, SMALL_BATCH_TOKENS, LARGEST_BATCH_TOKENS


def kept_bytes(setup: Setup) -> tuple[int, int, int]:
    """Return what a process keeps on one GPU, and the ends of its interval. [bytes].

    >>> [round(kept / GIB, 1) for kept in kept_bytes(Setup())]
    [1.6, 0.4, 2.7]
    """
    grouped = setup.gpus > 1
    return (
        PROCESS.value_bytes + where(grouped, COLLECTIVES.value_bytes, 0),
        PROCESS.low_bytes + where(grouped, COLLECTIVES.low_bytes, 0),
        PROCESS.high_bytes + where(grouped, COLLECTIVES.high_bytes, 0),
    )


def usable_bytes(
    setup: Setup,
    card_bytes: Numeric,
    *,
    weights_bytes: float,
    workspace_bytes: Numeric,
    kept: float,
) -> Numeric:
    """Return what weights, caches, activations and all that is kept may take together. [bytes].

    Parameters
    ----------
    setup
        Its ``gpu_memory_utilization`` means what its ``engine`` makes of it: a share of the whole
        card (vLLM, ``--gpu-memory-utilization``); a share of what the card has before the weights
        are loaded, for weights and caches alone (SGLang, ``--mem-fraction-static``); or a share of
        what is free once all else is loaded, for the caches (TensorRT-LLM,
        ``free_gpu_memory_fraction``).
    card_bytes
        Memory of the card. [bytes]
    weights_bytes, workspace_bytes, kept
        What the weights, the activations and all that is kept take. [bytes]

    Examples
    --------
    >>> asked = {"weights_bytes": 20, "workspace_bytes": 5, "kept": 5}
    >>> for engine in ("vllm", "sglang", "trtllm"):
    ...     usable_bytes(Setup(engine=engine), 100, **asked)
    90.0
    95.5
    93.0
    """
    share, others = setup.gpu_memory_utilization, 0.0
    if setup.engine == "sglang":
        static = share * (card_bytes - kept)
        return minimum(card_bytes, static + workspace_bytes + kept)
    if setup.engine == "trtllm":
        others = weights_bytes + workspace_bytes + kept
    return share * card_bytes + (1 - share) * others
