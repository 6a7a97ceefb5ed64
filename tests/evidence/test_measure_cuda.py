"""The CUDA side without a card: streams, captures, errors and whole runs on a stand-in for it."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from fake_cuda import FakeCuda  # noqa: E402

from simulator.errors import MeasurementError  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.measure import grid  # noqa: E402
from simulator.evidence.measure.cells import MODES, AttentionCell, Cell, Selection  # noqa: E402
from simulator.evidence.measure.device import is_out_of_memory  # noqa: E402
from simulator.evidence.measure.predict import Repeats  # noqa: E402
from simulator.evidence.measure.rows import FILES  # noqa: E402
from simulator.evidence.measure.runner import Settings, run  # noqa: E402
from simulator.evidence.measure.store import Store  # noqa: E402

FAST = Settings(timing=Repeats(warm_up=1, least=2, most=2, budget_s=0.0, least_pass_s=0.0))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A card."""
    return FakeCuda(monkeypatch)


def hosts_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Put a clock in front of the host's that only waiting moves, and return what waits."""
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("simulator.evidence.measure.device.time", clock)

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_graph_is_captured_after_a_warm_up_on_its_stream(cuda: FakeCuda) -> None:
    """Called once on the stream that captures, waited for, then captured; the stream is left."""
    card = cuda.card()
    cuda.log.clear()
    streams: list[str] = []
    card.stopwatch(lambda: streams.append(cuda.current.name), "graph")
    assert streams == ["side 0", "side 0"]
    assert cuda.log[-2:] == ["synchronize", "capture in (0, 1) on side 0"]
    assert cuda.current is cuda.default
    card.stopwatch(lambda: None, "graph")
    assert len(cuda.streams) == 1  # cuBLAS keeps a workspace for every stream it has seen


def test_float32_is_float32_whatever_the_container_prefers(cuda: FakeCuda) -> None:
    """TF32 would be a wrong result in every check of float32."""
    torch.set_float32_matmul_precision("high")
    cuda.card()
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_graph_is_queued_behind_a_spin(cuda: FakeCuda) -> None:
    """Only replays are timed, on a device that is still spinning when they are queued."""
    watch = cuda.card().stopwatch(lambda: None, "graph")
    cuda.log.clear()
    assert watch() > 0
    assert cuda.log == ["synchronize", "sleep 600000", "event", "replay", "event", "synchronize"]


def test_the_spin_outlasts_a_slow_launch(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that takes the host 4 ms to queue waits behind 8 ms of spinning from then on."""
    wait = hosts_clock(monkeypatch)
    monkeypatch.setattr("fake_cuda.FakeGraph.replay", lambda _: wait(0.004))
    watch = cuda.card().stopwatch(lambda: None, "graph")
    cuda.log.clear()
    for _ in range(2):
        watch()
    first, second = (int(word.split()[1]) for word in cuda.log if word.startswith("sleep"))
    assert first < 2e6
    assert second >= 0.008 * 2e9


def test_a_launch_that_waits_for_the_spin_does_not_feed_it(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the last launch counted, each spin would be twice the one before, up to 20 ms a pass."""
    spins: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", spins.append)
    wait = hosts_clock(monkeypatch)
    monkeypatch.setattr("fake_cuda.FakeGraph.replay", lambda _: wait(spins[-1] / 2e9))
    watch = cuda.card().stopwatch(lambda: None, "graph")
    for _ in range(6):
        watch()
    assert max(spins) < 4 * spins[0]


def test_an_eager_pass_starts_on_an_idle_device(cuda: FakeCuda) -> None:
    """No spin hides the host's launches."""
    watch = cuda.card().stopwatch(lambda: cuda.log.append("call"), "eager")
    cuda.log.clear()
    watch()
    assert cuda.log == ["synchronize", "event", "call", "event", "synchronize"]


def test_the_card_works_before_the_first_cell(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products for half a second, once a run, so that no row is timed on the clock of idleness."""
    monkeypatch.setattr("simulator.evidence.measure.device._WARM_UP_S", 0.02)
    products: list[int] = []
    monkeypatch.setattr(torch, "mm", lambda *_: products.append(len(cuda.log)))
    plan = replace(small_plan(), cells=small_plan().cells[:2])
    measure(plan, tmp_path, cuda)
    first = next(i for i, word in enumerate(cuda.log) if word.startswith("capture"))
    assert products
    assert products[-1] < first
    worked = len(products)
    measure(plan, tmp_path, cuda)  # all is done: nothing to warm up for
    assert len(products) == worked


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


def small_plan() -> Selection:
    """One group of every kind in both modes, with the sizes of the grid for CPUs."""
    first: dict[str, tuple[Cell, ...]] = {}
    for group in grid.cpu_grid().groups:
        first.setdefault(group[0].kind, group)
    cells = [
        replace(cell, mode=mode) for group in first.values() for cell in group for mode in MODES
    ]
    return Selection(name="fake", cells=tuple(cells))


def attention_plan() -> Selection:
    """The kernels of one group, graph and eager."""
    plan = small_plan()
    return replace(plan, cells=tuple(c for c in plan.cells if isinstance(c, AttentionCell)))


def measure(plan: Selection, folder: Path, cuda: FakeCuda) -> dict[str, dict[str, str]]:
    """Run a plan on the card and return the folder's rows by cell."""
    list(run(plan, cuda.card(), Store(folder), gpu=None, settings=FAST))
    return rows_of(folder)


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a folder by cell."""
    rows: dict[str, dict[str, str]] = {}
    for name in FILES.values():
        if (folder / name).exists():
            with (folder / name).open(newline="") as stream:
                rows |= {row["cell"]: row for row in csv.DictReader(stream)}
    return rows


def spoil(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[], None], *, call: int = 0
) -> None:
    """Make a kernel do something before its call of that number, 0 for every call."""
    kernel, calls = KERNELS[name].function, 0

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if call in (0, calls):
            fault()
        return kernel(*inputs)

    code = f"simulator.evidence.kernels.{KERNELS[name].attention}"
    monkeypatch.setattr(f"{code}.{name}", attend)


def test_a_whole_run_has_every_row_in_both_modes(cuda: FakeCuda, tmp_path: Path) -> None:
    """Streams, kernels, steps, products and elementwise kernels, as graphs and eager, all right."""
    plan = small_plan()
    rows = measure(plan, tmp_path, cuda)
    assert {row["note"] for row in rows.values() if row["status"] != "ok"} == set()
    assert set(rows) == {cell.key for cell in plan.cells}
    modes = [row.get("timing") or row["execution"] for row in rows.values()]
    assert modes.count("graph") == modes.count("eager") == len(plan.cells) // 2
    captured = [word for word in cuda.log if word.startswith("capture")]
    assert len(captured) == len(plan.cells) // 2
    assert {word.split(" on ")[1] for word in captured} == {"side 0"}


def test_memory_that_runs_out_in_a_capture_is_the_row_of_its_graph(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same kernel launched one by one, and everybody else, is timed."""

    def refuse() -> None:
        if cuda.capturing is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    spoil(monkeypatch, "standard_einsum", refuse)
    rows = measure(attention_plan(), tmp_path, cuda)
    bad = {key: row["status"] for key, row in rows.items() if row["status"] != "ok"}
    assert list(bad.values()) == ["oom"]
    assert next(iter(bad)).endswith("standard_einsum graph")


def test_a_capture_that_cannot_be_ended_stops_the_run_once(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that waits for the device cannot be captured, and leaves random numbers broken.

    Its row says so; a process that went on would write an error for every cell to come.
    """
    spoil(monkeypatch, "standard_repeat_kv", lambda: cuda.capturing and cuda.synchronize())
    plan = attention_plan()
    with pytest.raises(MeasurementError, match="run the same command again"):
        measure(plan, tmp_path, cuda)
    (row,) = (row for row in rows_of(tmp_path).values())
    assert row["status"] == "error"
    assert row["note"].startswith(
        "broke the device: RuntimeError: CUDA error: operation not permitted when stream is "
        "capturing; then RuntimeError: CUDA error: operation failed"
    )
    rows = measure(plan, tmp_path, FakeCuda(monkeypatch))
    bad = [key for key, row in rows.items() if row["status"] != "ok"]
    assert [key.split()[-2:] for key in bad] == [["standard_repeat_kv", "graph"]]
    assert len(rows) == len(plan.cells)


@pytest.mark.parametrize("call", [1, 3])
def test_what_breaks_the_device_is_blamed_for_it(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """In its check or in its timing, the kernel with the illegal access has the row, no other.

    Were the first cell of its batch blamed, each new run would lose another innocent one.
    """

    def crash() -> None:
        cuda.broken = True
        cuda.check()

    spoil(monkeypatch, "bifurcated_flash", crash, call=call)
    with pytest.raises(MeasurementError, match="illegal memory access"):
        measure(attention_plan(), tmp_path, cuda)
    (key,) = rows_of(tmp_path)
    assert key.split()[-2] == "bifurcated_flash"
