"""One decode step, as it is reported."""

from typing import Any

import pytest
from builders import (
    asked,
    deepseek_v3,
    gpu,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    round_gpu,
    windowed,
)

import simulator
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.scaled import FAMILIES
from simulator.errors import WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.setup import ask
from simulator.timing.limits import resident_blocks


def _estimate(shape: ModelShape | None = None, card: Any = None, **work: Any) -> Estimate:
    return estimate(Question(shape or mistral_7b(), card or round_gpu(), *asked(**work)))


def test_a_question_changes_by_the_names_of_its_fields() -> None:
    """Fields of its setup and of its workload; of an estimate it is the question alone."""
    result = _estimate(samples=5)
    other = result.but(samples=2, kv_layout="copies")
    assert type(other) is Question
    assert (other.workload.samples, other.setup.kv_layout) == (2, "copies")
    assert (other.model, other.gpu) == (result.model, result.gpu)
    assert other.under("bifurcated").setup.kv_layout == "shared"
    assert vars(result.but()) == vars(result.of(result.setup))


def test_tokens_per_second_are_the_whole_batch_s() -> None:
    """Every sample of every prompt moves forward by its accepted tokens in one step."""
    result = _estimate(samples=5, prompts=3, query_tokens=2)
    assert result.tokens_per_s * result.step_s == pytest.approx(5 * 3)
    speculative = _estimate(samples=5, prompts=3, query_tokens=4, accepted_tokens=2.5)
    assert speculative.tokens_per_s * speculative.step_s == pytest.approx(5 * 3 * 2.5)


def test_the_parts_are_of_the_same_step() -> None:
    """Each operation has its time; totals are sums of what is listed."""
    result = _estimate(attention="bifurcated")
    assert len(result.operations) == len(result.time.times)
    flops = sum(operation.flops * operation.repeat for operation in result.operations)
    assert result.totals.flops == flops
    device = sum(operation.repeat * time.device_s for operation, time in result.time.calls)
    assert result.step_s == pytest.approx(device)


@pytest.mark.parametrize("samples", [1, 16, 256])
def test_a_card_cut_in_its_link_alone_is_as_fast_on_its_own(samples: int) -> None:
    """An H800 is an H100 with a slower link; that nobody measured it makes its step no shorter."""
    steps = [
        _estimate(card=load_hardware(name), samples=samples, attention="bifurcated").step_s
        for name in ("h100-sxm", "h800-sxm")
    ]
    assert steps[1] == pytest.approx(steps[0], rel=0.005)


def test_a_gpu_holds_two_blocks_on_every_sm() -> None:
    """132 SMs of an H100 are 264 resident."""
    assert resident_blocks(gpu(sm_count=132)) == 264


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_of_memory_is_a_share(share: float) -> None:
    """More than all of it, or nothing, is a typing error."""
    with pytest.raises(
        WorkloadError, match=rf"^workload: gpu_memory_utilization = {share} is not in \(0, 1\]"
    ):
        ask(mistral_7b(), gpu_memory_utilization=share)


def test_capacity_is_the_share_allowed() -> None:
    """80 GB at 0.9 are 72 GB, at 1 all of it."""
    assert _estimate().memory.capacity_bytes == pytest.approx(72e9)
    whole = _estimate(gpu_memory_utilization=1)
    assert whole.memory.capacity_bytes == 80e9


def test_a_kernel_without_a_form_of_the_cache_is_refused() -> None:
    """PyTorch's math path cannot read a latent cache."""
    with pytest.raises(WorkloadError, match=r"^DeepSeek-V3 caches a latent vector.*sdpa_math"):
        _estimate(deepseek_v3(), kernel="sdpa_math")


def test_a_card_without_the_kernel_is_noted() -> None:
    """FlashAttention needs 8.0; a product with logits in memory runs anywhere."""
    old = load_hardware("v100-sxm2-32gb")
    said = "(compute capability 7.0; it needs 8.0): attention is timed as if it did."
    assert any(note.endswith(said) for note in _estimate(card=old).notes)
    for card, kernel in ((old, "einsum"), (load_hardware("a100-sxm-80gb"), "flash")):
        assert not any(
            "FlashAttention" in note for note in _estimate(card=card, kernel=kernel).notes
        )


def test_a_group_needs_a_link() -> None:
    """A card without a link in its profile cannot be one of two."""
    alone = gpu(link_gb_per_s_per_direction=None)
    with pytest.raises(WorkloadError, match=r"^round has no link.*tensor_parallel must be 1"):
        _estimate(card=alone, tensor_parallel=2)
    assert _estimate(card=alone).step_s > 0


@pytest.mark.parametrize(
    ("shape", "work", "words"),
    [
        (llama_2_7b(max_context_tokens=4096), {}, "8,256 tokens exceed the 4,096"),
        (windowed(), {}, "sliding window"),
        (deepseek_v3(), {"attention": "bifurcated"}, "(MLA) is absorbed"),
        (deepseek_v3(), {"attention": "bifurcated", "samples": 999}, "(MLA) is mixed: the shared"),
        (deepseek_v3(), {"latent_form": "expanded"}, "(MLA) is expanded: the cache holds"),
        (mistral_7b(), {"query_tokens": 4}, "as accepted"),
        (deepseek_v3(), {"routing_exponent": 1.5}, "Only skewed routing has an exponent"),
        (mistral_7b(), {"tree": "1K,64x2", "attention": "bifurcated"}, "level of the tree is read"),
        (mistral_7b(), {"tree": "1K+64x2", "attention": "bifurcated"}, "below them: level1."),
        (mistral_7b(), {"kv_layout": "copies", "samples": 500}, "Does not fit"),
        (llama_3_70b(), {"tensor_parallel": 8}, "one GPU of the group"),
        (llama_2_7b(kv_heads=1), {"tensor_parallel": 2}, "copy of KV heads"),
        (deepseek_v3(), {"tensor_parallel": 2}, "copy of the latent cache"),
        (deepseek_v3(), {"latent_form": "mixed"}, "Latent attention (MLA) is absorbed"),
        (mistral_7b(), {"weight_dtype": "fp8"}, "no fp8 matrix path"),
        (mistral_7b(), {"weight_dtype": "fp8"}, "fp8 products are timed as 16-bit ones"),
        (mistral_7b(), {"weight_dtype": "int8"}, "int8 products are timed as fp8 ones"),
        (mistral_7b(), {"kv_dtype": "int4"}, "int4 caches are timed as fp8 ones."),
    ],
)
def test_what_the_user_should_know_is_noted(
    shape: ModelShape, work: dict[str, Any], words: str
) -> None:
    """Each assumption has its sentence where it applies, and only there."""
    card = gpu(fp8_tflops=None)
    assert any(words in note for note in _estimate(shape, card, **work).notes)
    plain = {"attention": "bifurcated", "samples": 2, "weight_dtype": "bf16"}
    assert not any(words in note for note in _estimate(mistral_7b(), card, **plain).notes)


@pytest.mark.parametrize(
    ("name", "width", "noted"),
    [("b200-sxm", 192, True), ("b200-sxm", 128, False), ("h100-sxm", 192, False)],
)
def test_a_kernel_that_engines_fall_back_to_is_noted(name: str, width: int, noted: bool) -> None:
    """Heads 192 wide, where TensorRT-LLM's kernel would run."""
    notes = _estimate(mistral_7b(head_dim=width), load_hardware(name)).notes
    assert any("fall back to a Triton kernel" in note for note in notes) == noted


@pytest.mark.parametrize(
    ("fitted", "noted"), [({}, False), ({"launch_us": 2}, True), ({"fp8_gemm_launch_us": 2}, False)]
)
def test_8_bit_constants_of_other_gpus_are_noted(fitted: dict[str, float], noted: bool) -> None:
    """Where the first note says that constants are the card's own, and these are not."""
    notes = _estimate(mistral_7b(), gpu(fitted), weight_dtype="fp8").notes
    note = "Constants of fp8 products are carried over from other GPUs."
    assert (note in notes) == noted


def test_experts_of_another_card_are_noted_beside_the_card_s_own_products() -> None:
    """Only the A100 has rows of int4 experts."""
    model = load_model("qwen3-30b-a3b")
    notes = {
        name: " ".join(_estimate(model, load_hardware(name), weight_dtype="int4").notes)
        for name in ("h100-sxm", "a100-sxm-80gb")
    }
    words = "Constants of int4 experts are carried over from other GPUs."
    assert words in notes["h100-sxm"]
    assert words not in notes["a100-sxm-80gb"]


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [
        ("h100-sxm", 8, ""),
        ("h100-sxm", 16, "spans 2 nodes: sums are timed inside each and across their network (50"),
        ("gb200", 16, ""),
        ("l4", 4, ""),
        ("l4", 16, "(at most PCIe's rate, not in the profile)"),
        ("h100-nvl", 4, "joins 2 GPUs: a node's are timed at PCIe's rate."),
    ],
)
def test_a_group_larger_than_its_link_joins_is_noted(name: str, size: int, told: str) -> None:
    """NVLink joins eight, a rack or a pair; beyond that it is a network or PCIe."""
    notes = _estimate(llama_3_70b(), load_hardware(name), tensor_parallel=size).notes
    found = [note for note in notes if "nodes" in note or "PCIe" in note]
    assert len(found) == bool(told)
    assert all(told in note for note in found)


@pytest.mark.parametrize(
    ("card", "choice", "words"),
    [
        (gpu({"launch_us": 2}), "auto", "fitted to rows measured on Round"),
        (gpu({"launch_us": 2}), "carried", "carried over"),
        (gpu(measured={"bf16_tflops": 200}), "auto", "Matrix rates measured on Round"),
        # The carried rate is smaller, so that of the card is not used.
        (gpu(measured={"bf16_tflops": 490}), "auto", "has not been calibrated"),
        (
            gpu(measured={"memory_bandwidth_gb_per_s": 1500}),
            "auto",
            "Large-transfer rates measured on Round",
        ),
        (gpu(measured={"bf16_tflops": 200}), "carried", "carried over"),
        (gpu(), "auto", "has not been calibrated"),
        (gpu(), "peak", "a bound, not a prediction"),
    ],
)
def test_every_answer_says_whose_constants_it_used(card: Any, choice: Any, words: str) -> None:
    """Fitted, measured, carried over or none: the first note says which."""
    assert words in _estimate(card=card, constants=choice).notes[0]


def test_a_larger_group_is_noted_per_gpu() -> None:
    """A rank's memory and FLOPs are an eighth of the matrices', its tokens/s the group's."""
    one = _estimate(llama_3_70b(), samples=4, context_tokens=0)
    eight = _estimate(llama_3_70b(), samples=4, context_tokens=0, tensor_parallel=8)
    assert eight.totals.flops == pytest.approx(one.totals.flops / 8, rel=1e-6)
    assert eight.memory.weights_bytes == pytest.approx(one.memory.weights_bytes / 8, rel=1e-3)
    assert eight.tokens_per_s == pytest.approx(4 / eight.step_s)


@pytest.mark.parametrize(("longest", "warned"), [(8255, True), (8256, False), (None, False)])
def test_the_longest_context_is_still_fine(longest: int | None, *, warned: bool) -> None:
    """8192 + 64 tokens: a warning from the first token beyond what the model was made for."""
    notes = _estimate(mistral_7b(max_context_tokens=longest)).notes
    assert any(note.startswith("Warning: 8,256 tokens exceed") for note in notes) == warned


@pytest.mark.parametrize(("card", "runs"), [("h100-sxm", False), ("b200-sxm", True)])
def test_a_kernel_that_a_card_does_not_run_is_not_counted(card: str, *, runs: bool) -> None:
    """Hopper expands nvfp4 weights: activations are not quantised, in launches and bytes either."""
    narrow, plain = (
        estimate(Question(mistral_7b(), load_hardware(card), *asked(weight_dtype=dtype)))
        for dtype in ("nvfp4", "bf16")
    )
    launches = float(narrow.totals.launches - plain.totals.launches)
    assert launches == (4 * 32 if runs else 0)
    quantised = sum(
        float(item.bytes_read) * item.repeat
        for item in narrow.operations
        if item.kind == "quantise"
    )
    others = sum(
        float(item.bytes_read) * item.repeat
        for item in narrow.operations
        if item.kind != "quantise"
    )
    assert float(narrow.totals.bytes_read) == others + (quantised if runs else 0)


def test_grouped_latent_attention_says_what_stands_in() -> None:
    """How its cache is split, and that no rows are of it."""
    shape = FAMILIES["gla"](load_model("llama-2-7b"))
    notes = " ".join(simulator.estimate(shape, tensor_parallel=2).notes)
    assert "split the latent cache by its 2 vectors" in notes
    assert "No rows are of grouped latent attention" in notes
    assert "Latent attention (GLA) is absorbed" in notes
