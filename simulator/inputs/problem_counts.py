"""How often samples of a model solved each of a set of problems."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from simulator.inputs.rows import RowError, Rows, read_rows, whole_number

COLUMNS = ("problem", "samples", "correct")


@dataclass(frozen=True, kw_only=True)
class ProblemCount:
    """Tries at one problem: ``correct`` of ``samples`` solved it."""

    line: int
    problem: str
    samples: int
    correct: int


def read_problem_counts(path: str | Path) -> Rows[ProblemCount]:
    """Read counts from a CSV file of columns ``problem``, ``samples`` and ``correct``.

    Raises
    ------
    MeasurementError
        If the file cannot be read, lacks a column, or has no row that can be used.
    """
    seen: dict[str, int] = {}

    def build(line: int, cells: Mapping[str, str]) -> ProblemCount:
        problem = cells["problem"]
        if not problem:
            raise RowError("problem is missing")
        samples = whole_number(cells, "samples")
        correct = whole_number(cells, "correct", least=0)
        if correct > samples:
            raise RowError(f"correct = {correct} is more than samples = {samples}")
        if problem in seen:
            raise RowError(f"problem {problem!r} is in line {seen[problem]} already")
        seen[problem] = line
        return ProblemCount(line=line, problem=problem, samples=samples, correct=correct)

    return read_rows(path, build, required=COLUMNS)
