"""Convert the ``quantization_config`` of a ``config.json`` to formats of groups of tensors.

Every library has its own words for the same facts: a format, the modules that have it, and the
modules that are left out. These become a :class:`Scheme`, which knows the format of a module by its
name. Each group of tensors then has the format of most of its weights and the mean of their bytes.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from math import inf, prod
from typing import Any, NamedTuple

from simulator.inputs.dtypes import DTYPE_BYTES, KV_DTYPES, Dtype, KvDtype, is_low_precision
from simulator.inputs.formats import (
    LAYER_TENSORS,
    NAMED_FORMATS,
    TensorGroup,
    WeightFormat,
    WeightFormats,
    grouped_bytes,
)
from simulator.inputs.model import Matrix

# What files call the matrices of a layer, with alternatives. Most weights are in these.
_CALLED: dict[str, tuple[str, ...]] = {
    "query": ("q_proj", "q_b_proj", "qkv_proj"),
    "key": ("k_proj", "qkv_proj"),
    "value": ("v_proj", "qkv_proj"),
    "query_down": ("q_a_proj",),
    "latent_down": ("kv_a_proj_with_mqa",),
    "latent_up": ("kv_b_proj",),
    "output": ("o_proj",),
    **dict.fromkeys(
        ("state_keys", "state_input"), ("in_proj_qkv", "in_proj_z", "in_proj", "q_proj")
    ),
    "state_output": ("out_proj", "o_proj"),
    "gate": ("gate_proj", "gate_up_proj"),
    "up": ("up_proj", "gate_up_proj"),
    "down": ("down_proj",),
}
# Where a layer keeps each group, in the words of most files.
_PLACES: dict[TensorGroup, str] = {
    "attention": "self_attn",
    "state": "linear_attn",
    "mlp": "mlp",
    "experts": "mlp.experts.0",
    "shared_experts": "mlp.shared_experts",
}
# The same for model types that differ; a type's name begins with the key.
_OTHER_PLACES: dict[str, dict[TensorGroup, str]] = {
    "nemotron_h": {
        **dict.fromkeys(("attention", "state", "mlp"), "mixer"),
        "experts": "mixer.experts.0",
        "shared_experts": "mixer.shared_experts",
    },
    "kimi_linear": {"state": "self_attn"},
    # Its dense MLP stands beside the experts, which are not part of it.
    "gemma4": {"experts": "experts.0", "shared_experts": "mlp"},
}
# Other words for the parts of a module's name.
_WORDS = {
    **dict.fromkeys(("attn", "attention", "self_attention"), "self_attn"),
    **dict.fromkeys(("block_sparse_moe", "feed_forward", "ffn", "moe"), "mlp"),
    **dict.fromkeys(("shared_expert", "shared_mlp"), "shared_experts"),
    **dict.fromkeys(("mamba", "conv"), "linear_attn"),
    "w1": "gate_proj",
    "w3": "up_proj",
    "w2": "down_proj",
    "h": "layers",
}
_WORD = rf"\b({'|'.join(_WORDS)})\b"
# What stands before the layers, also at the start of a regular expression.
_OUTER = r"^\^?(?:(?:model|language_model|text_model|backbone|transformer|decoder)\\?\.)+"
_REGULAR = r"[\\^$|()\[\]]"


@dataclass(frozen=True)
class Modules:
    """Modules that a file lists, by name or pattern.

    A name stands for a module and what is inside it, wherever it lies: transformers and modelopt
    compare prefixes, AWQ any part of a name. Only whole words count, so that ``mlp.gate``, a
    router, is not ``mlp.gate_proj``. ``*`` stands for any text, and ``re:`` begins a regular
    expression (compressed-tensors).
    """

    names: frozenset[str]
    starts: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]

    def __contains__(self, name: str) -> bool:
        """Return whether a module, such as ``layers.0.mlp.up_proj``, is listed."""
        words = name.split(".")
        return (
            name.startswith(self.starts)
            or any(pattern.match(name) for pattern in self.patterns)
            or any(
                ".".join(words[start:end]) in self.names
                for end, word in enumerate(words, 1)
                if word in self._last_words
                for start in range(end)
            )
        )

    @cached_property
    def _last_words(self) -> frozenset[str]:
        """The last word of each name, without which there is nothing to compare."""
        return frozenset(name.rpartition(".")[2] for name in self.names)


def listed_modules(texts: Iterable[object]) -> Modules:
    """Read a list of modules.

    Examples
    --------
    >>> modules = listed_modules(["model.layers.0*", "re:.*self_attn.*", "mlp.gate"])
    >>> names = ("layers.0.mlp.up_proj", "layers.3.self_attn.o_proj", "layers.3.mlp.gate_proj")
    >>> [name in modules for name in names]
    [True, True, False]
    """
    names, starts, patterns = set(), [], []
    for text in texts:
        if not isinstance(text, str) or not text:
            continue
        regular = text.removeprefix("re:")
        plain = re.sub(_OUTER, "", re.sub(_WORD, lambda found: _WORDS[found[0]], regular))
        if regular != text or re.search(_REGULAR, plain):
            try:
                patterns.append(re.compile(plain))
            except re.error:
                continue
        elif plain.endswith("*") and "*" not in plain[:-1]:
            starts.append(plain[:-1])
        elif "*" in plain:
            within = plain.rstrip("*")
            patterns.append(re.compile(f"{translate(plain)}|{translate(within + '.*')}"))
        else:
            names.add(plain.removesuffix(".weight").strip("."))
    return Modules(frozenset(names), tuple(starts), tuple(patterns))


_NONE = listed_modules(())


class Scheme(NamedTuple):
    """The formats of a file's modules.

    Attributes
    ----------
    method
        The file's words for it.
    default
        Format of a matrix that is not named; None is 16 bits.
    named
        Formats of listed modules; the first that lists a module counts.
    left_out
        Modules in 16 bits, whatever the others.
    tables
        Whether the token table and the output matrix have the default format.
    notes
        What was assumed.
    """

    method: str
    default: WeightFormat | None = None
    named: tuple[tuple[Modules, WeightFormat], ...] = ()
    left_out: Modules = _NONE
    tables: bool = False
    notes: tuple[str, ...] = ()

    def of(self, names: Collection[str]) -> WeightFormat | None:
        """Return the format of a module with these alternative names."""
        if any(name in self.left_out for name in names):
            return None
        for modules, found in self.named:
            if any(name in modules for name in names):
                return found
        return self.default


def _mean_format(weights: Mapping[WeightFormat | None, int]) -> WeightFormat | None:
    """Return the format of most weights of a group of tensors, with the mean of all their bytes."""
    if set(weights) <= {None}:
        return None
    plain = NAMED_FORMATS["bf16"]
    most = max(weights, key=lambda each: weights[each]) or plain
    if len(weights) == 1:
        return most
    stored = sum(count * (each or plain).bytes for each, count in weights.items())
    return most.but(bytes=stored / sum(weights.values()))


def weight_formats(
    scheme: Scheme, layers: Sequence[Sequence[Matrix]], *, model_type: str
) -> WeightFormats:
    """Return the formats of a model's weights.

    Parameters
    ----------
    scheme
        The formats of its modules.
    layers
        The matrices of each layer, from the first.
    model_type
        The file's, which decides where a layer keeps its groups.
    """
    places = dict(_PLACES)
    for name, others in _OTHER_PLACES.items():
        if model_type.startswith(name):
            places |= others
    sums: dict[TensorGroup, Counter[WeightFormat | None]] = {}
    for number, matrices in enumerate(layers):
        for matrix in matrices:
            if matrix.name in _CALLED and matrix.group and matrix.weights:
                place = f"layers.{number}.{places[matrix.group]}"
                found = scheme.of([f"{place}.{word}" for word in _CALLED[matrix.name]])
                sums.setdefault(matrix.group, Counter())[found] += matrix.weights
    formats = {group: _mean_format(weights) for group, weights in sums.items()}
    if len(set(formats.values())) == 1:
        # Groups that the model lacks take part, so that one name holds for all.
        formats = dict.fromkeys(LAYER_TENSORS, next(iter(formats.values())))
    if scheme.tables:
        formats |= {"embedding": scheme.default, "head": scheme.default}
    elif scheme.named:
        # A format of all matrices leaves the head in 16 bits; one that names it does not.
        formats["head"] = scheme._replace(default=None).of(["lm_head"])
    return WeightFormats.read(formats)


# Keys under which files list what is left out.
_LEFT_OUT = (
    *("ignore", "ignored_layers", "exclude", "exclude_modules", "modules_to_not_convert"),
    *("llm_int8_skip_modules", "modules_to_not_quantize", "linear_weights_not_to_quantize"),
)
# Methods whose kernels the timing model does not have.
_AS_16_BITS = ("hqq", "aqlm", "quanto", "bitnet", "mlx", "higgs", "vptq", "spqr", "exl2", "exl3")
_WIDTHS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2, "float8": 8}
# Weights that share a scale: usually, in OCP's MX formats, and in NVIDIA's.
_USUAL_GROUP, _MX_GROUP, _NV_GROUP = 128, 32, 16
_FOUR, _EIGHT = 4, 8


def read_scheme(stated: Mapping[str, Any]) -> Scheme:
    """Read a ``quantization_config``.

    Parameters
    ----------
    stated
        The object of the file, with that of an ``hf_quant_config.json`` where there is one.

    Notes
    -----
    A method that is not known, and states no bits, counts as 16 bits; a note says so.
    """
    words = [str(stated.get(key) or "").lower() for key in ("quant_method", "quant_algo")]
    if not any(words):  # files of these name no method
        marks = {"load_in_4bit": "bitsandbytes", "load_in_8bit": "bitsandbytes", "bits": "mlx"}
        words[0] = next((method for key, method in marks.items() if key in stated), "")
    method = " ".join(word for word in words if word) or "without a method"
    default, named = _single(words[0], words[1], stated), tuple(_named(stated))
    if named:
        default = next((each for modules, each in named if modules is _ALL), None)
        named = tuple((modules, each) for modules, each in named if modules is not _ALL)
    if words[0] == "mxfp4" and default is not None:  # transformers converts experts alone
        named, default = ((listed_modules(["experts"]), default),), None
    if default is None and not named:
        note = f"quantization {method} is not known: weights taken as 16 bits"
        return Scheme(method, notes=(note,))
    notes: tuple[str, ...] = ()
    if words[0] in _AS_16_BITS:
        notes = (f"weights of {words[0]} are counted by their bits, and timed as 16-bit products",)
    return Scheme(
        method,
        default,
        named,
        listed_modules(_left_out(stated)),
        tables=words[0] == "mlx",
        notes=notes,
    )


def _left_out(stated: Mapping[str, Any]) -> Iterator[object]:
    """Yield what a file leaves out of quantization."""
    for key in _LEFT_OUT:
        listed = stated.get(key)
        yield from listed if isinstance(listed, list | tuple) else ()
    for key, value in _mapping(stated, "dynamic").items():  # gptqmodel
        if key.startswith("-:"):
            yield f"re:{key[2:]}"
        elif isinstance(value, Mapping) and value.get("bits") == 2 * _EIGHT:
            yield f"re:{key.removeprefix('+:')}"
    for key, value in _mapping(stated, "extra_config").items():  # auto-round
        if isinstance(value, Mapping) and value.get("bits", 0) >= 2 * _EIGHT:
            yield key
    for key, value in stated.items():  # mlx
        if value is False and "." in key:
            yield key


# Stands for every matrix.
_ALL = listed_modules(["*"])
_Rule = tuple[Modules, WeightFormat]


def _named(stated: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield the formats of listed modules, that of all others with ``_ALL``."""
    if _mapping(stated, "quantized_layers"):
        yield from _by_layer(stated)
    elif _mapping(stated, "config_groups"):
        yield from _by_group(stated)
    elif _mapping(stated, "global_quant_config"):
        yield from _by_pattern(stated)


def _by_layer(stated: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield modelopt's formats of single modules, each format once."""
    found: dict[WeightFormat, list[str]] = {}
    for name, layer in _mapping(stated, "quantized_layers").items():
        algorithm = _algorithm(_word(layer, "quant_algo"), layer)
        if algorithm is not None:
            found.setdefault(algorithm, []).append(name)
    yield from ((listed_modules(names), each) for each, names in found.items())


def _by_group(stated: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield the formats of compressed-tensors' groups."""
    for group in _mapping(stated, "config_groups").values():
        if not isinstance(group, Mapping):
            continue
        packed = _word(group, "format") or _word(stated, "format")
        found = _described(group.get("weights"), group.get("input_activations", ...), packed)
        targets = group.get("targets") or ["Linear"]
        # A target is a class, such as Linear, or the name of a module.
        classes = [str(each) for each in targets if str(each).isidentifier()]
        every = any(each[0].isupper() for each in classes)
        if found is not None:
            yield (_ALL if every else listed_modules(targets)), found


def _by_pattern(stated: Mapping[str, Any]) -> Iterator[_Rule]:
    """Yield the formats of quark."""
    by_name = _mapping(stated, "layer_quant_config").items()
    rules = [(listed_modules([key]), each) for key, each in by_name]
    for modules, rule in [*rules, (_ALL, _mapping(stated, "global_quant_config"))]:
        weights = rule.get("weight") if isinstance(rule, Mapping) else None
        weights = weights[0] if isinstance(weights, list) and weights else weights
        found = _described(weights, rule.get("input_tensors", ...), "") if weights else None
        if found is not None:
            yield modules, found


def _described(weights: object, inputs: object, packed: str) -> WeightFormat | None:
    """Return the format that an object describes, or None if it describes none.

    Parameters
    ----------
    weights, inputs
        What a file says of weights and activations; ``...`` for activations that it omits.
    packed
        How the weights are packed.
    """
    if not isinstance(weights, Mapping):
        return None
    dtype = _word(weights, "dtype")  # quark's
    width = re.search(r"\d+", dtype)
    bits = int(width[0]) if width else weights.get("num_bits")
    if not isinstance(bits, int | float) or not 0 < bits <= _EIGHT:
        return None
    group, multiplied = _group(weights, usual=inf), _multiplied(bits, inputs)
    if _word(weights, "type") != "float" and not dtype.startswith(("fp", "mx", "float")):
        zero = bits if weights.get("symmetric") is False else 0
        return _integer(bits, group, zero_bits=zero, multiplied=multiplied)
    if bits > _FOUR:
        return _eight_bits(weights.get("block_structure"), group, multiplied)
    scales = [_word(weights, key) for key in ("scale_dtype", "scale_format")]
    if group == _MX_GROUP or any("mx" in word for word in (packed, dtype, *scales)):
        return NAMED_FORMATS["mxfp4"].but(multiplied=multiplied)
    return _nvfp4(group, multiplied, expanded=inputs is None)


def _multiplied(bits: float, inputs: object) -> Dtype | None:
    """Return the format of products whose activations have another width than the weights."""
    if inputs is None and bits > _FOUR:
        return "bf16"
    inputs = inputs[0] if isinstance(inputs, list) and inputs else inputs
    if not isinstance(inputs, Mapping) or bits > _FOUR:
        return None
    dtype = _word(inputs, "dtype")
    if inputs.get("num_bits") != _EIGHT and "8" not in dtype:
        return None
    return "int8" if "int" in dtype or _word(inputs, "type") == "int" else "fp8"


def _eight_bits(block: object, group: float = inf, multiplied: Dtype | None = None) -> WeightFormat:
    """Return the format of 8-bit floats, with a scale for a tensor, a block, or a group."""
    if isinstance(block, list | tuple) and all(isinstance(side, int) for side in block) and block:
        values = grouped_bytes(8, prod(block), scale=4)
        return WeightFormat(dtype="fp8_block", bytes=values, multiplied=multiplied)
    values = grouped_bytes(8, group, scale=1 if group == _MX_GROUP else 4)
    return WeightFormat(dtype="fp8", bytes=values, multiplied=multiplied)


def _nvfp4(
    group: float, multiplied: Dtype | None = None, *, expanded: bool = False
) -> WeightFormat:
    """Return NVIDIA's 4-bit floats; ``expanded`` ones are multiplied like 4-bit integers."""
    values = grouped_bytes(4, min(group, _NV_GROUP), scale=1)
    dtype: Dtype = "int4" if expanded else "nvfp4"
    return WeightFormat(dtype=dtype, bytes=values, multiplied=multiplied)


def _integer(
    bits: float, group: float, *, zero_bits: float = 0, multiplied: Dtype | None = None
) -> WeightFormat:
    """Return the format of integer weights with 16-bit scales."""
    values = grouped_bytes(bits, group, zero_bits=zero_bits)
    dtype: Dtype = "int4" if bits <= _FOUR else "int8"
    return WeightFormat(dtype=dtype, bytes=values, multiplied=multiplied)


def _algorithm(name: str, stated: Mapping[str, Any]) -> WeightFormat | None:
    """Return the format of one of modelopt's algorithms, or None if it is not known."""
    eight: Dtype | None = "fp8" if "w4a8" in name else None
    four = _integer(4, _group(stated), multiplied=eight)
    nvfp4 = _nvfp4(_group(stated, usual=_NV_GROUP), eight, expanded="w4a16" in name)
    formats = {
        "nvfp4": nvfp4,
        "mxfp4": NAMED_FORMATS["mxfp4"].but(multiplied=eight),
        "mxfp8": _eight_bits(None, _MX_GROUP),
        "fp8_pb": NAMED_FORMATS["fp8_block"],
        **dict.fromkeys(("int4", "awq", "w4a16"), four),
        "fp8": NAMED_FORMATS["fp8"],
        **dict.fromkeys(("int8", "w8a8", "eetq"), NAMED_FORMATS["int8"]),
    }
    return next((found for word, found in formats.items() if word in name), None)


def _single(method: str, algorithm: str, stated: Mapping[str, Any]) -> WeightFormat | None:
    """Return the format of a file that has one for all matrices, or None if it is not known."""
    if algorithm:
        return _algorithm(algorithm, stated)
    read = {"bitsandbytes": _bitsandbytes, "torchao": _torchao}.get(method)
    if read is not None:
        return read(stated)
    if method in _AS_16_BITS:
        values = _stated_bytes(method, stated)
        return WeightFormat(dtype="bf16", bytes=values) if values else None
    bits = stated.get("bits", stated.get("w_bit", stated.get("num_bits")))
    if isinstance(bits, int | float) and 0 < bits <= _EIGHT:
        # GPTQ's files hold zero points even where they are all the same.
        zero = stated.get("zero_point", method == "gptq" or stated.get("sym") is False)
        return _integer(bits, _group(stated), zero_bits=bits if zero else 0)
    if stated.get("weight_block_size"):
        return _eight_bits(stated["weight_block_size"])
    return _algorithm(method, stated)


def _bitsandbytes(stated: Mapping[str, Any]) -> WeightFormat:
    """Return 8 bits, or 4 with a 32-bit scale per 64, which may be quantised in turn."""
    if stated.get("load_in_8bit"):
        return NAMED_FORMATS["int8"]
    twice = bool(stated.get("bnb_4bit_use_double_quant"))
    scale = grouped_bytes(8, 256, scale=4) if twice else 4
    return WeightFormat(dtype="int4", bytes=grouped_bytes(4, 64, scale=scale))


def _torchao(stated: Mapping[str, Any]) -> WeightFormat | None:
    """Return torchao's format, which is named by a class and its arguments."""
    kind = stated.get("quant_type")
    name, data = str(kind).lower(), _mapping(stated, "quant_type_kwargs")
    if isinstance(kind, Mapping):
        inner = _mapping(kind, "default")
        name, data = _word(inner, "_type"), _mapping(inner, "_data")
    wide: Dtype | None = "bf16" if re.search("weight_?only", name) else None
    if "nvfp4" in name or "mx" in name:
        return _algorithm("nvfp4" if "nvfp4" in name else "mxfp4", data)
    if "int4" in name:  # with a 16-bit zero point
        eight: Dtype | None = "int8" if "int8" in name else None
        return _integer(4, _group(data), zero_bits=16, multiplied=eight)
    if "float8" in name:
        return NAMED_FORMATS["fp8"].but(multiplied=wide)
    return NAMED_FORMATS["int8"].but(multiplied=wide) if "int8" in name else None


def _stated_bytes(method: str, stated: Mapping[str, Any]) -> float | None:
    """Return the bytes per weight of a method without kernels in the timing model."""
    if method == "bitnet":  # -1, 0 and 1 in two bits each
        return 2 / 8
    numbers = [stated.get(key) for key in ("num_codebooks", "nbits_per_codebook", "in_group_size")]
    if method == "aqlm":  # a code for each group of weights; the codebooks are small
        codebooks, bits, group = (each if isinstance(each, int) else 0 for each in numbers)
        return codebooks * bits / group / 8 if group else None
    inner = _mapping(_mapping(stated, "quant_config"), "weight_quant_params") or stated
    bits = inner.get("nbits", inner.get("bits")) or _WIDTHS.get(_word(stated, "weights"), 0)
    if not isinstance(bits, int | float) or bits <= 0:
        return None
    # A 16-bit scale and a 16-bit offset for each group, if there are groups.
    return grouped_bytes(bits, _group(inner, usual=inf), zero_bits=16)


def _group(stated: Mapping[str, Any], usual: float = _USUAL_GROUP) -> float:
    """Return how many weights share a scale; -1 is a whole channel, as good as infinity."""
    group = stated.get("group_size", stated.get("q_group_size"))
    if isinstance(group, bool) or not isinstance(group, int):
        return usual
    return group if group > 0 else inf


def kv_format(stated: Mapping[str, Any]) -> KvDtype | None:
    """Return the format of the KV cache that a file states.

    >>> kv_format({"kv_cache_scheme": {"num_bits": 8, "type": "float"}})
    'fp8'
    """
    for key in ("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_config"):
        found = stated.get(key)
        if isinstance(found, str):
            for dtype in KV_DTYPES:
                if dtype in found.lower() and is_low_precision(DTYPE_BYTES[dtype]):
                    return dtype
        elif isinstance(found, Mapping):
            real, bits = _word(found, "type") == "float", found.get("num_bits")
            if bits == _EIGHT:
                return "fp8" if real else "int8"
            if bits == _FOUR:
                return "nvfp4" if real else "int4"
    return None


def _word(stated: object, key: str) -> str:
    """Return a text of the file in lower case, empty if it is missing."""
    found = stated.get(key) if isinstance(stated, Mapping) else None
    return found.lower() if isinstance(found, str) else ""


def _mapping(stated: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return an object of the file, empty if it is missing or something else."""
    found = stated.get(key)
    return found if isinstance(found, Mapping) else {}
