"""Every shipped scenario: complete, sourced, runnable, and told truly in docs/scenarios.md."""

import itertools
import math
import re
from pathlib import Path
from typing import get_args

import pytest

from simulator.counts.transformer import check_split
from simulator.errors import ScenarioError
from simulator.inputs.files import read_toml
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Basis, Scenario, check_scenario, read_scenario
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Workload
from simulator.resources import data_dir

PATHS = sorted(data_dir("scenarios").glob("*.toml"))
DOCUMENT = Path(__file__).parents[2] / "docs" / "scenarios.md"
each_scenario = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)

# A whole sweep of all of them stays a matter of seconds, and no size is a slip of the keyboard.
MOST_POINTS, MOST_POINTS_IN_ALL = 200, 1000
LONGEST_CONTEXT, MOST_SEQUENCES, MOST_DECODED = 2**17, 10_000, 2**15


def load(name: str) -> Scenario:
    """Read a shipped scenario, whatever the user's own search path."""
    return read_scenario(data_dir("scenarios") / f"{name}.toml")


def numbers(scenario: Scenario, axis: str) -> list[int]:
    """Return the values of a numeric axis."""
    return [int(value) for value in scenario.axes.get(axis, (1,))]


@each_scenario
def test_names_resolve(path: Path) -> None:
    """Each model and GPU is one this package knows, with the KV heads asked for."""
    assert check_scenario(read_scenario(path)) == []


@each_scenario
def test_models_split_over_the_gpus(path: Path) -> None:
    """Each model's heads divide over the tensor-parallel sizes of the grid."""
    scenario = read_scenario(path)
    for model in scenario.models:
        for ranks in numbers(scenario, "tensor_parallel"):
            check_split(load_model(model), ranks)


@each_scenario
def test_nothing_that_matters_is_left_to_a_default(path: Path) -> None:
    """Lengths, samples and the standard cache's layout are stated: the verdict hangs on them."""
    stated = read_scenario(path).workload
    context = "tree" if "tree" in stated else "context_tokens"
    assert {context, "samples", "decoded_tokens", "kv_layout"} <= set(stated)


@each_scenario
def test_sizes_are_real(path: Path) -> None:
    """Lengths, samples and grids stay below what anybody runs."""
    scenario = read_scenario(path)
    assert 1 <= scenario.points <= MOST_POINTS
    contexts, prompts = numbers(scenario, "context_tokens"), numbers(scenario, "prompts")
    for tree in scenario.axes.get("tree", ()):
        work = Workload(tree=tree)
        contexts.append(work.context_tokens)
        prompts.append(work.prompts)
    assert max(contexts) <= LONGEST_CONTEXT
    assert max(numbers(scenario, "decoded_tokens")) <= MOST_DECODED
    assert max(numbers(scenario, "samples")) * max(prompts) <= MOST_SEQUENCES


@each_scenario
def test_prose_can_be_checked(path: Path) -> None:
    """A source names a paper, repository or issue; a question asks; a title fits on one line."""
    scenario = read_scenario(path)
    assert len(scenario.title) <= 100
    assert not scenario.title.endswith(".")
    assert scenario.question.endswith("?")
    assert len(scenario.description) > 80
    place = re.compile(r"arXiv \d{4}\.\d{5}|[\w.-]+/[\w.-]+|Nature")
    places = [source for source in scenario.sources if place.search(source)]
    assert places, "no source that can be looked up"
    for source in scenario.sources:
        assert len(source) > 20, f"too short to find: {source!r}"


@each_scenario
def test_a_verdict_says_what_it_rests_on(path: Path) -> None:
    """The file has a basis, and the reason begins with it."""
    scenario = read_scenario(path)
    assert "verdict_basis" in read_toml(path, ScenarioError)
    assert scenario.verdict_reason.startswith(scenario.verdict_basis.capitalize())


def test_most_verdicts_are_derived_and_the_document_tells_which() -> None:
    """The document explains each basis, and some verdicts are of each."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = {read_scenario(path).verdict_basis for path in PATHS}
    assert found == set(get_args(Basis))
    assert all(f"- *{basis}*: " in text for basis in found)


def test_two_grids_of_one_recipe_have_one_prompt() -> None:
    """Best of N and beam search of one recipe put the same problem to the model."""
    beams = load("prm-beam-search").axes["tree"]
    prompts = {Workload(tree=tree).tree[0].tokens for tree in beams}
    assert prompts == set(load("best-of-n-math500").axes["context_tokens"])


def test_nothing_advises_a_switch_that_is_gone() -> None:
    """Whoever names vLLM's cascade attention in a source says that 0.32 removed it."""
    for path in PATHS:
        text = " ".join(read_scenario(path).sources)
        if "cascade attention" in text and "vllm-project" in text and "12395" not in text:
            assert "0.32" in text, path.stem


def test_there_are_enough_of_each_verdict() -> None:
    """Workloads that do not gain are as much a part of the answer as those that do."""
    verdicts = [read_scenario(path).verdict for path in PATHS]
    assert len(PATHS) >= 14
    assert verdicts.count("gain") >= 5
    assert verdicts.count("no gain") >= 5
    assert verdicts.count("mixed") >= 2


def test_titles_tell_scenarios_apart() -> None:
    """No two scenarios have the same title or question."""
    scenarios = [read_scenario(path) for path in PATHS]
    assert len({scenario.title for scenario in scenarios}) == len(PATHS)
    assert len({scenario.question for scenario in scenarios}) == len(PATHS)


def test_all_of_them_are_a_small_sweep() -> None:
    """All grids together stay small."""
    assert sum(read_scenario(path).points for path in PATHS) <= MOST_POINTS_IN_ALL


def test_the_papers_grid_is_there() -> None:
    """The paper's own 8K grid: 7B multi-head and multi-group, 1 to 1024 samples, one H100."""
    axes = load("code-sampling-8k").axes
    assert axes["samples"] == tuple(2**power for power in range(11))
    assert axes["context_tokens"] == (8192,)
    assert axes["gpu"] == ("h100-sxm",)
    assert [load_model(str(model)).kv_heads for model in axes["model"]] == [32, 8]
    # The paper's code reads the whole context: a sliding window would hide half of it.
    windows = {
        group.window for model in axes["model"] for group in load_model(str(model)).layer_groups
    }
    assert windows == {None}


# KV bytes read by standard over bifurcated attention, b (m_c + m_d) / (m_c + b m_d), from the
# paper's equations 5 and 6, at the sizes each text names.
QUOTED_RATIOS = [
    ("code-sampling-8k", "64 times at 128", 8192, 128, 64, 64),
    ("code-sampling-8k", "14 times at 16 samples", 8192, 16, 64, 14),
    ("code-sampling-16k-32k", "32640 tokens read 30 times less", 32640, 32, 64, 30),
    ("repeated-sampling", "9 times fewer", 1024, 1000, 128, 9),
    ("swe-bench-sampling", "52 times less", 16384, 250, 256, 52),
    ("long-document-qa", "213 times less", 19947, 256, 16, 213),
    ("self-consistency-maj40", "7.5 times less", 1024, 40, 128, 7.5),
    ("pass-at-k-200", "only 2.0", 200, 200, 200, 2.0),
    ("best-of-n-math500", "1.2 at N = 256", 256, 256, 1024, 1.2),
    ("tree-search", "15 times fewer", 4000, 50, 200, 15),
    ("generative-recommendation", "78 times fewer", 300, 128, 1.5, 78),
    ("grpo-deepseekmath", "1.6 (256 shared", 256, 64, 384, 1.6),
    ("rl-dapo", "= 1.2 at t = 10,240", 2048, 16, 10240, 1.2),
    ("rl-r1-zero", "1.1 after 4,096", 512, 16, 4096, 1.1),
    ("rl-r1-zero", "1.03 after 16,384", 512, 16, 16384, 1.03),
    ("speculative-draft-tree", "204 times fewer", 1000, 256, 1, 204),
    ("speculative-samples", "4 to 43 times", 8192, 4, 64, 4),
    ("speculative-samples", "4 to 43 times", 8192, 64, 64, 43),
]
# The same over trees: every path for every sample over each node once.
QUOTED_TREE_RATIOS = [
    ("apps-tree", "41 times fewer", "examples=2400,problem=512x4", 128, 64, "41"),
    ("document-questions", "46 times fewer", "document=19947,question=64x64", 1, 64, "46"),
    ("few-shot-majority", "17 times fewer", "shots=1K,problem=128x8", 40, 64, "17"),
    ("few-shot-majority", "still 5.4 times", "shots=1K,problem=128x8", 40, 255, "5.4"),
    ("grpo-shared-system", "15 times fewer", "system=4K,question=512x8", 16, 256, "15"),
    ("grpo-shared-system", "3.0 times with", "system=100,question=512x8", 16, 256, "3.0"),
    ("prm-beam-search", "4.5 times fewer", "problem=256,steps=1Kx64", 4, 32, "4.5"),
]


@pytest.mark.parametrize(
    ("name", "text", "context", "samples", "decoded", "quoted"),
    QUOTED_RATIOS,
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_quoted_ratio_follows_from_the_sizes(
    name: str, text: str, context: int, samples: int, decoded: float, quoted: float
) -> None:
    """A KV-IO ratio in a verdict's reason is that of the named sizes, to the digits given."""
    assert text in load(name).verdict_reason
    ratio = samples * (context + decoded) / (context + samples * decoded)
    digits = 2 if quoted == 1.03 else (1 if not float(quoted).is_integer() or quoted == 2 else 0)
    assert round(ratio, digits) == pytest.approx(quoted)


@pytest.mark.parametrize(
    ("name", "text", "tree", "samples", "decoded", "quoted"),
    QUOTED_TREE_RATIOS,
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_quoted_ratio_of_a_tree_follows_from_the_sizes(
    name: str, text: str, tree: str, samples: int, decoded: int, quoted: str
) -> None:
    """A KV-IO ratio of a tree is that of the named sizes, of a tree in the file."""
    scenario = load(name)
    assert text in scenario.verdict_reason
    work = Workload(tree=tree, samples=samples)
    assert tree_text(work.tree) in scenario.axes["tree"]
    sequences = work.prompts * samples
    nodes = itertools.accumulate((level.branches for level in work.tree), int.__mul__)
    stored = sum(count * level.tokens for count, level in zip(nodes, work.tree, strict=True))
    ratio = sequences * (work.context_tokens + decoded) / (stored + sequences * decoded)
    assert f"{ratio:.{len(quoted.partition('.')[2])}f}" == quoted


@pytest.mark.parametrize(
    ("name", "axis", "value"),
    [
        ("best-of-n-math500", "samples", (4, 16, 64, 256)),
        ("chat-prompt-cache", "context_tokens", (512,)),
        ("grpo-deepseekmath", "samples", (64,)),
        ("long-document-qa", "context_tokens", (19947,)),
        ("one-kv-head-per-gpu", "tensor_parallel", (8,)),
        ("pass-at-k-200", "samples", (200,)),
        ("rl-dapo", "tensor_parallel", (4,)),
        ("self-consistency-maj40", "samples", (40,)),
        ("tree-search", "samples", (20, 50)),
    ],
)
def test_sizes_are_those_of_the_source(name: str, axis: str, value: tuple[int, ...]) -> None:
    """Sizes that a paper, recipe or trace fixes are the ones in the file."""
    assert load(name).axes[axis] == value


def test_one_kv_head_per_gpu_is_what_it_says() -> None:
    """Split over the GPUs of the scenario, the model keeps one KV head on each."""
    scenario = load("one-kv-head-per-gpu")
    [ranks] = numbers(scenario, "tensor_parallel")
    assert {load_model(model).kv_heads // ranks for model in scenario.models} == {1}


def test_latent_attention_is_compute_bound_already() -> None:
    """The quoted 240 FLOP per byte follow from DeepSeek-V3's published widths."""
    # 128 heads take a 576-wide product and a 512-wide one with each cached vector of 576 values.
    assert math.isclose(128 * 2 * (576 + 512) / (576 * 2), 240, rel_tol=0.01)
    assert "about 240" in load("mla-deepseek-v3").description


def table() -> list[str]:
    """Return the rows that docs/scenarios.md should have."""
    rows = [
        "| Scenario | Expect | Basis | Finding | Models | GPUs | Points |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in PATHS:
        scenario = read_scenario(path)
        cells = [
            f"[`{scenario.id}`](../scenarios/{scenario.id}.toml)",
            scenario.verdict,
            scenario.verdict_basis,
            scenario.title,
            ", ".join(scenario.models),
            ", ".join(scenario.gpus),
            str(scenario.points),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def test_the_document_lists_them_as_they_are() -> None:
    """The table of docs/scenarios.md is the files' own; on failure, paste the expected one."""
    lines = DOCUMENT.read_text(encoding="utf-8").partition("## All of them")[2].splitlines()
    expected = table()
    assert [line for line in lines if line.startswith("|")] == expected, "\n".join(expected)


def test_the_documents_example_is_a_scenario(tmp_path: Path) -> None:
    """The example to start one's own from loads, and names what exists."""
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "my-rollouts.toml"
    path.write_text(example, encoding="utf-8")
    scenario = read_scenario(path)
    assert check_scenario(scenario) == []
    assert scenario.points == 2 * 3 * 3 * 2
