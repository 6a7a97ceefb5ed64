"""Intervals of steps and speed-ups, recorded for the spreads of any GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from simulator.inputs.dtypes import Dtype
from simulator.inputs.setup import Setup
from simulator.timing.interval import (
    FAMILIES,
    Deviation,
    Family,
    FamilyTime,
    Spread,
    StepSums,
    Uncertainty,
    speedup_interval,
    uncertainty_of,
)
from simulator.views.explore.symbol import Recorder
from simulator.views.explore.tape import Tapes, Unique

# The variables of an interval: those of the step, then for each kind of kernel its time and the
# GPU's spread.
STORED = ("stored_below_s", "stored_above_s")
STEP_SPENT = ("total_s", "device_s", "host_s", "collective_s", "bound_s", *STORED)
SPENT = ("total_s", "fixed_s", "squares_s2", "launches", "cached_s")
SPREAD = Spread._fields
# What of a setup its interval depends on, besides formats.
_HOW = ("attention", "kernel", "kv_layout", "execution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The structure of an interval.

    Attributes
    ----------
    how
        How the step is run: ``_HOW`` of its setup.
    families, cached
        Kinds of the step's kernels, and those that read data repeatedly.
    stored
        Whether every sample reads one stored context.
    peak
        Whether times are those of published peaks.
    """

    how: tuple[str, ...]
    families: tuple[Family, ...]
    cached: tuple[Family, ...]
    stored: bool
    peak: bool

    def record(self, recorder: Recorder) -> Uncertainty:
        """Compute the interval with symbols for the step's times and for the spreads."""
        variables = map(recorder.variable, count())
        step: dict[str, Any] = dict(zip(STEP_SPENT, variables, strict=False))
        if not self.stored:
            step |= dict.fromkeys(STORED, 0.0)
        families: dict[Family, FamilyTime] = {}
        spreads: dict[Family, Spread] = {}
        for family in self.families:
            spent: dict[str, Any] = dict(zip(SPENT, variables, strict=False))
            if family not in self.cached:
                del spent["cached_s"]
            families[family] = FamilyTime(**spent)
            spread: dict[str, Any] = dict(zip(SPREAD, variables, strict=False))
            spreads[family] = Spread(**spread)
        sums = StepSums(**step, families=families)
        setup = Setup().but(**dict(zip(_HOW, self.how, strict=True)))
        return uncertainty_of(sums, spreads, setup, peak=self.peak)


@dataclass
class Intervals:
    """All intervals of a page.

    Attributes
    ----------
    structures
        What is computed of a step, and ``recorded`` the tape of each: low, high, and below and
        above of every error.
    formats
        Formats that select the spread of each of ``FAMILIES``, as models of the page have them.
    ratios
        Tapes of the interval of a speed-up, by the structures of both steps' intervals.
    """

    tapes: Tapes
    structures: Unique[Interval] = field(default_factory=Unique)
    recorded: list[int] = field(default_factory=list)
    formats: Unique[tuple[Dtype, ...]] = field(default_factory=Unique)
    ratios: dict[str, int] = field(default_factory=dict)
    _errors: list[Uncertainty] = field(default_factory=list)

    @property
    def spreads(self) -> dict[Family, list[Dtype]]:
        """The formats of each kind of kernel for which spreads are needed."""
        used = {family for each in self.structures.items for family in each.families}
        columns = zip(FAMILIES, zip(*self.formats.items, strict=True), strict=True)
        return {family: sorted({*dtypes}) for family, dtypes in columns if family in used}

    def add(self, setup: Setup, kinds: Mapping[Family, tuple[bool, bool]], *, peak: bool) -> int:
        """Record the interval of a step in any formats, and return its structure's number.

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
            cached=tuple(family for family, (again, _) in kinds.items() if again),
            stored=any(stored for _, stored in kinds.values()),
            peak=peak,
        )
        structure = self.structures.place(interval)
        if structure == len(self.recorded):
            recorder = Recorder()
            result = interval.record(recorder)
            parts = [*result.shared.values(), *result.own.values()]
            errors = [error for part in parts for error in (part.below_s, part.above_s)]
            self.recorded.append(self.tapes.add(recorder, [result.low_s, result.high_s, *errors]))
            self._errors.append(result)
        return structure

    def add_ratio(self, *structures: int) -> None:
        """Record the interval of the ratio of two steps' times, given the structures of theirs.

        The variables are both times, then below and above of all errors of one and of the other.
        """
        key = ":".join(map(str, structures))
        if key in self.ratios:
            return
        recorder = Recorder()
        variables: Any = map(recorder.variable, count())
        totals = [next(variables) for _ in structures]
        steps = []
        for structure, total in zip(structures, totals, strict=True):
            shared, own = (
                {name: Deviation(next(variables), next(variables)) for name in names}
                for names in (self._errors[structure].shared, self._errors[structure].own)
            )
            steps.append(Uncertainty(total_s=total, low_s=0.0, high_s=0.0, shared=shared, own=own))
        self.ratios[key] = self.tapes.add(recorder, speedup_interval(*steps))
