"""Memory of one GPU: weights, KV caches, and the workspace of a step or a request."""

from dataclasses import dataclass

from simulator.counts.attention import linear
from simulator.counts.attention.registry import find_way
from simulator.counts.attention.tree import shared_tokens, stored_tokens, visible_levels
from simulator.counts.pieces import Shard
from simulator.counts.transformer import (
    attention_shapes,
    prefill_geometry,
    prefilled_levels,
    rank_geometry,
    visible_tokens,
)
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, minimum

LOGIT_BYTES = 4  # sampling works on float32 logits
# Tokens that an engine prefills at once: the defaults of vLLM (max_num_batched_tokens of its
# server on 80 GB cards) and SGLang (chunked_prefill_size); recalled.
PREFILL_CHUNK_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one GPU of the group, in bytes.

    Attributes
    ----------
    capacity_bytes
        Memory the serving process may use: the card's memory times the allowed utilisation.
    """

    weights_bytes: Numeric
    kv_bytes: Numeric
    workspace_bytes: Numeric
    capacity_bytes: float

    @property
    def total_bytes(self) -> Numeric:
        """Weights, caches and workspace. [bytes]."""
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes

    @property
    def free_bytes(self) -> Numeric:
        """Memory left; negative if memory is short. [bytes]."""
        return self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> Numeric:
        """Whether everything fits."""
        return self.free_bytes >= 0


def memory(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    *,
    capacity_bytes: float,
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
    capacity_bytes
        Memory the serving process may use. [bytes]
    resident_blocks
        Thread blocks the GPU runs at once.
    prefill
        Whether to include the prefill.
    """
    workspace = workspace_bytes(model, setup, work, resident_blocks=resident_blocks)
    if prefill:
        workspace = maximum(workspace, prefill_workspace_bytes(model, setup, work))
    return Memory(
        weights_bytes=weights_bytes(model, setup),
        kv_bytes=kv_cache_bytes(model, setup, work),
        workspace_bytes=workspace,
        capacity_bytes=capacity_bytes,
    )


def weights_bytes(model: ModelShape, setup: Setup) -> float:
    """Bytes of the weights on one GPU.

    Only the layers' matrices are quantised; tables, head and norms keep 16 bits, as in published
    quantised checkpoints. Every rank holds its shard, and a copy of what cannot be split.
    """
    count, ranks = count_parameters(model), setup.tensor_parallel
    wide = DTYPE_BYTES[setup.activation_dtype]
    matrices = (count.attention + count.mlp) / ranks + _copied_parameters(model, ranks)
    tables = (count.embedding + count.head) * wide / ranks
    return matrices * DTYPE_BYTES[setup.weight_dtype] + tables + count.norms * wide


def _copied_parameters(model: ModelShape, ranks: int) -> float:
    """Matrix parameters that one rank holds beyond its shard, because every rank needs them.

    KV heads and heads of states' keys if there are fewer than ranks, MLA's down-projections, the
    experts' router and their latent projections, and matrices that are not split.
    """
    d, copied = model.hidden_size, 0.0
    for group in model.layer_groups:
        layer, products = model.of(group), group.products
        if group.mlp == "experts" and model.experts is not None:
            experts = model.experts
            width = 2 * (experts.latent_size or 0) + experts.shared_gate
            width += 0 if experts.router else experts.count
            copied += group.count * (1 - 1 / ranks) * width * d
            products += experts.router
        if group.state is not None:
            copied += group.count * d * group.state.copied_columns(ranks)
            products += group.state.products
        whole = sum(each.inner * each.columns for each in products if each.split == "none")
        copied += group.count * (1 - 1 / ranks) * whole
        if group.attends and model.latent is not None:
            width = model.latent.kv_rank + model.latent.rope_dim + (model.latent.query_rank or 0)
            copied += group.count * (1 - 1 / ranks) * d * width
        elif group.caches:
            width = layer.head_dim + (0 if group.kv == "tied" else layer.value_width)
            read = model.attention_input_size or d
            matrices = (group.distinct or group.count) * width * (read + model.qkv_bias)
            copied += max(0, 1 - layer.kv_heads / ranks) * matrices
    return copied


def kv_bytes_per_token(model: ModelShape, setup: Setup) -> float:
    """Bytes of K and V of one token on one GPU, in all layers.

    Mistral-7B 131,072 bytes, Llama-2-7B 524,288 bytes in bf16.
    """
    values = sum(
        group.count * rank_geometry(model.of(group), setup)[-1]
        for group in model.layer_groups
        if group.caches
    )
    return values * DTYPE_BYTES[setup.kv_dtype]


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
    state keep one for every sequence.
    """
    values: Numeric = 0
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
    if model.latent is not None and setup.mixed:
        *_, expanded_width = rank_geometry(model, setup.but(latent_form="expanded"))
        shared = shared_tokens(prefilled_levels(setup, work))
        layers = sum(group.count for group in model.layer_groups if group.attends)
        values = values + layers * shared * expanded_width
    states = work.prompts * work.samples * state_bytes_per_sequence(model, setup)
    return values * DTYPE_BYTES[setup.kv_dtype] + states


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
    tokens = work.tokens
    element = DTYPE_BYTES[setup.activation_dtype]
    inner = model.intermediate_size
    if model.experts is not None:
        visits = model.experts.per_token * model.experts.intermediate_size
        inner = max(inner, visits + model.experts.shared_intermediate_size)
    ups = 2 if model.gated_mlp else 1
    hidden = tokens * element * (2 * model.hidden_size + ups * inner / setup.tensor_parallel)
    logits = tokens * model.vocab_size * LOGIT_BYTES
    way = find_way(setup.kernel)
    attention: Numeric = 0
    for shape, *_ in attention_shapes(model, setup, work, resident_blocks):
        attention = maximum(attention, way.workspace_bytes(shape, setup))
    return maximum(hidden + attention, logits + tokens * element * model.hidden_size)


def prefill_workspace_bytes(model: ModelShape, setup: Setup, work: Workload) -> Numeric:
    """Bytes of the largest set of intermediate tensors alive at once in the prefill.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.

    Notes
    -----
    Each token that is processed at once has the residual stream and its norm (in plain PyTorch also
    the layer's input, which the caller still holds), plus queries, keys, values and output of the
    attention, or the tensors of the MLP. At the end come the logits of each prompt's last token.
    Attention is fused, so it keeps no logits.
    """
    tokens = prefill_tokens_at_once(setup, work)
    element = DTYPE_BYTES[setup.activation_dtype]
    inner = max(_attention_values(model, setup), _mlp_values(model, setup))
    hidden = (3 if setup.eager else 2) * model.hidden_size
    logits = work.prompts * model.vocab_size * LOGIT_BYTES
    return maximum(tokens * element * (hidden + inner), logits)


def prefill_tokens_at_once(setup: Setup, work: Workload) -> Numeric:
    """Context tokens that go through the model at once.

    Engines process them in chunks; plain PyTorch processes all prompts whole.

    >>> work = Workload(context_tokens="32K", prompts=4)
    >>> [prefill_tokens_at_once(Setup(execution=e), work) for e in ("graph", "eager")]
    [8192, 131072]
    """
    tokens = stored_tokens(prefilled_levels(setup, work))
    return minimum(tokens, PREFILL_CHUNK_TOKENS) if setup.graph else tokens


def _attention_values(model: ModelShape, setup: Setup) -> float:
    """Values per token of queries, keys, values and output in a prefill's attention."""
    values = 0.0
    for group in model.layer_groups:
        if group.attends:
            layer = model.of(group)
            kv_heads, key_width, value_width = prefill_geometry(layer, setup)
            heads = layer.heads // setup.tensor_parallel + kv_heads
            values = max(values, heads * (key_width + value_width))
        if group.state is not None:
            both = group.state.columns + group.state.width
            values = max(values, both / setup.tensor_parallel)
    return values


def _mlp_values(model: ModelShape, setup: Setup) -> float:
    """Values per token in a layer's MLP: up (and gate) projections and their product.

    In a mixture of experts: those of every visited expert, their outputs until they are summed, and
    the output of shared experts.
    """
    tensors = 3 if model.gated_mlp else 2
    dense = tensors * model.intermediate_size / setup.tensor_parallel
    experts = model.experts
    if experts is None:
        return dense
    shared = tensors * experts.shared_intermediate_size / setup.tensor_parallel
    visit = tensors * experts.intermediate_size / setup.tensor_parallel + model.hidden_size
    after_shared = model.hidden_size if experts.shared_intermediate_size else 0
    sparse = max(shared, experts.per_token * visit + after_shared)
    some_dense = any(group.mlp == "dense" for group in model.layer_groups)
    return max(sparse, dense) if some_dense else sparse
