"""PyTorch's fused attention with its log-sum-exp, guarded against its crashes; the merge.

A *state* describes attention over a set of keys: the output over those keys and the log-sum-exp of
their logits. States of disjoint sets of keys merge exactly into the state of their union, so a
context can be read once for all samples, and each sample's decoded tokens separately.

Every query comes after the whole context, so the context needs no mask and the order of queries
does not matter: samples, query tokens and the heads of a group can all be rows of one matrix. Then
each KV head is read once for all of them, and any group size (1, 3, 7, 12) works as well as a power
of two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import AttentionCall, scale_of

# (output [..., rows, head_dim], log-sum-exp [..., rows] in float32, or float64 for float64)
State = tuple[Tensor, Tensor]

HALF = (torch.float16, torch.bfloat16)
_DIMS = 4
# FlashAttention-2 as PyTorch ships it: 16-bit, head widths in steps of 8 up to 256.
FLASH_STEP = 8
FLASH_LARGEST = 256


def flash(query: Tensor, keys: Tensor, values: Tensor, *, scale: float | None = None) -> State:
    """Attend without a mask in one fused kernel, and return the log-sum-exp with the output.

    The operator is called directly, because ``F.scaled_dot_product_attention`` discards the
    log-sum-exp. On CUDA it is FlashAttention-2 for 16-bit types, the memory-efficient kernel for
    float32, and plain matrix products for float64; on the CPU, PyTorch's flash kernel for CPUs; on
    the meta device, what CUDA would run.

    Parameters
    ----------
    query
        [batch, heads, rows, head_dim]
    keys, values
        [batch, heads, tokens, head_dim]; dimensions of stride 0 are not copied.
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.

    Returns
    -------
    output
        [batch, heads, rows, head_dim]
    log_sum_exp
        [batch, heads, rows], natural logarithm, -inf without keys. Not contiguous on the CPU.

    Raises
    ------
    KernelError
        If the shapes do not match (PyTorch 2.13's CPU kernel would crash the process), or the
        device has no fused kernel for this type and head width.
    """
    _check(query, keys, values)
    if keys.shape[2] == 0:
        # Without keys, FlashAttention-2 returns +inf, and the CPU kernel dies dividing by 0.
        return _nothing(query)
    factor = scale_of(query, scale)
    if query.device.type == "cpu":
        output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            query, keys, values, scale=factor
        )
    elif query.dtype in HALF:
        _check_flash_width(query)
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            query, keys, values, scale=factor
        )
    elif query.dtype == torch.float32:
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(  # noqa: SLF001
            query, keys, values, None, compute_log_sumexp=True, scale=factor
        )
        log_sum_exp = log_sum_exp[:, :, : query.shape[2]]  # padded to a multiple of 32 rows
    else:
        output, log_sum_exp = _unfused(query, keys, values, factor)
    return output, log_sum_exp


def merge(states: Sequence[State]) -> Tensor:
    """Merge attention over disjoint sets of keys into attention over their union.

    ``sum_i softmax_i(lse)_i * output_i``, computed in float32 (float64 for float64) whatever the
    type of the outputs: rounding the weights to 16 bits would be the largest error of all. A set
    without keys, log-sum-exp -inf, has weight 0; at least one set must have keys.

    Parameters
    ----------
    states
        Outputs [..., head_dim] and log-sum-exps [...], all of the same shape, contiguous or not.
    """
    outputs = [output for output, _ in states]
    if len(outputs) == 1:
        return outputs[0]
    log_sum_exps = torch.stack([log_sum_exp for _, log_sum_exp in states])
    weights = torch.softmax(log_sum_exps, dim=0).unsqueeze(-1)  # [states, ..., 1]
    total = outputs[0] * weights[0]  # 16-bit x float32 is float32
    for output, weight in zip(outputs[1:-1], weights[1:-1], strict=True):
        total.addcmul_(output, weight)
    # The last pass writes in the outputs' type, which saves a pass for the cast.
    merged = torch.empty(total.shape, dtype=outputs[0].dtype, device=total.device)
    return torch.addcmul(total, outputs[-1], weights[-1], out=merged)


def causal_flash(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> State:
    """Attend causally to whole caches: the last query token is the last key.

    One query token sees all keys: the call has no causal flag and no mask, and the heads of a group
    are its rows. For several, FlashAttention-2 uses its causal flag. PyTorch's CPU kernel aligns
    that flag to the first key, so it gets a mask instead.

    Parameters
    ----------
    query
        [prompts, samples, query_tokens, heads, head_dim]
    keys, values
        [prompts * samples, kv_heads, tokens, head_dim]
    scale
        Factor on the logits.

    Returns
    -------
    output
        [prompts * samples, query_tokens, kv_heads, group, head_dim], without the second axis for
        one query token.
    log_sum_exp
        The same without head_dim.

    Raises
    ------
    KernelError
        As in :func:`flash`, or if the device has no causal kernel for this type.
    """
    tokens, (sequences, kv_heads, cached, head_dim) = query.shape[2], keys.shape
    if tokens == 1:
        return flash(query.reshape(sequences, kv_heads, -1, head_dim), keys, values, scale=scale)
    grouped = query.reshape(sequences, tokens, kv_heads, -1, head_dim)
    _check(grouped[:, 0], keys, values)
    if query.device.type == "cpu" or query.dtype == torch.float64:
        # [sequences, kv_heads, group * query_tokens, head_dim]: a mask for each head of a group
        rows = grouped.permute(0, 2, 3, 1, 4).flatten(2, 3)
        hidden = seen_tokens(tokens, cached, query.device).logical_not()
        mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
        mask = mask.masked_fill_(hidden, -torch.inf).repeat(grouped.shape[3], 1)
        if query.device.type == "cpu":
            output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
                rows, keys, values, attn_mask=mask, scale=scale
            )
        else:
            output, log_sum_exp = _unfused(rows, keys, values, scale, mask)
        by_head = (-1, tokens)
        return (
            torch.unflatten(output, 2, by_head).permute(0, 3, 1, 2, 4),
            torch.unflatten(log_sum_exp, 2, by_head).permute(0, 3, 1, 2),
        )
    if query.dtype not in HALF:
        raise KernelError(f"{tokens} query tokens in {query.dtype}: flash attention needs 16 bits")
    _check_flash_width(query)
    # Fewer KV heads than heads are shared inside the operator.
    output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
        query.flatten(0, 1).transpose(1, 2), keys, values, is_causal=True, scale=scale
    )
    by_group = (kv_heads, -1)
    return (
        torch.unflatten(output.transpose(1, 2), 2, by_group),
        torch.unflatten(log_sum_exp.transpose(1, 2), 2, by_group),
    )


def decoded_states(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> list[State]:
    """Attend to each sample's decoded tokens; no state where there are none.

    Parameters
    ----------
    query
        [prompts, samples, query_tokens, heads, head_dim]
    keys, values
        [prompts, samples, kv_heads, decoded_tokens, head_dim]
    scale
        Factor on the logits.

    Returns
    -------
    output
        [prompts, samples, query_tokens, kv_heads, group, head_dim]
    log_sum_exp
        [prompts, samples, query_tokens, kv_heads, group]
    """
    prompts, samples, tokens, heads, head_dim = query.shape
    kv_heads = keys.shape[2]
    if keys.shape[3] == 0:
        return []
    output, log_sum_exp = causal_flash(query, keys.flatten(0, 1), values.flatten(0, 1), scale)
    # Views: one axis is split, and one of a single token is added.
    sizes = (prompts, samples, tokens, kv_heads, heads // kv_heads)
    return [(output.reshape(*sizes, head_dim), log_sum_exp.reshape(sizes))]


def shared_tokens(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> State:
    """Attend to shared tokens, read once for all queries below a node.

    Parameters
    ----------
    query
        [prompts, samples, query_tokens, heads, head_dim]
    keys, values
        [nodes, kv_heads, tokens, head_dim]; node i is shared by the i-th run of prompts.
    scale
        Factor on the logits.

    Returns
    -------
    output
        [prompts, samples, query_tokens, kv_heads, group, head_dim]
    log_sum_exp
        [prompts, samples, query_tokens, kv_heads, group]
    """
    rows = fold(query, keys.shape[0], keys.shape[1])
    return unfold(flash(rows, keys, values, scale=scale), query)


def fold(query: Tensor, nodes: int, kv_heads: int) -> Tensor:
    """Fold all queries below a node, and the heads of a group, into rows, by a copy.

    With one query or one KV head it is a view.

    Parameters
    ----------
    query
        [prompts, samples, query_tokens, heads, head_dim]
    nodes, kv_heads
        First axes of the result, [nodes, kv_heads, rows, head_dim].
    """
    *_, heads, head_dim = query.shape
    by_node = query.reshape(nodes, -1, kv_heads, heads // kv_heads, head_dim)
    return by_node.transpose(1, 2).flatten(2, 3)


def unfold(state: State, query: Tensor) -> State:
    """Unfold the state of folded rows to [prompts, samples, query_tokens, kv_heads, ...].

    It is a view, except for several nodes that are fewer than prompts.
    """
    prompts, samples, tokens, *_ = query.shape
    nodes = state[0].shape[0]
    if nodes == prompts:
        output, log_sum_exp = (torch.unflatten(part, 2, (samples, tokens, -1)) for part in state)
        return output.permute(0, 2, 3, 1, 4, 5), log_sum_exp.permute(0, 2, 3, 1, 4)
    output, log_sum_exp = (
        torch.unflatten(part, 2, (prompts // nodes, samples, tokens, -1))
        .movedim(1, 4)
        .flatten(0, 1)
        for part in state
    )
    return output, log_sum_exp


def seen_tokens(tokens: int, cached: int, device: torch.device | str) -> Tensor:
    """Return which cached tokens each new token sees, [query_tokens, cached], bool.

    Parameters
    ----------
    tokens
        Query tokens of each sample, which are the last of its cache.
    cached
        All tokens of its cache.
    device
        Device of the mask.
    """
    every = torch.ones(tokens, cached, dtype=torch.bool, device=device)
    return every.tril(cached - tokens)


def hide_tokens(logits: Tensor, tokens: int, mask: Tensor | None) -> Tensor:
    """Hide from each new token the later ones, in place; the new tokens' keys are the last.

    Parameters
    ----------
    logits
        [..., query_tokens * group, keys]
    tokens
        Query tokens; a single one needs no mask.
    mask
        :func:`hidden_tokens`, made here if not given.
    """
    if tokens > 1:
        mask = hidden_tokens(tokens, logits.device) if mask is None else mask
        torch.unflatten(logits[..., -tokens:], -2, (tokens, -1)).masked_fill_(mask, -torch.inf)
    return logits


def rows_of(call: AttentionCall, *sequences: int) -> Tensor:
    """Scale the queries and fold them into rows, [*sequences, kv_heads, rows, head_dim].

    The rows of a KV head are its query tokens, and for each token the heads of its group. Scaling
    the query instead of the logits is the smaller pass, and keeps float16 logits in range.
    """
    rows = call.query * call.scale
    if call.query_tokens > 1:
        grouped = torch.unflatten(rows, 3, (call.kv_heads, call.group))
        rows = grouped.transpose(2, 3).contiguous()
    return rows.reshape(*sequences, call.kv_heads, -1, call.head_dim)


def tokens_of(output: Tensor, call: AttentionCall) -> Tensor:
    """Unfold rows [..., kv_heads, query_tokens * group, head_dim] to the query's order."""
    if call.query_tokens == 1:
        return output
    sizes = (call.prompts, call.samples, call.kv_heads, call.query_tokens, call.group, -1)
    return output.reshape(sizes).transpose(2, 3).contiguous()


def hidden_tokens(tokens: int, device: torch.device | str) -> Tensor:
    """Return which new tokens each one cannot see, [query_tokens, 1, query_tokens], bool.

    It is broadcast over all heads of a group.
    """
    pairs = torch.ones(tokens, tokens, dtype=torch.bool, device=device)
    return pairs.triu(1).unsqueeze(1)


def _check(query: Tensor, keys: Tensor, values: Tensor) -> None:
    """Refuse inputs on which the native kernels would crash or give wrong results."""
    for name, tensor in (("query", query), ("keys", keys), ("values", values)):
        if tensor.dim() != _DIMS:
            raise KernelError(f"{name} is {list(tensor.shape)}, not [batch, heads, rows, head_dim]")
        if tensor.dtype != query.dtype or not tensor.is_floating_point():
            raise KernelError(f"{name} is {tensor.dtype}, query is {query.dtype}")
        if tensor.device != query.device:
            raise KernelError(f"{name} is on {tensor.device}, query on {query.device}")
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1 and tensor.numel():
            raise KernelError(
                f"{name} has stride {tensor.stride(-1)} within a head; a flash kernel needs 1 "
                "(call .contiguous() first)"
            )
    batch, heads, _, head_dim = query.shape
    expected = (batch, heads, keys.shape[2], head_dim)
    if tuple(keys.shape) != expected or tuple(values.shape) != expected:
        raise KernelError(
            f"keys {list(keys.shape)} and values {list(values.shape)} do not go with query "
            f"{list(query.shape)}: batch, heads and head_dim must be equal (use expand)"
        )
    if query.numel() == 0:
        raise KernelError(f"query is {list(query.shape)}: there is nothing to ask")


def _check_flash_width(query: Tensor) -> None:
    """Refuse head widths that the direct call would have to pad."""
    head_dim = query.shape[-1]
    if head_dim % FLASH_STEP or head_dim > FLASH_LARGEST:
        raise KernelError(
            f"head_dim = {head_dim}: the flash kernel takes multiples of {FLASH_STEP} "
            f"up to {FLASH_LARGEST}"
        )


def _nothing(query: Tensor) -> State:
    """Return the state of no keys: it does not change a merge."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.zeros_like(query), query.new_full(query.shape[:-1], -torch.inf, dtype=dtype)


def _unfused(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None = None
) -> State:
    """Attend with two matrix products: slow, to check results in float64 on a GPU."""
    logits = (query * scale) @ keys.transpose(-1, -2)  # [batch, heads, rows, tokens]
    if mask is not None:
        logits = logits + mask
    log_sum_exp = torch.logsumexp(logits, dim=-1)
    return torch.exp(logits - log_sum_exp.unsqueeze(-1)) @ values, log_sum_exp
