"""Lines of the ways of attention over an axis, as several figures draw them."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from simulator.inputs.setup import ATTENTIONS
from simulator.views.plots import axes, palette
from simulator.views.plots.panels import axis_name

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def by_variant(frame: "pd.DataFrame", axis: str) -> "list[pd.DataFrame]":
    """Return the rows of each kind of attention along an axis; the last is drawn on top."""
    parts = (frame[frame["variant"] == variant].sort_values(axis) for variant in ATTENTIONS)
    return [part for part in parts if len(part)]


def comparable(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Return bifurcated attention's points at which standard attention fits in memory as well.

    A speed-up over what cannot run is none: no finding names one.
    """
    return frame[(frame["variant"] == "bifurcated") & frame["both_fit"].astype(bool)]


def fit_words(frame: "pd.DataFrame") -> str:
    """Say of rows of both kinds of attention which of them do not fit, and if at all, if any."""
    fits = {
        variant: frame[frame["variant"] == variant]["fits"].astype(bool)
        for variant in ("standard", "bifurcated")
    }
    unfit = [variant for variant, held in fits.items() if not held.all()]
    if not unfit:
        return ""
    who = unfit[0] if len(unfit) == 1 else "neither"
    if all(not fits[variant].any() for variant in unfit):
        return f"; {who} {'fits' if who == 'neither' else 'does not fit'} in memory"
    return f"; {who if who != 'neither' else 'both'} run{'s' if who in fits else ''} out of memory"


def add_line(
    figure: "go.Figure",
    part: "pd.DataFrame",
    x: str,
    y: str,
    *,
    hover: str,
    legend: bool = True,
    bounds: bool = True,
    **place: Any,
) -> None:
    """Add the line of one way of attention: strong where it fits in memory, pale beyond.

    Parameters
    ----------
    part
        Rows of one ``variant`` in the order of ``x``, with ``fits`` and ``bound``.
    bounds
        Whether each point's marker says what binds it.
    place
        ``row`` and ``col`` of a subplot.
    """
    variant = str(part["variant"].iloc[0])
    line = palette.line_style(variant)
    pieces = by_fit(part)
    for number, (piece, opacity) in enumerate(pieces):
        marker: dict[str, Any] = {"size": 8, "color": line["color"]}
        if bounds:
            marker["symbol"] = [palette.BOUND_SYMBOLS[bound] for bound in piece["bound"]]
        figure.add_scatter(
            x=piece[x].tolist(),
            y=piece[y].tolist(),
            mode="lines+markers" if bounds or len(part) == 1 else "lines",
            line=line,
            marker=marker,
            opacity=opacity,
            name=palette.LINES[variant].name,
            legendgroup=variant,
            showlegend=legend and number == 0,
            text=[
                f"{'fits' if held else 'does not fit'}, bound by {bound}"
                for held, bound in zip(piece["fits"], piece["bound"], strict=True)
            ],
            hovertemplate=f"{palette.LINES[variant].name}<br>{hover}<br>%{{text}}<extra></extra>",
            **place,
        )
    if len(pieces) > 1:
        last, mark = pieces[0][0].iloc[-1], f"{palette.OUT_OF_MEMORY_SYMBOL}-thin"
        colour = line["color"]
        figure.add_scatter(
            x=[last[x]],
            y=[last[y]],
            mode="markers",
            marker={
                "symbol": mark,
                "size": 15,
                "color": colour,
                "line": {"width": 3, "color": colour},
            },
            showlegend=False,
            hoverinfo="skip",
            **place,
        )


def by_fit(part: "pd.DataFrame") -> "list[tuple[pd.DataFrame, float]]":
    """Return a line in pieces, each with its opacity: what fits in memory, and what is beyond."""
    fits = part["fits"].to_numpy(dtype=bool)
    ends = len(part) if fits.all() else int((~fits).argmax())
    pieces = [(part.iloc[:ends], 1.0)] if ends else []
    if ends < len(part):
        pieces.append((part.iloc[max(0, ends - 1) :], palette.UNFIT_OPACITY))
    return pieces


def add_rule(
    figure: "go.Figure", x: Sequence[float], y: Sequence[float], name: str, **line: Any
) -> None:
    """Add a line that is a limit or a bound, and no prediction.

    Parameters
    ----------
    figure
        The figure.
    x, y
        Where the line runs.
    name, line
        Its name in the legend, and its ``color``, ``dash`` and ``width``.
    """
    figure.add_scatter(x=x, y=y, mode="lines", line=line, name=name, hoverinfo="skip")


def add_step_panels(
    figure: "go.Figure",
    panels: Iterable[Iterable["pd.DataFrame"]],
    drawn: "pd.DataFrame",
    *,
    most_ticks: tuple[int, int],
) -> None:
    """Add lines of the step's time against samples to panels, with their axes and keys.

    Parameters
    ----------
    panels
        The lines of each panel, as :func:`add_line` takes them.
    drawn
        All rows in the figure, which the axes of all panels span.
    most_ticks
        Of each axis, x and y.
    """
    for number, lines in enumerate(panels):
        for line in lines:
            add_line(
                figure,
                line,
                "samples",
                "step_ms",
                hover="%{x:,} samples: %{y:.4g} ms",
                legend=number == 0,
                bounds=False,
                row=1,
                col=number + 1,
            )
        x, y = (axis_name(axis, number) for axis in ("xaxis", "yaxis"))
        most_x, most_y = most_ticks
        axes.log_axis(
            figure,
            x,
            drawn["samples"],
            "samples [sequences]",
            most_ticks=most_x,
            text=axes.size_text,
        )
        axes.log_axis(figure, y, drawn["step_ms"], "step [ms]", most_ticks=most_y)
    add_keys(figure, drawn, bounds=False)


def add_band(figure: "go.Figure", part: "pd.DataFrame", x: str) -> None:
    """Shade the interval of a step's time, where the step fits and the interval is known.

    Parameters
    ----------
    part
        Rows of one ``variant`` in the order of ``x``.
    """
    part = part[part["fits"].astype(bool) & (part["step_ms_high"] < math.inf)]
    low, high = part["step_ms_low"], part["step_ms_high"]
    if not len(part) or (low == high).all():
        return
    add_area(figure, part[x], low, high, str(part["variant"].iloc[0]))


def add_area(
    figure: "go.Figure",
    x: "pd.Series[float]",
    low: "pd.Series[float]",
    high: "pd.Series[float]",
    variant: str,
) -> None:
    """Shade what lies between two lines of one kind of attention.

    Parameters
    ----------
    figure
        The figure.
    x, low, high
        The axis, and both lines along it.
    variant
        The kind of attention.
    """
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="none",
        fill="toself",
        fillcolor=palette.pale(palette.LINES[variant].colour),
        showlegend=False,
        hoverinfo="skip",
    )


def add_keys(figure: "go.Figure", frame: "pd.DataFrame", *, bounds: bool = True) -> None:
    """Explain in the legend the markers that occur.

    Parameters
    ----------
    figure, frame
        The figure, and the points drawn in it.
    bounds
        Whether the markers' shapes say what binds.
    """

    def key(name: str, symbol: str, **line: Any) -> None:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": symbol, "size": 8, "color": palette.GREY, "line": line},
            name=name,
            hoverinfo="skip",
        )

    for bound, symbol in palette.BOUND_SYMBOLS.items():
        if bounds and bound in set(frame["bound"]):
            key(f"bound by {bound}", symbol)
    if not frame["fits"].all():
        key(
            "last that fits in memory; pale beyond",
            f"{palette.OUT_OF_MEMORY_SYMBOL}-thin",
            width=2,
            color=palette.GREY,
        )
