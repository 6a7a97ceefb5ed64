"""A scaling law: the loss of every run, the law of its family, and the residuals."""

from typing import TYPE_CHECKING

from simulator._version import __version__
from simulator.answers.scaling import ScalingLaw
from simulator.units import GIGA, MEGA
from simulator.views.columns import as_object
from simulator.views.plots import axes, layout, palette, panels
from simulator.views.plots.layout import Caption
from simulator.views.text import plural
from simulator.views.tradeoff import FAMILY, run_rows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PANELS = ("loss", "residual")
# Points of a law's curve.
POINTS = 60


def scaling_law(
    runs: "pd.DataFrame", curves: "pd.DataFrame", families: "pd.DataFrame", caption: Caption
) -> "go.Figure":
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
    residual = (runs["held_out_loss"].astype(float) / runs["loss"] - 1).where(
        held_out, runs["residual"]
    )
    runs = runs.assign(residual=residual, held_out=held_out)
    # The end of the residuals' axis is a little beyond all but the outliers. [%]
    near = runs[~runs["outlier"].astype(bool)]["residual"].abs()
    room = max(0.05, 130 * float(near.max()))
    for number, family in enumerate(families.to_dict("records")):
        colour = palette.CATEGORIES[number % len(palette.CATEGORIES)]
        _add_family(
            figure,
            runs[runs["family"] == family["family"]],
            curves[curves["family"] == family["family"]],
            name=_name(family, reference=number == 0),
            colour=colour,
            number=number,
            room=room,
        )
    _add_axes(figure, curves, room)
    words = [*caption.notes]
    if runs["held_out"].any():
        words.insert(0, "Hollow: the largest models; on the right by a fit to the others.")
    if runs["outlier"].any():
        words.insert(
            0, "Crosses: far off, and without weight in the law; on the right at the edge."
        )
    return layout.finish(figure, finding(families, runs), Caption(caption.subject, tuple(words)))


def _name(family: "dict[str, object]", *, reference: bool) -> str:
    """Name a family with its size factor."""
    if reference:
        return str(family["family"])
    return (
        f"{family['family']}, F = {family['size_factor']:.3f} "
        f"({family['size_factor_low']:.3f} to {family['size_factor_high']:.3f})"
    )


def _add_family(
    figure: "go.Figure",
    runs: "pd.DataFrame",
    curve: "pd.DataFrame",
    *,
    name: str,
    colour: str,
    number: int,
    room: float,
) -> None:
    """Add the runs of a family, its law, and its residuals."""
    symbol = _SYMBOLS[number % len(_SYMBOLS)]
    figure.add_scatter(
        x=curve["parameters"].tolist(),
        y=curve["loss"].tolist(),
        mode="lines",
        line={"color": colour, "dash": _DASHES[number % len(_DASHES)], "width": 2},
        name=name,
        legendgroup=name,
        hoverinfo="skip",
        row=1,
        col=1,
    )
    far = runs["outlier"].to_numpy(dtype=bool)
    marker = {
        "size": [12 if off else 9 for off in far],
        "color": colour,
        "line": {"color": colour, "width": 2},
        "symbol": [
            "x-thin" if off else f"{symbol}-open" if held else symbol
            for held, off in zip(runs["held_out"], far, strict=True)
        ],
    }
    # A run far off stands at the edge, so that the others can be told apart.
    residuals = (runs["residual"] * 100).clip(-0.97 * room, 0.97 * room)
    for column, values, hover in (
        (1, runs["loss"], "%{x:.4g} parameters: loss %{y:.4g}"),
        (2, residuals, "%{x:.4g} parameters: %{customdata:+.3g} %"),
    ):
        figure.add_scatter(
            x=runs["parameters"].tolist(),
            y=values.tolist(),
            mode="markers",
            marker=marker,
            customdata=(runs["residual"] * 100).tolist(),
            name=name,
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"{hover}<extra></extra>",
            row=1,
            col=column,
        )


def _add_axes(figure: "go.Figure", curves: "pd.DataFrame", room: float) -> None:
    """Name the axes of both panels."""
    for number in range(len(PANELS)):
        axes.log_axis(
            figure,
            panels.axis_name("xaxis", number),
            curves["parameters"],
            "parameters",
            base=10,
            text=_size_text,
        )
    figure.layout["yaxis"].title.text = "loss"
    title = "fitted over observed loss − 1 [%]"
    zero = {"zeroline": True, "zerolinecolor": palette.INK}
    figure.layout["yaxis2"].update(title_text=title, range=[-room, room], **zero)


def _size_text(value: float) -> str:
    """Write a number of parameters on an axis."""
    return f"{value / GIGA:g} B" if value >= GIGA else f"{value / MEGA:g} M"


def finding(families: "pd.DataFrame", runs: "pd.DataFrame") -> str:
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


def scaling_figure(result: ScalingLaw) -> "go.Figure":
    """Draw a fitted law with its runs and residuals."""
    import pandas as pd

    law = result.law
    subject = (
        f"{plural(len(result.runs), 'training run')} of {result.source}; "
        f"irreducible loss {law.irreducible_loss:.4g} ± {law.stderr[0]:.2g}, "
        f"exponent {law.exponent:.3g} ± {law.stderr[2]:.2g}"
    )
    runs = pd.DataFrame(run_rows(result))
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


def _curves(result: ScalingLaw) -> "pd.DataFrame":
    """Return the law of each family over the sizes of all runs."""
    import numpy as np
    import pandas as pd

    sizes = [run.parameters for run in result.runs]
    parameters = np.geomspace(min(sizes), max(sizes), POINTS)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "family": family.family.name,
                    "parameters": parameters,
                    "loss": result.law.loss(parameters, number),
                }
            )
            for number, family in enumerate(result.laws)
        ],
        ignore_index=True,
    )
