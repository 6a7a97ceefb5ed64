"""A step along samples, context or own tokens: time, also for every kernel, and memory."""

import math
from collections.abc import Mapping
from typing import Any

from simulator.answers.verdict import OPEN
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.units import GIB, MILLISECOND, format_gib, format_time, format_tokens
from simulator.views.plots import axes, layout, lines, palette, texts
from simulator.views.plots.layout import Caption, Figure
from simulator.views.text import plural

STEP_TITLE = "time of a decode step [ms]"
TITLES = {"samples": "samples per context [sequences]", "context_tokens": "shared context [tokens]"}


def latency(frame: Frame, caption: Caption, axis: str) -> Figure:
    """Draw the step's time against samples or context.

    Parameters
    ----------
    frame, axis
        As of :func:`frames.by_samples` or :func:`frames.by_context`, and the column that varies.
    caption
        The subject and the assumptions.
    """
    figure, title = layout.new_figure(), TITLES[axis]
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
    return layout.finish(figure, _latency_finding(frame, axis), words)


def _latency_finding(frame: Frame, axis: str) -> str:
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
    figure = layout.new_panels(list(named), *columns)
    for panel, frame in enumerate(named.values()):
        hover = "{samples:,} samples: {step_ms:.4g} ms"
        lines.add_lines(figure, frame, "samples", "step_ms", hover, panel=panel)
        x, y = (layout.axis_name(axis, panel) for axis in ("xaxis", "yaxis"))
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
    every = frame[frame["asked"]]
    samples = plural(int(every["samples"].iloc[0]), "sample")
    asked = lines.comparable(every)
    if not len(asked):
        return f"At {samples} no kernel fits both kinds of attention in memory"
    most, least = (
        f"{texts.faster(point['speedup'])} with {point['kernel']} ({point['execution']})"
        for point in (asked.loc[asked["speedup"].idxmax()], asked.loc[asked["speedup"].idxmin()])
    )
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


# How far above the card's memory the axis goes.
_ABOVE = 4


def memory(frame: Frame, caption: Caption) -> Figure:
    """Draw memory against samples; ``frame`` as of :func:`frames.memory_by_samples`."""
    frame = frame.assign(gib=frame["memory_bytes"] / GIB)
    capacity, weights = (
        float(frame[f"{name}_bytes"].iloc[0]) / GIB for name in ("capacity", "weights")
    )
    figure = layout.new_figure()
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
    axes.log_axis(figure, "xaxis", frame["samples"], TITLES["samples"], text=axes.size_text)
    shown = frame["gib"].clip(upper=max(capacity * _ABOVE, 2 * frame["gib"].min()))
    axes.log_axis(figure, "yaxis", [*shown, weights, capacity], "memory of one GPU [GiB]")
    return layout.finish(figure, _memory_finding(frame), caption)


def _memory_finding(frame: Frame) -> str:
    """Say how many samples fit, each way."""
    capacity = format_gib(frame["capacity_bytes"].iloc[0])
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


def generation(frame: Frame, caption: Caption) -> Figure:
    """Draw step and gain against decoded tokens; ``frame`` as of :func:`frames.by_own_tokens`."""
    figure, x = layout.new_panels(["", ""], 1, 1, shared=False), "decoded_tokens"
    lines.add_lines(figure, frame, x, "step_ms", f"{{{x}:,}} own tokens: {{step_ms:.4g}} ms")
    gains = frame[frame["variant"] == "bifurcated"].sort_values(x)
    for column, name, colour, dash in (
        ("speedup", "speed-up of the step", palette.INK, "solid"),
        ("kv_io_ratio", "KV-IO ratio", palette.GREY, "dashdot"),
    ):
        hover = f"{{{x}:,}} own tokens: {name} {{{column}:.3g}}"
        line = {"color": colour, "dash": dash, "width": 2.5}
        mode = "lines" if len(gains) > 1 else "lines+markers"
        drawn = {"mode": mode, "line": line, "name": name}
        lines.add(figure, gains, x, column, drawn, hover=hover, panel=1)
    lines.add_keys(figure, frame)
    title = "own tokens of each sample [tokens]"
    for axis in ("xaxis", "xaxis2"):
        axes.log_axis(figure, axis, frame[x], title, text=axes.size_text)
    axes.log_axis(figure, "yaxis", frame["step_ms"], "step [ms]", pad=0.1)
    ratios = [*gains["speedup"], *gains["kv_io_ratio"], 1.0]
    axes.log_axis(figure, "yaxis2", ratios, "ratio [times]", most_ticks=8)
    return layout.finish(figure, _generation_finding(frame), caption)


def _generation_finding(frame: Frame) -> str:
    """Say how the gain fades from the first step to the last, and what it is over all steps."""
    there = lines.comparable(frame).sort_values("decoded_tokens")
    unfit = lines.fit_words(frame)
    if not len(there):
        return f"No step to compare{unfit}"
    first, last = (texts.faster(there.iloc[at]["speedup"]) for at in (0, -1))
    if len(there) == 1:
        return f"The only step is {first} with bifurcated attention"
    if first == last:
        return f"Bifurcated is {first} from the first step to the last{unfit}"
    standard = frame[(frame["variant"] == "standard") & frame["both_fit"].astype(bool)]
    over_all = texts.faster(_mean(standard.sort_values("decoded_tokens")) / _mean(there))
    tokens = int(there.iloc[-1]["decoded_tokens"])
    steps = f"these steps{unfit}" if unfit else "all steps"
    return (
        f"Bifurcated is {first} at first, {last} at {tokens:,} own tokens, {over_all} over {steps}"
    )


def _mean(steps: Frame) -> float:
    """Return the mean step over all own tokens, by the trapezoidal rule. [ms]."""
    import numpy as np

    tokens, step_ms = (steps[name].to_numpy(dtype=float) for name in ("decoded_tokens", "step_ms"))
    # numpy has a function for it from 2.0 on, and another one before.
    areas = np.diff(tokens) * (step_ms[1:] + step_ms[:-1]) / 2
    return float(areas.sum() / (tokens[-1] - tokens[0]))
