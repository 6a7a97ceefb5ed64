"""HTML from plain Python: what is not HTML already is escaped, so no file's text can become markup.

>>> tag("p", "5 < 6 ", tag("b", "so"), class_="note")
'<p class="note">5 &lt; 6 <b>so</b></p>'
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from simulator.views.columns import Column

# Elements without content or end tag.
VOID = frozenset({"meta", "br", "hr", "img", "link"})


class Html(str):
    """Text that is HTML already. Only this package's own code makes it, never from a file."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"


def text_of(child: Child) -> Html:
    """Return a child as HTML: escaped if it is plain text, joined if it is several."""
    if child is None:
        return Html()
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return Html(escape(child, quote=False))
    return Html("".join(map(text_of, child)))


def tag(element: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """Return an element.

    Parameters
    ----------
    attributes
        ``class_`` and ``aria_label`` are ``class`` and ``aria-label``; True has no value, None and
        False leave an attribute out.
    """
    parts = [element]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.removesuffix("_").replace("_", "-")
        parts.append(attribute if value is True else f'{attribute}="{escape(value)}"')
    start = f"<{' '.join(parts)}>"
    return Html(start if element in VOID else f"{start}{text_of(children)}</{element}>")


@dataclass(frozen=True, kw_only=True)
class Head:
    """A column of a table.

    Attributes
    ----------
    number
        Whether its cells are numbers, which stand to the right.
    short
        Whether its cells stay on one line, though they are words.
    unit
        Shown below the name.
    """

    name: str
    number: bool = True
    short: bool = False
    unit: str = ""

    @property
    def class_(self) -> str | None:
        """Class of the column's cells."""
        return "number" if self.number else "short" if self.short else None


def table(
    caption: str,
    heads: Sequence[Head],
    rows: Sequence[Sequence[Child]],
    *,
    classes: Sequence[str | None] = (),
) -> Html:
    """Return a table whose first column names the rows; on a narrow screen it scrolls by itself.

    Parameters
    ----------
    classes
        Class of each row, None for none.
    """
    head = tag(
        "tr",
        (
            tag(
                "th",
                # One word is never broken, not even at its hyphen.
                head.name if " " in head.name else tag("span", head.name, class_="short"),
                tag("span", head.unit, class_="unit") if head.unit else None,
                scope="col",
                class_=head.class_,
            )
            for head in heads
        ),
    )
    named = classes or [None] * len(rows)
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            (
                tag("td", cell, class_=head.class_)
                for head, cell in zip(heads[1:], row[1:], strict=True)
            ),
            class_=name,
        )
        for row, name in zip(rows, named, strict=True)
    ]
    whole = tag(
        "table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", body)
    )
    return tag("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def columns_table(caption: str, columns: Iterable[Column], items: Iterable[object]) -> Html:
    """Return items as a table of the columns that a terminal shows.

    Parameters
    ----------
    caption
        What the table is about.
    columns, items
        The columns, and what they are of.
    """
    shown = tuple(columns)
    heads = [Head(name=column.heading, number=column.right) for column in shown]
    return table(caption, heads, [[column.text(item) for column in shown] for item in items])


def bullets(items: Iterable[Child]) -> Html:
    """Return a list, nothing for no items."""
    found = list(items)
    return tag("ul", (tag("li", item) for item in found)) if found else Html()
