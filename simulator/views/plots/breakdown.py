"""Where time and bytes of a step go, operation by operation; and the roofline chart."""

import math
from typing import Any

from simulator.answers.verdict import TIE_MARGIN
from simulator.counts.operation import PARTS
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.timing.interval import CACHE_READERS
from simulator.units import GIGA, MILLISECOND, TERA, format_si, format_time
from simulator.views.plots import axes, layout, lines, palette, texts
from simulator.views.plots.layout import Caption, Figure

# What a point of the roofline says of itself.
_OPERATION = (
    "{operation}: {share:.1%} of the step, bound by {bound}<br>"
    "{intensity:.4g} FLOP/byte, {rate:.4g} TFLOP/s"
)


def operations(frame: Frame, caption: Caption) -> Figure:
    """Draw time and bytes of a step as stacked bars; ``frame`` as of ``frames.operations``."""
    rows = ATTENTIONS[::-1]  # from the bottom up
    fits = frame.groupby("variant")["fits"].first()
    figure = layout.new_panels(["", ""], 2, 1, shared=False)
    for panel, (column, unit, title) in enumerate(
        (("time_ms", 1.0, "time of a decode step [ms]"), ("bytes", GIGA, "bytes moved [GB]"))
    ):
        sums = frame.pivot_table(
            index="variant", columns="part", values=column, aggfunc="sum", fill_value=0.0
        )
        sums = sums.loc[list(rows)] / unit
        for part in (part for part in PARTS if part in sums):
            pattern = {"shape": "/" if part == PARTS[-1] else ""}
            edge = {"color": "white", "width": 0.5}
            figure.add_bar(
                x=sums[part].tolist(),
                y=list(range(len(rows))),
                orientation="h",
                width=0.55,
                name=part,
                legendgroup=part,
                showlegend=panel == 0,
                marker={"color": palette.PART_COLOURS[part], "line": edge, "pattern": pattern},
                hovertemplate=f"{part}: %{{x:.4g}} {title[-4:].strip('[] ')}<extra></extra>",
                row=1,
                col=panel + 1,
            )
        for row, (variant, total) in enumerate(sums.sum(axis="columns").items()):
            amount = format_si(total * GIGA, "B") if panel else format_time(total * MILLISECOND)
            unfit = "" if fits[variant] else ", does not fit"
            name = f"<b>{variant}</b>: {amount}{unfit}"
            style = {"yanchor": "bottom", "font": {"size": 12}}
            layout.label(figure, name, (0, row + 0.3), style, panel=panel)
        x, y = (layout.axis_name(axis, panel) for axis in ("xaxis", "yaxis"))
        most = float(sums.sum(axis="columns").max())
        figure.layout[x].update(range=[0, most * 1.02], nticks=6, title_text=title)
        figure.layout[y].update(range=[-0.5, len(rows) - 0.2], visible=False)
    figure.update_layout(barmode="stack")
    return layout.finish(figure, _operations_finding(frame), caption)


def _operations_finding(frame: Frame) -> str:
    """Say what share of the step attention takes, before and after."""
    shares = {}
    for variant in ATTENTIONS:
        part = frame[frame["variant"] == variant]
        attention = part[part["part"].str.startswith("attention")]["time_ms"].sum()
        shares[variant] = attention / part["step_ms"].iloc[0]
    steps = frame.groupby("variant")["step_ms"].first()
    ratio = f", which is {texts.faster(steps['standard'] / steps['bifurcated'])}"
    return (
        f"Attention takes {shares['standard']:.0%} of the standard step and "
        f"{shares['bifurcated']:.0%} of the bifurcated one{lines.fit_words(frame) or ratio}"
    )


def roofline(frame: Frame, caption: Caption) -> Figure:
    """Draw operations under the GPU's roofs, before and after bifurcation.

    ``frame`` as of ``frames.operations``; operations without matrix products have no place.
    """
    points = frame[frame["flops"] > 0].sort_values("flops", ascending=False, kind="stable")
    points = points.assign(
        intensity=points["flops"] / points["bytes"],
        rate=points["flops"] / (points["time_ms"] * MILLISECOND) / TERA,
        share=points["time_ms"] / points["step_ms"],
        name=points["part"].str.partition(", ")[2],
    )
    figure = layout.new_figure()
    reads = points["kind"].isin(CACHE_READERS)
    attention, others = points[reads], points[~reads & (points["variant"] == "standard")]
    roof = points.iloc[0]
    low, high = points["intensity"].min() / 4, points["intensity"].max() * 4
    high = max(high, 4 * roof["peak_flops_per_s"] / roof["peak_bytes_per_s"])
    formats = points.sort_values("peak_flops_per_s").drop_duplicates("dtype")
    roofs = [(f"published, {row['dtype']}", "peak_", "solid", row) for _, row in formats.iterrows()]
    for who, rows, dash in (("products", others, "longdash"), ("attention", attention, "dot")):
        roofs.append((f"achieved by {who}", "", dash, rows.iloc[0] if len(rows) else roof))
    for name, prefix, dash, row in roofs:
        flops, bytes_per_s = row[f"{prefix}flops_per_s"], row[f"{prefix}bytes_per_s"]
        xs = [low, flops / bytes_per_s, high]
        ys = [min(flops, x * bytes_per_s) / TERA for x in xs]
        colour = palette.INK if prefix else palette.GREY
        lines.add_rule(figure, xs, ys, name, color=colour, dash=dash, width=1.5)
    groups = [("products, in both", others, palette.GREEN, "diamond")]
    for variant, colour in palette.COLOURS.items():
        rows = attention[attention["variant"] == variant]
        groups.append((f"attention, {variant}", rows, colour, "circle"))
    for name, rows, colour, symbol in groups:
        sizes, edge = (8 + 40 * rows["share"] ** 0.5).tolist(), {"color": "white", "width": 1}
        marker = {"size": sizes, "color": colour, "symbol": symbol, "opacity": 0.75, "line": edge}
        if len(rows):
            text = {"textposition": "bottom center", "textfont": {"size": 12}}
            drawn = {"marker": marker, "name": name, "text": rows["name"].tolist(), **text}
            drawn["mode"] = "markers+text"
            lines.add(figure, rows, "intensity", "rate", drawn, hover=_OPERATION)
    _add_move(figure, attention)
    axes.log_axis(figure, "xaxis", [low, high], "arithmetic intensity [FLOP/byte]")
    floor = min(points["rate"].min() / 2, roof["peak_flops_per_s"] / TERA / 64)
    top = [floor, points["peak_flops_per_s"].max() / TERA * 1.5]
    axes.log_axis(figure, "yaxis", top, "matrix rate [TFLOP/s]")
    notes = "Area of a point: its share of the step's time. Operations without matrix products"
    words = caption.after(f"{notes} are left out.")
    return layout.finish(figure, _roofline_finding(attention), words)


def _add_move(figure: Figure, attention: Frame) -> None:
    """Add the arrow from standard attention to bifurcated attention over the context."""
    context = attention[attention["part"] == "attention, context"].drop_duplicates("variant")
    ends = context.set_index("variant")[["intensity", "rate"]].map(math.log10)
    if set(ATTENTIONS) <= set(ends.index):
        (ax, ay), (x, y) = (ends.loc[variant] for variant in ATTENTIONS)
        place = {"xref": "x", "yref": "y", "axref": "x", "ayref": "y"}
        pen = {"arrowhead": 3, "arrowwidth": 1.5, "arrowcolor": palette.INK}
        room = {"standoff": 6, "startstandoff": 6}
        figure.add_annotation(x=x, y=y, ax=ax, ay=ay, text="", **place, **pen, **room)


def _intensity(point: Any) -> str:
    """Write FLOPs per byte."""
    value = float(point["intensity"])
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"  # noqa: PLR2004


def _roofline_finding(attention: Frame) -> str:
    """Say how far reading the context once moves its attention to the right."""
    context = attention[attention["part"] == "attention, context"]
    if not {"standard", "bifurcated"} <= set(context["variant"]):
        return "No matrix products over a shared context"
    most = context.drop_duplicates("variant").set_index("variant")
    before, after = most.loc["standard"], most.loc["bifurcated"]
    ratio = after["intensity"] / before["intensity"]
    if abs(ratio - 1) < TIE_MARGIN:
        return f"Nothing is shared: attention has {_intensity(before)} FLOPs per byte either way"
    return (
        f"Read once, the context gives {texts.times(ratio)} the FLOPs per byte: "
        f"{_intensity(before)} before, {_intensity(after)} after, "
        f"then bound by {after['bound']}"
    )
