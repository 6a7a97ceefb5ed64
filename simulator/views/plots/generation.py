"""A whole generation: how the step and the gain change as each sample decodes tokens."""

from simulator.numeric import Frame
from simulator.views.plots import axes, layout, lines, palette, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure


def generation(frame: Frame, caption: Caption) -> Figure:
    """Draw step and gain against decoded tokens; ``frame`` as of :func:`frames.by_own_tokens`."""
    figure, x = panels.new_panels(["", ""], 1, 1, shared=False), "decoded_tokens"
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
    return layout.finish(figure, _finding(frame), caption)


def _finding(frame: Frame) -> str:
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
