"""Memory against samples, up to what the card holds."""

from typing import TYPE_CHECKING

from simulator.units import GIB, format_gib
from simulator.views.plots import axes, layout, palette, panels
from simulator.views.plots.latency import SAMPLES_TITLE
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_keys, add_line, by_variant
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# How far above the card's memory the axis goes.
_ABOVE = 4


def memory(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw memory against samples; ``frame`` as of :func:`frames.memory_by_samples`."""
    frame = frame.assign(memory_gib=frame["memory_bytes"] / GIB)
    capacity = float(frame["capacity_bytes"].iloc[0]) / GIB
    weights = float(frame["weights_bytes"].iloc[0]) / GIB
    figure = panels.new_figure()
    ends = [float(frame["samples"].min()), float(frame["samples"].max())]
    for name, value, dash in (
        ("card's usable memory", capacity, "solid"),
        ("weights", weights, "dot"),
    ):
        figure.add_scatter(
            x=ends,
            y=[value, value],
            mode="lines",
            line={
                "color": palette.INK if dash == "solid" else palette.GREY,
                "dash": dash,
                "width": 2,
            },
            name=f"{name}, {format_gib(value * GIB)}",
            hovertemplate=f"{name}: %{{y:.1f}} GiB<extra></extra>",
        )
    # With one stored context both take nearly the same: the dotted line lies on the other.
    hover = "%{x:,} samples: %{y:.4g} GiB"
    for part in reversed(by_variant(frame, "samples")):
        add_line(figure, part, "samples", "memory_gib", hover=hover, bounds=False)
    add_keys(figure, frame, bounds=False)
    axes.log_axis(figure, "xaxis", frame["samples"], SAMPLES_TITLE, text=axes.size_text)
    shown = frame["memory_gib"].clip(upper=max(capacity * _ABOVE, 2 * frame["memory_gib"].min()))
    axes.log_axis(figure, "yaxis", [*shown, weights, capacity], "memory of one GPU [GiB]")
    return layout.finish(figure, _finding(frame), caption)


def _finding(frame: "pd.DataFrame") -> str:
    """Say how many samples fit, each way."""
    capacity = format_gib(float(frame["capacity_bytes"].iloc[0]))
    fitting = frame[frame["fits"].astype(bool)]
    most = fitting.groupby("variant")["samples"].max()
    if "bifurcated" not in most:
        return f"Not even {plural(int(frame['samples'].min()), 'sample')} fits in {capacity}"
    last = int(frame["samples"].max())
    standard, bifurcated = int(most.get("standard", 0)), int(most["bifurcated"])
    if standard == bifurcated:
        drawn = f"Even {last:,}" if standard == last else f"At most {standard:,}"
        return f"{drawn} samples fit with either kind of attention"
    held = f"fits {plural(standard, 'sample')}" if standard else "does not fit"
    beyond = " and more" if bifurcated == last else ""
    return f"Standard {held} in {capacity}, bifurcated {bifurcated:,}{beyond}"
