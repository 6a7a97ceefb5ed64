"""A scaling law: the loss of every run, the law of its family, and the residuals."""

from simulator._version import __version__
from simulator.answers.scaling import ScalingLaw
from simulator.numeric import Frame
from simulator.units import GIGA, MEGA
from simulator.views.columns import as_object
from simulator.views.plots import axes, layout, lines, palette, panels
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
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
    figure = panels.new_panels(["", ""], 2, 1, shared=False)
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
        colour = palette.CATEGORIES[number % len(palette.CATEGORIES)]
        symbol = palette.SYMBOLS[number % len(palette.SYMBOLS)]
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
    return layout.finish(figure, _finding(families, runs), Caption(caption.subject, tuple(words)))


def _size_text(value: float) -> str:
    """Write a number of parameters on an axis."""
    return f"{value / GIGA:g} B" if value >= GIGA else f"{value / MEGA:g} M"


def _finding(families: Frame, runs: Frame) -> str:
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
