"""Sizes of one layer's attention on one GPU, in the paper's symbols, and its reads.

In a prefix tree a level of t tokens has n nodes, each shared by all sequences below it. If it is
split, its keys are read once per node. If it is joined with the level below, they are read as often
as that level, so tokens stored once are read again. Splitting only the last level is bifurcated
attention; splitting none is standard attention.

b samples, n query tokens, h query heads, g KV heads, k head width, m_c context and m_d decoded
tokens; P prompts multiply every term. Sizes are those of one rank of a tensor-parallel group.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.counts.operation import Kind
from simulator.inputs.dtypes import Dtype
from simulator.inputs.model import Indexer
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, minimum, summed, where


class SharedLevel(NamedTuple):
    """The part of a tree's level that the queries can see.

    Attributes
    ----------
    tokens, nodes
        Tokens of each node, and number of nodes.
    split
        Whether it is read apart from the levels below.
    cached
        Whether the cache holds it already, so that a prefill computes only what is below it.
    """

    tokens: Numeric
    nodes: Numeric
    split: bool = True
    cached: bool = False


class CachePart(NamedTuple):
    """Keys that one kernel reads: a whole cache, one or several joined levels, or decoded tokens.

    Attributes
    ----------
    name
        Name of the operation.
    tokens, caches
        Keys of each cache, and number of caches.
    sharers
        Sequences whose queries read each cache.
    repeated_tokens, stored_tokens
        Over all caches: tokens that are stored once but read repeatedly, and their stored number.
    """

    name: str
    tokens: Numeric
    caches: Numeric
    sharers: Numeric
    repeated_tokens: Numeric = 0
    stored_tokens: Numeric = 0


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


# Prefix trees.


def visible_levels(work: Workload, visible_tokens: Numeric) -> tuple[SharedLevel, ...]:
    """Return the visible levels of a workload's tree from the root down.

    Parameters
    ----------
    visible_tokens
        The context's last tokens that the queries see; a sliding window hides the others. If the
        context's length differs from the sum of the levels, its last levels take the difference.
    """
    levels = []
    hidden = work.context_tokens - visible_tokens
    nodes: Numeric = 1
    start: Numeric = 0
    end: Numeric = 0
    for index, level in enumerate(work.tree):
        nodes = nodes * level.branches
        last = index == len(work.tree) - 1
        end = work.context_tokens if last else minimum(end + level.tokens, work.context_tokens)
        seen = maximum(end - maximum(start, hidden), 0)
        levels.append(SharedLevel(tokens=seen, nodes=nodes, split=level.split))
        start = end
    return tuple(levels)


def stored_tokens(levels: Sequence[SharedLevel]) -> Numeric:
    """Return the tokens of a tree, each node counted once."""
    return summed(level.nodes * level.tokens for level in levels)


def computed_levels(levels: Sequence[SharedLevel]) -> Iterator[tuple[SharedLevel, Numeric, str]]:
    """Yield the levels that a prefill computes, the tokens above each, and its name suffix."""
    above: Numeric = 0
    for number, level in enumerate(levels, 1):
        if not level.cached:
            yield level, above, f"_level_{number}" if len(levels) > 1 else ""
        above = above + level.tokens


def computed_tokens(levels: Sequence[SharedLevel]) -> Numeric:
    """Return the tokens that a prefill computes: those of :func:`stored_tokens` not yet cached."""
    return stored_tokens([level for level, *_ in computed_levels(levels)])


def shared_tokens(levels: Sequence[SharedLevel]) -> Numeric:
    """Return the tokens of the levels that are not read with decoded tokens, each node once."""
    below = 0
    while below < len(levels) and not levels[-1 - below].split:
        below += 1
    return stored_tokens(levels[: len(levels) - below])


def cache_parts(levels: Sequence[SharedLevel], own: CachePart) -> tuple[CachePart, ...]:
    """Return the part that each kernel reads, from the root down, decoded tokens last.

    The last levels, if not split, are read with the decoded tokens by every sequence.
    """
    numbered = sum(level.split for level in levels) > 1
    parts: list[CachePart] = []
    above: list[SharedLevel] = []  # joined levels, to be read with a level below
    for index, level in enumerate(levels):
        if not level.split:
            above.append(level)
            continue
        part = CachePart(
            name=f"attention_level_{index + 1}" if numbered else "attention_context",
            tokens=level.tokens,
            caches=level.nodes,
            sharers=own.caches // level.nodes,
        )
        parts.append(_joined(above, part))
        above = []
    return (*parts, _joined(above, own))


def _joined(above: Sequence[SharedLevel], part: CachePart) -> CachePart:
    """Return a part together with the joined levels above it."""
    if not above:
        return part
    tokens, repeated, stored = part.tokens, part.repeated_tokens, part.stored_tokens
    for level in above:
        tokens = tokens + level.tokens
        repeated = repeated + (part.caches - level.nodes) * level.tokens
        stored = stored + level.nodes * level.tokens
    return part._replace(tokens=tokens, repeated_tokens=repeated, stored_tokens=stored)
