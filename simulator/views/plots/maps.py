"""Speed-up over context and samples, and what the ratio of KV bytes says of it."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.setup import ATTENTIONS
from simulator.units import format_tokens, is_power_of_two
from simulator.views.plots import axes, layout, palette, panels, ratio_map, texts
from simulator.views.plots.latency import CONTEXT_TITLE, SAMPLES_TITLE
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_rule, comparable
from simulator.views.text import plural

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Red where standard attention is faster, blue where bifurcated is.
_SCALE = ratio_map.colour_scale(palette.VERMILLION, palette.BLUE)
_MOST_CONTEXTS = 5
# Along an axis: more have no room for a number on a phone.
_MOST_CELLS = 11


def speedup_map(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the speed-up over context and samples; ``frame`` as of ``by_context_and_samples``.

    Cells are powers of two, and lines run between them.
    """
    figure = panels.new_figure()
    bifurcated = frame[frame["variant"] == "bifurcated"]
    fine = bifurcated.pivot_table(index="context_tokens", columns="samples", values="speedup")
    cells = fine.loc[_cell_sizes(fine.index), _cell_sizes(fine.columns)]
    fits = bifurcated.pivot_table(index="context_tokens", columns="samples", values="fits")
    ratio_map.add_cells(
        figure,
        cells,
        fits.loc[cells.index, cells.columns].astype(bool),
        scale=_SCALE,
        hover="%{customdata:.2f} times as fast",
    )
    for variant in ATTENTIONS:
        part = frame[frame["variant"] == variant]
        share = (part["memory_bytes"] / part["capacity_bytes"]).to_numpy()
        filled = part.assign(share=share).pivot_table(
            index="context_tokens", columns="samples", values="share"
        )
        line = palette.LINES[variant]
        ends = {"color": line.colour, "dash": line.dash, "width": 5}
        within = filled.loc[cells.index, cells.columns]
        _add_border(figure, within, f"memory ends, {line.name}", ends)
    # Last and thin, so that both are seen where they run together.
    _add_border(figure, cells, "break-even", {"color": palette.INK, "width": 2})
    _add_question(figure, bifurcated[bifurcated["asked"]])
    for axis, values, title in (
        ("xaxis", cells.columns, SAMPLES_TITLE),
        ("yaxis", cells.index, CONTEXT_TITLE),
    ):
        ratio_map.exponent_axis(figure, axis, [int(value) for value in values], title)
    notes = (
        "In a cell: time of a standard step over that of a bifurcated one. Grey: fits with neither."
    )
    return layout.finish(figure, _map_finding(frame), caption.after(notes))


def _add_question(figure: "go.Figure", asked: "pd.DataFrame") -> None:
    """Add a ring around the question's own point, if it has one on the map."""
    if not len(asked):
        return
    figure.add_scatter(
        x=[math.log2(asked["samples"].iloc[0])],
        y=[math.log2(asked["context_tokens"].iloc[0])],
        mode="markers",
        marker={
            "symbol": "circle-open",
            "size": 26,
            "color": palette.INK,
            "line": {"width": 2, "color": palette.INK},
        },
        name="the question",
        hoverinfo="skip",
    )


def _cell_sizes(axis: Iterable[float]) -> list[float]:
    """Return the powers of two of an axis, or those of four where cells would get too small."""
    sizes = [value for value in axis if is_power_of_two(value)]
    return sizes[:: -(-len(sizes) // _MOST_CELLS)]


def _add_border(
    figure: "go.Figure", ratios: "pd.DataFrame", name: str, line: dict[str, Any]
) -> None:
    """Add the line between ratios above 1 and others, if the map has both."""
    if (ratios > 1).to_numpy().any() and not (ratios > 1).to_numpy().all():
        ratio_map.add_border(figure, ratios, name, line)


def _map_finding(frame: "pd.DataFrame") -> str:
    """Say where bifurcated attention is faster, and where it alone fits."""
    bifurcated = frame[(frame["variant"] == "bifurcated") & frame["fits"].astype(bool)]
    if not len(bifurcated):
        return "Nothing fits in memory at any context or number of samples"
    both = comparable(frame)
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


def kv_io(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the end-to-end speed-up against the ratio of KV bytes, a line for each context.

    ``frame`` as of ``by_context_and_samples``.
    """
    points = frame[frame["variant"] == "bifurcated"]
    contexts = [
        tokens for tokens in sorted(set(points["context_tokens"])) if is_power_of_two(tokens)
    ]
    contexts = contexts[:: -(-len(contexts) // _MOST_CONTEXTS) or 1]
    figure = panels.new_figure()
    high = max(2.0, float(points["kv_io_ratio"].max()))
    name = "if bytes of KV were all of the time"
    add_rule(figure, [1, high], [1, high], name, color=palette.GREY, dash="dot", width=2)
    drawn = []
    for number, tokens in enumerate(contexts):
        line = points[points["context_tokens"] == tokens].sort_values("samples")
        line = line[[is_power_of_two(samples) for samples in line["samples"]]]
        drawn += [*line["speedup"]]
        figure.add_scatter(
            x=line["kv_io_ratio"].tolist(),
            y=line["speedup"].tolist(),
            mode="lines+markers",
            line={
                "color": _shade((number + 1) / len(contexts)),
                "dash": palette.LINES["bifurcated"].dash,
                "width": 2.5,
            },
            marker={
                "size": 8,
                "symbol": ["circle" if fits else "circle-open" for fits in line["fits"]],
            },
            name=f"{format_tokens(int(tokens))}-token context",
            customdata=line["samples"].tolist(),
            hovertemplate="%{customdata:,} samples: %{x:.3g} times fewer KV bytes, "
            "%{y:.3g} times as fast<extra></extra>",
        )
    axes.log_axis(figure, "xaxis", [1, high], "KV-IO ratio, standard over bifurcated [times]")
    axes.log_axis(figure, "yaxis", [*drawn, 1, 2], "end-to-end speed-up [times]")
    notes = "Along a line samples double from point to point; hollow: does not fit in memory."
    return layout.finish(figure, _kv_io_finding(points), caption.after(notes))


def _shade(share: float) -> str:
    """Return bifurcated's blue, paler for a smaller share."""
    mixed = palette.on_white(palette.BLUE, 0.25 + 0.75 * share)
    return "#" + "".join(f"{part:02X}" for part in mixed)


def _kv_io_finding(points: "pd.DataFrame") -> str:
    """Say by how much the ratio of bytes overstates the gain."""
    both = comparable(points)
    if not len(both):
        return "Nowhere do both kinds of attention fit in memory"
    asked: Any = both[both["asked"]]
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
