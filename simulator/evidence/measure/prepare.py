"""Turn cells into PyTorch calls: inputs, the timed pass, and the check before timing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from simulator.evidence.kernels import Layout, find_kernel
from simulator.evidence.kernels.layout import attention_inputs
from simulator.evidence.measure import correctness
from simulator.evidence.measure.cells import (
    AttentionCell,
    Cell,
    ElementwiseCell,
    GemmCell,
    L2State,
    MemoryCell,
    StepCell,
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
    preparer = _Preparer(device, steps, least_pass_s)
    prepared: list[Prepared] = getattr(preparer, cells[0].kind)(cells)
    return prepared


class _Preparer:
    """Prepare the cells of a group: a method for each kind, which returns them in order."""

    def __init__(self, device: Device, steps: Steps, least_pass_s: float) -> None:
        self.device, self.steps, self.least_pass_s = device, steps, least_pass_s

    def attention(self, cells: Sequence[AttentionCell]) -> list[Prepared]:
        """Prepare kernels of one group; kernels of the same layout share inputs."""
        sets: dict[Layout, list[Any]] = {}
        prepared = []
        for cell in cells:
            layout, dtype = cell.implementation.layout, TORCH_DTYPES[cell.dtype]
            if layout not in sets:
                one_set = partial(attention_inputs, cell, layout, dtype, self.device.normal)
                sets[layout] = self._sets(one_set, cell.l2)
            inputs = sets[layout]
            ready = find_kernel(cell.kernel).ready(inputs[0], graph=cell.graph)
            check = _check_of(ready.attend, inputs[0], correctness.attention_error)
            arrange, note = ready.arrange, ready.note
            prepared.append(
                self._prepared(cell, ready.run, inputs, check, arrange=arrange, note=note)
            )
        return prepared

    def step(self, cells: Sequence[StepCell]) -> list[Prepared]:
        """Prepare whole steps; between two of them all weights pass through L2."""
        checks = {cell.kernel: self.steps.error(cell) for cell in cells}
        calls = max(1, min(4, round(self.least_pass_s / 1e-3)))
        return [
            Prepared(
                cell=cell,
                one_pass=rotated(call, [()], calls),
                calls=calls,
                check=partial(checks.__getitem__, cell.kernel),
                tolerance=STEP_TOLERANCE[TORCH_DTYPES[cell.dtype]],
                l2_state=self.steps.l2_state(cell),
            )
            for cell, call in zip(cells, self.steps.calls(cells), strict=True)
        ]

    def gemm(self, cells: Sequence[GemmCell]) -> list[Prepared]:
        """Prepare a matrix product."""
        cell = cells[0]
        sets = self._sets(self._vectors(cell, (cell.m, cell.k), (cell.n, cell.k)), cell.l2)
        function = functional.linear
        check = _check_of(function, sets[0], lambda out, given: correctness.gemm_error(out, *given))
        return [self._prepared(each, function, sets, check) for each in cells]

    def elementwise(self, cells: Sequence[ElementwiseCell]) -> list[Prepared]:
        """Prepare elementwise kernels of one size; they share their vectors.

        Every call reads the first vectors of a set, so these alone tell how many sets keep L2 cold.
        """
        cell, first = cells[0], slice(1)
        shape = (cell.rows, cell.width)
        sets = self._sets(self._vectors(cell, shape, shape), cell.l2, first)
        weights = self.device.normal((2, cell.width), TORCH_DTYPES[cell.dtype])
        prepared = []
        for each in cells:
            function, exact = elementwise_function(each, weights, self.device)
            check = _check_of(function, sets[0], partial(_error_beside, exact))
            prepared.append(self._prepared(each, function, sets, check, used=first))
        return prepared

    def memory(self, cells: Sequence[MemoryCell]) -> list[Prepared]:
        """Prepare streams over one buffer; the fill has its own, so that others read noise."""
        buffers: dict[bool, Tensor] = {}
        prepared = []
        for cell in cells:
            fills = cell.test == "stream_init"
            if fills not in buffers:
                shape = (cell.working_set_bytes // 4,)
                buffers[fills] = self.device.normal(shape, torch.float32)
            buffer = buffers[fills]
            function, check = stream_function(cell, buffer)
            one = self._prepared(cell, function, [(buffer,)], check, arrange=lambda _: ())
            reached: L2State = "cold" if self._is_cold(buffer.nbytes) else "warm"
            prepared.append(replace(one, l2_state=reached))
        return prepared

    def _vectors(self, cell: Cell, *shapes: tuple[int, int]) -> Callable[[], list[Tensor]]:
        """Return a function that makes a set of random tensors of these shapes."""
        dtype = TORCH_DTYPES[cell.dtype]
        return lambda: [self.device.normal(shape, dtype) for shape in shapes]

    def _sets(
        self, one_set: Callable[[], Any], l2: L2State, used: slice = slice(None)
    ) -> list[Any]:
        """Make the sets of buffers that a state of L2 needs; every call reads a slice of a set."""
        first = one_set()
        count = rotation(_nbytes(first[used]), self.device.l2_bytes) if l2 == "cold" else 1
        return [first, *(one_set() for _ in range(count - 1))]

    def _calls(self, set_bytes: float, sets: int) -> int:
        """Return the number of calls per pass: every set once, and enough to time."""
        guess = math.ceil(self.least_pass_s / (_CALL_S + set_bytes / _BYTES_PER_S))
        return max(sets, min(LARGEST_ROTATION, guess))

    def _is_cold(self, rotated_bytes: float) -> bool:
        """Return whether buffers of so many bytes in rotation evict each other from L2."""
        return rotated_bytes >= _COLD_ROTATION * self.device.l2_bytes

    def _prepared(
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
        function, sets, used
            The function, and its buffers as :meth:`_sets` makes them.
        arrange
            Makes the arguments of a call from a set.
        """
        calls = self._calls(_nbytes(sets[0]), len(sets))
        reached = "cold" if self._is_cold(_nbytes(sets[0][used]) * len(sets)) else "mixed"
        return Prepared(
            cell=cell,
            one_pass=rotated(function, [arrange(given) for given in sets], calls),
            calls=calls,
            check=check,
            tolerance=correctness.TOLERANCES[TORCH_DTYPES[cell.dtype]],
            l2_state="warm" if cell.l2 == "warm" else reached,
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


def _error_beside(exact: Callable[..., Tensor], output: Tensor, given: Sequence[Tensor]) -> float:
    """Return the relative error of a result beside a float64 reference of the same inputs."""
    return correctness.relative_error(output, exact(*given))


def stream_function(
    cell: MemoryCell, buffer: Tensor
) -> tuple[Callable[[], object], Callable[[], float]]:
    """Return a stream over a float32 buffer, and its check on the start of the buffer."""
    third, half = (buffer.numel() // n // _ALIGNMENT * _ALIGNMENT for n in (3, 2))
    first, second = buffer[:half], buffer[half : 2 * half]
    parts = [buffer[index * third : (index + 1) * third] for index in range(3)]
    function: Callable[[], Tensor] = {
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
        if cell.test == "stream_read":
            # A sum of random signs cancels, so its error is relative to the size of its terms.
            # In pieces: in float64 the whole buffer would take three times its memory.
            exact = torch.zeros(2, dtype=torch.float64, device=buffer.device)
            for piece in torch.split(buffer, _PIECE_VALUES):
                wide = piece.double()
                exact += torch.stack([wide.sum(), wide.square().sum()])
            return float((result.double() - exact[0]).abs() / exact[1].sqrt())
        head = slice(0, _CHECKED_VALUES)
        wanted = {
            "stream_init": torch.full_like(buffer[head], _FACTOR),
            "stream_copy": first[head],
            "stream_scale": first[head].double() * _FACTOR,
            "stream_triad": parts[0][head].double() + _FACTOR * parts[1][head].double(),
        }
        return correctness.relative_error(result[head], wanted[cell.test])

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
    if cell.op == "embedding":
        table = device.normal((_TABLE_ROWS, cell.width), weights.dtype)
        index = torch.randint(_TABLE_ROWS, (cell.rows,), device=table.device)
        return (lambda *_: functional.embedding(index, table)), (lambda *_: table[index])
    compute = _ELEMENTWISE[cell.op]
    # Made in advance: a call launches the one kernel alone.
    narrow, wide = tuple(weights), tuple(weights.double())
    return (
        lambda first, second: compute(first, second, *narrow),
        lambda first, second: compute(first.double(), second.double(), *wide),
    )


# Kernels of two vectors per row, and of a norm's weight and bias.
_ELEMENTWISE: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "residual_add": lambda first, second, _w, _b: first + second,
    "silu": lambda first, _s, _w, _b: functional.silu(first),
    "to_float32": lambda first, _s, _w, _b: first.to(torch.float32),
    "copy": lambda first, _s, _w, _b: first.clone(),
    "rmsnorm": lambda first, _s, weight, _b: functional.rms_norm(first, weight.shape, weight, 1e-6),
    "layernorm": lambda first, _s, weight, bias: functional.layer_norm(
        first, weight.shape, weight, bias
    ),
    "softmax": lambda first, _s, _w, _b: torch.softmax(first, dim=-1),
}


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
