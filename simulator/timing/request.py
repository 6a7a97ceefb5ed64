"""A whole request: prefill, then decode steps until every sample has its tokens."""

from typing import TYPE_CHECKING, NamedTuple

from simulator.counts.request import decode_steps, own_tokens
from simulator.counts.transformer import prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import Uncertainty, uncertainty
from simulator.timing.step import StepTime, decode_time, step_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

# Steps timed at once: enough to amortise numpy, few enough for the processor's cache.
STEPS_AT_ONCE = 2**14


class GenerationTime(NamedTuple):
    """Time of a request.

    Attributes
    ----------
    prefill
        The prefill, which fills the caches and gives every sample its first token.
    decode_s
        Sum of all decode steps.
    steps
        Number of decode steps; each adds its accepted tokens to every sample.
    first_step_s, last_step_s
        Time of the first and the last step, 0 if there is none. Steps get longer, except that
        bifurcated attention launches less once own tokens fill a sliding window.
    """

    prefill: StepTime
    decode_s: float
    steps: int
    first_step_s: float
    last_step_s: float

    @property
    def total_s(self) -> float:
        """Prefill and all steps. [s]."""
        return float(self.prefill.total_s) + self.decode_s


def generation_time(
    model: ModelShape, setup: Setup, work: Workload, gpu: Rates, *, output_tokens: int
) -> GenerationTime:
    """Time a request in which every sample generates ``output_tokens``.

    The prefill gives the first token; :mod:`simulator.counts.request` gives the decoded tokens of
    each step. All steps are timed as one array.

    Parameters
    ----------
    model, setup, work, gpu
        What is generated, how, its sizes, and the GPU's rates.
    output_tokens
        Tokens of each sample.
    """
    prefill = step_time(prefill_operations(model, setup, work), gpu, setup.execution)
    seconds, first, last = 0.0, 0.0, 0.0
    for times in _step_times(model, setup, work, gpu, output_tokens):
        seconds += float(times.sum())
        first = first or float(times[0])
        last = float(times[-1])
    steps = decode_steps(output_tokens, work.accepted_tokens)
    return GenerationTime(
        prefill=prefill, decode_s=seconds, steps=steps, first_step_s=first, last_step_s=last
    )


def request_interval(
    time: GenerationTime, gpu: Rates, setup: Setup, last_step: Uncertainty
) -> tuple[float, float]:
    """Return the interval of a request's time. [s].

    All steps have the relative errors of the last one.

    Parameters
    ----------
    time, gpu, setup
        The request's time, the rates it was timed with, and how it is run.
    last_step
        The interval of its last decode step.
    """
    prefill = uncertainty(time.prefill, gpu, setup, known=last_step.known)
    decode_s = time.decode_s / float(last_step.total_s)
    low_s = float(prefill.low_s) + decode_s * float(last_step.low_s)
    return low_s, float(prefill.high_s) + decode_s * float(last_step.high_s)


def request_times(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    gpu: Rates,
    *,
    samples: "np.ndarray",
    output_tokens: int,
) -> "np.ndarray":
    """Return the whole request's time for each number of samples. [s].

    The same sum as :func:`generation_time`, with all samples and steps in one array.

    Parameters
    ----------
    model, setup, work, gpu
        What is generated, how, its sizes, and the GPU's rates.
    samples
        Numbers of samples [S].
    output_tokens
        Tokens of each sample.

    Returns
    -------
    numpy.ndarray
        Times [S]. [s]
    """
    import numpy as np

    column = np.asarray(samples, dtype=np.float64)[:, None]
    work = work.but(samples=column)
    prefill = step_time(prefill_operations(model, setup, work), gpu, setup.execution).total_s
    total = np.broadcast_to(prefill, column.shape)[:, 0].copy()
    for times in _step_times(model, setup, work, gpu, output_tokens):
        total += times.sum(axis=1)
    return total


def _step_times(
    model: ModelShape, setup: Setup, work: Workload, gpu: Rates, output_tokens: int
) -> "Iterator[np.ndarray]":
    """Yield the times of some steps after others, for each number of samples [S, 1]: [S, steps]."""
    import numpy as np

    at_once = max(1, STEPS_AT_ONCE // np.size(work.samples))
    last = decode_steps(output_tokens, work.accepted_tokens)
    for start in range(1, last + 1, at_once):
        step = np.arange(start, min(start + at_once, last + 1), dtype=np.float64)
        decoded = own_tokens(step, work.query_tokens, work.accepted_tokens)
        times = decode_time(model, setup, work.but(decoded_tokens=decoded), gpu).total_s
        yield np.broadcast_to(times, np.broadcast_shapes(np.shape(work.samples), step.shape))
