"""Between which times a whole request lies: its prefill's interval and its last step's."""

from simulator.counts.transformer import prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import Uncertainty, uncertainty
from simulator.timing.request import GenerationTime


def request_interval(
    model: ModelShape,
    setup: Setup,
    work: Workload,
    gpu: Rates,
    time: GenerationTime,
    last_step: Uncertainty,
) -> tuple[float, float]:
    """Return the shortest and the longest a request may take. [s].

    All steps are off by the share that the last one may be, and the prefill with them.
    """
    prefill = uncertainty(prefill_operations(model, setup, work), time.prefill, gpu, setup)
    low, high = (
        float(prefill_s) + time.decode_s * float(step_s) / float(last_step.total_s)
        for prefill_s, step_s in (
            (prefill.low_s, last_step.low_s),
            (prefill.high_s, last_step.high_s),
        )
    )
    return low, high
