"""The five input tensors of every kernel, checked before any native code runs.

The same names of dimensions are used everywhere below::

    query            [prompts, samples, query_tokens, heads, head_dim]
    context_keys     [prompts, kv_heads, context_tokens, head_dim]            (and context_values)
    decoded_keys     [prompts, samples, kv_heads, decoded_tokens, head_dim]   (and decoded_values)

A query of one token may omit its token axis: [prompts, samples, heads, head_dim]. A KV head serves
``group = heads / kv_heads`` consecutive query heads.

With several query tokens, a sample's last ``query_tokens`` decoded tokens are the new ones; their
keys and values are already in the cache. All of them see the whole context, so there they are rows
like those of other samples. Among themselves they are causal: token i sees the decoded tokens up to
itself.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simulator.errors import KernelError

# query, context_keys, context_values, decoded_keys, decoded_values
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
# attend(query, context_keys, context_values, decoded_keys, decoded_values, *, scale=None) returns
# the attention output, shaped like the query: the signature of every kernel.
Attend = Callable[..., Tensor]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CONTEXT_DIMS = 4
_QUERY_DIMS = _DECODED_DIMS = 5


class AttentionCall(NamedTuple):
    """The checked inputs of a kernel.

    Attributes
    ----------
    query
        With its token axis.
    context, decoded
        Keys and values of each part.
    scale
        Factor on the logits.
    prompts, samples, query_tokens, heads, head_dim
        Sizes of the query: contexts, samples of each, new tokens of each sample.
    kv_heads, group
        KV heads, and the query heads that share one.
    context_tokens, decoded_tokens
        Tokens of each context, and of each sample after it.
    """

    query: Tensor
    context: tuple[Tensor, Tensor]
    decoded: tuple[Tensor, Tensor]
    scale: float
    prompts: int
    samples: int
    query_tokens: int
    heads: int
    head_dim: int
    kv_heads: int
    group: int
    context_tokens: int
    decoded_tokens: int


def kernel(function: Callable[..., Tensor]) -> Attend:
    """Turn a function of a :class:`AttentionCall` into a kernel.

    The kernel takes the five tensors, checks them, and shapes the output like the query. It passes
    on the function's options.
    """

    def _attend(
        query: Tensor, *caches: Tensor, scale: float | None = None, **options: Any
    ) -> Tensor:
        return function(call_of(query, *caches, scale=scale), **options).reshape(query.shape)

    _attend.__name__ = _attend.__qualname__ = function.__name__
    _attend.__doc__ = function.__doc__
    return _attend


def call_of(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> AttentionCall:
    """Check the inputs of a kernel.

    Parameters
    ----------
    query
        [prompts, samples, heads, head_dim], or with query_tokens after samples.
    context_keys, context_values
        [prompts, kv_heads, context_tokens, head_dim]
    decoded_keys, decoded_values
        [prompts, samples, kv_heads, decoded_tokens, head_dim]
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.

    Raises
    ------
    KernelError
        If the tensors do not match, or there is nothing to attend to.
    """
    kv_heads = check_query(query, context_keys)
    check_context(query, context_keys, context_values, nodes=query.shape[0], kv_heads=kv_heads)
    check_decoded(query, decoded_keys, decoded_values, kv_heads=kv_heads)
    if context_keys.shape[2] + decoded_keys.shape[3] == 0:
        raise KernelError("there is nothing to attend to: no context and no decoded tokens")
    rows = with_tokens(query)
    sizes = ("prompts", "samples", "query_tokens", "heads", "head_dim")
    return AttentionCall(
        query=rows,
        context=(context_keys, context_values),
        decoded=(decoded_keys, decoded_values),
        scale=scale_of(query, scale),
        **dict(zip(sizes, rows.shape, strict=True)),
        kv_heads=kv_heads,
        group=query.shape[-2] // kv_heads,
        context_tokens=context_keys.shape[2],
        decoded_tokens=decoded_keys.shape[3],
    )


def with_tokens(query: Tensor) -> Tensor:
    """View a query with its token axis, [prompts, samples, query_tokens, heads, head_dim]."""
    return query if query.dim() == _QUERY_DIMS else query.unsqueeze(2)


def check_query(query: Tensor, context_keys: Tensor) -> int:
    """Refuse a query that no kernel can read, and return the number of KV heads."""
    if query.dim() not in (_QUERY_DIMS - 1, _QUERY_DIMS) or query.numel() == 0:
        many_tokens = "[prompts, samples, query_tokens, heads, head_dim]"
        wanted = f"[prompts, samples, heads, head_dim] or {many_tokens}"
        raise KernelError(f"query is {_text(query)}, not {wanted}")
    if context_keys.dim() != _CONTEXT_DIMS:
        wanted = "[prompts, kv_heads, context_tokens, head_dim]"
        raise KernelError(f"context_keys is {_text(context_keys)}, not {wanted}")
    heads, kv_heads = query.shape[-2], context_keys.shape[1]
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
    """Refuse shared keys and values that do not match the query.

    Parameters
    ----------
    query
        [..., heads, head_dim]
    keys, values
        Must be [nodes, kv_heads, tokens, head_dim].
    nodes, kv_heads
        Their first two sizes.
    level
        Their name in an error.
    """
    tokens = keys.shape[2] if keys.dim() == _CONTEXT_DIMS else 0
    sizes = (nodes, kv_heads, tokens, query.shape[-1])
    _expect(f"{level}_keys", keys, sizes, query)
    _expect(f"{level}_values", values, sizes, query)


def check_decoded(query: Tensor, keys: Tensor, values: Tensor, *, kv_heads: int) -> None:
    """Refuse decoded keys and values that do not match the query.

    Parameters
    ----------
    query
        [prompts, samples, (query_tokens,) heads, head_dim]
    keys, values
        Must be [prompts, samples, kv_heads, decoded_tokens, head_dim].
    kv_heads
        KV heads of the context.
    """
    if keys.dim() != _DECODED_DIMS:
        wanted = "[prompts, samples, kv_heads, decoded_tokens, head_dim]"
        raise KernelError(f"decoded_keys is {_text(keys)}, not {wanted}")
    sizes = (query.shape[0], query.shape[1], kv_heads, keys.shape[3], query.shape[-1])
    _expect("decoded_keys", keys, sizes, query)
    _expect("decoded_values", values, sizes, query)
    tokens = query.shape[2] if query.dim() == _QUERY_DIMS else 1
    if 1 < tokens > keys.shape[3]:
        raise KernelError(
            f"{tokens} query tokens, but a sample has {keys.shape[3]} decoded tokens in its cache"
        )


def scale_of(query: Tensor, scale: float | None) -> float:
    """Return the factor on the logits, 1 / sqrt(head_dim) by default."""
    return float(query.shape[-1] ** -0.5) if scale is None else float(scale)


def _expect(name: str, tensor: Tensor, sizes: tuple[int, ...], query: Tensor) -> None:
    """Refuse a tensor that does not match the query."""
    if tensor.shape != sizes:
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
