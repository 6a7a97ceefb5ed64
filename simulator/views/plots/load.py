"""A deployment under load: throughput of a GPU against what a user sees, over concurrency."""

from typing import TYPE_CHECKING

from simulator.answers.frames import of_curve
from simulator.answers.load import Curve
from simulator.views.plots import style
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.lines import variants
from simulator.views.plots.style import Caption
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def load(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the curve of each way of attention; ``frame`` as of :func:`frames.by_concurrency`."""
    import plotly.graph_objects as go

    figure = style.new_figure()
    for variant in variants(frame):
        part = frame[frame["variant"] == variant].sort_values("concurrency")
        line = style.line_style(variant)
        figure.add_trace(
            go.Scatter(
                x=part["tokens_per_s_per_user"].tolist(),
                y=part["tokens_per_s_per_gpu"].tolist(),
                mode="lines+markers",
                line=line,
                marker={"size": 8, "color": line["color"]},
                name=style.LINES[variant].name,
                text=[
                    f"{plural(users, 'user')}, TTFT {first:,.4g} ms, TPOT {each:.4g} ms"
                    for users, first, each in zip(
                        part["concurrency"], part["ttft_ms"], part["tpot_ms"], strict=True
                    )
                ],
                hovertemplate="%{text}<br>%{x:.4g} tokens/s for a user, %{y:,.0f} of a GPU"
                f"<extra>{style.LINES[variant].name}</extra>",
            )
        )
    for axis, column, title in (
        ("xaxis", "tokens_per_s_per_user", "speed that a user sees [tokens/s]"),
        ("yaxis", "tokens_per_s_per_gpu", "throughput of one GPU [tokens/s]"),
    ):
        style.log_axis(figure, axis, frame[column], title, text=style.number_text)
    told = "Users ask again at once: one at the right end of a curve, as many as fit at its left."
    words = Caption(caption.subject, (told, *caption.notes))
    return style.finish(figure, _finding(frame), words)


def load_figure(curve: Curve) -> "go.Figure":
    """Draw a deployment's curve.

    Raises
    ------
    WorkloadError
        If a request does not fit.
    """
    study = study_of(curve.deployments[0].alone)
    return load(of_curve(curve), caption(study, ("decoded_tokens", "prompts")))


def _finding(frame: "pd.DataFrame") -> str:
    """Say how much more the best way carries at its end than standard attention."""
    most = frame.groupby("variant")["tokens_per_s_per_gpu"].max()
    best = str(most.idxmax())
    reached = f"{most[best]:,.0f} tokens/s per GPU"
    if best == "standard" or "standard" not in most:
        return f"Under load up to {reached}, {style.LINES[best].name}"
    return (
        f"Under load {style.LINES[best].name} carries {most[best] / most['standard']:.1f}x as "
        f"much as standard: up to {reached}"
    )
