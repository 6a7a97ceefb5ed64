"""The model types whose layers differ, or that have states: one entry per type.

Their rules are in ``layers`` (attention that differs by layer) and ``hybrids`` (states). The other
types, and what a table of types is, are in ``model_types``.

Source: configuration and modelling classes of transformers 5.24.0.
"""

from dataclasses import replace

from simulator.inputs.hf_config import hybrids, layers, rules
from simulator.inputs.hf_config.reading import (
    BIASED,
    Key,
    Latent,
    LayerRule,
    Mixture,
    ModelType,
    Windows,
    every_layer,
    sizes_of,
)

_ATTENTION_BIAS = BIASED.attention_bias

# The tables have as many fields to a line as fit, so that a type is seen at a glance.
# fmt: off

_GEMMA3 = replace(BIASED, kv_heads=4, head_dim=256, tied_embeddings=True, norms_per_layer=4,
    qk_norm="head", windows=Windows(4096, local=rules.all_but_every(6, "sliding_window_pattern")),
    sizes=sizes_of(26, 2304, 8, 9216, 262_208))

_GEMMA4 = replace(_GEMMA3, windows=Windows(512),
    experts=Mixture(0, None, shared_size=rules.shared_expert_like_routed), keys=layers.gemma4_keys,
    layer=layers.gemma4, special=layers.gemma4_special(256),
    sizes=sizes_of(30, 2304, 8, 9216, 262_144))

_MIMO_V2 = ModelType(kv_heads=4, head_dim=192, qkv_bias=_ATTENTION_BIAS, windows=Windows(129),
    experts=Mixture(256, 8, 2048, sparse=rules.after_first_dense(1)), keys=layers.mimo_keys,
    layer=layers.mimo, special=layers.mimo_special)

_STEP3P5 = replace(BIASED, head_dim=128, qk_norm="head", attention_gate="head",
    mlp_bias=Key("mlp_bias"), experts=Mixture(288, 8, 1280, sparse=rules.after_first_dense(3),
    shared_size=layers.step_shared(1280)),
    keys=layers.step_keys(3, num_key_value_heads=8, num_experts=288, num_experts_per_tok=8),
    layer=layers.step3p5, special=layers.step3p5_special,
    sizes=sizes_of(45, 4096, 64, 11264, 128_815))


def _qwen_experts(
    count: int, per_token: int, *, sparse: LayerRule = rules.every_sparse_step
) -> Mixture:
    """Return the experts of Qwen3-Next and Qwen3.5, with a gated shared one."""
    shared = rules.shared_expert_of(512)
    return Mixture(
        count, per_token, 512, sparse=sparse, shared_size=shared, shared_gate=True
    )


_NOT_ALL_ATTEND = Windows(key="", others=(layers.LINEAR,))

_QWEN3_NEXT = replace(BIASED, kv_heads=2, head_dim=256, qk_norm="head", attention_gate="value",
    windows=_NOT_ALL_ATTEND, experts=_qwen_experts(512, 10), layer=layers.gated_delta)

_LFM2 = ModelType(keys=hybrids.lfm2_keys, kv_heads=8, tied_embeddings=True, qk_norm="head",
    windows=Windows(key="", others=(hybrids.CONVOLUTION,)), layer=hybrids.lfm2)

_MINIMAX = ModelType(keys=hybrids.minimax_keys, kv_heads=8, windows=_NOT_ALL_ATTEND,
    experts=Mixture(8, 2, size_key="intermediate_size"), layer=hybrids.minimax)

_MAMBA = ModelType(keys=hybrids.mamba_keys, tied_embeddings=True, norms_per_layer=1,
    layer=hybrids.mamba)

LAYERED_TYPES: dict[str, ModelType] = {
    "qwen3_next": replace(_QWEN3_NEXT, sizes=sizes_of(48, 2048, 16, 5632, 151_936)),
    "qwen3_5_text": replace(_QWEN3_NEXT, kv_heads=4, experts=None,
        sizes=sizes_of(32, 4096, 16, 12288, 248_320)),
    "qwen3_5_moe_text": replace(_QWEN3_NEXT, experts=_qwen_experts(256, 8, sparse=every_layer),
        sizes=sizes_of(40, 2048, 16, 0, 248_320)),
    "olmo_hybrid": replace(BIASED, qk_norm="all", windows=_NOT_ALL_ATTEND,
        layer=layers.olmo_hybrid),
    "kimi_linear": ModelType(latent=Latent(query_rank=None), rotary=False, windows=_NOT_ALL_ATTEND,
        experts=rules.deepseek_experts(256, 8, 1024), layer=layers.kimi_delta,
        special=layers.kimi_special),
    "nemotron_h": ModelType(keys=hybrids.nemotron_keys, head_dim=128, gated_mlp=False, rotary=False,
        mlp_bias=Key("mlp_bias"), windows=Windows(others=(layers.LINEAR, hybrids.MLP, hybrids.MOE)),
        experts=Mixture(8, 2, 7688, sparse=hybrids.is_moe,
        shared_size=lambda reader: reader.size("moe_shared_expert_intermediate_size", 7688),
        more=hybrids.nemotron_experts), layer=hybrids.nemotron_h,
        sizes=sizes_of(4, 4096, 32, 21504, 131_072)),
    "bamba": replace(BIASED, keys=hybrids.bamba_keys, kv_heads=8, mlp_bias=Key("mlp_bias"),
        windows=_NOT_ALL_ATTEND, layer=hybrids.bamba),
    "falcon_h1": replace(BIASED, kv_heads=8, mlp_bias=Key("mlp_bias"), layer=hybrids.falcon_h1),
    "granitemoehybrid": replace(BIASED, keys=hybrids.granite_hybrid_keys,
        inner_key="shared_intermediate_size", windows=_NOT_ALL_ATTEND,
        experts=Mixture(8, 2, size_key="intermediate_size",
        shared_size=lambda reader: reader.size("shared_intermediate_size")), layer=hybrids.bamba,
        special=hybrids.granite_hybrid_special),
    "jamba": ModelType(keys=hybrids.jamba_keys, kv_heads=8, rotary=False, windows=_NOT_ALL_ATTEND,
        experts=Mixture(16, 2, size_key="intermediate_size", sparse=hybrids.jamba_experts),
        layer=hybrids.jamba),
    "zamba": ModelType(keys=hybrids.zamba_keys, tied_embeddings=True, rotary=False,
        windows=Windows(key="", others=(layers.LINEAR, hybrids.HYBRID)), layer=hybrids.zamba,
        special=hybrids.zamba_special),
    "zamba2": ModelType(keys=hybrids.zamba2_keys, tied_embeddings=True,
        mlp_bias=Key("add_bias_linear"),
        windows=Windows(key="", others=(layers.LINEAR, hybrids.HYBRID)), layer=hybrids.zamba2,
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
    "mamba2": ModelType(keys=hybrids.mamba2_keys, kv_heads=rules.multi_head, norms_per_layer=1,
        layer=hybrids.mamba2),
    "recurrent_gemma": ModelType(keys=hybrids.recurrent_gemma_keys, tied_embeddings=True,
        qkv_bias=_ATTENTION_BIAS, output_bias=True, mlp_bias=True,
        windows=Windows(2048, key="attention_window_size", others=(layers.LINEAR,)),
        layer=hybrids.recurrent_gemma),
    "zaya": replace(BIASED, keys=hybrids.zaya_keys, kv_heads=2, head_dim=128, tied_embeddings=True,
        extra_norms=3, lm_head_bias=Key("lm_head_bias"),
        experts=Mixture(16, 1, 2048, more=hybrids.zaya_router), layer=hybrids.zaya,
        special=hybrids.zaya_special),
    "gemma3_text": _GEMMA3,
    "gemma3n_text": replace(_GEMMA3, kv_heads=2, norms_per_layer=6, windows=Windows(512),
        keys=layers.gemma3n_keys, layer=layers.gemma3n, special=layers.gemma3n_special,
        sizes=sizes_of(35, 2048, 8, 16384, 262_400)),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": replace(_GEMMA4, windows=Windows(1024),
        special=layers.gemma4_special(0)),
    "mimo_v2_flash": _MIMO_V2,
    "mimo_v2": _MIMO_V2,
    "step3p5": _STEP3P5,
    "step3_text": ModelType(head_dim=256,
        experts=Mixture(48, 3, 5120, sparse=rules.after_first_dense(4),
        shared_size=layers.step_shared(5120)),
        keys=layers.step_keys(4, num_key_value_heads=1, num_experts=48, num_experts_per_tok=3),
        special=layers.step3_special, sizes=sizes_of(61, 7168, 64, 18432, 128_815)),
    "longcat_flash": replace(BIASED, latent=Latent(), keys=layers.longcat_keys,
        special=layers.longcat_special),
    "mllama_text_model": ModelType(kv_heads=8, layer=layers.cross_attention,
        special=layers.mllama_special, sizes=sizes_of(40, 4096, 32, 14336, 128_256)),
    "minimax_m3_vl_text": ModelType(kv_heads=4, head_dim=128, inner_key="dense_intermediate_size",
        qk_norm="head", windows=Windows(key=""),
        experts=Mixture(128, 4, size_key="intermediate_size", size=3072,
        sparse=rules.after_first_dense(0), shared_size=layers.minimax_m3_shared),
        keys=layers.minimax_m3_keys,
        sizes={**sizes_of(60, 6144, 64, 3072, 200_064), "dense_intermediate_size": 12288}),
    "nemotron-nas": replace(BIASED, mlp_bias=Key("mlp_bias"), keys=layers.nas_keys,
        layer=layers.nas_block),
    "deci": ModelType(layer=layers.deci_kv_heads),
    "openelm": ModelType(tied_embeddings=True, keys=layers.openelm_keys, layer=layers.openelm,
        qk_norm=Key("normalize_qk_projections", "head", "none", default=True),
        gated_mlp=Key("ffn_with_glu", default=True)),
}
# fmt: on
