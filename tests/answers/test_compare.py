"""Standard against bifurcated: who wins, from where on."""

from typing import Any

import numpy as np
import pytest
from builders import (
    asked,
    deepseek_v3,
    gpu,
    gpus,
    llama_2_7b,
    mistral_7b,
    model_shapes,
    round_gpu,
    runs,
    setups,
    windowed,
    workloads,
)
from hypothesis import assume, given, settings

from simulator.answers.compare import LONGEST_CONTEXT, MOST_SAMPLES, compare
from simulator.answers.estimate import Question, estimate
from simulator.answers.verdict import kv_io_ratio
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.step import decode_time


def test_llama_with_sixteen_samples() -> None:
    """KV bytes fall 69,256,347,648 / 4,831,838,208 = 14.33-fold, the step by far less."""
    answer = compare(Question(llama_2_7b(), gpu(memory_gb=160), *asked()))
    assert answer.kv_io_ratio == pytest.approx(14.3333, abs=1e-4)
    assert answer.winner == "bifurcated"
    assert 1 < answer.speedup < answer.kv_io_ratio
    assert answer.speedup == answer.standard.step_s / answer.bifurcated.step_s


def test_each_line_has_its_storage() -> None:
    """Standard over one stored context, with a copy each beside it; bifurcated over one."""
    answer = compare(Question(mistral_7b(), gpu(), *asked(attention="bifurcated")))
    copies = answer.copies
    assert copies is not None
    kinds = [
        (line.setup.attention, line.setup.kv_layout)
        for line in (answer.standard, copies, answer.bifurcated)
    ]
    assert kinds == [("standard", "shared"), ("standard", "copies"), ("bifurcated", "shared")]
    assert answer.stored is answer.standard
    assert copies.totals.kv_bytes_read == answer.standard.totals.kv_bytes_read
    assert answer.standard.memory.kv_bytes == answer.bifurcated.memory.kv_bytes
    assert answer.bifurcated.step_s < answer.standard.step_s <= copies.step_s
    assert answer.speedup_over_copies == copies.step_s / answer.bifurcated.step_s


def test_a_question_about_copies_is_answered_over_copies() -> None:
    """What a contiguous cache gains in all; storing the context once is part of that."""
    work = {"samples": 4, "context_tokens": 8192}
    copies = compare(Question(mistral_7b(), gpu(), *asked(kv_layout="copies", **work)))
    stored = compare(Question(mistral_7b(), gpu(), *asked(**work)))
    assert copies.speedup == stored.speedup_over_copies
    once = stored.standard
    assert (copies.stored.time, copies.stored.memory) == (once.time, once.memory)
    assert copies.verdict_over_stored == stored.verdict
    assert copies.copies is copies.speedup_over_copies is None


def test_bifurcated_latent_attention_takes_the_faster_form() -> None:
    """Absorbed for few samples, mixed for many; break-even points are those of the better one."""
    few, many = (
        compare(Question(deepseek_v3(), load_hardware("h200"), *asked(samples=samples)))
        for samples in (8, 200)
    )
    forms = [
        [line.setup.latent_form for line in (answer.standard, answer.bifurcated)]
        for answer in (few, many)
    ]
    assert forms == [["absorbed", "absorbed"], ["absorbed", "mixed"]]
    assert few.break_even_samples == many.break_even_samples
    mixed, absorbed = (
        compare(
            Question(deepseek_v3(), load_hardware("h200"), *asked(samples=200, latent_form=form))
        )
        for form in ("mixed", "absorbed")
    )
    assert many.bifurcated.step_s == mixed.bifurcated.step_s < absorbed.bifurcated.step_s
    assert many.break_even_samples == mixed.break_even_samples
    assert mixed.standard.step_s == absorbed.standard.step_s


def test_a_form_that_does_not_fit_is_not_taken() -> None:
    """The expanded context is too large for a card that holds the compressed one."""
    work = asked(samples=500, context_tokens=30000, attention="bifurcated")
    needs = [
        estimate(
            Question(deepseek_v3(), gpu(), work[0].but(latent_form=form), work[1])
        ).memory.total_bytes
        for form in ("absorbed", "mixed")
    ]
    for held, form in ((needs[1], "mixed"), (needs[1] - 2**30, "absorbed")):
        card = gpu(memory_gb=held / 0.9 / 1e9 + 1)
        assert estimate(Question(deepseek_v3(), card, *work)).setup.latent_form == form


def test_the_question_s_own_attention_is_ignored() -> None:
    """Comparing needs both, whichever was asked for."""
    answers = [
        compare(Question(mistral_7b(), gpu(), *asked(attention=a)))
        for a in ("standard", "bifurcated")
    ]
    assert answers[0].speedup == answers[1].speedup
    assert answers[0].advice == answers[1].advice


def test_what_does_not_fit_does_not_win() -> None:
    """At 64 samples Mistral's copies exceed 80 GB: bifurcated wins though both have a time.

    Where neither fits, the faster one is named all the same, and the advice is about memory.
    """
    only = compare(Question(mistral_7b(), gpu(), *asked(samples=64, kv_layout="copies")))
    assert (only.standard.memory.fits, only.bifurcated.memory.fits) == (False, True)
    assert only.winner == "bifurcated"
    neither = compare(Question(mistral_7b(), gpu(memory_gb=10), *asked(samples=64)))
    assert not neither.bifurcated.memory.fits
    assert neither.winner == "bifurcated"
    assert neither.advice.startswith("Does not fit")


def test_a_small_difference_is_a_tie() -> None:
    """Below 2 % of a step neither is worth a change."""
    answer = compare(Question(mistral_7b(), round_gpu(), *asked(samples=2, context_tokens=512)))
    assert abs(answer.speedup - 1) < 0.02
    assert answer.winner == "tie"


def test_nothing_read_has_the_ratio_one() -> None:
    """No context and no own tokens: no division by zero, and no attention to be faster at."""
    answer = compare(Question(mistral_7b(), gpu(), *asked(context_tokens=0, decoded_tokens=0)))
    assert answer.kv_io_ratio == 1
    assert answer.standard.step_s == answer.bifurcated.step_s
    assert answer.winner == "tie"
    assert answer.verdict == "no"
    assert kv_io_ratio(0.0, 0.0) == 1


def test_without_a_context_launches_are_no_reason_to_switch() -> None:
    """Kernels with fewer launches may be faster: no break-even, and no advice to switch."""
    plain = {"kernel": "sdpa_math", "execution": "eager"}
    answer = compare(Question(mistral_7b(), gpu(), *asked(context_tokens=0, **plain)))
    assert answer.speedup > 1
    assert answer.break_even_samples is answer.break_even_context_tokens is None
    assert answer.advice.startswith("Give a context, without which nothing is shared")


def test_one_sample_never_breaks_even() -> None:
    """With one sample nothing is shared, however long the context."""
    answer = compare(Question(mistral_7b(), gpu(), *asked(samples=1)))
    assert answer.break_even_context_tokens is None
    assert answer.break_even_samples is not None
    assert answer.winner != "bifurcated"


@settings(max_examples=25)
@given(model_shapes(), gpus(), setups(), workloads())
def test_break_even_points_turn(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """At the point bifurcated is faster, one before it is not; None where it is not at the end."""
    assume(runs(shape, setup))
    answer = compare(Question(shape, card, setup, work))
    if not work.context_tokens:
        assert answer.break_even_samples is answer.break_even_context_tokens is None
        return

    def faster(field: str, value: int) -> bool:
        steps = [
            estimate(Question(shape, card, how, work.but(**{field: value}))).step_s
            for how in (
                setup.but(attention="bifurcated", kv_layout="shared"),
                setup.but(attention="standard"),
            )
        ]
        return steps[0] < steps[1]

    for field, point, end in (
        ("samples", answer.break_even_samples, MOST_SAMPLES),
        ("context_tokens", answer.break_even_context_tokens, LONGEST_CONTEXT),
    ):
        if point is None:
            assert not faster(field, end)
        else:
            assert faster(field, point)
            assert point == 1 or not faster(field, point - 1)


@pytest.mark.parametrize(
    ("shape", "layout", "field", "other"),
    [
        (llama_2_7b(), "copies", "context_tokens", 2),
        (llama_2_7b(), "shared", "context_tokens", 16),
        (mistral_7b(), "shared", "context_tokens", 4),
        (mistral_7b(), "shared", "samples", 512),
        (windowed(), "copies", "context_tokens", 2),
        (llama_2_7b(kv_heads=1), "copies", "context_tokens", 16),
        (llama_2_7b(kv_heads=1), "shared", "context_tokens", 8),
    ],
)
def test_the_last_break_even_counts(shape: ModelShape, layout: Any, field: str, other: int) -> None:
    """Where waves make it faster and slower again, all values at once tell from where on."""
    sizes = {"samples": other} if field == "context_tokens" else {"context_tokens": other}
    setup, work = Setup(kv_layout=layout), Workload(**sizes)
    every = np.arange(1, 60_001 if field == "context_tokens" else 4097, dtype=np.float64)
    standard, bifurcated = (
        np.broadcast_to(
            decode_time(
                shape, setup.under(attention), work.but(**{field: every}), rates(round_gpu())
            ).total_s,
            every.shape,
        )
        for attention in ATTENTIONS
    )
    faster = bifurcated < standard
    assert np.count_nonzero(faster[1:] != faster[:-1]) > 1
    answer = compare(Question(shape, round_gpu(), setup, work))
    assert getattr(answer, f"break_even_{field}") == np.flatnonzero(~faster)[-1] + 2


@pytest.mark.parametrize("samples", [2, 8, 64])
def test_the_break_even_of_launches_by_hand(samples: int) -> None:
    """Where launches are all that splitting costs, break-even is where they are paid in bytes.

    The ideal kernel has as many launches either way, so from two samples on it always pays.
    """
    answer = compare(Question(mistral_7b(), gpu(), *asked(kernel="ideal", samples=samples)))
    assert answer.break_even_samples == 2
    assert answer.break_even_context_tokens == 1


def test_constants_and_memory_reach_every_line() -> None:
    """The options of an estimate are those of all three lines."""
    setup = Setup(constants="peak", gpu_memory_utilization=0.5)
    answer = compare(Question(mistral_7b(), gpu(), setup, Workload()))
    assert answer.copies is not None
    for line in (answer.standard, answer.copies, answer.bifurcated):
        assert line.rates.origin == "peak"
        assert line.memory.capacity_bytes == 40e9
