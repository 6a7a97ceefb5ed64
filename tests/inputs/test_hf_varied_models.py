"""Reading config.json of model types whose attention or MLP differs by layer."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.inputs.hf_config.model_types import NESTED, shape_from_config
from simulator.inputs.model import ModelShape, count_parameters, draft_matrices

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "hf_varied_models.json").read_text())
CASES: list[dict[str, Any]] = GOLDEN["cases"]
FULL, WINDOWED = "full_attention", "sliding_attention"

MIMO: dict[str, Any] = {
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "v_head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 100,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "sliding_window": 7,
}
# Sizes of Llama-3-70B, from which Nemotron-NAS models are made.
LLAMA_70B: dict[str, Any] = {
    "model_type": "nemotron-nas",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "vocab_size": 128_256,
}
# apple/OpenELM-270M, its config.json.
OPENELM: dict[str, Any] = {
    "model_type": "openelm",
    "num_transformer_layers": 16,
    "model_dim": 1280,
    "head_dim": 64,
    "num_query_heads": [12] * 5 + [16] * 7 + [20] * 4,
    "num_kv_heads": [3] * 5 + [4] * 7 + [5] * 4,
    "ffn_multipliers": [
        *(0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13),
        *(2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0),
    ],
    "ffn_dim_divisor": 256,
    "ffn_with_glu": True,
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "vocab_size": 32_000,
    "max_context_length": 2048,
}


def read(config: dict[str, Any], **changes: Any) -> ModelShape:
    """Read a config, some keys changed."""
    return shape_from_config({**config, **changes}, name="tiny", where="config.json")


def block(group: int | None, mult: float | None, **linear: bool) -> dict[str, Any]:
    """Return one of Nemotron-NAS's blocks: heads in a group, and the MLP's multiplier."""
    attention, mlp = linear.get("attention", False), linear.get("mlp", False)
    return {
        "attention": {
            "n_heads_in_group": group,
            "no_op": group is None and not attention,
            "replace_with_linear": attention,
        },
        "ffn": {"ffn_mult": mult, "no_op": mult is None and not mlp, "replace_with_linear": mlp},
    }


def case_id(case: dict[str, Any]) -> str:
    """Name a case by its type and place."""
    return f"{case['config']['model_type']}-{CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_parameters_and_caches_are_those_of_the_transformers_module(case: dict[str, Any]) -> None:
    """Flat, and inside the text_config of a multimodal file."""
    config = case["config"]
    outer = [name for name, inner in NESTED.items() if inner == config["model_type"]]
    forms = [config, *({"model_type": name, "text_config": config} for name in outer)]
    for form in forms:
        model = read(form)
        assert count_parameters(model).total == case["parameters"]
        assert model.cached_values == case["cached_values"]


def test_files_of_mimo_on_the_hub_have_names_of_their_own() -> None:
    """They list windows and experts by number, and state the sizes of windowed layers."""
    hub = read(
        MIMO,
        hybrid_layer_pattern=[0, 1, 1, 0],
        moe_layer_freq=[0, 1, 0, 1],
        sliding_window_size=7,
        swa_num_attention_heads=8,
        swa_num_key_value_heads=4,
        swa_head_dim=24,
        swa_v_head_dim=16,
        add_swa_attention_sink_bias=True,
        add_full_attention_sink_bias=False,
    )
    common = read(
        MIMO,
        layer_types=[FULL, WINDOWED, WINDOWED, FULL],
        mlp_layer_types=["dense", "sparse", "dense", "sparse"],
        sliding_window=8,  # seven earlier tokens and the query's own
    )
    assert hub.layer_groups == common.layer_groups
    bare = read(MIMO, add_swa_attention_sink_bias=False, add_full_attention_sink_bias=True)
    sinks = {group.window: group.vectors for group in bare.layer_groups}
    assert sinks == {7: 0, None: 8}


def test_step_3_has_its_published_size() -> None:
    """316 B in the language model, 38 B of them for a token (arXiv:2507.19427)."""
    model = read(
        {
            "model_type": "step3_vl",
            "text_config": {
                "model_type": "step3_text",
                "num_attention_groups": 1,
                "moe_num_experts": 48,
                "moe_top_k": 3,
                "share_expert_dim": 5120,
                "moe_intermediate_size": 5120,
                "share_q_dim": 2048,
                "head_dim": 256,
                "moe_layers_enum": ",".join(map(str, range(4, 60))),
            },
        }
    )
    count = count_parameters(model)
    assert count.total / 1e9 == pytest.approx(316, abs=0.5)
    assert count.active / 1e9 == pytest.approx(38, abs=1)
    assert Counter(group.mlp for group in model.layer_groups for _ in range(group.count)) == {
        "dense": 5,
        "experts": 56,
    }
    assert model.cached_values == 61 * 512


def test_step_3_5_drafts_with_dense_layers() -> None:
    """Attention with a gate, a dense MLP, norms, and the matrix that joins two vectors."""
    model = read(
        {
            "model_type": "step3p5",
            "num_hidden_layers": 3,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "num_attention_groups": 2,
            "head_dim": 16,
            "intermediate_size": 96,
            "vocab_size": 100,
            "moe_num_experts": 8,
            "moe_top_k": 2,
            "moe_intermediate_size": 32,
            "share_expert_dim": 32,
            "moe_layers_enum": "1,2",
            "layer_types": [FULL, WINDOWED, FULL, FULL],
            "sliding_window": 7,
            "attention_other_setting": {"num_attention_heads": 8},
            "num_nextn_predict_layers": 1,
        }
    )
    assert [group.heads for group in model.layer_groups] == [None, 8, None]
    attention = 64 * (4 * 16 + 2 * 2 * 16 + 4) + 4 * 16 * 64 + 2 * 16
    count = sum(matrix.values for _, matrix in draft_matrices(model))
    assert count == attention + 3 * 64 * 96 + 2 * 64 + (2 * 64**2 + 3 * 64)


def test_longcat_has_its_published_size() -> None:
    """560 B, 27 B of them for a token on average (arXiv:2509.01322)."""
    count = count_parameters(
        read(
            {
                "model_type": "longcat_flash",
                "num_layers": 28,
                "hidden_size": 6144,
                "num_attention_heads": 64,
                "ffn_hidden_size": 12_288,
                "vocab_size": 131_072,
            }
        )
    )
    assert count.total / 1e9 == pytest.approx(560, abs=1)
    assert count.active / 1e9 == pytest.approx(27, abs=1)


def test_blocks_of_nemotron_nas_that_are_all_llama_are_llama() -> None:
    """Groups of eight heads and a multiplier of 5.25: Llama-3-70B, parameter by parameter."""
    model = read(LLAMA_70B, block_configs=[block(8, 5.25)] * 80)
    assert count_parameters(model).total == 70_553_706_496
    assert (model.kv_heads, model.intermediate_size) == (8, 28_672)


def test_blocks_of_nemotron_nas_lose_what_they_are_without() -> None:
    """A block without attention or MLP lacks matrices and a norm; an empty one is no layer."""
    d, attention, mlp = 8192, 2 * 8192**2 + 2 * 8192 * 1024 + 8192, 3 * 8192 * 28_672 + 8192
    whole = read(LLAMA_70B, block_configs=[block(8, 5.25)] * 80)
    for changed, layers, fewer in (
        (block(None, 5.25), 80, attention),
        (block(8, None), 80, mlp),
        (block(None, None), 79, attention + mlp),
        (block(16, 5.25), 80, d * 1024),
        (block(8, 2.625), 80, 3 * d * 14_336),
        (block(None, 5.25, attention=True), 80, attention - d * d - d),
        (block(8, None, mlp=True), 80, mlp - d * d - d),
    ):
        model = read(LLAMA_70B, block_configs=[block(8, 5.25)] * 79 + [changed])
        assert model.layers == layers
        assert count_parameters(whole).total - count_parameters(model).total == fewer


def test_blocks_must_be_given_for_each_layer() -> None:
    """Without them, or with too few, the file is refused."""
    with pytest.raises(ModelError, match="block_configs is missing"):
        read(LLAMA_70B)
    with pytest.raises(ModelError, match="block_configs has 3 entries for 80 layers"):
        read(LLAMA_70B, block_configs=[block(8, 5.25)] * 3)


def test_openelm_has_its_published_size() -> None:
    """271.5 M parameters; 16 layers of as many kinds."""
    model = read(OPENELM)
    assert count_parameters(model).total == 271_527_168
    assert [group.heads for group in model.layer_groups] == OPENELM["num_query_heads"]
    assert model.cached_values == 128 * sum(OPENELM["num_kv_heads"])


def test_kv_heads_of_deci_are_listed_by_layer() -> None:
    """26 layers of four KV heads and six of two."""
    model = read(
        {
            "model_type": "deci",
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "intermediate_size": 14_336,
            "vocab_size": 32_000,
            "num_key_value_heads_per_layer": [4] * 26 + [2] * 6,
        }
    )
    assert model.cached_values == 256 * (26 * 4 + 6 * 2)


def test_cross_attention_is_in_memory_and_in_no_step() -> None:
    """Llama 3.2 Vision: the answer says so."""
    model = read(
        {"model_type": "mllama", "text_config": {"num_hidden_layers": 40, "vocab_size": 128_256}}
    )
    assert [(group.count, group.runs) for group in model.layer_groups] == [(32, True), (8, False)]
    assert model.cached_values == 32 * 8 * 256
    assert any("8 cross-attention layers" in note for note in model.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": [FULL, "minimax_m3_sparse"]}, "layer_types has 'minimax_m3_sparse'"),
        (
            {"sparse_attention_config": {"sparse_attention_freq": [0, 1]}},
            "layer_types has 'minimax_m3_sparse'",
        ),
    ],
)
def test_block_sparse_attention_is_refused(changes: dict[str, Any], words: str) -> None:
    """MiniMax-M3 is read where all layers attend to all tokens."""
    config = {
        "model_type": "minimax_m3_vl_text",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        "dense_intermediate_size": 96,
        "vocab_size": 100,
    }
    assert read(config).layers == 2
    with pytest.raises(ModelError, match=words):
        read(config, **changes)


def test_experts_beside_mlps_of_several_widths_are_refused() -> None:
    """Gemma 4 has no such model."""
    with pytest.raises(ModelError, match="use_double_wide_mlp with enable_moe_block"):
        read(
            {
                "model_type": "gemma4_text",
                "num_hidden_layers": 4,
                "hidden_size": 64,
                "num_attention_heads": 4,
                "intermediate_size": 96,
                "vocab_size": 100,
                "layer_types": [WINDOWED, FULL, WINDOWED, FULL],
                "num_kv_shared_layers": 2,
                "use_double_wide_mlp": True,
                "enable_moe_block": True,
                "num_experts": 4,
                "top_k_experts": 2,
                "moe_intermediate_size": 32,
            }
        )


def test_kv_heads_that_differ_by_layer_cannot_be_set() -> None:
    """One number for all layers would be another model's."""
    model = read(MIMO)
    assert model.with_kv_heads(2) is model
    with pytest.raises(ModelError, match="kv_heads that differ by layer"):
        model.with_kv_heads(1)
