"""The parts of a report that answer: the decision over GPUs, the step, the request, the grid."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from simulator.answers.advice import WORTH
from simulator.answers.decision import Choice, Decision
from simulator.answers.estimate import Estimate
from simulator.answers.sweep import GridSummary
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.timing.interval import shipped_spreads
from simulator.units import MILLISECOND, format_gib, format_si, format_time
from simulator.views import estimate, generate, text
from simulator.views.report import words
from simulator.views.report.html import (
    Child,
    Head,
    Html,
    bullets,
    heads_each,
    heads_of,
    table,
    tag,
    words_head,
)

Part: TypeAlias = Callable[[Decision], Html]

MS, BOTH, USD_PER_MILLION = "ms per step", "standard / bifurcated", "USD per million tokens"
SPEEDUP = ("speedup", "speedup_low", "speedup_high")
# Rows of the table on the first screen.
FEW_GPUS = 5
# A longer table is folded, because it is for reference.
MOST_ROWS_OPEN = 12


def case_line(decision: Decision) -> Html:
    """Say which case a part is about."""
    work, setup = decision.case.workload, decision.case.setup
    group = f", {setup.gpus} GPUs to a group" if setup.gpus > 1 else ""
    return tag(
        "p",
        f"{text.model_phrase(decision.case.model)}; {text.samples_phrase(work)}; "
        f"{text.settings_phrase(setup)}{group}.",
    )


def decision_table(decision: Decision) -> Html:
    """Return the table over GPUs: each one's results for the case, and the conclusion."""
    return tag(
        "div",
        case_line(decision),
        table(
            f"One decode step of {decision.case.model.name} with "
            f"{text.samples_phrase(decision.case.workload)}",
            [
                *_gpu_heads(decision),
                *heads_each(ATTENTIONS, lambda choice, name: step_cell(choice.under(name)), MS),
                _both(
                    "fits", lambda choice, name: text.FITS_WORDS[choice.under(name).memory.verdict]
                ),
                _both("most samples", _most_samples, number=True),
                Head("USD per hour", lambda choice: text.money(choice.usd_per_hour, 2)),
                _both(USD_PER_MILLION, _cost, number=True),
            ],
            decision.choices,
            class_of=_row_class,
        ),
        tag("p", " ".join(_reading(decision)), class_="note"),
        bullets(decision.skipped),
    )


def short_table(decision: Decision) -> Html:
    """Return the GPUs asked about, the cheapest and the fastest, and some of the next cheapest."""
    best = [decision.cheapest, decision.fastest]
    first = [choice for choice in decision.choices if choice.asked or choice in best]
    others = [choice for choice in decision.choices if choice.will_do and choice not in first]
    shown = [*first, *others[: max(0, FEW_GPUS - len(first))]]
    kept = [choice for choice in decision.choices if choice in shown]
    every = len(decision.choices)
    return tag(
        "div",
        table(
            f"{decision.case.model.name}: {text.samples_phrase(decision.case.workload)}",
            [
                *_gpu_heads(decision),
                *heads_each(ATTENTIONS, _step_that_fits, MS),
                Head(USD_PER_MILLION, lambda choice: _cost(choice, choice.best.attention)),
            ],
            kept,
            class_of=_row_class,
        ),
        tag("p", apart, class_="note") if (apart := words.unranked(decision)) else None,
        tag("p", tag("a", f"All {every} GPUs", href="#decision"), class_="note")
        if every > len(kept)
        else None,
    )


def _gpu_heads(decision: Decision) -> list[Head]:
    """Return the columns that name a GPU and the verdict on it."""

    def verdict(choice: Choice) -> list[Child]:
        badges = (("cheapest per hour", decision.cheapest), ("fastest", decision.fastest))
        marks = [tag("span", word, class_="badge") for word, best in badges if choice is best]
        return [words.standing(choice), *(child for mark in marks for child in (" ", mark))]

    return [
        words_head("GPU", lambda choice: words.group_name(choice.comparison.standard)),
        words_head("verdict", verdict),
        Head("speed-up", _speedup_that_fits, "times"),
    ]


def _both(name: str, cell: Callable[[Any, Attention], str], *, number: bool = False) -> Head:
    """Return a column that says something of an item under both kinds of attention."""

    def joined(item: Any) -> str:
        return " / ".join(cell(item, attention) for attention in ATTENTIONS)

    return Head(name, joined, BOTH, number=number, short=not number)


def _step_that_fits(choice: Choice, attention: Attention) -> Child:
    """Write a step's time with its interval, if it fits."""
    result = choice.under(attention)
    return step_cell(result) if result.memory.fits else "does not fit"


def _row_class(choice: Choice) -> str | None:
    """Return the style of a GPU's row."""
    marks = ("asked", choice.asked), ("out", not choice.will_do)
    return " ".join(name for name, holds in marks if holds) or None


def _reading(decision: Decision) -> list[str]:
    """Return how to read the table over GPUs, a sentence each."""
    target = decision.first.target_step_s
    standings = {choice.standing for choice in decision.choices}
    within = "in memory" if target is None else f"in memory and within {format_time(target)}"
    every = [
        "The GPUs asked about come first and are marked; the others are ordered by cost.",
        f"Below a prediction: where {shipped_spreads().coverage:.0%} of measurements should lie.",
        "Speed-up is standard's time over bifurcated's, where both fit.",
        f"Most samples: {within}, all else as in the case; surely, and as far as one can say.",
        "Cost: of output tokens at this step's rate, prefill left out, where the step fits.",
    ]
    layout = estimate.LAYOUTS[decision.case.setup.kv_layout]
    if "standard" in standings:
        little = f"gains less than {WORTH:g} times over one stored context, or has no kernel"
        every.append(f"Standard: also where bifurcated attention {little}.")
    if "bifurcated only" in standings:
        every.append(f"Bifurcated only: standard attention, with {layout}, does not fit.")
    if "too close to call" in standings:
        every.append("Too close to call: the speed-up may lie on either side of 1.")
    if "not known" in standings:
        every.append("Not known: no rows tell how far the speed-up may be off.")
    if "too slow" in standings and target is not None:
        every.append(f"Too slow: longer than {format_time(target)}.")
    if "may be too slow" in standings and target is not None:
        every.append(f"May be too slow: {format_time(target)} lies in the interval.")
    return every


def step_cell(result: Estimate) -> list[Child]:
    """Write a step's time with its interval below. [ms]."""
    within = f"at least {milliseconds(result.step_low_s)}"
    if result.interval_known:
        within = f"{milliseconds(result.step_low_s)} to {milliseconds(result.step_high_s)}"
    return [milliseconds(result.step_s), " ", tag("small", within)]


def _speedup(speedup: float, low: float, high: float) -> list[Child]:
    """Write a speed-up with its interval below."""
    return [f"{speedup:.2f}", " ", tag("small", text.between(low, high))]


def _speedup_that_fits(choice: Choice) -> Child:
    """Write a speed-up with its interval, where both kinds of attention fit."""
    found = choice.comparison
    return _speedup(*(getattr(found, name) for name in SPEEDUP)) if found.both_fit else "-"


def _speedup_of_row(row: Mapping[str, Any]) -> Child:
    """Write the speed-up of a point with its interval, where both kinds of attention fit."""
    fit = all(row[f"{name}_fits"] for name in ATTENTIONS)
    return _speedup(*(row[name] for name in SPEEDUP)) if fit else "-"


def _cost(choice: Choice, attention: Attention) -> str:
    """Write the cost of a million tokens, where that kind of attention can be run at all."""
    if not choice.under(attention).memory.fits:
        return "-"
    return text.money(choice.usd_per_million_tokens(attention), 3)


def _most_samples(choice: Choice, attention: Attention) -> str:
    """Write the most samples that a GPU takes, surely and as far as one can say."""
    limits = choice.limits[attention]
    return text.most(limits.most_samples_surely, limits.most_samples_in_time)


def tiles(decision: Decision) -> Html:
    """Return the figures to remember."""
    choice, cheapest = decision.first, decision.cheapest
    result, target = choice.comparison, choice.target_step_s
    both = map(choice.under, ATTENTIONS)
    steps = [milliseconds(step.step_s) if step.memory.fits else "–" for step in both]
    dash = "" if result.both_fit else "; –: does not fit"
    where = f"on {words.group_name(result.standard)}{dash}"
    fewer = f"{result.kv_io_ratio:.1f}x fewer" if result.kv_io_ratio > 1 else "the same"
    most = "Most samples that fit" if target is None else f"Most samples in {format_time(target)}"
    standard, bifurcated = (_most_samples(choice, name) for name in ATTENTIONS)
    layout = estimate.LAYOUTS[result.standard.setup.kv_layout]
    facts: list[tuple[str, str, str]] = [
        ("Step, standard to bifurcated", f"{' → '.join(steps)} ms", where),
        ("Speed-up of the step", *_speedup_tile(choice)),
        ("KV bytes read", fewer, "of bytes; not the speed-up"),
        (most, bifurcated, f"with bifurcated; {standard} with standard, {layout}"),
    ]
    if cheapest is not None:
        best = cheapest.best
        cost = text.money(cheapest.usd_per_million_tokens(best.attention), 3)
        where = f"{words.group_name(best)}, {best.attention}"
        price = f"{text.money(cheapest.usd_per_hour, 2)} USD/h"
        facts.append(("Cheapest per hour", price, f"{where}; {cost} USD per million tokens"))
    return tag(
        "dl",
        (
            tag("div", tag("dt", name), tag("dd", said, tag("small", more)))
            for name, said, more in facts
        ),
        class_="tiles",
    )


def _speedup_tile(choice: Choice) -> tuple[str, str]:
    """Return the speed-up of what fits, and what it is over."""
    found = choice.comparison
    if found.both_fit:
        likely = f"likely {text.between(found.speedup_low, found.speedup_high)}"
        return f"{found.speedup:.2f}x", likely
    if found.bifurcated.memory.fits and found.stored.memory.fits:
        return f"{found.stored.step_s / found.bifurcated.step_s:.2f}x", "over one stored context"
    return "–", words.standing(choice)


def step_section(decision: Decision) -> Html:
    """Return the time, traffic and memory of one step on the scenario's first GPU."""
    found = decision.first.comparison
    standard, items = found.standard, list(estimate.variants(found).values())
    variant = words_head("variant", estimate.storage_phrase)
    place = words.group_name(standard) + (" (of each GPU)" if standard.setup.gpus > 1 else "")
    steps = [
        variant,
        Head("step", step_cell, "ms"),
        Head("tokens/s", lambda item: f"{item.tokens_per_s:,.0f}"),
        Head(
            "speed-up",
            lambda item: estimate.OVER_STANDARD.text(estimate.Compared("", item, standard)) or "-",
        ),
        Head("KV read", lambda item: format_si(item.totals.kv_bytes_read, "B"), "per step"),
        Head("all bytes moved", _bytes_moved, "per step"),
        words_head("bound by", lambda item: item.bound),
    ]
    parts = {
        "weights": "weights_bytes",
        "KV cache": "kv_bytes",
        "workspace": "workspace_bytes",
        "kept": "reserve_bytes",
        "total": "total_bytes",
        "usable": "capacity_bytes",
    }
    memory = [
        variant,
        *heads_each(parts, lambda item, part: _gib(getattr(item.memory, parts[part])), "GiB"),
        words_head("fits", lambda item: text.fits_phrase(item.memory)),
    ]
    return tag(
        "div",
        table(f"{standard.model.name}: time and traffic of one step on {place}", steps, items),
        table(f"{standard.model.name}: memory on {place}", memory, items),
        tag("p", estimate.break_even(found)),
        tag("p", tag("strong", "Next: "), found.advice),
    )


def _bytes_moved(item: Estimate) -> str:
    """Write all bytes that a step moves."""
    return format_si(item.totals.bytes_read + item.totals.bytes_written, "B")


def request_section(decision: Decision) -> Html:
    """Return the time and the cost of a whole request."""
    first = next(iter(decision.requests.values()))
    step = decision.first.comparison
    at_step = f" At the step above it is {text.times_as(step.speedup)}." if step.both_fit else ""
    return tag(
        "div",
        table(
            f"{text.samples_phrase(first.last_step.workload, first.output_tokens)}, prefill to "
            f"last token, on {words.group_name(first.last_step)}",
            heads_of(generate.TABLE),
            decision.requests.values(),
        ),
        tag("p", f"{generate.verdict(decision.requests)}{at_step} {first.steps_note}".rstrip()),
    )


def milliseconds(seconds: float) -> str:
    """Write a time in milliseconds, three digits.

    >>> milliseconds(0.0123456), milliseconds(4.5), milliseconds(1.234e-5)
    ('12.3', '4,500', '0.0123')
    """
    value = seconds / MILLISECOND
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{decimals}f}"


def _gib(number_of_bytes: Any) -> str:
    """Write memory in GiB, the unit being in the column's head."""
    return format_gib(number_of_bytes).removesuffix(" GiB")


def grid_section(scenario: Scenario, grid: GridSummary) -> Html:
    """Return every point of the scenario's grid, folded where there are many."""
    parts: list[Child] = [tag("p", words.grid_sentence(grid))]
    if grid.rows:
        whole = _grid_table(scenario, grid)
        folded = tag("details", tag("summary", f"All {grid.points:,} points"), whole)
        parts.append(whole if len(grid.rows) <= MOST_ROWS_OPEN else folded)
    else:
        many = "Too many points to list here; the sweep below writes them all."
        parts.append(tag("p", many, class_="note"))
    return tag("div", parts, bullets(grid.skipped))


def _grid_table(scenario: Scenario, grid: GridSummary) -> Html:
    """Return the table of all points: what varies, then what comes out."""
    always = ("samples", "context_tokens")
    varying = [
        axis
        for axis, values in scenario.axes.items()
        if axis in grid.rows[0] and (axis in always or len(values) > 1)
    ]
    heads = [
        *(
            replace(
                head,
                name=head.name.replace("_", " "),
                number=isinstance(grid.rows[0][head.name], int),
            )
            for head in heads_each(varying, lambda row, name: text.setting(row[name]))
        ),
        *heads_each(
            ATTENTIONS, lambda row, name: milliseconds(row[f"{name}_step_ms"] * MILLISECOND), MS
        ),
        Head("speed-up", _speedup_of_row, "times"),
        _both("fits", lambda row, name: text.FITS_WORDS[row[f"{name}_memory_verdict"]]),
        _both("bound by", lambda row, name: row[f"{name}_bound"]),
        words_head("faster?", lambda row: str(row["verdict"]), short=True),
    ]
    caption = f"Every point of the grid; a gain is a speed-up of at least {GAIN_SPEEDUP:g}"
    return table(caption, heads, grid.rows)
