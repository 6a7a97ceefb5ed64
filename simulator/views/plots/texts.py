"""Texts of figures: how wide they are, and how ratios are written."""

import html

from simulator.answers.verdict import TIE_MARGIN

# Widths of letters over the size of their font, of DejaVu Sans: Arial is narrower.
_NARROW_LETTERS, _NARROW_WIDTH = frozenset(" .,;:'|()/-ijlftr1"), 0.4
_WIDE_WIDTH, _USUAL_WIDTH, _BOLD = 0.7, 0.61, 1.1


def text_width(text: str, size_px: float, *, bold: bool = False) -> float:
    """Return about how wide a text is, at least. [px].

    Parameters
    ----------
    text
        The text.
    size_px, bold
        Its size [px], and whether it is bold.

    >>> text_width("ab", 10), text_width("AB", 10) > text_width("ab", 10)
    (12.2, True)
    """
    widths = (
        _NARROW_WIDTH
        if letter in _NARROW_LETTERS
        else _WIDE_WIDTH
        if letter.isupper() or letter in "mw%"
        else _USUAL_WIDTH
        for letter in text
    )
    return sum(widths) * size_px * (_BOLD if bold else 1.0)


def escape(text: str) -> str:
    """Keep a name with < or & in it from being read as markup."""
    return html.escape(text, quote=False)


# Below it a ratio is worth a second decimal.
_TWICE = 2


def times(ratio: float) -> str:
    """Write a ratio as people say it.

    >>> times(3.14159), times(12.34), times(1.03)
    ('3.1x', '12x', '1.03x')
    """
    if ratio < _TWICE:
        return f"{ratio:.2f}x"
    return f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:,.0f}x"  # noqa: PLR2004


def faster(speedup: float) -> str:
    """Say how a step compares, so that a difference below the margin of a tie is none.

    >>> faster(3.14), faster(1.01), faster(0.5), faster(1.24)
    ('3.1x as fast', 'just as fast', '2.0x as slow', '1.24x as fast')
    """
    if abs(speedup - 1) < TIE_MARGIN:
        return "just as fast"
    ratio, word = (speedup, "fast") if speedup > 1 else (1 / speedup, "slow")
    return f"{times(ratio)} as {word}"
