"""Bifurcated attention: an exact method that reads the shared context once for all samples.

arXiv 2403.08845. The attention of a sample is split at the boundary between the context, which all
samples of a prompt share, and the tokens that the sample has decoded. Contexts that share a part,
such as few-shot examples before each problem, form a tree of such levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels import inputs, operators
from simulator.evidence.kernels.inputs import AttentionCall, kernel, with_tokens

CHUNKS = 4


@kernel
def bifurcated_einsum(call: AttentionCall, *, mask: Tensor | None = None) -> Tensor:
    """Attend as the paper's code does: two products, one softmax over concatenated logits.

    The logits are in memory in the inputs' type. The paper's code scales the logits and adds a mask
    over a padded cache; this code scales the query, and the cache has no padding.
    """
    (context_keys, context_values), (decoded_keys, decoded_values) = call.context, call.decoded
    rows = operators.rows_of(call, call.prompts, call.samples)
    # x prompts, b samples, g KV heads, r rows, m tokens, k head width
    context_logits = torch.einsum("xbgrk,xgmk->xbgrm", rows, context_keys)
    decoded_logits = torch.einsum("xbgrk,xbgmk->xbgrm", rows, decoded_keys)
    decoded_logits = operators.hide_tokens(decoded_logits, call.query_tokens, mask)
    weights = torch.softmax(torch.cat([context_logits, decoded_logits], dim=-1), dim=-1)
    context_weights = weights[..., : call.context_tokens]
    decoded_weights = weights[..., call.context_tokens :]
    context_output = torch.einsum("xbgrm,xgmk->xbgrk", context_weights, context_values)
    decoded_output = torch.einsum("xbgrm,xbgmk->xbgrk", decoded_weights, decoded_values)
    # The decoded part has the query's layout, and a sum has the layout of its first term.
    return operators.tokens_of(decoded_output + context_output, call)


@kernel
def bifurcated_flash(call: AttentionCall) -> Tensor:
    """Attend with flash on the context for all samples, flash on decoded tokens, and a merge."""
    return _over_levels(call.query, [call.context], call.decoded, call.scale)


def prefix_tree(
    query: Tensor,
    context_keys: Tensor | Sequence[Tensor],
    context_values: Tensor | Sequence[Tensor],
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend to any number of shared levels, each read once per node, and to decoded tokens.

    Parameters
    ----------
    query
        [prompts, samples, heads, head_dim], or with query_tokens after samples.
    context_keys, context_values
        One tensor, or one per level from the root down, of [nodes, kv_heads, tokens, head_dim]. A
        level's nodes divide the prompts: the i-th run of ``prompts / nodes`` prompts shares node i.
        All prompts share a level of one node; in a level of ``prompts`` nodes each has its own.
    decoded_keys, decoded_values
        [prompts, samples, kv_heads, decoded_tokens, head_dim]
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.

    Raises
    ------
    KernelError
        If a level's nodes do not divide the prompts, or the tensors do not match.

    Notes
    -----
    One flash call per level, and one merge. A level with more than one node but fewer than prompts
    copies its partial output, because no single stride leads from node to prompt.
    """
    keys_of = [context_keys] if isinstance(context_keys, Tensor) else list(context_keys)
    values_of = [context_values] if isinstance(context_values, Tensor) else list(context_values)
    if not keys_of or len(keys_of) != len(values_of):
        raise KernelError(f"{len(keys_of)} levels of keys and {len(values_of)} of values")
    kv_heads = inputs.check_query(query, keys_of[0])
    inputs.check_decoded(query, decoded_keys, decoded_values, kv_heads=kv_heads)
    levels = list(zip(keys_of, values_of, strict=True))
    for index, (keys, values) in enumerate(levels):
        level = f"level_{index}"
        nodes = keys.shape[0] if keys.dim() else 0
        if nodes < 1 or query.shape[0] % nodes:
            raise KernelError(
                f"{level} has {nodes} nodes, which do not divide {query.shape[0]} prompts"
            )
        inputs.check_context(query, keys, values, nodes=nodes, kv_heads=kv_heads, level=level)
    if decoded_keys.shape[3] + sum(keys.shape[2] for keys in keys_of) == 0:
        raise KernelError("there is nothing to attend to: no level and no sample has tokens")
    decoded = (decoded_keys, decoded_values)
    output = _over_levels(with_tokens(query), levels, decoded, inputs.scale_of(query, scale))
    return output.reshape(query.shape)


@kernel
def bifurcated_flash_chunked(call: AttentionCall, *, chunks: int = CHUNKS) -> Tensor:
    """Attend as :func:`bifurcated_flash`, with a view of the context in ``chunks`` chunks.

    More thread blocks run at once if the kernel does not split the keys itself. A context that does
    not divide leaves a shorter chunk, for one more call.
    """
    if chunks < 1:
        raise KernelError(f"chunks = {chunks} is not at least 1")
    states = operators.decoded_states(call.query, *call.decoded, call.scale)
    if call.context_tokens:
        states += _over_chunks(call, chunks)
    return operators.merge(states)


def _over_chunks(call: AttentionCall, chunks: int) -> list[operators.State]:
    """Attend to each chunk of the context, and to the remainder."""
    chunk_tokens = max(1, call.context_tokens // chunks)
    count = min(chunks, call.context_tokens)
    whole = count * chunk_tokens
    # Rows are [prompts, kv_heads, samples * query_tokens * group, head_dim]. Chunks become separate
    # heads, [prompts * kv_heads, chunks, ...]; a stride of 0 gives all of them the queries of their
    # KV head.
    rows = operators.fold(call.query, call.prompts, call.kv_heads)
    chunked_rows = rows.flatten(0, 1).unsqueeze(1).expand(-1, count, -1, -1)
    keys, values = (
        torch.unflatten(part[:, :, :whole].flatten(0, 1), 1, (count, chunk_tokens))
        for part in call.context
    )
    output, log_sum_exp = (
        torch.unflatten(part, 0, (call.prompts, call.kv_heads))
        for part in operators.flash(chunked_rows, keys, values, scale=call.scale)
    )
    folded = [(output[:, :, chunk], log_sum_exp[:, :, chunk]) for chunk in range(count)]
    if whole < call.context_tokens:
        keys, values = (part[:, :, whole:] for part in call.context)
        folded.append(operators.flash(rows, keys, values, scale=call.scale))
    return [operators.unfold(state, call.query) for state in folded]


def _over_levels(
    query: Tensor,
    levels: Sequence[tuple[Tensor, Tensor]],
    decoded: tuple[Tensor, Tensor],
    scale: float,
) -> Tensor:
    """Attend to decoded tokens and to levels of shared keys and values, and merge."""
    states = operators.decoded_states(query, *decoded, scale)
    states += [
        operators.shared_tokens(query, keys, values, scale)
        for keys, values in levels
        if keys.shape[2]
    ]
    return operators.merge(states)
