"""Write what transformers builds from small configs of every model type, for the tests to read.

``python tests/golden/model_truth.py`` needs torch, and the version of transformers that is to be
named. The cases of tests/data/hf_models.json that have no numbers get them, as a
config does that was added by hand; all of them if another version measured them. A type that the
list lacks gets three configs: the sizes of its class, small sizes, and those with every switch
turned that changes the parameters. Types whose layers differ are in other files there (hf_*.json),
with configs made for them.
"""

import json
from pathlib import Path
from typing import Any

from simulator.inputs.hf_config.model_types import MODEL_TYPES, NESTED

DATA = Path(__file__).parents[1] / "data" / "hf_models.json"
TOKENS = 23
# Small sizes, no two alike, by every name that configuration classes give them.
SIZES = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers"), 5),
    **dict.fromkeys(("hidden_size", "d_model"), 84),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "attention_heads"), 6),
    "num_key_value_heads": 2,
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 101),
    "vocab_size": 211,
    **dict.fromkeys(("max_position_embeddings", "max_seq_len"), 64),
    "moe_intermediate_size": 19,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 8),
    "moe_num_experts": 8,
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 3),
    "kv_lora_rank": 38,
    "q_lora_rank": 41,
    "qk_rope_head_dim": 10,
    "qk_nope_head_dim": 14,
    "v_head_dim": 17,
    "sliding_window": 7,
    "window_size": 7,
    "pad_token_id": 0,
}
LAYERS = {name for name, size in SIZES.items() if size == SIZES["num_hidden_layers"]}
STATED = {name for name, size in SIZES.items() if size in (84, 6, 101, 211)}


# Switches that do not change a model, or that we refuse.
IGNORED = {"is_encoder_decoder", "add_cross_attention", "is_moe", "is_decoder"}
# A forward pass of larger models would take long.
MOST_PARAMETERS = 500_000_000


def main() -> None:
    """Measure every case, and write the file."""
    stored = json.loads(DATA.read_text(encoding="utf-8"))
    cases = stored["cases"]
    if stored["about"] != about():  # another version measured them
        cases = [{"config": case["config"]} for case in cases]
    files = [json.loads(path.read_text(encoding="utf-8")) for path in DATA.parent.glob("hf_*.json")]
    known = {case["config"]["model_type"] for file in files for case in file["cases"]}
    inner = {name for name in NESTED.values() if name.endswith("_text")}
    for model_type in sorted({*MODEL_TYPES, *NESTED} - inner - known):
        cases += [{"config": config} for config in variants(model_type)]
    cases = [case if "parameters" in case else measured(case["config"]) for case in cases]
    lines = json.dumps({**stored, "about": about(), "tokens": TOKENS, "cases": cases}).replace(
        '{"config"', '\n{"config"'
    )
    DATA.write_text(lines + "\n", encoding="utf-8")


def about() -> list[str]:
    """Say what the file holds."""
    import torch
    import transformers

    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    return [
        f"Small configs of every model_type, and what {versions} built from them;",
        "written by tests/golden/model_truth.py but for the defaults (transformers 5.23.0).",
        "parameters: of the text decoder on the meta device, tied ones once, buffers not.",
        "windows: of each layer's cache, null for all tokens; left out where all are null.",
        "cache: for each layer [values that it holds per token, tokens that it holds] after a pass",
        "over `tokens` tokens; a windowed layer keeps one token less than its window. Left out for",
        "large models, where the pass failed, and where KV heads are expanded before the cache.",
        "defaults: the class defaults of each configuration class, whether the model has rotary",
        "encoding, and the classes of its norms.",
    ]


def variants(model_type: str) -> list[dict[str, Any]]:
    """Return the configs of a type: sizes of the class, small sizes, and all switches turned."""
    from transformers import AutoConfig

    try:
        outer = AutoConfig.for_model(model_type)
    except ValueError:
        return []
    text = outer.get_text_config(decoder=True)
    tied = getattr(outer, "tie_word_embeddings", False)
    default = {**text.to_dict(), "tie_word_embeddings": tied}
    names = [name for name in SIZES if hasattr(text, name)]
    # What a file must state, and no more layers than show a pattern.
    stated = {name: getattr(text, name) for name in names if name in STATED}
    stated |= {name: SIZES[name] for name in names if name in LAYERS}
    small = {name: SIZES[name] for name in names}
    count = parameters(nested(model_type, small))
    turned = {
        name: not value
        for name, value in default.items()
        if isinstance(value, bool)
        and name not in IGNORED
        and parameters(nested(model_type, {**small, name: not value})) not in (None, count)
    }
    configs = [nested(model_type, keys) for keys in (stated, small, {**small, **turned})]
    return [config for config in configs if parameters(config) is not None]


def nested(model_type: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a config of a type, inside a text_config if the type's files have one."""
    if model_type in NESTED and model_type not in MODEL_TYPES:
        tied = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
        inner = {key: value for key, value in config.items() if key not in tied}
        return {"model_type": model_type, **tied, "text_config": inner}
    return {"model_type": model_type, **config}


def parameters(config: dict[str, Any]) -> int | None:
    """Return the parameters of the text decoder of a config, None if its class refuses it."""
    import torch

    try:
        with torch.device("meta"):
            model, head = build(config)
    except Exception:  # noqa: BLE001 - a class may refuse a value with any error
        return None
    return head + int(sum(parameter.numel() for parameter in model.parameters()))


def measured(config: dict[str, Any]) -> dict[str, Any]:
    """Return a case: a config, its parameters, and the windows and widths of its caches."""
    import torch
    from transformers import DynamicCache

    count = parameters(config)
    if count is None:
        raise SystemExit(f"transformers builds no model from {config}")
    case: dict[str, Any] = {"config": config, "parameters": count}
    outer = configured(config)
    text = outer.get_text_config(decoder=True)
    limits = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=text).layers]
    # Layers may share caches, and RecurrentGemma keeps its own.
    if any(limits) and len(limits) == text.num_hidden_layers and "recurrent" not in text.model_type:
        case["windows"] = limits
    expanded = getattr(text, "new_decoder_architecture", False)
    if count > MOST_PARAMETERS or expanded:
        return case
    try:
        model, _ = build(config)
        tokens = torch.arange(TOKENS).unsqueeze(0)
        with torch.no_grad():
            layers = model(tokens, use_cache=True).past_key_values.layers
        kept = [layer.keys.shape[2] for layer in layers]
        widths = [layer.keys[0, :, 0].numel() + layer.values[0, :, 0].numel() for layer in layers]
    except Exception:  # noqa: BLE001 - some classes cannot run so small a model
        return case
    case["cache"] = [list(pair) for pair in zip(widths, kept, strict=True)]
    return case


def configured(config: dict[str, Any]) -> Any:
    """Return transformers' object for a config."""
    from transformers import AutoConfig

    keys = {key: value for key, value in config.items() if key != "model_type"}
    outer = AutoConfig.for_model(config["model_type"], **keys)
    return getattr(outer, "thinker_config", outer)  # of Qwen-Omni, which thinks and talks


def build(config: dict[str, Any]) -> tuple[Any, int]:
    """Return the text decoder of a config, and the parameters of a head that it lacks."""
    from transformers import AutoModel, AutoModelForCausalLM

    outer = configured(config)
    text = outer.get_text_config(decoder=True)
    eager = {"experts_implementation": "eager"}  # grouped products refuse odd widths
    if type(text) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM.from_config(text, **eager), 0
    tied = getattr(outer, "tie_word_embeddings", False)
    head = 0 if tied else text.vocab_size * text.hidden_size
    if type(text) in AutoModel._model_mapping:
        return AutoModel.from_config(text, **eager), head
    return AutoModel.from_config(outer, **eager).get_decoder(), head


if __name__ == "__main__":
    main()
