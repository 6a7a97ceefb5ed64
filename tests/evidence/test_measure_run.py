"""A run on the CPU: every kind of cell, resuming, running out of memory, wrong results, errors."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from simulator.errors import KernelError, MeasurementError  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.measure import grid, runner  # noqa: E402
from simulator.evidence.measure.cells import KINDS, MEMORY_TESTS, AttentionCell, Selection  # noqa: E402
from simulator.evidence.measure.device import CpuDevice, open_device  # noqa: E402
from simulator.evidence.measure.predict import predict, timing_for  # noqa: E402
from simulator.evidence.measure.rows import FILES  # noqa: E402
from simulator.evidence.measure.runner import Progress, Settings, run, together  # noqa: E402
from simulator.evidence.measure.store import Environment, Store  # noqa: E402

FAST = Settings(timing=timing_for("cpu", 3))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A CPU device runs on one thread; other tests should not."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def plan() -> Selection:
    """One or two groups of each kind."""
    everything = grid.cpu_grid()
    kept = [cells for kind in KINDS for cells in groups_of(everything, kind)[:2]]
    return replace(everything, cells=tuple(cell for cells in kept for cell in cells))


def groups_of(plan: Selection, kind: str) -> list[tuple[object, ...]]:
    """The groups of a kind."""
    return [group for group in plan.groups if group[0].kind == kind]


def measure(
    plan: Selection, folder: Path, *, settings: Settings = FAST, memory_limit: int | None = None
) -> list[Progress]:
    """Run a plan to its end."""
    device = CpuDevice(memory_limit=memory_limit)
    return list(run(plan, device, Store(folder), gpu=None, settings=settings))


def rows_of(folder: Path) -> list[dict[str, str]]:
    """All rows in a folder."""
    rows: list[dict[str, str]] = []
    for name in FILES.values():
        if (folder / name).exists():
            with (folder / name).open(newline="") as stream:
                rows += csv.DictReader(stream)
    return rows


def test_a_library_plans_once_and_is_timed_many_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of other libraries are checked and timed over one plan, and their rows say so."""
    from library_stand_ins import Cascade, install_flashinfer, install_vllm

    install_flashinfer(monkeypatch, "0.7.2.post1")
    install_vllm(monkeypatch, "0.33.0")
    done: Counter[str] = Counter()
    for name in ("_plan", "_run"):
        original = getattr(Cascade, name)

        def counted(*given: object, _name: str = name, _original: Any = original, **named: object):  # noqa: ANN202
            done[_name] += 1
            return _original(*given, **named)

        monkeypatch.setattr(Cascade, name, counted)
    names = ("bifurcated_flash", "flashinfer_cascade", "vllm_cascade")
    sizes = {"heads": 4, "kv_heads": 2, "head_dim": 64, "context_tokens": 40, "samples": 3}
    cells = tuple(
        AttentionCell(kernel=name, decoded_tokens=5, dtype="fp32", mode="eager", **sizes)
        for name in names
    )
    measure(Selection(name="libraries", cells=cells), tmp_path)
    rows = {row["implementation"]: row for row in rows_of(tmp_path)}
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert [rows[name]["framework"] for name in names] == ["torch", "flashinfer", "vllm"]
    assert rows["flashinfer_cascade"]["note"] == "plan not timed"
    assert rows["vllm_cascade"]["note"] == "FlashAttention-3; page tables not timed"
    assert done["_plan"] == 1
    assert done["_run"] > int(rows["flashinfer_cascade"]["repeats"])


def test_several_query_tokens_are_checked_and_timed(tmp_path: Path) -> None:
    """Every kernel and whole step with three tokens of each sample is right; its row says so."""
    plan = grid.select(grid.cpu_grid(), kinds=["attention", "step"], query_tokens=[3])
    cells = [each for kind in ("attention", "step") for each in groups_of(plan, kind)[0]]
    measure(replace(plan, cells=tuple(cells)), tmp_path)
    rows = rows_of(tmp_path)
    assert sorted(row["cell"] for row in rows) == sorted(cell.key for cell in cells)
    assert len({row["implementation"] for row in rows}) == len(KERNELS) - 1
    for row in rows:
        assert row["status"] == "ok", row["note"]
        assert row["query_tokens"] == "3"
        assert float(row["relative_error"]) < 1e-5


def test_every_kind_of_cell_gets_a_row(plan: Selection, tmp_path: Path) -> None:
    """Each cell has one row, right by the check, with a positive time, its spread and repeats."""
    last = measure(plan, tmp_path)[-1]
    rows = rows_of(tmp_path)
    assert (last.done, last.total, last.stopped) == (len(plan.cells), len(plan.cells), "")
    assert sorted(row["cell"] for row in rows) == sorted(cell.key for cell in plan.cells)
    for row in rows:
        assert row["status"] == "ok", row["note"]
        assert 0 < float(row["min_us"]) <= float(row["max_us"])
        assert float(row["spread_fraction"]) >= 0
        assert int(row["repeats"]) == 3
        assert float(row["relative_error"]) < 1e-5
        assert row["l2_state"] in ("cold", "warm", "mixed")
        assert row.get("latency_us") or row["step_ms"]


def test_the_projects_own_loader_reads_the_rows(plan: Selection, tmp_path: Path) -> None:
    """Each file is recognised as the kind of measurement it holds, and no row is refused."""
    from simulator.evidence.rows.reading import load

    measure(plan, tmp_path)
    found = load([tmp_path])
    assert found.refused == ()
    names = {"memory": "bandwidth", "attention": "shared_prefix_attention", "step": "decode_step"}
    wanted = Counter(names.get(cell.kind, cell.kind) for cell in plan.cells)
    assert {kind: len(table) for kind, table in found.tables.items()} == wanted


def test_a_stream_that_stays_in_l2_is_called_so(tmp_path: Path) -> None:
    """Below twice the L2 (64 KiB here) a stream may be faster than memory, and its row says it."""
    plan = grid.select(grid.cpu_grid(), kinds=["memory"])
    measure(plan, tmp_path)
    tests = {(int(row["working_set_bytes"]), row["test"]) for row in rows_of(tmp_path)}
    assert {test for size, test in tests if size == 2**16} == {
        "l2_stream_write",
        "l2_stream_read",
        "l2_stream_copy",
        "l2_stream_scale",
        "l2_stream_triad",
    }
    assert {test for size, test in tests if size == 2**18} == set(MEMORY_TESTS)


def test_running_again_repeats_nothing(plan: Selection, tmp_path: Path) -> None:
    """A finished folder is left as it is, to the byte."""
    measure(plan, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES.values() if name[0] != "h"}
    measure(plan, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_run_stopped_anywhere_goes_on(plan: Selection, tmp_path: Path) -> None:
    """Stopped after any number of rows, with a torn last line, the next run does the rest."""
    small = replace(plan, cells=plan.groups[2])
    measure(small, tmp_path)
    path = tmp_path / FILES["attention"]
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        measure(small, tmp_path)
        again = path.read_bytes().splitlines(keepends=True)
        assert again[:kept] == lines[:kept]
        assert len(again) == len(lines)
        assert len({row["cell"] for row in rows_of(tmp_path)}) == len(small.cells)


def test_the_time_limit_stops_between_groups(plan: Selection, tmp_path: Path) -> None:
    """Nothing starts after the limit; what is there is whole, and the end says so."""
    last = measure(plan, tmp_path, settings=replace(FAST, time_limit_s=0.0))[-1]
    assert last.stopped
    assert rows_of(tmp_path) == []


def test_the_time_left_falls_to_nothing_and_learns_from_the_groups_so_far(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells with a row count up, the guess counts down; slow groups make it grow."""
    small = replace(plan, cells=tuple(cell for group in plan.groups[-4:] for cell in group))
    quick, slowly = tmp_path / "quick", tmp_path / "slow"
    quick.mkdir()
    slowly.mkdir()
    seen = measure(small, quick)
    done = [progress.done for progress in seen]
    assert (done[0], done[-1], sorted(done)) == (0, len(small.cells), done)
    assert seen[0].seconds_left > 0
    assert seen[-1].seconds_left == pytest.approx(0, abs=1e-9)
    ticks = iter(range(0, 10**9, 600))
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    slow = measure(small, slowly)
    assert slow[0].seconds_left == seen[0].seconds_left < 60
    # Groups of 1, 1, 8 and 8 cells of equal guesses take 1200 s each: 1200 s x cells left / done.
    assert [len(group) for group in small.groups] == [1, 1, 8, 8]
    assert [round(progress.seconds_left) for progress in slow[1:]] == [20400, 19200, 2880, 0]


def memory_needed(plan: Selection) -> list[float]:
    """Predicted memory of each cell on a CPU."""
    return [predict(cell, gpu=None, l2_bytes=2**16).memory_bytes for cell in plan.cells]


def test_out_of_memory_is_a_row(tmp_path: Path) -> None:
    """Under a limit, cells that need more say ``oom`` and have no time; the others are measured."""
    plan = grid.select(grid.cpu_grid(), kinds=["attention"])
    limit = 700_000
    measure(plan, tmp_path, memory_limit=limit)
    rows = {row["cell"]: row for row in rows_of(tmp_path)}
    status = {cell.key: rows[cell.key]["status"] for cell in plan.cells}
    assert set(status.values()) == {"ok", "oom"}
    for cell, needed in zip(plan.cells, memory_needed(plan), strict=True):
        assert status[cell.key] == ("ok" if needed <= limit else "oom")
        if status[cell.key] == "oom":
            assert rows[cell.key]["latency_us"] == ""
            assert rows[cell.key]["note"].startswith("seen: ")


def test_skipping_out_of_memory_does_not_try(tmp_path: Path) -> None:
    """With ``skip_oom`` the rows are the same, but predicted, with what is needed and free."""
    plan = grid.select(grid.cpu_grid(), kinds=["attention"])
    measure(plan, tmp_path, settings=replace(FAST, skip_oom=True), memory_limit=700_000)
    rows = rows_of(tmp_path)
    oom = [row for row in rows if row["status"] == "oom"]
    assert 0 < len(oom) < len(rows)
    assert all(row["note"].startswith("predicted: needs") for row in oom)


def test_a_step_whose_weights_do_not_fit_is_out_of_memory(tmp_path: Path) -> None:
    """Whole steps, too: the weights of the tiny model alone are more than 100 kB."""
    plan = grid.select(grid.cpu_grid(), kinds=["step"])
    small = replace(plan, cells=plan.groups[0])
    measure(small, tmp_path, memory_limit=100_000)
    assert {row["status"] for row in rows_of(tmp_path)} == {"oom"}


def test_cells_share_memory_where_they_fit_together(plan: Selection) -> None:
    """Cells of one group are timed together if memory allows, else in as few batches as needed."""
    group = groups_of(plan, "attention")[1]
    planned = [(cell, predict(cell, gpu=None, l2_bytes=2**16)) for cell in group]
    assert [len(batch) for batch in together(planned, 1e12)] == [len(group)]
    assert [len(batch) for batch in together(planned, 0)] == [1] * len(group)


def test_a_wrong_kernel_is_never_timed(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that answers wrongly has a row that says so, with its error and without a time."""
    spoil(monkeypatch, "bifurcated_flash", lambda output: output * 1.001)
    measure(replace(plan, cells=groups_of(plan, "attention")[0]), tmp_path)
    rows = {row["implementation"]: row for row in rows_of(tmp_path)}
    wrong = rows.pop("bifurcated_flash")
    assert (wrong["status"], wrong["latency_us"]) == ("wrong", "")
    assert float(wrong["relative_error"]) == pytest.approx(1e-3, rel=0.1)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_an_error_of_one_kernel_is_its_row_alone(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kernel that raises, in our way or PyTorch's, does not keep the others from their rows."""
    spoil(monkeypatch, "bifurcated_flash", KernelError("no such kernel here"))
    spoil(monkeypatch, "standard_math", RuntimeError("something\nbroke"))
    measure(replace(plan, cells=groups_of(plan, "attention")[0]), tmp_path)
    rows = {row["implementation"]: row for row in rows_of(tmp_path)}
    assert rows["bifurcated_flash"]["note"] == "no such kernel here"
    assert rows["standard_math"]["note"] == "RuntimeError: something broke"
    assert [row["status"] for row in rows.values()].count("ok") == len(rows) - 2


def test_memory_that_runs_out_unforeseen_is_a_row(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocator that refuses in the middle of a call is ``oom``, whatever was predicted."""
    spoil(monkeypatch, "standard_einsum", torch.OutOfMemoryError("CUDA out of memory."))
    spoil(monkeypatch, "standard_math", RuntimeError("CUBLAS_STATUS_ALLOC_FAILED in handle"))
    measure(replace(plan, cells=groups_of(plan, "attention")[0]), tmp_path)
    rows = {row["implementation"]: row["status"] for row in rows_of(tmp_path)}
    assert (rows["standard_einsum"], rows["standard_math"]) == ("oom", "oom")
    assert list(rows.values()).count("ok") == len(rows) - 2


def test_a_broken_device_ends_the_run_and_is_not_tried_again(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that breaks the device the cell has its row, and the next run goes on."""
    small = replace(plan, cells=groups_of(plan, "gemm")[0])
    monkeypatch.setattr(CpuDevice, "normal", raising(RuntimeError("illegal memory access")))
    monkeypatch.setattr(CpuDevice, "check_usable", raising(RuntimeError("illegal memory access")))
    with pytest.raises(MeasurementError, match="run the same command again"):
        measure(small, tmp_path)
    monkeypatch.undo()
    measure(small, tmp_path)
    assert [row["status"] for row in rows_of(tmp_path)] == ["error"]


class Died(BaseException):
    """The end of a process, as far as a test can have one: nothing is closed."""


def test_what_kills_the_process_twice_is_not_tried_again(
    plan: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its whole batch is lost, then it dies alone, then it has a row and the rest is there.

    Without that, what comes after it would never be measured.
    """
    small = replace(plan, cells=groups_of(plan, "attention")[0])
    spoil(monkeypatch, "bifurcated_flash_chunked", Died())
    for _ in range(2):
        with pytest.raises(Died):
            journalled(small, tmp_path)
    journalled(small, tmp_path).close(rows=0)
    rows = {row["implementation"]: row for row in rows_of(tmp_path)}
    assert len(rows) == len(small.cells)
    killer = rows.pop("bifurcated_flash_chunked")
    assert killer["status"] == "error"
    assert killer["note"].startswith("not tried: the process died in it before")
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_deaths_can_be_forgiven(plan: Selection, tmp_path: Path) -> None:
    """After a fix, ``--retry error`` tries such a cell like any other, in later runs too."""
    keys = [cell.key for cell in plan.cells]
    for _ in range(2):
        Environment(tmp_path, CpuDevice(), {}).begin(keys)
    third = Environment(tmp_path, CpuDevice(), {})
    assert third.deaths(keys[0]) == 2
    third.forgive()
    assert third.deaths(keys[0]) == 0
    third.close(rows=0)
    assert Environment(tmp_path, CpuDevice(), {}).deaths(keys[0]) == 0


def test_a_run_that_was_closed_is_no_death(plan: Selection, tmp_path: Path) -> None:
    """Stopped by hand or by a limit in the middle of a batch, its cells are measured together."""
    keys = [cell.key for cell in plan.cells]
    first = Environment(tmp_path, CpuDevice(), {})
    first.begin(keys)
    first.close(rows=0)
    assert Environment(tmp_path, CpuDevice(), {}).deaths(keys[0]) == 0


def journalled(plan: Selection, folder: Path) -> Environment:
    """Run a plan as the command does, up to the closing of its record."""
    device, store = CpuDevice(), Store(folder)
    environment = Environment(folder, device, {})
    list(run(plan, device, store, gpu=None, settings=FAST, journal=environment))
    return environment


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, fault: object) -> None:
    """Make a kernel raise, or return something else."""
    kernel = KERNELS[name].function

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        if isinstance(fault, BaseException):
            raise fault
        return fault(kernel(*inputs))

    code = f"simulator.evidence.kernels.{KERNELS[name].attention}"
    monkeypatch.setattr(f"{code}.{name}", attend)


def raising(problem: Exception) -> object:
    """A method that raises."""

    def method(*_: object, **__: object) -> object:
        raise problem

    return method


def test_the_environment_record_grows_by_one_entry_per_run(tmp_path: Path) -> None:
    """Device, versions and times are beside the rows; a folder belongs to one device."""
    for _ in range(2):
        Environment(tmp_path, CpuDevice(), {"plan": "cpu"}).close(rows=5)
    record = json.loads((tmp_path / "environment.json").read_text())
    assert record["device"] == "cpu"
    assert [entry["rows"] for entry in record["runs"]] == [5, 5]
    assert record["runs"][0]["torch"] == torch.__version__
    record["name"] = "NVIDIA A100-SXM4-80GB"
    (tmp_path / "environment.json").write_text(json.dumps(record))
    with pytest.raises(MeasurementError, match="has rows of NVIDIA A100-SXM4-80GB"):
        Environment(tmp_path, CpuDevice(), {})


def test_a_device_that_is_not_there_is_one_line() -> None:
    """No CUDA: what torch says, and what to try instead."""
    with pytest.raises(MeasurementError, match="unknown device 'tpu'"):
        open_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(MeasurementError, match=r"cannot measure on cuda: torch .*--device cpu"):
            open_device("cuda")
