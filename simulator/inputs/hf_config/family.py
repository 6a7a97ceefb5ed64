"""What a family of models is described by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simulator.inputs.hf_config import layers, special
from simulator.inputs.hf_config.layers import LayerRule, Windows
from simulator.inputs.hf_config.reader import ConfigReader, Flag
from simulator.inputs.hf_config.special import KvRule

_AS_MANY_AS_HEADS = special.grouped(None)
_NO_WINDOWS = Windows()


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A family's mixture of experts.

    Attributes
    ----------
    count, per_token, size
        Class defaults; None where the file must state the number.
    size_key
        Key of one expert's inner width.
    sparse
        Whether a layer has experts.
    shared_size
        Inner width of the experts every token visits.
    """

    count: int
    per_token: int | None
    size_key: str = "moe_intermediate_size"
    size: int | None = None
    sparse: LayerRule = layers.every_layer
    shared_size: Callable[[ConfigReader], int] = special.no_shared_expert
    shared_gate: bool = False
    biases: bool = False
    correction_bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model type's defaults, in the words of :class:`~simulator.inputs.model.ModelShape`.

    Attributes
    ----------
    kv_heads
        Rule that gives the KV heads.
    head_dim
        Class default; None means hidden size / heads.
    inner_factor
        Inner width of the MLP by the hidden size where the file may leave it out.
    inner_key
        Key of the inner width of a dense MLP.
    positions
        Rows of the learned position table beside the positions themselves; None for no table.
    special
        Rule for what only this family has.
    sizes
        Class defaults of the sizes, for a ``text_config`` that holds differences only.
    """

    kv_heads: KvRule = _AS_MANY_AS_HEADS
    head_dim: int | None = None
    inner_key: str = "intermediate_size"
    inner_factor: int | None = None
    gated_mlp: bool = True
    tied_embeddings: bool = False
    rotary: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norm_bias: bool = True
    norms_per_layer: int = 2
    extra_norms: int = 1
    qk_norm: Literal["none", "head", "all"] = "none"
    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    lm_head_bias: bool = False
    positions: int | None = None
    max_positions: int | None = None
    attention_sinks: bool = False
    windows: Windows = _NO_WINDOWS
    experts: Mixture | None = None
    latent: bool = False
    special: Callable[[ConfigReader], dict[str, Any]] = special.nothing
    sizes: Mapping[str, int] = field(default_factory=dict)
