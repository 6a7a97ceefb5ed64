"""The spread of a kind of kernel: between which shares of the prediction most measured times lie.

Quantiles of measured over predicted time of rows that no fit has seen, linear in the shares of
fixed time and of bytes from the L2 cache.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from simulator.evidence.fit.calibrate import calibrate
from simulator.evidence.predict.groups import profile
from simulator.evidence.predict.predict import prepare
from simulator.evidence.rows.reading import Measurements
from simulator.timing.interval import Spread
from simulator.units import MICROSECOND
from tools import spread_code
from tools.residuals import Residuals, predicted_rows

COVERAGE = 0.8
LOW, HIGH = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
# Fewer rows than this say too little about the ends of a distribution.
LEAST_ROWS = 50
# Nor do fewer than this, of one or two head shapes, speak for all that a GPU may be asked.
LEAST_OWN_ROWS = 300
# Nor fewer, each more than half of it, about the time from memory and from the L2 cache.
LEAST_TELLING, HALF = 20, 0.5


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


def either_way(item: Spread) -> Spread:
    """Return a spread as wide below as above, as ratios.

    Of a few GPUs, which way each was off says little about the next.
    """
    ends = {}
    for part in ("fixed", "streaming", "cached"):
        below, above = getattr(item, f"{part}_below"), getattr(item, f"{part}_above")
        ratio = max(1 + above, 1 / (1 - below))
        ends[f"{part}_below"], ends[f"{part}_above"] = _rounded(1 - 1 / ratio), _rounded(ratio - 1)
    return replace(item, **ends)


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
            found[str(family)] = replace(either_way(widest(spreads)), common=common)
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
            predicted_rows(group, shared, card, "auto")
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
