"""A whole generation: how the step and the gain change as each sample decodes tokens."""

from typing import TYPE_CHECKING

from simulator.views.plots import axes, layout, palette, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_keys, add_line, by_variant, comparable, fit_words

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def generation(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw step and gain against decoded tokens; ``frame`` as of :func:`frames.by_own_tokens`."""
    figure = panels.new_panels(["", ""], 1, 1, shared=False)
    for line in by_variant(frame, "decoded_tokens"):
        add_line(
            figure,
            line,
            "decoded_tokens",
            "step_ms",
            hover="%{x:,} own tokens: %{y:.4g} ms",
            bounds=False,
            row=1,
            col=1,
        )
    bifurcated = frame[frame["variant"] == "bifurcated"].sort_values("decoded_tokens")
    for column, name, colour, dash in (
        ("speedup", "speed-up of the step", palette.INK, "solid"),
        ("kv_io_ratio", "KV-IO ratio", palette.GREY, "dashdot"),
    ):
        figure.add_scatter(
            x=bifurcated["decoded_tokens"].tolist(),
            y=bifurcated[column].tolist(),
            mode="lines" if len(bifurcated) > 1 else "lines+markers",
            line={"color": colour, "dash": dash, "width": 2.5},
            name=name,
            hovertemplate=f"%{{x:,}} own tokens: {name} %{{y:.3g}}<extra></extra>",
            row=1,
            col=2,
        )
    add_keys(figure, frame, bounds=False)
    for number in range(2):
        axes.log_axis(
            figure,
            panels.axis_name("xaxis", number),
            frame["decoded_tokens"],
            "own tokens of each sample [tokens]",
            text=axes.size_text,
        )
    axes.log_axis(figure, "yaxis", frame["step_ms"], "step [ms]", pad=0.1)
    gains = [*bifurcated["speedup"], *bifurcated["kv_io_ratio"], 1.0]
    axes.log_axis(figure, "yaxis2", gains, "ratio [times]", most_ticks=8)
    return layout.finish(figure, _finding(frame), caption)


def _finding(frame: "pd.DataFrame") -> str:
    """Say how the gain fades from the first step to the last, and what it is over all steps."""
    there = comparable(frame).sort_values("decoded_tokens")
    if not len(there):
        return f"No step to compare{fit_words(frame)}"
    first, last = there.iloc[0], there.iloc[-1]
    if len(there) == 1:
        return f"The only step is {texts.faster(first['speedup'])} with bifurcated attention"
    words = {texts.faster(ratio) for ratio in (first["speedup"], last["speedup"])}
    if len(words) == 1:
        return f"Bifurcated is {words.pop()} from the first step to the last{fit_words(frame)}"
    standard = frame[(frame["variant"] == "standard") & frame["both_fit"].astype(bool)]
    unfit = fit_words(frame)
    steps = f"these steps{unfit}" if unfit else "all steps"
    over_all = _mean(standard.sort_values("decoded_tokens")) / _mean(there)
    return (
        f"Bifurcated is {texts.faster(first['speedup'])} at first, "
        f"{texts.faster(last['speedup'])} at {int(last['decoded_tokens']):,} own tokens, "
        f"{texts.faster(over_all)} over {steps}"
    )


def _mean(steps: "pd.DataFrame") -> float:
    """Return the mean step over all own tokens, by the trapezoidal rule. [ms]."""
    import numpy as np

    tokens, step_ms = (steps[name].to_numpy(dtype=float) for name in ("decoded_tokens", "step_ms"))
    # numpy has a function for it from 2.0 on, and another one before.
    areas = np.diff(tokens) * (step_ms[1:] + step_ms[:-1]) / 2
    return float(areas.sum() / (tokens[-1] - tokens[0]))
