"""The stages of a calibration: the constants that each kind of row determines, in order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simulator.evidence import tables
from simulator.evidence.fit.solver import Free
from simulator.evidence.predict import paper_code
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import Precision
from simulator.timing.constants import CONSTANTS, Key, key_named

Rows = Literal["graph", "module", "eager", "whole"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Constants that one kind of row determines.

    Attributes
    ----------
    shape
        Columns that define a row's shape: whole shapes are held out.
    instead
        Columns that do so where all rows are of one shape, the first that vary.
    own
        Whether each library and each precision gets constants of its own.
    general
        Whether there are also constants for no particular library; engines' overheads have none.
    apart
        A library whose rows have no part in these.
    least, most
        The fewest rows that can determine a constant, and the most of a kernel and format to fit, 0
        for all: whole series are left out.
    alike
        The most rows of a kernel and format that count for constants of no library where several
        have rows, so that each counts alike; 0 for all.
    noise
        The relative noise of rows that may be too few to show it: each constant must then prove
        itself on shapes left out. 0 where rows are many.
    rows
        Which rows: kernels replayed from a CUDA graph, modules of several kernels, kernels launched
        from the host one by one, or whole programs with their own timing.
    besides
        Further constants that rows in some formats determine, by format.
    """

    kind: RowKind
    free: tuple[Free, ...]
    shape: tuple[str, ...]
    instead: tuple[tuple[str, ...], ...] = ()
    own: bool = False
    general: bool = True
    apart: str = ""
    least: int = 12
    most: int = 0
    alike: int = 0
    noise: float = 0.0
    rows: Rows = "graph"
    besides: Mapping[Precision, tuple[Free, ...]] = field(default_factory=dict)


def _free(names: Iterable[str]) -> tuple[Free, ...]:
    """Return constants to fit, each with the range that the timing model gives it."""
    keys = map(key_named, names)
    return tuple(Free(key, *CONSTANTS[key.name].fit[key.kind]) for key in keys)


def _stage(
    kind: RowKind,
    shape: list[str],
    free: Iterable[str] | Literal["paper_code"],
    instead: Iterable[list[str]] = (),
    besides: Mapping[Precision, list[str]] | None = None,
    **how: Any,
) -> Stage:
    """Return a stage as the file describes it; its ``free`` may be all of ``paper_code``."""
    return Stage(
        kind,
        _PAPERS if free == "paper_code" else _free(free),
        tuple(shape),
        instead=tuple(map(tuple, instead)),
        besides={precision: _free(names) for precision, names in (besides or {}).items()},
        **how,
    )


_PAPERS = tuple(
    Free(Key(name), low, high, start) for name, (start, low, high) in paper_code.CONSTANTS.items()
)
STAGES = tuple(_stage(**entry) for entry in tables("fit/stages.toml")["stage"])

# The rows that determine constants of the paper's own code, by the ends of their names.
_HARNESS_ROWS = {
    "cat_fraction": "whole eager steps with rebuilt caches, of few samples and of many",
    "pass_fraction": "whole steps that keep their logits in memory, of many samples",
    "kernel_us": "whole compiled steps with little to do: one sample, a short context",
    "block_gb_per_s": CONSTANTS["block_gb_per_s"].rows,
}


def wanted_rows(key: Key) -> str:
    """Return the rows to add for a constant that the given rows do not determine."""
    if key.name in CONSTANTS:
        return CONSTANTS[key.name].rows
    found = (rows for end, rows in _HARNESS_ROWS.items() if key.name.endswith(end))
    return next(found, "other shapes")
