"""The two files of exact versions agree with what pyproject.toml asks for."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONFIG = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
REQUIREMENT = re.compile(r"(?P<name>[a-z-]+)>=(?P<oldest>[0-9.]+)")


def requirements() -> Iterator[tuple[str, str]]:
    """Yield every direct requirement: name, and the oldest version admitted."""
    project = CONFIG["project"]
    lists = [
        CONFIG["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *CONFIG["dependency-groups"].values(),
    ]
    for requirement in {text for texts in lists for text in texts}:
        match = REQUIREMENT.fullmatch(requirement)
        assert match is not None, f"{requirement!r} is not 'name>=version'"
        yield match["name"], match["oldest"]


def pins(file: str) -> dict[str, str]:
    """Read a file of exact versions."""
    lines = (CHECKOUT / file).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def parts(version: str) -> tuple[int, ...]:
    """Return a version as comparable numbers, trailing zeros left out."""
    numbers = [int(part) for part in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


@pytest.mark.parametrize(("name", "oldest"), sorted(requirements()))
def test_ci_pins_every_requirement(name: str, oldest: str) -> None:
    """CI is reproducible: each direct requirement has one exact version, and one we admit."""
    assert parts(pins("constraints.txt")[name]) >= parts(oldest)


def test_the_oldest_versions_are_those_we_admit() -> None:
    """The job for the oldest versions installs the lower bounds of pyproject.toml."""
    project = CONFIG["project"]
    lists = (project["dependencies"], *project["optional-dependencies"].values())
    admitted = dict(text.split(">=") for texts in lists for text in texts)
    oldest = pins("constraints-oldest.txt")
    assert {name: parts(version) for name, version in oldest.items()} == {
        name: parts(version) for name, version in admitted.items()
    }
