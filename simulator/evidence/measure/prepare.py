"""Turn cells into PyTorch calls: inputs, the timed pass, and the check before timing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from simulator.evidence.kernels import Layout, find_kernel
from simulator.evidence.kernels.layout import attention_inputs
from simulator.evidence.measure.cells import (
    AttentionCell,
    Cell,
    ElementwiseCell,
    GemmCell,
    L2State,
    MemoryCell,
    StepCell,
)
from simulator.evidence.measure.correctness import (
    TOLERANCES,
    attention_error,
    gemm_error,
    relative_error,
)
from simulator.evidence.measure.device import TORCH_DTYPES, Device
from simulator.evidence.measure.predict import LARGEST_ROTATION, rotation
from simulator.evidence.measure.steps import STEP_TOLERANCE, Steps

# Shortest time of a call, to estimate how many calls fill a pass.
_CALL_S, _BYTES_PER_S = 3e-6, 2e12
# Less than twice the L2 in rotation is neither cold nor warm.
_COLD_ROTATION = 2.0
# Rows of the table that an embedding gathers from: more than the tokens of a step.
_TABLE_ROWS = 4096
_CHECKED_VALUES, _PIECE_VALUES = 2**20, 2**24
_FACTOR = 3.0
# Parts of a buffer start at multiples of this many values, 128 B: a kernel loads operands with
# worse alignment value by value.
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A cell that is ready to be checked and timed.

    Attributes
    ----------
    one_pass
        Function that makes ``calls`` calls.
    check
        Function that returns the relative error of one call against float64.
    tolerance
        The largest error that rounding explains.
    l2_state
        ``cold``, ``warm``, or ``mixed`` where the rotation could not get past the L2.
    note
        The row's note on how the call was made.
    """

    cell: Cell
    one_pass: Callable[[], object]
    calls: int
    check: Callable[[], float]
    tolerance: float
    l2_state: str
    note: str = ""


def prepare(
    cells: Sequence[Cell], device: Device, steps: Steps, *, least_pass_s: float
) -> list[Prepared]:
    """Make the inputs of one group's cells, shared where possible, and their passes.

    Parameters
    ----------
    cells
        Cells of one group.
    device
        Device to run on.
    steps
        Keeper of the weights and caches of whole steps.
    least_pass_s
        A pass repeats its calls until it should take about this long. [s]

    Raises
    ------
    torch.OutOfMemoryError
        If they do not fit at once.
    """
    rotator = _Rotator(device, least_pass_s)
    first = cells[0]
    if isinstance(first, AttentionCell):
        return _attention(cast("Sequence[AttentionCell]", cells), device, rotator)
    if isinstance(first, StepCell):
        return _steps(cast("Sequence[StepCell]", cells), steps, least_pass_s)
    if isinstance(first, GemmCell):
        return _gemm(cast("Sequence[GemmCell]", cells), device, rotator)
    if isinstance(first, ElementwiseCell):
        return _elementwise(cast("Sequence[ElementwiseCell]", cells), device, rotator)
    return _memory(cast("Sequence[MemoryCell]", cells), device, rotator)


class _Rotator:
    """Choose the number of buffer sets and of calls per pass."""

    def __init__(self, device: Device, least_pass_s: float) -> None:
        self.l2_bytes, self.least_pass_s = device.l2_bytes, least_pass_s

    def sets(self, one_set: Callable[[], Any], l2: L2State, used: slice = slice(None)) -> list[Any]:
        """Make the buffer sets that the L2 state needs.

        Parameters
        ----------
        one_set
            Function that makes one set.
        l2
            What the cell asked for.
        used
            Slice of a set's buffers that every call reads.
        """
        first = one_set()
        count = rotation(_nbytes(first[used]), self.l2_bytes) if l2 == "cold" else 1
        return [first, *(one_set() for _ in range(count - 1))]

    def calls(self, set_bytes: float, sets: int) -> int:
        """Return the number of calls per pass: every set once, and enough to time."""
        guess = math.ceil(self.least_pass_s / (_CALL_S + set_bytes / _BYTES_PER_S))
        return max(sets, min(LARGEST_ROTATION, guess))

    def state(self, set_bytes: float, sets: int, l2: L2State) -> str:
        """Return the actual L2 state when a call starts.

        Parameters
        ----------
        set_bytes
            One set of buffers. [bytes]
        sets
            Number of sets.
        l2
            What the cell asked for.
        """
        if l2 == "warm":
            return "warm"
        return "cold" if set_bytes * sets >= _COLD_ROTATION * self.l2_bytes else "mixed"

    def prepared(
        self,
        cell: Cell,
        function: Callable[..., object],
        sets: Sequence[Any],
        check: Callable[[], float],
        *,
        used: slice = slice(None),
        arrange: Callable[[Any], Any] = tuple,
        note: str = "",
    ) -> Prepared:
        """Prepare a function that is called with one set of buffers after the other.

        Parameters
        ----------
        cell, check, note
            As in :class:`Prepared`.
        function, sets
            The function, and its buffers from :meth:`sets`.
        used
            Slice of a set's buffers that every call reads.
        arrange
            Makes the arguments of a call from a set.
        """
        calls = self.calls(_nbytes(sets[0]), len(sets))
        return Prepared(
            cell=cell,
            one_pass=rotated(function, [arrange(given) for given in sets], calls),
            calls=calls,
            check=check,
            tolerance=TOLERANCES[TORCH_DTYPES[cell.dtype]],
            l2_state=self.state(_nbytes(sets[0][used]), len(sets), cell.l2),
            note=note,
        )


def rotated(function: Callable[..., Any], sets: Sequence[Any], calls: int) -> Callable[[], None]:
    """Return a pass: ``calls`` calls, each on the next set of buffers.

    Parameters
    ----------
    function
        The function to call.
    sets
        Arguments for each call, used in turn.
    calls
        Number of calls.
    """
    arguments = list(islice(cycle(sets), calls))

    def one_pass() -> None:
        for each in arguments:
            function(*each)

    return one_pass


def _attention(cells: Sequence[AttentionCell], device: Device, rotator: _Rotator) -> list[Prepared]:
    """Prepare kernels of one group; kernels of the same layout share inputs."""
    cell = cells[0]
    sets: dict[Layout, list[Any]] = {}
    prepared = []
    for each in cells:
        layout = each.implementation.layout
        if layout not in sets:
            dtype = TORCH_DTYPES[cell.dtype]
            one_set = partial(attention_inputs, cell, layout, dtype, device.normal)
            sets[layout] = rotator.sets(one_set, cell.l2)
        inputs = sets[layout]
        ready = find_kernel(each.kernel).ready(inputs[0], graph=each.graph)
        check = _check_of(ready.attend, inputs[0], attention_error)
        prepared.append(
            rotator.prepared(each, ready.run, inputs, check, arrange=ready.arrange, note=ready.note)
        )
    return prepared


def _steps(cells: Sequence[StepCell], steps: Steps, least_pass_s: float) -> list[Prepared]:
    """Prepare whole steps of one group; between two of them all weights pass through L2."""
    checks = {cell.kernel: steps.error(cell) for cell in cells}
    calls = max(1, min(4, round(least_pass_s / 1e-3)))
    return [
        Prepared(
            cell=cell,
            one_pass=rotated(call, [()], calls),
            calls=calls,
            check=partial(checks.__getitem__, cell.kernel),
            tolerance=STEP_TOLERANCE[TORCH_DTYPES[cell.dtype]],
            l2_state=steps.l2_state(cell),
        )
        for cell, call in zip(cells, steps.calls(cells), strict=True)
    ]


def _gemm(cells: Sequence[GemmCell], device: Device, rotator: _Rotator) -> list[Prepared]:
    """Prepare a matrix product."""
    cell = cells[0]
    dtype = TORCH_DTYPES[cell.dtype]

    def one_set() -> tuple[Tensor, Tensor]:
        return device.normal((cell.m, cell.k), dtype), device.normal((cell.n, cell.k), dtype)

    sets = rotator.sets(one_set, cell.l2)
    function = torch.nn.functional.linear
    check = _check_of(function, sets[0], lambda out, given: gemm_error(out, *given))
    return [rotator.prepared(each, function, sets, check) for each in cells]


def _elementwise(
    cells: Sequence[ElementwiseCell], device: Device, rotator: _Rotator
) -> list[Prepared]:
    """Prepare elementwise kernels of one size; they share their vectors."""
    cell = cells[0]
    dtype = TORCH_DTYPES[cell.dtype]

    def one_set() -> tuple[Tensor, Tensor]:
        shape = (cell.rows, cell.width)
        return device.normal(shape, dtype), device.normal(shape, dtype)

    sets = rotator.sets(one_set, cell.l2, slice(1))
    weights = device.normal((2, cell.width), dtype)
    prepared = []
    for each in cells:
        function, exact = elementwise_function(each, weights, device)
        check = _check_of(function, sets[0], partial(_error_beside, exact))
        prepared.append(rotator.prepared(each, function, sets, check, used=slice(1)))
    return prepared


def _error_beside(exact: Callable[..., Tensor], output: Tensor, given: Sequence[Tensor]) -> float:
    """Return the relative error of a result beside a float64 reference of the same inputs."""
    return relative_error(output, exact(*given))


def _memory(cells: Sequence[MemoryCell], device: Device, rotator: _Rotator) -> list[Prepared]:
    """Prepare streams over one buffer; the fill has a separate one, so that others read noise."""
    buffers: dict[bool, Tensor] = {}
    prepared = []
    for cell in cells:
        fills = cell.test == "stream_init"
        if fills not in buffers:
            shape = (cell.working_set_bytes // 4,)
            buffers[fills] = device.normal(shape, torch.float32)
        buffer = buffers[fills]
        function, check = stream_function(cell, buffer)
        calls = rotator.calls(buffer.nbytes, 1)
        prepared.append(
            Prepared(
                cell=cell,
                one_pass=rotated(function, [()], calls),
                calls=calls,
                check=check,
                tolerance=TOLERANCES[torch.float32],
                l2_state="cold" if buffer.nbytes >= _COLD_ROTATION * device.l2_bytes else "warm",
            )
        )
    return prepared


def stream_function(
    cell: MemoryCell, buffer: Tensor
) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return a stream over a float32 buffer, and its check on the start of the buffer."""
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
            # A sum of random signs cancels, so its error is relative to the size of its terms.
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
    """Return an elementwise kernel of two vectors per row, and its float64 reference.

    Parameters
    ----------
    cell
        Operation and sizes.
    weights
        [2, width]: a norm's weight and bias.
    device
        Device of a table to gather from.
    """
    width = (cell.width,)
    if cell.op == "embedding":
        table = device.normal((_TABLE_ROWS, cell.width), weights.dtype)
        index = torch.randint(_TABLE_ROWS, (cell.rows,), device=table.device)

        def gather(*_: Tensor) -> Tensor:
            return functional.embedding(index, table)

        return gather, lambda *_: table[index]

    if cell.op == "to_float32":
        return (lambda first, _: first.to(torch.float32)), (lambda first, _: first)
    compute: Callable[..., Tensor] = {
        "residual_add": lambda first, second, _w, _b: first + second,
        "silu": lambda first, _s, _w, _b: functional.silu(first),
        "copy": lambda first, _s, _w, _b: first.clone(),
        "rmsnorm": lambda first, _s, weight, _b: functional.rms_norm(first, width, weight, 1e-6),
        "layernorm": lambda first, _s, weight, bias: functional.layer_norm(
            first, width, weight, bias
        ),
        "softmax": lambda first, _s, _w, _b: torch.softmax(first, dim=-1),
    }[cell.op]
    # Made in advance: a call launches the one kernel alone.
    narrow, wide = tuple(weights), tuple(weights.double())
    return (
        lambda first, second: compute(first, second, *narrow),
        lambda first, second: compute(first.double(), second.double(), *wide),
    )


def _check_of(
    function: Callable[..., Tensor], given: Any, error: Callable[[Tensor, Any], float]
) -> Callable[[], float]:
    """Return a check that calls a function on its first set of inputs."""

    def check() -> float:
        return error(function(*given), given)

    return check


def _nbytes(tensors: Sequence[Tensor]) -> int:
    """Return the bytes of some tensors; slices of one buffer do not overlap here."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
