"""Prefix trees: levels of shared tokens from the root down, equal for all nodes of a level.

For example: a system prompt shared by all, few-shot examples shared by a task's problems, a problem
shared by its samples. The context of a sample is the path from the root to it. The last level's
nodes are the prompts of a :class:`~simulator.inputs.workload.Workload`; samples are the leaves.

A tree is written as its levels, ``system=2K,problem=512x8``: 2048 tokens shared by all, and below
them 8 problems of 512 tokens. A ``+`` instead of the comma makes bifurcated attention read a level
together with the one below it.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from simulator.errors import WorkloadError
from simulator.inputs.files import read_count, validate
from simulator.inputs.record import Frozen, Rules

# A larger size is a typing error: no card can hold a thousandth of it.
LARGEST_LEVEL = 10**9
# Real trees have two or three levels, and all 2**levels choices of levels to split are tried.
MOST_LEVELS = 8
_LEVEL = r"(?:(?P<name>[^=]*)=)?(?P<tokens>[^=x*:]+)(?:[x*](?P<branches>[^=x*]+))?"
_FORM = "NAME=TOKENSxBRANCHES, such as problem=512x8"


LevelCount = Annotated[int, Rules(before=read_count, ge=1, le=LARGEST_LEVEL)]


class Level(Frozen):
    """One level of a prefix tree.

    Attributes
    ----------
    name
        Name of what is shared.
    tokens
        Tokens of each node.
    branches
        Nodes below each node of the level above; for the first level, all its nodes.
    split
        Whether bifurcated attention reads this level separately, once per node. Otherwise it is
        read together with the level below, equally often.
    """

    name: Annotated[str, Rules(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    tokens: LevelCount
    branches: LevelCount = 1
    split: bool = True

    def __str__(self) -> str:
        """Write the level as :func:`read_tree` reads it."""
        return f"{self.name}={self.tokens}" + (f"x{self.branches}" if self.branches > 1 else "")


def read_tree(data: Any) -> tuple[Level, ...]:
    """Read a tree from text, or from its levels (or tables of their fields) from the root down.

    Raises
    ------
    WorkloadError
        If a level is malformed, two have the same name, or there are too many.

    Examples
    --------
    >>> [str(level) for level in read_tree("system=2K,problem=1.5Kx8")]
    ['system=2048', 'problem=1536x8']
    >>> [(level.name, level.split) for level in read_tree("2K+512x8,60x4")]
    [('level1', False), ('level2', True), ('level3', True)]
    """
    if isinstance(data, str):
        levels = _read_text(data)
    elif isinstance(data, Sequence):
        levels = tuple(
            item if isinstance(item, Level) else _level(item, f"level {number}")
            for number, item in enumerate(data, 1)
        )
    else:
        raise WorkloadError(f"a tree is text such as system=2K,problem=512x8, not {data!r}")
    if len(levels) > MOST_LEVELS:
        raise WorkloadError(f"{len(levels)} levels; a tree has at most {MOST_LEVELS}")
    names = [level.name for level in levels]
    for name in names:
        if names.count(name) > 1:
            raise WorkloadError(f"two levels are named {name!r}")
    return levels


def tree_text(levels: Sequence[Level]) -> str:
    """Write a tree as :func:`read_tree` reads it.

    >>> tree_text(read_tree("system=2K+problem=512x8"))
    'system=2048+problem=512x8'
    """
    text = "".join(f"{level}{',' if level.split else '+'}" for level in levels)
    return text.removesuffix(",")


def _read_text(text: str) -> tuple[Level, ...]:
    """Read levels from text: a comma or the end splits a level from the next, a + joins it."""
    parts = re.split(r"([,+])", "".join(text.split()))
    if len(parts) > 1 and not parts[-1]:
        parts.pop()  # the last level may have a sign too
    levels = []
    for number, part in enumerate(parts[::2], 1):
        match = re.fullmatch(_LEVEL, part)
        if match is None:
            raise WorkloadError(f"{part!r} is not a level of a tree; write {_FORM}")
        name, tokens, branches = match.group("name", "tokens", "branches")
        fields = {
            "name": f"level{number}" if name is None else name,
            "tokens": tokens,
            "branches": 1 if branches is None else branches,
            "split": parts[2 * number - 1 : 2 * number] != ["+"],
        }
        levels.append(_level(fields, repr(part)))
    return tuple(levels)


def _level(data: Any, where: str) -> Level:
    """Build a level, with errors as one line."""
    return validate(Level, data, where=where, error=WorkloadError)
