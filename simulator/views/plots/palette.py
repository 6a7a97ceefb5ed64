"""Colours, dashes and symbols: what each means is the same in every figure."""

from collections.abc import Mapping
from typing import Any

from simulator.counts.operation import PARTS

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, SKY, GREEN = "#000000", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE, INK = "#767676", "#E4E4E4", "#222222"
# Parts that read the KV cache stand out; those that sharing does not change are green or grey.
_COLOURS = (*(PURPLE, SKY, YELLOW, "#A3B86C", GREEN), *("#00694D", "#8FD3C1", GREY, BLACK, PALE))
PART_COLOURS: Mapping[str, str] = dict(zip(PARTS, _COLOURS, strict=True))
# For things that have no order and are no kind of attention.
CATEGORIES = (GREEN, PURPLE, SKY, BLACK, YELLOW, GREY)

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


# How each kind of attention is drawn, in every figure.
COLOURS: Mapping[str, str] = {"standard": VERMILLION, "bifurcated": BLUE}
LINES: Mapping[str, Mapping[str, Any]] = {
    name: {"color": COLOURS[name], "dash": dash, "width": 2.5}
    for name, dash in {"standard": "dash", "bifurcated": "solid"}.items()
}

# The marker of a point says what binds it.
BOUND_SYMBOLS: Mapping[str, str] = {
    "memory": "circle",
    "compute": "square",
    "launch": "triangle-up",
    "link": "diamond",
}
# Of things that have no order.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
# How strongly a line is drawn where the workload does not fit.
UNFIT_OPACITY = 0.3


def pale(colour: str) -> str:
    """Return a colour for an area that lines and a grid shine through.

    >>> pale("#0072B2")
    'rgba(0, 114, 178, 0.13)'
    """
    return f"rgba({', '.join(map(str, on_white(colour, 1)))}, 0.13)"


def on_white(colour: str, share: float) -> list[int]:
    """Return red, green and blue of a colour that covers white to some share.

    >>> on_white("#0072B2", 1), on_white("#0072B2", 0)
    ([0, 114, 178], [255, 255, 255])
    """
    return [round(255 + share * (int(colour[at : at + 2], 16) - 255)) for at in (1, 3, 5)]


def mark(number: int) -> dict[str, str]:
    """Return the colour and the symbol of the thing of this number, where they have no order."""
    return {"color": CATEGORIES[number % len(CATEGORIES)], "symbol": SYMBOLS[number % len(SYMBOLS)]}
