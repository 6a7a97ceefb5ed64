"""Messages that help: the nearest known name."""

import pytest

from simulator import errors
from simulator.errors import SimulatorError, nearest, parted, unknown

NAMES = ["h100-sxm", "h100-pcie", "a100-sxm-80gb", "l4", "Mixtral-8x7B"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("h100sxm", "h100-sxm"), ("H100-PCI", "h100-pcie"), ("mixtral8x7b", "Mixtral-8x7B")],
)
def test_a_typing_error_finds_its_name(typed: str, meant: str) -> None:
    """Case and a missing character do not matter; the name comes back in its own spelling."""
    assert nearest(typed, NAMES) == meant
    assert unknown("GPU", typed, NAMES) == f"unknown GPU {typed!r}; did you mean {meant!r}?"


def test_a_name_like_no_other_lists_all() -> None:
    """Where nothing is close, all known names are said, in order, and the way out after them."""
    assert nearest("zzz", NAMES) is None
    message = unknown("GPU", "zzz", NAMES, way_out="see 'bifurcate gpus'")
    assert message == (
        "unknown GPU 'zzz'; known: Mixtral-8x7B, a100-sxm-80gb, h100-pcie, h100-sxm, l4 "
        "(see 'bifurcate gpus')"
    )


def test_a_field_called_name_is_no_way_out() -> None:
    """A message says what to do after a verb, not after a field that is missing."""
    assert parted("x.toml: id is missing; name is missing")[1] == ""
    assert parted("x.toml is an input; name another file")[1] == "name another file"


def test_nothing_known_gives_a_message_all_the_same() -> None:
    """An empty list of names is not a crash."""
    assert unknown("scenario", "x", []).startswith("unknown scenario 'x'")


def test_every_error_of_ours_is_caught_as_one() -> None:
    """The command line catches SimulatorError; each public error class must be one."""
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    ours = [item for item in classes if item.__module__ == errors.__name__]
    assert len(ours) > 5
    assert all(issubclass(item, SimulatorError | UserWarning) for item in ours)
