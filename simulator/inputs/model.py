"""The shape of a decoder-only transformer: everything that determines its cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from simulator.errors import InputError, ModelError
from simulator.inputs.dtypes import Dtype, read_dtype
from simulator.inputs.files import Frozen, read_count, validate

Positive = Annotated[int, BeforeValidator(read_count), Field(gt=0)]
Natural = Annotated[int, BeforeValidator(read_count), Field(ge=0)]


class LayerGroup(Frozen):
    """Layers of equal cost.

    Attributes
    ----------
    count
        Number of layers.
    window
        Tokens that a query sees, itself included, or None for all tokens.
    sparse
        Whether the MLP is a mixture of experts.
    """

    count: Positive
    window: Positive | None = None
    sparse: bool = False


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
    shared_gate
        Whether a one-column gate weighs the shared expert (Qwen2-MoE).
    router_bias, expert_bias
        Whether the router and the experts' matrices have biases.
    """

    count: Positive
    per_token: Positive
    intermediate_size: Positive
    shared_intermediate_size: Natural = 0
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False

    @model_validator(mode="after")
    def _visits_existing_experts(self) -> "Experts":
        if self.per_token > self.count:
            raise ValueError(f"experts per token ({self.per_token}) exceed experts ({self.count})")
        return self


class LatentAttention(Frozen):
    """Multi-head latent attention (DeepSeek-V2, V3): the cache holds one compressed vector.

    Attributes
    ----------
    kv_rank, rope_dim
        Widths of the compressed KV vector and of the shared rotary key: the cache holds their sum
        per token and layer.
    query_rank
        Width of the compressed query, or None if queries are projected directly.
    nope_dim, value_dim
        Per head: the key part without rotary encoding, and the value.
    """

    kv_rank: Positive
    rope_dim: Positive
    query_rank: Positive | None = None
    nope_dim: Positive
    value_dim: Positive


class ModelShape(Frozen):
    """Sizes of a decoder-only transformer, in the words of docs/nomenclature.md.

    Attributes
    ----------
    embedding_size
        Width of the token table and the output matrix, if not the hidden size (OPT-350m).
    norm_weight, norm_bias
        Whether norms have weights, and layer norms biases.
    norms_per_layer, extra_norms
        Hidden-size norms in each layer, and outside the layers (the final norm is one).
    qk_norm
        Norms on queries and keys: none, per head, or over all heads.
    position_embeddings
        Rows of a learned position table; 0 for rotary or ALiBi.
    attention_sinks
        One learned logit per head (gpt-oss).
    max_context_tokens
        Positions that the model supports, None if the source does not say.
    layer_groups
        The layers in groups of equal cost; by default one group.
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
    intermediate_size: Natural
    vocab_size: Positive
    embedding_size: Positive | None = None
    gated_mlp: bool = True
    tied_embeddings: bool = False
    rotary: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norm_weight: bool = True
    norm_bias: bool = True
    norms_per_layer: Natural = 2
    extra_norms: Natural = 1
    qk_norm: Literal["none", "head", "all"] = "none"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    position_embeddings: Natural = 0
    attention_sinks: bool = False
    max_context_tokens: Positive | None = None
    layer_groups: tuple[LayerGroup, ...] = ()
    experts: Experts | None = None
    latent: LatentAttention | None = None
    weight_dtype: Annotated[Dtype, BeforeValidator(read_dtype)] = "bf16"
    tower_parameters: Natural = 0
    source: str = ""
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _one_group_by_default(cls, data: object) -> object:
        if isinstance(data, Mapping) and not data.get("layer_groups") and "layers" in data:
            group = {"count": data["layers"], "sparse": data.get("experts") is not None}
            return {**data, "layer_groups": (group,)}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "ModelShape":
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) is not a multiple of kv_heads ({self.kv_heads}); "
                f"kv_heads can be {', '.join(map(str, _divisors(self.heads)))}"
            )
        if sum(group.count for group in self.layer_groups) != self.layers:
            raise ValueError(f"layer_groups do not add up to layers = {self.layers}")
        if self.experts is None and any(group.sparse for group in self.layer_groups):
            raise ValueError("layer_groups has sparse layers but the model has no experts")
        return self

    @property
    def group_size(self) -> int:
        """Query heads per KV head, h / g."""
        return self.heads // self.kv_heads

    @property
    def family(self) -> str:
        """Name of the attention family, by its KV heads."""
        if self.latent is not None:
            return "multi-head latent"
        if self.kv_heads == self.heads:
            return "multi-head"
        return "multi-query" if self.kv_heads == 1 else "multi-group"

    @property
    def cache_width(self) -> int:
        """Cached values per token and layer, K and V together."""
        if self.latent is not None:
            return self.latent.kv_rank + self.latent.rope_dim
        return 2 * self.kv_heads * self.head_dim

    def with_kv_heads(self, kv_heads: int | str) -> "ModelShape":
        """Return the same model with another number of KV heads.

        Raises
        ------
        ModelError
            If ``kv_heads`` does not divide the heads, or the model caches no heads.
        """
        if self.latent is not None:
            raise ModelError(f"{self.name} caches a latent vector: it has no kv_heads to change")
        changed = self.replaced({"kv_heads": kv_heads})
        if changed.kv_heads == self.kv_heads:
            return self
        name = self.name.removesuffix(f" with {self.kv_heads} KV heads")
        return changed.model_copy(update={"name": f"{name} with {changed.kv_heads} KV heads"})

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


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model by part.

    Attributes
    ----------
    embedding
        Token and position tables, and the matrices that fit a narrower token table.
    head
        The output matrix; 0 if it is the token table.
    attention, mlp
        Matrices and biases of all layers.
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
    dense_mlp = _mlp(model, model.intermediate_size, bias=model.mlp_bias)
    sparse_layers = sum(group.count for group in model.layer_groups if group.sparse)
    mlp = (model.layers - sparse_layers) * dense_mlp
    idle = 0
    if model.experts is not None:
        experts = model.experts
        one = _mlp(model, experts.intermediate_size, bias=experts.expert_bias)
        shared = 0
        if experts.shared_intermediate_size:
            shared = _mlp(model, experts.shared_intermediate_size, bias=model.mlp_bias)
            shared += experts.shared_gate * model.hidden_size
        router = experts.count * (model.hidden_size + experts.router_bias)
        mlp += sparse_layers * (experts.count * one + shared + router)
        idle = sparse_layers * (experts.count - experts.per_token) * one
    width = model.embedding_size or model.hidden_size
    embedding = model.vocab_size * width + model.position_embeddings * model.hidden_size
    if width != model.hidden_size:
        # One matrix widens the table's vectors, another narrows those for the output.
        embedding += 2 * width * model.hidden_size
    head = 0 if model.tied_embeddings else model.vocab_size * width
    head += model.vocab_size * model.lm_head_bias
    attention = model.layers * attention_parameters(model)
    norms = _norms(model)
    total = embedding + head + attention + mlp + norms
    return ParameterCount(embedding, head, attention, mlp, norms, active=total - idle)


def attention_parameters(model: ModelShape) -> int:
    """Count the matrices and biases of one layer's attention, without its norms."""
    d = model.hidden_size
    if model.latent is not None:
        latent = model.latent
        query_width = model.heads * (latent.nope_dim + latent.rope_dim)
        rank = latent.query_rank
        query = d * query_width if rank is None else rank * (d + query_width)
        down = d * (latent.kv_rank + latent.rope_dim)
        up = latent.kv_rank * model.heads * (latent.nope_dim + latent.value_dim)
        output = model.heads * latent.value_dim * d
        # Only the matrices that read the hidden state have biases.
        biases = model.qkv_bias * ((rank or 0) + latent.kv_rank + latent.rope_dim)
        return query + down + up + output + biases + model.output_bias * d
    query_width = model.heads * model.head_dim
    qkv_width = query_width + 2 * model.kv_heads * model.head_dim
    return qkv_width * (d + model.qkv_bias) + d * (query_width + model.output_bias)


def _mlp(model: ModelShape, inner: int, *, bias: bool) -> int:
    """Count one MLP: two matrices up if gated, and one down."""
    ups = 2 if model.gated_mlp else 1
    weights = (ups + 1) * model.hidden_size * inner
    return weights + (ups * inner + model.hidden_size if bias else 0)


def _norms(model: ModelShape) -> int:
    """Count norm weights and biases and attention sinks."""
    vectors = model.norm_weight * (2 if model.norm == "layer" and model.norm_bias else 1)
    norms = model.layers * model.norms_per_layer + model.extra_norms
    qk_heads = {"none": 0, "head": 2, "all": model.heads + model.kv_heads}[model.qk_norm]
    per_layer = vectors * qk_heads * model.head_dim
    if model.latent is not None:
        per_layer += model.latent.kv_rank + (model.latent.query_rank or 0)
    if model.attention_sinks:
        per_layer += model.heads
    return vectors * model.hidden_size * norms + model.layers * per_layer
