"""The defaults of each model_type for keys that its config.json omits: one entry per type.

Source: configuration and modelling classes of transformers 5.24.0. The parameter counts these
entries lead to are compared with the modules transformers builds, every entry and every switch:
tests/golden/model_truth.py writes the golden data of tests/inputs/test_hf_config.py. Types that
transformers lacks follow the code published with their checkpoints (recalled); the same tests
compare their published parameter counts.

Rules that a table cannot hold are in ``rules``; of types whose layers differ in ``layers``, and of
those with states in ``hybrids``. Here are the table and the function that reads a file.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from simulator.errors import ModelError, unknown
from simulator.inputs.files import validate
from simulator.inputs.hf_config import hybrids, layers, rules
from simulator.inputs.hf_config.reading import (
    BIASED,
    CHUNK_KEY,
    LINEAR,
    ByLayer,
    ConfigReader,
    Key,
    Kinds,
    Latent,
    LayerRule,
    Mixture,
    ModelType,
    Size,
    every_layer,
    read_fields,
    sizes_of,
)
from simulator.inputs.hf_config.telling import nearest_type, phrase, read_as, telling_keys
from simulator.inputs.hf_config.towers import tower_parameters
from simulator.inputs.model import ModelShape

_ATTENTION_BIAS = BIASED.attention_bias
_ATTENTION_BIAS_ON = Key("attention_bias", default=True)
_MLP_BIAS = Key("mlp_bias")
_USE_BIAS = Key("use_bias", default=True)
_USE_BIAS_OFF = Key("use_bias")


def _qwen_experts(
    count: int, per_token: int, *, sparse: LayerRule = rules.every_sparse_step
) -> Mixture:
    """Return the experts of Qwen3-Next and Qwen3.5, with a gated shared one."""
    shared = rules.shared_expert_of(512)
    return Mixture(count, per_token, 512, sparse=sparse, shared_size=shared, shared_gate=True)


# The tables have as many fields to a line as fit, so that a type is seen at a glance.
# fmt: off

_GPT2 = ModelType(kv_heads=rules.multi_head, gated_mlp=False, inner_factor=4, tied_embeddings=True,
    rotary=False, norm="layer", attention_bias=True, mlp_bias=True, positions=0, max_positions=1024)

# CodeGen and GPT-J: attention and MLP run side by side after one norm.
_GPTJ = ModelType(kv_heads=rules.multi_head, gated_mlp=False, inner_factor=4, norm="layer",
    norms_per_layer=1, mlp_bias=True, lm_head_bias=True)

_GEMMA2 = replace(BIASED, kv_heads=4, head_dim=256, tied_embeddings=True, norms_per_layer=4,
    kinds=Kinds(4096, apart=rules.all_but_every(2)), sizes=sizes_of(26, 2304, 8, 9216, 256_000))

_DEEPSEEK_V3 = replace(BIASED, latent=Latent(),
    experts=rules.deepseek_experts(256, 8, 2048, dense=3))
# The indexer of sparse attention.
_INDEXER = {"heads": Size("index_n_heads", 64), "dim": Size("index_head_dim", 128),
    "top_k": Size("index_topk", 2048)}
_INDEXED = Kinds(key="", others=("indexed_attention",))

_LLAMA = replace(BIASED, mlp_bias=_MLP_BIAS)

_PHI = ModelType(gated_mlp=False, norm="layer", norms_per_layer=1, attention_bias=True,
    mlp_bias=True, lm_head_bias=True, qk_norm=Key("qk_layernorm", "head", "none"))

_OPT = ModelType(kv_heads=rules.multi_head, gated_mlp=False, tied_embeddings=True, rotary=False,
    norm="layer", attention_bias=Key("enable_bias", default=True),
    mlp_bias=Key("enable_bias", default=True), positions=2, max_positions=2048,
    special=rules.opt_special)

_COHERE = replace(BIASED, tied_embeddings=True, norm="layer", norm_bias=False, norms_per_layer=1)

_QWEN_KINDS = Kinds(4096, switch="use_sliding_window", apart=rules.from_max_window_layers(28))

# The text models inside Qwen's multimodal ones.
_QWEN2_VL = ModelType(kv_heads=8, qkv_bias=True,
    kinds=replace(_QWEN_KINDS, apart=rules.from_max_window_layers(80)),
    sizes=sizes_of(80, 8192, 64, 29568, 152_064))

_QWEN3 = replace(BIASED, kv_heads=32, head_dim=128, qk_norm="head",
    sizes=sizes_of(32, 4096, 32, 22016, 151_936))

_QWEN3_MOE = replace(BIASED, kv_heads=4, qk_norm="head",
    experts=Mixture(128, 8, 768, sparse=rules.every_sparse_step))

# GLM-4's attention has no bias on the output.
_GLM = ModelType(kv_heads=2, head_dim=128, qkv_bias=_ATTENTION_BIAS_ON)

_GLM4_MOE = ModelType(kv_heads=8, uneven_heads=True, qkv_bias=_ATTENTION_BIAS,
    experts=rules.deepseek_experts(128, 8, 1408), qk_norm=Key("use_qk_norm", "head", "none"))

_GRANITE_MOE = replace(BIASED, experts=Mixture(8, 2, size_key="intermediate_size",
    shared_size=rules.shared_expert_of(0, "shared_intermediate_size")))

_GRANITE_KINDS = Kinds(128, apart=rules.after_every(4))

_OLMO2 = replace(BIASED, qk_norm="all")

_EXAONE4_KINDS = Kinds(4096, apart=rules.all_but_every(4, "sliding_window_pattern"))

_GEMMA3 = replace(BIASED, kv_heads=4, head_dim=256, tied_embeddings=True, norms_per_layer=4,
    qk_norm="head", kinds=Kinds(4096, apart=rules.all_but_every(6, "sliding_window_pattern")),
    sizes=sizes_of(26, 2304, 8, 9216, 262_208))

_GEMMA4 = replace(_GEMMA3, kinds=Kinds(512),
    experts=Mixture(0, None, shared_size=Size("intermediate_size")), keys=layers.gemma4_keys,
    layer=layers.gemma4, special=layers.gemma4_special,
    sizes=sizes_of(30, 2304, 8, 9216, 262_144))

_MIMO_V2 = ModelType(kv_heads=4, head_dim=192, qkv_bias=_ATTENTION_BIAS, kinds=Kinds(129),
    experts=Mixture(256, 8, 2048, sparse=rules.after_first_dense(1)), keys=layers.mimo_keys,
    layer=layers.mimo, special={"value_dim": Size("v_head_dim", 128)})

_STEP3P5 = replace(BIASED, head_dim=128, qk_norm="head", attention_gate="head",
    mlp_bias=_MLP_BIAS, experts=Mixture(288, 8, 1280, sparse=rules.after_first_dense(3),
    shared_size=partial(layers.step_shared, default=1280)),
    keys=partial(layers.step_keys, first=3, num_key_value_heads=8, num_experts=288,
    num_experts_per_tok=8), layer=layers.step3p5, special={"dense_drafts": True},
    sizes=sizes_of(45, 4096, 64, 11264, 128_815))

_STATES = Kinds(key="", others=(LINEAR,))
_STATES_BUT_FOURTH = replace(_STATES, apart=rules.all_but_every(4, "full_attention_interval"))

_QWEN3_NEXT = replace(BIASED, kv_heads=2, head_dim=256, qk_norm="head", attention_gate="value",
    kinds=_STATES_BUT_FOURTH, experts=_qwen_experts(512, 10), state=layers.gated_delta)

_LFM2 = ModelType(keys=hybrids.lfm2_keys, kv_heads=8, tied_embeddings=True, qk_norm="head",
    kinds=Kinds(key="", others=(hybrids.CONVOLUTION,), apart=hybrids.lfm2_layers),
    state=hybrids.lfm2)

_MINIMAX = ModelType(kv_heads=8, kinds=replace(_STATES, apart=hybrids.minimax_layers),
    experts=Mixture(8, 2, size_key="intermediate_size"), state=hybrids.minimax)

# Neither attention nor MLP; below, the heads of Mamba-2 are those of its states.
_STATE_ALONE = {"attends": False, "mlp": "none"}
_MAMBA = ModelType(keys={"num_attention_heads": 1}, tied_embeddings=True, norms_per_layer=1,
    layer={**_STATE_ALONE,
    "state": partial(hybrids.mamba, inner=hybrids.mamba_width, bias="use_bias")})

_BAMBA = partial(hybrids.mamba2, groups=1, width=256, biases=("mamba_proj_bias",) * 2)

MODEL_TYPES: dict[str, ModelType] = {
    "llama": replace(_LLAMA, sizes=sizes_of(32, 4096, 32, 11008, 32_000)),
    "mistral": ModelType(kv_heads=8, kinds=Kinds(4096),
        sizes=sizes_of(32, 4096, 32, 14336, 32_000)),
    "ministral": ModelType(kv_heads=8, kinds=Kinds(4096)),
    "ministral3": ModelType(kv_heads=8, head_dim=128, sizes=sizes_of(34, 4096, 32, 14336, 131_072)),
    "mixtral": ModelType(kv_heads=8, experts=Mixture(8, 2, size_key="intermediate_size")),
    "qwen2": ModelType(kv_heads=32, qkv_bias=True, kinds=_QWEN_KINDS,
        sizes=sizes_of(32, 4096, 32, 22016, 151_936)),
    "qwen2_moe": ModelType(kv_heads=16, qkv_bias=Key("qkv_bias", default=True),
        kinds=replace(_QWEN_KINDS, apart=rules.even_below_max_window_layers),
        experts=Mixture(60, 4, 1408, sparse=rules.every_sparse_step,
        shared_size=rules.shared_expert_of(5632), shared_gate=True)),
    "qwen3": replace(_QWEN3, kinds=_QWEN_KINDS),
    "qwen3_moe": replace(_QWEN3_MOE, kinds=Kinds(4096, switch="use_sliding_window")),
    "gemma": replace(BIASED, kv_heads=16, head_dim=256, tied_embeddings=True,
        sizes=sizes_of(28, 3072, 16, 24576, 256_000)),
    "gemma2": _GEMMA2,
    # Its norms on queries and keys have no weights.
    "llama4_text": replace(BIASED, kv_heads=8, head_dim=128, inner_key="intermediate_size_mlp",
        kinds=Kinds(8192, key=CHUNK_KEY, apart=rules.rotary_layers),
        experts=Mixture(16, 1, size_key="intermediate_size", sparse=rules.interleaved_experts,
        shared_size=Size("intermediate_size")),
        sizes={**sizes_of(48, 5120, 40, 8192, 202_048), "intermediate_size_mlp": 16384}),
    "phi": _PHI,
    "phi3": ModelType(),
    "gpt_neox": ModelType(kv_heads=rules.multi_head, gated_mlp=False, norm="layer",
        attention_bias=_ATTENTION_BIAS_ON, mlp_bias=True),
    "starcoder2": ModelType(kv_heads=2, gated_mlp=False, tied_embeddings=True, norm="layer",
        attention_bias=_USE_BIAS, mlp_bias=_USE_BIAS),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, kv_heads=rules.bigcode_kv_heads),
    "falcon": ModelType(kv_heads=rules.falcon_kv_heads, gated_mlp=False, inner_factor=4,
        tied_embeddings=True, norm="layer", attention_bias=Key("bias"), mlp_bias=Key("bias"),
        rotary=Key("alibi", on=False, off=True), special=rules.falcon_special),
    "opt": _OPT,
    # ALiBi, and one more norm after the token table.
    "bloom": replace(_GPT2, extra_norms=2, positions=None, max_positions=None),
    "gpt_oss": ModelType(kv_heads=8, head_dim=64, attention_bias=_ATTENTION_BIAS_ON,
        attention_sinks=True, kinds=Kinds(128, apart=rules.all_but_every(2)),
        experts=Mixture(128, 4, size_key="intermediate_size", biases=True)),
    "deepseek_v2": replace(BIASED, latent=Latent(), mlp_bias=_MLP_BIAS,
        experts=rules.deepseek_experts(64, None, 1407, dense=0, shared=2)),
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v32": replace(_DEEPSEEK_V3, kinds=_INDEXED, special={"indexer": _INDEXER}),
    "glm_moe_dsa": replace(_DEEPSEEK_V3, latent=Latent(query_rank=2048, nope=192, value=256),
        kinds=_INDEXED, layer=layers.indexed,
        special={"indexer": {**_INDEXER, "heads": Size("index_n_heads", 32)}}),
    # Kimi-K2's own files name DeepseekV3ForCausalLM as their class.
    "kimi_k2": _DEEPSEEK_V3,
    "codegen": _GPTJ,
    "gptj": _GPTJ,
    "granite": _LLAMA,
    "olmo2": _OLMO2,
    "cohere": replace(_COHERE, qk_norm=Key("use_qk_norm", "all", "none")),
    # Flat multimodal files name the whole model, the text_config of others their text model.
    "qwen2_vl": _QWEN2_VL,
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": replace(_QWEN3_MOE, kv_heads=16,
        experts=Mixture(60, 4, 1408, sparse=rules.every_sparse_step),
        sizes=sizes_of(24, 2048, 16, 5632, 151_936)),
    "qwen3_omni_moe_text": replace(_QWEN3_MOE, uneven_heads=True,
        sizes=sizes_of(28, 2048, 28, 18944, 3584)),
    "glm": _GLM,
    "glm4": replace(_GLM, norms_per_layer=4),
    "glm4v_text": ModelType(kv_heads=2, norms_per_layer=4, qkv_bias=True,
        sizes=sizes_of(40, 4096, 32, 13696, 151_552)),
    "glm4_moe": _GLM4_MOE,
    "glm4v_moe_text": replace(_GLM4_MOE, qkv_bias=_ATTENTION_BIAS_ON, qk_norm="none",
        sizes=sizes_of(46, 4096, 96, 10944, 151_424)),
    "glm4_moe_lite": replace(BIASED, latent=Latent(query_rank=768, nope=192, value=256),
        experts=rules.deepseek_experts(64, 4, 1536)),
    "minimax_m2": ModelType(kv_heads=8, head_dim=128, qk_norm="all",
        experts=Mixture(256, 8, size_key="intermediate_size")),
    "mistral4": replace(BIASED, latent=Latent(query_rank=1024, kv_rank=256, nope=64),
        experts=rules.deepseek_experts(128, 4, 2048, dense=0)),
    "olmo": replace(BIASED, norm="layer", norm_weight=False),
    "olmo3": replace(_OLMO2, kinds=Kinds(4096, apart=rules.all_but_every(4))),
    "olmoe": replace(_OLMO2, experts=Mixture(64, 8, size_key="intermediate_size")),
    "flex_olmo": replace(_OLMO2, experts=Mixture(7, 5, size_key="intermediate_size")),
    "exaone": replace(_LLAMA, kv_heads=8),
    "exaone4": ModelType(kv_heads=32, qk_norm="head", kinds=_EXAONE4_KINDS),
    "exaone_moe": ModelType(kv_heads=32, qk_norm="head", kinds=_EXAONE4_KINDS,
        experts=rules.deepseek_experts(64, 8, 1024)),
    "cohere2": replace(_COHERE,
        kinds=Kinds(4096, apart=rules.all_but_every(4, "sliding_window_pattern"))),
    "ernie4_5": ModelType(kv_heads=2, head_dim=128, tied_embeddings=True,
        attention_bias=_USE_BIAS_OFF, mlp_bias=_USE_BIAS_OFF, lm_head_bias=False),
    "ernie4_5_moe": ModelType(kv_heads=4, tied_embeddings=True, attention_bias=_USE_BIAS_OFF,
        mlp_bias=_USE_BIAS_OFF, lm_head_bias=_USE_BIAS_OFF,
        experts=Mixture(64, 6, 1536, sparse=rules.ernie_sparse_layers,
        shared_size=rules.shared_experts(count=2, size=1536), correction_bias=True)),
    "phi-msft": replace(_PHI, inner_factor=4),
    "phi3_v": ModelType(),
    "phimoe": replace(BIASED, kv_heads=8, norm="layer", lm_head_bias=Key("lm_head_bias"),
        experts=Mixture(16, 2, size_key="intermediate_size")),
    "smollm3": replace(_LLAMA, kv_heads=4, tied_embeddings=True,
        kinds=Kinds(switch="use_sliding_window", apart=rules.unrotated_layers)),
    "seed_oss": ModelType(kv_heads=8, head_dim=128, qkv_bias=_ATTENTION_BIAS_ON,
        output_bias=Key("attention_out_bias"), mlp_bias=_MLP_BIAS),
    "hunyuan_v1_dense": replace(BIASED, qk_norm="head"),
    "hunyuan_v1_moe": replace(BIASED, qk_norm="head",
        experts=Mixture(1, 1, size_key="intermediate_size",
        shared_size=Size("intermediate_size"))),
    "granitemoe": replace(_GRANITE_MOE, experts=Mixture(8, 2, size_key="intermediate_size")),
    "granitemoeshared": _GRANITE_MOE,
    "granite_swa": replace(_LLAMA, kv_heads=4, tied_embeddings=True, attention_sinks=True,
        kinds=_GRANITE_KINDS),
    "granitemoe_swa": replace(_GRANITE_MOE, attention_sinks=True, kinds=_GRANITE_KINDS),
    "stablelm": ModelType(kv_heads=32, norm="layer", qkv_bias=Key("use_qkv_bias"),
        special=rules.stablelm_special),
    "mpt": ModelType(kv_heads=rules.mpt_kv_heads, gated_mlp=False, inner_factor=4,
        tied_embeddings=True, rotary=False, norm="layer", norm_bias=False),
    "minicpm3": replace(BIASED,
        latent=Latent(query_rank=768, kv_rank=256, nope=64, rope=32, value=None),
        tied_embeddings=True, mlp_bias=_MLP_BIAS),
    "youtu": replace(BIASED, latent=Latent(), tied_embeddings=True),
    "arcee": replace(_LLAMA, gated_mlp=False),
    # Two learned slopes of each layer's activation.
    "apertus": replace(BIASED, qk_norm="head", gated_mlp=False, layer={"vectors": 2}),
    "helium": ModelType(kv_heads=20, head_dim=128, qkv_bias=_ATTENTION_BIAS, mlp_bias=_MLP_BIAS),
    "cwm": ModelType(kv_heads=8, head_dim=128, mlp_bias=_MLP_BIAS,
        kinds=Kinds(8192, apart=rules.after_every(4))),
    "nemotron": replace(BIASED, gated_mlp=False, norm="layer", mlp_bias=_MLP_BIAS),
    "jais2": ModelType(gated_mlp=False, norm="layer", attention_bias=_ATTENTION_BIAS_ON,
        mlp_bias=Key("mlp_bias", default=True)),
    "hyperclovax": replace(_LLAMA, norms_per_layer=Key("use_post_norm", 4, 2, default=True)),
    "iquestcoder": replace(_LLAMA, kv_heads=8, head_dim=128),
    # Its norms have no weights, those on queries and keys neither.
    "nanochat": replace(BIASED, gated_mlp=False, norm_weight=False),
    "vaultgemma": replace(_GEMMA2, norms_per_layer=2),
    "mellum": replace(BIASED, kv_heads=4, head_dim=128, qk_norm="head",
        kinds=Kinds(1024, apart=rules.all_but_every(1)),
        experts=Mixture(64, 8, 896, sparse=rules.after_first_dense(0))),
    "afmoe": replace(BIASED, head_dim=128, norms_per_layer=4, qk_norm="head",
        kinds=Kinds(1024, apart=rules.all_but_every(4, "global_attn_every_n_layers")),
        experts=Mixture(64, 6, 1408, sparse=rules.after_first_dense(1, "num_dense_layers"),
        shared_size=rules.shared_experts(count=2, size=1408), correction_bias=True),
        layer=rules.afmoe_gate),
    "laguna": replace(BIASED, kv_heads=8, head_dim=128, qk_norm="head",
        kinds=Kinds(512, apart=rules.all_but_every(1)),
        experts=Mixture(256, 8, 512, sparse=rules.after_first_dense(1),
        shared_size=rules.shared_expert_of(512), correction_bias=True), layer=rules.laguna_layer),
    "solar_open": ModelType(kv_heads=8, head_dim=128, qkv_bias=_ATTENTION_BIAS,
        experts=Mixture(128, 8, 1280, shared_size=rules.shared_experts(count=1, size=1280))),
    "hy_v3": replace(BIASED, kv_heads=8, head_dim=128, qk_norm="head", mlp_bias=_MLP_BIAS,
        experts=rules.deepseek_experts(192, 8, 1536)),
    "axk1": replace(BIASED, latent=Latent(), experts=rules.deepseek_experts(192, 8, 2048),
        layer=rules.axk1_norms),
    "sarvam_mla": replace(BIASED, latent=Latent(query_rank=None),
        experts=rules.deepseek_experts(128, 8, 2048)),
    "sarvam_moe": ModelType(kv_heads=4, head_dim=64, qkv_bias=_ATTENTION_BIAS,
        experts=rules.deepseek_experts(128, 6, 1024),
        qk_norm=Key("use_qk_norm", "head", "none", default=True)),
    "dots1": replace(BIASED, kv_heads=32, qk_norm="head",
        kinds=Kinds(4096, apart=rules.from_max_window_layers(62)),
        experts=rules.deepseek_experts(0, None, 1408, dense=0, shared=0)),
    "aria_text": replace(_LLAMA,
        experts=Mixture(8, 2, size_key="intermediate_size",
        shared_size=rules.shared_experts(count=2, size=4096, key="intermediate_size")),
        sizes=sizes_of(32, 4096, 32, 4096, 32_000)),
    "gpt-sw3": _GPT2,
    "gpt_neo": replace(_GPT2, attention_bias=False, output_bias=True, max_positions=2048,
        kinds=Kinds(256, key="window_size", apart=rules.gpt_neo_windows)),
    "gpt_neox_japanese": ModelType(kv_heads=rules.multi_head, gated_mlp=False, inner_factor=4,
        tied_embeddings=True, norm="layer", layer=rules.last_layer_bias,
        special=rules.neox_japanese_special),
    "persimmon": ModelType(kv_heads=rules.multi_head, gated_mlp=False, norm="layer",
        attention_bias=True, mlp_bias=True,
        qk_norm=Key("qk_layernorm", "head", "none", default=True)),
    # Sinusoids, not a table.
    "xglm": replace(_OPT, attention_bias=True, mlp_bias=True, positions=None, max_positions=None,
        special={}),
    "biogpt": replace(_OPT, attention_bias=True, mlp_bias=True, max_positions=1024, special={}),
    # Norms before the output projection and, of the inner width, the down projection.
    "bitnet": replace(BIASED, kv_heads=5,
        layer={"norms_per_layer": 3, "vectors": Size("intermediate_size")}),
    "diffllama": replace(BIASED, layer=rules.diffllama_lambdas),
    "doge": replace(_LLAMA, qk_norm="head", layer=rules.doge_vectors),
    # From here on: types that transformers does not have, or not under this name.
    "baichuan": ModelType(kv_heads=rules.multi_head, special=rules.baichuan_special),
    "chatglm": ModelType(kv_heads=rules.chatglm_kv_heads, attention_bias=Key("add_bias_linear"),
        qkv_bias=Key("add_qkv_bias"), mlp_bias=Key("add_bias_linear"),
        norm=Key("rmsnorm", "rms", "layer", default=True),
        extra_norms=Key("post_layer_norm", 1, 0, default=True)),
    "deepseek": replace(BIASED, experts=rules.deepseek_experts(0, None, 1407, dense=0, shared=0)),
    "internlm": ModelType(kv_heads=rules.multi_head, attention_bias=Key("bias", default=True)),
    "internlm2": ModelType(attention_bias=Key("bias", default=True)),
    "internlm3": ModelType(kv_heads=2, head_dim=128, qkv_bias=Key("qkv_bias"),
        output_bias=Key("bias"), mlp_bias=Key("bias")),
    "minicpm": replace(BIASED, tied_embeddings=True,
        experts=Mixture(0, 2, size_key="intermediate_size")),
    "orion": replace(BIASED, norm="layer"),
    "qwen": ModelType(kv_heads=rules.multi_head, qkv_bias=True, special=rules.qwen_special),
    # Types whose layers differ, or that have states.
    "qwen3_next": replace(_QWEN3_NEXT, sizes=sizes_of(48, 2048, 16, 5632, 151_936)),
    "qwen3_5_text": replace(_QWEN3_NEXT, kv_heads=4, experts=None,
        sizes=sizes_of(32, 4096, 16, 12288, 248_320)),
    "qwen3_5_moe_text": replace(_QWEN3_NEXT, experts=_qwen_experts(256, 8, sparse=every_layer),
        sizes=sizes_of(40, 2048, 16, 0, 248_320)),
    "olmo_hybrid": replace(BIASED, qk_norm="all", kinds=_STATES_BUT_FOURTH,
        state=layers.olmo_hybrid),
    "kimi_linear": ModelType(latent=Latent(query_rank=None), rotary=False,
        kinds=replace(_STATES, apart=layers.kimi_layers),
        experts=rules.deepseek_experts(256, 8, 1024), state=layers.kimi_delta,
        special=layers.kimi_special),
    "nemotron_h": ModelType(keys=hybrids.nemotron_keys, head_dim=128, gated_mlp=False, rotary=False,
        mlp_bias=_MLP_BIAS, kinds=Kinds(others=(LINEAR, hybrids.MLP, hybrids.MOE)),
        experts=Mixture(8, 2, 7688, sparse=hybrids.is_moe,
        shared_size=Size("moe_shared_expert_intermediate_size", 7688),
        more=hybrids.nemotron_experts), layer=hybrids.nemotron_h,
        sizes=sizes_of(4, 4096, 32, 21504, 131_072)),
    "bamba": replace(BIASED, kv_heads=8, mlp_bias=_MLP_BIAS,
        kinds=replace(_STATES, apart=hybrids.bamba_layers), state=_BAMBA),
    # Beside attention in every layer, by default without a norm after it.
    "falcon_h1": replace(BIASED, kv_heads=8, mlp_bias=_MLP_BIAS, layer={"state": partial(_BAMBA,
        inner=hybrids.falcon_h1_width, biases=("mamba_proj_bias", "projectors_bias"),
        normed=Key("mamba_rms_norm"))}),
    # A dense MLP, beside the experts if there are any.
    "granitemoehybrid": replace(BIASED, inner_key="shared_intermediate_size",
        keys={"shared_intermediate_size": Size("shared_intermediate_size", 1024)},
        kinds=replace(_STATES, lists=("layer_types", "layers_block_type")),
        experts=Mixture(8, 2, size_key="intermediate_size",
        shared_size=Size("shared_intermediate_size")), state=_BAMBA,
        special=hybrids.granite_hybrid_special),
    "jamba": ModelType(kv_heads=8, rotary=False, kinds=replace(_STATES, apart=hybrids.jamba_layers),
        experts=Mixture(16, 2, size_key="intermediate_size", sparse=hybrids.jamba_experts),
        state=partial(hybrids.mamba, normed=True)),
    "zamba": ModelType(keys=hybrids.zamba_keys, tied_embeddings=True, rotary=False,
        kinds=Kinds(key="", others=(LINEAR, hybrids.HYBRID)), layer=hybrids.zamba,
        special=hybrids.zamba_special),
    "zamba2": ModelType(keys=hybrids.zamba2_keys, tied_embeddings=True,
        mlp_bias=Key("add_bias_linear"),
        kinds=Kinds(key="", others=(LINEAR, hybrids.HYBRID)), layer=hybrids.zamba2,
        rotary=Key("use_mem_rope"), special=hybrids.zamba_special),
    "lfm2": replace(_LFM2, keys=hybrids.lfm2_dense_keys,
        sizes=sizes_of(32, 2560, 32, 12288, 65_536)),
    "lfm2_moe": replace(_LFM2, experts=Mixture(32, 4, 1792,
        sparse=rules.after_first_dense(2, "num_dense_layers")),
        sizes=sizes_of(32, 2048, 32, 7168, 65_536)),
    "minimax": _MINIMAX,
    "minimax_text_01": _MINIMAX,
    "minimax_m1": _MINIMAX,
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": ModelType(kv_heads=rules.multi_head, norms_per_layer=1,
        layer={**_STATE_ALONE, "state": partial(hybrids.mamba2, groups=8, width=128)},
        keys={"num_attention_heads": Size("mamba_heads", 128), "head_dim": Size("head_dim", 64)}),
    "recurrent_gemma": ModelType(keys=hybrids.recurrent_gemma_keys, tied_embeddings=True,
        qkv_bias=_ATTENTION_BIAS, output_bias=True, mlp_bias=True,
        kinds=Kinds(2048, key="attention_window_size", others=(LINEAR,)),
        state=hybrids.recurrent_gemma),
    "zaya": replace(BIASED, keys=hybrids.zaya_keys, kv_heads=2, head_dim=128, tied_embeddings=True,
        extra_norms=3, lm_head_bias=Key("lm_head_bias"),
        experts=Mixture(16, 1, 2048, more=hybrids.zaya_router), layer=hybrids.zaya,
        special={"notes": [
        "the last inputs of its convolutions, which sequences keep, are left out"]}),
    "gemma3_text": _GEMMA3,
    "gemma3n_text": replace(_GEMMA3, kv_heads=2, norms_per_layer=6, kinds=Kinds(512),
        keys=layers.gemma3n_keys, layer=layers.gemma3n, special=layers.gemma3n_special,
        sizes=sizes_of(35, 2048, 8, 16384, 262_400)),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": replace(_GEMMA4, kinds=Kinds(1024),
        special=partial(layers.gemma4_special, width=0)),
    "mimo_v2_flash": _MIMO_V2,
    "mimo_v2": _MIMO_V2,
    "step3p5": _STEP3P5,
    "step3_text": ModelType(head_dim=256,
        experts=Mixture(48, 3, 5120, sparse=rules.after_first_dense(4),
        shared_size=partial(layers.step_shared, default=5120)),
        keys=partial(layers.step_keys, first=4, num_key_value_heads=1, num_experts=48,
        num_experts_per_tok=3), special={"query_rank": Size("share_q_dim", 2048)},
        sizes=sizes_of(61, 7168, 64, 18432, 128_815)),
    "longcat_flash": replace(BIASED, latent=Latent(), keys=layers.longcat_keys,
        special=layers.longcat_special),
    "mllama_text_model": ModelType(kv_heads=8, layer=layers.cross_attention,
        special=layers.mllama_special, sizes=sizes_of(40, 4096, 32, 14336, 128_256)),
    "minimax_m3_vl_text": ModelType(kv_heads=4, head_dim=128, inner_key="dense_intermediate_size",
        qk_norm="head", kinds=Kinds(key=""),
        experts=Mixture(128, 4, size_key="intermediate_size", size=3072,
        sparse=rules.after_first_dense(0), shared_size=Size("shared_intermediate_size", 3072)),
        keys=layers.minimax_m3_keys,
        sizes={**sizes_of(60, 6144, 64, 3072, 200_064), "dense_intermediate_size": 12288}),
    "nemotron-nas": replace(BIASED, mlp_bias=_MLP_BIAS, keys=layers.nas_keys,
        layer=layers.nas_block),
    "deci": ModelType(layer={"kv_heads": ByLayer("num_key_value_heads_per_layer")}),
    "openelm": ModelType(tied_embeddings=True, keys=layers.openelm_keys,
        layer={"heads": ByLayer("num_query_heads"), "kv_heads": ByLayer("num_kv_heads"),
        "intermediate_size": ByLayer("intermediate_sizes")},
        qk_norm=Key("normalize_qk_projections", "head", "none", default=True),
        gated_mlp=Key("ffn_with_glu", default=True)),
}
# fmt: on

# A multimodal file: the decoder is its text_config, which need not name its own type.
_WITH_TEXT = (
    *("gemma3", "gemma3n", "gemma4", "gemma4_unified", "llama4", "minimax_m3_vl", "qwen3_5"),
    *("qwen3_5_moe", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe"),
    *("glm4v", "glm4v_moe", "aria"),
)
NESTED: dict[str, str] = {
    **{name: f"{name}_text" for name in _WITH_TEXT},
    **dict.fromkeys(("voxtral", "llava", "llava_next"), "llama"),
    **dict.fromkeys(("aya_vision", "cohere2_vision"), "cohere2"),
    "mllama": "mllama_text_model",
    "step3_vl": "step3_text",
    "step3p7": "step3p5",
    "lfm2_vl": "lfm2",
    "nemotron_h_omni": "nemotron_h",
    "mistral3": "mistral",
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
