"""The time of one operation, on a GPU whose rates are round numbers (tests/builders.py)."""

from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, gpu, round_gpu
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import Operation
from simulator.timing.constants import rates
from simulator.timing.roofline import ROOFS, OperationTime, operation_time

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
    ("execution", "launch_us", "host_us"),
    [("graph", 4, 0), ("compiled", 4, 0), ("eager", 6, 20)],
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
