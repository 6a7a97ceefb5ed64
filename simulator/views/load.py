"""Answers about a load: a deployment's curve over concurrency, and GPUs for requests a second."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from simulator.answers.estimate import memory_notes, model_notes
from simulator.answers.launch import VERSION, launch_line
from simulator.answers.load import Curve, Deployment, Point, Request
from simulator.answers.load_plan import UNFIT, LoadOption, LoadPlan
from simulator.inputs.parallelism import Parallelism
from simulator.timing.batching import closed_loop
from simulator.units import format_time
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from simulator.inputs.hardware import Price

MOST_OPTIONS_SHOWN = 16


def _time(seconds: float) -> str:
    """Format a time that grows without end where the load cannot be carried."""
    return "grows" if seconds == inf else format_time(seconds)


POINT = (
    Column("attention", "text", "deployment.attention", "attention"),
    Column("concurrency", heading="users"),
    Column("ttft_ms", "ms", "served.ttft_s", "TTFT", lambda point: _time(point.served.ttft_s)),
    Column("ttft_ms_low", "ms", "low.ttft_s"),
    Column("ttft_ms_high", "ms", "high.ttft_s"),
    Column("tpot_ms", "ms", "served.tpot_s", "TPOT", lambda point: _time(point.served.tpot_s)),
    Column("tpot_ms_low", "ms", "low.tpot_s"),
    Column("tpot_ms_high", "ms", "high.tpot_s"),
    Column("tokens_per_s_per_user", "1/s", heading="tokens/s per user"),
    Column("tokens_per_s_per_gpu", "1/s", heading="tokens/s per GPU"),
    Column("tokens_per_s", "1/s"),
    Column("requests_per_s", "1/s", lambda point: point.served.requests_per_s * point.replicas),
    Column("requests_decoding", value="served.decoding"),
    Column(
        "utilisation",
        value="served.utilisation",
        heading="utilisation",
        spare=True,
        cell=lambda point: f"{point.served.utilisation:.0%}",
    ),
    Column("headroom"),
    Column("saturates", "text", "deployment.saturates", "saturates"),
    columns.USD_PER_HOUR,
    Column("usd_per_month", "USD"),
    columns.USD_PER_MILLION,
)
WITHIN = Column(
    heading="TPOT, 80 % within",
    cell=lambda point: text.within_cell(point.low.tpot_s, point.high.tpot_s),
)
INPUTS = columns.without(
    estimate.INPUTS,
    *("attention", "kv_layout", "prompts", "sequences", "decoded_tokens", "constants"),
)
MEANS = (
    "TTFT and TPOT are means, unless a percentile is named. Memory bounds what is held on average; "
    "engines preempt requests beyond it."
)
_GROUPS = "Data-parallel groups are taken to prefill at the same time, the best that engines do."
REQUEST = (Column("output_tokens"), Column("cached_tokens", value="stored_tokens"))


def _at(name: str, share: float) -> Callable[[Point], float | None]:
    """Return the function of a point that gives a percentile of one of its times."""
    return lambda point: (point.ttft_at if name == "ttft" else point.tpot_at)(share)


PERCENTILES = tuple(
    Column(f"{name}_ms_p{percent}", "ms", _at(name, percent / 100))
    for name in ("ttft", "tpot")
    for percent in (50, 90, 99)
)
OPTION = (
    Column("verdict", "text"),
    Column("missed", "text", lambda option: ", ".join(option.missed)),
    Column("gpu", "text", "point.deployment.alone.gpu.id", "GPU"),
    Column("gpus", value="point.gpus", heading="GPUs"),
    *columns.within("point.deployment.alone", (*estimate.PARALLELISM, estimate.GROUP)),
    Column("replicas", value="point.replicas", heading="x"),
    *columns.within("point", (*columns.without(POINT, "concurrency"), *PERCENTILES)),
    Column("price", "text", lambda option: option.point.price and option.point.price.told),
    Column("price_source", "text", lambda option: option.point.price and option.point.price.source),
    Column("price_comparable", "bool", "comparable"),
    Column("constants", value="point.deployment.alone.rates.origin"),
    Column("launch", "text", lambda option: launch_line(option.point.deployment)),
)
TARGETS = (
    Column("requests_per_s"),
    Column("ttft_ms", "ms", "ttft_s"),
    Column("tpot_ms", "ms", "tpot_s"),
    Column("percentile"),
)


def serve_object(curve: Curve) -> Row:
    """Return a curve as a JSON object; points are rows, by way of attention and concurrency."""
    first = curve.deployments[0].alone
    return {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": _inputs(INPUTS, curve.deployments[0], curve.request),
        **columns.as_object([estimate.HARDWARE_USED], first),
        "points": [columns.as_object(POINT, point) for point in curve.points],
        "notes": _notes(curve.deployments),
    }


def serve_rows(curve: Curve) -> list[Row]:
    """Return a curve as tidy rows."""
    first = curve.deployments[0].alone
    asked = {
        "model": first.model.name,
        "gpu": first.gpu.id,
        **columns.as_object(estimate.PARALLELISM, first),
        **_sizes(curve.request),
    }
    return [asked | columns.as_object(POINT, point) for point in curve.points]


def serve_view(curve: Curve) -> "RenderableType":
    """Return a curve as a table."""
    shown = columns.pick(
        POINT,
        "attention",
        "users",
        "TTFT",
        "TPOT",
        "tokens/s per user",
        "tokens/s per GPU",
        "utilisation",
    )
    unfit = [each.attention for each in curve.deployments if each.server is None]
    return columns.stack(
        _question(curve.deployments[0], curve.request, gpu=True),
        "",
        *(
            f"{each.attention}: up to {each.server.most:,} requests together; "
            f"{_SATURATES[each.saturates]}."
            for each in curve.deployments
            if each.server is not None
        ),
        *([f"A request does not fit: {'; '.join(unfit)}."] if unfit else []),
        "",
        columns.as_table(
            (*shown[:4], WITHIN, *shown[4:], *columns.pick(POINT, "USD per million")),
            curve.points,
        ),
        *columns.notes(_notes(curve.deployments)),
    )


_SATURATES = {
    "prefill": "prefill takes most of the time first",
    "memory": "memory ends first",
    "sequences": "the engine's most sequences end first",
}


def load_plan_object(result: LoadPlan) -> Row:
    """Return a plan for a load as a JSON object; options are rows, best first."""
    first = result.options[0].point.deployment
    return {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": _inputs(
            columns.without(INPUTS, "gpu", *Parallelism.model_fields), first, result.request
        ),
        "targets": columns.as_object(TARGETS, result.targets),
        **{
            name: None if option is None else columns.as_object(OPTION, option)
            for name, option in (
                ("cheapest", result.cheapest),
                ("cheapest_maybe", result.cheapest_maybe),
            )
        },
        "options": [columns.as_object(OPTION, option) for option in result.options],
        "skipped": list(result.skipped),
        "notes": _notes([option.point.deployment for option in result.options]),
    }


def load_plan_rows(result: LoadPlan) -> list[Row]:
    """Return the options of a plan for a load as tidy rows, best first."""
    model = result.options[0].point.deployment.alone.model.name
    targets = {
        f"target_{key}": value for key, value in columns.as_object(TARGETS, result.targets).items()
    }
    return [
        {"model": model, **_sizes(result.request), **targets, **columns.as_object(OPTION, option)}
        for option in result.options
    ]


def load_plan_view(result: LoadPlan) -> "RenderableType":
    """Return a plan for a load as the answer in a sentence, and a table of options."""
    shown = result.options[:MOST_OPTIONS_SHOWN]
    hidden = len(result.options) - len(shown)
    of_point = columns.within("point", POINT)
    percent = result.targets.percentile
    named = columns.pick(
        (*of_point, *_percentiles(percent)),
        *(("TTFT", "TPOT") if percent is None else (f"TTFT p{percent:g}", f"TPOT p{percent:g}")),
        *("USD/h", "USD per million", "utilisation"),
    )
    rates = columns.pick(of_point, "tokens/s per user", "tokens/s per GPU")
    first = shown[0].point.deployment
    return columns.stack(
        _question(first, result.request, gpu=False),
        "",
        *_answers(result),
        "",
        columns.as_table(
            (
                *columns.pick(OPTION, "GPU", "GPUs", "group", "x"),
                *columns.pick(of_point, "attention"),
                *named,
                *map(columns.spared, rates),
                Column(unit="text", cell=lambda option: _standing(option, result), wrap=True),
            ),
            shown,
        ),
        *([f"{hidden} more options: --format csv or --json shows all."] if hidden else []),
        *columns.notes(
            [
                *_skipped(result.skipped),
                *_prices(shown),
                *_notes([option.point.deployment for option in shown]),
            ]
        ),
    )


def _percentiles(percent: float | None) -> list[Column]:
    """Return the columns of a table that has a percentile in place of the means."""
    if percent is None:
        return []

    def column(name: str) -> Column:
        at = _at(name.lower(), percent / 100)

        def cell(option: LoadOption) -> str:
            seconds = at(option.point)
            return "not known" if seconds is None else format_time(seconds)

        return Column(heading=f"{name} p{percent:g}", cell=cell)

    return [column("TTFT"), column("TPOT")]


def _inputs(wanted: Iterable[Column], deployment: Deployment, request: Request) -> Row:
    """Return the question as a JSON object."""
    asked = replace(deployment.alone, workload=request.workload)
    return columns.as_object(wanted, asked) | columns.as_object(REQUEST, request)


def _sizes(request: Request) -> Row:
    """Return the sizes of a request."""
    work = request.workload
    return {
        "samples": work.samples,
        "context_tokens": work.context_tokens,
        **columns.as_object(REQUEST, request),
    }


def _question(deployment: Deployment, request: Request, *, gpu: bool) -> "Text":
    """Return the question as it was understood."""
    step = replace(deployment.alone, workload=request.workload)
    asked = estimate.question(step, attention=False, gpu=gpu, output_tokens=request.output_tokens)
    stored = request.stored_tokens
    return asked.append(f"\n{stored:,} tokens of each prompt are cached") if stored else asked


def _answers(result: LoadPlan) -> "list[Text]":
    """Say which option to take, and which cheaper one may do."""
    limits = [
        f"{name} {format_time(most)}"
        for name, most in (("TTFT", result.targets.ttft_s), ("TPOT", result.targets.tpot_s))
        if most is not None
    ]
    load = f"{result.targets.requests_per_s:g} requests/s"
    asked = f"{load}{' within ' if limits else ''}{' and '.join(limits)}"
    if result.targets.percentile is not None and limits:
        asked += f" for {result.targets.percentile:g} % of them"
    if all(option.verdict == "no" for option in result.options):
        return [columns.line((f"No option carries {asked}.", "bold red"))]
    sure, maybe = result.cheapest, result.cheapest_maybe
    said = []
    if sure is not None:
        said.append(_sentence(f"Cheapest that carries {asked}", sure.point))
    elif maybe is None:
        lead = "No comparable price is known; the first of those below that does"
        said.append(_sentence(f"{lead}, {asked}", result.options[0].point))
    if maybe is not None and (sure is None or _usd(maybe) < _usd(sure)):
        said.append(_sentence(f"Cheapest that may carry {asked}", maybe.point))
    chosen = sure or maybe or result.options[0]
    if line := launch_line(chosen.point.deployment):
        servers = f"each of {chosen.point.replicas} servers" if chosen.point.replicas > 1 else "it"
        said.append(columns.line((f"To start {servers} ({VERSION}): ", "bold"), line))
    return said


def _usd(option: LoadOption) -> float:
    """Return the price per hour of an option that has one."""
    return option.point.usd_per_hour or 0.0


def _sentence(lead: str, point: Point) -> "Text":
    """Say what an option is and does."""
    each, served = point.deployment, point.served
    return columns.line(
        (f"{lead}: ", "bold"),
        (f"{point.gpus} x {each.alone.gpu.id}, {each.attention}", "bold cyan"),
        f" ({text.plural(point.replicas, 'replica')} of {each.alone.setup.words or 1}), "
        f"TTFT {format_time(served.ttft_s)} "
        f"({text.interval_phrase(point.low.ttft_s, point.high.ttft_s)}), "
        f"TPOT {format_time(served.tpot_s)} "
        f"({text.interval_phrase(point.low.tpot_s, point.high.tpot_s)}), "
        f"{point.headroom:.0%} headroom, {text.money(point.usd_per_hour, 2)} USD/h "
        f"({text.money(point.usd_per_month, 0)} a month), "
        f"{text.money(point.usd_per_million_tokens, 3)} USD per million tokens.",
    )


def _standing(option: LoadOption, result: LoadPlan) -> str:
    """Say whether an option meets the targets, and what it misses."""
    why = f": {', '.join(option.missed)}" if option.missed else ""
    each = option.point.deployment
    if option.verdict == "no" and "load" in option.missed:
        why = f": {each.saturates} saturates"
    elif option.verdict == "no":
        why = f": {_floor(option)}"
    elif option.verdict == "maybe" and each.slowest is None:
        why = ": interval not known" if not each.alone.interval_known else ": may not fit"
    marks = [f"{option.verdict}{why}"]
    if option in (result.cheapest, result.cheapest_maybe):
        marks.append("cheapest")
    price = option.point.price
    if price and not option.comparable:
        marks.append("low-trust price" if price.low_trust else f"{price.terms} price")
    return ", ".join(marks)


def _floor(option: LoadOption) -> str:
    """Say which targets are missed, and what these times are of a request alone."""
    server = option.point.deployment.server
    if server is None:
        return ""
    alone = closed_loop(server, 1)
    times = {"TTFT": alone.ttft_s, "TPOT": alone.tpot_s}
    return ", ".join(
        f"{name} ({format_time(times[name])} alone)" if name in times else name
        for name in option.missed
    )


def _skipped(reasons: Sequence[str]) -> list[str]:
    """Return what could not be tried, one note for all that does not fit."""
    others = [reason for reason in reasons if not reason.startswith(UNFIT)]
    # Of each GPU only the most of them: fewer do not hold it either.
    most: dict[str, str] = {}
    for reason in reasons:
        if reason.startswith(UNFIT):
            size, _, gpu = reason.removeprefix(UNFIT).partition(" x ")
            most[gpu] = size
    unfit = ", ".join(f"{size} x {gpu}" for gpu, size in most.items())
    return [*others, *([f"A request does not fit on {unfit}, or fewer."] if unfit else [])]


def _prices(options: Sequence[LoadOption]) -> list[str]:
    """Say who asks each price."""
    prices: dict[str, Price] = {
        option.point.deployment.alone.gpu.id: option.point.price
        for option in options
        if option.point.price is not None
    }
    said = [f"{gpu} {text.money(price.value, 2)} ({price.told})" for gpu, price in prices.items()]
    return [f"USD per GPU hour: {'; '.join(said)}."] if said else []


def _notes(deployments: Sequence[Deployment]) -> list[str]:
    """Say what the answers rest on, each thing once."""
    alone = [each.alone for each in deployments]
    origins = {
        origin: dict.fromkeys(item.gpu.id for item in alone if item.rates.origin == origin)
        for origin in ("fitted", "carried", "peak")
    }
    setup = alone[0].setup
    prefill = (
        "Prompts are computed between the decode steps; --max-batched-tokens computes them in "
        "chunks within steps."
        if setup.max_batched_tokens is None
        else f"Prompts are computed in chunks: {setup.max_batched_tokens:,} tokens a step with "
        "those that are decoded."
    )
    return [
        *(
            f"Constants {origin} for {', '.join(names)}."
            for origin, names in origins.items()
            if names
        ),
        prefill,
        MEANS,
        *([_GROUPS] if any(item.setup.data_parallel > 1 for item in alone) else []),
        *model_notes(alone[0].model),
        *dict.fromkeys(note for item in alone for note in memory_notes(item.gpu, item.setup)),
    ]
