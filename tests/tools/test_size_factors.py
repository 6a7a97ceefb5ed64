"""The shipped table of size factors is what its tool writes, and names its sources."""

import math
import tomllib
from pathlib import Path

import pytest

from simulator.answers.size_factor import shipped_factors
from simulator.answers.studies import fit_studies
from tools import size_factors

RUNS = Path(__file__).parents[3] / "shared" / "training" / "training_runs.csv"


def test_every_paper_has_its_source() -> None:
    """Each factor names papers, and the file says where each one's figures are from."""
    table = tomllib.loads(size_factors.PATH.read_text(encoding="utf-8"))
    factors = shipped_factors().factors
    assert {paper for each in factors for paper in each.papers} == set(table["sources"])
    assert all(each.low < each.size_factor < each.high for each in factors)
    assert all(each.loss_low < each.loss_change < each.loss_high for each in factors)


@pytest.mark.skipif(not RUNS.is_file(), reason="no ../shared/training on this machine")
def test_the_table_is_that_of_the_public_runs() -> None:
    """The command writes the file again, digit by digit."""
    text = size_factors.toml(fit_studies(RUNS), size_factors.sources_of(RUNS))
    assert text == size_factors.PATH.read_text(encoding="utf-8")


@pytest.mark.skipif(not RUNS.is_file(), reason="no ../shared/training on this machine")
def test_public_runs_by_hand() -> None:
    """Multi-group of the MLP-matched runs: five pairs at equal size, averaged by hand.

    Both families are in every set and size, so that the levels of these cancel. Parameters within a
    pair differ by 0.04 % at most.
    """
    pairs = [
        (2.80808, 2.81631),
        (2.55295, 2.56333),
        (2.42834, 2.44243),
        (2.32258, 2.33321),
        (2.59488, 2.60653),
    ]
    change = sum(math.log(group / head) for group, head in pairs) / len(pairs)
    result = fit_studies(RUNS)
    found = next(
        effect
        for effect in result.effects
        if effect.paper == "gla2025" and effect.key == ("multi-group", "mlp")
    )
    assert found.log_loss == pytest.approx(change, abs=2e-5)
    assert result.refused == ()
