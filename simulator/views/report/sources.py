"""The parts of a report about the sources of its numbers."""

from collections.abc import Callable, Mapping, Sequence

from simulator.answers.decision import Choice, Decision
from simulator.answers.estimate import Estimate, constants_note
from simulator.inputs.scenario import Scenario
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.timing.constants import CONSTANTS, Constant, Key, Rates, used_constants
from simulator.timing.interval import FAMILY, format_of, shipped_spreads, spread_of
from simulator.views.columns import as_object, without
from simulator.views.estimate import INPUTS, variants
from simulator.views.report.html import Head, Html, bullets, heads_each, table, tag, words_head
from simulator.views.text import KERNELS, origin_phrase, setting, without_shortage

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
    asked = [choice for choice in choices if choice.asked] or list(choices[:1])
    origins = (
        constants_note(choice.comparison.standard.rates)
        for decision in decisions
        for choice in decision.choices
        if choice.asked
    )
    heads = [
        words_head("GPU", lambda choice: choice.gpu.name),
        words_head("constants", lambda choice: _origin_words(choice.comparison.standard.rates)),
        *heads_each(ATTENTIONS, _interval, "interval of the step"),
        words_head("profile", _profile, "content hash", short=True),
        words_head("figures", lambda choice: choice.gpu.confidence, "A: sources agree"),
        words_head("price", _price, "USD per GPU hour, source"),
    ]
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
            ", a bound and no prediction. Intervals are meant to hold ",
            f"{shipped_spreads().coverage:.0%} of the times measured on shapes, or on whole GPUs, "
            "that no fit had seen.",
        ),
        tag("p", " ".join(dict.fromkeys(origins))),
        table(
            "What each GPU's times rest on",
            heads,
            choices,
            class_of=lambda choice: "asked" if choice.asked else None,
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


def _profile(choice: Choice) -> Html:
    """Return the hash of a GPU's profile."""
    return tag("code", choice.gpu.content_hash)


def _price(choice: Choice) -> str:
    """Write a GPU's price and who asks it."""
    price = choice.gpu.price_usd_per_hour
    return "unknown" if price is None else f"{price.value:,.2f}: {price.told}; {price.source}"


def _interval(choice: Choice, attention: Attention) -> str:
    """Say how much less and more than predicted a step may take."""
    result = choice.under(attention)
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
    operations = (item for name in ATTENTIONS for item in choice.under(name).operations)
    families = dict.fromkeys(FAMILY[item.kind] for item in operations if item.launches)
    found = [(family, spread_of(rates, family, format_of(family, setup))) for family in families]
    heads = [
        words_head("kind of kernel", lambda item: KERNELS[item[0]]),
        Head(
            "fixed time",
            lambda item: _range(item[1].fixed_below, item[1].fixed_above),
            "launches, waves",
        ),
        Head(
            "time on bytes and products",
            lambda item: _range(item[1].streaming_below, item[1].streaming_above),
        ),
        Head(
            "bytes that stay in L2", lambda item: _range(item[1].cached_below, item[1].cached_above)
        ),
    ]
    return table(f"By how much kernels were off, for {choice.gpu.name}", heads, found)


def _origin_words(rates: Rates) -> str:
    """Say what a GPU's constants are, and to how many rows they were fitted."""
    kinds = {constant.origin for constant in rates.constants.values()}
    if rates.origin == "carried" and "measured" in kinds:
        return "carried, large transfers and products measured"
    return origin_phrase(rates)


def _constants_table(*estimates: Estimate) -> Html:
    """Return the constants that these steps used, with error, rows and source."""
    rates = estimates[0].rates
    operations = [item for estimate in estimates for item in estimate.operations if item.launches]

    def fitted(field: str, form: str) -> Callable[[tuple[Key, Constant]], str]:
        """Return the function that writes a field of a constant's fit, if it has it."""

        def cell(item: tuple[Key, Constant]) -> str:
            found = rates.gpu.fitted.get(str(item[1].key)) if item[1].origin == "fitted" else None
            value = getattr(found, field, None)
            return "" if value is None else format(value, form)

        return cell

    heads = [
        words_head("constant", lambda item: str(item[0])),
        Head("value", lambda item: f"{item[1].value:.4g}"),
        Head("standard error", fitted("stderr", ".2g")),
        Head("rows", fitted("rows", ",")),
        words_head("origin", lambda item: item[1].origin),
        words_head("what it is", lambda item: CONSTANTS[item[0].name].description),
        words_head("source", lambda item: item[1].source),
    ]
    used = used_constants(operations, rates, eager=estimates[0].setup.eager)
    return table(f"Constants of the timing model on {rates.gpu.name}", heads, used)


def assumptions_section(scenario: Scenario | None, decisions: Sequence[Decision]) -> Html:
    """Return the inputs as they were understood, the notes, and what is not modelled."""
    notes = (
        note
        for decision in decisions
        for result in variants(decision.first.comparison).values()
        for note in result.notes
    )
    return tag(
        "div",
        tag("h3", "What was understood"),
        _inputs_table(decisions),
        tag("h3", "Notes"),
        bullets(without_shortage(notes)),
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


def _inputs_table(decisions: Sequence[Decision]) -> Html:
    """Return the settings of every case, by the names of the options."""
    wanted = without(INPUTS, "parameters", "active_parameters", "attention")
    cases = [as_object(wanted, decision.first.comparison.standard) for decision in decisions]
    names = [name for name in cases[0] if name != "model" and any(case[name] for case in cases)]
    heads = [words_head("setting", lambda name: name.replace("_", " "))]
    heads += [words_head(str(case["model"]), _setting_in(case)) for case in cases]
    return table("The inputs of each case, defaults included", heads, names)


def _setting_in(case: Mapping[str, object]) -> Callable[[str], str]:
    """Return the function that writes a setting of a case."""
    return lambda name: setting(case[name])
