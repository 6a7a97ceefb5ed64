"""The time of a step: its operations one after another, or the host that launches them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from simulator.counts.operation import ONE_KERNEL, Kind, Operation, Totals
from simulator.counts.transformer import attention_operations, decode_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Execution, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, named, where
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


@dataclass(slots=True, kw_only=True)
class KindTime:
    """Time of all operations of one kind in a step.

    Attributes
    ----------
    total_s, fixed_s
        All of it, and the fixed part: launches and items processed one by one.
    squares_s2
        Sum of the squares of each operation's part of ``total_s``, large if few operations dominate
        the time; 0 if their errors count as one. [s^2]
    """

    total_s: Numeric = 0.0
    fixed_s: Numeric = 0.0
    squares_s2: Numeric = 0.0


class StepTime(NamedTuple):
    """Time of a step, numbers or arrays over a grid.

    Attributes
    ----------
    total_s
        max(device, host) + collectives.
    device_s, host_s, collective_s
        Time of the GPU's own operations, of the host's launches, and of traffic between GPUs.
    by_kind
        Device and collective time by kind of operation.
    operations, repeats
        Time of one call of each operation, in order, and how often it is called.
    """

    total_s: Numeric
    device_s: Numeric
    host_s: Numeric
    collective_s: Numeric
    by_kind: dict[Kind, KindTime]
    operations: tuple[OperationTime, ...]
    repeats: tuple[int, ...]

    @property
    def by_roof_s(self) -> dict[Roof, Numeric]:
        """Device and collective time by bound: fixed launch time, and time under each roof. [s]."""
        roofs: dict[Roof, Numeric] = dict.fromkeys(ROOFS, 0.0)
        for time, repeat in zip(self.operations, self.repeats, strict=True):
            roofs["launch"] = roofs["launch"] + repeat * time.launch_s
            stream = repeat * time.stream_s
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


@dataclass(frozen=True, slots=True)
class Spent:
    """Time of some operations of a step on GPU, host and links. [s].

    This is enough for searches, which time unchanging parts once and add them.
    """

    device_s: Numeric
    host_s: Numeric
    collective_s: Numeric

    def __add__(self, other: "Spent") -> "Spent":
        """Return the sum of both."""
        return Spent(
            self.device_s + other.device_s,
            self.host_s + other.host_s,
            self.collective_s + other.collective_s,
        )

    @property
    def total_s(self) -> Numeric:
        """The step's time: max(device, host) + collectives. [s]."""
        return maximum(self.device_s, self.host_s) + self.collective_s


@dataclass(frozen=True, slots=True)
class Timed:
    """Operations, and the time of one call of each.

    Kinds of attention and forms of it differ in few operations: the others are timed once.
    """

    operations: tuple[Operation, ...]
    times: tuple[OperationTime, ...]

    def __add__(self, other: "Timed") -> "Timed":
        """Return these operations, and then the others."""
        return Timed(self.operations + other.operations, self.times + other.times)

    @property
    def spent(self) -> Spent:
        """The sum of their times."""
        device: Numeric = 0.0
        host: Numeric = 0.0
        collective: Numeric = 0.0
        for operation, time in zip(self.operations, self.times, strict=True):
            if operation.kind == "collective":
                collective = collective + operation.repeat * time.device_s
            else:
                device = device + operation.repeat * time.device_s
            host = host + operation.repeat * time.host_s
        return Spent(device, host, collective)


def timed(operations: Iterable[Operation], gpu: Rates, execution: Execution) -> Timed:
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
    return Timed(listed, tuple(operation_time(each, gpu, execution) for each in listed))


def timed_attention(model: ModelShape, setup: Setup, work: Workload, gpu: Rates) -> Timed:
    """Time a decode step's attention, all layers together.

    Parameters
    ----------
    model, setup, work
        What is decoded, how, and its sizes, numbers or arrays.
    gpu
        The GPU's rates.
    """
    attending = attention_operations(model, setup, work, resident_blocks(gpu.gpu))
    return timed(attending, gpu, setup.execution)


def step_time(operations: Iterable[Operation], gpu: Rates, execution: Execution) -> StepTime:
    """Return the time of a sequence of operations.

        t = max(sum over the device's operations, sum over the host's launches) + collectives

    Eager execution queues launches while the GPU works, so the slower of the two counts; the host
    launches a CUDA graph only once.

    Parameters
    ----------
    operations
        One after another; their numeric fields may be arrays.
    gpu
        The GPU's rates.
    execution
        How they are launched.
    """
    return summed(timed(operations, gpu, execution))


def summed(step: Timed) -> StepTime:
    """Return the time of a sequence of operations, as :func:`step_time` does, from that of each."""
    device: Numeric = 0.0
    host: Numeric = 0.0
    collective: Numeric = 0.0
    kinds = {operation.kind: KindTime() for operation in step.operations}
    pairs = zip(step.operations, step.times, strict=True)
    for operation, time in sorted(pairs, key=lambda pair: pair[0].kind in ONE_KERNEL):
        spent = operation.repeat * time.device_s
        fixed = operation.repeat * time.launch_s
        if operation.kind == "collective":
            collective = collective + spent
        else:
            device = device + spent
        host = host + operation.repeat * time.host_s
        kind = kinds[operation.kind]
        kind.total_s = kind.total_s + spent
        kind.fixed_s = kind.fixed_s + fixed
        if operation.kind not in ONE_KERNEL:
            kind.squares_s2 = kind.squares_s2 + spent * spent
    return StepTime(
        total_s=maximum(device, host) + collective,
        device_s=device,
        host_s=host,
        collective_s=collective,
        by_kind=kinds,
        operations=step.times,
        repeats=tuple(operation.repeat for operation in step.operations),
    )


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


def running(operations: Sequence[Operation], step: StepTime) -> list[Operation]:
    """Return the operations that the GPU runs, those with a time.

    A card without products in a format expands weights, and quantises no activations.

    Parameters
    ----------
    operations, step
        The operations, and their times.
    """
    pairs = zip(operations, step.operations, strict=True)
    return [operation for operation, time in pairs if time.runs]
