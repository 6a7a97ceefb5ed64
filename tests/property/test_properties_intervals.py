"""What must hold of every interval, whatever is asked of whatever GPU."""

import numpy as np
from builders import gpus, model_shapes, runs, setups, workloads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.counts.memory import kv_cache_bytes
from simulator.counts.transformer import decode_operations
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, CONSTANTS_CHOICES, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.interval import Uncertainty, speedup_interval, uncertainty
from simulator.timing.limits import peak_flops_per_s, resident_blocks
from simulator.timing.step import memory_traffic, step_time

ROUNDING = 1 + 1e-12
CONSTANTS = st.sampled_from(CONSTANTS_CHOICES)


def _uncertainty(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> Uncertainty:
    gpu_rates = rates(card, setup.constants)
    operations = decode_operations(shape, setup, work, resident_blocks=resident_blocks(card))
    step = step_time(operations, gpu_rates, setup.execution)
    return uncertainty(step, gpu_rates, setup)


@given(model_shapes(), gpus(), setups(constants=CONSTANTS), workloads())
def test_a_prediction_lies_in_its_interval_above_every_bound(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """Memory traffic at the published bandwidth, FLOPs at the best rate.

    Memory serves weights and each stored token once at least, and at most all that is moved.
    """
    assume(runs(shape, setup))
    found = _uncertainty(shape, card, setup, work)
    assert 0 < found.low_s <= found.total_s * ROUNDING
    assert found.total_s <= found.high_s * ROUNDING
    gpu_rates = rates(card, setup.constants)
    operations = decode_operations(shape, setup, work, resident_blocks=resident_blocks(card))
    totals = step_time(operations, gpu_rates, setup.execution).totals
    traffic = memory_traffic(operations, gpu_rates, totals)
    least = memory_traffic(operations, gpu_rates, totals, least=True)
    once = totals.weight_bytes_read + kv_cache_bytes(shape, setup.but(attention="bifurcated"), work)
    assert once <= least * ROUNDING
    assert least <= traffic * ROUNDING
    assert traffic <= (totals.bytes_read + totals.bytes_written) * ROUNDING
    assert found.low_s * ROUNDING >= least / card.memory_bandwidth_bytes_per_s
    assert found.total_s * ROUNDING >= traffic / card.memory_bandwidth_bytes_per_s
    best = max(peak_flops_per_s(card, dtype)[0] for dtype in DTYPES)
    assert found.low_s * ROUNDING >= totals.flops / best


@settings(max_examples=50)
@given(model_shapes(), gpus(), setups(constants=CONSTANTS), workloads())
def test_a_grid_has_the_intervals_of_its_points(
    shape: ModelShape, card: HardwareProfile, setup: Setup, work: Workload
) -> None:
    """Arrays give at every point what the point gives alone, and so do speed-ups."""
    assume(runs(shape, setup))
    samples = np.array([1.0, 2.0, 40.0])
    whole, single = {}, {}
    for attention in ATTENTIONS:
        kind = setup.under(attention)
        whole[attention] = _uncertainty(shape, card, kind, work.but(samples=samples))
        single[attention] = [
            _uncertainty(shape, card, kind, work.but(samples=int(n))) for n in samples
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
