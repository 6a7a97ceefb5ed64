"""Every product reads its own group of tensors in that group's format, scales included."""

from collections.abc import Mapping
from typing import Any

import pytest
from builders import SLOTS, deepseek_v3
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.memory import weights_bytes
from simulator.counts.operation import Operation, total
from simulator.counts.transformer import decode_operations
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.formats import NAMED_FORMATS, TENSOR_GROUPS, WeightFormat, WeightFormats
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import ask

FORMATS = st.sampled_from([*NAMED_FORMATS.values(), WeightFormat(dtype="fp8", bytes=1.25)])


def in_formats(groups: Mapping[str, object]) -> ModelShape:
    """Return DeepSeek-V3 with formats by group, the others in bf16."""
    return deepseek_v3().but(weights=WeightFormats.read(groups))


def step(model: ModelShape, samples: int) -> list[Operation]:
    """Return the operations of a step in the model's own formats, experts visited in turn."""
    setup, work = ask(model, samples=samples, routing="balanced")
    return decode_operations(model, setup, work, resident_blocks=SLOTS)


def named_step(**groups: object) -> dict[str, Operation]:
    """Return the operations of a step of four samples by name."""
    return {operation.name: operation for operation in step(in_formats(groups), 4)}


def test_experts_alone_in_four_bits() -> None:
    """gpt-oss's scheme: only products of routed experts read 17/32 bytes a weight."""
    named = named_step(experts="mxfp4")
    assert named["experts_down"].weight_bytes_read == 4 * 8 * 2048 * 7168 * (0.5 + 1 / 32)
    assert (named["experts_down"].weights, named["experts_down"].dtype) == ("mxfp4", "bf16")
    assert named["shared_expert_down"].weight_bytes_read == 2048 * 7168 * 2
    assert named["output_projection"].weight_bytes_read == 16384 * 7168 * 2
    assert named["router"].weight_bytes_read == 7168 * 256 * 2
    assert not [name for name in named if "quantise" in name]


def test_activations_are_quantised_for_the_groups_that_need_it() -> None:
    """NVIDIA's checkpoints of DeepSeek: attention in bf16, the rest in nvfp4."""
    formats = dict.fromkeys(("mlp", "experts", "shared_experts"), "nvfp4")
    named = named_step(**formats)
    quantised = {name for name in named if "quantise" in name}
    assert quantised == {
        *("mlp_quantise", "mlp_inner_quantise", "experts_up_quantise", "experts_down_quantise"),
        *("shared_expert_quantise", "shared_expert_inner_quantise"),
    }
    assert named["mlp_up"].dtype == named["experts_up"].dtype == "nvfp4"
    assert named["query_up_projection"].dtype == "bf16"


def test_four_bit_weights_may_multiply_eight_bit_activations() -> None:
    """W4A8: stored in 4 bits, multiplied in 8, which the activations are quantised to."""
    four: dict[str, Any] = {"dtype": "int4", "bytes": 0.5 + 2 / 128, "multiplied": "fp8"}
    named = named_step(mlp=four, experts=four)
    for name in ("mlp_up", "experts_up"):
        assert (named[name].weights, named[name].dtype) == ("int4", "fp8")
    assert named["mlp_up"].weight_bytes_read == 7168 * 2 * 18432 * four["bytes"]
    assert "mlp_quantise" in named
    assert "experts_down_quantise" in named


@given(st.fixed_dictionaries({group: st.none() | FORMATS for group in TENSOR_GROUPS}))
def test_a_step_that_visits_all_experts_reads_all_weights(
    groups: dict[str, WeightFormat | None],
) -> None:
    """Once, as they are in memory: all but the token table and the norms."""
    model = in_formats(groups)
    layers = [item for item in step(model, samples=64) if item.name != "embedding"]
    read = total(layers).weight_bytes_read
    setup, _ = ask(model)
    count = count_parameters(model)
    table = count.embedding * setup.weights.of("embedding").bytes
    norms = count.norms * DTYPE_BYTES[setup.activation_dtype]
    assert float(read) == pytest.approx(weights_bytes(model, setup) - table - norms, rel=1e-6)
    split = weights_bytes(model, setup.but(tensor_parallel=8))
    assert weights_bytes(model, setup) / 8 < split < weights_bytes(model, setup)
