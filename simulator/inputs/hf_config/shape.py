"""From the keys of a config.json to a model's shape."""

from collections.abc import Mapping
from typing import Any

from simulator.errors import ModelError, nearest
from simulator.inputs.files import validate
from simulator.inputs.hf_config import layers
from simulator.inputs.hf_config.families import FAMILIES, NESTED
from simulator.inputs.hf_config.family import Family
from simulator.inputs.hf_config.quantization import read_weight_dtype
from simulator.inputs.hf_config.reader import LARGEST_LAYERS, ConfigReader, Key
from simulator.inputs.model import ModelShape

_CHUNKED = (
    "chunked attention counted as a sliding window of one chunk: an upper bound, a token sees half "
    "a chunk on average"
)


def shape_from_config(
    config: Mapping[str, Any],
    *,
    name: str,
    where: str,
    assume: str | None = None,
) -> ModelShape:
    """Build the shape of a model from the content of its ``config.json``.

    Parameters
    ----------
    config
        The parsed file.
    name
        Name of the model in answers.
    where
        The file, named first in every message.
    assume
        A known ``model_type`` to read the file as, whatever type it states.

    Raises
    ------
    ModelError
        If the file is not a model's config, its type is not known, or a size is missing or not a
        whole number above zero.
    """
    if not isinstance(config, Mapping):
        kind = "a list" if isinstance(config, list) else f"{config!r:.30}"
        raise ModelError(f"{where} is not a model's config.json: it holds {kind}, not an object")
    model_type, data = _language_model(config, where=where, assume=assume)
    family = FAMILIES[model_type]
    nested = data is not config
    reader = ConfigReader(
        data,
        where=where,
        outer=config if nested else None,
        sizes=family.sizes if nested else None,
    )
    fields = _fields(family, reader)
    notes = fields.pop("notes")
    if nested:
        notes.append("the text decoder alone: what encodes images or sound is left out")
    if assume is not None and assume != config.get("model_type"):
        notes.insert(0, f"read as {assume}: the file's model_type is {config.get('model_type')}")
    return validate(
        ModelShape,
        {**fields, "name": name, "notes": tuple(notes), "source": where},
        where=where,
        error=ModelError,
    )


def _language_model(
    config: Mapping[str, Any], *, where: str, assume: str | None
) -> tuple[str, Mapping[str, Any]]:
    """Return the model type and the keys of the decoder, inside ``text_config`` or not."""
    stated = config.get("model_type")
    stated = stated if isinstance(stated, str) else None
    inner = config.get("text_config")
    data = inner if isinstance(inner, Mapping) else config
    if assume is not None:
        model_type = NESTED.get(assume, assume)
        if model_type not in FAMILIES:
            raise ModelError(f"cannot assume {assume!r}: {_known(assume)}")
        return model_type, data
    if data is config and stated in NESTED:
        raise ModelError(f"{where}: model_type {stated!r} needs a text_config")
    named: Any = stated if data is config else data.get("model_type", NESTED.get(str(stated)))
    if not isinstance(named, str):
        raise ModelError(
            f"{where} is not a model's config.json: it has no model_type"
            + ("; read it with --assume llama" if "hidden_size" in data else "")
        )
    if named not in FAMILIES:
        raise ModelError(
            f"{where}: unknown model_type {named!r}; {_known(named)}; "
            "where it is built like one of them, name that one: --assume llama"
        )
    return named, data


def _known(model_type: str) -> str:
    """Return the known model types, the nearest first."""
    names = sorted({*FAMILIES, *NESTED})
    guess = nearest(model_type, names)
    return (f"nearest {guess!r}, " if guess else "") + "known: " + ", ".join(names)


def _fields(family: Family, reader: ConfigReader) -> dict[str, Any]:
    """Return the shape's fields and its notes."""
    count = reader.size("num_hidden_layers", largest=LARGEST_LAYERS)
    hidden = reader.size("hidden_size")
    heads = reader.size("num_attention_heads")
    factor = family.inner_factor
    experts = _experts(family, reader)
    sparse = [
        experts is not None and family.experts is not None and family.experts.sparse(reader, layer)
        for layer in range(count)
    ]
    windows = family.windows.read(reader, count)
    # Where every layer has experts the dense width does not matter, and some files leave it out.
    inner_default = factor * hidden if factor else (0 if all(sparse) else None)
    positions = reader.optional("max_position_embeddings", family.max_positions, minimum=1)
    dtype, notes = read_weight_dtype(reader)
    if family.windows.key == "attention_chunk_size" and any(windows):
        notes.append(_CHUNKED)
    fields: dict[str, Any] = {
        "layers": count,
        "hidden_size": hidden,
        "heads": heads,
        **_head_sizes(family, reader, hidden=hidden, heads=heads),
        "intermediate_size": reader.size(family.inner_key, inner_default),
        "vocab_size": reader.size("vocab_size"),
        "gated_mlp": family.gated_mlp,
        "tied_embeddings": _tied(family, reader),
        "rotary": family.rotary,
        "norm": family.norm,
        "norm_bias": family.norm_bias,
        "norms_per_layer": family.norms_per_layer,
        "extra_norms": family.extra_norms,
        "qk_norm": family.qk_norm,
        "qkv_bias": reader.flag(family.qkv_bias),
        "output_bias": reader.flag(family.output_bias),
        "mlp_bias": reader.flag(family.mlp_bias),
        "lm_head_bias": family.lm_head_bias,
        "position_embeddings": _position_rows(family, reader),
        "attention_sinks": family.attention_sinks,
        "max_context_tokens": positions,
        "layer_groups": layers.merge(windows, sparse),
        "experts": experts,
        "weight_dtype": dtype,
        "notes": notes,
    }
    return {**fields, **family.special(reader)}


def _position_rows(family: Family, reader: ConfigReader) -> int:
    """Return the rows of the learned position table, 0 for none."""
    if family.positions is None:
        return 0
    return reader.size("max_position_embeddings", family.max_positions) + family.positions


def _head_sizes(family: Family, reader: ConfigReader, *, hidden: int, heads: int) -> dict[str, Any]:
    """Return KV heads and head width, or the latent vector that takes their place."""
    if family.latent:
        nope = reader.size("qk_nope_head_dim", 128)
        rope = reader.size("qk_rope_head_dim", 64)
        latent = {
            "kv_rank": reader.size("kv_lora_rank", 512),
            "rope_dim": rope,
            "query_rank": reader.optional("q_lora_rank", 1536, minimum=1),
            "nope_dim": nope,
            "value_dim": reader.size("v_head_dim", 128),
        }
        # Every head has keys and values of its own, made from the one cached vector.
        return {"kv_heads": heads, "head_dim": nope + rope, "latent": latent}
    head_dim = reader.optional("head_dim", family.head_dim, minimum=1)
    if head_dim is None:
        if hidden % heads:
            reader.fail(
                f"hidden_size = {hidden} is not a multiple of num_attention_heads = {heads}, and "
                "there is no head_dim"
            )
        head_dim = hidden // heads
    return {"kv_heads": family.kv_heads(reader, heads), "head_dim": head_dim}


def _experts(family: Family, reader: ConfigReader) -> dict[str, Any] | None:
    """Return the mixture of experts, or None where the family or the file has none."""
    mixture = family.experts
    if mixture is None:
        return None
    count = reader.optional("num_experts", mixture.count)
    if not count:
        return None
    return {
        "count": count,
        "per_token": reader.size("num_experts_per_tok", mixture.per_token),
        "intermediate_size": reader.size(mixture.size_key, mixture.size),
        "shared_intermediate_size": mixture.shared_size(reader),
        "shared_gate": mixture.shared_gate,
        "router_bias": mixture.biases or mixture.correction_bias,
        "expert_bias": mixture.biases,
    }


def _tied(family: Family, reader: ConfigReader) -> bool:
    """Return whether the token table is the output matrix too."""
    key = Key("tie_word_embeddings", default=family.tied_embeddings)
    if key.name in reader.data or key.name not in reader.outer:
        return reader.flag(key)
    return ConfigReader(reader.outer, where=reader.where).flag(key)
