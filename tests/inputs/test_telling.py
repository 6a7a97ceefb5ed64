"""Which known type can read a file: by the parts that its keys tell, never by its name."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.inputs.hf_config.model_types import MODEL_TYPES, shape_from_config
from simulator.inputs.hf_config.reading import ConfigReader, ModelType
from simulator.inputs.hf_config.telling import nearest_type, read_as, telling_keys

# Few types of different parts, so that the nearest is known by hand.
KNOWN = {
    name: MODEL_TYPES[name]
    for name in ("llama", "qwen2", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "gpt2")
}
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "hf_models.json").read_text())
SIZES: dict[str, Any] = {
    "model_type": "brand_new",
    "num_hidden_layers": 4,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 101,
    "vocab_size": 211,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# The keys of GLM-4.5 that decide its shape, with their values.
GLM: dict[str, Any] = {
    "model_type": "brand_new",
    "attention_bias": True,
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 96,
    "n_routed_experts": 160,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "num_hidden_layers": 92,
    "num_key_value_heads": 8,
    "vocab_size": 151552,
}


def refusal(config: dict[str, Any], assume: str | None = None) -> str:
    """Return the one line, not long, with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        shape_from_config(config, name="x", where="config.json", assume=assume)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 300
    return message


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"num_local_experts": 8}, "experts"),
        ({"kv_lora_rank": 512}, "a latent cache"),
        ({"mamba_d_state": 128}, "states of constant size"),
        ({"linear_num_value_heads": 32}, "states of constant size"),
        ({"conv_L_cache": 3}, "states of constant size"),
        ({"index_topk": 2048}, "sparse attention"),
        ({"block_configs": [{"ffn": 1}, {"ffn": 2}]}, "layers of several kinds"),
        ({"swa_num_key_value_heads": 8}, "heads that differ by layer"),
        ({"num_kv_shared_layers": 15}, "caches that layers share"),
    ],
)
def test_a_key_of_another_architecture_is_named(keys: dict[str, Any], part: str) -> None:
    """A dense type is neither the nearest nor assumed, and the refusal names part and key."""
    (key,) = keys
    assert telling_keys(keys) == {part: [key]}
    config = {**SIZES, **keys}
    assert nearest_type(KNOWN, ConfigReader(config, where="config.json")) is None
    assert f"llama has no {part} ({key})" in refusal(config, "llama")


def test_a_file_that_no_type_reads_is_refused_with_its_parts() -> None:
    """The line names them and how to list the known types, and suggests none."""
    message = refusal({**SIZES, "num_experts": 8, "lru_width": 64, "index_topk": 64})
    parts = "experts (num_experts), states of constant size (lru_width), sparse attention"
    assert f"unknown model_type 'brand_new', with {parts} (index_topk)" in message
    assert "'bifurcate models types'" in message
    assert "--assume" not in message


@pytest.mark.parametrize(
    "keys",
    [
        {"num_experts": 0, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        {"num_experts": None, "n_shared_experts": 1},
        {"num_experts": 16384, "num_experts_per_tok": 64, "is_moe": False},
        {"kv_lora_rank": None, "mamba_proj_bias": False, "use_conv_bias": True},
        {"layer_types": ["full_attention"] * 4, "attn_type_list": [1, 1, 1, 1]},
        {"compress_ratios": []},
        {"output_router_logits": True, "router_aux_loss_coef": 0.001},
    ],
)
def test_a_key_without_a_part_tells_nothing(keys: dict[str, Any]) -> None:
    """Null, zero, switches, and layers that are all alike are no other architecture."""
    assert telling_keys(keys) == {}


@pytest.mark.parametrize("assume", ["llama", "mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"])
def test_no_type_reads_glm_without_its_parts(assume: str) -> None:
    """As llama it would be 31.5 B instead of 353 B; DeepSeek-V3 would invent a latent cache."""
    message = refusal(GLM, assume)
    assert f"cannot be read as {assume}" in message
    part = "a latent cache" if assume == "deepseek_v3" else "shared experts (n_shared_experts)"
    assert part in message


def test_every_shape_of_every_type_is_held_by_its_own_type() -> None:
    """No file that transformers builds states a part that its own type is said not to have."""
    for case in GOLDEN["cases"]:
        kind = MODEL_TYPES.get(case["config"]["model_type"])
        if kind is not None:
            reader = ConfigReader(case["config"], where="config.json")
            assert read_as(kind, reader).lacking == {}, case["config"]


@pytest.mark.parametrize(
    ("keys", "nearest"),
    [
        ({}, "llama"),
        ({"use_sliding_window": False, "max_window_layers": 3}, "qwen2"),
        (EXPERTS, "qwen3_moe"),
        ({"num_local_experts": 8, "num_experts_per_tok": 2}, "mixtral"),
        ({**EXPERTS, "kv_lora_rank": 8, "n_shared_experts": 1}, "deepseek_v2"),
        ({**EXPERTS, "kv_lora_rank": 8, "index_topk": 64}, None),
    ],
)
def test_the_nearest_type_has_the_parts_of_the_file(
    keys: dict[str, Any], nearest: str | None
) -> None:
    """Whatever the file's type is called; and the type that is named reads the file."""
    config = {**SIZES, **keys, "model_type": "gpt_2"}
    assert nearest_type(KNOWN, ConfigReader(config, where="config.json")) == nearest
    if nearest is not None:
        shape = shape_from_config(config, name="x", where="config.json", assume=nearest)
        assert (shape.experts is not None) == ("num_experts_per_tok" in keys)


@pytest.mark.parametrize(
    ("key", "part"),
    [("mamba_d_state", "states of constant size"), ("index_topk", "sparse attention")],
)
def test_a_type_adds_no_part_of_its_own(key: str, part: str) -> None:
    """A type whose class has states by default would invent them where the file has none."""

    def special(reader: ConfigReader) -> dict[str, Any]:
        reader.size(key, 128)
        return {}

    kind = ModelType(special=special)
    assert read_as(kind, ConfigReader({**SIZES, key: 64}, where="f")).misfit == ""
    reader = ConfigReader(SIZES, where="f")
    assert read_as(kind, reader).misfit == f"has {part}, and the file states none"
    assert nearest_type({"hybrid": kind, "llama": MODEL_TYPES["llama"]}, reader) == "llama"


@pytest.mark.parametrize("assume", [None, "llama"])
def test_what_is_no_decoder_is_refused_whatever_is_assumed(assume: str | None) -> None:
    """T5 and its like, and the compressed caches of DeepSeek-V4."""
    coder = {**SIZES, "model_type": "bart", "is_encoder_decoder": True}
    assert "'bart' is an encoder-decoder" in refusal(coder, assume)
    compressed = {**SIZES, "model_type": "deepseek_v4", "compress_ratios": [128, 4]}
    assert "sizes of its compressed caches are not known yet" in refusal(compressed, assume)
