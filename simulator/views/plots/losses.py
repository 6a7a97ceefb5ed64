"""Losses of training runs: a scaling law with its residuals, and families at equal size."""

from collections.abc import Mapping
from typing import Any

from simulator._version import __version__
from simulator.answers.scaling import ScalingLaw
from simulator.answers.studies import REFERENCE, Studies
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.units import GIGA, MEGA
from simulator.views.columns import as_object
from simulator.views.plots import axes, layout, lines, palette
from simulator.views.plots.layout import Caption, Figure
from simulator.views.text import plural
from simulator.views.tradeoff import FAMILY, scaling_rows

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Points of a law's curve.
POINTS = 60


def scaling_law(runs: Frame, curves: Frame, families: Frame, caption: Caption) -> Figure:
    """Draw runs, laws and residuals.

    Parameters
    ----------
    runs
        The rows of ``bifurcate scaling --format csv``.
    curves
        Points of each law: ``family``, ``parameters``, ``loss``.
    families
        What the fit says of each family, the reference first: ``family``, ``size_factor``,
        ``size_factor_low``, ``size_factor_high``.
    """
    figure = layout.new_panels(["", ""], 2, 1, shared=False)
    held_out = runs["held_out_loss"].notna()
    foretold = runs["held_out_loss"].astype(float) / runs["loss"] - 1
    percent = 100 * foretold.where(held_out, runs["residual"])
    outlier = runs["outlier"].astype(bool)
    # The end of the residuals' axis is a little beyond all but the outliers. [%]
    room = max(0.05, 1.3 * 100 * float(runs[~outlier]["residual"].abs().max()))
    # A run far off stands at the edge, so that the others can be told apart.
    edge = percent.clip(-0.97 * room, 0.97 * room)
    runs = runs.assign(percent=percent, edge=edge, held_out=held_out, outlier=outlier)
    for number, family in enumerate(families.to_dict("records")):
        colour, symbol = palette.mark(number).values()
        part = runs[runs["family"] == family["family"]]
        name = family["family"]
        if number:
            name += ", F = {size_factor:.3f} ({size_factor_low:.3f} to {size_factor_high:.3f})"
            name = name.format_map(family)
        pen = {"color": colour, "dash": _DASHES[number % len(_DASHES)], "width": 2}
        curve = curves[curves["family"] == family["family"]]
        key = {"name": name, "legendgroup": name}
        drawn = {"mode": "lines", "line": pen, **key}
        lines.add(figure, curve, "parameters", "loss", drawn)
        symbols = [
            "x-thin" if far else f"{symbol}-open" if held else symbol
            for held, far in zip(part["held_out"], part["outlier"], strict=True)
        ]
        marker = {
            "size": [12 if far else 9 for far in part["outlier"]],
            "color": colour,
            "line": {"color": colour, "width": 2},
            "symbol": symbols,
        }
        for panel, (column, said) in enumerate(
            (("loss", "loss {loss:.4g}"), ("edge", "{percent:+.3g} %"))
        ):
            drawn = {"marker": marker, "showlegend": False, **key}
            hover = f"{{parameters:.4g}} parameters: {said}"
            lines.add(figure, part, "parameters", column, drawn, hover=hover, panel=panel)
    for axis in ("xaxis", "xaxis2"):
        title = "parameters"
        axes.log_axis(figure, axis, curves[title], title, base=10, text=_size_text)
    figure.layout.yaxis.title.text = "loss"
    zero = {"zeroline": True, "zerolinecolor": palette.INK}
    title = "fitted over observed loss − 1 [%]"
    figure.layout.yaxis2.update(title_text=title, range=[-room, room], **zero)
    words = [*caption.notes]
    if held_out.any():
        words.insert(0, "Hollow: the largest models; on the right by a fit to the others.")
    if outlier.any():
        crosses = "Crosses: far off, and without weight in the law; on the right at the edge."
        words.insert(0, crosses)
    return layout.finish(
        figure, _law_finding(families, runs), Caption(caption.subject, tuple(words))
    )


def _size_text(value: float) -> str:
    """Write a number of parameters on an axis."""
    return f"{value / GIGA:g} B" if value >= GIGA else f"{value / MEGA:g} M"


def _law_finding(families: Frame, runs: Frame) -> str:
    """Say how much larger the family furthest from the reference must be."""
    if len(families) == 1:
        return f"One law of {plural(len(runs), 'training run')}; no other family to compare with"
    first, last = families.iloc[0], families.iloc[-1]
    name = str(last["family"])
    return (
        f"{name[0].upper()}{name[1:]}: {last['size_factor']:.3f} times the parameters of "
        f"{first['family']} for equal loss "
        f"({last['size_factor_low']:.3f} to {last['size_factor_high']:.3f})"
    )


def scaling_figure(result: ScalingLaw) -> Figure:
    """Draw a fitted law with its runs and residuals."""
    import pandas as pd

    law = result.law
    subject = (
        f"{plural(len(result.runs), 'training run')} of {result.source}; "
        f"irreducible loss {law.irreducible_loss:.4g} ± {law.stderr[0]:.2g}, "
        f"exponent {law.exponent:.3g} ± {law.stderr[2]:.2g}"
    )
    runs = pd.DataFrame(scaling_rows(result))
    formula = (
        "L = E + A (N / F)^-α: one E, A and α for all families. In brackets the 95 % interval."
    )
    if law.center_tokens is not None:
        formula = formula.replace(":", " + B D^-β:", 1)
        # Of each run, as much above or below the law as it is at its own tokens.
        moved = law.loss(runs["parameters"], list(result.families)) / runs["fitted_loss"]
        for name in ("loss", "held_out_loss"):
            runs[name] = runs[name].astype(float) * moved
        formula += f" Losses are brought to {law.center_tokens / GIGA:.3g} B tokens."
    notes = (formula, *result.notes, f"bifurcate {__version__}.")
    return scaling_law(
        runs,
        _curves(result),
        pd.DataFrame([as_object(FAMILY, family) for family in result.laws]),
        Caption(subject, notes),
    )


def _curves(result: ScalingLaw) -> Frame:
    """Return the law of each family over the sizes of all runs."""
    import numpy as np
    import pandas as pd

    sizes = [run.parameters for run in result.runs]
    parameters = np.geomspace(min(sizes), max(sizes), POINTS)
    curves = [
        pd.DataFrame({"family": law.family.name, "parameters": parameters, "loss": losses})
        for number, law in enumerate(result.laws)
        for losses in [result.law.loss(parameters, number)]
    ]
    return pd.concat(curves, ignore_index=True)


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
    figure = layout.new_panels(names, len(names), 1, shared=False)
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
        figure.layout[layout.axis_name("yaxis", number)].update(
            range=[low - 0.05 * (high - low), high + _HEADROOM * (high - low)],
            title_text="loss over multi-head's − 1 [%]",
            zeroline=True,
            zerolinecolor=palette.INK,
        )
    words = caption.after(_note(timed), *_untold(told))
    return layout.finish(figure, _families_finding(told), words)


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


def _families_finding(told: Frame) -> str:
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
