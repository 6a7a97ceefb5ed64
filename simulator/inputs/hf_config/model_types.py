"""The defaults of each model_type for keys that its config.json omits: one entry per type.

Source: configuration and modelling classes of transformers 5.24.0. The parameter counts these
entries lead to are compared with the modules transformers builds, every entry and every switch:
tests/golden/model_truth.py writes the golden data of tests/inputs/test_hf_config.py. Types that
transformers lacks follow the code published with their checkpoints (recalled); the same tests
compare their published parameter counts.

Rules that a table cannot hold are in ``rules.py``. Here are the table and the function that reads a
file.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simulator.errors import ModelError, unknown
from simulator.inputs.files import validate
from simulator.inputs.hf_config import layers, rules
from simulator.inputs.hf_config.layered_types import LAYERED_TYPES
from simulator.inputs.hf_config.reading import (
    CHUNK_KEY,
    ConfigReader,
    Key,
    Latent,
    Mixture,
    ModelType,
    Windows,
    read_fields,
)
from simulator.inputs.hf_config.telling import nearest_type, phrase, read_as, telling_keys
from simulator.inputs.hf_config.towers import tower_parameters
from simulator.inputs.model import ModelShape

_ATTENTION_BIAS = Key("attention_bias")
_ATTENTION_BIAS_ON = Key("attention_bias", default=True)
_MLP_BIAS = Key("mlp_bias")
_USE_BIAS = Key("use_bias", default=True)
_USE_BIAS_OFF = Key("use_bias")

_GPT2 = ModelType(
    kv_heads=rules.multi_head,
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
    kv_heads=rules.multi_head,
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
    windows=Windows(default=4096, local=rules.all_but_every(2)),
    sizes=rules.sizes(26, 2304, 8, 9216, 256_000),
)

_DEEPSEEK_V3 = ModelType(
    latent=Latent(),
    attention_bias=_ATTENTION_BIAS,
    experts=rules.deepseek_experts(256, 8, 2048, dense=3),
)
_INDEXED = Windows(key="", others=("indexed_attention",))

_LLAMA = ModelType(attention_bias=_ATTENTION_BIAS, mlp_bias=_MLP_BIAS)

_PHI = ModelType(
    gated_mlp=False,
    norm="layer",
    norms_per_layer=1,
    attention_bias=True,
    mlp_bias=True,
    lm_head_bias=True,
    special=rules.switched_qk_norm("qk_layernorm"),
)

_OPT = ModelType(
    kv_heads=rules.multi_head,
    gated_mlp=False,
    tied_embeddings=True,
    rotary=False,
    norm="layer",
    attention_bias=Key("enable_bias", default=True),
    mlp_bias=Key("enable_bias", default=True),
    positions=2,
    max_positions=2048,
    special=rules.opt_special,
)

_COHERE = ModelType(
    tied_embeddings=True,
    norm="layer",
    norm_bias=False,
    norms_per_layer=1,
    attention_bias=_ATTENTION_BIAS,
)

_QWEN_WINDOWS = Windows(
    default=4096, switch="use_sliding_window", local=rules.from_max_window_layers(28)
)

# The text models inside Qwen's multimodal ones.
_QWEN2_VL = ModelType(
    kv_heads=8,
    qkv_bias=True,
    windows=replace(_QWEN_WINDOWS, local=rules.from_max_window_layers(80)),
    sizes=rules.sizes(80, 8192, 64, 29568, 152_064),
)

_QWEN3 = ModelType(
    kv_heads=32,
    head_dim=128,
    qk_norm="head",
    attention_bias=_ATTENTION_BIAS,
    sizes=rules.sizes(32, 4096, 32, 22016, 151_936),
)

_QWEN3_MOE = ModelType(
    kv_heads=4,
    qk_norm="head",
    attention_bias=_ATTENTION_BIAS,
    experts=Mixture(count=128, per_token=8, size=768, sparse=rules.every_sparse_step),
)

# GLM-4's attention has no bias on the output.
_GLM = ModelType(kv_heads=2, head_dim=128, qkv_bias=_ATTENTION_BIAS_ON)

_GLM4_MOE = ModelType(
    kv_heads=8,
    uneven_heads=True,
    qkv_bias=_ATTENTION_BIAS,
    experts=rules.deepseek_experts(128, 8, 1408),
    special=rules.switched_qk_norm("use_qk_norm"),
)

_GRANITE_MOE = ModelType(
    attention_bias=_ATTENTION_BIAS,
    experts=Mixture(
        count=8,
        per_token=2,
        size_key="intermediate_size",
        shared_size=rules.shared_expert_of(0, "shared_intermediate_size"),
    ),
)

_GRANITE_WINDOWS = Windows(default=128, local=rules.after_every(4))

_OLMO2 = ModelType(qk_norm="all", attention_bias=_ATTENTION_BIAS)

_EXAONE4_WINDOWS = Windows(default=4096, local=rules.all_but_every(4, "sliding_window_pattern"))

MODEL_TYPES: dict[str, ModelType] = {
    "llama": replace(_LLAMA, sizes=rules.sizes(32, 4096, 32, 11008, 32_000)),
    "mistral": ModelType(
        kv_heads=8, windows=Windows(default=4096), sizes=rules.sizes(32, 4096, 32, 14336, 32_000)
    ),
    "ministral": ModelType(kv_heads=8, windows=Windows(default=4096)),
    "ministral3": ModelType(
        kv_heads=8,
        head_dim=128,
        sizes=rules.sizes(34, 4096, 32, 14336, 131_072),
    ),
    "mixtral": ModelType(
        kv_heads=8,
        experts=Mixture(count=8, per_token=2, size_key="intermediate_size"),
    ),
    "qwen2": ModelType(
        kv_heads=32,
        qkv_bias=True,
        windows=_QWEN_WINDOWS,
        sizes=rules.sizes(32, 4096, 32, 22016, 151_936),
    ),
    "qwen2_moe": ModelType(
        kv_heads=16,
        qkv_bias=Key("qkv_bias", default=True),
        windows=replace(_QWEN_WINDOWS, local=rules.even_below_max_window_layers),
        experts=Mixture(
            count=60,
            per_token=4,
            size=1408,
            sparse=rules.every_sparse_step,
            shared_size=rules.shared_expert_of(5632),
            shared_gate=True,
        ),
    ),
    "qwen3": replace(_QWEN3, windows=_QWEN_WINDOWS),
    "qwen3_moe": replace(_QWEN3_MOE, windows=Windows(default=4096, switch="use_sliding_window")),
    "gemma": ModelType(
        kv_heads=16,
        head_dim=256,
        tied_embeddings=True,
        attention_bias=_ATTENTION_BIAS,
        sizes=rules.sizes(28, 3072, 16, 24576, 256_000),
    ),
    "gemma2": _GEMMA2,
    # Its norms on queries and keys have no weights.
    "llama4_text": ModelType(
        kv_heads=8,
        head_dim=128,
        inner_key="intermediate_size_mlp",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=8192, key=CHUNK_KEY, local=rules.rotary_layers),
        experts=Mixture(
            count=16,
            per_token=1,
            size_key="intermediate_size",
            sparse=rules.interleaved_experts,
            shared_size=rules.shared_expert_like_routed,
        ),
        sizes={**rules.sizes(48, 5120, 40, 8192, 202_048), "intermediate_size_mlp": 16384},
    ),
    "phi": _PHI,
    "phi3": ModelType(),
    "gpt_neox": ModelType(
        kv_heads=rules.multi_head,
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
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, kv_heads=rules.bigcode_kv_heads),
    "falcon": ModelType(
        kv_heads=rules.falcon_kv_heads,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        norm="layer",
        attention_bias=Key("bias"),
        mlp_bias=Key("bias"),
        special=rules.falcon_special,
    ),
    "opt": _OPT,
    # ALiBi, and one more norm after the token table.
    "bloom": replace(_GPT2, extra_norms=2, positions=None, max_positions=None),
    "gpt_oss": ModelType(
        kv_heads=8,
        head_dim=64,
        attention_bias=_ATTENTION_BIAS_ON,
        attention_sinks=True,
        windows=Windows(default=128, local=rules.all_but_every(2)),
        experts=Mixture(count=128, per_token=4, size_key="intermediate_size", biases=True),
    ),
    "deepseek_v2": ModelType(
        latent=Latent(),
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
        experts=rules.deepseek_experts(64, None, 1407, dense=0, shared=2),
    ),
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v32": replace(_DEEPSEEK_V3, windows=_INDEXED, special=layers.indexer_of(heads=64)),
    "glm_moe_dsa": replace(
        _DEEPSEEK_V3,
        latent=Latent(query_rank=2048, nope=192, value=256),
        windows=_INDEXED,
        layer=layers.indexed,
        special=layers.indexer_of(heads=32),
    ),
    # Kimi-K2's own files name DeepseekV3ForCausalLM as their class.
    "kimi_k2": _DEEPSEEK_V3,
    "codegen": _GPTJ,
    "gptj": _GPTJ,
    "granite": _LLAMA,
    "olmo2": _OLMO2,
    "cohere": replace(_COHERE, special=rules.switched_qk_norm("use_qk_norm", kind="all")),
    # Flat multimodal files name the whole model, the text_config of others their text model.
    "qwen2_vl": _QWEN2_VL,
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": replace(
        _QWEN3_MOE,
        kv_heads=16,
        experts=Mixture(count=60, per_token=4, size=1408, sparse=rules.every_sparse_step),
        sizes=rules.sizes(24, 2048, 16, 5632, 151_936),
    ),
    "qwen3_omni_moe_text": replace(
        _QWEN3_MOE, uneven_heads=True, sizes=rules.sizes(28, 2048, 28, 18944, 3584)
    ),
    "glm": _GLM,
    "glm4": replace(_GLM, norms_per_layer=4),
    "glm4v_text": ModelType(
        kv_heads=2,
        norms_per_layer=4,
        qkv_bias=True,
        sizes=rules.sizes(40, 4096, 32, 13696, 151_552),
    ),
    "glm4_moe": _GLM4_MOE,
    "glm4v_moe_text": replace(
        _GLM4_MOE,
        qkv_bias=_ATTENTION_BIAS_ON,
        special=None,
        sizes=rules.sizes(46, 4096, 96, 10944, 151_424),
    ),
    "glm4_moe_lite": ModelType(
        latent=Latent(query_rank=768, nope=192, value=256),
        attention_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(64, 4, 1536),
    ),
    "minimax_m2": ModelType(
        kv_heads=8,
        head_dim=128,
        qk_norm="all",
        experts=Mixture(count=256, per_token=8, size_key="intermediate_size"),
    ),
    "mistral4": ModelType(
        latent=Latent(query_rank=1024, kv_rank=256, nope=64),
        attention_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(128, 4, 2048, dense=0),
    ),
    "olmo": ModelType(attention_bias=_ATTENTION_BIAS, norm="layer", norm_weight=False),
    "olmo3": replace(_OLMO2, windows=Windows(default=4096, local=rules.all_but_every(4))),
    "olmoe": replace(_OLMO2, experts=Mixture(count=64, per_token=8, size_key="intermediate_size")),
    "flex_olmo": replace(
        _OLMO2, experts=Mixture(count=7, per_token=5, size_key="intermediate_size")
    ),
    "exaone": replace(_LLAMA, kv_heads=8),
    "exaone4": ModelType(kv_heads=32, qk_norm="head", windows=_EXAONE4_WINDOWS),
    "exaone_moe": ModelType(
        kv_heads=32,
        qk_norm="head",
        windows=_EXAONE4_WINDOWS,
        experts=rules.deepseek_experts(64, 8, 1024),
    ),
    "cohere2": replace(
        _COHERE,
        windows=Windows(default=4096, local=rules.all_but_every(4, "sliding_window_pattern")),
    ),
    "ernie4_5": ModelType(
        kv_heads=2,
        head_dim=128,
        tied_embeddings=True,
        attention_bias=_USE_BIAS_OFF,
        mlp_bias=_USE_BIAS_OFF,
        lm_head_bias=False,
    ),
    "ernie4_5_moe": ModelType(
        kv_heads=4,
        tied_embeddings=True,
        attention_bias=_USE_BIAS_OFF,
        mlp_bias=_USE_BIAS_OFF,
        lm_head_bias=_USE_BIAS_OFF,
        experts=Mixture(
            count=64,
            per_token=6,
            size=1536,
            sparse=rules.ernie_sparse_layers,
            shared_size=rules.shared_experts(count=2, size=1536),
            correction_bias=True,
        ),
    ),
    "phi-msft": replace(_PHI, inner_factor=4),
    "phi3_v": ModelType(),
    "phimoe": ModelType(
        kv_heads=8,
        norm="layer",
        attention_bias=_ATTENTION_BIAS,
        lm_head_bias=Key("lm_head_bias"),
        experts=Mixture(count=16, per_token=2, size_key="intermediate_size"),
    ),
    "smollm3": replace(
        _LLAMA,
        kv_heads=4,
        tied_embeddings=True,
        windows=Windows(switch="use_sliding_window", local=rules.unrotated_layers),
    ),
    "seed_oss": ModelType(
        kv_heads=8,
        head_dim=128,
        qkv_bias=_ATTENTION_BIAS_ON,
        output_bias=Key("attention_out_bias"),
        mlp_bias=_MLP_BIAS,
    ),
    "hunyuan_v1_dense": ModelType(qk_norm="head", attention_bias=_ATTENTION_BIAS),
    "hunyuan_v1_moe": ModelType(
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        experts=Mixture(
            count=1,
            per_token=1,
            size_key="intermediate_size",
            shared_size=rules.shared_expert_like_routed,
        ),
    ),
    "granitemoe": replace(
        _GRANITE_MOE, experts=Mixture(count=8, per_token=2, size_key="intermediate_size")
    ),
    "granitemoeshared": _GRANITE_MOE,
    "granite_swa": replace(
        _LLAMA,
        kv_heads=4,
        tied_embeddings=True,
        attention_sinks=True,
        windows=_GRANITE_WINDOWS,
    ),
    "granitemoe_swa": replace(_GRANITE_MOE, attention_sinks=True, windows=_GRANITE_WINDOWS),
    "stablelm": ModelType(
        kv_heads=32, norm="layer", qkv_bias=Key("use_qkv_bias"), special=rules.stablelm_special
    ),
    "mpt": ModelType(
        kv_heads=rules.mpt_kv_heads,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        rotary=False,
        norm="layer",
        norm_bias=False,
    ),
    "minicpm3": ModelType(
        latent=Latent(query_rank=768, kv_rank=256, nope=64, rope=32, value=None),
        tied_embeddings=True,
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
    ),
    "youtu": ModelType(latent=Latent(), tied_embeddings=True, attention_bias=_ATTENTION_BIAS),
    "arcee": replace(_LLAMA, gated_mlp=False),
    "apertus": ModelType(
        qk_norm="head",
        gated_mlp=False,
        attention_bias=_ATTENTION_BIAS,
        layer=rules.apertus_slopes,
    ),
    "helium": ModelType(kv_heads=20, head_dim=128, qkv_bias=_ATTENTION_BIAS, mlp_bias=_MLP_BIAS),
    "cwm": ModelType(
        kv_heads=8,
        head_dim=128,
        mlp_bias=_MLP_BIAS,
        windows=Windows(default=8192, local=rules.after_every(4)),
    ),
    "nemotron": ModelType(
        gated_mlp=False, norm="layer", attention_bias=_ATTENTION_BIAS, mlp_bias=_MLP_BIAS
    ),
    "jais2": ModelType(
        gated_mlp=False,
        norm="layer",
        attention_bias=_ATTENTION_BIAS_ON,
        mlp_bias=Key("mlp_bias", default=True),
    ),
    "hyperclovax": replace(_LLAMA, special=rules.hyperclova_special),
    "iquestcoder": replace(_LLAMA, kv_heads=8, head_dim=128),
    # Its norms have no weights, those on queries and keys neither.
    "nanochat": ModelType(gated_mlp=False, norm_weight=False, attention_bias=_ATTENTION_BIAS),
    "vaultgemma": replace(_GEMMA2, norms_per_layer=2),
    "mellum": ModelType(
        kv_heads=4,
        head_dim=128,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=1024, local=rules.no_layer),
        experts=Mixture(count=64, per_token=8, size=896, sparse=rules.after_first_dense(0)),
    ),
    "afmoe": ModelType(
        head_dim=128,
        norms_per_layer=4,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=1024, local=rules.all_but_every(4, "global_attn_every_n_layers")),
        experts=Mixture(
            count=64,
            per_token=6,
            size=1408,
            sparse=rules.after_first_dense(1, "num_dense_layers"),
            shared_size=rules.shared_experts(count=2, size=1408),
            correction_bias=True,
        ),
        layer=rules.afmoe_gate,
    ),
    "laguna": ModelType(
        kv_heads=8,
        head_dim=128,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=512, local=rules.no_layer),
        experts=Mixture(
            count=256,
            per_token=8,
            size=512,
            sparse=rules.after_first_dense(1),
            shared_size=rules.shared_expert_of(512),
            correction_bias=True,
        ),
        layer=rules.laguna_layer,
    ),
    "solar_open": ModelType(
        kv_heads=8,
        head_dim=128,
        qkv_bias=_ATTENTION_BIAS,
        experts=Mixture(
            count=128,
            per_token=8,
            size=1280,
            shared_size=rules.shared_experts(count=1, size=1280),
        ),
    ),
    "hy_v3": ModelType(
        kv_heads=8,
        head_dim=128,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        mlp_bias=_MLP_BIAS,
        experts=rules.deepseek_experts(192, 8, 1536),
    ),
    "axk1": ModelType(
        latent=Latent(),
        attention_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(192, 8, 2048),
        layer=rules.axk1_norms,
    ),
    "sarvam_mla": ModelType(
        latent=Latent(query_rank=None),
        attention_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(128, 8, 2048),
    ),
    "sarvam_moe": ModelType(
        kv_heads=4,
        head_dim=64,
        qkv_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(128, 6, 1024),
        special=rules.switched_qk_norm("use_qk_norm", default=True),
    ),
    "dots1": ModelType(
        kv_heads=32,
        qk_norm="head",
        attention_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, local=rules.from_max_window_layers(62)),
        experts=rules.deepseek_experts(0, None, 1408, dense=0, shared=0),
    ),
    "aria_text": replace(
        _LLAMA,
        experts=Mixture(
            count=8,
            per_token=2,
            size_key="intermediate_size",
            shared_size=rules.shared_experts(count=2, size=4096, key="intermediate_size"),
        ),
        sizes=rules.sizes(32, 4096, 32, 4096, 32_000),
    ),
    "gpt-sw3": _GPT2,
    "gpt_neo": replace(
        _GPT2,
        attention_bias=False,
        output_bias=True,
        max_positions=2048,
        windows=Windows(default=256, key="window_size", local=rules.gpt_neo_windows),
    ),
    "gpt_neox_japanese": ModelType(
        kv_heads=rules.multi_head,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        norm="layer",
        layer=rules.last_layer_bias,
        special=rules.neox_japanese_special,
    ),
    "persimmon": ModelType(
        kv_heads=rules.multi_head,
        gated_mlp=False,
        norm="layer",
        attention_bias=True,
        mlp_bias=True,
        special=rules.switched_qk_norm("qk_layernorm", default=True),
    ),
    # Sinusoids, not a table.
    "xglm": replace(
        _OPT, attention_bias=True, mlp_bias=True, positions=None, max_positions=None, special=None
    ),
    "biogpt": replace(_OPT, attention_bias=True, mlp_bias=True, max_positions=1024, special=None),
    "bitnet": ModelType(kv_heads=5, attention_bias=_ATTENTION_BIAS, layer=rules.bitnet_norms),
    "diffllama": ModelType(attention_bias=_ATTENTION_BIAS, layer=rules.diffllama_lambdas),
    "doge": replace(_LLAMA, qk_norm="head", layer=rules.doge_vectors),
    # From here on: types that transformers does not have, or not under this name.
    "baichuan": ModelType(kv_heads=rules.multi_head, special=rules.baichuan_special),
    "chatglm": ModelType(
        kv_heads=rules.chatglm_kv_heads,
        attention_bias=Key("add_bias_linear"),
        qkv_bias=Key("add_qkv_bias"),
        mlp_bias=Key("add_bias_linear"),
        special=rules.chatglm_special,
    ),
    "deepseek": ModelType(
        attention_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(0, None, 1407, dense=0, shared=0),
    ),
    "internlm": ModelType(kv_heads=rules.multi_head, attention_bias=Key("bias", default=True)),
    "internlm2": ModelType(attention_bias=Key("bias", default=True)),
    "internlm3": ModelType(
        kv_heads=2,
        head_dim=128,
        qkv_bias=Key("qkv_bias"),
        output_bias=Key("bias"),
        mlp_bias=Key("bias"),
    ),
    "minicpm": ModelType(
        tied_embeddings=True,
        attention_bias=_ATTENTION_BIAS,
        experts=Mixture(count=0, per_token=2, size_key="intermediate_size"),
    ),
    "orion": ModelType(norm="layer", attention_bias=_ATTENTION_BIAS),
    "qwen": ModelType(kv_heads=rules.multi_head, qkv_bias=True, special=rules.qwen_special),
    **LAYERED_TYPES,
}

# A multimodal file: the decoder is its text_config, which need not name its own type.
NESTED: dict[str, str] = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "llama4": "llama4_text",
    "mllama": "mllama_text_model",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "step3_vl": "step3_text",
    "step3p7": "step3p5",
    "lfm2_vl": "lfm2",
    "nemotron_h_omni": "nemotron_h",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_omni_moe": "qwen3_omni_moe_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "mistral3": "mistral",
    "voxtral": "llama",
    "llava": "llama",
    "llava_next": "llama",
    "aria": "aria_text",
    "aya_vision": "cohere2",
    "cohere2_vision": "cohere2",
    "kimi_k25": "kimi_k2",
}
# Where the decoder's keys lie in a multimodal file, from the outside inwards.
_DECODER_KEYS = ("thinker_config", "llm_config", "language_config", "text_config")

# How to see every type.
_ALL = "'bifurcate models types' lists all"


def every_type() -> dict[str, ModelType]:
    """Return each known model type, and those of multimodal files, in alphabetical order."""
    nested = {name: MODEL_TYPES[inner] for name, inner in NESTED.items()}
    return dict(sorted({**MODEL_TYPES, **nested}.items()))


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
    _refuse_other_kinds(config, where)
    model_type, data = _language_model(config, where=where, assume=assume)
    kind = MODEL_TYPES[model_type]
    nested = data is not config
    reader = ConfigReader(
        data, where=where, outer=config if nested else {}, sizes=kind.sizes if nested else {}
    )
    stated = config.get("model_type")
    if assume is None or assume == stated:
        fields = read_fields(kind, reader)
        notes = fields.pop("notes")
    else:
        found = read_as(kind, reader)
        if found.misfit:
            raise ModelError(f"{where} cannot be read as {assume}: {assume} {found.misfit}")
        fields = found.fields
        notes = [f"read as {assume}: the file's model_type is {stated}", *fields.pop("notes")]
    towers = tower_parameters(config, fields["hidden_size"])
    notes += [_tower_note(name, count) for name, count in towers.items()]
    if nested and not towers:
        notes.append("the text decoder alone: what encodes images or sound is left out")
    return validate(
        ModelShape,
        {
            **fields,
            "name": name,
            "tower_parameters": sum(towers.values()),
            "notes": tuple(notes),
            "source": where,
        },
        where=where,
        error=ModelError,
    )


def _tower_note(name: str, count: int) -> str:
    """Say what is counted of a tower."""
    if not count:
        return f"the text decoder alone: the file does not state the sizes of its {name} tower"
    return (
        f"the {name} tower, about {count / 1e6:,.0f} M parameters, is in memory and not in the step"
    )


def _refuse_other_kinds(config: Mapping[str, Any], where: str) -> None:
    """Refuse what is no decoder, and caches of unknown size, whatever type it is read as."""
    stated = config.get("model_type")
    if config.get("is_encoder_decoder") or "num_decoder_layers" in config:
        raise ModelError(
            f"{where}: model_type {stated!r} is an encoder-decoder, and only decoders are modelled"
        )
    if "compress_ratios" in config:
        raise ModelError(
            f"{where}: model_type {stated!r} has compress_ratios, and the sizes of its compressed "
            "caches are not known yet"
        )


def _language_model(
    config: Mapping[str, Any], *, where: str, assume: str | None
) -> tuple[str, Mapping[str, Any]]:
    """Return the model type and the keys of the decoder, inside ``text_config`` or not."""
    stated = config.get("model_type")
    stated = stated if isinstance(stated, str) else None
    data = config
    for key in _DECODER_KEYS:
        inner = data.get(key)
        data = inner if isinstance(inner, Mapping) else data
    if assume is not None:
        model_type = NESTED.get(assume, assume)
        if model_type not in MODEL_TYPES:
            why = unknown("model_type", assume, every_type(), way_out=_ALL)
            raise ModelError(f"cannot assume: {why}")
        return model_type, data
    if data is config and stated in NESTED and stated not in MODEL_TYPES:
        raise ModelError(f"{where}: model_type {stated!r} needs a text_config")
    named: Any = stated if data is config else data.get("model_type", NESTED.get(str(stated)))
    if isinstance(named, str) and named in MODEL_TYPES:
        return named, data
    named = named if isinstance(named, str) else stated
    if named is None and "hidden_size" not in data:
        raise ModelError(f"{where} is not a model's config.json: it has no model_type")
    what = "no model_type" if named is None else f"unknown model_type {named!r}"
    reader = ConfigReader(data, where=where, outer=config if data is not config else {})
    guess = nearest_type(MODEL_TYPES, reader)
    if guess is not None:
        raise ModelError(
            f"{where}: {what}; by its keys it is nearest to {guess}: "
            f"if it is built so, read it with --assume {guess} ({_ALL})"
        )
    parts = telling_keys(data)
    why = (
        f", with {phrase(parts)}; no known type has all of it" if parts else "; no known type fits"
    )
    raise ModelError(f"{where}: {what}{why} ({_ALL})")
