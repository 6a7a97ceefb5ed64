"""Speed-up over context and samples, and what the ratio of KV bytes says of it."""

import math
from collections.abc import Iterable

from simulator.answers.verdict import TIE_MARGIN
from simulator.numeric import Frame
from simulator.units import format_tokens, is_power_of_two
from simulator.views.plots import axes, layout, lines, palette, panels, ratio_map, texts
from simulator.views.plots.latency import CONTEXT_TITLE, SAMPLES_TITLE
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
from simulator.views.text import plural

# Red where standard attention is faster, blue where bifurcated is.
_SCALE = ratio_map.colour_scale(palette.VERMILLION, palette.BLUE)
_MOST_CONTEXTS = 5
# Along an axis: more have no room for a number on a phone.
_MOST_CELLS = 11


def speedup_map(frame: Frame, caption: Caption) -> Figure:
    """Draw the speed-up over context and samples; ``frame`` as of ``by_context_and_samples``.

    Cells are powers of two, and lines run between them.
    """
    figure = panels.new_figure()
    frame = frame.assign(share=frame["memory_bytes"] / frame["capacity_bytes"])
    drawn = frame
    for axis in ("context_tokens", "samples"):
        drawn = drawn[drawn[axis].isin(_cell_sizes(frame[axis]))]
    tables = {
        (variant, column): part.pivot_table(
            index="context_tokens", columns="samples", values=column
        )
        for variant, part in drawn.groupby("variant")
        for column in ("speedup", "fits", "share")
    }
    cells, fits = (tables["bifurcated", column] for column in ("speedup", "fits"))
    hover = "%{customdata:.2f} times as fast"
    ratio_map.add_cells(figure, cells, fits.astype(bool), scale=_SCALE, hover=hover)
    borders = [
        (f"memory ends, {line.name}", tables[variant, "share"], line.colour, line.dash, 5)
        for variant, line in palette.LINES.items()
    ]
    # Last and thin, so that both are seen where they run together.
    borders.append(("break-even", cells, palette.INK, "solid", 2))
    for name, ratios, colour, dash, width in borders:
        above = (ratios > 1).to_numpy()
        if above.any() and not above.all():
            pen = {"color": colour, "dash": dash, "width": width}
            ratio_map.add_border(figure, ratios, name, pen)
    asked = frame[frame["asked"] & (frame["variant"] == "bifurcated")]
    ring = {"symbol": "circle-open", "size": 26, "color": palette.INK}
    ring["line"] = {"width": 2, "color": palette.INK}
    if len(asked):
        point = asked[["samples", "context_tokens"]].map(math.log2)
        marks = {"marker": ring, "name": "the question"}
        lines.add(figure, point, "samples", "context_tokens", marks)
    for axis, values, title in (
        ("xaxis", cells.columns, SAMPLES_TITLE),
        ("yaxis", cells.index, CONTEXT_TITLE),
    ):
        ratio_map.exponent_axis(figure, axis, [int(value) for value in values], title)
    notes = (
        "In a cell: time of a standard step over that of a bifurcated one. Grey: fits with neither."
    )
    return layout.finish(figure, _map_finding(frame), caption.after(notes))


def _cell_sizes(axis: Iterable[float], most: int = _MOST_CELLS) -> list[float]:
    """Return the powers of two of an axis, or of four ... where these are too many."""
    sizes = sorted({value for value in axis if is_power_of_two(value)})
    return sizes[:: -(-len(sizes) // most) or 1]


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
    figure = panels.new_figure()
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
        pen = {**palette.line_style("bifurcated"), "color": f"rgb({', '.join(map(str, shade))})"}
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
