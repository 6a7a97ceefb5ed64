"""The time of one operation: the only place where time is made.

    t = launches x launch + max(bytes / bandwidth, FLOPs / rate)

A launch costs its fixed time; then the operation takes as long as its slower roof. Bytes that stay
in L2 cost L2 bandwidth, and no kernel reads the KV cache faster than its thread blocks can stream.

References
----------
S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

from dataclasses import dataclass
from typing import Literal

from simulator.counts.operation import Operation
from simulator.inputs.workload import Execution
from simulator.numeric import Numeric, maximum, minimum
from simulator.timing.constants import Rates

Roof = Literal["launch", "memory", "compute", "link"]
ROOFS: tuple[Roof, ...] = ("launch", "memory", "compute", "link")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTime:
    """Time of one call of an operation, and what it is made of.

    Attributes
    ----------
    launch_s
        Fixed time of its launches.
    memory_s, compute_s, link_s
        Time under each roof; they overlap, so the largest counts.
    host_s
        Time the host needs to launch it.
    """

    launch_s: Numeric
    memory_s: Numeric
    compute_s: Numeric
    link_s: Numeric
    host_s: Numeric

    @property
    def stream_s(self) -> Numeric:
        """Time under the roof that binds. [s]."""
        return maximum(maximum(self.memory_s, self.compute_s), self.link_s)

    @property
    def device_s(self) -> Numeric:
        """Time on the GPU. [s]."""
        return self.launch_s + self.stream_s

    @property
    def bound(self) -> Roof:
        """The roof that binds, of a single point."""
        parts = (self.launch_s, self.memory_s, self.compute_s, self.link_s)
        return max(zip(parts, ROOFS, strict=True), key=lambda pair: pair[0])[1]


def operation_time(operation: Operation, gpu: Rates, execution: Execution) -> OperationTime:
    """Return the time of one call of an operation on a GPU.

    Parameters
    ----------
    operation
        Its numeric fields may be arrays.
    execution
        Outside a CUDA graph each launch costs more on the device, and time on the host.
    """
    eager = execution == "eager"
    launch_s = gpu.launch_s[operation.kind] + (gpu.eager_launch_s if eager else 0.0)
    return OperationTime(
        launch_s=operation.launches * launch_s,
        memory_s=_memory_s(operation, gpu),
        compute_s=(
            operation.flops / gpu.flops_per_s(operation.kind, operation.dtype)
            if _is_used(operation.flops)
            else 0.0
        ),
        link_s=_link_s(operation, gpu),
        host_s=operation.launches * gpu.host_s_per_launch if eager else 0.0,
    )


def _memory_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time its bytes take. [s]."""
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    if _is_used(operation.reused_bytes):
        cached = cached_bytes(operation, gpu)
        cache_bandwidth = max(gpu.l2_bandwidth_bytes_per_s, bandwidth)
        seconds = (operation.bytes_moved - cached) / bandwidth + cached / cache_bandwidth
    else:
        seconds = operation.bytes_moved / bandwidth
    if operation.blocks is None:
        return seconds
    # Blocks that share keys read them in step: those served from L2 wait for the same memory.
    return maximum(seconds, operation.kv_bytes_read / (operation.blocks * gpu.block_bytes_per_s))


def cached_bytes(operation: Operation, gpu: Rates) -> Numeric:
    """Return the bytes of an operation that the L2 cache serves. [bytes].

    All that are used again while their footprint fits, none when it is twice what the cache can
    hold, linear between: a cache that is streamed through loses lines gradually.
    """
    share = minimum(1.0, maximum(0.0, 2.0 - operation.reused_footprint_bytes / gpu.l2_bytes))
    return operation.reused_bytes * share


def _link_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of its traffic to other GPUs. [s]."""
    if not _is_used(operation.link_bytes):
        return 0.0
    return operation.link_bytes / gpu.link_bytes_per_s(operation.ranks)


def _is_used(value: Numeric) -> bool:
    """Return whether a field is more than a plain zero: arrays always are."""
    return not (isinstance(value, int | float) and value == 0)
