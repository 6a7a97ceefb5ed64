"""What the launch, waves of thread blocks and things done one by one add to an operation's time."""

from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, gpu
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import Operation
from simulator.timing.constants import rates
from simulator.timing.norm import norm
from simulator.timing.roofline import operation_time

SLOW = rates(
    gpu(
        {
            **ROUND_CONSTANTS,
            "block_us": 3,
            "sequence_us": 0.01,
            "split_us": 0.1,
            "overlap": 2,
        }
    )
)

SECONDS = st.floats(1e-12, 1)


def _us(**fields: Any) -> float:
    return operation_time(
        Operation(name="a", kind="attention", **fields), SLOW, "graph"
    ).device_s / (1e-6)


def test_what_is_walked_through_adds_up() -> None:
    """A launch of 2 us; 100 sequences of 10 ns, 8 splits of 100 ns."""
    assert _us() == pytest.approx(2)
    assert _us(sequences=100) == pytest.approx(2 + 1)
    assert _us(splits=8) == pytest.approx(2 + 0.8)


def test_only_blocks_beyond_the_first_wave_wait() -> None:
    """On 100 SMs the first 100 blocks come with the launch, 300 more are three waves of 3 us."""
    assert _us(thread_blocks=1) == _us(thread_blocks=100) == pytest.approx(2)
    assert _us(thread_blocks=400) == pytest.approx(2 + 9)


def test_waves_hide_in_part_behind_the_memory() -> None:
    """12 us of memory and 9 us of waves take 15: the root of the sum of squares."""
    assert _us(thread_blocks=400, bytes_read=12e6) == pytest.approx(2 + 15)


def test_memory_and_compute_overlap_in_part() -> None:
    """3 us of memory and 4 us of compute take 5 with a power of two."""
    assert _us(bytes_read=3e6, flops=4e-6 * 250e12) == pytest.approx(2 + 5)


@pytest.mark.parametrize(("power", "expected"), [(1, 7), (2, 5), (4, 337**0.25), (16, 4)])
def test_the_powers_that_are_offered(power: float, expected: float) -> None:
    """From the sum to the larger; arrays take the norms of their numbers."""
    assert norm(3.0, 4.0, power) == pytest.approx(expected)
    assert norm(np.array([3.0, 0.0]), np.array([4.0, 1.0]), power) == pytest.approx([expected, 1])


@given(SECONDS, SECONDS, st.floats(0.5, 20), SECONDS)
def test_a_norm_is_between_the_larger_and_the_sum_and_never_falls(
    first: float, second: float, power: float, more: float
) -> None:
    """Whatever the power, and more under either roof never makes a kernel faster."""
    value = norm(first, second, power)
    assert max(first, second) * (1 - 1e-12) <= value <= (first + second) * (1 + 1e-12)
    assert norm(first + more, second, power) >= value * (1 - 1e-12)
