"""Memory layouts of KV caches, and views of them as one tensor without copying.

An engine chooses the layout of its caches once; a kernel then runs thousands of steps over them.
:func:`attention_inputs` makes that choice before anything is traced or timed:

========  ==========================================================================
shared    one context per prompt, each sample's decoded tokens apart (what kernels are given)
copies    every sample is its own prompt: its copy of the context, then its decoded tokens,
          next to each other in one buffer
packed    per prompt and KV head: the context, then the decoded tokens of sample after sample
rebuilt   as shared; the kernel concatenates at every step
paged     one pool of pages, [pages, page tokens, kv_heads, head_dim]: those of every context,
          then those of every sample's decoded tokens, each sequence on pages of its own; the
          last one is filled as far as its tokens reach
========  ==========================================================================

The shapes stay those of every kernel's signature. Context and decoded tokens become neighbouring
slices of one buffer, and a kernel for that layout views the buffer as a whole. Given caches in
another layout, it still answers, but pays for a copy.
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from simulator.evidence.kernels.inputs import Inputs
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS

if TYPE_CHECKING:
    from simulator.evidence.kernels import Layout

# A function that makes a random tensor of a shape.
Normal = Callable[[tuple[int, ...], torch.dtype], Tensor]
# The layouts in which one buffer holds context and decoded tokens.
JOINED = ("copies", "packed", "paged")
# prompts, samples, context tokens, decoded tokens
Sizes = tuple[int, int, int, int]


def attention_inputs(
    cell: Any, layout: "Layout", dtype: torch.dtype, normal: Normal, *, query: bool = True
) -> Inputs:
    """Allocate one layer's query and caches in a layout.

    Under ``copies`` the query is ``[prompts * samples, 1, ...]``, and so is every cache; the
    kernel's output, viewed like a query by prompts and samples, is the same.

    Parameters
    ----------
    cell
        What has the sizes of a call: prompts, samples and so on.
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


def buffer_shape(layout: "Layout", sizes: Sizes, kv_heads: int, head_dim: int) -> tuple[int, ...]:
    """Return the shape of the one buffer that holds all keys, or all values.

    Parameters
    ----------
    layout
        copies, packed or paged.
    sizes
        prompts, samples, context tokens, decoded tokens.
    kv_heads, head_dim
        Sizes of the model.
    """
    prompts, samples, context_tokens, decoded_tokens = sizes
    if layout == "copies":
        return prompts * samples, kv_heads, context_tokens + decoded_tokens, head_dim
    if layout == "packed":
        return prompts, kv_heads, context_tokens + samples * decoded_tokens, head_dim
    pages = prompts * (pages_of(context_tokens) + samples * pages_of(decoded_tokens))
    return pages, PAGE_TOKENS, kv_heads, head_dim


def parts(buffer: Tensor, layout: "Layout", sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return views of a buffer's context and decoded tokens, in the shapes kernels take.

    Parameters
    ----------
    buffer
        A tensor of :func:`buffer_shape`.
    layout
        copies, packed or paged.
    sizes
        prompts, samples, context tokens, decoded tokens.
    """
    prompts, samples, context_tokens, decoded_tokens = sizes
    if layout == "paged":
        first_own = prompts * pages_of(context_tokens)
        heads = buffer.shape[2:]
        # [prompts, tokens on pages, kv_heads, head_dim]
        context = buffer[:first_own].view(prompts, -1, *heads)[:, :context_tokens]
        own = buffer[first_own:].view(prompts, samples, -1, *heads)[:, :, :decoded_tokens]
        return context.transpose(1, 2), own.transpose(2, 3)
    own = buffer[:, :, context_tokens:]
    if layout == "copies":
        return buffer[:, :, :context_tokens], own.unsqueeze(1)
    by_sample = torch.unflatten(own, 2, (samples, decoded_tokens)).transpose(1, 2)
    return buffer[:, :, :context_tokens], by_sample


def rebuild(context: Tensor, decoded: Tensor) -> Tensor:
    """Concatenate the context with every sample's decoded tokens, for non-contiguous caches.

    Returns [prompts * samples, kv_heads, context_tokens + decoded_tokens, head_dim].
    """
    samples = decoded.shape[1]
    # [prompts, samples, kv_heads, context_tokens, head_dim]: no copy, samples have stride 0
    expanded = context.unsqueeze(1).expand(-1, samples, -1, -1, -1)
    return torch.cat([expanded, decoded], dim=3).flatten(0, 1)


def per_sample_cache(context: Tensor, decoded: Tensor) -> Tensor:
    """Return each sample's whole cache: a view if the layout is ``copies``, else a copy.

    Returns [prompts * samples, kv_heads, context_tokens + decoded_tokens, head_dim].
    """
    if decoded.shape[1] == 1:
        whole = _whole(context, decoded.squeeze(1))
        if whole is not None:
            return whole
    return rebuild(context, decoded)


def packed_cache(context: Tensor, decoded: Tensor) -> Tensor:
    """Return the context, then all samples' tokens: a view of packed caches, else a copy.

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


def page_pool(context: Tensor, decoded: Tensor) -> Tensor:
    """Return the pool that two caches are views of, or a new one in any other layout."""
    prompts, kv_heads, context_tokens, head_dim = context.shape
    sizes = (prompts, decoded.shape[1], context_tokens, decoded.shape[3])
    shape = buffer_shape("paged", sizes, kv_heads, head_dim)
    storage, first = context.untyped_storage(), context.storage_offset()
    room = storage.nbytes() // context.element_size() - first
    if storage_of(context) == storage_of(decoded) and room >= prod(shape):
        strides = [prod(shape[place + 1 :]) for place in range(len(shape))]
        pool = context.as_strided(shape, strides, first)
        views = zip(parts(pool, "paged", sizes), (context, decoded), strict=True)
        if all(
            view.stride() == part.stride() and view.storage_offset() == part.storage_offset()
            for view, part in views
        ):
            return pool
    pool = context.new_zeros(shape)
    for view, part in zip(parts(pool, "paged", sizes), (context, decoded), strict=True):
        view.copy_(part)
    return pool


def pages_of(tokens: int) -> int:
    """Return the number of pages for some tokens.

    >>> pages_of(16), pages_of(17)
    (1, 2)
    """
    return -(-tokens // PAGE_TOKENS)


def _whole(first: Tensor, second: Tensor) -> Tensor | None:
    """Return two tensors as one along dimension 2, if the second follows the first in memory."""
    if first.shape[2] == 0:
        return second
    if second.shape[2] == 0:
        return first
    steps = [
        a == b or size == 1
        for a, b, size in zip(first.stride(), second.stride(), first.shape, strict=True)
    ]
    # One token has no stride of its own; its neighbour's must then be the width of a token.
    step = first.stride(2) if first.shape[2] > 1 else second.stride(2)
    steps[2] = second.shape[2] == 1 or second.stride(2) == step
    follows = second.storage_offset() == first.storage_offset() + first.shape[2] * step
    if storage_of(first) != storage_of(second) or not (all(steps) and follows):
        return None
    size = (*first.shape[:2], first.shape[2] + second.shape[2], first.shape[3])
    stride = (first.stride(0), first.stride(1), step, first.stride(3))
    return first.as_strided(size, stride)


def storage_of(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage; on the meta device it has no address."""
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return identity
