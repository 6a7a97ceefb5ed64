"""Why rows are refused: they say nothing, or nothing that can be true."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from simulator.evidence.rows import plausibility
from simulator.evidence.rows.kinds import Layout, RowKind
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import load_hardware

# Columns that a file may leave out, and that are numbers where it does not.
SWITCHES, GPU_COUNTS = ("causal", "expand_kv"), ("tensor_parallel", "tp", "num_gpus")
# Beyond it a size is a typing error.
LARGEST_SIZE = 1e15
DTYPE_COLUMNS = ("dtype", "kv_dtype", "weight_dtype", "weights_dtype")


def unusable(frame: pd.DataFrame, kind: RowKind, layout: Layout) -> "pd.Series[Any]":
    """Return why each row says nothing, None where it does: sizes or time are missing or none."""
    reasons = _no_reasons(frame)

    def refuse(bad: Any, text: Any) -> None:
        _add(reasons, bad, text)

    refuse(frame["gpu"].isna() & frame["gpu_id"].isna(), "no GPU is named")
    for bad, text in _column_flaws(frame, layout):
        refuse(bad, text)
    if {"q_heads", "kv_heads"} <= set(layout.sizes):
        several = frame["q_heads"] % frame["kv_heads"] != 0
        refuse(several, "q_heads is not a multiple of kv_heads")
    oom = is_oom(frame, kind)
    if "status" in frame:
        status = frame["status"].fillna("ok").astype(str)
        untimed = frame["time_s"].isna() & ~oom & (status.str.lower() != "ok")
        refuse(untimed, "status is " + status + ": nothing was timed")
    refuse(frame["time_s"].isna() & ~oom, f"{layout.result} is not a positive number")
    return reasons


def _column_flaws(frame: pd.DataFrame, layout: Layout) -> Iterator[tuple[Any, str]]:
    """Yield which rows have what is none in a column that counts."""
    for name in layout.sizes:
        yield ~frame[name].between(1, LARGEST_SIZE), f"{name} is not a size"
    given = (*layout.sizes, *layout.optional)
    for name in filter(given.__contains__, GPU_COUNTS):
        least = 2 if name == "num_gpus" else 1
        yield ~frame[name].between(least, LARGEST_SIZE), f"{name} is not a number of GPUs"
    for name in filter(given.__contains__, SWITCHES):
        yield ~frame[name].isin((0, 1)), f"{name} is not 0 or 1"
    for name in layout.words:
        yield frame[name].isna(), f"{name} is missing"
    for name in DTYPE_COLUMNS:
        if name in frame:
            yield ~frame[name].isin(DTYPES), f"{name} is not one of {', '.join(DTYPES)}"


def impossible(frame: pd.DataFrame, kind: RowKind) -> "pd.Series[Any]":
    """Return why each row cannot be true on its GPU, None where it can."""
    reasons = _no_reasons(frame)
    timed = frame[frame["gpu_id"].notna() & ~is_oom(frame, kind)]
    for name, rows in timed.groupby("gpu_id"):
        for bad, text in plausibility.violations(rows, kind, load_hardware(str(name))):
            _add(reasons, bad.reindex(frame.index, fill_value=False), text)
    return reasons


def _no_reasons(frame: pd.DataFrame) -> "pd.Series[Any]":
    """Return a reason for each row: none yet."""
    return pd.Series([None] * len(frame), index=frame.index, dtype=object)


def _add(reasons: "pd.Series[Any]", bad: Any, text: Any) -> None:
    """Note a reason for the rows that have none yet."""
    new = bad & reasons.isna()
    reasons[new] = text[new] if isinstance(text, pd.Series) else text


def is_oom(frame: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows report that the memory did not suffice, and so have no time."""
    if kind != "decode_step":
        return pd.Series(data=False, index=frame.index)
    return frame["status"].astype(str).str.lower() == "oom"
