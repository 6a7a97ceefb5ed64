"""Bytes that really crossed the memory bus, by Nsight Compute: the account itself is checked.

``ncu`` runs a child process that calls every kernel once with a cold L2, a marker kernel in front
of each; the counters of the kernels between two markers are one row. Clocks are left as they are
(``--clock-control none``; by default ncu would fix them).
"""

import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulator.counts.operation import total
from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import KNOWN_KERNELS, AttentionCell, Plan
from simulator.evidence.measure.predict import operations
from simulator.evidence.measure.rows import SOURCE, Card, library_columns
from simulator.timing.slots import BLOCKS_PER_SM

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
# The kernel of ``torch.cuda._sleep``, which no attention kernel launches.
MARKER = "spin_kernel"
CELLS_AT_ONCE = 24
_SECONDS_PER_CELL, _START_SECONDS = 20, 180
# Units in which ncu may print; it is asked for plain bytes.
_UNITS = {"byte": 1.0, "kbyte": 1e3, "mbyte": 1e6, "gbyte": 1e9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the counters say of one call: kernels, and bytes of device memory."""

    launches: int
    bytes_read: float
    bytes_written: float


def find_ncu() -> str | None:
    """Return the path of Nsight Compute's command line, None where it is not installed."""
    return shutil.which("ncu")


def wanted_cells(plan: Plan) -> list[AttentionCell]:
    """Return the kernels of a plan's first stage that has any, each once."""
    cells = [cell for cell in plan.cells if isinstance(cell, AttentionCell)]
    first = min((cell.stage for cell in cells), default=0)
    chosen: dict[str, AttentionCell] = {}
    for cell in cells:
        if cell.stage == first:
            chosen.setdefault(counter_key(cell), cell)
    return list(chosen.values())


def counter_key(cell: AttentionCell) -> str:
    """Return the name of a cell's row of counters."""
    return f"{cell.group} {cell.kernel} counters"


def as_json(cell: AttentionCell) -> dict[str, Any]:
    """Return a cell as the child process reads it."""
    return asdict(cell)


def count(
    ncu: str, cells: Sequence[AttentionCell], card: Card, *, sm_count: int, at: str
) -> Iterator[dict[str, Any]]:
    """Yield a row of counters for each cell.

    Raises
    ------
    MeasurementError
        If ncu fails, mostly because the driver keeps the counters for administrators.
    """
    for start in range(0, len(cells), CELLS_AT_ONCE):
        chunk = cells[start : start + CELLS_AT_ONCE]
        traffic = parse(_profile(ncu, chunk))
        if len(traffic) != len(chunk):
            raise MeasurementError(
                f"ncu reported {len(traffic)} calls where {len(chunk)} were made: "
                "no hardware counters"
            )
        for cell, seen in zip(chunk, traffic, strict=True):
            yield _row(cell, seen, card, sm_count=sm_count, at=at)


def parse(text: str) -> list[Traffic]:
    """Read ncu's CSV, long (a line per metric) or wide (a line per kernel), split at the markers.

    Raises
    ------
    MeasurementError
        If it holds no table of the two metrics.
    """
    lines = text.splitlines()
    header = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if header is None:
        raise MeasurementError(f"ncu printed no counters: {_last_words(text)}")
    found: list[list[Mapping[str, float]]] = []
    kernels: dict[str, tuple[str, dict[str, float]]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[header:]))):
        if not (row.get("ID") or "").strip():
            continue  # the line of units in the wide form
        _, values = kernels.setdefault(row["ID"], (row["Kernel Name"], {}))
        if "Metric Name" in row:
            unit = _UNITS.get(row["Metric Unit"].lower(), 1.0)
            values[row["Metric Name"]] = _number(row["Metric Value"]) * unit
        else:
            values |= {name: _number(row[name]) for name in (READ, WRITTEN)}
    for name, values in kernels.values():
        if MARKER in name:
            found.append([])
        elif found:
            found[-1].append(values)
    return [
        Traffic(
            launches=len(call),
            bytes_read=sum(values[READ] for values in call),
            bytes_written=sum(values[WRITTEN] for values in call),
        )
        for call in found
    ]


def _profile(ncu: str, cells: Sequence[AttentionCell]) -> str:
    """Run the child under ncu and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.json"
        path.write_text(json.dumps([as_json(cell) for cell in cells]), encoding="utf-8")
        command = [
            ncu,
            *("--csv", "--print-units", "base", "--metrics", f"{READ},{WRITTEN}"),
            *("--profile-from-start", "off", "--target-processes", "all"),
            *("--clock-control", "none", "--cache-control", "none"),
            *(sys.executable, "-m", "simulator.evidence.measure.counters_child", str(path)),
        ]
        limit = _START_SECONDS + _SECONDS_PER_CELL * len(cells)
        try:
            done = subprocess.run(  # noqa: S603  (found on the path, fixed arguments)
                command, capture_output=True, text=True, timeout=limit, check=False
            )
        except (OSError, subprocess.SubprocessError) as problem:
            raise MeasurementError(f"ncu failed: {problem}") from None
    if done.returncode:
        raise MeasurementError(f"ncu failed: {_last_words(done.stdout + done.stderr)}")
    return done.stdout


def _row(
    cell: AttentionCell, seen: Traffic, card: Card, *, sm_count: int, at: str
) -> dict[str, Any]:
    """Return a row: what was counted beside what the account says."""
    known = KNOWN_KERNELS[cell.kernel]
    account = total(operations(cell, block_slots=BLOCKS_PER_SM * sm_count))
    return {
        "source": SOURCE,
        "gpu": card.gpu,
        "framework": card.framework,
        "version": card.version,
        **library_columns(cell),
        "implementation": cell.kernel,
        "attention": known.attention,
        "kernel": known.kernel,
        "kv_layout": known.kv_layout,
        "expand_kv": int(known.expand_kv),
        "dtype": cell.dtype,
        "prompts": cell.prompts,
        "samples": cell.samples,
        "q_heads": cell.heads,
        "kv_heads": cell.kv_heads,
        "head_dim": cell.head_dim,
        "context_tokens": cell.context_tokens,
        "decoded_tokens": cell.decoded_tokens,
        "launches": seen.launches,
        "bytes_read": f"{seen.bytes_read:.0f}",
        "bytes_written": f"{seen.bytes_written:.0f}",
        "account_launches": account.launches,
        "account_bytes_read": f"{account.bytes_read:.0f}",
        "account_bytes_written": f"{account.bytes_written:.0f}",
        "status": "ok" if seen.launches else "error",
        "measured_at": at,
        "note": "" if seen.launches else "the call failed or did not fit",
        "cell": counter_key(cell),
    }


def _number(text: str) -> float:
    """Read a number with or without thousands separators."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise MeasurementError(f"ncu printed {text!r} for a counter") from None


def _last_words(text: str) -> str:
    """Return ncu's error, or the last line it printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines or ["nothing was printed"])[-1][:200]
