"""A deployment under load: throughput of a GPU against what a user sees, over concurrency."""

from simulator.answers.frames import of_curve
from simulator.answers.load import Curve
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.views.plots import axes, layout, lines, palette, panels
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure

# Of an axis without a point. [tokens/s]
_EMPTY_AXIS = (1.0, 100.0)
_HOVER = (
    "{variant}, {concurrency:,} at once: TTFT {ttft_ms:,.4g} ms, TPOT {tpot_ms:.4g} ms<br>"
    "{tokens_per_s_per_user:.4g} tokens/s for a user, {tokens_per_s_per_gpu:,.0f} of a GPU"
)


def load(frame: Frame, caption: Caption) -> Figure:
    """Draw the curve of each way of attention; ``frame`` as of :func:`frames.by_concurrency`."""
    figure, x, y = panels.new_figure(), "tokens_per_s_per_user", "tokens_per_s_per_gpu"
    for variant in ATTENTIONS:
        part = frame[frame["variant"] == variant].sort_values("concurrency")
        if len(part):
            line, name = palette.line_style(variant), palette.LINES[variant].name
            marker = {"size": 8, "color": line["color"]}
            drawn = {"mode": "lines+markers", "line": line, "marker": marker, "name": name}
            lines.add(figure, part, x, y, drawn, hover=_HOVER)
    for axis, column, title in (
        ("xaxis", x, "speed that a user sees [tokens/s]"),
        ("yaxis", y, "throughput of one GPU [tokens/s]"),
    ):
        axes.log_axis(figure, axis, frame[column] if len(frame) else _EMPTY_AXIS, title)
    told = "Users ask again at once: one at the right end of a curve, as many as fit at its left."
    return layout.finish(figure, _finding(frame), caption.after(told))


def load_figure(curve: Curve) -> Figure:
    """Draw a deployment's curve."""
    study = study_of(curve.deployments[0].alone)
    return load(of_curve(curve), caption(study, ("decoded_tokens", "prompts")))


def _finding(frame: Frame) -> str:
    """Say what the best way carries at most, and how much more than the next."""
    if not len(frame):
        return "A request does not fit in memory"
    most = frame.groupby("variant")["tokens_per_s_per_gpu"].max().sort_values(ascending=False)
    best, *others = (palette.LINES[str(variant)].name for variant in most.index)
    more = f", {most.iloc[0] / most.iloc[1]:.1f}x as much as {others[0]}" if others else ""
    return f"Under load {best} carries up to {most.iloc[0]:,.0f} tokens/s per GPU{more}"
