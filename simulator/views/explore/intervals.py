"""Intervals of steps and speed-ups, recorded for the spreads of any GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from simulator.inputs.dtypes import Dtype
from simulator.inputs.setup import Setup
from simulator.timing.interval import (
    Deviation,
    Family,
    Spread,
    StepSums,
    Uncertainty,
    format_of,
    speedup_interval,
    uncertainty_of,
)
from simulator.timing.step import KindTime
from simulator.views.explore.symbol import Recorder
from simulator.views.explore.tape import Tapes, Unique

# The variables of an interval: those of the step, then for each kind of kernel its time and the
# GPU's spread.
STORED = ("stored_below_s", "stored_above_s")
STEP_SPENT = ("total_s", "device_s", "host_s", "collective_s", "bound_s", *STORED)
SPENT = ("total_s", "fixed_s", "squares_s2", "launches", "cached_s")
SPREAD = tuple(item.name for item in fields(Spread))
# What of a setup its interval depends on, besides formats.
_HOW = ("attention", "kernel", "kv_layout", "execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The structure of an interval.

    Attributes
    ----------
    how
        How the step is run: ``_HOW`` of its setup.
    families, formats, cached
        Kinds of the step's kernels, the format that selects each one's spread, and the kinds that
        read data repeatedly.
    stored
        Whether every sample reads one stored context.
    peak
        Whether times are those of published peaks.
    """

    how: tuple[str, ...]
    families: tuple[Family, ...]
    formats: tuple[Dtype, ...]
    cached: tuple[Family, ...]
    stored: bool
    peak: bool

    def record(self, recorder: Recorder) -> Uncertainty:
        """Compute the interval with symbols for the step's times and for the spreads."""
        step: dict[str, Any] = {name: recorder.variable(name) for name in STEP_SPENT}
        if not self.stored:
            step |= dict.fromkeys(STORED, 0.0)
        families: dict[Family, KindTime] = {}
        launches: dict[Family, Any] = {}
        cached: dict[Family, Any] = {}
        spreads: dict[Family, Spread] = {}
        for family in self.families:
            total, fixed, squares, launched, cached_s = map(recorder.variable, SPENT)
            families[family] = KindTime(total_s=total, fixed_s=fixed, squares_s2=squares)
            launches[family] = launched
            if family in self.cached:
                cached[family] = cached_s
            spread: dict[str, Any] = {name: recorder.variable(name) for name in SPREAD}
            spreads[family] = Spread(**spread)
        sums = StepSums(**step, families=families, launches=launches, cached_s=cached)
        setup = Setup().but(**dict(zip(_HOW, self.how, strict=True)))
        return uncertainty_of(sums, spreads, setup, peak=self.peak)


@dataclass
class Intervals:
    """All intervals of a page.

    Attributes
    ----------
    known
        The structure of each.
    recorded
        For each: its kernels, the names of its errors, and its tape: low, high, and below and above
        of every error.
    ratios
        Tapes of the interval of a speed-up, by the numbers of both steps' intervals.
    """

    tapes: Tapes
    known: Unique[Interval] = field(default_factory=Unique)
    recorded: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, int] = field(default_factory=dict)
    _results: dict[Interval, dict[str, Any]] = field(default_factory=dict)

    def add(self, setup: Setup, kinds: Mapping[Family, tuple[bool, bool]], *, peak: bool) -> int:
        """Record the interval of a step, and return its number.

        Parameters
        ----------
        setup
            How the step is run.
        kinds
            Its kernels, and whether they read data again or a stored context.
        peak
            Whether the constants are published peaks.
        """
        interval = Interval(
            how=tuple(getattr(setup, name) for name in _HOW),
            families=tuple(kinds),
            formats=tuple(format_of(family, setup) for family in kinds),
            cached=tuple(family for family, (again, _) in kinds.items() if again),
            stored=any(stored for _, stored in kinds.values()),
            peak=peak,
        )
        number = self.known.place(interval)
        if number == len(self.recorded):
            # Formats choose the spreads, and not what is computed of them.
            whatever = replace(interval, formats=())
            if whatever not in self._results:
                self._results[whatever] = self._recorded(whatever)
            formats = {"families": interval.families, "formats": interval.formats}
            self.recorded.append(formats | self._results[whatever])
        return number

    def _recorded(self, interval: Interval) -> dict[str, Any]:
        """Record an interval: the names of its errors, and its tape."""
        recorder = Recorder()
        result = interval.record(recorder)
        parts = [*result.shared.values(), *result.own.values()]
        errors = [error for part in parts for error in (part.below_s, part.above_s)]
        return {
            "shared": list(result.shared),
            "own": list(result.own),
            "tape": self.tapes.add(recorder, [result.low_s, result.high_s, *errors]),
        }

    def add_ratio(self, first: int, second: int) -> None:
        """Record the interval of the ratio of two steps' times.

        The variables are both times, then below and above of all errors of one and of the other.
        """
        key = f"{first}:{second}"
        if key in self.ratios:
            return
        recorder = Recorder()
        totals: list[Any] = [recorder.variable("total_s") for _ in (first, second)]
        steps = []
        for number, total in zip((first, second), totals, strict=True):
            shared, own = (
                {name: Deviation(*map(recorder.variable, _ENDS)) for name in names}
                for names in (self.recorded[number][kind] for kind in ("shared", "own"))
            )
            steps.append(Uncertainty(total_s=total, low_s=0.0, high_s=0.0, shared=shared, own=own))
        self.ratios[key] = self.tapes.add(recorder, speedup_interval(*steps))


_ENDS = ("below_s", "above_s")
