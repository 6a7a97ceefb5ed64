"""The cost of one operator: the conventions of a trace.

Operators that PyTorch builds from others (``masked_fill``, ``stack``, ``_safe_softmax``) are
counted by their parts. The other operators:

* One launch, unless it has no element to write. The internals of a library kernel, such as the
  combine of split-KV flash attention, the passes of a sort or cuBLAS' split-K, are not visible.
* It reads all its inputs and writes all its outputs, each byte of memory once.
* An in-place operator reads and writes its target; ``copy_``, ``fill_`` and the random fills only
  write it; so does every operator with its ``out=``.
* Gathers (``embedding``, ``index_select``, ``gather``, ``index``) read the elements they gather,
  and at most the whole table; scatters (``index_put_``, ``index_copy_``, ``scatter_``) write the
  elements they scatter, and read them too where they accumulate. Their functional forms copy the
  whole tensor first, a launch of its own.
* Flash and memory-efficient attention write the output and the log-sum-exp. Random-number state
  and debug masks are not counted.
* FlexAttention computes the blocks its mask visits, not the whole product that
  ``torch.utils.flop_counter`` counts without the mask; the mask's small tables are not counted.
* cuBLAS cannot address a matrix in which neither rows nor columns are contiguous: PyTorch copies
  such an operand first (``prepare_batch_matrix_for_cublas`` in ATen/native/cuda/Blas.cpp,
  recalled), and so does the trace.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from simulator.errors import TraceError
from simulator.evidence.kernels.layout import storage_of
from simulator.evidence.tracing.touched import touched_bytes

_ALLOCATIONS = ("empty", "new_empty", "resize_", "set_")
_OVERWRITES = {
    *("copy_", "fill_", "zero_", "uniform_", "normal_", "random_", "bernoulli_"),
    *("exponential_", "geometric_", "cauchy_", "log_normal_"),
}
_MASKS = {torch.bool, torch.uint8}
_SCATTERS = ("index_copy", "index_add", "scatter", "scatter_add", "scatter_reduce")
_MATRIX_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
# Over [batch, heads, rows, width].
FUSED_ATTENTION = {
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
}
_INSIDE_FUSED = ("_flash_attention_forward", "_efficient_attention_forward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an operator, in the terms of its schema.

    Attributes
    ----------
    name
        The operator, without namespace and overload.
    args
        Its arguments, by the schema's names.
    read, written
        Tensors it reads and writes.
    fresh
        Outputs that share no storage with an input.
    """

    name: str
    args: dict[str, Any]
    read: list[Tensor]
    written: list[Tensor]
    fresh: list[Tensor]


def describe(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Call:
    """Sort an operator's tensors into those read, written and newly made.

    Parameters
    ----------
    func
        The operator: an overload of ``torch.ops``.
    args, kwargs
        The arguments it was called with.
    result
        What it returned.
    """
    schema = func._schema  # noqa: SLF001
    name = schema.name.split("::")[1]
    named = {
        argument.name: args[index] if index < len(args) else kwargs.get(argument.name)
        for index, argument in enumerate(schema.arguments)
    }
    read: list[Tensor] = []
    written: list[Tensor] = []
    for argument in schema.arguments:
        tensors = _tensors(named[argument.name])
        mutated = argument.alias_info is not None and argument.alias_info.is_write
        if mutated:
            written += tensors
        if not mutated or not (argument.is_out or name in _OVERWRITES):
            read += tensors
    known = {storage_of(tensor) for tensor in _tensors([*args, kwargs])}
    fresh = [tensor for tensor in _tensors(result) if storage_of(tensor) not in known]
    return Call(name=name, args=named, read=read, written=written, fresh=fresh)


def is_free(call: Call) -> bool:
    """Return whether an operator only views or allocates memory."""
    if call.name.startswith(_ALLOCATIONS):
        return True
    return not call.written and not call.fresh


def costs_of(call: Call, device: torch.device) -> list[tuple[str, int, int]]:
    """Return the kernels that one operator launches on a device, and the bytes of each.

    Tensors elsewhere, such as numbers on the CPU, cost the device nothing, and a kernel without an
    element to write is not launched.

    Returns
    -------
    list
        Name, bytes read and bytes written of each kernel.
    """
    costs = []
    for name, *sides in _RULES.get(call.name, _everything)(call):
        read, written = (
            touched_bytes(tensor for tensor in side if tensor.device == device) for side in sides
        )
        if written:
            costs.append((name, read, written))
    return costs


# A launched kernel: its name, and the tensors it reads and writes.
_Launch = tuple[str, list[Tensor], list[Tensor]]


def _everything(call: Call) -> list[_Launch]:
    """Read all inputs, write all outputs."""
    return [(call.name, call.read, call.written + call.fresh)]


def _matrix_product(call: Call) -> list[_Launch]:
    """Read both operands, after copying those that cuBLAS cannot address."""
    kernels: list[_Launch] = []
    read = list(call.read)
    for name in ("self", "mat1", "mat2", "batch1", "batch2"):
        operand = call.args.get(name)
        is_bias = name == "self" and call.name in {"addmm", "baddbmm"}
        if isinstance(operand, Tensor) and not is_bias and not _addressable(operand):
            copy = torch.empty(operand.shape, dtype=operand.dtype, device=operand.device)
            kernels.append(("clone", [operand], [copy]))
            read = [copy if tensor is operand else tensor for tensor in read]
    return [*kernels, (call.name, read, call.written + call.fresh)]


def _addressable(matrix: Tensor) -> bool:
    """Return whether cuBLAS can read a matrix, or a batch of them, without a copy."""
    rows, columns = matrix.shape[-2:]
    row_step, column_step = matrix.stride()[-2:]
    by_rows = column_step == 1 and row_step >= max(1, columns)
    by_columns = row_step == 1 and column_step >= max(1, rows)
    return by_rows or by_columns or matrix.is_contiguous() or not matrix.numel()


def _gather(call: Call) -> list[_Launch]:
    """Read the gathered elements of the table, not all of it."""
    table = call.args.get("self")
    if table is None:
        table = call.args["weight"]
    others = [tensor for tensor in call.read if tensor is not table]
    (output,) = call.fresh or call.written
    gathered = table if table.numel() <= output.numel() else _some_of(table, output.numel())
    return [(call.name, [gathered, *others], [output])]


def _scatter(call: Call) -> list[_Launch]:
    """Write the scattered elements of the target, not all of it."""
    target = call.args["self"]
    others = [tensor for tensor in call.read if tensor is not target]
    if call.name.startswith(("index_copy", "index_add")):
        source = call.args["source"]
        count = source.numel()
    else:
        source = call.args.get("src")
        count = call.args["index"].numel()
    if isinstance(source, Tensor) and source.numel() > count:
        others = [_some_of(tensor, count) if tensor is source else tensor for tensor in others]
    part = _some_of(target, min(count, target.numel()))
    accumulates = "add" in call.name or "reduce" in call.name or call.args.get("reduce") is not None
    kernel: _Launch = (call.name, [*others, *([part] if accumulates else [])], [part])
    if call.written:
        return [kernel]
    return [("clone", [target], call.fresh), kernel]


def _index_put(call: Call) -> list[_Launch]:
    """Write the indexed elements; a mask with a single value is a masked fill."""
    target, values = call.args["self"], call.args["values"]
    indices = [index for index in call.args["indices"] if index is not None]
    if any(index.dtype in _MASKS for index in indices) and values.numel() == 1:
        return [(call.name, [target, *indices, values], [target])]
    refuse_masks("index", (target, indices))
    indexed = torch.empty(target.shape, device="meta")[
        tuple(
            slice(None)
            if index is None
            else torch.empty(index.shape, dtype=torch.long, device="meta")
            for index in call.args["indices"]
        )
    ]
    part = _some_of(target, min(indexed.numel(), target.numel()))
    accumulated = [part] if call.args.get("accumulate") else []
    return [(call.name, [values, *indices, *accumulated], [part])]


def _fused_attention(call: Call) -> list[_Launch]:
    """Write output and log-sum-exp; the other outputs are random-number state."""
    return [(call.name, call.read, call.fresh[:2])]


def refuse_masks(name: str, args: Sequence[Any]) -> None:
    """Refuse indexing by a mask, whose result depends on its values."""
    for index in args[1] if name == "index" else ():
        if index is not None and index.dtype in _MASKS:
            raise TraceError(
                "indexing by a mask depends on the mask's values; a trace has only shapes "
                "(use masked_fill or torch.where)"
            )


def _some_of(tensor: Tensor, count: int) -> Tensor:
    """Return a tensor that represents ``count`` elements of another."""
    return torch.empty(count, dtype=tensor.dtype, device=tensor.device)


def _tensors(value: Any) -> list[Tensor]:
    """List the tensors in nested arguments."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


_RULES: dict[str, Callable[[Call], list[_Launch]]] = {
    **dict.fromkeys(_MATRIX_PRODUCTS, _matrix_product),
    **dict.fromkeys((*FUSED_ATTENTION, *_INSIDE_FUSED), _fused_attention),
    **dict.fromkeys(("embedding", "index_select", "index", "gather", "take"), _gather),
    "_index_put_impl_": _index_put,
    **dict.fromkeys((*_SCATTERS, *(f"{name}_" for name in _SCATTERS)), _scatter),
}
