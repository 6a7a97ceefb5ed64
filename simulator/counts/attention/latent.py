"""Multi-head latent attention (MLA; DeepSeek-V2 report, section 2.1): cache and projections.

The cache holds one compressed vector per token. Decoding moves the queries into its space (absorbed
form): the keys are the cached vector, the values are the vector without its rotary part, and all
heads share them. Prefill expands the vector to keys and values for every head instead.
"""

from simulator.counts.operation import Operation
from simulator.counts.pieces import Shard, cache_write, gemm, per_head, rotary, vector_norm
from simulator.inputs.model import LatentAttention


def absorbed_widths(latent: LatentAttention) -> tuple[int, int]:
    """Return the widths of keys and values in the absorbed form."""
    return latent.kv_rank + latent.rope_dim, latent.kv_rank


def expanded_widths(latent: LatentAttention) -> tuple[int, int]:
    """Return the widths of each head's keys and values in the expanded form."""
    return latent.nope_dim + latent.rope_dim, latent.value_dim


def projections(shard: Shard, latent: LatentAttention, *, absorbed: bool) -> list[Operation]:
    """Return the projections to queries and to the cached vector.

    Decoding multiplies each head's query by its key up-projection (``latent_absorb``); prefill
    expands the latent vector to keys and values instead. The FLOPs per token are the same.

    Parameters
    ----------
    absorbed
        Whether queries move into the latent space (decoding), or keys and values out of it.
    """
    model, heads = shard.model, shard.heads
    d, query_width = model.hidden_size, heads * (latent.nope_dim + latent.rope_dim)
    down_width = latent.kv_rank + latent.rope_dim
    if latent.query_rank is None:
        operations = [gemm(shard, "query_projection", d, query_width)]
    else:
        rank, bias = latent.query_rank, model.qkv_bias
        operations = [
            gemm(shard, "query_down_projection", d, rank, bias=bias),
            vector_norm(shard, "query_norm", shard.tokens, rank),
            gemm(shard, "query_up_projection", rank, query_width),
        ]
    operations += [
        gemm(shard, "kv_down_projection", d, down_width, bias=model.qkv_bias),
        vector_norm(shard, "kv_norm", shard.tokens, latent.kv_rank),
        rotary(shard, (heads + 1) * latent.rope_dim, latent.rope_dim),
        cache_write(shard, down_width),
    ]
    if absorbed:
        return [*operations, per_head(shard, "latent_absorb", latent.nope_dim, latent.kv_rank)]
    width = heads * (latent.nope_dim + latent.value_dim)
    return [*operations, gemm(shard, "kv_up_projection", latent.kv_rank, width)]


def value_projection(shard: Shard, latent: LatentAttention) -> Operation:
    """Return the product that moves the absorbed form's outputs out of the latent space."""
    return per_head(shard, "latent_value", latent.kv_rank, latent.value_dim)
