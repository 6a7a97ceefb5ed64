"""Inputs lie as each kernel wants them, rotate, and wrong results are found before timing."""

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from simulator.evidence.kernels import KERNELS, lay_out  # noqa: E402
from simulator.evidence.measure.correctness import (  # noqa: E402
    attention_error,
    gemm_error,
    reference_attention,
    relative_error,
)
from simulator.evidence.measure.inputs import Sizes, attention_inputs, rotated  # noqa: E402

SIZES = Sizes(
    prompts=2, samples=3, heads=6, kv_heads=2, head_dim=16, context_tokens=10, decoded_tokens=4
)
LAYOUTS = ("copies", "shared", "rebuilt", "packed")


def normal(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random numbers on the CPU."""
    return torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_lie_as_the_kernels_own_layout_does(layout: str) -> None:
    """Allocated directly, sizes and strides are those that ``lay_out`` makes by copying."""
    plain = attention_inputs(SIZES, "shared", torch.float32, normal)
    wanted = lay_out(layout, *plain)
    found = attention_inputs(SIZES, layout, torch.float32, normal)
    assert [part.shape for part in found] == [part.shape for part in wanted]
    assert [part.stride() for part in found] == [part.stride() for part in wanted]
    same_buffer = [
        found[1].untyped_storage().data_ptr() == found[3].untyped_storage().data_ptr(),
        wanted[1].untyped_storage().data_ptr() == wanted[3].untyped_storage().data_ptr(),
    ]
    assert same_buffer[0] == same_buffer[1]


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_passes_the_check_on_its_own_layout(name: str) -> None:
    """float32 results are within rounding of float64 by the harness's own check."""
    kernel = KERNELS[name]
    inputs = attention_inputs(SIZES, kernel.kv_layout, torch.float32, normal)
    assert attention_error(kernel.function(*inputs), inputs) < 1e-5


@pytest.mark.parametrize(
    "damage",
    [
        lambda output: output.mul_(1.01),
        lambda output: output[-1, -1, -1].zero_(),
        lambda output: output[0, 0, 0].fill_(math.nan),
        # Where the drawn samples and heads are not: finite everywhere is checked on all.
        lambda output: output[0, 1, 1, 3].fill_(math.inf),
    ],
)
def test_a_wrong_result_is_found(damage: Callable[[torch.Tensor], object]) -> None:
    """One per cent off, a head of zeros, a NaN, an infinity: none passes the check."""
    inputs = attention_inputs(SIZES, "shared", torch.float32, normal)
    output = KERNELS["bifurcated_flash"].function(*inputs)
    damage(output)
    assert attention_error(output, inputs) > 5e-3


def test_a_kernel_that_forgets_the_suffix_is_found() -> None:
    """Dropping own tokens, the classic fault of a merge, is far outside rounding."""
    query, context_keys, context_values, *_ = inputs = attention_inputs(
        SIZES, "shared", torch.bfloat16, normal
    )
    empty = torch.empty(2, 3, 2, 0, 16, dtype=torch.bfloat16)
    output = KERNELS["bifurcated_flash"].function(query, context_keys, context_values, empty, empty)
    assert attention_error(output, inputs) > 0.05


def test_the_reference_is_attention() -> None:
    """The float64 reference equals PyTorch's own math path on concatenated caches."""
    inputs = attention_inputs(SIZES, "shared", torch.float64, normal)
    wanted = KERNELS["standard_einsum"].function(*inputs)
    assert relative_error(reference_attention(*inputs), wanted) < 1e-12


def test_a_product_is_checked_at_both_ends() -> None:
    """The check of a matrix product passes the right one and finds wrong last columns."""
    inputs, weight = normal((3, 32), torch.float32), normal((200, 32), torch.float32)
    output = inputs @ weight.T
    assert gemm_error(output, inputs, weight) < 1e-5
    output[:, -1] = 0
    assert gemm_error(output, inputs, weight) > 1e-3


def test_nothing_compares_as_right_when_it_is_not_a_number() -> None:
    """NaN is infinitely wrong, on either side."""
    good, bad = torch.ones(3), torch.tensor([1.0, math.nan, 1.0])
    assert relative_error(bad, good) == math.inf
    assert relative_error(good, bad) == math.inf


def test_rotation_uses_every_set_before_one_again() -> None:
    """Calls go through the sets in turn, and round again where there are more calls."""
    seen: list[int] = []
    rotated(seen.append, [(0,), (1,), (2,)], 7)()
    assert seen == [0, 1, 2, 0, 1, 2, 0]
