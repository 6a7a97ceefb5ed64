"""Sweeps: standard and bifurcated attention at every point of a grid.

A grid is cut into blocks of bounded size, each computed at once (:mod:`simulator.answers.grid`),
so any number of points runs in constant memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from simulator.answers.estimate import DEFAULT_MEMORY_UTILIZATION, check_workload
from simulator.answers.grid import NAMED_AXES, NUMERIC_AXES, Cell, compare_block
from simulator.errors import SimulatorError
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario
from simulator.inputs.workload import Workload, workload_for
from simulator.timing.constants import ConstantsChoice, rates

if TYPE_CHECKING:
    import numpy as np

# Points worked on at once: the arrays of a block stay in the processor's cache.
POINTS_AT_ONCE = 2**15


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
