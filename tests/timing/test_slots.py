"""Thread blocks of flash kernels: one rule for questions and for rows that constants come from."""

import pytest

from simulator.inputs.hardware import load_hardware
from simulator.timing.carried import carried
from simulator.timing.constants import rates
from simulator.timing.slots import resident_blocks


@pytest.mark.parametrize(
    ("card", "resident"),
    [("h100-sxm", 132), ("h200-sxm", 132), ("a100-sxm-80gb", 216), ("l40s", 284)],
)
def test_hopper_keeps_one_block_on_an_sm_others_two(card: str, resident: int) -> None:
    """FlashAttention-3's block has an SM to itself; 108 SMs of an A100 run 216 blocks."""
    assert resident_blocks(load_hardware(card)) == resident


def test_a_hopper_block_carries_to_hopper_whole_and_by_halves_to_where_two_share() -> None:
    """H200 has H100's blocks at H100's clock; a Blackwell SM runs two, so each gets half of it."""
    h100, h200, b200 = map(load_hardware, ("h100-sxm", "h200-sxm", "b200-sxm"))
    one = rates(h100).constants["block_gb_per_s"].value
    assert rates(h200).constants["block_gb_per_s"].value == pytest.approx(one, rel=0.01)
    half = carried(b200, (), "block_gb_per_s")
    assert half is not None
    assert half.value < 0.6 * one
