"""Summarise docs/accuracy.md for README: a table and a line, written by tools/refresh.py.

Each row is a kind of kernel, with the range over GPUs of what the page's tables say of it: the
median error on shapes held out, the same on a GPU left out of the fits, and what the intervals
contain of each.
"""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from tools import DOCS, table, tables

PAGE = DOCS / "accuracy.md"
BLOCK = re.compile(r"(<!-- from docs/accuracy.md -->\n).*?(<!-- end -->\n)", re.DOTALL)
LINE = re.compile(r"(<!-- accuracy in a line -->\n).*?(<!-- end -->\n)", re.DOTALL)
HELD_OUT, LEFT_OUT = "## Kernels, on shapes the fit has not seen", "## A GPU left out"
INTERVALS = "## Do the intervals hold?"
ON = ("shapes held out", "GPU left out")
# One row of the summary each, as the file describes them.
PARTS: list[dict[str, Any]] = tables("accuracy_summary.toml")["part"]


def below(heading: str, page: str) -> pd.DataFrame:
    """Return the first table below a heading of the page."""
    lines = re.search(r"(?:^\|.*\n)+", page.split(f"{heading}\n", 1)[1], re.MULTILINE)
    if lines is None:
        raise SystemExit(f"docs/accuracy.md has no table below {heading!r}")
    head, _, *rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines[0].splitlines()
    ]
    return pd.DataFrame(rows, columns=head)


def summary(page: str) -> str:
    """Return the lines between the marks."""
    held, left, inside = (below(heading, page) for heading in (HELD_OUT, LEFT_OUT, INTERVALS))
    count, both = _rows(page), "> | ".join(ON)
    rows = []
    for part in PARTS:
        formats = ("" if name == "all" else name.replace("_", " ") for name in _constants(part))
        families = {f"{name} {part.get('family', '')}".strip() for name in formats}
        families |= {f"whole steps: {name}" for name in part.get("whole", ())}
        # Sums and steps are of shapes held out.
        of_both = [{f"{on}: {name}" for name in families} for on in ON]
        of_both[0] |= families
        medians = _held_out(part, held), _range(left["median"][left["kernels"].isin(families)])
        covered = (_range(inside["inside"][inside["checked on"].isin(on)]) for on in of_both)
        rows.append((part["name"], *medians, *covered))
    cards = ", ".join(sorted(set(left["GPU left out"])))
    head = (
        f"From {count} rows. Ranges are over GPUs and formats; left out in turn were {cards}:\n\n"
    )
    columns = f"kind | median error, {both}> | intervals contain, {both}>"
    return head + "\n".join(table(columns, rows)) + "\n"


def line(page: str) -> str:
    """Return the summary in a line."""
    held = below(HELD_OUT, page)
    attention, products = (
        _held_out(part, held)
        for part in PARTS
        if part["name"] in ("decode attention, 16 bits", "products, 16 bits")
    )
    return (
        f"**Proof**: against {_rows(page)} rows that others timed, decode attention is within "
        f"{attention} and products within {products}\n(medians by card, 16 bits, shapes held out): "
        "[accuracy](#accuracy-and-limits), the poor figures too.\n"
    )


def _rows(page: str) -> str:
    """Return how many rows the page rests on."""
    [count] = re.findall(r"from ([\d,]+) rows", page)
    return str(count)


def _constants(part: Mapping[str, Any]) -> list[str]:
    """Return the constants that a part is predicted with."""
    return list(part.get("constants", ["all"]))


def _held_out(part: Mapping[str, Any], held: pd.DataFrame) -> str:
    """Write the range of a part's medians on shapes held out."""
    of_kind = held["rows of"] == part.get("kind", "")
    return _range(held["median"][of_kind & held["constants for"].isin(_constants(part))])


def _range(cells: "pd.Series[str]") -> str:
    """Write the least and the largest of some percentages."""
    shares = [float(cell.rstrip(" %")) for cell in cells if cell]
    if not shares:
        return "–"
    low, high = (f"{share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def summarised(text: str) -> str:
    """Return a document with its summaries of docs/accuracy.md as the page is now."""
    page = PAGE.read_text(encoding="utf-8")
    text = LINE.sub(lambda match: match[1] + line(page) + match[2], text)
    return BLOCK.sub(lambda match: match[1] + summary(page) + match[2], text)
