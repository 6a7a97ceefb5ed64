"""The sentences of a report."""

from collections.abc import Mapping
from typing import Any

from simulator.answers.compare import Comparison
from simulator.answers.decision import Choice, Decision
from simulator.answers.estimate import Estimate
from simulator.answers.sweep import GridSummary
from simulator.answers.verdict import OPEN
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario
from simulator.inputs.setup import ATTENTIONS
from simulator.units import format_time, format_tokens
from simulator.views.estimate import LAYOUTS, over_stored
from simulator.views.text import between, plural, prices_phrase, samples_phrase, shortage

USE, KEEP, DEPENDS = (
    "Use bifurcated attention",
    "Keep standard attention",
    "It depends on the case",
)

# Sizes by which two points of a grid may differ beside samples and context, as they are counted.
COUNTED = {
    "prompts": "prompt",
    "decoded_tokens": "own token",
    "query_tokens": "query token",
    "tensor_parallel": "GPU",
}


def lead(grid: GridSummary, decision: Decision) -> str:
    """Say what to do: over a grid as scenarios are judged, at one point as sure as that is."""
    first = decision.first.comparison
    sure = first.verdict
    if grid.points == 1:
        use = (sure == "yes" and first.stored_is_enough) or USE
        return {"yes": use, "no": KEEP}.get(sure, sure.capitalize())
    if grid.verdict == "gain" and sure == "yes":
        return USE
    if grid.verdict == "no gain":
        return KEEP if sure == "no" else "There is little to gain"
    return DEPENDS


def case_sentence(choice: Choice, grid: GridSummary) -> str:
    """Say what bifurcated attention does to one case on one GPU."""
    result = choice.comparison
    standard, bifurcated = result.standard, result.bifurcated
    case = samples_phrase(standard.workload).partition(", ")[0]
    take = "takes" if case.startswith("1 ") else "take"
    place = f"per step with {standard.model.name} on {group_name(standard)}"
    if bifurcated.memory.fits and not standard.memory.fits:
        middle = f"{format_time(bifurcated.step_s)} {place}{over_stored(result)}"
    elif result.both_fit and result.speedup > 1 and result.verdict == "yes":
        middle = (
            f"{format_time(bifurcated.step_s)} {place} instead of {format_time(standard.step_s)}, "
            f"{ratio_phrase(result)}{over_stored(result)}"
        )
    else:
        middle = (
            f"{format_time(standard.step_s)} {place} under standard and "
            f"{format_time(bifurcated.step_s)} under bifurcated attention"
            + (f", which is {ratio_phrase(result)}" if result.both_fit else "")
        )
        if result.verdict in OPEN and grid.points > 1:
            middle += f", {result.verdict}"
    return f"{case} {take} {middle}{_fit_clause(result)}."


def ratio_phrase(result: Comparison) -> str:
    """Say how the steps compare, as the tables do: a speed-up, below 1 where it is slower."""
    ratio, low, high = result.speedup, result.speedup_low, result.speedup_high
    likely = f"likely {between(low, high)}" if result.interval_known else "interval not known"
    return f"{ratio:.2f} times as fast ({likely})"


def _fit_clause(result: Comparison) -> str:
    """Say what does not fit, nothing where all does."""
    standard, bifurcated = result.standard, result.bifurcated
    if not bifurcated.memory.fits and not standard.memory.fits:
        return f"; neither fits in memory ({_short(bifurcated)}), so only the times mean something"
    if not standard.memory.fits:
        layout = LAYOUTS[standard.setup.kv_layout]
        also = (
            ", with one stored context it does"
            if result.stored is not standard and result.stored.memory.fits
            else ""
        )
        return f"; standard with {layout} does not fit ({_short(standard)}){also}"
    if not bifurcated.memory.fits:
        return f"; bifurcated does not fit ({_short(bifurcated)})"
    if any(item.memory.verdict != "fits" for item in (standard, bifurcated)):
        return "; whether it fits in memory is too close to call"
    return ""


def only(result: Comparison) -> str:
    """Say which kind of attention fits, where not both do."""
    fitting = [name for name in ATTENTIONS if getattr(result, name).memory.fits]
    return f"only {fitting[0]} attention fits" if fitting else "neither fits in memory"


def memory_finding(result: Comparison) -> str:
    """Say what fits in memory, and what is short of it."""
    if result.both_fit:
        return "Both kinds of attention fit in memory"
    short = [name for name in ATTENTIONS if not getattr(result, name).memory.fits]
    missing = f"{short[-1]} is {_short(getattr(result, short[-1]))}"
    return f"Of both kinds of attention {only(result)}: {missing}"


def _short(result: Estimate) -> str:
    """Say how much memory is short, and whether that is sure."""
    sure = "" if result.memory.verdict == "does not fit" else ", too close to call"
    return f"{shortage(result.memory)} short{sure}"


def grid_sentence(grid: GridSummary) -> str:
    """Say what holds over the whole grid."""
    within = ""
    if grid.both_fit:
        most, least = (f"{float(row['speedup']):.2f}" for row in (grid.most, grid.least))
        within = (
            f"; where both fit in memory it is {least} ({point(grid.least, grid)}) to {most} "
            f"times as fast ({point(grid.most, grid)})"
        )
    return (
        f"Bifurcated attention is at least {GAIN_SPEEDUP:g} times as fast at "
        f"{_of_all(grid.gained, grid)} of the grid's {plural(grid.points, 'point')}{within}. "
        f"{_deciding(grid)} {_fitting(grid)}"
    )


def _of_all(points: int, grid: GridSummary) -> str:
    """Write a number of the grid's points."""
    return "all" if points == grid.points else f"{points:,}" if points else "none"


def grid_line(grid: GridSummary) -> str:
    """Say at how many points of the grid to share, in short."""
    decided = _deciding(grid).rpartition(": ")[2]
    points = plural(grid.points, "point")
    return f"Over the scenario's {points}, whether bifurcated is faster: {decided}"


def _deciding(grid: GridSummary) -> str:
    """Say at how many points the prediction's interval decides."""
    decided = grid.decided.items()
    parts = [f"{verdict} at {_of_all(points, grid)}" for verdict, points in decided if points]
    return f"Whether it is faster, with the predictions' errors: {', '.join(parts)}."


def _fitting(grid: GridSummary) -> str:
    """Say how many points fit in memory."""
    standard, bifurcated = (_of_all(points, grid) for points in grid.fits.values())
    if standard == bifurcated:
        return f"{standard.capitalize()} of them fit in memory."
    return (
        f"In memory fit {standard} of them with standard attention, {bifurcated} with bifurcated."
    )


def point(row: Mapping[str, Any], grid: GridSummary) -> str:
    """Name a point of the grid by its samples, its context, and whatever else the grid varies."""
    differs = {name for name, value in grid.least.items() if value != grid.most.get(name)}
    words = [str(row["model"])] if "model" in differs else []
    words.append(plural(int(row["samples"]), "sample"))
    words.append(f"{format_tokens(int(row['context_tokens']))} context")
    words += [plural(int(row[name]), noun) for name, noun in COUNTED.items() if name in differs]
    words += [
        str(row[name]) for name in ("kernel", "execution", "latent_form", "gpu") if name in differs
    ]
    if "kv_layout" in differs:
        words.append(LAYOUTS[row["kv_layout"]])
    return ", ".join(words)


def expectation(scenario: Scenario, grid: GridSummary) -> str:
    """Compare the model's answer with the one that the scenario expects, and on what basis."""
    agrees = "agrees" if scenario.verdict == grid.verdict else f"says “{grid.verdict}”"
    expected = f"“{scenario.verdict}” ({scenario.verdict_basis})"
    return f"The scenario expects {expected}; the model {agrees}."


def unranked(decision: Decision) -> str:
    """Say which cards would do, but have prices that do not rank; empty if none are."""
    apart = {
        choice.gpu.name: choice.price
        for choice in decision.choices
        if choice.will_do and choice.price is not None and not choice.comparable
    }
    said = "Ranked apart, and never cheapest, in USD per hour"
    return f"{said}: {prices_phrase(apart)}." if apart else ""


def standing(choice: Choice) -> str:
    """Say the conclusion about one GPU."""
    if choice.standing == "does not fit":
        return f"no, {_short(choice.comparison.bifurcated)}"
    return choice.standing


def group_name(result: Estimate) -> str:
    """Name the GPU, and how many of them if there are several."""
    size = result.setup.gpus
    return f"{size} x {result.gpu.name}" if size > 1 else result.gpu.name
