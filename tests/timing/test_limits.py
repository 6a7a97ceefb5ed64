"""Published matrix rates, and thread blocks that run at once."""

from typing import Any

import pytest
from builders import gpu

from simulator.inputs.hardware import load_hardware
from simulator.timing.limits import peak_flops_per_s, resident_blocks


@pytest.mark.parametrize(
    ("dtype", "left_out", "rate", "used"),
    [
        ("bf16", {}, 500, "bf16"),
        ("bf16", {"bf16_tflops": None}, 510, "fp16"),  # V100, T4
        ("fp8", {}, 1000, "fp8"),
        ("fp8", {"fp8_tflops": None}, 500, "bf16"),  # A100
        ("fp8", {"fp8_tflops": None, "bf16_tflops": None}, 510, "fp16"),
        ("int8", {"int8_tops": None}, 500, "bf16"),
        ("int4", {}, 500, "bf16"),  # expanded before the product
        ("int8", {"int8_tops": 40}, 500, "bf16"),  # B300: cut to a fraction of its 16-bit rate
        ("int8", {"int8_tops": 500}, 500, "bf16"),  # MI210: no faster
        ("int8", {"int8_tops": 520}, 520, "int8"),
        ("fp32", {}, 50, "fp32"),
    ],
)
def test_a_missing_format_computes_in_the_next_wider(
    dtype: Any, left_out: dict[str, float | None], rate: float, used: str
) -> None:
    """The rate and the format it is for; the fp16 rate here is 510 so that it shows."""
    card = gpu(fp16_tflops=510, **left_out)
    assert peak_flops_per_s(card, dtype) == (rate * 1e12, used)


@pytest.mark.parametrize(
    ("card", "resident"),
    [("h100-sxm", 132), ("h200-sxm", 132), ("a100-sxm-80gb", 216), ("l40s", 284)],
)
def test_hopper_keeps_one_block_on_an_sm_others_two(card: str, resident: int) -> None:
    """FlashAttention-3's block has an SM to itself; 108 SMs of an A100 run 216 blocks."""
    assert resident_blocks(load_hardware(card)) == resident
