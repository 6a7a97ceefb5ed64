"""The time of a step from its operations, on a GPU of round rates (tests/builders.py)."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from builders import REAL_MODELS, SLOTS, deepseek_v3, round_gpu, runs, setups, workloads
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.roofline import ROOFS
from simulator.timing.step import StepTime, decode_time, step_time, time_of

ROUND = rates(round_gpu())


def _moving(milliseconds: float, **fields: Any) -> Operation:
    return Operation(
        name="a", kind="copy", bytes_read=milliseconds * 1e9, **{"launches": 0, **fields}
    )


def test_operations_run_one_after_the_other() -> None:
    """1 ms, and three times 2 ms: 7 ms of the device, all under the memory roof."""
    step = step_time([_moving(1), _moving(2, repeat=3)], ROUND, "graph")
    assert step.total_s == step.device_s == pytest.approx(7e-3)
    assert step.by_roof_s == pytest.approx({"launch": 0, "memory": 7e-3, "compute": 0, "link": 0})
    assert step.bound == "memory"


@pytest.mark.parametrize("kv_heads", [1, 32])
def test_idle_slots_do_not_make_a_step_jump(kv_heads: int) -> None:
    """An eighth more samples of a long context cost no fifth more time, on every kind of card.

    Query rows that fill more than half of an H100's SMs, and not two thirds, are no reason to read
    the keys in one part. One more tile of 64 rows is: all its rows are multiplied.
    """
    counts = (64, 72, 81, 91, 102, 115, 129, 145, 163, 183, 206)
    shape = load_model("codellama-7b", kv_heads=kv_heads)
    for name in ("h100-sxm", "a100-sxm-80gb", "l40s"):
        card = load_hardware(name)
        times = [
            decode_time(
                shape,
                Setup(attention="bifurcated"),
                Workload(samples=samples, context_tokens=2**17),
                rates(card),
            ).total_s
            for samples in counts
        ]
        tiles = [-(-samples * shape.heads // kv_heads // 64) for samples in counts]
        for (first, later), (before, after) in zip(pairwise(times), pairwise(tiles), strict=True):
            assert later / first < max(1.2, after / before)


def test_the_host_counts_where_it_is_slower() -> None:
    """Eagerly, 100 calls of 5 launches: 1.5 ms of the device, 5 ms of the host."""
    operations = [Operation(name="a", kind="copy", launches=5, repeat=100)]
    eager = step_time(operations, ROUND, "eager")
    assert eager.device_s == pytest.approx(100 * 5 * 3e-6)
    assert eager.total_s == eager.host_s == pytest.approx(100 * 5 * 10e-6)
    assert eager.bound == "launch"
    graph = step_time(operations, ROUND, "graph")
    assert graph.total_s == pytest.approx(100 * 5 * 2e-6)


def test_the_host_hides_behind_a_busy_device() -> None:
    """It launches ahead: 10 us of the host do not show behind 1 ms of the device."""
    step = step_time([_moving(1, launches=1)], ROUND, "eager")
    assert step.total_s == pytest.approx(1e-3 + 3e-6)
    assert step.bound == "memory"


def test_collectives_come_on_top() -> None:
    """1 ms of the device and 200 MB over 200 GB/s: 2 ms and a launch, link apart from memory."""
    collective = Operation(
        name="r", kind="collective", bytes_read=1e6, link_bytes=0.2e9, ranks=2, launches=1
    )
    step = step_time([_moving(1), collective], ROUND, "graph")
    assert step.device_s == pytest.approx(1e-3)
    assert step.collective_s == pytest.approx(1e-3 + 2e-6)
    assert step.total_s == pytest.approx(2e-3 + 2e-6)
    assert step.by_roof_s["link"] == pytest.approx(1e-3)


def test_nothing_to_do_takes_no_time() -> None:
    """No operations: zero under every roof."""
    step = step_time([], ROUND, "graph")
    assert step.total_s == 0
    assert set(step.by_roof_s.values()) == {0}


@given(st.sampled_from(REAL_MODELS), setups(), workloads())
def test_roofs_add_up_to_the_time(shape: ModelShape, setup: Setup, work: Workload) -> None:
    """Launches and each operation's binding roof make up all of the device and the collectives."""
    ranks = 8 if work.samples % 2 else 1
    if not runs(shape, setup):
        return
    setup = setup.but(tensor_parallel=ranks)
    operations = decode_operations(shape, setup, work, resident_blocks=SLOTS)
    step = step_time(operations, ROUND, setup.execution)
    assert sum(step.by_roof_s.values()) == pytest.approx(step.device_s + step.collective_s)
    assert step.total_s == pytest.approx(max(step.device_s, step.host_s) + step.collective_s)
    assert (step.collective_s > 0) == (ranks > 1)
    largest = max(step.by_roof_s.values())
    if step.host_s > step.device_s:
        assert step.bound == "launch"
    else:
        assert step.by_roof_s[step.bound] == largest


def test_a_grid_s_roofs_add_up_too() -> None:
    """Over arrays each point's time goes to the roof that binds there, from memory to compute."""
    setup = Setup(attention="bifurcated", weight_dtype="fp8")
    samples = np.array([1.0, 64, 512, 4096])
    operations = decode_operations(
        deepseek_v3(), setup, Workload().but(samples=samples), resident_blocks=200
    )
    step: StepTime = step_time(operations, ROUND, "graph")
    total = sum(np.broadcast_to(step.by_roof_s[roof], 4) for roof in ROOFS)
    assert total == pytest.approx(step.total_s)
    assert step.by_roof_s["memory"][0] > step.by_roof_s["compute"][0]
    assert step.by_roof_s["compute"][3] > step.by_roof_s["memory"][3]


def test_what_is_only_computed_or_only_exchanged_is_under_that_roof() -> None:
    """Three times 1 TFLOP at 250 TFLOP/s, and twice 0.2 GB at 200 GB/s."""
    operations = [
        Operation(name="a", kind="gemm", flops=1e12, launches=0, repeat=3),
        Operation(name="b", kind="collective", link_bytes=0.2e9, ranks=2, launches=0, repeat=2),
    ]
    roofs = step_time(operations, ROUND, "graph").by_roof_s
    assert roofs == pytest.approx({"launch": 0, "memory": 0, "compute": 12e-3, "link": 2e-3})


@pytest.mark.parametrize("execution", ["graph", "eager"])
def test_parts_of_a_step_add_up_to_it(execution: Any) -> None:
    """Its first and its last operations, spent apart; what is not launched spends nothing."""
    operations = [
        _moving(1, launches=2, repeat=3),
        Operation(name="b", kind="gemm", launches=0),
        Operation(name="c", kind="collective", link_bytes=0.2e9, ranks=2, repeat=2),
        Operation(name="d", kind="copy", launches=500),
    ]
    whole = step_time(operations, ROUND, execution)
    parts = [step_time(part, ROUND, execution) for part in (operations[:2], operations[2:])]
    assert time_of(parts) == pytest.approx(whole.total_s)
    both = parts[0] + parts[1]
    for field in ("device_s", "host_s", "collective_s", "total_s"):
        assert getattr(both, field) == getattr(whole, field), field
