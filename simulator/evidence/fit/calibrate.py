"""Calibrate a GPU: fit its constants, stage by stage, to its measured rows."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from simulator.errors import MeasurementError
from simulator.evidence.fit.solver import LARGEST_ERROR, Fitted, Free, fit, with_constants
from simulator.evidence.fit.stages import STAGES, Rows, Stage
from simulator.evidence.kernels import EXTERNAL_KERNELS
from simulator.evidence.predict.groups import Group, library_of
from simulator.evidence.predict.measured import named
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import summary_of
from simulator.evidence.rows.kinds import KINDS, RowKind
from simulator.evidence.rows.reading import UNTOLD, Measurements
from simulator.inputs.dtypes import PRECISIONS
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import ENGINES
from simulator.timing.constants import SERVED, Key, Variant

# Shorter times than predicted are told from this share on.
SHORTER = 0.01
# Constants predict alike if times differ by less than this share, on average.
LIKE = 0.01
# What a constant must take from the errors of shapes left out, as a share of them.
LEAST_GAIN = 0.1


@dataclass
class StageFit:
    """One fit: its rows, the variant of its constants, and its result.

    ``untold`` are the constants that the rows cannot determine: they keep their value.
    ``rows`` says which of the kind's rows, as in a stage.
    ``labels`` are the rows' labels in their table, in the order of the fit's residuals.
    ``shapes`` are the rows' shapes: the values of ``shape_columns``, joined by slashes.
    ``before`` are the residuals without constants that had to prove themselves, else None, and
    ``models`` the models that an engine served.
    """

    kind: RowKind
    variant: Variant
    fitted: Fitted
    untold: tuple[Key, ...] = ()
    rows: Rows = "graph"
    sources: tuple[str, ...] = ()
    labels: tuple[Any, ...] = ()
    shapes: tuple[str, ...] = ()
    shape_columns: tuple[str, ...] = ()
    before: "np.ndarray | None" = None
    models: tuple[str, ...] = ()


@dataclass
class Calibration:
    """All fits of one GPU.

    Attributes
    ----------
    profile
        The GPU's profile with the fitted constants.
    fits
        The fits in order.
    left_out
        Kinds of rows that could not be fitted, with reasons.
    """

    profile: HardwareProfile
    fits: list[StageFit]
    left_out: list[str]

    def values(self) -> dict[str, tuple[float, float | None, int]]:
        """Return value, standard error (None if only bounded) and rows of every constant."""
        return {
            name: (value, fit.fitted.stderr.get(name), fit.fitted.rows)
            for fit in self.fits
            for name, value in fit.fitted.constants.items()
        }


def calibrate(measurements: Measurements, gpu: HardwareProfile) -> Calibration:
    """Fit every constant that the rows of a GPU determine.

    For each kind of row, first in 16-bit formats and then in those of fewer bits: one fit to all
    libraries, for questions that name no library, then one for each library if there are several.
    Where all rows are of engines under load, the constants of the GPU's kernels stay.

    Raises
    ------
    MeasurementError
        If no rows of this GPU can be fitted.
    """
    fits: list[StageFit] = []
    left_out: list[str] = []
    tables = {
        kind: own
        for kind, table in measurements.tables.items()
        if len(own := table[table["gpu_id"] == gpu.id])
    }
    # A fit starts from transferred constants: from an old fit, it would not be reproducible.
    old = {} if {*tables} - {"serving"} else gpu.fitted
    engines = _named(tables["serving"]).map(library_of) if "serving" in tables else ()
    refitted = {f"{engine}_{name}" for engine in engines for name in SERVED}
    kept = {name: item for name, item in old.items() if name not in refitted}
    profile = gpu.but(fitted=kept)
    for stage in STAGES:
        if stage.kind not in tables:
            continue
        rows, groups, reasons = _usable(stage, tables[stage.kind])
        left_out += reasons
        for found in _stage(stage, rows, groups, profile):
            fits.append(found)
            left_out += _saving(found)
            profile = with_constants(profile, found.fitted.constants)
    if not fits:
        known = ", ".join(dict.fromkeys(stage.kind for stage in STAGES))
        others = ", ".join(measurements.of_others)
        instead = f"-g can be {others}" if others else f"kinds that can: {known}"
        why = f" ({'; '.join(left_out)})" if left_out else f"; {instead}"
        raise MeasurementError(f"no rows of {gpu.id} that can be fitted{why}")
    return Calibration(profile, fits, list(dict.fromkeys(left_out)))


def _saving(found: StageFit) -> list[str]:
    """Say that runs take less time than predicted, where no time of their engine is found."""
    if found.before is None or found.fitted.constants or np.median(found.before) < SHORTER:
        return []
    bias = error_summary(found.before)["bias"]
    less = f"half of the rows take {1 - 1 / (1 + bias):.0%} or more less than predicted"
    return [f"{found.kind}, {found.variant}: {less}, and no engine saves time"]


def _usable(stage: Stage, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Group], list[str]]:
    """Return the rows that a stage may take, and as groups to predict; say what the others are."""
    # Kernels of other libraries say nothing about PyTorch's.
    others = named(rows).isin(list(EXTERNAL_KERNELS))
    apart = {
        "are of other libraries' kernels": others,
        "are of series that break physics": ~others & rows.get("distrusted", others),
    }
    if stage.noise:
        names = _named(rows)
        for name in names[~names.map(library_of).isin(ENGINES)].unique():
            told = f"are of {name}, none of {', '.join(ENGINES[:-1])}"
            if re.match(UNTOLD, name):
                told = "do not name their engine; --engine does"
            apart[told] = apart.get(told, False) | (names == name)
    left_out = [
        f"{stage.kind}: {some.sum()} rows {why}" for why, some in apart.items() if some.any()
    ]
    rows = rows[~np.logical_or.reduce([*apart.values()])]
    if len(rows) < stage.least:
        few = f"{stage.kind}: {len(rows)} of the {stage.least} rows that are needed"
        return rows, [], [*left_out, few] if len(rows) else left_out
    # Rows that ran out of memory have no time to fit.
    rows = rows[rows["time_s"].notna()]
    if stage.most:
        rows = _thinned(rows, stage)
    prepared = prepare(rows, stage.kind)
    skipped = Counter(prepared.skipped.values()) if stage.noise else {}
    left_out += [f"{stage.kind}: {count} rows: {why}" for why, count in skipped.items()]
    return rows, [group for group in prepared.groups if group.determines], left_out


def _named(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return the name that each row gives to its engine or library."""
    return rows["framework"].fillna("").astype(str)


def _stage(
    stage: Stage, rows: pd.DataFrame, determining: Sequence[Group], profile: HardwareProfile
) -> Iterator[StageFit]:
    """Yield the fits of one kind of row: in general, by precision and library."""
    groups = [group for group in determining if _launched(group) == stage.rows]
    chosen_for, alone = [], set()
    for precision in ("", *PRECISIONS) if stage.own else ("",):
        general = Variant(precision=precision)
        some = [group for group in groups if group.precision == precision]
        libraries = _by_variant(some)
        if stage.general:
            typical = [group for group in some if group.typical]
            if stage.alike and len({group.variant for group in typical}) > 1:
                typical = _alike(stage, rows, typical)
            apart = Variant(stage.apart)
            without = [group for group in typical if apart not in group.variants]
            # General constants are those of questions.
            every = map(_without_library, without or typical)
            chosen_for.append((list(every), general))
        if stage.own:
            chosen_for += [(part, each) for each, part in libraries.items() if each != general]
        if len(libraries) == 1 and stage.general and some[0].typical:
            alone |= set(libraries) - {general}
    for chosen, variant in chosen_for:
        # General constants serve a single library as well, unless its kernels beside these differ.
        if variant in alone and _serve(profile, chosen):
            continue
        # Keep constants that another kind of row has determined.
        free = (*stage.free, *stage.besides.get(variant.precision, ()))
        left = [item for item in free if str(item.key.of(variant)) not in profile.fitted]
        if sum(len(group.index) for group in chosen) < stage.least or not left:
            continue
        found = _fit(stage, rows, profile, chosen, left, variant)
        profile = with_constants(profile, found.fitted.constants)
        yield found


def _alike(stage: Stage, rows: pd.DataFrame, groups: Sequence[Group]) -> list[Group]:
    """Return groups of as many rows of each kernel: those with most have no more say."""
    rows = rows.loc[[label for group in groups for label in group.index]].sort_index()
    return prepare(_thinned(rows, replace(stage, most=stage.alike)), stage.kind).groups


def _without_library(group: Group) -> Group:
    """Return a group timed with constants of no library."""
    return replace(group, variants=tuple(item for item in group.variants if not item.library))


def _serve(profile: HardwareProfile, groups: Sequence[Group]) -> bool:
    """Return whether constants of no library predict the rows of one as its own do."""
    own = np.concatenate([group.predict(profile) for group in groups])
    general = np.concatenate([_without_library(group).predict(profile) for group in groups])
    return float(np.mean(np.abs(np.log(own / general)))) < LIKE


def _thinned(rows: pd.DataFrame, stage: Stage) -> pd.DataFrame:
    """Return at most ``stage.most`` rows of each kernel and format, in whole series.

    Series, which differ in one size, are taken in the order of a hash of their names.
    """
    varied, *names = KINDS[stage.kind].shown
    series = rows[names].astype(str).agg("/".join, axis=1)
    order = series.map({name: sha256(name.encode()).hexdigest() for name in series.unique()})
    sorted_rows = rows.assign(order=order).sort_values(["order", varied], kind="stable")
    kernels = sorted_rows.groupby(["framework", "kernel", "dtype"], dropna=False)
    return sorted_rows[kernels.cumcount() < stage.most].drop(columns="order").sort_index()


def _fit(
    stage: Stage,
    rows: pd.DataFrame,
    profile: HardwareProfile,
    groups: Sequence[Group],
    free: Sequence[Free],
    variant: Variant,
) -> StageFit:
    """Fit one set of constants to groups of rows."""
    fitted_rows = rows.loc[[label for group in groups for label in group.index]]
    ways = (stage.shape, *stage.instead)
    varied = (way for way in ways if fitted_rows[[*way]].nunique().max() > 1)
    columns = next(varied, stage.shape)
    measured = fitted_rows["time_s"].to_numpy()
    shapes = fitted_rows[[*columns]].astype(str).agg("/".join, axis=1).to_numpy(dtype=str)

    def fitted(some: Sequence[Free]) -> Fitted:
        return fit(profile, groups, measured, shapes, some, variant=variant, noise=stage.noise)

    before = fitted(()) if stage.noise else None
    result = fitted(free) if before is None else _proven(before, fitted, free)
    asked = (item.key.of(variant) for item in free)
    sources = fitted_rows["source"].dropna().astype(str)
    return StageFit(
        kind=stage.kind,
        variant=variant,
        fitted=result,
        untold=tuple(key for key in asked if str(key) not in result.constants),
        rows=stage.rows,
        sources=tuple(sorted(set(sources) - {""})),
        labels=tuple(fitted_rows.index),
        shapes=tuple(shapes),
        shape_columns=columns,
        before=None if before is None else before.residuals,
        models=() if before is None else tuple(sorted(set(fitted_rows["model"]))),
    )


def _proven(
    best: Fitted, fitted: Callable[[Sequence[Free]], Fitted], free: Sequence[Free]
) -> Fitted:
    """Return the fit of those constants by which shapes that were left out gain.

    Parameters
    ----------
    best
        The fit without any of them.
    fitted
        Fits some of them.
    free
        The constants. A second one must gain as much as the first.
    """

    def mean_error(found: Fitted) -> float:
        return float(np.mean(np.abs(found.held_out)))

    def median_error(found: Fitted) -> float:
        return float(np.median(np.abs(found.held_out)))

    for count in range(1, len(free) + 1):
        told = [
            found
            for found in map(fitted, combinations(free, count))
            if len(found.stderr) == count
            and all(
                error <= LARGEST_ERROR * found.constants[name]
                for name, error in found.stderr.items()
            )
        ]
        more = min(told, key=mean_error, default=best)
        gains = mean_error(more) < (1 - LEAST_GAIN) * mean_error(best)
        if gains and median_error(more) <= median_error(best):
            best = more
    return best


def _launched(group: Group) -> Rows:
    """Return the stage that a group's rows belong to."""
    if not group.operations:
        return "whole"
    if group.around:
        return "module"
    return "eager" if group.execution == "eager" else "graph"


def _by_variant(groups: Sequence[Group]) -> Mapping[Variant, list[Group]]:
    """Sort groups by the most specific variant of their constants."""
    sorted_groups: dict[Variant, list[Group]] = {}
    for group in groups:
        sorted_groups.setdefault(group.variant, []).append(group)
    return sorted_groups


def error_summary(residuals: "np.ndarray") -> dict[str, Any]:
    """Return the errors of log(predicted / measured), as of predicted rows."""
    return summary_of(np.expm1(np.asarray(residuals, dtype=np.float64)))


def shape_errors(part: StageFit) -> list[dict[str, Any]]:
    """Return the errors of each shape of a fit, the largest held-out error first.

    ``shape`` names its columns. ``median_ape``, ``worst_ape`` and ``bias`` are in sample;
    ``held_out_median_ape`` and ``held_out_bias`` come from a fit to the other shapes, None if there
    are too few.
    """
    seen, unseen = (
        np.expm1(np.asarray(logs, dtype=np.float64))
        for logs in (part.fitted.residuals, part.fitted.held_out)
    )
    errors = pd.DataFrame({"shape": part.shapes, "seen": seen, "unseen": unseen})
    listed = [
        {
            "shape": _sizes(str(shape), part.shape_columns),
            "rows": len(rows),
            "median_ape": float(rows["seen"].abs().median()),
            "worst_ape": float(rows["seen"].abs().max()),
            "bias": float(rows["seen"].median()),
            "held_out_median_ape": _known(rows["unseen"].abs().median()),
            "held_out_bias": _known(rows["unseen"].median()),
        }
        for shape, rows in errors.groupby("shape", sort=True)
    ]
    return sorted(listed, key=lambda item: -(item["held_out_median_ape"] or item["median_ape"]))


def _sizes(shape: str, columns: tuple[str, ...]) -> dict[str, int | str]:
    """Return the values of a shape by column; a model's name, always first, may have slashes."""
    values = shape.rsplit("/", len(columns) - 1)
    return {
        name: int(float(value)) if re.fullmatch(r"\d+(\.0)?", value) else value
        for name, value in zip(columns, values, strict=True)
    }


def _known(value: float) -> float | None:
    """Return a number, None if it is not finite."""
    return float(value) if math.isfinite(value) else None
