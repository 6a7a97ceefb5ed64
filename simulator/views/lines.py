"""Lines of an answer: text broken to a width, as plain text or, with its styles, painted by rich.

rich is imported only to paint: a terminal and a notebook need it, pipes and files do not.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

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
