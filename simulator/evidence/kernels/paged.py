"""A paged cache: context and own tokens in one pool of pages, as serving engines keep them.

A pool is ``[pages, page tokens, kv_heads, head_dim]``, one for keys and one for values. The pages
of every prompt's context come first, then those of every sample's own tokens, each sequence on
pages of its own: the last one is filled as far as its tokens reach.
"""

from math import prod

import torch
from torch import Tensor

from simulator.evidence.kernels.inputs import Shape
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS


def pages_of(tokens: int) -> int:
    """Return the pages of so many tokens.

    >>> pages_of(16), pages_of(17)
    (1, 2)
    """
    return -(-tokens // PAGE_TOKENS)


def pool_shape(
    prompts: int,
    samples: int,
    context_tokens: int,
    decoded_tokens: int,
    kv_heads: int,
    head_dim: int,
) -> tuple[int, int, int, int]:
    """Return the shape of a pool that holds the keys, or the values, of all sequences."""
    pages = prompts * (pages_of(context_tokens) + samples * pages_of(decoded_tokens))
    return pages, PAGE_TOKENS, kv_heads, head_dim


def paged_views(
    pool: Tensor, prompts: int, samples: int, context_tokens: int, decoded_tokens: int
) -> tuple[Tensor, Tensor]:
    """Return context and own tokens of a pool as every kernel is given them, without a copy."""
    first_own = prompts * pages_of(context_tokens)
    heads = pool.shape[2:]
    # [prompts, tokens on pages, kv_heads, head_dim]
    context = pool[:first_own].view(prompts, -1, *heads)[:, :context_tokens]
    own = pool[first_own:].view(prompts, samples, -1, *heads)[:, :, :decoded_tokens]
    return context.transpose(1, 2), own.transpose(2, 3)


def page_pool(context: Tensor, decoded: Tensor) -> Tensor:
    """Return the pool that two caches are views of; a new one if they lie otherwise."""
    prompts, kv_heads, context_tokens, head_dim = context.shape
    samples, decoded_tokens = decoded.shape[1], decoded.shape[3]
    sizes = (prompts, samples, context_tokens, decoded_tokens)
    shape = pool_shape(*sizes, kv_heads, head_dim)
    storage, first = context.untyped_storage(), context.storage_offset()
    room = storage.nbytes() // context.element_size() - first
    same = storage._cdata == decoded.untyped_storage()._cdata  # noqa: SLF001
    if same and room >= prod(shape):
        strides = [prod(shape[place + 1 :]) for place in range(len(shape))]
        pool = context.as_strided(shape, strides, first)
        views = zip(paged_views(pool, *sizes), (context, decoded), strict=True)
        if all(
            view.stride() == part.stride() and view.storage_offset() == part.storage_offset()
            for view, part in views
        ):
            return pool
    pool = context.new_zeros(shape)
    for view, part in zip(paged_views(pool, *sizes), (context, decoded), strict=True):
        view.copy_(part)
    return pool


def query_ends(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where the queries of a context's samples, and of every sample, begin and end."""
    sequences = shape.prompts * shape.samples
    return _ends(shape.prompts, shape.samples, device), _ends(sequences, 1, device)


def page_ends(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where the pages of contexts, and of own tokens, begin and end in their lists."""
    sequences = shape.prompts * shape.samples
    return (
        _ends(shape.prompts, pages_of(shape.context_tokens), device),
        _ends(sequences, pages_of(shape.decoded_tokens), device),
    )


def page_numbers(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the numbers of the pages of contexts [prompts, pages], and of own tokens."""
    sequences = shape.prompts * shape.samples
    context, own = pages_of(shape.context_tokens), pages_of(shape.decoded_tokens)
    first_own = shape.prompts * context
    every = torch.arange(first_own + sequences * own, dtype=torch.int32, device=device)
    return every[:first_own].view(shape.prompts, -1), every[first_own:].view(sequences, -1)


def _ends(count: int, size: int, device: torch.device) -> Tensor:
    """Return 0, size, 2 size and so on."""
    return torch.arange(count + 1, dtype=torch.int32, device=device) * size
