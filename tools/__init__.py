"""Makes this project's documents, figures and shipped constants: folders, and tables of pages."""

import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS, PAGES = ROOT / "docs", ROOT / "tools" / "pages"


def page(name: str, **figures: object) -> str:
    """Return the text of a page, with figures in its places."""
    return (PAGES / name).read_text(encoding="utf-8").format(**figures)


def tables(name: str) -> Any:
    """Return the tables of a file beside the pages."""
    return tomllib.loads((PAGES / name).read_text(encoding="utf-8"))


def renew(stale: Mapping[Path, Callable[[], str]], script: str) -> None:
    """Write what is out of date, or with ``--check`` name it, and the script to run."""
    if stale and "--check" in sys.argv:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"out of date: {names}; run python tools/{script}")
    for path, text in stale.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(), encoding="utf-8")


def table(columns: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table in Markdown.

    Parameters
    ----------
    columns
        Their names between bars; those of figures, on the right, end in ``>``.
    rows
        The cells of each row.

    >>> table("card | rows>", [("l4", 12)])
    ['| card | rows |', '| --- | ---: |', '| l4 | 12 |']
    """
    names = columns.split(" | ")
    aligned = ["---:" if name.endswith(">") else "---" for name in names]
    head = [name.removesuffix(">") for name in names]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, aligned, *rows)]
