"""Tables and sentences for a terminal, made with rich."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from simulator.answers.compare import Comparison
from simulator.answers.estimate import Estimate
from simulator.answers.generate import Generation
from simulator.inputs.workload import Workload
from simulator.units import (
    format_gib,
    format_si,
    format_time,
)
from simulator.views.cells import fits_phrase, money, shortage, without_shortage
from simulator.views.explain import Step
from simulator.views.table import Column, FittedTable, notes
from simulator.views.text import (
    copies_notes,
    interval_phrase,
    model_phrase,
    samples_phrase,
    settings_phrase,
    times_as,
    verdict,
)

OPERATION_COLUMNS = (
    Column(name="operation", right=False),
    Column(name="x", spare=True),
    *(Column(name=name) for name in ("time", "share", "FLOP")),
    *(Column(name=name) for name in ("read", "written", "launches")),
    Column(name="bound by", right=False),
)


def estimate_view(result: Estimate) -> RenderableType:
    """Return an estimate as a headline, a table of operations, memory and notes."""
    totals = result.totals
    kv, weights = float(totals.kv_bytes_read), float(totals.weight_bytes_read)
    moved = float(totals.bytes_read + totals.bytes_written)
    headline = Text.assemble(
        ("Step ", "bold"),
        (format_time(result.step_s), "bold cyan"),
        f" ({interval_phrase(result.step_low_s, result.step_high_s)})",
        f"   {result.tokens_per_s:,.0f} tokens/s   bound by {bound_phrase(result)}",
    )
    traffic = Text(
        f"{format_si(moved, 'B')} moved ({format_si(weights, 'B')} weights, "
        f"{format_si(kv, 'B')} KV), {format_si(float(totals.flops), 'FLOP')}, "
        f"{float(totals.launches):,.0f} launches"
    )
    return Group(
        question(result),
        headline,
        traffic,
        memory_line(result),
        Text(),
        operations_table(result),
        *notes(result.notes),
    )


def compare_view(result: Comparison) -> RenderableType:
    """Return a comparison as a table of its variants, the verdict, and what to change next."""
    columns = (
        Column(name="variant", right=False, wrap=True),
        Column(name="step"),
        Column(name="80 % within", spare=True),
        *(Column(name=name) for name in ("tokens/s", "speed-up", "KV read", "memory")),
        Column(name="fits", right=False, wrap=True),
        Column(name="bound by", right=False),
    )
    variants = [
        (f"standard, {_layout(result.standard)}", result.standard),
        ("standard, one stored context", result.shared_storage),
        ("bifurcated", result.bifurcated),
    ]
    if result.standard.workload.kv_layout == "shared":
        del variants[1]  # it would repeat the first row
    rows = [
        (
            name,
            format_time(item.step_s),
            interval_phrase(item.step_low_s, item.step_high_s),
            f"{item.tokens_per_s:,.0f}",
            f"{result.standard.step_s / item.step_s:.2f}x",
            format_si(float(item.totals.kv_bytes_read), "B"),
            format_gib(float(item.memory.total_bytes)),
            fits_phrase(item.memory),
            item.bound,
        )
        for name, item in variants
    ]
    return Group(
        question(result.standard, attention=False),
        Text(),
        FittedTable(columns=columns, rows=rows),
        Text(),
        *(Text.from_markup(line) for line in verdict(result)),
        *notes(compare_notes(result)),
    )


def generations_view(results: Mapping[str, Generation]) -> RenderableType:
    """Return whole requests as a table."""
    first = next(iter(results.values()))
    times = ("prefill", "decode", "total", "80 % within", "first step", "last step", "tokens/s")
    columns = (
        Column(name="attention", right=False),
        *(Column(name=name, spare=name.endswith(("step", "within"))) for name in times),
        Column(name="USD per million"),
        Column(name="fits to the end", right=False, wrap=True),
    )
    rows = [
        (
            attention,
            format_time(float(item.time.prefill.total_s)),
            format_time(item.time.decode_s),
            format_time(item.total_s),
            interval_phrase(item.total_low_s, item.total_high_s),
            format_time(item.time.first_step_s),
            format_time(item.time.last_step_s),
            f"{item.tokens_per_s:,.0f}",
            money(item.usd_per_million_tokens, 3),
            fits_phrase(item.memory),
        )
        for attention, item in results.items()
    ]
    lines: list[Text] = []
    if len(results) > 1:
        ratio = results["standard"].total_s / results["bifurcated"].total_s
        lines.append(Text(f"Over the whole request bifurcated is {times_as(ratio)}."))
    return Group(
        question(first.last_step, attention=False, output_tokens=first.output_tokens),
        Text(),
        FittedTable(columns=columns, rows=rows),
        Text(),
        *lines,
        *notes(
            [
                *without_shortage(first.notes),
                *copies_notes(first.last_step.workload),
            ]
        ),
    )


def explain_view(steps: Sequence[Step]) -> RenderableType:
    """Return formulas with the numbers in them."""
    parts: list[RenderableType] = [Text(), Text("How each number comes about", style="bold")]
    for step in steps:
        parts.append(Text(f"\n{step.what}", style="bold"))
        lines = [step.formula, f"= {step.numbers}", f"= {step.result}", f"[{step.reference}]"]
        parts += [Padding(Text(line), (0, 0, 0, 2)) for line in lines if line]
    return Group(*parts)


def question(
    result: Estimate,
    *,
    attention: bool = True,
    gpu: bool = True,
    output_tokens: int | None = None,
) -> Text:
    """Return the question as it was understood."""
    model, work = result.model, result.workload
    where = f" on {_group(work)}{result.gpu.name}" if gpu else ""
    how = f"{work.attention}, " if attention else ""
    return Text.assemble(
        (f"{model.name}{where}", "bold"),
        f"   {model_phrase(model)}\n",
        f"{samples_phrase(work, output_tokens)}   {how}{settings_phrase(work)}",
    )


def _group(work: Workload) -> str:
    """Return the number of GPUs as a prefix, nothing for one."""
    return f"{work.tensor_parallel} x " if work.tensor_parallel > 1 else ""


def bound_phrase(result: Estimate) -> str:
    """Say what binds the step, and how much of it."""
    time = result.time
    if result.bound == "launch" and time.host_s > time.device_s:
        return f"launch (the host needs {format_time(float(time.host_s))} to launch the kernels)"
    share = float(time.by_roof_s[result.bound]) / result.step_s
    return f"{result.bound} ({share:.0%} of the step)"


def memory_line(result: Estimate) -> Text:
    """Say what lies in memory and whether it fits."""
    needs = result.memory
    free = float(needs.free_bytes)
    state = (
        (f"fits, {format_gib(free)} free", "green")
        if needs.fits
        else (f"does not fit, {shortage(result.memory)} short", "bold red")
    )
    return Text.assemble(
        f"Memory {format_gib(float(needs.total_bytes))} of {format_gib(needs.capacity_bytes)}: "
        f"weights {format_gib(float(needs.weights_bytes))}, KV "
        f"{format_gib(float(needs.kv_bytes))}, workspace "
        f"{format_gib(float(needs.workspace_bytes))}; ",
        state,
    )


def operations_table(result: Estimate) -> FittedTable:
    """Return a table of the operations, all layers together."""
    device = float(result.time.device_s + result.time.collective_s)
    rows = []
    for operation, time in zip(result.operations, result.time.operations, strict=True):
        if not operation.launches:
            continue
        seconds = operation.repeat * float(time.device_s)
        rows.append(
            (
                operation.name,
                str(operation.repeat),
                format_time(seconds),
                f"{seconds / device:.1%}" if device else "",
                format_si(float(operation.flops) * operation.repeat, "").strip(),
                format_si(float(operation.bytes_read) * operation.repeat, "B"),
                format_si(float(operation.bytes_written) * operation.repeat, "B"),
                f"{float(operation.launches) * operation.repeat:,.0f}",
                time.bound,
            )
        )
    return FittedTable(columns=OPERATION_COLUMNS, rows=rows)


def compare_notes(result: Comparison) -> list[str]:
    """Return the notes of all three estimates, each once; what fits is in the table."""
    every = (*result.standard.notes, *result.shared_storage.notes, *result.bifurcated.notes)
    return without_shortage(every)


def _layout(result: Estimate) -> str:
    """Name the storage of the standard baseline."""
    return {"copies": "a context copy each", "shared": "one stored context", "rebuilt": "rebuilt"}[
        result.workload.kv_layout
    ]
