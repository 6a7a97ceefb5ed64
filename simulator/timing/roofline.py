"""The time of one operation: the only place where time is made.

    t = launches x launch + serial work + norm(bytes / bandwidth, FLOPs / rate)

A launch costs its fixed time, and what is walked through one by one costs its own; then the
operation takes as long as its slower roof, or longer where the two do not overlap: the norm is
(x^p + y^p)^(1/p), from their sum (p = 1) to the larger (p infinite). Bytes that stay in L2 cost L2
bandwidth, no kernel reads the KV cache faster than its thread blocks can stream, and more thread
blocks than SMs run in waves. A matrix product is cut into tiles, which run in waves too
(:mod:`simulator.timing.tiles`).

References
----------
S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

import math
from dataclasses import dataclass
from typing import Literal

from simulator.counts.operation import Operation
from simulator.inputs.setup import Execution
from simulator.numeric import Numeric, maximum, minimum
from simulator.timing.constants import Rates
from simulator.timing.norm import norm
from simulator.timing.tiles import tiled

# The launch of a kernel hides the first tile of keys of its blocks, 128 tokens of K and V in 16
# bits: measured calls take as long for 2 tokens as for 128.
FIRST_TILE_BYTES = 128 * 2 * 128 * 2

Roof = Literal["launch", "memory", "compute", "link"]
ROOFS: tuple[Roof, ...] = ("launch", "memory", "compute", "link")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTime:
    """Time of one call of an operation, and what it is made of.

    Attributes
    ----------
    launch_s
        Fixed time of its launches, and of what is walked through one by one.
    memory_s, compute_s, link_s
        Time under each roof; they overlap more or less.
    host_s
        Time the host needs to launch it.
    overlap
        How the times under the roofs add.
    """

    launch_s: Numeric
    memory_s: Numeric
    compute_s: Numeric
    link_s: Numeric
    host_s: Numeric
    overlap: float = float("inf")

    @property
    def stream_s(self) -> Numeric:
        """Time under the roofs: that of the one that binds, and what it does not hide. [s]."""
        if is_used(self.compute_s):
            streaming = norm(self.memory_s, self.compute_s, self.overlap)
        else:
            streaming = self.memory_s
        return maximum(streaming, self.link_s)

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
    gpu = gpu.of(operation)
    eager = execution == "eager"
    launch_s = gpu.launch_s[operation.kind] + (gpu.eager_launch_s if eager else 0.0)
    fixed_s = operation.launches * launch_s + _serial_s(operation, gpu)
    memory_s = _memory_s(operation, gpu)
    if is_used(operation.m) and gpu.tile_bytes_per_s < math.inf:
        split_s, compute_s = tiled(operation, gpu, memory_s)
        fixed_s = fixed_s + split_s
    else:
        compute_s = _compute_s(operation, gpu)
    return OperationTime(
        launch_s=fixed_s,
        memory_s=memory_s,
        compute_s=compute_s,
        link_s=_link_s(operation, gpu),
        host_s=operation.launches * gpu.host_s_per_launch if eager else 0.0,
        overlap=gpu.overlap[operation.kind],
    )


def _serial_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of what is walked through one by one. [s]."""
    seconds: Numeric = 0.0
    if is_used(operation.sequences):
        seconds = seconds + operation.sequences * gpu.sequence_s
    if is_used(operation.splits):
        seconds = seconds + operation.splits * gpu.split_s
    return seconds


def _compute_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time its FLOPs take. [s].

    The last wave of thread blocks ends with its longest one; on average half of it has nothing
    beside it.
    """
    if not is_used(operation.flops):
        return 0.0
    rate = gpu.flops_per_s(operation.kind, operation.dtype)
    flops = operation.flops
    if is_used(operation.longest_block_flops):
        flops = flops + operation.longest_block_flops * (gpu.gpu.sm_count / 2)
    return flops / rate


def _memory_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time its bytes take. [s]."""
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    if is_used(operation.reused_bytes) or is_used(operation.scratch_bytes):
        cached = cached_bytes(operation, gpu)
        cache_bandwidth = max(gpu.l2_bandwidth_bytes_per_s, bandwidth)
        seconds = (operation.bytes_moved - cached) / bandwidth + cached / cache_bandwidth
    else:
        seconds = operation.bytes_moved / bandwidth
    if operation.effective_blocks is not None:
        # A block waits for each of its loads, from L2 hardly less than from memory.
        hidden_bytes = operation.effective_blocks * FIRST_TILE_BYTES
        waiting_bytes = maximum(operation.kv_bytes_read - hidden_bytes, 0.0)
        blocks_s = waiting_bytes / (operation.effective_blocks * gpu.block_bytes_per_s)
        seconds = norm(seconds, blocks_s, gpu.overlap[operation.kind])
    if is_used(operation.thread_blocks):
        waves = maximum(operation.thread_blocks / gpu.gpu.sm_count - 1, 0.0)
        # Blocks start and end while others stream.
        seconds = norm(seconds, waves * gpu.block_s[operation.kind], 2)
    return seconds


def cached_bytes(operation: Operation, gpu: Rates) -> Numeric:
    """Return the bytes of an operation that the L2 cache serves. [bytes].

    All that are used again while their footprint fits, none when it is twice what the cache can
    hold, linear between: a cache that is streamed through loses lines gradually.
    """
    l2_bytes = gpu.of(operation).l2_bytes
    cached: Numeric = 0.0
    for used, footprint in (
        (operation.reused_bytes, operation.reused_footprint_bytes),
        (operation.scratch_bytes, operation.scratch_bytes),
    ):
        if is_used(used):
            cached = cached + used * minimum(1.0, maximum(0.0, 2.0 - footprint / l2_bytes))
    return cached


def _link_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of its traffic to other GPUs. [s]."""
    if not is_used(operation.link_bytes):
        return 0.0
    return operation.link_bytes / gpu.link_bytes_per_s(operation.ranks)


def is_used(value: Numeric) -> bool:
    """Return whether a field is more than a plain zero: arrays always are."""
    return not (isinstance(value, int | float) and value == 0)
