"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from typing import NamedTuple

from simulator.answers.estimate import Question
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
        What fits at the upper end of the memory's interval.
    most_samples_in_time, longest_context_tokens_in_time
        What fits in memory and meets the target; equal to the former without a target.
    """

    most_samples: int | None
    longest_context_tokens: int | None
    most_samples_surely: int | None
    longest_context_tokens_surely: int | None
    most_samples_in_time: int | None
    longest_context_tokens_in_time: int | None


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
    samples, samples_in_time = _limits(question, "samples", 1, target_step_s)
    end = most_context_tokens
    context, context_in_time = _limits(question, "context_tokens", 0, target_step_s, end)
    return Capacity(
        most_samples=samples,
        longest_context_tokens=context,
        most_samples_surely=_held(question, "samples", 1, "surely_fits"),
        longest_context_tokens_surely=_held(question, "context_tokens", 0, "surely_fits", end),
        most_samples_in_time=samples_in_time,
        longest_context_tokens_in_time=context_in_time,
    )


def most_samples(question: Question, *, target_step_s: float | None = None) -> int | None:
    """Return ``most_samples_in_time`` of :func:`capacity` alone, which takes a quarter of its time.

    ``target_step_s`` is the longest acceptable decode step. [s]
    """
    return _limits(question, "samples", 1, target_step_s)[1]


def _limits(
    question: Question, field: str, low: int, target_step_s: float | None, end: int = LARGEST_COUNT
) -> tuple[int | None, int | None]:
    """Return the most of a size that fits, and the most that fits and meets a target."""

    def in_time(value: int) -> bool:
        asked = question.but(**{field: value})
        return target_step_s is None or float(asked.step_time_s()) <= target_step_s

    most = _held(question, field, low, "fits", end)
    if most is None or in_time(most):
        return most, most
    return most, largest(in_time, low=low, high=most)


def _held(
    question: Question, field: str, low: int, how: str, end: int = LARGEST_COUNT
) -> int | None:
    """Return the most of a size, up to an end, that memory holds, as far as ``how`` says."""

    def fits(value: int) -> bool:
        return bool(getattr(question.but(**{field: value}).memory_needs(), how))

    return largest(fits, low=low, high=end)


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
