"""A layer around its attention, and what comes before the first layer and after the last."""

from simulator.counts.attention import latent
from simulator.counts.collectives import all_gather, all_reduce
from simulator.counts.operation import Operation
from simulator.counts.pieces import (
    FLOAT_BYTES,
    INDEX_BYTES,
    Slice,
    cache_write,
    elementwise,
    gemm,
    norm,
    per_head,
    residual_add,
    rotary,
    vector_norm,
)
from simulator.numeric import Numeric

TOP_K = 200  # of gpt-fast's sampling, and the paper's


def embedding(part: Slice) -> list[Operation]:
    """Look up the rows of the token table (and of a learned position table)."""
    tables = 2 if part.model.position_embeddings else 1
    hidden = part.rows(part.model.hidden_size)
    width = part.model.embedding_size or part.model.hidden_size
    rows = part.rows(width) + hidden * (tables - 1)
    read = rows + part.tokens * INDEX_BYTES * tables
    written = part.rows(width)
    launches = 1
    if tables > 1 and part.eager:
        read, written, launches = read + 2 * hidden, written + 2 * hidden, 3
    operations = [
        Operation(
            name="embedding",
            kind="gather",
            bytes_read=read,
            bytes_written=written,
            weight_bytes_read=rows,
            launches=launches,
        ),
        *all_reduce(
            "embedding_all_reduce", message_bytes=part.rows(width), ranks=part.ranks, repeat=1
        ),
    ]
    if width != part.model.hidden_size:
        operations.append(_widen(part, "embedding_projection", width, part.model.hidden_size))
    return operations


def _widen(
    part: Slice, name: str, inner: int, columns: int, tokens: Numeric | None = None
) -> Operation:
    """Return the matrix between the hidden size and a token table of another width (OPT-350m)."""
    return gemm(part, name, inner, columns, dtype=part.dtype, tokens=tokens, repeat=1)


def attention_input(part: Slice, repeat: int, *, absorbed: bool = True) -> list[Operation]:
    """Norm, projections to queries, keys and values, their norms, rotary, and the cache write.

    Parameters
    ----------
    absorbed
        Of a latent model: whether queries are moved into the latent space (decoding), or keys and
        values out of it (prefill).
    """
    model = part.model
    operations = [norm(part, "attention_norm", repeat=repeat)] if model.norms_per_layer else []
    if model.latent is not None:
        return operations + latent.projections(part, repeat, absorbed=absorbed)
    heads = model.heads // part.ranks
    kv_heads = max(1, model.kv_heads // part.ranks)
    query, key = heads * model.head_dim, kv_heads * model.head_dim
    operations.append(
        gemm(
            part,
            "qkv_projection",
            model.hidden_size,
            query + 2 * key,
            bias=model.qkv_bias,
            repeat=repeat,
        )
    )
    if model.qk_norm != "none":
        operations.append(_qk_norm(part, heads, kv_heads, repeat))
    if model.rotary:
        operations.append(rotary(part, query + key, model.head_dim, repeat=repeat))
    operations.append(cache_write(part, 2 * key, repeat=repeat))
    return operations


def attention_output(part: Slice, repeat: int, *, absorbed: bool = True) -> list[Operation]:
    """Project the heads' outputs back to the hidden size, and add up the ranks' parts."""
    model = part.model
    operations = []
    width = model.heads // part.ranks * model.head_dim
    if model.latent is not None:
        heads = model.heads // part.ranks
        width = heads * model.latent.value_dim
        if absorbed:
            operations.append(
                per_head(
                    part,
                    "latent_value",
                    heads,
                    model.latent.kv_rank,
                    model.latent.value_dim,
                    repeat,
                )
            )
    operations.append(
        gemm(
            part,
            "output_projection",
            width,
            model.hidden_size,
            bias=model.output_bias,
            repeat=repeat,
        )
    )
    operations += all_reduce(
        "attention_all_reduce",
        message_bytes=part.rows(model.hidden_size),
        ranks=part.ranks,
        repeat=repeat,
    )
    return operations + residual_add(part, "attention_residual", repeat=repeat)


def head(part: Slice, tokens: Numeric) -> list[Operation]:
    """Project ``tokens`` positions to the vocabulary, after the final norm, and sample."""
    model = part.model
    columns = part.split(model.vocab_size)
    logits = tokens * model.vocab_size * part.element_bytes
    operations = []
    if model.extra_norms:
        operations.append(norm(part, "final_norm", repeat=1))
    width = model.embedding_size or model.hidden_size
    if width != model.hidden_size:
        operations.append(_widen(part, "head_projection", model.hidden_size, width, tokens))
    operations.append(
        gemm(
            part,
            "lm_head",
            width,
            columns,
            bias=model.lm_head_bias,
            # Quantised checkpoints keep the embedding and the head in 16 bits.
            dtype=part.dtype,
            tokens=tokens,
            repeat=1,
        )
    )
    operations += all_gather("logits_all_gather", gathered_bytes=logits, ranks=part.ranks, repeat=1)
    return [*operations, _sampling(part, tokens)]


def _qk_norm(part: Slice, heads: int, kv_heads: int, repeat: int) -> Operation:
    """Normalise queries and keys, over each head or over all of them."""
    whole = part.model.qk_norm == "all"
    width = part.model.head_dim

    def normed(count: int) -> Operation:
        rows, row_width = (1, count * width) if whole else (count, width)
        return vector_norm(part, "qk_norm", part.tokens * rows, row_width, repeat=repeat)

    queries, keys = normed(heads), normed(kv_heads)
    return elementwise(
        "qk_norm",
        queries.bytes_read + keys.bytes_read,
        queries.bytes_written + keys.bytes_written,
        launches=queries.launches + keys.launches if part.eager else 1,
        repeat=repeat,
    )


def _sampling(part: Slice, tokens: Numeric) -> Operation:
    """Choose a token from each row of logits.

    Plain PyTorch as gpt-fast does it: divide by the temperature, top-k, compare with the last of
    them, fill, softmax, exponential noise, divide by it, argmax.
    """
    vocabulary = part.model.vocab_size
    logits, chosen = tokens * vocabulary * part.element_bytes, tokens * INDEX_BYTES
    if not part.eager:
        # Softmax in float32, then one pass that samples from it.
        wide = tokens * vocabulary * FLOAT_BYTES
        return elementwise("sampling", logits + wide, wide + chosen, launches=2)
    mask, pivots = tokens * vocabulary, tokens * part.element_bytes
    likeliest = tokens * min(TOP_K, vocabulary) * (part.element_bytes + INDEX_BYTES)
    return elementwise(
        "sampling",
        8 * logits + mask + pivots,
        5 * logits + mask + likeliest + chosen,
        launches=8,
    )
