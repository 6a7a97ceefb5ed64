"""Models by name, from a file or from plain sizes."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from simulator.errors import ModelError, unknown
from simulator.inputs.files import file_version, name_or_path, read_if_changed, read_json, validate
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.hub import cached_config, hub_cache, is_hub_id, model_name
from simulator.inputs.model import ModelShape, count_parameters, size_above_zero
from simulator.numeric import ceil_div

ModelLike = str | Path | ModelShape

# A larger model is a typing error.
MOST_PARAMETERS = 10**15
# A text that starts like this is always a path.
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\")
# The line that opens a preset's table, or a table within it.
_HEAD = re.compile(r'^\[(?:"(?P<quoted>[^"]+)"|(?P<bare>[^"\].]+))', re.MULTILINE)
_PUNCTUATION = re.compile(r"[^a-z0-9]")
# Models that only their makers run.
_CLOSED = r"(?i)gpt-?[345]|chatgpt|o[134](-|$)|claude|gemini|grok-[34]"
# Llama's rule: two thirds of four times the hidden size, in steps of 256.
_GATED_STEP = 256


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model that this package knows by name.

    Attributes
    ----------
    aliases
        Its names on the Hugging Face hub, and others.
    own_max_tokens
        Aliases whose file has another maximum of tokens, each with its own; their shapes are alike.
    source
        Source of its sizes.
    note
        A note for users.
    parameters
        Its published parameter count, or None.
    config
        The keys of its published config.json that determine the shape.
    shape
        The shape itself, for a model without a config.json.
    like, kv_heads
        Another preset from which this one differs in KV heads, and those; or only in the keys of
        its ``config``.
    """

    name: str
    aliases: tuple[str, ...] = ()
    own_max_tokens: Mapping[str, int] = field(default_factory=dict)
    source: str = ""
    note: str = ""
    parameters: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    shape: Mapping[str, Any] = field(default_factory=dict)
    like: str | None = None
    kv_heads: int | None = None

    @cached_property
    def model(self) -> ModelShape:
        """The model's shape."""
        other = None if self.like is None else _preset(self.like)
        if other is not None and self.kv_heads is not None:
            shape = other.model.with_kv_heads(self.kv_heads)
            return shape.but(name=self.name)
        where = f"preset {self.name}"
        if self.shape:
            data = {**self.shape, "name": self.name}
            shape = validate(ModelShape, data, where=where, error=ModelError)
        else:
            config = {**(other.config if other else {}), **self.config}
            shape = shape_from_config(config, name=self.name, where=where)
        notes = (*shape.notes, self.note) if self.note else shape.notes
        return shape.but(source=self.source, notes=notes)

    def called(self, name: str) -> ModelShape:
        """Return the shape of the model of that name: an alias may have its own maximum."""
        for alias, tokens in self.own_max_tokens.items():
            own = _folded(alias.rpartition("/")[2])
            if own == _folded(name).rpartition("/")[2]:
                return self.model.but(name=own, max_context_tokens=tokens)
        return self.model


@cache
def presets() -> Mapping[str, Preset]:
    """Return the known models by name, in the order of ``presets.toml``."""
    return _read("".join(_texts().values()))


def find_preset(name: str) -> Preset | None:
    """Return the preset of a name or alias, or None.

    Case does not matter, ``_`` and ``-`` are the same, and the organisation before the slash of a
    hub name may be omitted. A name that is none counts as another spelling of the only one with the
    same letters and digits.

    >>> find_preset("meta-llama/llama_3.1_8b").name, find_preset("llama3.1:8b").name
    ('llama-3.1-8b', 'llama-3.1-8b')
    """
    folded = _folded(name)
    if folded in _texts():
        return _preset(folded)
    return _names().get(folded) or _respelled(folded)


def load_model(
    name: str | Path,
    *,
    kv_heads: int | str | None = None,
    assume: str | None = None,
    **overrides: Any,
) -> ModelShape:
    """Load a model by name, or from a config.json or the folder that holds one.

    Parameters
    ----------
    name
        A preset's name or alias, a path, or a Hugging Face id whose config.json is in the hub's
        local cache. A name outranks a file of that name; ``./NAME`` means the file.
    kv_heads
        Another number of KV heads.
    assume
        Read a file as this ``model_type``, whatever type it states.
    overrides
        Other fields of :class:`~simulator.inputs.model.ModelShape` to replace; None keeps a
        field.

    Raises
    ------
    ModelError
        If there is no such model, its file cannot be read, or a change is invalid.
    """
    if not isinstance(assume, str | None):
        raise ModelError(f"assume = {assume!r} is not the name of a model type")
    shape = _load(name, assume)
    if kv_heads is not None:
        shape = shape.with_kv_heads(kv_heads)
    changes = {field: value for field, value in overrides.items() if value is not None}
    return shape.replaced(changes) if changes else shape


def as_model(model: ModelLike, kv_heads: int | str | None = None) -> ModelShape:
    """Return a model's shape from a preset's name, the path of a config.json, or a shape.

    Raises
    ------
    ModelError
        If there is no such model, its file cannot be read, or it is implausibly large.
    """
    shape = model if isinstance(model, ModelShape) else load_model(model)
    if kv_heads is not None:
        shape = shape.with_kv_heads(kv_heads)
    parameters = count_parameters(shape).total
    if parameters > MOST_PARAMETERS:
        raise ModelError(
            f"{shape.name}: {parameters:.3g} parameters, more than any model has; check its sizes"
        )
    return shape


def model_from_flags(
    *,
    layers: int | str,
    hidden_size: int | str,
    heads: int | str,
    kv_heads: int | str | None = None,
    head_dim: int | str | None = None,
    intermediate_size: int | str | None = None,
    vocab_size: int | str = 32_000,
    gated_mlp: bool = True,
    name: str = "custom",
    **others: Any,
) -> ModelShape:
    """Build a model from plain sizes; omitted ones are as in Llama.

    Each size is a number or a text such as ``4K``.

    Parameters
    ----------
    layers, hidden_size, heads
        Layers, width of the hidden state, and query heads.
    kv_heads
        By default the number of heads.
    head_dim
        By default hidden size / heads.
    intermediate_size
        By default 8/3 of the hidden size, rounded up to a multiple of 256, as in Llama (4096 gives
        11008); four times the hidden size if the MLP is not gated.
    vocab_size
        Rows of the token table.
    gated_mlp
        Whether the MLP has two matrices up, as in Llama, or one.
    name
        The model's name in answers.
    others
        Other fields of :class:`~simulator.inputs.model.ModelShape`; None means not given.

    Raises
    ------
    ModelError
        If a size is not a whole number above zero or the sizes are inconsistent.

    Examples
    --------
    >>> model_from_flags(layers=32, hidden_size=4096, heads=32).intermediate_size
    11008
    """
    where = f"model {name}"
    layers = size_above_zero("layers", layers, where=where)
    hidden_size = size_above_zero("hidden_size", hidden_size, where=where)
    heads = size_above_zero("heads", heads, where=where)
    if head_dim is None:
        if hidden_size % heads:
            raise ModelError(
                f"{where}: hidden_size = {hidden_size} is not a multiple of heads = {heads}; "
                "give head_dim"
            )
        head_dim = hidden_size // heads
    if intermediate_size is None:
        gated = ceil_div(8 * hidden_size, 3 * _GATED_STEP) * _GATED_STEP
        intermediate_size = gated if gated_mlp else 4 * hidden_size
    data = {
        "name": name,
        "layers": layers,
        "hidden_size": hidden_size,
        "heads": heads,
        "kv_heads": heads if kv_heads is None else kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate_size,
        "vocab_size": vocab_size,
        "gated_mlp": gated_mlp,
        "source": "sizes given by the user",
        **{field: value for field, value in others.items() if value is not None},
    }
    return validate(ModelShape, data, where=where, error=ModelError)


def _load(name: str | Path, assume: str | None) -> ModelShape:
    """Load a model without changes."""
    text = str(name_or_path(name, "model", ModelError)).strip()
    is_path = isinstance(name, Path) or text.endswith(".json") or text.startswith(_PATH_STARTS)
    if not is_path:
        preset = find_preset(text)
        if preset is not None:
            return preset.called(text)
    # Not expanduser, which raises for an unknown user.
    path = Path.home() / text[2:] if text.startswith("~/") else Path(text)
    if "\0" in text or not (is_path or (text and _exists(path))):
        cached = cached_config(text) if is_hub_id(text) else None
        if cached is None:
            raise ModelError(_unknown_model(text))
        path = cached
    return _read_config(path, assume)


def _unknown_model(text: str) -> str:
    """Say that there is no such model, and what to do."""
    if re.match(_CLOSED, text):
        return (
            f"unknown model {text!r}: its sizes are not public; see 'bifurcate models' for open "
            "ones, such as gpt-oss-120b or deepseek-v3"
        )
    way_out = "see 'bifurcate models', or give the path of a config.json"
    if "distill" in text.lower():
        return f"unknown model {text!r}: it has the shape of its base; name that ({way_out})"
    if is_hub_id(text):
        way_out = f"'hf download {text} config.json' puts its file into {hub_cache()}"
    aliases = [alias for preset in presets().values() for alias in preset.aliases]
    return unknown("model", text, presets(), aliases=aliases, way_out=way_out)


def _exists(path: Path) -> bool:
    """Return whether a file exists; False for a name too long for a file."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _read_config(path: Path, assume: str | None) -> ModelShape:
    """Read a config.json, or the one in a folder."""
    if _exists(path) and path.is_dir():
        path /= "config.json"
        if not path.is_file():
            raise ModelError(f"there is no config.json in {path.parent}")
    name = (path.name == "config.json" and model_name(path)) or path.stem
    # NVIDIA's modelopt states the format of the weights in a second file.
    beside = path.with_name("hf_quant_config.json")
    return _config_shape(path, name, assume, beside, file_version(beside))


@read_if_changed
def _config_shape(
    path: Path, name: str, assume: str | None, beside: Path, _version: object
) -> ModelShape:
    """Build the shape of a config.json, and of the second file in its current version."""
    config = read_json(path, ModelError)
    if isinstance(config, dict) and beside.is_file():
        _add_quantization(config, read_json(beside, ModelError))
    return shape_from_config(config, name=name, where=str(path), assume=assume)


def _add_quantization(config: dict[str, Any], second: Any) -> None:
    """Add what modelopt's second file states to ``quantization_config``, which outranks it."""
    stated = second.get("quantization") if isinstance(second, dict) else None
    first = config.get("quantization_config") or {}
    if isinstance(stated, dict) and isinstance(first, dict):
        first = {key: value for key, value in first.items() if value is not None}
        config["quantization_config"] = {"quant_method": "modelopt", **stated, **first}


def _read(text: str) -> dict[str, Preset]:
    """Read the presets in a text."""
    return {
        name: Preset(name=name, **{**table, "aliases": tuple(table.get("aliases", ()))})
        for name, table in tomllib.loads(text).items()
    }


@cache
def _preset(name: str) -> Preset:
    """Return a preset by its own name, without the slow parsing of all others."""
    return _read(_texts()[name])[name]


@cache
def _texts() -> Mapping[str, str]:
    """Return each preset's part of ``presets.toml`` by name."""
    text = Path(__file__).with_name("presets.toml").read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    parts: dict[str, str] = {}
    for head, end in zip(heads, ends, strict=True):
        name = head["quoted"] or head["bare"]
        parts[name] = parts.get(name, "") + text[head.start() : end]
    return parts


def _folded(name: str) -> str:
    """Normalise a model's name for comparison."""
    return name.strip().lower().replace("_", "-").replace(" ", "-")


@cache
def _names() -> dict[str, Preset]:
    """Map every normalised name to its preset; a preset's own name outranks aliases."""
    table: dict[str, Preset] = {}
    for preset in presets().values():
        for alias in preset.aliases:
            table.setdefault(_folded(alias), preset)
            table.setdefault(_folded(alias.rpartition("/")[2]), preset)
    table.update({_folded(name): preset for name, preset in presets().items()})
    return table


@cache
def _squeezed() -> dict[str, set[str]]:
    """Map the letters and digits of every normalised name to the presets so called."""
    table: dict[str, set[str]] = {}
    for name, preset in _names().items():
        table.setdefault(_PUNCTUATION.sub("", name), set()).add(preset.name)
    return table


def _respelled(folded: str) -> Preset | None:
    """Return the only preset with the letters and digits of a name, or None."""
    found = _squeezed().get(_PUNCTUATION.sub("", folded), set())
    return _preset(next(iter(found))) if len(found) == 1 else None
