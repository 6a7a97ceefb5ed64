"""The shape of a decoder-only transformer: everything its cost depends on, and nothing else."""

from collections.abc import Mapping
from math import isqrt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simulator.errors import ModelError
from simulator.inputs.dtypes import Dtype
from simulator.inputs.files import validate

Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    """Base of the shape's parts: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LayerGroup(_Frozen):
    """Layers that cost the same.

    Attributes
    ----------
    count
        How many layers.
    window
        Tokens a query can see, itself included, or None for all of them.
    sparse
        Whether the MLP is a mixture of experts.
    """

    count: Positive
    window: Positive | None = None
    sparse: bool = False


class Experts(_Frozen):
    """A mixture-of-experts MLP.

    Attributes
    ----------
    count, per_token
        Routed experts, and how many of them each token visits.
    intermediate_size
        Inner width of one routed expert.
    shared_intermediate_size
        Inner width of the dense MLP that every token visits beside them; 0 for none.
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


class LatentAttention(_Frozen):
    """Multi-head latent attention (DeepSeek-V2, V3): the cache holds one compressed vector.

    Attributes
    ----------
    kv_rank, rope_dim
        Widths of the compressed KV vector and of the shared rotary key: the cache holds their sum
        per token and layer.
    query_rank
        Width of the compressed query, or None where queries are projected directly.
    nope_dim, value_dim
        Per head: the key part without rotary encoding, and the value.
    """

    kv_rank: Positive
    rope_dim: Positive
    query_rank: Positive | None = None
    nope_dim: Positive
    value_dim: Positive


class ModelShape(_Frozen):
    """Sizes of a decoder-only transformer, in the words of docs/nomenclature.md.

    Attributes
    ----------
    embedding_size
        Width of the token table and the output matrix where it is not the hidden size (OPT-350m).
    norm_weight, norm_bias
        Whether norms have weights, and layer norms biases.
    norms_per_layer, extra_norms
        Hidden-size norms in each layer, and outside the layers (the final norm is one).
    qk_norm
        Widths of norms on queries and keys: none, over each head, or over all heads.
    position_embeddings
        Rows of a learned position table; 0 for rotary or ALiBi.
    attention_sinks
        One learned logit per head (gpt-oss).
    max_context_tokens
        Positions the model was made for, None where the source does not say.
    layer_groups
        The layers, those of equal cost merged; by default one group of them all.
    source
        Where the sizes come from.
    notes
        What was assumed or simplified when they were read, one sentence each.
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
    weight_dtype: Dtype = "bf16"
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
        """Name of the attention family by its KV heads."""
        if self.latent is not None:
            return "multi-head latent"
        if self.kv_heads == self.heads:
            return "multi-head"
        return "multi-query" if self.kv_heads == 1 else "multi-group"

    @property
    def cache_width(self) -> int:
        """Values the cache holds per token and layer, K and V together."""
        if self.latent is not None:
            return self.latent.kv_rank + self.latent.rope_dim
        return 2 * self.kv_heads * self.head_dim

    def with_kv_heads(self, kv_heads: int) -> "ModelShape":
        """Return the same model with another number of KV heads.

        Raises
        ------
        ModelError
            If ``kv_heads`` does not divide the heads, or the model caches no heads.
        """
        if self.latent is not None:
            raise ModelError(f"{self.name} caches a latent vector: it has no kv_heads to change")
        if kv_heads == self.kv_heads:
            return self
        name = self.name.removesuffix(f" with {self.kv_heads} KV heads")
        data = {
            **self.model_dump(),
            "kv_heads": kv_heads,
            "name": f"{name} with {kv_heads} KV heads",
        }
        return validate(ModelShape, data, where=self.name, error=ModelError)


def _divisors(number: int) -> list[int]:
    """Return the divisors of a number."""
    small = [candidate for candidate in range(1, isqrt(number) + 1) if number % candidate == 0]
    return sorted({*small, *(number // candidate for candidate in small)})
