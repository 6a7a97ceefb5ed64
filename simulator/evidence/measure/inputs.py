"""Random inputs in each kernel's layout, and the rotation that keeps L2 cold."""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from simulator.evidence.kernels import Layout
from simulator.evidence.kernels.inputs import Inputs
from simulator.evidence.kernels.layout import JOINED, buffer_shape, parts
from simulator.evidence.measure.cells import KernelCell

# A function that makes a random tensor of a shape.
Normal = Callable[[tuple[int, ...], torch.dtype], Tensor]


def attention_inputs(
    cell: KernelCell, layout: Layout, dtype: torch.dtype, normal: Normal, *, query: bool = True
) -> Inputs:
    """Allocate one layer's query and caches directly in a layout.

    :func:`simulator.evidence.kernels.layout.lay_out` does the same from separate caches, but takes
    twice the memory for a moment.

    Parameters
    ----------
    cell
        Only its sizes are used.
    layout
        Layout of the caches.
    dtype
        Format of all five tensors.
    normal
        Makes a tensor of random numbers.
    query
        Whether the query has values. Without them it takes no memory and only shows the layout.
    """
    p, b, g, k = cell.prompts, cell.samples, cell.kv_heads, cell.head_dim
    m_c, m_d = cell.context_tokens, cell.decoded_tokens
    tokens = (cell.query_tokens,) if cell.query_tokens > 1 else ()
    sequences = (p * b, 1) if layout == "copies" else (p, b)
    shape = (*sequences, *tokens, cell.heads, k)
    asked = normal(shape, dtype) if query else torch.empty(shape, dtype=dtype, device="meta")
    if layout not in JOINED:
        keys, values = (normal((p, g, m_c, k), dtype) for _ in range(2))
        own_keys, own_values = (normal((p, b, g, m_d, k), dtype) for _ in range(2))
    else:
        sizes = (p, b, m_c, m_d)
        buffers = [normal(buffer_shape(layout, sizes, g, k), dtype) for _ in range(2)]
        (keys, own_keys), (values, own_values) = (parts(each, layout, sizes) for each in buffers)
    return asked, keys, values, own_keys, own_values


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
