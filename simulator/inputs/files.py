"""Read files that people write, and report errors in one line."""

import json
import os
import re
import reprlib
import time
import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from simulator.errors import SimulatorError, nearest
from simulator.inputs.record import Frozen
from simulator.units import parse_count

if TYPE_CHECKING:
    from pydantic import ValidationError

Model = TypeVar("Model", bound=Frozen)
Read = TypeVar("Read", bound=Callable[..., Any])

# The most results to keep for one function.
MOST_KEPT = 512
# A larger file is no model's config.json, no table of runs, and none that a person wrote as TOML.
# [characters].
LARGEST_FILE, LARGEST_TOML = 16_000_000, 1_000_000
# A key of so many parts; reading it takes the square of their number.
LONG = 100
_LONG_KEY = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]++\s*+\.\s*+){{{LONG}}}""")
_TABLE = re.compile(r"^[ \t]*\[[^\]\n]+\][ \t]*$", re.MULTILINE)
# The most mistakes of a file that a message names.
MOST_MISTAKES = 8
# The most unknown keys that may be misspellings of missing ones.
MOST_COMPARED = 100
# Time stamps of files may be as coarse as this. [ns].
SETTLED_NS = 2_000_000_000


def read_if_changed(read: Read) -> Read:
    """Cache a function's result for a file or a folder until the file or folder changes.

    Callers share the result and must not change it. The function's other arguments must be
    hashable. Errors are not cached.
    """

    @lru_cache(maxsize=MOST_KEPT)
    def kept(_version: object, path: Path, *others: Hashable) -> Any:
        return read(path, *others)

    @wraps(read)
    def current(path: Path, *others: Hashable) -> Any:
        if not isinstance(path, str | Path):
            return read(path, *others)  # raises its own error
        return kept(file_version(path), path, *others)

    return cast("Read", current)


def file_version(path: str | Path) -> tuple[int, ...] | None:
    """Return numbers that change with a file, or with a folder's list of files; None without one.

    A file that has just changed has a new version on every call, because its next change may have
    the same time stamp.
    """
    try:
        found = os.stat(path)  # noqa: PTH116, Path(path).stat() takes twice as long
    except (OSError, ValueError):
        return None
    version = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    now = time.time_ns()
    return version if now - max(version[2:]) > SETTLED_NS else (*version, now)


def name_or_path(value: object, what: str, error: type[SimulatorError]) -> str | Path:
    """Return a name or path unchanged, or refuse anything else.

    Parameters
    ----------
    value
        The value given.
    what
        What it names, for the message.
    error
        The class to raise.

    Raises
    ------
    SimulatorError
        ``error``, if it is not a text or a path.
    """
    if isinstance(value, str | Path):
        return value
    raise error(f"{what} = {reprlib.repr(value)} is neither a name nor a path")


def read_count(value: Any) -> Any:
    """Read ``8K`` as a count, and refuse true and false; leave everything else unchanged."""
    return parse_count(value) if isinstance(value, str | bool) else value


def or_near(path: str | Path) -> str:
    """Return what to add to the error of a missing file: the nearest name in its folder."""
    path = Path(path)
    names: list[str] = []
    # A name may be too long to ask for, and a folder closed.
    with suppress(OSError):
        names = [] if path.exists() else [file.name for file in path.parent.iterdir()]
    near = nearest(path.name, names, cutoff=0.8)
    return f"; did you mean {str(path.with_name(near))!r}?" if near else ""


def read_text(path: str | Path, error: type[SimulatorError], *, largest: int | None = None) -> str:
    """Read a text file, or raise ``error`` with one line that names it.

    Parameters
    ----------
    path, error
        The file, and the class to raise.
    largest
        Most characters that the file may have, None for any number.
    """
    try:
        with Path(name_or_path(path, "file", error)).open(encoding="utf-8") as stream:
            text = stream.read(-1 if largest is None else largest + 1)
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}{or_near(path)}") from None
    except UnicodeDecodeError:
        raise error(f"cannot read {path}: it is not a text file") from None
    except ValueError as problem:
        raise error(f"cannot read {str(path)!r}: {problem}") from None
    if largest is not None and len(text) > largest:
        raise error(f"cannot read {path}: it has more than {largest:,} characters")
    return text


def head_of(text: str) -> str:
    """Return what stands before the first table of a TOML text."""
    return _TABLE.split(text, maxsplit=1)[0]


def read_toml(
    path: str | Path, error: type[SimulatorError], *, part: Callable[[str], str] = str
) -> dict[str, Any]:
    """Read a TOML file, or raise ``error`` with one line that names the file and the place.

    Parameters
    ----------
    path, error
        The file, and the class to raise.
    part
        Cuts the part to read from the text; by default all of it is read.
    """

    def parse(text: str) -> dict[str, Any]:
        if any(line.count(".") >= LONG and _LONG_KEY.search(line) for line in text.splitlines()):
            raise RecursionError
        return tomllib.loads(part(text))

    return dict(_parsed(path, error, parse, "TOML", largest=LARGEST_TOML))


def read_json(path: str | Path, error: type[SimulatorError]) -> Any:
    """Read a JSON file, or raise ``error`` with one line that names the file and the place."""
    return _parsed(path, error, json.loads, "JSON", largest=LARGEST_FILE)


def _parsed(
    path: str | Path,
    error: type[SimulatorError],
    parse: Callable[[str], Any],
    form: str,
    *,
    largest: int,
) -> Any:
    """Read a file and parse it, or raise ``error`` with one line."""
    text = read_text(path, error, largest=largest)
    try:
        return parse(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as problem:
        raise error(f"{path} is not {form}: {problem}") from None
    except (ValueError, RecursionError):
        raise error(f"{path} cannot be read: a number too long, or nested too deep") from None


def validate(
    model: type[Model], data: Mapping[str, Any], *, where: str, error: type[SimulatorError]
) -> Model:
    """Build a model from raw data, with pydantic's errors as one line.

    Parameters
    ----------
    model
        The class to build.
    data
        Its fields.
    where
        The file or the part of the command line with the data; the message starts with it.
    error
        The class to raise.

    Raises
    ------
    SimulatorError
        ``error``, if a field is unknown, missing or wrong.
    """
    try:
        return model.read(data)
    except ValueError as problem:
        mistakes = islice(describe(problem, model), MOST_MISTAKES)
        raise error(f"{where}: {'; '.join(mistakes)}") from None


def read_named(model: type[Model], path: str | Path, error: type[SimulatorError]) -> Model:
    """Build a model from a TOML file whose ``id`` is the file's name.

    Parameters
    ----------
    model
        The class to build.
    path
        The file.
    error
        The class to raise.

    Raises
    ------
    SimulatorError
        ``error``, if the file is missing or malformed, or ``id`` is not its name.
    """
    found = validate(model, read_toml(path, error), where=str(path), error=error)
    name = dict(found)["id"]
    stem = Path(path).stem
    if name != stem:
        raise error(
            f"{path}: id = {name!r} is not the file's name {stem!r}; write the file's name as id"
        )
    return found


def describe(problem: ValueError, model: type[Frozen]) -> Iterable[str]:
    """Yield one phrase per error of pydantic: the field, the value and the nearest valid one."""
    complaints = cast("ValidationError", problem).errors()
    # A mistyped field is both "missing" and "extra": drop the "missing" error.
    unknown = (item for item in complaints if item["type"] == "extra_forbidden")
    extras = list(islice(unknown, MOST_COMPARED))
    for item in complaints:
        location = [str(part) for part in item["loc"]]
        field = ".".join(location) or model.__name__
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, location[:-1])
            guess = nearest(location[-1], known)
            yield f"unknown key {field!r}" + (f"; did you mean {guess!r}?" if guess else "")
        elif item["type"] == "missing":
            siblings = [extra for extra in extras if extra["loc"][:-1] == item["loc"][:-1]]
            if not any(nearest(str(extra["loc"][-1]), [location[-1]]) for extra in siblings):
                yield f"{field} is missing"
        elif item["type"] == "literal_error":
            options = [part.strip(" '") for part in _options(item)]
            guess = nearest(str(item["input"]), options)
            hint = f"; did you mean {guess!r}?" if guess else ""
            yield f"{field} = {item['input']!r} is not one of {', '.join(options)}{hint}"
        elif item["type"] == "string_pattern_mismatch":
            # Only names have a pattern.
            yield f"{field} = {item['input']!r} should be of a-z, 0-9, '-' and '.', no sign first"
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            # Some messages already name the value.
            message = message.removeprefix(f"{item['input']!r} ").removeprefix("String ")
            plain = isinstance(item["input"], str | int | float | bool)
            yield (
                f"{field} = {item['input']!r} {message}"
                if plain and location
                else (f"{field}: {message}" if location else message)
            )


def _options(item: Any) -> list[str]:
    """Return the allowed values of a literal field."""
    expected = str(item.get("ctx", {}).get("expected", ""))
    return expected.replace(" or ", ", ").split(",")


def _fields_at(model: type[Frozen], location: list[str]) -> list[str]:
    """Return the field names of the model found by walking ``location`` from ``model``."""
    current: Any = model
    for part in location:
        kind = getattr(current, "kinds", {}).get(part)
        if kind is None:
            continue
        candidates = [kind, *getattr(kind, "__args__", ())]
        current = next((item for item in candidates if hasattr(item, "kinds")), None)
    return list(getattr(current, "kinds", {}))
