"""Sweeps: standard and bifurcated attention at every point of a grid.

The numeric axes of a grid are arrays that broadcast with each other, each along a dimension of its
own: a whole decode step, operation by operation, is counted and timed for all points of a block at
once by the very functions that answer a single question. A grid is cut into blocks of bounded
size, so any number of points runs in constant memory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from simulator.answers.estimate import DEFAULT_MEMORY_UTILIZATION, check_workload
from simulator.answers.verdict import TIE_MARGIN, verdicts
from simulator.counts.memory import memory
from simulator.counts.operation import total
from simulator.counts.step import decode_operations
from simulator.errors import SimulatorError
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import (
    Attention,
    Workload,
    WorkloadGrid,
    forward_tokens,
    kept_layout,
    workload_for,
)
from simulator.numeric import Numeric
from simulator.timing.constants import ConstantsChoice, Rates, rates
from simulator.timing.interval import Uncertainty, speedup_interval, uncertainty
from simulator.timing.roofline import ROOFS
from simulator.timing.slots import block_slots
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
# Points worked on at once: the arrays of a block stay in the processor's cache.
POINTS_AT_ONCE = 2**15


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


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid that is ready to run.

    Attributes
    ----------
    cells
        Its combinations of named settings.
    skipped
        Combinations that cannot be run, a sentence each.
    """

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...]
    memory_utilization: float

    @property
    def points(self) -> int:
        """Points that will be computed."""
        return sum(cell.points for cell in self.cells)

    def blocks(self, points_at_once: int = POINTS_AT_ONCE) -> Iterator[dict[str, Any]]:
        """Yield the results block by block: column name to a value or a flat array."""
        for cell in self.cells:
            for part in _parts(cell.numeric, points_at_once):
                yield compare_block(cell, part, self.memory_utilization)


def prepare_sweep(
    scenario: Scenario,
    *,
    constants: ConstantsChoice = "auto",
    memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
) -> Sweep:
    """Resolve a scenario's names and lay out its grid.

    Combinations that cannot be run (heads that do not divide, a kernel without a form for a
    model's cache) are skipped and named.

    Raises
    ------
    SimulatorError
        If a model or GPU is not known, or nothing is left to run.
    """
    axes = scenario.axes
    numeric = {axis: _integers(axes, axis) for axis in NUMERIC_AXES}
    named_axes = [axis for axis in NAMED_AXES if axis in axes]
    gpus = [rates(load_hardware(str(name)), constants) for name in axes["gpu"]]
    cells: list[Cell] = []
    skipped: list[str] = []
    if len(axes.get("attention", ())) > 0:
        skipped.append("attention is not an axis of a sweep: both kinds are computed everywhere")
    for name, kv_heads in product(axes["model"], axes.get("kv_heads", (None,))):
        model = load_model(str(name), kv_heads=None if kv_heads is None else int(kv_heads))
        for gpu_rates in gpus:
            for values in product(*(axes[axis] for axis in named_axes)):
                try:
                    settings = dict(zip(named_axes, values, strict=True))
                    work = _runnable(model, gpu_rates.gpu, settings, max(numeric["query_tokens"]))
                except SimulatorError as error:
                    if str(error) not in skipped:
                        skipped.append(str(error))
                    continue
                # Without trees a sweep has no column for them.
                kept = [axis for axis in NAMED_AXES if axis != "tree" or axis in axes]
                named = {axis: getattr(work, axis) for axis in kept}
                sizes = numeric
                if work.tree:
                    tree = {"prompts": (work.prompts,), "context_tokens": (work.context_tokens,)}
                    sizes = {**numeric, **tree}
                cells.append(Cell(model=model, gpu_rates=gpu_rates, named=named, numeric=sizes))
    if not cells:
        raise SimulatorError(f"scenario {scenario.id}: nothing to run: {'; '.join(skipped)}")
    return Sweep(cells=tuple(cells), skipped=tuple(skipped), memory_utilization=memory_utilization)


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
    slots = block_slots(gpu)
    operations = decode_operations(cell.model, work, block_slots=slots)
    step = step_time(operations, cell.gpu_rates, work.execution)
    totals = total(operations)
    unsure = uncertainty(operations, step, cell.gpu_rates, work, totals)
    needs = memory(
        cell.model,
        work,
        capacity_bytes=gpu.memory_bytes * memory_utilization,
        block_slots=slots,
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


def _integers(axes: Mapping[str, Sequence[Any]], axis: str) -> tuple[int, ...]:
    """Return the values of a numeric axis, the workload's default where it has none."""
    return tuple(axes.get(axis, (Workload.model_fields[axis].default,)))


def _parts(
    numeric: Mapping[str, Sequence[int]], points_at_once: int
) -> Iterator[dict[str, "np.ndarray"]]:
    """Cut a numeric grid into blocks of a bounded number of points, in the grid's own order.

    The last axes stay whole as far as they fit; the first that does not is cut, and the axes
    before it go one value at a time.
    """
    import numpy as np

    lengths: dict[str, int] = {}
    room = points_at_once
    for axis in reversed(list(numeric)):
        length = max(1, min(len(numeric[axis]), room))
        lengths[axis] = length
        room = room // length if length == len(numeric[axis]) else 1
    arrays = {axis: np.asarray(values, dtype=np.float64) for axis, values in numeric.items()}
    starts = [range(0, len(arrays[axis]), lengths[axis]) for axis in numeric]
    for corner in product(*starts):
        yield {
            axis: arrays[axis][start : start + lengths[axis]]
            for axis, start in zip(numeric, corner, strict=True)
        }


def _runnable(
    model: ModelShape, gpu: HardwareProfile, settings: Mapping[str, Any], query_tokens: int
) -> Workload:
    """Return a combination of named settings, those not given as for a single question.

    Parameters
    ----------
    query_tokens
        The most of the grid: a point that processes fewer accepts no more than those.

    Raises
    ------
    SimulatorError
        If the combination cannot be run.
    """
    work = workload_for(model, **settings, query_tokens=query_tokens)
    check_workload(model, gpu, work)
    return work
