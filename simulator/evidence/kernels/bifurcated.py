"""Bifurcated attention: the shared context is read once for all samples, exactly.

arXiv 2403.08845. The attention of a sample is split at the boundary between the context, which is
the same for all samples of a prompt, and the tokens the sample has decoded itself.
"""

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import scale_of, shape_of
from simulator.evidence.kernels.operators import State, flash, merge
from simulator.evidence.kernels.parts import fold, own_tokens, shared_tokens, unfold

CHUNKS = 4


def bifurcated_einsum(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend as the paper's code does: two products, one softmax over concatenated logits.

    The logits are in memory in the inputs' own type. The paper's code scales the logits and adds a
    mask over a padded cache; here the query is scaled and the cache holds no padding.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    queries = torch.unflatten(query, 2, (shape.kv_heads, shape.group)) * scale_of(query, scale)
    # x prompts, b samples, g KV heads, p queries of a group, m tokens, k head width
    context_logits = torch.einsum("xbgpk,xgmk->xbgpm", queries, context_keys)
    decoded_logits = torch.einsum("xbgpk,xbgmk->xbgpm", queries, decoded_keys)
    weights = torch.softmax(torch.cat([context_logits, decoded_logits], dim=-1), dim=-1)
    context_weights = weights[..., : shape.context_tokens]
    decoded_weights = weights[..., shape.context_tokens :]
    context_output = torch.einsum("xbgpm,xgmk->xbgpk", context_weights, context_values)
    decoded_output = torch.einsum("xbgpm,xbgmk->xbgpk", decoded_weights, decoded_values)
    # The decoded part lies like the query, and a sum lies like its first term.
    return (decoded_output + context_output).reshape(query.shape)


def bifurcated_flash(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend by flash on the context for all samples, flash on own tokens, and a merge."""
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    states: list[State] = []
    if shape.decoded_tokens:
        states.append(own_tokens(query, decoded_keys, decoded_values, scale))
    if shape.context_tokens:
        states.append(shared_tokens(query, context_keys, context_values, scale))
    return merge(states).reshape(query.shape)


def bifurcated_flash_chunked(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
    chunks: int = CHUNKS,
) -> Tensor:
    """Attend as :func:`bifurcated_flash`, the context cut into chunks by a view.

    More thread blocks run at once where the kernel does not split the keys itself. A context that
    does not divide leaves a shorter chunk, one call more.

    Raises
    ------
    KernelError
        If ``chunks`` is below one, or the inputs do not belong together.
    """
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    if chunks < 1:
        raise KernelError(f"chunks = {chunks} is not at least 1")
    states: list[State] = []
    if shape.decoded_tokens:
        states.append(own_tokens(query, decoded_keys, decoded_values, scale))
    chunk_tokens = max(1, shape.context_tokens // chunks)
    count = min(chunks, shape.context_tokens)
    whole = count * chunk_tokens
    if count:
        # Chunks are heads of their own, [prompts * kv_heads, chunks, ...]: the queries of a KV
        # head serve all of them by a stride of 0.
        rows = fold(query, shape.kv_heads)  # [prompts, kv_heads, samples * group, head_dim]
        chunked_rows = rows.flatten(0, 1).unsqueeze(1).expand(-1, count, -1, -1)
        cut = (count, chunk_tokens)
        keys = torch.unflatten(context_keys[:, :, :whole].flatten(0, 1), 1, cut)
        values = torch.unflatten(context_values[:, :, :whole].flatten(0, 1), 1, cut)
        output, log_sum_exp = flash(chunked_rows, keys, values, scale=scale)
        by_prompt = (shape.prompts, shape.kv_heads)
        states += [
            unfold(
                (
                    torch.unflatten(output[:, chunk], 0, by_prompt),
                    torch.unflatten(log_sum_exp[:, chunk], 0, by_prompt),
                ),
                shape.samples,
            )
            for chunk in range(count)
        ]
    if whole < shape.context_tokens:
        rest = flash(rows, context_keys[:, :, whole:], context_values[:, :, whole:], scale=scale)
        states.append(unfold(rest, shape.samples))
    return merge(states).reshape(query.shape)
