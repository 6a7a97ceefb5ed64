"""The simulator's own answer to each shipped scenario, against the verdict its sources give."""

import numpy as np
import pytest

from simulator.answers.sweep import prepare_sweep
from simulator.inputs.scenario import load_scenario, scenario_files, verdict_of


@pytest.mark.parametrize("name", scenario_files())
def test_prediction_never_contradicts_the_verdict(name: str) -> None:
    """A gain is never predicted as no gain nor the other way; mixed may go either way.

    Verdicts are claims from sources, and grids end at round sizes: one point more or less moves a
    scenario between mixed and its neighbours, which is no contradiction.
    """
    scenario = load_scenario(name)
    blocks = prepare_sweep(scenario).blocks()
    speedups = np.concatenate([block["speedup"] for block in blocks])
    assert {scenario.verdict, verdict_of(speedups.tolist())} != {"gain", "no gain"}


def test_verdicts_and_predictions_mostly_agree() -> None:
    """At most one in ten scenarios is predicted as other than its verdict."""
    misses = []
    for name in scenario_files():
        scenario = load_scenario(name)
        speedups = [
            float(x) for block in prepare_sweep(scenario).blocks() for x in block["speedup"]
        ]
        if verdict_of(speedups) != scenario.verdict:
            misses.append(name)
    assert len(misses) <= len(scenario_files()) // 10, misses
