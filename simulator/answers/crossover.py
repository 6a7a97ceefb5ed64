"""Where one model is faster than another, over context and samples: a map and its border."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.answers.sweep import NAMED_AXES, NUMERIC_AXES, Cell, compare_block
from simulator.errors import WorkloadError
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import ATTENTIONS, Attention, Workload
from simulator.timing.constants import Rates

if TYPE_CHECKING:
    import numpy as np

# How far is looked by default, and how far at most.
MOST_SAMPLES, LONGEST_CONTEXT = 1024, 2**17
SAMPLES_LIMIT, CONTEXT_LIMIT = 2**14, 2**22
SHORTEST_CONTEXT = 2**8
# Points of the map to each doubling.
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
    """Where the other model is faster, both under the kinds of attention of a pairing.

    Attributes
    ----------
    from_samples
        At each context, the least samples with which it is faster; 0 for none.
    until_samples
        The samples from which on it is slower again; 0 where that does not happen.
    share
        Share of the map, contexts and samples both in equal steps of their logarithm, on which it
        is faster.
    largest_speedup, mean_speedup
        The most it gains anywhere on the map, and the geometric mean over the map, as the base's
        time over its own.
    """

    from_samples: tuple[int, ...]
    until_samples: tuple[int, ...]
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
        Times by kind of attention, an array of samples x contexts. [s]
    base_fits, other_fits
        Whether they fit in memory, likewise.
    borders
        By pairing, see :data:`PAIRINGS`.
    """

    context_tokens: "np.ndarray"
    samples: "np.ndarray"
    base_step_s: Mapping[Attention, "np.ndarray"]
    other_step_s: Mapping[Attention, "np.ndarray"]
    base_fits: Mapping[Attention, "np.ndarray"]
    other_fits: Mapping[Attention, "np.ndarray"]
    borders: Mapping[Pairing, Border]

    def speedup(self, pairing: Pairing) -> "np.ndarray":
        """Return the base's time over the other's at every point of the map."""
        import numpy as np

        return np.asarray(self.base_step_s[pairing[0]] / self.other_step_s[pairing[1]])


def crossover(
    base: ModelShape,
    other: ModelShape,
    gpu_rates: Rates,
    workload: Workload,
    *,
    memory_utilization: float,
    most_samples: int = MOST_SAMPLES,
    longest_context_tokens: int = LONGEST_CONTEXT,
) -> Crossover:
    """Time both models at every context of the map and every number of samples.

    All samples from 1 to ``most_samples`` are timed, as arrays, so the borders are exact; the map
    keeps a few to each doubling.

    Raises
    ------
    WorkloadError
        If a limit makes no sense.
    """
    import numpy as np

    for name, value, low, high in (
        ("most_samples", most_samples, 2, SAMPLES_LIMIT),
        ("longest_context_tokens", longest_context_tokens, 2 * SHORTEST_CONTEXT, CONTEXT_LIMIT),
    ):
        if not low <= value <= high:
            raise WorkloadError(f"{name} = {value:,} is not between {low:,} and {high:,}")
    contexts = log_steps(SHORTEST_CONTEXT, longest_context_tokens)
    every = np.arange(1, most_samples + 1)
    shown = log_steps(1, most_samples)
    numeric = {axis: np.array([float(getattr(workload, axis))]) for axis in NUMERIC_AXES}
    numeric |= {"samples": every.astype(float), "context_tokens": contexts.astype(float)}
    named = {axis: getattr(workload, axis) for axis in NAMED_AXES}
    steps: list[dict[Attention, np.ndarray]] = []
    fits: list[dict[Attention, np.ndarray]] = []
    for model in (base, other):
        cell = Cell(model=model, gpu_rates=gpu_rates, named=named, numeric={})
        columns = compare_block(cell, numeric, memory_utilization)
        size = (len(every), len(contexts))
        steps.append({kind: columns[f"{kind}_step_ms"].reshape(size) / 1e3 for kind in ATTENTIONS})
        fits.append({kind: columns[f"{kind}_fits"].reshape(size) for kind in ATTENTIONS})
    rows = shown - 1
    return Crossover(
        context_tokens=contexts,
        samples=shown,
        base_step_s={kind: times[rows] for kind, times in steps[0].items()},
        other_step_s={kind: times[rows] for kind, times in steps[1].items()},
        base_fits={kind: held[rows] for kind, held in fits[0].items()},
        other_fits={kind: held[rows] for kind, held in fits[1].items()},
        borders={
            (ours, theirs): _border(steps[0][ours] / steps[1][theirs], rows)
            for ours, theirs in PAIRINGS
        },
    )


def log_steps(low: int, high: int) -> "np.ndarray":
    """Return whole numbers in about equal steps of their logarithm, both ends included."""
    import numpy as np

    octaves = np.arange(0, np.log2(high / low), 1 / PER_OCTAVE)
    return np.unique(np.append(np.round(low * 2**octaves), high).astype(int))


def _border(speedup: "np.ndarray", rows: "np.ndarray") -> Border:
    """Find where the other model is faster: at each context, and on the rows of the map."""
    import numpy as np

    faster = speedup > 1
    first = np.where(faster.any(axis=0), faster.argmax(axis=0) + 1, 0)
    last = len(faster) - faster[::-1].argmax(axis=0)
    until = np.where((first > 0) & (last < len(faster)), last + 1, 0)
    return Border(
        from_samples=tuple(map(int, first)),
        until_samples=tuple(map(int, until)),
        share=float(faster[rows].mean()),
        largest_speedup=float(speedup[rows].max()),
        mean_speedup=float(np.exp(np.log(speedup[rows]).mean())),
    )
