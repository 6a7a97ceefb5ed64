"""The package's errors as one small tree; each message is one line that a user can act on."""

import difflib
import re
from collections.abc import Iterable, Sequence

# The most names that a message lists.
MOST_LISTED = 12
# A version's number is a word of its own: llama3.1 is llama 3.1.
_WORDS = re.compile(r"[a-z]+|\d+")
# How the part of a message begins that says what to do instead.
_WAY_OUT = (
    r"; (?=(?:did you mean|is '.*' a misspelling|known|write|give|see|use|set|check|leave"
    r"|name(?! is)|add|choose|repair|run|take|it can be|it has|engines use|try|-g)\b)"
    r"|\. (?=To show one)|: (?=pip install)"
)


class SimulatorError(Exception):
    """Base of every error that this package raises (exit code 1 at the command line)."""

    def __str__(self) -> str:
        """Return the message, in one line even where a name in it has several."""
        return " ".join(super().__str__().splitlines())


class InputError(SimulatorError, ValueError):
    """A given value has the wrong type, is malformed or impossible.

    It is also a ValueError: validators may raise it, and pydantic then names the field.
    """


class ProfileError(InputError):
    """A GPU profile is missing, malformed or physically implausible."""


class ModelError(InputError):
    """A model's shape or its config.json cannot be understood."""


class WorkloadError(InputError):
    """A workload asks for something impossible, for example zero samples."""


class ScenarioError(InputError):
    """A scenario file is missing or malformed."""


class KernelError(SimulatorError):
    """An attention kernel was given invalid tensors, or its library is missing."""


class TraceError(SimulatorError):
    """A function cannot be traced, for example because it needs the values of a tensor."""


class MeasurementError(SimulatorError):
    """Measured rows are missing, of unknown kind, or cannot be fitted or predicted."""


class OutputError(SimulatorError):
    """A result cannot be written where or how the user asked."""


class OwnFileWarning(UserWarning):
    """A file of the user's own is left out, or says what can hardly be true."""


def check_between(name: str, value: int, least: int, most: int) -> None:
    """Refuse a size out of its range.

    Parameters
    ----------
    name, value
        What it is called, and the size.
    least, most
        Ends of the range, both included.

    Raises
    ------
    WorkloadError
        If it lies outside.
    """
    if not least <= value <= most:
        raise WorkloadError(f"{name} = {value:,} is not between {least:,} and {most:,}")


def parted(message: str) -> tuple[str, str]:
    """Split a message into what is wrong and what to do instead, which may be nothing.

    >>> parted("unknown GPU 'l41'; did you mean 'l4'? (see 'bifurcate gpus')")
    ("unknown GPU 'l41'", "did you mean 'l4'? (see 'bifurcate gpus')")
    """
    found = re.search(_WAY_OUT, message)
    return (message[: found.start()], message[found.end() :]) if found else (message, "")


def nearest(value: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Return the known name closest to a word, or None.

    Parameters
    ----------
    value, known
        The word, and the names.
    cutoff
        How alike they must be, from 0 to 1, the same.

    Examples
    --------
    >>> nearest("h100sxm", ["a100-sxm-80gb", "h100-sxm"])
    'h100-sxm'
    """
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(value.lower(), list(lowered), n=1, cutoff=cutoff)
    return lowered[matches[0]] if matches else None


def unknown(
    what: str, value: str, known: Iterable[str], *, aliases: Iterable[str] = (), way_out: str = ""
) -> str:
    """Build the one-line message for an unknown name.

    Parameters
    ----------
    what
        The kind of thing that it names.
    value
        The name.
    known
        The known names: the message suggests the nearest one, or lists some.
    aliases
        More names, too many to list: the message suggests one of them if it is the nearest.
    way_out
        What the user can do, added in brackets.

    Examples
    --------
    >>> unknown("GPU", "h100sxm", ["h100-sxm", "l4"])
    "unknown GPU 'h100sxm'; did you mean 'h100-sxm'?"
    >>> unknown("model", "llama", ["llama-65b", "gemma-2b", "llama-2-7b"])
    "unknown model 'llama'; did you mean one of llama-65b, llama-2-7b?"
    """
    names = list(known)
    family = _family(value, names)
    if len(family) > 1:
        hint = f"did you mean one of {_listed(family)}?"
    elif guess := family[0] if family else nearest(value, [*names, *aliases]):
        hint = f"did you mean {guess!r}?"
    else:
        hint = f"known: {_listed(sorted(names))}"
    return f"unknown {what} {value!r}; {hint}" + (f" ({way_out})" if way_out else "")


def _family(value: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with these words: of what a person meant, the known kinds."""
    words = _WORDS.findall(value.lower())
    return [name for name in names if words and _WORDS.findall(name.lower())[: len(words)] == words]


def _listed(names: Sequence[str]) -> str:
    """List the first of many names."""
    return ", ".join(names[:MOST_LISTED]) + (" ..." if len(names) > MOST_LISTED else "")
