"""The columns of each kind of row, and the row of a measured cell.

The first columns match published measurements of the same kind, so one loader reads both. Every
file ends with the same columns, which say how the row was measured.
"""

from dataclasses import dataclass
from typing import Any, Literal

from simulator._version import __version__
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES
from simulator.evidence.measure.cells import (
    AttentionCell,
    Cell,
    ElementwiseCell,
    GemmCell,
    KernelCell,
    Kind,
    StepCell,
)
from simulator.evidence.measure.footprint import elementwise_bytes, stream_bytes
from simulator.evidence.measure.statistics import Statistics
from simulator.units import GIGA, MICROSECOND, MILLISECOND

Status = Literal["ok", "oom", "wrong", "error"]

SOURCE = f"bifurcate measure {__version__}"
# Below this, launches and gaps take most of the time.
LAUNCH_BOUND_S = 20e-6
_LONGEST_NOTE = 160

RowKind = Kind | Literal["counters"]

FILES: dict[RowKind, str] = {
    "memory": "memory_bandwidth.csv",
    "attention": "shared_prefix_attention.csv",
    "step": "decode_step.csv",
    "gemm": "gemm.csv",
    "elementwise": "elementwise.csv",
    "counters": "hardware_counters.csv",
}

# The name that published rows give a stream in L2, which may be faster than memory.
_L2_TESTS = {"stream_init": "l2_stream_write"}

_HOW = (
    "l2_state",
    "repeats",
    "calls_per_repeat",
    "spread_fraction",
    "min_us",
    "max_us",
    "launch_bound",
    "relative_error",
    "predicted_memory_bytes",
    "sm_clock_mhz_before",
    "sm_clock_mhz_after",
    "temperature_c_before",
    "temperature_c_after",
    "measured_at",
    "note",
    "cell",
)
_CARD = ("source", "gpu", "framework", "version")

COLUMNS: dict[RowKind, tuple[str, ...]] = {
    "memory": (
        *("source", "test", "gpu", "working_set_bytes", "threads", "occupancy_pct", "gb_per_s"),
        *("framework", "version", "dtype", "timing", "status", "latency_us"),
        *_HOW,
    ),
    "attention": (
        *_CARD,
        *("mode", "kernel", "timing", "dtype", "kv_dtype", "batch", "q_heads", "kv_heads"),
        *("head_dim", "prefix_len", "suffix_len", "latency_us", "implementation", "attention"),
        *("kv_layout", "expand_kv", "prompts", "samples", "context_tokens", "decoded_tokens"),
        "query_tokens",
        "status",
        *_HOW,
    ),
    "step": (
        *("source", "table", "gpu", "model", "expand_kv", "weights_dtype", "tensor_parallel"),
        *("context_tokens", "samples", "attention", "kernel", "kv_layout", "execution", "status"),
        *("step_ms", "implementation", "operations", "prompts", "decoded_tokens", "layers"),
        *("hidden_size", "q_heads", "kv_heads", "query_tokens", "framework", "version"),
        *_HOW,
    ),
    "gemm": (*_CARD, "kernel", "dtype", "timing", "m", "n", "k", "latency_us", "status", *_HOW),
    "elementwise": (
        *_CARD,
        *("timing", "dtype", "op", "rows", "width", "bytes", "latency_us", "status"),
        *_HOW,
    ),
    "counters": (
        *_CARD,
        *("implementation", "attention", "kernel", "kv_layout", "expand_kv", "dtype", "prompts"),
        *("samples", "q_heads", "kv_heads", "head_dim", "context_tokens", "decoded_tokens"),
        *("query_tokens", "launches", "bytes_read", "bytes_written"),
        *("account_launches", "account_bytes_read", "account_bytes_written"),
        *("status", "measured_at", "note", "cell"),
    ),
}


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
    statistics
        Times of one call, None unless ``status`` is ok.
    l2_state
        The state that the rotation reached, if it differs from the cell's.
    relative_error
        ``|out - reference| / |reference|`` found before timing.
    """

    status: Status
    statistics: Statistics | None = None
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
    seconds = outcome.statistics.median_s if outcome.statistics else None
    known = {
        "source": SOURCE,
        "gpu": card.gpu,
        "framework": card.framework,
        "version": card.version,
        "dtype": cell.dtype,
        "timing": cell.mode,
        "status": outcome.status,
        "latency_us": _number(seconds, MICROSECOND),
        **_sizes(cell, seconds, outcome.l2_state),
        **_how(cell, outcome),
    }
    return {column: known.get(column, "") for column in COLUMNS[cell.kind]}


def _sizes(cell: Cell, seconds: float | None, l2_state: str | None) -> dict[str, Any]:
    """Return the columns that only this kind of row has."""
    if isinstance(cell, AttentionCell):
        standard = cell.implementation.attention == "standard"
        return (
            kernel_columns(cell)
            | library_columns(cell)
            | {
                "mode": "standard" if standard else "shared",
                "kv_dtype": cell.dtype,
                "batch": cell.sequences,
                "q_heads": cell.heads,
                "kv_heads": cell.kv_heads,
                "head_dim": cell.head_dim,
                "prefix_len": cell.context_tokens,
                "suffix_len": cell.decoded_tokens,
            }
        )
    if isinstance(cell, StepCell):
        return kernel_columns(cell) | {
            "model": cell.model.name,
            "weights_dtype": cell.dtype,
            "tensor_parallel": 1,
            "execution": cell.mode,
            # One kernel per operation, even in a graph: nothing is fused.
            "operations": "plain",
            "layers": cell.model.layers,
            "hidden_size": cell.model.hidden_size,
            "q_heads": cell.model.heads,
            "kv_heads": cell.model.kv_heads,
            "step_ms": _number(seconds, MILLISECOND),
        }
    if isinstance(cell, GemmCell):
        return {"kernel": "torch_linear", "m": cell.m, "n": cell.n, "k": cell.k}
    if isinstance(cell, ElementwiseCell):
        moved = int(sum(elementwise_bytes(cell)))
        return {"op": cell.op, "rows": cell.rows, "width": cell.width, "bytes": moved}
    rate = sum(stream_bytes(cell)) / seconds / GIGA if seconds else None
    return {
        "test": cell.test if l2_state == "cold" else _L2_TESTS.get(cell.test, f"l2_{cell.test}"),
        "working_set_bytes": cell.working_set_bytes,
        "gb_per_s": "" if rate is None else f"{rate:.5g}",
    }


def kernel_columns(cell: KernelCell) -> dict[str, Any]:
    """Return the columns that rows of kernels and of whole steps share."""
    known = cell.implementation
    return {
        "attention": known.attention,
        "kernel": known.kernel,
        "implementation": cell.kernel,
        "kv_layout": known.kv_layout,
        "expand_kv": int(known.expand_kv),
        "prompts": cell.prompts,
        "samples": cell.samples,
        "context_tokens": cell.context_tokens,
        "decoded_tokens": cell.decoded_tokens,
        "query_tokens": cell.query_tokens,
    }


def library_columns(cell: AttentionCell) -> dict[str, str]:
    """Return framework and version of another library's kernel, instead of PyTorch's."""
    library = OTHER_LIBRARIES.get(cell.kernel)
    return {} if library is None else {"framework": library.framework, "version": library.version}


def _how(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """Return the columns that say how the row was measured."""
    times = outcome.statistics
    error = outcome.relative_error
    return {
        "l2_state": outcome.l2_state or cell.l2,
        "repeats": times.repeats if times else "",
        "calls_per_repeat": _text(outcome.calls_per_repeat),
        "spread_fraction": f"{times.spread_fraction:.4f}" if times else "",
        "min_us": _number(times.least_s if times else None, MICROSECOND),
        "max_us": _number(times.most_s if times else None, MICROSECOND),
        "launch_bound": int(times.median_s < LAUNCH_BOUND_S) if times else "",
        "relative_error": "" if error is None else f"{error:.3g}",
        "predicted_memory_bytes": _text(outcome.predicted_memory_bytes),
        "sm_clock_mhz_before": _text(outcome.before.sm_clock_mhz),
        "sm_clock_mhz_after": _text(outcome.after.sm_clock_mhz),
        "temperature_c_before": _text(outcome.before.temperature_c),
        "temperature_c_after": _text(outcome.after.temperature_c),
        "measured_at": outcome.measured_at,
        # A row is one line.
        "note": " ".join(outcome.note.split())[:_LONGEST_NOTE],
        "cell": cell.key,
    }


def _number(seconds: float | None, unit_s: float) -> str:
    """Format a time in a unit, with six digits."""
    return "" if seconds is None else f"{seconds / unit_s:.6g}"


def _text(value: float | None) -> str:
    """Format a whole number, or nothing."""
    return "" if value is None else f"{value:.0f}"
