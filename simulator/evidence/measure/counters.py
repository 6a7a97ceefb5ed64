"""Actual memory traffic, counted by Nsight Compute to check the accounts.

``ncu`` runs this file in a child process (:func:`call_kernels`), which calls every kernel once with
a cold L2, after a marker kernel. The counters of the kernels between two markers make one row.
Clocks are left alone (``--clock-control none``; by default ncu would fix them).
"""

import csv
import faulthandler
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulator.counts.operation import total
from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import AttentionCell, Selection
from simulator.evidence.measure.rows import Machine, filled
from simulator.timing.limits import BLOCKS_PER_SM

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
# The kernel of ``torch.cuda._sleep``, which no attention kernel launches.
MARKER = "spin_kernel"
CELLS_AT_ONCE = 24
_SECONDS_PER_CELL, _START_SECONDS = 20, 180
_FIRST_SAMPLES = 16
_FLUSH_FACTOR = 4
_MARKER_CYCLES = 100
# A cell that takes longer, compiling included, counts as hung, and the child ends. [s]
_PATIENCE_S = 120
PLACES = (
    "/usr/local/cuda/bin/ncu",
    "/usr/local/cuda-*/bin/ncu",
    "/opt/nvidia/nsight-compute/*/ncu",
)
# What the child's watchdog prints when a call never ends.
_HUNG = "Timeout ("
_FAILED = "The application returned an error code"
# Units in which ncu may print; it is asked for plain bytes.
_UNITS = {"byte": 1.0, "kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Counters of one call: kernels, and bytes of device memory."""

    launches: int
    bytes_read: float
    bytes_written: float
    note: str = ""


def find_ncu(places: Sequence[str] = PLACES) -> str | None:
    """Return the path of Nsight Compute's command line, None where it is not installed.

    CUDA's own folders are not on every PATH.

    Parameters
    ----------
    places
        Patterns of absolute paths to try after the PATH; the last match by name wins.
    """
    found = [path for pattern in places for path in sorted(Path("/").glob(pattern[1:]))[-1:]]
    return shutil.which("ncu") or next(
        (str(path) for path in found if os.access(path, os.X_OK)), None
    )


def wanted_cells(plan: Selection) -> list[AttentionCell]:
    """Return the kernels of the first stage of a plan that has any, each once.

    Medium numbers of samples come first, so that a run cut short has every kernel.
    """
    cells = [cell for cell in plan.cells if isinstance(cell, AttentionCell)]
    first = min((cell.stage for cell in cells), default=0)
    chosen: dict[str, AttentionCell] = {}
    for cell in cells:
        if cell.stage == first:
            chosen.setdefault(counter_key(cell), cell)
    return sorted(chosen.values(), key=lambda cell: abs(math.log2(cell.samples / _FIRST_SAMPLES)))


def counter_key(cell: AttentionCell) -> str:
    """Return the name of a cell's row of counters."""
    return f"{cell.group} {cell.kernel} counters"


def count(
    ncu: str,
    cells: Sequence[AttentionCell],
    card: Machine,
    *,
    sm_count: int,
    at: str,
    until: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row of counters for each cell.

    Parameters
    ----------
    ncu
        Path of Nsight Compute's command line.
    cells
        The cells to count.
    card, sm_count, at
        The GPU, its multiprocessors, and the time, for the rows.
    until
        Start no cell after this time of :func:`time.monotonic`. [s]

    Raises
    ------
    MeasurementError
        If ncu fails, usually because the driver reserves the counters for administrators.
    """
    left = list(cells)
    while left and (limit_s := math.inf if until is None else until - time.monotonic()) > 0:
        traffic = _profile(ncu, left[:CELLS_AT_ONCE], limit_s)
        for cell, seen in zip(left, traffic, strict=False):
            yield _row(cell, seen, card, sm_count=sm_count, at=at)
        left = left[len(traffic) :]


def parse(text: str) -> list[Traffic]:
    """Read ncu's CSV, a line per kernel under a line of units, and split it at the markers.

    Raises
    ------
    MeasurementError
        If it holds no table of the two metrics.
    """
    lines = text.splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if header is None:
        raise MeasurementError(f"ncu printed no counters: {_last_words(text)}")
    calls: list[list[tuple[float, float]]] = []
    factors = dict.fromkeys((READ, WRITTEN), 1.0)
    for row in csv.DictReader(io.StringIO("\n".join(lines[header:]))):
        if READ not in row or WRITTEN not in row:
            raise MeasurementError(f"ncu's table has no {READ} and {WRITTEN}")
        if not row["ID"]:
            factors = {name: _UNITS.get((row[name] or "").lower(), 1.0) for name in factors}
        elif row["ID"].isdigit():  # ncu may print more after the table
            if MARKER in row["Kernel Name"]:
                calls.append([])
            elif calls:
                calls[-1].append(
                    (_number(row[READ]) * factors[READ], _number(row[WRITTEN]) * factors[WRITTEN])
                )
    return [
        Traffic(
            launches=len(kernels),
            bytes_read=sum(read for read, _ in kernels),
            bytes_written=sum(written for _, written in kernels),
        )
        for kernels in calls
    ]


def _profile(ncu: str, cells: Sequence[AttentionCell], limit_s: float) -> list[Traffic]:
    """Run the child under ncu; if it dies, it died in the last reported call.

    The child starts no cell after its limit, so there may be fewer calls than cells.
    """
    until = time.time() + limit_s
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.json"
        path.write_text(json.dumps([asdict(cell) for cell in cells]), encoding="utf-8")
        command = [
            ncu,
            # The raw page: one column for each metric, whatever sections and rules there are.
            *("--csv", "--page", "raw", "--print-units", "base"),
            *("--metrics", f"{READ},{WRITTEN}"),
            *("--profile-from-start", "off", "--target-processes", "application-only"),
            *("--clock-control", "none", "--cache-control", "none"),
            *(sys.executable, "-m", "simulator.evidence.measure.counters"),
            *(str(until), str(path)),
        ]
        limit = _START_SECONDS + _SECONDS_PER_CELL * len(cells)
        try:
            done = subprocess.run(  # noqa: S603  (found on the path, fixed arguments)
                command, capture_output=True, text=True, timeout=limit, check=False, env=_child()
            )
        except (OSError, subprocess.SubprocessError) as problem:
            raise MeasurementError(f"ncu failed: {problem}") from None
    if not done.returncode:
        traffic = parse(done.stdout)
        if len(traffic) != len(cells) and not (traffic and time.time() >= until):
            raise MeasurementError(
                f"ncu reported {len(traffic)} calls where {len(cells)} were made: "
                "no hardware counters"
            )
        return traffic
    words = _last_words(done.stdout + done.stderr)
    traffic = parse(done.stdout) if '"ID"' in done.stdout else []
    if not traffic:
        raise MeasurementError(f"ncu failed: {words}")
    return [*traffic[:-1], Traffic(launches=0, bytes_read=0.0, bytes_written=0.0, note=words)]


def _child() -> dict[str, str]:
    """Return the environment of the child, which finds this package wherever it is started."""
    package = str(Path(__file__).resolve().parents[3])
    others = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{others}" if others else package}


def _row(
    cell: AttentionCell, seen: Traffic, card: Machine, *, sm_count: int, at: str
) -> dict[str, Any]:
    """Return a row: the counted bytes next to those of the account."""
    account = total(cell.operations(BLOCKS_PER_SM * sm_count))
    known = {
        "launches": seen.launches,
        "bytes_read": f"{seen.bytes_read:.0f}",
        "bytes_written": f"{seen.bytes_written:.0f}",
        "account_launches": account.launches,
        "account_bytes_read": f"{account.bytes_read:.0f}",
        "account_bytes_written": f"{account.bytes_written:.0f}",
        "status": "ok" if seen.launches else "error",
        "measured_at": at,
        "note": seen.note or ("" if seen.launches else "the call failed or did not fit"),
        "cell": counter_key(cell),
    }
    return filled("counters", cell, card, known)


def _number(text: str) -> float:
    """Read a number with or without thousands separators."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise MeasurementError(f"ncu printed {text!r} for a counter") from None


def _last_words(text: str) -> str:
    """Return the cause of a failure: ncu's first error, or its child's last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # "The application failed" says nothing; the application's last line does.
    errors = [line for line in lines if "ERROR" in line and _FAILED not in line]
    said = [line for line in lines if not line.startswith("==") and not line.startswith('"')]
    hung = [line for line in lines if line.startswith(_HUNG)]
    return ([*errors[:1], *hung, *said[-1:], *lines[-1:]] or ["nothing was printed"])[0][:200]


def call_kernels(until: float, path: str) -> None:
    """Call the kernels of the cells in a JSON file: always the first, the others until a time.

    The marker comes before a cell's inputs are made, so that the last marker always belongs to the
    cell that this process died in.

    Parameters
    ----------
    until
        By the clock of :func:`time.time`. [s]
    """
    import torch

    from simulator.evidence.kernels import find_kernel
    from simulator.evidence.kernels.layout import attention_inputs
    from simulator.evidence.measure.device import TORCH_DTYPES, open_device

    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
    device = open_device("cuda")
    # It is read, not written: dirty lines would be written back during the kernel.
    flush = device.normal((_FLUSH_FACTOR * device.l2_bytes // 4,), torch.float32)
    for index, fields in enumerate(json.loads(Path(path).read_text(encoding="utf-8"))):
        if index and time.time() >= until:
            break
        faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
        with _counted():
            torch.cuda._sleep(_MARKER_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001
        cell = AttentionCell(**fields)
        call_it = True
        try:
            inputs = attention_inputs(
                cell, cell.implementation.layout, TORCH_DTYPES[cell.dtype], device.normal
            )
            ready = find_kernel(cell.kernel).ready(inputs)
            arguments = ready.arrange(inputs)
            ready.run(*arguments)  # loads and compiles
        except Exception:  # noqa: BLE001  (its row says so: no kernels after its marker)
            call_it = False
        if call_it:
            torch.sum(flush)
            with _counted():
                ready.run(*arguments)
        inputs = arguments = ready = None  # type: ignore[assignment]
        device.release()
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def _counted() -> Iterator[None]:
    """Let ncu see the kernels of a block, and no others."""
    import torch

    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    runtime.cudaProfilerStart()
    yield
    torch.cuda.synchronize()
    runtime.cudaProfilerStop()


if __name__ == "__main__":
    from torch import no_grad

    with no_grad():
        call_kernels(float(sys.argv[1]), sys.argv[2])
