"""Record a trace: run a function on the meta device and record every operator it reaches.

It uses PyTorch's dispatcher instead of imitating it: PyTorch's C++ code runs a composite function,
such as ``einsum``, ``reshape``, ``masked_fill`` or the math path of attention, down to the
operators that have their own kernel on a device. So hidden copies appear too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention as flex_operator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from simulator.errors import SimulatorError, TraceError
from simulator.evidence.kernels.layout import storage_of
from simulator.evidence.tracing import costs
from simulator.evidence.tracing.choices import CudaChoices

T = TypeVar("T")

_META = torch.device("meta")
# Composite operators recorded as kernels, because their names say more than their parts.
_WHOLE = {"clone", "_to_copy", "copy_", "embedding", "arange", "convolution"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work of one operator, or of several.

    Attributes
    ----------
    flops
        Floating-point operations of matrix products, two per multiply-add, as
        ``torch.utils.flop_counter`` counts them. [FLOP]
    bytes_read, bytes_written
        Memory traffic of each operator; an element counts once, however often it is used. [bytes]
    launches
        Kernels launched.
    """

    flops: int
    bytes_read: int
    bytes_written: int
    launches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedOperation(Work):
    """One operator that does work on the device.

    Attributes
    ----------
    name
        The operator, without namespace and overload: ``bmm``, ``_to_copy``, ``copy_``.
    module
        Path of the innermost ``torch.nn.Module`` in which it ran, empty outside modules.
    called_by
        The operator that the code called, if it consists of several kernels.
    shapes
        Its tensors as text: ``[16, 4, 128] bf16, ... -> [16, 4, 64] bf16``.
    dtype
        Type of the first tensor it reads, without ``torch.``; empty if it reads none.
    sizes
        Sizes of the tensors it reads.
    """

    name: str
    module: str = ""
    called_by: str = ""
    shapes: str = ""
    dtype: str = ""
    sizes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Work):
    """The operators that a function ran, in order, and their sums.

    Attributes
    ----------
    operations
        Operators that do work on the device.
    views
        Operators that only view or allocate memory; they cost nothing on the device.
    """

    operations: tuple[TracedOperation, ...]
    views: int


def grouped(
    operations: Iterable[TracedOperation], by: Callable[[TracedOperation], T]
) -> dict[T, list[TracedOperation]]:
    """Return the operations that share a key, in order of first appearance."""
    groups: dict[T, list[TracedOperation]] = {}
    for operation in operations:
        groups.setdefault(by(operation), []).append(operation)
    return groups


def total(operations: Sequence[TracedOperation]) -> Work:
    """Return the sums over operations."""
    return Work(
        **{
            field.name: sum(getattr(operation, field.name) for operation in operations)
            for field in fields(Work)
        }
    )


def trace(function: Callable[..., Any], *inputs: Any, **keywords: Any) -> Trace:
    """Count a function's FLOPs, bytes, launches and views, operator by operator.

    Parameters
    ----------
    function
        Any callable on tensors, for example an attention function or a module on the meta device.
    *inputs, **keywords
        Its arguments, tensors inside lists, tuples and dicts included. Tensors of any device serve
        as shapes: they are replaced by tensors on the meta device, views of one storage by views
        of one storage; where the function asks for a CUDA device, it gets the meta device.

    Returns
    -------
    Trace
        The operators in order. Conventions: :mod:`simulator.evidence.tracing.costs`.

    Raises
    ------
    TraceError
        If the function needs values (``item``, ``nonzero``, indexing by a mask), or mixes in
        tensors of another device.
    """
    if not callable(function):
        raise TraceError(f"cannot trace {function!r}: it is not a function")
    on_meta = _Replacer()
    arguments = tree_map(on_meta, inputs)
    named = tree_map(on_meta, keywords)
    with ModuleTracker() as modules:
        recorder = _Recorder(modules)
        with (
            _explained(),
            torch.no_grad(),
            torch.device("meta"),
            CudaChoices(recorder.record),
            recorder,
        ):
            function(*arguments, **named)
    found = tuple(recorder.operations)
    return Trace(**asdict(total(found)), operations=found, views=recorder.views)


class _Replacer:
    """Replace tensors by tensors on the meta device that share storage as they did."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def __call__(self, value: Any) -> Any:
        """Return a tensor's stand-in, and anything else unchanged."""
        if not isinstance(value, Tensor) or value.device.type == "meta":
            return value
        if value.is_sparse or value.is_quantized or value.is_nested:
            raise TraceError(f"cannot trace a {value.layout} tensor of {value.dtype}")
        identity = storage_of(value)
        if identity not in self._storages:
            memory = torch.empty(value.untyped_storage().nbytes(), dtype=torch.uint8, device=_META)
            self._storages[identity] = memory.untyped_storage()
        stand_in = torch.empty(0, dtype=value.dtype, device=_META)
        stand_in.set_(self._storages[identity], value.storage_offset(), value.shape, value.stride())
        return stand_in


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record operators as the dispatcher meets them."""

    supports_higher_order_operators = True

    def __init__(self, modules: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[TracedOperation] = []
        self.views = 0
        self._modules = modules
        self._callers: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operator and record it, or run its parts."""
        del types
        named = kwargs or {}
        if func is flex_operator:
            return self._flex(*args)
        if not isinstance(func, torch._ops.OpOverload):  # noqa: SLF001
            raise TraceError(f"cannot trace the higher-order operator {func}")
        kernel = _composite_kernel(func)
        if kernel is not None:
            return self._run_parts(func, kernel, args, named)
        costs.refuse_masks(func.overloadpacket.__name__, args)
        result = func(*args, **named)
        call = costs.describe(func, args, named, result)
        tensors = [leaf for leaf in tree_leaves((args, named, result)) if isinstance(leaf, Tensor)]
        if all(tensor.device != _META for tensor in tensors):
            return result  # numbers on the host
        if costs.is_free(call):
            self.views += 1
        else:
            self.record(call, _flops(func, args, named, result))
        return result

    def _run_parts(
        self, func: Any, kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run PyTorch's composition of an operator, with this mode still active."""
        self._callers.append(func._schema.name.split("::")[1])  # noqa: SLF001
        try:
            with self:
                return func._op_dk(kernel, *args, **kwargs)  # noqa: SLF001
        finally:
            self._callers.pop()

    def record(self, call: costs.Call, flops: int = 0) -> None:
        """Record the kernels of one operator; the last is the operator itself."""
        kernels = costs.costs_of(call, _META)
        caller = self._callers[0] if self._callers else call.name
        for place, (name, read, written) in enumerate(kernels, start=1):
            self.operations.append(
                TracedOperation(
                    name=name,
                    flops=flops if place == len(kernels) else 0,
                    bytes_read=read,
                    bytes_written=written,
                    launches=1,
                    module=self._module(),
                    called_by="" if caller == name else caller,
                    shapes=_shapes(call),
                    dtype=_type(call.read[0]) if call.read else "",
                    sizes=tuple(tuple(tensor.shape) for tensor in call.read),
                )
            )

    def _flex(self, query: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Any:
        """Record FlexAttention: the blocks its mask visits, and the log-sum-exp if asked for."""
        _score, mask, _scale, options, *_ = rest
        output = torch.empty_like(query)
        dtype = torch.promote_types(query.dtype, torch.float32)
        log_sum_exp = query.new_empty(query.shape[:3], dtype=dtype)
        written = [output, log_sum_exp] if options.get("OUTPUT_LOGSUMEXP") else [output]
        read = [query, keys, values]
        call = costs.Call(name="flex_attention", args={}, read=read, written=[], fresh=written)
        widths = query.shape[-1] + values.shape[-1]
        flops = 2 * query.shape[0] * query.shape[1] * visited_area(mask) * widths
        self.record(call, flops)
        return output, log_sum_exp, log_sum_exp

    def _module(self) -> str:
        """Return the path of the innermost running module."""
        paths: set[str] = self._modules.parents - {"Global"}
        return max(paths, key=lambda path: path.count("."), default="")


def visited_area(mask: Sequence[Any]) -> int:
    """Count the (row, key) pairs in the blocks that a FlexAttention mask visits.

    ``mask`` is ``BlockMask.as_tuple()``, its tables on the CPU, the same for every prompt and head.
    """
    rows, keys, partial_counts, partial, full_counts, full, *others = mask
    row_block, key_block = (value for value in others if isinstance(value, int))
    area = 0
    for counts, table in ((partial_counts, partial), (full_counts, full)):
        if counts is None:
            continue
        for block, count in enumerate(counts[0, 0].tolist()):
            height = min(rows - block * row_block, row_block)
            starts = table[0, 0, block, :count].tolist()
            area += sum(height * min(keys - start * key_block, key_block) for start in starts)
    return area


def _composite_kernel(func: Any) -> Any:
    """Return the dispatch key of an operator's composition, None if it has its own kernel.

    An operator without a CPU kernel has no CUDA kernel either and is composed of others; the few
    exceptions (flash attention) have no composition, or are replaced by :mod:`.choices`.
    """
    name = func.name()

    def has(key: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)  # noqa: SLF001

    keys = torch._C.DispatchKey  # noqa: SLF001
    if has("CPU") or name.split("::")[1].split(".")[0] in _WHOLE:
        return None
    if has("CompositeImplicitAutograd"):
        return keys.CompositeImplicitAutograd
    if func.is_view:
        return None
    for key in ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"):
        if has(key):
            return getattr(keys, key)
    return None


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Count matrix-product FLOPs as ``torch.utils.flop_counter`` does."""
    packet = func.overloadpacket
    if packet.__name__ in costs.FUSED_ATTENTION:
        # Older versions of the counter refuse grouped queries, and all versions the CPU's operator.
        query, keys, values = args[:3]
        batch, heads, rows, _ = query.shape
        return int(2 * batch * heads * rows * keys.shape[2] * (keys.shape[3] + values.shape[3]))
    formula = flop_registry.get(packet)
    return int(formula(*args, **kwargs, out_val=result)) if formula else 0


def _shapes(call: costs.Call) -> str:
    """Describe an operator's tensors for people, by shape and type."""
    before, after = (
        ", ".join(f"{list(each.shape)} {_type(each)}" for each in side)
        for side in (call.read, call.written + call.fresh[:2])
    )
    return f"{before} -> {after}"


def _type(tensor: Tensor) -> str:
    """Return the name of a tensor's type."""
    return str(tensor.dtype).removeprefix("torch.")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn PyTorch's errors about missing values into our one-line error."""
    try:
        yield
    except SimulatorError:
        raise
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as problem:
        if isinstance(problem, TypeError) and "meta" not in str(problem):
            raise  # a bug in the function, which its traceback shows best
        first = str(problem).strip().split("\n")[0].split(". ")[0].removesuffix(".")
        hint = ""
        if "meta" in first or "Meta" in first:
            hint = " (a trace has shapes but no values, and all its tensors are on the meta device)"
        raise TraceError(f"{type(problem).__name__} while tracing: {first}{hint}") from problem
