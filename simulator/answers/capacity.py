"""How much fits: the most samples and the longest context, in memory and under a latency target."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from simulator.answers.estimate import Question, estimate
from simulator.answers.search import largest
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import LARGEST_COUNT, Workload

Size = Literal["samples", "context_tokens"]
# The least that is searched.
LEAST: dict[Size, int] = {"samples": 1, "context_tokens": 0}


@dataclass(frozen=True, eq=False)
class Capacity:
    """Limits around a question, samples and context each grown alone.

    Each is searched when it is first read, and None where not even the least size does.

    Attributes
    ----------
    target_step_s
        Longest acceptable decode step; None for any. [s]
    most_context_tokens
        Where the search for the longest context ends.
    """

    question: Question
    target_step_s: float | None = None
    most_context_tokens: int = LARGEST_COUNT

    @cached_property
    def most_samples(self) -> int | None:
        """The most samples that fit in memory, as far as one can say."""
        return self._held("samples")

    @cached_property
    def longest_context_tokens(self) -> int | None:
        """The longest context that fits in memory, as far as one can say."""
        return self._held("context_tokens")

    @cached_property
    def most_samples_surely(self) -> int | None:
        """The most samples that surely fit, and whose step surely meets the target."""
        return self._surely("samples", self.most_samples_in_time)

    @cached_property
    def longest_context_tokens_surely(self) -> int | None:
        """The longest context that surely fits, and whose step surely meets the target."""
        return self._surely("context_tokens", self.longest_context_tokens_in_time)

    @cached_property
    def most_samples_in_time(self) -> int | None:
        """The most samples that fit in memory and meet the target."""
        return self._in_time("samples", self.most_samples)

    @cached_property
    def longest_context_tokens_in_time(self) -> int | None:
        """The longest context that fits in memory and meets the target."""
        return self._in_time("context_tokens", self.longest_context_tokens)

    def _held(self, field: Size) -> int | None:
        """Return the most of a size that memory holds, as far as one can say."""

        def fits(value: int) -> bool:
            return bool(self.question.but(**{field: value}).memory_needs().fits)

        end = LARGEST_COUNT if field == "samples" else self.most_context_tokens
        return largest(fits, low=LEAST[field], high=end)

    def _in_time(self, field: Size, most: int | None) -> int | None:
        """Return the most of a size, up to the most that fits, that meets the target."""
        target_s = self.target_step_s
        if most is None or target_s is None:
            return most

        def meets(value: int) -> bool:
            return float(self.question.but(**{field: value}).step_time_s()) <= target_s

        return largest(meets, low=LEAST[field], high=most)

    def _surely(self, field: Size, most: int | None) -> int | None:
        """Return the most of a size that fits and is in time at the upper ends of both intervals.

        No larger size than ``most``, which fits and is in time as far as one can say, can.
        """
        target_s = self.target_step_s

        def does(value: int) -> bool:
            asked = self.question.but(**{field: value})
            held = bool(asked.memory_needs().surely_fits)
            return held and (target_s is None or estimate(asked).step_high_s <= target_s)

        return None if most is None else largest(does, low=LEAST[field], high=most)


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
