"""Throughput against latency and cost, over GPUs, models and loads."""

import math

from simulator.answers.load import Curve, Request, serve
from simulator.answers.study import Study
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.views.load import serve_rows
from simulator.views.plots import axes, layout, lines, palette, texts
from simulator.views.plots.caption import caption, hash_of, study_of
from simulator.views.plots.layout import Caption, Figure

_JOINED = {"mode": "lines+markers"}
_AXES = ("step_ms", "tokens_per_s_per_gpu")
# What a point of a curve says of itself.
_CURVE = (
    "{model}, {gpu_name}, {samples:,} samples<br>"
    "{step_ms:.4g} ms, {tokens_per_s_per_gpu:,.0f} tokens/s per GPU"
)
# Room for a GPU's name, as shares of the axes.
_NAME_ROOM = {"wide": (0.1, 0.045), "narrow": (0.33, 0.06)}
# Of a GPU's row, and of title, legend, axis and footer. [px]
_ROW_PX, _AROUND_PX = 28, 240
# From here on along an axis, a name centred over its point would leave the plot.
_RIGHT_END = 0.9
# Between the edge of a page, a GPU's name and its axis. [px]
_NAME_GAP_PX = 20


def pareto(frame: Frame, caption: Caption) -> Figure:
    """Draw throughput against latency: a curve for each GPU along samples, and the frontiers.

    ``frame`` as of :func:`frames.by_gpu`; what does not fit in memory is left out.
    """
    fitting = frame[frame["fits"].astype(bool)].sort_values("samples", kind="stable")
    figure = layout.new_figure()
    models = list(dict.fromkeys(frame["model"]))
    for variant in ATTENTIONS:
        for number, model in enumerate(models):
            part = fitting[(fitting["variant"] == variant) & (fitting["model"] == model)]
            # One model's curves are as many as a reader can tell apart.
            for _, curve in part.groupby("gpu", sort=False) if number == 0 else ():
                thin = {"line": {**palette.LINES[variant], "width": 1.2}, "marker": {"size": 3}}
                pale = {"opacity": palette.UNFIT_OPACITY, "showlegend": False}
                lines.add(figure, curve, *_AXES, {**_JOINED, **thin, **pale}, hover=_CURVE)
            if len(part):
                marker = {"size": 8, "symbol": palette.mark(number)["symbol"]}
                name = f"frontier, {variant}" + (f", {model}" if len(models) > 1 else "")
                drawn = {**_JOINED, "line": palette.LINES[variant], "marker": marker, "name": name}
                lines.add(figure, frontier(part), *_AXES, drawn)
    shown = fitting if len(fitting) else frame
    axes.log_axis(figure, "xaxis", shown["step_ms"], "time of a decode step [ms]")
    title = "throughput of one GPU [tokens/s]"
    axes.log_axis(figure, "yaxis", shown["tokens_per_s_per_gpu"], title)
    best = fitting[(fitting["variant"] == "bifurcated") & (fitting["model"] == models[0])]
    _name_curves(figure, best, asked=str(frame["gpu"].iloc[0]))
    notes = (
        f"A pale curve is one GPU with {models[0]} along its samples; a frontier joins what no "
        "other GPU beats."
    )
    words = with_gpus(caption.after(notes), frame)
    return layout.finish(figure, _pareto_finding(fitting), words)


def _name_curves(figure: Figure, fitting: Frame, *, asked: str) -> None:
    """Write a GPU's name at the end of its curve: the one asked about, then the highest with room.

    Names that a phone has no room for are marked as being for a wide page.
    """
    last = fitting.sort_values(_AXES[1], ascending=False).drop_duplicates("gpu")
    last = last.sort_values("gpu", key=lambda gpu: gpu != asked, kind="stable")
    ends = [figure.layout[axis].range for axis in ("xaxis", "yaxis")]
    placed: dict[str, list[list[float]]] = {form: [] for form in _NAME_ROOM}
    for _, end in last.iterrows():
        point = [math.log10(end[column]) for column in _AXES]
        # Along both axes, from 0 to 1.
        at = [(value - low) / (high - low) for value, (low, high) in zip(point, ends, strict=True)]
        free = [
            form
            for form, room in _NAME_ROOM.items()
            if all(abs(at[0] - x) > room[0] or abs(at[1] - y) > room[1] for x, y in placed[form])
        ]
        if "wide" not in free:
            continue
        for form in free:
            placed[form].append(at)
        text = f"<b>{end['gpu']}</b>" if end["gpu"] == asked else end["gpu"]
        form = "" if "narrow" in free else layout.WIDE_ONLY
        # Within the plot: at its right end a name stands left of its point.
        anchor = "right" if at[0] > _RIGHT_END else "center"
        layout.label(figure, text, point, {"name": form, "xanchor": anchor, "yshift": 10})


def frontier(points: Frame) -> Frame:
    """Return the points that no other beats in both latency and throughput, fastest first."""
    ordered = points.sort_values(
        ["step_ms", "tokens_per_s_per_gpu"], ascending=[True, False], kind="stable"
    )
    best = ordered["tokens_per_s_per_gpu"].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered["tokens_per_s_per_gpu"] > best]


def _pareto_finding(fitting: Frame) -> str:
    """Say the highest throughput of each kind of attention, and on what."""
    several = len(set(fitting["model"])) > 1
    best = fitting.sort_values(_AXES[1], ascending=False).drop_duplicates("variant")
    rates = [
        f"{point['tokens_per_s_per_gpu']:,.0f}/s per GPU on {point['gpu_name']}"
        + (f" with {point['model']}" if several else "")
        for _, point in best.iterrows()
    ]
    if not rates:
        return "Nothing fits in memory on any of these GPUs"
    if len(rates) == 1:
        return f"Only {best['variant'].iloc[0]} attention fits: {rates[0]}"
    named = (f"{name} {rate}" for name, rate in zip(best["variant"], rates, strict=True))
    return f"Most tokens: {'; '.join(named)}"


def cost(frame: Frame, caption: Caption) -> Figure:
    """Draw the cost of a million tokens on each GPU; ``frame`` as of :func:`frames.at_question`."""
    known, usd = frame[frame["usd_per_million_tokens"].notna()], "usd_per_million_tokens"
    priced = known[known["fits"].astype(bool)]
    best = priced.groupby("gpu")[usd].min().sort_values(ascending=False)
    places = {gpu: place for place, gpu in enumerate(best.index)}
    priced = priced.assign(place=priced["gpu"].map(places))
    figure = layout.new_figure()
    bar = {"mode": "lines", "line": {"color": palette.PALE, "width": 4}, "showlegend": False}
    for _, both in priced.sort_values("place").groupby("place"):
        lines.add(figure, both, usd, "place", bar)
    for variant, colour in palette.COLOURS.items():
        part = priced[priced["variant"] == variant]
        symbol = "circle" if variant == "bifurcated" else "diamond"
        if len(part):
            hover = f"{{gpu_name}}: {{{usd}:.3g}} USD per million tokens"
            marker = {"color": colour, "symbol": symbol, "size": 11}
            lines.add(figure, part, usd, "place", {"marker": marker, "name": variant}, hover=hover)
    axes.log_axis(figure, "xaxis", priced[usd], "cost of a million tokens [USD]")
    apart = set(priced[~priced["price_comparable"].astype(bool)]["gpu"])
    names = [f"{gpu} *" if gpu in apart else gpu for gpu in places]
    ticks = {"tickmode": "array", "tickvals": list(places.values()), "ticktext": names}
    figure.layout.yaxis.update(range=[-0.6, max(1, len(places)) - 0.4], **ticks)
    # On a phone, where a tick's text is 10 px high, names get what they need and no more.
    names_px = max((texts.text_width(gpu, 10) for gpu in names), default=0) + _NAME_GAP_PX
    figure.layout.meta = {
        **figure.layout.meta,
        "left": {"wide": 130, "narrow": round(names_px)},
        "most_px": _ROW_PX * len(places) + _AROUND_PX,
    }
    notes = "Of decoding, where the step fits, without the prefill; prices: profiles', or your own."
    if apart:
        notes += " * A price of another kind, which does not rank."
    words = with_gpus(caption.after(notes), frame)
    return layout.finish(figure, _cost_finding(known), words)


def _cost_finding(priced: Frame) -> str:
    """Say where a million tokens cost least, each way."""
    if not len(priced):
        return "No price is known of any of these GPUs; give --price-per-hour"
    fitting = priced[priced["fits"].astype(bool)].sort_values("usd_per_million_tokens")
    if not len(fitting):
        return "It fits on none of these GPUs"
    fitting = fitting[fitting["price_comparable"]]
    if not len(fitting):
        return "Prices of these GPUs are not comparable; give --price-per-hour"
    best, standard = fitting.iloc[0], fitting[fitting["variant"] == "standard"]
    finding = (
        f"Cheapest: {best['gpu_name']}, {best['variant']}, "
        f"{best['usd_per_million_tokens']:.3g} USD per million tokens"
    )
    if not len(standard):
        return f"{finding}; standard fits nowhere"
    if best["variant"] == "standard":
        return finding
    other = standard.iloc[0]
    where = "there too" if other["gpu"] == best["gpu"] else f"on {other['gpu_name']}"
    return f"{finding}; standard at best {other['usd_per_million_tokens']:.3g}, {where}"


def with_gpus(caption: Caption, frame: Frame) -> Caption:
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
    notes = (*caption.notes[:-1], f"{origin} {profiles} {caption.notes[-1]}")
    return Caption(caption.subject, notes)


# Of an axis without a point. [tokens/s]
_EMPTY_AXIS = (1.0, 100.0)
_LOAD = (
    "{attention}, {concurrency:,} at once: TTFT {ttft_ms:,.4g} ms, TPOT {tpot_ms:.4g} ms<br>"
    "{tokens_per_s_per_user:.4g} tokens/s for a user, {tokens_per_s_per_gpu:,.0f} of a GPU"
)


def load(frame: Frame, caption: Caption) -> Figure:
    """Draw the curve of each way of attention; ``frame`` as of :func:`load_frame`."""
    figure, x, y = layout.new_figure(), "tokens_per_s_per_user", "tokens_per_s_per_gpu"
    for variant in ATTENTIONS:
        part = frame[frame["attention"] == variant].sort_values("concurrency")
        if len(part):
            marker = {"size": 8, "color": palette.COLOURS[variant]}
            drawn = {**_JOINED, "line": palette.LINES[variant], "marker": marker, "name": variant}
            lines.add(figure, part, x, y, drawn, hover=_LOAD)
    for axis, column, title in (
        ("xaxis", x, "speed that a user sees [tokens/s]"),
        ("yaxis", y, "throughput of one GPU [tokens/s]"),
    ):
        axes.log_axis(figure, axis, frame[column] if len(frame) else _EMPTY_AXIS, title)
    told = "Users ask again at once: one at the right end of a curve, as many as fit at its left."
    return layout.finish(figure, _load_finding(frame), caption.after(told))


def load_figure(curve: Curve) -> Figure:
    """Draw a deployment's curve."""
    study = study_of(curve.deployments[0].alone)
    return load(_points(curve), caption(study, ("decoded_tokens", "prompts")))


def load_frame(study: Study) -> Frame:
    """Follow the question's requests under load: the rows of ``bifurcate serve``.

    Raises
    ------
    WorkloadError
        If the question cannot run.
    """
    request = Request.of(study.workload, study.output_tokens)
    price = study.usd_per_hour
    return _points(serve(study.question, request, attentions=ATTENTIONS, usd_per_hour=price))


def _points(curve: Curve) -> Frame:
    """Return the points of a curve, none where a request does not fit."""
    import pandas as pd

    times, rates = ("ttft_ms", "tpot_ms"), ("tokens_per_s_per_user", "tokens_per_s_per_gpu")
    return pd.DataFrame(serve_rows(curve), columns=["attention", "concurrency", *times, *rates])


def _load_finding(frame: Frame) -> str:
    """Say what the best way carries at most, and how much more than the next."""
    if not len(frame):
        return "A request does not fit in memory"
    most = frame.groupby("attention")["tokens_per_s_per_gpu"].max().sort_values(ascending=False)
    best, *others = most.index
    more = f", {most.iloc[0] / most.iloc[1]:.1f}x as much as {others[0]}" if others else ""
    return f"Under load {best} carries up to {most.iloc[0]:,.0f} tokens/s per GPU{more}"
