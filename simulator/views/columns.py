"""Columns of answers, which make tables for a terminal, JSON objects, rows of CSV, and docs.

A terminal shows blocks of lines, broken to its width: plain text, or painted by rich. rich is
imported only to paint: a terminal and a notebook need it, pipes and files do not.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from math import inf
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from simulator.numeric import LARGEST_EXACT
from simulator.units import MILLISECOND, format_si, format_time
from simulator.views.text import money

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

# Version of the JSON objects; CHANGELOG.md lists what each version renamed.
SCHEMA_VERSION = 3
# A column of sentences is not squeezed below this width while there is another way.
ROOMY = 40
_BOLD = re.compile(r"\[bold\](.*?)\[/\]")

# A text, and its style in rich's words ("bold cyan"); empty for none.
Piece = tuple[str, str]
_WORD = re.compile(r"\S+")
# Every character before it takes one column; after it some take two, or none.
_FIRST_COMBINING = "\u0300"


class Block:
    """What is shown: lines for any width."""

    def lines(self, width: int) -> Iterable[Sequence[Piece]]:
        """Yield the pieces of each line.

        Parameters
        ----------
        width
            Columns of the terminal. [characters]
        """
        raise NotImplementedError

    def text(self, width: int) -> str:
        """Return the lines as plain text, without blanks at their ends."""
        lines = ("".join(text for text, _ in pieces).rstrip() for pieces in self.lines(width))
        return "".join(f"{line}\n" for line in lines)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the lines for rich, which paints them and breaks none."""
        from rich.text import Text

        for pieces in self.lines(options.max_width):
            yield Text.assemble(*pieces, no_wrap=True, overflow="ignore")


@dataclass(frozen=True)
class Line(Block):
    """A text of pieces, which takes as many lines as it needs.

    Attributes
    ----------
    pieces
        Its parts.
    indent
        Blanks before each line after the first.
    """

    pieces: Sequence[Piece]
    indent: int = 0

    def lines(self, width: int) -> Iterable[Sequence[Piece]]:
        """Yield the pieces of each line, as :meth:`Block.lines` does."""
        text = "".join(piece for piece, _ in self.pieces)
        blanks = 0
        for start, end in broken(text, width, width - self.indent):
            yield [(" " * blanks, ""), *self._between(start, end)]
            blanks = self.indent

    def _between(self, start: int, end: int) -> Iterator[Piece]:
        """Yield what lies between two places of the text."""
        for text, style in self.pieces:
            yield text[max(0, start) : max(0, end)], style
            start, end = start - len(text), end - len(text)


@dataclass(frozen=True)
class Stack(Block):
    """Views one below the other."""

    parts: Sequence[Block]

    def lines(self, width: int) -> Iterable[Sequence[Piece]]:
        """Yield the lines of each, as :meth:`Block.lines` does."""
        for part in self.parts:
            yield from part.lines(width)


def broken(text: str, first: int, rest: int) -> Iterator[tuple[int, int]]:
    """Yield where each line of a text begins and ends.

    Lines are broken at line ends and at blanks, which go, and in words that are longer than a line.

    Parameters
    ----------
    text
        The text.
    first, rest
        Room on the first line, and on the others. [characters]

    Examples
    --------
    >>> [text[a:b] for text in ["so many words"] for a, b in broken(text, 7, 4)]
    ['so many', 'word', 's']
    """
    room, begin = first, 0
    for paragraph in text.split("\n"):
        start = end = begin
        for word in _WORD.finditer(text, begin, begin + len(paragraph)):
            if cells(text[start : word.end()]) > room and end > start:
                yield start, end
                start, room = word.start(), max(1, rest)
            while cells(text[start : word.end()]) > room:
                ends = range(word.end(), start + 1, -1)
                cut = next((at for at in ends if cells(text[start:at]) <= room), start + 1)
                yield start, cut
                start, room = cut, max(1, rest)
            end = word.end()
        yield start, end
        room, begin = max(1, rest), begin + len(paragraph) + 1


def cells(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    if max(text, default="") < _FIRST_COMBINING:
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


Row = dict[str, Any]
# What a terminal shows: a text may mark what is bold.
View: TypeAlias = str | Block
# How a table shows values of each unit; times are in seconds until they are shown.
CELLS: Mapping[str, Callable[[Any], str]] = {
    "ms": format_time,
    "s": format_time,
    "bytes": lambda count: format_si(count, "B"),
    "FLOP": lambda count: format_si(count, "").strip(),
    "launches": lambda count: f"{float(count):,.0f}",
    "1/s": "{:,.0f}".format,
    "USD": lambda price: money(price, 3),
    "ratio": "{:.2f}x".format,
    "bool": lambda holds: "yes" if holds else "no",
    "text": str,
    "": lambda value: f"{value:,}" if isinstance(value, int) else str(value),
    "figure": lambda value: f"{value:,.6g}" if isinstance(value, float) else f"{value:,}",
}


@dataclass(frozen=True)
class Column:
    """One figure of an answer, described once for its table, JSON, CSV and documentation.

    Attributes
    ----------
    key
        Its name in JSON and CSV; empty for a column of only the table.
    unit
        The unit in JSON; ``ms`` for a value in seconds, ``text``, ``bool`` and ``ratio`` for
        values without a unit.
    value
        Attribute of the item (dotted for one of a part), or a function of it. Default: the key.
    heading
        Its heading in a table.
    cell
        Format of the value in the table, or a function of the item, if its unit's default does not
        suit.
    of
        Columns of the value, if that is itself an object or a list of objects.
    wrap
        Whether a cell may take several lines; numbers never do. A number is the width to keep while
        there are columns to leave out.
    spare
        Whether the column may be left out if the table is wider than the terminal.
    """

    key: str = ""
    unit: str = ""
    value: str | Callable[[Any], Any] = ""
    heading: str = ""
    cell: str | Callable[[Any], str] = ""
    of: "tuple[Column, ...]" = ()
    wrap: int = False
    spare: bool = False

    @property
    def right(self) -> bool:
        """Whether cells are right-aligned, like numbers."""
        return self.unit not in ("text", "bool")

    def raw(self, item: Any) -> Any:
        """Return the item's value as computed."""
        if isinstance(item, Mapping) and not self.value:
            return item[self.key]
        read = self.value if callable(self.value) else attrgetter(self.value or self.key)
        return read(item)

    def plain(self, item: Any) -> Any:
        """Return the item's value as JSON and CSV show it."""
        value = self.raw(item)
        if value is None or (isinstance(value, float) and value == inf):
            return None  # an upper end that is not known
        if self.unit == "bool":
            return bool(value)
        if self.of:
            several = isinstance(value, list | tuple)
            parts = [as_object(self.of, part) for part in (value if several else [value])]
            return parts if several else parts[0]
        if self.unit in ("bytes", "FLOP", "launches"):
            return plain(value)
        if isinstance(value, tuple):
            return list(value)
        return value / MILLISECOND if self.unit == "ms" else value

    def text(self, item: Any) -> str:
        """Return the item's cell in the table."""
        if callable(self.cell):
            return self.cell(item)
        value = self.raw(item)
        if value is None and self.unit != "USD":
            return ""
        return self.cell.format(value) if self.cell else CELLS[self.unit](value)


Columns = tuple[Column, ...]
# Of a comparison, whose interval ends at 0 and infinity if it is not known.
SPEEDUP_ENDS = (
    Column("speedup_low", value=lambda item: item.speedup_low or None),
    Column("speedup_high"),
)
# Of a price table: what an hour costs, and what a million tokens do.
USD_PER_HOUR = Column(
    "usd_per_hour", "USD", heading="USD/h", cell=lambda item: money(item.usd_per_hour, 2)
)
USD_PER_MILLION = Column("usd_per_million_tokens", "USD", heading="USD per million")


def named(*keys: str) -> Columns:
    """Return columns that show these attributes unchanged."""
    return tuple(Column(key) for key in keys)


def pick(columns: Iterable[Column], *names: str, part: str | int = "") -> Columns:
    """Return the columns with these keys or headings, in this order; of a part if named."""
    known = {name: column for column in columns for name in (column.heading, column.key) if name}
    found = tuple(known[name] for name in names)
    return found if part == "" else within(part, found)


def spared(column: Column) -> Column:
    """Return a column that a narrow terminal may leave out."""
    return replace(column, spare=True)


def without(columns: Iterable[Column], *keys: str) -> Columns:
    """Return the columns except those with these keys."""
    return tuple(column for column in columns if column.key not in keys)


def within(part: str | int, columns: Iterable[Column]) -> Columns:
    """Return the columns of a part of an item, by attribute or index, as columns of the item."""
    get = itemgetter(part) if isinstance(part, int) else attrgetter(part)

    def of_part(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda item: function(get(item))

    return tuple(
        replace(
            column,
            value=of_part(column.raw),
            cell=of_part(column.cell) if callable(column.cell) else column.cell,
        )
        for column in columns
    )


def plain(value: Any) -> Any:
    """Return a number as JSON shows it: counts as integers, everything else unchanged."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT:
        return int(value)
    return value


def as_object(columns: Iterable[Column], item: Any) -> Row:
    """Return an item as a JSON object, or as a row of CSV."""
    return {column.key: column.plain(item) for column in columns if column.key}


def as_table(columns: Iterable[Column], items: Iterable[Any]) -> "FittedTable":
    """Return items as a table for a terminal."""
    shown = tuple(columns)
    rows = [[column.text(item) for column in shown] for item in items]
    return FittedTable(columns=shown, rows=rows)


def line(*pieces: str | Piece, indent: int = 0) -> Line:
    """Return a line of pieces, some with a style; its further lines may be indented."""
    told = [(piece, "") if isinstance(piece, str) else piece for piece in pieces]
    return Line(told, indent)


def stack(*parts: View) -> Stack:
    """Stack parts vertically; a text is a line, bold between ``[bold]`` and ``[/]``."""
    return Stack([_marked(part) if isinstance(part, str) else part for part in parts])


def _marked(text: str) -> Line:
    """Return a line whose bold parts are marked."""
    pieces = _BOLD.split(text)
    return line(*((piece, "bold" if place % 2 else "") for place, piece in enumerate(pieces)))


@dataclass(frozen=True, kw_only=True)
class FittedTable(Block):
    """A table that shows every figure completely at any width.

    If it is wider than the terminal, it breaks texts into several lines and headings into two, then
    leaves out its spare columns, the last one first, and says so, and finally lets the terminal
    break its lines.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def lines(self, width: int) -> Iterable[Sequence[Piece]]:
        """Yield the lines of the roomiest form that fits, as :meth:`Block.lines` does.

        Where none fits, lines are longer, and the terminal breaks them: no figure is lost.
        """
        shown = list(range(len(self.columns)))
        spare = [index for index in shown if self.columns[index].spare]
        for left_out, tight in product(range(len(spare) + 1), (False, True)):
            gone = spare[len(spare) - left_out :]
            shown = [index for index in range(len(self.columns)) if index not in gone]
            widths = self._widths(shown, width, tight=tight)
            if _total(widths, tight=tight) <= width:
                break
        heads = {
            index: _within(_heading(self.columns[index], tight=tight), wide)
            for index, wide in widths.items()
        }
        most = max(map(len, heads.values()), default=0)
        bottom = {index: [""] * (most - len(head)) + head for index, head in heads.items()}
        gap = " " * _gap(tight=tight)
        yield from self._row(bottom, widths, gap, "bold")
        for row in self.rows:
            parts = {index: self._parts(row[index], index, widths[index]) for index in widths}
            yield from self._row(parts, widths, gap)
        if gone:
            names = ", ".join(self.columns[index].heading for index in gone)
            said = line((f"Left out on this narrow terminal: {names}.", "dim"))
            yield from said.lines(width)

    def _widths(self, shown: Sequence[int], room: int, *, tight: bool) -> dict[int, int]:
        """Return the width of each shown column, with texts squeezed as far as allowed."""
        widths = {index: self._width(index, "\n", tight=tight) for index in shown}
        excess = _total(widths, tight=tight) - room
        texts = [index for index in shown if self.columns[index].wrap]
        spare = any(self.columns[index].spare for index in shown)
        for index in sorted(texts, key=lambda text: -widths[text]):
            least = self.columns[index].wrap * spare if tight else ROOMY
            word = self._width(index, None, tight=True)
            squeezed = max(word, min(widths[index], least), widths[index] - max(0, excess))
            excess -= widths[index] - squeezed
            widths[index] = squeezed
        return widths

    def _width(self, index: int, apart: str | None, *, tight: bool) -> int:
        """Return the width of a column whose cells are broken at line ends, or (None) at blanks."""
        parts = (part for row in self.rows for part in row[index].split(apart))
        heads = _heading(self.columns[index], tight=tight).split("\n")
        return max(map(cells, [*heads, *parts]))

    def _parts(self, cell: str, index: int, width: int) -> list[str]:
        """Return the lines of a cell."""
        if not self.columns[index].wrap:
            return cell.split("\n")
        return _within(cell, width)

    def _row(
        self, parts: Mapping[int, list[str]], widths: Mapping[int, int], gap: str, style: str = ""
    ) -> Iterable[Sequence[Piece]]:
        """Yield the lines of a row, from those of its cells."""
        for line_of_each in zip_longest(*parts.values(), fillvalue=""):
            padded = []
            for (index, width), part in zip(widths.items(), line_of_each, strict=True):
                blanks = " " * (width - cells(part))
                padded.append(blanks + part if self.columns[index].right else part + blanks)
            yield [(gap.join(padded), style)]


def _gap(*, tight: bool) -> int:
    """Return the blanks between two columns."""
    return 1 if tight else 2


def _total(widths: Mapping[int, int], *, tight: bool) -> int:
    """Return the width of a table of such columns."""
    return sum(widths.values()) + (len(widths) - 1) * _gap(tight=tight)


def _heading(column: Column, *, tight: bool) -> str:
    """Return a column's heading, in two lines if room is scarce."""
    return in_two(column.heading) if tight else column.heading


def _within(text: str, width: int) -> list[str]:
    """Return the lines of a text in a column of a width."""
    return [text[start:end] for start, end in broken(text, width, width)]


def in_two(heading: str) -> str:
    """Break a heading into two lines, as even as its words allow.

    >>> in_two("USD per million").splitlines(), in_two("step")
    (['USD per', 'million'], 'step')
    """
    words = heading.split()
    halves = [
        "\n".join([" ".join(words[:at]), " ".join(words[at:])]) for at in range(1, len(words))
    ]
    return min(halves, key=lambda text: max(map(len, text.split("\n"))), default=heading)


def table(*headings: str, rows: Sequence[Sequence[str]]) -> FittedTable:
    """Return a table of texts; ``>`` at the end of a heading aligns its column to the right."""
    columns = [
        Column(
            heading=name.removesuffix(">"),
            unit="" if name.endswith(">") else "text",
            wrap=not name.endswith(">") and index > 0,
        )
        for index, name in enumerate(headings)
    ]
    return FittedTable(columns=columns, rows=rows)


def simple_table(rows: Sequence[Row], spare: Collection[str] = ()) -> FittedTable:
    """Return a table of any rows: numbers right-aligned, texts on as many lines as needed."""
    described = []
    for index, name in enumerate(rows[0]):
        values = [row[name] for row in rows if row[name] not in (None, "")]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        described.append(
            Column(
                name,
                "figure" if numeric else "text",
                heading=name.replace("_", " "),
                # The first column names the row, which people copy.
                wrap=not numeric and index > 0,
                spare=name in spare,
            )
        )
    return as_table(described, rows)


def facts_view(facts: Mapping[str, object]) -> View:
    """Return facts, one line each, without empty ones."""
    told = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(cells, told), default=0) + 2
    return Stack(
        [
            line((f"{name:<{width}}", "bold"), "\n".join(_lines(value)), indent=width)
            for name, value in told.items()
        ]
    )


def _lines(value: object) -> list[str]:
    """Format a fact, on several lines if it has several parts."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int):
        return [f"{value:,}"]
    if isinstance(value, Mapping):
        said = {key: item for key, item in value.items() if item is not None and item is not False}
        return [f"{key} = {_in_a_row(item)}" for key, item in said.items()]
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return [", ".join(_lines(item)) for item in value]
        return [f"{item:,}" if isinstance(item, int) else str(item) for item in value]
    return [str(value)]


def _in_a_row(value: object) -> str:
    """Join the parts of a fact, and separate texts that contain commas."""
    texts = value if isinstance(value, list | tuple) else ()
    commas = any(isinstance(item, str) and "," in item for item in texts)
    return ("; " if commas else ", ").join(_lines(value))


def notes(lines: Sequence[str]) -> list[View]:
    """Return notes as a short list."""
    return ["", *(line((f"- {note}", "dim")) for note in lines)] if lines else []
