"""Which levels of a prefix tree to read apart: every choice timed, and a rule for each level.

Splitting a level from what is below it reads its keys once per node instead of once per reader. It
costs one more kernel per layer, one more read of the queries, and a partial result that the merge
writes and reads. Both sides are counted as operations, so the rule needs no formula of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from operator import itemgetter

from simulator.answers.answer import Answer
from simulator.answers.estimate import Estimate, Question, estimate, latent_forms
from simulator.answers.search import from_where_on
from simulator.answers.verdict import Verdict, verdict_of
from simulator.counts.attention.flash import TOKENS_PER_SPLIT
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations
from simulator.errors import WorkloadError
from simulator.inputs.tree import Level
from simulator.inputs.workload import Workload
from simulator.timing.interval import speedup_interval
from simulator.timing.limits import resident_blocks

# How far to search for the shortest level whose split pays.
LONGEST_LEVEL = 2**22


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One choice of levels to read once for each node.

    Attributes
    ----------
    split
        Names of those levels; the others are read with what is below them. No level is standard
        attention over one stored tree; only the last is bifurcated attention over whole prompts.
    """

    split: tuple[str, ...]
    result: Estimate


@dataclass(frozen=True, kw_only=True)
class LevelRule:
    """The effect of splitting one level, with the others as in the fastest choice.

    Attributes
    ----------
    split
        Whether the fastest choice splits it.
    nodes, readers
        How often its keys are read when split, and when joined with what is below it.
    saved_bytes, added_bytes, added_launches
        KV bytes saved; bytes of queries and partial results added; kernels added; over all layers.
        [bytes]
    gained_s
        Step time joined minus split; negative where splitting loses. [s]
    verdict
        Whether to split, given the uncertainty of the predictions.
    fewer_bytes_from_tokens, faster_from_tokens
        The shortest level at and above which splitting moves fewer bytes, and is faster, all else
        equal; None if there is none.
    """

    level: Level
    split: bool
    nodes: int
    readers: int
    saved_bytes: float
    added_bytes: float
    added_launches: int
    gained_s: float
    verdict: Verdict
    fewer_bytes_from_tokens: int | None
    faster_from_tokens: int | None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TreePlan(Answer):
    """Every way to read a tree, and the best one.

    Attributes
    ----------
    standard
        Every level read for every sample, stored as the setup's ``kv_layout`` says.
    readings
        Every choice of levels over one stored tree: those that fit, then the rest, by time.
    rules
        For each level from the root down, whether to split it.
    """

    standard: Estimate
    readings: tuple[Reading, ...]
    rules: tuple[LevelRule, ...]

    @property
    def best(self) -> Reading:
        """The fastest choice that fits; of equals, the one that splits fewer levels."""
        return self.readings[0]

    def reading(self, split: tuple[str, ...]) -> Reading:
        """Return one choice of levels."""
        return next(item for item in self.readings if set(item.split) == set(split))


def plan_tree(question: Question) -> TreePlan:
    """Time every choice of levels to split, and judge each level on its own.

    The setup's own ``attention``, and which levels the workload splits, are ignored. A workload
    without a tree has one level, its context.

    Raises
    ------
    WorkloadError
        If there is no shared token, or the kernel does not support trees.
    """
    work = _with_levels(question.workload)
    question = question.of(workload=work)
    standard = estimate(question.under("standard"))
    names = [level.name for level in work.tree]
    readings = [
        Reading(split=split, result=estimate(_read(question, split)))
        for count in range(len(names) + 1)
        for split in combinations(names, count)
    ]
    # Sorting is stable: of equals, the one with fewer levels comes first.
    readings.sort(key=lambda reading: (not reading.result.memory.fits, reading.result.step_s))
    best = question.of(workload=work.splitting(readings[0].split))
    rules = tuple(_rule(best, index) for index in range(len(names)))
    return TreePlan(standard=standard, readings=tuple(readings), rules=rules)


def _with_levels(work: Workload) -> Workload:
    """Return the workload; without a tree, its context becomes the only level."""
    if work.tree:
        return work
    if not work.context_tokens:
        raise WorkloadError("context_tokens = 0: there is no shared level to read")
    context = Level(name="context", tokens=work.context_tokens, branches=work.prompts)
    return work.but(tree=(context,))


def _rule(question: Question, index: int) -> LevelRule:
    """Compare one level split and joined, with the others as in the fastest choice.

    Each side takes its fastest form of latent attention, which the question leaves open.
    """
    best = question.workload
    level = best.tree[index]
    others = [item.name for item in best.tree if item.split and item is not level]

    def both(tokens: int) -> tuple[Question, Question]:
        resized = question.of(workload=_resized(best, index, tokens))
        return _read(resized, [*others, level.name]), _read(resized, others)

    def fastest(asked: Question) -> tuple[float, Question]:
        forms = [asked.of(setup) for setup in latent_forms(asked.model, asked.setup)]
        return min(((float(form.step_time_s()), form) for form in forms), key=itemgetter(0))

    def seconds(asked: Question) -> float:
        return fastest(asked)[0]

    def moved(asked: Question) -> float:
        _, form = fastest(asked)
        resident = resident_blocks(form.gpu)
        sizes = form.model, form.setup, form.workload
        totals = total(decode_operations(*sizes, resident_blocks=resident))
        return float(totals.bytes_read + totals.bytes_written)

    def shortest(cost: Callable[[Question], float]) -> int | None:
        def gain(tokens: int) -> float:
            split, joined = both(tokens)
            return cost(joined) / cost(split)

        return from_where_on(gain, high=LONGEST_LEVEL, after=TOKENS_PER_SPLIT)

    split, joined = map(estimate, both(level.tokens))
    low, high = map(float, speedup_interval(joined.uncertainty, split.uncertainty))
    fits = bool(split.memory.fits)  # both store the tree once
    saved = float(joined.totals.kv_bytes_read - split.totals.kv_bytes_read)
    return LevelRule(
        level=level,
        split=level.split,
        nodes=_nodes(best, index),
        readers=_readers(best, index),
        saved_bytes=saved,
        added_bytes=saved + moved(split) - moved(joined),
        added_launches=round(float(split.totals.launches - joined.totals.launches)),
        gained_s=joined.step_s - split.step_s,
        verdict=verdict_of(low, high, standard_fits=fits, bifurcated_fits=fits),
        fewer_bytes_from_tokens=shortest(moved),
        faster_from_tokens=shortest(seconds),
    )


def _read(question: Question, split: Sequence[str]) -> Question:
    """Return the question about reading these levels once per node, over one stored tree."""
    setup = question.setup.under("bifurcated" if split else "standard")
    return question.of(setup.but(kv_layout="shared"), question.workload.splitting(split))


def _nodes(work: Workload, index: int) -> int:
    """Return the nodes of a level."""
    return prod(level.branches for level in work.tree[: index + 1])


def _readers(work: Workload, index: int) -> int:
    """Return how often a level is read when joined with what is below it."""
    for below in range(index + 1, len(work.tree)):
        if work.tree[below].split:
            return _nodes(work, below)
    return work.prompts * work.samples


def _resized(work: Workload, index: int, tokens: int) -> Workload:
    """Return the tree with one level's length changed."""
    levels = list(work.tree)
    longer = work.context_tokens + tokens - levels[index].tokens
    levels[index] = levels[index].but(tokens=tokens)
    return work.but(tree=tuple(levels), context_tokens=longer)
