"""Answers about models of equal quality, and about the scaling laws behind them."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from simulator.answers.crossover import PAIRINGS, Border, Crossover, Pairing
from simulator.answers.scaling import FamilyLaw, ScalingLaw, predicted_losses
from simulator.answers.size_factor import SizeFactor
from simulator.answers.tradeoff import Candidate, Contender, Tradeoff
from simulator.inputs.setup import ATTENTIONS
from simulator.units import GIGA, MILLISECOND, format_tokens, is_power_of_two
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row, View
from simulator.views.load import POINT
from simulator.views.plan import LIMITS
from simulator.views.studies import HELD_OUT

if TYPE_CHECKING:
    from simulator.answers.power_law import PowerLaw


class Item(NamedTuple):
    """One model under one kind of attention."""

    candidate: Candidate
    variant: Contender


FAMILY = (
    Column("family", "text", "family.name", "family"),
    Column("runs", heading="runs"),
    Column("sizes", heading="sizes"),
    Column("size_factor", heading="size factor F", cell="{:.3f}"),
    Column("size_factor_stderr", value="stderr"),
    Column("size_factor_low", value="low"),
    Column("size_factor_high", value="high"),
)
SCALING = (
    estimate.SCHEMA,
    Column("source"),
    Column("runs", value=lambda result: len(result.runs)),
    Column("irreducible_loss", value="law.irreducible_loss"),
    Column("irreducible_loss_stderr", value=lambda result: float(result.law.stderr[0])),
    Column("exponent", value="law.exponent"),
    Column("exponent_stderr", value=lambda result: float(result.law.stderr[2])),
    Column("token_exponent", value="law.token_exponent"),
    Column("token_exponent_stderr", value="law.token_exponent_stderr"),
    Column("reference_parameters", value="law.center_parameters"),
    Column("reference_tokens", value="law.center_tokens"),
    Column(
        "reference_loss", value=lambda result: float(result.law.loss(result.law.center_parameters))
    ),
    Column("families", value="laws", of=FAMILY),
    Column("residual_spread", value="law.spread"),
    Column("held_out", of=HELD_OUT),
    Column("refused", of=(Column("line"), Column("reason"))),
    Column("notes"),
)
SPEEDUP = (Column("speedup"), *columns.SPEEDUP_ENDS)
FIGURES = (
    *columns.pick(estimate.STEP, "step_ms", "step_ms_low", "step_ms_high", part="result"),
    *SPEEDUP,
    Column("prefill_ms", "ms", "prefill_s", "prefill"),
    *columns.pick(estimate.STEP, "tokens_per_s", "bound", part="result"),
)
REST = (*columns.within("limits", LIMITS), columns.USD_PER_MILLION)
VARIANT = (
    *FIGURES,
    Column("memory", "bytes", "result.memory", of=estimate.MEMORY),
    *REST,
    Column("loaded", of=columns.without(POINT, "variant", "attention")),
)
CANDIDATE = (
    *columns.pick(estimate.MODEL, "model"),
    Column(
        "parameters",
        heading="size",
        cell=lambda candidate: text.parameters_phrase(candidate.parameters),
    ),
    *columns.without(estimate.MODEL, "model", "parameters", "active_parameters"),
    Column("intermediate_size", value="model.intermediate_size"),
    Column("size_factor", of=columns.named("value", "low", "high", "origin", "source")),
    Column("size_error"),
    *columns.within("variants", (Column(name, of=VARIANT) for name in ATTENTIONS)),
)
PAIRING = (
    Column("base_attention", value=lambda item: item[0][0]),
    Column("other_attention", value=lambda item: item[0][1]),
    Column("from_samples", value=lambda item: [value or None for value in item[1].from_samples]),
    Column("until_samples", value=lambda item: [value or None for value in item[1].until_samples]),
    Column("slower_between", value=lambda item: list(item[1].slower_between)),
    Column("share_faster", value=lambda item: item[1].share),
    Column("largest_speedup", value=lambda item: item[1].largest_speedup),
    Column("mean_speedup", value=lambda item: item[1].mean_speedup),
)
CROSSOVER = (
    Column("model", value=lambda item: item[1].model.name),
    Column("context_tokens", value=lambda item: item[0].context_tokens.tolist()),
    Column("most_samples", value=lambda item: int(item[0].samples[-1])),
    Column("pairings", value=lambda item: list(item[0].borders.items()), of=PAIRING),
)
TRADEOFF = (
    Column("target_step_ms", "ms", "target_step_s"),
    Column("models", value="candidates", of=CANDIDATE),
    Column(
        "crossovers",
        value=lambda result: list(zip(result.crossovers, result.others, strict=True)),
        of=CROSSOVER,
    ),
    Column("users"),
    Column("scaling", of=SCALING),
)
ROW = (
    *columns.pick(estimate.MODEL, "model", part="candidate"),
    *columns.pick(estimate.ASKED, "gpu", part="variant.result"),
    Column("parameters", value="candidate.parameters"),
    *columns.pick(estimate.MODEL, "kv_heads", part="candidate"),
    Column("size_factor", value=lambda item: _factor(item.candidate)),
    Column(
        "size_factor_origin", value=lambda item: getattr(item.candidate.size_factor, "origin", "")
    ),
    *columns.within("variant.result", estimate.WORKLOAD),
    *columns.within("variant", FIGURES),
    *columns.within("variant", REST),
    *columns.within("variant.result.memory", estimate.MEMORY),
)


# What a training run is.
RUN = ("parameters", "tokens", "kv_heads", "heads", "group_size", "loss")


def scaling_object(result: ScalingLaw) -> Row:
    """Return a fitted scaling law as a JSON object."""
    return columns.as_object(SCALING, result)


def scaling_rows(result: ScalingLaw) -> list[Row]:
    """Return every training run with its fitted loss, one row each."""
    law, held_out = result.law, {each.run.line: each.predicted for each in result.held_out or ()}
    fitted = zip(result.runs, result.families, predicted_losses(result), law.outliers, strict=True)
    return [
        {
            "line": run.line,
            "family": result.laws[number].family.name,
            **{name: getattr(run, name) for name in RUN},
            "fitted_loss": float(loss),
            "residual": float(loss) / run.loss - 1,
            "outlier": bool(outlier),
            "held_out_loss": held_out.get(run.line),
            "equal_loss_parameters": float(law.size(run.loss, tokens=run.tokens)),
        }
        for run, number, loss, outlier in fitted
    ]


def tradeoff_object(result: Tradeoff) -> Row:
    """Return a trade-off as a JSON object that nests the models and their crossovers."""
    first = result.base.variants["standard"].result
    return {
        **columns.as_object([estimate.SCHEMA], result),
        "inputs": columns.as_object(columns.without(estimate.INPUTS, "attention"), first),
        **columns.as_object(TRADEOFF, result),
        **columns.as_object([estimate.HARDWARE_USED, estimate.NOTES], first),
    }


def tradeoff_rows(result: Tradeoff) -> list[Row]:
    """Return the models under each kind of attention, one tidy row each."""
    return [columns.as_object(ROW, item) for item in _items(result)]


def _items(result: Tradeoff) -> list[Item]:
    """Return every model under each kind of attention."""
    return [Item(each, each.variants[name]) for each in result.candidates for name in ATTENTIONS]


def _factor(candidate: Candidate) -> float:
    """Return a model's size over that of the model to match, at equal quality."""
    return 1.0 if candidate.size_factor is None else candidate.size_factor.value


def tradeoff_crossover_rows(result: Tradeoff) -> list[Row]:
    """Return the borders, one row for each model, pairing and context."""
    return [
        {
            "model": other.model.name,
            "kv_heads": other.model.kv_heads,
            "base_attention": pairing[0],
            "other_attention": pairing[1],
            "context_tokens": int(context),
            "from_samples": border.from_samples[index] or None,
            "until_samples": border.until_samples[index] or None,
            "slower_between": border.slower_between[index],
        }
        for crossed, other in zip(result.crossovers, result.others, strict=True)
        for pairing, border in crossed.borders.items()
        for index, context in enumerate(crossed.context_tokens)
    ]


def tradeoff_map_rows(result: Tradeoff) -> list[Row]:
    """Return every point of the maps, one row for each model, pairing, context and samples."""
    return [
        {
            "base_model": result.base.model.name,
            "model": other.model.name,
            "kv_heads": other.model.kv_heads,
            "size_factor": _factor(other),
            "base_attention": ours,
            "other_attention": theirs,
            "context_tokens": int(context),
            "samples": int(samples),
            "base_step_ms": float(base_s[i, j]) / MILLISECOND,
            "other_step_ms": float(other_s[i, j]) / MILLISECOND,
            "speedup": float(base_s[i, j] / other_s[i, j]),
            "base_memory_share": float(crossed.base_memory_share[ours][i, j]),
            "other_memory_share": float(crossed.other_memory_share[theirs][i, j]),
        }
        for crossed, other in zip(result.crossovers, result.others, strict=True)
        for ours, theirs in PAIRINGS
        for base_s, other_s in [(crossed.base_step_s[ours], crossed.other_step_s[theirs])]
        for j, context in enumerate(crossed.context_tokens)
        for i, samples in enumerate(crossed.samples)
    ]


def scaling_view(result: ScalingLaw) -> View:
    """Return a fitted law as its formula, its families, and how well it holds."""
    law, errors = result.law, result.law.stderr
    left, of_tokens, exponents = _terms(law)

    def interval(family: FamilyLaw) -> str:
        known = f"{family.low:.3f} to {family.high:.3f}"
        return "the reference" if family is result.reference else known

    wanted = (
        *columns.pick(FAMILY, "family", "runs", "sizes", "size factor F"),
        Column(unit="text", heading="95 % interval", cell=interval),
    )
    held = ", ".join(
        f"{text.parameters_phrase(each.run.parameters)} {each.error:+.2%}"
        for each in result.held_out or ()
    )
    foretold = f"The largest models, predicted by a fit to the others: {held}."
    return columns.stack(
        columns.line((f"Scaling law of {text.plural(len(result.runs), 'training run')}", "bold")),
        columns.line(
            f"L(N, {'D, ' if of_tokens else ''}f) = {law.irreducible_loss:.4g} + {left:.4g} "
            f"(N / (F x 1e9))^-{law.exponent:.4g}{of_tokens}"
        ),
        columns.line(
            f"irreducible loss {law.irreducible_loss:.4g} ± {errors[0]:.2g}, "
            f"{exponents} (standard errors); "
            f"residuals {law.spread:.2%}"
        ),
        "",
        columns.as_table(wanted, result.laws),
        "",
        *([foretold] if held else []),
        *columns.notes(result.notes),
    )


def _terms(law: "PowerLaw") -> tuple[float, str, str]:
    """Return the term of size at 1e9 parameters, that of tokens, and the exponents with errors."""
    import math

    left = math.exp(law.log_reducible + law.exponent * math.log(law.center_parameters / GIGA))
    exponents = f"exponent {law.exponent:.4g} ± {law.stderr[2]:.2g}"
    if law.log_of_tokens is None or law.center_tokens is None or law.token_exponent is None:
        return left, "", exponents
    error = law.token_exponent_stderr
    doubt = "fixed" if error is None else f"± {error:.2g}"
    exponents += f", of tokens {law.token_exponent:.4g} {doubt}"
    at_giga = math.exp(law.log_of_tokens + law.token_exponent * math.log(law.center_tokens / GIGA))
    return left, f" + {at_giga:.4g} (D / 1e9)^-{law.token_exponent:.4g}", exponents


def tradeoff_view(result: Tradeoff) -> View:
    """Return the models side by side, and where each is faster."""
    first = result.base.variants["standard"].result
    items = _items(result)

    def once(column: Column) -> Column:
        """Say what both kinds of attention have in common on the first of a model's rows."""

        def cell(item: Item) -> str:
            leading = item.variant is item.candidate.variants[ATTENTIONS[0]]
            return column.text(item.candidate) if leading else ""

        return replace(column, cell=cell)

    def shape(candidate: Candidate) -> str:
        return f"{candidate.model.layers} x {candidate.model.hidden_size:,}"

    attention = Column("attention", "text", "variant.result.setup.attention", "attention")
    wanted = (
        once(Column("model", "text", "model.name", "model", wrap=True)),
        once(*columns.pick(CANDIDATE, "size")),
        once(Column(heading="shape", cell=shape, spare=True)),
        attention,
        *columns.pick(FIGURES, "step", part="variant"),
        *columns.within("variant.result", [estimate.WITHIN]),
        *map(columns.spared, columns.pick(FIGURES, "prefill", part="variant")),
        *columns.pick(estimate.MEMORY, "memory", part="variant.result.memory"),
        *map(columns.spared, columns.pick(REST, "most samples", part="variant")),
        *columns.pick(REST, "USD per million", part="variant"),
        *columns.pick(estimate.MEMORY, "fits", part="variant.result.memory"),
    )
    loaded: list[View] = []
    if result.users is not None:
        names = ("TTFT", "TPOT", "tokens/s per GPU", "USD per million")
        model = Column("model", "text", "candidate.model.name", "model", wrap=True)
        held = [item for item in items if item.variant.loaded is not None]
        loaded = [
            "",
            columns.line(
                (f"Under {text.plural(result.users, 'user')} who ask again at once", "bold")
            ),
            columns.as_table(
                (model, attention, *columns.pick(POINT, *names, part="variant.loaded")), held
            ),
            *([] if len(held) == len(items) else ["Of the others no request fits."]),
        ]
    crossings = zip(result.crossovers, result.others, strict=True)
    factors = [
        f"Size factor of {other.model.name}: {_factor_phrase(other.size_factor)}; round sizes give "
        f"{other.parameters / result.base.parameters:.3f}."
        for other in result.others
        if other.size_factor is not None
    ]
    return columns.stack(
        estimate.question(first, attention=False),
        "",
        *(_verdict(other, result.base) for other in result.others),
        "",
        columns.as_table(wanted, items),
        *loaded,
        *(
            line
            for crossed, other in crossings
            for line in _crossover_lines(crossed, result.base, other)
        ),
        *columns.notes([*factors, *text.without_shortage(first.notes)]),
    )


def _verdict(other: Candidate, base: Candidate) -> str:
    """Say how much faster a larger model is at the point asked about."""
    said = []
    for attention in ATTENTIONS:
        both = {each.model.name: each.variants[attention] for each in (base, other)}
        fits = [name for name, variant in both.items() if variant.result.memory.fits]
        if len(fits) < len(both):
            which = f"only {fits[0]}" if fits else "neither"
            said.append(f"{which} fits with {attention} attention")
            continue
        pair = both[other.model.name]
        times = text.times_as(pair.speedup)
        likely = text.likely(pair.speedup, pair.speedup_low, pair.speedup_high)
        said.append(f"{times} as {base.model.name} with {attention} attention{likely}")
    return f"[bold]{other.model.name}[/]: {'; '.join(said)}."


def _crossover_lines(crossed: Crossover, base: Candidate, other: Candidate) -> list[View]:
    """Say where a larger model with fewer KV heads is faster, under each kind of attention."""
    words = {
        ("standard", "standard"): "both standard",
        ("bifurcated", "bifurcated"): "both bifurcated",
        ("bifurcated", "standard"): f"standard, {base.model.name} bifurcated",
    }
    name = f"{other.model.name} is faster"
    wanted = (
        Column(unit="text", heading=name, cell=lambda item: words[item[0]], wrap=True),
        *(
            Column(heading=format_tokens(int(context)), cell=partial(_range, index))
            for index, context in enumerate(crossed.context_tokens)
            if is_power_of_two(context)
        ),
        Column(heading="of the map", cell=lambda item: f"{item[1].share:.0%}", spare=True),
        Column(heading="mean gain", cell=lambda item: f"{item[1].mean_speedup:.2f}x", spare=True),
    )
    table = columns.as_table(wanted, crossed.borders.items())
    some = any("~" in cell for row in table.rows for cell in row)
    gaps = "; ~ but for some in between" if some else ""
    looked = f"Looked at up to {int(crossed.samples[-1]):,} samples; memory left aside{gaps}."
    return [
        "",
        columns.line(("Samples with which it is the faster one, by context tokens", "bold")),
        table,
        columns.line((looked, "dim")),
    ]


def _range(index: int, item: tuple[Pairing, Border]) -> str:
    """Write the samples with which a model is faster at one context, a ~ where there are gaps."""
    border = item[1]
    first, until = border.from_samples[index], border.until_samples[index]
    gaps = "~" if border.slower_between[index] else ""
    if not first:
        return "never"
    if until:
        return f"{first}" if until == first + 1 else f"{gaps}{first}-{until - 1}"
    return f"{gaps}all" if first == 1 else f"{gaps}{first}+"


def _factor_phrase(factor: SizeFactor) -> str:
    """Format a size factor with its interval and its source."""
    known = factor.low is not None and factor.high is not None
    interval = f" ({factor.low:.3f} to {factor.high:.3f})" if known else ""
    return f"{factor.value:.3f}{interval}, {factor.source}"
