"""models, gpus and scenarios: lists, one thing with its sources, checks, and a user's own."""

import re
from pathlib import Path

import pytest
from command_line import bifurcate

from simulator.inputs.hardware import load_hardware, profile_files
from simulator.inputs.presets import presets
from simulator.inputs.scenario import scenario_files
from simulator.resources import data_dir
from simulator.timing.constants import Key, rates

GROUPS = ("models", "gpus", "scenarios")


@pytest.mark.parametrize("group", GROUPS)
def test_the_group_alone_lists(group: str) -> None:
    """``bifurcate gpus`` is ``bifurcate gpus list``, options of the answer included."""
    assert bifurcate(group).text == bifurcate(group, "list").text
    assert bifurcate(group, "--json").json == bifurcate(group, "list", "--json").json


@pytest.mark.parametrize(
    ("group", "key", "known"),
    [
        ("models", "model", presets),
        ("gpus", "gpu", profile_files),
        ("scenarios", "scenario", scenario_files),
    ],
)
def test_a_list_names_all_there_are(group: str, key: str, known: object) -> None:
    """Every list names what is known, each once, in its table too."""
    names = [row[key] for row in bifurcate(group, "--json").json]
    assert names == list(known())  # type: ignore[operator]
    assert len(names) == len(set(names))
    table = bifurcate(group).text.splitlines()[1:]
    assert [name for name in names if not any(line.startswith(f"{name} ") for line in table)] == []


def test_what_is_not_known_is_null() -> None:
    """A price that is not known is null in JSON, not an empty text."""
    prices = {row["gpu"]: row["usd_per_hour"] for row in bifurcate("gpus", "--json").json}
    assert prices["a10"] is None
    assert prices["l4"] == pytest.approx(0.68)
    lengths = {
        row["model"]: row["max_context_tokens"] for row in bifurcate("models", "--json").json
    }
    assert lengths["falcon-7b"] is None


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("llama-2-7b", 6_738_415_616),
        ("mistral-7b", 7_241_732_096),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen2.5-0.5b", 494_032_768),
        ("gpt2", 124_439_808),
    ],
)
def test_a_model_shows_its_published_parameter_count(model: str, parameters: int) -> None:
    """models show gives the published parameter count, and parts that add up to it."""
    facts = bifurcate("models", "show", model, "--json").json
    assert facts["parameters"] == parameters
    parts = ("embedding", "head", "attention", "mlp", "norm")
    assert sum(facts[f"{part}_parameters"] for part in parts) == parameters
    assert f"{parameters:,}" in bifurcate("models", "show", model).text


def test_a_model_shows_its_kv_bytes_per_token() -> None:
    """Mistral-7B caches 131,072 bytes per token, a quarter of Llama-2-7B."""
    for model, size in (("mistral-7b", 131_072), ("llama-2-7b", 524_288)):
        facts = bifurcate("models", "show", model, "--json").json
        assert facts["kv_bytes_per_token_bf16"] == size
    multi_query = bifurcate("models", "show", "llama-2-7b", "--kv-heads", "1", "--json").json
    assert multi_query["kv_bytes_per_token_bf16"] == 524_288 // 32


def test_mixed_layers_are_told_in_words() -> None:
    """What is shown of a model with windows and experts is no Python literal."""
    text = bifurcate("models", "show", "gpt-oss-20b").text
    assert "count = 12" in text
    assert "window = 128" in text
    assert "{" not in text


@pytest.mark.parametrize("name", ["l4", "h100-sxm", "mi300x", "v100-sxm2-16gb"])
def test_a_gpu_shows_every_figure_with_its_source(name: str) -> None:
    """gpus show names the source of each published figure and of each constant."""
    profile = load_hardware(name)
    answer = bifurcate("gpus", "show", name, "--json").json
    assert answer["hash"] == profile.content_hash
    for figure in (*answer["peak"].values(), *answer["constants"].values()):
        assert isinstance(figure["value"], int | float)
        assert len(figure["source"]) > 2
    table = bifurcate("gpus", "show", name).text
    for key in profile.peak.as_dict(known=True):
        assert f"peak.{key}" in table
    for alias in profile.aliases:
        assert alias in re.sub(r"\s+", " ", table)


def test_a_gpu_shows_the_constants_of_8_bit_kernels_too() -> None:
    """Carried ones stand beside those of 16 bits, and what both share is told once."""
    shown = bifurcate("gpus", "show", "l4", "--json").json["constants"]
    used = rates(load_hardware("l4"))
    for key in (Key("launch_us", "attention"), Key("bandwidth_fraction", "gemm")):
        assert shown[f"fp8_{key}"]["value"] == used.at("fp8").constants[key].value
        assert shown[str(key)]["value"] == used.constants[key].value
    assert "link_fraction" in shown
    assert "fp8_link_fraction" not in shown


def test_a_gpu_shows_only_constants_that_can_affect_a_time() -> None:
    """No rate without limit, no time of zero, and no FLOPs of kernels that multiply nothing."""
    shown = bifurcate("gpus", "show", "h100-sxm", "--json").json["constants"]
    assert all(item["value"] for item in shown.values())
    kinds = {name.removesuffix("_flops_fraction") for name in shown if "flops_fraction" in name}
    assert {"gemm", "experts", "attention", "prefill_attention"} <= kinds
    assert not {"norm", "copy", "gather", "quantise", "combine"} & kinds
    assert "collective_flops_fraction" not in shown
    assert {"gather_bandwidth_fraction", "collective_overlap"} <= shown.keys()
    assert not {"step_us", "module_us", "combine_block_us"} & shown.keys()


def test_a_table_of_a_gpu_counts_its_constants_by_source() -> None:
    """The table sums up what JSON and CSV list, and its counts add up to all of it."""
    table = bifurcate("gpus", "show", "h100-sxm").text
    answer = bifurcate("gpus", "show", "h100-sxm", "--json").json
    carried = [item for item in answer["constants"].values() if item["origin"] != "fitted"]
    counts = re.findall(r"^ +(\d+)  ", table.partition("constants  ")[2], re.MULTILINE)
    assert sum(map(int, counts)) == len(answer["fitted"]) + len(carried)
    assert "fitted.attention_launch_us" not in table
    assert len(table.splitlines()) < 80


def test_aliases_name_the_same_gpu() -> None:
    """A GPU answers to what drivers and frameworks call it."""
    for alias in ("NVIDIA H100 80GB HBM3", "H100-SXM5-80GB", "h100"):
        assert bifurcate("gpus", "show", alias, "--json").json["id"] == "h100-sxm"


@pytest.mark.parametrize(("group", "noun"), [("gpus", "profile"), ("scenarios", "scenario")])
def test_everything_shipped_passes_its_check(group: str, noun: str) -> None:
    """The shipped profiles and scenarios have nothing to find; data on stdout stay none."""
    done = bifurcate(group, "check")
    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(rf"\d+ {noun}s checked: nothing found\n", done.err)


def altered(source: Path, target: Path, *changes: tuple[str, str]) -> Path:
    """Write a changed copy of a shipped file under its new name."""
    text = source.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    target.write_text(text, encoding="utf-8")
    return target


def test_a_users_profile_wins_and_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile in $BIFURCATE_HARDWARE_PATH hides ours of that name, and new ones are listed."""
    ours = data_dir("hardware_profiles") / "l4.toml"
    figure = "memory_bandwidth_gb_per_s = { value = 300"
    altered(ours, tmp_path / "l4.toml", (figure, figure.replace("300", "600")))
    changes = (
        ('id = "l4"', 'id = "l5"'),
        ('    "NVIDIA L4",', '    "NVIDIA L5",'),
        ('"l4-24gb"', '"l5-24gb"'),
    )
    altered(ours, tmp_path / "l5.toml", *changes)
    question = ("estimate", "-m", "mistral-7b", "--constants", "peak", "--json", "-g")
    before = bifurcate(*question, "l4").json
    monkeypatch.setenv("BIFURCATE_HARDWARE_PATH", str(tmp_path))
    after = bifurcate(*question, "l4").json
    assert after["hardware"]["hash"] != before["hardware"]["hash"]
    assert after["step_ms"] == pytest.approx(before["step_ms"] / 2, rel=0.05)
    assert bifurcate(*question, "NVIDIA L5").json["step_ms"] == before["step_ms"]
    listed = [row["gpu"] for row in bifurcate("gpus", "--json").json]
    assert "l5" in listed
    assert bifurcate(*question, str(tmp_path / "l5.toml")).json["hardware"]["name"] == "l5"


def test_a_profile_that_cannot_be_true_is_found(tmp_path: Path) -> None:
    """gpus check finds a rate with sparsity: twice what units times clock can do."""
    path = altered(
        data_dir("hardware_profiles") / "l4.toml",
        tmp_path / "l4.toml",
        ("bf16_tflops = { value = 121,", "bf16_tflops = { value = 242,"),
    )
    done = bifurcate("gpus", "check", str(path))
    assert (done.code, done.out) == (1, "")
    assert "bf16_tflops" in done.err


def test_a_users_scenario_is_listed_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scenario in $BIFURCATE_SCENARIO_PATH is listed, shown and swept by name."""
    ours = data_dir("scenarios") / "one-sample.toml"
    altered(ours, tmp_path / "mine.toml", ('id = "one-sample"', 'id = "mine"'))
    monkeypatch.setenv("BIFURCATE_SCENARIO_PATH", str(tmp_path))
    assert "mine" in [row["scenario"] for row in bifurcate("scenarios", "--json").json]
    assert bifurcate("scenarios", "show", "mine", "--json").json["points"] == 24
    assert bifurcate("sweep", "mine").text == bifurcate("sweep", "one-sample").text
    wrong = altered(
        tmp_path / "mine.toml", tmp_path / "wrong.toml", ('"mine"', '"wrong"'), ('"a40"', '"a41"')
    )
    done = bifurcate("scenarios", "check", str(wrong))
    assert (done.code, done.out) == (1, "")
    assert "'a41'" in done.err
