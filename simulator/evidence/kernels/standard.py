"""Standard attention: every sample reads its whole context.

For every kernel but the expanded one, caches are one tensor per sample, ``[prompts * samples,
kv_heads, tokens, head_dim]`` with context and decoded tokens together: :mod:`.layout`.
"""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from simulator.evidence.kernels import operators
from simulator.evidence.kernels.inputs import AttentionCall, kernel
from simulator.evidence.kernels.layout import per_sample_cache, rebuild


@kernel
def standard_einsum(call: AttentionCall, *, mask: Tensor | None = None) -> Tensor:
    """Attend with plain matrix products, with the logits in memory in the inputs' type."""
    keys, values = _per_sample(call)
    rows = operators.rows_of(call, call.prompts * call.samples)
    # b sequences, g KV heads, r rows, m tokens, k head width
    logits = torch.einsum("bgrk,bgmk->bgrm", rows, keys)
    weights = torch.softmax(operators.hide_tokens(logits, call.query_tokens, mask), dim=-1)
    return operators.tokens_of(torch.einsum("bgrm,bgmk->bgrk", weights, values), call)


@kernel
def standard_math(call: AttentionCall, *, mask: Tensor | None = None) -> Tensor:
    """Attend with the math path of ``F.scaled_dot_product_attention``, which repeats KV heads.

    PyTorch 2.5 and newer casts 16-bit inputs to float32 first, the whole cache included.
    """
    keys, values = _per_sample(call)
    if mask is None and call.query_tokens > 1:
        mask = operators.seen_tokens(call.query_tokens, keys.shape[2], keys.device)
    queries = call.query.flatten(0, 1).transpose(1, 2)  # [sequences, heads, query_tokens, head_dim]
    with sdpa_kernel(SDPBackend.MATH):
        output = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, scale=call.scale, enable_gqa=True
        )
    if call.query_tokens == 1:
        return output
    # Contiguous, because the next projection reads tokens as rows.
    return output.transpose(1, 2).contiguous()


@kernel
def standard_flash(call: AttentionCall) -> Tensor:
    """Attend in one flash kernel over one copy of the context per sample."""
    return operators.causal_flash(call.query, *_per_sample(call), call.scale)[0]


@kernel
def standard_flash_expanded(call: AttentionCall) -> Tensor:
    """Attend to one shared context as if each sample had a copy, with a stride of 0.

    No copy is stored, but every sample's thread blocks read the context again: from L2 if it fits,
    else from memory. Decoded tokens take a second call and a merge.
    """
    states = operators.decoded_states(call.query, *call.decoded, call.scale)
    if call.context_tokens:
        # Samples are the batch and all prompts' KV heads the heads, because a batch of
        # prompts * samples has no single stride.
        grouped = torch.unflatten(call.query, 3, (call.kv_heads, -1))
        # [samples, prompts, kv_heads, query_tokens, group, head_dim], then heads and rows
        by_sample = grouped.permute(1, 0, 3, 2, 4, 5)
        rows = by_sample.reshape(call.samples, call.prompts * call.kv_heads, -1, call.head_dim)
        keys, values = (
            part.flatten(0, 1).unsqueeze(0).expand(call.samples, -1, -1, -1)
            for part in call.context
        )
        output, log_sum_exp = (
            part.reshape(by_sample.shape[: part.dim() + 2])
            for part in operators.flash(rows, keys, values, scale=call.scale)
        )
        states.append((output.permute(1, 0, 3, 2, 4, 5), log_sum_exp.permute(1, 0, 3, 2, 4)))
    return operators.merge(states)


@kernel
def standard_rebuilt(call: AttentionCall) -> Tensor:
    """Concatenate context and decoded tokens for every sample at every step, then flash.

    This is the cost of non-contiguous caches before a kernel that needs contiguous ones.
    """
    keys, values = map(rebuild, call.context, call.decoded)
    return operators.causal_flash(call.query, keys, values, call.scale)[0]


@kernel
def standard_repeat_kv(call: AttentionCall) -> Tensor:
    """Repeat the KV heads to the number of query heads in memory, then flash.

    Even multi-head attention pays for the expansion: ``repeat_interleave(1)`` copies too.
    """
    keys, values = (part.repeat_interleave(call.group, dim=1) for part in _per_sample(call))
    return operators.causal_flash(call.query, keys, values, call.scale)[0]


def _per_sample(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return each sample's whole keys and values, [prompts * samples, kv_heads, tokens, ...]."""
    keys, values = map(per_sample_cache, call.context, call.decoded)
    return keys, values
