"""Groups of measured rows that are predicted together."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from simulator.counts.operation import Operation
from simulator.errors import SimulatorError
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import Precision
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import ConstantsChoice, Execution, Setup
from simulator.numeric import Numeric, maximum
from simulator.timing.constants import (
    GENERAL,
    LIBRARIES,
    OF_ENGINES,
    Key,
    Rates,
    Variant,
    rates,
    variants_of,
)
from simulator.timing.interval import uncertainty
from simulator.timing.roofline import cached_bytes, operation_time
from simulator.timing.step import StepTime, step_time
from simulator.units import MICROSECOND

# Ends of the intervals of times. [s]
Ends = tuple["np.ndarray", "np.ndarray"]

profile = cache(load_hardware)
model = cache(load_model)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that differ only in sizes.

    Attributes
    ----------
    index
        Their labels in the table.
    operations
        The timed operations, with arrays as long as ``index``; empty for whole programs, which a
        subclass times.
    variants
        Variants whose constants come before general ones, the most specific first.
    setup
        The setup of the rows, as far as their intervals depend on it.
    typical
        Whether they are of kernels that a sane engine would choose: others have constants of their
        own, and do not count for the general ones.
    around
        The constant with the time of what was timed around the operations; None if nothing was.
    cache
        The format of the cache, if operations over it have constants of their own and others not.
    determines
        Whether a fit may use them: not where the host hid all short times of the same kernel, so
        that nothing tells fixed times.
    oom
        Whether each is predicted not to fit in memory, of whole steps.
    """

    kind: RowKind
    gpu_id: str
    index: "pd.Index[Any]"
    operations: Sequence[Operation] = ()
    execution: Execution = "graph"
    variants: tuple[Variant, ...] = ()
    setup: Setup | None = None
    typical: bool = True
    around: Key | None = None
    cache: Precision = ""
    determines: bool = True
    oom: tuple[bool, ...] = ()

    @property
    def precision(self) -> Precision:
        """The rows' format if it has constants of its own; empty for 16 bits."""
        found = (variant.precision for variant in self.variants if variant.precision)
        return next(found, self.cache)

    @property
    def variant(self) -> Variant:
        """The most specific variant of the constants that its rows tell."""
        return self.variants[0] if self.variants else GENERAL

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted times. [s]."""
        gpu_rates, step = self._timed(gpu, choice)
        if self.kind == "all_reduce":
            # Calls one after another; in a model they wait for the slowest rank.
            return self.column(maximum(step.host_s, step.device_s + step.collective_s))
        return self.column(step.total_s + self._around_s(gpu_rates))

    def interval(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> Ends | None:
        """Return the interval of each time, None if no spread is known. [s]."""
        if self.setup is None:
            return None
        gpu_rates, step = self._timed(gpu, choice)
        found = uncertainty(step, gpu_rates, self.setup)
        around_s = self._around_s(gpu_rates)
        return self.column(found.low_s + around_s), self.column(found.high_s + around_s)

    def parts(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> dict[str, "np.ndarray"] | None:
        """Return each row's time by bound, None if the model does not say. [s]."""
        gpu_rates = rates(gpu, choice, variants=self.variants)
        times = [operation_time(item, gpu_rates, self.execution) for item in self.operations]
        timed = list(zip(self.operations, times, strict=True))
        parts = {
            name: self.column(sum(item.repeat * getattr(time, f"{name}_s") for item, time in timed))
            for name in ("launch", "memory", "compute", "link", "host")
        }
        host = parts.pop("host")
        # The host's launches add no time unless they take longer than the GPU's work.
        device = sum(parts.values())
        return {**parts, "host": np.where(host > device, host, 0.0)}

    def l2_share(self, gpu_rates: Rates) -> "np.ndarray":
        """Return the share of each row's bytes that the L2 cache is predicted to serve."""
        moved = self.column(sum(item.repeat * item.bytes_moved for item in self.operations))
        cached = self.column(
            sum(item.repeat * cached_bytes(item, gpu_rates) for item in self.operations)
        )
        return np.asarray(cached / np.maximum(moved, 1))

    def _timed(self, gpu: HardwareProfile, choice: ConstantsChoice) -> tuple[Rates, StepTime]:
        """Return the GPU's rates for these rows, and the time of the operations."""
        gpu_rates = rates(gpu, choice, variants=self.variants)
        return gpu_rates, step_time(self.operations, gpu_rates, self.execution)

    def _around_s(self, gpu_rates: Rates) -> float:
        """Return the time of what was timed around the operations. [s]."""
        if self.around is None:
            return 0.0
        own = gpu_rates.at(self.cache) if self.cache else gpu_rates
        return own.constants[self.around].value * MICROSECOND

    def column(self, values: Any) -> "np.ndarray":
        """Return one value per row, from a number or an array."""
        return np.broadcast_to(np.asarray(values, dtype=np.float64), len(self.index)).copy()


def constants_of_gpu(gpu: HardwareProfile, choice: ConstantsChoice) -> Hashable:
    """Return what tells the GPU's own times apart: all of its constants but those of engines.

    A fit of an engine's time asks for the GPU's again and again.
    """
    own = gpu.fitted.items()
    return choice, tuple((name, item.value) for name, item in own if not name.endswith(OF_ENGINES))


class Prepared(NamedTuple):
    """Rows as groups, and why the others cannot be predicted, by label."""

    groups: list[Group]
    skipped: dict[Any, str]


def numbers(rows: pd.DataFrame, name: str) -> "np.ndarray":
    """Return a column as numbers."""
    return np.asarray(rows[name], dtype=np.float64)


def replayed(operation: Operation, footprint: Numeric | None = None) -> Operation:
    """Return an operation as in a replay, which finds the last one's data in L2 if they fit.

    Parameters
    ----------
    operation
        The operation; what it writes for the next kernel alone counts by itself.
    footprint
        The data that must fit, if not all that it moves. [bytes]
    """
    moved = operation.bytes_moved
    return replace(
        operation,
        reused_bytes=moved - operation.scratch_bytes,
        reused_footprint_bytes=moved if footprint is None else footprint,
    )


def each_row(rows: pd.DataFrame, read: Callable[["pd.Series[Any]"], Group]) -> Prepared:
    """Turn rows of whole programs into a group each.

    Parameters
    ----------
    rows
        Rows of one kind.
    read
        Function that reads one row; raises an error for a row that cannot be predicted.
    """
    found: list[Group] = []
    skipped: dict[Any, str] = {}
    for label, row in rows.iterrows():
        try:
            found.append(read(row))
        except (SimulatorError, ValueError, KeyError) as problem:
            skipped[label] = str(problem)
    return Prepared(found, skipped)


def of_program(row: "pd.Series[Any]") -> dict[str, Any]:
    """Return what the groups of single rows of whole programs have in common."""
    library = library_of(str(row["framework"]))
    index = pd.Index([row.name])
    return {"gpu_id": str(row["gpu_id"]), "index": index, "variants": variants_of([library])}


def library_of(framework: str) -> str:
    """Return the library whose constants a framework's rows use; empty if none.

    >>> library_of("vLLM-0.2.x+relay"), library_of("someone's own")
    ('vllm', '')
    """
    lowered = framework.lower().replace("-", "").replace("_", "")
    if lowered.startswith("tensorrtllm"):
        return "trtllm"
    return next((name for name in LIBRARIES if lowered.startswith(name)), "")
