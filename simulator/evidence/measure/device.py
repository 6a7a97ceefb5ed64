"""The device that is measured: memory, clocks, stopwatches; CUDA, or the CPU for trying out.

Clocks, power limits and every other setting of the card are read and never set.
"""

import gc
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import Mode
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES
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
# The spin in front of a graph lasts until the host has queued it: this at least, and twice what the
# host took for the last replay, at the clock of the fastest cards. [clock cycles]
_SPIN_CYCLES, _MOST_SPIN_CYCLES = 600_000, 40_000_000
_CYCLES_PER_S = 2e9


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

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a function that runs a pass once and returns the seconds it took."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
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


class CudaDevice:
    """One CUDA device.

    Parameters
    ----------
    memory_limit
        This process may take this much of the card's memory. [bytes]

    Raises
    ------
    MeasurementError
        If there is no CUDA device.
    """

    modes: tuple[Mode, ...] = ("graph", "eager")

    def __init__(self, *, memory_limit: int | None = None) -> None:
        if not torch.cuda.is_available():
            built = "has no CUDA" if torch.version.cuda is None else "finds no CUDA device"
            raise MeasurementError(
                f"cannot measure on cuda: torch {torch.__version__} {built}; "
                "--device cpu tries the harness on small shapes"
            )
        self.torch_device = torch.device("cuda", torch.cuda.current_device())
        self.properties = torch.cuda.get_device_properties(self.torch_device)
        self.card = Card(gpu=self.properties.name, framework="torch", version=torch.__version__)
        self.l2_bytes = self.properties.L2_cache_size
        self.total_bytes = self.properties.total_memory
        self.headroom_bytes = CUDA_HEADROOM_BYTES
        self._identity = _identity(self.properties)
        self._pool = torch.cuda.graph_pool_handle()
        # Some versions collect garbage before every capture: what is loaded by now never is any.
        gc.collect()
        gc.freeze()
        if memory_limit is not None:
            share = min(1.0, memory_limit / self.total_bytes)
            torch.cuda.set_per_process_memory_fraction(share, self.torch_device)
            self.total_bytes = min(self.total_bytes, memory_limit)

    def free_bytes(self) -> float:
        """Return the card's free memory and what PyTorch holds unused. [bytes]."""
        free, _ = torch.cuda.mem_get_info(self.torch_device)
        reserved = torch.cuda.memory_reserved(self.torch_device)
        allocated = torch.cuda.memory_allocated(self.torch_device)
        return float(min(free + reserved - allocated, self.total_bytes - allocated))

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor of random numbers."""
        return torch.empty(shape, dtype=dtype, device=self.torch_device).normal_()

    def check_room(self, needed_bytes: float) -> None:
        """Leave it to CUDA to refuse."""

    def stopwatch(self, one_pass: Pass, mode: Mode) -> Stopwatch:
        """Return a stopwatch by device events.

        A graph is queued behind a short spin, so that the host's time to launch it is not in the
        number; eager passes start on an idle device, so that the host's launches are.
        """
        run = self._captured(one_pass) if mode == "graph" else one_pass
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        spin = _SPIN_CYCLES

        def watch() -> float:
            nonlocal spin
            torch.cuda.synchronize()
            if mode == "graph":
                torch.cuda._sleep(spin)  # type: ignore[no-untyped-call]  # noqa: SLF001
            start.record()
            queued = time.perf_counter()
            run()
            # A graph of thousands of kernels takes the host longer than the least spin.
            needed = 2 * (time.perf_counter() - queued) * _CYCLES_PER_S
            spin = max(_SPIN_CYCLES, min(_MOST_SPIN_CYCLES, int(needed)))
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return watch

    def _captured(self, one_pass: Pass) -> Pass:
        """Capture a pass in a CUDA graph, after a warm-up on the stream that captures."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            one_pass()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Graphs never run at the same time and nobody reads their results: one pool serves all.
        with torch.cuda.graph(graph, pool=self._pool):
            one_pass()
        replay: Pass = graph.replay
        return replay

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()

    def release(self, *, thorough: bool = False) -> None:
        """Give memory back to the card; the next graphs get a pool of their own."""
        if thorough:
            gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self._pool = torch.cuda.graph_pool_handle()

    def reading(self) -> Reading:
        """Read clock and temperature by nvidia-smi."""
        values = self._query("clocks.sm", "temperature.gpu")
        numbers = [float(value) if _is_number(value) else None for value in values or ()]
        if len(numbers) != 2:  # noqa: PLR2004
            return Reading()
        return Reading(sm_clock_mhz=numbers[0], temperature_c=numbers[1])

    def facts(self) -> dict[str, object]:
        """Return what torch and the driver say of the card."""
        names = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")
        values = self._query(*names) or [""] * len(names)
        return {
            "device": "cuda",
            "name": self.properties.name,
            "memory_bytes": self.properties.total_memory,
            "compute_capability": f"{self.properties.major}.{self.properties.minor}",
            "sm_count": self.properties.multi_processor_count,
            "l2_bytes": self.l2_bytes,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            **{name.replace(".", "_"): value for name, value in zip(names, values, strict=True)},
        }

    def _query(self, *fields: str) -> list[str] | None:
        """Ask nvidia-smi for fields of this card, None where it does not answer."""
        program = shutil.which("nvidia-smi")
        if program is None:
            return None
        command = [
            program,
            f"--query-gpu={','.join(fields)}",
            "--format=csv,noheader,nounits",
            *(("-i", self._identity) if self._identity else ()),
        ]
        try:
            answer = subprocess.run(  # noqa: S603  (a program of the driver, fixed arguments)
                command, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        lines = answer.stdout.strip().splitlines()
        values = [value.strip() for value in lines[0].split(",")] if lines else []
        return values if len(values) == len(fields) else None


def open_device(name: str, *, memory_limit: int | None = None) -> Device:
    """Return a device by name.

    Raises
    ------
    MeasurementError
        If there is no such device.
    """
    if name == "cuda":
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


def _identity(properties: object) -> str | None:
    """Return a card's UUID in nvidia-smi's spelling, None where torch does not know it."""
    uuid = getattr(properties, "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


def _is_number(text: str) -> bool:
    """Return whether nvidia-smi gave a number, not ``[N/A]``."""
    return text.replace(".", "", 1).isdigit()
