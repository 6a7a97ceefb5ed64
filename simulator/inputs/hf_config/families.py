"""What each model_type means where its config.json says nothing: one entry per type.

Source: configuration and modelling classes of transformers 5.23.0. The parameter counts these
entries lead to were compared with the modules transformers builds, every entry and every switch;
the compared configs are the golden data of tests/inputs/test_hf_config.py.
"""

from dataclasses import replace

from simulator.inputs.hf_config import layers, special
from simulator.inputs.hf_config.family import Family, Mixture
from simulator.inputs.hf_config.layers import Windows
from simulator.inputs.hf_config.reader import Key


def _sizes(layers: int, hidden: int, heads: int, inner: int, vocabulary: int) -> dict[str, int]:
    """Name the five sizes as config.json does."""
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

_GPT2 = Family(
    kv_heads=special.multi_head,
    gated_mlp=False,
    inner_factor=4,
    tied_embeddings=True,
    rotary=False,
    norm="layer",
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    positions=0,
    max_positions=1024,
)

# CodeGen and GPT-J: attention and MLP run side by side after one norm.
_GPTJ = Family(
    kv_heads=special.multi_head,
    gated_mlp=False,
    inner_factor=4,
    norm="layer",
    norms_per_layer=1,
    mlp_bias=True,
    lm_head_bias=True,
)

_GEMMA2 = Family(
    kv_heads=special.grouped(4),
    head_dim=256,
    tied_embeddings=True,
    norms_per_layer=4,
    qkv_bias=_ATTENTION_BIAS,
    output_bias=_ATTENTION_BIAS,
    windows=Windows(default=4096, local=layers.all_but_every(2)),
    sizes=_sizes(26, 2304, 8, 9216, 256_000),
)

_DEEPSEEK_V3 = Family(
    latent=True,
    qkv_bias=_ATTENTION_BIAS,
    output_bias=_ATTENTION_BIAS,
    experts=Mixture(
        count=256,
        per_token=8,
        size=2048,
        sparse=layers.after_first_dense(3),
        shared_size=special.shared_experts(count=1, size=2048),
        correction_bias=True,
    ),
)

FAMILIES: dict[str, Family] = {
    "llama": Family(
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        sizes=_sizes(32, 4096, 32, 11008, 32_000),
    ),
    "mistral": Family(
        kv_heads=special.grouped(8),
        windows=Windows(default=4096),
        sizes=_sizes(32, 4096, 32, 14336, 32_000),
    ),
    "mixtral": Family(
        kv_heads=special.grouped(8),
        windows=Windows(default=None),
        experts=Mixture(count=8, per_token=2, size_key="intermediate_size"),
    ),
    "qwen2": Family(
        kv_heads=special.grouped(32),
        qkv_bias=True,
        windows=Windows(
            default=4096, switch="use_sliding_window", local=layers.from_max_window_layers
        ),
        sizes=_sizes(32, 4096, 32, 22016, 151_936),
    ),
    "qwen2_moe": Family(
        kv_heads=special.grouped(16),
        qkv_bias=Key("qkv_bias", default=True),
        windows=Windows(
            default=4096, switch="use_sliding_window", local=layers.even_below_max_window_layers
        ),
        experts=Mixture(
            count=60,
            per_token=4,
            size=1408,
            sparse=layers.every_sparse_step,
            shared_size=special.shared_expert_of(5632),
            shared_gate=True,
        ),
    ),
    "qwen3": Family(
        kv_heads=special.grouped(32),
        head_dim=128,
        qk_norm="head",
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        windows=Windows(
            default=4096, switch="use_sliding_window", local=layers.from_max_window_layers
        ),
        sizes=_sizes(32, 4096, 32, 22016, 151_936),
    ),
    "qwen3_moe": Family(
        kv_heads=special.grouped(4),
        qk_norm="head",
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, switch="use_sliding_window"),
        experts=Mixture(count=128, per_token=8, size=768, sparse=layers.every_sparse_step),
    ),
    "gemma": Family(
        kv_heads=special.grouped(16),
        head_dim=256,
        tied_embeddings=True,
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        sizes=_sizes(28, 3072, 16, 24576, 256_000),
    ),
    "gemma2": _GEMMA2,
    "gemma3_text": Family(
        kv_heads=special.grouped(4),
        head_dim=256,
        tied_embeddings=True,
        norms_per_layer=4,
        qk_norm="head",
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        windows=Windows(default=4096, local=layers.all_but_every(6, "sliding_window_pattern")),
        sizes=_sizes(26, 2304, 8, 9216, 262_208),
    ),
    # Its norms on queries and keys have no weights.
    "llama4_text": Family(
        kv_heads=special.grouped(8),
        head_dim=128,
        inner_key="intermediate_size_mlp",
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        windows=Windows(default=8192, key="attention_chunk_size", local=layers.rotary_layers),
        experts=Mixture(
            count=16,
            per_token=1,
            size_key="intermediate_size",
            sparse=layers.interleaved_experts,
            shared_size=special.shared_expert_like_routed,
        ),
        sizes={**_sizes(48, 5120, 40, 8192, 202_048), "intermediate_size_mlp": 16384},
    ),
    "phi": Family(
        gated_mlp=False,
        norm="layer",
        norms_per_layer=1,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        lm_head_bias=True,
        special=special.phi,
    ),
    "phi3": Family(windows=Windows(default=None)),
    "gpt_neox": Family(
        kv_heads=special.multi_head,
        gated_mlp=False,
        norm="layer",
        qkv_bias=_ATTENTION_BIAS_ON,
        output_bias=_ATTENTION_BIAS_ON,
        mlp_bias=True,
    ),
    "starcoder2": Family(
        kv_heads=special.grouped(2),
        gated_mlp=False,
        tied_embeddings=True,
        norm="layer",
        qkv_bias=_USE_BIAS,
        output_bias=_USE_BIAS,
        mlp_bias=_USE_BIAS,
        windows=Windows(default=None),
    ),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, kv_heads=special.bigcode_kv_heads),
    "falcon": Family(
        kv_heads=special.falcon_kv_heads,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        norm="layer",
        qkv_bias=Key("bias"),
        output_bias=Key("bias"),
        mlp_bias=Key("bias"),
        special=special.falcon,
    ),
    "opt": Family(
        kv_heads=special.multi_head,
        gated_mlp=False,
        tied_embeddings=True,
        rotary=False,
        norm="layer",
        qkv_bias=Key("enable_bias", default=True),
        output_bias=Key("enable_bias", default=True),
        mlp_bias=Key("enable_bias", default=True),
        positions=2,
        max_positions=2048,
        special=special.opt,
    ),
    # ALiBi, and one more norm after the token table.
    "bloom": Family(
        kv_heads=special.multi_head,
        gated_mlp=False,
        inner_factor=4,
        tied_embeddings=True,
        rotary=False,
        norm="layer",
        extra_norms=2,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "gpt_oss": Family(
        kv_heads=special.grouped(8),
        head_dim=64,
        qkv_bias=_ATTENTION_BIAS_ON,
        output_bias=_ATTENTION_BIAS_ON,
        attention_sinks=True,
        windows=Windows(default=128, local=layers.all_but_every(2)),
        experts=Mixture(count=128, per_token=4, size_key="intermediate_size", biases=True),
    ),
    "deepseek_v2": Family(
        latent=True,
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        mlp_bias=Key("mlp_bias"),
        experts=Mixture(
            count=64,
            per_token=None,
            size=1407,
            sparse=layers.after_first_dense(0),
            shared_size=special.shared_experts(count=2, size=1407),
        ),
    ),
    "deepseek_v3": _DEEPSEEK_V3,
    # Kimi-K2's own files name DeepseekV3ForCausalLM as their class.
    "kimi_k2": _DEEPSEEK_V3,
    "codegen": _GPTJ,
    "gptj": _GPTJ,
    "granite": Family(
        qkv_bias=_ATTENTION_BIAS, output_bias=_ATTENTION_BIAS, mlp_bias=Key("mlp_bias")
    ),
    "olmo2": Family(qk_norm="all", qkv_bias=_ATTENTION_BIAS, output_bias=_ATTENTION_BIAS),
    "cohere": Family(
        tied_embeddings=True,
        norm="layer",
        norm_bias=False,
        norms_per_layer=1,
        qkv_bias=_ATTENTION_BIAS,
        output_bias=_ATTENTION_BIAS,
        special=special.cohere,
    ),
}

# A multimodal file: the decoder is its text_config, which need not name its own type.
NESTED: dict[str, str] = {"gemma3": "gemma3_text", "llama4": "llama4_text"}
