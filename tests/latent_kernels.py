"""Latent attention in its forms: absorbed (MLA and GLA), expanded, and mixed over a shared context.

For one new token per sample, with logits in memory. The same names of dimensions everywhere::

    query            [prompts, samples, heads, nope_dim + rope_dim]
    context          [prompts, context_tokens, kv_rank + rope_dim]           cached vectors
    decoded          [prompts, samples, decoded_tokens, kv_rank + rope_dim]
    key_up           [heads, nope_dim, kv_rank]
    value_up         [heads, kv_rank, value_dim]

Grouped latent attention (GLA) keeps the parts of the cached vectors apart::

    vectors          [prompts, groups, context_tokens, kv_rank]
    rotary           [prompts, context_tokens, rope_dim]

The output is [prompts, samples, heads, value_dim]. Logits have the factor
1 / sqrt(nope_dim + rope_dim) in every form.
"""

import torch
from torch import Tensor


def expand(cached: Tensor, key_up: Tensor, value_up: Tensor) -> tuple[Tensor, Tensor]:
    """Expand cached vectors to keys and values of every head.

    Parameters
    ----------
    cached
        [prompts, tokens, kv_rank + rope_dim]
    key_up, value_up
        The up-projections.

    Returns
    -------
    keys, values
        [prompts, heads, tokens, nope_dim + rope_dim] and [..., value_dim].
    """
    rank = value_up.shape[1]
    nope = torch.einsum("xmr,hnr->xhmn", cached[..., :rank], key_up)
    rope = cached[:, None, :, rank:].expand(-1, key_up.shape[0], -1, -1)
    values = torch.einsum("xmr,hrv->xhmv", cached[..., :rank], value_up)
    return torch.cat([nope, rope], dim=-1), values.contiguous()


def standard_latent(query: Tensor, cached: Tensor, key_up: Tensor, value_up: Tensor) -> Tensor:
    """Attend in the absorbed form to a cache per sample.

    Parameters
    ----------
    query, key_up, value_up
        As above.
    cached
        [prompts * samples, tokens, kv_rank + rope_dim]
    """
    rows = _absorbed(_scaled(query), key_up).flatten(0, 1)
    # b sequences, h heads, m tokens, k cached values, r those without the rotary part
    weights = torch.softmax(torch.einsum("bhk,bmk->bhm", rows, cached), dim=-1)
    output = torch.einsum("bhm,bmr->bhr", weights, cached[..., : value_up.shape[1]])
    return torch.unflatten(torch.einsum("bhr,hrv->bhv", output, value_up), 0, query.shape[:2])


def standard_latent_expanded(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend in the expanded form to a cache per sample.

    Parameters
    ----------
    query
        As above.
    keys, values
        [prompts * samples, heads, tokens, nope_dim + rope_dim], and value_dim.
    """
    rows = _scaled(query).flatten(0, 1)
    weights = torch.softmax(torch.einsum("bhk,bhmk->bhm", rows, keys), dim=-1)
    return torch.unflatten(torch.einsum("bhm,bhmv->bhv", weights, values), 0, query.shape[:2])


def bifurcated_latent(
    query: Tensor, context: Tensor, decoded: Tensor, key_up: Tensor, value_up: Tensor
) -> Tensor:
    """Attend in the absorbed form to the context for all samples at once, and to own vectors.

    Parameters
    ----------
    query, context, decoded, key_up, value_up
        As above.
    """
    rank, rows = value_up.shape[1], _absorbed(_scaled(query), key_up)
    of_context, of_own = _weights(
        torch.einsum("xbhk,xmk->xbhm", rows, context),
        torch.einsum("xbhk,xbmk->xbhm", rows, decoded),
    )
    context_output = torch.einsum("xbhm,xmr->xbhr", of_context, context[..., :rank])
    output = torch.einsum("xbhm,xbmr->xbhr", of_own, decoded[..., :rank]) + context_output
    return torch.einsum("xbhr,hrv->xbhv", output, value_up)


def bifurcated_latent_mixed(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded: Tensor,
    key_up: Tensor,
    value_up: Tensor,
) -> Tensor:
    """Attend to an expanded context for all samples at once, and absorbed to own vectors.

    Queries over own vectors are absorbed, and their outputs leave the latent space before the two
    parts are added.

    Parameters
    ----------
    query, decoded, key_up, value_up
        As above.
    context_keys, context_values
        The context as :func:`expand` returns it.
    """
    scaled = _scaled(query)
    rows = _absorbed(scaled, key_up)
    of_context, of_own = _weights(
        torch.einsum("xbhk,xhmk->xbhm", scaled, context_keys),
        torch.einsum("xbhk,xbmk->xbhm", rows, decoded),
    )
    context_output = torch.einsum("xbhm,xhmv->xbhv", of_context, context_values)
    latent = torch.einsum("xbhm,xbmr->xbhr", of_own, decoded[..., : value_up.shape[1]])
    return torch.einsum("xbhr,hrv->xbhv", latent, value_up) + context_output


def standard_grouped_latent(
    query: Tensor, vectors: Tensor, rotary: Tensor, key_up: Tensor, value_up: Tensor
) -> Tensor:
    """Attend in the absorbed form to a cache per sample of a vector for each group of heads.

    Parameters
    ----------
    query, key_up, value_up
        As above.
    vectors, rotary
        [prompts * samples, groups, tokens, kv_rank], and [prompts * samples, tokens, rope_dim].
    """
    rows, rope = (each.flatten(0, 1) for each in _grouped(_scaled(query), key_up, vectors.shape[1]))
    # b sequences, g groups, q heads of a group, m tokens, r values of a vector, p rotary ones
    logits = torch.einsum("bgqr,bgmr->bgqm", rows, vectors)
    logits = logits + torch.einsum("bgqp,bmp->bgqm", rope, rotary)
    output = torch.einsum("bgqm,bgmr->bgqr", torch.softmax(logits, dim=-1), vectors).flatten(1, 2)
    return torch.unflatten(torch.einsum("bhr,hrv->bhv", output, value_up), 0, query.shape[:2])


def bifurcated_grouped_latent(
    query: Tensor,
    context: tuple[Tensor, Tensor],
    decoded: tuple[Tensor, Tensor],
    key_up: Tensor,
    value_up: Tensor,
) -> Tensor:
    """Attend in the absorbed form to groups' vectors, those of the context for all samples at once.

    Parameters
    ----------
    query, key_up, value_up
        As above.
    context, decoded
        Vectors and rotary keys as above; those of decoded tokens have samples after prompts.
    """
    (context_vectors, context_rotary), (own_vectors, own_rotary) = context, decoded
    rows, rope = _grouped(_scaled(query), key_up, context_vectors.shape[1])
    of_context = torch.einsum("xbgqr,xgmr->xbgqm", rows, context_vectors)
    of_context = of_context + torch.einsum("xbgqp,xmp->xbgqm", rope, context_rotary)
    of_own = torch.einsum("xbgqr,xbgmr->xbgqm", rows, own_vectors)
    of_own = of_own + torch.einsum("xbgqp,xbmp->xbgqm", rope, own_rotary)
    of_context, of_own = _weights(of_context, of_own)
    context_output = torch.einsum("xbgqm,xgmr->xbgqr", of_context, context_vectors)
    output = torch.einsum("xbgqm,xbgmr->xbgqr", of_own, own_vectors) + context_output
    return torch.einsum("xbhr,hrv->xbhv", output.flatten(2, 3), value_up)


def _grouped(query: Tensor, key_up: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Move queries into the latent space; return them and their rotary part by group."""
    nope = key_up.shape[1]
    latent = torch.einsum("xbhn,hnr->xbhr", query[..., :nope], key_up).contiguous()
    rows, rotary = (torch.unflatten(part, 2, (groups, -1)) for part in (latent, query[..., nope:]))
    return rows, rotary


def _scaled(query: Tensor) -> Tensor:
    """Scale the queries, which is a smaller pass than scaling the logits."""
    scaled: Tensor = query * query.shape[-1] ** -0.5
    return scaled


def _absorbed(query: Tensor, key_up: Tensor) -> Tensor:
    """Move queries into the latent space; their rotary part stays."""
    nope = key_up.shape[1]
    latent = torch.einsum("xbhn,hnr->xbhr", query[..., :nope], key_up)
    return torch.cat([latent, query[..., nope:]], dim=-1)


def _weights(context_logits: Tensor, own_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Take one softmax over the logits of both parts."""
    weights = torch.softmax(torch.cat([context_logits, own_logits], dim=-1), dim=-1)
    tokens = context_logits.shape[-1]
    return weights[..., :tokens], weights[..., tokens:]
