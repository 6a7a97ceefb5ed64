"""The two parts of a shared-prefix step, and the folding of queries into rows.

Every query of a prompt is past the whole context, so no mask is needed, and the order of queries
does not matter to the context: samples and the heads of a group can all be rows of one matrix.
Then each KV head is read once for all of them, and any group size (1, 3, 7, 12) is as good as a
power of two.
"""

import torch
from torch import Tensor

from simulator.evidence.kernels.operators import State, flash


def shared_tokens(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> State:
    """Attend to tokens that all samples of a prompt share, read once.

    query [prompts, samples, heads, head_dim], keys [prompts, kv_heads, tokens, head_dim] ->
    output [prompts, samples, kv_heads, group, head_dim] and its log-sum-exp.
    """
    rows = fold(query, keys.shape[1])  # [prompts, kv_heads, samples * group, head_dim]
    return unfold(flash(rows, keys, values, scale=scale), query.shape[1])


def own_tokens(query: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> State:
    """Attend to the tokens each sample has of its own.

    query [prompts, samples, heads, head_dim], keys [prompts, samples, kv_heads, tokens, head_dim]
    -> output [prompts, samples, kv_heads, group, head_dim] and its log-sum-exp.
    """
    rows = per_sequence(query, keys.shape[2])  # [prompts * samples, kv_heads, group, head_dim]
    output, log_sum_exp = flash(rows, keys.flatten(0, 1), values.flatten(0, 1), scale=scale)
    sequences = tuple(query.shape[:2])
    return torch.unflatten(output, 0, sequences), torch.unflatten(log_sum_exp, 0, sequences)


def fold(query: Tensor, kv_heads: int) -> Tensor:
    """Fold samples and groups into rows, a copy of the queries.

    [prompts, samples, heads, head_dim] -> [prompts, kv_heads, samples * group, head_dim];
    a view where there is one sample or one KV head.
    """
    grouped = torch.unflatten(
        query, 2, (kv_heads, -1)
    )  # [prompts, samples, kv_heads, group, head_dim]
    return grouped.transpose(1, 2).flatten(2, 3)


def unfold(state: State, samples: int) -> State:
    """View a folded state by sample again.

    [prompts, kv_heads, samples * group, ...] -> [prompts, samples, kv_heads, group, ...]
    """
    output, log_sum_exp = (
        torch.unflatten(part, 2, (samples, -1)).transpose(1, 2) for part in state
    )
    return output, log_sum_exp


def per_sequence(query: Tensor, kv_heads: int) -> Tensor:
    """View each sequence's queries with the heads of a group as rows.

    [prompts, samples, heads, head_dim] -> [prompts * samples, kv_heads, group, head_dim]
    """
    return torch.unflatten(query.flatten(0, 1), 1, (kv_heads, -1))
