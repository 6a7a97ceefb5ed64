"""Predict measured rows: each becomes the operations that were timed, and they get their time.

Rows of one GPU, library and number format become arrays, so thousands of them are predicted at
once; the operations do not depend on the constants, so a fit builds them once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from simulator.evidence.measure.cells import IMPLEMENTATIONS
from simulator.evidence.predict import measured, steps
from simulator.evidence.predict.attention_kernels import attention_kernel
from simulator.evidence.predict.calls import BUILDERS, GATHER
from simulator.evidence.predict.groups import Group, HowTimed, library_of
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.hardware import load_hardware
from simulator.inputs.workload import Execution
from simulator.timing.constants import EIGHT_BIT, GENERAL, LOW_PRECISION, Variant


@dataclass(frozen=True)
class Prepared:
    """A table's rows as groups, and why the others cannot be predicted, by label."""

    groups: tuple[Group, ...]
    skipped: Mapping[Any, str]


def prepare(table: pd.DataFrame, kind: RowKind) -> Prepared:
    """Turn rows of one kind into groups of operations."""
    groups: list[Group] = []
    skipped: dict[Any, str] = {}
    skipped.update(
        (label, f"no profile of GPU {name}")
        for label, name in table.loc[table["gpu_id"].isna(), "gpu"].items()
    )
    known = table[table["gpu_id"].notna()]
    own = measured.is_own(known, kind)
    if own.any():
        found, why = measured.prepare(known[own], kind)
        groups += found
        skipped.update(why)
        known = known[~own]
    if kind in {"decode_step", "end_to_end"}:
        more, why = steps.prepare(known, kind)
        return Prepared((*groups, *more), {**skipped, **why})
    builder = BUILDERS.get(kind)
    if builder is None:
        skipped.update((label, f"{kind} rows measure a rate, not a call") for label in known.index)
        return Prepared((), skipped)
    for (gpu_id, *_), rows in known.groupby(_keys(known, kind), sort=True):
        reason = _unpredictable(rows, kind)
        if reason:
            skipped.update((label, reason) for label in rows.index)
            continue
        gpu = load_hardware(str(gpu_id))
        groups.append(
            Group(
                kind=kind,
                gpu_id=str(gpu_id),
                index=rows.index,
                operations=measured.as_left(rows, builder(rows, gpu)),
                execution=_execution(rows),
                variants=variants(rows),
                how=_how(rows),
            )
        )
    return Prepared(tuple(groups), skipped)


def out_of_memory(row: "pd.Series[Any]") -> bool:
    """Return whether a row of a whole step is predicted not to fit its GPU."""
    if row.get("implementation") in IMPLEMENTATIONS:
        return measured.out_of_memory(row)
    return steps.out_of_memory(row)


def variants(rows: pd.DataFrame) -> tuple[Variant, ...]:
    """Return whose constants hold for these rows, the most specific first."""
    first = rows.iloc[0]
    library = library_of(str(first["framework"]))
    dtype = str(first.get("kv_dtype", first["dtype"]))
    low_precision = LOW_PRECISION in (dtype, first["dtype"])
    listed = [Variant(library, LOW_PRECISION), EIGHT_BIT] if low_precision else []
    listed.append(Variant(library))
    if not low_precision and "kv_dtype" in first:
        kernel = attention_kernel(str(first["kernel"]), load_hardware(str(first["gpu_id"])))
        listed.append(Variant(kernel))
    return tuple(dict.fromkeys(variant for variant in listed if variant != GENERAL))


def _how(rows: pd.DataFrame) -> HowTimed:
    """Return how a group's calls were run."""
    first = rows.iloc[0]
    return HowTimed(
        attention="standard" if first.get("mode", "standard") == "standard" else "bifurcated",
        execution=_execution(rows),
        weight_dtype=first["dtype"],
        kv_dtype=first.get("kv_dtype", first["dtype"]),
    )


def _keys(rows: pd.DataFrame, kind: RowKind) -> list[Any]:
    """Return what rows of a group have in common."""
    keys = ["gpu_id", "framework", "kernel", "dtype", "timing"]
    keys += [name for name in ("kv_dtype", "impl", "num_gpus", "mode", "l2_state") if name in rows]
    if kind == "prefill_attention":
        keys.append("causal")
    same = [rows[name].astype(str) for name in keys]
    return [*same, rows["op"] == GATHER] if kind == "elementwise" else same


def _unpredictable(rows: pd.DataFrame, kind: RowKind) -> str | None:
    """Return why a group's rows are none the timing model describes."""
    if kind == "all_reduce":
        gpu = load_hardware(str(rows["gpu_id"].iloc[0]))
        if gpu.link_bytes_per_s(int(rows["num_gpus"].iloc[0])) is None:
            return f"{gpu.id} has no link in its profile"
    return None


def _execution(rows: pd.DataFrame) -> Execution:
    """Return how the rows were launched: in a graph unless they say otherwise."""
    first = rows.iloc[0]
    words = f"{first['timing']} {first.get('impl', '')} {first['kernel']}".lower()
    return "eager" if "eager" in words else "graph"
