"""Latent attention: cache and projections of MLA (DeepSeek-V2 report, section 2.1) and GLA.

The cache holds one compressed vector per token. Decoding moves the queries into its space (absorbed
form): the keys are the cached vector, the values are the vector without its rotary part, and all
heads share them. Prefill expands the vector to keys and values for every head instead.

Per query token, head and cached token the absorbed form multiplies 2 kv_rank + rope_dim values, the
expanded one nope_dim + rope_dim + value_dim: 1,088 and 320 in DeepSeek-V3. Per cached token the
absorbed form reads kv_rank + rope_dim values, the expanded one those of all heads: 576 and 40,960.
Bifurcated attention may mix them: the shared context, read once for all samples, is also stored
expanded, and own tokens stay absorbed (TyphoonMLA, arXiv:2509.21081).

Grouped latent attention (GLA, arXiv:2505.21487) caches several narrower vectors, each shared by a
group of heads as a KV head is, so that GPUs split them; all share one rotary key, whose reads count
once. Per query token, head and cached token it multiplies less than MLA, because kv_rank is less.
"""

from collections.abc import Callable

from simulator.counts.attention.einsum import bifurcated_products, product, standard_products
from simulator.counts.attention.plain import copied, merges_by_copy, moved, query_fold
from simulator.counts.attention.shape import AttentionShape, several
from simulator.counts.attention.tree import CachePart
from simulator.counts.operation import Operation, streamed
from simulator.counts.pieces import (
    Shard,
    cache_write,
    gemm,
    per_head,
    quantised,
    rotary,
    vector_norm,
)
from simulator.inputs.dtypes import is_low_precision
from simulator.inputs.model import LatentAttention
from simulator.numeric import Numeric


def absorbed_widths(latent: LatentAttention) -> tuple[int, int]:
    """Return the widths of keys and values in the absorbed form."""
    return latent.kv_rank + latent.rope_dim, latent.kv_rank


def expanded_widths(latent: LatentAttention) -> tuple[int, int]:
    """Return the widths of each head's keys and values in the expanded form."""
    return latent.nope_dim + latent.rope_dim, latent.value_dim


def mixing_pays_from(
    latent: LatentAttention, *, query_tokens: Numeric, flops_per_byte: Numeric, kv_bytes: float = 2
) -> Numeric:
    """Return the samples from which the mixed form reads the context faster than the absorbed one.

    There the absorbed form's FLOPs take as long as the expanded form's bytes; neither the length of
    the context nor the number of heads matters:

        (D_qk + D_v) / (S_q (2 D_l + D_r)) x FLOP rate / bandwidth x kv_bytes / 2

    Parameters
    ----------
    latent, query_tokens
        The widths, and S_q of each sample.
    flops_per_byte
        Rate of the matrix products over memory bandwidth. [FLOP/byte]
    kv_bytes
        Bytes of a cached value. [bytes]

    Examples
    --------
    >>> v3 = LatentAttention(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128)
    >>> round(mixing_pays_from(v3, query_tokens=1, flops_per_byte=989.4 / 3.352))  # H100
    87
    """
    absorbed, expanded = sum(absorbed_widths(latent)), sum(expanded_widths(latent))
    return expanded / (query_tokens * absorbed) * flops_per_byte * kv_bytes / 2


def projections(shard: Shard, latent: LatentAttention, *, absorbed: bool) -> list[Operation]:
    """Return the projections to queries and to the cached vector.

    Decoding multiplies each head's query by its key up-projection (``latent_absorb``); prefill
    expands the latent vector to keys and values instead. The FLOPs per token are the same.

    Parameters
    ----------
    absorbed
        Whether queries move into the latent space (decoding), or keys and values out of it.

    Notes
    -----
    What the cache holds is the setup's ``latent_form``: the compressed vector, or what it is
    expanded to.
    """
    model, heads = shard.model, shard.heads
    d, query_width = model.hidden_size, heads * (latent.nope_dim + latent.rope_dim)
    groups, down_width = latent.groups_of(shard.ranks), latent.cache_width(shard.ranks)
    # Engines multiply the hidden state by both matrices at once: vLLM's fused_qkv_a_proj, SGLang's
    # fused_qkv_a_proj_with_mqa, TensorRT-LLM's kv_a_proj_with_mqa (names recalled).
    fused = not shard.eager and latent.query_rank is not None
    if latent.query_rank is None:
        operations = [gemm(shard, "query_projection", d, query_width)]
    else:
        rank, bias = latent.query_rank, model.qkv_bias
        operations = [
            gemm(shard, "query_down_projection", d, rank + (down_width if fused else 0), bias=bias),
            vector_norm(shard, "query_norm", shard.tokens, rank),
            *quantised(shard, "query_quantise", rank),
            gemm(shard, "query_up_projection", rank, query_width),
        ]
    if not fused:
        operations.append(gemm(shard, "kv_down_projection", d, down_width, bias=model.qkv_bias))
    operations += [
        vector_norm(shard, "kv_norm", shard.tokens * groups, latent.kv_rank),
        rotary(shard, (heads + 1) * latent.rope_dim, latent.rope_dim),
    ]
    expanded = shard.setup.expanded
    if not expanded:
        operations.append(cache_write(shard, down_width))
    if absorbed:
        return [*operations, per_head(shard, "latent_absorb", latent.nope_dim, latent.kv_rank)]
    width = heads * (latent.nope_dim + latent.value_dim)
    operations += quantised(shard, "kv_quantise", groups * latent.kv_rank)
    operations.append(gemm(shard, "kv_up_projection", latent.kv_rank, width, matrices=groups))
    if expanded:
        operations.append(cache_write(shard, heads * sum(expanded_widths(latent))))
    return operations


def context_store(shard: Shard, latent: LatentAttention, tokens: Numeric) -> Operation:
    """Return the one-time write of the shared context's expanded keys and values, in prefill.

    The prefill's own product (``kv_up_projection``) has just made them; every head's keys get a
    copy of the one rotary part.

    Parameters
    ----------
    tokens
        Tokens that samples share; each node of a tree counts once.
    """
    made = shard.heads * (latent.nope_dim + latent.value_dim) + latent.rope_dim
    stored = shard.heads * sum(expanded_widths(latent))
    kv_element = shard.setup.kv_bytes
    return streamed(
        "latent_context_write",
        tokens * made * shard.element_bytes,
        tokens * stored * kv_element,
        kind="copy",
        low_precision_cache=is_low_precision(kv_element),
    )


def value_projection(shard: Shard, latent: LatentAttention) -> Operation:
    """Return the product that moves the absorbed form's outputs out of the latent space."""
    return per_head(shard, "latent_value", latent.kv_rank, latent.value_dim)


# In plain PyTorch, for one query token: from the queries of each head to its output. Shapes are of
# the absorbed form, and ``expanded`` has the widths of a head.


def standard_latent(shape: AttentionShape) -> list[Operation]:
    """Absorbed queries, <q,K>, softmax, <w,V>, and outputs out of the latent space."""
    return [*_absorb(shape), *standard_products(shape, rereads=False), _leave(shape)]


def standard_latent_expanded(shape: AttentionShape) -> list[Operation]:
    """<q,K>, softmax and <w,V> with keys and values of every head."""
    widths = _of_heads(shape)
    return [_scale(widths), *standard_products(widths, rereads=False)]


def bifurcated_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_latent`` with two products each, over the context and over own vectors."""
    of_context, of_own, softmax, *rest = bifurcated_products(shape._replace(expanded=None))
    joined = copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1)
    return [*_absorb(shape), of_context, of_own, joined, softmax, *rest, _leave(shape)]


def bifurcated_latent_mixed(shape: AttentionShape) -> list[Operation]:
    """Products with an expanded context and with own vectors, whose outputs leave before the sum.

    As in ``bifurcated_einsum``, queries and the context's weights are copied where no product can
    address them with samples folded into rows.
    """
    widths = _of_heads(shape)
    of_context, of_own, softmax, context_values, own_values, added = bifurcated_products(shape)
    folds = merges_by_copy(widths)
    weights = shape.logits_bytes(shape.context_tokens)
    return [
        *_absorb(shape),
        query_fold(widths, folds),
        of_context,
        of_own,
        copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1),
        softmax,
        copied("attention_weights_fold", weights, folds * several(shape.context_tokens)),
        context_values,
        own_values,
        _leave(shape),
        added,
    ]


def standard_grouped_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_latent`` with a vector for each group: its logits and rotary ones are added."""
    _, softmax, values = standard_products(shape, rereads=False)
    return [*_absorb_groups(shape), *_scores(shape, shape.whole()), softmax, values, _leave(shape)]


def bifurcated_grouped_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_grouped_latent`` over the context and over own vectors.

    As in ``bifurcated_einsum``, queries and the context's weights are copied where no product can
    address them with samples folded into rows.
    """
    _, _, softmax, *values, added = bifurcated_products(shape._replace(expanded=None))
    vectors, folds = _vectors(shape), merges_by_copy(shape)
    weights = shape.logits_bytes(shape.context_tokens)
    return [
        *_absorb_groups(shape),
        query_fold(vectors, folds),
        *_scores(shape, shape.context_part),
        *_scores(shape, shape.decoded_part),
        copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1),
        softmax,
        copied("attention_weights_fold", weights, folds * several(shape.context_tokens)),
        *values,
        added,
        _leave(shape),
    ]


def _vectors(shape: AttentionShape) -> AttentionShape:
    """Return the sizes of the keys without their rotary part."""
    width = shape.value_width
    return shape._replace(key_width=width, cache_width=shape.kv_heads * width)


def _scores(shape: AttentionShape, part: CachePart) -> list[Operation]:
    """Return <q,K> with each group's vector and with the shared rotary keys, and their sum."""
    width = shape.key_width - shape.value_width
    rotary = shape._replace(kv_heads=1, key_width=width, cache_width=width)
    logits = shape.logits_bytes(part.tokens)
    return [
        product(_vectors(shape), part, keys=True),
        product(rotary, part, keys=True),
        moved("attention_scores_sum", 2 * logits, logits),
    ]


def _absorb_groups(shape: AttentionShape) -> list[Operation]:
    """Scale the queries, move them into the latent space, and arrange them by sequence."""
    scale, absorb, _ = _absorb(shape)
    arranged = copied("query_arrange", _vectors(shape).query_bytes, several(shape.sequences))
    return [scale, absorb, arranged]


def _of_heads(shape: AttentionShape) -> AttentionShape:
    """Return the sizes of the expanded form."""
    return shape.expanded or shape


def _scale(widths: AttentionShape) -> Operation:
    """Return the scaling of the queries."""
    return moved("attention_query_scale", widths.query_bytes, widths.query_bytes)


def _absorb(shape: AttentionShape) -> list[Operation]:
    """Scale the queries, move them into the latent space, and join them with their rotary part."""
    widths = _of_heads(shape)
    rotary_width = shape.key_width - shape.value_width
    nope_width = widths.key_width - rotary_width
    absorb = _product_of_heads(shape, "latent_absorb", nope_width, shape.value_width)
    return [_scale(widths), absorb, copied("latent_query_join", shape.query_bytes, 1)]


def _leave(shape: AttentionShape) -> Operation:
    """Return the product that moves outputs out of the latent space."""
    width = _of_heads(shape).value_width
    return _product_of_heads(shape, "latent_value", shape.value_width, width)


def _product_of_heads(
    shape: AttentionShape, name: str, inner: Numeric, columns: Numeric
) -> Operation:
    """Return each head's product of its rows with its own matrix [inner, columns]."""
    weights = shape.heads * inner * columns * shape.activation_bytes
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * shape.rows * inner * columns,
        bytes_read=shape.rows * inner * shape.activation_bytes + weights,
        bytes_written=shape.rows * columns * shape.activation_bytes,
        weight_bytes_read=weights,
        dtype=shape.dtype,
    )


# The accounts of the PyTorch functions of the same names.
PLAIN_LATENT: dict[str, Callable[[AttentionShape], list[Operation]]] = {
    account.__name__: account
    for account in (
        standard_latent,
        standard_latent_expanded,
        bifurcated_latent,
        bifurcated_latent_mixed,
        standard_grouped_latent,
        bifurcated_grouped_latent,
    )
}
