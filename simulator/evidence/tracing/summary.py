"""Summarise a trace of a function that the user names: its operators and their time."""

import copy
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from simulator.errors import SimulatorError, TraceError, unknown
from simulator.evidence.kernels import EXTERNAL_KERNELS, KERNELS, Layout
from simulator.evidence.kernels.layout import attention_inputs
from simulator.evidence.tracing.recorder import Trace, TracedOperation, Work, grouped, total, trace
from simulator.evidence.tracing.timing import operations_of
from simulator.inputs.setup import Execution, Setup
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
class TraceRequest:
    """What to trace.

    Attributes
    ----------
    target
        ``module:function``, ``file.py:function`` or a kernel's name.
    sizes
        Sizes of a kernel's five tensors, by name; only reported if ``tensors`` are given.
    tensors
        Sizes and type of each argument, instead of those five tensors.
    dtype
        Type of the five tensors, a key of ``TORCH_DTYPES``.
    layout
        Layout of the caches; None for the kernel's own.
    """

    target: str
    sizes: Mapping[str, int]
    tensors: tuple[tuple[tuple[int, ...], str], ...] = ()
    dtype: str = "bf16"
    layout: Layout | None = None

    @property
    def stored(self) -> Layout:
        """The layout of the caches; functions that are no kernel of ours get the shared one."""
        own: Layout = KERNELS[self.target].layout if self.target in KERNELS else "shared"
        return self.layout or own


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """A trace with its time.

    Attributes
    ----------
    lines
        Equal operators together, with the sums of their FLOPs, bytes, launches and time.
    """

    request: TraceRequest
    traced: Trace
    time: StepTime
    within: Uncertainty
    execution: Execution
    gpu: Rates
    lines: Sequence[dict[str, Any]]
    notes: Sequence[str]

    @property
    def as_object(self) -> dict[str, Any]:
        """The summary as a JSON object."""
        request = self.request
        tensors = [{"sizes": list(sizes), "dtype": dtype} for sizes, dtype in request.tensors]
        one_type = {} if tensors else {"dtype": request.dtype}
        return {
            "schema_version": 1,
            "inputs": {
                "function": request.target,
                **({"tensors": tensors} if tensors else request.sizes),
                **one_type,
                "layout": None if tensors else request.stored,
                "execution": self.execution,
            },
            "time_ms": float(self.time.total_s) * MILLISECONDS,
            "time_ms_low": float(self.within.low_s) * MILLISECONDS,
            "time_ms_high": float(self.within.high_s) * MILLISECONDS,
            "device_ms": float(self.time.device_s) * MILLISECONDS,
            "host_ms": float(self.time.host_s) * MILLISECONDS,
            "bound": self.time.bound,
            **{field.name: getattr(self.traced, field.name) for field in fields(Work)},
            "views": self.traced.views,
            "operations": self.lines,
            "hardware": {
                "name": self.gpu.gpu.id,
                "hash": self.gpu.gpu.content_hash,
                "constants": self.gpu.origin,
            },
            "notes": list(self.notes),
        }


def summarise(
    request: TraceRequest, gpu: Rates, execution: Execution, *, about: Sequence[str] = ()
) -> TraceSummary:
    """Trace a function and predict its time.

    Parameters
    ----------
    request
        The function, and the tensors to call it with.
    gpu, execution
        Rates of the GPU, and how the operators are launched.
    about
        Notes on the GPU and its constants, which precede those on the trace.

    Raises
    ------
    TraceError
        If there is no such function, it fails or does something that cannot be traced, or its
        tensors are larger than PyTorch can count.
    """
    function = find_function(request.target)
    try:
        inputs = _inputs(request)
    except RuntimeError as problem:
        raise TraceError(f"tensors of these sizes cannot be made: {problem}") from problem
    with explained(request.target):
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
    return TraceSummary(
        request=request,
        traced=traced,
        time=time,
        within=uncertainty(time, gpu, _setup(request, execution)),
        execution=execution,
        gpu=gpu,
        lines=_lines(traced.operations, gpu, execution, resident),
        notes=notes,
    )


def _inputs(request: TraceRequest) -> Sequence[Tensor]:
    """Make the function's arguments, which take no memory."""
    if request.tensors:
        return [
            torch.empty(sizes, dtype=getattr(torch, TORCH_DTYPES[dtype]), device="meta")
            for sizes, dtype in request.tensors
        ]
    z = dict(request.sizes)
    if z["heads"] % z["kv_heads"]:
        raise TraceError(f"heads = {z['heads']} is not a multiple of kv_heads = {z['kv_heads']}")
    return attention_inputs(
        SimpleNamespace(query_tokens=1, **z),
        request.stored,
        getattr(torch, TORCH_DTYPES[request.dtype]),
        lambda sizes, dtype: torch.empty(sizes, dtype=dtype, device="meta"),
    )


def _setup(request: TraceRequest, execution: Execution) -> Setup:
    """Return the setup of the function: plain PyTorch code, one kernel per operator."""
    known = KERNELS.get(request.target)
    return Setup(
        attention=known.attention if known else "standard",
        kernel="einsum",
        kv_layout="rebuilt" if request.stored == "rebuilt" and not request.tensors else "shared",
        execution=execution,
    )


def _lines(
    traced: Sequence[TracedOperation], gpu: Rates, execution: Execution, resident: int
) -> list[dict[str, Any]]:
    """Merge equal operators, in order of first appearance."""
    groups = grouped(traced, lambda each: (each.name, each.called_by, each.module, each.shapes))
    lines = []
    for (name, called_by, module, shapes), equal in groups.items():
        time = step_time(operations_of(equal, resident_blocks=resident), gpu, execution)
        lines.append(
            {
                "operator": name,
                "called_by": called_by,
                "module": module,
                "calls": len(equal),
                **asdict(total(equal)),
                "time_ms": float(time.device_s) * MILLISECONDS,
                "bound": max(time.by_roof_s.items(), key=lambda roof: float(roof[1]))[0],
                "shapes": shapes,
            }
        )
    return lines


def find_function(target: str) -> Callable[..., Any]:
    """Return a function by ``module:function``, ``path/file.py:function`` or a kernel's name.

    A copy of a ``torch.nn.Module`` object is moved to the meta device.

    Raises
    ------
    TraceError
        If there is no such module, file, function or kernel, or the code fails when it is loaded.
    """
    if ":" not in target:
        if target in EXTERNAL_KERNELS:
            raise TraceError(
                f"{target} runs another library's code, of which a trace sees nothing; "
                f"'bifurcate measure --kernel {target}' times it"
            )
        if target not in KERNELS:
            way_out = "or give MODULE:FUNCTION or FILE.py:FUNCTION"
            raise TraceError(unknown("kernel", target, KERNELS, way_out=way_out))
        return KERNELS[target].function
    where, _, name = target.rpartition(":")
    if not (where and name):
        raise TraceError(f"{target!r} is not MODULE:FUNCTION or FILE.py:FUNCTION")
    module = _load(where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise TraceError(unknown(f"function of {where}", name, known or ["none"]))
        found = getattr(found, part)
    if isinstance(found, type):
        raise TraceError(f"{target} is a class; name a function, or an object that can be called")
    if not callable(found):
        raise TraceError(f"{target} is not a function: {type(found).__name__}")
    if isinstance(found, torch.nn.Module):
        return copy.deepcopy(found).to("meta")
    function: Callable[..., Any] = found
    return function


def _load(where: str) -> ModuleType:
    """Import a module by its name, also from the working directory, or a file by its path."""
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise TraceError(f"there is no file {where}")
    folder = str(path.resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        with explained(where):
            if not is_file:
                return importlib.import_module(where)
            spec = spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise TraceError(f"{where} is not a Python file")
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Describe an error of the user's code in one line, with its line number."""
    try:
        yield
    except TraceError as problem:
        raise TraceError(f"{where}: {problem}{_place(problem)}") from problem
    except SimulatorError:
        raise
    except (Exception, SystemExit) as problem:
        kind = type(problem).__name__
        raise TraceError(f"{where}: {kind}: {problem}{_place(problem)}") from problem


def _place(problem: BaseException) -> str:
    """Return the innermost line of code that is neither ours nor PyTorch's."""
    ours = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent), "<frozen")
    # A reworded PyTorch error was raised outside the function: its cause has the function's line.
    frames = traceback.extract_tb((problem.__cause__ or problem).__traceback__)
    others = [frame for frame in frames if not frame.filename.startswith((*ours, sys.base_prefix))]
    if not others:
        return ""
    return f" ({Path(others[-1].filename).name}, line {others[-1].lineno})"
