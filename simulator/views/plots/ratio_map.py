"""Maps of a ratio over context and samples: cells of powers of two, lines where it passes 1."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from simulator.numeric import Frame
from simulator.views.plots import axes, palette
from simulator.views.plots.panels import Figure

# Ratios beyond it are drawn in the strongest colour.
_STRONGEST = 8.0


def colour_scale(below: str, above: str) -> list[list[Any]]:
    """Return the scale from one colour, where the ratio is below 1, over white to another."""
    return [[0.0, below], [0.5, "#FFFFFF"], [1.0, above]]


def add_cells(
    figure: Figure,
    ratios: Frame,
    fits: Frame,
    *,
    scale: Sequence[Sequence[Any]],
    hover: str,
    **place: int,
) -> None:
    """Add one cell for each pair of powers of two, with its ratio in it.

    Parameters
    ----------
    ratios, fits
        By context and samples. What does not fit has no cell, and is as grey as what is behind.
    hover
        What to say of a ratio, ``%{customdata}``.
    place
        ``row`` and ``col`` of the panel, if there are several.
    """
    strongest = math.log2(_STRONGEST)
    figure.update_layout(plot_bgcolor=palette.PALE)
    figure.add_heatmap(
        **_places(ratios),
        z=ratios.map(math.log2).where(fits, None).to_numpy().tolist(),
        zmin=-strongest,
        zmax=strongest,
        colorscale=scale,
        showscale=False,
        customdata=ratios.to_numpy().tolist(),
        text=ratios.map(short_ratio).where(fits, "").to_numpy().tolist(),
        texttemplate="%{text}",
        textfont={"size": 10},
        xgap=1,
        ygap=1,
        hovertemplate=f"2^%{{x}} samples, 2^%{{y}} tokens: {hover}<extra></extra>",
        **place,
    )


def add_border(
    figure: Figure,
    ratios: Frame,
    name: str,
    line: dict[str, Any],
    *,
    key: bool = True,
    **place: int,
) -> None:
    """Add a line between the cells whose ratio is above 1 and the others.

    It follows the edges of cells, so that it crosses no number.

    Parameters
    ----------
    figure
        The figure.
    ratios
        The ratios of the cells: a row for each context, a column for each number of samples.
    name, line
        Name and style of the line.
    key
        Whether the legend names it.
    place
        Row and column of the panel.
    """
    above = (ratios > 1).to_numpy().tolist()
    places = _places(ratios)
    across, up = (_edges(places[axis]) for axis in "xy")
    x: list[float | None] = []
    y: list[float | None] = []
    for row, cells in enumerate(above):
        for column, inside in enumerate(cells):
            if column + 1 < len(cells) and cells[column + 1] != inside:
                x += [across[column + 1], across[column + 1], None]
                y += [up[row], up[row + 1], None]
            if row + 1 < len(above) and above[row + 1][column] != inside:
                x += [across[column], across[column + 1], None]
                y += [up[row + 1], up[row + 1], None]
    if x or key:
        drawn = {"mode": "lines", "line": line, "name": name, "hoverinfo": "skip"}
        figure.add_scatter(x=x or [None], y=y or [None], showlegend=key, **drawn, **place)


def _edges(middles: Sequence[float]) -> list[float]:
    """Return the edges of cells around their middles.

    >>> _edges([1, 2, 4])
    [0.5, 1.5, 3.0, 5.0]
    """
    gaps = [(after - before) / 2 for before, after in itertools.pairwise(middles)] or [0.5]
    ends = [middle + gap for middle, gap in zip(middles, gaps, strict=False)]
    return [middles[0] - gaps[0], *ends[: len(middles) - 1], middles[-1] + gaps[-1]]


def _places(table: Frame) -> dict[str, list[float]]:
    """Return the exponents of two of a table over context and samples."""
    return {
        "x": [math.log2(samples) for samples in table.columns],
        "y": [math.log2(tokens) for tokens in table.index],
    }


def short_ratio(ratio: float) -> str:
    """Write a speed-up in a cell.

    >>> short_ratio(0.98), short_ratio(1.26), short_ratio(14.2)
    ('0.98', '1.3', '14')
    """
    if ratio < 1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"  # noqa: PLR2004


def exponent_axis(figure: Figure, axis: str, values: list[int], title: str) -> None:
    """Make an axis of exponents of two, with the powers themselves as ticks.

    Parameters
    ----------
    figure, axis
        The figure, and the name of the axis in its layout.
    values
        The powers of two.
    title
        Title of the axis.
    """
    ticks = [math.log2(value) for value in values]
    words = [axes.size_text(value) for value in values]
    half = (ticks[1] - ticks[0]) / 2 if len(ticks) > 1 else 0.5
    ends = [ticks[0] - half, ticks[-1] + half]
    figure.layout[axis].update(range=ends, showgrid=False, title_text=title)
    axes.set_ticks(figure, axis, ticks, words, narrow_most=7)
