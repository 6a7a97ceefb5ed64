"""HTML from plain Python: what is not HTML already is escaped, so no file's text can become markup.

>>> tag("p", "5 < 6 ", tag("b", "so"), class_="note")
'<p class="note">5 &lt; 6 <b>so</b></p>'
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, TypeAlias, TypeVar

from simulator.views.columns import Column

# Elements without content or end tag.
VOID = frozenset({"meta", "br", "hr", "img", "link"})


class Html(str):
    """Text that is HTML already. Only this package's own code makes it, never from a file."""

    __slots__ = ()


Name = TypeVar("Name", bound=str)
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


@dataclass(frozen=True)
class Head:
    """A column of a table.

    Attributes
    ----------
    name
        Its heading.
    cell
        Returns the cell of an item.
    unit
        Shown below the name.
    number
        Whether its cells are numbers, which stand to the right.
    short
        Whether its cells stay on one line, though they are words.
    """

    name: str
    cell: Callable[[Any], Child]
    unit: str = ""
    number: bool = True
    short: bool = False

    @property
    def class_(self) -> str | None:
        """Class of the column's cells."""
        return "number" if self.number else "short" if self.short else None


# A column of words.
words_head = partial(Head, number=False)


def heads_each(
    names: Iterable[Name], cell: Callable[[Any, Name], Child], unit: str = ""
) -> list[Head]:
    """Return a column for each name.

    Parameters
    ----------
    names
        The names.
    cell
        Returns the cell of an item in the column of a name.
    unit
        As of :class:`Head`.
    """

    def named(name: Name) -> Callable[[Any], Child]:
        return lambda item: cell(item, name)

    return [Head(name, named(name), unit) for name in names]


def heads_of(columns: Iterable[Column]) -> list[Head]:
    """Return the columns that a terminal shows."""
    return [Head(column.heading, column.text, number=column.right) for column in columns]


def table(
    caption: str,
    heads: Iterable[Head],
    items: Iterable[Any],
    *,
    class_of: Callable[[Any], str | None] = lambda _: None,
) -> Html:
    """Return a table whose first column names the items; on a narrow screen it scrolls by itself.

    Parameters
    ----------
    caption
        What it is about.
    heads, items
        Its columns, and what its rows are of.
    class_of
        Returns the class of an item's row, None for none.
    """
    first, *others = heads
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
            for head in (first, *others)
        ),
    )
    body = [
        tag(
            "tr",
            tag("th", first.cell(item), scope="row"),
            (tag("td", head.cell(item), class_=head.class_) for head in others),
            class_=class_of(item),
        )
        for item in items
    ]
    whole = tag(
        "table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", body)
    )
    return tag("div", whole, class_="scroll", role="region", tabindex="0", aria_label=caption)


def bullets(items: Iterable[Child]) -> Html:
    """Return a list, nothing for no items."""
    found = list(items)
    return tag("ul", (tag("li", item) for item in found)) if found else Html()
