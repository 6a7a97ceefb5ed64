"""Yes, no, or too close to call: what an interval of the speed-up decides."""

import math
from typing import Any

import numpy as np
import pytest
from builders import asked, gpus, mistral_7b, model_shapes, runs, setups, workloads
from hypothesis import assume, given, settings

import simulator
from simulator.answers.compare import compare
from simulator.answers.estimate import Question
from simulator.answers.verdict import VERDICTS, verdict_of
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

# Low, high, whether standard and bifurcated fit, and whether that is sure.
CASES = [
    ((1.01, 1.5, True, True, True), "yes"),
    ((0.99, 1.5, True, True, True), "too close to call"),
    ((0.5, 0.99, True, True, True), "no"),
    ((0.5, 1.01, True, True, True), "no"),  # at best a gain of 1 %: none to act on
    ((1.001, 1.01, True, True, True), "no"),
    ((0.98, 1.03, True, True, True), "too close to call"),
    ((0.5, 0.9, False, True, True), "yes"),
    ((1.1, 1.5, True, False, True), "no"),
    ((1.1, 1.5, False, False, True), "neither fits"),
    ((1.1, 1.5, False, False, False), "neither fits"),
    ((1.1, 1.5, False, True, False), "yes"),
    ((0.5, 0.9, True, False, False), "no"),
    ((0.5, 0.9, False, True, False), "too close to call"),
    ((1.1, 1.5, True, False, False), "too close to call"),
    ((0.0, math.inf, True, True, True), "not known"),
    ((0.0, math.inf, False, True, True), "yes"),  # what does not fit is no choice
]


@pytest.mark.parametrize(("case", "expected"), CASES)
def test_a_verdict_needs_the_whole_interval(
    case: tuple[float, float, bool, bool, bool], expected: str
) -> None:
    """Unless all of it says so, it is too close to call; what alone fits in memory is taken.

    Where that is not sure, time must say the same.
    """
    low, high, standard, bifurcated, sure = case
    found = verdict_of(
        low, high, standard_fits=standard, bifurcated_fits=bifurcated, memory_sure=sure
    )
    assert found == expected


def test_arrays_decide_as_numbers_do() -> None:
    """The verdicts of a sweep are those of single questions."""
    low, high, standard, bifurcated, sure = (
        np.array(column) for column in zip(*(case for case, _ in CASES), strict=True)
    )
    found: Any = verdict_of(
        low, high, standard_fits=standard, bifurcated_fits=bifurcated, memory_sure=sure
    )
    assert found.tolist() == [expected for _, expected in CASES]


@settings(max_examples=30)
@given(model_shapes(), gpus(), setups(), workloads())
def test_verdict_and_winner_never_contradict(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """Yes never where standard wins, no never where bifurcated does; the ratio lies inside."""
    assume(runs(shape, setup))
    answer = compare(Question(shape, card, setup, work))
    rounding = 1 + 1e-12
    assert answer.speedup_low <= answer.speedup * rounding
    assert answer.speedup <= answer.speedup_high * rounding
    assert answer.verdict in VERDICTS
    assert (answer.verdict == "not known") <= (answer.speedup_high == math.inf)
    if answer.verdict == "yes":
        assert answer.winner != "standard"
    if answer.verdict == "no":
        assert answer.winner != "bifurcated"


def test_more_samples_turn_no_into_yes_through_too_close() -> None:
    """One sample shares nothing, 64 share a lot, and between the two nobody is sure."""
    card = load_hardware("b200-sxm")
    found = [
        compare(Question(mistral_7b(), card, *asked(samples=n))).verdict for n in (1, 2, 3, 4, 64)
    ]
    order = {"no": 0, "too close to call": 1, "yes": 2}
    assert found[0] == "no"
    assert found[-1] == "yes"
    assert "too close to call" in found
    assert [order[item] for item in found] == sorted(order[item] for item in found)


def test_where_no_rows_tell_nothing_is_decided() -> None:
    """No rows are of groups of 16 GPUs: the ratio has no interval, and the advice is to measure."""
    card = load_hardware("h100-sxm")
    answer = simulator.compare("llama-3.1-405b", card, tensor_parallel=16, samples=32)
    assert answer.winner == "bifurcated"
    assert (answer.speedup_low, answer.speedup_high) == (0, math.inf)
    assert answer.verdict == answer.verdict_over_stored == "not known"
    assert answer.advice.startswith("Measure both")
    assert answer.advice.endswith("is not known.")


def test_a_close_call_says_what_to_do() -> None:
    """It asks for a measurement, and does not tell to switch."""
    card = load_hardware("h100-sxm")
    answer = compare(Question(mistral_7b(), card, *asked(kernel="einsum", samples=16)))
    assert answer.verdict == "too close to call"
    assert answer.winner != "tie"
    assert answer.advice.startswith("Measure both")
