"""Maps of a speed-up over context and samples; and what the ratio of KV bytes says of it."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.answers.study import Study
from simulator.answers.tradeoff import Tradeoff, tradeoff
from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame, ceil_div
from simulator.units import format_tokens, is_power_of_two
from simulator.views.plots import axes, layout, lines, palette, texts
from simulator.views.plots.along import TITLES
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption, Figure
from simulator.views.text import plural
from simulator.views.tradeoff import tradeoff_map_rows

# Ratios beyond it are drawn in the strongest colour.
_STRONGEST = 8.0


def _draw_map(
    figure: Figure,
    ratios: Frame,
    fits: Frame,
    borders: Iterable[tuple[str, Frame, Mapping[str, Any]]],
    *,
    colours: tuple[str, str],
    hover: str,
    titles: Mapping[str, str],
    panel: int = 0,
) -> None:
    """Draw a map of cells of powers of two with their ratios in them, and lines between them.

    Parameters
    ----------
    ratios, fits
        By context and samples. What does not fit has no cell, and is as grey as what is behind.
    borders
        Names, tables and styles of lines between the cells with more than 1 in a table and the
        others. They follow the edges of cells, so that they cross no number; the legend names
        those of the first panel.
    colours
        Of the ratios below 1, and above.
    hover
        What to say of a ratio, ``%{customdata}``.
    titles, panel
        The titles of the axes, by size, and the number of the panel.
    """
    exponents = [[math.log2(size) for size in sizes] for sizes in (ratios.columns, ratios.index)]
    place = {axis: layout.axis_name(axis[0], panel) for axis in ("xaxis", "yaxis")}
    figure.update_layout(plot_bgcolor=palette.PALE)
    figure.add_heatmap(
        x=exponents[0],
        y=exponents[1],
        z=ratios.map(math.log2).where(fits, None).to_numpy().tolist(),
        zmin=-math.log2(_STRONGEST),
        zmax=math.log2(_STRONGEST),
        colorscale=[[0.0, colours[0]], [0.5, "#FFFFFF"], [1.0, colours[1]]],
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
    edges = [_edges(middles) for middles in exponents]
    for name, table, pen in borders:
        x, y = _border((table > 1).to_numpy().tolist(), *edges)
        drawn = {"mode": "lines", "line": pen, "name": name, "hoverinfo": "skip"}
        if not panel:
            figure.add_scatter(x=x or [None], y=y or [None], showlegend=True, **drawn, **place)
        elif x:
            figure.add_scatter(x=x, y=y, showlegend=False, **drawn, **place)
    for axis, title, sizes, ticks, ends in zip(
        ("xaxis", "yaxis"),
        (titles["samples"], titles["context_tokens"]),
        (ratios.columns, ratios.index),
        exponents,
        edges,
        strict=True,
    ):
        name = layout.axis_name(axis, panel)
        figure.layout[name].update(range=[ends[0], ends[-1]], showgrid=False, title_text=title)
        axes.set_ticks(figure, name, ticks, [*map(axes.size_text, sizes)], narrow_most=7)


def _border(
    above: Sequence[Sequence[bool]], across: Sequence[float], up: Sequence[float]
) -> tuple[list[float | None], list[float | None]]:
    """Return the edges between cells that differ, as x and y of a line with gaps.

    Parameters
    ----------
    above
        The cells, row by row from the bottom.
    across, up
        The edges of columns and of rows.
    """
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
    return x, y


def _table(rows: Frame, column: str) -> Frame:
    """Return a column by context and samples."""
    return rows.pivot_table(index="context_tokens", columns="samples", values=column)


def _edges(middles: Sequence[float]) -> list[float]:
    """Return the edges of cells around their middles.

    >>> _edges([1, 2, 4])
    [0.5, 1.5, 3.0, 5.0]
    """
    gaps = [(after - before) / 2 for before, after in itertools.pairwise(middles)] or [0.5]
    ends = [middle + gap for middle, gap in zip(middles, gaps, strict=False)]
    return [middles[0] - gaps[0], *ends[: len(middles) - 1], middles[-1] + gaps[-1]]


def short_ratio(ratio: float) -> str:
    """Write a speed-up in a cell.

    >>> short_ratio(0.98), short_ratio(1.26), short_ratio(14.2)
    ('0.98', '1.3', '14')
    """
    if ratio < 1:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"  # noqa: PLR2004


# Red where standard attention is faster, blue where bifurcated is.
_SPEEDUP_COLOURS = (palette.VERMILLION, palette.BLUE)
_MOST_CONTEXTS = 5
# Along an axis: more have no room for a number on a phone.
_MOST_CELLS = 11


def speedup_map(frame: Frame, caption: Caption) -> Figure:
    """Draw the speed-up over context and samples; ``frame`` as of ``by_context_and_samples``.

    Cells are powers of two, and lines run between them.
    """
    figure = layout.new_figure()
    frame = frame.assign(share=frame["memory_bytes"] / frame["capacity_bytes"])
    drawn = frame
    for axis in ("context_tokens", "samples"):
        drawn = drawn[drawn[axis].isin(_cell_sizes(frame[axis]))]
    by_variant = dict(iter(drawn.groupby("variant")))
    cells, fits = (_table(by_variant["bifurcated"], column) for column in ("speedup", "fits"))
    borders = [
        (f"memory ends, {name}", _table(by_variant[name], "share"), {**line, "width": 5})
        for name, line in palette.LINES.items()
    ]
    # Last and thin, so that both are seen where they run together.
    borders.append(("break-even", cells, {"color": palette.INK, "dash": "solid", "width": 2}))
    _draw_map(
        figure,
        cells,
        fits.astype(bool),
        [border for border in borders if 0 < (border[1] > 1).to_numpy().mean() < 1],
        colours=_SPEEDUP_COLOURS,
        hover="%{customdata:.2f} times as fast",
        titles=TITLES,
    )
    asked = frame[frame["asked"] & (frame["variant"] == "bifurcated")]
    ring = {"symbol": "circle-open", "size": 26, "color": palette.INK}
    ring["line"] = {"width": 2, "color": palette.INK}
    if len(asked):
        point = asked[["samples", "context_tokens"]].map(math.log2)
        marks = {"marker": ring, "name": "the question"}
        lines.add(figure, point, "samples", "context_tokens", marks)
    notes = (
        "In a cell: time of a standard step over that of a bifurcated one. Grey: fits with neither."
    )
    return layout.finish(figure, _map_finding(frame), caption.after(notes))


def _cell_sizes(axis: Iterable[float], most: int = _MOST_CELLS) -> list[float]:
    """Return the powers of two of an axis, or of four ... where these are too many."""
    sizes = sorted({value for value in axis if is_power_of_two(value)})
    return sizes[:: max(1, ceil_div(len(sizes), most))]


def _map_finding(frame: Frame) -> str:
    """Say where bifurcated attention is faster, and where it alone fits."""
    bifurcated = frame[(frame["variant"] == "bifurcated") & frame["fits"].astype(bool)]
    if not len(bifurcated):
        return "Nothing fits in memory at any context or number of samples"
    both = lines.comparable(frame)
    alone = 1 - len(both) / len(bifurcated)
    if not len(both):
        return "Only bifurcated attention fits in memory, wherever anything does"
    gain = both["speedup"]
    first = f"Bifurcated is faster at {(gain > 1).mean():.0%} of the points that fit both ways"
    best = both.loc[gain.idxmax()]
    where = (
        f"at most {texts.times(best['speedup'])} ({int(best['samples']):,} samples, "
        f"{format_tokens(int(best['context_tokens']))} tokens)"
    )
    if not (gain > 1).any():
        return f"Bifurcated is faster nowhere on this map: {where}"
    rest = f"; at {alone:.0%} of bifurcated's points standard does not fit" if alone else ""
    return f"{first}, {where}{rest}"


def kv_io(frame: Frame, caption: Caption) -> Figure:
    """Draw the end-to-end speed-up against the ratio of KV bytes, a line for each context.

    ``frame`` as of ``by_context_and_samples``.
    """
    points = frame[frame["variant"] == "bifurcated"].sort_values("samples")
    points = points[points["samples"].map(is_power_of_two)]
    contexts = _cell_sizes(points["context_tokens"], _MOST_CONTEXTS)
    figure = layout.new_figure()
    high = max(2.0, float(points["kv_io_ratio"].max()))
    name, grey = "if bytes of KV were all of the time", {"color": palette.GREY, "dash": "dot"}
    lines.add_rule(figure, [1, high], [1, high], name, **grey, width=2)
    hover = (
        "{samples:,} samples: {kv_io_ratio:.3g} times fewer KV bytes, {speedup:.3g} times as fast"
    )
    for number, tokens in enumerate(contexts, start=1):
        line = points[points["context_tokens"] == tokens]
        symbols = ["circle" if fits else "circle-open" for fits in line["both_fit"]]
        # Of bifurcated's blue, paler for a shorter context.
        shade = palette.on_white(palette.BLUE, 0.25 + 0.75 * number / len(contexts))
        pen = {**palette.LINES["bifurcated"], "color": f"rgb({', '.join(map(str, shade))})"}
        marks = {"marker": {"size": 8, "symbol": symbols}, "mode": "lines+markers"}
        marks |= {"line": pen, "name": f"{format_tokens(int(tokens))}-token context"}
        lines.add(figure, line, "kv_io_ratio", "speedup", marks, hover=hover)
    drawn = points[points["context_tokens"].isin(contexts)]["speedup"]
    axes.log_axis(figure, "xaxis", [1, high], "KV-IO ratio, standard over bifurcated [times]")
    axes.log_axis(figure, "yaxis", [*drawn, 1, 2], "end-to-end speed-up [times]")
    notes = "Along a line samples double from point to point; hollow: not both fit in memory."
    return layout.finish(figure, _kv_io_finding(frame), caption.after(notes))


def _kv_io_finding(frame: Frame) -> str:
    """Say by how much the ratio of bytes overstates the gain."""
    both = lines.comparable(frame)
    if not len(both):
        return "Nowhere do both kinds of attention fit in memory"
    asked = both[both["asked"]]
    if not len(asked):
        asked = both.sort_values("kv_io_ratio").iloc[[-1]]
    point = asked.iloc[0]
    if abs(point["kv_io_ratio"] - 1) < TIE_MARGIN:
        return f"With {plural(int(point['samples']), 'sample')} there are no KV bytes to save"
    return (
        f"{texts.times(point['kv_io_ratio'])} fewer KV bytes make the step "
        f"{texts.faster(point['speedup'])} ({plural(int(point['samples']), 'sample')}, "
        f"{format_tokens(int(point['context_tokens']))} tokens)"
    )


# Purple where the base is faster, green where the larger model is; white between.
_MODEL_COLOURS = (palette.PURPLE, palette.GREEN)
# In rows of cells.
_NAME_ROOM = 1.1
# With one panel below the other: what cells need for their numbers, and names for their room.
_STACKED_PX = 1120
_PANELS = {
    ("standard", "standard"): "both standard",
    ("bifurcated", "bifurcated"): "both bifurcated",
    ("bifurcated", "standard"): "base bifurcated, larger standard",
}


def equal_quality(frame: Frame, caption: Caption) -> Figure:
    """Draw the base model's step over the larger one's, by samples and context, for each pairing.

    Parameters
    ----------
    frame
        The rows of ``bifurcate tradeoff --rows map``, of one larger model.
    """
    figure = layout.new_panels(list(_PANELS.values()), 3, 1, medium_columns=1)
    figure.layout.meta = {**figure.layout.meta, "stacked_px": _STACKED_PX}
    powers = {
        axis: sorted(filter(is_power_of_two, set(frame[axis].tolist())))
        for axis in ("samples", "context_tokens")
    }
    for number, (ours, theirs) in enumerate(_PANELS):
        part = frame[(frame["base_attention"] == ours) & (frame["other_attention"] == theirs)]
        base, larger, ratios = (
            _table(part, column).loc[powers["context_tokens"], powers["samples"]]
            for column in ("base_memory_share", "other_memory_share", "speedup")
        )
        pen = {"width": 2.5, "dash": "dash"}
        _draw_map(
            figure,
            ratios,
            (base <= 1) | (larger <= 1),
            [
                ("memory ends, base", base, {"color": palette.PURPLE, **pen}),
                ("memory ends, larger", larger, {"color": palette.GREEN, **pen}),
                ("equally fast", ratios, {"color": palette.INK, "width": 2.5}),
            ],
            colours=_MODEL_COLOURS,
            hover="the larger model is %{customdata:.2f} times as fast",
            titles={"samples": "samples [sequences]", "context_tokens": "context [tokens]"},
            panel=number,
        )
        # Room for the panel's name above its cells.
        upright = figure.layout[layout.axis_name("yaxis", number)]
        upright.range = [upright.range[0], upright.range[1] + _NAME_ROOM]
    first = frame.iloc[0]
    note = (
        f"In a cell: step of {first['base_model']} (base) over that of {first['model']} (larger), "
        f"as good with {first['size_factor']:.3f} times the parameters. Green: the larger model is "
        "faster. Grey: neither fits."
    )
    return layout.finish(figure, _equal_quality_finding(frame), caption.after(note))


def _equal_quality_finding(frame: Frame) -> str:
    """Say how bifurcation moves the border."""
    words = []
    both = frame[frame["base_attention"] == frame["other_attention"]]
    for attention in ATTENTIONS:
        part = both[both["base_attention"] == attention]
        mean = math.exp(part["speedup"].map(math.log).mean())
        words.append(
            f"on {(part['speedup'] > 1).mean():.0%} of the map with {attention} attention "
            f"(mean {texts.times(mean)})"
        )
    return f"{frame.iloc[0]['model']} is faster {', '.join(words)}"


def crossover_figure(result: Tradeoff) -> Figure:
    """Draw where the first of the other models is faster than the base."""
    import pandas as pd

    frame = pd.DataFrame(tradeoff_map_rows(result))
    first = result.others[0].model.name
    study = study_of(result.base.variants["standard"].result)
    about = caption(study, ("samples", "context_tokens"))
    factor = result.others[0].size_factor
    note = () if factor is None else (f"Size factor {factor.value:.3f}: {factor.source}.",)
    return equal_quality(frame[frame["model"] == first], about.after(*note))


def equal_quality_frame(study: Study) -> Frame:
    """Return the map of a study's model against a multi-query one of equal quality.

    Raises
    ------
    SimulatorError
        If the model cannot be scaled, or is multi-query itself.
    """
    import pandas as pd

    result = tradeoff(study.question, usd_per_hour=study.usd_per_hour)
    return pd.DataFrame(tradeoff_map_rows(result))
