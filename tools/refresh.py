"""Keep the documents up to date: outputs of commands, and fields of answers.

A block fenced as ``console`` holds commands after ``$``, followed by their output. A table below
``<!-- fields of MODULE.NAME -->`` has the fields and units of the columns of that name; their
descriptions are the document's own. README's figures of accuracy come from docs/accuracy.md. Run
this file to rewrite all; with ``--check`` it only says which documents are out of date.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools import (
    DOCS,
    ROOT,
    accuracy_summary,
    cascade_rule,
    paper_claims,
    published_signs,
    renew,
    table,
)

# Pages that are generated whole, except docs/accuracy.md, which needs measured rows.
GENERATORS = (cascade_rule, published_signs, paper_claims)
# Units that are kinds of values, and their descriptions in the documents.
NARROW, WIDE = 80, 140
UNITS = {"text": "", "ratio": "", "launches": "", "bool": "true or false"}
FIELDS = re.compile(r"^<!-- fields of (\S+)\.(\w+) -->\n((?:\|.*\n)+)", re.MULTILINE)
BLOCK = re.compile(r"(^```console\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return the documents that may contain commands."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def width_of(path: Path) -> int:
    """Return the width of the outputs in a document: what a newcomer reads fits a small window."""
    return NARROW if path.name in ("README.md", "tutorial.md") else WIDE


def commands(text: str) -> list[str]:
    """Return the commands in the console blocks of a document."""
    blocks = (match.group(2) for match in BLOCK.finditer(text))
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def output_of(command: str, *, width: int) -> str:
    """Run a documented command away from the checkout and return what it prints."""
    words = shlex.split(command)
    if words[0] != "bifurcate":
        raise SystemExit(f"only bifurcate is run from the docs, not {words[0]!r}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - our own command, from our own docs
            [sys.executable, "-m", "simulator", *words[1:]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "BIFURCATE_WIDTH": str(width)},
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stderr + done.stdout


def refreshed(text: str, *, width: int = WIDE) -> str:
    """Return a document with current fields and outputs of commands, so many characters wide."""

    def rewrite(match: re.Match[str]) -> str:
        asked = commands(match.group(0))
        parts = [f"$ {command}\n{output_of(command, width=width)}" for command in asked]
        return match.group(1) + "\n".join(parts) + match.group(3)

    return BLOCK.sub(rewrite, accuracy_summary.summarised(described(text)))


def described(text: str) -> str:
    """Return a document with tables of fields that match the columns."""
    return FIELDS.sub(lambda match: _table(*match.groups()), text)


def _table(module: str, name: str, old: str) -> str:
    """Return a table of fields; fields that share a row keep it, with its description."""
    rows = [re.split(r" *\| *", line.strip()[1:-1].strip(" ")) for line in old.splitlines()[2:]]
    words = {key: row[-1] for row in rows for key in re.findall(r"`(\w+)`", row[0])}
    together: list[tuple[list[str], str, str]] = []
    for column in getattr(importlib.import_module(module), name):
        if not column.key:
            continue
        unit, meaning = UNITS.get(column.unit, column.unit), words.get(column.key, "")
        if meaning and together and together[-1][1:] == (unit, meaning):
            together[-1][0].append(f"`{column.key}`")
        else:
            together.append(([f"`{column.key}`"], unit, meaning))
    with_units = any(unit for _, unit, _ in together)
    columns = "field | unit | meaning" if with_units else "field | meaning"
    cells = ((", ".join(keys), *([unit] * with_units), meaning) for keys, unit, meaning in together)
    lines = (line.replace("|  |", "| |") + "\n" for line in table(columns, cells))
    return f"<!-- fields of {module}.{name} -->\n" + "".join(lines)


def generated() -> dict[Path, str]:
    """Return the files that the other scripts write whole, and their expected content."""
    files: dict[Path, str] = {}
    for page in GENERATORS:
        files |= page.generated()
    return files


def main() -> None:
    """Rewrite the documents, or with ``--check`` name those that are out of date."""
    files = generated()
    for path in documents():
        text = files.get(path) or path.read_text(encoding="utf-8")
        files[path] = refreshed(text, width=width_of(path))
    stale = {
        path: partial(str, text)
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    renew(stale, "refresh.py")


if __name__ == "__main__":
    main()
