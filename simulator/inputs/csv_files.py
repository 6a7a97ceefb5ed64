"""Small CSV files that a person or a training script wrote: problem counts and training runs."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from simulator.errors import MeasurementError, nearest
from simulator.inputs.files import LARGEST_FILE, read_text
from simulator.inputs.workload import LARGEST_COUNT

T = TypeVar("T")

# How much of a file's header and of a cell a message shows.
_MOST_NAMED, _LONGEST_LIST, _LONGEST_CELL = 8, 120, 40
# No model has more parameters, and no loss is that far from one.
_LARGEST = 1e18


class _RowError(ValueError):
    """An invalid row; the message says why."""


@dataclass(frozen=True)
class RefusedRow:
    """A row that is not used, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows(Generic[T]):
    """The content of a file.

    Attributes
    ----------
    rows
        Rows that are used, in the file's order.
    refused
        Rows that are not used.
    """

    path: str
    rows: tuple[T, ...]
    refused: tuple[RefusedRow, ...]


def _read_rows(
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
        Makes a row from its line number and its cells; raises :class:`_RowError` for an invalid
        row.
    required, optional
        Columns to read; others are ignored.

    Raises
    ------
    MeasurementError
        If the file cannot be read, a required column is missing, or no row is left.
    """
    text = read_text(path, MeasurementError, largest=LARGEST_FILE).removeprefix("\ufeff")
    try:
        lines = list(_cells(csv.reader(io.StringIO(text), strict=True)))
    except csv.Error as problem:
        raise MeasurementError(f"cannot read {path}: {problem}") from None
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
        except _RowError as problem:
            refused.append(RefusedRow(line, str(problem)))
    if not rows:
        first = f"; line {refused[0].line}: {refused[0].reason}" if refused else ""
        raise MeasurementError(f"{path}: no row that can be used{first}")
    return Rows(str(path), tuple(rows), tuple(refused))


def _positive_number(cells: Mapping[str, str], column: str) -> float:
    """Read a number above zero, of a size whose powers are numbers too.

    Raises
    ------
    _RowError
        If it is none.
    """
    value = _number(cells, column)
    if not 1 / _LARGEST <= value <= _LARGEST:
        shown = cells[column][:_LONGEST_CELL]
        raise _RowError(f"{column} = {shown} is not a number from {1 / _LARGEST} to {_LARGEST}")
    return value


def _whole_number(cells: Mapping[str, str], column: str, *, least: int = 1) -> int:
    """Read a whole number; ``12.0`` is one, because frames with missing cells write it.

    Raises
    ------
    _RowError
        If it is none.
    """
    value = _number(cells, column)
    if not least <= value <= LARGEST_COUNT or value != int(value):
        shown, most = cells[column][:_LONGEST_CELL], f"{LARGEST_COUNT:.0e}"
        raise _RowError(f"{column} = {shown} is not a whole number from {least} to {most}")
    return int(value)


def _number(cells: Mapping[str, str], column: str) -> float:
    """Read a number of any kind."""
    try:
        return float(cells[column])
    except ValueError:
        raise _RowError(f"{column} = {cells[column][:_LONGEST_CELL]!r} is not a number") from None


def _cells(reader: Iterable[list[str]]) -> Iterable[tuple[int, list[str]]]:
    """Yield the lines that are not blank or comments, numbered as in an editor."""
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
            more = ["..."] if len(columns) > _MOST_NAMED else []
            hint = f"; it has {', '.join([*columns[:_MOST_NAMED], *more])[:_LONGEST_LIST]}"
            if near := nearest(name, spare):
                hint = f"; is {near!r} a misspelling of it?"
            raise MeasurementError(f"{path}: no column {name!r}{hint}")
    twice = [name for name in (*required, *optional) if columns.count(name) > 1]
    if twice:
        raise MeasurementError(f"{path}: column {twice[0]!r} appears twice")


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
            raise _RowError("problem is missing")
        samples = _whole_number(cells, "samples")
        correct = _whole_number(cells, "correct", least=0)
        if correct > samples:
            raise _RowError(f"correct = {correct} is more than samples = {samples}")
        if problem in seen:
            raise _RowError(f"problem {problem!r} is in line {seen[problem]} already")
        seen[problem] = line
        return ProblemCount(line=line, problem=problem, samples=samples, correct=correct)

    return _read_rows(path, build, required=("problem", "samples", "correct"))


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that share keys and values in the same way.

    They have the same number of query heads per KV head, or the same number of KV heads if the
    heads are unknown or differ.

    Attributes
    ----------
    name
        ``multi-head``, ``multi-query``, the common number, or the name that the file gives.
    group_size
        Query heads per KV head; 1 is multi-head, None if it differs or is unknown.
    kv_heads
        KV heads; 1 is multi-query, None if it differs or is unknown.
    """

    name: str
    group_size: int | None = None
    kv_heads: int | None = None

    def position(self, heads: int) -> float:
        """Return the position of a model with ``heads`` from multi-head (0) to multi-query (1).

        It is ln(h / g) / ln h: each halving of the KV heads is a step of the same length.

        >>> Family(name="multi-group of 4", group_size=4).position(16)
        0.5

        It is infinite for a family that KV heads do not describe, so that it comes last.
        """
        if self.group_size is None and self.kv_heads is None:
            return math.inf
        if heads == 1 or self.group_size == 1:
            return 0.0
        if self.group_size is not None:
            return math.log(self.group_size) / math.log(heads)
        return 1 - math.log(min(self.kv_heads or heads, heads)) / math.log(heads)


# Where the parameters that a smaller cache frees go: into a wider MLP, into more query heads, or
# nowhere, so that the model is smaller.
Matching = Literal["mlp", "heads", "nothing", "unknown"]
_MATCHINGS: Mapping[str, Matching] = {
    "ffn width": "mlp",
    "mlp": "mlp",
    "query heads": "heads",
    "heads": "heads",
    "nothing": "nothing",
}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One trained model.

    Attributes
    ----------
    line
        Its line in the file.
    parameters
        Parameters of the model, counted the same way in all runs.
    loss
        Loss on the same held-out data, in nats per token or any other unit that all runs share.
    kv_heads, heads, group_size
        None where not given; at least one of family, kv_heads and group_size is given.
    family
        The name of its family, None where heads say it.
    study, metric
        Its set of runs, and what the loss is; empty where not given. Words of ``study`` after the
        first hyphen tell sets of one paper apart.
    tokens
        Training tokens, None where unknown.
    matched_by
        Where the parameters that smaller caches free went.
    kv_bytes_per_token_layer
        KV bytes for each token and layer, None where unknown. [B]
    """

    line: int
    parameters: float
    loss: float
    kv_heads: int | None = None
    heads: int | None = None
    group_size: int | None = None
    family: str | None = None
    study: str = ""
    metric: str = ""
    tokens: float | None = None
    matched_by: Matching = "unknown"
    kv_bytes_per_token_layer: float | None = None

    @property
    def paper(self) -> str:
        """The study's name up to its first hyphen."""
        return self.study.split("-", 1)[0]

    @property
    def set(self) -> tuple[str, str, float | None]:
        """What runs must share to lie on one law: study, metric and tokens."""
        return self.study, self.metric, self.tokens


_FAMILY_COLUMNS = ("kv_heads", "heads", "group_size")
_STUDY_COLUMNS = ("family", "study", "metric", "tokens", "matched_by", "kv_bytes_per_token_layer")
# How papers write the families that this project names otherwise.
_FAMILY_NAMES = {
    r"mha|multi-head": "multi-head",
    r"mqa|multi-query": "multi-query",
    r"gqa-?\d*|multi-group": "multi-group",
}


def family_name(name: str) -> str:
    """Return this project's name of a family; groups of any number are multi-group.

    >>> family_name("GQA-4"), family_name("MHA"), family_name("MLA")
    ('multi-group', 'multi-head', 'MLA')
    """
    for pattern, ours in _FAMILY_NAMES.items():
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return ours
    return name


def read_training_runs(path: str | Path) -> Rows[TrainingRun]:
    """Read training runs from a CSV file.

    Its columns are ``parameters``, ``loss`` and one of ``family`` (any name), ``group_size`` (query
    heads per KV head) or ``kv_heads``, with ``heads`` if models of different size have different
    numbers of heads. The other columns are the further fields of :class:`TrainingRun`;
    ``matched_by`` is ``FFN width`` (or ``mlp``), ``query heads`` or ``nothing``, and unknown if it
    is anything else. Tokens of 0 are unknown.

    Raises
    ------
    MeasurementError
        If the file cannot be read, lacks a column, or has no row that can be used.
    """
    return _read_rows(
        path, _run, required=("parameters", "loss"), optional=(*_FAMILY_COLUMNS, *_STUDY_COLUMNS)
    )


def _run(line: int, cells: Mapping[str, str]) -> TrainingRun:
    """Build one run, or refuse inconsistent sizes."""
    counts = {
        name: _whole_number(cells, name) if cells.get(name) else None for name in _FAMILY_COLUMNS
    }
    kv_heads, heads, group_size = (counts[name] for name in _FAMILY_COLUMNS)
    family = cells.get("family") or None
    if kv_heads is None and group_size is None and family is None:
        raise _RowError("none of family, kv_heads and group_size is given")
    if heads is not None:
        for name, count in (("kv_heads", kv_heads), ("group_size", group_size)):
            if count is not None and heads % count:
                raise _RowError(f"heads = {heads} is not a multiple of {name} = {count}")
        if kv_heads is None and group_size is not None:
            kv_heads = heads // group_size
        if kv_heads is not None and group_size not in (None, heads // kv_heads):
            raise _RowError(
                f"group_size = {group_size} is not heads / kv_heads = {heads // kv_heads}"
            )
        group_size = heads // kv_heads if kv_heads is not None else group_size
    return TrainingRun(
        line=line,
        parameters=_positive_number(cells, "parameters"),
        loss=_positive_number(cells, "loss"),
        kv_heads=kv_heads,
        heads=heads,
        group_size=group_size,
        family=family,
        study=cells.get("study", ""),
        metric=cells.get("metric", ""),
        tokens=_known(cells, "tokens"),
        matched_by=_MATCHINGS.get(cells.get("matched_by", "").lower(), "unknown"),
        kv_bytes_per_token_layer=_known(cells, "kv_bytes_per_token_layer"),
    )


def _known(cells: Mapping[str, str], column: str) -> float | None:
    """Read a positive number; None where there is none, or 0."""
    if not cells.get(column) or _number(cells, column) == 0:
        return None
    return _positive_number(cells, column)


# Where the logarithm of tokens scatters by less around a line in that of the size, size tells it.
LEAST_TOKEN_SCATTER = 0.2


def are_one_law(runs: Sequence[TrainingRun]) -> bool:
    """Return whether all runs share study and metric, and tokens unless these tell a joint law.

    They do where the size of a model does not set its tokens.
    """
    if len({(run.study, run.metric) for run in runs}) > 1:
        return False
    tokens = [run.tokens for run in runs if run.tokens is not None]
    if len(tokens) < len(runs) or len(set(tokens)) == 1:
        return len({run.tokens for run in runs}) == 1
    from statistics import StatisticsError, linear_regression

    sizes = [math.log(run.parameters) for run in runs]
    logs = [math.log(count) for count in tokens]
    try:
        slope, level = linear_regression(sizes, logs)
    except StatisticsError:
        return False
    rest = [log - level - slope * size for size, log in zip(sizes, logs, strict=True)]
    return math.hypot(*rest) / math.sqrt(len(rest)) > LEAST_TOKEN_SCATTER


def families_of(runs: Sequence[TrainingRun]) -> tuple[Family, ...]:
    """Return the family of each run: that of its name, else by its heads.

    Runs between multi-head and multi-query are grouped by query heads per KV head, or by KV heads
    if that makes fewer families.
    """
    between = [run for run in runs if _named(run) is None and _extreme(run) is None]
    by_group = {run.group_size for run in between}
    by_kv_heads = {run.kv_heads for run in between}
    use_group = None not in by_group and (None in by_kv_heads or len(by_group) <= len(by_kv_heads))
    return tuple(_named(run) or _extreme(run) or _between(run, use_group=use_group) for run in runs)


def _named(run: TrainingRun) -> Family | None:
    """Return the family that a run's file names, unless heads tell the groups apart."""
    if run.family is None:
        return None
    name = family_name(run.family)
    if name == "multi-group" and (run.kv_heads or run.group_size):
        return None
    return Family(
        name=name,
        group_size=1 if name == "multi-head" else None,
        kv_heads=1 if name == "multi-query" else None,
    )


def _extreme(run: TrainingRun) -> Family | None:
    """Return the family of a run that is multi-head or multi-query, else None."""
    if run.group_size == 1:
        return Family(name="multi-head", group_size=1)
    if run.kv_heads == 1:
        return Family(name="multi-query", kv_heads=1)
    return None


def _between(run: TrainingRun, *, use_group: bool) -> Family:
    """Return the family of any other run."""
    if use_group or run.kv_heads is None:
        return Family(name=f"{run.group_size} heads per KV head", group_size=run.group_size)
    return Family(name=f"{run.kv_heads} KV heads", kv_heads=run.kv_heads)
