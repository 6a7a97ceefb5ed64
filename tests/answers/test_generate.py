"""A whole request, as it is reported."""

from typing import Any

import pytest
from builders import asked, gpu, mistral_7b

from simulator.answers.estimate import Question, estimate
from simulator.answers.generate import MOST_OUTPUT_TOKENS, Generation, generate
from simulator.errors import WorkloadError
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload


def _generate(output_tokens: int, card: Any = None, **settings: Any) -> Generation:
    price, users = (settings.pop(name, None) for name in ("usd_per_hour", "users"))
    question = asked(attention="bifurcated", **settings)
    return generate(
        Question(mistral_7b(), card or gpu(), *question),
        output_tokens=output_tokens,
        users=users,
        usd_per_hour=price,
    )


def test_a_request_is_a_loop_of_estimates() -> None:
    """A step for each token after the first, each a question of its own."""
    request = _generate(40, samples=6, context_tokens=900)
    setup, work = Setup(attention="bifurcated"), Workload(samples=6, context_tokens=900)
    steps = [
        estimate(Question(mistral_7b(), gpu(), setup, work.but(decoded_tokens=decoded))).step_s
        for decoded in range(1, 40)
    ]
    assert request.time.decode_s == pytest.approx(sum(steps), rel=1e-12)
    assert request.time_per_output_token_s == pytest.approx(sum(steps) / 39)
    assert request.last_step.step_s == pytest.approx(steps[-1])
    prefill_s = float(request.time.prefill.total_s)
    assert request.total_s == pytest.approx(prefill_s + sum(steps))


def test_a_request_of_one_user_is_the_request_alone_and_of_many_waits() -> None:
    """A closed loop of one user: the same prefill, and its steps at their mean length.

    By hand, of N users each token waits for N - 1 prefills in all, spread over the steps.
    """
    sizes: dict[str, Any] = {"samples": 4, "context_tokens": 2048, "engine": "none"}
    alone, eight = (_generate(101, users=users, **sizes) for users in (1, 8))
    assert alone.loaded is not None
    assert alone.loaded.total_s(alone.loaded.served) == pytest.approx(alone.total_s, rel=1e-3)
    assert eight.loaded is not None
    setup, work = Setup(attention="bifurcated"), Workload(samples=4, context_tokens=2048)
    together = work.but(prompts=8, decoded_tokens=51)
    step_s = estimate(Question(mistral_7b(), gpu(), setup, together)).step_s
    prefill_s = float(eight.time.prefill.total_s)
    by_hand_s = prefill_s + 100 * step_s + 7 * prefill_s
    assert eight.loaded.total_s(eight.loaded.served) == pytest.approx(by_hand_s)
    assert eight.total_s == pytest.approx(alone.total_s)
    assert _generate(101, samples=4).loaded is None


def test_throughput_and_cost_are_of_all_samples() -> None:
    """3 prompts of 5 samples of 20 tokens; at 3.60 USD an hour a second costs 0.001 USD."""
    request = _generate(20, samples=5, prompts=3, usd_per_hour=3.6)
    assert request.all_tokens == 300
    assert request.tokens_per_s == pytest.approx(300 / request.total_s)
    assert request.usd_per_million_tokens == pytest.approx(0.001 * request.total_s / 300 * 1e6)


def test_a_group_s_price_is_that_of_all_its_gpus() -> None:
    """Four GPUs of 2 USD cost 8; without a price there is no cost, not a zero."""
    assert _generate(2, gpu(price=2), tensor_parallel=4).usd_per_hour == 8
    free = _generate(2)
    assert free.usd_per_hour is None
    assert free.usd_per_million_tokens is None


def test_memory_is_that_of_the_last_step() -> None:
    """The caches end one token short of the output: the last token is never fed back."""
    request = _generate(129, samples=2, context_tokens=100)
    assert request.last_step.workload.decoded_tokens == 128
    assert request.last_step.memory.kv_bytes == (100 + 2 * 128) * 131_072


def test_memory_has_room_for_the_prefill() -> None:
    """10,000 tokens of Mistral-7B: residual and norm, gate, up and product of 8192 of them.

    Plain PyTorch takes all at once, and holds the layer's input as well. The last step alone needs
    a hundredth of either.
    """
    chunk, whole = (
        _generate(20, samples=2, context_tokens=10_000, execution=execution)
        for execution in ("graph", "eager")
    )
    assert chunk.memory.workspace_bytes == 8192 * 2 * (2 * 4096 + 3 * 14336)
    assert whole.memory.workspace_bytes == 10_000 * 2 * (3 * 4096 + 3 * 14336)
    assert whole.last_step.memory.workspace_bytes < 0.02 * whole.memory.workspace_bytes
    assert chunk.memory.kv_bytes == chunk.last_step.memory.kv_bytes


def test_a_request_may_not_fit_where_its_last_step_does() -> None:
    """Its prefill then needs the room that is left; the note says how much is missing."""
    small = {"samples": 1, "context_tokens": 40_000, "execution": "eager"}
    request = _generate(20, gpu(memory_gb=25), **small)
    assert request.last_step.memory.fits
    assert not request.memory.fits
    assert request.notes[-1].startswith("Does not fit: 3.")
    assert sum(note.startswith("Does not fit") for note in request.notes) == 1


def test_one_token_needs_no_step() -> None:
    """The prefill gives it."""
    request = _generate(1)
    assert request.time.decode_s == request.time_per_output_token_s == 0
    assert request.total_s == pytest.approx(float(request.time.prefill.total_s))


def test_constants_reach_prefill_and_steps() -> None:
    """At published peaks both are faster."""
    peak, carried = _generate(10, constants="peak"), _generate(10)
    assert peak.time.decode_s < carried.time.decode_s
    assert peak.time.prefill.total_s < carried.time.prefill.total_s


@pytest.mark.parametrize("tokens", [0, -1, MOST_OUTPUT_TOKENS + 1])
def test_an_impossible_length_is_refused(tokens: int) -> None:
    """Nothing to generate, or more than anybody would."""
    with pytest.raises(
        WorkloadError, match=r"^output_tokens = .* is not between 1 and 10,000,000$"
    ):
        _generate(tokens)


def test_accepted_tokens_take_fewer_steps() -> None:
    """39 tokens after the first at 2.5 a step: 15 steps and 1.5 tokens more, a sixteenth.

    The caches then hold 37 tokens of 37.5 and the 4 that the last step takes in, rounded up.
    """
    request = _generate(40, samples=6, context_tokens=900, query_tokens=4, accepted_tokens=2.5)
    assert request.time.steps == 16
    work = request.last_step.workload
    assert work.decoded_tokens == 42
    steps = [
        estimate(
            Question(
                mistral_7b(),
                gpu(),
                request.last_step.setup,
                work.but(decoded_tokens=-(-5 * k // 2) + 4),
            )
        ).step_s
        for k in range(16)
    ]
    assert request.time.decode_s == pytest.approx(sum(steps), rel=1e-12)
    assert request.time_per_output_token_s == pytest.approx(sum(steps) / 39)
    assert request.all_tokens == 6 * 40
    assert request.steps_note in request.notes
    assert request.steps_note.startswith("16 decode steps of 4 query tokens")


def test_drafts_that_are_all_rejected_cost_time() -> None:
    """With one token accepted of four there are as many steps as without drafts, each longer."""
    plain, drafted = _generate(100), _generate(100, query_tokens=4)
    assert drafted.time.steps == plain.time.steps == 99
    assert drafted.time.decode_s > plain.time.decode_s
    assert not plain.steps_note


def test_all_drafts_accepted_leave_the_caches_as_long() -> None:
    """129 tokens, four a step: 32 steps, and 128 own tokens at the last one."""
    request = _generate(129, query_tokens=4, accepted_tokens=4)
    assert (request.time.steps, request.last_step.workload.decoded_tokens) == (32, 128)
