"""Quality against latency: the pass@k that a decode step or a request buys."""

import math
from typing import TYPE_CHECKING, Any

from simulator.answers.quality import Quality
from simulator.units import MILLISECOND
from simulator.views.plots import axes, layout, palette, panels
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_area, by_fit
from simulator.views.quality import quality_rows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

TITLES = {"step_ms": "time of a decode step [ms]", "request_s": "time of the whole request [s]"}
UNITS = {"step_ms": "ms", "request_s": "s"}
# A probability from here on is as good as the end of its line.
NEARLY = 0.999


def quality_latency(
    frame: "pd.DataFrame", caption: Caption, *, axis: str = "step_ms", target: float | None = None
) -> "go.Figure":
    """Draw pass@k against latency, a line for each kind of attention.

    Parameters
    ----------
    frame
        The rows of ``bifurcate quality --format csv``, and ``request_s``.
    axis
        ``step_ms`` or ``request_s``.
    target
        Longest acceptable, in the axis's unit.
    """
    figure = panels.new_figure()
    drawn: list[float] = []
    for attention in ("standard", "bifurcated"):
        part = _worth_drawing(frame[frame["attention"] == attention].sort_values("samples"))
        _add_band(figure, part, axis)
        _add_lines(figure, part, axis)
        drawn += [*part[axis]]
    if target is not None:
        figure.add_vline(x=target, line={"color": palette.INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(
            x=math.log10(target),
            y=0.02,
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            text=f" target {target:g} {UNITS[axis]}",
            showarrow=False,
            font={"size": 11},
        )
    axes.log_axis(
        figure,
        "xaxis",
        [*drawn, *([target] if target else [])],
        TITLES[axis],
        pad=0.07,  # room on a phone for the number beside the first points
    )
    figure.layout["yaxis"].update(range=[0, 1.07], tickformat=".0%")
    figure.layout["yaxis"].title.text = "expected pass@k"
    note = "Beside a point: its samples, k. Pale: does not fit in memory."
    if frame["pass_at_k_stderr"].notna().any():
        note += " Band: standard error over problems."
    return layout.finish(figure, _finding(frame, axis, target), caption.after(note))


def _worth_drawing(part: "pd.DataFrame") -> "pd.DataFrame":
    """Leave out points that do not fit once more samples gain nothing."""
    enough = part["pass_at_k"] >= NEARLY * part["pass_at_k"].max()
    useless = ~part["fits"].astype(bool) & enough.shift(fill_value=False)
    return part[~useless]


def _add_band(figure: "go.Figure", part: "pd.DataFrame", axis: str) -> None:
    """Add the standard error on both sides, where it is known."""
    known = part[part["pass_at_k_stderr"].notna() & part["fits"].astype(bool)]
    if not len(known):
        return
    error = known["pass_at_k_stderr"].astype(float)
    up, down = (known["pass_at_k"] + error).clip(upper=1), (known["pass_at_k"] - error).clip(0)
    add_area(figure, known[axis], down, up, str(part["attention"].iloc[0]))


def _add_lines(figure: "go.Figure", part: "pd.DataFrame", axis: str) -> None:
    """Add the line of one kind of attention: strong where it fits in memory, pale beyond."""
    attention = str(part["attention"].iloc[0])
    line = palette.line_style(attention)
    for number, (piece, opacity) in enumerate(by_fit(part)):
        figure.add_scatter(
            x=piece[axis].tolist(),
            y=piece["pass_at_k"].tolist(),
            mode="lines+markers+text",
            line=line,
            marker={"size": 7, "color": line["color"]},
            opacity=opacity,
            text=_labels(piece) if opacity == 1 else None,
            textposition="bottom right" if attention == "standard" else "top left",
            textfont={"size": 11, "color": line["color"]},
            name=palette.LINES[attention].name,
            legendgroup=attention,
            showlegend=number == 0,
            customdata=piece["samples"].tolist(),
            hovertemplate=f"{palette.LINES[attention].name}<br>%{{customdata:,}} samples: "
            f"%{{x:.4g}} {UNITS[axis]}, pass@k %{{y:.4f}}<extra></extra>",
        )


def _labels(piece: "pd.DataFrame") -> list[str]:
    """Write the samples beside every second power of two; more would run into one another."""
    return [
        f"{samples:,}" if samples & (samples - 1) == 0 and samples.bit_length() % 2 else ""
        for samples in map(int, piece["samples"])
    ]


def _finding(frame: "pd.DataFrame", axis: str, target: float | None) -> str:
    """Say what the target buys, or without one what memory allows."""
    words = []
    for attention in ("standard", "bifurcated"):
        part = frame[(frame["attention"] == attention) & frame["fits"].astype(bool)]
        if target is not None:
            part = part[part[axis] <= target]
        words.append(f"{_bought(part)} with {attention} attention")
    what = "step" if axis == "step_ms" else "request"
    limit = f"A {target:g} {UNITS[axis]} {what}" if target is not None else "Memory"
    return f"{limit} buys {' and '.join(words)}"


def _bought(part: "Any") -> str:
    """Say the best of the points that are left."""
    if not len(part):
        return "nothing"
    best = part.sort_values("samples").iloc[-1]
    samples = int(best["samples"])
    share = best["pass_at_k"]
    return f"pass@{samples} of {f'{share:.1%}' if share < NEARLY or share == 1 else 'over 99.9%'}"


def quality_figure(result: Quality) -> "go.Figure":
    """Draw pass@k against the request's time if it has a target, else against the step's."""
    import pandas as pd

    by_request = result.target_request_s is not None
    about = caption(study_of(result.results["standard"]), ("samples",))
    frame = pd.DataFrame(quality_rows(result))
    frame["request_s"] = [point.request_s for points in result.points.values() for point in points]
    target_s = result.target_request_s if by_request else result.target_step_s
    return quality_latency(
        frame,
        about.after(f"pass@k: {result.success.source}."),
        axis="request_s" if by_request else "step_ms",
        target=target_s if by_request or target_s is None else target_s / MILLISECOND,
    )
