"""Tables that lose no figure on a narrow terminal, and the other shapes text takes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

# A column of sentences is not squeezed below this while another way is left.
ROOMY = 40


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    right
        Whether its cells stand to the right, as numbers do.
    wrap
        Whether a cell may take several lines; numbers never do.
    spare
        Whether the column may be left out where the table would be wider than the terminal.
    """

    name: str
    right: bool = True
    wrap: bool = False
    spare: bool = False


@dataclass(frozen=True, kw_only=True)
class FittedTable:
    """A table that shows every figure whole, whatever the width.

    Where it is wider than the terminal it takes several lines for headings and texts, then leaves
    out its spare columns and says so, and at last lets the terminal break its lines.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the roomiest form that fits."""
        every = list(range(len(self.columns)))
        few = [index for index in every if not self.columns[index].spare]
        for shown, tight in ((every, False), (every, True), (few, True)):
            widths = self._widths(shown, options.max_width, tight=tight)
            if sum(widths.values()) + (len(shown) - 1) * _gap(tight=tight) <= options.max_width:
                break
        # Wider than the terminal even so: it breaks the lines, and no figure is lost.
        whole = sum(widths.values()) + len(shown)
        room = options.update(width=max(options.max_width, whole))
        yield from console.render(self._table(widths, tight=tight), room)
        left_out = [self.columns[index].name for index in every if index not in shown]
        if left_out:
            yield Text(f"Left out on this narrow terminal: {', '.join(left_out)}.", style="dim")

    def _widths(self, shown: Sequence[int], room: int, *, tight: bool) -> dict[int, int]:
        """Return the width of each column shown, texts squeezed as far as they may be."""
        widths = {index: self._natural(index, tight=tight) for index in shown}
        texts = [index for index in shown if self.columns[index].wrap]
        excess = sum(widths.values()) + (len(shown) - 1) * _gap(tight=tight) - room
        for index in sorted(texts, key=lambda text: -widths[text]):
            least = self._longest_word(index) if tight else min(widths[index], ROOMY)
            squeezed = max(least, widths[index] - max(0, excess))
            excess -= widths[index] - squeezed
            widths[index] = squeezed
        return widths

    def _natural(self, index: int, *, tight: bool) -> int:
        """Return the width a column would like to have."""
        name = self.columns[index].name
        heads = name.split() if tight else [name]
        lines = [*heads, *(line for row in self.rows for line in row[index].split("\n"))]
        return max(map(cell_len, lines), default=0)

    def _longest_word(self, index: int) -> int:
        """Return the width below which a word of a column would be broken."""
        texts = [self.columns[index].name, *(row[index] for row in self.rows)]
        return max((cell_len(word) for text in texts for word in text.split()), default=0)

    def _table(self, widths: Mapping[int, int], *, tight: bool) -> Table:
        """Build the table with some of its columns."""
        gaps = (0, _gap(tight=tight), 0, 0)
        table = Table(box=None, pad_edge=False, padding=gaps, header_style="bold")
        for index, width in widths.items():
            column = self.columns[index]
            table.add_column(
                column.name.replace(" ", "\n") if tight else column.name,
                justify="right" if column.right else "left",
                no_wrap=not column.wrap,
                overflow="fold",
                width=width,
            )
        for row in self.rows:
            table.add_row(*(row[index] for index in widths))
        return table


def _gap(*, tight: bool) -> int:
    """Return the blanks between columns."""
    return 1 if tight else 2


def simple_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], spare: Collection[str] = ()
) -> FittedTable:
    """Return a table of anything: numbers to the right, texts in as many lines as they need."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    described = []
    for index, name in enumerate(columns):
        values = [row[index] for row in rows if row[index] not in (None, "")]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        # The first column names the row: it is what people copy.
        described.append(
            Column(
                name=name.replace("_", " "),
                right=numeric,
                wrap=not numeric and index > 0,
                spare=name in spare,
            )
        )
    return FittedTable(columns=described, rows=cells)


def _cell(value: object) -> str:
    """Write a value for a table: numbers with separators, fractions with six digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def facts_view(facts: Mapping[str, object]) -> RenderableType:
    """Return facts as a line each; empty ones are left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            table.add_row(name, "\n".join(_lines(value)))
    return table


def _lines(value: object) -> list[str]:
    """Write a fact, in several lines if it has several parts."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int):
        return [f"{value:,}"]
    if isinstance(value, Mapping):
        return [f"{key} = {_in_a_row(item)}" for key, item in value.items() if _said(item)]
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return [", ".join(_lines(item)) for item in value]
        return [f"{item:,}" if isinstance(item, int) else str(item) for item in value]
    return [str(value)]


def _in_a_row(value: object) -> str:
    """Write the parts of a fact one after another, texts with commas of their own apart."""
    texts = value if isinstance(value, list | tuple) else ()
    commas = any(isinstance(item, str) and "," in item for item in texts)
    return ("; " if commas else ", ").join(_lines(value))


def _said(value: object) -> bool:
    """Return whether a part of a fact says anything."""
    return value is not None and value is not False


def notes(lines: Sequence[str]) -> list[RenderableType]:
    """Return notes as a short list."""
    return [Text(), *(Text(f"- {line}", style="dim") for line in lines)] if lines else []
