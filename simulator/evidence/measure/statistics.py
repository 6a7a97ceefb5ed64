"""Median and spread of repeated timings, and the loop that interleaves cells."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulator.evidence.measure.predict import Repeats

Stopwatch = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Times of one call over all repeats.

    Attributes
    ----------
    median_s, least_s, most_s
        [s]
    spread_fraction
        Interquartile range over the median: differences below it are noise.
    """

    median_s: float
    least_s: float
    most_s: float
    spread_fraction: float
    repeats: int


def summarise(seconds: Sequence[float]) -> Statistics:
    """Summarise repeated timings of one call.

    >>> summarise([1.0, 2.0, 3.0, 4.0, 100.0]).median_s
    3.0
    """
    median = statistics.median(seconds)
    quarters = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else []
    spread = (quarters[2] - quarters[0]) / median if quarters and median > 0 else 0.0
    return Statistics(
        median_s=median,
        least_s=min(seconds),
        most_s=max(seconds),
        spread_fraction=spread,
        repeats=len(seconds),
    )


def time_interleaved(stopwatches: Sequence[Stopwatch], timing: Repeats) -> list[list[float]]:
    """Time several things in turn, round after round, so that drift affects all of them equally.

    Parameters
    ----------
    stopwatches
        Functions that run their call once and return its seconds.

    Returns
    -------
    list
        The seconds of every counted repeat, for each stopwatch. One that has used up its share of
        the time skips the remaining rounds, but none stops before ``timing.least`` repeats.
    """
    for _ in range(timing.warm_up):
        for stopwatch in stopwatches:
            stopwatch()
    taken: list[list[float]] = [[] for _ in stopwatches]
    spent = [0.0 for _ in stopwatches]
    for _ in range(timing.most):
        active = False
        for index, stopwatch in enumerate(stopwatches):
            if len(taken[index]) >= timing.least and spent[index] >= timing.budget_s:
                continue
            seconds = stopwatch()
            taken[index].append(seconds)
            spent[index] += seconds
            active = True
        if not active:
            break
    return taken
