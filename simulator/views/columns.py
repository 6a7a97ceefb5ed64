"""Columns of answers, which make tables for a terminal, JSON objects, rows of CSV, and docs.

rich is imported only to draw: JSON and CSV do not need it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from simulator.numeric import LARGEST_EXACT
from simulator.units import MILLISECOND, format_si, format_time
from simulator.views.text import money

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

# Version of the JSON objects; CHANGELOG.md lists what each version renamed.
SCHEMA_VERSION = 3
# A column of sentences is not squeezed below this width while there is another way.
ROOMY = 40

Row = dict[str, Any]
# What a terminal shows, and a line of it, in annotations, which so need no import of rich.
View: TypeAlias = "RenderableType"
Line: TypeAlias = "Text"
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


def line(*pieces: "str | tuple[str, str]") -> Line:
    """Return a line of pieces, some with a style."""
    from rich.text import Text

    return Text.assemble(*pieces)


def stack(*parts: View) -> View:
    """Stack parts vertically; a text is a line in rich's markup."""
    from rich.console import Group
    from rich.text import Text

    return Group(*(Text.from_markup(part) if isinstance(part, str) else part for part in parts))


@dataclass(frozen=True, kw_only=True)
class FittedTable:
    """A table that shows every figure completely at any width.

    If it is wider than the terminal, it breaks texts into several lines and headings into two, then
    leaves out its spare columns, the last one first, and says so, and finally lets the terminal
    break its lines.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the roomiest form that fits."""
        from rich.text import Text

        shown = list(range(len(self.columns)))
        spare = [index for index in shown if self.columns[index].spare]
        for left_out, tight in product(range(len(spare) + 1), (False, True)):
            gone = spare[len(spare) - left_out :]
            shown = [index for index in range(len(self.columns)) if index not in gone]
            widths = self._widths(shown, options.max_width, tight=tight)
            if sum(widths.values()) + (len(shown) - 1) * (2 - tight) <= options.max_width:
                break
        # Still wider than the terminal, which breaks the lines: no figure is lost.
        whole = sum(widths.values()) + len(shown)
        room = options.update(width=max(options.max_width, whole))
        yield from console.render(self._table(widths, tight=tight), room)
        if gone:
            names = ", ".join(self.columns[index].heading for index in gone)
            yield Text(f"Left out on this narrow terminal: {names}.", style="dim")

    def _widths(self, shown: Sequence[int], room: int, *, tight: bool) -> dict[int, int]:
        """Return the width of each shown column, with texts squeezed as far as allowed."""
        widths = {index: self._width(index, "\n", tight=tight) for index in shown}
        excess = sum(widths.values()) + (len(shown) - 1) * (2 - tight) - room
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
        from rich.cells import cell_len

        heading = self.columns[index].heading
        heads = (in_two(heading) if tight else heading).split("\n")
        parts = (part for row in self.rows for part in row[index].split(apart))
        return max(map(cell_len, [*heads, *parts]), default=0)

    def _table(self, widths: Mapping[int, int], *, tight: bool) -> "Table":
        """Build the table with some of its columns."""
        from rich.table import Table

        gaps = (0, 2 - tight, 0, 0)  # one blank or two between columns
        table = Table(box=None, pad_edge=False, padding=gaps, header_style="bold")
        for index, width in widths.items():
            column = self.columns[index]
            table.add_column(
                in_two(column.heading) if tight else column.heading,
                justify="right" if column.right else "left",
                no_wrap=not column.wrap,
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            table.add_row(*(row[index] for index in widths))
        return table


def in_two(heading: str) -> str:
    """Break a heading into two lines, as even as its words allow.

    >>> in_two("USD per million").splitlines(), in_two("step")
    (['USD per', 'million'], 'step')
    """
    words = heading.split()
    broken = [
        "\n".join([" ".join(words[:at]), " ".join(words[at:])]) for at in range(1, len(words))
    ]
    return min(broken, key=lambda text: max(map(len, text.split("\n"))), default=heading)


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
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            table.add_row(name, "\n".join(_lines(value)))
    return table


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
    from rich.text import Text

    return [Text(), *(Text(f"- {line}", style="dim") for line in lines)] if lines else []
