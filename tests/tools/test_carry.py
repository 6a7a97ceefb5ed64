"""What a GPU carries over to others: by kernel, and at the other's clock."""

import json
from importlib.resources import files

import pandas as pd
import pytest
from builders import gpu

from simulator.evidence.predict.calls import (
    attention_kernel,
    folds_heads,
    is_fallback,
    prefill_block_rows,
    prefill_blocks,
    small_blocks,
)
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import (
    LARGEST_SHARE,
    LATENCY_POWER,
    STREAM_SHARE,
    Variant,
    clock_factor,
    key_named,
    rates,
)
from tools import carry
from tools.accuracy import CARRIED

FITTED = {
    "attention_launch_us": 8.0,
    "block_gb_per_s": 20.0,
    "l2_gb_per_s": 30.0,
    "attention_bandwidth_fraction": 0.8,
    "gemm_launch_us": 4.0,
    "collective_launch_us": 6.0,
    "harness_host_us": 14.0,
    "vllm_step_us": 900.0,
}
SLOW = gpu(FITTED, name="slow", boost_mhz=1000)
FAST = gpu({**FITTED, "attention_launch_us": 2.0}, name="fast", boost_mhz=2000)
KERNELS = {("slow", "vllm"): "fa2", ("fast", "sglang"): "flashinfer"}
# The libraries of the shipped rows, and the attention kernel that each ran.
SHIPPED = {
    ("a100-sxm-80gb", "vllm"): "fa2",
    ("b200-sxm", "sglang"): "trtllmgen",
    ("b200-sxm", "vllm"): "trtllmgen",
    ("h100-sxm", "sglang"): "fa3",
    ("h100-sxm", "vllm"): "fa3",
    ("l40s", "sglang"): "flashinfer",
    ("l40s", "vllm"): "fa2",
}


def test_times_fall_and_rates_rise_with_the_clock() -> None:
    """At twice the clock a time is 2^-0.6 of it, the L2 cache twice as fast, a share the same."""
    shorter = 2**-LATENCY_POWER
    assert clock_factor(key_named("fa2_attention_launch_us"), 1000, FAST) == pytest.approx(shorter)
    assert clock_factor(key_named("block_gb_per_s"), 1000, FAST) == pytest.approx(1 / shorter)
    assert clock_factor(key_named("l2_gb_per_s"), 1000, FAST) == 2
    assert clock_factor(key_named("attention_bandwidth_fraction"), 1000, FAST) == 1
    # Nothing is known of the clock: nothing changes.
    launch = key_named("launch_us")
    assert clock_factor(launch, 0, FAST) == clock_factor(launch, 1000, gpu()) == 1


def test_a_gpu_left_out_is_told_by_the_others_alone() -> None:
    """The slow card's launch of 8 us, on a card of twice its clock; its own 2 us are not known."""
    left = carry.left_out(FAST, [SLOW], KERNELS)
    found = rates(left, variants=map(Variant, ("vllm", "fa2"))).launch_s["attention"]
    assert found == pytest.approx(8e-6 * 2**-LATENCY_POWER, rel=0.01)
    assert rates(left).launch_s["attention"] == found


def test_the_own_architecture_comes_before_the_mean() -> None:
    """Its kin's launch of 3 us and tiles of 40 GB/s, at their clock; the mean for all else."""
    kin = gpu({"gemm_launch_us": 3.0, "tile_gb_per_s": 40.0}, name="kin", boost_mhz=1000)
    left = carry.left_out(FAST, [SLOW], KERNELS, [kin])
    shorter = 2**-LATENCY_POWER
    assert left.fitted["gemm_launch_us"].value == pytest.approx(3 * shorter, rel=0.01)
    # SMs of one architecture load alike, whatever matrix rate is sold.
    sold = gpu(bf16_tflops=125, fp16_tflops=125, boost_mhz=1000)
    tiles = carry.left_out(sold, [SLOW], KERNELS, [kin]).fitted["tile_gb_per_s"]
    assert tiles.value == pytest.approx(40)
    assert left.fitted["l2_gb_per_s"].value == pytest.approx(60, rel=0.01)


def test_each_kernel_is_averaged_for_itself() -> None:
    """FlashAttention-2 ran on the slow card, FlashInfer on the fast: two names, and their mean."""
    entries = carry.averaged([SLOW, FAST], KERNELS)
    at = {
        str(key): entry.value * clock_factor(key, entry.mhz, SLOW) for key, entry in entries.items()
    }
    own, other = 8.0, 2.0 * 2**LATENCY_POWER
    assert at["fa2_attention_launch_us"] == pytest.approx(own, rel=0.01)
    assert at["flashinfer_attention_launch_us"] == pytest.approx(other, rel=0.01)
    assert at["attention_launch_us"] == pytest.approx((own * other) ** 0.5, rel=0.01)


# What an SM of twice the matrix rate gains.
FASTER = 2**0.8


def test_tiles_are_averaged_by_the_matrix_rate_of_an_sm() -> None:
    """30 GB/s at 2.5 TFLOP/s an SM and 52 at 5 are the same; 4-bit tiles follow the clock."""
    of_sm = {"tile_gb_per_s": 30.0, "fp8_tile_gb_per_s": 50.0, "fp8_block_tile_gb_per_s": 20.0}
    clocked = {"nvfp4_tile_gb_per_s": 50.0}
    one = gpu({**of_sm, **clocked}, boost_mhz=1000, bf16_tflops=250, fp16_tflops=250)
    faster = {name: value * FASTER for name, value in of_sm.items()}
    other = gpu({**faster, **clocked}, boost_mhz=1000)
    left = carry.left_out(gpu(boost_mhz=2000, bf16_tflops=125), [one, other], {})
    for name, value in of_sm.items():
        assert left.fitted[name].value == pytest.approx(value / FASTER, rel=0.01)
    assert left.fitted["nvfp4_tile_gb_per_s"].value == pytest.approx(100, rel=0.01)
    written = json.loads(carry.text(carry.averaged([one], {}), {}))["default"]
    assert next(name for name in written if "tile" in name).startswith("fp8_")
    assert "sm_tflops" not in written["nvfp4_tile_gb_per_s"]
    assert written["nvfp4_tile_gb_per_s"]["mhz"] == 1980
    assert "mhz" not in written["fp8_tile_gb_per_s"]


def test_waits_of_experts_fall_with_the_matrix_rate_of_an_sm() -> None:
    """20 us at 2.5 TFLOP/s an SM and 11.5 at 5 are the same: 34.8 at 1.25, less at twice the clock.

    Within an architecture they follow the clock alone, as other times do; so do waits of weights
    that are expanded first.
    """
    expanded = {"fp8_block_experts_block_us": 10.0}
    one = gpu(
        {"experts_block_us": 20.0, **expanded}, boost_mhz=1000, bf16_tflops=250, fp16_tflops=250
    )
    other = gpu({"experts_block_us": 20.0 / FASTER, **expanded}, boost_mhz=1000)
    left = carry.left_out(gpu(boost_mhz=2000, bf16_tflops=125), [one, other], {})
    sooner = 2**-LATENCY_POWER
    assert left.fitted["experts_block_us"].value == pytest.approx(20 * FASTER * sooner, rel=0.01)
    waits = left.fitted["fp8_block_experts_block_us"].value
    assert waits == pytest.approx(10 * sooner, rel=0.01)
    (entry, _) = carry.of_architecture(one, {}).values()
    assert entry.on(other, key_named("experts_block_us")) == pytest.approx(20)


def test_shares_of_bandwidth_follow_what_memory_streams() -> None:
    """0.8 where streams reach 0.96 of the peak is 0.72 where they reach nine tenths of that."""
    name = "gemm_bandwidth_fraction"
    told = {"measured": {"memory_bandwidth_gb_per_s": 2000 * STREAM_SHARE * 0.9}}
    slow, usual = gpu({name: 0.72}, name="slow", **told), gpu({name: 0.8})
    assert carry.averaged([slow, usual], {})[key_named(name)].value == pytest.approx(0.8)
    assert carry.left_out(slow, [usual], {}).fitted[name].value == pytest.approx(0.72)
    (near,) = carry.of_architecture(slow, {}).values()
    assert near.on(usual, key_named(name)) == pytest.approx(0.8)


def test_products_hold_less_of_a_higher_clock() -> None:
    """Between designs 0.8 becomes 0.65 at twice the clock; within one, power decides."""
    name = "gemm_flops_fraction"
    one = gpu({name: 0.8}, boost_mhz=1000)
    left = carry.left_out(gpu(boost_mhz=2000), [one], {})
    assert left.fitted[name].value == pytest.approx(0.8 * 2**-0.3, rel=0.01)
    assert carry.left_out(gpu(boost_mhz=300), [one], {}).fitted[name].value == LARGEST_SHARE
    (near,) = carry.of_architecture(one, {}).values()
    assert near.on(gpu(boost_mhz=2000), key_named(name)) == pytest.approx(0.8, rel=0.01)
    # Shares of attention stay.
    prefill = "prefill_attention_flops_fraction"
    left = carry.left_out(gpu(boost_mhz=2000), [gpu({prefill: 0.6}, boost_mhz=1000)], {})
    assert left.fitted[prefill].value == pytest.approx(0.6)


def test_a_format_is_carried_from_the_cards_that_have_it() -> None:
    """One card with nvfp4 rows is enough; of fp8, what one of two did not tell is nobody's."""
    one = gpu({"fp8_gemm_launch_us": 3.0, "fp8_tile_gb_per_s": 90.0, "nvfp4_gemm_launch_us": 4.0})
    other = gpu({"fp8_gemm_launch_us": 3.0, "fp8_quantise_launch_us": 2.0})
    found = {str(key) for key in carry.averaged([one, other], {})}
    assert found == {"fp8_gemm_launch_us", "nvfp4_gemm_launch_us", "fp8_quantise_launch_us"}


def test_whole_programs_are_not_carried() -> None:
    """Neither an engine's time a step nor the paper's harness."""
    assert {"harness_host_us", "vllm_step_us"} & {*map(str, carry.own_constants(SLOW))} == set()


def test_a_link_has_a_clock_of_its_own() -> None:
    """An all-reduce's fixed time is written without the clock of the SMs."""
    written = json.loads(carry.text(carry.averaged([SLOW], KERNELS), {}))["default"]
    assert "mhz" not in written["collective_launch_us"]
    assert "mhz" in written["gemm_launch_us"]


def test_a_kernel_says_more_than_a_library_elsewhere() -> None:
    """SGLang with FlashInfer on T4: not what SGLang's FlashAttention-3 takes on Hopper."""
    card = load_hardware("t4")
    used = rates(card, variants=map(Variant, ("sglang", "flashinfer")))
    flashinfer = used.constants[key_named("attention_launch_us")]
    assert "L40S, sglang flashinfer" in flashinfer.source
    # On its own architecture the library is the nearest.
    near = rates(load_hardware("h200-sxm"), variants=map(Variant, ("sglang", "fa3")))
    own = rates(load_hardware("h100-sxm"), variants=(Variant("sglang"),))
    assert near.launch_s["attention"] == pytest.approx(own.launch_s["attention"], rel=0.01)


def test_the_shipped_file_is_made_from_the_shipped_profiles() -> None:
    """Constants fitted anew are carried anew: python tools/accuracy.py ROWS --carry."""
    cards = [load_hardware(name) for name in CARRIED.values()]
    averaged = carry.averaged(cards, SHIPPED)
    for name, libraries in (("carried_kernels.json", False), ("carried_libraries.json", True)):
        written = (files("simulator") / "timing" / name).read_text(encoding="utf-8")
        made = json.loads(carry.text(averaged, {}, libraries=libraries))
        assert json.loads(written)["default"] == made["default"]


@pytest.mark.parametrize(
    ("kernel", "card", "found"),
    [
        ("vllm_flash_attn", "a100-sxm-80gb", "fa2"),
        ("vllm_flash_attn", "h200-sxm", "fa3"),
        ("vllm_flash_attn_fa2", "h100-sxm", "fa2"),
        ("fa3", "h100-sxm", "fa3"),
        ("vllm_flashinfer_fidecode", "l40s", "flashinfer"),
        ("trtllm_mha", "b200-sxm", "trtllmgen"),
        ("vllm_flashinfer_trtllmdecode", "gb200", "trtllmgen"),
        ("vllm_triton_attn", "b200-sxm", "triton"),
        ("unheard_of", "b200-sxm", ""),
    ],
)
def test_kernels_by_the_names_rows_have(kernel: str, card: str, found: str) -> None:
    """As the rows of aiconfigurator name them."""
    assert attention_kernel(kernel, load_hardware(card)) == found


def test_what_engines_fall_back_to_is_not_their_kernel() -> None:
    """Triton anywhere, FlashInfer where TensorRT-LLM's kernel runs: averaged for itself alone."""
    blackwell, ada = load_hardware("b200-sxm"), load_hardware("l40s")
    assert is_fallback("triton", ada)
    assert is_fallback("flashinfer", blackwell)
    assert not is_fallback("flashinfer", ada)
    assert not is_fallback("trtllmgen", blackwell)
    table = pd.DataFrame(
        {
            "gpu_id": "b200-sxm",
            "framework": "sglang",
            "kernel": ["flashinfer", "trtllm_mha", "triton"],
            "kv_dtype": "bf16",
        }
    )
    assert carry.kernels_of(table, [blackwell]) == {("b200-sxm", "sglang"): "trtllmgen"}
    launch, slowest = key_named("attention_launch_us"), key_named("triton_attention_launch_us")
    odd = gpu({**FITTED, "triton_attention_launch_us": 20.0}, name="slow", boost_mhz=1000)
    entries = carry.averaged([odd, FAST], KERNELS)
    assert entries[launch] == carry.averaged([SLOW, FAST], KERNELS)[launch]
    at_its_clock = entries[slowest].value * clock_factor(slowest, entries[slowest].mhz, odd)
    assert at_its_clock == pytest.approx(20, rel=0.01)


def test_a_kernel_is_found_on_its_architecture_whatever_library_calls_it() -> None:
    """FlashInfer ran under SGLang alone: its constants have both names; FA3 ran under two."""
    card = gpu({**FITTED, "sglang_attention_launch_us": 3.0}, name="fast", boost_mhz=2000)
    both = {("fast", "sglang"): "flashinfer", ("fast", "vllm"): "fa2"}
    entries = carry.of_architecture(card, both)
    assert entries[key_named("flashinfer_attention_launch_us")].value == 3
    assert entries[key_named("fa2_attention_launch_us")].value == 8
    shared = carry.of_architecture(card, dict.fromkeys(both, "fa3"))
    assert key_named("fa3_attention_launch_us") not in shared


def test_blocks_of_prefill() -> None:
    """2 prompts of 100 queries, 8 heads, 2 KV heads: 4 x 100 packed rows are 4 blocks of 128."""
    sizes = (2.0, 8.0, 2.0, 100.0)
    assert prefill_blocks(128, *sizes, folded=True) == 2 * 2 * 4
    assert prefill_blocks(128, *sizes, folded=False) == 2 * 8 * 1


def test_heads_that_share_blocks_of_prefill() -> None:
    """FlashAttention-2's for one query, TensorRT-LLM's where it decodes, FlashAttention-3's."""
    assert folds_heads("fa2", "vllm_flash_attn", 1)
    assert not folds_heads("fa2", "vllm_flash_attn", 2)
    assert folds_heads("trtllmgen", "vllm_flashinfer_trtllmdecode", 1)
    assert not folds_heads("trtllmgen", "trtllm_mha", 1)
    assert folds_heads("fa3", "fa3", 100)


def test_rows_of_a_prefill_block() -> None:
    """FlashAttention-2 has smaller tiles where shared memory is small."""
    assert prefill_block_rows("fa2", load_hardware("l40s")) == 64
    assert prefill_block_rows("fa2", load_hardware("a100-sxm-80gb")) == 128


def test_flashinfer_s_blocks_are_shorter_without_tensor_cores() -> None:
    """For groups of fewer than four query heads."""
    assert small_blocks(1) == small_blocks(3) < small_blocks(4) == 1


def test_latent_attention_is_averaged_without_libraries_and_without_a_slow_card() -> None:
    """A100's only kernel is no guide for others; a library's differs between architectures."""
    share = "latent_attention_bandwidth_fraction"
    cards = [
        gpu({share: 0.9, f"vllm_{share}": 0.8}, name="h100-sxm"),
        gpu({share: 0.3}, name="a100-sxm-80gb"),
    ]
    found = carry.averaged(cards, {})
    assert found[key_named(share)].value == 0.9
    assert key_named(f"vllm_{share}") not in found
