"""Answers about one step: an estimate, and standard against bifurcated attention."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from simulator.answers.verdict import OPEN, TIE_MARGIN
from simulator.inputs.model import count_parameters
from simulator.inputs.parallelism import Parallelism
from simulator.inputs.setup import ATTENTIONS, PROCESS, Setup
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Workload
from simulator.timing.roofline import cached_bytes
from simulator.units import format_gib, format_si, format_time, format_tokens
from simulator.views import columns, text
from simulator.views.columns import Column, Line, Row, View

if TYPE_CHECKING:
    from simulator.answers.compare import Comparison
    from simulator.answers.estimate import Estimate, Question
    from simulator.answers.rules import RuleChoice
    from simulator.counts.operation import Operation
    from simulator.numeric import Numeric
    from simulator.timing.roofline import OperationTime

MODEL = (
    Column("model", value="model.name"),
    Column("parameters", value=lambda result: count_parameters(result.model).total),
    Column("active_parameters", value=lambda result: count_parameters(result.model).active),
    *(
        Column(name, value=f"model.{name}")
        for name in ("layers", "hidden_size", "heads", "kv_heads", "head_dim")
    ),
)
GPU = Column("gpu", value="gpu.id")
PARALLELISM = tuple(Column(name, value=f"setup.{name}") for name in Parallelism.fields)
GROUP = Column(heading="group", cell=lambda result: result.setup.words or "1")
# The sizes and the setup of a question, in the order of the columns.
SIZES = tuple(name for name in Workload.fields if name != "tree")
SETTINGS = tuple(name for name in Setup.fields if name not in PROCESS)
WORKLOAD = (
    *(Column(name, value=f"workload.{name}") for name in SIZES),
    Column("sequences", value="workload.sequences"),
    *(Column(name, value=f"setup.{name}") for name in SETTINGS),
    Column("tree", value=lambda result: tree_text(result.workload.tree)),
)
INPUTS = (
    *MODEL,
    GPU,
    *WORKLOAD,
    *(Column(name, value=f"setup.{name}") for name in PROCESS if name != "constants"),
    Column("constants", value="rates.choice"),
)
# The first columns of CSV: the question.
ASKED = (MODEL[0], GPU, *WORKLOAD)
INTERVAL = (Column("step_ms_low", "ms", "step_low_s"), Column("step_ms_high", "ms", "step_high_s"))
STEP = (
    Column("step_ms", "ms", "step_s", "step"),
    *INTERVAL,
    Column("device_ms", "ms", "time.device_s"),
    Column("host_ms", "ms", "time.host_s"),
    Column("collective_ms", "ms", "time.collective_s"),
    Column("tokens_per_s", "1/s", heading="tokens/s"),
    Column("flops", "FLOP", "totals.flops"),
    Column("bytes_read", "bytes", "totals.bytes_read"),
    Column("bytes_written", "bytes", "totals.bytes_written"),
    Column("memory_traffic_bytes", "bytes"),
    Column("memory_traffic_bytes_low", "bytes"),
    Column("kv_bytes_read", "bytes", "totals.kv_bytes_read", "KV read", spare=True),
    Column("weight_bytes_read", "bytes", "totals.weight_bytes_read"),
    Column("launches", "launches", "totals.launches", "launches", spare=True),
    Column("bound", "text", heading="bound by", spare=True),
)
# Never left out: a time without its interval is half an answer.
WITHIN = Column(
    heading="80 % within",
    cell=lambda result: text.within_cell(result.step_low_s, result.step_high_s),
)
MEMORY = (
    *(Column(f"{part}_bytes", "bytes") for part in ("weights", "kv", "workspace", "reserve")),
    Column("memory_bytes", "bytes", "total_bytes", "memory", lambda n: format_gib(n.total_bytes)),
    Column("memory_bytes_low", "bytes", "low_bytes"),
    Column("memory_bytes_high", "bytes", "high_bytes"),
    Column("capacity_bytes", "bytes"),
    Column("fits", "bool", heading="fits", cell=text.fits_phrase, wrap=True),
    Column("memory_verdict", "text", "verdict"),
)


class TimedOperation(NamedTuple):
    """An operation of a step, with the time and the memory traffic of one call."""

    operation: "Operation"
    time: "OperationTime"
    memory_traffic_bytes: "Numeric"


def calls(result: "Estimate") -> list[TimedOperation]:
    """Return the operations of a step that this workload has and the GPU runs."""
    # Parts that this workload does not have (no decoded tokens, a single split) are not shown.
    return [
        TimedOperation(each, time, each.bytes_moved - cached_bytes(each, result.rates))
        for each, time in result.time.calls
        if each.launches and time.device_s
    ]


def _summed(key: str, unit: str, value: str, heading: str) -> Column:
    """Return a column of one call's figure, whose table cell shows all calls together."""

    def cell(call: "TimedOperation") -> str:
        return columns.CELLS[unit](column.raw(call) * call.operation.repeat)

    column = Column(key, unit, value, heading, cell)
    return column


OPERATION = (
    Column("name", "text", "operation.name", "operation"),
    Column("kind", value="operation.kind"),
    Column("repeat", value="operation.repeat", heading="x", spare=True),
    _summed("flops", "FLOP", "operation.flops", "FLOP"),
    _summed("bytes_read", "bytes", "operation.bytes_read", "read"),
    _summed("bytes_written", "bytes", "operation.bytes_written", "written"),
    Column("memory_traffic_bytes", "bytes"),
    columns.spared(_summed("launches", "launches", "operation.launches", "launches")),
    _summed("time_ms", "ms", "time.device_s", "time"),
    Column("bound", "text", "time.bound", "bound by"),
)
HARDWARE = (
    Column("name", value="gpu.id"),
    Column("hash", value="gpu.content_hash"),
    Column("constants", value="rates.origin"),
)
SCHEMA = Column("schema_version", value=lambda _: columns.SCHEMA_VERSION)
HARDWARE_USED = Column("hardware", value=lambda result: result, of=HARDWARE)
NOTES = Column("notes")
ESTIMATE = (
    SCHEMA,
    Column("inputs", value=lambda result: result, of=INPUTS),
    *STEP,
    Column("memory", "bytes", of=MEMORY),
    Column("operations", value=calls, of=OPERATION),
    HARDWARE_USED,
    NOTES,
)
RULE = (
    *columns.named("name", "choice", "reason", "ours", "verdict"),
    Column("agrees", "bool"),
    Column("step_ms", "ms", "step_s"),
    Column("best_step_ms", "ms", "best_step_s"),
    Column("cost_ms", "ms", "cost_s"),
    Column("cost_share"),
)


def _of_both(column: Column) -> Column:
    """Return a column of a comparison that is empty unless both kinds of attention fit."""
    return replace(column, value=lambda result: column.raw(result) if result.both_fit else None)


COMPARE = (
    SCHEMA,
    *columns.named("standard", "copies", "bifurcated"),
    *map(_of_both, (Column("speedup"), *columns.SPEEDUP_ENDS)),
    *columns.named("speedup_over_copies", "kv_io_ratio", "winner", "verdict"),
    *columns.named("break_even_samples", "break_even_context_tokens", "advice", "how"),
)


# Items of comparisons: one way to store and read the context, compared with standard's.
class Compared(NamedTuple):
    """One way to store and read the context."""

    variant: str | tuple[str, ...]
    result: "Estimate"
    standard: "Estimate"

    @property
    def speedup(self) -> float | None:
        """Standard's step time over this one's, None unless both fit."""
        fit = self.standard.memory.fits and self.result.memory.fits
        return self.standard.step_s / self.result.step_s if fit else None


LAYOUTS = {
    "shared": "one stored context",
    "copies": "a context copy each",
    "rebuilt": "rebuilt on every step",
}
OVER_STANDARD = Column(
    "speedup_over_standard", value=lambda item: item.speedup, heading="speed-up", cell="{:.2f}x"
)
VARIANT = (
    Column("variant"),
    *columns.within(
        "result", (*ASKED, *columns.without(STEP, "flops"), *columns.pick(STEP, "flops"))
    ),
    *columns.within("result.memory", MEMORY),
    OVER_STANDARD,
)


def estimate_object(result: "Estimate", *, explain: bool = False) -> Row:
    """Return an estimate as the JSON object of docs/json.md."""
    answer = columns.as_object(ESTIMATE, result)
    return answer | {"explanation": _derivation(result)} if explain else answer


def _derivation(result: "Estimate") -> list[Row]:
    """Return the derivation of each number, as JSON objects."""
    from simulator.views.explain import explain_objects

    return explain_objects(result)


def estimate_rows(result: "Estimate", *, whole: bool = False) -> list[Row]:
    """Return each operation as a row, with the figures of one call; or the whole step as one."""
    if whole:
        step = (*ASKED, *STEP, *columns.within("memory", MEMORY))
        return [columns.as_object(step, result)]
    return [columns.as_object(OPERATION, call) for call in calls(result)]


def list_view(
    sizes: Sequence[Mapping[str, int]],
    results: Sequence[Any],
    wanted: Sequence[Column],
    step: Callable[[Any], "Estimate"],
    *,
    output_tokens: int | None = None,
    more: Sequence[str] = (),
    **named: bool,
) -> View:
    """Return the answers to a question with lists of sizes as one table, a row each.

    Parameters
    ----------
    sizes
        The values from these lists, for each answer.
    results, wanted
        The answers, and the columns to show of each.
    step
        Returns the step that an answer is about.
    output_tokens
        Of a whole request, as in :func:`question`.
    more
        Notes beside those of the steps.
    named
        Whether to name ``attention`` and ``gpu``, as in :func:`question`.
    """
    steps = [step(result) for result in results]
    written = [
        {
            name.replace("_", " "): format_tokens(size)
            if "tokens" in name
            else columns.CELLS["figure"](size)
            for name, size in each.items()
        }
        for each in sizes
    ]
    asked = (
        *columns.within(0, (Column(name, heading=name) for name in written[0])),
        Column(
            heading="sequences", cell=lambda item: f"{item[1].workload.sequences:,}", spare=True
        ),
    )
    common = text.list_phrase(sizes, steps[0].workload, output_tokens)
    return columns.stack(
        question(steps[0], sizes=common, **named),
        "",
        columns.as_table(
            (*asked, *columns.within(2, wanted)), list(zip(written, steps, results, strict=True))
        ),
        *columns.notes([*more, *_notes_of_rows(written, steps)]),
    )


def _notes_of_rows(
    written: Sequence[Mapping[str, str]], steps: "Sequence[Estimate]"
) -> Iterator[str]:
    """Yield the notes, each once, with the sizes that it is of where it is not of all."""
    for note in text.without_shortage(note for each in steps for note in each.notes):
        rows = [row for row, each in zip(written, steps, strict=True) if note in each.notes]
        of = ", ".join(
            f"{name} {' or '.join(said)}"
            for name in written[0]
            if len(said := dict.fromkeys(row[name] for row in rows))
            < len({row[name] for row in written})
        )
        yield f"With {of}: {note}" if of else note


def estimate_list(sizes: Sequence[Mapping[str, int]], results: "Sequence[Estimate]") -> View:
    """Return several estimates as one table."""
    wanted = (
        *columns.pick((*STEP, WITHIN), "step", "80 % within", "tokens/s"),
        *columns.pick(MEMORY, "memory", "fits", part="memory"),
        *columns.pick(STEP, "bound by"),
    )
    return list_view(sizes, results, wanted, lambda result: result)


def compare_list(sizes: Sequence[Mapping[str, int]], results: "Sequence[Comparison]") -> View:
    """Return several comparisons as one table."""

    def which_fit(result: "Comparison") -> str:
        return text.which_fits(result.standard.memory.fits, result.bifurcated.memory.fits)

    wanted = (
        Column("verdict", "text", heading="faster?"),
        _of_both(Column(unit="ratio", heading="speed-up", value="speedup")),
        _of_both(
            Column(
                unit="text",
                heading="80 % within",
                value=lambda result: text.between(result.speedup_low, result.speedup_high),
            )
        ),
        Column("standard", "ms", "standard.step_s", "standard"),
        Column("bifurcated", "ms", "bifurcated.step_s", "bifurcated"),
        Column(unit="text", heading="fits", cell=which_fit),
    )
    return list_view(sizes, results, wanted, lambda result: result.bifurcated, attention=False)


def estimate_view(result: "Estimate", *, explain: bool = False) -> View:
    """Return an estimate as a headline, memory, a table of operations, and notes."""
    totals = result.totals
    moved = float(totals.bytes_read + totals.bytes_written)
    traffic = (
        f"{format_si(moved, 'B')} moved "
        f"({format_si(totals.weight_bytes_read, 'B')} weights, "
        f"{format_si(totals.kv_bytes_read, 'B')} KV; L2 serves "
        f"{format_si(moved - result.memory_traffic_bytes, 'B')}), "
        f"{format_si(totals.flops, 'FLOP')}, {float(totals.launches):,.0f} launches"
    )
    device = float(result.time.device_s + result.time.collective_s)
    share = Column(
        heading="share",
        cell=lambda call: (
            f"{call.operation.repeat * float(call.time.device_s) / device:.1%}" if device else ""
        ),
    )
    names = ("operation", "x", "time", "share", "FLOP", "read", "written", "launches", "bound by")
    parts = [
        question(result),
        columns.line(
            ("Step ", "bold"),
            (format_time(result.step_s), "bold cyan"),
            f" ({text.interval_phrase(result.step_low_s, result.step_high_s)})",
            f"   {result.tokens_per_s:,.0f} tokens/s   bound by {_bound_phrase(result)}",
        ),
        columns.line(traffic),
        _memory_line(result),
        "",
        columns.as_table(columns.pick((*OPERATION, share), *names), calls(result)),
        *columns.notes(result.notes),
    ]
    return columns.stack(*parts, *_explained(result)) if explain else columns.stack(*parts)


def _explained(result: "Estimate") -> list[View]:
    """Return the derivation of each number."""
    from simulator.views.explain import explain_lines

    return explain_lines(result)


def question(
    asked: "Question",
    *,
    attention: bool = True,
    gpu: bool = True,
    output_tokens: int | None = None,
    sizes: str = "",
) -> Line:
    """Return the question as it was understood.

    Parameters
    ----------
    asked
        The question.
    attention, gpu
        Whether to name them; answers that compare several ones do not.
    output_tokens
        Output tokens of a whole request, shown instead of the decoded tokens at one step.
    sizes
        Stands for the sizes, where there are several.
    """
    model, work, setup = asked.model, asked.workload, asked.setup
    group = f"{setup.gpus} x " if setup.gpus > 1 else ""
    where = f" on {group}{asked.gpu.name}" if gpu else ""
    how = f"{setup.attention}, " if attention else ""
    return columns.line(
        (f"{model.name}{where}", "bold"),
        f"   {text.model_phrase(model)}\n",
        f"{sizes or text.samples_phrase(work, output_tokens)}   {how}{text.settings_phrase(setup)}",
    )


def _bound_phrase(result: "Estimate") -> str:
    """Say what bounds the step, and its share of the time."""
    time = result.time
    if result.bound == "launch" and time.host_s > time.device_s:
        return f"launch (the host needs {format_time(time.host_s)} to launch the kernels)"
    share = float(time.by_roof_s[result.bound]) / result.step_s
    return f"{result.bound} ({share:.0%} of the step)"


def _memory_line(result: "Estimate") -> Line:
    """Say what takes memory and whether it fits."""
    needs = result.memory
    styles = {"fits": "green", "too close to call": "bold yellow", "does not fit": "bold red"}
    names = ("weights", "KV", "workspace", "kept by the engine")
    parts = ", ".join(
        f"{name} {format_gib(part)}"
        for name, part in zip(names, text.memory_parts(needs), strict=True)
    )
    return columns.line(
        f"Memory {format_gib(needs.total_bytes)} of {format_gib(needs.capacity_bytes)}: {parts}; ",
        (text.fits_between(needs), styles[needs.verdict]),
    )


def compare_object(result: "Comparison", *, explain: bool = False) -> Row:
    """Return a comparison as a JSON object that nests its estimates."""
    answer = columns.as_object(COMPARE, result)
    answer |= {name: estimate_object(item) for name, item in variants(result).items()}
    if result.rule is not None:
        answer["rule"] = columns.as_object(RULE, result.rule)
    if explain:
        answer["explanation"] = {name: _derivation(getattr(result, name)) for name in ATTENTIONS}
    return answer


def compare_rows(result: "Comparison") -> list[Row]:
    """Return a comparison as one tidy row per way to store and read the context."""
    rule = {}
    if result.rule is not None:
        said = columns.as_object(columns.without(RULE, "reason"), result.rule)
        rule = {f"rule_{key}": value for key, value in said.items()}
    return [
        columns.as_object(VARIANT, Compared(name, item, result.standard)) | rule
        for name, item in variants(result).items()
    ]


def variants(result: "Comparison") -> "dict[str, Estimate]":
    """Return the ways to keep and read the context, by the names that JSON gives them."""
    copies = {} if result.copies is None else {"copies": result.copies}
    return {"standard": result.standard, **copies, "bifurcated": result.bifurcated}


def storage_phrase(result: "Estimate") -> str:
    """Name a way to keep and read the context."""
    setup = result.setup
    return "bifurcated" if setup.bifurcated else f"standard, {LAYOUTS[setup.kv_layout]}"


def compare_view(result: "Comparison", *, explain: bool = False) -> View:
    """Return a comparison as a table of its variants, the verdict, and what to change next."""
    shown = variants(result).values()
    wanted = (
        Column("variant", "text", heading="variant", wrap=True),
        *columns.pick((*STEP, WITHIN), "step", "80 % within", "tokens/s", part="result"),
        OVER_STANDARD,
        *columns.pick(STEP, "KV read", part="result"),
        *columns.pick(MEMORY, "memory", "fits", part="result.memory"),
        *columns.pick(STEP, "bound by", part="result"),
    )
    every = (note for item in shown for note in item.notes)
    parts: list[View] = [
        question(result.standard, attention=False),
        "",
        *verdict(result),
        "",
        columns.as_table(
            wanted, [Compared(storage_phrase(item), item, result.standard) for item in shown]
        ),
        *columns.notes(text.without_shortage(every)),
    ]
    for name in ATTENTIONS if explain else ():
        parts.append(columns.line((f"\n{name.capitalize()} attention", "bold underline")))
        parts += _explained(getattr(result, name))
    return columns.stack(*parts)


def verdict(result: "Comparison") -> list[str]:
    """Say who wins, by how much, the break-even points, and what to change next."""
    first = f"{_lead(result)}{over_stored(result)}."
    return [
        (
            f"{first} It reads {result.kv_io_ratio:.1f} times fewer KV bytes; "
            "that ratio is not the speed-up."
            if result.kv_io_ratio > 1
            else f"{first} Both read the same KV bytes."
        ),
        break_even(result),
        f"[bold]Next:[/] {result.advice}",
        *([f"[bold]How:[/] {result.how}"] if result.how else []),
        *([] if result.rule is None else [f"[bold]Rule:[/] {rule_phrase(result.rule)}"]),
    ]


def _lead(result: "Comparison") -> str:
    """Say whether to bifurcate, and how much faster it is."""
    ratio, low, high = result.speedup, result.speedup_low, result.speedup_high
    both = {"standard": result.standard.memory, "bifurcated": result.bifurcated.memory}
    unfit = [name for name, needs in both.items() if not needs.fits]
    if unfit:
        short = f"{unfit[-1]} is {text.shortage(both[unfit[-1]])} short of memory"
        if len(unfit) > 1:
            return f"[bold]Neither fits[/]: {short}"
        sure = "" if result.verdict not in OPEN else f", {result.verdict}"
        return f"[bold]Only {result.winner} fits[/]{sure}: {short}"
    if result.winner == "tie" and result.verdict not in OPEN:
        likely = f"(speed-up {text.between(low, high)})"
        return f"[bold]No difference to act on[/]: bifurcated is {ratio:.2f} times as fast {likely}"
    said = f"{text.times_as(ratio)} end to end{text.likely(ratio, low, high)}"
    if result.verdict in OPEN:
        lead, why = f"[bold]{result.verdict.capitalize()}[/]", result.bifurcated.unknown
        lead += f", as {why}" if why and result.verdict == "not known" else ""
        return f"{lead}: bifurcated is {said}"
    if result.winner == "standard":
        return f"[bold]Standard wins[/]: bifurcated is {said}"
    little = "is faster" if result.stored_is_enough else "wins"
    lead = "would be faster, but no engine's kernel runs it here" if result.barred else little
    return f"[bold]Bifurcated {lead}[/]: {said}"


def over_stored(result: "Comparison") -> str:
    """Say the speed-up over one stored context; empty if it does not fit, or it is the same."""
    if result.stored is result.standard or not result.stored.memory.fits:
        return ""
    ratio = result.stored.step_s / result.bifurcated.step_s
    if result.standard.memory.fits and abs(result.speedup / ratio - 1) < TIE_MARGIN:
        return ""
    times = "no faster" if abs(ratio - 1) < TIE_MARGIN else text.times_as(ratio)
    return f"; over one stored context, as paged caches keep it, bifurcated is {times}"


# What verdicts that are open say of a rule's cost.
_DOUBTS = {
    "too close to call": ", which is too close to call",
    "not known": ", how surely is not known",
}


def rule_phrase(rule: "RuleChoice") -> str:
    """Say what an engine's rule chooses over one stored context, and the time it loses."""
    ours = "would call it a tie" if rule.ours == "tie" else f"choose {rule.ours}"
    lost = "its choice loses nothing"
    if rule.cost_s > 0:
        lost = f"its choice costs {format_time(rule.cost_s)} per step ({rule.cost_share:.1%})"
        lost += _DOUBTS.get(rule.verdict, "")
    return (
        f"{rule.title} chooses {rule.choice} ({rule.reason}); "
        f"over one stored context we {ours}: {lost}."
    )


def break_even(result: "Comparison") -> str:
    """Say at and above which samples and context bifurcated attention is always faster."""
    if result.nothing_shared:
        return "There is no context to share: any difference is that of the kernels' launches."
    work, wins = result.standard.workload, result.speedup > 1
    samples, context = result.break_even_samples, result.break_even_context_tokens
    at_samples = f"at {text.plural(work.samples, 'sample')}"
    at_context = f"{format_tokens(work.context_tokens)}-token context"
    if samples is None and context is None:
        if wins:
            more = f"with more samples of this {at_context}, nor with a longer one {at_samples}"
            return f"Bifurcated does not stay faster {more}."
        for_good = "do not make bifurcated faster for good, nor does a longer one"
        return f"More samples of this {at_context} {for_good} {at_samples}."
    found, rest = [], ""
    if samples is not None:
        found.append(f"with {samples:,} or more samples at this context")
    else:
        alone = "more samples alone do not make it faster for good"
        rest = f"; {'with more samples it does not stay faster' if wins else alone}"
    if context is not None:
        found.append(f"with {context:,} or more context tokens {at_samples}")
    else:
        stays = "it does not stay faster with a longer context"
        alone = "a longer context does not make it faster for good"
        rest = f"; {at_samples} {stays if wins else alone}"
    copies = " than context copies" if result.standard.setup.copies else ""
    verb = "would be" if result.barred else "is"
    return f"Bifurcated {verb} faster{copies} {', and '.join(found)}{rest}."
