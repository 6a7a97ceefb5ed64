"""The style of all figures, in one place.

Colours, dashes and symbols are in :mod:`~simulator.views.plots.palette`, ticks in
:mod:`~simulator.views.plots.axes`, empty figures and their panels in
:mod:`~simulator.views.plots.panels`, title, footer and the forms for three widths in
:mod:`~simulator.views.plots.layout`, words in :mod:`~simulator.views.plots.texts`.
"""

from typing import Any

from simulator.views.plots.axes import keep_ticks, log_axis, number_text, powers, size_text
from simulator.views.plots.layout import (
    FORMS_FROM,
    NARROW,
    WIDE,
    WIDE_ONLY,
    Caption,
    finish,
    form_for,
    take_form,
)
from simulator.views.plots.palette import (
    BLACK,
    BLUE,
    BOUND_SYMBOLS,
    CATEGORIES,
    FONT,
    GREEN,
    GREY,
    INK,
    LINES,
    OUT_OF_MEMORY_SYMBOL,
    PALE,
    PURPLE,
    SKY,
    UNFIT_OPACITY,
    VERMILLION,
    YELLOW,
    Line,
    line_style,
    pale,
)
from simulator.views.plots.panels import axis_name, new_figure, new_panels
from simulator.views.plots.texts import faster, text_width, times

# What Plotly's tool bar offers: no button that would send a capacity plan to a server.
CONFIG: dict[str, Any] = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

__all__ = [
    "BLACK",
    "BLUE",
    "BOUND_SYMBOLS",
    "CATEGORIES",
    "CONFIG",
    "FONT",
    "FORMS_FROM",
    "GREEN",
    "GREY",
    "INK",
    "LINES",
    "NARROW",
    "OUT_OF_MEMORY_SYMBOL",
    "PALE",
    "PURPLE",
    "SKY",
    "UNFIT_OPACITY",
    "VERMILLION",
    "WIDE",
    "WIDE_ONLY",
    "YELLOW",
    "Caption",
    "Line",
    "axis_name",
    "faster",
    "finish",
    "form_for",
    "keep_ticks",
    "line_style",
    "log_axis",
    "new_figure",
    "new_panels",
    "number_text",
    "pale",
    "powers",
    "size_text",
    "take_form",
    "text_width",
    "times",
]
