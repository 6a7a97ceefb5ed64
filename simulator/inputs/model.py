"""The shape of a decoder-only transformer: everything that determines its cost."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import isqrt
from typing import Annotated, Any, Literal, NamedTuple

from simulator.errors import InputError, ModelError
from simulator.inputs.dtypes import KvDtype
from simulator.inputs.files import read_count, validate
from simulator.inputs.formats import TensorGroup, WeightFormats
from simulator.inputs.record import Frozen, Rules

Positive = Annotated[int, Rules(before=read_count, gt=0)]
Natural = Annotated[int, Rules(before=read_count, ge=0)]


Rule = Literal["delta", "channel_delta", "decay", "scan", "convolution"]
KvSource = Literal["own", "earlier", "tied"]


class Product(Frozen):
    """A further matrix of a layer, multiplied with every token: [inner, columns].

    Attributes
    ----------
    split
        How tensor parallelism splits it: by columns, by rows (the results are summed), or not.
    """

    name: str
    inner: Positive
    columns: Positive
    split: Literal["columns", "rows", "none"] = "columns"


class State(Frozen):
    """A state of constant size that mixes tokens, in place of cached keys and values.

    A short convolution over some channels, then a recurrence over one matrix [k_dim, v_dim] for
    each value head: linear attention and state spaces. Every sequence has its own.

    Attributes
    ----------
    rule
        What a token does to the state. Delta rules (Qwen3-Next, Kimi Linear) take away what the
        key recalls before they add; decays (Mamba-2, lightning attention) only add; a scan
        (Mamba, RG-LRU) has a decay for each channel; a convolution has no further state.
    k_heads, k_dim, v_heads, v_dim
        Heads of queries and keys, of values and states, and their widths.
    columns
        Columns of the matrices that read the hidden state: queries, keys, values, gates, decays.
    channels, taps
        Channels of the convolution and the tokens that it combines; 0 for no convolution.
    chunk
        Tokens of a chunk in prefill.
    products, vectors
        Further matrices, and the values of biases, decays and norms.
    """

    rule: Rule
    k_heads: Natural = 0
    k_dim: Natural = 0
    v_heads: Positive
    v_dim: Positive
    columns: Positive
    channels: Natural = 0
    taps: Natural = 0
    chunk: Positive = 64
    products: tuple[Product, ...] = ()
    vectors: Natural = 0

    @property
    def width(self) -> int:
        """Width of the output of all heads."""
        return self.v_heads * self.v_dim

    @property
    def values(self) -> int:
        """Values of one sequence's state, without the convolution's."""
        return self.v_heads * self.k_dim * self.v_dim

    @property
    def key_columns(self) -> int:
        """Columns of queries and keys; those of a scan come from a product of their own."""
        return 0 if self.rule == "scan" else 2 * self.k_heads * self.k_dim

    def copied_columns(self, ranks: int) -> float:
        """Return the columns of one GPU beyond its part: copies of heads fewer than GPUs."""
        return 2 * self.k_dim * max(0, 1 - self.k_heads / ranks) if self.key_columns else 0


class LayerGroup(Frozen):
    """Layers of equal cost. A size that is not given is that of the model.

    Attributes
    ----------
    count
        Number of layers.
    window
        Tokens that a query sees, itself included, or None for all tokens.
    chunk
        Tokens of the chunks in which queries see the earlier tokens of their own (Llama 4), or
        None.
    mlp
        Whether the MLP is dense, a mixture of experts, or absent.
    attends
        Whether the layer has attention.
    state
        The state that mixes tokens instead of attention, or beside it (Falcon-H1).
    kv
        Whether the layer caches keys and values of its own, reads those of an earlier layer
        (Gemma 3n), or projects once for both (Gemma 4).
    indexes
        Of a model with an indexer: whether the layer has its own, or attends to the tokens that an
        earlier layer selected (GLM-5).
    heads, kv_heads, head_dim, value_dim, intermediate_size, norms_per_layer
        Sizes and numbers that differ from the model's.
    distinct
        Layers whose attention, MLP and norms have weights of their own; the others use these in
        turn (Zamba2). None: all.
    products, vectors
        Further matrices of each layer, and the values of further vectors.
    runs
        Whether a step runs the layer. Text alone skips cross-attention layers (Llama 3.2 Vision).
    """

    count: Positive
    window: Positive | None = None
    chunk: Positive | None = None
    mlp: Literal["dense", "experts", "none"] = "dense"
    attends: bool = True
    state: State | None = None
    kv: KvSource = "own"
    indexes: bool = True
    heads: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    value_dim: Positive | None = None
    intermediate_size: Positive | None = None
    distinct: Positive | None = None
    norms_per_layer: Positive | None = None
    products: tuple[Product, ...] = ()
    vectors: Natural = 0
    runs: bool = True

    def _check(self) -> None:
        if not self.attends and self.state is None and self.mlp == "none" and not self.products:
            raise ValueError("a layer needs attention, a state or an MLP")
        if self.window is not None and self.chunk is not None:
            raise ValueError("a layer has a window or chunks, not both")

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that differ from the model's, by name."""
        return {name: size for name in LAYER_SIZES if (size := getattr(self, name)) is not None}

    @property
    def limited(self) -> bool:
        """Whether queries see only some tokens."""
        return self.window is not None or self.chunk is not None

    @property
    def mixes(self) -> bool:
        """Whether the layer mixes tokens, by attention or a state."""
        return self.attends or self.state is not None

    @property
    def caches(self) -> bool:
        """Whether the layer caches keys and values of its own."""
        return self.attends and self.runs and self.kv != "earlier"


# The sizes that a group of layers may have for itself.
PROJECTED_SIZES = ("heads", "kv_heads", "head_dim", "value_dim")
LAYER_SIZES = (*PROJECTED_SIZES, "intermediate_size", "norms_per_layer")


class Experts(Frozen):
    """A mixture-of-experts MLP.

    Attributes
    ----------
    count, per_token
        Number of routed experts, and how many of them each token visits.
    intermediate_size
        Inner width of one routed expert.
    shared_intermediate_size
        Inner width of the dense MLP that every token also visits; 0 for none.
    latent_size
        Width that tokens are projected to before the routed experts, and back from after them
        (Nemotron 3); None for the hidden size.
    shared_gate
        Whether a one-column gate weighs the shared expert (Qwen2-MoE).
    router
        Matrices of a router of several layers (ZAYA1); by default it is one, to all experts.
    router_bias, expert_bias
        Whether the router and the experts' matrices have biases.
    zero
        Further experts that return their input: columns of the router without weights (LongCat).
    """

    count: Positive
    per_token: Positive
    intermediate_size: Positive
    shared_intermediate_size: Natural = 0
    latent_size: Positive | None = None
    shared_gate: bool = False
    router: tuple[Product, ...] = ()
    router_bias: bool = False
    expert_bias: bool = False
    zero: Natural = 0

    def _check(self) -> None:
        if self.per_token > self.count:
            raise ValueError(f"experts per token ({self.per_token}) exceed experts ({self.count})")

    @property
    def weighed_per_token(self) -> float:
        """Experts with weights that a token visits, on average if some are zero experts."""
        return (
            self.per_token * self.count / (self.count + self.zero) if self.zero else self.per_token
        )


class LayerInputs(Frozen):
    """Per-layer input embeddings (Gemma 3n, Gemma 4): each layer adds a vector of the token's own.

    A step gathers the token's row of a table [rows, layers x width], and adds a product of its
    embedding, normalised in each layer's part. A layer multiplies its part with a gate on its
    output, and projects the result to the hidden size.

    Attributes
    ----------
    rows
        Tokens of the table.
    width
        Values for each layer.
    """

    rows: Positive
    width: Positive


class LatentAttention(Frozen):
    """Multi-head latent attention (DeepSeek-V2, V3): the cache holds one compressed vector.

    Grouped latent attention (GLA) holds one for each group of heads, so that GPUs can split them
    (Zadouri et al., arXiv 2505.21487).

    Attributes
    ----------
    kv_rank, rope_dim
        Widths of a compressed KV vector and of the rotary key that all heads share.
    groups
        Compressed vectors, each for equally many heads: 1 is multi-head latent attention.
    query_rank
        Width of the compressed query, or None if queries are projected directly.
    nope_dim, value_dim
        Per head: the key part without rotary encoding, and the value.
    """

    kv_rank: Positive
    rope_dim: Positive
    groups: Positive = 1
    query_rank: Positive | None = None
    nope_dim: Positive
    value_dim: Positive

    def groups_of(self, ranks: int) -> int:
        """Return the compressed vectors of one GPU: copies, if there are fewer than GPUs."""
        return max(1, self.groups // ranks)

    def cache_width(self, ranks: int = 1) -> int:
        """Return the cached values per token and layer of one GPU."""
        return self.groups_of(ranks) * self.kv_rank + self.rope_dim


class Indexer(Frozen):
    """The indexer of DeepSeek sparse attention (DSA; DeepSeek-V3.2, GLM-5).

    It scores every cached token for each query, and attention reads the ``top_k`` best alone. Each
    layer keeps a key of its own per token for it, in fp8.

    Attributes
    ----------
    heads, dim
        Index heads, and width of their queries and of the one key that they share.
    top_k
        Cached tokens that a query attends to, at most.
    """

    heads: Positive
    dim: Positive
    top_k: Positive


class ModelShape(Frozen):
    """Sizes of a decoder-only transformer, in the words of docs/nomenclature.md.

    Attributes
    ----------
    embedding_size, embedding_rows
        Width of the token table and the output matrix, if not the hidden size (OPT-350m), and rows
        of the table, if not the vocabulary (Llama 3.2 Vision).
    layer_inputs
        Embeddings of tokens that each layer adds.
    products
        Further matrices outside the layers, multiplied with every token.
    norm_weight, norm_bias
        Whether norms have weights, and layer norms biases.
    norms_per_layer, extra_norms
        Hidden-size norms in each layer, and outside the layers (the final norm is one).
    attention_input_size
        Width of what attention reads, if not the hidden size (Zamba adds the token's embedding).
    qk_norm, qk_norm_bias
        Norms on queries and keys: none, per head, or over all heads; whether layer norms among
        them have biases too.
    attention_gate
        Whether a gate weighs the output of attention: not, by one value for each head, or by one
        for each value (Qwen3-Next).
    position_embeddings
        Rows of a learned position table; 0 for rotary or ALiBi.
    attention_sinks
        One learned logit per head (gpt-oss).
    max_context_tokens
        Positions that the model supports, None if the source does not say.
    value_dim
        Width of a head's values, if not that of its keys (MiMo-V2).
    query_rank
        Width of a compressed and normalised query, if queries are not projected directly (Step-3).
    layer_groups
        The layers in groups of equal cost; by default one group.
    draft_layers, dense_drafts
        Layers that predict further tokens (multi-token prediction): weights in memory alone; and
        whether they have a dense MLP, whatever the last layer has (Step-3.5).
    weights, kv_dtype
        Formats of the checkpoint's weights, and of the KV cache that it was made for, None if it
        does not say.
    tower_parameters
        Parameters of what encodes images and sound: in memory, not in a decode step.
    source
        Where the sizes come from.
    notes
        Assumptions and simplifications made in reading them, one sentence each.

    Raises
    ------
    pydantic.ValidationError
        If a size is wrong or missing; the functions of this package raise ModelError instead.
    """

    name: str
    layers: Positive
    hidden_size: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    value_dim: Positive | None = None
    query_rank: Positive | None = None
    intermediate_size: Natural
    attention_input_size: Positive | None = None
    vocab_size: Positive
    embedding_size: Positive | None = None
    embedding_rows: Positive | None = None
    layer_inputs: LayerInputs | None = None
    products: tuple[Product, ...] = ()
    gated_mlp: bool = True
    tied_embeddings: bool = False
    rotary: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norm_weight: bool = True
    norm_bias: bool = True
    norms_per_layer: Natural = 2
    extra_norms: Natural = 1
    qk_norm: Literal["none", "head", "all"] = "none"
    qk_norm_bias: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    attention_gate: Literal["none", "head", "value"] = "none"
    position_embeddings: Natural = 0
    attention_sinks: bool = False
    max_context_tokens: Positive | None = None
    layer_groups: tuple[LayerGroup, ...] = ()
    draft_layers: Natural = 0
    dense_drafts: bool = False
    experts: Experts | None = None
    latent: LatentAttention | None = None
    indexer: Indexer | None = None
    weights: WeightFormats = WeightFormats()
    kv_dtype: KvDtype | None = None
    tower_parameters: Natural = 0
    source: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Make one group of layers where none is given."""
        if isinstance(data, Mapping) and not data.get("layer_groups") and "layers" in data:
            mlp = "dense" if data.get("experts") is None else "experts"
            group = {"count": data["layers"], "mlp": mlp}
            return {**data, "layer_groups": (group,)}
        return data

    def _check(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) is not a multiple of kv_heads ({self.kv_heads}); "
                f"kv_heads can be {', '.join(map(str, _divisors(self.heads)))}"
            )
        if sum(group.count for group in self.layer_groups) != self.layers:
            raise ValueError(f"layer_groups do not add up to layers = {self.layers}")
        if self.experts is None and any(group.mlp == "experts" for group in self.layer_groups):
            raise ValueError("layer_groups has layers with experts but the model has none")
        if self.indexer is not None and (self.latent is None or self.latent.groups > 1):
            raise ValueError("an indexer selects from a latent cache of one vector")
        if self.latent is not None and self.heads % self.latent.groups:
            raise ValueError(
                f"heads ({self.heads}) is not a multiple of latent groups ({self.latent.groups})"
            )
        for group in self.layer_groups:
            heads, kv_heads = group.heads or self.heads, group.kv_heads or self.kv_heads
            if group.attends and heads % kv_heads:
                raise ValueError(
                    f"layer_groups has {heads} heads for {kv_heads} KV heads: not a multiple"
                )

    def of(self, group: LayerGroup) -> "ModelShape":
        """Return the model with the sizes of a group's layers as its own."""
        return self.but(**group.sizes) if group.sizes else self

    @property
    def family(self) -> str:
        """Name of the attention family, by its KV heads."""
        if self.latent is not None:
            return "multi-head latent" if self.latent.groups == 1 else "grouped latent"
        if not any(group.attends for group in self.layer_groups):
            return "no attention"
        if self.kv_heads == self.heads:
            return "multi-head"
        return "multi-query" if self.kv_heads == 1 else "multi-group"

    @property
    def drafting_group(self) -> LayerGroup | None:
        """The kind of the layers that predict further tokens: the last with attention, if any."""
        attending = [group for group in self.layer_groups if group.attends]
        if not self.draft_layers or not attending:
            return None
        return attending[-1].but(**({"mlp": "dense"} if self.dense_drafts else {}))

    @property
    def attention_layers(self) -> list["ModelShape"]:
        """The model with the sizes of each group of layers that has attention."""
        return [self.of(group) for group in self.layer_groups if group.attends]

    @property
    def widest_mlp(self) -> int:
        """Largest inner width of a dense MLP."""
        return max(self.of(group).intermediate_size for group in self.layer_groups)

    @property
    def value_width(self) -> int:
        """Width of a head's values."""
        return self.value_dim or self.head_dim

    @property
    def cache_width(self) -> int:
        """Cached values per token of a layer with the model's sizes, K and V together."""
        if self.latent is not None:
            return self.latent.cache_width()
        return self.kv_heads * (self.head_dim + self.value_width)

    @property
    def cached_values(self) -> int:
        """Cached values per token of all layers, K and V together; windows keep fewer tokens.

        Mistral-7B 65,536 values, Llama-2-7B 262,144: two bytes each in bf16.
        """
        groups = [group for group in self.layer_groups if group.caches]
        return sum(group.count * self.of(group).cache_width for group in groups)

    def with_kv_heads(self, kv_heads: int | str) -> "ModelShape":
        """Return the same model with another number of KV heads.

        Raises
        ------
        ModelError
            If ``kv_heads`` does not divide the heads, or the model caches no heads, or not equally
            many in all layers.
        """
        if self.latent is not None:
            raise ModelError(f"{self.name} caches a latent vector: it has no kv_heads to change")
        changed = self.replaced({"kv_heads": kv_heads})
        if changed.kv_heads == self.kv_heads:
            return self
        if any(group.kv_heads for group in self.layer_groups):
            raise ModelError(f"{self.name} has kv_heads that differ by layer: they cannot be set")
        name = self.name.removesuffix(f" with {self.kv_heads} KV heads")
        return changed.but(name=f"{name} with {changed.kv_heads} KV heads")

    def replaced(self, changes: Mapping[str, Any]) -> "ModelShape":
        """Return the same model with some fields changed.

        Raises
        ------
        ModelError
            If a field is unknown, or the values are wrong or inconsistent.
        """
        data = {**dict(self), **changes}
        if "layers" in changes and "layer_groups" not in changes:
            layers = size_above_zero("layers", changes["layers"], where=self.name)
            if len(self.layer_groups) > 1:
                raise ModelError(
                    f"{self.name} has layers of several kinds: give layer_groups with layers"
                )
            data["layer_groups"] = [{**dict(self.layer_groups[0]), "count": layers}]
        return validate(ModelShape, data, where=self.name, error=ModelError)


def size_above_zero(name: str, value: object, *, where: str) -> int:
    """Check a size that others derive from, so that one mistake causes only one error.

    Parameters
    ----------
    name
        Its field.
    value
        A whole number, or a text such as ``4K``.
    where
        The model; the message starts with it.

    Raises
    ------
    ModelError
        If it is not a whole number above zero.
    """
    try:
        size = read_count(value)
    except InputError as problem:
        raise ModelError(f"{where}: {name} = {problem}") from None
    if not isinstance(size, int) or size < 1:
        raise ModelError(f"{where}: {name} = {value!r} must be a whole number above zero")
    return size


def _divisors(number: int) -> list[int]:
    """Return the divisors of a number."""
    small = [candidate for candidate in range(1, isqrt(number) + 1) if number % candidate == 0]
    return sorted({*small, *(number // candidate for candidate in small)})


class ParameterCount(NamedTuple):
    """Parameters of a model by part.

    Attributes
    ----------
    embedding
        Token, position and per-layer tables, and the matrices outside the layers.
    head
        The output matrix; 0 if it is the token table.
    attention, mlp
        Matrices and biases of all layers; those of states count as attention.
    norms
        Norm weights and biases, attention sinks included.
    active
        Parameters that one token uses: all but the routed experts it does not visit.
    """

    embedding: int
    head: int
    attention: int
    mlp: int
    norms: int
    active: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.head + self.attention + self.mlp + self.norms


class Matrix(NamedTuple):
    """A matrix of one layer: [inner, columns], and what belongs to it.

    Attributes
    ----------
    name
        What it does.
    group
        The tensors among which it is, for their format; None for what nobody quantises.
    inner, columns
        Its sizes.
    further
        Values of biases and vectors, which no checkpoint quantises.
    parts
        The most GPUs over which it can be split, more hold copies; None for any number.
    own
        Whether each layer has its own, where layers share the others in turn (Zamba2).
    """

    name: str
    group: TensorGroup | None
    inner: int
    columns: int
    further: int = 0
    parts: int | None = None
    own: bool = False

    @property
    def weights(self) -> int:
        """Weights without biases."""
        return self.inner * self.columns

    @property
    def values(self) -> int:
        """Parameters."""
        return self.weights + self.further


@lru_cache(maxsize=1024)
def model_matrices(model: ModelShape) -> list[tuple[int, Matrix]]:
    """Return the matrices of a model's layers, each with the number of layers that have it."""
    found = [
        (group.count if matrix.own else group.distinct or group.count, matrix)
        for group in model.layer_groups
        for matrix in layer_matrices(model.of(group), group)
    ]
    if (inputs := model.layer_inputs) is not None:
        added = Matrix("layer_inputs", "mlp", 2 * model.hidden_size, inputs.width)
        found.append((model.layers, added))
    return found


def layer_matrices(model: ModelShape, group: LayerGroup) -> list[Matrix]:
    """Return the matrices of one layer: attention, MLP, state and further ones.

    Parameters
    ----------
    model
        The model, with the sizes of the layer.
    group
        The layer's group.
    """
    d, found = model.hidden_size, _mlp_matrices(model, group)
    if group.attends:
        found += _attention_matrices(model, group.kv)
    if group.attends and group.indexes and (indexer := model.indexer) is not None:
        read = (model.latent and model.latent.query_rank) or d
        # The layer norm of its key follows.
        found += [
            Matrix("index_queries", "attention", read, indexer.heads * indexer.dim, parts=1),
            Matrix("index_weights", "attention", d, indexer.heads, parts=1),
            Matrix("index_key", "attention", d, indexer.dim, 2 * indexer.dim, parts=1),
        ]
    if (state := group.state) is not None:
        keys, vectors = state.key_columns, state.channels * state.taps + state.vectors
        found += [
            Matrix("state_keys", "state", d, keys, 0, state.k_heads or None, own=True),
            Matrix("state_input", "state", d, state.columns - keys, vectors, own=True),
            Matrix("state_output", "state", state.width, d, own=True),
            *_products(state.products, "state"),
        ]
    further = Matrix("vectors", "attention", 0, 0, group.vectors, own=True)
    return [*found, *_products(group.products, "attention"), further]


def _products(products: Iterable[Product], group: TensorGroup | None) -> list[Matrix]:
    """Return further matrices."""
    parts = {"none": 1}  # the others are split over any number of GPUs
    return [
        Matrix(each.name, group, each.inner, each.columns, 0, parts.get(each.split), own=True)
        for each in products
    ]


@lru_cache(maxsize=1024)
def count_parameters(model: ModelShape) -> ParameterCount:
    """Count the parameters of a model exactly.

    Examples
    --------
    >>> llama = ModelShape(name="Llama-2-7B", layers=32, hidden_size=4096, heads=32, kv_heads=32,
    ...     head_dim=128, intermediate_size=11008, vocab_size=32000)
    >>> count_parameters(llama).total
    6738415616
    """
    found: Counter[TensorGroup | None] = Counter()
    for layers, matrix in model_matrices(model):
        found[matrix.group] += layers * matrix.values
    width = model.embedding_size or model.hidden_size
    rows = model.embedding_rows or model.vocab_size
    embedding = rows * width + model.position_embeddings * model.hidden_size
    embedding += sum(product.inner * product.columns for product in model.products)
    if width != model.hidden_size:
        # One matrix widens the table's vectors, another narrows those for the output.
        embedding += 2 * width * model.hidden_size
    head = 0 if model.tied_embeddings else model.vocab_size * width
    head += model.vocab_size * model.lm_head_bias
    norms = _norm_values(model) * model.hidden_size * model.extra_norms
    for group in model.layer_groups:
        norms += (group.distinct or group.count) * _layer_norms(model.of(group), group)
    if (inputs := model.layer_inputs) is not None:
        embedding += (inputs.rows + model.hidden_size) * model.layers * inputs.width
        norms += _norm_values(model) * (model.layers * model.hidden_size + inputs.width)
    attention = found["attention"] + found["state"]
    mlp = found["mlp"] + found["experts"] + found["shared_experts"] + found[None]
    total, idle = embedding + head + attention + mlp + norms, 0
    if (experts := model.experts) is not None:
        idle = round(found["experts"] * (experts.count - experts.weighed_per_token) / experts.count)
    return ParameterCount(
        embedding=embedding,
        head=head,
        attention=attention,
        mlp=mlp,
        norms=norms,
        active=total - idle,
    )


def draft_matrices(model: ModelShape) -> list[tuple[int, Matrix]]:
    """Return the matrices of layers that predict further tokens, as :func:`model_matrices` does.

    One matrix joins it to the hidden state and the next token, each normalised before, and a norm
    follows. A model without attention has none.
    """
    group, d = model.drafting_group, model.hidden_size
    if group is None:
        return []
    layer = model.of(group)
    norms = _layer_norms(layer, group) + 3 * _norm_values(model) * d
    joined = Matrix("input_projection", "mlp", 2 * d, d, norms, parts=1)
    return [(model.draft_layers, matrix) for matrix in (*layer_matrices(layer, group), joined)]


def _attention_matrices(model: ModelShape, kv: KvSource) -> list[Matrix]:
    """Return the matrices of one layer's attention.

    Parameters
    ----------
    model
        The model, with the sizes of the layer.
    kv
        The layer's own projections of keys and values, see :class:`LayerGroup`.
    """
    d, read = model.hidden_size, model.attention_input_size or model.hidden_size
    bias, output_bias = model.qkv_bias, d * model.output_bias

    def _down(name: str, columns: int, parts: int | None = None) -> Matrix:
        return Matrix(name, "attention", read, columns, bias * columns, parts)

    if (latent := model.latent) is not None:
        query, rank = model.heads * (latent.nope_dim + latent.rope_dim), latent.query_rank
        inner, output = latent.kv_rank, model.heads * latent.value_dim
        # Only the matrices that read the hidden state have biases.
        return [
            *([] if rank is None else [_down("query_down", rank, 1)]),
            Matrix("query", "attention", d if rank is None else rank, query),
            _down("latent_down", latent.groups * inner, latent.groups),
            _down("latent_down", latent.rope_dim, 1),
            Matrix("latent_up", "attention", inner, model.heads * latent.nope_dim + output),
            Matrix("output", "attention", output, d, output_bias),
        ]
    query, rank = model.heads * model.head_dim, model.query_rank
    found = [_down("query", query)]
    if rank is not None:
        found = [_down("query_down", rank, 1), Matrix("query", "attention", rank, query)]
    if kv != "earlier":
        found.append(_down("key", model.kv_heads * model.head_dim, model.kv_heads))
    if kv == "own":
        found.append(_down("value", model.kv_heads * model.value_width, model.kv_heads))
    gate, output = gate_columns(model), model.heads * model.value_width
    # A gate for each value is part of the projection to queries; one for each head has no bias.
    gate_bias = bias * gate * (model.attention_gate == "value")
    found.append(Matrix("attention_gate", "attention", read, gate, gate_bias))
    return [*found, Matrix("output", "attention", output, d, output_bias)]


def gate_columns(model: ModelShape) -> int:
    """Return the columns of the gate on the output of attention, 0 for none."""
    output = model.heads * model.value_width
    return {"none": 0, "head": model.heads, "value": output}[model.attention_gate]


def _mlp_matrices(model: ModelShape, group: LayerGroup) -> list[Matrix]:
    """Return the matrices of one layer's MLP, or of its experts and what chooses them."""
    d, ups = model.hidden_size, ("gate", "up") if model.gated_mlp else ("up",)

    def _dense(
        tensors: TensorGroup, inner: int, *, bias: bool, hidden: int = d, copies: int = 1
    ) -> list[Matrix]:
        found = [Matrix(up, tensors, hidden, copies * inner, bias * copies * inner) for up in ups]
        return [*found, Matrix("down", tensors, copies * inner, hidden, bias * copies * hidden)]

    if group.mlp == "none":
        return []
    if group.mlp == "dense" or (experts := model.experts) is None:
        return _dense("mlp", model.intermediate_size, bias=model.mlp_bias)
    count, width, choices = experts.count, experts.latent_size or d, experts.count + experts.zero
    inner, bias = experts.intermediate_size, experts.expert_bias
    found = _dense("experts", inner, bias=bias, hidden=width, copies=count)
    if experts.shared_intermediate_size:
        found += _dense("shared_experts", experts.shared_intermediate_size, bias=model.mlp_bias)
        found.append(Matrix("shared_gate", None, d, int(experts.shared_gate), parts=1))
    if experts.latent_size is not None:
        biases = model.mlp_bias * (d + width)
        found.append(Matrix("experts_latent", None, 2 * d, width, biases, parts=1))
    router = Matrix("router", None, d, choices, choices * experts.router_bias, parts=1)
    return [*found, *(_products(experts.router, None) or [router])]


def _norm_values(model: ModelShape) -> int:
    """Return the values of a norm for each value that it normalises."""
    return model.norm_weight * (2 if model.norm == "layer" and model.norm_bias else 1)


def norms_of_layer(model: ModelShape, group: LayerGroup) -> int:
    """Return the hidden-size norms of a layer: those before and after each of its parts."""
    if group.mixes and group.mlp != "none":
        return model.norms_per_layer
    return (model.norms_per_layer + 1) // 2 if group.mixes or group.mlp != "none" else 0


def _layer_norms(model: ModelShape, group: LayerGroup) -> int:
    """Count one layer's norm weights and biases, and its attention sinks."""
    values = _norm_values(model)
    norms = values * model.hidden_size * norms_of_layer(model, group)
    if not group.attends:
        return norms
    norms += values * ((model.attention_input_size or model.hidden_size) - model.hidden_size)
    key_heads = 0 if group.kv == "earlier" else 1
    qk_heads = {"none": 0, "head": 1 + key_heads, "all": model.heads + key_heads * model.kv_heads}[
        model.qk_norm
    ]
    qk_values = values if model.qk_norm_bias else model.norm_weight
    norms += qk_values * qk_heads * model.head_dim + values * (model.query_rank or 0)
    if model.latent is not None:
        norms += model.latent.groups * model.latent.kv_rank + (model.latent.query_rank or 0)
    return norms + model.heads * model.attention_sinks
