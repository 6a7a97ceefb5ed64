"""Towers of multimodal files against the modules that transformers builds."""

from typing import Any

import pytest

from simulator.counts.memory import memory, weights_bytes
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.hf_config.towers import tower_parameters
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

SIGLIP = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
QWEN3_VL = {
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_position_embeddings": 2304,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
WHISPER = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "max_source_positions": 1500,
    "num_hidden_layers": 32,
    "num_mel_bins": 128,
}
# Sizes as in the published files, width of the decoder, and the parameters outside the language
# model of the module that transformers 5.24.0 builds of them on the meta device.
TOWERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "gemma-3-4b": ({"vision_config": SIGLIP}, 2560, 419_816_304),
    "qwen3-vl-8b": ({"vision_config": QWEN3_VL}, 4096, 576_388_336),
    "qwen3.5-27b": (
        {"vision_config": {**QWEN3_VL, "deepstack_visual_indexes": []}},
        5120,
        460_730_096,
    ),
    "qwen2.5-vl-7b": (
        {
            "vision_config": {
                "depth": 32,
                "hidden_act": "silu",
                "hidden_size": 1280,
                "intermediate_size": 3420,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            }
        },
        3584,
        676_550_144,
    ),
    "qwen2-vl-7b": (
        {
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "hidden_size": 3584,
                "mlp_ratio": 4,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            }
        },
        3584,
        675_759_104,
    ),
    "llama-3.2-11b-vision": (
        {
            "vision_config": {
                "hidden_size": 1280,
                "image_size": 560,
                "intermediate_size": 5120,
                "max_num_tiles": 4,
                "num_global_layers": 8,
                "num_hidden_layers": 32,
                "patch_size": 14,
                "vision_output_dim": 7680,
            }
        },
        4096,
        895_028_755,
    ),
    "llama-4-scout": (
        {
            "vision_config": {
                "hidden_size": 1408,
                "image_size": 336,
                "intermediate_size": 5632,
                "num_hidden_layers": 34,
                "patch_size": 14,
                "projector_input_dim": 4096,
                "projector_output_dim": 4096,
                "vision_output_dim": 4096,
            }
        },
        5120,
        871_932_416,
    ),
    "devstral-small-2": (
        {
            "projector_hidden_act": "gelu",
            "vision_config": {
                "hidden_act": "silu",
                "hidden_size": 1024,
                "image_size": 1540,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "patch_size": 14,
            },
        },
        5120,
        438_958_080,
    ),
    "kimi-k2.5": (
        {
            "vision_config": {
                "merge_kernel_size": [2, 2],
                "patch_size": 14,
                "vt_hidden_size": 1152,
                "vt_intermediate_size": 4304,
                "vt_num_hidden_layers": 27,
            }
        },
        7168,
        471_143_920,
    ),
    "gemma-4-e2b": (
        {
            "vision_config": {
                "hidden_activation": "gelu_pytorch_tanh",
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_hidden_layers": 16,
                "patch_size": 16,
                "position_embedding_size": 10240,
            }
        },
        1536,
        168_544_256,
    ),
    "voxtral-mini": ({"projector_hidden_act": "gelu", "audio_config": WHISPER}, 3072, 662_134_784),
}
DECODER = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 2,
    "hidden_size": 2560,
    "num_attention_heads": 8,
    "intermediate_size": 64,
    "vocab_size": 100,
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_has_about_the_parameters_of_its_module(name: str) -> None:
    """Within 5 %, which the note calls about: norms and biases are left out."""
    config, width, expected = TOWERS[name]
    (count,) = tower_parameters(config, width).values()
    assert count == pytest.approx(expected, rel=0.05)


def test_a_tower_is_in_memory_and_not_in_the_parameters() -> None:
    """Two bytes a parameter beside the decoder's weights; sharded over a group like these."""
    config = {"model_type": "gemma3", "text_config": DECODER}
    bare = shape_from_config(config, name="m", where="config.json")
    model = shape_from_config({**config, "vision_config": SIGLIP}, name="m", where="config.json")
    assert model.tower_parameters == pytest.approx(419_816_304, rel=0.05)
    for ranks in (1, 2):
        setup = Setup(tensor_parallel=ranks, weight_dtype="int8")
        more = weights_bytes(model, setup) - weights_bytes(bare, setup)
        assert more == 2 * model.tower_parameters / ranks
    assert any("in memory and not in the step" in note for note in model.notes)
    assert any("text decoder alone" in note for note in bare.notes)


def test_both_towers_of_a_file_are_counted() -> None:
    """One that encodes images and one that encodes sound, each with its note."""
    config = {"model_type": "gemma3", "text_config": DECODER}
    towers = {"vision_config": SIGLIP, "audio_config": WHISPER}
    model = shape_from_config({**config, **towers}, name="m", where="config.json")
    assert model.tower_parameters == sum(tower_parameters(towers, 2560).values())
    assert [note.split(",")[0] for note in model.notes] == ["the vision tower", "the audio tower"]


@pytest.mark.parametrize("tower", [{}, {"hidden_size": 8}, {"depth": "27", "hidden_size": True}])
def test_a_tower_without_plain_sizes_is_left_out_and_said(tower: dict[str, Any]) -> None:
    """Nothing is guessed: the note says that the file does not state them."""
    config = {"model_type": "gemma3", "text_config": DECODER, "vision_config": tower}
    model = shape_from_config(config, name="m", where="config.json")
    assert model.tower_parameters == 0
    assert any("does not state the sizes of its vision tower" in note for note in model.notes)


def test_a_preset_with_a_tower_needs_its_memory() -> None:
    """Gemma-3-4B: 3.88 B of the decoder and 0.42 B of the tower, 8.6 GB in 16 bits."""
    needs = memory(
        load_model("gemma-3-4b"), Setup(), Workload(), card_bytes=1e12, resident_blocks=132
    )
    assert needs.weights_bytes == pytest.approx(2 * (3_880_099_328 + 419_816_304), rel=0.001)
