"""Checks of results against float64, before anything is timed.

Checking a whole result would take longer than timing it. So some samples and heads are computed
exactly, and all elements are checked for being finite.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from simulator.evidence.kernels.inputs import Inputs, with_tokens
from simulator.evidence.kernels.operators import seen_tokens

# |out - reference| / |reference|. The limit of float32 allows other orders of summation.
TOLERANCES = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5}
_DRAWN_SEQUENCES, _DRAWN_HEADS = 4, 3


def relative_error(output: Tensor, reference: Tensor) -> float:
    """Return ``|output - reference| / |reference|``; NaN and infinity count as infinitely wrong."""
    difference = float(torch.linalg.vector_norm(output.double() - reference.double()))
    size = float(torch.linalg.vector_norm(reference.double()))
    error = difference / size if size else difference
    return error if math.isfinite(error) else math.inf


def attention_error(output: Tensor, inputs: Inputs) -> float:
    """Return the relative error over some samples and KV heads; infinite if any is not finite.

    The error is taken over all of them together, because that of a single vector varies more than
    rounding explains.

    Parameters
    ----------
    output
        A kernel's output, shaped like its query.
    inputs
        Its inputs, in any layout.
    """
    query = inputs[0]
    if output.shape != query.shape or not bool(torch.isfinite(output).all()):
        return math.inf
    prompts, samples = query.shape[:2]
    kv_heads = inputs[1].shape[1]
    group = query.shape[-2] // kv_heads
    found, wanted = [], []
    for sequence in _spread(prompts * samples, _DRAWN_SEQUENCES):
        place = divmod(sequence, samples)
        for head in _spread(kv_heads, _DRAWN_HEADS):
            wanted.append(reference_rows(inputs, place, head))
            found.append(with_tokens(output)[place][:, head * group : (head + 1) * group])
    return relative_error(torch.cat(found), torch.cat(wanted))


def reference_rows(inputs: Inputs, place: tuple[int, int], kv_head: int) -> Tensor:
    """Attend in float64 with the queries of one sample that share one KV head.

    By the definition of attention; returns [query_tokens, group, head_dim].

    Parameters
    ----------
    inputs
        The five tensors of a kernel.
    place
        Prompt and sample.
    kv_head
        Index of the KV head.
    """
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    group = query.shape[-2] // context_keys.shape[1]
    prompt = place[0]
    keys = torch.cat([context_keys[prompt, kv_head], decoded_keys[place][kv_head]]).double()
    values = torch.cat([context_values[prompt, kv_head], decoded_values[place][kv_head]]).double()
    rows = with_tokens(query)[place][:, kv_head * group : (kv_head + 1) * group].double()
    logits = rows @ keys.T * query.shape[-1] ** -0.5
    if len(rows) > 1:  # causal: the last query token is the last key
        hidden = seen_tokens(len(rows), len(keys), logits.device).logical_not()
        logits = logits.masked_fill(hidden.unsqueeze(1), -torch.inf)
    return torch.softmax(logits, dim=-1) @ values


def reference_attention(query: Tensor, *caches: Tensor) -> Tensor:
    """Attend in float64 with all queries, one head after the other: for small checks."""
    prompts, samples = query.shape[:2]
    kv_heads = range(caches[0].shape[1])
    inputs = cast("Inputs", (query, *caches))
    heads = [
        torch.cat([reference_rows(inputs, place, head) for head in kv_heads], dim=1)
        for place in (divmod(index, samples) for index in range(prompts * samples))
    ]
    return torch.stack(heads).view(query.shape)


def gemm_error(output: Tensor, inputs: Tensor, weight: Tensor, columns: int = 64) -> float:
    """Return the relative error of the first and last columns of ``inputs @ weight.T``.

    Parameters
    ----------
    output
        [rows, outputs]
    inputs
        [rows, inner]
    weight
        [outputs, inner]
    columns
        How many at each end.
    """
    if not bool(torch.isfinite(output).all()):
        return math.inf
    wide = inputs.double()
    parts = (slice(0, columns), slice(-columns, None))
    return max(relative_error(output[:, part], wide @ weight[part].double().T) for part in parts)


def _spread(count: int, wanted: int) -> Sequence[int]:
    """Return some indices below ``count``, including both ends."""
    if count <= wanted:
        return range(count)
    return sorted({round(index * (count - 1) / (wanted - 1)) for index in range(wanted)})
