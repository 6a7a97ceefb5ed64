"""What holds over a scenario's whole grid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.answers.sweep import prepare_sweep
from simulator.answers.verdict import VERDICTS, Verdict
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario, verdict_of
from simulator.inputs.scenario import Verdict as Expectation
from simulator.inputs.setup import ATTENTIONS

# A page of more rows than this is not read; `bifurcate sweep` writes them all.
MOST_POINTS_LISTED = 240


@dataclass(frozen=True, kw_only=True)
class GridSummary:
    """What holds over all points of a scenario's grid.

    Attributes
    ----------
    gained
        Points at which bifurcated attention is at least ``GAIN_SPEEDUP`` times as fast.
    standard_fits, bifurcated_fits
        Points that fit in memory.
    verdict
        The answer for the grid as a whole, as the scenario's own is judged.
    decided
        Points by whether to bifurcate, as sure as the predictions are.
    least, most
        The points of least and of most speed-up, as columns of the sweep.
    rows
        Every point, or none where there are more than ``MOST_POINTS_LISTED``.
    skipped
        Combinations that cannot be run, a sentence each.
    """

    points: int
    gained: int
    standard_fits: int
    bifurcated_fits: int
    verdict: Expectation
    decided: Mapping[Verdict, int]
    least: Mapping[str, Any]
    most: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]


def summarise(scenario: Scenario, **settings: Any) -> GridSummary:
    """Compute a scenario's whole grid, as a sweep does, and sum it up.

    Parameters
    ----------
    settings
        As for :func:`simulator.answers.sweep.prepare_sweep`.

    Raises
    ------
    SimulatorError
        If a model or GPU is not known, or nothing can be run.
    """
    grid = prepare_sweep(scenario, **settings)
    speedups: list[float] = []
    fits = dict.fromkeys(ATTENTIONS, 0)
    decided = dict.fromkeys(VERDICTS, 0)
    extremes: list[Mapping[str, Any]] = []
    rows: list[Mapping[str, Any]] = []
    for block in grid.blocks():
        here = block["speedup"]
        speedups += here.tolist()
        for name in ATTENTIONS:
            fits[name] += int(block[f"{name}_fits"].sum())
        for verdict in VERDICTS:
            decided[verdict] += int((block["verdict"] == verdict).sum())
        extremes += [_row(block, int(here.argmin())), _row(block, int(here.argmax()))]
        if grid.points <= MOST_POINTS_LISTED:
            rows += [_row(block, index) for index in range(len(here))]
    return GridSummary(
        points=grid.points,
        gained=sum(speedup >= GAIN_SPEEDUP for speedup in speedups),
        standard_fits=fits["standard"],
        bifurcated_fits=fits["bifurcated"],
        verdict=verdict_of(speedups),
        decided=decided,
        least=min(extremes, key=lambda row: float(row["speedup"])),
        most=max(extremes, key=lambda row: float(row["speedup"])),
        rows=tuple(rows),
        skipped=grid.skipped,
    )


def _row(block: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return one point of a block of a sweep."""
    return {
        name: column[index : index + 1].tolist()[0] if hasattr(column, "shape") else column
        for name, column in block.items()
    }
