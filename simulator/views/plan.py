"""Answers about capacity: which option to take, and a table of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.answers.estimate import Estimate
from simulator.answers.plan import Option, Plan
from simulator.units import format_time
from simulator.views.columns import (
    SCHEMA_VERSION,
    Column,
    Row,
    as_object,
    as_table,
    notes,
    pick,
    stack,
    text,
    within,
    without,
)
from simulator.views.estimate import ASKED, INPUTS, MEMORY, STEP, question
from simulator.views.text import copies_notes, interval_phrase, limit, money, shortage

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MOST_OPTIONS_SHOWN = 16

LIMITS = (
    Column("most_samples", "that fit in memory; null where not even one does"),
    Column(
        "most_samples_in_time",
        "and whose step meets the target",
        heading="most samples",
        cell=lambda limits: limit(limits.most_samples_in_time),
    ),
    Column("longest_context_tokens", "that fits in memory; null where none does"),
    Column(
        "longest_context_tokens_in_time",
        "and whose step meets the target",
        heading="longest context",
        cell=lambda limits: limit(limits.longest_context_tokens_in_time),
    ),
)
OPTION = (
    Column("gpu", "", "", "result.gpu.id", "GPU", right=False),
    Column("gpus", "", heading="n"),
    Column(
        "attention",
        "what was tried; `gpus` is the tensor-parallel size, the GPUs that share each layer",
        heading="attention",
        right=False,
    ),
    *within("result", pick(STEP, "step", "step_ms_low", "step_ms_high", "tokens/s", "bound by")),
    *within("result.memory", pick(MEMORY, "fits")),
    Column("meets_target", "whether it fits, in time", "bool"),
    Column("pareto", "whether no option that meets the target is as fast and as cheap", "bool"),
    Column(
        "usd_per_hour",
        "",
        "USD",
        heading="USD/h",
        cell=lambda option: money(option.usd_per_hour, 2),
    ),
    Column(
        "usd_per_million_tokens",
        "of the group; null where no price is known",
        "USD",
        heading="USD per million",
        cell=lambda option: money(option.usd_per_million_tokens, 3),
    ),
    *within("limits", LIMITS),
    *within("result.memory", pick(MEMORY, "memory_bytes", "capacity_bytes")),
    Column("constants", "`fitted`, `carried` or `peak`", value="result.rates.origin"),
)
OPTIONS = Column("options", of=OPTION)


def plan_object(result: Plan) -> Row:
    """Return a plan as a JSON object; options are rows, best first."""
    inputs = as_object(
        without(INPUTS, "gpu", "attention", "tensor_parallel"), result.options[0].result
    )
    # Bifurcated options keep one context whatever was asked.
    inputs["kv_layout"] = next(
        (o.result.workload.kv_layout for o in result.options if o.attention == "standard"),
        "shared",
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs,
        **as_object([Column("target_step_ms", "", "ms", "target_step_s")], result),
        "cheapest": None if result.cheapest is None else as_object(OPTION, result.cheapest),
        "fewest_gpus": result.fewest_gpus,
        **as_object([OPTIONS, Column("skipped")], result),
        "notes": [
            "cheapest is the option that meets the target at the least price per hour",
            "limits (most_samples ...) hold with the other sizes as asked",
        ],
    }


def plan_rows(result: Plan) -> list[Row]:
    """Return the options of a plan as tidy rows, best first."""
    return [as_object((*within("result", ASKED), *OPTION), option) for option in result.options]


def plan_view(result: Plan) -> "RenderableType":
    """Return a plan as the answer in a sentence, and a table of options."""
    shown = result.options[:MOST_OPTIONS_SHOWN]
    hidden = len(result.options) - len(shown)
    columns = pick(OPTION, "GPU", "n", "attention", "step", "tokens/s", "USD/h", "USD per million")
    columns += pick(OPTION, "most samples", "longest context")
    standing = Column(cell=lambda option: _standing(option, result), right=False, wrap=True)
    copies = (note for option in shown for note in copies_notes(option.result.workload))
    return stack(
        question(result.options[0].result, attention=False, gpu=False),
        "",
        *_sentences(result),
        _fewest_sentence(result),
        "",
        as_table((*columns, standing), shown),
        *([f"{hidden} more options: --format csv or --json shows all."] if hidden else []),
        *notes(
            [
                *result.skipped,
                _origins_sentence([option.result for option in shown]),
                *dict.fromkeys(copies),
            ]
        ),
    )


def _origins_sentence(results: Sequence[Estimate]) -> str:
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


def _sentences(result: Plan) -> "list[Text]":
    """Say which option to take."""
    target = (
        "fits" if result.target_step_s is None else f"meets {format_time(result.target_step_s)}"
    )
    if result.cheapest is None:
        good = [option for option in result.options if option.meets_target]
        if not good:
            return [text((f"No option {target}.", "bold red")), _nearest(result.options[0])]
        fastest = min(good, key=lambda option: option.result.step_s)
        return [
            text(
                f"Fastest that {target}: {fastest.gpus} x {fastest.result.gpu.id}, "
                f"{fastest.attention}. No price is known; give one with --price-per-hour."
            )
        ]
    best = result.cheapest
    return [
        text(
            (f"Cheapest that {target}: ", "bold"),
            (f"{best.gpus} x {best.result.gpu.id}, {best.attention}", "bold cyan"),
            f", {format_time(best.result.step_s)} per step "
            f"({interval_phrase(best.result.step_low_s, best.result.step_high_s)}), "
            f"{money(best.usd_per_hour, 2)} USD/h, "
            f"{money(best.usd_per_million_tokens, 3)} USD per million tokens.",
        )
    ]


def _nearest(option: Option) -> "Text":
    """Say how near the best of those comes that do not meet the target."""
    item = option.result
    where = f"{option.gpus} x {item.gpu.id}, {option.attention}"
    if item.memory.fits:
        step = interval_phrase(item.step_low_s, item.step_high_s)
        return text(f"Fastest that fits: {where}, {format_time(item.step_s)} per step ({step}).")
    return text(f"Nothing fits in memory: {where} comes nearest, {shortage(item.memory)} short.")


def _fewest_sentence(result: Plan) -> "Text":
    """Say how many GPUs of each kind are needed; a kind that never suffices is named as such."""
    enough = [f"{size} x {gpu}" for gpu, size in result.fewest_gpus.items() if size is not None]
    never = [gpu for gpu, size in result.fewest_gpus.items() if size is None]
    parts = [f"Fewest GPUs needed: {', '.join(enough)}."] if enough else []
    parts += [f"Not with the groups tried: {', '.join(never)}."] if never else []
    return text(" ".join(parts))


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
