"""Attention over a tree of shared prefixes: few-shot examples, problem, samples."""

from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import check_context, check_decoded, check_query
from simulator.evidence.kernels.operators import State, merge
from simulator.evidence.kernels.parts import own_tokens, shared_tokens


def prefix_tree(
    query: Tensor,
    context_keys: Tensor | Sequence[Tensor],
    context_values: Tensor | Sequence[Tensor],
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend to any number of shared levels, each read once per node, and to own tokens.

    Parameters
    ----------
    query
        [prompts, samples, heads, head_dim]
    context_keys, context_values
        One tensor, or one for each level from the root down, of [nodes, kv_heads, tokens,
        head_dim]. A level's nodes divide the prompts: node i is shared by the i-th run of
        ``prompts / nodes`` prompts. A level of one node is shared by all, a level of ``prompts``
        nodes is each prompt's own.
    decoded_keys, decoded_values
        [prompts, samples, kv_heads, decoded_tokens, head_dim]
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.

    Raises
    ------
    KernelError
        If a level's nodes do not divide the prompts, or the tensors do not belong together.

    Notes
    -----
    One flash call per level and one merge. A level of more than one node but fewer than prompts
    copies its partial output, because no single stride leads from node to prompt.
    """
    keys_of = [context_keys] if isinstance(context_keys, Tensor) else list(context_keys)
    values_of = [context_values] if isinstance(context_values, Tensor) else list(context_values)
    _check(query, keys_of, values_of, decoded_keys, decoded_values)
    states: list[State] = []
    if decoded_keys.shape[3]:
        states.append(own_tokens(query, decoded_keys, decoded_values, scale))
    samples = query.shape[1]
    for keys, values in zip(keys_of, values_of, strict=True):
        if keys.shape[2] == 0:
            continue
        # All sequences below a node are its samples: [nodes, prompts / nodes * samples, ...]
        below = torch.unflatten(query.flatten(0, 1), 0, (keys.shape[0], -1))
        # [nodes, prompts / nodes * samples, ...] -> [prompts, samples, ...]
        output, log_sum_exp = (
            torch.unflatten(part, 1, (-1, samples)).flatten(0, 1)
            for part in shared_tokens(below, keys, values, scale)
        )
        states.append((output, log_sum_exp))
    return merge(states).reshape(query.shape)


def _check(
    query: Tensor,
    keys_of: list[Tensor],
    values_of: list[Tensor],
    decoded_keys: Tensor,
    decoded_values: Tensor,
) -> None:
    """Refuse levels that do not belong to the query."""
    if not keys_of or len(keys_of) != len(values_of):
        raise KernelError(f"{len(keys_of)} levels of keys and {len(values_of)} of values")
    kv_heads = check_query(query, keys_of[0])
    check_decoded(query, decoded_keys, decoded_values, kv_heads=kv_heads)
    for index, (keys, values) in enumerate(zip(keys_of, values_of, strict=True)):
        level = f"level_{index}"
        nodes = keys.shape[0] if keys.dim() else 0
        if nodes < 1 or query.shape[0] % nodes:
            raise KernelError(
                f"{level} has {nodes} nodes, which do not divide {query.shape[0]} prompts"
            )
        check_context(query, keys, values, nodes=nodes, kv_heads=kv_heads, level=level)
    if decoded_keys.shape[3] + sum(keys.shape[2] for keys in keys_of) == 0:
        raise KernelError("there is nothing to attend to: no level and no sample has tokens")
