"""Tables and sentences about scaling laws, models of equal quality and pass@k."""

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.answers.crossover import Border, Crossover
from simulator.answers.quality import Affordable, Quality, QualityPoint
from simulator.answers.scaling import ScalingLaw
from simulator.answers.size_factor import SizeFactor
from simulator.answers.tradeoff import Candidate, Tradeoff, Variant
from simulator.inputs.workload import ATTENTIONS, Attention
from simulator.units import GIGA, MEGA, format_gib, format_time, format_tokens
from simulator.views.cells import fits_phrase, limit, money
from simulator.views.table import Column, FittedTable, notes
from simulator.views.tables import question
from simulator.views.text import plural, times_as

MODEL_COLUMNS = (
    Column(name="model", right=False, wrap=True),
    Column(name="size", right=True),
    Column(name="shape", spare=True),
    Column(name="attention", right=False),
    *(Column(name=name) for name in ("step", "prefill", "memory")),
    Column(name="most samples"),
    Column(name="USD per million"),
    Column(name="fits", right=False, wrap=True),
)
FAMILY_COLUMNS = (
    Column(name="family", right=False),
    *(Column(name=name) for name in ("runs", "sizes", "size factor F")),
    Column(name="95 % interval", right=False),
)
LIMITS = {
    "time": "one sample more would be too slow",
    "memory": "one sample more would not fit in memory",
    "counts": "pass@k is known no further",
    "search": "no limit up to there",
}
# A probability from here on is written as more than this.
NEARLY_ONE = 0.9995


def scaling_view(result: ScalingLaw) -> RenderableType:
    """Return a fitted law as its formula, its families, and how well it holds."""
    law = result.law
    errors = law.stderr
    left = float(law.loss(GIGA)) - law.irreducible_loss
    rows = [
        (
            family.family.name,
            f"{family.runs}",
            f"{family.sizes}",
            f"{family.size_factor:.3f}",
            "the reference" if index == 0 else f"{family.low:.3f} to {family.high:.3f}",
        )
        for index, family in enumerate(result.laws)
    ]
    return Group(
        Text(f"Scaling law of {plural(len(result.runs), 'training run')}", style="bold"),
        Text(
            f"L(N, f) = {law.irreducible_loss:.4g} + {left:.4g} (N / (F x 1e9))^-{law.exponent:.4g}"
        ),
        Text(
            f"irreducible loss {law.irreducible_loss:.4g} ± {errors[0]:.2g}, "
            f"exponent {law.exponent:.4g} ± {errors[2]:.2g} (standard errors); "
            f"residuals {law.spread:.2%}"
        ),
        Text(),
        FittedTable(columns=FAMILY_COLUMNS, rows=rows),
        Text(),
        *_held_out_lines(result),
        *notes(result.notes),
    )


def _held_out_lines(result: ScalingLaw) -> list[Text]:
    """Say how well the largest models are predicted by the others."""
    if result.held_out is None:
        return []
    parts = [
        f"{_size(run.parameters)} {error:+.2%}"
        for run, error in zip(result.held_out.runs, result.held_out.errors, strict=True)
    ]
    return [Text(f"The largest models, predicted by a fit to the others: {', '.join(parts)}.")]


def tradeoff_view(result: Tradeoff) -> RenderableType:
    """Return the models side by side, and where each is faster."""
    first = result.base.variants["standard"].result
    rows = [
        _model_row(candidate, attention, variant)
        for candidate in result.candidates
        for attention, variant in candidate.variants.items()
    ]
    parts: list[RenderableType] = []
    for crossed, other in zip(result.crossovers, result.others, strict=True):
        parts += [Text(), *crossover_lines(crossed, result.base, other)]
    factors = [
        f"Size factor of {other.model.name}: {_factor_phrase(other.size_factor)}; round sizes give "
        f"{other.parameters / result.base.parameters:.3f}."
        for other in result.others
        if other.size_factor is not None
    ]
    return Group(
        question(first, attention=False),
        Text(),
        FittedTable(columns=MODEL_COLUMNS, rows=rows),
        Text(),
        *(Text.from_markup(line) for line in tradeoff_verdict(result)),
        *parts,
        *notes([*factors, *(note for note in first.notes if not note.startswith("Does not fit"))]),
    )


def tradeoff_verdict(result: Tradeoff) -> list[str]:
    """Say how much faster each larger model is at the point asked about (rich markup)."""
    lines = []
    for other in result.others:
        standard, bifurcated = (other.variants[attention] for attention in ATTENTIONS)
        lines.append(
            f"[bold]{other.model.name}[/] is {times_as(standard.speedup)} as "
            f"{result.base.model.name} with standard attention{_between(standard)}, "
            f"{times_as(bifurcated.speedup)} with bifurcated{_between(bifurcated)}."
        )
    return lines


def _between(variant: Variant) -> str:
    """Say between which values a speed-up lies."""
    return f" (speed-up {variant.speedup_low:.2f} to {variant.speedup_high:.2f})"


def _model_row(candidate: Candidate, attention: Attention, variant: Variant) -> tuple[str, ...]:
    """Return one model under one kind of attention as cells."""
    model, result = candidate.model, variant.result
    leading = attention == "standard"
    return (
        model.name if leading else "",
        _size(candidate.parameters) if leading else "",
        f"{model.layers} x {model.hidden_size:,}" if leading else "",
        attention,
        format_time(result.step_s),
        format_time(variant.prefill_s),
        format_gib(float(result.memory.total_bytes)),
        limit(variant.limits.most_samples_in_time),
        money(variant.usd_per_million_tokens, 3),
        fits_phrase(result),
    )


def crossover_lines(crossed: Crossover, base: Candidate, other: Candidate) -> list[RenderableType]:
    """Say where a larger model with fewer KV heads is faster, under each kind of attention."""
    shown = [
        index for index, context in enumerate(crossed.context_tokens) if _is_power(int(context))
    ]
    columns = (
        Column(name=f"{other.model.name} is faster", right=False, wrap=True),
        *(Column(name=format_tokens(int(crossed.context_tokens[index]))) for index in shown),
        Column(name="of the map"),
        Column(name="mean gain"),
    )
    words = {
        ("standard", "standard"): "both standard",
        ("bifurcated", "bifurcated"): "both bifurcated",
        ("bifurcated", "standard"): f"standard, {base.model.name} bifurcated",
    }
    rows = [
        (
            words[pairing],
            *(_range(border, index) for index in shown),
            f"{border.share:.0%}",
            f"{border.mean_speedup:.2f}x",
        )
        for pairing, border in crossed.borders.items()
    ]
    return [
        Text("Samples with which it is the faster one, by context tokens", style="bold"),
        FittedTable(columns=columns, rows=rows),
        Text(f"Looked at up to {int(crossed.samples[-1]):,} samples; memory left aside.", "dim"),
    ]


def _range(border: Border, index: int) -> str:
    """Write the samples with which a model is faster at one context."""
    first, until = border.from_samples[index], border.until_samples[index]
    if not first:
        return "never"
    if until:
        return f"{first}" if until == first + 1 else f"{first}-{until - 1}"
    return "all" if first == 1 else f"{first}+"


def _is_power(number: int) -> bool:
    """Return whether a number is a power of two."""
    return number & (number - 1) == 0


def _factor_phrase(factor: SizeFactor) -> str:
    """Write a size factor with its interval and who says so."""
    interval = (
        ""
        if factor.low is None or factor.high is None
        else f" ({factor.low:.3f} to {factor.high:.3f})"
    )
    return f"{factor.value:.3f}{interval}, {factor.source}"


def _size(parameters: float) -> str:
    """Write a number of parameters."""
    if parameters >= GIGA:
        return f"{parameters / GIGA:,.2f} B"
    return f"{parameters / MEGA:,.0f} M"


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
        if _is_power(ours.samples) or ours.samples in asked
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
                *(note for note in first.notes if not note.startswith("Does not fit")),
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
