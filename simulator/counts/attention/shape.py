"""Sizes of one layer's attention on one GPU, in the paper's symbols, and its reads.

b samples, n query tokens, h query heads, g KV heads, k head width, m_c context and m_d decoded
tokens; P prompts multiply every term. Sizes are those of one rank of a tensor-parallel group.
"""

from typing import NamedTuple

from simulator.counts.attention.tree import CachePart, SharedLevel, cache_parts, stored_tokens
from simulator.counts.operation import Kind
from simulator.inputs.dtypes import Dtype
from simulator.inputs.model import Indexer
from simulator.numeric import Numeric, minimum, where


class AttentionShape(NamedTuple):
    """Sizes of one layer's attention on one GPU.

    Attributes
    ----------
    prompts, samples, query_tokens, context_tokens, decoded_tokens
        P, b, n, and the visible m_c and m_d (a sliding window hides some tokens).
    heads, kv_heads
        h and g on this GPU; g of a latent cache are its compressed vectors.
    key_width, value_width
        k of queries and keys, and k of values and outputs.
    cache_width
        Cached values per token on this GPU, K and V together.
    activation_bytes, kv_bytes
        Bytes per element of activations (queries, logits, outputs), and of the cache.
    dtype
        Format of the matrix products.
    resident_blocks
        Thread blocks the GPU runs at once; flash kernels split the keys to fill them.
    sliced_queries
        Whether queries are a slice of the joint projection's output in plain PyTorch, as in models
        that neither rotate nor normalise them.
    levels
        The levels that the prompts' contexts share, from the root down; empty if none.
    kind
        Kind of its operations.
    expanded
        Sizes over the shared tokens, if a latent cache keeps those expanded and own tokens not.
    indexer, indexes
        The indexer that selects the tokens to attend to, if there is one, and whether this layer
        runs it or takes an earlier one's selection.
    """

    prompts: Numeric
    samples: Numeric
    query_tokens: Numeric
    context_tokens: Numeric
    decoded_tokens: Numeric
    heads: int
    kv_heads: int
    key_width: int
    value_width: int
    cache_width: int
    activation_bytes: float
    kv_bytes: float
    dtype: Dtype
    resident_blocks: int
    sliced_queries: bool = False
    levels: tuple[SharedLevel, ...] = ()
    kind: Kind = "attention"
    expanded: "AttentionShape | None" = None
    indexer: Indexer | None = None
    indexes: bool = True

    @property
    def sequences(self) -> Numeric:
        """Sequences decoded together, P b."""
        return self.prompts * self.samples

    @property
    def tokens(self) -> Numeric:
        """Keys that each query sees, m_c + m_d."""
        return self.context_tokens + self.decoded_tokens

    @property
    def group(self) -> int:
        """Query heads that share a KV head, h / g."""
        return self.heads // self.kv_heads

    @property
    def rows(self) -> Numeric:
        """Query rows over all heads, P b n h."""
        return self.sequences * self.query_tokens * self.heads

    @property
    def query_bytes(self) -> Numeric:
        """All queries. [bytes]."""
        return self.rows * self.key_width * self.activation_bytes

    @property
    def output_bytes(self) -> Numeric:
        """All outputs. [bytes]."""
        return self.rows * self.value_width * self.activation_bytes

    @property
    def stored_context_tokens(self) -> Numeric:
        """Tokens of all contexts; shared tokens count once."""
        return stored_tokens(self.levels) if self.levels else self.prompts * self.context_tokens

    @property
    def context_copy_bytes(self) -> Numeric:
        """K and V of all prompts' contexts, each read once. [bytes]."""
        return self.cached_bytes(self.prompts * self.context_tokens)

    @property
    def decoded_bytes(self) -> Numeric:
        """K and V of all samples' decoded tokens. [bytes]."""
        return self.cached_bytes(self.sequences * self.decoded_tokens)

    def whole(self, *, rereads: bool = False) -> CachePart:
        """Return the reads of standard attention: all keys of every sequence, P b (m_c + m_d).

        Equation 5 of the paper: ``g k b (m_c + m_d)`` elements of K and of V.

        Parameters
        ----------
        rereads
            Whether the sequences read one stored context instead of copies.
        """
        stored = self.stored_context_tokens if rereads else 0
        return CachePart(
            name="attention",
            tokens=self.tokens,
            caches=self.sequences,
            sharers=1,
            repeated_tokens=self.sequences * self.context_tokens - stored if rereads else 0,
            stored_tokens=stored,
        )

    @property
    def context_part(self) -> CachePart:
        """The context of each prompt, which all its samples share."""
        return CachePart(
            name="attention_context",
            tokens=self.context_tokens,
            caches=self.prompts,
            sharers=self.samples,
        )

    @property
    def decoded_part(self) -> CachePart:
        """The decoded tokens of each sequence."""
        return CachePart(
            name="attention_suffix", tokens=self.decoded_tokens, caches=self.sequences, sharers=1
        )

    @property
    def parts(self) -> tuple[CachePart, ...]:
        """The parts that bifurcated attention reads: the context or its levels, decoded tokens.

        Equation 6 of the paper: ``g k (m_c + b m_d)`` elements of K and of V.
        """
        if self.levels:
            return cache_parts(self.levels, self.decoded_part)
        return self.context_part, self.decoded_part

    def cached_bytes(self, cached_tokens: Numeric) -> Numeric:
        """K and V of a number of cached tokens. [bytes]."""
        return cached_tokens * self.cache_width * self.kv_bytes

    def keys_bytes(self, cached_tokens: Numeric) -> Numeric:
        """K of a number of cached tokens, for operations that read only the keys. [bytes].

        A latent cache is all keys; its groups share the rotary part.
        """
        return cached_tokens * min(self.kv_heads * self.key_width, self.cache_width) * self.kv_bytes

    def values_bytes(self, cached_tokens: Numeric) -> Numeric:
        """V of a number of cached tokens; a latent cache's V is a part of its K. [bytes]."""
        return cached_tokens * self.kv_heads * self.value_width * self.kv_bytes

    def flops(self, tokens: Numeric) -> Numeric:
        """FLOPs of <q,K> and <w,V> against ``tokens`` keys. [FLOP]."""
        return 2 * self.rows * tokens * (self.key_width + self.value_width)

    def logits_bytes(self, tokens: Numeric) -> Numeric:
        """One pass over the logits of ``tokens`` keys. [bytes]."""
        return self.rows * tokens * self.activation_bytes


def causal_pairs(tokens: Numeric, most: Numeric) -> Numeric:
    """Return the pairs of query and key of a sequence whose queries see at most so many keys.

    m (m + 1) / 2 for m tokens; w m - w (w - 1) / 2 if they see w < m.
    """
    window = minimum(tokens, most)
    return window * tokens - window * (window - 1) / 2


def present(tokens: Numeric) -> Numeric:
    """Return 1 if there are keys, 0 if there are none and the part is skipped."""
    return where(tokens > 0, 1, 0)


def several(count: Numeric) -> Numeric:
    """Return 1 for more than one, else 0."""
    return where(count > 1, 1, 0)
