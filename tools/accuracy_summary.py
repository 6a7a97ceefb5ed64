"""Summarise docs/accuracy.md for README: a table and a line, written by tools/refresh.py.

Each row is a kind of kernel, with the range over GPUs of what the page's tables say of it: the
median error on shapes held out, the same on a GPU left out of the fits, and what the intervals
contain of each.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools import DOCS, table, tables

PAGE = DOCS / "accuracy.md"
BLOCK = re.compile(r"(<!-- from docs/accuracy.md -->\n).*?(<!-- end -->\n)", re.DOTALL)
LINE = re.compile(r"(<!-- accuracy in a line -->\n).*?(<!-- end -->\n)", re.DOTALL)
HELD_OUT, LEFT_OUT = "## Kernels, on shapes the fit has not seen", "## A GPU left out"
INTERVALS = "## Do the intervals hold?"
ON = ("shapes held out", "GPU left out")


@dataclass(frozen=True)
class Part:
    """One row of the summary.

    Attributes
    ----------
    name
        What README calls it.
    kind, constants
        Its rows of the first table: kind of measured row, and constants predicted with; no kind for
        a part without rows there.
    family
        Its kernels in the table of GPUs left out and in that of intervals, of each of these
        formats.
    whole
        Whole steps in the table of intervals.
    """

    name: str
    kind: str = ""
    family: str = ""
    constants: Sequence[str] = ("all",)
    whole: Sequence[str] = ()

    @property
    def families(self) -> set[str]:
        """Names of its kernels in the last two tables."""
        formats = ("" if name == "all" else name.replace("_", " ") for name in self.constants)
        named = {f"{name} {self.family}".strip() for name in formats}
        return named | {f"whole steps: {name}" for name in self.whole}


PARTS = tuple(Part(**entry) for entry in tables("accuracy_summary.toml")["part"])


def rows_below(heading: str, page: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the first table below a heading of the page, by column."""
    below = page.split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    if lines is None:
        raise SystemExit(f"docs/accuracy.md has no table below {heading!r}")
    head, _, *rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines[0].splitlines()
    ]
    for row in rows:
        yield dict(zip(head, row, strict=True))


def summary(page: str) -> str:
    """Return the lines between the marks."""
    held, left = list(rows_below(HELD_OUT, page)), list(rows_below(LEFT_OUT, page))
    inside = list(rows_below(INTERVALS, page))
    count, both = _rows(page), "> | ".join(ON)
    cards = ", ".join(sorted({row["GPU left out"] for row in left}))
    rows = []
    for part in PARTS:
        others = [row for row in left if row["kernels"] in part.families]
        # Sums and steps are of shapes held out.
        of_both = {on: {f"{on}: {name}" for name in part.families} for on in ON}
        of_both[ON[0]] |= part.families
        covered = (
            _range([row for row in inside if row["checked on"] in named], "inside")
            for named in of_both.values()
        )
        medians = _range(_of(part, held), "median"), _range(others, "median")
        rows.append((part.name, *medians, *covered))
    head = (
        f"From {count} rows. Ranges are over GPUs and formats; left out in turn were {cards}:\n\n"
    )
    columns = f"kind | median error, {both}> | intervals contain, {both}>"
    return head + "\n".join(table(columns, rows)) + "\n"


def line(page: str) -> str:
    """Return the summary in a line."""
    held = list(rows_below(HELD_OUT, page))
    attention, products = (
        _range(_of(part, held), "median")
        for part in PARTS
        if part.name in ("decode attention, 16 bits", "products, 16 bits")
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


def _of(part: Part, held: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return a part's rows of the table of shapes held out."""
    return [
        row
        for row in held
        if row["rows of"] == part.kind and row["constants for"] in part.constants
    ]


def _range(rows: Sequence[dict[str, str]], column: str) -> str:
    """Write the least and the largest percentage of a column."""
    shares = [float(row[column].rstrip(" %")) for row in rows if row[column]]
    if not shares:
        return "–"
    low, high = (f"{share:.0f}" for share in (min(shares), max(shares)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def summarised(text: str) -> str:
    """Return a document with its summaries of docs/accuracy.md as the page is now."""
    page = PAGE.read_text(encoding="utf-8")
    text = LINE.sub(lambda match: match[1] + line(page) + match[2], text)
    return BLOCK.sub(lambda match: match[1] + summary(page) + match[2], text)
