"""What serving engines' rules choose, by cases worked out by hand, and what a choice costs."""

from typing import Any

import numpy as np
import pytest
from builders import asked, deepseek_v3, llama_2_7b, llama_3_70b, mistral_7b, windowed
from hypothesis import given
from hypothesis import strategies as st

from simulator.answers.compare import compare
from simulator.answers.estimate import Question, estimate
from simulator.answers.rules import common_tokens, find_rule, read_once, vllm_cascade, vllm_waves
from simulator.answers.verdict import TIE_MARGIN
from simulator.errors import WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

H100, A100 = 132, 108  # multiprocessors

# (heads, KV heads, SMs, prefix tokens, requests), then by hand: tiles of 128 keys; cascade =
# ceil(heads x ceil(requests / 128) / SMs) x tiles; flash = ceil(requests x KV heads x tiles / SMs).
BY_HAND = [
    ((32, 8, H100, 8192, 16), (64, 63), False),  # 8192 / 132 = 62.1
    ((32, 8, H100, 8192, 17), (64, 66), True),  # 8704 / 132 = 65.9
    ((32, 8, A100, 8192, 13), (64, 62), False),  # 6656 / 108 = 61.6
    ((32, 8, A100, 8192, 14), (64, 67), True),  # 7168 / 108 = 66.4
    ((32, 8, H100, 256, 16), (2, 2), False),  # 256 / 132 = 1.9; equal waves: flash
    ((32, 8, H100, 256, 17), (2, 3), True),  # 272 / 132 = 2.1
    ((32, 8, H100, 257, 17), (3, 4), True),  # the third tile has one key
    ((32, 1, A100, 8192, 64), (64, 38), False),  # 4096 / 108 = 37.9
    ((32, 1, A100, 8192, 128), (64, 76), True),  # 8192 / 108 = 75.9
    ((8, 1, H100, 4000, 8), (32, 2), False),  # one KV head of a 70B on each GPU, flashinfer#595
    ((128, 8, H100, 8192, 128), (64, 497), True),  # 65536 / 132 = 496.5
    ((128, 8, H100, 8192, 129), (128, 501), True),  # 256 blocks of queries: two waves
    ((256, 1, H100, 1024, 64), (16, 8), False),  # 2 tiles of 256 grouped queries, 1024 / 132 = 7.8
]


@pytest.mark.parametrize(("sizes", "waves", "cascade"), BY_HAND)
def test_grouped_queries_by_hand(
    sizes: tuple[int, int, int, int, int], waves: tuple[int, int], *, cascade: bool
) -> None:
    """With grouped queries the rule compares the tile steps of the two kernels."""
    heads, kv_heads, sm_count, prefix, requests = sizes
    given = {"heads": heads, "kv_heads": kv_heads, "sm_count": sm_count, "prefix_tokens": prefix}
    assert vllm_waves(requests=requests, **given) == waves
    assert vllm_cascade(requests=requests, query_tokens=1, **given) is cascade


@pytest.mark.parametrize(
    ("prefix", "requests", "query_tokens", "kv_heads", "cascade"),
    [
        (256, 8, 1, 32, True),  # ungrouped: yes from both thresholds on
        (255, 8, 1, 32, False),
        (255, 1000, 1, 32, False),
        (256, 7, 1, 32, False),
        (1_000_000, 7, 1, 32, False),
        (256, 8, 2, 8, True),  # several query tokens: as if ungrouped
        (256, 8, 1, 8, False),
        (255, 8, 2, 8, False),
        (0, 8, 1, 32, False),
    ],
)
def test_the_thresholds(
    prefix: int, requests: int, query_tokens: int, kv_heads: int, *, cascade: bool
) -> None:
    """256 tokens and 8 requests, then yes where flash decoding does not apply."""
    answer = vllm_cascade(
        prefix_tokens=prefix,
        requests=requests,
        query_tokens=query_tokens,
        heads=32,
        kv_heads=kv_heads,
        sm_count=H100,
    )
    assert answer is cascade


def _chooses(shape: ModelShape, gpu: str = "h100-sxm", **work: Any) -> bool:
    rule = find_rule("vllm")
    return bool(rule.reads_once(Question(shape, load_hardware(gpu), *asked(**work))))


def test_a_prefix_counts_in_whole_cache_blocks() -> None:
    """A context of 271 tokens shares 16 blocks of 16, one of 255 only 15."""
    assert _chooses(llama_2_7b(), context_tokens=256)
    assert not _chooses(llama_2_7b(), context_tokens=255)
    # 8207 tokens count as 8192, 64 tiles; one more as 8208, 65 tiles: 65 against 8840 / 132 = 67.
    reasons = [
        find_rule("vllm").reason(
            Question(
                mistral_7b(), load_hardware("h100-sxm"), *asked(samples=17, context_tokens=tokens)
            )
        )
        for tokens in (8207, 8208)
    ]
    assert "64 tile steps for cascade, 66" in reasons[0]
    assert "65 tile steps for cascade, 67" in reasons[1]


def test_every_running_request_must_share_the_prefix() -> None:
    """Two prompts have nothing in common, however many samples each has."""
    assert _chooses(llama_2_7b(), samples=64)
    assert not _chooses(llama_2_7b(), samples=64, prompts=2)


def test_of_a_tree_the_root_counts() -> None:
    """What all requests share, the root and what hangs from it alone, is all that is read once.

    12 tasks below 2K tokens: the rule sees 2,048 tokens and 48 requests, and reads each task's
    tokens for every sample.
    """
    work = Workload(tree="system=1K,shots=1K,task=4Kx12", samples=4)
    card = load_hardware("h100-sxm")
    assert common_tokens(work) == 2048
    assert common_tokens(Workload(tree="task=4Kx12", samples=4)) == 0
    assert find_rule("vllm").reads_once(Question(llama_2_7b(), card, Setup(), work))
    answer = compare(Question(llama_2_7b(), card, Setup(), work), rule="vllm")
    rule = answer.rule
    assert rule is not None
    assert rule.choice == "bifurcated"
    assert rule.reason.endswith("it reads once only the 2,048 tokens that all requests share")
    assert answer.bifurcated.step_s < rule.step_s < answer.stored.step_s
    assert rule.best_step_s == answer.bifurcated.step_s
    once = estimate(Question(llama_2_7b(), card, Setup(attention="bifurcated"), read_once(work)))
    assert rule.step_s == once.step_s
    # One read of 2,048 tokens, then 4,096 and the own ones of each of 48 sequences.
    tokens = 2048 + 48 * (4096 + 64)
    assert once.totals.kv_bytes_read == tokens * 524_288


def test_a_tree_without_a_common_root_is_standard() -> None:
    """Prompts that share nothing are read by every sample, whatever they have below."""
    work = Workload(tree="problem=4Kx8", samples=16)
    rule = compare(
        Question(mistral_7b(), load_hardware("h100-sxm"), Setup(), work), rule="vllm"
    ).rule
    assert rule is not None
    assert rule.choice == "standard"
    assert rule.reason == "no prefix is common to all prompts"


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (deepseek_v3(), "latent"),
        (windowed(), "sliding windows"),
        (llama_2_7b(rotary=False), "ALiBi"),
    ],
)
def test_what_cascade_cannot_do(shape: ModelShape, why: str) -> None:
    """Latent caches, windows and ALiBi always run as standard attention."""
    assert not _chooses(shape, samples=64)
    question = Question(shape, load_hardware("h100-sxm"), *asked(samples=64))
    assert why in find_rule("vllm").reason(question)


def test_heads_are_those_of_one_gpu() -> None:
    """Llama-3-70B over 8 GPUs has 8 heads and 1 KV head on each: 32 steps against 2."""
    work = {"samples": 8, "context_tokens": 4096}
    assert not _chooses(llama_3_70b(), tensor_parallel=8, **work)
    reason = find_rule("vllm").reason(
        Question(llama_3_70b(), load_hardware("h100-sxm"), *asked(tensor_parallel=8, **work))
    )
    assert "32 tile steps for cascade, 2 for flash decoding" in reason


@given(
    prompts=st.sampled_from([1, 1, 2]),
    contexts=st.lists(st.integers(0, 20_000), min_size=1, max_size=4),
    samples=st.lists(st.integers(1, 600), min_size=1, max_size=4),
    shape=st.sampled_from([llama_2_7b(), mistral_7b(), mistral_7b(kv_heads=1), windowed()]),
    gpu=st.sampled_from(["h100-sxm", "a100-sxm-80gb", "l4"]),
)
def test_a_grid_has_the_answers_of_its_points(
    prompts: int, contexts: list[int], samples: list[int], shape: ModelShape, gpu: str
) -> None:
    """Arrays give, point by point, what plain numbers give."""
    card, reads_once = load_hardware(gpu), find_rule("vllm").reads_once
    grid = Workload(prompts=prompts).but(
        context_tokens=np.array(contexts, dtype=np.float64)[:, None],
        samples=np.array(samples, dtype=np.float64)[None, :],
    )
    chosen = reads_once(Question(shape, card, Setup(), grid))
    shown = np.broadcast_to(chosen, (len(contexts), len(samples)))
    for i, context in enumerate(contexts):
        for j, count in enumerate(samples):
            work = Workload(prompts=prompts, context_tokens=context, samples=count)
            assert bool(shown[i, j]) == reads_once(Question(shape, card, Setup(), work))


def test_a_wrong_choice_costs_the_difference() -> None:
    """At 16 samples of 8K the rule reads the context 16 times, and loses the difference."""
    answer = compare(Question(mistral_7b(), load_hardware("h100-sxm"), *asked()), rule="vllm")
    rule = answer.rule
    assert rule is not None
    assert (rule.choice, rule.ours, rule.agrees) == ("standard", "bifurcated", False)
    assert rule.step_s == answer.stored.step_s
    assert rule.cost_s == answer.stored.step_s - answer.bifurcated.step_s > 0
    assert rule.cost_share == pytest.approx(rule.step_s / answer.bifurcated.step_s - 1)


def test_a_right_choice_costs_nothing() -> None:
    """Without grouped queries the rule shares 16 samples of 8K, as we do."""
    rule = compare(Question(llama_2_7b(), load_hardware("h100-sxm"), *asked()), rule="vllm").rule
    assert rule is not None
    assert (rule.choice, rule.ours, rule.agrees) == ("bifurcated", "bifurcated", True)
    assert rule.cost_s == 0


@pytest.mark.parametrize("samples", [1, 7, 8, 17, 64, 512])
@pytest.mark.parametrize("context_tokens", [64, 256, 1024, 16384])
def test_disagreement_means_a_cost(samples: int, context_tokens: int) -> None:
    """The rule disagrees with us exactly where its choice costs more than a tie."""
    work = Workload(samples=samples, context_tokens=context_tokens)
    rule = compare(
        Question(mistral_7b(), load_hardware("a100-sxm-80gb"), Setup(), work), rule="vllm"
    ).rule
    assert rule is not None
    assert rule.agrees == (rule.cost_share < TIE_MARGIN)
    assert rule.cost_s >= 0


def test_the_verdict_is_over_one_stored_context() -> None:
    """How sure we are is said of what the engine chooses between, not of copies."""
    card = load_hardware("h100-sxm")
    work = Workload(samples=64, context_tokens=512)
    copies = compare(Question(mistral_7b(), card, Setup(), work), rule="vllm")
    shared = compare(Question(mistral_7b(), card, Setup(kv_layout="shared"), work), rule="vllm")
    assert copies.rule == shared.rule
    assert shared.rule is not None
    assert shared.rule.verdict == shared.verdict
    assert shared.rule.ours == shared.winner


def test_no_rule_is_shown_unless_asked() -> None:
    """Without a name there is no rule in the answer."""
    assert compare(Question(mistral_7b(), load_hardware("h100-sxm"), *asked())).rule is None


def test_an_unknown_rule_names_the_nearest() -> None:
    """A typing error is one line with the valid name."""
    with pytest.raises(WorkloadError, match="unknown rule 'vlm'; did you mean 'vllm'"):
        compare(Question(mistral_7b(), load_hardware("h100-sxm"), *asked()), rule="vlm")
