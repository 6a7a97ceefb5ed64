"""Quality against latency: how many samples a target allows, and the pass@k they reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from simulator.answers.answer import Answer
from simulator.answers.crossover import grid_of, log_steps
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.generate import at_last_step
from simulator.answers.pass_at_k import Success
from simulator.answers.price import SECONDS_PER_HOUR, price_per_hour
from simulator.answers.search import largest
from simulator.errors import WorkloadError, check_between
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.timing.request import request_times

# What limits the number of samples.
Limit = Literal["time", "memory", "counts", "search"]

MOST_SAMPLES = 1024
SAMPLES_LIMIT = 2**14
MOST_OUTPUT_TOKENS = 2**16


@dataclass(frozen=True, kw_only=True)
class QualityPoint:
    """The cost and the pass@k of one number of samples.

    Attributes
    ----------
    step_s
        The decode step at the workload's own tokens; of a request, its last step. [s]
    request_s
        From the prompt to the last token of all samples, None without output tokens. [s]
    pass_at_k, stderr
        The probability that at least one sample is right, and its standard error where known.
    usd_per_problem
        Price of a request per problem, None where the price or the output length is unknown.
    """

    attention: Attention
    samples: int
    step_s: float
    request_s: float | None
    fits: bool
    pass_at_k: float
    stderr: float | None
    usd_per_problem: float | None


@dataclass(frozen=True, kw_only=True)
class Affordable:
    """The best point within time and memory.

    Attributes
    ----------
    point
        None if not even one sample fits.
    limit
        What rules out one more sample: the ``time`` target, ``memory``, ``counts`` (pass@k is
        unknown beyond it) or ``search`` (nothing does, up to the most samples tried).
    """

    point: QualityPoint | None
    limit: Limit


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Quality(Answer):
    """pass@k against latency under both kinds of attention.

    Attributes
    ----------
    results
        The workload's own decode step, by kind of attention.
    success
        What is known about how often a sample is right.
    points
        By kind of attention: a few sample counts per doubling, and those of ``best``.
    best
        By kind of attention: the best point within the targets.
    """

    results: Mapping[Attention, Estimate]
    success: Success
    output_tokens: int | None
    target_step_s: float | None
    target_request_s: float | None
    points: Mapping[Attention, tuple[QualityPoint, ...]]
    best: Mapping[Attention, Affordable]


def quality(
    question: Question,
    success: Success,
    *,
    output_tokens: int | None = None,
    target_step_s: float | None = None,
    target_request_s: float | None = None,
    most_samples: int = MOST_SAMPLES,
    usd_per_hour: float | None = None,
) -> Quality:
    """Find the quality that a latency buys; the workload's own ``samples`` are one of many points.

    Parameters
    ----------
    question
        What is asked; its own ``attention`` is ignored.
    success
        See :mod:`simulator.answers.pass_at_k`.
    output_tokens
        Tokens each sample generates, to time whole requests; the workload's ``decoded_tokens``
        must then be those of the last step.
    target_step_s, target_request_s
        Longest acceptable decode step and request; all given targets apply. [s]
    most_samples
        The largest number of samples to try.
    usd_per_hour
        Price of one GPU instead of the profile's own. [USD/h]

    Raises
    ------
    WorkloadError
        If a limit makes no sense or the workload cannot run.
    """
    for name, target in (("target_step_ms", target_step_s), ("target_request_s", target_request_s)):
        if target is not None and not target > 0:
            shown = target * 1e3 if name.endswith("ms") else target
            raise WorkloadError(f"{name} = {shown:g} is not positive")
    check_between("most_samples", most_samples, 1, SAMPLES_LIMIT)
    if output_tokens is not None:
        check_between("output_tokens", output_tokens, 1, MOST_OUTPUT_TOKENS)
        question = at_last_step(question, output_tokens)
    elif target_request_s is not None:
        raise WorkloadError(
            "a target for the whole request needs to know how long it is: give output_tokens"
        )
    results = {name: estimate(question.under(name)) for name in ATTENTIONS}
    known = success.largest_k
    most = most_samples if known is None else min(most_samples, known)
    price = price_per_hour(question.gpu, question.setup.gpus, usd_per_hour)
    points = {
        attention: partial(_points, result, success, output_tokens, price)
        for attention, result in results.items()
    }
    beyond: Limit = "counts" if known is not None and known <= most_samples else "search"

    def in_time(point: QualityPoint) -> bool:
        limits = (point.step_s, target_step_s), (point.request_s, target_request_s)
        return all(
            target is None or (time is not None and time <= target) for time, target in limits
        )

    best = {attention: _best(of, in_time, most, beyond) for attention, of in points.items()}
    shown_samples = {*map(int, log_steps(1, most)), min(question.workload.samples, most)}
    shown_samples |= {item.point.samples for item in best.values() if item.point is not None}
    return Quality(
        results=results,
        success=success,
        output_tokens=output_tokens,
        target_step_s=target_step_s,
        target_request_s=target_request_s,
        points={attention: of(sorted(shown_samples)) for attention, of in points.items()},
        best=best,
    )


def _points(
    result: Estimate,
    success: Success,
    output_tokens: int | None,
    usd_per_hour: float | None,
    samples: Sequence[int],
) -> tuple[QualityPoint, ...]:
    """Return a point for each number of samples, all computed at once."""
    import numpy as np

    model, setup, work = result.model, result.setup, result.workload
    counts = np.asarray(samples, dtype=np.float64)
    grid = grid_of(result, samples=counts)
    needs = grid.memory_needs(prefill=output_tokens is not None)
    requests: Sequence[float | None] = [None] * len(counts)
    if output_tokens is not None:
        times = request_times(
            model, setup, work, result.rates, samples=counts, output_tokens=output_tokens
        )
        requests = times.tolist()
    steps = np.broadcast_to(grid.step_time_s(), counts.shape)
    fits = np.broadcast_to(needs.fits, counts.shape)
    usd_per_s = None if usd_per_hour is None else usd_per_hour / SECONDS_PER_HOUR
    return tuple(
        QualityPoint(
            attention=result.attention,
            samples=int(count),
            step_s=float(step_s),
            request_s=request_s,
            fits=bool(held),
            pass_at_k=probability,
            stderr=stderr,
            usd_per_problem=None
            if request_s is None or usd_per_s is None
            else usd_per_s * request_s / work.prompts,
        )
        for count, step_s, request_s, held in zip(counts, steps, requests, fits, strict=True)
        for probability, stderr in [success.at(int(count))]
    )


def _best(
    points: Callable[[Sequence[int]], tuple[QualityPoint, ...]],
    in_time: Callable[[QualityPoint], bool],
    most: int,
    beyond: Limit,
) -> Affordable:
    """Return the most samples that fit in memory and within the targets.

    ``beyond`` is what rules out more than ``most``.
    """

    def at(samples: int) -> QualityPoint:
        return points([samples])[0]

    held = largest(lambda samples: at(samples).fits, low=1, high=most)
    if held is None:
        return Affordable(point=None, limit="memory")
    timely = largest(lambda samples: in_time(at(samples)), low=1, high=held)
    if timely is None:
        return Affordable(point=None, limit="time")
    limit: Limit = "time" if timely < held else "memory" if held < most else beyond
    return Affordable(point=at(timely), limit=limit)
