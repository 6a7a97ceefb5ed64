"""What must hold of every interval, whatever is asked of whatever GPU."""

from typing import Any

import numpy as np
from builders import gpus, grid_of, model_shapes, workloads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.counts.memory import kv_cache_bytes
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.interval import Uncertainty, speedup_interval, uncertainty
from simulator.timing.limits import peak_flops_per_s, resident_blocks
from simulator.timing.step import step_time

ROUNDING = 1 + 1e-12
CONSTANTS = st.sampled_from(["auto", "carried", "peak"])


def _uncertainty(
    shape: ModelShape, card: HardwareProfile, work: Any, constants: Any = "auto"
) -> Uncertainty:
    gpu_rates = rates(card, constants)
    operations = decode_operations(shape, work, resident_blocks=resident_blocks(card))
    step = step_time(operations, gpu_rates, work.execution)
    return uncertainty(operations, step, gpu_rates, work)


@given(model_shapes(), gpus(), workloads(), CONSTANTS)
def test_a_prediction_lies_in_its_interval_above_every_bound(
    shape: ModelShape, card: HardwareProfile, work: Workload, constants: Any
) -> None:
    """Weights and each stored token once at the published bandwidth, FLOPs at the best rate."""
    assume(shape.latent is None or work.kernel != "sdpa_math")
    found = _uncertainty(shape, card, work, constants)
    assert 0 < found.low_s <= found.total_s * ROUNDING
    assert found.total_s <= found.high_s * ROUNDING
    totals = total(decode_operations(shape, work, resident_blocks=resident_blocks(card)))
    once = kv_cache_bytes(shape, work.model_copy(update={"attention": "bifurcated"}))
    moved = totals.weight_bytes_read + once
    assert found.low_s * ROUNDING >= moved / card.memory_bandwidth_bytes_per_s
    best = max(peak_flops_per_s(card, dtype)[0] for dtype in DTYPES)
    assert found.low_s * ROUNDING >= totals.flops / best


@settings(max_examples=50)
@given(model_shapes(), gpus(), workloads(), CONSTANTS)
def test_a_grid_has_the_intervals_of_its_points(
    shape: ModelShape, card: HardwareProfile, work: Workload, constants: Any
) -> None:
    """Arrays give at every point what the point gives alone, and so do speed-ups."""
    assume(shape.latent is None or work.kernel != "sdpa_math")
    samples = np.array([1.0, 2.0, 40.0])
    whole, single = {}, {}
    for attention in ("standard", "bifurcated"):
        kind = work.under(attention)
        whole[attention] = _uncertainty(shape, card, grid_of(kind, samples=samples), constants)
        single[attention] = [
            _uncertainty(shape, card, kind.model_copy(update={"samples": int(n)}), constants)
            for n in samples
        ]
        for name in ("low_s", "high_s"):
            points = [getattr(item, name) for item in single[attention]]
            array = np.broadcast_to(getattr(whole[attention], name), samples.shape)
            np.testing.assert_allclose(array, points, rtol=1e-9)
    ends = speedup_interval(whole["standard"], whole["bifurcated"])
    points = [
        speedup_interval(one, other)
        for one, other in zip(single["standard"], single["bifurcated"], strict=True)
    ]
    for array, alone in zip(ends, zip(*points, strict=True), strict=True):
        np.testing.assert_allclose(np.broadcast_to(array, samples.shape), alone, rtol=1e-9)
