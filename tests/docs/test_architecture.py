"""The page on the architecture names the modules that exist, each on its floor."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FLOORS = ("cli", "views", "answers", "timing", "counts", "inputs", "evidence")


def listed() -> dict[str, list[str]]:
    """Return the modules and folders that the table names, by floor."""
    page = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names: dict[str, list[str]] = {}
    floor = ""
    for row in re.findall(r"^\| (.*) \|$", page.partition("## What lies where")[2], re.MULTILINE):
        first, _, modules = row.split("|")
        floor = first.strip().strip("`") or floor
        names.setdefault(floor, []).extend(re.findall(r"`([^`]+)`", modules))
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_every_module_is_listed_on_its_floor(floor: str) -> None:
    """No module or folder of a floor is missing, none is listed twice, none is gone."""
    folder = CHECKOUT / "simulator" / floor
    modules = [path.stem for path in folder.glob("*.py") if not path.stem.startswith("__")]
    folders = [f"{path.parent.name}/" for path in folder.glob("*/__init__.py")]
    assert sorted(listed()[floor]) == sorted(modules + folders)
