"""Tables and sentences about scaling laws and models of equal quality."""

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.answers.crossover import Border, Crossover
from simulator.answers.scaling import ScalingLaw
from simulator.answers.size_factor import SizeFactor
from simulator.answers.tradeoff import Candidate, Tradeoff, Variant
from simulator.inputs.workload import ATTENTIONS, Attention
from simulator.units import GIGA, format_gib, format_time, format_tokens, is_power_of_two
from simulator.views.cells import fits_phrase, limit, money, without_shortage
from simulator.views.table import Column, FittedTable, notes
from simulator.views.tables import question
from simulator.views.text import parameters_phrase, plural, times_as

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
        f"{parameters_phrase(run.parameters)} {error:+.2%}"
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
        *notes([*factors, *without_shortage(first.notes)]),
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
        parameters_phrase(candidate.parameters) if leading else "",
        f"{model.layers} x {model.hidden_size:,}" if leading else "",
        attention,
        format_time(result.step_s),
        format_time(variant.prefill_s),
        format_gib(float(result.memory.total_bytes)),
        limit(variant.limits.most_samples_in_time),
        money(variant.usd_per_million_tokens, 3),
        fits_phrase(result.memory),
    )


def crossover_lines(crossed: Crossover, base: Candidate, other: Candidate) -> list[RenderableType]:
    """Say where a larger model with fewer KV heads is faster, under each kind of attention."""
    shown = [
        index for index, context in enumerate(crossed.context_tokens) if is_power_of_two(context)
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
    gaps = "; ~ but for some in between" if any("~" in cell for row in rows for cell in row) else ""
    looked = f"Looked at up to {int(crossed.samples[-1]):,} samples; memory left aside{gaps}."
    return [
        Text("Samples with which it is the faster one, by context tokens", style="bold"),
        FittedTable(columns=columns, rows=rows),
        Text(looked, "dim"),
    ]


def _range(border: Border, index: int) -> str:
    """Write the samples with which a model is faster at one context, a ~ where there are gaps."""
    first, until = border.from_samples[index], border.until_samples[index]
    gaps = "~" if border.slower_between[index] else ""
    if not first:
        return "never"
    if until:
        return f"{first}" if until == first + 1 else f"{gaps}{first}-{until - 1}"
    return f"{gaps}all" if first == 1 else f"{gaps}{first}+"


def _factor_phrase(factor: SizeFactor) -> str:
    """Write a size factor with its interval and who says so."""
    interval = (
        ""
        if factor.low is None or factor.high is None
        else f" ({factor.low:.3f} to {factor.high:.3f})"
    )
    return f"{factor.value:.3f}{interval}, {factor.source}"
