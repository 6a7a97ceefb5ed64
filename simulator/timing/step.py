"""The time of a step: its operations one after another, or the host that launches them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from simulator.counts.operation import ONE_KERNEL, Operation, Totals, total
from simulator.counts.transformer import decode_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Execution, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, named, summed, where
from simulator.timing.constants import Rates
from simulator.timing.limits import resident_blocks
from simulator.timing.roofline import (
    ROOFS,
    OperationTime,
    Roof,
    cached_bytes,
    is_used,
    operation_time,
)

_STREAMED: tuple[Roof, ...] = ("memory", "compute", "link")


@dataclass(frozen=True)
class StepTime:
    """Operations one after another, and their time: numbers, or arrays over a grid.

        t = max(sum over the device's operations, sum over the host's launches) + collectives

    Eager execution queues launches while the GPU works, so the slower of the two counts; the host
    launches a CUDA graph only once. The sum of two is a step of both, one after the other.

    Attributes
    ----------
    operations, times
        The operations, and the time of one call of each.
    """

    operations: tuple[Operation, ...]
    times: tuple[OperationTime, ...]

    def __add__(self, other: "StepTime") -> "StepTime":
        """Return these operations, and then the others."""
        return StepTime(self.operations + other.operations, self.times + other.times)

    @property
    def calls(self) -> Iterator[tuple[Operation, OperationTime]]:
        """Each operation with the time of one call."""
        return zip(self.operations, self.times, strict=True)

    @cached_property
    def device_s(self) -> Numeric:
        """Time of the GPU's own operations, attention added last: see ``ONE_KERNEL``. [s]."""
        own = [call for call in self.calls if call[0].kind != "collective"]
        own.sort(key=lambda call: call[0].kind in ONE_KERNEL)
        return summed(operation.repeat * time.device_s for operation, time in own)

    @cached_property
    def collective_s(self) -> Numeric:
        """Time of the traffic between GPUs. [s]."""
        across = (call for call in self.calls if call[0].kind == "collective")
        return summed(operation.repeat * time.device_s for operation, time in across)

    @cached_property
    def host_s(self) -> Numeric:
        """Time of the host's launches. [s]."""
        return summed(operation.repeat * time.host_s for operation, time in self.calls)

    @cached_property
    def total_s(self) -> Numeric:
        """The step's time. [s]."""
        return time_of([self])

    @property
    def by_roof_s(self) -> dict[Roof, Numeric]:
        """Device and collective time by bound: fixed launch time, and time under each roof. [s]."""
        roofs: dict[Roof, Numeric] = dict.fromkeys(ROOFS, 0.0)
        for operation, time in self.calls:
            roofs["launch"] = roofs["launch"] + operation.repeat * time.launch_s
            stream = operation.repeat * time.stream_s
            parts = zip(_STREAMED, time.by_roof, strict=True)
            used = {roof: part for roof, part in parts if is_used(part)}
            longest: Numeric = 0.0
            for part in used.values():
                longest = maximum(longest, part)
            for roof, part in used.items():
                bound = stream if len(used) == 1 else (part >= longest) * stream
                roofs[roof] = roofs[roof] + bound
        return roofs

    @property
    def bound(self) -> Roof:
        """What bounds the step: the host, or the roof with the most time."""
        index: Numeric = 0
        longest: Numeric = 0.0
        for number, spent in enumerate(self.by_roof_s.values()):
            index = where(spent > longest, number, index)
            longest = maximum(longest, spent)
        waits = self.host_s > self.device_s
        return named(ROOFS, where(waits, ROOFS.index("launch"), index))

    @cached_property
    def totals(self) -> Totals:
        """Sums over the operations that the GPU runs, those with a time.

        A card without products in a format expands weights, and quantises no activations.
        """
        return total(operation for operation, time in self.calls if time.runs)


def time_of(parts: Sequence[StepTime]) -> Numeric:
    """Return the time of a step made of parts; a search sums each that stays the same once. [s]."""
    device_s = summed(part.device_s for part in parts)
    host_s = summed(part.host_s for part in parts)
    return maximum(device_s, host_s) + summed(part.collective_s for part in parts)


def step_time(operations: Iterable[Operation], gpu: Rates, execution: Execution) -> StepTime:
    """Time one call of each of some operations.

    Parameters
    ----------
    operations
        One after another; their numeric fields may be arrays.
    gpu
        The GPU's rates.
    execution
        How they are launched.
    """
    listed = tuple(operations)
    return StepTime(listed, tuple(operation_time(each, gpu, execution) for each in listed))


def decode_time(model: ModelShape, setup: Setup, work: Workload, gpu: Rates) -> StepTime:
    """Count the operations of a decode step, and return its time.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    gpu
        The GPU's rates.
    """
    resident = resident_blocks(gpu.gpu)
    operations = decode_operations(model, setup, work, resident_blocks=resident)
    return step_time(operations, gpu, setup.execution)


def memory_traffic(
    operations: Iterable[Operation], gpu: Rates, totals: Totals, *, least: bool = False
) -> Numeric:
    """Return what device memory serves of the bytes that a step reads and writes. [bytes].

    The L2 cache serves the rest: repeated reads of one stored context, and partial results.

    Parameters
    ----------
    operations, totals
        The operations of the step, and their sums.
    gpu
        The GPU's rates.
    least
        Whether as at the lower end of the step's interval: see
        :func:`simulator.timing.roofline.cached_bytes`.
    """
    moved: Numeric = totals.bytes_read + totals.bytes_written
    for operation in operations:
        if is_used(operation.reused_bytes) or is_used(operation.scratch_bytes):
            moved = moved - operation.repeat * cached_bytes(operation, gpu, most=least)
    return moved
