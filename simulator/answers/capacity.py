"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from dataclasses import dataclass

from simulator.answers.estimate import Estimate, estimate_with
from simulator.answers.search import largest
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import LARGEST_COUNT, Workload
from simulator.timing.constants import Rates


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Limits of one workload on one GPU (or group); None where not even the least fits.

    Attributes
    ----------
    most_samples, longest_context_tokens
        In memory, the other quantities as in the workload.
    most_samples_in_time, longest_context_tokens_in_time
        In memory and with a step no longer than the target; equal to the former without one.
    """

    most_samples: int | None
    longest_context_tokens: int | None
    most_samples_in_time: int | None
    longest_context_tokens_in_time: int | None


def capacity(
    model: ModelShape,
    gpu_rates: Rates,
    workload: Workload,
    *,
    memory_utilization: float,
    target_step_s: float | None = None,
) -> Capacity:
    """Find the limits of a workload.

    Parameters
    ----------
    target_step_s
        Longest acceptable decode step. [s]
    """

    def at(field: str, value: int) -> Estimate:
        changed = workload.model_copy(update={field: value})
        return estimate_with(model, gpu_rates, changed, memory_utilization)

    def limit(field: str, low: int, *, timed: bool) -> int | None:
        def good(value: int) -> bool:
            result = at(field, value)
            in_time = not timed or target_step_s is None or result.step_s <= target_step_s
            return bool(result.memory.fits) and in_time

        return largest(good, low=low, high=LARGEST_COUNT)

    return Capacity(
        most_samples=limit("samples", 1, timed=False),
        longest_context_tokens=limit("context_tokens", 0, timed=False),
        most_samples_in_time=limit("samples", 1, timed=True),
        longest_context_tokens_in_time=limit("context_tokens", 0, timed=True),
    )
