"""The figures of a report: which ones, and for which case."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.answers.decision import Choice, Decision
from simulator.answers.frames import parts_of
from simulator.answers.study import Study
from simulator.answers.sweep import compare_on
from simulator.inputs.setup import ATTENTIONS
from simulator.units import MILLISECOND, format_gib, format_time, format_tokens
from simulator.views import text
from simulator.views.plots.palette import COLOURS, GREEN, GREY, PART_COLOURS, PURPLE, SKY
from simulator.views.report import svg, words
from simulator.views.report.html import Html


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure of a report.

    Attributes
    ----------
    name
        Short, of letters, digits and dashes: it becomes the element's id.
    finding
        What it shows, a sentence made from its data.
    about
        What kind of figure it is.
    figure
        Its SVG.
    """

    name: str
    finding: str
    about: str
    figure: Html


def _drawing(
    name: str, finding: str, about: str, draw: svg.Draw, keys: Sequence[Html] = (), then: str = ""
) -> Drawing:
    """Return a figure with its legend; ``then`` is said below it, and not to those who hear it."""
    figure = svg.chart(f"{finding}. {about}", draw, keys)
    return Drawing(name=name, finding=finding, about=f"{about}{then}", figure=figure)


def drawings(study: Study, decisions: Sequence[Decision]) -> list[Drawing]:
    """Return the map of each case, and the other figures of the first.

    Parameters
    ----------
    study
        The scenario's; its GPUs are those that the decision is between.
    """
    first = decisions[0]
    maps = [
        _map(study, decision, f"map-{number}" if number > 1 else "map")
        for number, decision in enumerate(decisions, start=1)
        if not decision.case.workload.tree  # whose context has no single length
    ]
    axes = ("samples",) if first.case.workload.tree else ("samples", "context_tokens")
    along = [_along(study, first, axis) for axis in axes]
    return [*maps, *along, _memory(first.first), _parts(first.first), *_cost(first)]


def _points(decision: Decision, **varied: Sequence[int]) -> Mapping[str, Any]:
    """Compare both kinds of attention around a case, at every point of a grid."""
    asked = decision.case.on(decision.first.gpu)
    return compare_on(asked.under("standard"), **varied)


def _powers(low: int, high: int, most: int) -> list[int]:
    """Return powers of two in a range, no more than so many."""
    found = [2**power for power in range(low.bit_length() - 1, high.bit_length())]
    stride = -(-len(found) // most)
    return found[::stride]


def _map(study: Study, decision: Decision, name: str) -> Drawing:
    """Draw the speed-up over samples and context."""
    work = decision.case.workload
    columns = sorted({*_powers(1, max(64, *study.samples_axis), 10), work.samples})
    lengths = [length for length in study.context_axis if length]
    rows = _powers(min([256, *lengths]), max([32768, *lengths]), 10)
    rows = sorted({*rows, work.context_tokens} - {0})
    found = _points(decision, context_tokens=rows, samples=columns)
    best = 0.0

    def cell(context: int, samples: int) -> svg.Cell:
        """Return the speed-up at a point, or what alone fits."""
        nonlocal best
        place = int(((found["context_tokens"] == context) & (found["samples"] == samples)).argmax())
        fitting = [name for name in ATTENTIONS if found[f"{name}_fits"][place]]
        ratio, speedup = float(found["speedup"][place]), None
        said, shown = "neither fits", ""
        if len(fitting) > 1:
            speedup, best = ratio, max(best, ratio)
            said, shown = f"{ratio:.2f} times as fast", f"{ratio:.{1 if ratio >= _COARSE else 2}f}"
        elif fitting:
            said, shown = f"only {fitting[0]} fits", fitting[0][:3]
        about = f"{samples:,} x {format_tokens(context)} context: {said}"
        return svg.Cell(shown, speedup, about)

    cells = [[cell(context, samples) for samples in columns] for context in rows]
    finding = (
        f"Where both fit, bifurcated is up to {best:.1f} times as fast"
        if best
        else "Nowhere on this map do both kinds of attention fit"
    )
    model = decision.case.model.name
    about = f"{model} on {words.group_name(decision.first.comparison.standard)}: speed-up of a step"
    draw = svg.map_chart(columns, rows, cells, (work.samples, work.context_tokens))
    faster = [(f"{name} faster", COLOURS[name]) for name in ATTENTIONS[::-1]]
    unfit = "bif: only bifurcated fits; empty: neither"
    keys = svg.area_keys([*faster, (unfit, "var(--rule)")])
    return _drawing(name, finding, about, draw, keys, then="; the case is framed.")


# Speed-ups from here on have one decimal in a map.
_COARSE = 1.495


def _along(study: Study, decision: Decision, axis: str) -> Drawing:
    """Draw the step's time along samples or context."""
    work = decision.case.workload
    values, what = (
        (study.samples_axis, "sample")
        if axis == "samples"
        else (study.context_axis, "context token")
    )
    asked = int(getattr(work, axis))
    xs = sorted({*values, asked, *(value * 3 // 2 for value in values[1:-1])} - {0})
    found = _points(decision, **{axis: xs})
    at = xs.index(asked) if asked in xs else 0
    result = decision.first.comparison
    finding = (
        f"At {text.plural(asked, what)} bifurcated is {text.times_as(float(found['speedup'][at]))}"
        if result.both_fit
        else f"At {text.plural(asked, what)} {words.only(result)}"
    )
    target = decision.first.target_step_s
    model, place = decision.case.model.name, words.group_name(result.standard)
    draw = svg.step_chart(
        xs,
        found,
        title=svg.SAMPLES if axis == "samples" else "shared context [tokens]",
        asked=max(asked, xs[0]),
        target_ms=target and target / MILLISECOND,
    )
    keys = svg.line_keys()
    if target:
        keys.append(svg.line_key(f"target, {format_time(target)}", GREEN, "12 4 2 4"))
    about = f"{model} on {place}: time of a step; pale beyond the cross, where it does not fit."
    return _drawing(f"along-{axis.partition('_')[0]}", finding, about, draw, keys)


def _memory(choice: Choice) -> Drawing:
    """Draw what memory is spent on."""
    bars = []
    for name in ATTENTIONS:
        needs = choice.under(name).memory
        parts = [
            (*part, size) for part, size in zip(_MEMORY, text.memory_parts(needs), strict=True)
        ]
        fits = "unsure" if needs.verdict == "too close to call" else needs.verdict
        bars.append(svg.Bar(name, parts, f"{format_gib(needs.total_bytes)}, {fits}"))
    capacity = float(choice.comparison.standard.memory.capacity_bytes)
    finding = words.memory_finding(choice.comparison)
    about = f"Memory of one {choice.gpu.name} and what takes it."
    draw = svg.bar_chart(bars, limit=(capacity, f"{format_gib(capacity)} may be used"))
    return _drawing("memory", finding, about, draw, svg.area_keys(_MEMORY))


_MEMORY = (
    ("weights", GREEN),
    ("KV cache", PURPLE),
    ("workspace", SKY),
    ("kept by the engine", GREY),
)


def _parts(choice: Choice) -> Drawing:
    """Draw what a step's time is spent on."""
    bars, shares = [], []
    for name in ATTENTIONS:
        step = choice.under(name)
        spent = parts_of(step)
        parts = [(part, PART_COLOURS[part], seconds) for part, seconds in spent.items()]
        bars.append(svg.Bar(name, parts, format_time(step.step_s)))
        attending = sum(seconds for part, seconds in spent.items() if part.startswith("attention"))
        shares.append(f"{attending / step.step_s:.0%}")
    finding = f"Attention takes {shares[0]} of a standard step and {shares[1]} of a bifurcated one"
    about = f"Time of a step on {choice.gpu.name} by what it is spent on."
    used = {part for bar in bars for part, _, seconds in bar.parts if seconds}
    keys = svg.area_keys((part, PART_COLOURS[part]) for part in PART_COLOURS if part in used)
    return _drawing("parts", finding, about, svg.bar_chart(bars), keys)


def _cost(decision: Decision) -> Iterator[Drawing]:
    """Draw the cost of a million tokens on every GPU that will do and whose price is known."""
    costs = sorted(
        (each.usd_per_million_tokens(each.best.attention) or 0.0, at, each.best)
        for at, each in enumerate(decision.choices)
        if each.will_do and each.comparable
    )
    if not costs:
        return
    bars = []
    for cost, _, step in costs:
        best = step.attention
        parts = [(best, COLOURS[best], cost)]
        label, value = f"{words.group_name(step)}, {best}", f"{text.money(cost, 3)} USD"
        bars.append(svg.Bar(label, parts, value))
    cost, _, step = costs[0]
    least = f"costs least per token: {text.money(cost, 3)} USD per million"
    finding = f"{words.group_name(step)} {least}"
    about = "Cost of a million output tokens with the faster attention that fits, prefill left out."
    yield _drawing("cost", finding, about, svg.bar_chart(bars))
