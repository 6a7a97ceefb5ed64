"""Random inputs as each kernel wants its caches to lie, and the rotation that keeps L2 cold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from simulator.evidence.kernels import Inputs
from simulator.evidence.kernels.paged import paged_views, pool_shape
from simulator.evidence.measure.cells import Layout

# A function that makes a random tensor of a shape.
Normal = Callable[[tuple[int, ...], torch.dtype], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of one layer's attention."""

    prompts: int
    samples: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    decoded_tokens: int


def attention_inputs(
    sizes: Sizes, layout: Layout, dtype: torch.dtype, normal: Normal, *, query: Tensor | None = None
) -> Inputs:
    """Allocate query and caches directly in a layout, without a second copy anywhere.

    The result is what :func:`simulator.evidence.kernels.lay_out` would make of separate caches,
    which would take twice the memory for a moment.

    Parameters
    ----------
    query
        A query to use again, for caches of many layers.
    """
    p, b, g, k = sizes.prompts, sizes.samples, sizes.kv_heads, sizes.head_dim
    m_c, m_d = sizes.context_tokens, sizes.decoded_tokens
    if layout == "copies":
        keys, values = (normal((p * b, g, m_c + m_d, k), dtype) for _ in range(2))
        return (
            normal((p * b, 1, sizes.heads, k), dtype) if query is None else query,
            keys[:, :, :m_c],
            values[:, :, :m_c],
            keys[:, :, m_c:].unsqueeze(1),
            values[:, :, m_c:].unsqueeze(1),
        )
    asked = normal((p, b, sizes.heads, k), dtype) if query is None else query
    if layout == "packed":
        keys, values = (normal((p, g, m_c + b * m_d, k), dtype) for _ in range(2))
        own_keys, own_values = (
            torch.unflatten(part[:, :, m_c:], 2, (b, m_d)).transpose(1, 2)
            for part in (keys, values)
        )
        return asked, keys[:, :, :m_c], values[:, :, :m_c], own_keys, own_values
    if layout == "paged":
        pools = (normal(pool_shape(p, b, m_c, m_d, g, k), dtype) for _ in range(2))
        (keys, own_keys), (values, own_values) = (
            paged_views(pool, p, b, m_c, m_d) for pool in pools
        )
        return asked, keys, values, own_keys, own_values
    context = [normal((p, g, m_c, k), dtype) for _ in range(2)]
    decoded = [normal((p, b, g, m_d, k), dtype) for _ in range(2)]
    return asked, context[0], context[1], decoded[0], decoded[1]


def rotated(function: Callable[..., Any], sets: Sequence[Any], calls: int) -> Callable[[], None]:
    """Return a pass: ``calls`` calls, each on the next set of buffers."""
    arguments = list(islice(cycle(sets), calls))

    def one_pass() -> None:
        for each in arguments:
            function(*each)

    return one_pass
