"""What must hold of the times, whatever is asked of whatever GPU."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from builders import gpus, model_shapes, runs, setups, workloads
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator.counts.memory import kv_cache_bytes
from simulator.counts.operation import Operation, total
from simulator.counts.transformer import decode_operations
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import CONSTANTS_CHOICES, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.limits import peak_flops_per_s, resident_blocks
from simulator.timing.step import step_time

ROUNDING = 1 + 1e-12
CONSTANTS = st.sampled_from(CONSTANTS_CHOICES)


def _operations(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> list[Operation]:
    assume(runs(shape, setup))
    return decode_operations(shape, setup, work, resident_blocks=resident_blocks(card))


def _step_s(shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload) -> float:
    operations = _operations(shape, card, setup, work)
    return float(step_time(operations, rates(card, setup.constants), setup.execution).total_s)


def _scaled(card: HardwareProfile, figure: str, factor: float) -> HardwareProfile:
    """Return the card with one published figure multiplied."""
    old = getattr(card.peak, figure)
    return card.but(peak=card.peak.but(**{figure: old.but(value=old.value * factor)}))


@given(model_shapes(), gpus(), setups(constants=CONSTANTS), workloads())
def test_no_step_beats_its_bytes_or_flops(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """What must cross the memory once, at its published bandwidth, and FLOPs at the best rate.

    That is every weight the step reads, each stored context once, and every sample's own tokens.
    """
    step_s = _step_s(shape, card, setup, work)
    totals = total(_operations(shape, card, setup, work))
    once = kv_cache_bytes(shape, setup.but(attention="bifurcated"), work)
    unique_bytes = totals.weight_bytes_read + once
    assert step_s * ROUNDING >= unique_bytes / card.memory_bandwidth_bytes_per_s
    best = max(peak_flops_per_s(card, dtype)[0] for dtype in DTYPES)
    assert step_s * ROUNDING >= totals.flops / best


@given(model_shapes(), gpus(), setups(), workloads())
def test_published_peaks_are_never_slower(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """They are a bound of the prediction."""
    bound, *others = (
        _step_s(shape, card, setup.but(constants=choice), work)
        for choice in ("peak", "auto", "carried")
    )
    for other in others:
        assert bound <= other * ROUNDING


@given(
    model_shapes(),
    gpus(),
    setups(),
    workloads(),
    st.sampled_from(["memory_bandwidth_gb_per_s", "fp16_tflops", "fp32_tflops", "l2_mib"]),
    st.floats(0.1, 1),
)
def test_a_lesser_gpu_is_never_faster(
    shape: ModelShape,
    card: HardwareProfile,
    setup: Setup,
    work: Workload,
    figure: str,
    factor: float,
) -> None:
    """Less bandwidth, fewer FLOP/s or a smaller cache cannot shorten a step.

    With its power, a smaller chip: at the same power, fewer FLOP/s would reach a larger share.
    """
    lesser = _scaled(card, figure, factor)
    if figure == "fp16_tflops":
        lesser = _scaled(lesser, "tdp_w", factor)
    slower = _step_s(shape, lesser, setup, work)
    assert _step_s(shape, card, setup, work) <= slower * ROUNDING


@given(model_shapes(), gpus(), setups(), workloads())
def test_one_stored_context_is_never_slower_than_copies(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """The same reads, of which the L2 cache may serve some; a rebuilt cache is never faster.

    PyTorch's own flash operator takes one stored context only apart from the samples' own tokens:
    plain PyTorch pays for a second call and a merge.
    """
    times = [
        _step_s(shape, card, setup.but(attention="standard", kv_layout=layout), work)
        for layout in ("shared", "copies", "rebuilt")
    ]
    if (setup.kernel, setup.execution) != ("flash", "eager"):
        assert times[0] <= times[1] * ROUNDING
    assert times[1] <= times[2] * ROUNDING


@given(model_shapes(), gpus(), setups(), workloads())
def test_the_ideal_kernel_is_never_slower(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """One kernel that reads each operand once is a bound of every real one.

    Only kernels that read all keys before all values can do better on one stored context: half of
    it at a time has to fit the L2 cache.
    """
    assume(work.context_tokens + work.decoded_tokens > 0)
    one_pass = setup.kernel in ("ideal", "flash")
    assume(one_pass or setup.attention == "bifurcated" or setup.kv_layout != "shared")
    ideal = _step_s(shape, card, setup.but(kernel="ideal"), work)
    assert ideal <= _step_s(shape, card, setup, work) * ROUNDING


def _without_splits(operations: Sequence[Operation]) -> list[Operation]:
    """Return the step as if split-KV's partial results and thread blocks cost nothing."""
    kept: list[Operation] = []
    for operation in operations:
        if "_combine" not in operation.name:
            kept.append(operation)
            continue
        # Without splits the kernel before it writes the result itself.
        part = kept.pop()
        kept.append(
            replace(
                part,
                bytes_written=part.bytes_written - operation.bytes_read + operation.bytes_written,
                scratch_bytes=0,
                thread_blocks=part.thread_blocks / np.maximum(operation.splits, 1),
            )
        )
    return kept


@given(
    model_shapes(),
    gpus(),
    setups(),
    workloads(),
    st.sampled_from(["context_tokens", "samples", "decoded_tokens", "prompts"]),
    st.integers(1, 300),
)
def test_more_work_takes_no_less_time(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload, field: str, more: int
) -> None:
    """Time never falls when there is more of anything.

    What split-KV itself costs (partial results, the kernel that adds them up, the further blocks)
    is left out: as real kernels do, flash stops splitting when there are enough sequences to fill
    the GPU. Where a window holds own tokens only, there is no context left to attend to.
    """
    windows = any(group.window for group in shape.layer_groups)
    assume(not (windows and field == "decoded_tokens" and setup.attention == "bifurcated"))
    grown = work.but(**{field: getattr(work, field) + more})
    constants = rates(card)
    times = []
    for question in (work, grown):
        operations = _operations(shape, card, setup, question)
        free = step_time(_without_splits(operations), constants, setup.execution).total_s
        assert free <= step_time(operations, constants, setup.execution).total_s * ROUNDING
        times.append(free)
    assert times[0] <= times[1] * ROUNDING
