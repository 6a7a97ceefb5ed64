"""Projections of multi-head latent attention (MLA; DeepSeek-V2 report, section 2.1)."""

from simulator.counts.operation import Operation
from simulator.counts.pieces import Slice, cache_write, gemm, per_head, rotary, vector_norm


def projections(part: Slice, repeat: int, *, absorbed: bool) -> list[Operation]:
    """Return the projections of multi-head latent attention.

    Decoding multiplies each head's query by its key up-projection (``latent_absorb``); prefill
    expands the latent vector to keys and values instead. The FLOPs per token are the same.
    """
    model, latent = part.model, part.model.latent
    if latent is None:
        return []
    heads = model.heads // part.ranks
    query_width = heads * (latent.nope_dim + latent.rope_dim)
    down_width = latent.kv_rank + latent.rope_dim
    d = model.hidden_size
    if latent.query_rank is None:
        operations = [gemm(part, "query_projection", d, query_width, repeat=repeat)]
    else:
        operations = [
            gemm(
                part,
                "query_down_projection",
                d,
                latent.query_rank,
                bias=model.qkv_bias,
                repeat=repeat,
            ),
            vector_norm(part, "query_norm", part.tokens, latent.query_rank, repeat=repeat),
            gemm(part, "query_up_projection", latent.query_rank, query_width, repeat=repeat),
        ]
    operations += [
        gemm(part, "kv_down_projection", d, down_width, bias=model.qkv_bias, repeat=repeat),
        vector_norm(part, "kv_norm", part.tokens, latent.kv_rank, repeat=repeat),
        rotary(part, (heads + 1) * latent.rope_dim, latent.rope_dim, repeat=repeat),
        cache_write(part, down_width, repeat=repeat),
    ]
    if absorbed:
        operations.append(
            per_head(part, "latent_absorb", heads, latent.nope_dim, latent.kv_rank, repeat)
        )
    else:
        width = heads * (latent.nope_dim + latent.value_dim)
        operations.append(gemm(part, "kv_up_projection", latent.kv_rank, width, repeat=repeat))
    return operations
