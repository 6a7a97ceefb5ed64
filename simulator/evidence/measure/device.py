"""The device that is measured: memory, clocks, stopwatches; CUDA, or the CPU for trying out.

Clocks, power limits and every other setting of the card are read and never set.
"""

import os
import platform
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import Mode
from simulator.evidence.measure.rows import Card, Reading

Pass = Callable[[], object]
Stopwatch = Callable[[], float]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
# What the CPU counts as its L2: small, so that rotation is tried without taking long. [bytes]
_CPU_CACHE_BYTES = 2**16


class Device(Protocol):
    """What a run needs of a device."""

    torch_device: torch.device
    card: Card
    modes: tuple[Mode, ...]
    l2_bytes: int
    total_bytes: int
    headroom_bytes: int

    def free_bytes(self) -> float:
        """Return the memory that tensors can still take. [bytes]."""
        ...

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of random numbers."""
        ...

    def check_room(self, needed_bytes: float) -> None:
        """Raise ``torch.OutOfMemoryError`` where a limit of ours, not the device's, is exceeded."""
        ...

    def warm_up(self) -> None:
        """Work until the clocks are those of work."""
        ...

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a function that runs a pass once and returns the seconds it took."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        ...

    def check_usable(self) -> None:
        """Raise ``RuntimeError`` if an error has left the device unusable for this process."""
        ...

    def release(self, *, thorough: bool = False) -> None:
        """Give back the memory of tensors that are gone, after an error of those in cycles too."""
        ...

    def reading(self) -> Reading:
        """Read clock and temperature."""
        ...

    def facts(self) -> dict[str, object]:
        """Return what the environment record says of the device."""
        ...


class CpuDevice:
    """The CPU: the same path on small shapes, to try the harness; its times say little.

    Parameters
    ----------
    memory_limit
        Tensors together may take this much; more is "out of memory". [bytes]
    """

    modes: tuple[Mode, ...] = ("eager",)

    def __init__(self, *, memory_limit: int | None = None) -> None:
        self.headroom_bytes = 0
        # The shapes are far too small to share out: waiting for threads would be all there is.
        torch.set_num_threads(1)
        self.torch_device = torch.device("cpu")
        name = platform.processor() or platform.machine()
        self.card = Card(gpu=f"CPU {name}", framework="torch", version=torch.__version__)
        self.l2_bytes = _CPU_CACHE_BYTES
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        physical = pages * os.sysconf("SC_PAGE_SIZE") if pages else 2**33
        self.total_bytes = memory_limit or physical
        self._taken = 0

    def free_bytes(self) -> float:
        """Return what is left of the limit. [bytes]."""
        return float(self.total_bytes - self._taken)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of random numbers, counted against the limit."""
        tensor = torch.empty(shape, dtype=dtype)
        self.check_room(tensor.nbytes)
        self._taken += tensor.nbytes
        return tensor.normal_()

    def check_room(self, needed_bytes: float) -> None:
        """Refuse what exceeds the limit."""
        if needed_bytes > self.free_bytes():
            raise torch.OutOfMemoryError(
                f"{needed_bytes:.0f} B asked for, {self.free_bytes():.0f} B of the limit left"
            )

    def warm_up(self) -> None:
        """Do nothing: its times say little anyway."""

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a stopwatch by the host's clock."""
        del mode

        def run() -> float:
            start = time.perf_counter()
            one_pass()
            return time.perf_counter() - start

        return run

    def synchronize(self) -> None:
        """Do nothing: the CPU does not queue."""

    def check_usable(self) -> None:
        """Do nothing: an error on the CPU breaks nothing."""

    def release(self, *, thorough: bool = False) -> None:
        """Forget what was taken."""
        del thorough
        self._taken = 0

    def reading(self) -> Reading:
        """Return nothing: there is no portable way to read a CPU's clock."""
        return Reading()

    def facts(self) -> dict[str, object]:
        """Return name and memory."""
        return {"device": "cpu", "name": self.card.gpu, "memory_bytes": self.total_bytes}


def open_device(name: str, *, memory_limit: int | None = None) -> Device:
    """Return a device by name.

    Raises
    ------
    MeasurementError
        If there is no such device.
    """
    if name == "cuda":
        from simulator.evidence.measure.cuda import CudaDevice

        return CudaDevice(memory_limit=memory_limit)
    if name == "cpu":
        return CpuDevice(memory_limit=memory_limit)
    raise MeasurementError(f"unknown device {name!r}; it can be cuda or cpu")


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether an exception says that memory did not suffice; libraries have their own.

    What memory that runs out inside a capture leaves behind is an error of the capture.
    """
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(problem).lower()
    phrases = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
    if isinstance(problem, RuntimeError) and any(phrase in text for phrase in phrases):
        return True
    before = problem.__cause__ or problem.__context__
    return before is not None and is_out_of_memory(before)
