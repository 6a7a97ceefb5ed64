"""Predict rows that no fit has seen, for the spreads and for GPUs never measured.

For each origin of the constants: held-out shapes of a GPU's own fit, GPUs left out in turn and
predicted from the others, and published peaks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from simulator.evidence.fit.calibrate import Calibration
from simulator.evidence.fit.solver import FOLDS
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.groups import Group, profile
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.rows.kinds import KINDS, RowKind
from simulator.evidence.rows.reading import Measurements
from simulator.inputs.dtypes import Precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import ConstantsChoice
from simulator.timing.constants import Variant, rates
from simulator.timing.interval import Family, spread_names
from simulator.timing.step import step_time
from tools import carry

# The kinds of row that give spreads, with their families of kernels.
FAMILIES: dict[RowKind, Family] = {
    kind: known.family for kind, known in KINDS.items() if known.family
}
# Variants that have no part in the constants for no particular library.
APART = {Variant(stage.apart) for stage in STAGES if stage.apart}
# Constants are transferred from GPUs with fits of at least these rows.
CARRIED_FROM: tuple[RowKind, ...] = ("decode_attention", "gemm")


@dataclass(frozen=True)
class Residuals:
    """Rows with predictions whose constants have not seen them.

    Attributes
    ----------
    fitted, carried, peak
        By origin of the constants, a row for each measured call: ``family`` (with the
        precision as its prefix), ``kin`` (names of what stands in for it, the nearest first),
        ``gpu_id``, ``measured_s``, ``predicted_s``, ``fixed_share``,
        ``cached_share`` (of the bytes), ``launches``, ``size`` (what calls of one size share) and
        ``fold``.
    """

    fitted: pd.DataFrame
    carried: pd.DataFrame
    peak: pd.DataFrame


def bare(gpu_id: str) -> HardwareProfile:
    """Return a GPU without fitted constants."""
    return profile(gpu_id).but(fitted={})


def left_out(
    gpu_id: str, calibrations: Mapping[str, Calibration], measurements: Measurements
) -> HardwareProfile:
    """Return a GPU with constants transferred from others, as if it were never measured."""
    gpu = profile(gpu_id)
    known = {name: item for name, item in calibrations.items() if name != gpu_id}
    others = [
        calibration.profile
        for calibration in known.values()
        if {part.kind for part in calibration.fits} >= set(CARRIED_FROM)
    ]
    kin = [
        calibration.profile
        for calibration in known.values()
        if calibration.profile.architecture == gpu.architecture
    ]
    kernels = carry.kernels_of(measurements.tables["decode_attention"], others)
    return carry.left_out(gpu, others, kernels, kin)


def residuals(measurements: Measurements, calibrations: Mapping[str, Calibration]) -> Residuals:
    """Predict every kernel's row from constants that have not seen it.

    The constants are the general ones, as in questions: differences between libraries are part of
    the spread.
    """
    frames: dict[str, list[pd.DataFrame]] = {"fitted": [], "carried": [], "peak": []}
    tables = {kind: measurements.tables[kind] for kind in FAMILIES if kind in measurements.tables}
    carried = {
        gpu_id: left_out(gpu_id, calibrations, measurements)
        for gpu_id in pd.concat([table["gpu_id"] for table in tables.values()]).dropna().unique()
    }
    for kind, table in tables.items():
        rows = table[table["time_s"].notna() & table["gpu_id"].notna()]
        if "distrusted" in rows:
            rows = rows[~rows["distrusted"]]
        for group in prepare(rows, kind).groups:
            # Questions are about typical kernels of engines, whose collectives are not NCCL's, and
            # not about what modules add around them.
            if group.execution == "eager" or not group.typical or APART & set(group.variants):
                continue
            if group.around:
                continue
            for origin, card, choice in _cards(
                carried[group.gpu_id], calibrations.get(group.gpu_id), kind
            ):
                frame = predicted_rows(group, rows, card, choice)
                if origin == "fitted":
                    frame = _held_out(frame, calibrations[group.gpu_id], kind, group.precision)
                frames[origin].append(frame)
    return Residuals(**{origin: pd.concat(parts) for origin, parts in frames.items()})


def _cards(
    carried: HardwareProfile, own: Calibration | None, kind: RowKind
) -> Iterator[tuple[str, HardwareProfile, ConstantsChoice]]:
    """Yield the GPU under each origin of its constants."""
    if own is not None and any(part.kind == kind for part in own.fits):
        yield "fitted", own.profile, "auto"
    yield "carried", carried, "auto"
    yield "peak", bare(carried.id), "peak"


def predicted_rows(
    group: Group, rows: pd.DataFrame, card: HardwareProfile, choice: ConstantsChoice
) -> pd.DataFrame:
    """Return a group's rows with the columns of :class:`Residuals`."""
    family, size = FAMILIES[group.kind], KINDS[group.kind].alike
    part = rows.loc[group.index]
    name, *kin = spread_names(card, family, group.precision)
    gpu_rates = rates(card, choice)
    step = step_time(group.operations, gpu_rates, group.execution)
    column = group.column
    predicted = column(step.total_s)
    fixed = column(sum(item.repeat * time.launch_s for item, time in step.calls))
    launches = column(sum(item.repeat * item.launches for item in group.operations))
    keys = [name for name in ("framework", *size) if name in part]
    return pd.DataFrame(
        {
            "family": name,
            "kin": [kin] * len(part),
            "gpu_id": group.gpu_id,
            "measured_s": part["time_s"].to_numpy(dtype=np.float64),
            "predicted_s": predicted,
            "fixed_share": fixed / np.maximum(predicted, 1e-15),
            "cached_share": group.l2_share(gpu_rates),
            "launches": launches,
            "size": part[keys].astype(str).agg("/".join, axis=1).to_numpy(),
            "fold": np.arange(len(part)) % FOLDS,
        },
        index=group.index,
    )


def _held_out(
    frame: pd.DataFrame, calibration: Calibration, kind: RowKind, precision: Precision
) -> pd.DataFrame:
    """Return rows with the prediction of the fit that did not see their shape."""
    for part in calibration.fits:
        if part.kind == kind and part.variant == Variant(precision=precision):
            held = pd.Series(part.fitted.held_out, index=list(part.labels))
            _, order = np.unique(part.shapes, return_inverse=True)
            fold = pd.Series(order % FOLDS, index=list(part.labels))
            known = frame.index.intersection(held.index)
            if not len(known):
                continue  # rows of another stage of this kind
            frame = frame.loc[known]
            ratio = np.exp(held.loc[known].to_numpy())
            frame = frame.assign(
                predicted_s=frame["measured_s"] * ratio, fold=fold.loc[known].to_numpy()
            )
            return frame[np.isfinite(frame["predicted_s"])]
    return frame
