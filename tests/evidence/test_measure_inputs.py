"""Inputs lie as each kernel wants them, rotate, and wrong results are found before timing."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from layouts import lay_out  # noqa: E402

from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.kernels.layout import attention_inputs  # noqa: E402
from simulator.evidence.measure.cells import MEMORY_TESTS, AttentionCell, MemoryCell  # noqa: E402
from simulator.evidence.measure.correctness import (  # noqa: E402
    attention_error,
    gemm_error,
    reference_attention,
    relative_error,
)
from simulator.evidence.measure.device import CpuDevice  # noqa: E402
from simulator.evidence.measure.prepare import prepare, rotated, stream_function  # noqa: E402
from simulator.evidence.measure.steps import Steps  # noqa: E402

SIZES = AttentionCell(
    kernel="bifurcated_flash",
    prompts=2,
    samples=3,
    heads=6,
    kv_heads=2,
    head_dim=16,
    context_tokens=10,
    decoded_tokens=4,
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
    inputs = attention_inputs(SIZES, kernel.layout, torch.float32, normal)
    assert attention_error(kernel.function(*inputs), inputs) < 1e-5


@pytest.mark.parametrize(
    "name", sorted(name for name, kernel in KERNELS.items() if kernel.takes_several_tokens)
)
def test_every_kernel_passes_the_check_with_several_query_tokens(name: str) -> None:
    """Causal among the new tokens; one that sees the tokens after it does not pass."""
    kernel = KERNELS[name]
    cell = replace(SIZES, query_tokens=3)
    inputs = attention_inputs(cell, kernel.layout, torch.float32, normal)
    output = kernel.ready(inputs).attend(*inputs)
    assert attention_error(output, inputs) < 1e-5
    together = [kernel.function(inputs[0][:, :, token], *inputs[1:]) for token in range(3)]
    assert attention_error(torch.stack(together, dim=2), inputs) > 5e-3


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


@pytest.mark.parametrize("size", [2**16, 2**20, 3 * 2**20])
def test_the_parts_of_a_stream_are_aligned(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operand starts at a multiple of 128 bytes, and next to nothing is left out.

    An address that is no multiple of 16 bytes keeps a kernel from loading four values at once.
    """
    seen: list[torch.Tensor] = []
    real = torch.add

    def add(*operands: torch.Tensor, out: torch.Tensor, **options: float) -> torch.Tensor:
        seen.extend((*operands, out))
        return real(*operands, out=out, **options)

    monkeypatch.setattr(torch, "add", add)
    buffer = torch.randn(size // 4)
    function, _ = stream_function(MemoryCell(test="stream_triad", working_set_bytes=size), buffer)
    function()
    assert [(part.data_ptr() - buffer.data_ptr()) % 128 for part in seen] == [0, 0, 0]
    assert size - 384 < sum(part.nbytes for part in seen) <= size


def test_streams_go_on_over_random_numbers() -> None:
    """What fills a buffer with one number has its own: the others' stays random while all run."""
    device = CpuDevice()
    cells = [MemoryCell(test=test, working_set_bytes=2**16) for test in MEMORY_TESTS]
    prepared = prepare(cells, device, Steps(device), least_pass_s=0.0)
    assert all(each.check() <= each.tolerance for each in prepared)
    for _ in range(2):
        for each in prepared:
            each.one_pass()
    assert all(each.check() <= each.tolerance for each in prepared)
    prepared[0].one_pass()  # stream_init
    functions = {each.cell.test: each.one_pass for each in prepared}
    buffers = closure_tensors(functions["stream_read"])
    assert all(float(buffer.std()) > 0.5 for buffer in buffers)


def closure_tensors(function: Callable[..., object]) -> list[torch.Tensor]:
    """Tensors that a function holds on to, through the functions it holds on to."""
    found: list[torch.Tensor] = []
    for cell in function.__closure__ or ():
        held = cell.cell_contents
        if isinstance(held, torch.Tensor):
            found.append(held)
        elif callable(held):
            found += closure_tensors(held)
    return found
