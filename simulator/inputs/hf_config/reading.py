"""Convert the keys of a ``config.json`` to the fields of a model's shape."""

import difflib
import reprlib
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, NoReturn, cast

from simulator.errors import ModelError
from simulator.inputs.dtypes import DTYPES, Dtype, read_dtype
from simulator.inputs.files import validate
from simulator.inputs.model import LayerGroup

# Larger than any model's, so that a typing error does not make a list of a billion layers.
LARGEST_SIZE = 10**9
LARGEST_LAYERS = 10**4

# The names of each quantity. The first is the common one; messages use it if the file has none.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "n_ctx"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": (
        "num_experts_per_tok",
        "experts_per_token",
        "num_experts_per_token",
    ),
    "dtype": ("dtype", "torch_dtype"),
    "mamba_heads": ("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads"),
    "mamba_groups": ("mamba_n_groups", "mamba_ngroups", "n_groups"),
    "mamba_state_size": ("mamba_d_state", "ssm_state_size", "state_size"),
    "expand": ("mamba_expand", "expand"),
    "conv_kernel": ("mamba_d_conv", "conv_kernel"),
    "chunk_size": ("mamba_chunk_size", "chunk_size"),
    "time_step_rank": ("mamba_dt_rank", "time_step_rank"),
}


class Key(NamedTuple):
    """A switch in the file, and its default."""

    name: str
    default: bool = False


Flag = bool | Key


@dataclass(frozen=True)
class ConfigReader:
    """One config, with the class defaults of its model type; errors name file, key and value.

    Attributes
    ----------
    data
        The language model's keys.
    where
        The file, named first in every message.
    outer
        The whole file if ``data`` is its ``text_config``; it may hold keys without sizes, such as
        the dtype.
    sizes
        Class defaults of the sizes a file must otherwise state.
    """

    data: Mapping[str, Any]
    where: str
    outer: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def fail(self, message: str) -> NoReturn:
        """Raise the one-line error."""
        raise ModelError(f"{self.where}: {message}")

    def with_keys(self, keys: Mapping[str, Any]) -> "ConfigReader":
        """Return a reader that finds some keys before those of the file, which is not copied."""
        return replace(self, data=ChainMap(dict(keys), cast("dict[str, Any]", self.data)))

    def lookup(self, key: str) -> tuple[str, Any]:
        """Return a quantity's name in the file, and its value.

        A name with a value outranks a name with a null. A missing quantity has the value ``...``,
        which differs from a null.
        """
        found = [name for name in SYNONYMS.get(key, (key,)) if name in self.data]
        for name in found:
            if self.data[name] is not None:
                return name, self.data[name]
        return (found[0], None) if found else (key, ...)

    def size(self, key: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
        """Return a size above zero; null means absent.

        Parameters
        ----------
        key
            The quantity, by its common name.
        default
            Default for an absent key; None for the class default of the sizes.
        largest
            The largest plausible size.

        Raises
        ------
        ModelError
            If the value is not a whole number above zero, or is absent without a default.
        """
        name, value = self.lookup(key)
        if value is None or value is ...:
            fallback = self.sizes.get(key) if default is None else default
            if fallback is None:
                self.fail(f"{name} is missing{self._resembling(name)}")
            return fallback
        return self._whole(name, value, 1, largest)

    def optional(self, key: str, default: int | None, *, minimum: int = 0) -> int | None:
        """Return a number that may be null.

        Parameters
        ----------
        key
            The quantity, by its common name.
        default
            Default for an absent key, as opposed to a null.
        minimum
            The smallest plausible number.

        Raises
        ------
        ModelError
            If the value is not null or a whole number in range.
        """
        name, value = self.lookup(key)
        if value is ...:
            return default
        return None if value is None else self._whole(name, value, minimum, LARGEST_SIZE)

    def flag(self, flag: Flag) -> bool:
        """Return a switch: fixed by the class, or read with the class default."""
        if not isinstance(flag, Key):
            return flag
        value = self.data.get(flag.name)
        if value is None:
            return flag.default
        if not isinstance(value, bool):
            self.fail(f"{flag.name} = {reprlib.repr(value)} must be true or false")
        return value

    def anywhere(self, key: str) -> Any:
        """Return a value from the language model's keys, or else from the outer ones."""
        value = self.lookup(key)[1]
        if value is None or value is ...:
            value = ConfigReader(self.outer, where=self.where).lookup(key)[1]
        return None if value is ... else value

    def items(self, key: str, *, length: int | None = None) -> Sequence[Any] | None:
        """Return a list of the file, or None if it is absent or null."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            self.fail(f"{key} = {reprlib.repr(value)} must be a list")
        if length is not None and len(value) != length:
            self.fail(f"{key} has {len(value)} entries for {length} layers")
        return value

    def _whole(self, name: str, value: Any, minimum: int, largest: int) -> int:
        """Check that a value is a whole number in range."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{name} = {reprlib.repr(value)} must be a whole number")
        if value < minimum:
            self.fail(f"{name} = {reprlib.repr(value)} must be at least {minimum}")
        if value > largest:
            self.fail(f"{name} = {reprlib.repr(value)} is larger than any model's ({largest:,})")
        return value

    def _resembling(self, name: str) -> str:
        """Return a hint at a key that looks like a mistyped ``name``."""
        keys = [key for key in self.data if isinstance(key, str)]
        close = difflib.get_close_matches(name, keys, n=1, cutoff=0.8)
        return f"; is {close[0]!r} a misspelling of it?" if close else ""


# Fields of a shape that a model type fixes.
_FIXED: tuple[str, ...] = ("gated_mlp", "rotary", "norm", "norm_bias", "norms_per_layer")
_FIXED += ("extra_norms", "qk_norm", "attention_sinks", "attention_gate")

KvRule = Callable[[ConfigReader, int], int]
LayerRule = Callable[[ConfigReader, int], bool]

_FULL, _LOCAL = "full_attention", ("sliding_attention", "chunked_attention")
CHUNK_KEY = "attention_chunk_size"  # of Llama 4


def every_layer(_reader: ConfigReader, _layer: int) -> bool:
    """Hold for all layers."""
    return True


@dataclass(frozen=True)
class Windows:
    """The layers of a model type that see only a window.

    Attributes
    ----------
    default
        Class default of the window.
    key
        Key of the window.
    switch
        Key that must be true for the window to apply.
    local
        The windowed layers, if the file has no ``layer_types``.
    others
        Further names in ``layer_types``, of layers that a rule of the model type reads.
    """

    default: int | None = None
    key: str = "sliding_window"
    switch: str | None = None
    local: LayerRule = every_layer
    others: tuple[str, ...] = ()

    def read(self, reader: ConfigReader, layers: int) -> list[int | None]:
        """Return each layer's window, None for all tokens.

        Raises
        ------
        ModelError
            If ``layer_types`` names a layer that is not attention to all tokens or to a window.
        """
        # Qwen2-MoE writes 0 for no window.
        window = reader.optional(self.key, self.default) or None
        if self.switch and not reader.flag(Key(self.switch)):
            window = None
        types = reader.items("layer_types", length=layers)
        if types is None:
            local = [self.local(reader, layer) for layer in range(layers)]
        else:
            for kind in types:
                if kind not in (_FULL, *_LOCAL, *self.others):
                    reader.fail(
                        f"layer_types has {kind!r}; only "
                        f"{' and '.join((_FULL, *_LOCAL, *self.others))} are modelled"
                    )
            local = [kind in _LOCAL for kind in types]
        return [window if is_local else None for is_local in local]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The mixture of experts of a model type.

    Attributes
    ----------
    count, per_token, size
        Class defaults; None if the file must state the number.
    size_key
        Key of one expert's inner width.
    sparse
        Whether a layer has experts.
    shared_size
        Inner width of the experts that every token visits.
    more
        Rule for further fields of :class:`~simulator.inputs.model.Experts`.
    """

    count: int
    per_token: int | None
    size_key: str = "moe_intermediate_size"
    size: int | None = None
    sparse: LayerRule = every_layer
    shared_size: Callable[[ConfigReader], int] | None = None
    shared_gate: bool = False
    biases: bool = False
    correction_bias: bool = False
    more: Callable[[ConfigReader], dict[str, Any]] | None = None


_NO_WINDOWS = Windows()


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """A model type's defaults, in the words of :class:`~simulator.inputs.model.ModelShape`.

    Attributes
    ----------
    keys
        Rule for keys that the model type has in place of the common ones, or that follow from
        others: it returns them by their common names.
    kv_heads
        Class default, None for one per head, or a rule.
    head_dim
        Class default; None means hidden size / heads.
    inner_factor
        Inner width of the MLP over the hidden size, if the file may omit it.
    inner_key
        Key of the inner width of a dense MLP.
    attention_bias, qkv_bias, output_bias
        Biases of all four projections, of only queries, keys and values, and of only the output.
    positions
        Rows of the learned position table besides the positions themselves; None for no table.
    layer
        Rule for the fields of a layer's group that this model type decides layer by layer.
    special
        Rule for features of only this model type.
    sizes
        Class defaults of the sizes, for a ``text_config`` that holds only differences.
    """

    keys: Callable[[ConfigReader], Mapping[str, Any]] | None = None
    kv_heads: KvRule | int | None = None
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
    attention_bias: Flag = False
    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    lm_head_bias: Flag = False
    positions: int | None = None
    max_positions: int | None = None
    attention_sinks: bool = False
    attention_gate: Literal["none", "head", "value"] = "none"
    windows: Windows = _NO_WINDOWS
    experts: Mixture | None = None
    latent: bool = False
    layer: Callable[[ConfigReader, int], dict[str, Any]] | None = None
    special: Callable[[ConfigReader], dict[str, Any]] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


def read_fields(kind: ModelType, reader: ConfigReader) -> dict[str, Any]:
    """Return the fields of a shape, notes included, from a file of this model type.

    Raises
    ------
    ModelError
        If a size is missing or is not a whole number above zero.
    """
    if kind.keys is not None:
        reader = reader.with_keys(kind.keys(reader))
    count = reader.size("num_hidden_layers", largest=LARGEST_LAYERS)
    hidden = reader.size("hidden_size")
    heads = reader.size("num_attention_heads")
    experts, sparse = None, [False] * count
    if kind.experts is not None:
        experts = _experts(kind.experts, reader)
        sparse = [bool(experts) and kind.experts.sparse(reader, layer) for layer in range(count)]
    groups = _layer_groups(kind, reader, kind.windows.read(reader, count), sparse)
    if not any(group.mlp == "experts" for group in groups):
        experts = None
    # If no layer has a dense MLP, the dense width does not matter, and some files omit it.
    inner_default = None if any(group.mlp == "dense" for group in groups) else 0
    if kind.inner_factor:
        inner_default = kind.inner_factor * hidden
    positions = reader.optional("max_position_embeddings", kind.max_positions, minimum=1)
    dtype, notes = _weight_dtype(reader)
    fields: dict[str, Any] = {
        "layers": count,
        "hidden_size": hidden,
        "heads": heads,
        **_head_sizes(kind, reader, hidden=hidden, heads=heads),
        "intermediate_size": reader.size(kind.inner_key, inner_default),
        "vocab_size": reader.size("vocab_size"),
        "tied_embeddings": _tied(kind, reader),
        **{name: getattr(kind, name) for name in _FIXED},
        "qkv_bias": reader.flag(kind.attention_bias) or reader.flag(kind.qkv_bias),
        "output_bias": reader.flag(kind.attention_bias) or reader.flag(kind.output_bias),
        "mlp_bias": reader.flag(kind.mlp_bias),
        "lm_head_bias": reader.flag(kind.lm_head_bias),
        "position_embeddings": _position_rows(kind, reader),
        "max_context_tokens": positions,
        "layer_groups": groups,
        "experts": experts,
        "weight_dtype": dtype,
        "notes": notes,
    }
    changes = {} if kind.special is None else dict(kind.special(reader))
    notes.extend(changes.pop("notes", ()))
    return {**fields, **changes}


def _position_rows(kind: ModelType, reader: ConfigReader) -> int:
    """Return the rows of the learned position table, 0 for none."""
    if kind.positions is None:
        return 0
    return reader.size("max_position_embeddings", kind.max_positions) + kind.positions


def _head_sizes(
    kind: ModelType, reader: ConfigReader, *, hidden: int, heads: int
) -> dict[str, Any]:
    """Return KV heads and head width, or the latent vector that replaces them."""
    if kind.latent:
        latent = latent_sizes(reader)
        # Every head has its own keys and values, made from the one cached vector.
        return {
            "kv_heads": heads,
            "head_dim": latent["nope_dim"] + latent["rope_dim"],
            "latent": latent,
        }
    head_dim = reader.optional("head_dim", kind.head_dim, minimum=1)
    if head_dim is None:
        if hidden % heads:
            reader.fail(
                f"hidden_size = {hidden} is not a multiple of num_attention_heads = {heads}, and "
                "there is no head_dim"
            )
        head_dim = hidden // heads
    rule = kind.kv_heads
    kv_heads = rule(reader, heads) if callable(rule) else stated_kv_heads(reader, heads, rule)
    return {"kv_heads": kv_heads, "head_dim": head_dim}


def latent_sizes(reader: ConfigReader) -> dict[str, Any]:
    """Return the sizes of latent attention, by default those of DeepSeek-V3."""
    return {
        "kv_rank": reader.size("kv_lora_rank", 512),
        "rope_dim": reader.size("qk_rope_head_dim", 64),
        "query_rank": reader.optional("q_lora_rank", 1536, minimum=1),
        "nope_dim": reader.size("qk_nope_head_dim", 128),
        "value_dim": reader.size("v_head_dim", 128),
    }


def stated_kv_heads(reader: ConfigReader, heads: int, default: int | None = None) -> int:
    """Return the KV heads that a file states.

    Parameters
    ----------
    reader
        The file.
    heads
        Query heads: a null, or no key and no default, means as many KV heads.
    default
        Class default for an absent key.
    """
    return reader.optional("num_key_value_heads", default, minimum=1) or heads


def _experts(mixture: Mixture, reader: ConfigReader) -> dict[str, Any] | None:
    """Return the mixture of experts, or None if the file has none."""
    count = reader.optional("num_experts", mixture.count)
    if not count:
        return None
    return {
        "count": count,
        "per_token": reader.size("num_experts_per_tok", mixture.per_token),
        "intermediate_size": reader.size(mixture.size_key, mixture.size),
        "shared_intermediate_size": mixture.shared_size(reader) if mixture.shared_size else 0,
        "shared_gate": mixture.shared_gate,
        "router_bias": mixture.biases or mixture.correction_bias,
        "expert_bias": mixture.biases,
        **(mixture.more(reader) if mixture.more else {}),
    }


def _tied(kind: ModelType, reader: ConfigReader) -> bool:
    """Return whether the token table is also the output matrix."""
    key = Key("tie_word_embeddings", default=kind.tied_embeddings)
    if key.name in reader.data or key.name not in reader.outer:
        return reader.flag(key)
    return ConfigReader(reader.outer, where=reader.where).flag(key)


def _layer_groups(
    kind: ModelType, reader: ConfigReader, windows: Sequence[int | None], sparse: Sequence[bool]
) -> tuple[LayerGroup, ...]:
    """Return the layers in groups of equal cost."""
    limit = "chunk" if kind.windows.key == CHUNK_KEY else "window"
    layers = []
    for number, (seen, has_experts) in enumerate(zip(windows, sparse, strict=True)):
        fields = {limit: seen, "mlp": "experts" if has_experts else "dense"}
        if kind.layer is not None:
            fields |= kind.layer(reader, number)
        layers.append(
            validate(LayerGroup, {"count": 1, **fields}, where=reader.where, error=ModelError)
        )
    return _merge(layers)


def _merge(layers: Iterable[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Merge the layers of equal cost, in order of first appearance."""
    counts = Counter(layers)
    return tuple(layer.model_copy(update={"count": count}) for layer, count in counts.items())


# Quantization methods with one format.
_METHODS: dict[str, Dtype] = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "mxfp8": "fp8",
    "eetq": "int8",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}
_INT4_BITS, _INT8_BITS = 4, 8


def _weight_dtype(reader: ConfigReader) -> tuple[Dtype, list[str]]:
    """Return the format of the weights, and notes on what was assumed.

    Other formats of four bits or fewer count as int4, of up to eight bits as int8 or fp8. A file
    without a dtype counts as bf16. An unknown quantization method keeps the dtype and adds a note.
    """
    dtype = _plain_dtype(reader)
    quantization = reader.anywhere("quantization_config")
    if quantization is None:
        return dtype, []
    if not isinstance(quantization, Mapping):
        reader.fail(f"quantization_config = {reprlib.repr(quantization)} must be an object")
    # NVIDIA's modelopt is one method with several algorithms.
    names = [str(quantization.get(key, "")).lower() for key in ("quant_method", "quant_algo")]
    bits = _bits(names[0], quantization)
    quantized = (
        _METHODS.get(names[0]) or _METHODS.get(names[1]) or (_by_bits(*bits) if bits else None)
    )
    if quantized == "fp8" and quantization.get("weight_block_size"):
        quantized = "fp8_block"
    method = " ".join(name for name in names if name) or "without a method"
    if quantized is None:
        return dtype, [f"quantization {method} is not known: weights taken as {dtype}"]
    if quantized == dtype:
        return dtype, []
    # Embeddings, routers and, in some files, attention keep theirs; one format represents all.
    note = (
        f"quantization {method}: all weights taken as {quantized}, though files keep some {dtype}"
    )
    return quantized, [note]


def _plain_dtype(reader: ConfigReader) -> Dtype:
    """Return the dtype of the file, bf16 if it has none or a rare one."""
    value = reader.anywhere("dtype")
    plain = read_dtype(str(value).removeprefix("torch.").lower())
    for dtype in DTYPES:
        if plain == dtype:
            return dtype
    if value is not None and not isinstance(value, str):
        reader.fail(f"torch_dtype = {reprlib.repr(value)} must be a name such as 'bfloat16'")
    return "bf16"


def _bits(method: str, quantization: Mapping[str, Any]) -> tuple[int, bool] | None:
    """Return the width of a weight [bits] and whether it is a float, or None if unstated."""
    for bits in (_INT4_BITS, _INT8_BITS):
        if quantization.get(f"load_in_{bits}bit"):  # bitsandbytes
            return bits, False
    for scheme in _schemes(quantization):
        bits = scheme.get("bits", scheme.get("num_bits", scheme.get("w_bit")))
        if isinstance(bits, int) and not isinstance(bits, bool) and bits > 0:
            return bits, scheme.get("type") == "float"
    return (8, True) if method.endswith("fp8") else None


def _schemes(quantization: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts that may state the bits: the top, then each group's weights."""
    yield quantization
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            yield weights


def _by_bits(bits: int, is_float: bool) -> Dtype | None:
    """Return the format that holds a weight of some bits."""
    if bits <= _INT4_BITS:
        return "int4"
    if bits <= _INT8_BITS:
        return "fp8" if is_float else "int8"
    return None
