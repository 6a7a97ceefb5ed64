"""GPUs and models against each other: throughput against latency, and cost per million tokens."""

from typing import TYPE_CHECKING

from simulator.views.plots import style
from simulator.views.plots.caption import hash_of
from simulator.views.plots.style import Caption

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon", "cross")


def pareto(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw throughput against latency, and for each model and kind of attention the frontier.

    ``frame`` as of :func:`fleet.by_gpu`; what does not fit in memory is left out.
    """
    import plotly.graph_objects as go

    fitting = frame[frame["fits"].astype(bool)]
    figure = style.new_figure()
    models = list(dict.fromkeys(frame["model"]))
    for variant in ("standard", "bifurcated"):
        line = style.line_style(variant)
        for number, model in enumerate(models):
            part = fitting[(fitting["variant"] == variant) & (fitting["model"] == model)]
            symbol = _SYMBOLS[number % len(_SYMBOLS)]
            name = style.LINES[variant].name + (f", {model}" if len(models) > 1 else "")
            figure.add_trace(
                go.Scatter(
                    x=part["step_ms"].tolist(),
                    y=part["tokens_per_s_per_gpu"].tolist(),
                    mode="markers",
                    marker={"color": line["color"], "size": 5, "opacity": 0.25, "symbol": symbol},
                    showlegend=False,
                    text=[
                        f"{model}, {gpu}, {samples:,} samples"
                        for gpu, samples in zip(part["gpu_name"], part["samples"], strict=True)
                    ],
                    hovertemplate="%{text}<br>%{x:.4g} ms, %{y:,.0f} tokens/s per GPU"
                    "<extra></extra>",
                )
            )
            edge = frontier(part)
            if not len(edge):
                continue
            figure.add_trace(
                go.Scatter(
                    x=edge["step_ms"].tolist(),
                    y=edge["tokens_per_s_per_gpu"].tolist(),
                    mode="lines+markers+text",
                    line=line,
                    marker={"size": 9, "symbol": symbol},
                    name=f"frontier, {name}",
                    text=_names_once(edge) if variant == "bifurcated" else None,
                    textposition="top left",
                    textfont={"size": 11},
                    hoverinfo="skip",
                )
            )
    drawn = fitting if len(fitting) else frame
    style.log_axis(
        figure,
        "xaxis",
        drawn["step_ms"],
        "time of a decode step [ms]",
        text=style.number_text,
        pad=0.06,
    )
    style.log_axis(
        figure, "yaxis", drawn["tokens_per_s_per_gpu"], "throughput of one GPU [tokens/s]",
        text=style.number_text, pad=0.06,
    )  # fmt: skip
    return style.finish(figure, _pareto_finding(fitting), _with_gpus(caption, frame))


def frontier(points: "pd.DataFrame") -> "pd.DataFrame":
    """Return the points that no other beats in both latency and throughput, fastest first."""
    ordered = points.sort_values(
        ["step_ms", "tokens_per_s_per_gpu"], ascending=[True, False], kind="stable"
    )
    best = ordered["tokens_per_s_per_gpu"].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered["tokens_per_s_per_gpu"] > best]


def _names_once(edge: "pd.DataFrame") -> list[str]:
    """Return the GPU of each point of a frontier where it is another than before."""
    names = list(edge["gpu"])
    return [
        name if index == 0 or names[index - 1] != name else "" for index, name in enumerate(names)
    ]


def _pareto_finding(fitting: "pd.DataFrame") -> str:
    """Say the highest throughput of each kind of attention, and on what."""
    best = {
        variant: part.loc[part["tokens_per_s_per_gpu"].idxmax()]
        for variant, part in fitting.groupby("variant")
    }
    if "bifurcated" not in best:
        return "Nothing fits in memory on any of these GPUs"
    top = best["bifurcated"]
    rate = f"{top['tokens_per_s_per_gpu']:,.0f}/s per GPU"
    first = f"Most tokens: {rate} on {top['gpu_name']}, bifurcated"
    if "standard" not in best:
        return f"{first}; standard fits nowhere"
    other = best["standard"]
    return f"{first}; standard {other['tokens_per_s_per_gpu']:,.0f}/s on {other['gpu_name']}"


def cost(frame: "pd.DataFrame", caption: Caption) -> "go.Figure":
    """Draw the cost of a million tokens on each GPU; ``frame`` as of :func:`fleet.at_question`."""
    import plotly.graph_objects as go

    priced = frame[frame["usd_per_million_tokens"].notna()]
    priced = priced[priced["variant"].isin(("standard", "bifurcated"))]
    bifurcated = priced[priced["variant"] == "bifurcated"]
    order = bifurcated.sort_values("usd_per_million_tokens", ascending=False)
    places = {gpu: place for place, gpu in enumerate(order["gpu"])}
    figure = style.new_figure()
    wide = priced.pivot_table(index="gpu", columns="variant", values="usd_per_million_tokens")
    for gpu, place in places.items():
        figure.add_trace(
            go.Scatter(
                x=wide.loc[gpu].tolist(),
                y=[place] * wide.shape[1],
                mode="lines",
                line={"color": style.PALE, "width": 4},
                showlegend=False,
                hoverinfo="skip",
            )
        )
    for variant in ("standard", "bifurcated"):
        for fits in (True, False):
            part = priced[(priced["variant"] == variant) & (priced["fits"].astype(bool) == fits)]
            if not len(part):
                continue
            name = style.LINES[variant].name
            figure.add_trace(
                go.Scatter(
                    x=part["usd_per_million_tokens"].tolist(),
                    y=[places[gpu] for gpu in part["gpu"]],
                    mode="markers",
                    marker={
                        "color": style.LINES[variant].colour,
                        "symbol": ("circle" if variant == "bifurcated" else "diamond")
                        + ("" if fits else "-open"),
                        "size": 11,
                    },
                    name=name if fits else f"{name}, does not fit",
                    text=part["gpu_name"].tolist(),
                    hovertemplate="%{text}: %{x:.3g} USD per million tokens<extra></extra>",
                )
            )
    style.log_axis(
        figure, "xaxis", priced["usd_per_million_tokens"], "cost of a million tokens [USD]",
        text=style.number_text,
    )  # fmt: skip
    figure.layout.yaxis.update(
        tickmode="array",
        tickvals=list(places.values()),
        ticktext=list(places),
        range=[-0.6, max(1, len(places)) - 0.4],
    )
    figure.layout.meta = {**figure.layout.meta, "left": {"wide": 130, "narrow": 92}}
    notes = "Of decoding, without the prefill; prices are those of the profiles, or your own."
    words = _with_gpus(Caption(caption.subject, (notes, *caption.notes)), frame)
    return style.finish(figure, _cost_finding(priced), words)


def _cost_finding(priced: "pd.DataFrame") -> str:
    """Say where a million tokens cost least, each way."""
    if not len(priced):
        return "No price is known of any of these GPUs; give --price-per-hour"
    fitting = priced[priced["fits"].astype(bool)]
    if not len(fitting):
        return "It fits on none of these GPUs"
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


def _with_gpus(caption: Caption, frame: "pd.DataFrame") -> Caption:
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
    profiles = f"Profiles of {len(gpus)} GPUs, hash of all {hash_of(list(gpus['hash']))}."
    return Caption(
        caption.subject, (*caption.notes[:-1], f"{origin} {profiles} {caption.notes[-1]}")
    )
