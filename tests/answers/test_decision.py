"""A scenario's decision: the cases it is about, the GPUs it is between, and the grid behind it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from simulator import api
from simulator.answers.capacity import Capacity
from simulator.answers.decision import Decision, decide
from simulator.answers.study import asked_scenario, central_cases, narrowed
from simulator.answers.sweep import MOST_POINTS_LISTED, prepare_sweep, summarise
from simulator.errors import ScenarioError, WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.scenario import Scenario, load_scenario
from simulator.inputs.setup import ATTENTIONS
from simulator.inputs.workload import Workload

CODE = load_scenario("code-sampling-8k")


def decision(scenario: Scenario, *gpus: str, target_step_s: float | None = None) -> Decision:
    """Decide a scenario's first case between GPUs, the first of them the scenario's own."""
    return decide(
        central_cases(scenario)[0],
        {gpu: load_hardware(gpu) for gpu in gpus},
        asked=1,
        output_tokens=64,
        target_step_s=target_step_s,
    )


def _settings(found: Decision) -> dict[str, Any]:
    """Return the question of a decision's case as the functions of api take it."""
    return found.case.setup.as_dict() | found.case.workload.as_dict()


def test_a_case_is_the_middle_of_the_grid() -> None:
    """Of a numeric axis the middle is taken, of an even number of values the upper one."""
    cases = central_cases(CODE)
    assert [case.name for case in cases] == ["llama-2-7b", "mistral-7b-v0.2"]
    assert {case.workload.samples for case in cases} == {32}
    even = central_cases(load_scenario("small-model-small-batch"))[0].workload
    assert (even.samples, even.decoded_tokens) == (8, 128)


def test_every_number_of_kv_heads_is_a_case() -> None:
    """What-ifs of KV heads are models of their own."""
    cases = central_cases(load_scenario("kv-heads-what-if"))
    assert [case.model.kv_heads for case in cases] == [32, 8, 1]
    assert [case.kv_heads for case in cases] == [32, 8, 1]


def test_a_choice_says_what_the_api_says() -> None:
    """Times, limits and cost of a choice are those of the single questions."""
    found = decision(CODE, "h100-sxm", "mi300x")
    for choice in found.choices:
        alone = api.compare("llama-2-7b", choice.name, **_settings(found))
        assert choice.comparison.standard.step_s == alone.standard.step_s
        assert choice.comparison.bifurcated.step_s == alone.bifurcated.step_s
        assert choice.limits["bifurcated"].most_samples == Capacity(alone.bifurcated).most_samples
        price = choice.gpu.price_usd_per_hour
        assert price is not None
        expected = price.value / 3600 / alone.bifurcated.tokens_per_s * 1e6
        assert choice.usd_per_million_tokens("bifurcated") == pytest.approx(expected, rel=1e-12)


def test_the_scenarios_own_gpu_comes_first_then_what_is_cheapest() -> None:
    """Order: the scenario's own, those that will do by cost per token, those that will not."""
    found = decision(CODE, "l40s", "v100-sxm2-16gb", "h100-sxm", "b200-sxm", "mi300x")
    assert found.first.name == "l40s"
    others = found.choices[1:]
    good = [choice for choice in others if choice.will_do]
    assert list(others[: len(good)]) == good
    costs = [
        (not choice.comparable, choice.usd_per_million_tokens("bifurcated") or 0.0)
        for choice in good
    ]
    assert all(low <= high for low, high in pairwise(costs))
    # The MI300X is cheaper still, at a price of low trust.
    assert good[-1].name == "mi300x"
    assert found.cheapest is not None
    assert found.cheapest.comparable
    assert others[-1].name == "v100-sxm2-16gb"


def test_cheapest_and_fastest_are_of_those_that_will_do() -> None:
    """A GPU on which the case does not fit, or is too slow, is neither."""
    names = ("h100-sxm", "v100-sxm2-16gb", "rtx-3090", "b200-sxm", "mi300x")
    found = decision(CODE, *names, target_step_s=0.025)
    assert found.cheapest is not None
    assert found.fastest is not None
    good = [choice for choice in found.choices if choice.will_do]
    assert {choice.name for choice in good} == {"h100-sxm", "b200-sxm", "mi300x"}
    assert found.fastest.best.step_s == min(choice.best.step_s for choice in good)
    priced = [choice.usd_per_hour for choice in good if choice.comparable]
    assert found.cheapest.usd_per_hour == min(price for price in priced if price is not None)
    assert decision(CODE, "v100-sxm2-16gb").cheapest is None
    assert decision(CODE, "h100-sxm", target_step_s=1e-4).fastest is None


def test_standings() -> None:
    """What does not fit, what is too slow and what only sharing makes fit is called so."""
    standing = {c.name: c.standing for c in decision(CODE, "h100-sxm", "v100-sxm2-16gb").choices}
    assert standing == {"h100-sxm": "bifurcated only", "v100-sxm2-16gb": "does not fit"}
    assert decision(CODE, "h100-sxm", target_step_s=0.001).first.standing == "too slow"
    single = narrowed(CODE, {"samples": 1})
    assert decision(single, "h100-sxm").first.standing in ("standard", "tie")
    few = narrowed(CODE, {"samples": 8})
    assert decision(few, "h100-sxm").first.standing == "bifurcated"


def test_the_best_of_a_choice_fits() -> None:
    """A faster kind of attention that does not fit is not the best."""
    choice = decision(CODE, "h100-sxm").first
    standard, bifurcated = choice.under("standard"), choice.under("bifurcated")
    swapped = replace(choice.comparison, standard=bifurcated, bifurcated=standard)
    assert replace(choice, comparison=swapped).best is bifurcated
    assert choice.best is bifurcated


def test_a_gpu_that_cannot_run_the_case_is_skipped_and_named() -> None:
    """Where no GPU can run it, that is an error; where some can, a sentence."""
    group = narrowed(CODE, {"tensor_parallel": 2})
    found = decision(group, "h100-sxm", "rtx-4090", "rtx-3090")
    names = {choice.name for choice in found.choices}
    assert "h100-sxm" in names
    assert len(found.skipped) == 3 - len(names)
    split = narrowed(CODE, {"tensor_parallel": 7})
    with pytest.raises(WorkloadError, match="7"):
        decision(split, "h100-sxm", "mi300x")


def test_requests_are_those_of_generate() -> None:
    """The whole request on the first GPU is what generate says of it."""
    for changes in ({}, {"query_tokens": 4, "accepted_tokens": 2}):
        found = decision(narrowed(CODE, changes), "h100-sxm", "mi300x")
        settings = _settings(found)
        assert set(found.requests) == {"standard", "bifurcated"}
        for name, request in found.requests.items():
            alone = api.generate("llama-2-7b", output_tokens=64, **{**settings, "attention": name})
            assert request.total_s == alone.total_s


@pytest.mark.parametrize("name", ["code-sampling-8k", "one-sample", "kv-heads-what-if"])
def test_a_summary_counts_the_points_of_the_sweep(name: str) -> None:
    """Counts, extremes and rows are those of the sweep of the same scenario."""
    scenario = load_scenario(name)
    found = summarise(scenario)
    blocks = list(prepare_sweep(scenario).blocks())
    speedups = [speedup for block in blocks for speedup in block["speedup"].tolist()]
    assert found.points == scenario.points == len(found.rows)
    assert [row["speedup"] for row in found.rows] == speedups
    assert found.gained == len([speedup for speedup in speedups if speedup >= 1.1])
    within = [row["speedup"] for row in found.rows if row["standard_fits"]]
    assert found.both_fit == len(within)
    assert (found.least["speedup"], found.most["speedup"]) == (min(within), max(within))
    for attention, fitting in found.fits.items():
        assert fitting == sum(int(block[f"{attention}_fits"].sum()) for block in blocks)
    assert tuple(found.fits) == ATTENTIONS


def test_a_long_grid_is_summed_up_but_not_listed() -> None:
    """Of more points than a reader looks at, the summary alone is kept."""
    many = narrowed(CODE, {"samples": tuple(range(1, MOST_POINTS_LISTED))})
    found = summarise(many)
    assert found.points == 2 * (MOST_POINTS_LISTED - 1)
    assert found.rows == ()
    assert found.most["speedup"] > found.least["speedup"]


def test_a_question_is_a_scenario_of_one_point() -> None:
    """What is asked on the command line is a grid of one point, its other settings usual."""
    found = asked_scenario({"model": ("gpt2",), "samples": 4, "target_step_ms": None}, ["l4"])
    assert found.points == 1
    assert (found.models, found.gpus) == (("gpt2",), ("l4",))
    work = central_cases(found)[0].workload
    assert (work.samples, work.context_tokens) == (4, Workload().context_tokens)
    with pytest.raises(ScenarioError, match="samples"):
        asked_scenario({"model": ("gpt2",), "samples": 0}, ["l4"])


def test_narrowing_replaces_axes_and_keeps_the_rest() -> None:
    """What is given replaces the scenario's; what is None, or not given, stays."""
    changed = narrowed(CODE, {"model": ["gpt2"], "samples": 4, "gpu": None, "context_tokens": 1000})
    assert changed.models == ("gpt2",)
    assert changed.gpus == CODE.gpus
    assert changed.axes["samples"] == (4,)
    assert changed.axes["context_tokens"] == (1000,)
    assert changed.axes["decoded_tokens"] == CODE.axes["decoded_tokens"]
    assert changed.question == CODE.question


@pytest.mark.parametrize(
    ("change", "word"), [({"samples": 0}, "samples"), ({"target_step_ms": -1.0}, "target_step_ms")]
)
def test_an_impossible_value_is_refused(change: dict[str, float], word: str) -> None:
    """A value that no workload can have is an error of one line that names it."""
    with pytest.raises(ScenarioError, match=word) as caught:
        narrowed(CODE, change)
    assert "\n" not in str(caught.value)
