"""A whole request against its steps, one by one."""

from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest
from builders import REAL_MODELS, mistral_7b, round_gpu, runs, setups, windowed, workloads
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.inputs.workload import Workload
from simulator.timing import request
from simulator.timing.constants import rates
from simulator.timing.limits import resident_blocks
from simulator.timing.request import GenerationTime, generation_time, request_times
from simulator.timing.step import decode_time, step_time

ROUND = rates(round_gpu())


def _generate(
    shape: ModelShape, setup: Setup, work: Workload, output_tokens: int
) -> GenerationTime:
    return generation_time(shape, setup, work, ROUND, output_tokens=output_tokens)


def _step_s(shape: ModelShape, setup: Setup, work: Workload, decoded: int) -> float:
    work = work.but(decoded_tokens=decoded)
    operations = decode_operations(shape, setup, work, resident_blocks=resident_blocks(ROUND.gpu))
    return float(step_time(operations, ROUND, setup.execution).total_s)


def _steps_s(shape: ModelShape, setup: Setup, work: Workload, lengths: list[int]) -> list[float]:
    """Return the times of steps of several lengths, as one array."""
    decoded = np.array(lengths, dtype=np.float64)
    total_s = decode_time(shape, setup, work.but(decoded_tokens=decoded), ROUND).total_s
    steps: list[float] = np.broadcast_to(total_s, decoded.shape).tolist()
    return steps


@settings(max_examples=40)
@given(
    st.sampled_from(REAL_MODELS),
    setups(),
    workloads(query_tokens=st.sampled_from([1, 4])),
    st.integers(1, 600),
    st.sampled_from([1, 2.5, 4]),
)
def test_a_request_is_its_steps(
    shape: ModelShape, setup: Setup, work: Workload, output_tokens: int, accepted_tokens: float
) -> None:
    """The sum over all steps, the first and the last are those of the lengths in a plain loop.

    The prefill gives the first token; a step attends over the tokens that are cached and its own
    query tokens, and moves each sample forward by those accepted.
    """
    if not runs(shape, setup):
        return
    accepted = min(accepted_tokens, work.query_tokens)
    work = work.but(accepted_tokens=accepted)
    time = _generate(shape, setup, work, output_tokens)
    lengths, generated = [], 1.0
    while generated < output_tokens:
        lengths.append(ceil(generated - 1) + work.query_tokens)
        generated += accepted
    steps = _steps_s(shape, setup, work, lengths)
    for index in {0, len(steps) // 3, len(steps) - 1} if steps else ():
        assert steps[index] == pytest.approx(_step_s(shape, setup, work, lengths[index]), rel=1e-12)
    assert time.steps == len(steps)
    assert time.decode_s == pytest.approx(sum(steps), rel=1e-9)
    assert time.first_step_s == pytest.approx(steps[0] if steps else 0)
    assert time.last_step_s == pytest.approx(steps[-1] if steps else 0)


def test_a_long_request_is_timed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the steps into arrays changes nothing, at whatever size they are cut."""
    question = Setup(attention="bifurcated"), Workload()
    whole = _generate(mistral_7b(), *question, 300)
    for size in (1, 7, 998, 999, 300):
        monkeypatch.setattr(request, "STEPS_AT_ONCE", size)
        parts = _generate(mistral_7b(), *question, 300)
        assert parts.decode_s == pytest.approx(whole.decode_s, rel=1e-12)
        assert parts.first_step_s == pytest.approx(whole.first_step_s)
        assert parts.last_step_s == pytest.approx(whole.last_step_s)


def test_the_total_is_prefill_and_steps() -> None:
    """One token needs the prefill only."""
    question = Setup(), Workload(samples=4, context_tokens=100)
    prefill = step_time(prefill_operations(mistral_7b(), *question), ROUND, "graph").total_s
    one, three = (_generate(mistral_7b(), *question, tokens) for tokens in (1, 3))
    assert one.total_s == pytest.approx(prefill)
    assert one.decode_s == one.first_step_s == one.last_step_s == 0
    steps = _step_s(mistral_7b(), *question, 1) + _step_s(mistral_7b(), *question, 2)
    assert three.total_s == pytest.approx(prefill + steps)


def test_own_tokens_of_the_question_do_not_matter() -> None:
    """They grow from one, whatever the workload says."""
    times = {
        _generate(mistral_7b(), Setup(), Workload(decoded_tokens=decoded), 50).decode_s
        for decoded in (0, 64, 5000)
    }
    assert len(times) == 1


@pytest.mark.parametrize("kernel", ["ideal", "einsum", "sdpa_math"])
def test_steps_get_longer(kernel: Any) -> None:
    """Every step reads one more token a sample than the one before."""
    time = _generate(mistral_7b(), Setup(kernel=kernel), Workload(), 300)
    assert time.first_step_s < time.decode_s / 299 < time.last_step_s


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_steps_get_longer_except_where_own_tokens_fill_a_window(attention: Attention) -> None:
    """Then 21 windowed layers launch neither the context's kernel nor the merge: 2 x 2 us each."""
    setup, work = Setup(attention=attention), Workload(samples=1, context_tokens=1000)
    growing = _steps_s(mistral_7b(), setup, work, list(range(1, 400)))
    assert growing == sorted(growing)
    steps = _steps_s(windowed(100), setup, work, list(range(1, 400)))
    falls = [before - after for before, after in pairwise(steps)]
    expected = 0 if attention == "standard" else 21 * 2 * 2e-6
    assert max(0, *falls) == pytest.approx(expected, rel=0.2)
    assert max(falls[100:]) <= 0


def test_many_numbers_of_samples_at_once_are_requests_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight steps of three requests, however many of them are in one array."""
    setup, counts = Setup(attention="bifurcated"), np.array([1, 7, 64])
    work = Workload(context_tokens=1000, query_tokens=4, accepted_tokens=2.5)
    alone = [
        _generate(mistral_7b(), setup, work.but(samples=int(samples)), 20).total_s
        for samples in counts
    ]
    for size in (2**14, 24, 21, 3, 1):
        monkeypatch.setattr(request, "STEPS_AT_ONCE", size)
        together = request_times(mistral_7b(), setup, work, ROUND, samples=counts, output_tokens=20)
        assert together.tolist() == pytest.approx(alone, rel=1e-12)
