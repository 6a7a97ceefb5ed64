"""What a step's interval depends on is the same for a number and for an array of one."""

import numpy as np
import pytest
from builders import SLOTS, grid_of, llama_2_7b

from simulator.counts.step import decode_operations
from simulator.inputs.hardware import load_hardware
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.spent import spent_by
from simulator.timing.step import step_time


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_reads_nothing_again_in_an_array_either(samples: int) -> None:
    """A grid's cached time at one sample of a stored context is none, as of a single answer."""
    work = Workload(samples=samples, context_tokens=2000, kv_layout="shared", execution="eager")
    gpu_rates = rates(load_hardware("h100-sxm"))
    cached = []
    for each in (work, grid_of(work, samples=np.array([float(samples)]))):
        operations = decode_operations(llama_2_7b(), each, block_slots=SLOTS)
        spent = spent_by(operations, step_time(operations, gpu_rates, "eager"), gpu_rates)
        cached.append(float(np.sum(spent.cached_s.get("attention", 0.0))))
    assert cached[0] == pytest.approx(cached[1], rel=1e-12)
    assert (cached[0] > 0) == (samples > 1)
