"""Reading quantization_config: every library's words for formats, and for what it leaves out."""

from typing import Any

import pytest

from simulator.inputs.formats import LAYER_TENSORS, NAMED_FORMATS, WeightFormat
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.hf_config.quantization import kv_format, listed_modules, read_scheme
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ask

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "vocab_size": 211,
}
# One dense layer, then three with a shared expert.
DEEPSEEK: dict[str, Any] = {
    **{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
    "model_type": "deepseek_v3",
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
}
BF16 = NAMED_FORMATS["bf16"]


def read(config: dict[str, Any], quantization: Any, **keys: Any) -> ModelShape:
    """Read a config with a quantization_config."""
    config = {**config, **keys, "quantization_config": quantization}
    return shape_from_config(config, name="tiny", where="config.json")


def groups(config: dict[str, Any], quantization: dict[str, Any]) -> dict[str, WeightFormat]:
    """Return the format of each group of tensors."""
    formats = read(config, quantization).weights
    return {group: formats.of(group) for group in (*LAYER_TENSORS, "embedding", "head")}


def compressed(weights: dict[str, Any], inputs: Any = ..., **keys: Any) -> dict[str, Any]:
    """Return a compressed-tensors config of one group."""
    group = {"targets": ["Linear"], "weights": weights}
    group |= {} if inputs is ... else {"input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **keys}


INT4 = {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}
FLOAT4 = {"num_bits": 4, "type": "float", "group_size": 16}


@pytest.mark.parametrize(
    ("quantization", "dtype", "bits", "multiplied"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block", 8 + 2**-9, None),
        ({"quant_method": "fp8", "weight_block_size": [1, 128]}, "fp8_block", 8.25, None),
        ({"quant_method": "fp8", "weight_block_size": None}, "fp8", 8, None),
        ({"quant_method": "mxfp8"}, "fp8", 8.25, None),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4", 4.25, None),
        (
            {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True},
            "int4",
            4 + 20 / 64,
            None,
        ),
        # GPTQ's zero points are in its files even if symmetric; -1 is one scale for a channel.
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "int4", 4 + 20 / 32, None),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, "int4", 3, None),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 8 + 24 / 128, None),
        ({"quant_method": "auto-round", "bits": 4, "sym": True}, "int4", 4 + 16 / 128, None),
        # A 32-bit scale for 64 weights, or 8 bits and 32 for 256 of them.
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4", 4.5, None),
        (
            {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            "int4",
            4 + (8 + 32 / 256) / 64,
            None,
        ),
        (compressed(INT4), "int4", 4 + 16 / 128, None),
        (compressed({**INT4, "symmetric": False}), "int4", 4 + 20 / 128, None),
        (compressed(INT4, {"num_bits": 8, "type": "int"}), "int4", 4 + 16 / 128, "int8"),
        (compressed(INT4, {"num_bits": 8, "type": "float"}), "int4", 4 + 16 / 128, "fp8"),
        (compressed({"num_bits": 8, "type": "float"}, None), "fp8", 8, "bf16"),
        (
            compressed({"num_bits": 8, "type": "float", "block_structure": [64, 64]}),
            "fp8_block",
            8 + 32 / 64**2,
            None,
        ),
        (compressed(FLOAT4), "nvfp4", 4.5, None),
        (compressed(FLOAT4, None), "int4", 4.5, None),  # 16-bit products: expanded like int4
        (compressed({**FLOAT4, "group_size": 32}), "mxfp4", 4.25, None),
        (compressed(FLOAT4, format="mxfp4-pack-quantized"), "mxfp4", 4.25, None),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 4.5, None),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"}, "int4", 4.5, None),
        ({"quant_algo": "W4A16_AWQ", "group_size": 64}, "int4", 4.25, None),
        ({"quant_algo": "W4A8_AWQ"}, "int4", 4 + 16 / 128, "fp8"),
        ({"quant_algo": "FP8_PB_WO"}, "fp8_block", 8 + 2**-9, None),
        ({"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, "fp8", 8, None),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "int4", 4 + 32 / 128, None),
        (
            {
                "quant_method": "torchao",
                "quant_type": {
                    "default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 32}}
                },
            },
            "int4",
            5,
            None,
        ),
        (
            {"quant_method": "torchao", "quant_type": "float8_dynamic_activation_float8_weight"},
            "fp8",
            8,
            None,
        ),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "int8", 8, "bf16"),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {
                    "weight": {"dtype": "fp4", "group_size": 32, "scale_format": "e8m0"},
                    "input_tensors": {"dtype": "fp4"},
                },
            },
            "mxfp4",
            4.25,
            None,
        ),
        (
            {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
            "fp8",
            8,
            None,
        ),
    ],
)
def test_formats_of_every_library(
    quantization: dict[str, Any], dtype: str, bits: float, multiplied: str | None
) -> None:
    """The format of all matrices within layers; tables and head keep 16 bits."""
    expected = WeightFormat.read({"dtype": dtype, "bytes": bits / 8, "multiplied": multiplied})
    found = groups(LLAMA, quantization)
    assert {found[group] for group in LAYER_TENSORS} == {expected}
    assert found["head"] == found["embedding"] == BF16


@pytest.mark.parametrize(
    ("quantization", "bits"),
    [
        ({"quant_method": "hqq", "quant_config": {
            "weight_quant_params": {"nbits": 4, "group_size": 64}}}, 4.5),
        ({"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16,
          "in_group_size": 8}, 2),
        ({"quant_method": "quanto", "weights": "int4"}, 4),
        ({"quant_method": "bitnet"}, 2),
        ({"quant_method": "exl2", "bits": 4.25}, 4.25),
        ({"bits": 4, "group_size": 64}, 4.5),  # mlx, which names no method
    ],
)  # fmt: skip
def test_methods_without_kernels_count_by_their_bits(
    quantization: dict[str, Any], bits: float
) -> None:
    """Their products are timed as 16-bit ones, and a note says so."""
    model = read(LLAMA, quantization)
    assert model.weights.of("mlp") == WeightFormat(dtype="bf16", bytes=bits / 8)
    assert any("timed as 16-bit products" in note for note in model.notes)
    # mlx alone quantises the token table and the head.
    assert (model.weights.of("head") != BF16) == ("quant_method" not in quantization)


@pytest.mark.parametrize(
    ("listed", "name", "found"),
    [
        ("lm_head", "lm_head", True),
        ("gate", "layers.2.mlp.gate", True),
        ("gate", "layers.2.mlp.gate_proj", False),
        ("model.layers.1", "layers.1.mlp.up_proj", True),
        ("model.layers.1.", "layers.1.mlp.up_proj", True),
        ("model.layers.1", "layers.10.mlp.up_proj", False),
        ("model.layers.0*", "layers.0.mlp.up_proj", True),
        ("model.language_model.layers.3.mlp*", "layers.3.mlp.up_proj", True),
        ("language_model.model.layers.3.mlp*", "layers.3.self_attn.q_proj", False),
        ("model.layers.*.self_attn", "layers.7.self_attn.q_proj", True),
        ("*.attn.*", "layers.7.self_attn.q_proj", True),
        ("model.layers.0.block_sparse_moe.experts.0.w1", "layers.0.mlp.experts.0.gate_proj", True),
        ("re:.*shared_experts.*", "layers.0.mlp.shared_experts.up_proj", True),
        ("re:.*shared_expert\\..*", "layers.0.mlp.shared_experts.up_proj", True),
        ("re:model\\.layers\\.(0|1)\\..*", "layers.1.mlp.up_proj", True),
        ("re:^model\\.layers\\.3\\.", "layers.3.mlp.up_proj", True),
        ("re:.*mlp\\.(gate|up)_proj", "layers.0.mlp.experts.0.up_proj", False),
        ("visual", "layers.0.mlp.up_proj", False),
        ("mtp.layers.0*", "layers.0.mlp.up_proj", False),
        ("re:(", "layers.0.mlp.up_proj", False),
    ],
)
def test_listed_modules(listed: str, name: str, found: bool) -> None:
    """Whole words, wherever they lie; stars and regular expressions; other libraries' words."""
    assert (name in listed_modules([listed])) == found


KEYS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude")


@pytest.mark.parametrize("key", KEYS)
def test_what_is_left_out_keeps_sixteen_bits(key: str) -> None:
    """Attention of a DeepSeek, and its first layer, the only dense one."""
    left = {"quant_method": "fp8", key: ["model.layers.0", "self_attn", "lm_head"]}
    found = groups(DEEPSEEK, left)
    assert found["attention"] == found["mlp"] == BF16
    assert found["experts"] == found["shared_experts"] == NAMED_FORMATS["fp8"]


def test_a_layer_left_out_counts_in_the_mean() -> None:
    """Of four layers' MLPs one keeps two bytes: 5/4 bytes a weight, still 8-bit products."""
    left = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.3.mlp"]}
    found = groups(LLAMA, left)
    assert found["mlp"] == WeightFormat(dtype="fp8", bytes=1.25)
    assert found["attention"] == NAMED_FORMATS["fp8"]
    # q and o have 128 x 128 weights each, k and v 128 x 64.
    found = groups(LLAMA, {"quant_method": "fp8", "ignore": ["o_proj"]})
    assert found["attention"] == WeightFormat(dtype="fp8", bytes=(2 + 2 * 2) / 6 + 2 / 6)
    found = groups(LLAMA, {"quant_method": "fp8", "ignore": ["re:.*(q|k|o)_proj"]})
    assert found["attention"] == WeightFormat(dtype="bf16", bytes=(5 * 2 + 1) / 6)


def test_groups_of_several_formats() -> None:
    """compressed-tensors: classes, names and patterns; the head only where it is named."""
    eight, four = {"num_bits": 8, "type": "float"}, INT4
    config = {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": eight},
            "group_1": {"targets": ["re:.*experts.*", "lm_head"], "weights": four},
        },
        "ignore": ["re:.*shared_experts.*"],
    }
    found = groups(DEEPSEEK, config)
    assert found["attention"] == found["mlp"] == NAMED_FORMATS["fp8"]
    assert found["experts"] == found["head"] == NAMED_FORMATS["int4"]
    assert found["shared_experts"] == BF16


def test_modelopt_lists_the_format_of_each_layer() -> None:
    """MIXED_PRECISION: what is not listed keeps 16 bits."""
    layers = {f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4"} for i in range(1, 4)}
    layers |= {f"model.layers.{i}.self_attn.o_proj": {"quant_algo": "FP8"} for i in range(4)}
    layers |= {"lm_head": {"quant_algo": "W4A16_NVFP4", "group_size": 16}}
    found = groups(
        DEEPSEEK,
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers},
    )
    assert found["experts"] == NAMED_FORMATS["nvfp4"]
    assert found["head"] == WeightFormat(dtype="int4", bytes=4.5 / 8)
    assert found["mlp"] == found["shared_experts"] == BF16
    assert 1 < found["attention"].bytes < 2


def test_other_layers_of_quark_gptqmodel_and_auto_round() -> None:
    """Each has its own place for layers that differ."""
    quark = {
        "quant_method": "quark",
        "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}},
        "layer_quant_config": {"*self_attn*": {"weight": {"dtype": "fp8_e4m3"}}},
        "exclude": ["re:.*shared_experts.*"],
    }
    found = groups(DEEPSEEK, quark)
    assert found["experts"] == NAMED_FORMATS["mxfp4"]
    assert (found["attention"], found["shared_experts"]) == (NAMED_FORMATS["fp8"], BF16)
    four = {"bits": 4, "group_size": 128}
    for more in (
        {"quant_method": "gptq", "dynamic": {"-:.*self_attn.*": {}}},
        {"quant_method": "gptq", "dynamic": {"+:.*self_attn.*": {"bits": 16}}},
        {"quant_method": "auto-round", "extra_config": {
            f"model.layers.{i}.self_attn": {"bits": 16} for i in range(4)}},
    ):  # fmt: skip
        found = groups(LLAMA, {**four, **more})
        assert (found["attention"], found["mlp"].dtype) == (BF16, "int4")


def test_mxfp4_files_have_experts_in_four_bits_whatever_they_list() -> None:
    """transformers' method converts experts alone (gpt-oss)."""
    found = groups(DEEPSEEK, {"quant_method": "mxfp4"})
    assert [name for name, each in found.items() if each != BF16] == ["experts"]
    assert found["experts"] == NAMED_FORMATS["mxfp4"]


@pytest.mark.parametrize(
    ("stated", "dtype"),
    [
        ({"kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        ({"kv_cache_quant_algo": "INT8"}, "int8"),
        ({"kv_cache_quant_algo": None}, None),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, "int8"),
        ({"kv_cache_scheme": {"num_bits": 4, "type": "float"}}, "nvfp4"),
        ({"kv_cache_scheme": {"num_bits": 16, "type": "float"}}, None),
        ({}, None),
    ],
)
def test_the_stated_cache_is_the_default(stated: dict[str, Any], dtype: str | None) -> None:
    """And the answer says so; another may be asked for."""
    assert kv_format(stated) == dtype
    model = read(LLAMA, {"quant_method": "modelopt", "quant_algo": "FP8", **stated})
    assert ask(model)[0].kv_dtype == (dtype or "bf16")
    assert any("KV cache" in note for note in model.notes) == (dtype is not None)
    assert ask(model, kv_dtype="bf16")[0].kv_dtype == "bf16"


def test_files_in_32_bits_are_served_in_16() -> None:
    """As engines do; a note says it, and --dtype fp32 keeps them."""
    model = shape_from_config({**LLAMA, "torch_dtype": "float32"}, name="tiny", where="config.json")
    assert ask(model)[0].weight_dtype == "bf16"
    assert "fp32" in model.notes[0]
    assert ask(model, weight_dtype="fp32")[0].activation_dtype == "fp32"


def test_what_is_not_known_is_sixteen_bits_and_said() -> None:
    """A wrong guess would be worse."""
    scheme = read_scheme({"quant_method": "newest"})
    assert (scheme.default, scheme.named) == (None, ())
    assert "newest is not known" in scheme.notes[0]
    model = read(LLAMA, {"quant_method": "newest", "kv_cache_scheme": "FP8"}, torch_dtype="float16")
    assert (str(model.weights), model.kv_dtype) == ("fp16", "fp8")
