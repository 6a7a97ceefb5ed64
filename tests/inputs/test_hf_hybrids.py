"""Hybrid models: every type and switch against what transformers builds, and what is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.model import ModelShape, count_parameters

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data" / "hf_hybrids.json").read_text(encoding="utf-8")
)
CASES: list[dict[str, Any]] = GOLDEN["cases"]
NEMOTRON: dict[str, Any] = {
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "M-*E",
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 101,
    "vocab_size": 211,
}


def read(config: dict[str, Any], **changes: Any) -> ModelShape:
    """Read a config, some keys changed."""
    return shape_from_config({**config, **changes}, name="tiny", where="config.json")


def case_id(case: dict[str, Any]) -> str:
    """Name a golden case by its type and place."""
    return f"{case['config']['model_type']}-{CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_every_hybrid_has_as_many_parameters_as_transformers_builds(case: dict[str, Any]) -> None:
    """The count derived from the file is that of the modules built from the same file."""
    assert count_parameters(read(case["config"])).total == case["parameters"]


@pytest.mark.parametrize("case", [case for case in CASES if "cache" in case], ids=case_id)
def test_every_layer_keeps_what_transformers_keeps(case: dict[str, Any]) -> None:
    """Cached values per token and tokens; values of the states: as after a real forward pass."""
    model, tokens = read(case["config"]), GOLDEN["tokens"]
    cached: Counter[tuple[int, int]] = Counter()
    states: Counter[tuple[int, int]] = Counter()
    for group in model.layer_groups:
        if group.caches:
            kept = tokens if group.window is None else min(tokens, group.window - 1)
            cached[model.of(group).cache_width, kept] += group.count
        if group.state is not None:
            # transformers also keeps the newest input of a convolution, which is used up.
            convolved = group.state.channels * group.state.taps
            states[convolved, group.state.values] += group.count
    assert cached == Counter((width, kept) for width, kept in case["cache"])
    if "states" in case:
        assert states == Counter((window, values) for window, values in case["states"])


def test_nemotrons_pattern_and_list_say_the_same() -> None:
    """One letter for each layer, or the names of two generations of files."""
    letters = read(NEMOTRON)
    for names in (
        ["mamba", "mlp", "attention", "moe"],
        ["linear_attention", "mlp", "full_attention", "moe"],
    ):
        listed = {**NEMOTRON, "layers_block_type": names}
        del listed["hybrid_override_pattern"]
        assert read(listed).layer_groups == letters.layer_groups
    assert [group.mlp for group in letters.layer_groups] == ["none", "dense", "none", "experts"]
    assert [group.attends for group in letters.layer_groups] == [False, False, True, False]


def test_models_without_attention_say_so() -> None:
    """Mamba has no KV heads to speak of, caches nothing, and has one kind of layer."""
    for model_type in ("mamba", "falcon_mamba", "mamba2"):
        model = read(
            {"model_type": model_type, "num_hidden_layers": 3, "hidden_size": 4096}, vocab_size=211
        )
        assert model.family == "no attention"
        assert model.cached_values == 0
        assert len(model.layer_groups) == 1


def test_blocks_that_layers_share_count_once() -> None:
    """Three of five layers of Zamba2 have a block: with two blocks, one is counted more."""
    config = next(case["config"] for case in CASES if case["config"]["model_type"] == "zamba2")
    one, two = (read(config, num_mem_blocks=blocks) for blocks in (1, 2))
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    attention = 3 * (2 * hidden) ** 2 + 2 * hidden * hidden
    norms = 2 * hidden + hidden
    more = count_parameters(two).total - count_parameters(one).total
    assert more == attention + 3 * hidden * inner + norms
    assert one.cached_values == two.cached_values == 3 * 2 * 2 * hidden


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**NEMOTRON, "hybrid_override_pattern": "MX"}, "layer_types has 'X'"),
        ({**NEMOTRON, "hybrid_override_pattern": 3}, "must be a text such as 'M-M\\*'"),
        (
            {**NEMOTRON, "model_type": "mamba2", "num_hidden_layers": 3, "num_heads": 7},
            "the width 192 of Mamba's values is not a multiple of its 7 heads",
        ),
        (
            {**NEMOTRON, "model_type": "lfm2", "num_hidden_layers": 3}
            | {"block_ffn_dim_multiplier": "a"},
            "block_ffn_dim_multiplier = 'a' must be a number",
        ),
        (
            {**NEMOTRON, "model_type": "minimax", "num_hidden_layers": 3}
            | {"attn_type_list": [0, 1]},
            "attn_type_list has 2 entries for 3 layers",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    """The file, the key and the value."""
    with pytest.raises(ModelError, match=f"^config.json: .*{message}") as caught:
        read(config)
    assert "\n" not in str(caught.value)
