"""How far whole steps of plain PyTorch code are off: the paper's own, on top of its kernels.

The paper's cells predicted as a question asks them, without the constants fitted to its harness;
the prefill that its timing charges to the steps is taken off what was measured.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.evidence.predict.groups import profile
from simulator.evidence.predict.steps import prefill_in_step_s
from simulator.evidence.rows.reading import Measurements
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates, rates
from simulator.timing.interval import Code, Spread
from simulator.timing.limits import resident_blocks
from simulator.timing.step import StepTime, step_time

KERNELS: dict[str, Any] = {"einsum": "einsum", "flash2": "flash", "sdpa-math": "sdpa_math"}
OWN_TOKENS = 64  # half of the 128 that the cells generate
LOW, HIGH = 0.1, 0.9


def rows(measurements: Measurements) -> pd.DataFrame:
    """Return the paper's cells whose step a question can ask for.

    Cells that repeat KV heads in memory are left out: no account of ours has it.
    """
    table = measurements.tables.get("decode_step")
    if table is None or "expand_kv" not in table:
        return pd.DataFrame()
    plain = (table["expand_kv"].astype(float) == 0) & (table["tensor_parallel"].astype(float) == 1)
    known = table["kernel"].isin(KERNELS) & (table["weights_dtype"] == "bf16")
    return table[plain & known & table["time_s"].notna() & table["gpu_id"].notna()]


@dataclass(frozen=True)
class Question:
    """A cell as a question asks for it, and its predicted step."""

    work: Workload
    gpu_rates: Rates
    operations: tuple[Operation, ...]
    step: StepTime


def question(row: "pd.Series[Any]") -> Question:
    """Return a cell as a question, and its predicted step."""
    gpu = profile(str(row["gpu_id"]))
    work = Workload(
        samples=int(row["samples"]),
        context_tokens=int(row["context_tokens"]),
        decoded_tokens=OWN_TOKENS,
        attention=row["attention"],
        kernel=KERNELS[str(row["kernel"])],
        kv_layout=row["kv_layout"],
        execution=row["execution"],
    )
    operations = decode_operations(
        load_model(str(row["model"])), work, resident_blocks=resident_blocks(gpu)
    )
    gpu_rates = rates(gpu)
    step = step_time(operations, gpu_rates, work.execution)
    return Question(work, gpu_rates, tuple(operations), step)


def measured_s(row: "pd.Series[Any]") -> float:
    """Return the time of a cell's step without the prefill that was charged to it. [s]."""
    return float(row["time_s"]) - prefill_in_step_s(row)


def spreads(measurements: Measurements) -> dict[str, Spread]:
    """Return how far off the host's launches, unfused kernels and rebuilt caches are."""
    late: dict[Code, list[float]] = {"eager_host": [], "unfused": [], "rebuilt": []}
    for _, row in rows(measurements).iterrows():
        cell = question(row)
        code = _code(cell)
        late[code].append(measured_s(row) / float(cell.step.total_s) - 1)
    return {name: _spread(name, np.array(values)) for name, values in late.items()}


def _code(cell: Question) -> Code:
    """Return which code binds a cell."""
    if cell.step.host_s > cell.step.device_s:
        return "eager_host"
    return "rebuilt" if cell.work.kv_layout == "rebuilt" else "unfused"


def _spread(code: Code, late: "np.ndarray") -> Spread:
    """Return the spread of cells, given by how much of the predicted time they are late."""
    if not len(late):
        return Spread()
    low, high = (float(f"{np.quantile(late, level):.3g}") for level in (LOW, HIGH))
    below, above = max(0.0, -low), max(0.0, high)
    if code == "eager_host":
        return Spread(fixed_below=below, fixed_above=above)
    return Spread(streaming_below=below, streaming_above=above)
