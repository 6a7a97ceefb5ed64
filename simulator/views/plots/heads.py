"""Multi-head, multi-group and multi-query forms of one model, under both kinds of attention."""

from typing import TYPE_CHECKING

from simulator.views.plots import layout, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_step_panels, by_variant, comparable
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_NOTE = "Nothing but the KV heads differs between the panels: they are not of equal quality."


def kv_heads(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the step's time against samples, a panel for each number of KV heads.

    ``frame`` as of :func:`frames.by_kv_heads`.
    """
    counts = list(dict.fromkeys(frame["kv_heads"]))
    figure = panels.new_panels([_form(frame, count) for count in counts], len(counts), 1)
    drawn = [by_variant(frame[frame["kv_heads"] == count], "samples") for count in counts]
    add_step_panels(figure, drawn, frame, most_ticks=(8, 10))
    words = caption.after(_NOTE) if len(counts) > 1 else caption
    return layout.finish(figure, _finding(frame, counts), words)


def _form(frame: "pd.DataFrame", count: int) -> str:
    """Name a form of the model."""
    family = str(frame[frame["kv_heads"] == count]["family"].iloc[0])
    heads = "" if "latent" in family else f", {plural(int(count), 'KV head')}"
    return f"{family}{heads}"


def _finding(frame: "pd.DataFrame", counts: list[int]) -> str:
    """Say what sharing the reads brings for the most and the fewest KV heads."""
    asked = frame[frame["asked"]]
    if not len(asked):
        asked = frame[frame["samples"] == frame["samples"].min()]
    gains = comparable(asked).set_index("kv_heads")["speedup"]
    samples = plural(int(asked["samples"].iloc[0]), "sample")
    named = [count for count in counts if count in gains]
    if not named:
        return f"At {samples} no form fits with both kinds of attention"
    words = [
        f"{texts.faster(gains[count])} with {_form(frame, count)}"
        for count in dict.fromkeys((named[0], named[-1]))
    ]
    return f"At {samples} bifurcated is {'; '.join(words)}"
