"""Answers about capacity: which option to take, and a table of all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from simulator.answers.capacity import longest_context
from simulator.answers.estimate import Estimate, memory_notes, model_notes
from simulator.answers.plan import Option, Plan
from simulator.inputs.parallelism import Parallelism
from simulator.timing.interval import unknown_regime
from simulator.units import format_time
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MOST_OPTIONS_SHOWN = 16


def _most(surely: int | None, in_time: int | None) -> str:
    """Write the most that fits, surely and as far as one can say, and is in time."""
    if in_time is None or (surely is not None and surely >= in_time):
        return text.limit(in_time)
    return f"{text.limit(surely)} to {text.limit(in_time)}"


LIMITS = (
    Column("most_samples"),
    Column("most_samples_surely"),
    Column(
        "most_samples_in_time",
        heading="most samples",
        cell=lambda limits: _most(limits.most_samples_surely, limits.most_samples_in_time),
    ),
    Column("longest_context_tokens"),
    Column("longest_context_tokens_surely"),
    Column(
        "longest_context_tokens_in_time",
        heading="longest context",
        cell=lambda limits: _most(
            limits.longest_context_tokens_surely, limits.longest_context_tokens_in_time
        ),
    ),
)
OPTION = (
    Column("gpu", "text", "result.gpu.id", "GPU"),
    Column("gpus", heading="n"),
    *columns.within("result", (*estimate.PARALLELISM, estimate.GROUP)),
    Column("attention", "text", heading="attention"),
    *columns.within(
        "result",
        columns.pick(estimate.STEP, "step", "step_ms_low", "step_ms_high", "tokens/s", "bound by"),
    ),
    *columns.pick(estimate.MEMORY, "fits", part="result.memory"),
    Column("meets_target", "bool"),
    Column("pareto", "bool"),
    columns.USD_PER_HOUR,
    columns.USD_PER_MILLION,
    Column("price", "text", lambda option: option.price and option.price.told),
    Column("price_source", "text", lambda option: option.price and option.price.source),
    Column("price_comparable", "bool", "comparable"),
    *columns.within("limits", LIMITS),
    *columns.pick(
        estimate.MEMORY,
        "memory_bytes",
        "memory_bytes_low",
        "memory_bytes_high",
        "capacity_bytes",
        "memory_verdict",
        part="result.memory",
    ),
    Column("constants", "text", "result.rates.origin", "constants"),
)
OPTIONS = Column("options", of=OPTION)
# What a table shows of each option.
SHOWN = (
    *columns.pick(OPTION, "GPU", "n", "attention", "step"),
    *columns.within("result", [estimate.WITHIN]),
    *columns.pick(OPTION, "constants", "USD per million"),
    *map(
        columns.spared,
        columns.pick(OPTION, "USD/h", "tokens/s", "most samples", "longest context"),
    ),
)


def plan_object(result: Plan) -> Row:
    """Return a plan as a JSON object; options are rows, best first."""
    inputs = columns.as_object(
        columns.without(estimate.INPUTS, "gpu", "attention", *Parallelism.model_fields),
        result.options[0].result,
    )
    # Bifurcated options always store one context.
    inputs["kv_layout"] = next(
        (o.result.setup.kv_layout for o in result.options if o.attention == "standard"), "shared"
    )
    return {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": inputs,
        **columns.as_object([Column("target_step_ms", "ms", "target_step_s")], result),
        "cheapest": None if result.cheapest is None else columns.as_object(OPTION, result.cheapest),
        "fewest_gpus": result.fewest_gpus,
        **columns.as_object([OPTIONS, Column("skipped")], result),
        "notes": [
            "cheapest is the option that meets the target at the least comparable price per hour",
            "limits (most_samples ...) hold with the other sizes as asked",
            *model_notes(result.options[0].result.model),
            *_memory_sentences(result.options),
            *_end_sentence(result.options),
        ],
    }


def plan_rows(result: Plan) -> list[Row]:
    """Return the options of a plan as tidy rows, best first."""
    return [
        columns.as_object((*columns.within("result", estimate.ASKED), *OPTION), option)
        for option in result.options
    ]


def plan_view(result: Plan) -> "RenderableType":
    """Return a plan as the answer in a sentence, and a table of options."""
    shown = result.options[:MOST_OPTIONS_SHOWN]
    hidden = len(result.options) - len(shown)
    standing = Column(unit="text", cell=lambda option: _standing(option, result), wrap=True)
    grouped = any(option.gpus > option.result.setup.tensor_parallel for option in shown)
    group = columns.pick(OPTION, "group") if grouped else ()
    shown_columns = (*SHOWN[:2], *group, *SHOWN[2:])
    return columns.stack(
        estimate.question(result.options[0].result, attention=False, gpu=False),
        "",
        *_sentences(result),
        _fewest_sentence(result),
        "",
        columns.as_table((*shown_columns, standing), shown),
        *([f"{hidden} more options: --format csv or --json shows all."] if hidden else []),
        *columns.notes(
            [
                *result.skipped,
                _origins_sentence([option.result for option in shown]),
                *model_notes(result.options[0].result.model),
                *_price_sentences(result.options),
                *_unknown_sentences(shown),
                *_memory_sentences(shown),
                *_end_sentence(shown),
            ]
        ),
    )


def plan_list(sizes: Sequence[Mapping[str, int]], results: Sequence[Plan]) -> "RenderableType":
    """Return the best option of several plans as one table."""
    best = [result.cheapest or result.options[0] for result in results]
    standing = Column(
        unit="text",
        cell=lambda pair: "" if pair[0].meets_target else _standing(*pair),
        wrap=True,
    )
    return estimate.list_view(
        sizes,
        list(zip(best, results, strict=True)),
        (*columns.within(0, SHOWN[:-2]), standing),
        lambda pair: pair[0].result,
        attention=False,
        gpu=False,
    )


def _unknown_sentences(options: Sequence[Option]) -> list[str]:
    """Say why intervals of options are not known, and what that does to their place."""
    reasons = [
        unknown_regime(item.model, item.rates, item.setup)
        for item in (option.result for option in options if option.meets_target)
    ]
    why = "; ".join(dict.fromkeys(filter(None, reasons)))
    return [f"Interval not known: {why}. Such options come after the others."] if why else []


def _memory_sentences(options: Sequence[Option]) -> Iterable[str]:
    """Say what of the options' memory is carried, each thing once."""
    results = (option.result for option in options)
    return dict.fromkeys(note for item in results for note in memory_notes(item.gpu, item.setup))


def _end_sentence(options: Sequence[Option]) -> list[str]:
    """Say that longest contexts end with the model, if one does."""
    first = options[0].result
    end = longest_context(first.model, first.workload)
    if all(option.limits.longest_context_tokens != end for option in options):
        return []
    own = text.plural(first.workload.decoded_tokens, "own token")
    return [f"Longest contexts end at {end:,} tokens, where {first.model.name} does with {own}."]


def _price_sentences(options: Sequence[Option]) -> list[str]:
    """Say who asks each price, and which prices rank apart."""
    prices = {item.result.gpu.id: item.price for item in options if item.price is not None}
    told = {
        comparable: [
            f"{gpu} {text.money(price.value, 2)} ({price.told})"
            for gpu, price in prices.items()
            if price.comparable == comparable
        ]
        for comparable in (True, False)
    }
    said = {True: "USD per GPU hour", False: "Ranked apart, and never cheapest"}
    return [f"{said[kind]}: {'; '.join(parts)}." for kind, parts in told.items() if parts]


def _origins_sentence(results: Sequence[Estimate]) -> str:
    """Say which GPUs have fitted constants, and which have those of other GPUs."""
    said = {
        "fitted": "fitted to rows measured on",
        "carried": "carried over from other GPUs for",
        "peak": "of published peaks, a bound, for",
    }
    gpus = {
        words: dict.fromkeys(item.gpu.id for item in results if item.rates.origin == origin)
        for origin, words in said.items()
    }
    parts = [f"{words} {', '.join(names)}" for words, names in gpus.items() if names]
    return f"Constants {'; '.join(parts)}."


def _sentences(result: Plan) -> "list[Text]":
    """Say which option to take."""
    target = (
        "fits" if result.target_step_s is None else f"meets {format_time(result.target_step_s)}"
    )
    if result.cheapest is None:
        good = [option for option in result.options if option.meets_target]
        if not good:
            return [columns.line((f"No option {target}.", "bold red")), _nearest(result.options[0])]
        fastest = min(good, key=lambda option: option.result.step_s)
        return [
            columns.line(
                f"Fastest that {target}: {_where(fastest)}, "
                f"{fastest.attention}. No comparable price is known; give --prices "
                "or --price-per-hour."
            )
        ]
    best = result.cheapest
    return [
        columns.line(
            (f"Cheapest that {target}: ", "bold"),
            (f"{_where(best)}, {best.attention}", "bold cyan"),
            f", {format_time(best.result.step_s)} per step "
            f"({text.interval_phrase(best.result.step_low_s, best.result.step_high_s)}), "
            f"{text.money(best.usd_per_hour, 2)} USD/h ({_told(best)}), "
            f"{text.money(best.usd_per_million_tokens, 3)} USD per million tokens.",
        )
    ]


def _where(option: Option) -> str:
    """Say which GPUs an option has, and how the model is laid over them unless by heads alone."""
    setup = option.result.setup
    laid = f" ({setup.words})" if setup.gpus > setup.tensor_parallel else ""
    return f"{option.gpus} x {option.result.gpu.id}{laid}"


def _told(option: Option) -> str:
    """Say what kind of price an option has."""
    return option.price.told if option.price else ""


def _nearest(option: Option) -> "Text":
    """Say which option is nearest to the target."""
    item = option.result
    where = f"{_where(option)}, {option.attention}"
    if item.memory.fits:
        step = text.interval_phrase(item.step_low_s, item.step_high_s)
        return columns.line(
            f"Fastest that fits: {where}, {format_time(item.step_s)} per step ({step})."
        )
    return columns.line(
        f"Nothing fits in memory: {where} comes nearest, {text.shortage(item.memory)} short."
    )


def _fewest_sentence(result: Plan) -> "Text":
    """Say how many GPUs of each kind are needed, and which kinds never suffice."""
    enough = [f"{size} x {gpu}" for gpu, size in result.fewest_gpus.items() if size is not None]
    never = [gpu for gpu, size in result.fewest_gpus.items() if size is None]
    parts = [f"Fewest GPUs needed: {', '.join(enough)}."] if enough else []
    parts += [f"Not with the groups tried: {', '.join(never)}."] if never else []
    return columns.line(" ".join(parts))


def _standing(option: Option, result: Plan) -> str:
    """Say whether an option meets the target, and whether it is on the Pareto front."""
    unsure = option.result.memory.verdict == "too close to call"
    if not option.result.memory.fits:
        return "may not fit" if unsure else "does not fit"
    if not option.meets_target:
        return "too slow"
    marks = ["Pareto"] if option.pareto else []
    if unsure:
        marks.append("may not fit")
    if not option.result.interval_known:
        marks.append("interval not known")
    if option is result.cheapest:
        marks.append("cheapest")
    if option.price and not option.comparable:
        marks.append("low-trust price" if option.price.low_trust else f"{option.price.terms} price")
    return ", ".join(marks)
