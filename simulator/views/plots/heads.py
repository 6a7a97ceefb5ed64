"""Multi-head, multi-group and multi-query forms of one model, under both kinds of attention."""

from typing import TYPE_CHECKING

from simulator.views.plots import style
from simulator.views.plots.lines import add_keys, add_line
from simulator.views.plots.style import Caption
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_NOTE = "Nothing but the KV heads differs between the panels: they are not of equal quality."


def kv_heads(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the step's time against samples, a panel for each number of KV heads.

    ``frame`` as of :func:`curves.by_kv_heads`.
    """
    counts = list(dict.fromkeys(frame["kv_heads"]))
    figure = style.new_panels([_form(frame, count) for count in counts], len(counts), 1)
    for number, count in enumerate(counts):
        for variant in ("standard", "bifurcated"):
            part = frame[(frame["kv_heads"] == count) & (frame["variant"] == variant)]
            add_line(
                figure,
                part.sort_values("samples"),
                "samples",
                "step_ms",
                hover="%{x:,} samples: %{y:.4g} ms",
                legend=number == 0,
                bounds=False,
                row=1,
                col=number + 1,
            )
        x, y = (style.axis_name(axis, number) for axis in ("xaxis", "yaxis"))
        drawn = frame[frame["variant"] != "shared_storage"]
        style.log_axis(figure, x, drawn["samples"], "samples [sequences]", most_ticks=8)
        style.log_axis(
            figure, y, drawn["step_ms"], "step [ms]", text=style.number_text, most_ticks=10
        )
    add_keys(figure, frame[frame["variant"] != "shared_storage"], bounds=False)
    words = Caption(caption.subject, (_NOTE, *caption.notes) if len(counts) > 1 else caption.notes)
    return style.finish(figure, _finding(frame, counts), words)


def _form(frame: "pd.DataFrame", count: int) -> str:
    """Name a form of the model."""
    family = str(frame[frame["kv_heads"] == count]["family"].iloc[0])
    heads = "" if "latent" in family else f", {plural(int(count), 'KV head')}"
    return f"{family}{heads}"


def _finding(frame: "pd.DataFrame", counts: list[int]) -> str:
    """Say what sharing the reads brings for the most and the fewest KV heads."""
    asked = frame[frame["asked"] & (frame["variant"] == "bifurcated")]
    if not len(asked):
        asked = frame[frame["variant"] == "bifurcated"]
    gains = asked.groupby("kv_heads")["speedup"].first()
    samples = plural(int(asked["samples"].iloc[0]), "sample")
    words = [
        f"{style.faster(gains[count])} with {_form(frame, count)}"
        for count in dict.fromkeys((counts[0], counts[-1]))
    ]
    return f"At {samples} bifurcated is {'; '.join(words)}"
