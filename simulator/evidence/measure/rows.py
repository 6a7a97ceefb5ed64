"""The columns of each kind of row (``columns.toml``), and the row of a measured cell."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from simulator._version import __version__
from simulator.evidence import tables
from simulator.evidence.measure import cells
from simulator.evidence.measure.cells import Cell, Kind
from simulator.units import GIGA, MICROSECOND, MILLISECOND

Status = Literal["ok", "oom", "wrong", "error"]

SOURCE = f"bifurcate measure {__version__}"
# Below this, launches and gaps take most of the time.
LAUNCH_BOUND_S = 20e-6
_LONGEST_NOTE = 160

RowKind = Kind | Literal["counters"]

_TABLES: Any = tables("measure/columns.toml")
_HOW = _TABLES.pop("how")
FILES: dict[RowKind, str] = {kind: table["file"] for kind, table in _TABLES.items()}
COLUMNS: dict[RowKind, tuple[str, ...]] = {
    kind: (*table["columns"], *(() if kind == "counters" else _HOW))
    for kind, table in _TABLES.items()
}

# The name that published rows give a stream in L2, which may be faster than memory.
_L2_TESTS = {"stream_init": "l2_stream_write"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorReading:
    """Clock and temperature of the card at one moment; None where they cannot be read."""

    sm_clock_mhz: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPU and framework of every row."""

    gpu: str
    framework: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of measuring a cell.

    Attributes
    ----------
    seconds
        Times of one call, one for each repeat; none unless ``status`` is ok. [s]
    l2_state
        The state that the rotation reached, if it differs from the cell's.
    relative_error
        ``|out - reference| / |reference|`` found before timing.
    """

    status: Status
    seconds: Sequence[float] = ()
    l2_state: str | None = None
    calls_per_repeat: int | None = None
    relative_error: float | None = None
    predicted_memory_bytes: float | None = None
    before: SensorReading = SensorReading()
    after: SensorReading = SensorReading()
    measured_at: str = ""
    note: str = ""


def row_of(cell: Cell, card: Machine, outcome: Outcome) -> dict[str, Any]:
    """Return a cell's row: all columns of its kind, empty where a value is missing.

    Parameters
    ----------
    cell
        The measured cell.
    card
        The device.
    outcome
        The result.
    """
    seconds = statistics.median(outcome.seconds) if outcome.seconds else None
    known = {**_how(cell, outcome, seconds), **_own(cell, seconds, outcome.l2_state)}
    return filled(cell.kind, cell, card, known)


def filled(kind: RowKind, cell: Cell, card: Machine, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row: what is known, else what the column says of the cell, else nothing.

    A kernel of another library has the framework and version of that.

    Parameters
    ----------
    kind
        Kind of row, whose columns it has.
    cell, card
        The cell and the device.
    known
        Columns that the cell does not tell.
    """
    told = {"source": SOURCE, **asdict(card), **known}
    if isinstance(cell, cells.KernelCell) and (library := cell.implementation.library):
        told |= {"framework": library.framework, "version": library.version}
    of = _TABLES[kind].get("of", {})
    return {
        name: told[name] if name in told else _attribute(cell, of.get(name, name))
        for name in COLUMNS[kind]
    }


def _attribute(cell: Cell, path: str) -> Any:
    """Return what a path of attributes leads to, nothing where the cell has none."""
    found: Any = cell
    for name in path.split("."):
        found = getattr(found, name, "")
    return int(found) if isinstance(found, bool) else found


def _own(cell: Cell, seconds: float | None, l2_state: str | None) -> dict[str, Any]:
    """Return the columns that only this kind of row has and that are no attributes of the cell."""
    if isinstance(cell, cells.AttentionCell):
        return {"mode": "standard" if cell.implementation.attention == "standard" else "shared"}
    if isinstance(cell, cells.StepCell):
        # One kernel per operation, even in a graph: nothing is fused.
        plain = {"operations": "plain", "tensor_parallel": 1}
        return {**plain, "step_ms": _time(seconds, MILLISECOND)}
    if isinstance(cell, cells.GemmCell):
        return {"kernel": "torch_linear"}
    if isinstance(cell, cells.ElementwiseCell):
        return {"bytes": int(sum(cell.moved))}
    return {
        "test": cell.test if l2_state == "cold" else _L2_TESTS.get(cell.test, f"l2_{cell.test}"),
        "gb_per_s": f"{sum(cell.moved) / seconds / GIGA:.5g}" if seconds else "",
    }


def _how(cell: Cell, outcome: Outcome, median_s: float | None) -> dict[str, Any]:
    """Return the columns that say how the row was measured."""
    times = outcome.seconds
    readings = {"before": outcome.before, "after": outcome.after}
    return {
        "timing": cell.mode,
        "status": outcome.status,
        "latency_us": _time(median_s, MICROSECOND),
        "l2_state": outcome.l2_state or cell.l2,
        "repeats": len(times) or "",
        "calls_per_repeat": _text(outcome.calls_per_repeat),
        "spread_fraction": _text(spread_fraction(times) if times else None, ".4f"),
        "min_us": _time(min(times, default=None), MICROSECOND),
        "max_us": _time(max(times, default=None), MICROSECOND),
        "launch_bound": "" if median_s is None else int(median_s < LAUNCH_BOUND_S),
        "relative_error": _text(outcome.relative_error, ".3g"),
        "predicted_memory_bytes": _text(outcome.predicted_memory_bytes),
        **{
            f"{name}_{when}": _text(value)
            for when, reading in readings.items()
            for name, value in asdict(reading).items()
        },
        "measured_at": outcome.measured_at,
        # A row is one line.
        "note": " ".join(outcome.note.split())[:_LONGEST_NOTE],
        "cell": cell.key,
    }


def spread_fraction(seconds: Sequence[float]) -> float:
    """Return the interquartile range over the median: differences below it are noise."""
    median = statistics.median(seconds)
    quarters = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else []
    return (quarters[2] - quarters[0]) / median if quarters and median > 0 else 0.0


def _time(seconds: float | None, unit_s: float) -> str:
    """Format a time in a unit, with six digits."""
    return _text(None if seconds is None else seconds / unit_s, ".6g")


def _text(value: float | None, digits: str = ".0f") -> str:
    """Format a number, or nothing."""
    return "" if value is None else format(value, digits)
