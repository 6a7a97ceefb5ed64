"""Charts as SVG, drawn once: lines, bars and maps that need no script, in light and in dark.

A chart is drawn for a page and for a phone; the style of the page shows one of them. Colours of
texts and axes are the page's own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from simulator.inputs.setup import ATTENTIONS
from simulator.views.plots.axes import number_text, powers, size_text
from simulator.views.plots.palette import COLOURS, GREEN, LINES, UNFIT_OPACITY, on_white
from simulator.views.report.html import Child, Html, tag, text_of

# Width of a chart on a page and on a phone. [px]
WIDTHS = {"wide": 600, "narrow": 350}
_DASHES = {"dash": "9 5", "solid": None}
_LETTER_PX = 6.6
# The axis of samples, and the columns of a step's time and its interval.
SAMPLES = "samples of each context"
_TIMES = ("step_ms", "step_ms_low", "step_ms_high")

# Given a width, draws: a height, and the elements.
Draw: TypeAlias = Callable[[int], tuple[int, Child]]


class Bar(NamedTuple):
    """A bar: its label, its parts by name with their colours, and what stands behind it."""

    label: str
    parts: Sequence[tuple[str, str, float]]
    value: str


class Cell(NamedTuple):
    """A cell of a map: its number, or a word where there is none, and whether both fit."""

    text: str
    speedup: float | None
    about: str


def chart(about: str, draw: Draw, keys: Sequence[Html] = ()) -> Html:
    """Return a chart in both widths, with its legend.

    Parameters
    ----------
    about
        What it shows, for those who cannot see it.
    draw
        Draws it.
    keys
        The entries of the legend.
    """
    forms = []
    for name, width in WIDTHS.items():
        height, inside = draw(width)
        size = {"viewBox": f"0 0 {width} {height}", "role": "img"}
        forms.append(tag("svg", inside, class_=name, **size, aria_label=about, width=f"{width}"))
    return text_of([*forms, tag("ul", keys, class_="legend") if keys else None])


def key(name: str, mark: Html) -> Html:
    """Return an entry of a legend: a mark of 26 x 12, and what it is."""
    return tag("li", tag("svg", mark, viewBox="0 0 26 12", aria_hidden="true"), name)


def area_keys(areas: Iterable[tuple[str, str]]) -> list[Html]:
    """Return the entries of areas, by their names and colours."""
    return [
        key(name, tag("rect", width="14", height="12", x="6", fill=colour))
        for name, colour in areas
    ]


def line_key(name: str, colour: str, dash: str | None) -> Html:
    """Return the entry of a line.

    Parameters
    ----------
    name, colour, dash
        What it names, and how it is drawn.
    """
    return key(
        name, tag("path", d="M0 6H26", stroke=colour, stroke_width="2.5", stroke_dasharray=dash)
    )


def line_keys() -> list[Html]:
    """Return the entries of both kinds of attention."""
    return [line_key(name, line["color"], _DASHES[line["dash"]]) for name, line in LINES.items()]


def _text(x: float, y: float, words: str, anchor: str = "middle", **more: str) -> Html:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **more)


def _upright(middle: float, title: str) -> Html:
    """Return the title of an upright axis, given where its middle is."""
    turned = f"translate(12 {middle}) rotate(-90)"
    return _text(0, 0, title, class_="quiet", transform=turned)


def _path(points: Sequence[tuple[float, float]], **more: str | None) -> Html:
    return tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), **more)


def _log(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return a logarithmic scale."""
    span = math.log(high / low) or 1.0
    return lambda value: start + math.log(value / low) / span * (end - start)


def step_chart(
    x: Sequence[float],
    found: Mapping[str, Any],
    *,
    title: str,
    asked: float,
    target_ms: float | None,
) -> Draw:
    """Return a function that draws steps' times over an axis of sizes, both axes logarithmic.

    Where something does not fit its line is pale.

    Parameters
    ----------
    x, title
        The axis, ascending and above 0.
    found
        The columns of a sweep: by kind of attention the times, their intervals, and what fits.
    asked
        The value of the question, which is marked.
    target_ms
        A time to draw a line at. [ms]
    """
    lines = {
        name: tuple(found[f"{name}_{what}"].tolist() for what in (*_TIMES, "fits"))
        for name in ATTENTIONS
    }
    times = [value for columns in lines.values() for part in columns[:-1] for value in part]
    shown = [time for time in (*times, target_ms) if time and time < math.inf]
    low, high = min(shown) / 1.1, max(shown) * 1.1

    def draw(width: int) -> tuple[int, Child]:
        height, left, right, top, bottom = 300, 54, width - 14, 10, 256
        across, up = _log(x[0], x[-1], left, right), _log(low, high, bottom, top)
        ticks = powers(low, high)
        ticks = [tick for tick in ticks[:: math.ceil(len(ticks) / 7)] if low <= tick <= high]
        sizes = [tick for tick in powers(x[0], x[-1]) if x[0] <= tick <= x[-1]]
        parts: list[Child] = []
        for tick in ticks:
            parts += [
                tag("path", d=f"M{left} {up(tick):.1f}H{right}", class_="grid"),
                _text(left - 6, up(tick) + 4, number_text(tick), "end"),
            ]
        for tick in sizes[:: math.ceil(len(sizes) / (width / 48))]:
            parts.append(_text(across(tick), bottom + 16, size_text(tick)))
        parts += [
            tag("path", d=f"M{left} {top}V{bottom}H{right}", class_="axis"),
            _text((left + right) / 2, height - 8, title, class_="quiet"),
            _upright((top + bottom) / 2, "decode step [ms]"),
            tag("path", d=f"M{across(asked):.1f} {top}V{bottom}", class_="asked"),
        ]
        if target_ms:
            dashes = {"stroke_dasharray": "12 4 2 4", "stroke_width": "2"}
            parts.append(
                tag("path", d=f"M{left} {up(target_ms):.1f}H{right}", stroke=GREEN, **dashes)
            )
        for name, (times, lows, highs, fits) in lines.items():
            line = LINES[name]
            held = [at for at, fit in enumerate(fits) if fit and highs[at] < math.inf]
            around = [(across(x[at]), up(highs[at])) for at in held]
            around += [(across(x[at]), up(lows[at])) for at in reversed(held)]
            if around:
                parts.append(_path(around, fill=line["color"], opacity="0.15"))
            points = [(across(one), up(other)) for one, other in zip(x, times, strict=True)]
            fitting = sum(fits)
            drawn = {
                "stroke": line["color"],
                "stroke_width": "2.5",
                "fill": "none",
                "stroke_dasharray": _DASHES[line["dash"]],
            }
            parts.append(_path(points[max(0, fitting - 1) :], opacity=f"{UNFIT_OPACITY}", **drawn))
            if fitting:
                parts.append(_path(points[:fitting], **drawn))
            if 0 < fitting < len(points):
                ex, ey = points[fitting - 1]
                cross = f"M{ex - 5:.1f} {ey - 5:.1f}l10 10m-10 0l10 -10"
                parts.append(tag("path", d=cross, class_="end"))
        return height, parts

    return draw


def bar_chart(bars: Sequence[Bar], *, limit: tuple[float, str] | None = None) -> Draw:
    """Return a function that draws stacked bars, each below its label.

    ``limit`` is a value to mark over the bars, and what it is.
    """
    most = max(
        [sum(value for _, _, value in bar.parts) for bar in bars] + ([limit[0]] if limit else [])
    )

    def draw(width: int) -> tuple[int, Child]:
        row_px, room = 40, width - 8
        parts: list[Child] = []
        for at, bar in enumerate(bars):
            top, start = at * row_px, 4.0
            parts.append(_text(4, top + 13, f"{bar.label}: {bar.value}", "start"))
            for name, colour, value in bar.parts:
                long = value / most * room
                if long > 0:
                    place = {"x": f"{start:.1f}", "y": f"{top + 18}"}
                    size = {"width": f"{max(long, 0.5):.1f}", "height": "15", "fill": colour}
                    parts.append(tag("rect", tag("title", name), **place, **size))
                start += long
            if limit:
                edge = 4 + limit[0] / most * room
                parts.append(tag("path", d=f"M{edge:.1f} {top + 15}v21", class_="end"))
        height = len(bars) * row_px
        if limit:
            edge = 4 + limit[0] / most * room
            anchor = "end" if edge > width / 2 else "start"
            parts.append(_text(edge, height + 12, limit[1], anchor))
            height += 18
        return height, parts

    return draw


def speedup_colours(speedup: float, most: float) -> tuple[str, str]:
    """Return the colour of a speed-up, blue above 1 and vermillion below, and of a text on it.

    Black or white, whichever stands out more: at least 4.5 to 1.

    >>> speedup_colours(1.0, 4), speedup_colours(4.0, 4)
    (('#ffffff', '#000000'), ('#0072b2', '#ffffff'))
    """
    share = min(1.0, abs(math.log2(speedup)) / math.log2(most))
    end = COLOURS["bifurcated" if speedup > 1 else "standard"]
    mixed = on_white(end, share)
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004
        for value in (part / 255 for part in mixed)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    text = "#000000" if luminance > 0.179 else "#ffffff"  # noqa: PLR2004 - where both are equal
    return "#" + "".join(f"{part:02x}" for part in mixed), text


def map_chart(
    columns: Sequence[float],
    rows: Sequence[float],
    cells: Sequence[Sequence[Cell]],
    asked: tuple[float, float],
) -> Draw:
    """Return a function that draws a map of cells, the first row at the bottom.

    Parameters
    ----------
    columns, rows, cells
        Sizes along both axes, and the cells, row by row.
    asked
        Column and row of the question, framed if the map has them.
    """
    found = [cell.speedup for row in cells for cell in row if cell.speedup]
    most = max([2.0, *found, *(1 / value for value in found)])

    def draw(width: int) -> tuple[int, Child]:
        left = 30 + _LETTER_PX * max(len(size_text(row)) for row in rows)
        top, row_px = 6, 22
        wide, bottom = (width - left - 6) / len(columns), top + row_px * len(rows)
        stride = math.ceil(30 / wide)
        parts: list[Child] = []
        for up, line in enumerate(cells):
            y = bottom - (up + 1) * row_px
            parts.append(_text(left - 6, y + 15, size_text(rows[up]), "end"))
            for at, cell in enumerate(line):
                x = left + at * wide
                fill, ink = speedup_colours(cell.speedup, most) if cell.speedup else (None, None)
                size = {"width": f"{wide - 1:.1f}", "height": f"{row_px - 1}"}
                place = {"x": f"{x:.1f}", "y": f"{y}", "fill": fill}
                name = None if cell.speedup else "only" if cell.text else "none"
                parts.append(tag("rect", tag("title", cell.about), class_=name, **place, **size))
                if wide > len(cell.text) * _LETTER_PX:
                    colour = {"style": f"fill:{ink}"} if ink else {}
                    parts.append(_text(x + wide / 2, y + 15, cell.text, **colour))
                if (columns[at], rows[up]) == asked:
                    frame = {**place, **size, "fill": "none", "class_": "here"}
                    parts.append(tag("rect", **frame))
        parts += [
            _text(left + (at + 0.5) * wide, bottom + 15, size_text(columns[at]))
            for at in range(0, len(columns), stride)
        ]
        parts.append(_text((left + width) / 2, bottom + 34, SAMPLES, class_="quiet"))
        parts.append(_upright((top + bottom) / 2, "context [tokens]"))
        return bottom + 40, parts

    return draw
