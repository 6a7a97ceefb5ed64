"""Plans for a terminal: which option to take, and a table of all."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.answers.estimate import Estimate
from simulator.answers.plan import Option, Plan
from simulator.units import format_time
from simulator.views.cells import limit, money, shortage
from simulator.views.table import Column, FittedTable, notes
from simulator.views.tables import question
from simulator.views.text import copies_notes, interval_phrase

MOST_OPTIONS_SHOWN = 16

PLAN_COLUMNS = (
    Column(name="GPU", right=False),
    Column(name="n"),
    Column(name="attention", right=False),
    Column(name="step"),
    Column(name="tokens/s", spare=True),
    Column(name="USD/h"),
    Column(name="USD per million"),
    Column(name="most samples"),
    Column(name="longest context"),
    Column(name="", right=False, wrap=True),
)


def plan_view(result: Plan) -> RenderableType:
    """Return a plan as the answer in a sentence, and a table of options."""
    first = result.options[0].result
    shown = result.options[:MOST_OPTIONS_SHOWN]
    rows = [
        (
            option.result.gpu.id,
            str(option.gpus),
            option.attention,
            format_time(option.result.step_s),
            f"{option.result.tokens_per_s:,.0f}",
            money(option.usd_per_hour, 2),
            money(option.usd_per_million_tokens, 3),
            limit(option.limits.most_samples_in_time),
            limit(option.limits.longest_context_tokens_in_time),
            _standing(option, result),
        )
        for option in shown
    ]
    hidden = len(result.options) - len(shown)
    rest = [Text(f"{hidden} more options: --format csv or --json shows all.")] if hidden else []
    return Group(
        question(first, attention=False, gpu=False),
        Text(),
        *plan_sentences(result),
        fewest_sentence(result),
        Text(),
        FittedTable(columns=PLAN_COLUMNS, rows=rows),
        *rest,
        *notes(
            [
                *result.skipped,
                origins_sentence([option.result for option in shown]),
                *dict.fromkeys(
                    note for option in shown for note in copies_notes(option.result.workload)
                ),
            ]
        ),
    )


def origins_sentence(results: Sequence[Estimate]) -> str:
    """Say of which GPUs the constants were fitted, and of which they are others'."""
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


def plan_sentences(result: Plan) -> list[Text]:
    """Say which option to take."""
    target = (
        "fits" if result.target_step_s is None else f"meets {format_time(result.target_step_s)}"
    )
    if result.cheapest is None:
        good = [option for option in result.options if option.meets_target]
        if not good:
            return [Text(f"No option {target}.", style="bold red"), _nearest(result.options[0])]
        fastest = min(good, key=lambda option: option.result.step_s)
        return [
            Text(
                f"Fastest that {target}: {fastest.gpus} x {fastest.result.gpu.id}, "
                f"{fastest.attention}. No price is known; give one with --price-per-hour."
            )
        ]
    best = result.cheapest
    return [
        Text.assemble(
            (f"Cheapest that {target}: ", "bold"),
            (f"{best.gpus} x {best.result.gpu.id}, {best.attention}", "bold cyan"),
            f", {format_time(best.result.step_s)} per step "
            f"({interval_phrase(best.result.step_low_s, best.result.step_high_s)}), "
            f"{money(best.usd_per_hour, 2)} USD/h, "
            f"{money(best.usd_per_million_tokens, 3)} USD per million tokens.",
        )
    ]


def _nearest(option: Option) -> Text:
    """Say how near the best of those comes that do not meet the target."""
    item = option.result
    where = f"{option.gpus} x {item.gpu.id}, {option.attention}"
    if item.memory.fits:
        step = interval_phrase(item.step_low_s, item.step_high_s)
        return Text(f"Fastest that fits: {where}, {format_time(item.step_s)} per step ({step}).")
    return Text(f"Nothing fits in memory: {where} comes nearest, {shortage(item.memory)} short.")


def fewest_sentence(result: Plan) -> Text:
    """Say how many GPUs of each kind are needed; a kind that never suffices is named as such."""
    enough = [f"{size} x {gpu}" for gpu, size in result.fewest_gpus.items() if size is not None]
    never = [gpu for gpu, size in result.fewest_gpus.items() if size is None]
    parts = [f"Fewest GPUs needed: {', '.join(enough)}."] if enough else []
    parts += [f"Not with the groups tried: {', '.join(never)}."] if never else []
    return Text(" ".join(parts))


def _standing(option: Option, result: Plan) -> str:
    """Say how an option stands to the target and to the others."""
    if not option.result.memory.fits:
        return "does not fit"
    if not option.meets_target:
        return "too slow"
    marks = ["Pareto"] if option.pareto else []
    if option is result.cheapest:
        marks.append("cheapest")
    return ", ".join(marks)
