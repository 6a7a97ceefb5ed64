"""Time of a decode step along samples and context; in panels, for every kernel or KV heads."""

import math
from collections.abc import Mapping
from typing import Any

from simulator.answers.verdict import OPEN
from simulator.numeric import Frame
from simulator.units import MILLISECOND, format_time, format_tokens
from simulator.views.plots import axes, layout, lines, palette, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
from simulator.views.text import plural

STEP_TITLE = "time of a decode step [ms]"
SAMPLES_TITLE = "samples per context [sequences]"
CONTEXT_TITLE = "shared context [tokens]"


def latency_samples(frame: Frame, caption: Caption) -> Figure:
    """Draw the step's time against samples; ``frame`` as of :func:`frames.by_samples`."""
    return _latency(frame, caption, "samples", SAMPLES_TITLE)


def latency_context(frame: Frame, caption: Caption) -> Figure:
    """Draw the step's time against the context; ``frame`` as of :func:`frames.by_context`."""
    return _latency(frame, caption, "context_tokens", CONTEXT_TITLE)


def _latency(frame: Frame, caption: Caption, axis: str, title: str) -> Figure:
    """Draw the step's time against an axis."""
    figure = panels.new_figure()
    lines.add_bands(figure, frame, axis)
    hover = f"{{{axis}:,}} {title.partition(' ')[0]}: {{step_ms:.4g}} ms"
    lines.add_lines(figure, frame, axis, "step_ms", hover, bounds=True)
    target_ms = float(frame["target_step_ms"].iloc[0])
    if target_ms > 0:
        ends = [float(frame[axis].min()), float(frame[axis].max())]
        name = f"target, {format_time(target_ms * MILLISECOND)}"
        style = {"color": palette.GREEN, "dash": "longdashdot", "width": 1.5}
        lines.add_rule(figure, ends, [target_ms, target_ms], name, **style)
    lines.add_keys(figure, frame, bounds=True)
    axes.log_axis(figure, "xaxis", frame[axis], title, text=axes.size_text)
    held = frame[frame["fits"].astype(bool) & (frame["step_ms_high"] < math.inf)]
    shown = [*frame["step_ms"], *held["step_ms_low"], *held["step_ms_high"]]
    axes.log_axis(figure, "yaxis", shown, STEP_TITLE)
    words = caption.after("Shaded: where 80% of measured steps should lie.")
    return layout.finish(figure, _finding(frame, axis), words)


def _finding(frame: Frame, axis: str) -> str:
    """Say how much faster bifurcated attention is, and where either runs out of memory."""
    parts = {
        name: part.sort_values(axis).set_index(axis, drop=False)
        for name, part in frame.groupby("variant")
    }
    ends = {
        name: _size(axis, parts[name][~parts[name]["fits"].astype(bool)][axis].min())
        for name in ("standard", "bifurcated")
        if parts[name]["fits"].any() and not parts[name]["fits"].all()
    }
    said = [f"{name} runs out of memory at {end}" for name, end in ends.items()]
    if len(ends) > 1 and len(set(ends.values())) == 1:
        said = [f"both run out of memory at {ends['standard']}"]
    bifurcated = parts["bifurcated"]
    if not bifurcated["fits"].any():
        return f"Nothing fits in memory, not even {_size(axis, bifurcated[axis].min())}"
    there = lines.comparable(bifurcated)
    if not len(there):
        return "; ".join(["Only bifurcated attention fits in memory", *said[-1:]])
    asked = there[there["asked"]]
    point = (asked if len(asked) else there).iloc[-1]
    unsure = f" ({point['verdict']})" if point["verdict"] in OPEN else ""
    first = f"Bifurcated is {texts.faster(point['speedup'])}{unsure}"
    return "; ".join([f"{first} at {_size(axis, point[axis])}", *said])


def _size(axis: str, value: Any) -> str:
    """Write a value of an axis with its noun."""
    if axis == "context_tokens":
        return f"{format_tokens(int(value))} tokens of context"
    return plural(int(value), "sample")


def _panels(
    named: Mapping[str, Frame], columns: tuple[int, int], most_ticks: tuple[int, int], drawn: Frame
) -> Figure:
    """Draw the step's time against samples, a panel for each name.

    Parameters
    ----------
    columns
        Panels beside each other, on a wide page and on a phone.
    most_ticks
        Of each axis, x and y.
    drawn
        All rows, which the axes of all panels span.
    """
    figure = panels.new_panels(list(named), *columns)
    for panel, frame in enumerate(named.values()):
        hover = "{samples:,} samples: {step_ms:.4g} ms"
        lines.add_lines(figure, frame, "samples", "step_ms", hover, panel=panel)
        x, y = (panels.axis_name(axis, panel) for axis in ("xaxis", "yaxis"))
        title, most = "samples [sequences]", most_ticks[0]
        axes.log_axis(figure, x, drawn["samples"], title, most_ticks=most, text=axes.size_text)
        axes.log_axis(figure, y, drawn["step_ms"], "step [ms]", most_ticks=most_ticks[1])
    lines.add_keys(figure, drawn)
    return figure


def latency_kernels(frame: Frame, caption: Caption) -> Figure:
    """Draw the step's time against samples, a panel for each kernel and execution.

    ``frame`` as of :func:`frames.by_kernel`.
    """
    ways = frame.groupby(["kernel", "execution"], sort=False)
    named = {f"{kernel}, {execution}": part for (kernel, execution), part in ways}
    figure = _panels(named, (4, 2), (6, 8), frame)
    return layout.finish(figure, _kernels_finding(frame), caption)


def _kernels_finding(frame: Frame) -> str:
    """Say in which setting bifurcated attention gains most and least at the samples asked for."""
    asked = lines.comparable(frame[frame["asked"]])
    if not len(asked):
        return "No kernel fits both kinds of attention in memory"
    most, least = (
        f"{texts.faster(point['speedup'])} with {point['kernel']} ({point['execution']})"
        for point in (asked.loc[asked["speedup"].idxmax()], asked.loc[asked["speedup"].idxmin()])
    )
    samples = plural(int(asked["samples"].iloc[0]), "sample")
    return f"At {samples} bifurcated is {most}, {least}"


def kv_heads(frame: Frame, caption: Caption) -> Figure:
    """Draw the step's time against samples, a panel for each number of KV heads.

    ``frame`` as of :func:`frames.by_kv_heads`.
    """
    names = {
        count: family if "latent" in family else f"{family}, {plural(int(count), 'KV head')}"
        for count, family in frame.groupby("kv_heads", sort=False)["family"].first().items()
    }
    named = {name: frame[frame["kv_heads"] == count] for count, name in names.items()}
    figure = _panels(named, (len(named), 1), (8, 10), frame)
    note = "Nothing but the KV heads differs between the panels: they are not of equal quality."
    words = caption.after(note) if len(named) > 1 else caption
    return layout.finish(figure, _heads_finding(frame, names), words)


def _heads_finding(frame: Frame, names: Mapping[Any, str]) -> str:
    """Say what sharing the reads brings for the most and the fewest KV heads."""
    asked = frame[frame["asked"]]
    if not len(asked):
        asked = frame[frame["samples"] == frame["samples"].min()]
    gains = lines.comparable(asked).set_index("kv_heads")["speedup"]
    samples = plural(int(asked["samples"].iloc[0]), "sample")
    named = [count for count in names if count in gains]
    if not named:
        return f"At {samples} no form fits with both kinds of attention"
    ends = dict.fromkeys((named[0], named[-1]))
    words = [f"{texts.faster(gains[count])} with {names[count]}" for count in ends]
    return f"At {samples} bifurcated is {'; '.join(words)}"
