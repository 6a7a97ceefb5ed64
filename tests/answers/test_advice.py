"""What to change next: one sentence that follows from what binds."""

import re
from typing import Any

import pytest
from builders import (
    ROUND_CONSTANTS,
    attention_only,
    gpu,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    round_gpu,
)

from simulator.answers.advice import next_change
from simulator.answers.compare import compare
from simulator.answers.estimate import Estimate, estimate
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload

SLOW_LINK = gpu({**ROUND_CONSTANTS, "link_fraction": 0.001})


def _estimate(shape: ModelShape, card: Any = None, **work: Any) -> Estimate:
    return estimate(shape, card or round_gpu(memory_gb=10_000), Workload(**work))


@pytest.mark.parametrize(
    ("result", "bound", "words"),
    [
        # Weights are most of what one sample moves.
        (_estimate(mistral_7b(), samples=1, context_tokens=10), "memory", "quantise the weights"),
        # 500 copies of 8K in bf16, then in fp8.
        (
            _estimate(llama_2_7b(), attention="standard", samples=500),
            "memory",
            "store the KV cache in fp8",
        ),
        (
            _estimate(llama_2_7b(), attention="standard", samples=500, kv_dtype="fp8"),
            "memory",
            "use fewer KV heads or fewer samples",
        ),
        # One read of the context, 64 heads' logits of 400 samples through memory.
        (
            _estimate(attention_only(64, 1), attention="bifurcated", kernel="einsum", samples=400),
            "memory",
            "use a flash kernel",
        ),
        (
            _estimate(attention_only(32, 8), execution="eager", samples=1),
            "launch",
            "capture the step in a CUDA graph",
        ),
        (_estimate(attention_only(1, 1), samples=1, context_tokens=1), "launch", "fuse kernels"),
        (
            _estimate(mistral_7b(), attention="bifurcated", samples=4000, decoded_tokens=1),
            "compute",
            "use a faster card",
        ),
        (
            _estimate(llama_3_70b(), SLOW_LINK, tensor_parallel=8, samples=64),
            "link",
            "use fewer GPUs or a faster link",
        ),
    ],
    ids=["weights", "kv", "fp8-kv", "logits", "host", "launch", "compute", "link"],
)
def test_the_next_change_follows_from_the_bound(result: Estimate, bound: str, words: str) -> None:
    """Each roof, and each large part of the bytes, has its own way out."""
    assert result.bound == bound
    assert next_change(result).startswith(words)


def _advice(shape: ModelShape, card: Any = None, **work: Any) -> str:
    return compare(shape, card or round_gpu(), Workload(**work)).advice


def test_a_winner_is_named_with_what_comes_next() -> None:
    """Switch, and what would help after that."""
    advice = _advice(mistral_7b())
    assert advice.startswith("Switch to bifurcated attention; then ")
    assert advice.endswith(".")


def test_a_winner_by_memory_says_so() -> None:
    """Standard does not fit: that is the reason, more than its time."""
    advice = _advice(mistral_7b(), samples=64)
    assert advice.startswith("Switch to bifurcated attention, which fits where standard does not;")


def test_a_loser_says_from_where_it_would_win() -> None:
    """The break-even points beyond the question, in its own words."""
    answer = compare(mistral_7b(), round_gpu(), Workload(samples=2, context_tokens=512))
    assert answer.winner == "tie"
    assert answer.advice.startswith("Either will do: the difference is below 2 %; ")
    assert f"from {answer.break_even_samples:,} samples" in answer.advice
    assert f"{answer.break_even_context_tokens:,} context tokens" in answer.advice


def test_standard_is_kept_where_it_is_faster() -> None:
    """One sample: nothing to share, more launches; only more samples would change that."""
    advice = _advice(attention_only(8, 1), samples=1, context_tokens=4000)
    assert advice.startswith("Keep standard attention; bifurcated would be faster from ")
    assert "samples" in advice
    assert "context tokens" not in advice


@pytest.mark.parametrize(
    ("card", "work", "words"),
    [
        (round_gpu(memory_gb=10), {}, r"use more GPUs \(--tp\) or quantise the weights"),
        (
            round_gpu(),
            {"samples": 16_000, "decoded_tokens": 512},
            r"use fewer samples, more GPUs \(--tp\) or an fp8 KV",
        ),
        (
            round_gpu(memory_gb=20),
            {"samples": 20_000, "kernel": "einsum", "decoded_tokens": 1},
            r"use fewer samples or a flash kernel",
        ),
    ],
    ids=["weights", "kv", "workspace"],
)
def test_what_does_not_fit_is_made_to_fit_first(
    card: Any, work: dict[str, Any], words: str
) -> None:
    """By how much, and the way that helps most: weights, caches or workspace."""
    answer = compare(llama_2_7b(kv_heads=1), card, Workload(**work))
    short = -answer.bifurcated.memory.free_bytes / 2**30
    expected = rf"^Does not fit on 1 x Round: {short:,.1f} GiB short; {words}.*\.$"
    assert re.match(expected, answer.advice)
