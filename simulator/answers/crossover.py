"""Where one model is faster than another, over context and samples: a map and its border."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from simulator.answers.estimate import Question
from simulator.errors import WorkloadError, check_between
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.numeric import Array

# How far the map reaches by default, and at most.
MOST_SAMPLES, LONGEST_CONTEXT = 1024, 2**17
SAMPLES_LIMIT, CONTEXT_LIMIT = 2**14, 2**22
SHORTEST_CONTEXT = 2**8
# Points of the map per doubling.
PER_OCTAVE = 2

Pairing = tuple[Attention, Attention]
# The kind of attention of the base, and of the other model.
PAIRINGS: tuple[Pairing, ...] = (
    ("standard", "standard"),
    ("bifurcated", "bifurcated"),
    ("bifurcated", "standard"),
)


@dataclass(frozen=True, kw_only=True)
class Border:
    """Where the other model is faster, each under its kind of attention in a pairing.

    Attributes
    ----------
    from_samples
        At each context, the fewest samples at which it is faster; 0 for none.
    until_samples
        The samples at which it is slower again, and stays so; 0 where that does not happen.
    slower_between
        How many sample counts between the two are gaps where it is not faster, due to tiles and
        waves of thread blocks.
    share
        Share of the map where it is faster, with contexts and samples in equal steps of their
        logarithm.
    largest_speedup, mean_speedup
        The base's time over its own: the largest on the map, and the geometric mean over the map.
    """

    from_samples: tuple[int, ...]
    until_samples: tuple[int, ...]
    slower_between: tuple[int, ...]
    share: float
    largest_speedup: float
    mean_speedup: float


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """A map of two models' decode steps over context and samples.

    Attributes
    ----------
    context_tokens, samples
        Axes of the map.
    base_step_s, other_step_s
        Step times by kind of attention, arrays of samples x contexts. [s]
    base_memory_share, other_memory_share
        Needed over usable memory, by kind of attention; a step fits up to 1.
    borders
        By pairing, see :data:`PAIRINGS`.
    """

    context_tokens: Array
    samples: Array
    base_step_s: Mapping[Attention, Array]
    other_step_s: Mapping[Attention, Array]
    base_memory_share: Mapping[Attention, Array]
    other_memory_share: Mapping[Attention, Array]
    borders: Mapping[Pairing, Border]


def crossover(
    base: Question,
    other: ModelShape,
    *,
    most_samples: int = MOST_SAMPLES,
    longest_context_tokens: int = LONGEST_CONTEXT,
) -> Crossover:
    """Time both models at every context of the map and every number of samples.

    All sample counts from 1 to ``most_samples`` are timed, as arrays, so the borders are exact; the
    map keeps a few per doubling.

    Parameters
    ----------
    base, other
        A question about one model, whose own ``attention`` is ignored, and the other model.
    most_samples, longest_context_tokens
        Ends of the map.

    Raises
    ------
    WorkloadError
        If a limit makes no sense.
    """
    import numpy as np

    check_between("most_samples", most_samples, 2, SAMPLES_LIMIT)
    shortest = 2 * SHORTEST_CONTEXT
    check_between("longest_context_tokens", longest_context_tokens, shortest, CONTEXT_LIMIT)
    contexts = log_steps(SHORTEST_CONTEXT, longest_context_tokens)
    every = np.arange(1, most_samples + 1)
    shown = log_steps(1, most_samples)
    ours, theirs = (
        {kind: _solve(question.under(kind), every, contexts) for kind in ATTENTIONS}
        for question in (base, replace(base, model=other))
    )
    rows = shown - 1
    return Crossover(
        context_tokens=contexts,
        samples=shown,
        base_step_s={kind: seconds[rows] for kind, (seconds, _) in ours.items()},
        other_step_s={kind: seconds[rows] for kind, (seconds, _) in theirs.items()},
        base_memory_share={kind: share[rows] for kind, (_, share) in ours.items()},
        other_memory_share={kind: share[rows] for kind, (_, share) in theirs.items()},
        borders={
            pairing: _border(ours[pairing[0]][0] / theirs[pairing[1]][0], rows)
            for pairing in PAIRINGS
        },
    )


def _solve(question: Question, samples: Array, contexts: Array) -> tuple[Array, Array]:
    """Return a model's step times and shares of the memory, arrays of samples x contexts."""
    import numpy as np

    sizes = {"samples": samples.astype(float)[:, None], "context_tokens": contexts.astype(float)}
    grid = grid_of(question, **sizes)
    shape = (len(samples), len(contexts))
    needs = grid.memory_needs()
    share = needs.total_bytes / needs.capacity_bytes
    return np.broadcast_to(grid.step_time_s(), shape), np.broadcast_to(share, shape)


def grid_of(question: Question, **arrays: Any) -> Question:
    """Return a question in whose workload some sizes are arrays.

    Raises
    ------
    WorkloadError
        If it has a prefix tree, whose levels fix samples and context.
    """
    if question.workload.tree:
        raise WorkloadError(
            "this answer varies the samples and the context, and a tree has its own: give the "
            "workload without a tree"
        )
    return question.but(**arrays)


def log_steps(low: int, high: int) -> Array:
    """Return whole numbers in about equal steps of their logarithm, both ends included."""
    import numpy as np

    octaves = np.arange(0, np.log2(high / low), 1 / PER_OCTAVE)
    return np.unique(np.append(np.round(low * 2**octaves), high).astype(int))


def _border(speedup: Array, rows: Array) -> Border:
    """Find where the other model is faster: at each context, and on the rows of the map."""
    import numpy as np

    faster = speedup > 1
    first = np.where(faster.any(axis=0), faster.argmax(axis=0) + 1, 0)
    last = len(faster) - faster[::-1].argmax(axis=0)
    until = np.where((first > 0) & (last < len(faster)), last + 1, 0)
    between = np.where(first > 0, last - first + 1, 0)
    return Border(
        from_samples=tuple(map(int, first)),
        until_samples=tuple(map(int, until)),
        slower_between=tuple(map(int, between - faster.sum(axis=0))),
        share=float(faster[rows].mean()),
        largest_speedup=float(speedup[rows].max()),
        mean_speedup=float(np.exp(np.log(speedup[rows]).mean())),
    )
