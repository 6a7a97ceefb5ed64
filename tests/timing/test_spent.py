"""What a step's interval depends on."""

import numpy as np
import pytest
from builders import SLOTS, grid_of, llama_2_7b, round_gpu

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.hardware import load_hardware
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.spent import peak_bound_s, spent_by
from simulator.timing.step import step_time


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_reads_nothing_again_in_an_array_either(samples: int) -> None:
    """A grid's cached time at one sample of a stored context is none, as of a single answer."""
    work = Workload(samples=samples, context_tokens=2000, kv_layout="shared", execution="eager")
    gpu_rates = rates(load_hardware("h100-sxm"))
    cached = []
    for each in (work, grid_of(work, samples=np.array([float(samples)]))):
        operations = decode_operations(llama_2_7b(), each, resident_blocks=SLOTS)
        spent = spent_by(operations, step_time(operations, gpu_rates, "eager"), gpu_rates)
        cached.append(float(np.sum(spent.cached_s.get("attention", 0.0))))
    assert cached[0] == pytest.approx(cached[1], rel=1e-12)
    assert (cached[0] > 0) == (samples > 1)


def test_no_step_is_faster_than_its_bytes_or_flops_at_published_peaks() -> None:
    """2000 GB/s and, in bf16 and fp8, 500 and 1000 TFLOP/s; what L2 may serve takes no time."""
    card = rates(round_gpu())
    read = {"name": "a", "kind": "attention", "bytes_read": 8e6, "bytes_written": 2e6}
    assert peak_bound_s([Operation(**read)], card) == pytest.approx(5e-6)
    again = Operation(**read, reused_bytes=1e6, scratch_bytes=3e6, repeat=2)
    assert peak_bound_s([again], card) == pytest.approx(2 * 3e-6)
    products = [
        Operation(name="b", kind="gemm", flops=5e9, dtype="bf16", repeat=3),
        Operation(name="c", kind="gemm", flops=5e9, dtype="fp8"),
    ]
    assert peak_bound_s([again, *products], card) == pytest.approx((3 * 10 + 5) * 1e-6)
