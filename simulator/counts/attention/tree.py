"""What each kernel reads of a prefix tree: levels split from those below, or joined with them.

A level of t tokens has n nodes, each shared by all sequences below it. Read apart, its keys are
read once for each node. Joined with the level below, they are read as often as that one is; what is
stored once is then read again. Splitting the last level alone is bifurcated attention, splitting
none is standard attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, maximum, minimum


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLevel:
    """One level of a tree, as far as the queries can see it.

    Attributes
    ----------
    tokens, nodes
        Tokens of each node, and nodes.
    split
        Whether it is read apart from what is below it.
    """

    tokens: Numeric
    nodes: Numeric
    split: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePart:
    """Keys that one kernel reads: a whole cache, a level, several that are joined, or own tokens.

    Attributes
    ----------
    name
        Name of the operation.
    tokens, caches
        Keys of each cache, and caches.
    sharers
        Sequences whose queries read each cache.
    repeated_tokens, stored_tokens
        Over all caches, tokens that are stored once but read again, and what is stored of them.
    """

    name: str
    tokens: Numeric
    caches: Numeric
    sharers: Numeric
    repeated_tokens: Numeric = 0
    stored_tokens: Numeric = 0


def visible_levels(work: Workload, visible_tokens: Numeric) -> tuple[SharedLevel, ...]:
    """Return the levels of a workload's tree from the root down, without what is out of sight.

    Parameters
    ----------
    visible_tokens
        How many of the context's last tokens the queries see; a sliding window hides the others.
        A context that is longer or shorter than the levels together is so in its last ones.
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
    """Return the tokens of a tree's nodes, each node once."""
    tokens: Numeric = 0
    for level in levels:
        tokens = tokens + level.nodes * level.tokens
    return tokens


def cache_parts(levels: Sequence[SharedLevel], own: CachePart) -> tuple[CachePart, ...]:
    """Return what each kernel reads, from the root down, what each sequence has of its own last.

    Levels at the end that are not split are read with the own tokens, by every sequence.
    """
    several = sum(level.split for level in levels) > 1
    parts: list[CachePart] = []
    above: list[SharedLevel] = []  # levels that wait to be read with one below
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
    """Return a part with the levels above it that are read with it."""
    if not above:
        return part
    tokens, repeated, stored = part.tokens, part.repeated_tokens, part.stored_tokens
    for level in above:
        tokens = tokens + level.tokens
        repeated = repeated + (part.caches - level.nodes) * level.tokens
        stored = stored + level.nodes * level.tokens
    return replace(part, tokens=tokens, repeated_tokens=repeated, stored_tokens=stored)
