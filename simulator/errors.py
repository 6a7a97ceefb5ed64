"""What can go wrong, as one small tree; each message is one line a user can act on."""

import difflib
from collections.abc import Iterable


class SimulatorError(Exception):
    """Base of every error this package raises on purpose (exit code 1 at the command line)."""


class InputError(SimulatorError, ValueError):
    """A value that someone gave is of the wrong type, malformed or impossible.

    It is a ValueError too: a validator may raise it, and pydantic then names the field.
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
    """An attention kernel was given tensors it cannot attend with, or its library is missing."""


class TraceError(SimulatorError):
    """A function cannot be traced, for example because it needs the values of a tensor."""


class MeasurementError(SimulatorError):
    """Measured rows are missing, of no known kind, or cannot be fitted or predicted."""


class OutputError(SimulatorError):
    """A result cannot be written where or how the user asked."""


def nearest(value: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``value``, or None when nothing is close.

    >>> nearest("h100sxm", ["a100-sxm-80gb", "h100-sxm"])
    'h100-sxm'
    """
    lowered = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(value.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[matches[0]] if matches else None


def unknown(
    what: str, value: str, known: Iterable[str], *, aliases: Iterable[str] = (), way_out: str = ""
) -> str:
    """Build the one-line message for a name that is not known.

    Parameters
    ----------
    what
        What kind of thing the name is of.
    value
        The name.
    known
        The names there are: the nearest one is suggested, or all are listed.
    aliases
        Other names, too many to list: one of them is suggested where it is the nearest.
    way_out
        What the user can do, added in brackets.

    Examples
    --------
    >>> unknown("GPU", "h100sxm", ["h100-sxm", "l4"])
    "unknown GPU 'h100sxm'; did you mean 'h100-sxm'?"
    """
    names = list(known)
    guess = nearest(value, [*names, *aliases])
    hint = f"did you mean {guess!r}?" if guess else "known: " + ", ".join(sorted(names))
    return f"unknown {what} {value!r}; {hint}" + (f" ({way_out})" if way_out else "")
