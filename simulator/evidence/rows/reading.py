"""Read measured rows: find their kind and their GPU, and refuse impossible ones.

The columns determine the kind of a row, so a file may be partial, reordered, or have extra columns;
one file may even hold several kinds. A row whose time is impossible for the stated work is refused,
with its line and the reason.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.errors import MeasurementError, ProfileError
from simulator.evidence.rows import benchmarks
from simulator.evidence.rows.kinds import KINDS, VALUES, RowKind, added_differences, recognise
from simulator.evidence.rows.refusals import distrusted, impossible, unusable
from simulator.inputs.dtypes import DTYPE_ALIASES
from simulator.inputs.files import or_near
from simulator.inputs.hardware import load_hardware
from simulator.resources import data_dir

# A file is like a kind that shares at least so much of what tells this kind from others.
LEAST_LIKENESS = 0.25
# Names of the shipped rows, which are synthetic: of kernels, and of runs under load.
SAMPLES = {Path("sample"): "", Path("sample-runs"): "synthetic_l4_runs.jsonl"}
# The most missing columns that a message names.
MOST_NAMED = 3
# Suffixes of files of serving clients' results, which come with their lines.
_RESULTS = {".json", ".jsonl"}
# What is wrong with a file, where pandas says it in words of its own.
_UNREADABLE = {UnicodeDecodeError: "it is not a text file", pd.errors.EmptyDataError: "it is empty"}
# What a client calls an engine that it does not know: nothing, or its interface.
UNTOLD = r"\s*$|openai"
_COMMON = {"gpu": None, "framework": "", "version": "", "kernel": "", "source": ""}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not used, and why."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Measurements:
    """Rows by kind, and the unused ones.

    Attributes
    ----------
    tables
        One frame per kind: the file's columns, absent ones filled in, and ``file``, ``line``,
        ``gpu_id`` (None where no profile has that name), ``time_s`` (for a bandwidth, bytes per
        second) and ``distrusted``: whether many rows of its series are impossible.
    refused
        Impossible rows, in the order of the files.
    suspect
        Impossible rows that are kept because the caller asked for it.
    of_others
        How many rows of other GPUs were dropped, by the name in the file.
    """

    tables: Mapping[RowKind, pd.DataFrame]
    refused: tuple[Refusal, ...] = ()
    suspect: tuple[Refusal, ...] = ()
    of_others: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows kept."""
        return sum(len(table) for table in self.tables.values())

    @property
    def distrusted(self) -> Mapping[str, int]:
        """Rows kept of series with many impossible rows, by kind, GPU, library and kernel."""
        counts: dict[str, int] = {}
        for kind, table in self.tables.items():
            some = table[table["distrusted"]] if "distrusted" in table else table[:0]
            for names, part in some.groupby(["gpu", "framework", "kernel"], dropna=False):
                counts[" ".join([kind, *(str(name) for name in names if name)])] = len(part)
        return counts


def load(
    paths: Sequence[Path | str],
    *,
    gpu: str | None = None,
    engine: str | None = None,
    keep_suspect: bool = False,
) -> Measurements:
    """Read files of measured rows.

    Parameters
    ----------
    paths
        CSV files, or by their suffix parquet files and JSON results of serving benchmarks; a
        folder stands for its CSV and parquet files with the columns of a known kind, and
        ``sample`` for the synthetic rows that ship, ``sample-runs`` for such runs under load.
    gpu
        The GPU of rows that do not name one. Rows that name another GPU are dropped.
    engine
        The engine of rows under load that do not name one: a client may name its interface only.
    keep_suspect
        Keep physically impossible rows. Rows without a positive time, or without sizes, are
        refused anyway.

    Raises
    ------
    MeasurementError
        If a file cannot be read or is of no known kind, or a GPU is missing.
    """
    wanted = load_hardware(gpu).id if gpu else None
    parts: dict[RowKind, list[pd.DataFrame]] = {}
    refused: list[Refusal] = []
    suspect: list[Refusal] = []
    of_others = Counter[str]()
    for path, required in _files(paths):
        frame = _read(path)
        kinds = recognise(frame.columns)
        if not kinds:
            if required:
                raise MeasurementError(_no_kind(path, frame.columns))
            continue
        for kind, table in _by_kind(frame, kinds):
            prepared = _prepare(table, kind, path, wanted)
            if kind == "serving" and engine:
                names = prepared["framework"].fillna("").astype(str)
                prepared["framework"] = names.mask(names.str.match(UNTOLD), engine)
            if wanted is not None:
                other = prepared["gpu_id"] != wanted
                of_others.update(prepared["gpu"][other].astype(str))
                prepared = prepared[~other]
            useless = unusable(prepared, kind)
            broken = impossible(prepared[useless.isna()], kind).reindex(prepared.index)
            prepared["distrusted"] = distrusted(prepared, kind, broken.notna())
            reasons = useless.where(useless.notna(), broken)
            drop = useless.notna() if keep_suspect else reasons.notna()
            for line, reason, is_dropped in zip(prepared["line"], reasons, drop, strict=True):
                if isinstance(reason, str):
                    target = refused if is_dropped else suspect
                    target.append(Refusal(str(path), int(line), reason))
            parts.setdefault(kind, []).append(prepared[~drop])
    tables = {kind: pd.concat(parts[kind], ignore_index=True) for kind in KINDS if kind in parts}
    return Measurements(tables, tuple(refused), tuple(suspect), of_others)


def _files(paths: Sequence[Path | str]) -> list[tuple[Path, bool]]:
    """Return the files to read, and whether each was named or found in a folder."""
    files: list[tuple[Path, bool]] = []
    for item in map(Path, paths):
        if item in SAMPLES and not item.exists():
            item = data_dir("sample_rows") / SAMPLES[item]  # noqa: PLW2901
        if item.is_dir():
            inside = sorted(p for p in item.iterdir() if p.suffix in {".csv", ".parquet"})
            files += [(path, False) for path in inside]
        else:
            files.append((item, True))
    if not files:
        folders = ", ".join(map(str, paths)) or "no folder"
        raise MeasurementError(f"no .csv or .parquet is in {folders}; name each .json of a client")
    return files


def _read(path: Path) -> pd.DataFrame:
    """Read one file, with the line of each row."""
    if path.exists() and not (path.is_file() or path.is_fifo()):
        raise MeasurementError(f"cannot read {path}: it is not a file")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        elif path.suffix in _RESULTS:
            frame = benchmarks.results(path)
        else:
            frame = pd.read_csv(path, skip_blank_lines=False, low_memory=False)
    except MeasurementError:
        raise
    except FileNotFoundError:
        raise MeasurementError(f"cannot read {path}: no such file{or_near(path)}") from None
    except ImportError:
        raise MeasurementError(
            f"cannot read {path}: parquet needs pyarrow: "
            "pip install 'bifurcated-attention-simulator[parquet]'"
        ) from None
    except (OSError, ValueError, RecursionError, pd.errors.ParserError) as problem:
        why = _UNREADABLE.get(type(problem)) or str(problem).splitlines()[0]
        raise MeasurementError(f"cannot read {path}: {why}") from None
    frame.columns = [str(column).strip() for column in frame.columns]
    # Copied, because pandas warns when a column is added to many others. Line 1 is the header.
    frame = frame.reset_index(drop=True).copy()
    if path.suffix not in _RESULTS:
        frame["line"] = frame.index + 2
    return frame[frame.drop(columns="line").notna().any(axis=1)]


def _no_kind(path: Path, columns: Iterable[str]) -> str:
    """Say what a file looks like, and which columns it lacks for that."""
    # What a column is about lies in its words: num_kv_heads is kv_heads. The fewer kinds share a
    # word, the more it tells.
    needed = {kind: _words(known.needs) for kind, known in KINDS.items()}
    taken = {kind: needed[kind] | _words(known.optional) for kind, known in KINDS.items()}
    common = Counter(word for words in taken.values() for word in words)
    given, present = _words(columns), set(columns)

    def weight(words: set[str]) -> float:
        # Exact, so that the order of a set decides no tie.
        return fsum(1 / common[word] for word in words)

    def likeness(kind: RowKind) -> float:
        either = needed[kind] | (given & common.keys())
        return weight(taken[kind] & given) / weight(either)

    def missing_of(kind: RowKind) -> list[str]:
        asked = (*KINDS[kind].sizes, *KINDS[kind].words, KINDS[kind].result)
        return [name for name in asked if name not in present]

    # A kind of several columns that lacks only one, and knows every word, comes before those that
    # are alike in words.
    nearly = [
        kind
        for kind, known in KINDS.items()
        if len(missing_of(kind)) == 1 and len(known.sizes) > 1
        if taken[kind] >= given & common.keys()
    ]
    kind = max(nearly or KINDS, key=likeness)
    if likeness(kind) < LEAST_LIKENESS:
        known = ", ".join(KINDS)
        return f"{path}: rows of no known kind; its columns are like those of none of {known}"
    missing = missing_of(kind)
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    lacks = ", ".join(missing[:MOST_NAMED])
    return f"{path}: rows of no known kind; it looks like {kind}, but lacks {lacks}{more}"


def _words(columns: Iterable[str]) -> set[str]:
    """Return the words in names of columns, without those that only say that it is a number."""
    words = {word for name in columns for word in re.split(r"[^a-z0-9]+", name.lower())}
    return words - {"", "num", "size"}


def _by_kind(
    frame: pd.DataFrame, kinds: Sequence[RowKind]
) -> Iterable[tuple[RowKind, pd.DataFrame]]:
    """Yield the rows of each kind, by their filled columns if a file can hold several.

    Rows that fit no kind go to the first, whose refusal says what is missing.
    """
    rest = frame
    # The most demanding first: a prefill row also has all columns of a decode row.
    ordered = sorted(kinds, key=lambda kind: -len([*KINDS[kind].sizes, *KINDS[kind].words]))
    for kind in ordered if len(kinds) > 1 else ():
        columns = KINDS[kind]
        filled = rest[[*columns.sizes, *columns.words]].notna().all(axis=1)
        if filled.any():
            yield kind, rest[filled]
        rest = rest[~filled]
    if len(rest):
        yield kinds[0], rest


def _prepare(frame: pd.DataFrame, kind: RowKind, path: Path, wanted: str | None) -> pd.DataFrame:
    """Fill in absent columns, turn text into numbers, and resolve the GPU's name."""
    columns = KINDS[kind]
    frame = frame.rename(columns={} if "framework" in frame else {"engine": "framework"})
    frame["file"] = str(path)
    for name, default in {**_COMMON, **columns.optional}.items():
        if name not in frame:
            frame[name] = default
        elif not pd.isna(default):
            frame[name] = frame[name].astype(object).where(frame[name].notna(), default)
    for name in columns.sizes:
        frame[name] = _numbers(frame[name])
    for name in (*VALUES["numbers"], *VALUES["switches"], *VALUES["visits"]):
        if name in columns.optional:
            frame[name] = _numbers(frame[name])
    _fill_dtypes(frame, kind)
    frame[columns.result] = _numbers(frame[columns.result])
    if kind == "elementwise":
        frame = added_differences(frame, columns.result)
    time = frame[columns.result]
    frame["time_s"] = (
        time.where(time.between(0, float("inf"), inclusive="neither")) * columns.unit_s
    )
    frame["gpu_id"] = _gpu_ids(frame, path, wanted)
    return frame


def _numbers(cells: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return cells as numbers, those that are none as missing, whole ones of any length too."""
    try:
        return pd.to_numeric(cells, errors="coerce").astype("float64")
    except OverflowError:
        return pd.to_numeric(cells.astype(str), errors="coerce").astype("float64")


def _fill_dtypes(frame: pd.DataFrame, kind: RowKind) -> None:
    """Give every row a dtype, and attention rows a cache dtype."""
    if "dtype" not in frame:
        frame["dtype"] = "bf16"
    if kind == "moe":
        known = [VALUES["schemes"].get(name, (name, name)) for name in frame["dtype"]]
        frame["dtype"] = [stored for stored, _ in known]
        frame["product_dtype"] = [multiplied for _, multiplied in known]
    if ("mla" in kind or kind.endswith("attention")) and "kv_dtype" not in frame:
        frame["kv_dtype"] = frame["dtype"]
    for name in VALUES["formats"]:
        if name in frame:
            text = frame[name].astype(object).where(frame[name].notna(), "bf16").astype(str)
            frame[name] = text.str.strip().str.lower().replace(dict(DTYPE_ALIASES))


def _gpu_ids(frame: pd.DataFrame, path: Path, wanted: str | None) -> pd.Series:
    """Return the profile of each row's GPU, None where no profile has its name."""
    if frame["gpu"].isna().all() and len(frame) and wanted is None:
        line = int(frame["line"].iloc[0])
        raise MeasurementError(f"{path}, line {line}: no GPU is named; name it with --gpu")
    names = frame["gpu"].where(frame["gpu"].notna(), wanted)
    ids = {name: _profile_id(str(name)) for name in names.unique()}
    return names.map(ids).astype(object)


def _profile_id(name: str) -> str | None:
    """Return the id of the profile that has this name, or None."""
    if name.lower().endswith(".toml"):
        return None  # a name in a row is never a path
    try:
        return load_hardware(name).id
    except ProfileError:
        return None
