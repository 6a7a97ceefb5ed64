"""Nsight Compute's output becomes bytes per call, and its failures one line."""

import faulthandler
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from simulator.errors import MeasurementError
from simulator.evidence.measure import counters, grid
from simulator.evidence.measure.cells import AttentionCell
from simulator.evidence.measure.rows import COLUMNS, Machine
from simulator.evidence.measure.store import Store

CARD = Machine(gpu="NVIDIA H100 80GB HBM3", framework="torch", version="2.13.0")
READ, WRITTEN = counters.READ, counters.WRITTEN
SPIN = "void at::cuda::<unnamed>::spin_kernel(long)"
# Two calls: the first of two kernels, the second of one.
KERNELS = [
    (SPIN, 10, 0),
    ("flash_fwd_splitkv_kernel<Flash_fwd, 128>", 1_000_000, 2_000),
    ("flash_fwd_splitkv_combine_kernel", 3_000, 400),
    (SPIN, 10, 0),
    ("ampere_bf16_gemm", 7_000, 500),
]


# The columns of ncu 2024.1, as `ncu --import sobelFloat.ncu-rep --csv --page raw --print-units base
# --metrics ...` prints them for a report that comes with it.
HEADER = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size",'
    f'"Grid Size","Device","CC","{READ}","{WRITTEN}"'
)


def printed(units: str = "byte", kernels: list[tuple[str, int, int]] = KERNELS) -> str:
    """What ncu prints: its own words, a table with a line of units, and words again."""
    factor = {"byte": 1, "Kbyte": 1e-3}[units]
    lines = [
        "==PROF== Connected to process 4711 (/usr/bin/python3.12)",
        '==PROF== Profiling "spin_kernel" - 0: 0%....50%....100% - 1 pass',
        "what the child prints itself",
        "==PROF== Disconnected from process 4711",
        HEADER,
        f'"","","","","","","","","","","","{units}","{units}"',
    ]
    for index, (name, read, written) in enumerate(kernels):
        counted = f'"{read * factor:.9g}","{written * factor:.9g}"'
        lines.append(
            f'"{index}","4711","python3.12","127.0.0.1","{name}","1","7","(128, 1, 1)",'
            f'"(1, 8, 16)","0","9.0",{counted}'
        )
    return "\n".join([*lines, "==WARNING== something else"])


@pytest.mark.parametrize("text", [printed(), printed("Kbyte")])
def test_kernels_between_markers_are_one_call(text: str) -> None:
    """Bytes of a call's kernels are summed, the markers left out, units read."""
    first, second = counters.parse(text)
    assert (first.launches, first.bytes_written) == (2, pytest.approx(2_400))
    assert first.bytes_read == pytest.approx(1_003_000)
    assert (second.launches, second.bytes_read, second.bytes_written) == (1, 7_000, 500)


def test_output_without_a_table_is_an_error_in_ncus_words() -> None:
    """The driver's refusal, which is what happens mostly, is passed on."""
    text = "==PROF== x\n==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n"
    with pytest.raises(MeasurementError, match="ERR_NVGPUCTRPERM"):
        counters.parse(text)


def a_program(folder: Path, body: str) -> str:
    """A program in place of ncu."""
    path = folder / "ncu"
    path.write_text(f"#!/usr/bin/env python3\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_rows_put_what_was_counted_beside_the_account(tmp_path: Path) -> None:
    """Run through a stand-in for ncu: it is asked not to touch clocks, and rows can be stored."""
    plan = grid.select(grid.default_grid(), kinds=["attention"], kernels=["standard_flash"])
    cells = counters.wanted_cells(plan)[:2]
    body = (
        "arguments = sys.argv[1:]\n"
        "clocks = arguments[arguments.index('--clock-control') + 1]\n"
        "assert clocks == 'none', clocks\n"
        "assert arguments[arguments.index('--page') + 1] == 'raw'\n"
        "cells = json.load(open(arguments[-1]))\n"
        "assert [cell['kernel'] for cell in cells] == ['standard_flash'] * 2\n"
        f"print({printed()!r})"
    )
    rows = list(counters.count(a_program(tmp_path, body), cells, CARD, sm_count=132, at="now"))
    assert [row["bytes_read"] for row in rows] == ["1003000", "7000"]
    assert all(set(row) <= set(COLUMNS["counters"]) for row in rows)
    # One layer of Llama-2-7B with m_c 8192, m_d 64 and b samples: K and V of every sample.
    samples = cells[0].samples
    kv_bytes = 2 * samples * (8192 + 64) * 4096 * 2
    assert float(rows[0]["account_bytes_read"]) >= kv_bytes + samples * 4096 * 2
    store = Store(tmp_path)
    for row in rows:
        store.append("counters", row)
    assert {counters.counter_key(cell) for cell in cells} <= Store(tmp_path).done


def three_cells() -> list[AttentionCell]:
    """Three cells to count."""
    plan = grid.select(grid.default_grid(), kinds=["attention"], kernels=["standard_flash"])
    return counters.wanted_cells(plan)[:3]


def test_a_child_that_dies_costs_one_cell(tmp_path: Path) -> None:
    """What was counted before is kept, the cell it died in says so, and the rest is counted."""
    body = (
        "cells = json.load(open(sys.argv[-1]))\n"
        "if len(cells) == 1:\n"
        f"    print({printed(kernels=KERNELS[:3])!r})\n"
        "    sys.exit(0)\n"
        f"print({printed()!r})\n"
        "print('==ERROR== The application returned an error code (134).')\n"
        "print('RuntimeError: CUDA error: an illegal memory access', file=sys.stderr)\n"
        "sys.exit(134)"
    )
    rows = list(counters.count(a_program(tmp_path, body), three_cells(), CARD, sm_count=132, at=""))
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    assert rows[1]["note"] == "RuntimeError: CUDA error: an illegal memory access"
    assert [row["samples"] for row in rows] == [cell.samples for cell in three_cells()]


def test_counting_stops_at_the_time_limit(tmp_path: Path) -> None:
    """No process is started after it."""
    body = "raise SystemExit('must not run')"
    ncu = a_program(tmp_path, body)
    rows = counters.count(ncu, three_cells(), CARD, sm_count=132, at="", until=time.monotonic())
    assert list(rows) == []


def test_what_was_counted_before_the_time_limit_is_kept(tmp_path: Path) -> None:
    """A child that stops early gives fewer calls: no error once its time is up, else one."""
    body = (
        "import time\n"
        "until = float(sys.argv[-2])\n"
        "time.sleep(max(0.0, min(until - time.time() + 0.01, 5.0)))\n"
        f"print({printed()!r})"
    )
    ncu, cells = a_program(tmp_path, body), three_cells()
    soon = time.monotonic() + 1.0
    rows = list(counters.count(ncu, cells, CARD, sm_count=132, at="", until=soon))
    assert [row["samples"] for row in rows] == [cell.samples for cell in cells[:2]]
    later = time.monotonic() + 1000.0
    with pytest.raises(MeasurementError, match="2 calls where 3 were made"):
        list(counters.count(ncu, cells, CARD, sm_count=132, at="", until=later))


def test_a_call_that_never_ends_says_so(tmp_path: Path) -> None:
    """The child's watchdog ends it; its row says that, not where the code stood."""
    body = (
        "import faulthandler, time\n"
        f"print({printed(kernels=KERNELS[:3])!r}, flush=True)\n"
        "faulthandler.dump_traceback_later(0.1, exit=True)\n"
        "time.sleep(10)"
    )
    ncu, cells = a_program(tmp_path, body), three_cells()[:1]
    (row,) = counters.count(ncu, cells, CARD, sm_count=132, at="")
    assert row["status"] == "error"
    assert row["note"].startswith("Timeout (0:00:00")


class Runtime:
    """Stands in for the CUDA runtime: writes down when ncu would look."""

    def __init__(self, log: list[str]) -> None:
        self.cudaProfilerStart = lambda: log.append("start")
        self.cudaProfilerStop = lambda: log.append("stop")


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Run the child over three small cells on a stand-in for a card; return what ncu would see."""
    torch = pytest.importorskip("torch")
    fake_cuda = pytest.importorskip("fake_cuda")
    from simulator.evidence import kernels
    from simulator.evidence.measure import device

    cuda = fake_cuda.FakeCuda(monkeypatch)
    card = cuda.card()
    monkeypatch.setattr(device, "open_device", lambda _: card)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Runtime(cuda.log))

    def run(until: float, broken: int | None = None) -> list[str]:
        path, seen = tmp_path / "cells.json", []
        small = [replace(cell, context_tokens=8, samples=2) for cell in three_cells()]
        path.write_text(json.dumps([asdict(cell) for cell in small]))
        find = kernels.find_kernel

        def found(name: str) -> object:
            seen.append(name)
            cuda.broken = len(seen) - 1 == broken
            return find(name)

        monkeypatch.setattr(kernels, "find_kernel", found)
        cuda.log.clear()
        try:
            counters.call_kernels(until, str(path))
        except RuntimeError as problem:
            cuda.log.append(str(problem))
        finally:
            faulthandler.cancel_dump_traceback_later()
        return [line for line in cuda.log if line != "synchronize"]

    return run


MARKED = ["start", "sleep 100", "stop"]


def test_the_child_marks_and_counts_each_cell_until_its_time_is_up(
    child: Callable[..., list[str]],
) -> None:
    """A marker, then the call alone; the first cell is counted however late it is."""
    assert child(math.inf) == 3 * [*MARKED, "start", "stop"]
    assert child(0.0) == [*MARKED, "start", "stop"]


def test_the_last_marker_is_of_the_cell_that_broke_the_device(
    child: Callable[..., list[str]],
) -> None:
    """A kernel that breaks the device before it is counted is blamed itself, not the one before."""
    log = child(math.inf, broken=1)
    assert log[:-1] == [*MARKED, "start", "stop", *MARKED]
    assert "illegal memory access" in log[-1]


def test_the_child_finds_this_package_wherever_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that is run by its path is not on the child's path by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    body = (
        "import os\n"
        "ours, others = os.environ['PYTHONPATH'].split(':')\n"
        "assert os.path.exists(ours + '/simulator/evidence/measure/counters.py')\n"
        "assert others == '/elsewhere'\n"
        f"print({printed(kernels=KERNELS[:3])!r})"
    )
    (row,) = counters.count(a_program(tmp_path, body), three_cells()[:1], CARD, sm_count=132, at="")
    assert row["status"] == "ok"


@pytest.mark.parametrize("body", ["print('==ERROR== no'); sys.exit(1)", "print('')"])
def test_a_failing_ncu_is_one_line(tmp_path: Path, body: str) -> None:
    """ncu that fails or prints nothing: an error, no rows."""
    plan = grid.select(grid.default_grid(), kinds=["attention"], kernels=["standard_flash"])
    cells = counters.wanted_cells(plan)[:1]
    with pytest.raises(MeasurementError, match="ncu"):
        list(counters.count(a_program(tmp_path, body), cells, CARD, sm_count=132, at=""))


def test_ncu_is_found_where_cuda_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First on the PATH; else the newest of those in CUDA's own folders that can be run."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    places = [f"{tmp_path}/none/ncu", f"{tmp_path}/nsight-compute/*/ncu"]
    assert counters.find_ncu(places) is None
    for version in ("2024.1.1", "2025.3.1"):
        (tmp_path / "nsight-compute" / version).mkdir(parents=True)
        newest = a_program(tmp_path / "nsight-compute" / version, "")
    assert counters.find_ncu(places) == newest
    (tmp_path / "bin").mkdir()
    assert counters.find_ncu(places) == newest
    assert counters.find_ncu(places) != a_program(tmp_path / "bin", "")
    assert counters.find_ncu(places) == str(tmp_path / "bin" / "ncu")


def test_each_kernel_is_counted_once_whatever_the_modes() -> None:
    """Counters do not depend on how a kernel is launched."""
    cells = counters.wanted_cells(grid.default_grid())
    keys = [counters.counter_key(cell) for cell in cells]
    assert len(set(keys)) == len(keys)
    # The paper's centre, and the contexts of one stored context against copies.
    assert {cell.context_tokens for cell in cells} == {8192, 16384, 32768}
    # A cell goes to the child process as JSON.
    sent = json.loads(json.dumps([asdict(cell) for cell in cells]))
    assert [AttentionCell(**fields) for fields in sent] == [*cells]
