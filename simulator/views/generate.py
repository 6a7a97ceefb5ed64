"""Answers about a whole request."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulator.answers.generate import Generation
from simulator.inputs.setup import Attention
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row

if TYPE_CHECKING:
    from rich.console import RenderableType

FIGURES = (
    Column("prefill_ms", "ms", "time.prefill.total_s", "prefill"),
    Column("decode_ms", "ms", "time.decode_s", "decode"),
    Column("total_ms", "ms", "total_s", "total"),
    Column("total_ms_low", "ms", "total_low_s"),
    Column("total_ms_high", "ms", "total_high_s"),
    Column("first_step_ms", "ms", "time.first_step_s", "first step", spare=True),
    Column("last_step_ms", "ms", "time.last_step_s", "last step", spare=True),
    Column("time_per_output_token_ms", "ms", "time_per_output_token_s"),
    Column("output_tokens"),
    Column("decode_steps", value="time.steps"),
    Column("all_output_tokens", value="all_tokens"),
    Column("tokens_per_s", "1/s", heading="tokens/s"),
    Column("usd_per_hour", "USD"),
    columns.USD_PER_MILLION,
    Column("prefill_bound", value="time.prefill.bound"),
)
REQUEST = (*FIGURES, Column("memory", "bytes", of=estimate.MEMORY), estimate.NOTES)
# The decoded tokens grow over the request.
ROW = (
    *columns.within("last_step", columns.without(estimate.ASKED, "decoded_tokens")),
    *FIGURES,
    *columns.within("memory", estimate.MEMORY),
)
TABLE = (
    Column("attention", "text", heading="attention"),
    *columns.pick(FIGURES, "prefill", "decode", "total"),
    Column(
        heading="80 % within",
        cell=lambda item: text.within_cell(item.total_low_s, item.total_high_s),
    ),
    *columns.pick(FIGURES, "first step", "last step", "tokens/s", "USD per million"),
    *(
        replace(column, heading="fits to end")
        for column in columns.pick(estimate.MEMORY, "fits", part="memory")
    ),
)


def generate_object(results: Mapping[Attention, Generation]) -> Row:
    """Return requests under one or both kinds of attention as one JSON object."""
    first = next(iter(results.values()))
    step = first.last_step
    asked = columns.as_object(columns.without(estimate.INPUTS, "decoded_tokens"), step)
    answer: dict[str, Any] = {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": {**asked, "attention": list(results), "output_tokens": first.output_tokens},
        **columns.as_object([estimate.HARDWARE_USED], step),
        **{attention: columns.as_object(REQUEST, result) for attention, result in results.items()},
    }
    if len(results) > 1:
        answer["speedup"] = _speedup(results)
    return answer


def generate_rows(results: Mapping[Attention, Generation]) -> list[Row]:
    """Return requests as one tidy row for each kind of attention."""
    return [columns.as_object(ROW, result) for result in results.values()]


def generate_view(results: Mapping[Attention, Generation]) -> "RenderableType":
    """Return whole requests as a table."""
    first = next(iter(results.values()))
    # Each kind of attention may take another form of latent attention.
    every = (note for result in results.values() for note in result.notes)
    forms = [note for note in every if note.startswith("Latent attention")]
    return columns.stack(
        estimate.question(first.last_step, attention=False, output_tokens=first.output_tokens),
        "",
        *([verdict(results), ""] if len(results) > 1 else []),
        columns.as_table(TABLE, results.values()),
        *columns.notes(text.without_shortage([*first.notes, *forms])),
    )


def generate_list(
    sizes: Sequence[Mapping[str, int]], results: Sequence[Mapping[Attention, Generation]]
) -> "RenderableType":
    """Return several requests as one table, with a row for each kind of attention."""
    rows = [(at, item) for at, each in zip(sizes, results, strict=True) for item in each.values()]
    return estimate.list_view(
        [at for at, _ in rows],
        [item for _, item in rows],
        TABLE,
        lambda item: item.last_step,
        output_tokens=rows[0][1].output_tokens,
        attention=False,
    )


def verdict(results: Mapping[Attention, Generation]) -> str:
    """Say how requests under both kinds of attention compare, or which do not fit in memory."""
    unfit = [name for name, result in results.items() if not result.memory.fits]
    if unfit:
        return f"To the end of the request {' and '.join(unfit)} attention does not fit in memory."
    return (
        "Over the whole request, prefill included, bifurcated is "
        f"{text.times_as(_speedup(results))}."
    )


def _speedup(results: Mapping[Attention, Generation]) -> float:
    """Return standard's whole time over bifurcated's."""
    return results["standard"].total_s / results["bifurcated"].total_s
