"""Answers about a whole request."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simulator.answers.generate import Generation
from simulator.inputs.setup import Attention
from simulator.views import columns, estimate, load, text
from simulator.views.columns import Column, Row, View

FIGURES = (
    Column("prefill_ms", "ms", "time.prefill.total_s", "prefill"),
    Column("decode_ms", "ms", "time.decode_s", "decode", spare=True),
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


def _loaded(column: Column) -> Column:
    """Return a column of a load as one of a request, empty where it has none."""

    def of(read: Callable[[Any], Any], missing: str | None) -> Callable[[Generation], Any]:
        return lambda item: missing if item.loaded is None else read(item.loaded)

    key = column.key and f"loaded_{column.key}"
    return replace(column, key=key, value=of(column.raw, None), cell=of(column.text, ""))


LOADED = tuple(map(_loaded, (*load.POINT[1:13], columns.USD_PER_MILLION)))
REQUEST = (*FIGURES, *LOADED, Column("memory", "bytes", of=estimate.MEMORY), estimate.NOTES)
# The decoded tokens grow over the request.
ROW = (
    *columns.within("last_step", columns.without(estimate.ASKED, "decoded_tokens")),
    *FIGURES,
    *LOADED,
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
UNDER_LOAD = (
    TABLE[0],
    replace(TABLE[3], heading="total alone", spare=True),
    *columns.pick(LOADED, "users", "TTFT", "TPOT", "total"),
    _loaded(load.TOTAL_WITHIN),
    *map(columns.spared, columns.pick(LOADED, "tokens/s per user")),
    *columns.pick(LOADED, "tokens/s per GPU", "USD per million"),
    TABLE[-1],
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
        fit = all(result.memory.fits for result in results.values())
        answer["speedup"] = _speedup(results) if fit else None
    return answer


def generate_rows(results: Mapping[Attention, Generation]) -> list[Row]:
    """Return requests as one tidy row for each kind of attention."""
    return [columns.as_object(ROW, result) for result in results.values()]


def generate_view(results: Mapping[Attention, Generation]) -> View:
    """Return whole requests as a table."""
    first = next(iter(results.values()))
    # Each kind of attention may take another form of latent attention.
    every = (note for result in results.values() for note in result.notes)
    forms = [note for note in every if note.startswith("Latent attention")]
    loaded = [result.loaded.deployment for result in results.values() if result.loaded]
    loads = load.prefill_notes([first.last_step.setup]) if loaded else []
    loads += load.engine_notes(loaded)
    return columns.stack(
        estimate.question(first.last_step, attention=False, output_tokens=first.output_tokens),
        "",
        *([verdict(results), ""] if len(results) > 1 else []),
        columns.as_table(_shown(results.values()), results.values()),
        *columns.notes(text.without_shortage([*first.notes, *forms, *loads])),
    )


def generate_list(
    sizes: Sequence[Mapping[str, int]], results: Sequence[Mapping[Attention, Generation]]
) -> View:
    """Return several requests as one table, with a row for each kind of attention."""
    rows = [(at, item) for at, each in zip(sizes, results, strict=True) for item in each.values()]
    return estimate.list_view(
        [at for at, _ in rows],
        [item for _, item in rows],
        _shown(item for _, item in rows),
        lambda item: item.last_step,
        output_tokens=rows[0][1].output_tokens,
        attention=False,
        more=load.engine_notes(item.loaded.deployment for _, item in rows if item.loaded),
    )


def _shown(items: Iterable[Generation]) -> columns.Columns:
    """Return the columns of a table of requests, alone or among users."""
    return UNDER_LOAD if any(item.loaded for item in items) else TABLE


def verdict(results: Mapping[Attention, Generation]) -> str:
    """Say how requests under both kinds of attention compare, or which do not fit in memory."""
    unfit = [name for name, result in results.items() if not result.memory.fits]
    if unfit:
        fits = "does not fit" if len(unfit) == 1 else "do not fit"
        return f"To the end of the request {' and '.join(unfit)} attention {fits} in memory."
    found = f"bifurcated is {text.times_as(_speedup(results))}"
    loads = [item.loaded for item in results.values() if item.loaded]
    if len(loads) > 1:
        standard, bifurcated = (each.total_s(each.served) for each in loads)
        users = text.plural(loads[0].concurrency or 0, "user")
        found += f"; among {users} {text.times_as(standard / bifurcated)}"
    return f"Over the whole request, prefill included, {found}."


def _speedup(results: Mapping[Attention, Generation]) -> float:
    """Return standard's whole time over bifurcated's."""
    return results["standard"].total_s / results["bifurcated"].total_s
