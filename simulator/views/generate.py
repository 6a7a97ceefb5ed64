"""Answers about a whole request."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulator.answers.generate import Generation
from simulator.views.columns import (
    SCHEMA_VERSION,
    Column,
    Row,
    as_object,
    as_table,
    notes,
    pick,
    stack,
    within,
    without,
)
from simulator.views.estimate import ASKED, HARDWARE_USED, INPUTS, MEMORY, NOTES, question
from simulator.views.text import (
    copies_notes,
    interval_phrase,
    money,
    times_as,
    without_shortage,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

COST = (
    Column("usd_per_hour", "", "USD"),
    Column(
        "usd_per_million_tokens",
        "of all GPUs; null where no price is known",
        "USD",
        heading="USD per million",
        cell=lambda item: money(item.usd_per_million_tokens, 3),
    ),
)
FIGURES = (
    Column("prefill_ms", "", "ms", "time.prefill.total_s", "prefill"),
    Column("decode_ms", "", "ms", "time.decode_s", "decode"),
    Column(
        "total_ms", "of the request; time to first token is the prefill", "ms", "total_s", "total"
    ),
    Column("total_ms_low", "", "ms", "total_low_s"),
    Column("total_ms_high", "the [interval](#intervals) of the total", "ms", "total_high_s"),
    Column("first_step_ms", "", "ms", "time.first_step_s", "first step", spare=True),
    Column(
        "last_step_ms",
        "shortest and longest decode step, 0 where there is none",
        "ms",
        "time.last_step_s",
        "last step",
        spare=True,
    ),
    Column(
        "time_per_output_token_ms",
        "decode time per token after the first (TPOT)",
        "ms",
        "time_per_output_token_s",
    ),
    Column("output_tokens", "of one sample"),
    Column("decode_steps", "steps after the prefill", value="time.steps"),
    Column("all_output_tokens", "of all samples of all prompts", value="all_tokens"),
    Column("tokens_per_s", "all output tokens over the total", "1/s", heading="tokens/s"),
    *COST,
    Column("prefill_bound", "what binds the prefill", value="time.prefill.bound"),
)
REQUEST = (
    *FIGURES,
    Column(
        "memory",
        "as for `estimate`, of the whole request: caches at the last step, the larger workspace of "
        "prefill and last step",
        "bytes",
        of=MEMORY,
    ),
    NOTES,
)
# The decoded tokens grow from none to the last.
ROW = (
    *within("last_step", without(ASKED, "decoded_tokens")),
    *FIGURES,
    *within("memory", MEMORY),
)
TABLE = (
    Column("attention", heading="attention", right=False),
    *pick(FIGURES, "prefill", "decode", "total"),
    Column(
        heading="80 % within",
        cell=lambda item: interval_phrase(item.total_low_s, item.total_high_s),
        spare=True,
    ),
    *pick(FIGURES, "first step", "last step", "tokens/s", "USD per million"),
    *(
        replace(column, heading="fits to the end")
        for column in within("memory", pick(MEMORY, "fits"))
    ),
)


def generate_object(results: Mapping[str, Generation]) -> Row:
    """Return requests under one or both kinds of attention as one JSON object."""
    first = next(iter(results.values()))
    step = first.last_step
    asked = as_object(without(INPUTS, "decoded_tokens"), step)
    answer: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "inputs": {**asked, "attention": list(results), "output_tokens": first.output_tokens},
        **as_object([HARDWARE_USED], step),
        **{attention: as_object(REQUEST, result) for attention, result in results.items()},
    }
    if len(results) > 1:
        answer["speedup"] = _speedup(results)
    return answer


def generate_rows(results: Mapping[str, Generation]) -> list[Row]:
    """Return requests as one tidy row for each kind of attention."""
    return [as_object(ROW, result) for result in results.values()]


def generate_view(results: Mapping[str, Generation]) -> "RenderableType":
    """Return whole requests as a table."""
    first = next(iter(results.values()))
    said = []
    if len(results) > 1:
        said = [f"Over the whole request bifurcated is {times_as(_speedup(results))}."]
    return stack(
        question(first.last_step, attention=False, output_tokens=first.output_tokens),
        "",
        as_table(TABLE, results.values()),
        "",
        *said,
        *notes([*without_shortage(first.notes), *copies_notes(first.last_step.workload)]),
    )


def _speedup(results: Mapping[str, Generation]) -> float:
    """Return standard's whole time over bifurcated's."""
    return results["standard"].total_s / results["bifurcated"].total_s
