"""What must lie in one GPU's memory: weights, KV caches, and the workspace of a step or request."""

from dataclasses import dataclass

from simulator.counts.attention.registry import PARTIAL_BYTES, ROWS_PER_BLOCK
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.attention.tree import stored_tokens, visible_levels
from simulator.counts.transformer import (
    decode_attention_shape,
    prefilled_levels,
    rank_geometry,
    visible_tokens,
)
from simulator.inputs.dtypes import DTYPE_BYTES, activation_dtype
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.workload import WorkloadLike
from simulator.numeric import Numeric, maximum, minimum

LOGIT_BYTES = 4  # sampling works on float32 logits
# Tokens that an engine prefills at once: what vLLM (max_num_batched_tokens of its server on cards
# of 80 GB) and SGLang (chunked_prefill_size) take by default; recalled.
PREFILL_CHUNK_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one GPU of the group, in bytes.

    Attributes
    ----------
    capacity_bytes
        What the serving process may use: the card's memory times the utilisation allowed.
    """

    weights_bytes: Numeric
    kv_bytes: Numeric
    workspace_bytes: Numeric
    capacity_bytes: float

    @property
    def total_bytes(self) -> Numeric:
        """All of it. [bytes]."""
        return self.weights_bytes + self.kv_bytes + self.workspace_bytes

    @property
    def free_bytes(self) -> Numeric:
        """What is left; negative is what is missing. [bytes]."""
        return self.capacity_bytes - self.total_bytes

    @property
    def fits(self) -> Numeric:
        """Whether everything fits."""
        return self.free_bytes >= 0


def memory(
    model: ModelShape, work: WorkloadLike, *, capacity_bytes: float, resident_blocks: int
) -> Memory:
    """Count the memory that a decode step needs on one GPU."""
    return Memory(
        weights_bytes=weights_bytes(model, work),
        kv_bytes=kv_cache_bytes(model, work),
        workspace_bytes=workspace_bytes(model, work, resident_blocks=resident_blocks),
        capacity_bytes=capacity_bytes,
    )


def request_memory(
    model: ModelShape, work: WorkloadLike, *, capacity_bytes: float, resident_blocks: int
) -> Memory:
    """Count the memory that a whole request needs on one GPU.

    Parameters
    ----------
    work
        The request's last step, when caches are longest. They are set aside before the request
        starts, as engines' pools and static caches are, so the prefill finds them there.
    """
    step = workspace_bytes(model, work, resident_blocks=resident_blocks)
    return Memory(
        weights_bytes=weights_bytes(model, work),
        kv_bytes=kv_cache_bytes(model, work),
        workspace_bytes=maximum(step, prefill_workspace_bytes(model, work)),
        capacity_bytes=capacity_bytes,
    )


def weights_bytes(model: ModelShape, work: WorkloadLike) -> float:
    """Bytes of the weights on one GPU.

    Quantised formats hold the layers' matrices; tables, head and norms keep 16 bits, as published
    quantised checkpoints do. Every rank holds its share, and a copy of what cannot be split.
    """
    count, ranks = count_parameters(model), work.tensor_parallel
    wide = DTYPE_BYTES[activation_dtype(work.weight_dtype)]
    matrices = (count.attention + count.mlp) / ranks + _copied_parameters(model, ranks)
    tables = (count.embedding + count.head) * wide / ranks
    return matrices * DTYPE_BYTES[work.weight_dtype] + tables + count.norms * wide


def _copied_parameters(model: ModelShape, ranks: int) -> float:
    """Matrix parameters that one rank holds beyond its share, because every rank needs them.

    KV heads where there are fewer than ranks, MLA's down-projections, and the experts' router.
    """
    d = model.hidden_size
    sparse_layers = sum(group.count for group in model.layer_groups if group.sparse)
    router = sparse_layers * model.experts.count * d if model.experts is not None else 0
    if model.latent is not None:
        width = model.latent.kv_rank + model.latent.rope_dim + (model.latent.query_rank or 0)
        return (1 - 1 / ranks) * (router + model.layers * d * width)
    kv_matrices = model.layers * 2 * model.head_dim * (d + model.qkv_bias)
    return (1 - 1 / ranks) * router + max(0, 1 - model.kv_heads / ranks) * kv_matrices


def kv_bytes_per_token(model: ModelShape, work: WorkloadLike) -> float:
    """Bytes of K and V of one token on one GPU, in all layers.

    Mistral-7B 131,072 bytes, Llama-2-7B 524,288 bytes in bf16.
    """
    *_, cache_width = rank_geometry(model, work.tensor_parallel)
    return model.layers * cache_width * DTYPE_BYTES[work.kv_dtype]


def kv_cache_bytes(model: ModelShape, work: WorkloadLike) -> Numeric:
    """Bytes of the KV caches on one GPU.

    One context copy per sample where the layout is ``copies`` under standard attention, else one
    for all, and of a tree each node once. A layer with a sliding window keeps the window only.
    """
    *_, cache_width = rank_geometry(model, work.tensor_parallel)
    copies = work.attention == "standard" and work.kv_layout == "copies"
    tokens: Numeric = 0
    for group in model.layer_groups:
        if group.window is None:
            context, decoded = work.context_tokens, work.decoded_tokens
        else:
            context, decoded = visible_tokens(
                work.context_tokens, work.decoded_tokens, group.window
            )
        if work.tree and not copies:
            shared = stored_tokens(visible_levels(work, context))
            stored = shared + work.prompts * decoded * work.samples
        else:
            stored = context * (work.samples if copies else 1) + decoded * work.samples
            stored = work.prompts * stored
        tokens = tokens + group.count * stored
    return tokens * cache_width * DTYPE_BYTES[work.kv_dtype]


def workspace_bytes(model: ModelShape, work: WorkloadLike, *, resident_blocks: int) -> Numeric:
    """Bytes of the largest set of intermediate tensors alive at one time of a decode step.

    Two hidden vectors, the widest MLP tensor and the logits of every token, and what the attention
    kernel keeps in memory: its logits, a rebuilt or repeated cache, or split-KV partials.
    """
    tokens = work.prompts * work.samples * work.query_tokens
    element = DTYPE_BYTES[activation_dtype(work.weight_dtype)]
    inner = model.intermediate_size
    if model.experts is not None:
        visits = model.experts.per_token * model.experts.intermediate_size
        inner = max(inner, visits + model.experts.shared_intermediate_size)
    ups = 2 if model.gated_mlp else 1
    hidden = tokens * element * (2 * model.hidden_size + ups * inner / work.tensor_parallel)
    logits = tokens * model.vocab_size * LOGIT_BYTES
    attention: Numeric = 0
    for window in {group.window for group in model.layer_groups}:
        shape = decode_attention_shape(model, work, window, resident_blocks=resident_blocks)
        attention = maximum(attention, _attention_workspace(shape, work))
    return maximum(hidden + attention, logits + tokens * element * model.hidden_size)


def prefill_workspace_bytes(model: ModelShape, work: WorkloadLike) -> Numeric:
    """Bytes of the largest set of intermediate tensors alive at one time of the prefill.

    Of each token that is in the model at once: the residual stream and its norm (in plain PyTorch
    the layer's input too, which its caller still holds), and beside them queries, keys, values and
    output of the attention, or what the MLP multiplies; at the end the logits of each prompt's last
    token. No logits of attention: it is fused, as it is timed.
    """
    tokens = prefill_tokens_at_once(work)
    element = DTYPE_BYTES[activation_dtype(work.weight_dtype)]
    inner = max(_attention_values(model, work.tensor_parallel), _mlp_values(model, work))
    hidden = (3 if work.execution == "eager" else 2) * model.hidden_size
    logits = work.prompts * model.vocab_size * LOGIT_BYTES
    return maximum(tokens * element * (hidden + inner), logits)


def prefill_tokens_at_once(work: WorkloadLike) -> Numeric:
    """Tokens of the contexts that go through the model at once.

    Engines cut them into chunks; plain PyTorch takes all prompts whole.

    >>> from simulator.inputs.workload import Workload
    >>> work = {"context_tokens": "32K", "prompts": 4}
    >>> [prefill_tokens_at_once(Workload(execution=e, **work)) for e in ("graph", "eager")]
    [8192, 131072]
    """
    tokens = stored_tokens(prefilled_levels(work))
    return minimum(tokens, PREFILL_CHUNK_TOKENS) if work.execution == "graph" else tokens


def _attention_values(model: ModelShape, ranks: int) -> float:
    """Values of queries, keys, values and output that one token has in a prefill's attention."""
    heads = model.heads // ranks
    if model.latent is not None:
        # Prefill expands the latent cache to keys and values for every head.
        key_width = model.latent.nope_dim + model.latent.rope_dim
        value_width, kv_heads = model.latent.value_dim, heads
    else:
        kv_heads, key_width, value_width, _ = rank_geometry(model, ranks)
    return (heads + kv_heads) * (key_width + value_width)


def _mlp_values(model: ModelShape, work: WorkloadLike) -> float:
    """Values that one token has in a layer's MLP: up (and gate) projections and their product.

    Of a mixture, of every expert that it visits, with their outputs, which are added up last, and
    the output of shared experts.
    """
    tensors = 3 if model.gated_mlp else 2
    dense = tensors * model.intermediate_size / work.tensor_parallel
    experts = model.experts
    if experts is None:
        return dense
    shared = tensors * experts.shared_intermediate_size / work.tensor_parallel
    visit = tensors * experts.intermediate_size / work.tensor_parallel + model.hidden_size
    after_shared = model.hidden_size if experts.shared_intermediate_size else 0
    sparse = max(shared, experts.per_token * visit + after_shared)
    some_dense = any(not group.sparse for group in model.layer_groups)
    return max(sparse, dense) if some_dense else sparse


def _attention_workspace(shape: AttentionShape, work: WorkloadLike) -> Numeric:
    """Bytes an attention kernel keeps in memory beside its inputs. [bytes]."""
    tokens = shape.context_tokens + shape.decoded_tokens
    cache = shape.sequences * tokens * shape.cache_width * shape.kv_bytes
    standard = work.attention == "standard"
    rebuilt = cache if standard and work.kv_layout == "rebuilt" else 0
    outputs = 2 if standard else max(2, len(shape.parts))
    queries = shape.query_bytes + outputs * shape.output_bytes
    if work.kernel == "sdpa_math" and standard and work.execution == "eager":
        return queries + rebuilt + _math_path_workspace(shape, cache)
    if work.kernel in ("einsum", "sdpa_math"):
        return queries + 2 * shape.logits_bytes(tokens) + rebuilt
    if work.kernel == "flash":
        # The most that split-KV partials take: every slot's rows.
        rows = shape.resident_blocks * ROWS_PER_BLOCK
        return queries + rebuilt + rows * (shape.value_width + 1) * PARTIAL_BYTES
    return queries + rebuilt


def _math_path_workspace(shape: AttentionShape, cache_bytes: Numeric) -> Numeric:
    """Bytes PyTorch's math path keeps: in float32 the cache, its repeats, scaled keys, logits."""
    wide_cache = cache_bytes * (LOGIT_BYTES / shape.kv_bytes)
    group = shape.heads // shape.kv_heads
    copies = (wide_cache if shape.kv_bytes != LOGIT_BYTES else 0) + wide_cache * group / 2
    repeated = wide_cache * group if group > 1 else 0
    tokens = shape.context_tokens + shape.decoded_tokens
    return copies + repeated + 2 * shape.rows * tokens * LOGIT_BYTES
