"""Convert the keys of a ``config.json`` to the fields of a model's shape."""

import difflib
import reprlib
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, NoReturn, cast

from simulator.errors import ModelError
from simulator.inputs.dtypes import DTYPES, Dtype, read_dtype
from simulator.inputs.files import validate
from simulator.inputs.formats import one_format
from simulator.inputs.hf_config.quantization import kv_format, read_scheme, weight_formats
from simulator.inputs.model import LayerGroup, ModelShape, layer_matrices

# Larger than any model's, so that a typing error does not make a list of a billion layers.
LARGEST_SIZE = 10**9
LARGEST_LAYERS = 10**4

# The names of each quantity. The first is the common one; messages use it if the file has none.
# fmt: off
SYNONYMS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads",
        "attention_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim", "kv_channels"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("padded_vocab_size", "vocab_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "n_ctx", "seq_length",
        "max_seq_len", "max_sequence_length", "model_max_length"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token",
        "moe_k", "moe_topk"),
    "n_shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    "draft_layers": ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers"),
    "dtype": ("dtype", "torch_dtype"),
    "mamba_heads": ("mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads"),
    "mamba_groups": ("mamba_n_groups", "mamba_ngroups", "n_groups"),
    "mamba_state_size": ("mamba_d_state", "ssm_state_size", "state_size"),
    "expand": ("mamba_expand", "expand"),
    "conv_kernel": ("mamba_d_conv", "conv_kernel"),
    "chunk_size": ("mamba_chunk_size", "chunk_size"),
    "time_step_rank": ("mamba_dt_rank", "time_step_rank"),
}
# fmt: on


class Key(NamedTuple):
    """A switch in the file, its default, and what it stands for if true and if false."""

    name: str
    on: Any = True
    off: Any = False
    default: bool = False


class Size(NamedTuple):
    """A size in the file, and its class default; None if the file must state it."""

    name: str
    default: int | None = None


class ByLayer(NamedTuple):
    """A list in the file with a value for each layer; None for all if there is none."""

    name: str


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

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.size("num_hidden_layers", largest=LARGEST_LAYERS)

    @property
    def hidden(self) -> int:
        """Width of the hidden state."""
        return self.size("hidden_size")

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.size("num_attention_heads")

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

    def choice(self, stated: Any, layer: int = 0) -> Any:
        """Return what the class fixes, or what a key of the file stands for.

        Parameters
        ----------
        stated
            A value that the class fixes; a switch, a size or a list of the file; a rule; or a table
            of these.
        layer
            The layer whose value of a list counts.
        """
        if isinstance(stated, Mapping):
            return {name: self.choice(each, layer) for name, each in stated.items()}
        if isinstance(stated, Size):
            return self.size(*stated)
        if isinstance(stated, ByLayer):
            listed = self.items(stated.name, length=self.layers)
            return None if listed is None else listed[layer]
        if not isinstance(stated, Key):
            return stated(self) if callable(stated) else stated
        value = self.data.get(stated.name)
        if value is None:
            value = stated.default
        if not isinstance(value, bool):
            self.fail(f"{stated.name} = {reprlib.repr(value)} must be true or false")
        return stated.on if value else stated.off

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a switch of the file."""
        return bool(self.choice(Key(name, default=default)))

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
        """Check that a value, or the one value of all layers, is a whole number in range."""
        if isinstance(value, list) and len(value) > 1 and value == value[:1] * len(value):
            value = value[0]
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


# Fields of a shape that a model type fixes, or that one switch decides.
_CHOSEN: tuple[str, ...] = ("gated_mlp", "rotary", "norm", "norm_bias", "norms_per_layer")
_CHOSEN += ("extra_norms", "norm_weight", "qk_norm", "attention_sinks", "attention_gate")
_CHOSEN += ("mlp_bias", "lm_head_bias")

DRAFTING = "layers for multi-token prediction ({}) are in memory only with several query tokens"
_DRAFT = (
    "a draft for speculative decoding: read as a whole model of its type, without what joins it to "
    "the model that it drafts for"
)
# What a draft's file has: words of its class's name, or keys.
_DRAFT_CLASSES = ("eagle", "medusa", "draft")
_DRAFT_KEYS = ("draft_vocab_size", "eagle_config", "dflash_config")

KvRule = Callable[[ConfigReader], int]
LayerRule = Callable[[ConfigReader, int], bool]
Further = Callable[[ConfigReader], dict[str, Any]] | Mapping[str, Any]
LayerFields = Callable[[ConfigReader, int], dict[str, Any] | None]

LINEAR, FULL, WINDOWED = "linear_attention", "full_attention", "sliding_attention"
_LOCAL = (WINDOWED, "chunked_attention")
# Names of layers in the files of hybrid models, and of older files.
NAMES = {
    **dict.fromkeys(("mamba", "recurrent", "M"), LINEAR),
    **dict.fromkeys(("attention", "*"), FULL),
    "-": "mlp",
    "E": "moe",
}
CHUNK_KEY = "attention_chunk_size"  # of Llama 4


def listed(reader: ConfigReader, *names: str) -> list[str] | None:
    """Return the kinds of layers that a file lists under one of some names, by common names."""
    found = next((found for name in names if (found := reader.items(name)) is not None), None)
    return None if found is None else [NAMES.get(str(kind), str(kind)) for kind in found]


def every_layer(_reader: ConfigReader, _layer: int) -> bool:
    """Hold for all layers."""
    return True


@dataclass(frozen=True)
class Kinds:
    """The kinds of a model type's layers: attention to all tokens, or to a window, or others.

    Attributes
    ----------
    default
        Class default of the window.
    key
        Key of the window.
    switch
        Key that must be true for the window to apply.
    others
        Further kinds that the layers may be, in place of windowed ones first.
    apart
        The layers that do not attend to all tokens, if the file lists no kinds.
    lists
        Keys of the list of kinds.
    """

    default: int | None = None
    key: str = "sliding_window"
    switch: str | None = None
    others: tuple[str, ...] = ()
    apart: LayerRule = every_layer
    lists: tuple[str, ...] = ("layer_types",)

    def read(self, reader: ConfigReader, layers: int) -> list[str]:
        """Return the kind of each layer.

        Raises
        ------
        ModelError
            If the list names a layer of another kind.
        """
        key = next((key for key in self.lists if reader.items(key) is not None), self.lists[0])
        kinds = reader.items(key, length=layers)
        if kinds is None:
            apart = (*self.others, WINDOWED)[0]
            return [apart if self.apart(reader, layer) else FULL for layer in range(layers)]
        known = (FULL, *_LOCAL, *self.others)
        found = [NAMES.get(str(kind), str(kind)) if self.others else str(kind) for kind in kinds]
        for kind in found:
            if kind not in known:
                reader.fail(f"{key} has {kind!r}; only {' and '.join(known)} are modelled")
        return found

    def window(self, reader: ConfigReader) -> int | None:
        """Return the window of windowed layers, None for all tokens."""
        window = reader.optional(self.key, self.default)
        # Qwen2-MoE writes 0 for no window.
        return window or None if not self.switch or reader.flag(self.switch) else None


@dataclass(frozen=True)
class Mixture:
    """The mixture of experts of a model type.

    Attributes
    ----------
    count, per_token, size
        Class defaults; None if the file must state the number, a count of 0 if it may have none.
    size_key
        Key of one expert's inner width.
    sparse
        Whether a layer has experts.
    shared_size
        Inner width of the experts that every token visits.
    more
        Rule for further fields of :class:`~simulator.inputs.model.Experts`.
    correction_bias
        Whether the bias that balances the experts' load is a parameter: transformers keeps most
        as buffers, which are not counted.
    """

    count: int
    per_token: int | None
    size: int | None = None
    size_key: str = "moe_intermediate_size"
    sparse: LayerRule = every_layer
    shared_size: Callable[[ConfigReader], int] | Size | int = 0
    shared_gate: bool = False
    biases: bool = False
    correction_bias: bool = False
    more: Further = field(default_factory=dict)


class Latent(NamedTuple):
    """Class defaults of latent attention; no value width means hidden size / heads."""

    query_rank: int | None = 1536
    kv_rank: int = 512
    nope: int = 128
    rope: int = 64
    value: int | None = 128


_ATTENDING = Kinds()


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """A model type's defaults, in the words of :class:`~simulator.inputs.model.ModelShape`.

    Attributes
    ----------
    keys
        Keys that the model type has in place of the common ones, or that follow from others, by
        their common names; or a rule for them.
    kv_heads
        Class default, None for one per head, or a rule.
    head_dim
        Class default; None means hidden size / heads.
    uneven_heads
        Whether the class rounds that quotient down: its own default sizes leave a remainder.
    inner_factor
        Inner width of the MLP over the hidden size, if the file may omit it.
    inner_key
        Key of the inner width of a dense MLP.
    attention_bias, qkv_bias, output_bias
        Biases of all four projections, of only queries, keys and values, and of only the output.
    positions
        Rows of the learned position table besides the positions themselves; None for no table.
    state
        Rule for the state that layers of other kinds have in place of attention.
    layer
        The fields of a layer's group that this model type decides; or a rule for them, which
        returns None for a layer that does nothing.
    special
        Features of only this model type, or a rule for them, and notes on them.
    sizes
        Class defaults of the sizes, for a ``text_config`` that holds only differences.
    """

    keys: Further = field(default_factory=dict)
    kv_heads: KvRule | int | None = None
    head_dim: int | None = None
    uneven_heads: bool = False
    inner_key: str = "intermediate_size"
    inner_factor: int | None = None
    gated_mlp: Flag = True
    tied_embeddings: bool = False
    rotary: Flag = True
    norm: Literal["rms", "layer"] | Key = "rms"
    norm_bias: bool = True
    norm_weight: bool = True
    norms_per_layer: int | Key = 2
    extra_norms: int | Key = 1
    qk_norm: Literal["none", "head", "all"] | Key = "none"
    attention_bias: Flag = False
    qkv_bias: Flag = False
    output_bias: Flag = False
    mlp_bias: Flag = False
    lm_head_bias: Flag = False
    positions: int | None = None
    max_positions: int | None = None
    attention_sinks: bool = False
    attention_gate: Literal["none", "head", "value"] = "none"
    kinds: Kinds = _ATTENDING
    experts: Mixture | None = None
    latent: Latent | None = None
    state: Further | None = None
    layer: LayerFields | Mapping[str, Any] = field(default_factory=dict)
    special: Further = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


# Most types: attention has biases if the file says so.
BIASED = ModelType(attention_bias=Key("attention_bias"))


def sizes_of(layers: int, hidden: int, heads: int, inner: int, vocabulary: int) -> dict[str, int]:
    """Return five sizes under their keys in config.json.

    Parameters
    ----------
    layers, hidden, heads, inner, vocabulary
        Class defaults: layers, width of the hidden state, query heads, inner width of the MLP, and
        rows of the token table.
    """
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    return dict(zip((*keys, "vocab_size"), (layers, hidden, heads, inner, vocabulary), strict=True))


def read_fields(kind: ModelType, reader: ConfigReader) -> dict[str, Any]:
    """Return the fields of a shape, notes included, from a file of this model type.

    Raises
    ------
    ModelError
        If a size is missing or is not a whole number above zero.
    """
    if kind.keys:
        reader = reader.with_keys(reader.choice(kind.keys))
    count, hidden, heads = reader.layers, reader.hidden, reader.heads
    experts, sparse = None, [False] * count
    if kind.experts is not None:
        experts = _experts(kind.experts, reader)
        sparse = [bool(experts) and kind.experts.sparse(reader, layer) for layer in range(count)]
    layers = _layers(kind, reader, kind.kinds.read(reader, count), sparse)
    if not any(layer.mlp == "experts" for layer in layers):
        experts = None
    # If no layer has a dense MLP, the dense width does not matter, and some files omit it.
    inner_default = None if any(layer.mlp == "dense" for layer in layers) else 0
    if kind.inner_factor:
        inner_default = kind.inner_factor * hidden
    positions = reader.optional("max_position_embeddings", kind.max_positions, minimum=1)
    rows = 0  # of a learned position table
    if kind.positions is not None:
        rows = reader.size("max_position_embeddings", kind.max_positions) + kind.positions
    drafting = reader.optional("draft_layers", 0) or 0
    fields: dict[str, Any] = {
        "layers": sum(layer.count for layer in layers),
        "hidden_size": hidden,
        "heads": heads,
        **_head_sizes(kind, reader),
        "intermediate_size": reader.size(kind.inner_key, inner_default),
        "vocab_size": reader.size("vocab_size"),
        "tied_embeddings": _tied(kind, reader),
        **{name: reader.choice(getattr(kind, name)) for name in _CHOSEN},
        "qkv_bias": reader.choice(kind.attention_bias) or reader.choice(kind.qkv_bias),
        "output_bias": reader.choice(kind.attention_bias) or reader.choice(kind.output_bias),
        "position_embeddings": rows,
        "max_context_tokens": positions,
        "layer_groups": _merge(layers),
        "draft_layers": drafting,
        "experts": experts,
    }
    changes = reader.choice(kind.special)
    fields |= changes
    fields |= _formats(reader, fields, layers)
    if _is_draft(reader):
        fields["notes"].append(_DRAFT)
    if drafting:
        fields["notes"].append(DRAFTING.format(drafting))
    fields["notes"] += changes.get("notes", [])
    return fields


def _is_draft(reader: ConfigReader) -> bool:
    """Return whether a file is that of a draft for speculative decoding (EAGLE, DFlash)."""
    named = str(reader.data.get("architectures") or "").lower()
    return any(word in named for word in _DRAFT_CLASSES) or any(
        key in reader.data for key in _DRAFT_KEYS
    )


def _head_sizes(kind: ModelType, reader: ConfigReader) -> dict[str, Any]:
    """Return KV heads and head width, or the latent vector that replaces them."""
    hidden, heads, rule = reader.hidden, reader.heads, kind.kv_heads
    if kind.latent is not None:
        latent = latent_sizes(reader, kind.latent)
        # Every head has its own keys and values, made from the one cached vector.
        head_dim = latent["nope_dim"] + latent["rope_dim"]
        return {"kv_heads": heads, "head_dim": head_dim, "latent": latent}
    head_dim = reader.optional("head_dim", kind.head_dim, minimum=1)
    if head_dim is None and hidden % heads and not kind.uneven_heads:
        reader.fail(
            f"hidden_size = {hidden} is not a multiple of num_attention_heads = {heads}, and "
            "there is no head_dim"
        )
    kv_heads = rule(reader) if callable(rule) else stated_kv_heads(reader, rule)
    return {"kv_heads": kv_heads, "head_dim": head_dim or hidden // heads}


def latent_sizes(reader: ConfigReader, default: Latent) -> dict[str, Any]:
    """Return the sizes of latent attention."""
    value = default.value or reader.hidden // reader.heads
    return {
        "kv_rank": reader.size("kv_lora_rank", default.kv_rank),
        "rope_dim": reader.size("qk_rope_head_dim", default.rope),
        "query_rank": reader.optional("q_lora_rank", default.query_rank, minimum=1),
        "nope_dim": reader.size("qk_nope_head_dim", default.nope),
        "value_dim": reader.size("v_head_dim", value),
    }


def stated_kv_heads(reader: ConfigReader, default: int | None = None) -> int:
    """Return the KV heads that a file states; as many as query heads for a null or no default."""
    return reader.optional("num_key_value_heads", default, minimum=1) or reader.heads


def _experts(mixture: Mixture, reader: ConfigReader) -> dict[str, Any] | None:
    """Return the mixture of experts, or None if the file has none."""
    count = reader.optional("num_experts", mixture.count)
    if not count:
        return None
    return {
        "count": count,
        "per_token": reader.size("num_experts_per_tok", mixture.per_token),
        "intermediate_size": reader.size(mixture.size_key, mixture.size),
        "shared_intermediate_size": reader.choice(mixture.shared_size),
        "shared_gate": mixture.shared_gate,
        "router_bias": mixture.biases or mixture.correction_bias,
        "expert_bias": mixture.biases,
        **reader.choice(mixture.more),
    }


def _tied(kind: ModelType, reader: ConfigReader) -> bool:
    """Return whether the token table is also the output matrix."""
    key = "tie_word_embeddings"
    # The whole model ties its tables, so its own word counts more than the text_config's.
    if key in reader.outer:
        reader = ConfigReader(reader.outer, where=reader.where)
    return reader.flag(key, default=kind.tied_embeddings)


def _layers(
    kind: ModelType, reader: ConfigReader, kinds: Sequence[str], sparse: Sequence[bool]
) -> list[LayerGroup]:
    """Return the layers, each a group of one."""
    limit = "chunk" if kind.kinds.key == CHUNK_KEY else "window"
    window, layers = kind.kinds.window(reader), []
    for number, (what, has_experts) in enumerate(zip(kinds, sparse, strict=True)):
        fields: dict[str, Any] = {"mlp": "experts" if has_experts else "dense"}
        if what in _LOCAL:
            fields[limit] = window
        elif kind.state is not None and what != FULL:
            fields |= {"attends": False, "state": reader.choice(kind.state)}
        rule = kind.layer
        own = rule(reader, number) if callable(rule) else reader.choice(rule, number)
        if own is None:
            continue
        fields |= own
        layers.append(
            validate(LayerGroup, {"count": 1, **fields}, where=reader.where, error=ModelError)
        )
    return layers


def _merge(layers: Iterable[LayerGroup]) -> tuple[LayerGroup, ...]:
    """Merge the layers of equal cost, in order of first appearance."""
    counts = Counter(layers)
    return tuple(layer.but(count=count) for layer, count in counts.items())


def _formats(
    reader: ConfigReader, fields: Mapping[str, Any], layers: Sequence[LayerGroup]
) -> dict[str, Any]:
    """Return the formats of the weights and of the cache, and notes on what was assumed.

    Parameters
    ----------
    reader, fields
        The file, and the sizes read from it.
    layers
        The layers in their order.
    """
    keys = ("quantization_config", "compression_config", "quantization")
    stated = next((found for key in keys if (found := reader.anywhere(key)) is not None), None)
    dtype = _plain_dtype(reader)
    notes = []
    if dtype == "fp32":
        dtype = "bf16"
        notes.append("the file is in fp32: served in bf16, as engines do, unless --dtype fp32")
    if stated is None:
        return {"weights": one_format(dtype), "notes": notes}
    if not isinstance(stated, Mapping):
        reader.fail(f"quantization_config = {reprlib.repr(stated)} must be an object")
    scheme, kv_dtype, weights = read_scheme(stated), kv_format(stated), one_format(dtype)
    if scheme.default is not None or scheme.named:
        name = str(reader.data.get("model_type") or reader.outer.get("model_type"))
        data = {**fields, "name": name}
        model = validate(ModelShape, data, where=reader.where, error=ModelError)
        matrices = [layer_matrices(model.of(layer), layer) for layer in layers]
        weights = weight_formats(scheme, matrices, model_type=name)
        notes.append(f"quantization {scheme.method}: {weights}, scales counted")
    notes += scheme.notes
    if kv_dtype:
        notes.append(f"the checkpoint states a KV cache of {kv_dtype}: that is the default")
    return {"weights": weights, "kv_dtype": kv_dtype, "notes": notes}


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
