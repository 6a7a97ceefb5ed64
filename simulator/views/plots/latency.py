"""Time of a decode step along samples and context, and for every kernel and execution."""

import math
from typing import TYPE_CHECKING, Any

from simulator.answers.verdict import OPEN
from simulator.units import MILLISECOND, format_time, format_tokens
from simulator.views.plots import axes, layout, lines, palette, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

STEP_TITLE = "time of a decode step [ms]"
SAMPLES_TITLE = "samples per context [sequences]"
CONTEXT_TITLE = "shared context [tokens]"


def latency_samples(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the step's time against samples; ``frame`` as of :func:`frames.by_samples`."""
    return _latency(frame, caption, "samples", SAMPLES_TITLE)


def latency_context(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the step's time against the context; ``frame`` as of :func:`frames.by_context`."""
    return _latency(frame, caption, "context_tokens", CONTEXT_TITLE)


def _latency(frame: "pd.DataFrame", caption: Caption, axis: str, title: str) -> "go.Figure":
    """Draw the step's time against an axis."""
    figure = panels.new_figure()
    hover = f"%{{x:,}} {title.partition(' ')[0]}: %{{y:.4g}} ms"
    parts = lines.by_variant(frame, axis)
    for part in parts:
        lines.add_band(figure, part, axis)
    for part in parts:
        lines.add_line(figure, part, axis, "step_ms", hover=hover)
    target_ms = float(frame["target_step_ms"].iloc[0])
    if target_ms > 0:
        lines.add_rule(
            figure,
            [float(frame[axis].min()), float(frame[axis].max())],
            [target_ms, target_ms],
            f"target, {format_time(target_ms * MILLISECOND)}",
            color=palette.GREEN,
            dash="longdashdot",
            width=1.5,
        )
    lines.add_keys(figure, frame)
    axes.log_axis(figure, "xaxis", frame[axis], title, text=axes.size_text)
    held = frame[frame["fits"].astype(bool) & (frame["step_ms_high"] < math.inf)]
    shown = [*frame["step_ms"], *held["step_ms_low"], *held["step_ms_high"]]
    axes.log_axis(figure, "yaxis", shown, STEP_TITLE)
    words = caption.after("Shaded: where 80% of measured steps should lie.")
    return layout.finish(figure, finding(frame, axis), words)


def finding(frame: "pd.DataFrame", axis: str) -> str:
    """Say how much faster bifurcated attention is, and where either runs out of memory."""
    standard = frame[frame["variant"] == "standard"].sort_values(axis)
    bifurcated = frame[frame["variant"] == "bifurcated"].sort_values(axis)
    both = standard["fits"].to_numpy(dtype=bool) & bifurcated["fits"].to_numpy(dtype=bool)
    ends = _ends({"standard": standard, "bifurcated": bifurcated}, axis)
    if not bifurcated["fits"].any():
        return f"Nothing fits in memory, not even {_size(axis, bifurcated[axis].min())}"
    if not both.any():
        only = "bifurcated" if bifurcated["fits"].any() else "standard"
        return "; ".join([f"Only {only} attention fits in memory", *ends[-1:]])
    there = bifurcated[both]
    asked = there[there["asked"]]
    point = (asked if len(asked) else there).iloc[-1]
    return "; ".join([f"{compared(point)} at {_size(axis, point[axis])}", *ends])


def _ends(parts: dict[str, "pd.DataFrame"], axis: str) -> list[str]:
    """Say where each kind of attention runs out of memory, of those that do."""
    ends = {
        name: _size(axis, part[~part["fits"].astype(bool)][axis].min())
        for name, part in parts.items()
        if not part["fits"].all() and part["fits"].any()
    }
    if len(set(ends.values())) == 1 and len(ends) > 1:
        return [f"both run out of memory at {ends['standard']}"]
    return [f"{name} runs out of memory at {end}" for name, end in ends.items()]


def compared(point: Any) -> str:
    """Say how bifurcated attention compares at a point, and if that is within the model's error."""
    unsure = f" ({point['verdict']})" if point["verdict"] in OPEN else ""
    return f"Bifurcated is {texts.faster(point['speedup'])}{unsure}"


def _size(axis: str, value: Any) -> str:
    """Write a value of an axis with its noun."""
    if axis == "context_tokens":
        return f"{format_tokens(int(value))} tokens of context"
    return plural(int(value), "sample")


def latency_kernels(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the step's time against samples, a panel for each kernel and execution.

    ``frame`` as of :func:`frames.by_kernel`.
    """
    ways = list(dict.fromkeys(zip(frame["kernel"], frame["execution"], strict=True)))
    figure = panels.new_panels([f"{kernel}, {execution}" for kernel, execution in ways], 4, 2)
    drawn = [
        lines.by_variant(
            frame[(frame["kernel"] == kernel) & (frame["execution"] == execution)], "samples"
        )
        for kernel, execution in ways
    ]
    lines.add_step_panels(figure, drawn, frame, most_ticks=(6, 8))
    return layout.finish(figure, _kernels_finding(frame), caption)


def _kernels_finding(frame: "pd.DataFrame") -> str:
    """Say in which setting bifurcated attention gains most and least at the samples asked for."""
    asked = lines.comparable(frame[frame["asked"]])
    if not len(asked):
        return "With no kernel both kinds of attention fit in memory"
    most, least = asked.loc[asked["speedup"].idxmax()], asked.loc[asked["speedup"].idxmin()]
    return (
        f"At {plural(int(most['samples']), 'sample')} bifurcated is "
        f"{texts.faster(most['speedup'])} with {most['kernel']} ({most['execution']}), "
        f"{texts.faster(least['speedup'])} with {least['kernel']} ({least['execution']})"
    )
