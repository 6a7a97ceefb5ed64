"""The defaults of each model_type for keys that its config.json omits: one entry per type.

Source: configuration and modelling classes of transformers 5.23.0. The parameter counts these
entries lead to were compared with the modules transformers builds, every entry and every switch;
the compared configs are the golden data of tests/inputs/test_hf_config.py.

Rules that a table cannot hold come first, then the table, then the function that reads a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from simulator.errors import ModelError, nearest
from simulator.inputs.files import validate
from simulator.inputs.hf_config import hybrids
from simulator.inputs.hf_config.layers import (
    LINEAR,
    gated_delta,
    kimi_delta,
    listed_dense,
    olmo_hybrid,
)
from simulator.inputs.hf_config.reading import (
    CHUNK_KEY,
    ConfigReader,
    Key,
    LayerRule,
    Mixture,
    ModelType,
    Windows,
    every_layer,
    latent_sizes,
    read_fields,
    stated_kv_heads,
)
from simulator.inputs.model import ModelShape


def multi_head(_reader: ConfigReader, heads: int) -> int:
    """Give every head its own KV head, the only form of the model type."""
    return heads


def bigcode_kv_heads(reader: ConfigReader, heads: int) -> int:
    """GPT-BigCode: one KV head unless ``multi_query`` is false."""
    return 1 if reader.flag(Key("multi_query", default=True)) else heads


def falcon_kv_heads(reader: ConfigReader, heads: int) -> int:
    """Falcon: ``num_kv_heads`` applies only to the new architecture; Falcon-7B's file has 71."""
    if reader.flag(Key("new_decoder_architecture")):
        return stated_kv_heads(reader, heads)
    return bigcode_kv_heads(reader, heads)


def all_but_every(step: int, key: str | None = None) -> LayerRule:
    """Select all layers but every ``step``-th; ``key`` names a step that the file may state."""
    return lambda reader, layer: (layer + 1) % (reader.size(key, step) if key else step) != 0


def from_max_window_layers(reader: ConfigReader, layer: int) -> bool:
    """Qwen2 and Qwen3: the layers past ``max_window_layers``."""
    return layer >= (reader.optional("max_window_layers", 28) or 0)


def even_below_max_window_layers(reader: ConfigReader, layer: int) -> bool:
    """Qwen2-MoE: every second layer below ``max_window_layers``."""
    return layer % 2 == 0 and layer < (reader.optional("max_window_layers", 28) or 0)


def rotary_layers(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers with rotary encoding attend in chunks, the others to all tokens."""
    # Llama-4-Scout's file has an empty list, which means the interval.
    if reader.items("no_rope_layers"):
        flags = reader.items("no_rope_layers", length=reader.size("num_hidden_layers")) or ()
        return bool(flags[layer])
    return (layer + 1) % reader.size("no_rope_layer_interval", 4) != 0


def every_sparse_step(reader: ConfigReader, layer: int) -> bool:
    """Qwen-MoE: every ``decoder_sparse_step``-th layer except ``mlp_only_layers``."""
    dense = reader.items("mlp_only_layers") or ()
    return layer not in dense and (layer + 1) % reader.size("decoder_sparse_step", 1) == 0


def after_first_dense(default: int) -> LayerRule:
    """DeepSeek: all layers but the first ``first_k_dense_replace``."""
    return lambda reader, layer: layer >= (reader.optional("first_k_dense_replace", default) or 0)


def interleaved_experts(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers of ``moe_layers``, or every ``interleave_moe_layer_step``-th."""
    listed = reader.items("moe_layers")
    if listed is not None:
        return layer in listed
    return (layer + 1) % reader.size("interleave_moe_layer_step", 1) == 0


def shared_expert_of(default: int) -> Callable[[ConfigReader], int]:
    """Qwen2-MoE: one shared expert with a width of its own."""
    return lambda reader: reader.optional("shared_expert_intermediate_size", default) or 0


def shared_experts(
    *, count: int, size: int, key: str = "n_shared_experts"
) -> Callable[[ConfigReader], int]:
    """DeepSeek: shared experts of a routed expert's width, side by side; ``key`` numbers them."""

    def rule(reader: ConfigReader) -> int:
        shared = reader.optional(key, count) or 0
        return shared * reader.size("moe_intermediate_size", size)

    return rule


def shared_expert_like_routed(reader: ConfigReader) -> int:
    """Llama 4: one shared expert as wide as a routed one."""
    return reader.size("intermediate_size")


def phi_special(reader: ConfigReader) -> dict[str, Any]:
    """Phi: optional norms on each head's queries and keys."""
    return {"qk_norm": "head"} if reader.flag(Key("qk_layernorm")) else {}


def cohere_special(reader: ConfigReader) -> dict[str, Any]:
    """Command-R: optional norms on queries and keys, with weights for each head."""
    return {"qk_norm": "all"} if reader.flag(Key("use_qk_norm")) else {}


def kimi_special(reader: ConfigReader) -> dict[str, Any]:
    """Kimi Linear: queries are not compressed by default, and nothing is rotated."""
    for key in ("routed_expert_hidden_size", "attn_res_block_size"):
        if key in reader.data:
            reader.fail(f"{key} is of an architecture that is not known yet (Kimi K3)")
    changes: dict[str, Any] = {"tied_embeddings": False}  # whatever the file says
    if reader.lookup("q_lora_rank")[1] is not ...:
        return changes
    latent = ConfigReader({**reader.data, "q_lora_rank": None}, where=reader.where)
    return {**changes, "latent": latent_sizes(latent)}


def falcon_special(reader: ConfigReader) -> dict[str, Any]:
    """Falcon: how many norms a layer has, and rotary encoding or ALiBi."""
    norms = 2
    if reader.flag(Key("parallel_attn", default=True)):
        new = reader.flag(Key("new_decoder_architecture"))
        norms = reader.size("num_ln_in_parallel_attn", 2 if new else 1)
    return {"norms_per_layer": norms, "rotary": not reader.flag(Key("alibi"))}


def opt_special(reader: ConfigReader) -> dict[str, Any]:
    """OPT: the smallest models have a narrower token table (350m) or norms without weights."""
    changes: dict[str, Any] = {}
    hidden = reader.size("hidden_size")
    width = reader.size("word_embed_proj_dim", hidden)
    if width != hidden:
        changes["embedding_size"] = width
    before = reader.flag(Key("do_layer_norm_before", default=True))
    if not before or reader.flag(Key("_remove_final_layer_norm")):
        changes["extra_norms"] = 0
    if not reader.flag(Key("layer_norm_elementwise_affine", default=True)):
        changes["norm_weight"] = False
    return changes


def _sizes(layers: int, hidden: int, heads: int, inner: int, vocabulary: int) -> dict[str, int]:
    """Return the five sizes under their keys in config.json."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
    }


_ATTENTION_BIAS = Key("attention_bias")
_ATTENTION_BIAS_ON = Key("attention_bias", default=True)
_USE_BIAS = Key("use_bias", default=True)

_GPT2 = ModelType(
    kv_heads=multi_head,
    gated_mlp=False,
    inner_factor=4,
    tied_embeddings=True,
    rotary=False,
    norm="layer",
    attention_bias=True,
    mlp_bias=True,
    positions=0,
    max_positions=1024,
)

# CodeGen and GPT-J: attention and MLP run side by side after one norm.
_GPTJ = ModelType(
    kv_heads=multi_head,
    gated_mlp=False,
    inner_factor=4,
    norm="layer",
    norms_per_layer=1,
    mlp_bias=True,
    lm_head_bias=True,
)

_GEMMA2 = ModelType(
    kv_heads=4,
    head_dim=256,
    tied_embeddings=True,
    norms_per_layer=4,
    attention_bias=_ATTENTION_BIAS,
    windows=Windows(default=4096, local=all_but_every(2)),
    sizes=_sizes(26, 2304, 8, 9216, 256_000),
)

_DEEPSEEK_V3 = ModelType(
    latent=True,
    attention_bias=_ATTENTION_BIAS,
    experts=Mixture(
        count=256,
        per_token=8,
        size=2048,
        sparse=after_first_dense(3),
        shared_size=shared_experts(count=1, size=2048),
        correction_bias=True,
    ),
)


def _qwen_experts(count: int, per_token: int, *, sparse: LayerRule = every_sparse_step) -> Mixture:
    """Return the experts of Qwen3-Next and Qwen3.5, with a gated shared one."""
    return Mixture(
        count=count,
        per_token=per_token,
        size=512,
        sparse=sparse,
        shared_size=shared_expert_of(512),
        shared_gate=True,
    )


_QWEN3_NEXT = ModelType(
    kv_heads=2,
    head_dim=256,
    qk_norm="head",
    attention_gate="value",
    attention_bias=_ATTENTION_BIAS,
    windows=Windows(key="", others=(LINEAR,)),
    experts=_qwen_experts(512, 10),
    layer=gated_delta,
)

_NOT_ALL_ATTEND = Windows(default=None, key="", others=(LINEAR,))

_LFM2 = ModelType(
    keys=hybrids.lfm2_keys,
    kv_heads=8,
    tied_embeddings=True,
    qk_norm="head",
    windows=Windows(key="", others=(hybrids.CONVOLUTION,)),
    layer=hybrids.lfm2,
)

_MINIMAX = ModelType(
    keys=hybrids.minimax_keys,
    kv_heads=8,
    windows=_NOT_ALL_ATTEND,
    experts=Mixture(count=8, per_token=2, size_key="intermediate_size"),
    layer=hybrids.minimax,
)

_MAMBA = ModelType(
    keys=hybrids.mamba_keys,
    tied_embeddings=True,
    norms_per_layer=1,
    layer=hybrids.mamba,
)

MODEL_TYPES: dict[str, ModelType] = {
    "llama": ModelType(
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        sizes=_sizes(32, 4096, 32, 11008, 32_000),
    ),
    "mistral": ModelType(
        kv_heads=8, windows=Windows(default=4096), sizes=_sizes(32, 4096, 32, 14336, 32_000)
    ),
    "mixtral": ModelType(
        kv_heads=8,
        windows=Windows(default=None),
        experts=Mixture(count=8, per_token=2, size_key="intermediate_size"),
    ),
    "qwen2": ModelType(
        kv_heads=32,
        qkv_bias=True,
        windows=Windows(default=4096, switch="use_sliding_window", local=from_max_window_layers),
        sizes=_sizes(32, 4096, 32, 22016, 151_936),
    ),
    "qwen2_moe": ModelType(
        kv_heads=16,
        qkv_bias=Key("qkv_bias", default=True),
        windows=Windows(
            default=4096, switch="use_sliding_window", local=even_below_max_window_layers
        ),
        experts=Mixture(
            count=60,
            per_token=4,
            size=1408,
            sparse=every_sparse_step,
            shared_size=shared_expert_of(5632),
            shared_gate=True,
        ),
    ),
    "qwen3": ModelType(
        kv_heads=32,
        head_dim=128,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, switch="use_sliding_window", local=from_max_window_layers),
        sizes=_sizes(32, 4096, 32, 22016, 151_936),
    ),
    "qwen3_moe": ModelType(
        kv_heads=4,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, switch="use_sliding_window"),
        experts=Mixture(count=128, per_token=8, size=768, sparse=every_sparse_step),
    ),
    "qwen3_next": replace(_QWEN3_NEXT, sizes=_sizes(48, 2048, 16, 5632, 151_936)),
    "qwen3_5_text": replace(
        _QWEN3_NEXT, kv_heads=4, experts=None, sizes=_sizes(32, 4096, 16, 12288, 248_320)
    ),
    "qwen3_5_moe_text": replace(
        _QWEN3_NEXT,
        experts=_qwen_experts(256, 8, sparse=every_layer),
        sizes=_sizes(40, 2048, 16, 0, 248_320),
    ),
    "olmo_hybrid": ModelType(
        qk_norm="all",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(key="", others=(LINEAR,)),
        layer=olmo_hybrid,
    ),
    "kimi_linear": ModelType(
        latent=True,
        rotary=False,
        windows=Windows(key="", others=(LINEAR,)),
        experts=Mixture(
            count=256,
            per_token=8,
            size=1024,
            sparse=listed_dense,
            shared_size=shared_experts(count=1, size=1024, key="num_shared_experts"),
        ),
        layer=kimi_delta,
        special=kimi_special,
    ),
    # Squared ReLU, no biases in attention, no rotary encoding, and one norm in each layer.
    "nemotron_h": ModelType(
        keys=hybrids.nemotron_keys,
        head_dim=128,
        gated_mlp=False,
        rotary=False,
        mlp_bias=Key("mlp_bias"),
        windows=Windows(default=None, others=(LINEAR, hybrids.MLP, hybrids.MOE)),
        experts=Mixture(
            count=8,
            per_token=2,
            size=7688,
            sparse=hybrids.is_moe,
            shared_size=lambda reader: reader.size("moe_shared_expert_intermediate_size", 7688),
            more=hybrids.nemotron_experts,
        ),
        layer=hybrids.nemotron_h,
        sizes=_sizes(4, 4096, 32, 21504, 131_072),
    ),
    "bamba": ModelType(
        keys=hybrids.bamba_keys,
        kv_heads=8,
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        windows=_NOT_ALL_ATTEND,
        layer=hybrids.bamba,
    ),
    "falcon_h1": ModelType(
        kv_heads=8,
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        layer=hybrids.falcon_h1,
    ),
    "granitemoehybrid": ModelType(
        keys=hybrids.granite_hybrid_keys,
        inner_key="shared_intermediate_size",
        attention_bias=_ATTENTION_BIAS,
        windows=_NOT_ALL_ATTEND,
        experts=Mixture(
            count=8,
            per_token=2,
            size_key="intermediate_size",
            shared_size=lambda reader: reader.size("shared_intermediate_size"),
        ),
        layer=hybrids.bamba,
        special=hybrids.granite_hybrid_special,
    ),
    "jamba": ModelType(
        keys=hybrids.jamba_keys,
        kv_heads=8,
        rotary=False,
        windows=_NOT_ALL_ATTEND,
        experts=Mixture(
            count=16, per_token=2, size_key="intermediate_size", sparse=hybrids.jamba_experts
        ),
        layer=hybrids.jamba,
    ),
    "zamba": ModelType(
        keys=hybrids.zamba_keys,
        tied_embeddings=True,
        rotary=False,
        windows=Windows(default=None, key="", others=(LINEAR, hybrids.HYBRID)),
        layer=hybrids.zamba,
        special=hybrids.zamba_special,
    ),
    "zamba2": ModelType(
        keys=hybrids.zamba2_keys,
        tied_embeddings=True,
        mlp_bias=Key("add_bias_linear"),
        windows=Windows(default=None, key="", others=(LINEAR, hybrids.HYBRID)),
        layer=hybrids.zamba2,
        special=hybrids.zamba2_special,
    ),
    "lfm2": replace(
        _LFM2,
        keys=hybrids.lfm2_dense_keys,
        sizes=_sizes(32, 2560, 32, 12288, 65_536),
    ),
    "lfm2_moe": replace(
        _LFM2,
        experts=Mixture(count=32, per_token=4, size=1792, sparse=hybrids.lfm2_sparse),
        sizes=_sizes(32, 2048, 32, 7168, 65_536),
    ),
    "minimax": _MINIMAX,
    # The names in the files of their authors.
    "minimax_text_01": _MINIMAX,
    "minimax_m1": _MINIMAX,
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": ModelType(
        keys=hybrids.mamba2_keys,
        kv_heads=multi_head,
        norms_per_layer=1,
        layer=hybrids.mamba2,
    ),
    "recurrent_gemma": ModelType(
        keys=hybrids.recurrent_gemma_keys,
        tied_embeddings=True,
        qkv_bias=_ATTENTION_BIAS,
        output_bias=True,
        mlp_bias=True,
        windows=Windows(default=2048, key="attention_window_size", others=(LINEAR,)),
        layer=hybrids.recurrent_gemma,
    ),
    # Two norms, and a scale and a bias of the embeddings, outside the layers.
    "zaya": ModelType(
        keys=hybrids.zaya_keys,
        kv_heads=2,
        head_dim=128,
        tied_embeddings=True,
        extra_norms=3,
        attention_bias=_ATTENTION_BIAS,
        lm_head_bias=Key("lm_head_bias"),
        windows=Windows(default=None),
        experts=Mixture(count=16, per_token=1, size=2048, more=hybrids.zaya_router),
        layer=hybrids.zaya,
        special=hybrids.zaya_special,
    ),
    "gemma": ModelType(
        kv_heads=16,
        head_dim=256,
        tied_embeddings=True,
        attention_bias=_ATTENTION_BIAS,
        sizes=_sizes(28, 3072, 16, 24576, 256_000),
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": ModelType(
        kv_heads=4,
        head_dim=256,
        tied_embeddings=True,
        norms_per_layer=4,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, local=all_but_every(6, "sliding_window_pattern")),
        sizes=_sizes(26, 2304, 8, 9216, 262_208),
    ),
    # Its norms on queries and keys have no weights.
    "llama4_text": ModelType(
        kv_heads=8,
        head_dim=128,
        inner_key="intermediate_size_mlp",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=8192, key=CHUNK_KEY, local=rotary_layers),
        experts=Mixture(
            count=16,
            per_token=1,
            size_key="intermediate_size",
            sparse=interleaved_experts,
            shared_size=shared_expert_like_routed,
        ),
        sizes={**_sizes(48, 5120, 40, 8192, 202_048), "intermediate_size_mlp": 16384},
    ),
    "phi": ModelType(
        gated_mlp=False,
        norm="layer",
        norms_per_layer=1,
        attention_bias=True,
        mlp_bias=True,
        lm_head_bias=True,
        special=phi_special,
    ),
    "phi3": ModelType(windows=Windows(default=None)),
    "gpt_neox": ModelType(
        kv_heads=multi_head,
        gated_mlp=False,
        norm="layer",
        attention_bias=_ATTENTION_BIAS_ON,
        mlp_bias=True,
    ),
    "starcoder2": ModelType(
        kv_heads=2,
        gated_mlp=False,
        tied_embeddings=True,
        norm="layer",
        attention_bias=_USE_BIAS,
        mlp_bias=_USE_BIAS,
        windows=Windows(default=None),
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, kv_heads=bigcode_kv_heads),
    "falcon": ModelType(
        kv_heads=falcon_kv_heads,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        norm="layer",
        attention_bias=Key("bias"),
        mlp_bias=Key("bias"),
        special=falcon_special,
    ),
    "opt": ModelType(
        kv_heads=multi_head,
        gated_mlp=False,
        tied_embeddings=True,
        rotary=False,
        norm="layer",
        attention_bias=Key("enable_bias", default=True),
        mlp_bias=Key("enable_bias", default=True),
        positions=2,
        max_positions=2048,
        special=opt_special,
    ),
    # ALiBi, and one more norm after the token table.
    "bloom": replace(_GPT2, extra_norms=2, positions=None, max_positions=None),
    "gpt_oss": ModelType(
        kv_heads=8,
        head_dim=64,
        attention_bias=_ATTENTION_BIAS_ON,
        attention_sinks=True,
        windows=Windows(default=128, local=all_but_every(2)),
        experts=Mixture(count=128, per_token=4, size_key="intermediate_size", biases=True),
    ),
    "deepseek_v2": ModelType(
        latent=True,
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        experts=Mixture(
            count=64,
            per_token=None,
            size=1407,
            sparse=after_first_dense(0),
            shared_size=shared_experts(count=2, size=1407),
        ),
    ),
    "deepseek_v3": _DEEPSEEK_V3,
    # Kimi-K2's own files name DeepseekV3ForCausalLM as their class.
    "kimi_k2": _DEEPSEEK_V3,
    "codegen": _GPTJ,
    "gptj": _GPTJ,
    "granite": ModelType(attention_bias=_ATTENTION_BIAS, mlp_bias=Key("mlp_bias")),
    "olmo2": ModelType(qk_norm="all", attention_bias=_ATTENTION_BIAS),
    "cohere": ModelType(
        tied_embeddings=True,
        norm="layer",
        norm_bias=False,
        norms_per_layer=1,
        attention_bias=_ATTENTION_BIAS,
        special=cohere_special,
    ),
}

# A multimodal file: the decoder is its text_config, which need not name its own type.
NESTED: dict[str, str] = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "lfm2_vl": "lfm2",
    "nemotron_h_omni": "nemotron_h",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}


def shape_from_config(
    config: Mapping[str, Any], *, name: str, where: str, assume: str | None = None
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
        found = "a list" if isinstance(config, list) else f"{config!r:.30}"
        raise ModelError(f"{where} is not a model's config.json: it holds {found}, not an object")
    model_type, data = _language_model(config, where=where, assume=assume)
    kind = MODEL_TYPES[model_type]
    nested = data is not config
    reader = ConfigReader(
        data, where=where, outer=config if nested else {}, sizes=kind.sizes if nested else {}
    )
    fields = read_fields(kind, reader)
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
        if model_type not in MODEL_TYPES:
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
    if named not in MODEL_TYPES:
        raise ModelError(
            f"{where}: unknown model_type {named!r}; {_known(named)}; "
            "where it is built like one of them, name that one: --assume llama"
        )
    return named, data


def _known(model_type: str) -> str:
    """Return the known model types, the nearest first."""
    names = sorted({*MODEL_TYPES, *NESTED})
    guess = nearest(model_type, names)
    return (f"nearest {guess!r}, " if guess else "") + "known: " + ", ".join(names)
