"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from dataclasses import dataclass

from simulator.answers.estimate import Estimate, memory_on
from simulator.answers.search import largest
from simulator.inputs.workload import LARGEST_COUNT
from simulator.timing.step import decode_time


@dataclass(frozen=True, kw_only=True)
class Capacity:
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


def capacity(result: Estimate, *, target_step_s: float | None = None) -> Capacity:
    """Find the limits around an estimate: samples and context are each grown alone.

    Parameters
    ----------
    target_step_s
        Longest acceptable decode step. [s]
    """
    samples, samples_in_time = _limits(result, "samples", 1, target_step_s)
    context, context_in_time = _limits(result, "context_tokens", 0, target_step_s)
    return Capacity(
        most_samples=samples,
        longest_context_tokens=context,
        most_samples_surely=_held(result, "samples", 1, "surely_fits"),
        longest_context_tokens_surely=_held(result, "context_tokens", 0, "surely_fits"),
        most_samples_in_time=samples_in_time,
        longest_context_tokens_in_time=context_in_time,
    )


def most_samples(result: Estimate, *, target_step_s: float | None = None) -> int | None:
    """Return ``most_samples_in_time`` of :func:`capacity` alone, which takes a quarter of its time.

    ``target_step_s`` is the longest acceptable decode step. [s]
    """
    return _limits(result, "samples", 1, target_step_s)[1]


def _limits(
    result: Estimate, field: str, low: int, target_step_s: float | None
) -> tuple[int | None, int | None]:
    """Return the most of a size that fits, and the most that fits and meets a target."""

    def in_time(value: int) -> bool:
        if target_step_s is None:
            return True
        work = result.workload.but(**{field: value})
        return float(decode_time(result.model, result.setup, work, result.rates).total_s) <= (
            target_step_s
        )

    most = _held(result, field, low, "fits")
    if most is None or in_time(most):
        return most, most
    return most, largest(in_time, low=low, high=most)


def _held(result: Estimate, field: str, low: int, how: str) -> int | None:
    """Return the most of a size that memory holds, as far as ``how`` says."""

    def fits(value: int) -> bool:
        work = result.workload.but(**{field: value})
        return bool(getattr(memory_on(result.gpu, result.model, result.setup, work), how))

    return largest(fits, low=low, high=LARGEST_COUNT)
