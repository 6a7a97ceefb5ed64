"""Standard attention: every sample reads its whole context.

For every kernel but the expanded one, caches are one tensor per sample, ``[prompts * samples,
kv_heads, tokens, head_dim]`` with context and own tokens together: :mod:`.layout`.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from simulator.evidence.kernels.inputs import scale_of, shape_of
from simulator.evidence.kernels.layout import per_sample_cache, rebuild
from simulator.evidence.kernels.operators import State, flash, merge
from simulator.evidence.kernels.parts import own_tokens, per_sequence


def standard_einsum(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend in plain matrix products, logits in memory in the inputs' own type."""
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    # Scaling the query, not the logits, is the smaller pass and keeps float16 logits in range.
    queries = per_sequence(query, shape.kv_heads) * scale_of(query, scale)
    # b sequences, g KV heads, p queries of a group, m tokens, k head width
    logits = torch.einsum("bgpk,bgmk->bgpm", queries, keys)
    weights = torch.softmax(logits, dim=-1)
    output = torch.einsum("bgpm,bgmk->bgpk", weights, values)
    return output.reshape(query.shape)


def standard_math(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend by the math path of ``F.scaled_dot_product_attention``, KV heads repeated inside.

    PyTorch 2.5 and newer casts 16-bit inputs to float32 first, the whole cache included.
    """
    shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    queries = query.flatten(0, 1).unsqueeze(2)  # [prompts * samples, heads, 1, head_dim]
    with sdpa_kernel(SDPBackend.MATH):
        output = scaled_dot_product_attention(queries, keys, values, scale=scale, enable_gqa=True)
    return output.reshape(query.shape)


def standard_flash(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend in one flash kernel over one copy of the context per sample."""
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys)
    values = per_sample_cache(context_values, decoded_values)
    output, _ = flash(per_sequence(query, shape.kv_heads), keys, values, scale=scale)
    return output.reshape(query.shape)


def standard_flash_expanded(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend to the one shared context as if each sample had a copy, by a stride of 0.

    No copy is stored, yet every sample's thread blocks read the context again: from L2 where it
    fits, from memory where it does not. Own tokens are a second call, merged.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    states: list[State] = []
    if shape.decoded_tokens:
        states.append(own_tokens(query, decoded_keys, decoded_values, scale))
    if shape.context_tokens:
        # Samples are the batch and all prompts' KV heads the heads, because a batch of
        # prompts * samples has no single stride. [samples, prompts * kv_heads, group, head_dim]
        grouped = torch.unflatten(query, 2, (shape.kv_heads, shape.group))
        rows = grouped.transpose(0, 1).flatten(1, 2)
        keys = context_keys.flatten(0, 1).unsqueeze(0).expand(shape.samples, -1, -1, -1)
        values = context_values.flatten(0, 1).unsqueeze(0).expand(shape.samples, -1, -1, -1)
        output, log_sum_exp = flash(rows, keys, values, scale=scale)
        by_prompt = (shape.prompts, shape.kv_heads)
        states.append(
            (
                torch.unflatten(output, 1, by_prompt).transpose(0, 1),
                torch.unflatten(log_sum_exp, 1, by_prompt).transpose(0, 1),
            )
        )
    return merge(states).reshape(query.shape)


def standard_rebuilt(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Concatenate context and own tokens for every sample at every step, then flash.

    This is what caches that are not contiguous cost in front of a kernel that wants them so.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = rebuild(context_keys, decoded_keys)
    values = rebuild(context_values, decoded_values)
    output, _ = flash(per_sequence(query, shape.kv_heads), keys, values, scale=scale)
    return output.reshape(query.shape)


def standard_repeat_kv(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Repeat the KV heads to the number of query heads in memory, then flash.

    The expansion is paid even for multi-head attention: ``repeat_interleave(1)`` copies too.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    keys = per_sample_cache(context_keys, decoded_keys).repeat_interleave(shape.group, dim=1)
    values = per_sample_cache(context_values, decoded_values).repeat_interleave(shape.group, dim=1)
    queries = query.flatten(0, 1).unsqueeze(2)  # [prompts * samples, heads, 1, head_dim]
    output, _ = flash(queries, keys, values, scale=scale)
    return output.reshape(query.shape)
