"""Loss of attention families at equal size: against their KV bytes, and against their step."""

from collections.abc import Mapping
from typing import Any

from simulator._version import __version__
from simulator.answers.studies import REFERENCE, Studies
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.views.plots import axes, layout, lines, palette, panels
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
from simulator.views.text import plural

# Colour, symbol and name by where the freed parameters go. Where that is unknown, a family is not
# compared with others.
_MARKS = {
    "mlp": (palette.GREEN, "circle", "freed to the MLP"),
    "heads": (palette.PURPLE, "square", "freed to query heads"),
    "nothing": (palette.BLACK, "diamond", "nothing put back"),
}
# Names short enough to stand beside a point.
_SHORT = {"multi-head": "MHA", "multi-group": "GQA", "multi-query": "MQA"}
# Room for a panel's name above its points, as a share of what is drawn.
_HEADROOM = 0.15
# A family of fewer runs is drawn pale, without its name.
LEAST_RUNS = 3


def loss_kv(frame: Frame, caption: Caption) -> Figure:
    """Draw families as points with 95 % intervals.

    Parameters
    ----------
    frame
        As of :func:`frames.by_family`; the second panel needs rows with an ``attention``.
    """
    losses = ("loss_change", "loss_low", "loss_high")
    frame = frame.assign(
        **{f"{name}_percent": 100 * frame[name] for name in losses},
        name=frame["family"].replace(_SHORT),
    )
    timed, told = frame[frame["attention"].notna()], frame[frame["attention"].isna()]
    names = ["against KV bytes", "against the step"] if len(timed) else [""]
    figure = panels.new_panels(names, len(names), 1, shared=False)
    told = told[told["matched_by"].isin(_MARKS)]
    known = told[told["kv_share"].notna()]
    _add_families(figure, known)
    shares, title = [1.0, *known["kv_share"]], "KV bytes over multi-head's [ratio]"
    axes.log_axis(figure, "xaxis", shares, title, text=_share_text, pad=0.08)
    if len(timed):
        _add_steps(figure, timed)
        title = "time of a decode step [ms]"
        axes.log_axis(figure, "xaxis2", list(timed["step_ms"]), title, pad=0.2)
    for number, part in enumerate((known, timed)[: len(names)]):
        low, high = part["loss_low_percent"].min(), part["loss_high_percent"].max()
        figure.layout[panels.axis_name("yaxis", number)].update(
            range=[low - 0.05 * (high - low), high + _HEADROOM * (high - low)],
            title_text="loss over multi-head's − 1 [%]",
            zeroline=True,
            zerolinecolor=palette.INK,
        )
    words = caption.after(_note(timed), *_untold(told))
    return layout.finish(figure, _finding(told), words)


def _share_text(value: float) -> str:
    """Write a share as people do.

    >>> _share_text(0.25), _share_text(1)
    ('1/4', '1')
    """
    return f"1/{1 / value:.0f}" if value < 1 else "1"


def _note(timed: Frame) -> str:
    """Say what points and lines are."""
    step = ""
    if len(timed):
        step = " Steps, and KV bytes that no run tells: freed to the MLP."
        for matched_by, part in timed[timed["matched_by"] != "mlp"].groupby("matched_by"):
            names = ", ".join(dict.fromkeys(part["family"]))
            step += f" {names}: {_MARKS[matched_by][-1]}."
    return f"Lines: 95 % interval. Pale: under {LEAST_RUNS} runs.{step}"


def _add_families(figure: Figure, known: Frame) -> None:
    """Add multi-head and the families compared with it to the first panel, by way of matching."""
    figure.add_scatter(
        x=[1.0],
        y=[0.0],
        mode="markers+text",
        text=[_SHORT[REFERENCE]],
        textposition="top center",
        textfont={"size": 11},
        marker={"color": palette.INK, "symbol": "circle-open", "size": 9},
        showlegend=False,
        hoverinfo="skip",
    )
    hover = "{name}: {loss_change_percent:+.2f} % at {kv_share:.3f} of the KV bytes, {runs:,} runs"
    for matched_by, (colour, symbol, name) in _MARKS.items():
        part = known[known["matched_by"] == matched_by]
        strong = part["runs"] >= LEAST_RUNS
        style = {"marker": {"color": colour, "symbol": symbol, "size": 9}}
        key = {"name": name, "legendgroup": matched_by}
        if strong.any():
            named = {"textposition": "middle right", "textfont": {"size": 11}}
            _add_points(figure, part[strong], "kv_share", {**style, **key, **named}, hover)
        if not strong.all():
            pale = {"opacity": palette.UNFIT_OPACITY, "showlegend": not strong.any()}
            drawn = {**style, **key, **pale, "mode": "markers"}
            _add_points(figure, part[~strong], "kv_share", drawn, hover)


def _add_steps(figure: Figure, timed: Frame) -> None:
    """Add the models under both kinds of attention to the second panel."""
    hover = "{name}: {loss_change_percent:+.2f} %, {step_ms:.3g} ms"
    for attention, side in zip(ATTENTIONS, ("right", "left"), strict=True):
        part, colour = timed[timed["attention"] == attention], palette.COLOURS[attention]
        # Neighbours in loss have their names on different sides.
        ranks = part["loss_change"].rank(method="first")
        sides = [
            "bottom right" if family == REFERENCE else f"{'bottom' if rank % 2 else 'top'} {side}"
            for family, rank in zip(part["family"], ranks, strict=True)
        ]
        named = {"textposition": sides, "textfont": {"size": 11, "color": colour}}
        style = {"marker": {"color": colour, "size": 9}, "name": attention, **named}
        _add_points(figure, part, "step_ms", style, hover, panel=1)


def _add_points(
    figure: Figure, part: Frame, x: str, style: Mapping[str, Any], hover: str, *, panel: int = 0
) -> None:
    """Add families as points with their names and intervals. [%]."""
    y = part["loss_change_percent"]
    interval = {
        "type": "data",
        "symmetric": False,
        "array": (part["loss_high_percent"] - y).tolist(),
        "arrayminus": (y - part["loss_low_percent"]).tolist(),
        "thickness": 1.2,
        "width": 3,
    }
    drawn = {"mode": "markers+text", "text": part["name"].tolist(), "error_y": interval, **style}
    lines.add(figure, part, x, "loss_change_percent", drawn, hover=hover, panel=panel)


def _untold(told: Frame) -> list[str]:
    """List the families whose KV bytes runs do not tell, by the way of matching of most runs."""
    rest = told[told["kv_share"].isna() & (told["runs"] >= LEAST_RUNS)]
    rest = rest.sort_values("runs", ascending=False).drop_duplicates("family")
    words = [
        f"{row.family} {row.loss_change:+.1%}"
        for row in rest.sort_values("loss_change").itertuples()
    ]
    return [f"KV bytes not told: {', '.join(words)}."] if words else []


def _finding(told: Frame) -> str:
    """Say what the smallest caches of many runs cost."""
    query = told[told["family"] == "multi-query"].sort_values("loss_change")
    if not len(query):
        return f"Loss of {plural(told['family'].nunique(), 'other way')} to share KV heads"
    words = [f"{row.loss_change:+.1%} {_MARKS[row.matched_by][-1]}" for row in query.itertuples()]
    return f"Multi-query's loss at equal size: {', '.join(words)}"


def studies_figure(result: Studies) -> Figure:
    """Draw the families of a user's own runs."""
    import pandas as pd

    frame = pd.DataFrame(map(vars, result.factors)).assign(attention=None)
    runs = f"{plural(result.runs, 'training run')} of {plural(result.sets, 'set')}"
    subject = f"{runs} of {result.source}, pooled over papers"
    return loss_kv(frame, Caption(subject, (*result.notes, f"bifurcate {__version__}.")))
