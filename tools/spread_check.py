"""Check the coverage of the intervals on rows that were not used to make them.

* Kernels of a GPU with constants of its own: spreads of four folds of shapes, checked on the fifth.
* Kernels of a GPU left out: constants and spreads of the other GPUs, checked on it.
* Four products of one size, as in a step: spreads of single ones, added as for a step.
* Whole steps, with the shipped constants and spreads: batches of serving engines, and the paper's
  plain PyTorch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from simulator.evidence.fit.solver import FOLDS
from simulator.evidence.predict.groups import profile
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.rows.reading import Measurements
from simulator.timing.interval import Spread
from tools.residuals import Residuals
from tools.spread import (
    LEAST_OWN_ROWS,
    LEAST_ROWS,
    PARTS,
    by_gpu,
    either_way,
    measured_s,
    paper_steps,
    spread,
    time_shares,
    widest,
)

PRODUCTS = 4  # matrix products of a layer
DRAWS = 20


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of measured times inside their intervals.

    Attributes
    ----------
    below, above
        Shares of the rows that were shorter, and longer.
    """

    what: str
    gpu: str
    rows: int
    inside: float
    below: float
    above: float


def coverage(
    what: str, gpu: str, measured: "np.ndarray", low: "np.ndarray", high: "np.ndarray"
) -> Coverage:
    """Count measured times below, inside and above their intervals."""
    below, above = float(np.mean(measured < low)), float(np.mean(measured > high))
    return Coverage(what, gpu, len(measured), 1 - below - above, below, above)


def bounds(frame: pd.DataFrame, item: Spread) -> tuple["np.ndarray", "np.ndarray"]:
    """Return the interval of each row under a spread. [s]."""
    shares = dict(zip(PARTS, time_shares(frame), strict=True))
    below, above = (
        sum(getattr(item, f"{part}_{side}") * share for part, share in shares.items())
        for side in ("below", "above")
    )
    predicted = frame["predicted_s"].to_numpy()
    return predicted * (1 - below), predicted * (1 + above)


def fitted(found: Residuals) -> Iterator[Coverage]:
    """Check each GPU's own spreads, fold by fold of its shapes."""
    for (family, gpu_id), part in found.fitted.groupby(["family", "gpu_id"]):
        if len(part) < LEAST_ROWS:
            continue
        measured = part["measured_s"].to_numpy()
        every = found.fitted[found.fitted["family"] == family]
        others = every[every["gpu_id"] != gpu_id]
        if len(part) < LEAST_OWN_ROWS <= len(others):
            # Such a GPU takes the spread of all GPUs: here, of all others.
            low, high = bounds(part, spread(others))
            yield coverage(str(family), str(gpu_id), measured, low, high)
            continue
        low, high = np.zeros(len(part)), np.zeros(len(part))
        for fold in range(FOLDS):
            test = (part["fold"] == fold).to_numpy()
            if test.any() and not test.all():
                low[test], high[test] = bounds(part[test], spread(part[~test]))
        yield coverage(str(family), str(gpu_id), measured, low, high)


def left_out(found: Residuals) -> Iterator[Coverage]:
    """Check each GPU against the spreads of the others, which were left out in turn as well."""
    own = by_gpu(found.carried, LEAST_ROWS)
    for (family, gpu_id), part in found.carried.groupby(["family", "gpu_id"]):
        others = [
            table[str(family)]
            for other, table in own.items()
            if other != gpu_id and str(family) in table
        ]
        if others and len(part) >= LEAST_ROWS:
            low, high = bounds(part, either_way(widest(others)))
            yield coverage(str(family), str(gpu_id), part["measured_s"].to_numpy(), low, high)


def products(found: Residuals) -> Iterator[Coverage]:
    """Check sums of products of one size, whose individual errors average out."""
    generator = np.random.default_rng(0)
    every = found.fitted[found.fitted["family"] == "gemm"]
    for gpu_id, part in every.groupby("gpu_id"):
        item = spread(part)
        low, high = bounds(part, item)
        frame = part.assign(low=part["predicted_s"] - low, high=high - part["predicted_s"])
        sums = []
        for _, alike in frame.groupby("size"):
            figures = alike[["measured_s", "predicted_s", "low", "high"]].to_numpy()
            for _ in range(DRAWS if len(figures) > PRODUCTS else 0):
                four = figures[generator.choice(len(figures), PRODUCTS, replace=False)]
                measured, predicted, below, above = four.sum(axis=0)
                alone = (four[:, 1] ** 2).sum() / predicted**2
                width = np.sqrt(item.common + (1 - item.common) * alone)
                sums.append((measured, predicted - width * below, predicted + width * above))
        yield coverage("four products", str(gpu_id), *np.array(sums).T)


def batches(measurements: Measurements) -> Iterator[Coverage]:
    """Check end-to-end batches: the engine's fitted time, and the GPU's time with its interval."""
    table = measurements.tables.get("end_to_end")
    if table is None:
        return
    for group in prepare(table[table["time_s"].notna()], "end_to_end").groups:
        rows = table.loc[group.index]
        ends = group.interval(profile(group.gpu_id))
        if ends is not None:
            engine = str(rows["framework"].iloc[0])
            measured = rows["time_s"].to_numpy(dtype=np.float64)
            yield coverage(f"batches of {engine}", group.gpu_id, measured, *ends)


def cells(measurements: Measurements) -> Iterator[Coverage]:
    """Check the paper's cells, predicted as plain questions."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for row, group in paper_steps(measurements):
        ends = group.interval(profile(group.gpu_id))
        if ends is not None:
            key = (f"the paper's {row['attention']} steps, {row['execution']}", group.gpu_id)
            figures = (measured_s(row), float(ends[0][0]), float(ends[1][0]))
            found.setdefault(key, []).append(figures)
    for (what, gpu_id), values in found.items():
        yield coverage(what, gpu_id, *np.array(values).T)
