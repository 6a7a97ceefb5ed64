"""Blocks of a grid: standard and bifurcated attention at all points of a block at once.

The numeric axes of a grid are arrays that broadcast with each other, each along a dimension of its
own: a whole decode step, operation by operation, is counted and timed for all points by the very
functions that answer a single question.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from simulator.answers.verdict import TIE_MARGIN, verdicts
from simulator.counts.memory import memory
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Attention, WorkloadGrid, forward_tokens, kept_layout
from simulator.numeric import Numeric
from simulator.timing.constants import Rates
from simulator.timing.interval import Uncertainty, speedup_interval, uncertainty
from simulator.timing.limits import resident_blocks
from simulator.timing.roofline import ROOFS
from simulator.timing.step import StepTime, step_time
from simulator.units import MILLISECOND

if TYPE_CHECKING:
    import numpy as np

NUMERIC_AXES = ("prompts", "samples", "context_tokens", "decoded_tokens", "query_tokens")
NAMED_AXES = (
    "tree",
    "accepted_tokens",
    "kernel",
    "kv_layout",
    "execution",
    "weight_dtype",
    "kv_dtype",
    "tensor_parallel",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of model, GPU and named settings, and the numeric grid under it."""

    model: ModelShape
    gpu_rates: Rates
    named: Mapping[str, Any]
    numeric: Mapping[str, Sequence[int]]

    @property
    def points(self) -> int:
        """Points of the numeric grid."""
        return math.prod(len(values) for values in self.numeric.values())


def compare_block(
    cell: Cell, numeric: Mapping[str, "np.ndarray"], memory_utilization: float
) -> dict[str, Any]:
    """Compare both kinds of attention at every point of one block.

    Parameters
    ----------
    numeric
        The values of each numeric axis in this block.

    Returns
    -------
    dict
        The columns of the sweep, see docs/commands.md: settings that are the same for the whole
        block as plain values, all others as arrays of one entry per point, last axis fastest.
    """
    import numpy as np

    shape = tuple(len(values) for values in numeric.values())
    grid = dict(zip(numeric, np.ix_(*numeric.values()), strict=True))

    def flat(values: Numeric) -> "np.ndarray":
        return np.broadcast_to(values, shape).reshape(-1)

    columns: dict[str, Any] = _settings(cell)
    columns.update({axis: flat(values).astype(np.int64) for axis, values in grid.items()})
    steps: dict[Attention, Uncertainty] = {}
    kv_read: dict[Attention, Numeric] = {}
    for attention in ("standard", "bifurcated"):
        settings: dict[str, Any] = {**grid, **cell.named}
        work = WorkloadGrid(**settings, attention=attention)
        work = replace(work, kv_layout=kept_layout(attention, work.kv_layout))
        step, results = _solve(cell, work, memory_utilization)
        steps[attention], kv_read[attention] = step, results["kv_bytes_read"]
        columns.update({f"{attention}_{name}": flat(values) for name, values in results.items()})
    speedup = flat(steps["standard"].total_s / steps["bifurcated"].total_s)
    columns["speedup"] = speedup
    low, high = map(flat, speedup_interval(steps["standard"], steps["bifurcated"]))
    columns["speedup_low"], columns["speedup_high"] = low, high
    columns["kv_io_ratio"] = flat(_ratio(kv_read["standard"], kv_read["bifurcated"]))
    fits = columns["standard_fits"], columns["bifurcated_fits"]
    columns["winner"] = winners(speedup, *fits)
    columns["verdict"] = verdicts(low, high, *fits)
    return columns


def winners(
    speedup: "np.ndarray", standard_fits: "np.ndarray", bifurcated_fits: "np.ndarray"
) -> "np.ndarray":
    """Return the faster kind of attention that fits at every point, as ``compare`` decides it."""
    import numpy as np

    # As references: an array of texts would hold each of them anew.
    names = np.array(["standard", "bifurcated", "tie"], dtype=object)
    close = np.where(np.abs(speedup - 1) < TIE_MARGIN, 2, speedup > 1)
    only = np.where(standard_fits, 0, 1)
    return names[np.where(standard_fits == bifurcated_fits, close, only)]


def _solve(
    cell: Cell, work: WorkloadGrid, memory_utilization: float
) -> tuple[Uncertainty, dict[str, Numeric]]:
    """Count and time one kind of attention over a block."""
    gpu = cell.gpu_rates.gpu
    resident = resident_blocks(gpu)
    operations = decode_operations(cell.model, work, resident_blocks=resident)
    step = step_time(operations, cell.gpu_rates, work.execution)
    totals = total(operations)
    unsure = uncertainty(operations, step, cell.gpu_rates, work, totals)
    needs = memory(
        cell.model,
        work,
        capacity_bytes=gpu.memory_bytes * memory_utilization,
        resident_blocks=resident,
    )
    return unsure, {
        "step_ms": step.total_s / MILLISECOND,
        "step_ms_low": unsure.low_s / MILLISECOND,
        "step_ms_high": unsure.high_s / MILLISECOND,
        "tokens_per_s": forward_tokens(work) / step.total_s,
        "flops": totals.flops,
        "bytes_read": totals.bytes_read,
        "bytes_written": totals.bytes_written,
        "kv_bytes_read": totals.kv_bytes_read,
        "memory_bytes": needs.total_bytes,
        "fits": needs.fits,
        "bound": _bound(step),
    }


def _bound(step: StepTime) -> "np.ndarray":
    """Return what binds the step at every point, as :attr:`StepTime.bound` does at one."""
    import numpy as np

    index: Numeric = 0
    largest: Numeric = 0.0
    for number, roof in enumerate(ROOFS):
        time = step.by_roof_s[roof]
        index = np.where(time > largest, number, index)
        largest = np.maximum(largest, time)
    waits = step.host_s > step.device_s
    index = np.where(waits, ROOFS.index("launch"), index)
    return np.array(ROOFS, dtype=object)[index]


def _ratio(standard: Numeric, bifurcated: Numeric) -> Numeric:
    """Divide, with 1 where neither reads anything."""
    import numpy as np

    nothing = np.asarray(bifurcated) == 0
    return np.where(nothing, 1.0, standard / np.where(nothing, 1.0, bifurcated))


def _settings(cell: Cell) -> dict[str, Any]:
    """Return the settings that are the same for the whole cell, as columns."""
    settings = {
        "model": cell.model.name,
        "kv_heads": cell.model.kv_heads,
        "gpu": cell.gpu_rates.gpu.id,
        **cell.named,
    }
    if "tree" in settings:
        settings["tree"] = tree_text(settings["tree"])
    return settings
