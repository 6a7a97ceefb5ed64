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
