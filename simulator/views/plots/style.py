"""The one place that says how a figure looks: colours, dashes, symbols, axes, title and footer.

A figure carries two forms of its title, legend room, footer and ticks, for a wide page and for a
phone; the wide one is drawn unless the page's script (:mod:`simulator.views.plots.export`) or the
size of an image asks for the other.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.answers.verdict import TIE_MARGIN
from simulator.units import KIB, KILO, MEGA, MIB

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE, INK = "#767676", "#E4E4E4", "#222222"
# For things that have no order and are no kind of attention.
CATEGORIES = (GREEN, PURPLE, SKY, BLACK, YELLOW, GREY)

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
# What Plotly's tool bar offers: no button that would send a capacity plan to a server.
CONFIG: dict[str, Any] = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

# Name of an annotation that a phone has no room for.
WIDE_ONLY = "wide only"
WIDE, NARROW = (1200, 700), (390, 700)
# Below this width a figure takes its narrow form. [px]
NARROW_BELOW = 640


@dataclass(frozen=True)
class Line:
    """How one way of attention is drawn, in every figure."""

    name: str
    colour: str
    dash: str


# One for each way to store and read the context, by the name that ``compare`` gives it.
LINES: Mapping[str, Line] = {
    "standard": Line("standard", VERMILLION, "dash"),
    "shared_storage": Line("standard, one stored context", ORANGE, "dot"),
    "bifurcated": Line("bifurcated", BLUE, "solid"),
}

# The marker of a point says what binds it.
BOUND_SYMBOLS: Mapping[str, str] = {
    "memory": "circle",
    "compute": "square",
    "launch": "triangle-up",
    "link": "diamond",
}
OUT_OF_MEMORY_SYMBOL = "x"
# How strongly a line is drawn where the workload does not fit.
UNFIT_OPACITY = 0.3


@dataclass(frozen=True)
class Caption:
    """What a figure is about, and what it rests on.

    Attributes
    ----------
    subject
        Model, GPU and workload, under the title.
    notes
        Assumptions, hash of the profile and origin of the constants, in the footer.
    """

    subject: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Form:
    """Sizes of a figure's texts at one width. [px]."""

    width: int
    title_px: int
    subject_px: int
    footer_px: int
    legend_px: int
    legend_item_px: int
    tick_px: int
    left: int
    right: int

    def wrap(self, text: str, size_px: int, *, bold: bool = False) -> list[str]:
        """Break a text between words so that its lines fit."""
        room_px = self.width - 24
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and text_width(longer, size_px, bold=bold) <= room_px:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines


_FORMS = {
    "wide": _Form(WIDE[0], 20, 14, 11, 12, 40, 12, 78, 24),
    "narrow": _Form(NARROW[0], 15, 12, 9, 10, 30, 10, 56, 12),
}
_AXIS_ROOM_PX = 54
_LEGEND_ROW_PX, _LEGEND_GAPS_PX = 19, 14
_PANEL_GAP, _TITLED_GAP = 0.03, 0.16


def new_figure(**subplots: Any) -> "go.Figure":
    """Return an empty figure in this style, or one of subplots."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(**subplots) if subplots else go.Figure()
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"font": {"family": FONT}},
        autosize=True,
    )
    axis = {
        "gridcolor": PALE,
        "linecolor": GREY,
        "showline": True,
        "ticks": "outside",
        "tickcolor": GREY,
        "zeroline": False,
        "tickangle": 0,
        "title": {"standoff": 8},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def finish(figure: "go.Figure", finding: str, caption: Caption) -> "go.Figure":
    """Give a figure its title, legend and footer, in a wide and a narrow form.

    Parameters
    ----------
    finding
        What the figure shows, a sentence made from its data.
    """
    figure.add_annotation(
        name="footer",
        text="",
        xref="paper",
        yref="paper",
        x=0,
        y=0,
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
    )
    footer = len(figure.layout.annotations) - 1
    forms = {name: _form(figure, name, finding, caption, footer) for name in _FORMS}
    figure.update_layout(
        title={"x": 0, "xanchor": "left", "xref": "container", "y": 1, "yanchor": "top"},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "xanchor": "left",
            "yanchor": "bottom",
            "xref": "paper",
            "yref": "paper",
            "traceorder": "normal",
        },
        meta={**(figure.layout.meta or {}), "finding": finding, **forms},
    )
    return take_form(figure, "wide")


def take_form(figure: "go.Figure", name: str) -> "go.Figure":
    """Lay a finished figure out for a wide page or for a phone, in place."""
    for path, value in figure.layout.meta[name].items():
        figure.layout[path] = value
    return figure


def form_for(width: int) -> str:
    """Return which form fits a width. [px].

    >>> form_for(390), form_for(1200)
    ('narrow', 'wide')
    """
    return "narrow" if width < NARROW_BELOW else "wide"


def _form(
    figure: "go.Figure", name: str, finding: str, caption: Caption, footer: int
) -> dict[str, Any]:
    """Return what a relayout to one form sets."""
    form = _FORMS[name]
    meta = figure.layout.meta or {}
    left = meta.get("left", {}).get(name, form.left)
    title = form.wrap(finding, form.title_px, bold=True)
    subject = form.wrap(caption.subject, form.subject_px)
    notes = [line for note in caption.notes for line in form.wrap(note, form.footer_px)]
    title_px = len(title) * form.title_px * 1.3 + len(subject) * form.subject_px * 1.3 + 20
    legend_px = legend_rows(figure, form, form.width - left - form.right) * _LEGEND_ROW_PX + 8
    axes = [name for name in figure.layout if name.startswith(("xaxis", "yaxis"))]
    axis_px = _AXIS_ROOM_PX
    ticks = meta.get("ticks", {})
    chosen = {
        f"{axis}.{part}": values[::stride] if form.width < NARROW_BELOW else values
        for axis, (tickvals, ticktext, stride) in ticks.items()
        for part, values in (("tickvals", tickvals), ("ticktext", ticktext))
    }
    return {
        "title.text": "<b>" + "<br>".join(map(_escape, title)) + "</b><br>"
        f'<span style="font-size:{form.subject_px}px;color:{GREY}">'
        + "<br>".join(map(_escape, subject))
        + "</span>",
        "title.font.size": form.title_px,
        "title.pad.l": 12,
        "title.pad.t": 10 + form.title_px,
        "legend.font.size": form.legend_px,
        "legend.itemwidth": form.legend_item_px,
        "margin.l": left,
        "margin.r": form.right,
        "margin.t": round(title_px + legend_px),
        "margin.b": round(axis_px + len(notes) * form.footer_px * 1.3 + 12),
        f"annotations[{footer}].text": "<br>".join(map(_escape, notes)),
        f"annotations[{footer}].font.size": form.footer_px,
        f"annotations[{footer}].font.color": GREY,
        f"annotations[{footer}].xshift": 8 - left,
        f"annotations[{footer}].yshift": -axis_px,
        **_panel_axes(figure, name),
        **{
            f"annotations[{index}].visible": form.width >= NARROW_BELOW
            for index, note in enumerate(figure.layout.annotations)
            if note.name == WIDE_ONLY
        },
        **{f"{axis}.tickfont.size": form.tick_px for axis in axes},
        **{f"{axis}.title.font.size": form.tick_px + 1 for axis in axes},
        **chosen,
    }


def legend_rows(figure: "go.Figure", form: _Form, room_px: float) -> int:
    """Return how many rows a figure's legend takes in a given width."""
    names = [
        trace.name or ""
        for trace in figure.data
        if trace.showlegend is not False and trace.type not in ("heatmap", "contour")
    ]
    if not names:
        return 0
    gaps_px = form.legend_item_px + _LEGEND_GAPS_PX
    widths = [gaps_px + text_width(name, form.legend_px) for name in names]
    if sum(widths) <= room_px:
        return 1
    return math.ceil(len(names) / max(1, int(room_px // max(widths))))


# Widths of letters over the size of their font, of DejaVu Sans: Arial is narrower.
_NARROW_LETTERS, _NARROW_WIDTH = frozenset(" .,;:'|()/-ijlftr1"), 0.4
_WIDE_WIDTH, _USUAL_WIDTH, _BOLD = 0.7, 0.61, 1.1


def text_width(text: str, size_px: float, *, bold: bool = False) -> float:
    """Return about how wide a text is, rather too much than too little. [px].

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


def _escape(text: str) -> str:
    """Keep a name with < or & in it from being read as markup."""
    return html.escape(text, quote=False)


def size_text(value: float) -> str:
    """Write a size on an axis: 8192 as 8K, 1000 as 1,000.

    >>> size_text(8192), size_text(1000), size_text(2**20), size_text(0.5)
    ('8K', '1,000', '1M', '0.5')
    """
    if value < 1:
        return f"{value:g}"
    for factor, letter in ((MIB, "M"), (KIB, "K")):
        if value >= factor and value % factor == 0:
            return f"{value / factor:,.0f}{letter}"
    return f"{value:,.0f}"


# Powers of two below it have more digits than a reader wants.
_FEW_DIGITS_BELOW = 0.05


def number_text(value: float) -> str:
    """Write a number on an axis that is no size.

    >>> number_text(1024), number_text(0.25), number_text(1.5), number_text(1e5), number_text(2**-9)
    ('1,024', '0.25', '1.5', '100k', '0.002')
    """
    for factor, letter in ((MEGA, "M"), (KILO, "k")):
        if value >= 10 * KILO and value % factor == 0:
            return f"{value / factor:,.0f}{letter}"
    if value < _FEW_DIGITS_BELOW:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def powers(low: float, high: float, base: int = 2) -> list[float]:
    """Return the powers of a base in a range, or around it where it holds fewer than two.

    >>> powers(1, 9), powers(0.3, 1), powers(5, 6), powers(3, 200, 10)
    ([1, 2, 4, 8], [0.5, 1], [4, 8], [10, 100])
    """
    first = math.ceil(math.log(low, base) - 1e-9)
    last = math.floor(math.log(high, base) + 1e-9)
    if last - first < 1:
        first = math.floor(math.log(low, base) + 1e-9)
        last = max(first + 1, math.ceil(math.log(high, base) - 1e-9))
    return [base**power for power in range(first, last + 1)]


# Over less than this ratio powers of two are too few ticks.
_NARROW_RANGE, _NARROW_PAD = 4, 0.1


def _round_steps(low: float, high: float) -> list[float]:
    """Return round numbers at equal distances over a range.

    >>> _round_steps(16, 31), _round_steps(0.9, 1.2)
    ([20, 25, 30], [0.9, 1.0, 1.1, 1.2])
    """
    raw = max(high - low, 0.05 * high) / 4
    scale = 10 ** math.floor(math.log10(raw))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    places = range(max(first, 1), max(last, first + 1) + 1)
    return [round(place * step, digits) if digits else int(place * step) for place in places]


def log_axis(
    figure: "go.Figure",
    axis: str,
    values: Sequence[float],
    title: str,
    *,
    base: int = 2,
    text: Callable[[float], str] | None = None,
    most_ticks: int = 12,
    pad: float = 0.03,
) -> None:
    """Make an axis logarithmic, with powers of two as ticks.

    Parameters
    ----------
    axis
        ``xaxis``, ``yaxis2``, ...
    values
        All values drawn along it; those that are not positive have no place on it.
    title
        With its unit in brackets.
    base
        10 where values span too many powers of two.
    text
        How a tick is written, of values that are no sizes. Where these span hardly more than two
        powers of two, ticks are at round numbers.
    most_ticks
        On a wide page; a phone shows half of them.
    pad
        Room at each end, as a share of the axis.
    """
    drawn = [float(value) for value in values if value > 0 and math.isfinite(value)] or [1.0, 2.0]
    low, high = min(drawn), max(drawn)
    ticks = powers(low, high, base)
    if text is not None and high < _NARROW_RANGE * low:
        low, high = low * (1 - _NARROW_PAD), high * (1 + _NARROW_PAD)
        ticks = _round_steps(low, high)
    ticks = ticks[:: math.ceil(len(ticks) / most_ticks)]
    room = pad * max(0.5, math.log10(high / low))
    ends = [math.log10(min(low, ticks[0])) - room, math.log10(max(high, ticks[-1])) + room]
    words = [(text or size_text)(tick) for tick in ticks]
    figure.layout[axis].update(
        type="log", tickmode="array", tickvals=ticks, ticktext=words, range=ends
    )
    figure.layout[axis].title.text = title
    keep_ticks(figure, axis, ticks, words, narrow_stride=2 if len(ticks) > most_ticks // 2 else 1)


def keep_ticks(
    figure: "go.Figure",
    axis: str,
    ticks: Sequence[float],
    words: Sequence[str],
    *,
    narrow_stride: int,
) -> None:
    """Note an axis's ticks, of which a phone shows every so many."""
    meta = dict(figure.layout.meta or {})
    meta["ticks"] = {**meta.get("ticks", {}), axis: (list(ticks), list(words), narrow_stride)}
    figure.layout.meta = meta


def new_panels(
    names: Sequence[str], wide_columns: int, narrow_columns: int, *, shared: bool = True
) -> "go.Figure":
    """Return a figure of panels with these names, in more rows on a phone than on a wide page.

    Parameters
    ----------
    shared
        Whether all panels have the same axes, so that the outer ones alone need ticks and titles.

    The panel of number i has the axes ``axis_name("xaxis", i)`` and ``axis_name("yaxis", i)``.
    """
    figure = new_figure(rows=1, cols=len(names))
    figure.layout.meta = {
        "panels": (len(names), {"wide": wide_columns, "narrow": narrow_columns}, shared)
    }
    for number, name in enumerate(names):
        if not name:
            continue
        figure.add_annotation(
            text=f"<b>{_escape(name)}</b>",
            xref=f"{axis_name('x', number)} domain",
            yref=f"{axis_name('y', number)} domain",
            x=0.03,
            y=0.98,
            xanchor="left",
            yanchor="top",
            showarrow=False,
            font={"size": 11},
        )
    return figure


def axis_name(axis: str, number: int) -> str:
    """Return the name of a panel's axis.

    >>> axis_name("xaxis", 0), axis_name("xaxis", 1)
    ('xaxis', 'xaxis2')
    """
    return axis if number == 0 else f"{axis}{number + 1}"


def _panel_axes(figure: "go.Figure", form: str) -> dict[str, Any]:
    """Return where each panel lies in a form, with titles and ticks at the outer ones only."""
    count, columns_of, shared = (figure.layout.meta or {}).get("panels", (0, {}, True))
    chosen: dict[str, Any] = {}
    columns = min(count, columns_of.get(form, 1))
    rows = math.ceil(count / columns) if count else 0
    for number in range(count):
        row, column = divmod(number, columns)
        for axis, index, cells, outermost in (
            ("xaxis", column, columns, number + columns >= count),
            ("yaxis", rows - 1 - row, rows, column == 0),
        ):
            name = axis_name(axis, number)
            gap = _PANEL_GAP if shared or axis == "xaxis" else _TITLED_GAP
            room = (1 + gap) / cells
            low = index * room
            chosen[f"{name}.domain"] = [low, min(1.0, low + room - gap)]
            outer = outermost or not shared
            chosen[f"{name}.showticklabels"] = outer
            chosen[f"{name}.title.text"] = figure.layout[name].title.text if outer else ""
    return chosen


def line_style(variant: str) -> dict[str, Any]:
    """Return the line of a kind of attention."""
    style = LINES[variant]
    return {"color": style.colour, "dash": style.dash, "width": 2.5}


def pale(colour: str) -> str:
    """Return a colour for an area that lines and a grid shine through.

    >>> pale("#0072B2")
    'rgba(0, 114, 178, 0.13)'
    """
    parts = ", ".join(str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))
    return f"rgba({parts}, 0.13)"


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
