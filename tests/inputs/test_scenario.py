"""Scenario files: what they may say, what they mean, and what is said of a wrong one."""

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import ScenarioError
from simulator.inputs.scenario import (
    Scenario,
    check_scenario,
    load_scenario,
    read_scenario,
    scenario_files,
    verdict_of,
)
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.resources import SCENARIO_PATH_VARIABLE

PROSE = """
schema_version = 1
id = "mine"
title = "A title"
description = "A description"
question = "A question?"
sources = ["a paper, table 1"]
verdict = "mixed"
verdict_reason = "a reason"
"""
GRID = """
models = ["llama-2-7b", "mistral-7b-v0.2"]
gpus = ["h100-sxm"]

[workload]
samples = [1, 16]
context_tokens = "8K"
"""


def write(folder: Path, text: str = PROSE + GRID, name: str = "mine") -> Path:
    """Write a scenario file and return its path."""
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def scenario(workload: Mapping[str, Any], **fields: Any) -> Scenario:
    """Build a scenario from a [workload] table as TOML would give it."""
    base = {
        "schema_version": 1,
        "id": "mine",
        "title": "t",
        "description": "d",
        "question": "q?",
        "sources": ["s"],
        "verdict": "gain",
        "verdict_reason": "r",
        "models": ["llama-2-7b"],
        "gpus": ["h100-sxm"],
        "workload": workload,
    }
    return Scenario.read({**base, **fields})


def complaint(path: Path) -> str:
    """Return the message with which a file is refused, after its path."""
    with pytest.raises(ScenarioError) as caught:
        read_scenario(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}")
    return message.removeprefix(f"{path}: ")


# ---- finding ------------------------------------------------------------------------------------


def test_a_path_and_an_id_load_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of one's own is searched by id, in any case; a path is taken as it is."""
    path = write(tmp_path)
    by_path = load_scenario(path)
    monkeypatch.setenv(SCENARIO_PATH_VARIABLE, str(tmp_path))
    assert load_scenario("mine") == load_scenario(" MINE ") == load_scenario(str(path)) == by_path
    assert scenario_files()["mine"] == path


def test_own_scenarios_hide_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first folder of the search path wins, and the shipped scenarios stay reachable."""
    shipped = load_scenario("one-sample")
    write(tmp_path, (PROSE + GRID).replace('"mine"', '"one-sample"'), "one-sample")
    monkeypatch.setenv(SCENARIO_PATH_VARIABLE, str(tmp_path))
    assert load_scenario("one-sample").title == "A title" != shipped.title
    assert load_scenario("rl-dapo").id == "rl-dapo"


def test_a_missing_name_suggests_the_nearest() -> None:
    """A slip in an id is answered with the id that was meant."""
    with pytest.raises(
        ScenarioError, match="unknown scenario 'code-samplng-8k'; did you mean 'code-sampling-8k'"
    ):
        load_scenario("code-samplng-8k")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist is one line that names it."""
    with pytest.raises(ScenarioError, match=r"cannot read .*absent\.toml: No such file"):
        load_scenario(tmp_path / "absent.toml")


# ---- meaning ------------------------------------------------------------------------------------


def test_the_grid_has_model_and_gpu_first_and_reads_sizes_as_a_workload_does(
    tmp_path: Path,
) -> None:
    """Axes keep the file's order, a single value is an axis of one, 8K is 8192 and 8k is 8000."""
    read = read_scenario(write(tmp_path, PROSE + GRID.replace('"8K"', '["8k", "8K"]')))
    assert list(read.axes.items()) == [
        ("model", ("llama-2-7b", "mistral-7b-v0.2")),
        ("gpu", ("h100-sxm",)),
        ("samples", (1, 16)),
        ("context_tokens", (8000, 8192)),
    ]
    assert read.points == 8
    cells = list(read.cells())
    assert cells[0] == {
        "model": "llama-2-7b",
        "gpu": "h100-sxm",
        "samples": 1,
        "context_tokens": 8000,
    }
    assert [cell["context_tokens"] for cell in cells[:3]] == [8000, 8192, 8000]


def test_what_is_asked_is_no_axis() -> None:
    """Tokens to generate and the latency target describe the request, not points of the grid."""
    asked = scenario({"samples": 4, "output_tokens": "1K", "target_step_ms": 25})
    assert (asked.output_tokens, asked.target_step_ms) == (1024, 25.0)
    assert list(asked.axes) == ["model", "gpu", "samples"]
    silent = scenario({"samples": 4})
    assert (silent.output_tokens, silent.target_step_ms) == (None, None)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("context_tokens", [0, 8192]),
        ("samples", [1, 1024]),
        ("prompts", [1, 8]),
        ("decoded_tokens", [0, 64]),
        ("query_tokens", [1, 4]),
        ("accepted_tokens", [1, 2.5]),
        ("attention", ["standard", "bifurcated"]),
        ("kernel", ["flash", "einsum"]),
        ("kv_layout", ["copies", "shared"]),
        ("execution", ["graph", "eager"]),
        ("weight_dtype", ["bf16", "fp8"]),
        ("kv_dtype", ["bf16", "int8"]),
        ("tensor_parallel", [1, 8]),
        ("data_parallel", [1, 8]),
        ("expert_parallel", [1, 8]),
        ("pipeline_parallel", [1, 2]),
        ("routing", ["uniform", "skewed"]),
        ("routing_exponent", [1.01, 1.2]),
        ("latent_form", ["absorbed", "mixed"]),
        ("tree", ["system=1024,problem=512x8", "system=2048"]),
        ("kv_heads", [32, 1]),
    ],
)
def test_every_setting_can_be_an_axis(key: str, values: list[Any]) -> None:
    """A list under any key of a workload, or of KV heads, is an axis."""
    assert scenario({key: values}).axes[key] == tuple(values)


def test_no_field_of_a_question_is_missing_above() -> None:
    """The list above covers every field of a setup and a workload that a scenario may have."""
    mark = next(m for m in test_every_setting_can_be_an_axis.pytestmark if m.name == "parametrize")
    fields = {*Setup.fields, *Workload.fields}
    not_asked = {"constants", "gpu_memory_utilization", "engine", "max_batched_tokens"}
    assert fields - not_asked == {key for key, _ in mark.args[1]} - {"kv_heads"}


def test_the_engines_spellings_of_a_dtype_are_read() -> None:
    """A dtype may be written as in a Hugging Face file."""
    assert scenario({"weight_dtype": "bfloat16"}).workload["weight_dtype"] == "bf16"


def test_brackets_around_one_entry_may_be_left_out() -> None:
    """A single model, GPU or source need not be a list."""
    short = scenario({"samples": 1}, models="llama-2-7b", gpus="l4", sources="a paper")
    assert (short.models, short.gpus, short.sources) == (("llama-2-7b",), ("l4",), ("a paper",))


def test_a_scenario_never_changes() -> None:
    """A loaded scenario is frozen."""
    with pytest.raises(AttributeError, match="frozen"):
        scenario({}).title = "other"  # type: ignore[misc]


def test_a_scenario_survives_json() -> None:
    """Dumped to JSON and read back it is the same: results can carry the scenario they answer."""
    first = scenario({"samples": ["1k", 2], "output_tokens": 8, "target_step_ms": 2.5})
    assert Scenario.read(json.loads(json.dumps(first.as_dict()))) == first


@given(
    lengths=st.dictionaries(
        st.sampled_from(["samples", "prompts", "context_tokens", "decoded_tokens", "kv_heads"]),
        st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True),
    ),
    models=st.integers(1, 3),
    gpus=st.integers(1, 3),
)
def test_points_are_the_product_of_the_axes(
    lengths: dict[str, list[int]], models: int, gpus: int
) -> None:
    """Every combination of values is there once, and there are as many as ``points`` says."""
    grid = scenario(
        lengths,
        models=[f"model-{number}" for number in range(models)],
        gpus=[f"gpu-{number}" for number in range(gpus)],
    )
    cells = list(grid.cells())
    assert len(cells) == grid.points
    assert grid.points == models * gpus * math.prod(len(values) for values in lengths.values())
    assert len({tuple(cell.values()) for cell in cells}) == len(cells)
    for name, values in lengths.items():
        assert {cell[name] for cell in cells} == set(values)


def test_a_huge_grid_is_counted_and_walked_lazily() -> None:
    """A million million points are known at once, and the first are there without the rest."""
    thousand = list(range(1, 1001))
    huge = scenario(dict.fromkeys(("samples", "prompts", "context_tokens", "kv_heads"), thousand))
    assert huge.points == 10**12
    first = list(itertools.islice(huge.cells(), 2))
    assert [cell["kv_heads"] for cell in first] == [1, 2]


# ---- complaints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("samples = []", "workload: samples: the list is empty"),
        ("samples = 0", "workload: samples = 0 should be greater than or equal to 1"),
        ("samples = [1, 0]", "workload: samples = 0 should be greater than or equal to 1"),
        ("samples = -3", "workload: samples = -3 should be greater than or equal to 1"),
        ("samples = [4, 4]", "workload: samples: 4 is listed twice"),
        ('samples = [8192, "8K"]', "workload: samples: 8192 is listed twice"),
        ("samples = nan", "workload: samples = nan should be a finite number"),
        ("samples = true", "workload: samples = true is neither a number nor a name"),
        ("samples = 1.5", "workload: samples = 1.5 should be a valid integer"),
        ("samples = [[1]]", "workload: samples: should be a valid integer"),
        ("samples = 2020-01-01", "workload: samples: should be a valid integer"),
        ('samples = "8KK"', "workload: samples = '8KK' is not a count; write 8192"),
        ("samples = 10000000000000", "samples = 10000000000000 should be less than or equal to"),
        ("sampels = 4", "workload: unknown key 'sampels'; did you mean 'samples'?"),
        (
            "qqq = 4",
            "workload: unknown key 'qqq'; known: accepted_tokens, attention, context_tokens",
        ),
        ('weight_dtype = "bf61"', "weight_dtype = 'bf61' is not one of bf16, fp16, fp32"),
        ('weight_dtype = ["bf16", "bfloat16"]', "weight_dtype: 'bf16' is listed twice"),
        ("kernel = 3", "workload: kernel = 3 should be a valid string"),
        ("execution = 3", "workload: execution = 3 is not one of graph, compiled, eager"),
        ("constants = 'peak'", "workload: unknown key 'constants'"),
        ("gpu_memory_utilization = 1", "workload: unknown key 'gpu_memory_utilization'"),
        ("kv_heads = 0", "workload: kv_heads = 0 should be greater than or equal to 1"),
        ("target_step_ms = nan", "workload: target_step_ms = nan should be a finite number"),
        ("target_step_ms = -1", "workload: target_step_ms = -1 should be greater than 0"),
        ("output_tokens = [1, 2]", "workload: output_tokens is one value, not a list"),
        ('verdict = "gain"', "workload: verdict belongs above [workload]"),
    ],
)
def test_a_wrong_workload_is_explained(tmp_path: Path, line: str, expected: str) -> None:
    """Each mistake in [workload] is one line: the key, the value, and what is valid."""
    text = PROSE + GRID.replace("samples = [1, 16]", line)
    assert expected in complaint(write(tmp_path, text))


def test_all_mistakes_of_a_workload_are_told_at_once(tmp_path: Path) -> None:
    """Two wrong keys are two complaints on one line."""
    message = complaint(write(tmp_path, PROSE + GRID + "prompts = 0\ndecoded_tokens = -1\n"))
    assert "prompts = 0" in message
    assert "decoded_tokens = -1" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("schema_version = 1", "schema_version = 2", "schema_version = 2 is not a version"),
        ("schema_version = 1", "schema_version = true", "schema_version = True is not a version"),
        ("schema_version = 1", "", "schema_version is missing"),
        ('id = "mine"', 'id = "other"', "id = 'other' is not the file's name 'mine'"),
        ('id = "mine"', 'id = "My Own"', "id = 'My Own' should be of a-z"),
        ("title =", "titel =", "unknown key 'titel'; did you mean 'title'?"),
        ('title = "A title"', 'title = " "', "title = ' ' is blank"),
        ('question = "A question?"', "", "question is missing"),
        ('["a paper, table 1"]', "[]", "sources: the list is empty"),
        ('["a paper, table 1"]', '[""]', "sources.0 = '' is blank"),
        ('"mixed"', '"mixd"', "verdict = 'mixd' is not one of gain, no gain, mixed; did you"),
        (
            "verdict_reason",
            'verdict_basis = "guessed"\nverdict_reason',
            "verdict_basis = 'guessed' is not one of measured, stated, derived",
        ),
        ('["h100-sxm"]', "[]", "gpus: the list is empty"),
        ('["h100-sxm"]', '["l4", "l4"]', "gpus: 'l4' is listed twice"),
        ('["h100-sxm"]', "[7]", "gpus.0 = 7 should be a valid string"),
        ("[workload]", "", "samples belongs under [workload]"),
        ("[workload]", "[worklod]", "unknown key 'worklod'; did you mean 'workload'?"),
        ("[workload]", "workload = 3\n[sources_of_error]", "workload = 3 should be a table"),
        ("[workload]", "[workload", "is not TOML"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """Each mistake above [workload] is one line that names the key and what is valid."""
    text = PROSE + GRID
    assert text.count(old) == 1
    assert expected in complaint(write(tmp_path, text.replace(old, new)))


# ---- names --------------------------------------------------------------------------------------


def test_loading_does_not_look_names_up(tmp_path: Path) -> None:
    """A scenario of models and GPUs nobody knows loads; checking it says so, with the nearest."""
    text = PROSE + GRID.replace("h100-sxm", "h100-sxn").replace("llama-2-7b", "lama-2-7b")
    problems = check_scenario(read_scenario(write(tmp_path, text)))
    assert len(problems) == 2
    assert problems[0].startswith("gpus: unknown GPU 'h100-sxn'; did you mean 'h100-sxm'?")
    assert problems[1].startswith("models: unknown model 'lama-2-7b'; did you mean 'llama-2-7b'?")


def test_a_good_scenario_has_no_problems() -> None:
    """Known names in any spelling, and KV heads the models can have, are no problem."""
    assert check_scenario(scenario({"kv_heads": [32, 4, 1]}, gpus=["H100-SXM", "l4"])) == []


def test_one_thing_under_two_names_is_a_problem() -> None:
    """An id and an alias of the same card or model would count its points twice."""
    twice = scenario(
        {}, gpus=["h100-sxm", "H100-SXM"], models=["llama-2-7b", "meta-llama/Llama-2-7b-hf"]
    )
    assert check_scenario(twice) == [
        "gpus: 'h100-sxm' and 'H100-SXM' are both h100-sxm",
        "models: 'llama-2-7b' and 'meta-llama/Llama-2-7b-hf' are both llama-2-7b",
    ]


def test_kv_heads_must_suit_every_model() -> None:
    """Each impossible number of KV heads is a problem of each model, with what is possible."""
    problems = check_scenario(scenario({"kv_heads": [8, 5]}, models=["llama-2-7b", "deepseek-v3"]))
    assert [problem.split(":")[0] for problem in problems] == ["kv_heads"] * 3
    assert "5" in problems[0]
    assert "1, 2, 4, 8, 16, 32" in problems[0]


def test_a_model_can_be_a_file(tmp_path: Path) -> None:
    """A config.json by its path is a model like any other."""
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 512,
                "intermediate_size": 1024,
                "num_attention_heads": 8,
                "num_hidden_layers": 2,
                "num_key_value_heads": 2,
                "vocab_size": 1000,
            }
        )
    )
    assert check_scenario(scenario({"samples": 2}, models=[str(config)])) == []


# ---- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fast", "slow", "verdict"),
    [
        (4, 0, "gain"),
        (3, 1, "gain"),
        (2, 2, "mixed"),
        (74, 26, "mixed"),
        (11, 89, "mixed"),
        (10, 90, "no gain"),
        (0, 1, "no gain"),
    ],
)
def test_a_verdict_counts_the_points_that_gain_a_tenth(fast: int, slow: int, verdict: str) -> None:
    """Three quarters of the points at 1.1 or more are a gain, a tenth of them or fewer none."""
    assert verdict_of([1.1] * fast + [1.099] * slow) == verdict


@pytest.mark.parametrize("speedups", [[], [2.0, math.nan]])
def test_a_verdict_needs_numbers(speedups: list[float]) -> None:
    """No points, or one that is not a number, is not taken for "no gain"."""
    with pytest.raises(ValueError, match="at least one speed-up"):
        verdict_of(speedups)
