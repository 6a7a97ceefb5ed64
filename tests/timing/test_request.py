"""A whole request against its steps, one by one."""

from math import ceil
from typing import Any

import numpy as np
import pytest
from builders import REAL_MODELS, SLOTS, grid_of, mistral_7b, round_gpu, step_operations, workloads
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload
from simulator.timing import request
from simulator.timing.constants import rates
from simulator.timing.request import GenerationTime, generation_time
from simulator.timing.step import step_time

ROUND = rates(round_gpu())


def _generate(shape: ModelShape, work: Workload, output_tokens: int) -> GenerationTime:
    return generation_time(shape, work, ROUND, output_tokens=output_tokens, resident_blocks=SLOTS)


def _step_s(shape: ModelShape, work: Workload, decoded: int) -> float:
    operations = step_operations(shape, **{**work.model_dump(), "decoded_tokens": decoded})
    return float(step_time(operations, ROUND, work.execution).total_s)


def _steps_s(shape: ModelShape, work: Workload, lengths: list[int]) -> list[float]:
    """Return the times of steps of several lengths, as one array."""
    decoded = np.array(lengths, dtype=np.float64)
    operations = decode_operations(
        shape, grid_of(work, decoded_tokens=decoded), resident_blocks=SLOTS
    )
    total_s = step_time(operations, ROUND, work.execution).total_s
    steps: list[float] = np.broadcast_to(total_s, decoded.shape).tolist()
    return steps


@settings(max_examples=40)
@given(
    st.sampled_from(REAL_MODELS),
    workloads(query_tokens=st.sampled_from([1, 4])),
    st.integers(1, 600),
    st.sampled_from([1, 2.5, 4]),
)
def test_a_request_is_its_steps(
    shape: ModelShape, work: Workload, output_tokens: int, accepted_tokens: float
) -> None:
    """The sum over all steps, the first and the last are those of the lengths in a plain loop.

    The prefill gives the first token; a step attends over the tokens that are cached and its own
    query tokens, and moves each sample forward by those accepted.
    """
    if shape.latent is not None and work.kernel == "sdpa_math":
        return
    accepted = min(accepted_tokens, work.query_tokens)
    work = work.model_copy(update={"accepted_tokens": accepted})
    time = _generate(shape, work, output_tokens)
    lengths, generated = [], 1.0
    while generated < output_tokens:
        lengths.append(ceil(generated - 1) + work.query_tokens)
        generated += accepted
    steps = _steps_s(shape, work, lengths)
    for index in {0, len(steps) // 3, len(steps) - 1} if steps else ():
        assert steps[index] == pytest.approx(_step_s(shape, work, lengths[index]), rel=1e-12)
    assert time.steps == len(steps)
    assert time.decode_s == pytest.approx(sum(steps), rel=1e-9)
    assert time.first_step_s == pytest.approx(steps[0] if steps else 0)
    assert time.last_step_s == pytest.approx(steps[-1] if steps else 0)


def test_a_long_request_is_timed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the steps into arrays changes nothing, at whatever size they are cut."""
    work = Workload(attention="bifurcated")
    whole = _generate(mistral_7b(), work, 300)
    for size in (1, 7, 298, 299, 300):
        monkeypatch.setattr(request, "STEPS_AT_ONCE", size)
        parts = _generate(mistral_7b(), work, 300)
        assert parts.decode_s == pytest.approx(whole.decode_s, rel=1e-12)
        assert parts.first_step_s == pytest.approx(whole.first_step_s)
        assert parts.last_step_s == pytest.approx(whole.last_step_s)


def test_the_total_is_prefill_and_steps() -> None:
    """One token needs the prefill only."""
    work = Workload(attention="standard", samples=4, context_tokens=100)
    prefill = step_time(prefill_operations(mistral_7b(), work), ROUND, "graph").total_s
    one, three = (_generate(mistral_7b(), work, tokens) for tokens in (1, 3))
    assert one.total_s == pytest.approx(prefill)
    assert one.decode_s == one.first_step_s == one.last_step_s == 0
    steps = _step_s(mistral_7b(), work, 1) + _step_s(mistral_7b(), work, 2)
    assert three.total_s == pytest.approx(prefill + steps)


def test_own_tokens_of_the_question_do_not_matter() -> None:
    """They grow from one, whatever the workload says."""
    times = {
        _generate(mistral_7b(), Workload(attention="standard", decoded_tokens=decoded), 50).decode_s
        for decoded in (0, 64, 5000)
    }
    assert len(times) == 1


@pytest.mark.parametrize("kernel", ["ideal", "einsum", "sdpa_math"])
def test_steps_get_longer(kernel: Any) -> None:
    """Every step reads one more token a sample than the one before."""
    work = Workload(attention="standard", kernel=kernel)
    time = _generate(mistral_7b(), work, 300)
    assert time.first_step_s < time.decode_s / 299 < time.last_step_s
