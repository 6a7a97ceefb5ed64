"""A deployment under load: throughput of a GPU against what a user sees, over concurrency."""

from typing import TYPE_CHECKING

from simulator.answers.frames import of_curve
from simulator.answers.load import Curve
from simulator.views.plots import axes, layout, palette, panels
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import by_variant
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Of an axis without a point. [tokens/s]
_EMPTY_AXIS = (1.0, 100.0)


def load(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the curve of each way of attention; ``frame`` as of :func:`frames.by_concurrency`."""
    figure = panels.new_figure()
    for part in by_variant(frame, "concurrency"):
        variant = str(part["variant"].iloc[0])
        line = palette.line_style(variant)
        figure.add_scatter(
            x=part["tokens_per_s_per_user"].tolist(),
            y=part["tokens_per_s_per_gpu"].tolist(),
            mode="lines+markers",
            line=line,
            marker={"size": 8, "color": line["color"]},
            name=palette.LINES[variant].name,
            text=[
                f"{plural(users, 'user')}, TTFT {first:,.4g} ms, TPOT {each:.4g} ms"
                for users, first, each in zip(
                    part["concurrency"], part["ttft_ms"], part["tpot_ms"], strict=True
                )
            ],
            hovertemplate="%{text}<br>%{x:.4g} tokens/s for a user, %{y:,.0f} of a GPU"
            f"<extra>{palette.LINES[variant].name}</extra>",
        )
    for axis, column, title in (
        ("xaxis", "tokens_per_s_per_user", "speed that a user sees [tokens/s]"),
        ("yaxis", "tokens_per_s_per_gpu", "throughput of one GPU [tokens/s]"),
    ):
        values = frame[column] if len(frame) else _EMPTY_AXIS
        axes.log_axis(figure, axis, values, title)
    told = "Users ask again at once: one at the right end of a curve, as many as fit at its left."
    return layout.finish(figure, _finding(frame), caption.after(told))


def load_figure(curve: Curve) -> "go.Figure":
    """Draw a deployment's curve."""
    study = study_of(curve.deployments[0].alone)
    return load(of_curve(curve), caption(study, ("decoded_tokens", "prompts")))


def _finding(frame: "pd.DataFrame") -> str:
    """Say what the best way carries at most, and how much more than the next."""
    if not len(frame):
        return "A request does not fit in memory"
    most = frame.groupby("variant")["tokens_per_s_per_gpu"].max().sort_values(ascending=False)
    best, *others = (palette.LINES[str(variant)].name for variant in most.index)
    reached = f"{most.iloc[0]:,.0f} tokens/s per GPU"
    if not others:
        return f"Under load up to {reached}"
    return (
        f"Under load {best} carries up to {reached}, {most.iloc[0] / most.iloc[1]:.1f}x as much as "
        f"{others[0]}"
    )
