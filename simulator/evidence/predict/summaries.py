"""What predictions beside their measurements come to: errors by group, and the worst rows."""

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from simulator.evidence.fit.calibrate import Part
    from simulator.evidence.predict.validate import Validation
    from simulator.evidence.rows.reading import Measurements

SCHEMA_VERSION = 1
WORST = 10
CLOSE, NEAR = 0.10, 0.20
# Whole numbers above this are not exact in float64.
LARGEST_EXACT = 2**53


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have a time: what ran out of memory has none."""
    return rows[rows["measured_us"].notna()]


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Return what errors come to, and the share of times inside their intervals.

    Count, median and 90th percentile of the absolute error, the median signed one; ``inside`` is
    None where no row has an interval.
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
    if not len(rows):
        return listed
    for by in (
        ["kind"],
        ["gpu_id"],
        ["kind", "gpu_id"],
        ["kind", "gpu_id", "framework"],
        ["kind", "gpu_id", "kernel"],
        ["kind", "gpu_id", "dtype"],
        ["framework"],
        ["kernel"],
        ["regime"],
        ["kind", "regime"],
        ["kind", "gpu_id", "regime"],
        ["head_shape"],
    ):
        for value, part in rows.groupby(by, sort=True, dropna=True):
            # What a file does not say, such as a head shape of a product, makes no group.
            words = [str(item) for item in value if str(item)]
            if not words:
                continue
            listed.append(
                {
                    "by": ", ".join(by).replace("gpu_id", "gpu"),
                    "value": ", ".join(words),
                    **summary(part),
                }
            )
    return listed


def worst(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows that are farthest off, each way alike, with the columns that they fill."""
    distance = np.abs(np.log1p(rows["error"].clip(lower=-0.999999)))
    found = rows.loc[distance.sort_values(ascending=False, kind="stable").index[:WORST]]
    records = whole_numbers(found).astype(object).to_dict("records")
    return [
        {str(name): _json(value) for name, value in row.items() if not _is_blank(value)}
        for row in records
    ]


def _is_blank(value: Any) -> bool:
    """Return whether a column says nothing of a row."""
    return bool(pd.isna(value)) or value == ""


def whole_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the columns that hold whole numbers only, and gaps, as integers."""
    columns = {}
    for name, column in rows.select_dtypes("float").items():
        known = column.dropna()
        if len(known) and ((known % 1 == 0) & (known.abs() < LARGEST_EXACT)).all():
            columns[name] = column.astype("Int64")
    return rows.assign(**columns)


def _json(value: Any) -> Any:
    """Return a value that JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report(validation: "Validation", measurements: "Measurements") -> dict[str, Any]:
    """Return everything as one JSON object."""
    rows = timed(validation.rows)
    whole = summary(rows)
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "rows": validation.total + len(measurements.refused),
        "predicted": len(validation.rows),
        "skipped": sum(validation.skipped.values()),
        "skipped_reasons": dict(sorted(validation.skipped.items())),
        "refused": len(measurements.refused),
        "median_ape": whole["median_ape"],
        "p90_ape": whole["p90_ape"],
        "bias": whole["bias"],
        "inside": whole["inside"],
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


def shape_errors(part: "Part") -> list[dict[str, Any]]:
    """Return the errors of each shape that a fit saw, the farthest off when held out first.

    ``shape`` names its columns; ``median_ape``, ``worst_ape`` and ``bias`` are in sample,
    ``held_out_median_ape`` and ``held_out_bias`` predicted by a fit to the other shapes, None where
    there are too few.
    """
    seen, unseen = (
        np.expm1(np.asarray(logs, dtype=np.float64))
        for logs in (part.fitted.residuals, part.fitted.held_out)
    )
    errors = pd.DataFrame({"shape": part.shapes, "seen": seen, "unseen": unseen})
    listed = [
        {
            "shape": _named(str(shape), part.shape_columns),
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


def _named(shape: str, columns: tuple[str, ...]) -> dict[str, int | str]:
    """Return the values of a shape by column; a model, always the first, may have a stroke."""
    values = shape.rsplit("/", len(columns) - 1)
    return {
        name: int(float(value)) if re.fullmatch(r"\d+(\.0)?", value) else value
        for name, value in zip(columns, values, strict=True)
    }


def _known(value: float) -> float | None:
    """Return a number, None where it is none."""
    return float(value) if math.isfinite(value) else None
