"""Several new tokens of each sample in one step: speculative and multi-token decoding.

Queries are ``[prompts, samples, query_tokens, heads, head_dim]``; a sample's last ``query_tokens``
own tokens are the new ones, their keys and values written already. All of them are past the
context, so to the context they are rows like those of other samples. Among themselves they are
causal: token i sees the own tokens up to itself, by the kernel's causal mask aligned to the last
key, which on CUDA costs no pass. FLOPs are those of all pairs, as ``torch.utils.flop_counter``
counts them whatever the mask: kernels compute whole tiles, of which n new tokens fill a part.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import Shape, scale_of, shape_of
from simulator.evidence.kernels.layout import per_sample_cache, rebuild
from simulator.evidence.kernels.operators import State, flash, merge
from simulator.evidence.kernels.parts import shared_tokens

_DIMS = 5


def standard_flash(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend in one causal flash kernel over one copy of the context per sample."""
    _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    return _over_whole_caches(query, keys, values, scale)


def standard_rebuilt(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Concatenate context and own tokens for every sample, then one causal flash kernel."""
    _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = rebuild(context_keys, decoded_keys)
    values = rebuild(context_values, decoded_values)
    return _over_whole_caches(query, keys, values, scale)


def standard_flash_expanded(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend to the one shared context as if each sample had a copy, by a stride of 0."""
    shape = _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    states = [_own_tokens(query, decoded_keys, decoded_values, scale)]
    if shape.context_tokens:
        grouped = torch.unflatten(query, 3, (shape.kv_heads, shape.group))
        # [samples, prompts, kv_heads, query_tokens, group, head_dim], then heads and rows
        apart = grouped.permute(1, 0, 3, 2, 4, 5)
        by_head = (shape.samples, shape.prompts * shape.kv_heads, -1, shape.head_dim)
        keys, values = (
            part.flatten(0, 1).unsqueeze(0).expand(shape.samples, -1, -1, -1)
            for part in (context_keys, context_values)
        )
        state = flash(apart.reshape(by_head), keys, values, scale=scale)
        output, log_sum_exp = (part.reshape(apart.shape[: part.dim() + 2]) for part in state)
        states.append((output.permute(1, 0, 3, 2, 4, 5), log_sum_exp.permute(1, 0, 3, 2, 4)))
    return merge(states).reshape(query.shape)


def bifurcated_flash(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend by flash on the context for all tokens of all samples, causal flash on own tokens."""
    return prefix_tree(
        query, [context_keys], [context_values], decoded_keys, decoded_values, scale=scale
    )


def prefix_tree(
    query: Tensor,
    level_keys: Sequence[Tensor],
    level_values: Sequence[Tensor],
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend to levels of shared tokens, each read once per node, and to own tokens.

    Levels are as in :func:`simulator.evidence.kernels.tree.prefix_tree`.
    """
    if query.dim() != _DIMS:
        raise KernelError(f"query is {list(query.shape)}, not {_QUERY}")
    _, samples, tokens, *_ = query.shape
    states = [_own_tokens(query, decoded_keys, decoded_values, scale)]
    for keys, values in zip(level_keys, level_values, strict=True):
        if keys.shape[2] == 0:
            continue
        # All new tokens of all sequences below a node are its rows.
        below = torch.unflatten(query.flatten(0, 2), 0, (keys.shape[0], -1))
        state = shared_tokens(below, keys, values, scale)
        output, log_sum_exp = (
            torch.unflatten(part, 1, (-1, samples, tokens)).flatten(0, 1) for part in state
        )
        states.append((output, log_sum_exp))
    return merge(states).reshape(query.shape)


# By the names of the kernels for one token.
QUERY_TOKENS: dict[str, Callable[..., Tensor]] = {
    "standard_flash": standard_flash,
    "standard_flash_expanded": standard_flash_expanded,
    "standard_rebuilt": standard_rebuilt,
    "bifurcated_flash": bifurcated_flash,
    "prefix_tree": prefix_tree,
}
_QUERY = "[prompts, samples, query_tokens, heads, head_dim]"


def _shape(query: Tensor, *caches: Tensor) -> Shape:
    """Read the sizes of a kernel's inputs, as of one token."""
    if query.dim() != _DIMS or query.shape[2] == 0:
        raise KernelError(f"query is {list(query.shape)}, not {_QUERY}")
    return shape_of(query[:, :, 0], *caches)


def _over_whole_caches(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Attend to each sample's whole cache, [prompts * samples, kv_heads, tokens, head_dim]."""
    output, _ = _causal_flash(query.flatten(0, 1).transpose(1, 2), keys, values, scale)
    return output.transpose(1, 2).reshape(query.shape)


def _own_tokens(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> State:
    """Attend to the own tokens; both of [prompts, samples, query_tokens, kv_heads, group, ...]."""
    rows = query.flatten(0, 1).transpose(1, 2)  # [sequences, heads, query_tokens, head_dim]
    state = _causal_flash(rows, keys.flatten(0, 1), values.flatten(0, 1), scale)
    sequences, kv_heads = tuple(query.shape[:2]), keys.shape[2]
    output, log_sum_exp = (
        torch.unflatten(torch.unflatten(part.transpose(1, 2), 2, (kv_heads, -1)), 0, sequences)
        for part in state
    )
    return output, log_sum_exp


def _causal_flash(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> State:
    """Attend causally, the last query with the last key; query heads may share KV heads.

    Raises
    ------
    KernelError
        If there are fewer keys than queries: the new tokens' own keys are not there.
    """
    tokens, cached = query.shape[2], keys.shape[2]
    if cached < tokens:
        raise KernelError(f"{tokens} query tokens, but a sample has {cached} tokens in its cache")
    factor = scale_of(query, scale)
    if query.device.type != "cpu":
        # FlashAttention-2 takes fewer KV heads than heads, and aligns the mask to the last key.
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            query, keys, values, is_causal=True, scale=factor
        )
        return output, log_sum_exp
    # The CPU's kernel aligns its causal mask to the first key, so it is given a mask.
    group = query.shape[1] // keys.shape[1]
    unseen = torch.ones(tokens, cached, dtype=torch.bool).tril(cached - tokens).logical_not()
    mask = torch.zeros(tokens, cached, dtype=query.dtype).masked_fill_(unseen, -torch.inf)
    output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
        query,
        keys.repeat_interleave(group, dim=1),
        values.repeat_interleave(group, dim=1),
        attn_mask=mask,
        scale=factor,
    )
    return output, log_sum_exp
