"""Rows on disk, each safe before the next is measured; and the record of how they were made.

A row is one line, written by one call and forced to disk. A killed process can leave at most a torn
last line: it is cut off when the folder is opened again, and its cell is measured again.
"""

import csv
import errno
import io
import json
import os
import platform
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator._version import __version__
from simulator.errors import MeasurementError
from simulator.evidence.measure.rows import COLUMNS, FILES, RowKind
from simulator.resources import atomic_path

if TYPE_CHECKING:
    from simulator.evidence.measure.device import Device

ENVIRONMENT_FILE = "environment.json"


class Store:
    """The row files of one folder.

    Parameters
    ----------
    repair
        Whether to cut off torn last lines; a run does, under :func:`locked`.

    Attributes
    ----------
    dropped
        One line for each torn last line that was cut off.

    Raises
    ------
    MeasurementError
        If the folder cannot be written, or a file in it holds something else.
    """

    def __init__(self, folder: Path, *, repair: bool = True) -> None:
        self.folder = folder
        self._repair = repair
        self.dropped: list[str] = []
        # The kind and the status of each cell's row.
        self._found: dict[str, tuple[RowKind, str]] = {}
        for kind in FILES:
            self._open(kind)

    @property
    def done(self) -> Collection[str]:
        """Keys of the cells that have a row."""
        return self._found.keys()

    @property
    def rows(self) -> Mapping[RowKind, int]:
        """How many rows of each kind there are."""
        return Counter(kind for kind, _ in self._found.values())

    def path(self, kind: RowKind) -> Path:
        """Return the file of a kind of row."""
        return self.folder / FILES[kind]

    def statuses(self, kind: RowKind) -> dict[str, int]:
        """Return how many rows of a kind have each status."""
        counts = Counter(status for of, status in self._found.values() if of == kind)
        return dict.fromkeys(("ok", "oom", "wrong", "error"), 0) | counts

    def append(self, kind: RowKind, row: Mapping[str, Any]) -> None:
        """Write one row and force it to disk.

        Raises
        ------
        MeasurementError
            If the disk refuses.
        """
        path = self.path(kind)
        buffer = io.StringIO()
        csv.DictWriter(buffer, COLUMNS[kind], lineterminator="\n").writerow(row)
        try:
            if not path.exists():
                self._create(kind)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                line = buffer.getvalue().encode()
                if os.write(descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, "no space left on the device")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as problem:
            raise MeasurementError(f"cannot write {path}: {problem.strerror}") from None
        self._found[str(row["cell"])] = kind, str(row["status"])

    def forget(self, cells: Collection[str], statuses: Collection[str]) -> int:
        """Remove the rows of given cells with given statuses; return how many.

        Each file is replaced as a whole, so that a kill meanwhile loses nothing.
        """
        gone = {
            cell
            for cell, (_, status) in self._found.items()
            if cell in cells and status in statuses
        }
        kinds = {self._found[cell][0] for cell in gone}
        for cell in gone:
            del self._found[cell]
        for kind in kinds:
            header, *lines = self.path(kind).read_bytes().splitlines(keepends=True)
            rows = ((line, _row_of(line, COLUMNS[kind])) for line in lines)
            kept = [line for line, row in rows if row is None or row["cell"] not in gone]
            with atomic_path(self.path(kind)) as temporary:
                temporary.write_bytes(b"".join([header, *kept]))
        return len(gone)

    def _create(self, kind: RowKind) -> None:
        """Create a file with its header, complete or not at all."""
        with atomic_path(self.path(kind)) as temporary:
            temporary.write_text(",".join(COLUMNS[kind]) + "\n", encoding="utf-8")

    def _open(self, kind: RowKind) -> None:
        """Read the existing rows, and cut off a torn last line."""
        path = self.path(kind)
        if not path.exists():
            return
        try:
            content = path.read_bytes()
        except OSError as problem:
            raise MeasurementError(f"cannot read {path}: {problem.strerror}") from None
        header = (",".join(COLUMNS[kind]) + "\n").encode()
        if not content.startswith(header):
            if not header.startswith(content):
                raise MeasurementError(
                    f"{path} has other columns than this version writes; "
                    "choose another folder with --output"
                )
            if self._repair:
                self._create(kind)  # a torn header, or an empty file
            return
        self._read_rows(kind, path, content[len(header) :], offset=len(header))

    def _read_rows(self, kind: RowKind, path: Path, content: bytes, *, offset: int) -> None:
        """Record which cells have rows; a bad line is accepted only at the end."""
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines):
            row = _row_of(line, COLUMNS[kind])
            if row is None:
                if number < len(lines) - 1:
                    raise MeasurementError(
                        f"{path}, line {number + 2}: not a row; repair or remove it, "
                        "or choose another folder with --output"
                    )
                if self._repair:
                    os.truncate(path, offset)
                self.dropped.append(f"{path}: torn last line {number + 2} cut off")
                return
            cell = row["cell"]
            if cell in self._found:
                raise MeasurementError(f"{path}, line {number + 2}: cell {cell!r} has two rows")
            self._found[cell] = kind, row["status"]
            offset += len(line)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it against other runs.

    Raises
    ------
    MeasurementError
        If it cannot be written, or another run is writing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as problem:
        raise MeasurementError(f"cannot write {folder}: {problem.strerror}") from None
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    # Lock the folder itself, so that no lock file remains.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MeasurementError(
                f"another run is writing to {folder}; choose another folder with --output"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _row_of(line: bytes, columns: tuple[str, ...]) -> dict[str, str] | None:
    """Return a line's row, None if the line is torn or no row at all."""
    if not line.endswith(b"\n"):
        return None
    try:
        (values,) = csv.reader([line.decode()])
    except (UnicodeDecodeError, ValueError, csv.Error):
        return None
    if len(values) != len(columns):
        return None
    row = dict(zip(columns, values, strict=True))
    # A power cut leaves NUL bytes; a row without key or status was never finished.
    return row if row["cell"] and row["status"] and "\0" not in row["cell"] else None


def read_environment(folder: Path) -> dict[str, Any] | None:
    """Return the folder's environment record, None if there is none.

    Raises
    ------
    MeasurementError
        If it cannot be read.
    """
    path = folder / ENVIRONMENT_FILE
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise MeasurementError(f"cannot read {path}: it is not JSON") from None
    if not isinstance(record, dict):
        raise MeasurementError(f"cannot read {path}: it is not an environment record")
    return record


def write_environment(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace the folder's environment record as a whole."""
    with atomic_path(folder / ENVIRONMENT_FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Environment:
    """The environment record of a folder, one entry for each run.

    Raises
    ------
    MeasurementError
        If the folder's rows come from another device.
    """

    def __init__(self, folder: Path, device: "Device", settings: Mapping[str, Any]) -> None:
        facts = device.facts()
        record = read_environment(folder)
        if record is None:
            record = {"schema_version": 1, **facts, "runs": []}
        elif record.get("name") != facts["name"]:
            raise MeasurementError(
                f"{folder} has rows of {record.get('name')}, this is {facts['name']}; "
                "choose another folder with --output"
            )
        self._folder, self._device, self._record = folder, device, record
        self._run: dict[str, Any] = {
            "started_at": now(),
            "ended_at": None,
            "bifurcate": __version__,
            "torch": device.card.version,
            "python": platform.python_version(),
            "system": platform.platform(),
            **{name: facts[name] for name in ("driver_version", "cuda") if name in facts},
            "settings": dict(settings),
            "at": None,
            "before": asdict(device.reading()),
            "after": None,
            "rows": 0,
        }
        runs = record.setdefault("runs", [])
        # A run that did not record its end was killed, or crashed in the cell it was measuring.
        dead = [entry for entry in runs if not entry.get("ended_at")]
        self._deaths = Counter(key for entry in dead for key in entry.get("at") or ())
        runs.append(self._run)
        write_environment(folder, record)

    def begin(self, cells: Sequence[str]) -> None:
        """Record what is measured next, in case this process dies in it."""
        self._run["at"] = list(cells)
        write_environment(self._folder, self._record)

    def deaths(self, cell: str) -> int:
        """Return how many earlier runs died while measuring a cell."""
        return self._deaths[cell]

    def forgive(self) -> None:
        """Forget the deaths of earlier runs, so that their cells are tried again normally."""
        for entry in self._record["runs"][:-1]:
            entry["at"] = None
        self._deaths.clear()

    def close(self, *, rows: int) -> None:
        """Record the end of the run."""
        self._run |= {
            "ended_at": now(),
            "at": None,
            "after": asdict(self._device.reading()),
            "rows": rows,
        }
        write_environment(self._folder, self._record)
