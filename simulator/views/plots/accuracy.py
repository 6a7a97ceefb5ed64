"""Predicted against measured times, with the band in which most of them lie."""

import math
from typing import TYPE_CHECKING

from simulator.views.plots import style
from simulator.views.plots.style import Caption
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Drawn at most, of each kind its share: more only make a page slow.
MOST_POINTS = 3000
NEAR = 0.2
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
_NINE_IN_TEN = 0.9


def predicted_measured(rows: "pd.DataFrame", caption: Caption | None = None) -> "go.Figure":
    """Draw predicted over measured times, a point for each row.

    Parameters
    ----------
    rows
        The rows of ``bifurcate validate``: ``kind``, ``measured_us`` and ``predicted_us`` [us], and
        for what a point says of itself ``gpu_id``, ``framework`` and ``sizes``. Rows without a time
        (out of memory) are left out.
    """
    import plotly.graph_objects as go

    timed = rows[(rows["measured_us"] > 0) & (rows["predicted_us"] > 0)]
    figure = style.new_figure()
    values = [*timed["measured_us"], *timed["predicted_us"]]
    for axis, word in (("xaxis", "measured"), ("yaxis", "predicted")):
        style.log_axis(
            figure, axis, values, f"{word} time [µs]", base=10, text=style.number_text, pad=0.02
        )
    low, high = (10**end for end in figure.layout.xaxis.range)
    _add_band(figure, low, high)
    # The largest group first: it would hide the others.
    kinds = sorted(timed.groupby("kind"), key=lambda pair: -len(pair[1]))
    for number, (kind, part) in enumerate(kinds):
        drawn = part.iloc[:: math.ceil(len(part) * len(kinds) / MOST_POINTS)]
        about = [drawn[name] for name in ("gpu_id", "framework", "sizes") if name in drawn]
        figure.add_trace(
            go.Scatter(
                x=drawn["measured_us"].tolist(),
                y=drawn["predicted_us"].tolist(),
                mode="markers",
                name=f"{str(kind).replace('_', ' ')}: {len(part):,}, {_errors(part).median():.1%}",
                marker={
                    "color": style.CATEGORIES[number % len(style.CATEGORIES)],
                    "symbol": _SYMBOLS[number % len(_SYMBOLS)],
                    "size": 5,
                    "opacity": 0.6,
                },
                text=[" ".join(map(str, words)) for words in zip(*about, strict=True)],
                hovertemplate="%{text}<br>measured %{x:.4g} µs<br>predicted %{y:.4g} µs",
            )
        )
    notes = ["Of each kind: how many rows, and the median error. Each axis is logarithmic."]
    notes += caption.notes if caption else ()
    if len(timed) > MOST_POINTS:
        notes.append("Of large kinds not every row is drawn; figures are of all.")
    gpus = ", ".join(sorted(set(timed["gpu_id"]))) if "gpu_id" in timed else ""
    subject = caption.subject if caption else f"Rows measured on {gpus}" if gpus else "No rows"
    return style.finish(figure, finding(timed), Caption(subject, tuple(notes)))


def finding(timed: "pd.DataFrame") -> str:
    """Say how far off the predictions are."""
    if not len(timed):
        return "No row with a time was predicted"
    ape = _errors(timed)
    count = plural(len(timed), "prediction")
    return (
        f"Half of {count} lie within {ape.median():.1%} of the measured time, "
        f"nine in ten within {ape.quantile(_NINE_IN_TEN):.0%}"
    )


def _errors(timed: "pd.DataFrame") -> "pd.Series[float]":
    """Return the size of each prediction's error, as a share of the measured time."""
    return (timed["predicted_us"] / timed["measured_us"] - 1).abs()


def _add_band(figure: "go.Figure", low: float, high: float) -> None:
    """Add the line of equal times, and the band around it."""
    import plotly.graph_objects as go

    figure.add_trace(
        go.Scatter(
            x=[low, high, high, low],
            y=[low * (1 - NEAR), high * (1 - NEAR), high * (1 + NEAR), low * (1 + NEAR)],
            mode="none",
            fill="toself",
            fillcolor="rgba(118,118,118,0.22)",
            name=f"within {NEAR:.0%}",
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=[low, high],
            y=[low, high],
            mode="lines",
            line={"color": style.INK, "width": 1},
            name="equal",
            hoverinfo="skip",
        )
    )
