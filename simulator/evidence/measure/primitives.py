"""Streams over memory and elementwise kernels, each with its check."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from simulator.evidence.measure.cells import ElementwiseCell, MemoryCell
from simulator.evidence.measure.correctness import relative_error
from simulator.evidence.measure.device import Device

# Rows of the table that an embedding gathers from: more than a step has tokens.
_TABLE_ROWS = 4096
_CHECKED_VALUES, _PIECE_VALUES = 2**20, 2**24
_FACTOR = 3.0
# Parts of a buffer start at multiples of so many values, 128 B: a kernel that finds its operands
# aligned less well loads them value by value.
_ALIGNMENT = 32


def stream_function(
    cell: MemoryCell, buffer: Tensor
) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return a stream over a buffer of float32, and its check on the start of the buffer."""
    third, half = (buffer.numel() // n // _ALIGNMENT * _ALIGNMENT for n in (3, 2))
    first, second = buffer[:half], buffer[half : 2 * half]
    parts = [buffer[index * third : (index + 1) * third] for index in range(3)]
    function: Callable[[], object] = {
        "stream_init": lambda: buffer.fill_(_FACTOR),
        "stream_read": lambda: torch.sum(buffer),
        "stream_copy": lambda: second.copy_(first),
        "stream_scale": lambda: torch.mul(first, _FACTOR, out=second),
        "stream_triad": lambda: torch.add(parts[0], parts[1], alpha=_FACTOR, out=parts[2]),
    }[cell.test]

    def check() -> float:
        # Another stream's check may have filled the buffer.
        buffer.normal_()
        result = function()
        if isinstance(result, Tensor) and cell.test == "stream_read":
            # A sum of random signs cancels: its error is measured against the size of its terms.
            # In pieces: in float64 the whole buffer would take three times its memory.
            exact = torch.zeros(2, dtype=torch.float64, device=buffer.device)
            for piece in torch.split(buffer, _PIECE_VALUES):
                wide = piece.double()
                exact += torch.stack([wide.sum(), wide.square().sum()])
            return float((result.double() - exact[0]).abs() / exact[1].sqrt())
        head = slice(0, _CHECKED_VALUES)
        pairs = {
            "stream_init": lambda: (buffer[head], torch.full_like(buffer[head], _FACTOR)),
            "stream_copy": lambda: (second[head], first[head]),
            "stream_scale": lambda: (second[head], first[head].double() * _FACTOR),
            "stream_triad": lambda: (
                parts[2][head],
                parts[0][head].double() + _FACTOR * parts[1][head].double(),
            ),
        }
        found, wanted = pairs[cell.test]()
        return relative_error(found, wanted)

    return function, check


def elementwise_function(
    cell: ElementwiseCell, weights: Tensor, device: Device
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Return an elementwise kernel of two vectors per row, and the same in float64.

    Parameters
    ----------
    weights
        [2, width]: a norm's weight and bias.
    """
    width = (cell.width,)
    if cell.op == "embedding":
        table = device.normal((_TABLE_ROWS, cell.width), weights.dtype)
        index = torch.randint(_TABLE_ROWS, (cell.rows,), device=table.device)

        def gather(*_: Tensor) -> Tensor:
            return functional.embedding(index, table)

        return gather, lambda *_: table[index]

    def write(
        compute: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    ) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        weight, bias = weights[0], weights[1]
        wide_weight, wide_bias = weight.double(), bias.double()
        return (
            lambda first, second: compute(first, second, weight, bias),
            lambda first, second: compute(first.double(), second.double(), wide_weight, wide_bias),
        )

    if cell.op == "to_float32":
        return (lambda first, _: first.to(torch.float32)), (lambda first, _: first)
    computations: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
        "residual_add": lambda first, second, _w, _b: first + second,
        "silu": lambda first, _s, _w, _b: functional.silu(first),
        "copy": lambda first, _s, _w, _b: first.clone(),
        "rmsnorm": lambda first, _s, weight, _b: functional.rms_norm(first, width, weight, 1e-6),
        "layernorm": lambda first, _s, weight, bias: functional.layer_norm(
            first, width, weight, bias
        ),
        "softmax": lambda first, _s, _w, _b: torch.softmax(first, dim=-1),
    }
    return write(computations[cell.op])
