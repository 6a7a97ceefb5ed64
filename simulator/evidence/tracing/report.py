"""Trace a function that the user names, and time what it does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from simulator.errors import TraceError
from simulator.evidence.kernels import KERNELS, Layout, lay_out
from simulator.evidence.tracing.record import Trace, TracedOperation
from simulator.evidence.tracing.run import trace
from simulator.evidence.tracing.target import explained, find_function
from simulator.evidence.tracing.timing import operations_of
from simulator.inputs.dtypes import Dtype
from simulator.inputs.workload import Attention, Execution, Kernel, KvLayout
from simulator.timing.constants import Rates
from simulator.timing.interval import Uncertainty, uncertainty
from simulator.timing.limits import BLOCKS_PER_SM
from simulator.timing.step import StepTime, step_time

MILLISECONDS = 1e3
TORCH_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "int64": "int64",
    "int32": "int32",
    "bool": "bool",
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to trace.

    Attributes
    ----------
    target
        ``module:function``, ``file.py:function`` or a kernel's name.
    sizes
        Sizes of the five tensors of a kernel, by name; echoed where ``tensors`` are given.
    tensors
        Sizes and type of each tensor to call it with, in place of those five.
    dtype
        Type of the five, a key of ``TORCH_DTYPES``.
    layout
        How the caches lie; None is as the kernel wants them.
    """

    target: str
    sizes: Mapping[str, int]
    tensors: tuple[tuple[tuple[int, ...], str], ...] = ()
    dtype: str = "bf16"
    layout: Layout | None = None


@dataclass(frozen=True, kw_only=True)
class PlainCode:
    """How a traced function is run: as PyTorch code, each of its operators a kernel."""

    attention: Attention
    kv_layout: KvLayout
    execution: Execution
    kernel: Kernel = "einsum"
    weight_dtype: Dtype = "bf16"
    kv_dtype: Dtype = "bf16"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Equal operators together; FLOPs, bytes, launches and time are of all of them."""

    operator: str
    called_by: str
    module: str
    calls: int
    flops: int
    bytes_read: int
    bytes_written: int
    launches: int
    time_ms: float
    bound: str
    shapes: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """A trace with its time."""

    question: Question
    traced: Trace
    time: StepTime
    within: Uncertainty
    execution: Execution
    gpu: Rates
    lines: Sequence[Line]
    notes: Sequence[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The operators as rows of a table."""
        return [asdict(line) for line in self.lines]

    @property
    def as_object(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        totals = self.traced.totals
        question = self.question
        tensors = [{"sizes": list(sizes), "dtype": dtype} for sizes, dtype in question.tensors]
        one_type = {} if tensors else {"dtype": question.dtype}
        return {
            "schema_version": 1,
            "inputs": {
                "function": question.target,
                **({"tensors": tensors} if tensors else question.sizes),
                **one_type,
                "layout": None if tensors else question.layout or _own_layout(question.target),
                "execution": self.execution,
            },
            "time_ms": float(self.time.total_s) * MILLISECONDS,
            "time_ms_low": float(self.within.low_s) * MILLISECONDS,
            "time_ms_high": float(self.within.high_s) * MILLISECONDS,
            "device_ms": float(self.time.device_s) * MILLISECONDS,
            "host_ms": float(self.time.host_s) * MILLISECONDS,
            "bound": self.time.bound,
            "flops": totals.flops,
            "bytes_read": totals.bytes_read,
            "bytes_written": totals.bytes_written,
            "launches": totals.launches,
            "views": self.traced.views,
            "operations": self.rows,
            "hardware": {
                "name": self.gpu.gpu.id,
                "hash": self.gpu.gpu.content_hash,
                "constants": self.gpu.origin,
            },
            "notes": list(self.notes),
        }


def report(
    question: Question, gpu: Rates, execution: Execution, *, about: Sequence[str] = ()
) -> Report:
    """Trace a function and predict its time.

    Parameters
    ----------
    about
        Notes on the GPU and its constants, to go before those on the trace.

    Raises
    ------
    TraceError
        If there is no such function, it fails, or it does something that has no trace; or if its
        tensors are larger than PyTorch can count.
    """
    function = find_function(question.target)
    try:
        inputs = _inputs(question)
    except RuntimeError as problem:
        raise TraceError(f"tensors of these sizes cannot be made: {problem}") from problem
    with explained(question.target):
        traced = trace(function, *inputs)
    resident = BLOCKS_PER_SM * gpu.gpu.sm_count
    operations = operations_of(traced.operations, resident_blocks=resident)
    hidden = sum(int(operation.launches) for operation in operations if operation.within)
    notes = list(about)
    if hidden:
        combines = "kernel that adds" if hidden == 1 else "kernels that add"
        notes.append(
            f"The time has {hidden} {combines} up split keys, launched inside fused attention and "
            "not visible to a trace."
        )
    if any(each.dtype == "float64" for each in traced.operations):
        notes.append("float64 products are timed as float32: no profile has their rate.")
    time = step_time(operations, gpu, execution)
    return Report(
        question=question,
        traced=traced,
        time=time,
        within=uncertainty(operations, time, gpu, _how(question, execution)),
        execution=execution,
        gpu=gpu,
        lines=_lines(traced.operations, gpu, execution, resident),
        notes=notes,
    )


def _inputs(question: Question) -> Sequence[Tensor]:
    """Make the tensors to call the function with, without memory."""
    if question.tensors:
        return [
            torch.empty(sizes, dtype=getattr(torch, TORCH_DTYPES[dtype]), device="meta")
            for sizes, dtype in question.tensors
        ]
    z = dict(question.sizes)
    if z["heads"] % z["kv_heads"]:
        raise TraceError(f"heads = {z['heads']} is not a multiple of kv_heads = {z['kv_heads']}")
    context = (z["prompts"], z["kv_heads"], z["context_tokens"], z["head_dim"])
    own = (z["prompts"], z["samples"], z["kv_heads"], z["decoded_tokens"], z["head_dim"])
    query = (z["prompts"], z["samples"], z["heads"], z["head_dim"])
    dtype = getattr(torch, TORCH_DTYPES[question.dtype])
    made = [
        torch.empty(sizes, dtype=dtype, device="meta")
        for sizes in (query, context, context, own, own)
    ]
    return lay_out(question.layout or _own_layout(question.target), *made)


def _how(question: Question, execution: Execution) -> PlainCode:
    """Return what decides the interval of a trace's time, beside its operators."""
    target = question.target
    layout = question.layout or _own_layout(target)
    return PlainCode(
        attention=KERNELS[target].attention if target in KERNELS else "standard",
        kv_layout="rebuilt" if layout == "rebuilt" and not question.tensors else "shared",
        execution=execution,
    )


def _own_layout(target: str) -> Layout:
    """Return how a kernel wants its caches; a function gets what kernels are given."""
    return KERNELS[target].kv_layout if target in KERNELS else "shared"


def _lines(
    traced: Sequence[TracedOperation], gpu: Rates, execution: Execution, resident: int
) -> list[Line]:
    """Put equal operators together, in order of first appearance."""
    groups: dict[tuple[str, ...], list[TracedOperation]] = {}
    for each in traced:
        groups.setdefault((each.name, each.called_by, each.module, each.shapes), []).append(each)
    lines = []
    for (name, called_by, module, shapes), equal in groups.items():
        time = step_time(operations_of(equal, resident_blocks=resident), gpu, execution)
        lines.append(
            Line(
                operator=name,
                called_by=called_by,
                module=module,
                calls=len(equal),
                flops=sum(each.flops for each in equal),
                bytes_read=sum(each.bytes_read for each in equal),
                bytes_written=sum(each.bytes_written for each in equal),
                launches=sum(each.launches for each in equal),
                time_ms=float(time.device_s) * MILLISECONDS,
                bound=max(time.by_roof_s, key=lambda roof: float(time.by_roof_s[roof])),
                shapes=shapes,
            )
        )
    return lines
