"""Which levels of a tree to split: every choice, the best of them, and the rule for each level."""

import itertools
from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, asked, gpu, llama_2_7b, mistral_7b, round_gpu, without
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.answers.compare import compare
from simulator.answers.estimate import Question, estimate
from simulator.answers.sweep import prepare_sweep
from simulator.answers.tree import LevelRule, TreePlan, plan_tree
from simulator.errors import WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, load_scenario
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

THREE = "shots=1K,task=512x4,problem=200x3"


def planned(tree: str = THREE, card: str | None = None, **settings: Any) -> TreePlan:
    """Plan a tree for a multi-head model."""
    profile = gpu(memory_gb=10_000) if card is None else load_hardware(card)
    return plan_tree(Question(llama_2_7b(), profile, *asked(tree=tree, **settings)))


def rule_of(result: TreePlan, name: str) -> LevelRule:
    """Return the rule of one level."""
    return next(rule for rule in result.rules if rule.level.name == name)


@pytest.mark.parametrize("execution", ["graph", "eager"])
@pytest.mark.parametrize("prompts", [1, 5])
def test_one_level_is_compare(prompts: int, execution: str) -> None:
    """Over one level the two choices are standard attention over one context, and bifurcated."""
    setup = Setup(execution=execution)
    work = Workload(context_tokens=3000, prompts=prompts)
    for sizes in (work, Workload(tree=f"3000x{prompts}")):
        result = plan_tree(Question(mistral_7b(), gpu(), setup, sizes))
        wanted = compare(Question(mistral_7b(), gpu(), setup, work))
        [name] = [level.name for level in result.best.result.workload.tree]
        assert result.reading(()).result.operations == wanted.stored.operations
        assert result.reading((name,)).result.operations == wanted.bifurcated.operations
        assert result.reading((name,)).result.step_s == wanted.bifurcated.step_s
        assert result.standard.step_s == wanted.standard.step_s
        assert result.standard.memory == wanted.standard.memory
        assert result.reading((name,)).result.memory == wanted.bifurcated.memory


def test_every_choice_is_tried_and_the_fastest_comes_first() -> None:
    """All subsets of the levels are there once, in order of their time."""
    result = planned(samples=16)
    names = ("shots", "task", "problem")
    subsets = {
        frozenset(split) for count in range(4) for split in itertools.combinations(names, count)
    }
    assert {frozenset(item.split) for item in result.readings} == subsets
    assert len(result.readings) == 8
    times = [item.result.step_s for item in result.readings]
    assert times == sorted(times)
    assert result.best is result.readings[0]


def test_splitting_the_last_level_is_bifurcated_attention_over_whole_prompts() -> None:
    """The same reads as twelve prompts that share nothing; what they share is stored once."""
    alone = planned(samples=16).reading(("problem",)).result
    whole = estimate(
        Question(
            llama_2_7b(),
            gpu(memory_gb=10_000),
            Setup(attention="bifurcated"),
            Workload(context_tokens=1736, prompts=12, samples=16),
        )
    )
    assert alone.totals.kv_bytes_read == whole.totals.kv_bytes_read
    assert alone.totals.launches == whole.totals.launches
    # 12 prompts of 1736 tokens, or 1024 + 4 x 512 + 12 x 200; 16 x 64 own tokens each in both
    token_bytes = 2 * 32 * 32 * 128 * 2
    assert whole.memory.kv_bytes == (12 * 1736 + 12 * 16 * 64) * token_bytes
    assert alone.memory.kv_bytes == (1024 + 4 * 512 + 12 * 200 + 12 * 16 * 64) * token_bytes
    # Re-reads of what is stored once may be served by L2: never slower.
    assert alone.step_s <= whole.step_s


@given(
    st.sampled_from(["h100-sxm", "a40", "l4"]),
    st.sampled_from(["graph", "eager"]),
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 6)), min_size=1, max_size=3),
    st.sampled_from([1, 2, 16, 100]),
)
@settings(deadline=None, max_examples=25)
def test_rules_agree_with_the_choice(
    card: str, execution: str, levels: list[tuple[int, int]], samples: int
) -> None:
    """A level that is split saves time around the fastest choice; one that is joined saves none."""
    tree = ",".join(f"{tokens}x{branches}" for tokens, branches in levels)
    result = planned(tree, card, samples=samples, execution=execution)
    assert {rule.level.name for rule in result.rules if rule.split} == set(result.best.split)
    for rule in result.rules:
        assert rule.gained_s >= 0 if rule.split else rule.gained_s <= 0
        assert rule.saved_bytes >= 0
        assert rule.nodes <= rule.readers
        if rule.gained_s > 0:
            assert rule.verdict != "no"


def test_bytes_of_a_rule_by_hand() -> None:
    """A level's reads that are spared, and one partial result more, per query row and layer.

    8 problems of 128 samples on 32 heads of 128: with 32,768 rows and more blocks than the GPU
    runs at once no keys are split. A row more is read (256 B of query), its partial output and
    log-sum-exp written (256 + 4) and read by the merge (256 + 4).
    """
    result = planned("system=4K,problem=4Kx8", samples=128)
    rule = rule_of(result, "system")
    assert (rule.nodes, rule.readers) == (1, 8)
    rows = 8 * 128 * 32
    assert rule.added_bytes == 32 * rows * (256 + 260 + 260)
    assert rule.saved_bytes == 7 * 4096 * 2 * 32 * 32 * 128 * 2
    # 776 B for each row and layer against 2 x 32 x 128 x 2 B for each of 7 reads of a token.
    token_bytes = 7 * 2 * 32 * 128 * 2
    assert rule.fewer_bytes_from_tokens == rows * 776 // token_bytes + 1 == 222


def test_a_split_pays_from_the_length_it_says() -> None:
    """At that length splitting is faster, one token below it is not."""
    result = planned("system=1K,problem=512x8", "h100-sxm", samples=16)
    rule = rule_of(result, "system")
    assert rule.faster_from_tokens is not None

    def gained_s(tokens: int) -> float:
        other = planned(f"system={tokens},problem=512x8", "h100-sxm", samples=16)
        split, joined = other.reading(("system", "problem")), other.reading(("problem",))
        return joined.result.step_s - split.result.step_s

    assert gained_s(rule.faster_from_tokens) > 0
    assert gained_s(rule.faster_from_tokens - 1) <= 0


def test_nothing_is_gained_where_nothing_branches() -> None:
    """A level with one node below each of its nodes is best read together with it."""
    result = planned("system=4K,problem=4Kx1", "h100-sxm", samples=16)
    assert result.best.split == ("problem",)
    assert rule_of(result, "system").saved_bytes == 0
    assert rule_of(result, "system").faster_from_tokens is None
    assert rule_of(result, "system").fewer_bytes_from_tokens is None


def test_launches_alone_can_decide() -> None:
    """With free launches the whole tree is read apart; slow ones leave one level, then none."""
    free = {"launch_us": 1e-6, "bandwidth_fraction": 1e-3}
    assert set(planned_on(free).best.split) == {"system", "problem"}
    assert planned_on({"launch_us": 1e6}).best.split == ()


def planned_on(constants: dict[str, float]) -> TreePlan:
    """Plan a small tree on a GPU with these constants, which splits no keys."""
    card = gpu({**ROUND_CONSTANTS, **constants}, sm_count=1)
    work = Workload(tree="system=2K,problem=512x4", samples=8)
    return plan_tree(Question(llama_2_7b(), card, Setup(), work))


def test_what_cannot_be_planned_is_refused() -> None:
    """No shared token, or a kernel without a form for trees."""
    with pytest.raises(WorkloadError, match="context_tokens = 0: there is no shared level"):
        plan_tree(Question(llama_2_7b(), round_gpu(), *asked(context_tokens=0)))
    with pytest.raises(WorkloadError, match="'einsum' has no form for a tree of 3 levels"):
        planned(kernel="einsum")
    # One level is the paper's own case.
    plan_tree(Question(llama_2_7b(), round_gpu(), *asked(tree="8K", kernel="einsum")))


def test_layouts_of_the_baseline() -> None:
    """Standard attention stores what the workload says; every choice stores the tree once."""
    copies, shared = planned(samples=4, kv_layout="copies"), planned(samples=4)
    assert copies.standard.memory.kv_bytes > shared.standard.memory.kv_bytes
    assert shared.standard.operations == shared.reading(()).result.operations
    stored = {float(item.result.memory.kv_bytes) for item in copies.readings}
    assert stored == {float(shared.standard.memory.kv_bytes)}


def test_a_sweep_over_trees_is_compare() -> None:
    """Every row of a sweep over trees says what compare says of its tree."""
    shipped = without(load_scenario("few-shot-majority"), "workload")
    axes = {"tree": ["1K,128x4", "1K+128x4", "2K"], "samples": [1, 40], "decoded_tokens": [9]}
    grid = prepare_sweep(Scenario(**{**shipped, "models": ["llama-2-7b"]}, workload=axes))
    rows = []
    for block in grid.blocks():
        count = len(block["speedup"])
        columns = {name: np.broadcast_to(values, count) for name, values in block.items()}
        rows += [{name: column[i] for name, column in columns.items()} for i in range(count)]
    assert len(rows) == 6
    for row in rows:
        tree, samples = str(row["tree"]), int(row["samples"])
        work = Workload(tree=tree, samples=samples, decoded_tokens=9)
        assert (row["context_tokens"], row["prompts"]) == (work.context_tokens, work.prompts)
        setup = Setup(weight_dtype="fp16")
        wanted = compare(Question(load_model("llama-2-7b"), load_hardware("h100-sxm"), setup, work))
        assert row["speedup"] == pytest.approx(wanted.speedup)
        assert row["kv_io_ratio"] == pytest.approx(wanted.kv_io_ratio)
        assert row["bifurcated_memory_bytes"] == wanted.bifurcated.memory.total_bytes


def test_a_sweep_accepts_no_more_than_a_point_processes() -> None:
    """Tokens per second of a grid count the accepted tokens, one where one is processed."""
    shipped = without(load_scenario("few-shot-majority"), "workload")
    axes = {"samples": 4, "query_tokens": [1, 4], "accepted_tokens": [1, 2.5]}
    grid = prepare_sweep(Scenario(**{**shipped, "models": ["gpt2"]}, workload=axes))
    kept = {
        (float(block["accepted_tokens"]), int(tokens)): rate * ms / 1e3 / 4
        for block in grid.blocks()
        for tokens, rate, ms in zip(
            block["query_tokens"],
            block["standard_tokens_per_s"],
            block["standard_step_ms"],
            strict=True,
        )
    }
    assert kept == pytest.approx({(1, 1): 1, (1, 4): 1, (2.5, 1): 1, (2.5, 4): 2.5})


@pytest.mark.parametrize("problems", [1, 2, 4])
def test_hydragen_s_second_level_is_a_gain(problems: int) -> None:
    """Reading problems once beside the examples was measured as a gain (arXiv 2402.05099, 4.4).

    CodeLlama-7B on A100, two-shot APPS: -18 % at equal batch; the sign, lengths being assumed.
    """
    work = Workload(tree=f"examples=2K,problem=512x{problems}", samples=128, decoded_tokens=128)
    result = plan_tree(
        Question(load_model("codellama-7b"), load_hardware("a100-sxm-80gb"), Setup(), work)
    )
    both, one = result.reading(("examples", "problem")), result.reading(("examples",))
    assert both.result.step_s < 0.95 * one.result.step_s


def test_rules_of_a_latent_cache_agree_with_the_choice() -> None:
    """Each side of a rule takes the form that its choice takes: a split level saves time."""
    question = asked(tree="system=4K,problem=1Kx8", samples=16, tensor_parallel=8)
    found = plan_tree(Question(load_model("deepseek-v3"), load_hardware("h200-sxm"), *question))
    assert {item.result.setup.latent_form for item in found.readings} == {"absorbed", "mixed"}
    for rule in found.rules:
        joined = [name for name in found.best.split if name != rule.level.name]
        both = (found.reading((*joined, rule.level.name)), found.reading(tuple(joined)))
        split_s, joined_s = (item.result.step_s for item in both)
        assert rule.split == (rule.gained_s > 0)
        assert rule.gained_s == pytest.approx(joined_s - split_s)
