"""Find the files that this package ships and those of the user."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from simulator.errors import OutputError, OwnFileWarning, SimulatorError

HARDWARE_PATH_VARIABLE = "BIFURCATE_HARDWARE_PATH"
SCENARIO_PATH_VARIABLE = "BIFURCATE_SCENARIO_PATH"
PACKAGE = Path(__file__).parent
# The end of an unfinished file's name, and the time without a write after which nobody writes it.
_UNFINISHED = ".part"
_ABANDONED_S = 3600


def data_dir(kind: str) -> Path:
    """Return the folder of shipped data: inside the wheel, or next to the package in a checkout.

    Parameters
    ----------
    kind
        ``hardware_profiles`` or ``scenarios``.
    """
    return _data_dir(PACKAGE, kind)


@cache
def _data_dir(package: Path, kind: str) -> Path:
    """Return the folder next to or inside ``package``; cached, because it does not move."""
    packaged = package / kind
    return packaged if packaged.is_dir() else package.parent / kind


def search_dirs(kind: str, variable: str) -> list[Path]:
    """Return the folders to search: the user's (``variable``, like PATH), then the shipped one."""
    own = [Path(entry) for entry in os.environ.get(variable, "").split(os.pathsep) if entry]
    return [*own, data_dir(kind)]


def toml_files(kind: str, variable: str) -> dict[str, Path]:
    """Map the id of each TOML file (its name) to its path; a user's file hides a shipped one."""
    found: dict[str, Path] = {}
    for folder in search_dirs(kind, variable):
        if not folder.is_dir():
            continue
        for path in own_files(folder):
            found.setdefault(path.stem, path)
    return found


def own_files(folder: Path) -> list[Path]:
    """Return the TOML files of a folder, without the hidden ones of editors and file systems."""
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))


def shipped(path: str | Path) -> bool:
    """Return whether a file is one of this package's, not one of the user's own."""
    folders = (data_dir("hardware_profiles"), data_dir("scenarios"))
    return Path(path).resolve().parent in [folder.resolve() for folder in folders]


Item = TypeVar("Item")


def readable(read: Callable[[Path], Item], files: Iterable[Path]) -> Iterator[Item]:
    """Yield the content of files, and go on with a warning after one that cannot be read.

    Raises
    ------
    SimulatorError
        If one of our own files cannot be read.
    """
    for path in files:
        try:
            yield read(path)
        except SimulatorError as problem:
            if shipped(path):
                raise
            warnings.warn(f"left out: {problem}", OwnFileWarning, stacklevel=2)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``target`` only if the block succeeds.

    A target that is not a file (``/dev/null``, a pipe) is written directly, because a new file
    would replace it. A file that is replaced keeps its permissions. What an earlier process left
    unfinished, because it was killed, is removed.

    Raises
    ------
    OutputError
        If the folder is missing or cannot be written, or the target is a folder.
    """
    import tempfile

    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder")
    if target.exists() and not target.is_file():
        yield target
        return
    prefix = f".{target.name}."
    try:
        _sweep(target.parent, prefix)
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=_UNFINISHED, dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the permissions of the old or of a new file.
        umask = os.umask(0)
        os.umask(umask)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~umask
        temporary.chmod(mode)
        try:
            temporary.replace(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove unfinished files of a target to which nothing was written for long."""
    for path in folder.iterdir():
        if path.name.startswith(prefix) and path.name.endswith(_UNFINISHED):
            # Another process may finish or sweep it meanwhile.
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
