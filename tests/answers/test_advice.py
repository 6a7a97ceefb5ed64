"""What to change next: one sentence that follows from what binds."""

import re
from typing import Any

import pytest
from builders import (
    ROUND_CONSTANTS,
    asked,
    attention_only,
    gpu,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    round_gpu,
)

from simulator import load_hardware, load_model
from simulator.answers.advice import WORTH, next_change, no_shared_kernel
from simulator.answers.compare import compare
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.units import parse_count

SLOW_LINK = gpu({**ROUND_CONSTANTS, "link_fraction": 0.001})


def _estimate(shape: ModelShape, card: Any = None, **work: Any) -> Estimate:
    return estimate(Question(shape, card or round_gpu(memory_gb=10_000), *asked(**work)))


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
    return compare(Question(shape, card or round_gpu(), *asked(**work))).advice


def test_a_winner_is_named_with_what_comes_next() -> None:
    """Switch, and what would help after that."""
    advice = _advice(mistral_7b())
    assert advice.startswith("Switch to bifurcated attention; then ")
    assert advice.endswith(".")


def test_a_winner_by_memory_says_so() -> None:
    """Standard does not fit: that is the reason, more than its time."""
    advice = _advice(mistral_7b(), samples=64, kv_layout="copies")
    assert advice.startswith(
        "Switch to bifurcated attention, which fits where standard does not "
        "(storing the context once alone, as paged caches do, fits too); then "
    )


def test_who_keeps_copies_is_told_what_storing_the_context_once_gains() -> None:
    """Most of the gain over copies needs no other kernel; who stores it once hears of none."""
    work = {"samples": 32, "context_tokens": 4096}
    copies = _h100("llama-3.1-8b", kv_layout="copies", **work)
    alone = copies.standard.step_s / copies.stored.step_s
    assert 1 < alone < copies.speedup
    assert copies.advice.startswith(
        "Switch to bifurcated attention (storing the context once alone, as paged caches do, is "
        f"{alone:.2f} times as fast); then "
    )
    assert "stor" not in _h100("llama-3.1-8b", **work).advice


def test_a_loser_says_from_where_it_would_win() -> None:
    """The break-even points beyond the question, in its own words."""
    answer = compare(Question(mistral_7b(), round_gpu(), *asked(samples=2, context_tokens=512)))
    assert answer.winner == "tie"
    assert answer.advice.startswith("Either will do: the difference is below 2 %; ")
    assert f"with {answer.break_even_samples:,} or more samples" in answer.advice
    assert f"with {answer.break_even_context_tokens:,} or more context tokens" in answer.advice


def test_standard_is_kept_where_it_is_faster() -> None:
    """One sample: nothing to share, more launches; only more samples would change that."""
    advice = _advice(attention_only(8, 1), samples=1, context_tokens=4000)
    assert advice.startswith("Keep standard attention; bifurcated would be faster with ")
    assert "samples" in advice
    assert "context tokens" not in advice


@pytest.mark.parametrize(
    ("card", "work", "ways"),
    [
        # 11.4 GB of weights on 9, of which an engine may keep 2.9 and 1.4 for its largest batch
        # (2.1 more in a group): four cards, or a quarter of the bytes.
        (round_gpu(memory_gb=10), {}, ["4 GPUs (--tp 4)", "int4 weights"]),
        # 16 GiB of one context, of the one KV head that no group splits: only a shorter one. Of 18
        # GB 11,396,456,448 are weights, 2.7 GiB the reserve and 16,384 x 82,432 the largest batch:
        # the rest holds 143,669 tokens of 16,384 bytes, 64 of them decoded.
        (
            round_gpu(memory_gb=20),
            {"samples": 1, "context_tokens": 2**20},
            ["it would with at most 143,605 context tokens."],
        ),
        (
            round_gpu(memory_gb=20),
            {"samples": 20_000, "kernel": "einsum", "decoded_tokens": 1},
            ["a flash kernel", "samples"],
        ),
        (round_gpu(memory_gb=1), {"samples": 10**6, "decoded_tokens": 10**6}, []),
    ],
    ids=["weights", "context", "workspace", "hopeless"],
)
def test_what_does_not_fit_is_told_what_makes_it_fit(
    card: HardwareProfile, work: dict[str, Any], ways: list[str]
) -> None:
    """By how much it does not fit, and the single changes that help, by what takes the memory."""
    answer = compare(Question(llama_2_7b(kv_heads=1), card, *asked(**work)))
    short = -answer.bifurcated.memory.free_bytes / 2**30
    assert answer.advice.startswith(f"Does not fit on 1 x Round: {short:,.1f} GiB short; ")
    if not ways:
        assert "no single change makes it fit" in answer.advice
    for way in ways:
        assert way in answer.advice


@pytest.mark.parametrize(
    "work",
    [
        {"samples": 1, "context_tokens": 2**20},
        {"samples": 16_000, "decoded_tokens": 512},
        {"samples": 3000, "kernel": "einsum"},
        {"samples": 64, "kv_dtype": "fp8", "weight_dtype": "int4", "context_tokens": 2**22},
    ],
    ids=["one-sample", "samples", "einsum", "narrow-already"],
)
def test_each_way_to_make_it_fit_does(work: dict[str, Any]) -> None:
    """Asked again with one of the changes named, the answer is one that fits."""
    card = round_gpu(memory_gb=20)
    setup, sizes = asked(**work)
    advice = compare(Question(llama_2_7b(kv_heads=1), card, setup, sizes)).advice
    changes: dict[str, Any] = {}
    for pattern, field, cast in (
        (r"--tp (\d+)", "tensor_parallel", int),
        (r"(\w+) weights", "weight_dtype", str),
        (r"(\w+) KV cache", "kv_dtype", str),
        (r"(flash) kernel", "kernel", str),
        (r"([\d,]+K?) samples", "samples", parse_count),
        (r"([\d,]+[KM]?) context tokens", "context_tokens", parse_count),
    ):
        found = re.search(pattern, advice)
        if found:
            changes[field] = cast(found[1])
    assert changes
    assert changes.get("samples", 1) >= 1
    for field, value in changes.items():
        given = {**setup.as_dict(), **sizes.as_dict()}
        assert value != given[field]
        changed = asked(**{**given, field: value, "attention": "bifurcated"})
        assert estimate(Question(llama_2_7b(kv_heads=1), card, *changed)).memory.fits, (
            field,
            value,
        )


def test_no_more_gpus_are_advised_than_are_joined() -> None:
    """671 GB on cards of 24 GB would take 64 of them: no answer, except where a link joins 72."""
    deepseek = load_model("deepseek-v3")
    geforce = compare(Question(deepseek, load_hardware("rtx-4090"), *asked(weight_dtype="fp8")))
    assert "--tp" not in geforce.advice
    nvl72 = compare(Question(deepseek, load_hardware("gb200"), *asked(weight_dtype="fp32")))
    assert "--tp 32" in nvl72.advice


def test_narrow_weights_are_not_to_be_narrowed_again() -> None:
    """16 bits to fewer, 8 to 4, and from 4 there is no further to go."""
    said = {
        dtype: next_change(_estimate(mistral_7b(), samples=1, weight_dtype=dtype))
        for dtype in ("bf16", "fp8", "int4")
    }
    assert said["bf16"].startswith("quantise the weights (")
    assert said["fp8"].startswith("quantise the weights to 4 bits (")
    assert said["int4"].startswith("add samples, ")


def test_more_samples_visit_more_experts() -> None:
    """Of a mixture of experts more samples read more weights: not 'little' more time."""
    mixtral = load_model("mixtral-8x7b")
    assert "cost little" not in next_change(_estimate(mixtral, samples=1))
    assert "share the experts" in next_change(_estimate(mixtral, samples=1))


def test_one_stored_context_may_be_all_of_the_gain() -> None:
    """Copies of the context cost time that storing it once saves: then that is the advice."""
    answer = compare(
        Question(
            load_model("qwen2.5-7b"),
            load_hardware("h100-sxm"),
            *asked(samples=40, context_tokens=1024, decoded_tokens=511, kv_layout="copies"),
        )
    )
    assert answer.winner == "bifurcated"
    assert answer.bifurcated.step_s == pytest.approx(answer.stored.step_s, rel=0.02)
    assert answer.verdict_over_stored != "yes"
    assert answer.advice.startswith("Store the context once, as paged caches do; ")
    assert "Switch to bifurcated" not in answer.advice


def _h100(model_name: str, card: str = "h100-sxm", **work: Any) -> Any:
    return compare(Question(load_model(model_name), load_hardware(card), *asked(**work)))


def test_a_small_gain_over_one_stored_context_is_not_worth_a_kernel() -> None:
    """Four samples of 8K on L40S: 1.17 times as fast as copies, 1.02 as one stored context."""
    work = {"samples": 4, "context_tokens": 8192}
    for layout, lead in (
        ("copies", "Store the context once, as paged caches do; reading it once as well is "),
        ("shared", "Keep standard attention; reading the context once is "),
    ):
        answer = _h100("llama-3.1-8b", "l40s", kv_layout=layout, **work)
        gain = answer.stored.step_s / answer.bifurcated.step_s
        assert answer.verdict_over_stored == "yes"
        assert 1 < gain < WORTH
        little = f"{gain:.2f} times as fast, too little to change kernels for. Then "
        assert answer.advice.startswith(lead + little)
    larger = _h100("llama-3.1-8b", "l40s", samples=16, context_tokens=8192)
    assert larger.stored.step_s / larger.bifurcated.step_s > WORTH
    assert larger.advice.startswith("Switch to bifurcated attention")


@pytest.mark.parametrize(
    ("name", "card", "why"),
    [
        ("gpt-oss-20b", "h100-sxm", "no engine's shared-prefix kernel takes the attention sinks"),
        ("gemma-2-9b", "h100-sxm", "no engine's shared-prefix kernel takes the sliding windows"),
        (
            "llama-3.2-3b",
            "t4",
            "FlashAttention does not run on T4 (compute capability 7.5; it needs 8.0)",
        ),
        ("llama-3.1-8b", "v100-sxm2-32gb", "(compute capability 7.0; it needs 8.0)"),
        ("llama-3.1-8b", "mi300x", "no engine's shared-prefix kernel runs on AMD's cards"),
    ],
)
def test_what_no_engine_runs_is_not_advised(name: str, card: str, why: str) -> None:
    """Bifurcated attention would win, but there is no kernel to switch to."""
    for layout, lead in (("copies", "Store the context once"), ("shared", "Keep standard")):
        answer = _h100(name, card, samples=32, context_tokens=8000, kv_layout=layout)
        assert answer.winner == "bifurcated"
        assert answer.advice.startswith(lead)
        assert why in answer.advice


def test_other_models_and_cards_are_not_barred() -> None:
    """Full attention, on NVIDIA's cards from Ampere on."""
    for card in ("a100-sxm-80gb", "l4"):
        assert no_shared_kernel(load_model("llama-3.1-8b"), load_hardware(card)) == ""


def test_a_card_without_the_kernel_is_named_though_the_gain_is_unsure() -> None:
    """On a T4 it is moot whether reading once gains more: nothing there reads once."""
    answer = _h100("llama-3.1-8b", "t4", samples=8, context_tokens=4096, weight_dtype="int4")
    assert answer.verdict_over_stored == "too close to call"
    assert "may be 1." in answer.advice
    assert "FlashAttention does not run on T4" in answer.advice


def test_what_no_kernel_reads_is_not_advised_as_a_cache() -> None:
    """KV reads bind a T4 with 32 samples; no kernel there takes 8-bit keys and values."""
    advice = _h100("llama-3.2-3b", "t4", samples=32, context_tokens=8192).advice
    assert advice.endswith(
        "use fewer KV heads or fewer samples, because KV reads are most of the bytes moved."
    )


def test_no_context_is_advised_beyond_the_model() -> None:
    """An H100 holds 428,750 tokens of llama-3.1-8b, which was made for 131,072."""
    advice = _h100("llama-3.1-8b", samples=16, context_tokens=2**20).advice
    assert advice.endswith("or at most 131,008 context tokens.")


@pytest.mark.parametrize("dtype", ["int4", "nvfp4", "mxfp4"])
def test_weights_of_4_bits_are_not_to_be_quantised_to_4_bits(dtype: str) -> None:
    """Neither to make the step shorter nor to make it fit."""
    mixtral = load_model("mixtral-8x7b")
    assert "quantise" not in next_change(_estimate(mixtral, samples=1, weight_dtype=dtype))
    answer = _h100("kimi-k2", samples=1, weight_dtype=dtype, tensor_parallel=2)
    assert answer.advice.startswith("Does not fit")
    assert "weights" not in answer.advice


def test_how_is_said_only_where_switching_gains() -> None:
    """Nothing where standard wins or no kernel takes the model; a flag where an engine has one."""
    card = load_hardware("h200-sxm")
    many = {"samples": 64, "context_tokens": 8192}
    assert compare(Question(llama_2_7b(), card, *asked(**many))).how.startswith("vLLM")
    assert compare(Question(llama_2_7b(), card, *asked(samples=1, context_tokens=8192))).how == ""
    # Fewer launches win here, and there is no prefix to switch anything on for.
    eager = {"kernel": "sdpa_math", "execution": "eager", "samples": 16, "context_tokens": 0}
    launches = compare(
        Question(load_model("llama-3.1-8b"), load_hardware("h100-sxm"), *asked(**eager))
    )
    assert (launches.winner, launches.how) == ("bifurcated", "")
    windowed = load_model("gpt-oss-20b")
    assert compare(Question(windowed, card, *asked(**many))).how == ""
    shards = {"samples": 512, "context_tokens": 8192, "tensor_parallel": 8, "weight_dtype": "fp8"}
    latent = compare(Question(load_model("deepseek-v3"), card, *asked(**shards)))
    assert latent.winner == "bifurcated"
    assert latent.how == ""
    assert latent.advice.startswith("Keep standard attention; ")
    assert "no engine's shared-prefix kernel takes the latent cache of deepseek-v3" in latent.advice
    other = compare(Question(llama_2_7b(), load_hardware("mi300x"), *asked(**many)))
    assert other.how == ""
    sglang = compare(Question(llama_2_7b(), card, *asked(**many, engine="sglang")))
    assert sglang.advice.startswith(
        "Switch to bifurcated attention in plain PyTorch or with FlashInfer; "
    )
    eager = compare(Question(llama_2_7b(), card, *asked(**many, execution="eager")))
    assert eager.how.startswith("Copy the code of docs/how-to/pytorch.md")


def test_how_knows_the_engine_s_rule_and_whose_kernel_is_asked_about() -> None:
    """vLLM's rule says no to 16 samples of 8K with 8 KV heads, and yes to 32 (its docstring)."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"samples": 16}, "-cascade-attn, but their rule says no here (--rule vllm); vLLM 0.32"),
        ({"samples": 32}, "-cascade-attn (--kernel vllm-cascade times it); vLLM 0.32"),
        ({"samples": 32, "kernel": "vllm-cascade"}, "have --no-disable-cascade-attn; vLLM 0.32"),
        ({"samples": 32, "kernel": "flashinfer"}, "docs/how-to/flashinfer.md"),
        ({"samples": 32, "kernel": "trtllm-cascade"}, "docs/how-to/tensorrt-llm.md"),
        ({"samples": 32, "engine": "sglang"}, "docs/how-to/sglang.md"),
        ({"samples": 32, "engine": "trtllm"}, "docs/how-to/tensorrt-llm.md"),
        ({"samples": 16, "prompts": 4}, "rule says no here"),
        (
            {"samples": 32, "tree": "system=4K,problem=4096x4"},
            "-cascade-attn, which reads once only the 4,096 tokens that all sequences share; vLLM",
        ),
    ]
    for settings, words in cases:
        sizes = {} if "tree" in settings else {"context_tokens": 8192}
        answer = _h100("llama-3.1-8b", **sizes, **settings)
        assert words in answer.how
        # Who cannot with this engine is told who can, and nobody else is.
        elsewhere = answer.advice.startswith(
            "Switch to bifurcated attention in plain PyTorch or with FlashInfer; "
        )
        code = answer.how.endswith("or call FlashInfer's: docs/how-to/flashinfer.md")
        assert code == (elsewhere or settings.get("kernel") == "flashinfer")
        assert "times it" not in answer.how or not elsewhere


def test_a_loop_of_ones_own_counts_as_vllm() -> None:
    """``engine = none`` changes what is advised, not what is counted."""
    ours, vllm = (
        _estimate(mistral_7b(), samples=8, engine=engine, weight_dtype="fp8")
        for engine in ("none", "vllm")
    )
    assert ours.totals == vllm.totals
    assert ours.memory == vllm.memory
