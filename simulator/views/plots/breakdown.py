"""Where time and bytes of a step go, operation by operation; and the roofline chart."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulator.answers.frames import PARTS
from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.setup import ATTENTIONS
from simulator.timing.interval import CACHE_READERS
from simulator.units import GIGA, MILLISECOND, TERA, format_si, format_time
from simulator.views.plots import axes, layout, palette, panels, texts
from simulator.views.plots.layout import Caption
from simulator.views.plots.lines import add_rule, fit_words

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Parts that read the KV cache stand out; those that sharing does not change are green or grey.
PART_COLOURS: Mapping[str, str] = dict(
    zip(
        PARTS,
        (
            palette.PURPLE,
            palette.SKY,
            palette.YELLOW,
            "#A3B86C",
            palette.GREEN,
            "#00694D",
            "#8FD3C1",
            palette.GREY,
            palette.BLACK,
            palette.PALE,
        ),
        strict=True,
    )
)


def operations(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw time and bytes of a step as stacked bars; ``frame`` as of ``frames.operations``."""
    rows = ATTENTIONS[::-1]  # from the bottom up
    figure = panels.new_panels(["", ""], 2, 1, shared=False)
    columns = (("time_ms", 1.0, "time of a decode step [ms]"), ("bytes", GIGA, "bytes moved [GB]"))
    for panel, (column, unit, title) in enumerate(columns):
        sums = frame.pivot_table(
            index="variant", columns="part", values=column, aggfunc="sum", fill_value=0.0
        )
        for part in (part for part in PARTS if part in sums):
            figure.add_bar(
                x=[float(sums.loc[variant, part]) / unit for variant in rows],
                y=list(range(len(rows))),
                orientation="h",
                width=0.55,
                name=part,
                legendgroup=part,
                showlegend=panel == 0,
                marker={
                    "color": PART_COLOURS[part],
                    "line": {"color": "white", "width": 0.5},
                    "pattern": {"shape": "/" if part == PARTS[-1] else ""},
                },
                hovertemplate=f"{part}: %{{x:.4g}} {title[-4:].strip('[] ')}<extra></extra>",
                row=1,
                col=panel + 1,
            )
        totals = [float(sums.loc[variant].sum()) / unit for variant in rows]
        _name_bars(figure, frame, rows, totals, panel)
        x, y = (panels.axis_name(axis, panel) for axis in ("xaxis", "yaxis"))
        figure.layout[x].update(range=[0, max(totals) * 1.02], nticks=6, title_text=title)
        figure.layout[y].update(range=[-0.5, len(rows) - 0.2], visible=False)
    figure.update_layout(barmode="stack")
    return layout.finish(figure, _operations_finding(frame), caption)


def _name_bars(
    figure: "go.Figure", frame: "pd.DataFrame", rows: Sequence[str], totals: list[float], panel: int
) -> None:
    """Label each bar with its name and its sum."""
    for row, (variant, total) in enumerate(zip(rows, totals, strict=True)):
        fits = bool(frame[frame["variant"] == variant]["fits"].iloc[0])
        amount = format_time(total * MILLISECOND) if panel == 0 else format_si(total * GIGA, "B")
        unfit = "" if fits else ", does not fit"
        figure.add_annotation(
            text=f"<b>{palette.LINES[variant].name}</b>: {amount}{unfit}",
            xref=panels.axis_name("x", panel),
            yref=panels.axis_name("y", panel),
            x=0,
            y=row + 0.3,
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 12},
        )


def _operations_finding(frame: "pd.DataFrame") -> str:
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
        f"{shares['bifurcated']:.0%} of the bifurcated one{fit_words(frame) or ratio}"
    )


def roofline(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw operations under the GPU's roofs, before and after bifurcation.

    ``frame`` as of ``frames.operations``; operations without matrix products have no place.
    """
    points = frame[frame["flops"] > 0].copy()
    points["intensity"] = points["flops"] / points["bytes"]
    points["rate"] = points["flops"] / (points["time_ms"] * MILLISECOND) / TERA
    figure = panels.new_figure()
    reads = points["kind"].isin(CACHE_READERS)
    attention, others = points[reads], points[~reads & (points["variant"] == "standard")]
    low, high = points["intensity"].min() / 4, points["intensity"].max() * 4
    roof = points.loc[points["flops"].idxmax()]
    ridge = roof["peak_flops_per_s"] / roof["peak_bytes_per_s"]
    high = max(high, 4 * ridge)
    formats = points.sort_values("peak_flops_per_s").drop_duplicates("dtype")
    for label, row, dash, colour in (
        *(
            (f"published, {row['dtype']}", row, "solid", palette.INK)
            for _, row in formats.iterrows()
        ),
        ("achieved by products", _first(others, roof), "longdash", palette.GREY),
        ("achieved by attention", _first(attention, roof), "dot", palette.GREY),
    ):
        prefix = "peak_" if dash == "solid" else ""
        flops, bytes_per_s = row[f"{prefix}flops_per_s"], row[f"{prefix}bytes_per_s"]
        xs = [low, flops / bytes_per_s, high]
        ys = [min(flops, x * bytes_per_s) / TERA for x in xs]
        add_rule(figure, xs, ys, label, color=colour, dash=dash, width=1.5)
    _add_points(figure, others, "products, in both", palette.GREEN, "diamond")
    for variant in ATTENTIONS:
        there = attention[attention["variant"] == variant]
        line = palette.LINES[variant]
        _add_points(figure, there, f"attention, {line.name}", line.colour, "circle")
    _add_move(figure, attention)
    axes.log_axis(figure, "xaxis", [low, high], "arithmetic intensity [FLOP/byte]")
    floor = min(points["rate"].min() / 2, roof["peak_flops_per_s"] / TERA / 64)
    top = [floor, points["peak_flops_per_s"].max() / TERA * 1.5]
    axes.log_axis(figure, "yaxis", top, "matrix rate [TFLOP/s]")
    notes = "Area of a point: its share of the step's time. Operations without matrix products"
    words = caption.after(f"{notes} are left out.")
    return layout.finish(figure, _roofline_finding(attention), words)


def _first(rows: "pd.DataFrame", otherwise: Any) -> Any:
    """Return the row with the most FLOPs."""
    return rows.loc[rows["flops"].idxmax()] if len(rows) else otherwise


def _add_points(
    figure: "go.Figure", rows: "pd.DataFrame", name: str, colour: str, symbol: str
) -> None:
    """Add operations as points whose area is their share of the step."""
    if not len(rows):
        return
    share = rows["time_ms"] / rows["step_ms"]
    figure.add_scatter(
        x=rows["intensity"].tolist(),
        y=rows["rate"].tolist(),
        mode="markers+text",
        text=rows["part"].str.partition(", ")[2].tolist(),
        textposition="bottom center",
        textfont={"size": 12},
        marker={
            "size": (8 + 40 * share**0.5).tolist(),
            "color": colour,
            "symbol": symbol,
            "opacity": 0.75,
            "line": {"color": "white", "width": 1},
        },
        name=name,
        customdata=[
            f"{operation}: {part:.1%} of the step, bound by {bound}"
            for operation, part, bound in zip(rows["operation"], share, rows["bound"], strict=True)
        ],
        hovertemplate="%{customdata}<br>%{x:.4g} FLOP/byte, %{y:.4g} TFLOP/s<extra></extra>",
    )


def _add_move(figure: "go.Figure", attention: "pd.DataFrame") -> None:
    """Add the arrow from standard attention to bifurcated attention over the context."""
    import math

    ends = [
        attention[(attention["variant"] == variant) & (attention["part"] == "attention, context")]
        for variant in ATTENTIONS
    ]
    if not all(len(rows) for rows in ends):
        return
    tail, head = (rows.loc[rows["flops"].idxmax()] for rows in ends)
    figure.add_annotation(
        x=math.log10(head["intensity"]),
        y=math.log10(head["rate"]),
        ax=math.log10(tail["intensity"]),
        ay=math.log10(tail["rate"]),
        xref="x",
        yref="y",
        axref="x",
        ayref="y",
        arrowhead=3,
        arrowwidth=1.5,
        arrowcolor=palette.INK,
        standoff=6,
        startstandoff=6,
        text="",
    )


def _intensity(point: Any) -> str:
    """Write FLOPs per byte."""
    value = float(point["intensity"])
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"  # noqa: PLR2004


def _roofline_finding(attention: "pd.DataFrame") -> str:
    """Say how far reading the context once moves its attention to the right."""
    context = attention[attention["part"] == "attention, context"]
    if not {"standard", "bifurcated"} <= set(context["variant"]):
        return "No matrix products over a shared context"
    most = context.loc[context.groupby("variant")["flops"].idxmax()].set_index("variant")
    before, after = most.loc["standard"], most.loc["bifurcated"]
    ratio = after["intensity"] / before["intensity"]
    if abs(ratio - 1) < TIE_MARGIN:
        return f"Nothing is shared: attention has {_intensity(before)} FLOPs per byte either way"
    return (
        f"Read once, the context gives {texts.times(ratio)} the FLOPs per byte: "
        f"{_intensity(before)} before, {_intensity(after)} after, "
        f"then bound by {after['bound']}"
    )
