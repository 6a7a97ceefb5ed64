"""Summarise predictions against measurements: errors by group, and the worst rows."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from simulator.numeric import LARGEST_EXACT

if TYPE_CHECKING:
    from simulator.evidence.predict.validate import Validation
    from simulator.evidence.rows.reading import Measurements

SCHEMA_VERSION = 1
WORST = 10
CLOSE, NEAR = 0.10, 0.20
GROUPINGS = (
    *("kind", "gpu_id", "kind, gpu_id", "kind, gpu_id, framework", "kind, gpu_id, kernel"),
    *("kind, gpu_id, dtype", "framework", "kernel", "regime", "kind, regime"),
    *("kind, gpu_id, regime", "head_shape"),
    # Of whole steps and serving rows, where these columns are.
    *("kind, gpu_id, framework, model, weights_dtype", "kind, concurrency"),
)


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a time; those that ran out of memory have none."""
    return rows[rows["measured_us"].notna()]


def errors_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Return count, median and 90th percentile of the absolute error, and median signed error.

    ``inside`` is the share of times inside their intervals, None where no row has an interval.
    """
    if not len(rows):
        return {"rows": 0, "median_ape": None, "p90_ape": None, "bias": None, "inside": None}
    inside = rows["inside"].dropna()
    return {
        "rows": len(rows),
        "median_ape": float(rows["ape"].median()),
        "p90_ape": float(rows["ape"].quantile(0.9)),
        "bias": float(rows["error"].median()),
        "inside": float(inside.astype(float).mean()) if len(inside) else None,
    }


def groups(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the errors of every kind, GPU, library, kernel, regime and head shape."""
    listed: list[dict[str, Any]] = []
    for by in GROUPINGS if len(rows) else ():
        names = by.split(", ")
        if not set(names) <= set(rows):
            continue
        for value, part in rows.groupby(names, sort=True, dropna=True):
            # Missing values, such as a product's head shape, make no group.
            told = (f"{item:g}" if isinstance(item, float) else str(item) for item in value)
            words = ", ".join(filter(None, told))
            if words:
                by_gpu = by.replace("gpu_id", "gpu")
                listed.append({"by": by_gpu, "value": words, **errors_of(part)})
    return listed


def worst(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with the largest absolute errors, without empty columns."""
    distance = np.abs(np.log1p(rows["error"].clip(lower=-0.999999)))
    found = rows.loc[distance.sort_values(ascending=False, kind="stable").index[:WORST]]
    records = whole_numbers(found).astype(object).to_dict("records")
    return [
        {
            str(name): _json(value)
            for name, value in row.items()
            if not (pd.isna(value) or value == "")
        }
        for row in records
    ]


def whole_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Convert columns that hold only whole numbers and gaps to integers."""
    columns = {}
    for name, column in rows.select_dtypes("float").items():
        known = column.dropna()
        if len(known) and ((known % 1 == 0) & (known.abs() < LARGEST_EXACT)).all():
            columns[name] = column.astype("Int64")
    return rows.assign(**columns)


def _json(value: Any) -> Any:
    """Convert a value for JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarise(validation: "Validation", measurements: "Measurements") -> dict[str, Any]:
    """Return all errors as one JSON object."""
    rows = timed(validation.rows)
    whole = errors_of(rows)
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "rows": validation.total + len(measurements.refused),
        "predicted": len(validation.rows),
        "skipped": sum(validation.skipped.values()),
        "skipped_reasons": dict(sorted(validation.skipped.items())),
        "refused": len(measurements.refused),
        "distrusted": sum(measurements.distrusted.values()),
        "distrusted_series": dict(measurements.distrusted),
        "from_l2": int(rows["from_l2"].sum()) if len(rows) else 0,
        **{name: whole[name] for name in ("median_ape", "p90_ape", "bias", "inside")},
        "intervals": int(rows["inside"].notna().sum()) if len(rows) else 0,
        "within_10pct": float((rows["ape"] <= CLOSE).mean()) if len(rows) else None,
        "within_20pct": float((rows["ape"] <= NEAR).mean()) if len(rows) else None,
        "constants": dict(sorted(validation.constants.items())),
        "groups": groups(rows),
        "worst": worst(rows),
    }
    if validation.oom_total is not None:
        result["oom_correct"] = validation.oom_correct
        result["oom_total"] = validation.oom_total
    return result
