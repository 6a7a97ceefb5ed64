"""GPUs and models against each other: throughput against latency, and cost per million tokens."""

import math
from typing import TYPE_CHECKING, Any

from simulator.views.plots import axes, layout, palette, panels, texts
from simulator.views.plots.caption import hash_of
from simulator.views.plots.layout import Caption

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross")
# Room for a GPU's name, as shares of the axes.
_NAME_ROOM = {"wide": (0.1, 0.045), "narrow": (0.33, 0.06)}
# Of a GPU's row, and of title, legend, axis and footer. [px]
_ROW_PX, _AROUND_PX = 28, 240
# From here on along an axis, a name centred over its point would leave the plot.
_RIGHT_END = 0.9
# Between the edge of a page, a GPU's name and its axis. [px]
_NAME_GAP_PX = 20


def pareto(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw throughput against latency: a curve for each GPU along samples, and the frontiers.

    ``frame`` as of :func:`frames.by_gpu`; what does not fit in memory is left out.
    """
    fitting = frame[frame["fits"].astype(bool)]
    figure = panels.new_figure()
    models = list(dict.fromkeys(frame["model"]))
    for variant in ("standard", "bifurcated"):
        for number, model in enumerate(models):
            part = fitting[(fitting["variant"] == variant) & (fitting["model"] == model)]
            # One model's curves are as many as a reader can tell apart.
            for _, curve in part.groupby("gpu", sort=False) if number == 0 else ():
                _add_curve(figure, curve.sort_values("samples"), variant)
            name = palette.LINES[variant].name + (f", {model}" if len(models) > 1 else "")
            _add_frontier(figure, frontier(part), variant, name, _SYMBOLS[number % len(_SYMBOLS)])
    drawn = fitting if len(fitting) else frame
    for axis, column, title in (
        ("xaxis", "step_ms", "time of a decode step [ms]"),
        ("yaxis", "tokens_per_s_per_gpu", "throughput of one GPU [tokens/s]"),
    ):
        axes.log_axis(figure, axis, drawn[column], title)
    best = fitting[(fitting["variant"] == "bifurcated") & (fitting["model"] == models[0])]
    _name_curves(figure, best, asked=str(frame["gpu"].iloc[0]))
    notes = (
        f"A pale curve is one GPU with {models[0]} along its samples; a frontier joins what no "
        "other GPU beats."
    )
    words = with_gpus(caption.after(notes), frame)
    return layout.finish(figure, _pareto_finding(fitting), words)


def _add_curve(figure: "go.Figure", curve: "pd.DataFrame", variant: str) -> None:
    """Add the curve of one GPU, pale."""
    figure.add_scatter(
        x=curve["step_ms"].tolist(),
        y=curve["tokens_per_s_per_gpu"].tolist(),
        mode="lines+markers",
        line={**palette.line_style(variant), "width": 1.2},
        marker={"size": 3},
        opacity=palette.UNFIT_OPACITY,
        showlegend=False,
        text=[
            f"{model}, {gpu}, {samples:,} samples"
            for model, gpu, samples in zip(
                curve["model"], curve["gpu_name"], curve["samples"], strict=True
            )
        ],
        hovertemplate="%{text}<br>%{x:.4g} ms, %{y:,.0f} tokens/s per GPU<extra></extra>",
    )


def _add_frontier(
    figure: "go.Figure", edge: "pd.DataFrame", variant: str, name: str, symbol: str
) -> None:
    """Add a frontier."""
    if not len(edge):
        return
    figure.add_scatter(
        x=edge["step_ms"].tolist(),
        y=edge["tokens_per_s_per_gpu"].tolist(),
        mode="lines+markers",
        line=palette.line_style(variant),
        marker={"size": 8, "symbol": symbol},
        name=f"frontier, {name}",
        hoverinfo="skip",
    )


def _name_curves(figure: "go.Figure", fitting: "pd.DataFrame", *, asked: str) -> None:
    """Write a GPU's name at the end of its curve: the one asked about, then the highest with room.

    Names that a phone has no room for are marked as being for a wide page.
    """
    if not len(fitting):
        return
    ends = fitting.loc[fitting.groupby("gpu")["tokens_per_s_per_gpu"].idxmax()]
    ends = ends.sort_values("tokens_per_s_per_gpu", ascending=False)
    first = ends["gpu"] == asked
    spans = [end - start for start, end in (figure.layout[f"{a}axis"].range for a in "xy")]
    placed: dict[str, list[tuple[float, float]]] = {"wide": [], "narrow": []}
    for index in [*ends.index[first], *ends.index[~first]]:
        end = ends.loc[index]
        at = (
            math.log10(end["step_ms"]) / spans[0],
            math.log10(end["tokens_per_s_per_gpu"]) / spans[1],
        )
        free = {
            form: all(abs(at[0] - x) > room[0] or abs(at[1] - y) > room[1] for x, y in placed[form])
            for form, room in _NAME_ROOM.items()
        }
        if not free["wide"]:
            continue
        placed["wide"].append(at)
        if free["narrow"]:
            placed["narrow"].append(at)
        figure.add_annotation(
            name="" if free["narrow"] else layout.WIDE_ONLY,
            x=math.log10(end["step_ms"]),
            y=math.log10(end["tokens_per_s_per_gpu"]),
            text=f"<b>{end['gpu']}</b>" if end["gpu"] == asked else end["gpu"],
            showarrow=False,
            # Within the plot: at its right end a name stands left of its point.
            xanchor="right" if _share(figure, "xaxis", end["step_ms"]) > _RIGHT_END else "center",
            yshift=10,
            font={"size": 11},
        )


def _share(figure: "go.Figure", axis: str, value: float) -> float:
    """Return how far along a logarithmic axis a value is, from 0 to 1."""
    low, high = figure.layout[axis].range
    return float((math.log10(value) - low) / (high - low))


def frontier(points: "pd.DataFrame") -> "pd.DataFrame":
    """Return the points that no other beats in both latency and throughput, fastest first."""
    ordered = points.sort_values(
        ["step_ms", "tokens_per_s_per_gpu"], ascending=[True, False], kind="stable"
    )
    best = ordered["tokens_per_s_per_gpu"].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered["tokens_per_s_per_gpu"] > best]


def _pareto_finding(fitting: "pd.DataFrame") -> str:
    """Say the highest throughput of each kind of attention, and on what."""
    best = {
        variant: part.loc[part["tokens_per_s_per_gpu"].idxmax()]
        for variant, part in fitting.groupby("variant")
    }
    several = len(set(fitting["model"])) > 1
    if not best:
        return "Nothing fits in memory on any of these GPUs"
    if len(best) == 1:
        (name,) = best
        return f"Only {name} attention fits: {_rate(best[name], several=several)}"
    first, second = sorted(best, key=lambda name: best[name]["tokens_per_s_per_gpu"], reverse=True)
    return "Most tokens: " + "; ".join(
        f"{name} {_rate(best[name], several=several)}" for name in (first, second)
    )


def _rate(point: Any, *, several: bool) -> str:
    """Write a throughput, and where it is reached; with which model, if there are several."""
    model = f" with {point['model']}" if several else ""
    return f"{point['tokens_per_s_per_gpu']:,.0f}/s per GPU on {point['gpu_name']}{model}"


def cost(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the cost of a million tokens on each GPU; ``frame`` as of :func:`frames.at_question`."""
    known = frame[frame["usd_per_million_tokens"].notna()]
    priced = known[known["fits"].astype(bool)]
    best = priced.groupby("gpu")["usd_per_million_tokens"].min().sort_values(ascending=False)
    places = {gpu: place for place, gpu in enumerate(best.index)}
    figure = panels.new_figure()
    wide = priced.pivot_table(index="gpu", columns="variant", values="usd_per_million_tokens")
    for gpu, place in places.items():
        ends = wide.loc[gpu].dropna().tolist()
        figure.add_scatter(
            x=ends,
            y=[place] * len(ends),
            mode="lines",
            line={"color": palette.PALE, "width": 4},
            showlegend=False,
            hoverinfo="skip",
        )
    for variant in ("standard", "bifurcated"):
        part = priced[priced["variant"] == variant]
        if not len(part):
            continue
        figure.add_scatter(
            x=part["usd_per_million_tokens"].tolist(),
            y=[places[gpu] for gpu in part["gpu"]],
            mode="markers",
            marker={
                "color": palette.LINES[variant].colour,
                "symbol": "circle" if variant == "bifurcated" else "diamond",
                "size": 11,
            },
            name=palette.LINES[variant].name,
            text=part["gpu_name"].tolist(),
            hovertemplate="%{text}: %{x:.3g} USD per million tokens<extra></extra>",
        )
    axes.log_axis(
        figure, "xaxis", priced["usd_per_million_tokens"], "cost of a million tokens [USD]"
    )
    apart = set(priced[~priced["price_comparable"].astype(bool)]["gpu"])
    names = [f"{gpu} *" if gpu in apart else gpu for gpu in places]
    figure.layout.yaxis.update(
        tickmode="array",
        tickvals=list(places.values()),
        ticktext=names,
        range=[-0.6, max(1, len(places)) - 0.4],
    )
    # On a phone, where a tick's text is 10 px high, names get what they need and no more.
    names_px = max((texts.text_width(gpu, 10) for gpu in names), default=0) + _NAME_GAP_PX
    left = {"wide": 130, "narrow": round(names_px)}
    figure.layout.meta = {**figure.layout.meta, "left": left}
    notes = "Of decoding, where the step fits, without the prefill; prices: profiles', or your own."
    if apart:
        notes += " * A price of another kind, which does not rank."
    figure.layout.meta = {**figure.layout.meta, "most_px": _ROW_PX * len(places) + _AROUND_PX}
    words = with_gpus(caption.after(notes), frame)
    return layout.finish(figure, _cost_finding(known), words)


def _cost_finding(priced: "pd.DataFrame") -> str:
    """Say where a million tokens cost least, each way."""
    if not len(priced):
        return "No price is known of any of these GPUs; give --price-per-hour"
    fitting = priced[priced["fits"].astype(bool)]
    if not len(fitting):
        return "It fits on none of these GPUs"
    fitting = fitting[fitting["price_comparable"]]
    if not len(fitting):
        return "Prices of these GPUs are not comparable; give --price-per-hour"
    best = fitting.loc[fitting["usd_per_million_tokens"].idxmin()]
    finding = (
        f"Cheapest: {best['gpu_name']}, {best['variant']}, "
        f"{best['usd_per_million_tokens']:.3g} USD per million tokens"
    )
    standard = fitting[fitting["variant"] == "standard"]
    if not len(standard):
        return f"{finding}; standard fits nowhere"
    if best["variant"] == "standard":
        return finding
    other = standard.loc[standard["usd_per_million_tokens"].idxmin()]
    where = "there too" if other["gpu"] == best["gpu"] else f"on {other['gpu_name']}"
    return f"{finding}; standard at best {other['usd_per_million_tokens']:.3g}, {where}"


def with_gpus(caption: Caption, frame: "pd.DataFrame") -> Caption:
    """Add to a footer which constants and profiles a figure over GPUs rests on."""
    gpus = frame.drop_duplicates("gpu")
    fitted = sorted(gpus[gpus["constants"] == "fitted"]["gpu"])
    if set(gpus["constants"]) == {"peak"}:
        origin = "Published peaks and no overheads: a bound, not a prediction."
    elif fitted:
        others = "" if len(fitted) == len(gpus) else "; carried over from those for the others"
        origin = f"Constants fitted for {', '.join(fitted)}{others}."
    else:
        origin = "Constants carried over from other GPUs."
    profiles = (
        f"Profile {gpus['gpu'].iloc[0]}, hash {gpus['hash'].iloc[0]}."
        if len(gpus) == 1
        else f"Profiles of {len(gpus)} GPUs, hash of all {hash_of(list(gpus['hash']))}."
    )
    return Caption(
        caption.subject, (*caption.notes[:-1], f"{origin} {profiles} {caption.notes[-1]}")
    )
