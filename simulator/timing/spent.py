"""What of a step its interval depends on: sums over its operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.counts.operation import Operation, Totals, total
from simulator.numeric import Numeric, maximum, where
from simulator.timing.constants import Rates
from simulator.timing.limits import peak_flops_per_s
from simulator.timing.roofline import OperationTime, cached_bytes, is_used
from simulator.timing.spread import FAMILY, Family
from simulator.timing.step import KindTime, StepTime

if TYPE_CHECKING:
    from simulator.inputs.dtypes import Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Sums over the operations of a step.

    Attributes
    ----------
    total_s, device_s, host_s, collective_s
        As in :class:`~simulator.timing.step.StepTime`.
    bound_s
        Its bytes or FLOPs at published peaks: see :func:`peak_bound_s`.
    families
        Time by kind of kernel.
    cached_s
        Of kernels that read something again, the streaming time of bytes that L2 serves.
    launches
        Kernels launched.
    """

    total_s: Numeric
    device_s: Numeric
    host_s: Numeric
    collective_s: Numeric
    bound_s: Numeric
    families: Mapping[Family, KindTime]
    cached_s: Mapping[Family, Numeric]
    launches: Mapping[Family, Numeric]


def spent_by(
    operations: Sequence[Operation],
    step: StepTime,
    gpu_rates: Rates,
    totals: Totals | None = None,
) -> Spent:
    """Sum up what of a step its interval depends on; ``totals`` where they are known already."""
    families: dict[Family, KindTime] = {}
    for kind, time in step.by_kind.items():
        _add_time(families.setdefault(FAMILY[kind], KindTime()), time)
    launches: dict[Family, Numeric] = {}
    cached_s: dict[Family, Numeric] = {}
    for operation, time_of_one in zip(operations, step.operations, strict=True):
        family = FAMILY[operation.kind]
        launched = operation.repeat * operation.launches
        launches[family] = launches.get(family, 0.0) + launched
        if is_used(operation.reused_bytes):
            spent = operation.repeat * cached_stream_s(operation, time_of_one, gpu_rates)
            cached_s[family] = cached_s.get(family, 0.0) + spent
    return Spent(
        total_s=step.total_s,
        device_s=step.device_s,
        host_s=step.host_s,
        collective_s=step.collective_s,
        bound_s=peak_bound_s(operations, gpu_rates, totals),
        families=families,
        cached_s=cached_s,
        launches=launches,
    )


def cached_stream_s(operation: Operation, time: OperationTime, gpu_rates: Rates) -> Numeric:
    """Return the streaming time of an operation's bytes that the L2 cache serves again. [s].

    None where nothing is read again, as with a single sample: then it is like any other kernel.
    """
    share = cached_bytes(operation, gpu_rates) / maximum(operation.bytes_moved, 1.0)
    return where(operation.reused_bytes > 0, share, 0.0) * time.stream_s


def peak_bound_s(
    operations: Sequence[Operation], gpu_rates: Rates, totals: Totals | None = None
) -> Numeric:
    """Return the time below which no step is: its bytes or FLOPs at published peaks. [s].

    Bytes that the L2 cache might serve are left out.
    """
    totals = total(operations) if totals is None else totals
    moved: Numeric = totals.bytes_read + totals.bytes_written
    products: dict[Dtype, list[Operation]] = {}
    for operation in operations:
        if is_used(operation.reused_bytes):
            moved = moved - operation.repeat * operation.reused_bytes
        if is_used(operation.scratch_bytes):
            moved = moved - operation.repeat * operation.scratch_bytes
        if is_used(operation.flops):
            products.setdefault(operation.dtype, []).append(operation)
    compute: Numeric = 0.0
    for dtype, some in products.items():
        flops: Numeric = totals.flops
        if len(products) > 1:
            flops = sum(operation.repeat * operation.flops for operation in some)
        compute = compute + flops / peak_flops_per_s(gpu_rates.gpu, dtype)[0]
    return maximum(moved / gpu_rates.gpu.memory_bandwidth_bytes_per_s, compute)


def _add_time(whole: KindTime, part: KindTime) -> None:
    """Add the time of one kind of operation to that of its family."""
    whole.total_s = whole.total_s + part.total_s
    whole.fixed_s = whole.fixed_s + part.fixed_s
    whole.squares_s2 = whole.squares_s2 + part.squares_s2
