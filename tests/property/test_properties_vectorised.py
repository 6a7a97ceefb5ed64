"""A grid gives at every point what the point gives alone."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from builders import gpu, gpus, model_shapes, runs, setups, workloads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.answers.compare import compare
from simulator.answers.estimate import Question, estimate
from simulator.answers.sweep import NUMERIC_AXES, Grid, Sweep
from simulator.counts.attention.registry import algorithms
from simulator.counts.memory import memory
from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.limits import resident_blocks
from simulator.timing.step import StepTime, step_time

# Sums of the same terms in float64 and in exact integers.
CLOSE = {"rel": 1e-9, "abs": 1e-15}
OPERATION_FIELDS = [field.name for field in fields(Operation)]
STEP_FIELDS = ("total_s", "device_s", "host_s", "collective_s")
TIME_FIELDS = ("launch_s", "memory_s", "compute_s", "link_s", "host_s", "device_s")


@st.composite
def axes_of_grids(draw: st.DrawFn) -> dict[str, list[int]]:
    """Draw a few values of each size, which make a grid."""
    points = draw(st.lists(workloads(), min_size=2, max_size=3))
    return {axis: [getattr(point, axis) for point in points] for axis in NUMERIC_AXES}


def _value(values: Any, index: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(values, shape)[index]


def _same_operations(
    together: list[Operation],
    alone: list[Operation],
    index: tuple[int, ...],
    shape: tuple[int, ...],
) -> None:
    for grid, point in zip(together, alone, strict=True):
        for name in OPERATION_FIELDS:
            value = getattr(point, name)
            if isinstance(value, str):
                assert getattr(grid, name) == value
            elif value is None:
                # Nothing stored for several at this point of the grid.
                found = getattr(grid, name)
                assert found is None or _value(found, index, shape) == 0
            else:
                at_index = _value(getattr(grid, name), index, shape)
                assert at_index == pytest.approx(value, **CLOSE), (grid.name, name)


def _same_times(
    together: StepTime, alone: StepTime, index: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    for name in STEP_FIELDS:
        at_index = _value(getattr(together, name), index, shape)
        assert at_index == pytest.approx(getattr(alone, name), **CLOSE), name
    for grid, point in zip(together.times, alone.times, strict=True):
        for name in TIME_FIELDS:
            at_index = _value(getattr(grid, name), index, shape)
            assert at_index == pytest.approx(getattr(point, name), **CLOSE), name


@settings(max_examples=60)
@given(
    model_shapes(),
    gpus(),
    setups(constants=st.sampled_from(["auto", "carried", "peak"])),
    axes_of_grids(),
)
def test_a_grid_counts_and_times_each_point(
    shape: ModelShape, card: HardwareProfile, setup: Setup, axes: dict[str, list[int]]
) -> None:
    """Every field of every operation, every part of its time, and the memory, over any grid."""
    assume(runs(shape, setup))
    sizes = tuple(len(values) for values in axes.values())
    arrays = np.ix_(*(np.array(values, dtype=float) for values in axes.values()))
    work = Workload()
    grid = work.but(**dict(zip(axes, arrays, strict=True)))
    used, resident = rates(card, setup.constants), resident_blocks(card)
    together = decode_operations(shape, setup, grid, resident_blocks=resident)
    prefill = prefill_operations(shape, setup, grid)
    steps = step_time(together, used, setup.execution)
    needs = memory(shape, setup, grid, card_bytes=80e9, resident_blocks=resident)
    # The corners and the middle: each axis at several of its values.
    for index in {(0,) * 5, (1,) * 5, (0, 1, 0, 1, 0), tuple(size - 1 for size in sizes)}:
        values = {axis: axes[axis][place] for axis, place in zip(axes, index, strict=True)}
        point = work.but(**values)
        alone = decode_operations(shape, setup, point, resident_blocks=resident)
        _same_operations(together, alone, index, sizes)
        _same_operations(prefill, prefill_operations(shape, setup, point), index, sizes)
        _same_times(steps, step_time(alone, used, setup.execution), index, sizes)
        needed = memory(shape, setup, point, card_bytes=80e9, resident_blocks=resident)
        for name in ("weights_bytes", "kv_bytes", "workspace_bytes"):
            at_index = _value(getattr(needs, name), index, sizes)
            assert at_index == pytest.approx(getattr(needed, name), **CLOSE), name


@settings(max_examples=60)
@given(
    model_shapes(),
    gpus(),
    setups(),
    st.fixed_dictionaries(
        {
            axis: st.lists(st.integers(1, 3000), min_size=1, max_size=3, unique=True)
            for axis in NUMERIC_AXES
        }
    ),
    st.integers(7, 60),
)
def test_a_sweep_compares_each_point(
    shape: ModelShape,
    card: HardwareProfile,
    setup: Setup,
    axes: dict[str, list[int]],
    points_at_once: int,
) -> None:
    """Every row of a sweep, cut into blocks of any size, says what compare says of its point."""
    assume(runs(shape, setup))
    grid = Grid(model=shape, gpu=card, setup=setup, workload=Workload(), axes=axes)
    sweep = Sweep(grids=(grid,), with_tree=False, skipped=())
    rows = _rows(sweep, points_at_once)
    assert len(rows) == sweep.points
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        point = Workload(**{axis: int(row[axis]) for axis in NUMERIC_AXES})
        answer = compare(Question(shape, card, setup, point))
        for attention, result in (("standard", answer.standard), ("bifurcated", answer.bifurcated)):
            expected = {
                "step_ms": result.step_s * 1e3,
                "tokens_per_s": result.tokens_per_s,
                "flops": result.totals.flops,
                "bytes_read": result.totals.bytes_read,
                "bytes_written": result.totals.bytes_written,
                "kv_bytes_read": result.totals.kv_bytes_read,
                "memory_bytes": result.memory.total_bytes,
            }
            found = {name: row[f"{attention}_{name}"] for name in expected}
            assert found == pytest.approx(expected, **CLOSE)
            assert row[f"{attention}_fits"] == result.memory.fits
            assert row[f"{attention}_memory_verdict"] == result.memory.verdict
            assert row[f"{attention}_bound"] == result.bound
        assert row["speedup"] == pytest.approx(answer.speedup, rel=1e-9)
        assert row["kv_io_ratio"] == pytest.approx(answer.kv_io_ratio, rel=1e-9)
        assert row["winner"] == answer.winner
        assert row["verdict"] == answer.verdict


def _rows(sweep: Sweep, points_at_once: int) -> list[dict[str, Any]]:
    rows = []
    for block in sweep.blocks(points_at_once):
        length = max(np.size(values) for values in block.values())
        assert length <= points_at_once
        columns = {name: np.broadcast_to(values, length) for name, values in block.items()}
        rows += [
            {name: values[index] for name, values in columns.items()} for index in range(length)
        ]
    return rows


@pytest.mark.parametrize("points_at_once", range(1, 8))
def test_blocks_keep_the_grid_s_order(points_at_once: int) -> None:
    """Rows come in the order of nested loops, last axis fastest, each point once."""
    axes = {
        "prompts": [1, 2],
        "samples": [1, 4, 16],
        "context_tokens": [10, 20],
        "decoded_tokens": [5, 6, 7],
        "query_tokens": [1],
    }
    shape = ModelShape(
        name="tiny",
        layers=1,
        hidden_size=8,
        heads=2,
        kv_heads=1,
        head_dim=4,
        intermediate_size=8,
        vocab_size=16,
    )
    # A kernel for each, in turn.
    setup = Setup(kernel=algorithms()[points_at_once % len(algorithms())])
    grid = Grid(model=shape, gpu=gpu(), setup=setup, workload=Workload(), axes=axes)
    sweep = Sweep(grids=(grid, grid), with_tree=False, skipped=())
    rows = [tuple(int(row[axis]) for axis in axes) for row in _rows(sweep, points_at_once)]
    nested = [
        (prompts, samples, context, decoded, 1)
        for prompts in axes["prompts"]
        for samples in axes["samples"]
        for context in axes["context_tokens"]
        for decoded in axes["decoded_tokens"]
    ]
    assert rows == nested + nested


@settings(max_examples=30)
@given(model_shapes(), gpus(), setups(), workloads())
def test_floats_and_integers_agree(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """A point given as whole floats, as a grid has them, is the same question."""
    assume(runs(shape, setup))
    exact = estimate(Question(shape, card, setup, work))
    floats = work.but(**{axis: float(getattr(work, axis)) for axis in NUMERIC_AXES})
    # In the form of latent attention that was chosen.
    setup = exact.setup
    operations = decode_operations(shape, setup, floats, resident_blocks=resident_blocks(card))
    step = step_time(operations, rates(card), setup.execution)
    assert step.total_s == pytest.approx(exact.step_s, **CLOSE)
