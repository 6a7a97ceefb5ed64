"""DeepSeek sparse attention (DSA): an indexer, then attention to the tokens that it selects.

The indexer scores each cached token s for a query t with its own heads j:

    I(t, s) = sum over j of w(t, j) ReLU(q(t, j) . k(s))

and latent attention in the absorbed form reads the ``top_k`` best tokens alone. Its keys, one per
token and layer, are a second cache in fp8. Engines compute the indexer whole on every GPU of a
tensor-parallel group.

What samples share differs. All of them score the same context, so bifurcated attention may read its
index keys once. But each query selects tokens of its own: the attention gathers ``top_k`` rows of
the cache for every query, and nothing of that is shared, whatever the attention.

References
----------
DeepSeek-AI, "DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models", 2025, section 2.1;
its published inference code, and DeepGEMM's and FlashMLA's kernels.
"""

from dataclasses import replace

from simulator.counts.attention.flash import together_bytes
from simulator.counts.attention.shape import AttentionShape, CachePart, causal_pairs, present
from simulator.counts.operation import Kind, Operation, streamed
from simulator.counts.pieces import FLOAT_BYTES, Shard, gemm, quantise, rotary, vector_norm
from simulator.inputs.dtypes import Dtype, is_low_precision
from simulator.inputs.model import Indexer, LatentAttention
from simulator.numeric import Numeric, ceil_div, maximum, minimum, where

# Index queries and keys have 8 bits, with one scale in fp32 for each 128 values.
INDEX_DTYPE: Dtype = "fp8"
SCALED_VALUES = 128
# Scores are fp32; a selection is a list of int32 positions.
SCORE_BYTES, POSITION_BYTES = 4, 4
# Query rows (queries times index heads) of a block of DeepGEMM's kernel for prefill, and the keys
# that it takes at a time.
SCORED_ROWS, SCORED_KEYS = 128, 256
# Scores of a query that a selection's one thread block takes at a time.
SELECTED_KEYS = 1024
# FlashMLA's sparse kernel: heads of a tile, to which fewer are padded; the two thread blocks that
# share a query's tile; and the keys that they gather at a time.
TILE_HEADS, TILE_BLOCKS, GATHERED_KEYS = 64, 2, 64


def index_key_bytes(indexer: Indexer) -> Numeric:
    """Return the bytes that the indexer caches for one token in one layer.

    >>> index_key_bytes(Indexer(heads=64, dim=128, top_k=2048))
    132
    """
    return indexer.dim + FLOAT_BYTES * ceil_div(indexer.dim, SCALED_VALUES)


def projections(shard: Shard, indexer: Indexer, latent: LatentAttention) -> list[Operation]:
    """Return the indexer's projections to queries, weights of heads and a key, and the key's write.

    Every GPU of the group computes all index heads. The queries come from the query latent.

    Parameters
    ----------
    shard
        The GPU's share of the model, and the new tokens.
    indexer, latent
        The sizes of the indexer, and of the attention whose query latent and rotary width it takes.
    """
    d, width = shard.model.hidden_size, indexer.heads * indexer.dim
    operations = [
        gemm(shard, "index_query_projection", latent.query_rank or d, width),
        gemm(shard, "index_key_projection", d, indexer.dim),
        vector_norm(shard, "index_key_norm", shard.tokens, indexer.dim),
        replace(
            rotary(shard, (indexer.heads + 1) * latent.rope_dim, latent.rope_dim),
            name="index_rotary",
        ),
        gemm(shard, "index_weights", d, indexer.heads, group=None),
    ]
    if not shard.eager:
        element = shard.element_bytes
        operations.append(
            quantise("index_quantise", shard.tokens, width, element=element, dtype=INDEX_DTYPE)
        )
    read, written = shard.rows(indexer.dim), shard.tokens * index_key_bytes(indexer)
    write = streamed("index_key_write", read, written, kind="copy", low_precision_cache=True)
    return [*operations, write]


def scores_bytes(shape: AttentionShape) -> Numeric:
    """Return the size of a decode step's scores, which one layer after another writes. [bytes]."""
    return _queries(shape) * shape.tokens * SCORE_BYTES


def scores(
    shape: AttentionShape, indexer: Indexer, *, bifurcated: bool = False, rereads: bool = False
) -> list[Operation]:
    """Return the scores of all cached tokens in a decode step, and the selection of the best.

    Parameters
    ----------
    shape
        The layer's attention over all tokens.
    indexer
        The sizes of the indexer.
    bifurcated
        Whether the keys of a shared context are read once for all samples, in a call of its own.
    rereads
        For standard attention: whether the sequences read one stored context instead of copies.
    """
    parts = shape.parts if bifurcated else (shape.whole(rereads=rereads),)
    selecting = _queries(shape) * where(shape.tokens > indexer.top_k, 1, 0)
    return [
        *(_part_scores(shape, indexer, part) for part in parts),
        _selection(selecting, selecting * shape.tokens, indexer),
    ]


def _queries(shape: AttentionShape) -> Numeric:
    """Return the query tokens of all sequences, P b n."""
    return shape.sequences * shape.query_tokens


def _part_scores(shape: AttentionShape, indexer: Indexer, part: CachePart) -> Operation:
    """Return the scores of one part of the cache."""
    key_bytes = index_key_bytes(indexer)
    queries = part.caches * part.sharers * shape.query_tokens
    pairs, keys = queries * part.tokens, part.caches * part.tokens
    scored = _scored("index_scores", indexer, queries, pairs, keys)
    exists = present(part.tokens)
    return replace(
        scored,
        name=part.name.replace("attention", "index_scores"),
        bytes_read=scored.bytes_read * exists,
        launches=exists,
        thread_blocks=queries * exists,
        reused_bytes=part.repeated_tokens * key_bytes,
        reused_footprint_bytes=part.stored_tokens * key_bytes,
        together_bytes=together_bytes(shape, part, key_bytes),
    )


def _scored(
    kind: Kind, indexer: Indexer, queries: Numeric, pairs: Numeric, keys: Numeric
) -> Operation:
    """Return the scores of some pairs of query and token, over so many cached keys."""
    key_bytes = keys * index_key_bytes(indexer)
    # Queries with their scales folded into the weights of heads, in fp32.
    query_bytes = queries * indexer.heads * (indexer.dim + FLOAT_BYTES)
    written = pairs * SCORE_BYTES
    return Operation(
        name="index_scores",
        kind=kind,
        flops=2 * pairs * indexer.heads * indexer.dim,
        bytes_read=query_bytes + key_bytes,
        bytes_written=written,
        kv_bytes_read=key_bytes,
        scratch_bytes=written,
        dtype=INDEX_DTYPE,
    )


def _selection(queries: Numeric, pairs: Numeric, indexer: Indexer) -> Operation:
    """Return the selection of the best tokens, one thread block for each query.

    Parameters
    ----------
    queries, pairs
        Queries of more than ``top_k`` tokens, and their pairs with these. Others take all.
    indexer
        The sizes of the indexer.
    """
    read = pairs * SCORE_BYTES
    return streamed(
        "index_selection",
        read,
        queries * indexer.top_k * POSITION_BYTES,
        kind="index_selection",
        scratch_bytes=read,
        thread_blocks=queries,
        serial_steps=pairs / maximum(queries, 1) / SELECTED_KEYS,
    )


def selected(shape: AttentionShape, indexer: Indexer) -> AttentionShape:
    """Return a layer's attention over the selected tokens: each sequence's own, at most ``top_k``.

    Parameters
    ----------
    shape, indexer
        The layer's attention over all tokens in the absorbed form, and the sizes of the indexer.
    """
    return shape._replace(
        context_tokens=0,
        decoded_tokens=minimum(shape.tokens, indexer.top_k),
        levels=(),
        kind="sparse_attention",
    )


def attention(shape: AttentionShape, indexer: Indexer) -> Operation:
    """Return a decode step's attention over the selected tokens, which nothing shares.

    Parameters
    ----------
    shape, indexer
        The layer's attention over all tokens in the absorbed form, and the sizes of the indexer.
    """
    own = selected(shape, indexer)
    queries = _queries(own)
    return _gathered(own, "sparse_attention", queries, queries * own.tokens, own.tokens)


def prefill(
    shape: AttentionShape,
    indexer: Indexer,
    *,
    prompts: Numeric,
    tokens: Numeric,
    before: Numeric = 0,
) -> list[Operation]:
    """Return the scores, the selection and the attention of a prefill.

    Each query scores the tokens up to itself, m (m + 1) / 2 pairs for m tokens, and attends to
    ``top_k`` of them, as through a window of that length. Prefill attends in the absorbed form too:
    expanded keys would have to be gathered for every head.

    Parameters
    ----------
    shape
        The layer's attention: its heads, widths and formats in the absorbed form.
    indexer
        The sizes of the indexer.
    prompts, tokens, before
        Prompts (or nodes of a level of a tree), new tokens of each, and cached tokens before them.
    """
    queries, end = prompts * tokens, before + tokens
    pairs = prompts * (causal_pairs(end, end) - causal_pairs(before, before))
    read = prompts * (causal_pairs(end, indexer.top_k) - causal_pairs(before, indexer.top_k))
    # The first query of more than top_k tokens.
    first = maximum(before, minimum(end, indexer.top_k))
    beyond = prompts * (causal_pairs(end, end) - causal_pairs(first, first))
    launched, several = minimum(queries, 1), maximum(queries, 1)
    scored = _scored("prefill_scores", indexer, queries, pairs, launched * prompts * end)
    attended = _gathered(shape, "sparse_prefill", queries, read, read / several)
    cached = shape.cached_bytes(end)
    operations = [
        replace(
            scored,
            thread_blocks=prompts * ceil_div(tokens * indexer.heads, SCORED_ROWS),
            serial_steps=pairs / several / SCORED_KEYS,
        ),
        _selection(prompts * (end - first), beyond, indexer),
        # The queries of a prompt, in flight together, gather from one cache.
        replace(
            attended,
            reused_bytes=maximum(attended.kv_bytes_read - prompts * cached, 0),
            reused_footprint_bytes=cached,
        ),
    ]
    return [replace(item, launches=launched) for item in operations]


def _gathered(
    shape: AttentionShape, kind: Kind, queries: Numeric, pairs: Numeric, keys: Numeric
) -> Operation:
    """Return attention over rows of the cache that each query gathers for itself.

    Parameters
    ----------
    shape
        Heads, widths and formats.
    kind
        Its kind and name.
    queries, pairs
        Query tokens, and pairs of query and selected token.
    keys
        Keys that a thread block takes for a query.
    """
    rows, heads = queries * shape.heads * shape.activation_bytes, shape.heads
    kv_bytes = shape.cached_bytes(pairs)
    tiles = ceil_div(heads, TILE_HEADS)
    return Operation(
        name=kind,
        kind=kind,
        flops=2 * pairs * heads * (shape.key_width + shape.value_width),
        bytes_read=rows * shape.key_width + pairs * POSITION_BYTES + kv_bytes,
        bytes_written=rows * shape.value_width,
        kv_bytes_read=kv_bytes,
        tile_rows_per_row=tiles * TILE_HEADS / heads,
        thread_blocks=queries * tiles * TILE_BLOCKS,
        serial_steps=keys / GATHERED_KEYS,
        dtype=shape.dtype,
        low_precision_cache=is_low_precision(shape.kv_bytes),
    )
