"""Compare predictions with measured rows: the errors, where they occur, why, and their summary."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from simulator.evidence.predict.groups import Group, profile
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.serving import ServingGroup
from simulator.evidence.rows.kinds import KINDS, WINDOW, RowKind
from simulator.evidence.rows.reading import Measurements
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import ConstantsChoice
from simulator.numeric import LARGEST_EXACT
from simulator.timing.constants import rates
from simulator.units import MICROSECOND, MILLISECOND

# In replays, keys and values up to the first share of L2 are hot; above the second, cold.
HOT_SHARE, COLD_SHARE = 1.0, 1.5
# A row whose bytes are served by L2 for the most part is called so.
HALF = 0.5

SCHEMA_VERSION = 1
# How the outcome of a row begins that could not be predicted.
SKIPPED = "skipped: "
WORST = 10
CLOSE, NEAR = 0.10, 0.20
GROUPINGS = (
    *("kind", "gpu_id", "kind, gpu_id", "kind, gpu_id, framework", "kind, gpu_id, kernel"),
    *("kind, gpu_id, dtype", "framework", "kernel", "regime", "kind, regime"),
    *("kind, gpu_id, regime", "head_shape"),
    # Of whole steps and serving rows, where these columns are.
    *("kind, gpu_id, framework, model, weights_dtype", "kind, concurrency"),
)


@dataclass(frozen=True)
class Validation:
    """Predictions with their measurements.

    Attributes
    ----------
    rows
        One frame: the columns of the files, then kind, head shape and regime, whether L2 was taken
        to serve most of its bytes, measured and predicted time [us], the prediction in the file's
        own column (``predicted_latency_us``, ``predicted_step_ms`` or ``predicted_tpot_ms``), its
        interval in either unit (``_low``, ``_high``), whether the measured time lies inside
        (``inside``; None where either is not known), the signed error and its size. Serving rows
        also have a predicted step and time to first token [ms].
    unpredicted
        The rows that could not be predicted, with the reason as their ``outcome``.
    constants
        The origin of each GPU's constants.
    """

    rows: pd.DataFrame
    unpredicted: pd.DataFrame
    constants: Mapping[str, str]

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many rows could not be predicted, by reason."""
        outcomes = self.unpredicted.get("outcome", pd.Series(dtype=str))
        return Counter(str(each).removeprefix(SKIPPED) for each in outcomes)

    def every_row(self, measurements: Measurements) -> pd.DataFrame:
        """Return every row of the files with its outcome: predicted, skipped or refused, and why.

        Of a refused row only its file and line are known.

        Parameters
        ----------
        measurements
            Those that were predicted.
        """
        refused = [
            {"file": row.file, "line": row.line, "outcome": f"refused: {row.reason}"}
            for row in measurements.refused
        ]
        parts = [self.rows.assign(outcome="predicted"), self.unpredicted, pd.DataFrame(refused)]
        filled = [part for part in parts if len(part)] or parts[:1]
        return pd.concat(filled, ignore_index=True)


def validate(
    measurements: Measurements,
    *,
    gpu: HardwareProfile | None = None,
    choice: ConstantsChoice = "auto",
) -> Validation:
    """Predict every row that can be predicted.

    Parameters
    ----------
    measurements
        The rows, as :func:`~simulator.evidence.rows.reading.load` returns them.
    gpu
        Profile to use instead of the shipped one for rows with its id.
    choice
        Where the constants come from.
    """
    frames: list[pd.DataFrame] = []
    others: list[pd.DataFrame] = []
    constants: dict[str, str] = {}
    for kind, table in measurements.tables.items():
        prepared = prepare(table, kind)
        if prepared.skipped:
            outcomes = [f"{SKIPPED}{reason}" for reason in prepared.skipped.values()]
            left = table.loc[list(prepared.skipped)].drop(columns="time_s")
            others.append(left.assign(kind=kind, outcome=outcomes))
        found = []
        for group in prepared.groups:
            card = gpu if gpu is not None and gpu.id == group.gpu_id else profile(group.gpu_id)
            constants[card.id] = rates(card, choice, variants=group.variants).origin
            found.append(_predicted(table.loc[group.index], group, card, choice))
        if found:
            frames.append(_compared(table, pd.concat(found), kind))
    return Validation(
        rows=pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=_ADDED),
        unpredicted=pd.concat(others, ignore_index=True) if others else pd.DataFrame(),
        constants=constants,
    )


_ADDED = ("kind", "gpu_id", "framework", "kernel", "measured_us", "predicted_us", "error", "ape")


def _predicted(
    rows: pd.DataFrame, group: Group, gpu: HardwareProfile, choice: ConstantsChoice
) -> pd.DataFrame:
    """Return what is predicted of a group's rows, times in seconds."""
    parts = group.parts(gpu, choice)
    low, high = group.interval(gpu, choice) or (np.nan, np.nan)
    found = {
        "regime": _regimes(parts, rows, group.kind, gpu),
        "from_l2": group.l2_share(rates(gpu, choice, variants=group.variants)) > HALF,
        "predicted_s": group.predict(gpu, choice),
        "low_s": low,
        "high_s": high,
        "reason": _reasons(parts, len(rows)),
    }
    if group.kind == "decode_step":
        found["predicted_status"] = ["oom" if each else "ok" for each in group.oom]
    if isinstance(group, ServingGroup):
        found["predicted_step_ms"] = group.step_s(gpu, choice) / MILLISECOND
        found["predicted_ttft_ms"] = group.first_token_s(gpu, choice) / MILLISECOND
    return pd.DataFrame(found, index=group.index)


def _compared(table: pd.DataFrame, found: pd.DataFrame, name: RowKind) -> pd.DataFrame:
    """Return rows of one kind with what is predicted of them, and how far off that is."""
    rows, kind = table.loc[found.index], KINDS[name]
    measured, seconds, low, high = (
        column.to_numpy(dtype=np.float64)
        for column in (rows["time_s"], found["predicted_s"], found["low_s"], found["high_s"])
    )
    names = [each for each in kind.shown if each in rows]
    names += [WINDOW] if WINDOW in rows and np.isfinite(rows[WINDOW]).any() else []
    sizes = [
        ", ".join(
            f"{each} {_plain(value)}"
            for each, value in zip(names, row, strict=True)
            if each != WINDOW or np.isfinite(value)
        )
        for row in rows[names].itertuples(index=False)
    ]
    # Rows that state where their data were are not asked.
    asked = rows["l2_state"].fillna("").astype(str) == "" if "l2_state" in rows else True
    predicted, error = f"predicted_{kind.result}", seconds / measured - 1
    known = np.isfinite(measured) & np.isfinite(low)
    added = {
        "kind": name,
        "head_shape": _head_shapes(rows),
        "regime": found.pop("regime"),
        "from_l2": found.pop("from_l2") & asked,
        "sizes": sizes,
        "measured_us": measured / MICROSECOND,
        "predicted_us": seconds / MICROSECOND,
        "predicted_us_low": low / MICROSECOND,
        "predicted_us_high": high / MICROSECOND,
        predicted: seconds / kind.unit_s,
        f"{predicted}_low": low / kind.unit_s,
        f"{predicted}_high": high / kind.unit_s,
        "inside": [*np.where(known, (low <= measured) & (measured <= high), None)],
        "error": error,
        "ape": np.abs(error),
        **found.drop(columns=["predicted_s", "low_s", "high_s"]),
    }
    kept = rows.drop(columns=[each for each in (*added, "time_s") if each in rows])
    kept = kept.assign(framework=rows["framework"].fillna("").astype(str))
    return pd.concat([kept, pd.DataFrame(added, index=rows.index)], axis=1)


def _plain(value: Any) -> str:
    """Write a size without a decimal point."""
    return f"{value:.10g}" if isinstance(value, float) else f"{value}"


def _head_shapes(rows: pd.DataFrame) -> "np.ndarray | str":
    """Return query heads / KV heads x width of attention rows."""
    if "q_heads" not in rows or "head_dim" not in rows:
        return ""
    heads, kv_heads, width = (
        rows[name].map("{:g}".format) for name in ("q_heads", "kv_heads", "head_dim")
    )
    return np.asarray(heads + "/" + kv_heads + " x " + width)


def _regimes(
    parts: "dict[str, np.ndarray] | None", rows: pd.DataFrame, kind: RowKind, gpu: HardwareProfile
) -> Any:
    """Return what bounds each row: launch, memory (hot or cold in L2), compute or link."""
    if parts is None:
        return "step"
    names = np.array(list(parts))
    regime: Any = names[np.argmax(np.stack(list(parts.values())), axis=0)].astype(object)
    regime[regime == "host"] = "launch"
    regime[regime == "prefill"] = "compute"
    least_bytes = KINDS[kind].least_bytes
    if least_bytes is None:
        return regime
    memory = regime == "memory"
    share = least_bytes(rows).to_numpy(dtype=np.float64) / gpu.l2_bytes
    regime[memory & (share <= HOT_SHARE)] = "memory hot"
    regime[memory & (share > HOT_SHARE)] = "memory about L2"
    cold = share > COLD_SHARE
    if "l2_state" in rows:
        cold |= (rows["l2_state"] == "cold").to_numpy()
    regime[memory & cold] = "memory cold"
    return regime


def _reasons(parts: "dict[str, np.ndarray] | None", count: int) -> list[str]:
    """Return the parts of each row's time according to the model."""
    if parts is None:
        return [""] * count
    return [
        _parts_text({name: float(values[i]) for name, values in parts.items() if values[i]})
        for i in range(count)
    ]


def _parts_text(parts_s: dict[str, float]) -> str:
    """Format the parts of a time, in a unit that suits their sum."""
    unit, name = (
        (MILLISECOND, "ms") if sum(parts_s.values()) >= MILLISECOND else (MICROSECOND, "µs")
    )
    return " + ".join(f"{what} {value / unit:.1f}" for what, value in parts_s.items()) + f" {name}"


def timed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a time; those that ran out of memory have none."""
    return rows[rows["measured_us"].notna()]


def summary_of(errors: Any) -> dict[str, Any]:
    """Return median and 90th percentile of the absolute error, and the median signed error.

    None without an error; what is not finite does not count.
    """
    known = np.asarray(errors, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return dict.fromkeys(("median_ape", "p90_ape", "bias"))
    size = np.abs(known)
    figures = np.median(size), np.quantile(size, 0.9), np.median(known)
    return dict(zip(("median_ape", "p90_ape", "bias"), map(float, figures), strict=True))


def errors_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Return count and errors of predicted rows.

    ``inside`` is the share of times inside their intervals, None where no row has an interval.
    """
    if not len(rows):
        return {"rows": 0, **summary_of(()), "inside": None}
    inside = rows["inside"].dropna().astype(float)
    share = float(inside.mean()) if len(inside) else None
    return {"rows": len(rows), **summary_of(rows["error"]), "inside": share}


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
            str(name): None if value in (math.inf, -math.inf) else value
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


def summarise(validation: Validation, measurements: Measurements) -> dict[str, Any]:
    """Return all errors as one JSON object."""
    rows = timed(validation.rows)
    whole = errors_of(rows)
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": measurements.rows + len(measurements.refused),
        "predicted": len(validation.rows),
        "skipped": len(validation.unpredicted),
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
        **_out_of_memory(validation.rows),
    }


def _out_of_memory(rows: pd.DataFrame) -> dict[str, int]:
    """Count rows that ran out of memory or were predicted to, and those predicted right."""
    if "predicted_status" not in rows:
        return {}
    rows = rows[rows["predicted_status"].notna()]
    ended = rows["status"].astype(str).str.lower() == "oom"
    foretold = rows["predicted_status"] == "oom"
    either, both = int((ended | foretold).sum()), int((ended & foretold).sum())
    return {"oom_correct": both, "oom_total": either} if either else {}
