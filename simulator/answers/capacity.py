"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

from simulator.answers.estimate import Question, estimate
from simulator.answers.search import largest
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import LARGEST_COUNT, Workload


class Capacity(NamedTuple):
    """Limits of one workload on one GPU (or group); None where not even the smallest fits.

    Attributes
    ----------
    most_samples, longest_context_tokens
        What fits in memory as far as one can say, all other sizes as in the workload.
    most_samples_surely, longest_context_tokens_surely
        What fits, and meets the target, at the upper ends of the intervals of memory and time.
    most_samples_in_time, longest_context_tokens_in_time
        What fits and meets the target as far as one can say.
    """

    most_samples: int | None
    longest_context_tokens: int | None
    most_samples_surely: int | None
    longest_context_tokens_surely: int | None
    most_samples_in_time: int | None
    longest_context_tokens_in_time: int | None


class Most(NamedTuple):
    """The most of a size, as :class:`Capacity` has it: what fits, surely will do, and may do."""

    fits: int | None
    surely: int | None
    in_time: int | None


def capacity(
    question: Question,
    *,
    target_step_s: float | None = None,
    most_context_tokens: int = LARGEST_COUNT,
) -> Capacity:
    """Find the limits around a question: samples and context are each grown alone.

    Parameters
    ----------
    target_step_s
        Longest acceptable decode step. [s]
    most_context_tokens
        Where the search for the longest context ends.
    """
    samples = most_samples(question, target_step_s=target_step_s)
    context = _most(question, "context_tokens", 0, target_step_s, most_context_tokens)
    return Capacity(*chain.from_iterable(zip(samples, context, strict=True)))


def most_samples(question: Question, *, target_step_s: float | None = None) -> Most:
    """Find the most samples alone.

    ``target_step_s`` is the longest acceptable decode step. [s]
    """
    return _most(question, "samples", 1, target_step_s, LARGEST_COUNT)


def _most(question: Question, field: str, low: int, target_step_s: float | None, end: int) -> Most:
    """Return the most of a size, from ``low`` up to an end."""

    def fits(value: int) -> bool:
        return bool(question.but(**{field: value}).memory_needs().fits)

    def in_time(value: int) -> bool:
        asked = question.but(**{field: value})
        return target_step_s is None or float(asked.step_time_s()) <= target_step_s

    def surely(value: int) -> bool:
        asked = question.but(**{field: value})
        held = bool(asked.memory_needs().surely_fits)
        return held and (target_step_s is None or estimate(asked).step_high_s <= target_step_s)

    def most(holds: Callable[[int], bool], high: int | None) -> int | None:
        return None if high is None else largest(holds, low=low, high=high)

    held = most(fits, end)
    timely = most(in_time, held)
    return Most(held, most(surely, timely), timely)


def longest_context(model: ModelShape, work: Workload) -> int:
    """Return the longest context that the model was made for.

    Each sample's decoded tokens count against it.

    >>> from simulator.inputs.presets import load_model
    >>> longest_context(load_model("llama-2-7b"), Workload(context_tokens=1024))
    4032
    """
    if model.max_context_tokens is None:
        return LARGEST_COUNT
    return max(model.max_context_tokens - work.decoded_tokens, 0)
