"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from dataclasses import dataclass

from simulator.answers.estimate import Estimate, memory_on
from simulator.answers.search import largest
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import LARGEST_COUNT, Workload
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


def capacity(
    result: Estimate,
    *,
    target_step_s: float | None = None,
    most_context_tokens: int = LARGEST_COUNT,
) -> Capacity:
    """Find the limits around an estimate: samples and context are each grown alone.

    Parameters
    ----------
    target_step_s
        Longest acceptable decode step. [s]
    most_context_tokens
        Where the search for the longest context ends.
    """
    model, setup = result.model, result.setup
    ends = {"samples": LARGEST_COUNT, "context_tokens": most_context_tokens}

    def at(field: str, value: int) -> Workload:
        return result.workload.but(**{field: value})

    def held(field: str, low: int, how: str) -> int | None:
        def fits(value: int) -> bool:
            return bool(getattr(memory_on(result.gpu, model, setup, at(field, value)), how))

        return largest(fits, low=low, high=ends[field])

    def in_time(field: str, value: int) -> bool:
        if target_step_s is None:
            return True
        changed = decode_time(model, setup, at(field, value), result.rates)
        return float(changed.total_s) <= target_step_s

    def limits(field: str, low: int) -> tuple[int | None, int | None, int | None]:
        most, surely = held(field, low, "fits"), held(field, low, "surely_fits")
        if most is None or in_time(field, most):
            return most, surely, most
        return most, surely, largest(lambda value: in_time(field, value), low=low, high=most)

    samples, samples_surely, samples_in_time = limits("samples", 1)
    context, context_surely, context_in_time = limits("context_tokens", 0)
    return Capacity(
        most_samples=samples,
        longest_context_tokens=context,
        most_samples_surely=samples_surely,
        longest_context_tokens_surely=context_surely,
        most_samples_in_time=samples_in_time,
        longest_context_tokens_in_time=context_in_time,
    )


def longest_context(model: ModelShape, work: Workload) -> int:
    """Return the longest context worth asking about: what the model was made for.

    Each sample's decoded tokens count against it; a longer context is taken if it is the question.

    >>> from simulator.inputs.presets import load_model
    >>> longest_context(load_model("llama-2-7b"), Workload(context_tokens=1024))
    4032
    """
    if model.max_context_tokens is None:
        return LARGEST_COUNT
    return max(model.max_context_tokens - work.decoded_tokens, work.context_tokens)
