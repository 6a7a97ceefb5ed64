"""trace: count what a PyTorch function does, operation by operation, without a GPU."""

import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli import options as opt
from simulator.cli.output import Output
from simulator.errors import TraceError, unknown
from simulator.inputs.workload import LARGEST_COUNT

if TYPE_CHECKING:
    from simulator.evidence.tracing.summary import TraceSummary

LAUNCHINGS = ("eager", "graph")
LAYOUTS = ("shared", "copies", "packed", "rebuilt")
# The sizes of a kernel's five tensors.
SHAPE = {
    "prompts": 1,
    "samples": 16,
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "context_tokens": 8192,
    "decoded_tokens": 64,
}
TYPES = ("bf16", "fp16", "fp32", "fp64", "int64", "int32", "bool")


@opt.with_output(
    opt.argument(
        "target",
        {"metavar": "FUNCTION", "autocompletion": opt.names_of("evidence.kernels", "KERNELS")},
        kind=str,
        default=...,
    ),
    opt.of_work("shape", {"metavar": "NAME=SIZE"}, kind=list[str] | None),
    opt.of_work("inputs", {"metavar": "SIZES[:DTYPE]"}, kind=list[str] | None),
    opt.of_work(
        "dtype", opt.one_of(TYPES), "Type of its tensors.", default="bf16", spelt="--dtype"
    ),
    opt.of_work("layout", opt.one_of(LAYOUTS)),
    opt.ONE_GPU,
    opt.of_work("execution", opt.one_of(LAUNCHINGS), "execution of trace", default="eager"),
    opt.CONSTANTS,
)
def _trace(output: Output, **given: Any) -> None:
    """Trace a PyTorch function: FLOPs, bytes, launches, and time.

    Warning: this runs the Python code that is named, so name only code that you trust.

    Nothing is computed: a trace needs no GPU and no memory, at any size. The function is called
    with the five tensors of an attention kernel: query [prompts, samples, heads, head_dim],
    keys and values of the context [prompts, kv_heads, context_tokens, head_dim], and of the
    decoded tokens [prompts, samples, kv_heads, decoded_tokens, head_dim].
    """
    if find_spec("torch") is None:
        raise TraceError(
            "tracing needs PyTorch: pip install 'bifurcated-attention-simulator[torch]'"
        )
    from simulator.answers.estimate import constants_note
    from simulator.evidence.tracing.summary import TraceRequest, summarise
    from simulator.inputs.hardware import load_hardware
    from simulator.timing.constants import rates

    asked, any_name = SimpleNamespace(**given), bool(given["inputs"])
    named = [_named_size(text, any_name=any_name) for text in asked.shape or ()]
    sizes = {**SHAPE, **dict(named)}
    request = TraceRequest(
        target=asked.target,
        sizes=sizes,
        tensors=tuple(_tensor(text, sizes, asked.dtype) for text in asked.inputs or ()),
        dtype=asked.dtype,
        layout=asked.layout,
    )
    gpu_rates = rates(load_hardware(asked.gpu), asked.constants)
    # The function's own output is not part of the answer.
    with redirect_stdout(sys.stderr):
        result = summarise(request, gpu_rates, asked.execution, about=[constants_note(gpu_rates)])
    output.write(result, _view, lambda result: result.as_object, lambda result: result.lines)


def _named_size(text: str, *, any_name: bool) -> tuple[str, int]:
    """Read ``samples=16``; with --input, any name is allowed."""
    name, equals, size = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"--shape {text!r} is not NAME=SIZE, for example samples=16")
    if name not in SHAPE and not any_name:
        raise typer.BadParameter(f"--shape {text!r}: {unknown('size', name, SHAPE)}")
    value = opt.count(size)
    if value < 1 and name not in ("context_tokens", "decoded_tokens"):
        raise typer.BadParameter(f"--shape {text!r}: {name} must be at least 1")
    if value > LARGEST_COUNT:
        raise typer.BadParameter(f"--shape {text!r}: {name} is more than {LARGEST_COUNT:.0e}")
    return name, value


def _tensor(text: str, sizes: dict[str, int], dtype: str) -> tuple[tuple[int, ...], str]:
    """Read ``samples,heads,128:fp32`` as sizes and a type."""
    listed, colon, of = text.partition(":")
    of = of.strip() if colon else dtype
    if of not in TYPES:
        raise typer.BadParameter(f"--input {text!r}: {unknown('type', of, TYPES)}")
    return tuple(_size(word.strip(), sizes, text) for word in listed.split(",")), of


def _size(word: str, sizes: dict[str, int], text: str) -> int:
    """Read a size of --input: a number, or a name that --shape knows."""
    name = word.replace("-", "_")
    if name in sizes:
        return sizes[name]
    if word[:1].isdigit():
        return opt.count(word)
    raise typer.BadParameter(f"--input {text!r}: {unknown('size', word, sizes)}")


def _view(result: "TraceSummary") -> Any:
    """Show a trace as a headline, a table of operators, totals and notes."""
    from simulator.units import format_si, format_time
    from simulator.views import columns, text
    from simulator.views.columns import Column

    totals, time = result.traced, result.time
    device_s = float(time.device_s)
    shown = (
        Column(
            unit="text",
            heading="operator",
            cell=lambda line: f"{line['operator']} ({line['called_by']})".removesuffix(" ()"),
        ),
        Column("calls", heading="x", spare=True),
        Column(heading="time", cell=lambda line: format_time(line["time_ms"] / 1e3)),
        Column(heading="share", cell=lambda line: f"{line['time_ms'] / 1e3 / device_s:.1%}"),
        Column("flops", "FLOP", heading="FLOP"),
        Column("bytes_read", "bytes", heading="read"),
        Column("bytes_written", "bytes", heading="written"),
        Column("bound", "text", heading="bound by", spare=True),
        Column(
            unit="text",
            heading="tensors",
            cell=lambda line: _short(line["shapes"]),
            wrap=True,
            spare=True,
        ),
    )
    bound = f"bound by {time.bound}"
    if float(time.host_s) > device_s:
        bound = f"bound by launch (the host needs {format_time(time.host_s)} for it)"
    within = text.interval_phrase(float(result.within.low_s), float(result.within.high_s))
    return columns.stack(
        columns.line(
            (f"{result.request.target} on {result.gpu.gpu.name}", "bold"), f"\n{_asked(result)}"
        ),
        columns.line(
            ("Time ", "bold"), (format_time(time.total_s), "bold cyan"), f" ({within})   {bound}"
        ),
        columns.line(
            f"{format_si(totals.bytes_read, 'B')} read, {format_si(totals.bytes_written, 'B')} "
            f"written, {format_si(totals.flops, 'FLOP')}, "
            f"{totals.launches:,} launch{'' if totals.launches == 1 else 'es'}, "
            f"{text.plural(totals.views, 'view')}"
        ),
        "",
        columns.as_table(shown, result.lines),
        *columns.notes(list(result.notes)),
    )


def _asked(result: "TraceSummary") -> str:
    """Return the traced sizes as a phrase."""
    request = result.request
    if request.tensors:
        said = ", ".join(f"{list(sizes)} {dtype}" for sizes, dtype in request.tensors)
    else:
        said = ", ".join(f"{name} {request.sizes[name]:,}" for name in SHAPE)
        said += f"   {request.dtype}"
    return f"{said}, {result.execution}"


def _short(tensors: str) -> str:
    """Return a type's name as the options spell it."""
    from simulator.evidence.tracing.summary import TORCH_DTYPES

    for word, name in TORCH_DTYPES.items():
        tensors = tensors.replace(name, word)
    return tensors
