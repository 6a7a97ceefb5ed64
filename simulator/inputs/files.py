"""Read what people write, and say in one line what is wrong with it."""

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from simulator.errors import SimulatorError, nearest

Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path, error: type[SimulatorError]) -> str:
    """Read a text file, or raise ``error`` with one line that names it."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as problem:
        raise error(f"cannot read {path}: {problem.strerror or problem}") from None
    except UnicodeDecodeError:
        raise error(f"cannot read {path}: it is not a text file") from None


def read_toml(path: Path, error: type[SimulatorError]) -> dict[str, Any]:
    """Read a TOML file, or raise ``error`` with one line that names the file and the place."""
    try:
        return tomllib.loads(read_text(path, error))
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{path} is not TOML: {problem}") from None


def read_json(path: Path, error: type[SimulatorError]) -> Any:
    """Read a JSON file, or raise ``error`` with one line that names the file and the place."""
    try:
        return json.loads(read_text(path, error))
    except json.JSONDecodeError as problem:
        raise error(f"{path} is not JSON: {problem}") from None
    except (ValueError, RecursionError):
        raise error(f"{path} cannot be read: a number too long, or nested too deep") from None


def validate(
    model: type[Model],
    data: Mapping[str, Any],
    *,
    where: str,
    error: type[SimulatorError],
) -> Model:
    """Build a model from raw data, turning every complaint of pydantic into one line.

    Parameters
    ----------
    where
        The file or the command-line part the data came from, named first in the message.
    error
        The class to raise.
    """
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise error(f"{where}: {'; '.join(describe(problem, model))}") from None


def read_named(model: type[Model], path: Path, error: type[SimulatorError]) -> Model:
    """Read the model of a TOML file whose ``id`` is its name, or raise ``error`` in one line."""
    found = validate(model, read_toml(path, error), where=str(path), error=error)
    name = dict(found)["id"]
    if name != path.stem:
        raise error(f"{path}: id = {name!r} is not the file's name {path.stem!r}")
    return found


def describe(problem: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    """Yield one phrase for each complaint: the field, the value and the nearest valid one."""
    complaints = problem.errors()
    # A mistyped field is both "missing" and "extra": the missing half adds nothing.
    extras = [item for item in complaints if item["type"] == "extra_forbidden"]
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
            # Names are the only texts with a pattern; one of these signs is in all of them.
            yield f"{field} = {item['input']!r} should be of a-z, 0-9, '-' and '.', no sign first"
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            # Some messages name the value themselves.
            message = message.removeprefix(f"{item['input']!r} ").removeprefix("String ")
            plain = isinstance(item["input"], str | int | float | bool)
            yield (
                f"{field} = {item['input']!r} {message}"
                if plain and location
                else (f"{field}: {message}" if location else message)
            )


def _options(item: Any) -> list[str]:
    """Return the values a literal field allows."""
    expected = str(item.get("ctx", {}).get("expected", ""))
    return expected.replace(" or ", ", ").split(",")


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the field names of the model found by walking ``location`` from ``model``."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((item for item in candidates if hasattr(item, "model_fields")), None)
    return list(getattr(current, "model_fields", {}))
