"""The time of one operation, on a GPU whose rates are round numbers (tests/builders.py)."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, gpu, gpus, round_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.counts.operation import Operation, Tile
from simulator.counts.transformer import prefill_operations
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import ask
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates, rates
from simulator.timing.roofline import (
    ROOFS,
    OperationTime,
    of_fullest_part,
    operation_time,
    overlap_power,
    overlapped,
)
from simulator.timing.step import decode_time, step_time

ROUND = rates(round_gpu())
MIB = 2**20
GIGABYTE = 1e9  # takes 1 ms at 1000 GB/s


def _time(operation: Operation, execution: Any = "graph") -> OperationTime:
    return operation_time(operation, ROUND, execution)


def test_the_slower_roof_counts_and_a_launch_comes_on_top() -> None:
    """1 GB takes 1 ms, 0.5 TFLOP at 250 TFLOP/s 2 ms, a launch 2 us."""
    both = _time(
        Operation(name="a", kind="gemm", flops=0.5e12, bytes_read=0.75e9, bytes_written=0.25e9)
    )
    assert both.memory_s == pytest.approx(1e-3)
    assert both.compute_s == pytest.approx(2e-3)
    assert both.device_s == pytest.approx(2.002e-3)
    assert both.bound == "compute"


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"bytes_read": GIGABYTE}, "memory"),
        ({"flops": 1e12}, "compute"),
        ({"link_bytes": GIGABYTE, "ranks": 2}, "link"),
        ({"bytes_read": 100}, "launch"),
        ({}, "launch"),
    ],
)
def test_the_bound_is_the_largest_part(fields: dict[str, Any], bound: str) -> None:
    """Each roof binds where it takes the most time, a fixed launch time too."""
    assert bound in ROOFS
    assert _time(Operation(name="a", kind="gemm", **fields)).bound == bound


def test_nothing_launched_takes_no_time() -> None:
    """A combine of no splits is not there."""
    nothing = _time(Operation(name="a", kind="elementwise", launches=0), "eager")
    assert nothing.device_s == nothing.host_s == 0


@pytest.mark.parametrize(
    ("execution", "launch_us", "host_us"), [("graph", 4, 0), ("compiled", 4, 0), ("eager", 6, 20)]
)
def test_each_launch_costs(execution: str, launch_us: float, host_us: float) -> None:
    """Two launches: 2 us each, eagerly 1 us more on the device and 10 us on the host."""
    time = _time(Operation(name="a", kind="copy", launches=2), execution)
    assert time.launch_s == pytest.approx(launch_us * 1e-6)
    assert time.host_s == pytest.approx(host_us * 1e-6)


@pytest.mark.parametrize(
    ("footprint_mib", "from_l2"), [(0, 1), (25, 1), (31.25, 0.75), (37.5, 0.5), (50, 0), (99, 0)]
)
def test_l2_serves_what_fits(footprint_mib: float, from_l2: float) -> None:
    """All of 0.8 GB up to 25 MiB, none from 50 MiB on, linear between; L2 is 8 times faster."""
    time = _time(
        Operation(
            name="a",
            kind="attention",
            bytes_read=GIGABYTE,
            reused_bytes=0.8e9,
            reused_footprint_bytes=footprint_mib * MIB,
        )
    )
    assert time.memory_s == pytest.approx((1 - 0.8 * from_l2 + 0.1 * from_l2) * 1e-3)


def test_few_blocks_stream_slowly() -> None:
    """0.5 GB of KV in 20 blocks of 10 GB/s takes 2.5 ms; 100 blocks fill the memory.

    The launch hides the first 64 KiB of each block.
    """

    def memory_s(blocks: float | None) -> float:
        return _time(
            Operation(
                name="a",
                kind="attention",
                bytes_read=GIGABYTE,
                kv_bytes_read=GIGABYTE / 2,
                effective_blocks=blocks,
            )
        ).memory_s

    assert memory_s(20) == pytest.approx((0.5e9 - 20 * 65536) / 200e9)
    assert memory_s(49) == pytest.approx((0.5e9 - 49 * 65536) / 490e9)
    assert memory_s(50) == memory_s(1000) == memory_s(None) == pytest.approx(1e-3)


def test_bytes_from_l2_wait_for_their_blocks_too() -> None:
    """Two samples on one stored context in two blocks take as long as one in one block.

    They read the same keys in step; the second read comes from L2, but no sooner.
    """
    one, two = (
        _time(
            Operation(
                name="a",
                kind="attention",
                bytes_read=copies * MIB,
                kv_bytes_read=copies * MIB,
                effective_blocks=copies,
                reused_bytes=(copies - 1) * MIB,
                reused_footprint_bytes=MIB,
            )
        ).memory_s
        for copies in (1, 2)
    )
    assert one == two == pytest.approx((MIB - 65536) / 10e9)


def test_an_l2_slower_than_memory_is_no_penalty() -> None:
    """Where the ratio is below the achieved share, bytes cost what memory costs."""
    slow = rates(gpu({**ROUND_CONSTANTS, "l2_gb_per_s": 2}))
    operation = Operation(name="a", kind="copy", bytes_read=GIGABYTE, reused_bytes=GIGABYTE)
    assert operation_time(operation, slow, "graph").memory_s == pytest.approx(1e-3)


def test_the_longest_blocks_end_alone() -> None:
    """While the last blocks of 10 GFLOP end, half of 100 SMs idle: as long as 0.5 TFLOP more."""
    causal = Operation(name="a", kind="prefill_attention", flops=1e12, longest_block_flops=10e9)
    assert _time(causal).compute_s == pytest.approx(1.5e12 / 250e12)


def test_formats_have_their_own_rates() -> None:
    """1 PFLOP in fp8 takes 2 ms, in bf16 4 ms, in fp32 40 ms: half of 1000, 500, 50 TFLOP/s."""
    times = {
        dtype: _time(Operation(name="a", kind="gemm", flops=1e12, dtype=dtype)).compute_s
        for dtype in ("fp8", "bf16", "fp32", "int4")
    }
    assert times == pytest.approx({"fp8": 2e-3, "bf16": 4e-3, "fp32": 40e-3, "int4": 4e-3})


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e12),
            st.floats(0, 1e15),
            st.floats(1, 500),
            st.floats(0, 1),
            st.floats(0, 1e8),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_arrays_take_the_times_of_their_numbers(points: list[tuple[float, ...]]) -> None:
    """Every part of the time of an array is the array of the times."""

    def operation(moved: Any, flops: Any, blocks: Any, share: Any, footprint: Any) -> Operation:
        return Operation(
            name="a",
            kind="attention",
            flops=flops,
            bytes_read=moved,
            kv_bytes_read=moved,
            effective_blocks=blocks,
            link_bytes=moved / 10,
            ranks=2,
            reused_bytes=moved * share,
            reused_footprint_bytes=footprint,
        )

    together = _time(operation(*np.array(points).T))
    for index, point in enumerate(points):
        alone = _time(operation(*point))
        for part in ("launch_s", "memory_s", "compute_s", "link_s", "stream_s", "device_s"):
            values = np.broadcast_to(getattr(together, part), len(points))
            assert values[index] == pytest.approx(getattr(alone, part), rel=1e-12), part


SLOW = rates(
    gpu({**ROUND_CONSTANTS, "block_us": 3, "sequence_us": 0.01, "split_us": 0.1, "overlap": 2})
)

SECONDS = st.floats(1e-12, 1)


def _slow_us(**fields: Any) -> float:
    return operation_time(
        Operation(name="a", kind="attention", **fields), SLOW, "graph"
    ).device_s / (1e-6)


def test_what_is_walked_through_adds_up() -> None:
    """A launch of 2 us; 100 sequences of 10 ns, 8 splits of 100 ns."""
    assert _slow_us() == pytest.approx(2)
    assert _slow_us(sequences=100) == pytest.approx(2 + 1)
    assert _slow_us(splits=8) == pytest.approx(2 + 0.8)


def test_only_blocks_beyond_the_first_wave_wait() -> None:
    """On 100 SMs the first 100 blocks come with the launch, 300 more are three waves of 3 us."""
    assert _slow_us(thread_blocks=1) == _slow_us(thread_blocks=100) == pytest.approx(2)
    assert _slow_us(thread_blocks=400) == pytest.approx(2 + 9)


def test_wide_heads_fill_the_gpu_with_fewer_blocks() -> None:
    """Blocks of heads 256 wide count twice; 64 wide, two share an SM."""
    assert _slow_us(thread_blocks=200, head_width=256) == pytest.approx(2 + 9)
    assert _slow_us(thread_blocks=200, head_width=64) == pytest.approx(2)


def test_padded_rows_of_tiles_are_multiplied() -> None:
    """1 us of FLOPs over tiles that are four times as large: 4 us; never less than its FLOPs."""
    one = 1e-6 * 250e12
    assert _slow_us(flops=one) == pytest.approx(2 + 1)
    assert _slow_us(flops=one, tile_rows_per_row=4) == pytest.approx(2 + 4)


def test_narrow_heads_wait_for_their_exponentials() -> None:
    """1 us of FLOPs, a logit for each 4 x 64 of them, on 100 SMs with 5 G/s each: 1.95 us.

    The two overlap with a power of four.
    """
    card = rates(gpu({**ROUND_CONSTANTS, "exp_g_per_s": 5}))
    operation = Operation(name="a", kind="attention", flops=1e-6 * 250e12, head_width=64)
    exponentials = 1e-6 * 250e12 / 256 / 500e9
    found = operation_time(operation, card, "graph").compute_s
    assert found == pytest.approx((1e-6**4 + exponentials**4) ** 0.25)
    wide = operation_time(replace(operation, head_width=1024), card, "graph").compute_s
    assert 1e-6 <= wide < 1.001e-6


def test_waves_hide_in_part_behind_the_memory() -> None:
    """12 us of memory and 9 us of waves take 15: the root of the sum of squares."""
    assert _slow_us(thread_blocks=400, bytes_read=12e6) == pytest.approx(2 + 15)


def test_steps_follow_each_other() -> None:
    """A block that takes 100 steps of 2 us takes 200 us; twice the blocks of the SMs, 400 us."""
    used = rates(gpu({**ROUND_CONSTANTS, "recurrence_serial_us": 2.0, "recurrence_launch_us": 1.0}))

    def time_us(blocks: int) -> float:
        scan = Operation(name="a", kind="recurrence", serial_steps=100, thread_blocks=blocks)
        return float(operation_time(scan, used, "graph").device_s * 1e6)

    assert time_us(0) == pytest.approx(201)
    assert time_us(used.sm_count) == pytest.approx(201)
    assert time_us(2 * used.sm_count) == pytest.approx(401)


def test_no_sm_processes_bytes_faster_than_its_rate() -> None:
    """Where the SMs' rate is a tenth of the memory's, also bytes from L2 take ten times as long."""
    tenth = 100 / gpu().sm_count
    slow = rates(gpu({**ROUND_CONSTANTS, "convolution_sm_gb_per_s": tenth}))
    for reused in (0.0, GIGABYTE):
        item = Operation(
            name="a", kind="convolution", bytes_read=GIGABYTE, launches=0, reused_bytes=reused
        )
        time_s = operation_time(item, slow, "graph").device_s
        assert time_s == pytest.approx(GIGABYTE / 100e9, rel=1e-3)


def test_memory_and_compute_overlap_in_part() -> None:
    """3 us of memory and 4 us of compute take 5 with a power of two."""
    assert _slow_us(bytes_read=3e6, flops=4e-6 * 250e12) == pytest.approx(2 + 5)


@pytest.mark.parametrize(
    ("power", "nearest", "expected"),
    [
        (1, 1, 7),
        (1.5, 2, 5),
        (2, 2, 5),
        (3, 4, 337**0.25),
        (4, 4, 337**0.25),
        (8, math.inf, 4),
        (16, math.inf, 4),
    ],
)
def test_the_powers_that_are_offered(power: float, nearest: float, expected: float) -> None:
    """From the sum to the larger; arrays take the norms of their numbers."""
    assert overlap_power(power) == nearest
    assert overlapped(3.0, 4.0, power) == pytest.approx(expected)
    assert overlapped(np.array([3.0, 0.0]), np.array([4.0, 1.0]), power) == pytest.approx(
        [expected, 1]
    )


@given(SECONDS, SECONDS, st.floats(0.5, 20), SECONDS)
def test_a_norm_is_between_the_larger_and_the_sum_and_never_falls(
    first: float, second: float, power: float, more: float
) -> None:
    """Whatever the power, and more under either roof never makes a kernel faster."""
    value = overlapped(first, second, power)
    assert max(first, second) * (1 - 1e-12) <= value <= (first + second) * (1 + 1e-12)
    assert overlapped(first + more, second, power) >= value * (1 - 1e-12)


# 100 SMs of 2.5 TFLOP/s each, tiles loaded at once, 1 us to split, 2 us a launch.
ROUND_TILES = rates(gpu({**ROUND_CONSTANTS, "split_k_us": 1}))
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


def _product_us(operation: Operation, used: Rates = ROUND_TILES) -> float:
    return float(operation_time(operation, used, "graph").device_s) / US


def test_a_wave_that_is_not_full_takes_as_long_as_a_full_one() -> None:
    """100 tiles of 64 x 64 are one wave; with 101 the last counts half as a whole one.

    A tile takes 2 x 64 x 64 x 1000 / 2.5e12 = 3.2768 us; to split it would not pay.
    """
    tile = 3.2768
    assert _product_us(product(64, 64 * 100, 1000)) == pytest.approx(2 + tile)
    assert _product_us(product(64, 64 * 101, 1000)) == pytest.approx(2 + tile * (1.01 + 2) / 2)


def test_few_tiles_are_split() -> None:
    """One tile of 64 x 64 and 100,000 deep: 8 blocks, 1 us to split, partials through L2."""
    whole = 2 * 64 * 64 * 100_000 / 2.5e12 / US
    partials = 8 * 8 * 64 * 64 / 8e12 / US
    assert _product_us(product(64, 64, 100_000)) == pytest.approx(2 + 1 + whole / 8 + partials)
    # Where splitting takes longer than it saves, nothing is split.
    assert _product_us(product(64, 64, 100)) == pytest.approx(2 + whole / 1000)


def test_a_tile_multiplies_no_more_rows_than_there_are() -> None:
    """One row of 100 tiles' columns: a 64th of the time of 64 rows."""
    one, all_rows = (_product_us(product(rows, 6400, 4096)) - 2 for rows in (1, 64))
    assert one == pytest.approx(all_rows / 64)


def test_kernels_of_one_operation_run_one_after_another() -> None:
    """Three products of the same size take three times as long as one."""
    one, three = (_product_us(product(64, 6400, 4096, launches)) for launches in (1, 3))
    assert three == pytest.approx(3 * one)


def test_loading_tiles_has_its_own_rate() -> None:
    """(64 + 64) x 2 bytes x 1000 at 1 GB/s: 256 us, beside which multiplying is nothing."""
    slow = rates(gpu({**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}))
    assert _product_us(product(64, 64, 1000), slow) == pytest.approx(2 + 256, rel=1e-6)


def test_weights_expanded_on_the_chip_load_as_they_are_stored() -> None:
    """64 x 2 bytes of activations, 64 x 33/64 of int4 weights, x 1000 at 1 GB/s: 161 us."""
    slow = rates(gpu({**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}))
    stored = replace(product(64, 64, 1000), weights="int4")
    assert _product_us(stored, slow) == pytest.approx(2 + 161, rel=1e-6)


def test_activations_load_in_the_format_that_is_multiplied() -> None:
    """Of fp8 weights without a path for them 64 x (2 + 1) bytes, with one 64 x (1 + 1), x 1000."""
    slow = {**ROUND_CONSTANTS, "tile_gb_per_s": 1, "split_k_us": 1e4}
    eight = replace(product(64, 64, 1000), dtype="fp8")
    assert _product_us(eight, rates(gpu(slow, fp8_tflops=None))) == pytest.approx(2 + 192, rel=1e-6)
    fast = {**slow, "fp8_tile_gb_per_s": 1, "fp8_split_k_us": 1e4, "fp8_gemm_launch_us": 2}
    own = rates(gpu(fast))
    assert _product_us(eight, own) == pytest.approx(2 + 128, rel=1e-6)


def test_plain_8_bits_split_nothing_and_load_the_rows_that_there_are() -> None:
    """One deep tile takes what its steps take; of 64 rows 32, or 16 at least, x 1 byte load."""
    constants = {**ROUND_CONSTANTS, "fp8_tile_gb_per_s": 1, "fp8_split_k_us": 1}
    own = rates(gpu({**constants, "fp8_gemm_launch_us": 2}))
    for rows, loaded in ((64, 64), (32, 32), (1, 16)):
        eight = replace(product(rows, 64, 100_000), dtype="fp8")
        assert _product_us(eight, own) == pytest.approx(2 + (loaded + 64) * 100, rel=1e-5)


@pytest.mark.parametrize(
    ("capability", "rows", "waves", "tile"),
    [
        *(("9.0", 64, 2, 64 * 64), ("9.0", 65, 2, 64 * 128), ("9.0", 129, 2, 128 * 128)),
        *(("8.9", 129, 3, 64 * 128), ("8.9", 256, 4, 64 * 128), ("8.9", 257, 3, 128 * 128)),
    ],
)
def test_plain_8_bits_take_their_tile_by_their_rows(
    capability: str, rows: int, waves: int, tile: int
) -> None:
    """12,800 columns on 100 SMs of 5 TFLOP/s; then 1 MB of results at 1 TB/s, without a start."""
    constants = {**ROUND_CONSTANTS, "fp8_tile_gb_per_s": 1e6, "tile_start_k": 1000}
    card = gpu(constants).but(compute_capability=capability)
    eight = replace(product(rows, 12800, 1000), dtype="fp8", bytes_written=1e6)
    time = operation_time(eight, rates(card), "graph")
    written_s = time.memory_s
    assert written_s == pytest.approx(1e-6)
    assert time.compute_s == pytest.approx(waves * 2 * tile * 1000 / 5e12 + written_s)


@pytest.mark.parametrize(("rows", "reads"), [(16, 1), (17, 2), (32, 2), (33, 1)])
def test_blocks_read_latent_keys_in_pairs_on_blackwell(rows: int, reads: int) -> None:
    """2 MB of keys at 1 TB/s; a second time, all 4 MB through L2 at 1.5 TB/s. Not on Hopper."""
    call = Operation(
        name="a", kind="latent_attention", bytes_read=2e6, kv_bytes_read=2e6, query_rows=rows
    )
    constants = {**ROUND_CONSTANTS, "latent_attention_l2_gb_per_s": 15}
    for capability, most in (("10.0", reads), ("9.0", 1)):
        card = gpu(constants).but(compute_capability=capability)
        used = rates(card)
        time = operation_time(call, used, "graph")
        assert time.memory_s == pytest.approx(2e-6 if most == 1 else 4e6 / 1.5e12)


@pytest.mark.parametrize("name", ["a100-sxm-80gb", "h100-sxm", "l40s"])
def test_a_quarter_of_the_weight_bytes_saves_time(name: str) -> None:
    """At one sample, where weights are nearly all traffic, int4 beats int8 by a quarter or more.

    gpt-fast on an A100 80GB (its README, recalled): Llama-2-7B 149 tokens/s in int8, 197 in int4.
    """
    shape, used = load_model("llama-2-70b"), rates(load_hardware(name))
    step = {
        dtype: decode_time(shape, *ask(shape, samples=1, weight_dtype=dtype), used).total_s
        for dtype in ("int8", "int4")
    }
    assert step["int4"] < 0.75 * step["int8"]


def grouped(rows: float, groups: int, *, even: bool, columns: int = 64) -> Operation:
    """Return a grouped product of K = 4096 without bytes."""
    sizes = {"m": rows, "n": columns, "k": 4096, "groups": groups, "held": groups}
    flops = 2 * rows * columns * 4096
    return Operation(name="experts_up", kind="experts", flops=flops, even=even, **sizes)


def test_every_expert_has_tiles_of_its_own() -> None:
    """1 row of each of 100 experts takes a wave on 100 SMs as 64 rows do, by their FLOPs.

    A tile of 64 x 64 x 4096 is 33.55 MFLOP, 13.42 us at 2.5 TFLOP/s of an SM.
    """
    one, all_rows, next_tile = (
        _product_us(grouped(rows, 100, even=True)) - 2 for rows in (100, 6400, 6500)
    )
    assert all_rows == pytest.approx(2 * 64 * 64 * 4096 / 2.5e12 * 1e6)
    assert one == pytest.approx(all_rows / 64)
    assert next_tile == pytest.approx(2 * all_rows)


def test_uneven_groups_leave_half_a_tile_empty() -> None:
    """6,400 rows in 100 uneven groups: 150 tiles, 1.75 waves; of few rows one tile each."""
    even, uneven = (_product_us(grouped(6400, 100, even=even)) - 2 for even in (True, False))
    assert uneven == pytest.approx(1.75 * even)
    few = [_product_us(grouped(100, 100, even=even)) for even in (True, False)]
    assert few[0] == pytest.approx(few[1])


def test_waves_of_tiles_and_held_experts_take_their_own_time() -> None:
    """One wave, 100 experts at 0.1 us each and 6,400 rows at 1 ns, on top of launch and product.

    A wave takes 3 us at K = 2048 and start, 2560 in all; K = 4096 is 1.8 times as much, 1.5 times
    if a tile starts and ends in the time of 2048.
    """
    slow = rates(gpu({**ROUND_CONSTANTS, "experts_block_us": 3, "group_us": 0.1, "visit_us": 2e-3}))
    item = grouped(6400, 100, even=True)
    assert _product_us(item, slow) == pytest.approx(_product_us(item) + 3 * 1.8 + 10 + 6.4)
    late = rates(gpu({**ROUND_CONSTANTS, "experts_block_us": 3, "group_start_k": 2048}))
    assert _product_us(item, late) == pytest.approx(_product_us(item) + 3 * 1.5)


def test_experts_that_wait_for_their_weights_are_bound_by_memory() -> None:
    """One row each multiplies 0.2 us and waits 5.4; 64 rows multiply 13.4, and that binds them."""
    slow = rates(gpu({**ROUND_CONSTANTS, "experts_block_us": 3}))
    few, many = (
        operation_time(grouped(rows, 100, even=True), slow, "graph") for rows in (100, 6400)
    )
    assert few.waiting_s / US == many.waiting_s / US == pytest.approx(5.4)
    assert few.bound == "memory"
    assert many.bound == "compute"


def test_a_known_tile_is_padded_and_loads_from_l2() -> None:
    """One row of each of 100 experts takes as long as 64 rows: all of the tile is multiplied.

    With 4 blocks to an SM, 1,600 tiles wait 4 times: 3 us x 1.8 for K = 4096, twice for its short
    steps. From L2 at 0.1 GB/s of an SM, 1 + 64 and 64 + 64 rows of 8 KB load for 7.1 and 14 ms.
    """
    tile = Tile(64, 64, 32)
    one, full = (replace(grouped(rows, 100, even=True), tile=tile) for rows in (100, 6400))
    all_rows = _product_us(grouped(6400, 100, even=True))
    assert [_product_us(item) for item in (one, full)] == pytest.approx([all_rows, all_rows])
    wide = replace(grouped(100, 100, even=True, columns=1024), tile=tile)
    waits = rates(gpu({**ROUND_CONSTANTS, "experts_block_us": 30}))
    assert _product_us(wide, waits) - 2 == pytest.approx(4 * 30 * 1.8 * 2)
    loads = rates(gpu({**ROUND_CONSTANTS, "l2_stream_gb_per_s": 0.1}))
    loaded = [_product_us(item, loads) - 2 for item in (one, full)]
    assert loaded == pytest.approx([rows * 8192 / (0.75 * 100) for rows in (65, 128)])


def test_loads_shorter_than_a_line_reach_less_of_the_memory() -> None:
    """Steps of 32 in 16 bits are 64 of a line's 128 bytes."""
    item = replace(grouped(100, 100, even=True), bytes_read=1e9)
    long, short = (
        operation_time(replace(item, tile=Tile(16, 32, depth)), ROUND_TILES, "graph").memory_s
        for depth in (64, 32)
    )
    assert short == pytest.approx(long / 0.67)


def test_at_published_peaks_there_are_no_tiles() -> None:
    """A bound: every SM is busy all the time."""
    peak = rates(gpu(ROUND_CONSTANTS), "peak")
    operation = product(65, 65, 1000)
    assert _product_us(operation, peak) == pytest.approx(operation.flops / 500e12 / US)


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


@pytest.mark.parametrize(("rows", "flops"), [(128, 2 * 128 * 128), (256, 2 * 256 * 128)])
def test_large_tiles_load_fewer_bytes(rows: int, flops: int) -> None:
    """100 tiles of 128 or 256 rows x 128 columns are one wave, and load less than smaller ones.

    Where loading (rows + 128) x 2 bytes takes as long as multiplying, the two take root 4 of 2.
    """
    tile_us = flops * 1000 / 2.5e12 / US
    rate = (rows + 128) * 2 * 1000 / tile_us / 1e3  # GB/s
    used = rates(gpu({**ROUND_CONSTANTS, "tile_gb_per_s": rate, "split_k_us": 1e4}))
    assert _product_us(product(rows, 12800, 1000), used) == pytest.approx(2 + tile_us * 2**0.25)


def test_a_tile_s_start_is_as_long_as_some_of_the_inner_dimension() -> None:
    """128 x 128 tiles at 250 TFLOP/s on 100 SMs: a start of 1024 doubles a product of K = 1024."""
    product = Operation(name="a", kind="gemm", flops=1, m=1280, n=1280, k=1024)
    constants = {**ROUND_CONSTANTS, "split_k_us": 1e9}
    short, long = (
        operation_time(product, rates(gpu({**constants, "tile_start_k": k})), "graph").compute_s
        for k in (1e-9, 1024)
    )
    assert short == pytest.approx(1024 * 2 * 128 * 128 / 2.5e12, rel=1e-3)
    assert long == pytest.approx(2 * short, rel=1e-3)


@pytest.mark.parametrize(("parts", "tokens"), [(2, 16), (8, 64), (8, 512), (32, 256)])
def test_the_fullest_part_of_the_experts_is_what_draws_give(parts: int, tokens: int) -> None:
    """Tokens draw 8 of 256 experts dealt out over GPUs: rows and experts of the fullest GPU."""
    draws = np.random.default_rng(0)
    rows, visited = [], []
    for _ in range(200):
        chosen = draws.random((tokens, 256)).argpartition(8)[:, :8]
        visits = np.bincount(chosen.ravel(), minlength=256).reshape(parts, -1)
        rows.append(visits.sum(axis=1).max())
        visited.append((visits > 0).sum(axis=1).max())
    mean = Operation(
        name="experts_up",
        kind="experts",
        flops=1.0,
        weight_bytes_read=1.0,
        bytes_read=1.0,
        m=tokens * 8 / parts,
        groups=256 / parts * (1 - (1 - 8 / 256) ** tokens),
        held=256 // parts,
        parts=parts,
    )
    fullest = of_fullest_part(mean)
    assert fullest.m == pytest.approx(np.mean(rows), rel=0.06)
    assert fullest.groups == pytest.approx(np.mean(visited), rel=0.06)
    assert of_fullest_part(replace(mean, even=True)) == replace(mean, even=True)
    assert fullest.flops == pytest.approx(fullest.m / mean.m)
    assert fullest.weight_bytes_read == pytest.approx(fullest.groups / mean.groups)


def test_an_empty_prompt_in_8_bits_is_no_endless_prefill() -> None:
    """Products of no rows have no tile: among the points of a grid they take no time."""
    model = load_model("llama-3.1-8b")
    setup, _ = ask(model, weight_dtype="fp8")
    grid = Workload.grid(context_tokens=np.array([0.0, 1024.0]), samples=1, prompts=1)
    operations = prefill_operations(model, setup, grid)
    found = step_time(operations, rates(load_hardware("h100-sxm")), "graph")
    empty, long = np.asarray(found.total_s)
    assert 0 < empty < long < 0.1
