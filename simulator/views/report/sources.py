"""The parts of a report about the sources of its numbers."""

from collections.abc import Sequence
from typing import Any

from simulator.answers.decision import Choice, Decision
from simulator.answers.estimate import Estimate, constants_note
from simulator.inputs.scenario import Scenario
from simulator.inputs.setup import ATTENTIONS
from simulator.timing.constants import CONSTANTS, Rates, used_constants
from simulator.timing.interval import FAMILY, format_of, shipped_spreads, spread_of
from simulator.views.columns import as_object, without
from simulator.views.estimate import INPUTS, variants
from simulator.views.report.html import Child, Head, Html, bullets, table, tag
from simulator.views.text import KERNELS, setting, without_shortage

GPU_HEADS = (
    Head(name="GPU", number=False),
    Head(name="constants", number=False),
    Head(name="standard", unit="interval of the step"),
    Head(name="bifurcated", unit="interval of the step"),
    Head(name="profile", unit="content hash", number=False, short=True),
    Head(name="figures", unit="A: sources agree", number=False),
    Head(name="price", unit="USD per GPU hour, source", number=False),
)
SPREAD_HEADS = (
    Head(name="kind of kernel", number=False),
    Head(name="fixed time", unit="launches, waves"),
    Head(name="time on bytes and products"),
    Head(name="bytes that stay in L2"),
)
CONSTANT_HEADS = (
    Head(name="constant", number=False),
    Head(name="value"),
    Head(name="standard error"),
    Head(name="rows"),
    Head(name="origin", number=False),
    Head(name="what it is", number=False),
    Head(name="source", number=False),
)
# What all answers of this package leave out.
NOT_MODELLED = (
    "One step is one sequence of operations: communication does not overlap with computation.",
    "No scheduler, no queue of requests, no rounding to paged blocks, no drafting of query tokens.",
    "Bifurcated flash attention has constants fitted to standard attention and to products.",
    "Prices are snapshots of public lists; discounts and idle time are not in them.",
)


def accuracy_section(decisions: Sequence[Decision]) -> Html:
    """Return the reliability of the constants: by GPU, then one by one."""
    choices = decisions[0].choices
    rows: list[list[Child]] = []
    for choice in choices:
        estimate = choice.comparison.standard
        price = choice.gpu.price_usd_per_hour
        rows.append(
            [
                choice.gpu.name,
                _origin_words(estimate.rates),
                *(_interval(choice.under(name)) for name in ATTENTIONS),
                tag("code", choice.gpu.content_hash),
                choice.gpu.confidence,
                "unknown" if price is None else f"{price.value:,.2f}: {price.told}; {price.source}",
            ]
        )
    asked = [choice for choice in choices if choice.asked] or list(choices[:1])
    return tag(
        "div",
        tag(
            "p",
            "Every time is made from constants of three kinds: ",
            tag("strong", "fitted"),
            " to rows measured on that GPU, ",
            tag("strong", "carried"),
            " over from GPUs that were measured, or the published ",
            tag("strong", "peak"),
            ", a bound and no prediction. Intervals hold ",
            f"{shipped_spreads().coverage:.0%} of the times measured on shapes, or on whole GPUs, "
            "that no fit had seen.",
        ),
        tag("p", " ".join(_constants_notes(decisions))),
        table(
            "What each GPU's times rest on",
            GPU_HEADS,
            rows,
            classes=["asked" if choice.asked else None for choice in choices],
        ),
        (_spread_table(choice) for choice in asked),
        (
            tag(
                "details",
                tag("summary", f"Constants used on {choice.gpu.name}, one by one"),
                _constants_table(choice.comparison.standard, choice.comparison.bifurcated),
            )
            for choice in asked
        ),
    )


def _interval(result: Estimate) -> str:
    """Say how much less and more than predicted a step may take."""
    if not result.interval_known:
        return "not known"
    return _range(1 - result.step_low_s / result.step_s, result.step_high_s / result.step_s - 1)


def _range(below: float, above: float) -> str:
    """Write a share by which a time may be less, and one by which it may be more.

    >>> _range(0.08, 0.125)
    '-8 % to +12 %'
    """
    low, high = round(100 * below), round(100 * above)
    return f"{f'-{low}' if low else '0'} % to {f'+{high}' if high else '0'} %"


def _spread_table(choice: Choice) -> Html:
    """Return the spreads of a case's kernels around their predictions."""
    rates, setup = choice.comparison.standard.rates, choice.comparison.standard.setup
    rows: list[list[Child]] = []
    for family in dict.fromkeys(
        FAMILY[operation.kind]
        for name in ATTENTIONS
        for operation in choice.under(name).operations
        if operation.launches
    ):
        found = spread_of(rates, family, format_of(family, setup))
        rows.append(
            [
                KERNELS[family],
                _range(found.fixed_below, found.fixed_above),
                _range(found.streaming_below, found.streaming_above),
                _range(found.cached_below, found.cached_above),
            ]
        )
    return table(f"By how much kernels were off, for {choice.gpu.name}", SPREAD_HEADS, rows)


def _origin_words(rates: Rates) -> str:
    """Say what a GPU's constants are, and to how many rows they were fitted."""
    kinds = {constant.origin for constant in rates.constants.values()}
    if rates.origin == "carried" and "measured" in kinds:
        return "carried, large transfers and products measured"
    return rates.origin


def _constants_notes(decisions: Sequence[Decision]) -> list[str]:
    """Say where the constants of the GPUs asked about come from."""
    every = [
        constants_note(choice.comparison.standard.rates)
        for decision in decisions
        for choice in decision.choices
        if choice.asked
    ]
    return list(dict.fromkeys(every))


def _constants_table(*estimates: Estimate) -> Html:
    """Return the constants that these steps used, with error, rows and source."""
    rates = estimates[0].rates
    operations = [item for estimate in estimates for item in estimate.operations if item.launches]
    rows: list[list[Child]] = []
    for key, constant in used_constants(operations, rates, eager=estimates[0].setup.eager):
        found_as = str(constant.key)
        fitted = rates.gpu.fitted.get(found_as) if constant.origin == "fitted" else None
        rows.append(
            [
                str(key),
                f"{constant.value:.4g}",
                "" if fitted is None or fitted.stderr is None else f"{fitted.stderr:.2g}",
                "" if fitted is None or fitted.rows is None else f"{fitted.rows:,}",
                constant.origin,
                CONSTANTS[key.name].description,
                constant.source,
            ]
        )
    return table(f"Constants of the timing model on {rates.gpu.name}", CONSTANT_HEADS, rows)


def assumptions_section(scenario: Scenario | None, decisions: Sequence[Decision]) -> Html:
    """Return the inputs as they were understood, the notes, and what is not modelled."""
    return tag(
        "div",
        tag("h3", "What was understood"),
        _inputs_table(decisions),
        tag("h3", "Notes"),
        bullets(notes(decisions)),
        tag("h3", "What is not in the model"),
        bullets(NOT_MODELLED),
        None if scenario is None else _origin(scenario),
    )


def _origin(scenario: Scenario) -> Html:
    """Return where a scenario comes from, and the answer it expects."""
    return tag(
        "div",
        tag("h3", "Where the scenario comes from"),
        tag("p", scenario.description),
        bullets(scenario.sources),
        tag(
            "p",
            f"Expected answer: {scenario.verdict} ({scenario.verdict_basis}). "
            f"{scenario.verdict_reason}",
        ),
    )


def notes(decisions: Sequence[Decision]) -> list[str]:
    """Return the notes of all estimates on the first GPU of each case, each once."""
    every = [
        note
        for decision in decisions
        for result in variants(decision.first.comparison).values()
        for note in result.notes
    ]
    return without_shortage(every)


def _inputs_table(decisions: Sequence[Decision]) -> Html:
    """Return the settings of every case, by the names of the options."""
    columns = [_settings(decision) for decision in decisions]
    names = [name for name in columns[0] if any(column[name] for column in columns)]
    heads = [Head(name="setting", number=False)]
    heads += [Head(name=str(column["model"]), number=False) for column in columns]
    rows: list[list[Child]] = [
        [name.replace("_", " "), *(setting(column[name]) for column in columns)]
        for name in names
        if name != "model"
    ]
    return table("The inputs of each case, defaults included", heads, rows)


def _settings(decision: Decision) -> dict[str, Any]:
    """Return the settings of a case."""
    unsaid = ("parameters", "active_parameters", "attention")
    return as_object(without(INPUTS, *unsaid), decision.first.comparison.standard)
