"""HTML from plain Python: whatever a file says stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from simulator.views.report.html import Head, Html, bullets, table, tag, text_of, words_head


class Reader(HTMLParser):
    """Reads HTML back as a browser would: elements and text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# HTML has no null, and line ends are made one.
TEXT = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]))


@given(TEXT, TEXT)
def test_any_text_stays_text(content: str, attribute: str) -> None:
    """Text and attributes come back as they were, and make no element of their own."""
    read = Reader(tag("p", content, title=attribute))
    assert read.elements == [("p", {"title": attribute})]
    assert read.text == content


def test_markup_of_ours_is_kept() -> None:
    """What is HTML already is not escaped again, at any depth."""
    inner = tag("b", "a < b")
    assert inner == "<b>a &lt; b</b>"
    assert tag("p", ["x", (inner, None)]) == "<p>x<b>a &lt; b</b></p>"
    assert text_of(Html("<br>")) == "<br>"


def test_attributes() -> None:
    """Names are spelled as HTML has them; what is None or False is left out."""
    written = tag("td", class_="number", aria_label='"so"', hidden=True, title=None, id=False)
    assert written == '<td class="number" aria-label="&quot;so&quot;" hidden></td>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_tables_say_what_heads_what() -> None:
    """Every heading has its scope, every table a caption, and numbers a class."""
    heads = (words_head("GPU", itemgetter(0)), Head("step", itemgetter(1), "ms"))
    read = Reader(table("Steps", heads, [["h100", "1.0"], ["<b>", "2.0"]]))
    scopes = [found["scope"] for name, found in read.elements if name == "th"]
    assert scopes == ["col", "col", "row", "row"]
    assert [name for name, _ in read.elements].count("caption") == 1
    assert [found for name, found in read.elements if name == "td"] == [{"class": "number"}] * 2
    assert "b" not in [name for name, _ in read.elements]


def test_an_empty_list_is_nothing() -> None:
    """A list without items leaves no trace."""
    assert bullets([]) == ""
    assert bullets(["a"]) == "<ul><li>a</li></ul>"
