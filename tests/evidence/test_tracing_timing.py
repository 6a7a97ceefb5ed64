"""The time of a trace is that of the account it equals."""

import pytest

torch = pytest.importorskip("torch")

from collections.abc import Callable  # noqa: E402

from builders import llama_3_8b_attention  # noqa: E402
from layouts import lay_out  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.counts.attention.registry import PLAIN_KERNELS  # noqa: E402
from simulator.evidence.fit.solver import with_constants  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.tracing import trace  # noqa: E402
from simulator.evidence.tracing.timing import operations_of  # noqa: E402
from simulator.inputs.hardware import load_hardware  # noqa: E402
from simulator.timing.constants import Key, rates  # noqa: E402
from simulator.timing.step import step_time  # noqa: E402

Draw = Callable[..., tuple[Tensor, ...]]
RESIDENT_BLOCKS = 264


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("samples", [1, 16])
@pytest.mark.parametrize("context", [512, 32768])
def test_a_trace_takes_what_its_account_takes(
    name: str, samples: int, context: int, meta_inputs: Draw
) -> None:
    """Split keys, thread blocks and re-reads included; a merge is not known as one in a trace.

    So elementwise kernels are given a merge's constants: fitted, they cost more.
    """
    kernel = KERNELS[name]
    inputs = meta_inputs(1, samples, 32, 8, 128, context, 64)
    traced = trace(kernel.function, *lay_out(kernel.layout, *inputs)).operations
    card = load_hardware("h100-sxm")
    known = rates(card).constants
    merge = {
        f"elementwise_{name}": known[Key(name, "combine")].value
        for name in ("launch_us", "bandwidth_fraction")
    }
    gpu = rates(with_constants(card, merge))
    found = step_time(operations_of(traced, resident_blocks=RESIDENT_BLOCKS), gpu, "graph").device_s
    shape = llama_3_8b_attention(samples, context, resident_blocks=RESIDENT_BLOCKS)
    account = step_time(PLAIN_KERNELS[name].operations(shape), gpu, "graph").device_s
    assert found == pytest.approx(account, rel=0.1)


def test_split_keys_and_re_reads_are_those_of_the_account(meta_inputs: Draw) -> None:
    """Long keys are split over the GPU, and a context of stride 0 is read for each sample."""
    kernel = KERNELS["standard_flash_expanded"]
    inputs = meta_inputs(1, 3, 32, 8, 128, 32768, 64)
    traced = trace(kernel.function, *lay_out(kernel.layout, *inputs)).operations
    operations = operations_of(traced, resident_blocks=RESIDENT_BLOCKS)
    account = PLAIN_KERNELS["standard_flash_expanded"].operations(
        llama_3_8b_attention(3, 32768, resident_blocks=RESIDENT_BLOCKS)
    )
    context = next(each for each in account if each.name == "attention_context")
    found = next(each for each in operations if each.reused_bytes)
    for field in (
        "bytes_read",
        "bytes_written",
        "reused_bytes",
        "effective_blocks",
        "thread_blocks",
    ):
        assert getattr(found, field) == getattr(context, field)
    combines = [each for each in operations if each.within]
    assert [each.splits for each in combines] == [264 // 24]
