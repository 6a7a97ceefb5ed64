"""Several new tokens of each sample in one step: speculative and multi-token decoding.

Queries are ``[prompts, samples, query_tokens, heads, head_dim]``; a sample's last ``query_tokens``
own tokens are the new ones, their keys and values written already. All of them are past the
context, so to the context they are rows like those of other samples. Among themselves they are
causal: token i sees the own tokens up to itself. A flash kernel does that by its causal flag,
aligned to the last key, without a pass; otherwise a mask hides the logits of later tokens. FLOPs
are those of all pairs, as ``torch.utils.flop_counter`` counts them whatever the mask: kernels
compute whole tiles, of which n new tokens fill a part.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

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


def standard_einsum(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend in plain matrix products, new tokens as rows of their KV head, logits in memory."""
    shape = _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    rows = _rows(query, shape, scale).flatten(0, 1)
    # b sequences, g KV heads, r rows, m tokens, k head width
    logits = torch.einsum("bgrk,bgmk->bgrm", rows, keys)
    weights = torch.softmax(_masked(logits, query.shape[2], mask), dim=-1)
    output = torch.einsum("bgrm,bgmk->bgrk", weights, values)
    return _tokens(output, query)


def standard_math(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend by the math path of ``F.scaled_dot_product_attention``, with a mask over all keys."""
    _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    if mask is None:
        mask = mask_of("standard_math", query.shape[2], keys.shape[2], query.device)
    queries = query.flatten(0, 1).transpose(1, 2)  # [prompts * samples, heads, query_tokens, ...]
    with sdpa_kernel(SDPBackend.MATH):
        output = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=True
        )
    # Contiguous, for the projection that follows reads tokens as rows.
    return output.transpose(1, 2).contiguous().reshape(query.shape)


def bifurcated_einsum(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend as the paper's code does, new tokens as rows of their KV head and masked."""
    shape = _shape(query, context_keys, context_values, decoded_keys, decoded_values)
    queries = _rows(query, shape, scale)
    # x prompts, b samples, g KV heads, r rows, m tokens, k head width
    context_logits = torch.einsum("xbgrk,xgmk->xbgrm", queries, context_keys)
    decoded_logits = torch.einsum("xbgrk,xbgmk->xbgrm", queries, decoded_keys)
    decoded_logits = _masked(decoded_logits, query.shape[2], mask)
    weights = torch.softmax(torch.cat([context_logits, decoded_logits], dim=-1), dim=-1)
    context_weights = weights[..., : shape.context_tokens]
    decoded_weights = weights[..., shape.context_tokens :]
    context_output = torch.einsum("xbgrm,xgmk->xbgrk", context_weights, context_values)
    decoded_output = torch.einsum("xbgrm,xbgmk->xbgrk", decoded_weights, decoded_values)
    return _tokens(decoded_output + context_output, query)


# By the names of the kernels for one token.
QUERY_TOKENS: dict[str, Callable[..., Tensor]] = {
    "standard_einsum": standard_einsum,
    "standard_math": standard_math,
    "standard_flash": standard_flash,
    "standard_flash_expanded": standard_flash_expanded,
    "standard_rebuilt": standard_rebuilt,
    "bifurcated_einsum": bifurcated_einsum,
    "bifurcated_flash": bifurcated_flash,
    "prefix_tree": prefix_tree,
}
_QUERY = "[prompts, samples, query_tokens, heads, head_dim]"


def mask_of(name: str, tokens: int, cached: int, device: torch.device | str) -> Tensor | None:
    """Return what a kernel is given as ``mask``, for an engine has it ready before a step.

    None where the kernel needs none: for one token, and for flash attention's flag. The math path
    says for all ``cached`` tokens which each new one sees, the others which new ones are hidden.
    """
    if tokens == 1 or "flash" in name or name in ("standard_rebuilt", "prefix_tree"):
        return None
    if name == "standard_math":
        every = torch.ones(tokens, cached, dtype=torch.bool, device=device)
        return every.tril(cached - tokens)
    pairs = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    return pairs.triu(1).unsqueeze(1)  # [query_tokens, 1, query_tokens]: alike for a whole group


def _shape(query: Tensor, *caches: Tensor) -> Shape:
    """Read the sizes of a kernel's inputs, as of one token."""
    if query.dim() != _DIMS or query.shape[2] == 0:
        raise KernelError(f"query is {list(query.shape)}, not {_QUERY}")
    shape = shape_of(query[:, :, 0], *caches)
    if shape.decoded_tokens < query.shape[2]:
        raise KernelError(
            f"{query.shape[2]} query tokens, but a sample has {shape.decoded_tokens} of its own"
        )
    return shape


def _rows(query: Tensor, shape: Shape, scale: float | None) -> Tensor:
    """Scale the queries and make a KV head's rows of them, [prompts, samples, kv_heads, rows, k].

    The rows of a KV head are its new tokens, and for each the heads of its group.
    """
    grouped = torch.unflatten(query * scale_of(query, scale), 3, (shape.kv_heads, shape.group))
    return grouped.transpose(2, 3).contiguous().flatten(3, 4)


def _tokens(output: Tensor, query: Tensor) -> Tensor:
    """Put rows back as tokens, shaped like the query."""
    prompts, samples, tokens, *_ = query.shape
    by_row = output.reshape(
        prompts, samples, -1, tokens, output.shape[-2] // tokens, query.shape[4]
    )
    return by_row.transpose(2, 3).contiguous().reshape(query.shape)


def _masked(logits: Tensor, tokens: int, mask: Tensor | None) -> Tensor:
    """Hide from each new token those after it, in place; the new tokens' keys are the last."""
    if mask is None:
        mask = mask_of("standard_einsum", tokens, tokens, logits.device)
    if mask is not None:
        torch.unflatten(logits[..., -tokens:], -2, (tokens, -1)).masked_fill_(mask, -torch.inf)
    return logits


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
