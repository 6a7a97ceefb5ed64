"""What a cell should take: device time by the timing model, memory by the accounts.

The code that is measured is plain PyTorch, one kernel for each operation, also when its launches
are replayed from a CUDA graph. So its operations are those of ``execution = "eager"``, and only the
time of their launches is that of a graph.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from simulator.counts.attention.flash import flash_bifurcated
from simulator.counts.attention.plain import ACCOUNTS
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Kind as OperationKind
from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES
from simulator.evidence.measure.cells import (
    AttentionCell,
    Cell,
    ElementwiseCell,
    GemmCell,
    MemoryCell,
    StepCell,
)
from simulator.evidence.measure.footprint import (
    attention_shape,
    call_bytes,
    elementwise_bytes,
    stream_bytes,
    workload,
)
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.timing.constants import Rates
from simulator.timing.limits import BLOCKS_PER_SM
from simulator.timing.step import step_time

# Buffers rotate over this many times the L2 before one is used again. Were lines thrown out at
# random, a cyclic walk over c times the cache would find a share h = exp(c (h - 1)) of them still
# there: 11 % for 2.5, 2 % for 4.
ROTATION = 4.0
# A run of calls between two events: enough of them, but never more.
LARGEST_ROTATION = 256
# CUDA's own needs beside the tensors: handles, library workspaces, fragmentation. [bytes]
CUDA_HEADROOM_BYTES = 256 * 2**20
# Wall time of a cell beside the timed calls: inputs, check, capture. [s]
_SETUP_S, _STEP_SETUP_S, _COMPILE_S = 0.05, 0.3, 20.0
# Random numbers are written at about this rate. [bytes/s] (guess; a dry run only)
_FILL_BYTES_PER_S = 300e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a cell is timed.

    Attributes
    ----------
    warm_up
        Passes that are not counted.
    least, most
        Passes that are counted; between them until ``budget_s`` is used up.
    least_pass_s
        A pass repeats its calls until it should take about this long. [s]
    """

    warm_up: int = 2
    least: int = 5
    most: int = 30
    budget_s: float = 0.1
    least_pass_s: float = 100e-6


def timing_for(device: str, most: int) -> Timing:
    """Return how long cells are timed on a device, with at most so many repeats."""
    least = min(Timing().least, most)
    if device == "cpu":
        return Timing(warm_up=1, least=min(3, most), most=most, budget_s=0.0, least_pass_s=0.0)
    return Timing(least=least, most=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a cell should take.

    Attributes
    ----------
    seconds
        One call on the device; None without a GPU profile. [s]
    input_bytes
        Tensors that exist before the call: caches, weights, rotated buffers. [bytes]
    workspace_bytes
        What the call allocates at its peak. [bytes]
    headroom_bytes
        What the device needs beside tensors. [bytes]
    """

    seconds: float | None
    input_bytes: float
    workspace_bytes: float
    headroom_bytes: float = 0.0

    @property
    def memory_bytes(self) -> float:
        """All the cell needs. [bytes]."""
        return self.input_bytes + self.workspace_bytes + self.headroom_bytes


def predict(
    cell: Cell, *, gpu: Rates | None, l2_bytes: float, headroom_bytes: float = 0.0
) -> Prediction:
    """Predict a cell's time and memory.

    Parameters
    ----------
    gpu
        Rates of the card, or None to predict memory only.
    l2_bytes
        Size of the cache that cold cells must get past.
    """
    seconds = _seconds(cell, gpu) if gpu is not None else None
    one_set, workspace = call_bytes(cell)
    sets = rotation(one_set, l2_bytes) if cell.l2 == "cold" and cell.kind != "step" else 1
    return Prediction(
        seconds=seconds,
        input_bytes=one_set * sets,
        workspace_bytes=workspace,
        headroom_bytes=headroom_bytes,
    )


def rotation(set_bytes: float, l2_bytes: float) -> int:
    """Return how many sets of buffers keep L2 cold.

    >>> rotation(2**20, 50 * 2**20), rotation(2**30, 50 * 2**20)
    (200, 1)
    """
    return max(1, min(LARGEST_ROTATION, math.ceil(ROTATION * l2_bytes / max(1.0, set_bytes))))


def operations(cell: Cell, *, resident_blocks: int) -> list[Operation]:
    """List the operations of one call of a cell, as plain PyTorch runs them."""
    if isinstance(cell, AttentionCell):
        return kernel_operations(
            cell.kernel, attention_shape(cell, resident_blocks=resident_blocks)
        )
    if isinstance(cell, StepCell):
        return decode_operations(cell.model, workload(cell), resident_blocks=resident_blocks)
    if isinstance(cell, GemmCell):
        element = DTYPE_BYTES[cell.dtype]
        return [
            Operation(
                name="gemm",
                kind="gemm",
                flops=2 * cell.m * cell.n * cell.k,
                bytes_read=(cell.m + cell.n) * cell.k * element,
                bytes_written=cell.m * cell.n * element,
                dtype=cell.dtype,
            )
        ]
    if isinstance(cell, ElementwiseCell):
        read, written = elementwise_bytes(cell)
    else:
        read, written = stream_bytes(cell)
    kind = (
        "gather"
        if isinstance(cell, ElementwiseCell) and cell.op == "embedding"
        else ("copy" if isinstance(cell, MemoryCell) else "elementwise")
    )
    return [
        Operation(
            name=cell.kind, kind=cast("OperationKind", kind), bytes_read=read, bytes_written=written
        )
    ]


def kernel_operations(kernel: str, shape: AttentionShape) -> list[Operation]:
    """List the operations of one call of an attention kernel.

    Another library's are those of an engine's bifurcated flash attention: flash on the context, on
    own tokens, and one kernel that merges.
    """
    if kernel in OTHER_LIBRARIES:
        return flash_bifurcated(shape, 1)
    return ACCOUNTS[kernel](shape, 1)


def passes_per_cell(timing: Timing, pass_s: float) -> int:
    """Return how many passes are timed when one takes ``pass_s``."""
    return max(timing.least, min(timing.most, int(timing.budget_s / max(pass_s, 1e-9))))


def wall_s(cells: Sequence[Cell], predictions: Sequence[Prediction], timing: Timing) -> float:
    """Guess how long a group takes to prepare, check and time. [s]."""
    total = 0.0
    for cell, prediction in zip(cells, predictions, strict=True):
        call_s = prediction.seconds or 0.0
        sets = prediction.input_bytes / max(1.0, call_bytes(cell)[0])
        pass_s = max(call_s * max(1.0, sets), min(timing.least_pass_s, call_s * LARGEST_ROTATION))
        passes = timing.warm_up + 1 + passes_per_cell(timing, pass_s)
        setup = _STEP_SETUP_S if cell.kind == "step" else _SETUP_S
        compiled = isinstance(cell, AttentionCell) and cell.kernel == "bifurcated_flex"
        total += setup + passes * pass_s + (_COMPILE_S if compiled and cell.mode == "graph" else 0)
    largest = max((prediction.input_bytes for prediction in predictions), default=0.0)
    return total + largest / _FILL_BYTES_PER_S


def _seconds(cell: Cell, gpu: Rates) -> float:
    """Return the predicted time of one call on the device. [s]."""
    listed = operations(cell, resident_blocks=BLOCKS_PER_SM * gpu.gpu.sm_count)
    return float(step_time(listed, gpu, cell.mode).total_s)
