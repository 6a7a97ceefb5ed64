"""How far predictions are off, for the intervals: residuals of rows that no fit has seen.

Three tables of residuals, by where the constants come from: of shapes held out of a GPU's own fit,
of GPUs left out in turn and predicted from the others, and of published peaks. From each, the
spread of a kind of kernel: quantiles of measured over predicted time, linear in the shares of fixed
time and of bytes from the L2 cache.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from simulator.evidence import spread_code
from simulator.evidence.calibrate import Calibration, calibrate
from simulator.evidence.fit import FOLDS, with_constants
from simulator.evidence.groups import Group, profile
from simulator.evidence.measurements import Measurements, RowKind
from simulator.evidence.predict import prepare
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.constants import VARIANTS, ConstantsChoice, rates
from simulator.timing.roofline import cached_bytes
from simulator.timing.spread import Family, Spread, spread_name
from simulator.timing.step import step_time
from simulator.units import MICROSECOND

COVERAGE = 0.8
LOW, HIGH = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
# The family of kernels that a kind of row is of, and the columns that calls of one size share.
FAMILIES: dict[RowKind, tuple[Family, tuple[str, ...]]] = {
    "gemm": ("gemm", ("m",)),
    "decode_attention": ("attention", ("batch", "kv_len")),
    "shared_prefix_attention": ("attention", ("batch", "prefix_len")),
    "prefill_attention": ("prefill_attention", ("batch", "q_len")),
    "elementwise": ("elementwise", ("rows", "width")),
    "all_reduce": ("collective", ("message_bytes",)),
}
# Fewer rows than this say too little about the ends of a distribution.
LEAST_ROWS = 50
# Nor do fewer than this, of one or two head shapes, speak for all that a GPU may be asked.
LEAST_OWN_ROWS = 400
# Nor fewer, each more than half of it, about the time from memory and from the L2 cache.
LEAST_TELLING, HALF = 20, 0.5
# Constants are carried over from GPUs of which at least these rows were fitted.
CARRIED_FROM: tuple[RowKind, ...] = ("decode_attention", "gemm")


@dataclass(frozen=True)
class Residuals:
    """Rows with a prediction that has not seen them.

    Attributes
    ----------
    fitted, carried, peak
        By where the constants come from, a row for each measured call: ``family`` (with the prefix
        of narrow formats), ``gpu_id``, ``measured_s``, ``predicted_s``, ``fixed_share``,
        ``cached_share`` (of the bytes), ``launches``, ``size`` (what calls of one size share) and
        ``fold``.
    """

    fitted: pd.DataFrame
    carried: pd.DataFrame
    peak: pd.DataFrame


def general(values: Mapping[str, float]) -> dict[str, float]:
    """Return the constants that another GPU may carry over: of kernels, not of whole steps."""
    return {
        name: value
        for name, value in values.items()
        if not name.startswith("harness_") and "step_" not in name and "fp8" not in name
    }


def carried_over(calibrations: Sequence[Calibration]) -> dict[str, float]:
    """Return the geometric mean of every constant, a library's own where there are any.

    A GPU whose rows are of one library has no constants by that library's name.
    """
    found: dict[str, list[float]] = {}
    for calibration in calibrations:
        values = general({name: value for name, (value, *_) in calibration.values().items()})
        variants = {name.split("_")[0] for name in values} & set(VARIANTS)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
            if not variants:
                found.setdefault(f"vllm_{name}", []).append(value)
    return {name: float(np.exp(np.mean(np.log(values)))) for name, values in found.items()}


def bare(gpu_id: str) -> HardwareProfile:
    """Return a GPU with nothing fitted."""
    return profile(gpu_id).model_copy(update={"fitted": {}})


def left_out(gpu_id: str, calibrations: Mapping[str, Calibration]) -> HardwareProfile:
    """Return a GPU with what the others carry over to it, as if it had never been measured."""
    others = [
        calibration
        for other, calibration in calibrations.items()
        if other != gpu_id and {part.kind for part in calibration.parts} >= set(CARRIED_FROM)
    ]
    return with_constants(bare(gpu_id), carried_over(others))


def residuals(measurements: Measurements, calibrations: Mapping[str, Calibration]) -> Residuals:
    """Predict every kernel's row from constants that have not seen it.

    Constants are those of no library, as questions use them: what libraries differ by is a part of
    the spread.
    """
    frames: dict[str, list[pd.DataFrame]] = {"fitted": [], "carried": [], "peak": []}
    for kind in FAMILIES:
        table = measurements.tables.get(kind)
        if table is None:
            continue
        rows = table[table["time_s"].notna() & table["gpu_id"].notna()]
        for group in prepare(rows, kind).groups:
            if group.execution == "eager" or group.seconds is not None:
                continue
            general_group = replace(group, variants=())
            narrow = any("fp8" in name for name in group.variants)
            for origin, card, choice in _cards(group.gpu_id, calibrations, kind):
                frame = _predicted(general_group, rows, card, choice, narrow=narrow)
                if origin == "fitted" and not narrow:
                    frame = _held_out(frame, calibrations[group.gpu_id], kind)
                frames[origin].append(frame)
    return Residuals(**{origin: pd.concat(parts) for origin, parts in frames.items()})


def _cards(
    gpu_id: str, calibrations: Mapping[str, Calibration], kind: RowKind
) -> Iterator[tuple[str, HardwareProfile, ConstantsChoice]]:
    """Yield the GPU under each origin of its constants."""
    own = calibrations.get(gpu_id)
    if own is not None and any(part.kind == kind for part in own.parts):
        yield "fitted", own.profile, "auto"
    yield "carried", left_out(gpu_id, calibrations), "auto"
    yield "peak", bare(gpu_id), "peak"


def _predicted(
    group: Group,
    rows: pd.DataFrame,
    card: HardwareProfile,
    choice: ConstantsChoice,
    *,
    narrow: bool,
) -> pd.DataFrame:
    """Return a group's rows with what a spread is fitted to."""
    family, size = FAMILIES[group.kind]
    part = rows.loc[group.index]
    gpu_rates = rates(card, choice)
    step = step_time(group.operations, gpu_rates, group.execution)
    count = len(group.index)

    def column(values: Any) -> "np.ndarray":
        return np.broadcast_to(np.asarray(values, dtype=np.float64), count).copy()

    predicted = column(step.total_s)
    fixed = column(sum(time.fixed_s for time in step.by_kind.values()))
    launches = column(sum(item.repeat * item.launches for item in group.operations))
    moved = column(sum(item.bytes_moved for item in group.operations))
    cached = column(sum(cached_bytes(item, gpu_rates) for item in group.operations))
    keys = [name for name in ("framework", *size) if name in part]
    return pd.DataFrame(
        {
            "family": spread_name(card, family, narrow=narrow),
            "gpu_id": group.gpu_id,
            "measured_s": part["time_s"].to_numpy(dtype=np.float64),
            "predicted_s": predicted,
            "fixed_share": fixed / np.maximum(predicted, 1e-15),
            "cached_share": cached / np.maximum(moved, 1),
            "launches": launches,
            "size": part[keys].astype(str).agg("/".join, axis=1).to_numpy(),
            "fold": np.arange(count) % FOLDS,
        },
        index=group.index,
    )


def _held_out(frame: pd.DataFrame, calibration: Calibration, kind: RowKind) -> pd.DataFrame:
    """Return rows with the prediction of the fit that did not see their shape."""
    for part in calibration.parts:
        if part.kind == kind and not part.variant:
            held = pd.Series(part.fitted.held_out, index=list(part.labels))
            _, order = np.unique(part.shapes, return_inverse=True)
            fold = pd.Series(order % FOLDS, index=list(part.labels))
            known = frame.index.intersection(held.index)
            frame = frame.loc[known]
            ratio = np.exp(held.loc[known].to_numpy())
            frame = frame.assign(
                predicted_s=frame["measured_s"] * ratio, fold=fold.loc[known].to_numpy()
            )
            return frame[np.isfinite(frame["predicted_s"])]
    return frame


def spread(frame: pd.DataFrame) -> Spread:
    """Return the spread that holds ``COVERAGE`` of some rows, as many above as below it."""
    ratio = (frame["measured_s"] / frame["predicted_s"] - 1).to_numpy()
    fixed = frame["fixed_share"].to_numpy().clip(0, 1)
    cached = (1 - fixed) * frame["cached_share"].to_numpy()
    features = np.column_stack([fixed, 1 - fixed - cached, cached])
    if min((features[:, 1] > HALF).sum(), (features[:, 2] > HALF).sum()) < LEAST_TELLING:
        features = np.column_stack([fixed, 1 - fixed])
    # Where few rows tell a coefficient, it is no larger than what was seen at all.
    least, most = np.quantile(ratio, [0.01, 0.99])
    above = _quantile(features, ratio, HIGH).clip(0, max(most, 0))
    below = (-_quantile(features, ratio, LOW)).clip(0, max(-least, 0))
    return Spread(
        fixed_below=_rounded(below[0]),
        fixed_above=_rounded(above[0]),
        streaming_below=_rounded(below[1]),
        streaming_above=_rounded(above[1]),
        cached_below=_rounded(below[-1]),
        cached_above=_rounded(above[-1]),
        common=_rounded(common_share(frame)),
    )


def peak_spread(frame: pd.DataFrame) -> Spread:
    """Return by how much most rows take longer than published peaks: a share, and each launch."""
    measured = frame["measured_s"].to_numpy()
    features = np.column_stack([frame["predicted_s"], frame["launches"] * MICROSECOND])
    late = measured - frame["predicted_s"].to_numpy()
    # Shares of the measured time: a row of a microsecond counts as one of a millisecond.
    found = _quantile(features / measured[:, None], late / measured, HIGH).clip(min=0)
    return Spread(streaming_above=_rounded(found[0]), launch_above_us=_rounded(found[1]))


def _quantile(features: "np.ndarray", values: "np.ndarray", level: float) -> "np.ndarray":
    """Return the linear quantile regression of values on some features, without a constant."""
    from scipy.optimize import minimize

    def loss(weights: "np.ndarray") -> float:
        off = values - features @ weights
        return float(np.mean(np.maximum(level * off, (level - 1) * off)))

    # From the best of a coarse grid down: the loss is convex, but not smooth.
    scale = float(np.quantile(values / np.maximum(features.sum(axis=1), 1e-12), level))
    count = features.shape[1]
    starts = [np.array(factors) * scale for factors in product((0.3, 1, 3), repeat=count)]
    start = min(starts, key=loss)
    options = {"xatol": 1e-5, "fatol": 1e-9, "maxiter": 2000}
    return np.asarray(minimize(loss, start, method="Nelder-Mead", options=options).x)


def common_share(frame: pd.DataFrame) -> float:
    """Return the share of the variance of log residuals that calls of one size have in common.

    The intraclass correlation of different shapes (of a GPU, library and size): what does not
    average out over the kernels of a step.
    """
    logs = np.log(frame["measured_s"] / frame["predicted_s"]).clip(-1, 1)
    logs = logs - logs.mean()
    variance = float((logs**2).mean())
    sums = logs.groupby([frame["gpu_id"], frame["size"]]).agg(["sum", "count"])
    squares = (logs**2).groupby([frame["gpu_id"], frame["size"]]).sum()
    several = sums["count"] > 1
    pairs = (sums["count"] * (sums["count"] - 1))[several]
    if not len(pairs) or variance == 0:
        return 1.0
    products = (sums["sum"] ** 2 - squares)[several]
    return float(np.clip(products.sum() / pairs.sum() / variance, 0, 1))


def _rounded(value: float) -> float:
    """Return a figure to three digits: more would be noise."""
    return float(f"{value:.3g}") + 0.0


def widest(spreads: Sequence[Spread]) -> Spread:
    """Return what holds on the worst of some GPUs."""
    return Spread(
        fixed_below=max(item.fixed_below for item in spreads),
        fixed_above=max(item.fixed_above for item in spreads),
        streaming_below=max(item.streaming_below for item in spreads),
        streaming_above=max(item.streaming_above for item in spreads),
        cached_below=max(item.cached_below for item in spreads),
        cached_above=max(item.cached_above for item in spreads),
    )


def by_gpu(frame: pd.DataFrame, least_rows: int) -> dict[str, dict[str, Spread]]:
    """Return the spreads of each GPU's own rows, where there are enough of them."""
    found: dict[str, dict[str, Spread]] = {}
    for (gpu_id, family), part in frame.groupby(["gpu_id", "family"], sort=True):
        if len(part) >= least_rows:
            found.setdefault(str(gpu_id), {})[str(family)] = spread(part)
    return found


def worst_gpu(frame: pd.DataFrame) -> dict[str, Spread]:
    """Return, by kind of kernel, what holds on the worst GPU; what is common, over all of them."""
    found: dict[str, Spread] = {}
    own = by_gpu(frame, LEAST_ROWS)
    for family, part in frame.groupby("family", sort=True):
        spreads = [table[str(family)] for table in own.values() if str(family) in table]
        if spreads:
            common = _rounded(common_share(part))
            found[str(family)] = replace(widest(spreads), common=common)
    return found


def bifurcated(measurements: Measurements) -> Spread:
    """Return the spread of shared-prefix rows predicted from constants of standard ones alone."""
    table = measurements.tables.get("shared_prefix_attention")
    if table is None:
        return Spread()
    frames = []
    for gpu_id, rows in table[table["gpu_id"].notna()].groupby("gpu_id"):
        standard = Measurements({"shared_prefix_attention": rows[rows["mode"] == "standard"]})
        card = calibrate(standard, profile(str(gpu_id))).profile
        shared = rows[rows["mode"] != "standard"]
        frames += [
            _predicted(group, shared, card, "auto", narrow=False)
            for group in prepare(shared, "shared_prefix_attention").groups
            if group.execution == "graph"
        ]
    return replace(spread(pd.concat(frames)), common=0.0) if frames else Spread()


def spreads(found: Residuals, measurements: Measurements) -> dict[str, Any]:
    """Return the tables of ``spread.toml``."""
    fitted = {str(name): spread(part) for name, part in found.fitted.groupby("family")}
    carried = {
        # Constants of other GPUs do no better than a GPU's own.
        name: replace(widest([item, fitted.get(name, item)]), common=item.common)
        for name, item in worst_gpu(found.carried).items()
    }
    return {
        "fitted": fitted,
        "carried": carried,
        "peak": {str(name): peak_spread(part) for name, part in found.peak.groupby("family")},
        "gpu": by_gpu(found.fitted, LEAST_OWN_ROWS),
        "code": {"bifurcated": bifurcated(measurements), **spread_code.spreads(measurements)},
    }
