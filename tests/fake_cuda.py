"""A CUDA device that is none: PyTorch's rules for streams, captures and errors, over CPU tensors.

What is computed is computed by the CPU; what is modelled is what may go wrong. As in PyTorch 2.11,
leaving a capture that is invalid raises, leaves its stream the current one and its random
generator capturing; an illegal access fails every later call of the process.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from simulator.evidence.measure.device import CudaDevice


class FakeCuda:
    """Stands in for ``torch.cuda``; ``log`` has what was asked of it, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, memory_bytes: int = 2**34) -> None:
        self.memory_bytes = memory_bytes
        self.log: list[str] = []
        self.streams: list[SimpleNamespace] = []
        self.default = SimpleNamespace(name="default", wait_stream=lambda _: None)
        self.current = self.default
        self.capturing: FakeGraph | None = None
        self.broken = False
        self.generator_captures = False
        self.pools = 0
        self.properties = SimpleNamespace(
            name="NVIDIA Fake", L2_cache_size=2**16, total_memory=memory_bytes,
            uuid="1234", major=9, minor=0, multi_processor_count=132,
        )  # fmt: skip
        patched: dict[str, Any] = {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "get_device_properties": lambda _: self.properties,
            "graph_pool_handle": self.new_pool,
            "Stream": self.new_stream,
            "current_stream": lambda: self.current,
            "set_stream": self.set_stream,
            "stream": self.on_stream,
            "CUDAGraph": lambda: FakeGraph(self),
            "graph": self.capture,
            "synchronize": self.synchronize,
            "empty_cache": self.check,
            "mem_get_info": lambda _: (memory_bytes, memory_bytes),
            "memory_reserved": lambda _: 0,
            "memory_allocated": lambda _: 0,
            "is_current_stream_capturing": lambda: (
                self.capturing is not None and self.current is self.capturing.stream
            ),
            "Event": lambda *, enable_timing: FakeEvent(self, enable_timing),
            "_sleep": lambda cycles: self.log.append(f"sleep {cycles}"),
        }
        for name, fake in patched.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(gc, "freeze", lambda: None)
        monkeypatch.setattr("simulator.evidence.measure.device._WARM_UP_S", 0.0)
        monkeypatch.setenv("PATH", "/nowhere")  # no nvidia-smi

    def card(self) -> CudaDevice:
        """Return a device as the command opens it, whose tensors are on the CPU."""
        card = CudaDevice()
        card.torch_device = torch.device("cpu")
        draw = card.normal

        def normal(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            self.check()
            if self.generator_captures:
                raise RuntimeError("Offset increment outside graph capture encountered")
            return draw(shape, dtype)

        card.normal = normal  # type: ignore[method-assign]
        return card

    def check(self) -> None:
        """Fail as every call fails after an illegal access."""
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def synchronize(self) -> None:
        """Wait: not allowed in a capture, which it makes invalid."""
        self.check()
        self.log.append("synchronize")
        if self.capturing is not None:
            self.capturing.valid = False
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def new_stream(self) -> SimpleNamespace:
        """Return another stream."""
        stream = SimpleNamespace(name=f"side {len(self.streams)}", wait_stream=lambda _: None)
        self.streams.append(stream)
        return stream

    def new_pool(self) -> tuple[int, int]:
        """Return the name of another pool of memory."""
        self.pools += 1
        return 0, self.pools

    def set_stream(self, stream: SimpleNamespace) -> None:
        """Make a stream the current one."""
        self.current = stream

    @contextmanager
    def on_stream(self, stream: SimpleNamespace) -> Iterator[None]:
        """Work on a stream for a while."""
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def capture(self, graph: "FakeGraph", *, pool: object, stream: SimpleNamespace) -> "Capture":
        """Return the context in which a graph is captured."""
        return Capture(self, graph, pool, stream)


class FakeGraph:
    """A CUDA graph."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.valid, self.ready = cuda, True, False
        self.stream: SimpleNamespace = cuda.default

    def replay(self) -> None:
        """Replay: only what was captured whole."""
        self.cuda.check()
        assert self.ready
        self.cuda.log.append("replay")


class Capture:
    """``torch.cuda.graph`` as of PyTorch 2.11, whose ``__exit__`` restores nothing if it fails."""

    def __init__(
        self, cuda: FakeCuda, graph: FakeGraph, pool: object, stream: SimpleNamespace
    ) -> None:
        self.cuda, self.graph, self.pool = cuda, graph, pool
        graph.stream = stream

    def __enter__(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self.before, self.cuda.current = self.cuda.current, self.graph.stream
        self.cuda.capturing = self.graph
        self.cuda.generator_captures = True
        self.cuda.log.append(f"capture in {self.pool} on {self.graph.stream.name}")

    def __exit__(self, *_: object) -> None:
        self.cuda.capturing = None
        if not self.graph.valid:
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )
        self.cuda.generator_captures = False
        self.graph.ready = True
        self.cuda.current = self.before


class FakeEvent:
    """An event on the host's clock."""

    def __init__(self, cuda: FakeCuda, enable_timing: bool) -> None:
        assert enable_timing
        self.cuda, self.at = cuda, 0.0

    def record(self) -> None:
        """Note the time."""
        self.cuda.log.append("event")
        self.at = time.perf_counter()

    def elapsed_time(self, end: "FakeEvent") -> float:
        """Return the time until another event. [ms]."""
        return (end.at - self.at) * 1e3
