"""Find the files that this package ships and those of the user."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from simulator.errors import OutputError

HARDWARE_PATH_VARIABLE = "BIFURCATE_HARDWARE_PATH"
SCENARIO_PATH_VARIABLE = "BIFURCATE_SCENARIO_PATH"
PACKAGE = Path(__file__).parent


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
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``target`` only if the block succeeds.

    A target that is not a file (``/dev/null``, a pipe) is written directly, because a new file
    would replace it.

    Raises
    ------
    OutputError
        If the folder is missing or cannot be written, or the target is a folder.
    """
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder")
    if target.exists() and not target.is_file():
        yield target
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes the file private; give it the permissions of a normal new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        try:
            temporary.replace(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
