"""The bytes that tensors cover are counted exactly, whatever their strides and overlaps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simulator.evidence.tracing.touched import touched_bytes

SPACE = 400  # elements of the buffer that views are drawn in


def addresses(tensor: Tensor) -> set[int]:
    """List the bytes a tensor covers, by asking a buffer of numbers."""
    numbers = torch.arange(SPACE).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    width = tensor.element_size()
    return {int(n) * width + byte for n in numbers.flatten() for byte in range(width)}


@st.composite
def views(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Draw sizes, strides and an offset within the buffer, overlapping or not."""
    dims = draw(st.integers(0, 4))
    sizes = draw(st.lists(st.integers(1, 5), min_size=dims, max_size=dims))
    strides = draw(st.lists(st.integers(0, 20), min_size=dims, max_size=dims))
    reach = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return sizes, strides, draw(st.integers(0, SPACE - 1 - min(reach, SPACE - 1)))


@given(
    drawn=st.lists(views(), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.int8, torch.float16]),
)
@settings(deadline=None, max_examples=300)
def test_any_views_of_one_buffer_are_counted_exactly(
    drawn: list[tuple[list[int], list[int], int]], dtype: torch.dtype
) -> None:
    """The count is the size of the set of addresses, written down one by one."""
    buffer = torch.empty(SPACE, dtype=dtype, device="meta")
    tensors = [buffer.as_strided(*view) for view in drawn]
    assert touched_bytes(tensors) == len(set().union(*map(addresses, tensors)))


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    cuts=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=4
    ),
)
@settings(deadline=None, max_examples=200)
def test_slices_of_one_tensor_are_counted_exactly(
    sizes: list[int], cuts: list[tuple[int, int, int]]
) -> None:
    """Slices along any dimension, the usual case of a cache, overlap as their elements do."""
    whole = torch.empty(sizes, dtype=torch.float16, device="meta")
    parts = [
        whole.narrow(dim % len(sizes), start % sizes[dim % len(sizes)], 1)
        if length == 1
        else whole.transpose(0, dim % len(sizes))[start % sizes[dim % len(sizes)] :][:length]
        for dim, start, length in cuts
    ]
    assert touched_bytes(parts) == len(set().union(*map(addresses, parts)))


def test_large_tensors_are_counted_without_walking_them() -> None:
    """Keys and values interleaved in a cache of 2**37 bytes, and a window over a long signal."""
    cache = torch.empty(64, 2, 32768, 32, 512, dtype=torch.float16, device="meta")
    keys, values = cache[:, 0], cache[:, 1]
    assert touched_bytes([keys]) == 2 * keys.numel()
    assert touched_bytes([keys, values]) == 2 * cache.numel()
    assert touched_bytes([keys[:, :100], values, keys]) == 2 * cache.numel()
    assert touched_bytes([keys.expand(3, -1, -1, -1, -1)]) == 2 * keys.numel()
    signal = torch.empty(10**7, device="meta")
    assert touched_bytes([signal.unfold(0, 100, 1)]) == 4 * 10**7
    assert touched_bytes([signal.unfold(0, 100, 150)]) == 4 * 100 * ((10**7 - 100) // 150 + 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.bool])
def test_other_buffers_add_up_and_empty_ones_count_nothing(dtype: torch.dtype) -> None:
    """Separate storages are separate memory; a view in another type is the same memory."""
    first, second = (torch.empty(10, dtype=dtype, device="meta") for _ in range(2))
    size = first.element_size()
    assert touched_bytes([first, second, first]) == 20 * size
    assert touched_bytes([first, first.view(torch.uint8)]) == 10 * size
    assert touched_bytes([first[:0]]) == 0
    assert touched_bytes([]) == 0
