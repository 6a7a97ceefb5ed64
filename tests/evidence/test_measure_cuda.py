"""The CUDA side: what can be tried without a card, and on a card the whole path."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from simulator.evidence.measure import grid  # noqa: E402
from simulator.evidence.measure.cells import AttentionCell, MemoryCell, Plan  # noqa: E402
from simulator.evidence.measure.device import CudaDevice, is_out_of_memory  # noqa: E402
from simulator.evidence.measure.predict import Timing  # noqa: E402
from simulator.evidence.measure.rows import FILES, Reading  # noqa: E402
from simulator.evidence.measure.runner import Settings, run  # noqa: E402
from simulator.evidence.measure.store import Store  # noqa: E402

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def a_card(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> CudaDevice:
    """A CUDA device without CUDA, and a program in place of nvidia-smi."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    device = object.__new__(CudaDevice)
    device._identity = "GPU-1234"
    return device


def test_clock_and_temperature_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is asked for by its UUID, and only asked: no flag that sets anything."""
    body = f'echo "$@" > {tmp_path}/asked; echo "1980, 54"'
    device = a_card(tmp_path, monkeypatch, body)
    assert device.reading() == Reading(sm_clock_mhz=1980.0, temperature_c=54.0)
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [
        "--query-gpu=clocks.sm,temperature.gpu",
        "--format=csv,noheader,nounits",
        "-i",
        "GPU-1234",
    ]


@pytest.mark.parametrize(
    "body", ["exit 1", "echo '[N/A], [N/A]'", "echo", "echo 'No devices were found'"]
)
def test_a_card_that_does_not_answer_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """Without a working nvidia-smi rows have no clock and no temperature."""
    assert a_card(tmp_path, monkeypatch, body).reading() == Reading()


class FakeCuda:
    """What a stopwatch asks of torch.cuda, written down in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        for name in ("synchronize", "Stream", "current_stream", "stream", "CUDAGraph", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f"make_{name}", self.note(name)))
        self.spins: list[int] = []
        monkeypatch.setattr(torch.cuda, "_sleep", self.spin)
        monkeypatch.setattr(torch.cuda, "Event", self.make_event)

    def note(self, what: str) -> Callable[..., None]:
        """Return a function that writes down that it was called."""
        return lambda *_, **__: self.log.append(what)

    def spin(self, cycles: int) -> None:
        """Keep the device busy for so many cycles."""
        self.spins.append(cycles)
        self.log.append("spin")

    def make_event(self, *, enable_timing: bool) -> SimpleNamespace:
        """An event; the time between two of them is 2 ms."""
        assert enable_timing
        return SimpleNamespace(record=self.note("event"), elapsed_time=lambda _: 2.0)

    def make_Stream(self) -> SimpleNamespace:  # noqa: N802  (torch's name)
        """A stream that others wait for."""
        return SimpleNamespace(wait_stream=self.note("wait"))

    make_current_stream = make_Stream

    def make_stream(self, _: object) -> AbstractContextManager[None]:
        """Work on another stream."""
        return nullcontext()

    def make_CUDAGraph(self) -> SimpleNamespace:  # noqa: N802  (torch's name)
        """A graph that can be replayed."""
        return SimpleNamespace(replay=self.note("replay"))

    def make_graph(self, _: object, *, pool: object) -> AbstractContextManager[None]:
        """Capture."""
        self.log.append(f"capture in {pool}")
        return nullcontext()


def test_a_graph_is_queued_behind_a_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured once after a warm-up; then only replays, on a device that is still spinning."""
    fake, device = FakeCuda(monkeypatch), object.__new__(CudaDevice)
    device._pool = "pool"
    watch = device.stopwatch(fake.note("call"), "graph")
    assert [word for word in fake.log if word not in ("wait", "synchronize")] == [
        "call",
        "capture in pool",
        "call",
    ]
    fake.log.clear()
    assert watch() == pytest.approx(2e-3)
    assert fake.log == ["synchronize", "spin", "event", "replay", "event", "synchronize"]


def test_the_spin_outlasts_a_slow_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that takes the host 4 ms to queue waits behind 8 ms of spinning from then on."""
    fake, device = FakeCuda(monkeypatch), object.__new__(CudaDevice)
    device._pool = "pool"
    graph = SimpleNamespace(replay=lambda: time.sleep(0.004))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    watch = device.stopwatch(fake.note("call"), "graph")
    for _ in range(2):
        watch()
    first, second = fake.spins
    assert first < 2e6
    assert second >= 0.008 * 2e9


def test_an_eager_pass_starts_on_an_idle_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """No spin hides the host's launches."""
    fake, device = FakeCuda(monkeypatch), object.__new__(CudaDevice)
    watch = device.stopwatch(fake.note("call"), "eager")
    assert fake.log == []
    watch()
    assert fake.log == ["synchronize", "event", "call", "event", "synchronize"]


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(problem: Exception, *, expected: bool) -> None:
    """Allocators and libraries each have their own way of saying it."""
    assert is_out_of_memory(problem) is expected


def test_memory_that_runs_out_in_a_capture_is_seen_behind_its_error() -> None:
    """What is raised is the capture's own complaint; the reason is the exception before it."""
    error = RuntimeError("CUDA error: operation failed due to a previous error during capture")
    error.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(error)


def measured(plan: Plan, folder: Path) -> list[dict[str, str]]:
    """Run a plan on the card and return its rows."""
    import csv

    settings = Settings(timing=Timing(most=10))
    list(run(plan, CudaDevice(), Store(folder), gpu=None, settings=settings))
    rows: list[dict[str, str]] = []
    for name in FILES.values():
        if (folder / name).exists():
            with (folder / name).open(newline="") as stream:
                rows += csv.DictReader(stream)
    return rows


@pytest.mark.gpu
@needs_cuda
def test_every_kernel_runs_on_the_card(tmp_path: Path) -> None:
    """All kernels at 4 samples of 1K tokens, graph and eager, pass the check and are timed."""
    cells = tuple(
        cell
        for cell in grid.default_grid().cells
        if isinstance(cell, AttentionCell)
        and (cell.kv_heads, cell.context_tokens, cell.samples) == (8, 1024, 4)
    )
    rows = measured(Plan(name="test", cells=cells), tmp_path)
    assert {row["implementation"]: row["note"] for row in rows if row["status"] != "ok"} == {}
    assert len(rows) == len(cells)
    assert all(row["sm_clock_mhz_after"] for row in rows)


@pytest.mark.gpu
@needs_cuda
def test_a_copy_runs_at_the_speed_of_memory(tmp_path: Path) -> None:
    """A large copy takes what its bytes take, 100 GB/s to 20 TB/s."""
    cell = MemoryCell(test="stream_copy", working_set_bytes=2**30, dtype="fp32")
    (row,) = measured(Plan(name="test", cells=(cell,)), tmp_path)
    assert 100 < float(row["gb_per_s"]) < 20_000


@pytest.mark.gpu
@needs_cuda
def test_a_whole_step_runs_as_graph_and_eager(tmp_path: Path) -> None:
    """A one-layer 7B step: both modes are right, and a graph is not slower than eager."""
    model = grid.load_model("llama-2-7b")
    small = model.model_copy(
        update={
            "layers": 1,
            "layer_groups": (model.layer_groups[0].model_copy(update={"count": 1}),),
        }
    )
    everything = grid.default_grid()
    cells = tuple(
        replace(cell, model=small)
        for cell in everything.cells
        if cell.kind == "step"
        and (cell.model.kv_heads, cell.samples, cell.context_tokens) == (32, 4, 1024)
    )
    rows = measured(Plan(name="test", cells=cells), tmp_path)
    assert {row["note"] for row in rows if row["status"] != "ok"} == set()
    times = {(row["implementation"], row["execution"]): float(row["step_ms"]) for row in rows}
    assert times["bifurcated_flash", "graph"] < 1.1 * times["bifurcated_flash", "eager"]
