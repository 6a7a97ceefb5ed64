"""Tables show every figure whole, whatever the width of the terminal."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from rich.text import Text

from simulator.views.columns import (
    Column,
    FittedTable,
    View,
    facts_view,
    line,
    notes,
    simple_table,
    stack,
)

WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=6).map(" ".join)
FIGURES = st.integers(0, 10**12).map(lambda figure: f"{figure:,} B")


def shown(view: View, width: int) -> str:
    """Return the text of a view on a terminal of that width."""
    return stack(view).text(width)


def painted(view: RenderableType, width: int) -> list[str]:
    """Return the lines that rich writes, without blanks at their ends."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, no_color=True, highlight=False).print(view, crop=False)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


TABLE = FittedTable(
    columns=(
        Column(heading="what it is", unit="text", wrap=True),
        Column(heading="read so far"),
        Column(heading="spare", spare=True),
    ),
    rows=[("a few words", "1,234,567 B", "99"), ("one", "8 B", "100")],
)


def test_a_spare_column_goes_before_a_sentence_is_squeezed_to_words() -> None:
    """At 26 columns the sentence keeps the 16 it asks for, and the spare column goes."""
    sentence = "as far as one can say it is low"
    columns = (*TABLE.columns[1:], Column(heading="why", unit="text", wrap=16))
    lines = shown(FittedTable(columns=columns, rows=[("12,345 B", "99", sentence)]), 26)
    assert [line.rstrip() for line in lines.splitlines()] == [
        "    read",
        "  so far why",
        "12,345 B as far as one can",
        "         say it is low",
        "Left out on this narrow",
        "terminal: spare.",
    ]


def test_a_wide_table_is_one_line_a_row() -> None:
    """With room there is one line for the headings and one for each row, two blanks apart."""
    assert shown(TABLE, 80).splitlines() == [
        "what it is   read so far  spare",
        "a few words  1,234,567 B     99",
        "one                  8 B    100",
    ]


def test_a_narrow_table_breaks_texts_not_figures() -> None:
    """Without room, headings and texts take several lines; figures stay whole."""
    assert [line.rstrip() for line in shown(TABLE, 25).splitlines()] == [
        "what           read",
        "it is        so far spare",
        "a few   1,234,567 B    99",
        "words",
        "one             8 B   100",
    ]


def test_a_spare_column_is_left_out_and_named() -> None:
    """Where even that is too wide, the spare column goes, and a line says so."""
    text = shown(TABLE, 20)
    assert "1,234,567 B" in text
    assert "99" not in text
    assert "spare" in " ".join(text.split()).split("Left out on this narrow terminal: ")[1]


def test_a_terminal_too_narrow_for_anything_cuts_nothing() -> None:
    """Below that the lines are longer than the terminal, which breaks them: nothing is lost."""
    text = shown(TABLE, 8)
    assert "1,234,567 B" in text
    assert "…" not in text


def test_a_heading_is_no_wider_than_its_column() -> None:
    """A column of texts is squeezed to 40 columns, and so is its heading of 44."""
    heading = "codellama-7b x 1.11 with 1 KV head is faster"
    columns = (Column(heading=heading, unit="text", wrap=True), Column(heading="a"))
    lines = shown(FittedTable(columns=columns, rows=[("both standard", "8")]), 43).splitlines()
    assert [line.split() for line in lines] == [
        heading.split()[:-1],
        ["faster", "a"],
        ["both", "standard", "8"],
    ]
    assert max(map(len, lines)) == 43


@given(
    rows=st.lists(st.tuples(WORDS, FIGURES, FIGURES, WORDS), min_size=1, max_size=5),
    width=st.integers(10, 140),
)
def test_no_figure_and_no_letter_is_ever_lost(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    """At any width every figure is whole and every letter of every text is there."""
    columns = (
        Column(heading="text", unit="text", wrap=True),
        Column(heading="a figure"),
        Column(heading="b"),
        Column(heading="more text", unit="text", wrap=True),
    )
    text = shown(FittedTable(columns=columns, rows=rows), width)
    for row in rows:
        assert row[1] in text
        assert row[2] in text
    letters = sorted("".join("".join(row) for row in rows).replace(" ", ""))
    heads = sorted("text" + "afigure" + "b" + "moretext")
    assert sorted(text.replace(" ", "").replace("\n", "")) == sorted(letters + heads)
    assert "…" not in text


@given(rows=st.lists(st.tuples(WORDS, FIGURES), min_size=1, max_size=5), width=st.integers(40, 140))
def test_a_table_stays_within_the_terminal_if_it_can(
    rows: list[tuple[str, str]], width: int
) -> None:
    """With room for the longest word beside the figures, no line is longer than the terminal."""
    columns = (Column(heading="text", unit="text", wrap=True), Column(heading="figure"))
    lines = shown(FittedTable(columns=columns, rows=rows), width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


@given(
    text=st.lists(st.text("ab -漢µ", max_size=12), max_size=8).map(
        lambda words: " ".join(words).rstrip()
    ),
    width=st.integers(24, 60),
)
def test_lines_are_broken_as_rich_breaks_them(text: str, width: int) -> None:
    """At the same blanks, wide characters counted as two; only words longer than a line differ."""
    assert shown(line(text), width).splitlines() == painted(Text(text), width)


def test_rich_paints_what_files_read() -> None:
    """A terminal gets the lines of a file, and its styles: bold where it is marked."""
    view = stack("a [bold]word[/] more", line("many words", indent=2), TABLE, *notes(["a note"]))
    for width in (8, 20, 80):
        assert painted(view, width) == shown(view, width).splitlines()
    assert ("word", "bold") in next(iter(view.lines(80)))


def test_further_lines_are_indented() -> None:
    """Blanks come before all lines but the first, which has less room then."""
    assert shown(line("a b cdef", indent=2), 5).splitlines() == ["a b", "  cde", "  f"]


def test_simple_tables_put_numbers_to_the_right() -> None:
    """Numbers stand to the right with separators, gaps among them included; texts to the left."""
    table = simple_table(
        [
            {"name": name, "price_usd": price}
            for name, price in (("a", 1234.5), ("b", None), ("cc", 2))
        ]
    )
    assert [line.rstrip() for line in shown(table, 40).splitlines()] == [
        "name  price usd",
        "a       1,234.5",
        "b",
        "cc            2",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (True, "yes"),
        (["a", "b"], "a"),
        ({"x": 1, "y": None, "z": [1, 2]}, "z = 1, 2"),
        ({"tree": ["a=1,b=2", "c=3"]}, "tree = a=1,b=2; c=3"),
        ([{"count": 3, "window": None}], "count = 3"),
        ("words", "words"),
    ],
)
def test_facts_are_told_in_words(value: object, text: str) -> None:
    """A fact is written for people: separators, yes and no, parts by name; no Python literals."""
    line = shown(facts_view({"fact": value}), 60)
    assert text in line
    assert not set("{}[]'") & set(line)


def test_empty_facts_are_left_out() -> None:
    """What is not known takes no line."""
    facts = {"a": None, "b": "", "c": [], "d": {}, "e": 0}
    assert shown(facts_view(facts), 60).split() == ["e", "0"]


def test_no_notes_take_no_room() -> None:
    """Without notes there is not even a blank line."""
    assert notes([]) == []
    assert len(notes(["one", "two"])) == 3
