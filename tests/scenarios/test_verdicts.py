"""The simulator's own answer to each shipped scenario, against the verdict its sources give."""

from functools import cache

import numpy as np
import pytest

from simulator.answers.sweep import prepare_sweep
from simulator.inputs.scenario import load_scenario, scenario_files, verdict_of


@cache
def predicted(name: str) -> str:
    """Return the verdict that the speed-ups over a scenario's grid give."""
    grid = prepare_sweep(load_scenario(name)).blocks()
    return verdict_of(np.concatenate([block["speedup"] for block in grid]).tolist())


@pytest.mark.parametrize("name", scenario_files())
def test_prediction_never_contradicts_the_verdict(name: str) -> None:
    """A gain is never predicted as no gain nor the other way; mixed may go either way.

    Verdicts are claims from sources, and grids end at round sizes: one point more or less moves a
    scenario between mixed and its neighbours, which is no contradiction.
    """
    assert {load_scenario(name).verdict, predicted(name)} != {"gain", "no gain"}


def test_verdicts_and_predictions_mostly_agree() -> None:
    """At most one in ten scenarios is predicted as other than its verdict."""
    names = scenario_files()
    misses = [name for name in names if predicted(name) != load_scenario(name).verdict]
    assert len(misses) <= len(names) // 10, misses
