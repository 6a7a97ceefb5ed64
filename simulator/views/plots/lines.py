"""Marks of figures: points and lines of a table, limits, areas, and the lines of attention."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.views.plots import palette
from simulator.views.plots.layout import Figure, axis_name


def comparable(frame: Frame) -> Frame:
    """Return bifurcated attention's points at which standard attention fits in memory as well.

    A speed-up over what cannot run is none: no finding names one.
    """
    return frame[(frame["variant"] == "bifurcated") & frame["both_fit"].astype(bool)]


def fit_words(frame: Frame) -> str:
    """Say of rows of both kinds of attention which of them do not fit, and if at all, if any."""
    fits = {name: frame[frame["variant"] == name]["fits"].astype(bool) for name in ATTENTIONS}
    unfit = [name for name, held in fits.items() if not held.all()]
    if not unfit:
        return ""
    never = all(not fits[name].any() for name in unfit)
    if len(unfit) == 1:
        return f"; {unfit[0]} {'does not fit in' if never else 'runs out of'} memory"
    return "; neither fits in memory" if never else "; both run out of memory"


def add(
    figure: Figure,
    table: Frame,
    x: str,
    y: str,
    marks: Mapping[str, Any],
    *,
    hover: str = "",
    panel: int = 0,
) -> None:
    """Add the rows of a table as points or a line.

    Parameters
    ----------
    x, y
        Columns of the table.
    marks
        How they are drawn and named, as of Plotly's scatter; points without a ``mode``.
    hover
        What a point says of itself, a format of its row's columns; empty for nothing.
    panel
        Number of the panel.
    """
    rows = table.to_dict("records") if hover else []
    figure.add_scatter(
        x=table[x].tolist(),
        y=table[y].tolist(),
        hovertext=[hover.format_map(row) for row in rows] or None,
        hoverinfo="text" if hover else "skip",
        xaxis=axis_name("x", panel),
        yaxis=axis_name("y", panel),
        **{"mode": "markers", **marks},
    )


def add_rule(figure: Figure, x: list[float], y: list[float], name: str, **line: Any) -> None:
    """Add a line that is a limit or a bound, and no prediction.

    Parameters
    ----------
    x, y
        Where it runs.
    name, line
        Its name in the legend, and its ``color``, ``dash`` and ``width``.
    """
    figure.add_scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip")


def add_area(
    figure: Figure,
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    name: str | None = None,
) -> None:
    """Shade what lies between two lines.

    Parameters
    ----------
    x, low, high
        The axis, and both lines along it.
    colour, name
        Its colour, and its name in the legend.
    """
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="none",
        fill="toself",
        fillcolor=colour,
        name=name,
        showlegend=name is not None,
        hoverinfo="skip",
    )


def by_fit(part: Frame) -> list[tuple[Frame, float]]:
    """Return a line in pieces, each with its opacity: what fits in memory, and what is beyond."""
    fits = part["fits"].to_numpy(dtype=bool)
    ends = len(part) if fits.all() else int((~fits).argmax())
    pieces = [(part.iloc[:ends], 1.0)] if ends else []
    if ends < len(part):
        pieces.append((part.iloc[max(0, ends - 1) :], palette.UNFIT_OPACITY))
    return pieces


def add_bands(figure: Figure, frame: Frame, x: str) -> None:
    """Shade the intervals of the step's time along an axis, where it fits and they are known.

    Parameters
    ----------
    figure
        The figure.
    frame, x
        Rows with ``variant``, ``fits`` and the ends of intervals, and the axis's column.
    """
    known = frame[frame["fits"].astype(bool) & (frame["step_ms_high"] < math.inf)].sort_values(x)
    for variant in ATTENTIONS:
        part = known[known["variant"] == variant]
        low, high = part["step_ms_low"], part["step_ms_high"]
        if (low != high).any():
            add_area(figure, part[x], low, high, palette.pale(palette.COLOURS[variant]))


def add_lines(
    figure: Figure,
    frame: Frame,
    x: str,
    y: str,
    hover: str,
    *,
    bounds: bool = False,
    panel: int = 0,
    order: Sequence[str] = ATTENTIONS,
) -> None:
    """Add a line for each kind of attention: strong where it fits in memory, pale beyond.

    Parameters
    ----------
    frame
        Rows with ``variant``, ``fits`` and ``bound``.
    x, y, hover, panel
        As of :func:`add`; the legend names the lines of the first panel.
    bounds
        Whether each point's marker says what binds it.
    order
        The last kind of attention is drawn on top.
    """
    told = frame.assign(held=frame["fits"].map(lambda fits: "fits" if fits else "does not fit"))
    for variant in order:
        part = told[told["variant"] == variant].sort_values(x)
        line = palette.LINES[variant]
        pieces = by_fit(part) if len(part) else []
        for number, (piece, opacity) in enumerate(pieces):
            marker: dict[str, Any] = {"size": 8, "color": line["color"]}
            if bounds:
                marker["symbol"] = [palette.BOUND_SYMBOLS[bound] for bound in piece["bound"]]
            key = {"name": variant, "legendgroup": variant, "showlegend": not panel and not number}
            mode = "lines+markers" if bounds or len(part) == 1 else "lines"
            said = f"{variant}<br>{hover}<br>{{held}}, bound by {{bound}}"
            drawn = {"mode": mode, "line": line, "marker": marker, "opacity": opacity, **key}
            add(figure, piece, x, y, drawn, hover=said, panel=panel)
        if len(pieces) > 1:
            thick = {"width": 3, "color": line["color"]}
            cross = {"symbol": "x-thin", "size": 15, "color": line["color"], "line": thick}
            last = pieces[0][0].iloc[-1:]
            add(figure, last, x, y, {"marker": cross, "showlegend": False}, panel=panel)


def add_keys(figure: Figure, frame: Frame, *, bounds: bool = False) -> None:
    """Explain in the legend the markers that occur.

    Parameters
    ----------
    frame
        The points drawn.
    bounds
        Whether the markers' shapes say what binds.
    """
    found = set(frame["bound"]) if bounds else ()
    keys: list[tuple[str, str, dict[str, Any]]] = [
        (f"bound by {bound}", symbol, {})
        for bound, symbol in palette.BOUND_SYMBOLS.items()
        if bound in found
    ]
    if not frame["fits"].all():
        pen = {"width": 2, "color": palette.GREY}
        keys.append(("last that fits in memory; pale beyond", "x-thin", pen))
    for name, symbol, line in keys:
        marker = {"symbol": symbol, "size": 8, "color": palette.GREY, "line": line}
        figure.add_scatter(
            x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip"
        )
