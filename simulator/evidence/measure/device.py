"""The measured device: a CUDA card, or the CPU to test the harness.

Clocks, power limits and every other setting of the card are read and never set.
"""

import gc
import math
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import Mode
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES
from simulator.evidence.measure.rows import Machine, SensorReading
from simulator.evidence.measure.sensors import Sensors

Pass = Callable[[], object]
Stopwatch = Callable[[], float]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
# The CPU's assumed L2: small, so that a test of the rotation is short. [bytes]
_CPU_CACHE_BYTES = 2**16
# The spin before a graph lasts until the host has queued it: at least this, and twice the host's
# time for the quickest replay, at the clock of the fastest cards. [clock cycles]
_SPIN_CYCLES, _MOST_SPIN_CYCLES = 600_000, 40_000_000
_CYCLES_PER_S = 2e9
# Matrix products before the first cell.
_WARM_UP_S, _WARM_UP_WIDTH = 0.5, 2048


class CpuDevice:
    """The CPU: the same path on small shapes, to test the harness; its times mean little.

    Parameters
    ----------
    memory_limit
        Limit of all tensors together; more is "out of memory". [bytes]
    """

    def __init__(self, *, memory_limit: int | None = None) -> None:
        self.headroom_bytes = 0
        # The shapes are too small for several threads.
        torch.set_num_threads(1)
        self.torch_device = torch.device("cpu")
        name = platform.processor() or platform.machine()
        self.card = Machine(gpu=f"CPU {name}", framework="torch", version=torch.__version__)
        self.l2_bytes = _CPU_CACHE_BYTES
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        physical = pages * os.sysconf("SC_PAGE_SIZE") if pages else 2**33
        self.total_bytes = memory_limit or physical
        self._taken = 0

    def free_bytes(self) -> float:
        """Return the rest of the limit. [bytes]."""
        return float(self.total_bytes - self._taken)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of random numbers, counted against the limit."""
        tensor = torch.empty(shape, dtype=dtype)
        self.check_room(tensor.nbytes)
        self._taken += tensor.nbytes
        return tensor.normal_()

    def check_room(self, needed_bytes: float) -> None:
        """Refuse an allocation beyond the limit."""
        if needed_bytes > self.free_bytes():
            raise torch.OutOfMemoryError(
                f"{needed_bytes:.0f} B asked for, {self.free_bytes():.0f} B of the limit left"
            )

    def warm_up(self) -> None:
        """Do nothing: the CPU's times mean little anyway."""

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a stopwatch that uses the host's clock."""
        del mode

        def run() -> float:
            start = time.perf_counter()
            one_pass()
            return time.perf_counter() - start

        return run

    def check_usable(self) -> None:
        """Do nothing: an error does not break the CPU."""

    def release(self, *, thorough: bool = False) -> None:
        """Reset the count of used memory."""
        del thorough
        self._taken = 0

    def reading(self) -> SensorReading:
        """Return nothing: there is no portable way to read a CPU's clock."""
        return SensorReading()

    def facts(self) -> dict[str, object]:
        """Return name and memory."""
        return {"device": "cpu", "name": self.card.gpu, "memory_bytes": self.total_bytes}


class CudaDevice:
    """One CUDA device.

    Parameters
    ----------
    memory_limit
        The most of the card's memory that this process may take. [bytes]

    Raises
    ------
    MeasurementError
        If there is no CUDA device.
    """

    def __init__(self, *, memory_limit: int | None = None) -> None:
        if not torch.cuda.is_available():
            built = "has no CUDA" if torch.version.cuda is None else "finds no CUDA device"
            raise MeasurementError(
                f"cannot measure on cuda: torch {torch.__version__} {built}; "
                "--device cpu tries the harness on small shapes"
            )
        self.torch_device = torch.device("cuda", torch.cuda.current_device())
        self.properties = torch.cuda.get_device_properties(self.torch_device)
        self.card = Machine(gpu=self.properties.name, framework="torch", version=torch.__version__)
        self.l2_bytes = self.properties.L2_cache_size
        self.total_bytes = self.properties.total_memory
        self.headroom_bytes = CUDA_HEADROOM_BYTES
        uuid = getattr(self.properties, "uuid", None)  # torch's has no prefix
        self._sensors = Sensors(None if uuid is None else f"GPU-{uuid}")
        self._pool = torch.cuda.graph_pool_handle()
        # One for all captures: cuBLAS keeps tens of MB of workspace per stream.
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # Some containers let float32 products run in TF32, three digits short.
        torch.set_float32_matmul_precision("highest")
        # Some versions collect garbage before every capture: freeze the objects loaded so far.
        gc.collect()
        gc.freeze()
        if memory_limit is not None:
            share = min(1.0, memory_limit / self.total_bytes)
            torch.cuda.set_per_process_memory_fraction(share, self.torch_device)
            self.total_bytes = min(self.total_bytes, memory_limit)

    def free_bytes(self) -> float:
        """Return the card's free memory plus PyTorch's unused cache. [bytes]."""
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        reserved = torch.cuda.memory_reserved(self.torch_device)
        allocated = torch.cuda.memory_allocated(self.torch_device)
        return float(min(free + reserved - allocated, self.total_bytes - allocated))

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of random numbers."""
        return torch.empty(shape, dtype=dtype, device=self.torch_device).normal_()

    def check_room(self, needed_bytes: float) -> None:
        """Do nothing: CUDA itself refuses."""

    def warm_up(self) -> None:
        """Work for a moment: an idle card runs at a fraction of its clock."""
        with suppress(torch.OutOfMemoryError):
            matrix = self.normal((_WARM_UP_WIDTH, _WARM_UP_WIDTH), torch.float32)
            until = time.monotonic() + _WARM_UP_S
            while time.monotonic() < until:
                torch.mm(matrix, matrix)
                torch.cuda.synchronize()

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a stopwatch that uses device events.

        A graph is queued behind a short spin, so that its time excludes the host's launch. Eager
        passes start on an idle device, so that their time includes the host's launches.
        """
        graph = mode == "graph"
        run = self._captured(one_pass) if graph else one_pass
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        spin, quickest_s = _SPIN_CYCLES, math.inf

        def watch() -> float:
            nonlocal spin, quickest_s
            torch.cuda.synchronize()
            if graph:
                torch.cuda._sleep(spin)  # type: ignore[no-untyped-call]  # noqa: SLF001
            start.record()
            queued = time.perf_counter()
            run()
            # A graph of thousands of kernels takes the host longer than the shortest spin. The
            # quickest launch counts: one that waits for the spin would double it every time.
            quickest_s = min(quickest_s, time.perf_counter() - queued)
            needed = 2 * quickest_s * _CYCLES_PER_S
            spin = max(_SPIN_CYCLES, min(_MOST_SPIN_CYCLES, int(needed)))
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return watch

    def _captured(self, one_pass: Pass) -> Pass:
        """Capture a pass in a CUDA graph, after a warm-up on the capturing stream.

        A first call loads kernels and allocates workspaces of libraries, which a capture may not
        allow.
        """
        before, stream = torch.cuda.current_stream(), self._stream
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            one_pass()
        before.wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # Graphs never run at once and their results are not read: one pool serves all.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream):
                one_pass()
        finally:
            # A capture that cannot end leaves its stream as the current one.
            torch.cuda.set_stream(before)
        replay: Pass = graph.replay
        return replay

    def check_usable(self) -> None:
        """Raise ``RuntimeError`` if an error has left the device unusable for this process.

        After an illegal access every call fails. After a capture that could not be ended, random
        numbers and all calls on its stream fail.
        """
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            if torch.cuda.is_current_stream_capturing():
                raise RuntimeError("the capture of a CUDA graph could not be ended")
            self.normal((1,), torch.float32)
        self.normal((1,), torch.float32)
        torch.cuda.synchronize()

    def release(self, *, thorough: bool = False) -> None:
        """Return memory to the card; the next graphs get a new pool."""
        if thorough:
            gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self._pool = torch.cuda.graph_pool_handle()

    def reading(self) -> SensorReading:
        """Read clock and temperature."""
        return self._sensors.reading()

    def facts(self) -> dict[str, object]:
        """Return the facts of the card that torch and the driver report."""
        return {
            "device": "cuda",
            "name": self.properties.name,
            "memory_bytes": self.properties.total_memory,
            "compute_capability": f"{self.properties.major}.{self.properties.minor}",
            "sm_count": self.properties.multi_processor_count,
            "l2_bytes": self.l2_bytes,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            **self._sensors.facts(),
        }


Device = CpuDevice | CudaDevice


def open_device(name: str, *, memory_limit: int | None = None) -> Device:
    """Return a device by name.

    Raises
    ------
    MeasurementError
        If there is no such device.
    """
    devices: dict[str, type[Device]] = {"cuda": CudaDevice, "cpu": CpuDevice}
    if name not in devices:
        raise MeasurementError(f"unknown device {name!r}; it can be cuda or cpu")
    return devices[name](memory_limit=memory_limit)


def is_out_of_memory(problem: BaseException) -> bool:
    """Return whether an exception means out of memory; libraries have their own exceptions.

    Running out of memory inside a capture raises an error of the capture, so causes are searched.
    """
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(problem).lower()
    phrases = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
    if isinstance(problem, RuntimeError) and any(phrase in text for phrase in phrases):
        return True
    before = problem.__cause__ or problem.__context__
    return before is not None and is_out_of_memory(before)
