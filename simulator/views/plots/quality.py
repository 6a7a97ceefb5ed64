"""Quality against latency: the pass@k that a decode step or a request buys."""

import math

from simulator.answers.quality import Quality
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.units import MILLISECOND
from simulator.views.plots import axes, layout, lines, palette
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption, Figure
from simulator.views.quality import quality_rows

# By column: what is timed, its title, and its unit.
TIMES = {
    "step_ms": ("step", "time of a decode step [ms]", "ms"),
    "request_s": ("request", "time of the whole request [s]", "s"),
}
# A probability from here on is as good as the end of its line.
NEARLY = 0.999


def quality_latency(
    frame: Frame, caption: Caption, *, axis: str = "step_ms", target: float | None = None
) -> Figure:
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
    figure = layout.new_figure()
    _, title, unit = TIMES[axis]
    drawn = [target] if target else []
    for attention in ATTENTIONS:
        part = _worth_drawing(frame[frame["attention"] == attention].sort_values("samples"))
        _add_line(figure, part, axis, attention)
        drawn += [*part[axis]]
    if target is not None:
        figure.add_vline(x=target, line={"color": palette.INK, "dash": "dot", "width": 1.5})
        place = {"yref": "paper", "yanchor": "bottom"}
        layout.label(figure, f" target {target:g} {unit}", (math.log10(target), 0.02), place)
    # With room on a phone for the number beside the first points.
    axes.log_axis(figure, "xaxis", drawn, title, pad=0.07)
    figure.layout.yaxis.update(range=[0, 1.07], tickformat=".0%", title_text="expected pass@k")
    note = "Beside a point: its samples, k. Pale: does not fit in memory."
    if frame["pass_at_k_stderr"].notna().any():
        note += " Band: standard error over problems."
    return layout.finish(figure, _finding(frame, axis, target), caption.after(note))


def _worth_drawing(part: Frame) -> Frame:
    """Leave out points that do not fit once more samples gain nothing."""
    enough = part["pass_at_k"] >= NEARLY * part["pass_at_k"].max()
    useless = ~part["fits"].astype(bool) & enough.shift(fill_value=False)
    return part[~useless]


def _add_line(figure: Figure, part: Frame, axis: str, attention: str) -> None:
    """Add the line of one kind of attention, pale where it does not fit, and its errors' band."""
    line = palette.LINES[attention]
    known = part[part["pass_at_k_stderr"].notna() & part["fits"].astype(bool)]
    if len(known):
        error = known["pass_at_k_stderr"].astype(float)
        low, high = (known["pass_at_k"] + sign * error for sign in (-1, 1))
        ends = low.clip(lower=0), high.clip(upper=1)
        lines.add_area(figure, known[axis], *ends, palette.pale(line["color"]))
    hover = f"{attention}<br>{{samples:,}} samples: {{{axis}:.4g}} {TIMES[axis][-1]}, "
    hover += "pass@k {pass_at_k:.4f}"
    # Every second power of two is named; more would run into one another.
    names = [
        f"{samples:,}" if samples & (samples - 1) == 0 and samples.bit_length() % 2 else ""
        for samples in map(int, part["samples"])
    ]
    for number, (piece, opacity) in enumerate(lines.by_fit(part.assign(name=names))):
        drawn = {
            "mode": "lines+markers+text",
            "line": line,
            "marker": {"size": 7, "color": line["color"]},
            "opacity": opacity,
            "text": piece["name"].tolist() if opacity == 1 else None,
            "textposition": "bottom right" if attention == "standard" else "top left",
            "textfont": {"size": 11, "color": line["color"]},
            "name": attention,
            "legendgroup": attention,
            "showlegend": number == 0,
        }
        lines.add(figure, piece, axis, "pass_at_k", drawn, hover=hover)


def _finding(frame: Frame, axis: str, target: float | None) -> str:
    """Say what the target buys, or without one what memory allows."""
    bought = []
    for attention in ATTENTIONS:
        part = frame[(frame["attention"] == attention) & frame["fits"].astype(bool)]
        part = part if target is None else part[part[axis] <= target]
        got = "nothing"
        if len(part):
            best = part.loc[part["samples"].idxmax()]
            sure = NEARLY <= best["pass_at_k"] < 1
            share = "over 99.9%" if sure else f"{best['pass_at_k']:.1%}"
            got = f"pass@{int(best['samples'])} of {share}"
        bought.append(f"{got} with {attention} attention")
    what, _, unit = TIMES[axis]
    limit = f"A {target:g} {unit} {what}" if target is not None else "Memory"
    return f"{limit} buys {' and '.join(bought)}"


def quality_figure(result: Quality) -> Figure:
    """Draw pass@k against the request's time if it has a target, else against the step's."""
    import pandas as pd

    about = caption(study_of(result.results["standard"]), ("samples",))
    about = about.after(f"pass@k: {result.success.source}.")
    frame = pd.DataFrame(quality_rows(result))
    frame["request_s"] = [point.request_s for points in result.points.values() for point in points]
    if result.target_request_s is not None:
        return quality_latency(frame, about, axis="request_s", target=result.target_request_s)
    target_s = result.target_step_s
    return quality_latency(frame, about, target=target_s and target_s / MILLISECOND)
