"""Matrix products in tiles: waves, idle SMs, and when the inner dimension is split."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, gpu, gpus
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.counts.operation import Operation
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.workload import workload_for
from simulator.timing.constants import Rates, rates
from simulator.timing.roofline import operation_time
from simulator.timing.step import decode_time

# 100 SMs of 2.5 TFLOP/s each, tiles loaded at once, 1 us to split, 2 us a launch.
ROUND = rates(gpu({**ROUND_CONSTANTS, "split_k_us": 1}))
US = 1e-6


def product(rows: Any, columns: int, depth: int, launches: int = 1) -> Operation:
    """Return a product whose bytes cost nothing."""
    return Operation(
        name="a",
        kind="gemm",
        flops=2 * rows * columns * depth * launches,
        launches=launches,
        m=rows,
        n=columns,
        k=depth,
    )


def _us(operation: Operation, used: Rates = ROUND) -> float:
    return float(operation_time(operation, used, "graph").device_s) / US


def test_a_wave_that_is_not_full_takes_as_long_as_a_full_one() -> None:
    """100 tiles of 64 x 64 are one wave; with 101 the last counts half as a whole one.

    A tile takes 2 x 64 x 64 x 1000 / 2.5e12 = 3.2768 us; to split it would not pay.
    """
    tile = 3.2768
    assert _us(product(64, 64 * 100, 1000)) == pytest.approx(2 + tile)
    assert _us(product(64, 64 * 101, 1000)) == pytest.approx(2 + tile * (1.01 + 2) / 2)


def test_few_tiles_are_split() -> None:
    """One tile of 64 x 64 and 100,000 deep: 8 blocks, 1 us to split, partials through L2."""
    whole = 2 * 64 * 64 * 100_000 / 2.5e12 / US
    partials = 8 * 8 * 64 * 64 / 8e12 / US
    assert _us(product(64, 64, 100_000)) == pytest.approx(2 + 1 + whole / 8 + partials)
    # Where splitting takes longer than it saves, nothing is split.
    assert _us(product(64, 64, 100)) == pytest.approx(2 + whole / 1000)


def test_a_tile_multiplies_no_more_rows_than_there_are() -> None:
    """One row of 100 tiles' columns: a 64th of the time of 64 rows."""
    one, all_rows = (_us(product(rows, 6400, 4096)) - 2 for rows in (1, 64))
    assert one == pytest.approx(all_rows / 64)


def test_kernels_of_one_operation_run_one_after_another() -> None:
    """Three products of the same size take three times as long as one."""
    one, three = (_us(product(64, 6400, 4096, launches)) for launches in (1, 3))
    assert three == pytest.approx(3 * one)


def test_loading_tiles_has_its_own_rate() -> None:
    """(64 + 64) x 2 bytes x 1000 at 1 GB/s: 256 us, beside which multiplying is nothing."""
    slow = rates(gpu({**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}))
    assert _us(product(64, 64, 1000), slow) == pytest.approx(2 + 256, rel=1e-6)


def test_weights_expanded_on_the_chip_load_as_they_are_stored() -> None:
    """64 x 2 bytes of activations and 64 x 0.5 of int4 weights, x 1000 at 1 GB/s: 160 us."""
    slow = rates(gpu({**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}))
    stored = replace(product(64, 64, 1000), weight_element_bytes=0.5)
    assert _us(stored, slow) == pytest.approx(2 + 160, rel=1e-6)


def test_activations_load_in_the_format_that_is_multiplied() -> None:
    """Of fp8 weights without a path for them 64 x (2 + 1) bytes, with one 64 x (1 + 1), x 1000."""
    slow = {**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}
    eight = replace(product(64, 64, 1000), dtype="fp8")
    assert _us(eight, rates(gpu(slow, fp8_tflops=None))) == pytest.approx(2 + 192, rel=1e-6)
    fast = {**slow, "fp8_tile_gb_per_s": 1, "fp8_split_k_us": 1e4, "fp8_gemm_launch_us": 2}
    own = rates(gpu(fast))
    assert _us(eight, own) == pytest.approx(2 + 128, rel=1e-6)


@pytest.mark.parametrize("name", ["a100-sxm-80gb", "h100-sxm", "l40s"])
def test_a_quarter_of_the_weight_bytes_saves_time(name: str) -> None:
    """At one sample, where weights are nearly all traffic, int4 beats int8 by a quarter or more.

    gpt-fast on an A100 80GB (its README, recalled): Llama-2-7B 149 tokens/s in int8, 197 in int4.
    """
    shape, used = load_model("llama-2-70b"), rates(load_hardware(name))
    step = {
        dtype: decode_time(
            shape, workload_for(shape, samples=1, weight_dtype=dtype), used, resident_blocks=132
        ).total_s
        for dtype in ("int8", "int4")
    }
    assert step["int4"] < 0.75 * step["int8"]


def test_at_published_peaks_there_are_no_tiles() -> None:
    """A bound: every SM is busy all the time."""
    peak = rates(gpu(ROUND_CONSTANTS), "peak")
    operation = product(65, 65, 1000)
    assert _us(operation, peak) == pytest.approx(operation.flops / 500e12 / US)


SIZES = st.integers(1, 20_000)


@settings(deadline=None)
@given(gpus(), SIZES, SIZES, SIZES, st.floats(0, 1e9), st.integers(1, 300))
def test_never_below_the_rate_and_never_shorter_for_more(
    card: Any, rows: int, columns: int, depth: int, read: float, more: int
) -> None:
    """Whatever the sizes: no less than its FLOPs at the achieved rate, and monotone in the rows."""
    used = rates(card)

    def seconds(rows: Any) -> Any:
        operation = Operation(
            name="a",
            kind="gemm",
            flops=2.0 * rows * columns * depth,
            bytes_read=read,
            m=rows,
            n=columns,
            k=depth,
        )
        return operation_time(operation, used, "graph")

    time = seconds(rows)
    least = 2.0 * rows * columns * depth / used.flops_per_s("gemm", "bf16")
    assert time.compute_s >= least * (1 - 1e-12)
    assert time.device_s <= seconds(rows + more).device_s * (1 + 1e-12)
    arrays = seconds(np.array([rows, rows + more], dtype=np.float64))
    assert math.isclose(arrays.device_s[0], time.device_s, rel_tol=1e-12)
