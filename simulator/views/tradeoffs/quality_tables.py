"""Tables and sentences about pass@k against latency."""

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.answers.quality import Affordable, Quality, QualityPoint
from simulator.inputs.workload import ATTENTIONS, Attention
from simulator.units import format_time, is_power_of_two
from simulator.views.cells import money, without_shortage
from simulator.views.table import Column, FittedTable, notes
from simulator.views.tables import question
from simulator.views.text import copies_notes, plural

LIMITS = {
    "time": "one sample more would be too slow",
    "memory": "one sample more would not fit in memory",
    "counts": "pass@k is known no further",
    "search": "no limit up to there",
}

# A probability from here on is written as more than this.
NEARLY_ONE = 0.9995


def quality_view(result: Quality) -> RenderableType:
    """Return what a target buys, and pass@k against latency."""
    first = result.results["standard"]
    timed = result.output_tokens is not None
    spread = result.points["standard"][0].stderr is not None
    times = ("request", "cost") if timed else ()
    columns = (
        *(Column(name=name) for name in ("samples", "pass@k")),
        *(
            Column(name=f"{attention} {what}", spare=what == "cost")
            for attention in ATTENTIONS
            for what in ("step", *times)
        ),
        Column(name="fits", right=False, wrap=True),
    )
    pairs = zip(result.points["standard"], result.points["bifurcated"], strict=True)
    last = result.points["standard"][-1].samples
    asked = {last, first.workload.samples}
    asked |= {item.point.samples for item in result.best.values() if item.point is not None}
    rows = [
        (
            f"{ours.samples:,}",
            _probability(ours),
            *(cell for point in (ours, theirs) for cell in _point_cells(point, timed=timed)),
            _fitting(ours, theirs),
        )
        for ours, theirs in pairs
        if is_power_of_two(ours.samples) or ours.samples in asked
    ]
    return Group(
        question(first, attention=False, output_tokens=result.output_tokens),
        Text(),
        *_best_lines(result),
        FittedTable(columns=columns, rows=rows),
        *notes(
            [
                f"Expected pass@k: {result.success.source}.",
                *(["± is the standard error over problems."] if spread else []),
                "It is what best-of-n reaches with a judge that always finds the right sample.",
                *(["Cost is in USD, of one problem with all its samples."] if timed else []),
                *without_shortage(first.notes),
                *copies_notes(first.workload),
            ]
        ),
    )


def _point_cells(point: QualityPoint, *, timed: bool) -> list[str]:
    """Return what a number of samples costs, as cells."""
    cells = [format_time(point.step_s)]
    if timed:
        cells.append("" if point.request_s is None else format_time(point.request_s))
        cells.append(money(point.usd_per_problem, 4))
    return cells


def _fitting(standard: QualityPoint, bifurcated: QualityPoint) -> str:
    """Say which kind of attention fits in memory."""
    if standard.fits and bifurcated.fits:
        return "both"
    return "bifurcated" if bifurcated.fits else "standard" if standard.fits else "neither"


def _probability(point: QualityPoint) -> str:
    """Write pass@k, with its standard error where it is known."""
    if NEARLY_ONE <= point.pass_at_k < 1:
        return f">{NEARLY_ONE - 0.0005:.3f}"
    error = "" if point.stderr is None else f" ± {point.stderr:.3f}"
    return f"{point.pass_at_k:.3f}{error}"


def _best_lines(result: Quality) -> list[Text]:
    """Say what the target buys under each kind of attention."""
    targets = []
    if result.target_step_s is not None:
        targets.append(f"a step of {format_time(result.target_step_s)}")
    if result.target_request_s is not None:
        targets.append(f"a request of {format_time(result.target_request_s)}")
    what = " and ".join(targets) or "the memory there is"
    lines = [Text(f"{what.capitalize()} buys:", style="bold")]
    lines += [
        Text(f"  {_best_line(attention, result.best[attention])}") for attention in ATTENTIONS
    ]
    return [*lines, Text()]


def _best_line(attention: Attention, best: Affordable) -> str:
    """Say what one kind of attention gets for it."""
    name = f"{attention}:".ljust(max(map(len, ATTENTIONS)) + 1)
    if best.point is None:
        why = "too slow" if best.limit == "time" else "does not fit in memory"
        return f"{name} nothing, one sample {why}"
    point = best.point
    return (
        f"{name} {plural(point.samples, 'sample')}, pass@{point.samples} {_equals(point)} "
        f"({LIMITS[best.limit]})"
    )


def _equals(point: QualityPoint) -> str:
    """Write pass@k with its sign."""
    text = _probability(point)
    return f"> {text[1:]}" if text.startswith(">") else f"= {text}"
