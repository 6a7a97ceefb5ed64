"""A deployment's curve over a load, and what all answers about a load show."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf

from simulator.answers.estimate import (
    ENGINE_NAMES,
    Question,
    fitted_alone,
    length_notes,
    memory_notes,
    model_notes,
    unknown_note,
)
from simulator.answers.load import Curve, Deployment, Point, Request, share_of
from simulator.inputs.setup import Setup
from simulator.timing.batching import Served
from simulator.timing.constants import served_s
from simulator.units import format_time
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Line, Row, View


def _time(seconds: float | None) -> str:
    """Format a time that grows without end where the load cannot be carried."""
    if seconds is None:
        return "not known"
    return "grows" if seconds == inf else format_time(seconds)


def _within(low_s: float, high_s: float) -> str:
    """Write an interval of times, where its low end is a time."""
    return text.within_cell(low_s, high_s) if low_s < inf else _time(low_s)


POINT = (
    Column("attention", "text", "deployment.attention", "attention"),
    Column("concurrency", heading="users"),
    Column("ttft_ms", "ms", "served.ttft_s", "TTFT", lambda point: _time(point.served.ttft_s)),
    Column("ttft_ms_low", "ms", "low.ttft_s"),
    Column("ttft_ms_high", "ms", "high.ttft_s"),
    Column("tpot_ms", "ms", "served.tpot_s", "TPOT", lambda point: _time(point.served.tpot_s)),
    Column("tpot_ms_low", "ms", "low.tpot_s"),
    Column("tpot_ms_high", "ms", "high.tpot_s"),
    Column("total_ms", "ms", lambda point: point.total_s(point.served), "total"),
    Column("total_ms_low", "ms", lambda point: point.total_s(point.low)),
    Column("total_ms_high", "ms", lambda point: point.total_s(point.high)),
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
    heading="TPOT, 80 % within", cell=lambda point: _within(point.low.tpot_s, point.high.tpot_s)
)
TOTAL_WITHIN = Column(
    heading="80 % within",
    cell=lambda point: _within(point.total_s(point.low), point.total_s(point.high)),
)
INPUTS = columns.without(
    estimate.INPUTS,
    *("attention", "kv_layout", "prompts", "sequences", "decoded_tokens", "constants"),
)
MEANS = (
    "TTFT and TPOT are means, unless a percentile is named; percentiles are not known where "
    "requests queue for memory, or above 80 % load. Memory bounds what is held on average; engines "
    "preempt requests beyond it. TTFT's interval leaves out how requests meet: public clients who "
    "began all at once waited 3 to 4 times as long (docs/serving.md)."
)
_AS_IT_IS = "No engine: steps are taken as they are, without what engines add or vary."
_GROUPS = "Data-parallel groups are taken to prefill at the same time, the best that engines do."
UNFIT = "Not even one request fits in memory."
REQUEST = (Column("output_tokens"), Column("cached_tokens", value="stored_tokens"))
TIMES: dict[str, Callable[[Served, float | None], float | None]] = {
    "TTFT": Served.ttft_at,
    "TPOT": Served.tpot_at,
}


def _percentile(name: str, percent: float) -> Column:
    """Return the column of a percentile of one of the times."""

    def at(point: Point) -> float | None:
        return TIMES[name](point.served, share_of(percent))

    def cell(point: Point) -> str:
        return _time(at(point) if point.carried else inf)

    field, heading = f"{name.lower()}_ms_p{percent:g}", f"{name} p{percent:g}"
    return Column(field, "ms", at, heading, cell)


PERCENTILES = tuple(_percentile(name, percent) for name in TIMES for percent in (50, 90, 99))
ARRIVALS = Column("arrivals_per_s", heading="requests/s", cell="{:g}")
SERVED = (*POINT[:2], ARRIVALS, *POINT[2:], *PERCENTILES)
_SATURATES = {
    "prefill": "prefill takes most of the time first",
    "memory": "memory ends first",
    "sequences": "the engine's most sequences end first",
}


def serve_object(curve: Curve) -> Row:
    """Return a curve as a JSON object; points are rows, by kind of attention and load."""
    first = curve.deployments[0]
    return {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": inputs(INPUTS, first),
        **columns.as_object([estimate.HARDWARE_USED], first),
        "points": [columns.as_object(SERVED, point) for point in curve.points],
        "notes": _notes(curve),
    }


def serve_rows(curve: Curve) -> list[Row]:
    """Return a curve as tidy rows."""
    first = curve.deployments[0]
    asked = {
        "model": first.model.name,
        "gpu": first.gpu.id,
        **columns.as_object(estimate.PARALLELISM, first),
        **sizes(curve.request),
    }
    return [asked | columns.as_object(SERVED, point) for point in curve.points]


def serve_view(curve: Curve) -> View:
    """Return a curve as a table."""
    unfit = [each.attention for each in curve.deployments if each.server is None]
    if not curve.points:
        return columns.stack(question(curve.deployments[0], gpu=True), "", UNFIT)
    return columns.stack(
        question(curve.deployments[0], gpu=True),
        "",
        *(
            f"{each.attention}: up to {each.server.most:,} requests together; "
            f"{_SATURATES[each.saturates]}."
            for each in curve.deployments
            if each.server is not None
        ),
        *([f"{'; '.join(unfit)}: not even one request fits."] if unfit else []),
        "",
        columns.as_table(_shown(curve), curve.points),
        *columns.notes(_notes(curve)),
    )


def serve_list(asked: Sequence[Mapping[str, int]], curves: Sequence[Curve]) -> View:
    """Return the points of several curves as one table."""
    every = list(zip(asked, curves, strict=True))
    points = [(given, point) for given, curve in every for point in curve.points]
    if not points:
        return columns.stack(UNFIT)
    return estimate.list_view(
        [given for given, _ in points],
        [point for _, point in points],
        _shown(curves[0]),
        lambda point: point.deployment.alone,
        output_tokens=curves[0].request.output_tokens,
        attention=False,
        more=engine_notes(point.deployment for _, point in points),
    )


def _shown(curve: Curve) -> columns.Columns:
    """Return the columns of the table of a curve."""
    users = any(point.concurrency is not None for point in curve.points)
    rates = any(point.arrivals_per_s is not None for point in curve.points)
    return (
        *columns.pick(POINT, "attention"),
        *(columns.pick(POINT, "users") if users else ()),
        *((ARRIVALS,) if rates else ()),
        *percentiles(curve.percentile),
        *((WITHIN,) if curve.percentile is None else ()),
        *columns.pick(
            POINT, "tokens/s per user", "tokens/s per GPU", "utilisation", "USD per million"
        ),
    )


def percentiles(percent: float | None) -> Sequence[Column]:
    """Return the columns of a table of points that has a percentile in place of the means."""
    if percent is None:
        return columns.pick(POINT, *TIMES)
    return [_percentile(name, percent) for name in TIMES]


def time_phrases(point: Point, percent: float | None) -> Iterator[str]:
    """Yield the times of a point with their intervals, the means or a percentile."""
    named, share = "" if percent is None else f" p{percent:g}", share_of(percent)
    for name, at in TIMES.items():
        low, time, high = (at(served, share) for served in (point.low, point.served, point.high))
        ends = "interval not known" if low is None else text.interval_phrase(low, high or inf)
        yield f"{name}{named} {_time(time)} ({ends})"


def inputs(wanted: Iterable[Column], deployment: Deployment) -> Row:
    """Return the question as a JSON object."""
    own = columns.as_object(REQUEST, deployment.request)
    return columns.as_object(wanted, deployment.asked) | own


def sizes(request: Request) -> Row:
    """Return the sizes of a request."""
    work = request.workload
    return {
        "samples": work.samples,
        "context_tokens": work.context_tokens,
        **columns.as_object(REQUEST, request),
    }


def question(deployment: Deployment, *, gpu: bool) -> Line:
    """Return the question as it was understood."""
    request = deployment.request
    stored = request.stored_tokens
    one = f"each request: {text.samples_phrase(request.workload, request.output_tokens)}"
    asked = estimate.question(deployment.asked, attention=False, gpu=gpu, sizes=one)
    cached = f"\n{stored:,} tokens of each prompt are cached" if stored else ""
    return columns.line(*asked.pieces, cached)


def _notes(curve: Curve) -> list[str]:
    """Say what a curve rests on."""
    setups = [each.setup for each in curve.deployments]
    added = engine_notes(curve.deployments)
    return [*curve.left_out, *prefill_notes(setups), *added, *common_notes(curve.deployments)]


def prefill_notes(setups: Sequence[Setup]) -> list[str]:
    """Say how prompts are computed, and what the times of a load mean."""
    chunk = setups[0].max_batched_tokens
    return [
        "Prompts are computed between the decode steps; --max-batched-tokens computes them in "
        "chunks within steps."
        if chunk is None
        else f"Prompts are computed in chunks: {chunk:,} tokens a step with those that are "
        "decoded.",
        MEANS,
        *([_AS_IT_IS] if setups[0].engine == "none" else []),
        *([_GROUPS] if any(setup.data_parallel > 1 for setup in setups) else []),
    ]


def engine_notes(deployed: Iterable[Deployment]) -> list[str]:
    """Say what engines add to the steps of GPUs, as their own rows tell; each thing once."""
    places, said = ("to each step", "for each of its sequences"), []
    for item in deployed:
        engine = item.setup.engine
        times = served_s(item.gpu, item.setup.constants, engine)
        every = [
            f"{format_time(time_s)} ± {format_time(error_s)} {place}"
            for place, (time_s, error_s) in zip(places, times, strict=True)
            if time_s
        ]
        if every:
            adds = f"{ENGINE_NAMES[engine]} adds {' and '.join(every)}"
            said.append(f"On {item.gpu.name}, {adds} (fitted to its runs).")
    return list(dict.fromkeys(said))


def common_notes(deployed: Sequence[Question]) -> list[str]:
    """Say what answers rest on, each thing once."""
    first = deployed[0]
    if isinstance(first, Deployment):
        length = first.request.length
    else:
        length = first.workload.context_tokens + first.workload.decoded_tokens
    said = {
        "fitted": "fitted to rows measured on",
        "carried": "carried over from other GPUs for",
        "peak": "of published peaks, a bound, for",
    }
    gpus = {
        words: dict.fromkeys(
            item.gpu.name + (f" (its {only} alone)" if (only := fitted_alone(item.rates)) else "")
            for item in deployed
            if item.rates.origin == origin
        )
        for origin, words in said.items()
    }
    parts = [f"{words} {', '.join(names)}" for words, names in gpus.items() if names]
    unknown = unknown_note(item.unknown for item in deployed)
    return [
        f"Constants {'; '.join(parts)}.",
        *([unknown] if unknown else []),
        *model_notes(first.model),
        *length_notes(first.model, length),
        *dict.fromkeys(note for item in deployed for note in memory_notes(item)),
    ]
