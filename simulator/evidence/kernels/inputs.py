"""What every kernel is given: five tensors, their shapes checked before any native code runs.

One nomenclature for shapes, everywhere below::

    query            [prompts, samples, heads, head_dim]
    context_keys     [prompts, kv_heads, context_tokens, head_dim]            (and context_values)
    decoded_keys     [prompts, samples, kv_heads, decoded_tokens, head_dim]   (and decoded_values)

A KV head serves ``group = heads / kv_heads`` query heads, which follow each other.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from simulator.errors import KernelError

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CONTEXT_DIMS = 4
_DECODED_DIMS = 5


class Attend(Protocol):
    """The signature of every kernel."""

    def __call__(
        self,
        query: Tensor,
        context_keys: Tensor,
        context_values: Tensor,
        decoded_keys: Tensor,
        decoded_values: Tensor,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Return the attention output, shaped like ``query``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a kernel's inputs."""

    prompts: int
    samples: int
    heads: int
    kv_heads: int
    head_dim: int
    context_tokens: int
    decoded_tokens: int

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.heads // self.kv_heads


def shape_of(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
) -> Shape:
    """Read the sizes of a kernel's inputs.

    Raises
    ------
    KernelError
        If the tensors do not belong together, or there is nothing to attend to.
    """
    kv_heads = check_query(query, context_keys)
    check_context(query, context_keys, context_values, nodes=query.shape[0], kv_heads=kv_heads)
    check_decoded(query, decoded_keys, decoded_values, kv_heads=kv_heads)
    shape = Shape(
        prompts=query.shape[0],
        samples=query.shape[1],
        heads=query.shape[2],
        kv_heads=kv_heads,
        head_dim=query.shape[3],
        context_tokens=context_keys.shape[2],
        decoded_tokens=decoded_keys.shape[3],
    )
    if shape.context_tokens + shape.decoded_tokens == 0:
        raise KernelError("there is nothing to attend to: no context and no decoded tokens")
    return shape


def check_query(query: Tensor, context_keys: Tensor) -> int:
    """Refuse a query that no kernel can read, and return the number of KV heads it goes with."""
    if query.dim() != _CONTEXT_DIMS or query.numel() == 0:
        raise KernelError(f"query is {_text(query)}, not [prompts, samples, heads, head_dim]")
    if context_keys.dim() != _CONTEXT_DIMS:
        raise KernelError(
            f"context_keys is {_text(context_keys)}, not "
            "[prompts, kv_heads, context_tokens, head_dim]"
        )
    heads, kv_heads = query.shape[2], context_keys.shape[1]
    if kv_heads < 1 or heads % kv_heads:
        raise KernelError(f"{heads} query heads cannot be shared out to {kv_heads} KV heads")
    return kv_heads


def check_context(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    nodes: int,
    kv_heads: int,
    level: str = "context",
) -> None:
    """Refuse shared keys and values that are not [nodes, kv_heads, tokens, head_dim]."""
    tokens = keys.shape[2] if keys.dim() == _CONTEXT_DIMS else 0
    sizes = (nodes, kv_heads, tokens, query.shape[3])
    _expect(f"{level}_keys", keys, sizes, query)
    _expect(f"{level}_values", values, sizes, query)


def check_decoded(query: Tensor, keys: Tensor, values: Tensor, *, kv_heads: int) -> None:
    """Refuse own keys and values that do not go with the query."""
    if keys.dim() != _DECODED_DIMS:
        raise KernelError(
            f"decoded_keys is {_text(keys)}, not "
            "[prompts, samples, kv_heads, decoded_tokens, head_dim]"
        )
    sizes = (query.shape[0], query.shape[1], kv_heads, keys.shape[3], query.shape[3])
    _expect("decoded_keys", keys, sizes, query)
    _expect("decoded_values", values, sizes, query)


def scale_of(query: Tensor, scale: float | None) -> float:
    """Return the factor on the logits: the given one, or 1 / sqrt(head_dim)."""
    return float(query.shape[-1] ** -0.5) if scale is None else float(scale)


def _expect(name: str, tensor: Tensor, sizes: tuple[int, ...], query: Tensor) -> None:
    """Complain about a tensor that does not go with the query."""
    if tuple(tensor.shape) != sizes:
        raise KernelError(
            f"{name} is {_text(tensor)}; with query {_text(query)} it must be {list(sizes)}"
        )
    if tensor.dtype != query.dtype or query.dtype not in DTYPES:
        raise KernelError(
            f"{name} is {tensor.dtype} and query {query.dtype}; both must be the same one of "
            + ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        )
    if tensor.device != query.device:
        raise KernelError(f"{name} is on {tensor.device} and query on {query.device}")


def _text(tensor: Tensor) -> str:
    """Write a tensor's shape."""
    return str(list(tensor.shape))
