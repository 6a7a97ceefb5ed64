"""What the reference pages say: docs/commands.md, and docs/json.md on fields."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
REFERENCE = "\n".join(
    (DOCS / name).read_text(encoding="utf-8") for name in ("commands.md", "json.md")
)


def section(command: str) -> str:
    """Return the sections about a command or its group."""
    name = command.split(maxsplit=1)[0]
    found = re.findall(rf"^## {name}\n(.*?)(?=^##? |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, f"no reference page has a section on {command}"
    return "\n".join(found)
