"""Predicted against measured times, with bands that hold most of them."""

import html
import math

from simulator._version import __version__
from simulator.numeric import Frame
from simulator.views.plots import axes, layout, lines, palette
from simulator.views.plots.fleet import with_gpus
from simulator.views.plots.layout import Caption, Figure
from simulator.views.text import plural

# The most points to draw, divided over the kinds: more only slow down the page.
MOST_POINTS = 6000
# Share of a thinned kind's points that is reserved for the rows with the largest errors.
_FARTHEST = 0.02
NEAR, CLOSE = 0.2, 0.1
# Columns that identify a point's row, one line of its hover text each.
_ABOUT = (("gpu_id", "framework", "kernel"), ("sizes",), ("file", "line"))
_NINE_IN_TEN = 0.9


def predicted_measured(rows: Frame, gpus: "Frame | None" = None) -> Figure:
    """Draw predicted over measured times, a point for each row.

    Parameters
    ----------
    rows
        The rows of ``bifurcate validate``: ``kind``, ``measured_us`` and ``predicted_us`` [us], and
        for what a point says of itself ``gpu_id``, ``framework``, ``kernel``, ``sizes``, ``file``
        and ``line``. Rows without a time (out of memory) are left out.
    gpus
        What the predictions rest on, for the footer: ``gpu``, where its ``constants`` come from,
        and its profile's ``hash``.
    """
    timed = rows[(rows["measured_us"] > 0) & (rows["predicted_us"] > 0)]
    figure = layout.new_figure()
    values = [*timed["measured_us"], *timed["predicted_us"]]
    for axis, word in (("xaxis", "measured"), ("yaxis", "predicted")):
        axes.log_axis(figure, axis, values, f"{word} time [µs]", base=10, pad=0.02)
    low, high = (10**end for end in figure.layout.xaxis.range)
    # The inner band looks darker because the bands overlap; the key shows each alone.
    for share, opacity in ((NEAR, 0.22), (CLOSE, 0.4)):
        below, above = ([end * (1 + side * share) for end in (low, high)] for side in (-1, 1))
        grey, name = f"rgba(118,118,118,{opacity})", f"within {share:.0%}"
        lines.add_area(figure, [low, high], below, above, grey, name)
    lines.add_rule(figure, [low, high], [low, high], "equal", color=palette.INK, width=1)
    # The largest group first: it would hide the others.
    kinds = sorted(timed.groupby("kind"), key=lambda pair: -len(pair[1]))
    for number, (kind, part) in enumerate(kinds):
        drawn = _thinned(part, MOST_POINTS // len(kinds))
        drawn = drawn.assign(about=_about(drawn))
        marker = {**palette.mark(number), "size": 5, "opacity": 0.6}
        said = f"{str(kind).replace('_', ' ')}: {len(part):,}, {_errors(part).median():.1%}"
        hover = "{about}<br>measured {measured_us:.4g} µs<br>predicted {predicted_us:.4g} µs"
        columns = ("measured_us", "predicted_us")
        lines.add(figure, drawn, *columns, {"marker": marker, "name": said}, hover=hover)
    notes = ["Of each kind: how many rows, and the median error. Each axis is logarithmic."]
    if len(timed) > MOST_POINTS:
        notes.append(
            "Of large kinds not every row is drawn, but those farthest off are; figures are of all."
        )
    where = ", ".join(sorted(set(timed["gpu_id"]))) if "gpu_id" in timed else ""
    subject = f"Rows measured on {where}" if where else "No rows"
    words = Caption(subject, (*notes, f"bifurcate {__version__}."))
    if gpus is not None and len(gpus):
        words = with_gpus(words, gpus)
    return layout.finish(figure, _finding(timed), words)


def _finding(timed: Frame) -> str:
    """Summarise the errors of the predictions."""
    if not len(timed):
        return "No row with a time was predicted"
    ape = _errors(timed)
    count = plural(len(timed), "prediction")
    return (
        f"Half of {count} lie within {ape.median():.1%} of the measured time, "
        f"nine in ten within {ape.quantile(_NINE_IN_TEN):.0%}"
    )


def _thinned(part: Frame, most: int) -> Frame:
    """Return the rows of a kind to draw: the largest errors, and every n-th of the others."""
    if len(part) <= most:
        return part
    far = max(1, round(_FARTHEST * most))
    distance = (part["predicted_us"] / part["measured_us"]).map(math.log).abs()
    order = distance.sort_values(ascending=False, kind="stable").index
    rest = part.drop(order[:far])
    return part.loc[[*order[:far], *rest.index[:: math.ceil(len(rest) / (most - far))]]]


def _about(drawn: Frame) -> list[str]:
    """Return each point's hover text: its row and its error."""
    import pandas as pd

    known = [[name for name in names if name in drawn] for names in _ABOUT]
    texts = []
    for row in drawn.to_dict("records"):
        told = (
            " ".join(str(row[name]) for name in names if pd.notna(row[name])) for names in known
        )
        error = f"{row['predicted_us'] / row['measured_us'] - 1:+.1%}"
        texts.append(
            "<br>".join([*filter(None, (html.escape(line.strip()) for line in told)), error])
        )
    return texts


def _errors(timed: Frame) -> Frame:
    """Return the size of each prediction's error, as a share of the measured time."""
    return (timed["predicted_us"] / timed["measured_us"] - 1).abs()
