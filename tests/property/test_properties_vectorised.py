"""A grid gives at every point what the point gives alone."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from builders import gpu, gpus, grid_of, model_shapes, workloads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.answers.compare import compare
from simulator.answers.estimate import estimate
from simulator.answers.grid import NUMERIC_AXES, Cell
from simulator.answers.sweep import Sweep
from simulator.counts.memory import memory
from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import KERNELS, Workload
from simulator.timing.constants import rates
from simulator.timing.limits import resident_blocks
from simulator.timing.step import StepTime, step_time

# Sums of the same terms in float64 and in exact integers.
CLOSE = {"rel": 1e-9, "abs": 1e-15}
OPERATION_FIELDS = [field.name for field in fields(Operation)]
STEP_FIELDS = ("total_s", "device_s", "host_s", "collective_s")
TIME_FIELDS = ("launch_s", "memory_s", "compute_s", "link_s", "host_s", "device_s")


@st.composite
def questions(draw: st.DrawFn) -> tuple[Workload, dict[str, list[int]]]:
    """Draw settings, and a few values of each numeric field, which make a grid."""
    settings_ = draw(workloads())
    points = draw(st.lists(workloads(), min_size=2, max_size=3))
    axes = {axis: [getattr(point, axis) for point in points] for axis in NUMERIC_AXES}
    return settings_, axes


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
            if isinstance(value, str) or value is None:
                assert getattr(grid, name) == value
            else:
                at_index = _value(getattr(grid, name), index, shape)
                assert at_index == pytest.approx(value, **CLOSE), (grid.name, name)


def _same_times(
    together: StepTime, alone: StepTime, index: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    for name in STEP_FIELDS:
        at_index = _value(getattr(together, name), index, shape)
        assert at_index == pytest.approx(getattr(alone, name), **CLOSE), name
    for grid, point in zip(together.operations, alone.operations, strict=True):
        for name in TIME_FIELDS:
            at_index = _value(getattr(grid, name), index, shape)
            assert at_index == pytest.approx(getattr(point, name), **CLOSE), name


@settings(max_examples=60)
@given(model_shapes(), gpus(), questions(), st.sampled_from(["auto", "carried", "peak"]))
def test_a_grid_counts_and_times_each_point(
    shape: ModelShape,
    card: HardwareProfile,
    question: tuple[Workload, dict[str, list[int]]],
    constants: Any,
) -> None:
    """Every field of every operation, every part of its time, and the memory, over any grid."""
    work, axes = question
    assume(shape.latent is None or work.kernel != "sdpa_math")
    sizes = tuple(len(values) for values in axes.values())
    arrays = np.ix_(*(np.array(values, dtype=float) for values in axes.values()))
    grid = grid_of(work, **dict(zip(axes, arrays, strict=True)))
    used, resident = rates(card, constants), resident_blocks(card)
    together = decode_operations(shape, grid, resident_blocks=resident)
    prefill = prefill_operations(shape, grid)
    steps = step_time(together, used, work.execution)
    needs = memory(shape, grid, capacity_bytes=72e9, resident_blocks=resident)
    # The corners and the middle: each axis at several of its values.
    for index in {(0,) * 5, (1,) * 5, (0, 1, 0, 1, 0), tuple(size - 1 for size in sizes)}:
        values = {axis: axes[axis][place] for axis, place in zip(axes, index, strict=True)}
        point = work.model_copy(update=values)
        alone = decode_operations(shape, point, resident_blocks=resident)
        _same_operations(together, alone, index, sizes)
        _same_operations(prefill, prefill_operations(shape, point), index, sizes)
        _same_times(steps, step_time(alone, used, work.execution), index, sizes)
        needed = memory(shape, point, capacity_bytes=72e9, resident_blocks=resident)
        for name in ("weights_bytes", "kv_bytes", "workspace_bytes"):
            at_index = _value(getattr(needs, name), index, sizes)
            assert at_index == pytest.approx(getattr(needed, name), **CLOSE), name


@settings(max_examples=60)
@given(
    model_shapes(),
    gpus(),
    workloads(),
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
    work: Workload,
    axes: dict[str, list[int]],
    points_at_once: int,
) -> None:
    """Every row of a sweep, cut into blocks of any size, says what compare says of its point."""
    assume(shape.latent is None or work.kernel != "sdpa_math")
    named = {
        name: getattr(work, name)
        for name in ("kernel", "kv_layout", "execution", "weight_dtype", "kv_dtype")
    }
    cell = Cell(model=shape, gpu_rates=rates(card), named=named, numeric=axes)
    sweep = Sweep(cells=(cell,), skipped=(), memory_utilization=0.9)
    rows = _rows(sweep, points_at_once)
    assert len(rows) == sweep.points
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        point = Workload(**named, **{axis: int(row[axis]) for axis in NUMERIC_AXES})
        answer = compare(shape, card, point)
        for attention, result in (
            ("standard", answer.standard),
            ("bifurcated", answer.bifurcated),
        ):
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
            assert row[f"{attention}_bound"] == result.bound
        assert row["speedup"] == pytest.approx(answer.speedup, rel=1e-9)
        assert row["kv_io_ratio"] == pytest.approx(answer.kv_io_ratio, rel=1e-9)
        assert row["winner"] == answer.winner


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


@given(st.sampled_from(KERNELS), st.integers(1, 7))
def test_blocks_keep_the_grid_s_order(kernel: Any, points_at_once: int) -> None:
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
    cell = Cell(model=shape, gpu_rates=rates(gpu()), named={"kernel": kernel}, numeric=axes)
    sweep = Sweep(cells=(cell, cell), skipped=(), memory_utilization=0.9)
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
@given(model_shapes(), gpus(), workloads())
def test_floats_and_integers_agree(
    shape: ModelShape, card: HardwareProfile, work: Workload
) -> None:
    """A point given as whole floats, as a grid has them, is the same question."""
    assume(shape.latent is None or work.kernel != "sdpa_math")
    exact = estimate(shape, card, work)
    floats = grid_of(work, **{axis: float(getattr(work, axis)) for axis in NUMERIC_AXES})
    operations = decode_operations(shape, floats, resident_blocks=resident_blocks(card))
    step = step_time(operations, rates(card), work.execution)
    assert step.total_s == pytest.approx(exact.step_s, **CLOSE)
