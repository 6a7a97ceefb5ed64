"""The reads of each kernel over a prefix tree: levels split from those below, or joined.

A level of t tokens has n nodes, each shared by all sequences below it. If it is split, its keys are
read once per node. If it is joined with the level below, they are read as often as that level, so
tokens stored once are read again. Splitting only the last level is bifurcated attention; splitting
none is standard attention.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, minimum


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
    tokens: Numeric = 0
    for level in levels:
        tokens = tokens + level.nodes * level.tokens
    return tokens


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
    several = sum(level.split for level in levels) > 1
    parts: list[CachePart] = []
    above: list[SharedLevel] = []  # joined levels, to be read with a level below
    for index, level in enumerate(levels):
        if not level.split:
            above.append(level)
            continue
        part = CachePart(
            name=f"attention_level_{index + 1}" if several else "attention_context",
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
