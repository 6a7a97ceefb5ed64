"""Answers about quality: the pass@k that a latency buys."""

from dataclasses import replace

from simulator.answers.quality import Affordable, Quality, QualityPoint
from simulator.inputs.setup import ATTENTIONS
from simulator.units import format_time, is_power_of_two
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row, View

LIMITS = {
    "time": "one sample more would be too slow",
    "memory": "one sample more would not fit in memory",
    "counts": "pass@k is known no further",
    "search": "no limit up to there",
}

# A probability of this and more is written as more than it.
NEARLY_ONE = 0.9995


def _probability(point: QualityPoint) -> str:
    """Write pass@k, with its standard error where it is known."""
    if NEARLY_ONE <= point.pass_at_k < 1:
        return f">{NEARLY_ONE - 0.0005:.3f}"
    error = "" if point.stderr is None else f" ± {point.stderr:.3f}"
    return f"{point.pass_at_k:.3f}{error}"


POINT = (
    Column("attention"),
    Column("samples", heading="samples"),
    Column("step_ms", "ms", "step_s", "step"),
    Column("total_ms", "ms", "request_s", "request"),
    Column("fits", "bool"),
    Column("pass_at_k", heading="pass@k", cell=_probability),
    Column("pass_at_k_stderr", value="stderr"),
    Column(
        "usd_per_problem", "USD", "", "cost", lambda p: text.money(p.usd_per_problem, 4), spare=True
    ),
)
QUALITY = (Column("target_step_ms", "ms", "target_step_s"), Column("target_request_s", "s"))


def quality_object(result: Quality) -> Row:
    """Return quality against latency as a JSON object."""
    first = result.results["standard"]
    asked = columns.as_object(columns.without(estimate.INPUTS, "attention"), first)
    return {
        **columns.as_object([estimate.SCHEMA], result),
        "inputs": asked | {"output_tokens": result.output_tokens},
        "success": result.success.source,
        **columns.as_object(QUALITY, result),
        "best": {
            name: {"limit": best.limit}
            | ({} if best.point is None else columns.as_object(POINT, best.point))
            for name, best in result.best.items()
        },
        "points": quality_rows(result),
        **columns.as_object([estimate.HARDWARE_USED], first),
        "notes": text.without_shortage(first.notes),
    }


def quality_rows(result: Quality) -> list[Row]:
    """Return every point, one row for each kind of attention and number of samples."""
    return [columns.as_object(POINT, each) for points in result.points.values() for each in points]


def quality_view(result: Quality) -> View:
    """Return what a target buys, and pass@k against latency."""
    first = result.results["standard"]
    timed = result.output_tokens is not None
    pairs = zip(result.points["standard"], result.points["bifurcated"], strict=True)
    asked = {result.points["standard"][-1].samples, first.workload.samples}
    asked |= {item.point.samples for item in result.best.values() if item.point is not None}
    wanted = (
        *columns.pick(POINT, "samples", "pass@k", part=0),
        *(
            replace(column, heading=f"{attention} {column.heading}")
            for number, attention in enumerate(ATTENTIONS)
            for column in columns.within(
                number, columns.pick(POINT, "step", *(("request", "cost") if timed else ()))
            )
        ),
        Column(
            unit="text",
            heading="fits",
            cell=lambda pair: text.which_fits(*(point.fits for point in pair)),
            wrap=True,
        ),
    )
    shown = [pair for pair in pairs if is_power_of_two(pair[0].samples) or pair[0].samples in asked]
    spread = result.points["standard"][0].stderr is not None
    return columns.stack(
        estimate.question(first, attention=False, output_tokens=result.output_tokens),
        "",
        *_best_lines(result),
        columns.as_table(wanted, shown),
        *columns.notes(
            [
                f"Expected pass@k: {result.success.source}.",
                *(["± is the standard error over problems."] if spread else []),
                "It is what best-of-n reaches with a judge that always finds the right sample.",
                *(["Cost is in USD, of one problem with all its samples."] if timed else []),
                *text.without_shortage(first.notes),
            ]
        ),
    )


def _best_lines(result: Quality) -> list[View]:
    """Say what the target buys under each kind of attention."""
    targets = [
        f"a {what} of {format_time(target)}"
        for what, target in (("step", result.target_step_s), ("request", result.target_request_s))
        if target is not None
    ]
    what = " and ".join(targets) or "the memory there is"
    lines: list[View] = [columns.line((f"{what.capitalize()} buys:", "bold"))]
    for attention in ATTENTIONS:
        name = f"{attention}:".ljust(max(map(len, ATTENTIONS)) + 1)
        lines.append(columns.line(f"  {name} {_bought(result.best[attention])}"))
    return [*lines, ""]


def _bought(best: Affordable) -> str:
    """Say what one kind of attention gets for it."""
    point = best.point
    if point is None:
        why = "too slow" if best.limit == "time" else "does not fit in memory"
        return f"nothing, one sample {why}"
    share = _probability(point)
    share = f"> {share[1:]}" if share.startswith(">") else f"= {share}"
    samples = text.plural(point.samples, "sample")
    return f"{samples}, pass@{point.samples} {share} ({LIMITS[best.limit]})"
