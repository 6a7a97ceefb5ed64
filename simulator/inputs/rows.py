"""Rows of a small CSV file that a person or a training script wrote, with their line numbers."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from simulator.errors import MeasurementError, nearest

T = TypeVar("T")

# How much of a file's header a message repeats.
MOST_NAMED, LONGEST_LIST = 8, 120


class RowError(ValueError):
    """A row is not what it should be; the message says why."""


@dataclass(frozen=True)
class RefusedRow:
    """A row that is not used, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows(Generic[T]):
    """What a file holds.

    Attributes
    ----------
    rows
        The rows that are used, in the file's order.
    refused
        Those that are not.
    """

    path: str
    rows: tuple[T, ...]
    refused: tuple[RefusedRow, ...]


def read_rows(
    path: str | Path,
    build: Callable[[int, Mapping[str, str]], T],
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> Rows[T]:
    """Read a CSV file row by row.

    Parameters
    ----------
    build
        Makes a row of its line number and its cells; raises :class:`RowError` for one that makes
        no sense.
    required, optional
        Columns; others are let be.

    Raises
    ------
    MeasurementError
        If the file cannot be read, a required column is missing, or no row is left.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            lines = list(_cells(csv.reader(stream, strict=True)))
    except (OSError, UnicodeError, csv.Error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise MeasurementError(f"cannot read {path}: {reason}") from None
    if not lines:
        raise MeasurementError(f"{path}: empty; its first line names the columns")
    columns = [name.strip() for _, names in lines[:1] for name in names]
    _check_columns(path, columns, required, optional)
    rows: list[T] = []
    refused: list[RefusedRow] = []
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            refused.append(RefusedRow(line, f"{len(cells)} cells for {len(columns)} columns"))
            continue
        named = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
        try:
            rows.append(build(line, named))
        except RowError as problem:
            refused.append(RefusedRow(line, str(problem)))
    if not rows:
        first = f"; line {refused[0].line}: {refused[0].reason}" if refused else ""
        raise MeasurementError(f"{path}: no row that can be used{first}")
    return Rows(str(path), tuple(rows), tuple(refused))


def positive_number(cells: Mapping[str, str], column: str) -> float:
    """Read a number above zero.

    Raises
    ------
    RowError
        If it is none.
    """
    value = _number(cells, column)
    if not 0 < value < math.inf:
        raise RowError(f"{column} = {cells[column]} is not a positive number")
    return value


def whole_number(cells: Mapping[str, str], column: str, *, least: int = 1) -> int:
    """Read a whole number; ``12.0`` is one, as frames write it beside missing cells.

    Raises
    ------
    RowError
        If it is none.
    """
    value = _number(cells, column)
    if not math.isfinite(value) or value != int(value) or value < least:
        raise RowError(f"{column} = {cells[column]} is not a whole number from {least}")
    return int(value)


def _number(cells: Mapping[str, str], column: str) -> float:
    """Read a number of any kind."""
    try:
        return float(cells[column])
    except ValueError:
        raise RowError(f"{column} = {cells[column]!r} is not a number") from None


def _cells(reader: Iterable[list[str]]) -> Iterable[tuple[int, list[str]]]:
    """Yield the lines that are neither blank nor a comment, numbered as an editor does."""
    for cells in reader:
        if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
            yield reader.line_num, cells  # type: ignore[attr-defined]


def _check_columns(
    path: str | Path, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> None:
    """Refuse a file that lacks a column or names one twice."""
    for name in required:
        if name not in columns:
            spare = [column for column in columns if column not in (*required, *optional)]
            near = nearest(name, spare)
            names = ", ".join(columns[:MOST_NAMED]) + (", ..." if len(columns) > MOST_NAMED else "")
            hint = f"; is it {near!r}?" if near else f"; it has {names[:LONGEST_LIST]}"
            raise MeasurementError(f"{path}: no column {name!r}{hint}")
    twice = [name for name in (*required, *optional) if columns.count(name) > 1]
    if twice:
        raise MeasurementError(f"{path}: column {twice[0]!r} is there twice")
