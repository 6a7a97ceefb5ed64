"""How much fits, in memory and in time."""

import pytest
from builders import (
    REAL_MODELS,
    asked,
    gpu,
    gpus,
    llama_2_7b,
    mistral_7b,
    round_gpu,
    runs,
    setups,
    workloads,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.answers.capacity import Capacity, longest_context
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.counts.memory import memory
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.limits import resident_blocks

LIMITS = tuple(
    name + how
    for name in ("most_samples", "longest_context_tokens")
    for how in ("", "_surely", "_in_time")
)


def _at(result: Estimate, field: str, value: int) -> Estimate:
    changed = result.workload.but(**{field: value})
    return estimate(Question(result.model, result.gpu, result.setup, changed))


@settings(max_examples=40)
@given(st.sampled_from(REAL_MODELS), gpus(), setups(), workloads(), st.floats(1e-3, 1))
def test_limits_are_the_last_that_hold(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload, target_s: float
) -> None:
    """A limit fits and one more does not, in memory; in time, it is met and by one more missed."""
    assume(runs(shape, setup))
    result = estimate(Question(shape, card, setup, work))
    limits = Capacity(result, target_step_s=target_s)
    for field, least, held, surely, in_time in (
        (
            "samples",
            1,
            limits.most_samples,
            limits.most_samples_surely,
            limits.most_samples_in_time,
        ),
        (
            "context_tokens",
            0,
            limits.longest_context_tokens,
            limits.longest_context_tokens_surely,
            limits.longest_context_tokens_in_time,
        ),
    ):
        if held is None:
            assert not _at(result, field, least).memory.fits
            assert in_time is None
            continue
        assert _at(result, field, held).memory.fits
        assert not _fits(result, field, held + 1)
        if surely is not None:
            assert surely <= held
            assert _at(result, field, surely).memory.verdict == "fits"
        if surely != held:
            assert _at(result, field, held).memory.verdict == "too close to call"
        if in_time is None:
            assert _at(result, field, least).step_s > target_s
            continue
        assert in_time <= held
        assert _at(result, field, in_time).step_s <= target_s
        assert in_time == held or _at(result, field, in_time + 1).step_s > target_s


def _fits(result: Estimate, field: str, value: int) -> bool:
    # Nothing is checked: one past the largest count that can be typed is fine here.
    needs = memory(
        result.model,
        result.setup,
        result.workload.but(**{field: value}),
        card_bytes=result.gpu.memory_bytes,
        resident_blocks=resident_blocks(result.gpu),
    )
    return bool(needs.fits)


def test_samples_that_fit_by_hand() -> None:
    """Llama-2-7B on 80 GB at 0.9: weights 13,476,831,232 leave 58,523,168,768 bytes.

    The engine keeps 1.6 GiB, and room for a prefill of 8192 tokens: of each two hidden vectors of
    4096 values and three of 11,008, 2 bytes each. Copies take 8256 x 524,288 bytes a sample.
    Bifurcated, the context takes 4.29 GB once and a sample 64 x 524,288 bytes. Surely, it keeps 2.7
    GiB, and room for 16,384 tokens.
    """
    setup = Setup(attention="standard", kernel="ideal", kv_layout="copies")
    standard = Capacity(estimate(Question(llama_2_7b(), gpu(), setup, Workload())))
    per_token = 2 * (2 * 4096 + 3 * 11_008)
    left = 58_523_168_768 - 1.6 * 2**30 - 8192 * per_token
    assert standard.most_samples == left // (8256 * 524_288) == 12
    shared = setup.but(attention="bifurcated", kv_layout="shared")
    bifurcated = Capacity(estimate(Question(llama_2_7b(), gpu(), shared, Workload())))
    assert bifurcated.most_samples == (left - 8192 * 524_288) // (64 * 524_288) == 1544
    surely = left - 1.1 * 2**30 - 8192 * per_token
    assert bifurcated.most_samples_surely == (surely - 8192 * 524_288) // (64 * 524_288) == 1489


def test_no_limit_lies_beyond_where_the_search_ends() -> None:
    """Memory would hold more than 100,000 tokens, surely too: the search ends there."""
    held = estimate(
        Question(mistral_7b(), gpu(), Setup(attention="bifurcated"), Workload(samples=1))
    )
    limits = Capacity(held, most_context_tokens=100_000)
    assert limits.longest_context_tokens == limits.longest_context_tokens_surely == 100_000


def test_the_longest_context_of_a_model() -> None:
    """Llama-2 was made for 4096 tokens, 64 of them decoded, also where 8192 are asked about."""
    ended = llama_2_7b().but(max_context_tokens=4096)
    setup = Setup(attention="bifurcated", kv_layout="shared")
    for asked_tokens, decoded in ((1024, 64), (8192, 64), (8192, 5000)):
        work = Workload(context_tokens=asked_tokens, decoded_tokens=decoded)
        longest = max(0, 4096 - decoded)
        assert longest_context(ended, work) == longest
        limits = Capacity(
            estimate(Question(ended, gpu(), setup, work)), most_context_tokens=longest
        )
        assert limits.longest_context_tokens == longest
        assert (
            limits.most_samples
            == Capacity(estimate(Question(ended, gpu(), setup, work))).most_samples
        )
    endless = ended.but(max_context_tokens=None)
    assert longest_context(endless, Workload()) > 10**8


def test_without_a_target_both_limits_are_the_same() -> None:
    """Nothing but memory limits then; with a loose target likewise."""
    result = estimate(Question(mistral_7b(), gpu(), *asked()))
    free = Capacity(result)
    assert free.most_samples == free.most_samples_in_time
    assert free.longest_context_tokens == free.longest_context_tokens_in_time
    loose = Capacity(result, target_step_s=1e9)
    assert [getattr(loose, name) for name in LIMITS] == [getattr(free, name) for name in LIMITS]


def test_a_model_that_does_not_fit_has_no_limits() -> None:
    """Not zero: not even one sample without context fits."""
    limits = Capacity(estimate(Question(mistral_7b(), gpu(memory_gb=10), *asked())))
    assert {getattr(limits, name) for name in LIMITS} == {None}


def test_a_target_that_nothing_meets() -> None:
    """It fits, but reading the weights alone takes 14 ms at 1000 GB/s."""
    limits = Capacity(estimate(Question(mistral_7b(), round_gpu(), *asked())), target_step_s=0.01)
    assert limits.most_samples is not None
    assert limits.most_samples_in_time is None
    assert limits.longest_context_tokens_in_time is None


@pytest.mark.parametrize("size", ["samples", "context_tokens"])
def test_what_surely_meets_a_target_does_so_at_the_upper_ends(size: str) -> None:
    """The last size whose step surely meets it does, the next does not; likewise in memory."""
    step = estimate(Question(llama_2_7b(), gpu(), Setup(attention="bifurcated"), Workload()))
    target_s = 1.2 * step.step_s

    def ends(value: int) -> tuple[bool, bool, bool]:
        grown = estimate(step.but(**{size: value}))
        fits = grown.memory
        return (
            fits.surely_fits and grown.step_high_s <= target_s,
            fits.fits and grown.step_s <= target_s,
            fits.fits,
        )

    name = "most_samples" if size == "samples" else "longest_context_tokens"
    limits = Capacity(step, target_s)
    sure, timely, held = (getattr(limits, name + end) for end in ("_surely", "_in_time", ""))
    assert sure < timely < held
    assert ends(sure) == (True, True, True)
    assert ends(sure + 1) == (False, True, True)
    assert ends(timely + 1) == (False, False, True)


@pytest.mark.parametrize("field", ["most_samples", "longest_context_tokens"])
def test_more_memory_never_holds_less(field: str) -> None:
    """Each step of memory adds room."""
    found = [
        getattr(Capacity(estimate(Question(mistral_7b(), gpu(memory_gb=size), *asked()))), field)
        for size in (24, 40, 80, 141, 192)
    ]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
