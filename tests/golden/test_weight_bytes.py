"""Bytes of the weights of published quantised checkpoints, in memory and read in one step.

Figures of checkpoints: parameters of each module of transformers 5.24.0, by name, in the format
that the checkpoint's config.json gives it, scales of 4-bit groups counted (our own table, worked
out apart from this package). A step reads all but the token table, and experts by their expected
share under uniform routing. Figures per GPU: what vLLM's logs say of loaded weights.
"""

from typing import Any

import pytest

from simulator.counts.memory import weights_bytes
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import find_preset
from simulator.inputs.setup import ask
from simulator.units import GIB

FP8_BLOCK: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
# Moonshot's experts in 4 bits, whose file names everything else.
KIMI_INT4: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {
        "group_0": {
            "input_activations": None,
            "targets": ["Linear"],
            "weights": {"num_bits": 4, "type": "int", "group_size": 32, "symmetric": True},
        }
    },
    "ignore": [
        *("lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"),
        "re:.*mlp\\.(gate|up|gate_up|down)_proj.*",
    ],
}
# NVIDIA's, whose files name attention layer by layer, and the first layer or not.
KIMI_NVFP4: dict[str, Any] = {
    "quant_method": "modelopt",
    "quant_algo": "NVFP4",
    "group_size": 16,
    "ignore": [f"language_model.model.layers.{layer}.self_attn*" for layer in range(61)],
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
}
KIMI_NVFP4_EXPERTS: dict[str, Any] = {
    **KIMI_NVFP4,
    "ignore": [
        *KIMI_NVFP4["ignore"],
        "language_model.model.layers.0*",
        *(f"language_model.model.layers.{layer}.mlp.shared_experts*" for layer in range(1, 61)),
    ],
}
QWEN_NVFP4: dict[str, Any] = {
    "quant_algo": "NVFP4",
    "group_size": 16,
    "exclude_modules": [*(f"model.layers.{layer}.mlp.gate" for layer in range(94)), "lm_head"],
}
# Meta's: attention, and the first and last layer, stay in 16 bits.
META_FP8: dict[str, Any] = {
    "quant_method": "fbgemm_fp8",
    "modules_to_not_convert": [
        *(f"model.layers.{i}.self_attn.{m}_proj" for i in range(126) for m in "qkvo"),
        *(f"model.layers.{i}.mlp.{m}_proj" for i in (0, 125) for m in ("gate", "up", "down")),
    ],
}


def checkpoint(preset: str, quantization: dict[str, Any] | None, **keys: Any) -> ModelShape:
    """Return a known model as a quantised checkpoint of it."""
    known = find_preset(preset)
    assert known is not None
    config = {**known.config, **keys}
    if quantization is not None:
        config["quantization_config"] = quantization
    return shape_from_config(config, name=preset, where=preset)


@pytest.mark.parametrize(
    ("preset", "quantization", "memory", "one", "eight"),
    [
        ("gpt-oss-120b", None, 65_248_815_744, 5_002_902_144, 16_777_743_233),
        ("kimi-k2", FP8_BLOCK, 1_028_923_176_960, 33_027_635_200, 169_172_069_229),
        ("kimi-k2", KIMI_INT4, 594_205_259_776, 32_986_413_056, 109_567_657_197),
        ("kimi-k2", KIMI_NVFP4, 589_837_023_232, 28_618_176_512, 105_199_420_653),
        ("kimi-k2", KIMI_NVFP4_EXPERTS, 594_205_259_776, 32_986_413_056, 109_567_657_197),
        ("qwen3-235b-a22b", FP8_BLOCK, 236_388_375_552, 22_240_844_800, 99_630_874_043),
        ("qwen3-235b-a22b", QWEN_NVFP4, 134_101_359_616, 13_098_834_944, 56_630_726_393),
        ("qwen3-30b-a3b", FP8_BLOCK, 31_167_246_336, 3_365_826_560, 13_245_404_761),
        ("qwen3-32b", FP8_BLOCK, 34_318_624_768, 32_762_800_128, 32_762_800_128),
    ],
)
def test_published_checkpoints(
    preset: str, quantization: dict[str, Any] | None, memory: int, one: int, eight: int
) -> None:
    """Within 0.03 %: the scales of fp8 blocks, and a correction bias, are not in the table."""
    model = checkpoint(preset, quantization)
    setup, _ = ask(model)
    assert weights_bytes(model, setup) == pytest.approx(memory, rel=3e-4)
    for samples, figure in ((1, one), (8, eight)):
        setup, work = ask(model, samples=samples, context_tokens=0, decoded_tokens=1)
        operations = decode_operations(model, setup, work, resident_blocks=132)
        layers = [item for item in operations if item.name != "embedding"]
        assert float(total(layers).weight_bytes_read) == pytest.approx(figure, rel=3e-4)


@pytest.mark.parametrize(
    ("preset", "quantization", "keys", "gpus", "gib"),
    [
        # Its first file had 16 KV heads, each of the model's 8 twice (vLLM issue 6746).
        ("llama-3.1-405b", META_FP8, {"num_key_value_heads": 16}, 8, 57.752),
        ("qwen2.5-7b", AWQ, {}, 1, 5.2045),  # WeClone issue 101
        ("qwen2.5-32b", AWQ, {}, 1, 18.1494),  # a start-up log of QwQ-32B-AWQ
        ("qwen3-8b", {"quant_method": "fp8"}, {}, 1, 8.8),
        ("llama-3.1-70b", {"quant_method": "fp8"}, {}, 1, 67.7),
    ],
)
def test_weights_in_vllms_logs(
    preset: str, quantization: dict[str, Any], keys: dict[str, Any], gpus: int, gib: float
) -> None:
    """Within 1 %: logs also count buffers."""
    model = checkpoint(preset, quantization, **keys)
    setup, _ = ask(model, tensor_parallel=gpus)
    assert weights_bytes(model, setup) == pytest.approx(gib * GIB, rel=0.01)
