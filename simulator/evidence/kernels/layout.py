"""How KV caches lie in memory, and how to see them as one tensor without copying.

An engine decides once where its caches lie; a kernel then runs thousands of steps over them.
:func:`lay_out` makes that decision before anything is traced or timed:

========  ==========================================================================
shared    one context per prompt, each sample's own tokens apart (what kernels are given)
copies    every sample is its own prompt: its copy of the context, then its own tokens,
          next to each other in one buffer
packed    per prompt and KV head: the context, then the own tokens of sample after sample
rebuilt   as shared; the kernel concatenates at every step
paged     one pool of pages: those of every context, then those of every sample's own tokens
========  ==========================================================================

The shapes stay those of every kernel's signature. Context and own tokens become neighbouring
slices of one buffer, and a kernel for that layout sees the buffer again through a view. Given
caches that do not lie so it still answers, and pays for the copy.
"""

from typing import Literal

import torch
from torch import Tensor

from simulator.evidence.kernels.inputs import shape_of
from simulator.evidence.kernels.paged import page_pool, paged_views

Layout = Literal["shared", "copies", "packed", "rebuilt", "paged"]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def lay_out(
    layout: Layout,
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
) -> Inputs:
    """Arrange a kernel's inputs as an engine would keep them.

    Under ``copies`` the query is ``[prompts * samples, 1, heads, head_dim]`` and every cache
    follows it; the output of the kernel, viewed like the original query, is the same.

    Raises
    ------
    KernelError
        If the tensors do not belong together.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    if layout == "copies":
        keys = rebuild(context_keys, decoded_keys)
        values = rebuild(context_values, decoded_values)
        sequences = query.flatten(0, 1).unsqueeze(1)
        tokens = shape.context_tokens
        return (
            sequences,
            keys[:, :, :tokens],
            values[:, :, :tokens],
            keys[:, :, tokens:].unsqueeze(1),
            values[:, :, tokens:].unsqueeze(1),
        )
    if layout == "packed":
        keys = packed_cache(context_keys, decoded_keys)
        values = packed_cache(context_values, decoded_values)
        return (
            query,
            keys[:, :, : shape.context_tokens],
            values[:, :, : shape.context_tokens],
            _unpack(keys, shape.context_tokens, shape.samples),
            _unpack(values, shape.context_tokens, shape.samples),
        )
    if layout == "paged":
        sizes = (shape.prompts, shape.samples, shape.context_tokens, shape.decoded_tokens)
        (keys, own_keys), (values, own_values) = (
            paged_views(page_pool(context, decoded), *sizes)
            for context, decoded in ((context_keys, decoded_keys), (context_values, decoded_values))
        )
        return query, keys, values, own_keys, own_values
    return query, context_keys, context_values, decoded_keys, decoded_values


def rebuild(context: Tensor, decoded: Tensor) -> Tensor:
    """Concatenate the context with every sample's own tokens, as non-contiguous caches need.

    Returns [prompts * samples, kv_heads, context_tokens + decoded_tokens, head_dim].
    """
    samples = decoded.shape[1]
    # [prompts, samples, kv_heads, context_tokens, head_dim]: no copy, samples have stride 0
    expanded = context.unsqueeze(1).expand(-1, samples, -1, -1, -1)
    return torch.cat([expanded, decoded], dim=3).flatten(0, 1)


def per_sample_cache(context: Tensor, decoded: Tensor) -> Tensor:
    """Return each sample's whole cache: a view of caches laid out as copies, else a copy.

    Returns [prompts * samples, kv_heads, context_tokens + decoded_tokens, head_dim].
    """
    if decoded.shape[1] == 1:
        whole = _whole(context, decoded.squeeze(1))
        if whole is not None:
            return whole
    return rebuild(context, decoded)


def packed_cache(context: Tensor, decoded: Tensor) -> Tensor:
    """Return the context followed by all samples' tokens: a view of packed caches, else a copy.

    Returns [prompts, kv_heads, context_tokens + samples * decoded_tokens, head_dim].
    """
    by_head = decoded.transpose(1, 2)  # [prompts, kv_heads, samples, decoded_tokens, head_dim]
    samples, tokens = by_head.shape[2:4]
    if tokens == 0:
        return context
    if samples == 1 or by_head.stride(2) == tokens * by_head.stride(3):
        whole = _whole(context, by_head.flatten(2, 3))
        if whole is not None:
            return whole
    return torch.cat([context, by_head.flatten(2, 3)], dim=2)


def _unpack(packed: Tensor, context_tokens: int, samples: int) -> Tensor:
    """Return the samples' own tokens in a packed cache, [prompts, samples, kv_heads, ...]."""
    own = packed[:, :, context_tokens:]
    tokens = own.shape[2] // samples
    return torch.unflatten(own, 2, (samples, tokens)).transpose(1, 2)


def _whole(first: Tensor, second: Tensor) -> Tensor | None:
    """Return two tensors as one along dimension 2, where the second follows the first in memory."""
    if first.shape[2] == 0:
        return second
    if second.shape[2] == 0:
        return first
    # Storages are compared by identity, because a tensor on the meta device has no address.
    same_storage = (
        first.untyped_storage()._cdata == second.untyped_storage()._cdata  # noqa: SLF001
    )
    steps = [
        a == b or size == 1
        for a, b, size in zip(first.stride(), second.stride(), first.shape, strict=True)
    ]
    # One token has no stride of its own; its neighbour's must then be the width of a token.
    step = first.stride(2) if first.shape[2] > 1 else second.stride(2)
    steps[2] = second.shape[2] == 1 or second.stride(2) == step
    follows = second.storage_offset() == first.storage_offset() + first.shape[2] * step
    if not (same_storage and all(steps) and follows):
        return None
    size = (*first.shape[:2], first.shape[2] + second.shape[2], first.shape[3])
    stride = (first.stride(0), first.stride(1), step, first.stride(3))
    return first.as_strided(size, stride)
