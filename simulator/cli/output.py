"""Where answers go: stdout or a file, as a table, JSON or CSV; figures as a page or an image."""

import codecs
import csv
import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeVar, get_args

import typer

from simulator.errors import OutputError, parted
from simulator.numeric import LARGEST_EXACT
from simulator.resources import atomic_path

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from rich.progress import Progress, ProgressColumn

    from simulator.views.columns import Stack, View

Answer = TypeVar("Answer")
Format = Literal["table", "json", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Width of tables where there is no terminal, and the variable that sets another.
PLAIN_WIDTH, WIDTH_VARIABLE = 140, "BIFURCATE_WIDTH"
PAGES, JSON = (".html", ".htm"), ".json"
USUAL_WIDTH, USUAL_HEIGHT = 1200, 700
MOST_PIXELS = 8192
# The most refused rows to list one by one.
MOST_LISTED = 10
# The longest message of an error. [characters].
LONGEST_ERROR = 300
# The characters with which a formula of a spreadsheet begins.
FORMULA_STARTS = ("=", "+", "-", "@")
# Characters that command a terminal, all but tab and line feed.
_COMMANDS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
# What stands for a character that the terminal's encoding lacks; a question mark for others.
_STAND_INS = {"µ": "u", "×": "x", "·": ".", "–": "-", "−": "-", "≥": ">=", "≤": "<=", "≈": "~"}
_BOXES = {"HORIZONTAL": "-", "VERTICAL": "|"}
# Significant digits of CSV figures that are not counts.
CSV_FLOAT = "%.9g"
SUFFIXES: dict[str, Format] = {".json": "json", ".csv": "csv", ".txt": "table"}


class Output(NamedTuple):
    """How and where the user wants the answer."""

    format: Format
    path: Path | None

    def write(
        self,
        answer: Answer,
        table: Callable[[Answer], Any],
        json_object: Callable[[Answer], Any],
        rows: Callable[[Answer], Sequence[dict[str, Any]]],
    ) -> None:
        """Write the answer in the form asked for, the only one that is made.

        Parameters
        ----------
        answer
            The answer.
        table, json_object, rows
            Functions that make each form of it.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        if self.format == "json":
            text = json_text(json_object(answer))
        elif self.format == "csv":
            text = csv_text(rows(answer))
        else:
            show(table(answer), self.path)
            return
        write_text(text, self.path)

    def write_answer(
        self,
        results: Sequence[Any],
        sizes: Sequence[Mapping[str, Any]] = (),
        *,
        explain: bool = False,
        part: str = "",
        **of_rows: Any,
    ) -> None:
        """Write an answer of :mod:`simulator.api`, or several as one table or list.

        Parameters
        ----------
        results, sizes
            The answers, and of several the sizes that each is of.
        explain
            Whether to add the derivation of each number.
        part
            What the rows of CSV are, if not the usual ones.
        of_rows
            Further arguments of what makes the rows.
        """
        from simulator.views.forms import form_of

        one, how = results[0], {"explain": True} if explain else {}
        as_object, rows = partial(form_of(one, "object"), **how), form_of(one, f"{part}rows")
        if len(results) == 1:
            self.write(one, partial(form_of(one, "view"), **how), as_object, rows)
            return
        self.write(
            results,
            partial(form_of(one, "list"), sizes),
            lambda every: list(map(as_object, every)),
            lambda every: [row for result in every for row in rows(result, **of_rows)],
        )


def output_of(
    format_name: Format | None = None, as_json: bool = False, output: Path | None = None
) -> Output:
    """Return the output asked for; an explicit format outranks the file's suffix.

    Parameters
    ----------
    format_name, as_json
        Format by name, or None; and whether JSON is asked for.
    output
        The file, ``-`` or None for stdout.

    Raises
    ------
    OutputError
        If the suffix is not one of ours.
    BadParameter
        If the formats asked for contradict each other.
    """
    if as_json and format_name not in (None, "json"):
        raise typer.BadParameter(f"--json and --format {format_name} contradict each other")
    if as_json:
        format_name = "json"
    if format_name is None and output is not None and output.suffix:
        suffix = output.suffix.lower()
        if suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise OutputError(f"cannot tell a format from {output.name!r}; known suffixes: {known}")
        format_name = SUFFIXES[suffix]
    return Output(format=format_name or "table", path=None if output == Path("-") else output)


def json_text(value: Any) -> str:
    """Return a value as JSON, which has no infinity and no NaN.

    Raises
    ------
    ValueError
        If there is one in it: that is a bug of ours.
    """
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV with a header."""
    buffer = io.StringIO()
    if rows:
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(map(csv_cell, rows[0]))
        writer.writerows([csv_cell(value) for value in row.values()] for row in rows)
    return buffer.getvalue()


def csv_cell(value: Any) -> Any:
    """Write a value for CSV: counts whole, other figures with nine digits, booleans as in JSON.

    A spreadsheet would run a text that begins like a formula: it gets an apostrophe first.

    >>> [csv_cell(value) for value in (True, 3, 2e10, 1 / 3, None, "text", "=1+1")]
    ['true', 3, 20000000000, '0.333333333', None, 'text', "'=1+1"]
    """
    if isinstance(value, str):
        value = printable(value)
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) <= LARGEST_EXACT
        return int(value) if whole else CSV_FLOAT % value
    return value


def check_parquet(path: Path) -> None:
    """Refuse to write parquet without its package, before any work.

    Raises
    ------
    OutputError
        If pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise OutputError(
            "parquet needs pyarrow: pip install 'bifurcated-attention-simulator[parquet]', "
            "or write .csv"
        )


def write_text(text: str, path: Path | None) -> None:
    """Write text to stdout, or to a file that appears only when complete."""
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_figure(path: Path | None, width: int = USUAL_WIDTH, height: int = USUAL_HEIGHT) -> None:
    """Refuse an invalid suffix or size before any work.

    Parameters
    ----------
    path
        File of the figure, if there is to be one.
    width, height
        Size of an image. [px]

    Raises
    ------
    OutputError
        If the suffix is not one of ours.
    BadParameter
        If the size is out of range.
    """
    if path is None:
        return
    from simulator.views.plots.export import IMAGE_FORMATS

    known = (*PAGES[:1], *(f".{form}" for form in IMAGE_FORMATS), JSON)
    if path.suffix.lower() not in (*known, PAGES[1]):
        raise OutputError(f"cannot write {path}: a figure goes to {', '.join(known)}")
    for name, pixels in (("width", width), ("height", height)):
        if not 100 <= pixels <= MOST_PIXELS:  # noqa: PLR2004
            raise typer.BadParameter(f"--{name} {pixels} is not between 100 and {MOST_PIXELS}")


def write_figure(
    drawn: "go.Figure", path: Path, width: int = USUAL_WIDTH, height: int = USUAL_HEIGHT
) -> None:
    """Write a figure in the form of the file's suffix; the file appears only when complete.

    Parameters
    ----------
    drawn
        The figure.
    path
        File to write.
    width, height
        Size of an image. [px]
    """
    from simulator.views.plots import export

    suffix = path.suffix.lower()
    if suffix in PAGES:
        write_text(export.page(drawn), path)
    elif suffix == JSON:
        write_text(export.plotly_json(drawn), path)
    else:
        with atomic_path(path) as temporary:
            picture = export.image(drawn, suffix.removeprefix("."), width=width, height=height)
            temporary.write_bytes(picture)


def draw(drawn: "go.Figure", path: Path, *size: int) -> None:
    """Write a figure as :func:`write_figure` does, and say on stderr what it shows."""
    write_figure(drawn, path, *size)
    say(f"wrote {path}: {drawn.layout.meta['finding']}")


def draw_answer(answer: Any, path: Path | None) -> None:
    """Write the figure of an answer, if one is asked for, and say what it shows."""
    if path is not None:
        from simulator.views.forms import figure_of

        draw(figure_of(answer), path)


def show(view: "View", path: Path | None) -> None:
    """Print a table: in colour on a terminal, as plain text elsewhere."""
    from simulator.views.columns import stack

    shown = stack(view)
    if path is None and sys.stdout.isatty():
        _paint(shown)
        return
    # Not COLUMNS, which a parent process that loads readline sets to 80 without being asked.
    told = os.environ.get(WIDTH_VARIABLE, "")
    width = int(told) if told.isdecimal() and int(told) else PLAIN_WIDTH
    write_text(printable(shown.text(width).rstrip("\n")) + "\n", path)


def _paint(shown: "Stack") -> None:
    """Print a view in its colours, without any commands that names in it give the terminal."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    console = Console(highlight=False)
    parts = [Segment(printable(part.text), part.style) for part in console.render(shown)]
    console.print(Segments(parts), crop=False)


def printable(text: str) -> str:
    r"""Return a text without characters that command a terminal.

    >>> printable("red\x1b[31m\n")
    'red[31m\n'
    """
    return text.translate(_COMMANDS)


def write_any_encoding() -> None:
    """Let stdout and stderr write every character: in its encoding, or as what stands for it."""
    codecs.register_error("stand-in", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="stand-in")


def _stand_in(problem: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding lacks, and where to go on."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    lost = problem.object[problem.start : problem.end]
    return "".join(map(_nearest, lost)), problem.end


def _nearest(character: str) -> str:
    """Return the nearest character of ASCII.

    >>> [_nearest(character) for character in "µ─┃漢"]
    ['u', '-', '|', '?']
    """
    name = unicodedata.name(character, "")
    line = _BOXES.get(name.split()[-1], "+") if name.startswith("BOX DRAWINGS") else "?"
    return _STAND_INS.get(character, line)


def bar(*columns: "ProgressColumn") -> "Progress":
    """Return a progress display on stderr with these columns."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True))


def say(message: str) -> None:
    """Write progress or a warning to stderr."""
    sys.stderr.write(f"{printable(message)}\n")


def say_first(lines: Sequence[str], more: Callable[[int], str]) -> None:
    """Write the first lines of a list to stderr, and how many more there are.

    Parameters
    ----------
    lines
        All lines.
    more
        Says how many are left out.
    """
    for line in lines[:MOST_LISTED]:
        say(line)
    if len(lines) > MOST_LISTED:
        say(more(len(lines) - MOST_LISTED))


def fail(message: str, code: int, *, hint: str = "", way_out: str = "") -> NoReturn:
    """Write what is wrong and a hint on stderr, a line of bounded length each, and exit.

    Parameters
    ----------
    message
        What is wrong; its end may say what to do instead, which is the hint.
    code
        The exit code.
    hint
        The hint, if the message has none of its own.
    way_out
        The hint of those that have none.
    """
    what, own = (message, hint) if hint else parted(message)
    for kind, text in (("error", what), ("hint", own or way_out)):
        if line := printable(" ".join(text.split())):
            sys.stderr.write(f"{kind}: {_bounded(line)}\n")
    sys.exit(code)


def _bounded(line: str) -> str:
    """Shorten a long line in the middle: its beginning names the place, its end the problem."""
    if len(line) <= LONGEST_ERROR:
        return line
    return f"{line[: LONGEST_ERROR - 105]} ... {line[-100:]}"
