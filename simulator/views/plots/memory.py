"""Memory against samples, up to what the card holds."""

from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.units import GIB, format_gib
from simulator.views.plots import axes, layout, lines, palette, panels
from simulator.views.plots.latency import SAMPLES_TITLE
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
from simulator.views.text import plural

# How far above the card's memory the axis goes.
_ABOVE = 4


def memory(frame: Frame, caption: Caption) -> Figure:
    """Draw memory against samples; ``frame`` as of :func:`frames.memory_by_samples`."""
    frame = frame.assign(gib=frame["memory_bytes"] / GIB)
    capacity, weights = (
        float(frame[f"{name}_bytes"].iloc[0]) / GIB for name in ("capacity", "weights")
    )
    figure = panels.new_figure()
    ends = [float(frame["samples"].min()), float(frame["samples"].max())]
    for name, value, line in (
        ("card's usable memory", capacity, {"color": palette.INK, "dash": "solid"}),
        ("weights", weights, {"color": palette.GREY, "dash": "dot"}),
    ):
        said = f"{name}, {format_gib(value * GIB)}"
        lines.add_rule(figure, ends, [value, value], said, **line, width=2)
    # With one stored context both take nearly the same: the dotted line lies on the other.
    hover = "{samples:,} samples: {gib:.4g} GiB"
    lines.add_lines(figure, frame, "samples", "gib", hover, order=ATTENTIONS[::-1])
    lines.add_keys(figure, frame)
    axes.log_axis(figure, "xaxis", frame["samples"], SAMPLES_TITLE, text=axes.size_text)
    shown = frame["gib"].clip(upper=max(capacity * _ABOVE, 2 * frame["gib"].min()))
    axes.log_axis(figure, "yaxis", [*shown, weights, capacity], "memory of one GPU [GiB]")
    return layout.finish(figure, _finding(frame), caption)


def _finding(frame: Frame) -> str:
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
