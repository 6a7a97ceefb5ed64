"""Which constants had a part in a step."""

from builders import gpu, mistral_7b

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.workload import Execution, Workload
from simulator.timing.constants import rates
from simulator.timing.slots import resident_blocks
from simulator.timing.used import used_constants

CARD = rates(gpu())


def _names(*operations: Operation, execution: Execution = "graph") -> set[str]:
    """Return the names of the constants that operations use."""
    return {item.name for item in used_constants(operations, CARD, execution)}


def test_a_kernel_that_only_streams_uses_its_launch_and_its_bandwidth() -> None:
    """No rate of products, no cache, no link; launched one by one, the host too."""
    streams = Operation(name="norm", kind="elementwise", bytes_read=1e6)
    used = {"elementwise_launch_us", "elementwise_bandwidth_fraction"}
    assert _names(streams) == used
    assert _names(streams, execution="eager") == used | {"eager_launch_us", "host_us_per_launch"}
    assert _names(Operation(name="none", kind="gemm", launches=0)) == set()


def test_a_step_with_an_8_bit_cache_uses_both_kinds_of_constants() -> None:
    """Attention those of 8 bits alone, products and norms those of 16 bits alone."""
    model, card = mistral_7b(), gpu()
    work = Workload(kv_dtype="fp8", samples=4, context_tokens=4096)
    operations = decode_operations(model, work, resident_blocks=resident_blocks(card))
    names = _names(*operations)
    assert {"fp8_attention_launch_us", "fp8_copy_launch_us", "gemm_launch_us"} <= names
    assert not {"attention_launch_us", "fp8_gemm_launch_us", "step_us"} & names
    # The head is not quantised with the layers.
    weights = Workload(weight_dtype="fp8", samples=4, context_tokens=4096)
    names = _names(*decode_operations(model, weights, resident_blocks=resident_blocks(card)))
    assert {"fp8_gemm_launch_us", "gemm_launch_us", "attention_launch_us"} <= names
    assert "fp8_attention_launch_us" not in names
