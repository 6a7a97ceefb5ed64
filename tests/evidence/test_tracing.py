"""A trace against numbers worked out by hand, and against what PyTorch's profiler sees."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from simulator.errors import TraceError
from simulator.evidence.tracing import Trace, trace
from simulator.evidence.tracing.recorder import grouped, total

Listed = list[tuple[str, int, int]]


def meta(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Make a tensor without memory."""
    return torch.empty(*sizes, dtype=dtype, device="meta")


def listed(traced: Trace) -> Listed:
    """List name, bytes read and bytes written."""
    return [(each.name, each.bytes_read, each.bytes_written) for each in traced.operations]


# ---- by hand ---------------------------------------------------------------------------------


def test_a_matrix_product() -> None:
    """[64, 128] @ [128, 32] in float32: 2*64*128*32 FLOP, 49,152 B read, 8192 B written."""
    traced = trace(torch.matmul, meta(64, 128), meta(128, 32))
    assert traced.flops == 2 * 64 * 128 * 32
    assert listed(traced) == [("mm", 4 * (64 * 128 + 128 * 32), 4 * 64 * 32)]
    assert traced.launches == 1


def test_an_expanded_operand_is_read_once() -> None:
    """One [128, 32] matrix expanded to a batch of 16 is 16 KiB, not 256; the FLOPs are all 16's."""
    traced = trace(torch.bmm, meta(16, 64, 128), meta(1, 128, 32).expand(16, -1, -1))
    assert listed(traced) == [("bmm", 4 * (16 * 64 * 128 + 128 * 32), 4 * 16 * 64 * 32)]
    assert traced.flops == 16 * 2 * 64 * 128 * 32


def test_a_slice_reads_its_part() -> None:
    """Ten of a hundred columns: 10 * 8 * 4 B, not the whole buffer."""
    traced = trace(lambda x: x[:, 5:15] + 1, meta(8, 100))
    assert listed(traced) == [("add", 8 * 10 * 4, 8 * 10 * 4)]
    assert traced.views == 1


def test_the_same_memory_twice_is_read_once() -> None:
    """x * x reads x once; x * its transpose too."""
    x = meta(32, 32)
    assert listed(trace(torch.mul, x, x)) == [("mul", 4096, 4096)]
    assert listed(trace(torch.mul, x, x.T)) == [("mul", 4096, 4096)]
    # halves that share 16 of 32 rows: 48 rows in all
    assert listed(trace(lambda y: y[:32] + y[16:], meta(48, 8))) == [("add", 48 * 8 * 4, 1024)]


def test_concatenation() -> None:
    """A context expanded to 16 samples is read once and written 16 times: 2-byte elements."""
    context = meta(1, 8, 1024, 128, dtype=torch.bfloat16).expand(16, -1, -1, -1)
    own = meta(16, 8, 64, 128, dtype=torch.bfloat16)
    traced = trace(lambda a, b: torch.cat([a, b], dim=2), context, own)
    read = 2 * (8 * 1024 * 128 + 16 * 8 * 64 * 128)
    assert listed(traced) == [("cat", read, 2 * 16 * 8 * 1088 * 128)]


def test_in_place_and_out() -> None:
    """add_ reads and writes its target; copy_, fill_ and out= only write it; dtypes may differ."""
    x, y, half = meta(100), meta(100), meta(100, dtype=torch.float16)
    assert listed(trace(lambda: x.add_(y))) == [("add_", 800, 400)]
    assert listed(trace(lambda: x.copy_(half))) == [("copy_", 200, 400)]
    assert listed(trace(lambda: x.fill_(1))) == [("fill_", 0, 400)]
    assert listed(trace(x.zero_)) == [("zero_", 0, 400)]
    assert listed(trace(lambda: torch.add(x, y, out=x))) == [("add", 800, 400)]
    assert listed(trace(lambda: torch.mul(x, y, out=half))) == [("mul", 800, 200)]
    assert listed(trace(lambda: half.to(torch.float32))) == [("_to_copy", 200, 400)]


def test_assignment_to_a_slice_writes_the_slice() -> None:
    """cache[:, 7] = new writes one row of the cache; a number is a fill, as on CUDA."""
    cache, new = meta(16, 64, 128), meta(16, 128)

    def store() -> None:
        cache[:, 7] = new

    def clear() -> None:
        cache[:, 7] = 0

    assert listed(trace(store)) == [("copy_", 16 * 128 * 4, 16 * 128 * 4)]
    assert listed(trace(clear)) == [("fill_", 0, 16 * 128 * 4)]


def test_a_masked_fill_copies_first() -> None:
    """Out of place it is two kernels: a clone, then a fill that reads tensor and mask."""
    x, mask = meta(10, 10), meta(10, 10, dtype=torch.bool)
    assert listed(trace(lambda: x.masked_fill(mask, 0.0))) == [
        ("clone", 400, 400),
        ("masked_fill_", 500, 400),
    ]
    assert listed(trace(lambda: x.masked_fill_(mask, 0.0))) == [("masked_fill_", 500, 400)]


def test_softmax() -> None:
    """One pass in, one pass out; a change of type is a pass of its own."""
    x = meta(4, 1000, dtype=torch.float16)
    assert listed(trace(torch.softmax, x, -1)) == [("_softmax", 8000, 8000)]
    assert listed(trace(lambda: torch.softmax(x, -1, dtype=torch.float32))) == [
        ("_to_copy", 8000, 16000),
        ("_softmax", 16000, 16000),
    ]


def test_einsum_on_a_slice_shows_its_hidden_clone() -> None:
    """The paper's second product: weights sliced out of [b, g, p, m] have to be copied first.

    b=16, g=8, p=4, m_c=100 of m=110, k=32: the clone reads and writes b*g*p*m_c elements.
    """
    weights, values = meta(16, 8, 4, 110), meta(8, 100, 32)
    traced = trace(lambda w, v: torch.einsum("bgpm,gmk->bgpk", w[..., :100], v), weights, values)
    part = 4 * 16 * 8 * 4 * 100
    assert listed(traced) == [
        ("clone", part, part),
        ("bmm", part + 4 * 8 * 100 * 32, 4 * 16 * 8 * 4 * 32),
    ]
    assert traced.flops == 2 * 16 * 8 * 4 * 100 * 32


def test_reshape_is_free_or_a_clone() -> None:
    """Merging neighbouring dimensions is a view; merging transposed ones is a copy."""
    x = meta(4, 5, 6)
    assert listed(trace(lambda: x.reshape(20, 6))) == []
    assert listed(trace(lambda: x.transpose(0, 1).reshape(20, 6))) == [("clone", 480, 480)]
    assert listed(trace(lambda: x.transpose(0, 1).contiguous())) == [("clone", 480, 480)]
    assert listed(trace(lambda: x.repeat_interleave(1, 0))) == [("clone", 480, 480)]
    assert listed(trace(lambda: x.repeat_interleave(3, 0))) == [("clone", 480, 1440)]


def test_flash_attention_writes_output_and_log_sum_exp() -> None:
    """q [2, 8, 4, 128], 100 keys, bf16: 4*2*8*4*100*128 FLOP; log-sum-exp in float32."""
    query = meta(2, 8, 4, 128, dtype=torch.bfloat16)
    keys = meta(2, 8, 100, 128, dtype=torch.bfloat16)
    traced = trace(torch.ops.aten._scaled_dot_product_flash_attention, query, keys, keys.clone())
    read = 2 * (2 * 8 * 4 * 128 + 2 * 2 * 8 * 100 * 128)
    written = 2 * 2 * 8 * 4 * 128 + 4 * 2 * 8 * 4
    assert listed(traced) == [("_scaled_dot_product_flash_attention", read, written)]
    assert traced.flops == 4 * 2 * 8 * 4 * 100 * 128


def test_allocation_and_views_are_free_and_fills_are_not() -> None:
    """empty costs nothing; zeros, ones, full and arange write what they make."""

    def allocate() -> None:
        x = torch.empty(10)
        x.view(2, 5).t().unsqueeze(0).expand(3, -1, -1).detach()
        torch.empty_like(x)
        x.new_empty(3)

    traced = trace(allocate)
    assert listed(traced) == []
    assert traced.views == 8
    assert listed(trace(lambda: torch.zeros(10))) == [("zero_", 0, 40)]
    assert listed(trace(lambda: torch.ones(10))) == [("fill_", 0, 40)]
    assert listed(trace(lambda: torch.arange(10))) == [("arange", 0, 80)]


def test_gathers_read_the_rows_they_gather() -> None:
    """An embedding of 5 tokens reads 5 rows of the table and 5 indices of 8 bytes."""
    table, tokens = meta(32000, 64), meta(5, dtype=torch.long)
    expected = 5 * 64 * 4 + 5 * 8
    assert listed(trace(F.embedding, tokens, table)) == [("embedding", expected, 1280)]
    assert listed(trace(lambda: table[tokens])) == [("index", expected, 1280)]
    assert listed(trace(lambda: table.index_select(0, tokens))) == [
        ("index_select", expected, 1280)
    ]
    # A table of two rows cannot be read more than whole.
    assert listed(trace(F.embedding, tokens, table[:2])) == [("embedding", 512 + 40, 1280)]


def test_scatters_write_the_rows_they_scatter() -> None:
    """A cache of 1000 rows, three of them written; the functional form copies it first."""
    cache, rows = meta(1000, 64), meta(3, 64)
    where = meta(3, dtype=torch.long)
    part, whole, index = 3 * 64 * 4, 1000 * 64 * 4, 3 * 8

    def assign() -> None:
        cache[where] = rows

    assert listed(trace(assign)) == [("_index_put_impl_", part + index, part)]
    assert listed(trace(lambda: cache.index_put((where,), rows))) == [
        ("clone", whole, whole),
        ("_index_put_impl_", part + index, part),
    ]
    assert listed(trace(lambda: cache.index_put_((where,), rows, accumulate=True))) == [
        ("_index_put_impl_", 2 * part + index, part)
    ]
    assert listed(trace(lambda: cache.index_copy_(0, where, rows))) == [
        ("index_copy_", part + index, part)
    ]
    assert listed(trace(lambda: cache.index_add(0, where, rows))) == [
        ("clone", whole, whole),
        ("index_add", 2 * part + index, part),
    ]
    indices = meta(3, 64, dtype=torch.long)
    assert listed(trace(lambda: cache.scatter_(0, indices, rows))) == [
        ("scatter_", part + 3 * 64 * 8, part)
    ]


def test_a_convolution_is_one_kernel() -> None:
    """Two signals of 8 channels and 64 steps, 16 filters of 3: 62 steps come out, 48 FLOP each."""
    traced = trace(F.conv1d, meta(2, 8, 64), meta(16, 8, 3))
    assert listed(traced) == [("convolution", 4 * (2 * 8 * 64 + 16 * 8 * 3), 4 * 2 * 16 * 62)]
    assert traced.flops == 2 * 16 * 62 * 48


def test_addmm_reads_its_bias_once() -> None:
    """A linear layer with bias is one product that reads input, weight and bias."""
    layer = torch.nn.Linear(64, 32, device="meta")
    traced = trace(layer, meta(10, 64))
    assert listed(traced) == [("addmm", 4 * (10 * 64 + 32 * 64 + 32), 4 * 10 * 32)]
    assert traced.flops == 2 * 10 * 64 * 32
    assert traced.operations[0].module == "Linear"


def test_a_matrix_cublas_cannot_address_is_copied() -> None:
    """Every second column of every second row has no unit stride: a copy, then the product."""
    strided = meta(8, 8)[::2, ::2]
    traced = trace(torch.mm, strided, meta(4, 4))
    assert listed(traced) == [("clone", 64, 64), ("mm", 128, 64)]
    assert [each.called_by for each in traced.operations] == ["mm", ""]
    assert trace(torch.mm, meta(8, 8)[:, ::2].T, meta(8, 4)).launches == 2
    assert trace(torch.mm, meta(8, 8).T, meta(8, 4)).launches == 1
    assert trace(torch.mm, meta(8, 8)[:, :4], meta(4, 4)).launches == 1


def test_layer_norm_writes_its_statistics() -> None:
    """Output, mean and reciprocal standard deviation, in float32 for 16-bit inputs."""
    x, weight = meta(10, 64, dtype=torch.bfloat16), meta(64, dtype=torch.bfloat16)
    assert listed(trace(F.layer_norm, x, (64,), weight)) == [
        ("native_layer_norm", 1280 + 128, 1280 + 2 * 40)
    ]


def test_rms_norm_is_one_kernel_as_on_cuda() -> None:
    """PyTorch's plain path would be eight kernels; CUDA has one, which writes a statistic a row."""
    x, weight = meta(10, 64, dtype=torch.bfloat16), meta(64, dtype=torch.bfloat16)
    traced = trace(F.rms_norm, x, (64,), weight)
    assert listed(traced) == [("_fused_rms_norm", 1280 + 128, 1280 + 40)]
    module = torch.nn.RMSNorm(64, device="meta", dtype=torch.bfloat16)
    assert listed(trace(module, x)) == listed(traced)


def test_an_operator_with_nothing_to_write_is_not_launched() -> None:
    """No elements, no kernel; a product over no keys still has to write zeros."""
    assert listed(trace(torch.add, meta(0, 5), meta(0, 5))) == []
    assert listed(trace(torch.bmm, meta(2, 3, 4), meta(2, 4, 0))) == []
    assert listed(trace(torch.bmm, meta(2, 3, 0), meta(2, 0, 4))) == [("bmm", 0, 96)]


# ---- attention by PyTorch's own choice -------------------------------------------------------


def attend(query: Tensor, keys: Tensor, values: Tensor, **keywords: Any) -> Tensor:
    """Call PyTorch's attention."""
    return F.scaled_dot_product_attention(query, keys, values, **keywords)


@pytest.mark.parametrize(
    ("dtype", "options", "expected"),
    [
        (torch.bfloat16, {}, "_scaled_dot_product_flash_attention"),
        (torch.float32, {}, "_scaled_dot_product_efficient_attention"),
        (torch.bfloat16, {"attn_mask": True}, "_scaled_dot_product_efficient_attention"),
        (torch.float64, {}, "bmm"),
    ],
    ids=["flash", "float32", "mask", "float64"],
)
def test_attention_takes_the_operator_that_cuda_takes(
    dtype: torch.dtype, options: dict[str, Any], expected: str
) -> None:
    """16-bit without a mask is flash; a mask or float32 memory-efficient; float64 plain."""
    query, keys = meta(2, 8, 4, 64, dtype=dtype), meta(2, 8, 100, 64, dtype=dtype)
    if options:
        options = {"attn_mask": meta(4, 100, dtype=dtype)}
    traced = trace(attend, query, keys, keys, **options)
    assert expected in [each.name for each in traced.operations]
    assert traced.flops == 4 * 2 * 8 * 4 * 100 * 64


def test_flash_pads_an_awkward_head_width() -> None:
    """Width 60 is padded to 64 in three copies, as F.scaled_dot_product_attention does on CUDA."""
    x = meta(1, 2, 4, 60, dtype=torch.float16)
    names = [each.name for each in trace(attend, x, x, x).operations]
    assert names == ["fill_", "copy_"] * 3 + ["_scaled_dot_product_flash_attention"]


def test_grouped_queries_are_native_in_flash_and_repeated_in_the_math_path() -> None:
    """Flash reads 8 KV heads for 32 query heads; the plain path copies them to 32 first."""
    query, keys = meta(2, 32, 1, 64, dtype=torch.float16), meta(2, 8, 100, 64, dtype=torch.float16)
    traced = trace(attend, query, keys, keys.clone(), enable_gqa=True)
    assert traced.bytes_read == 2 * (2 * 32 * 64 + 2 * 2 * 8 * 100 * 64)
    with sdpa_kernel(SDPBackend.MATH):
        plain = trace(attend, query, keys, keys.clone(), enable_gqa=True)
    assert plain.flops == traced.flops
    repeated = [each for each in plain.operations if each.name == "clone"]
    assert [each.bytes_written for each in repeated] == [4 * 2 * 32 * 100 * 64] * 2


def test_the_flops_are_those_of_the_flop_counter() -> None:
    """Summed over a function, the same as torch.utils.flop_counter says."""
    from torch.utils.flop_counter import FlopCounterMode

    def function(x: Tensor, weight: Tensor) -> Tensor:
        hidden = F.linear(F.silu(F.linear(x, weight)), weight.T)
        query = hidden.view(2, 4, 16, 8)
        flash = torch.ops.aten._scaled_dot_product_flash_attention(query, query, query)[0]
        return torch.einsum("abcd,abed->abce", flash, query)

    x, weight = meta(128, 8), meta(24, 8)
    with FlopCounterMode(display=False) as counter:
        function(x, weight)
    assert trace(function, x, weight).flops == counter.get_total_flops() > 0


# ---- against the profiler --------------------------------------------------------------------


def _math_attention(x: Tensor) -> Tensor:
    """Attend by the math path."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(x, x, x)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "masked_fill": lambda x, _: x.masked_fill(x > 0, 0.0),
    "stack": lambda x, _: torch.stack([x, x]),
    "index_put": lambda x, index: x.index_put((index,), x[:1]),
    "softmax": lambda x, _: torch.softmax(x.half(), -1, dtype=torch.float32),
    "math attention": lambda x, _: _math_attention(x[None]),
    "einsum": lambda x, _: torch.einsum("abc,adc->bad", x, x),
    "einsum of a slice": lambda x, _: torch.einsum("abc,cd->bad", x[..., :6], x[0]),
    "repeat_interleave": lambda x, _: x.repeat_interleave(3, 1),
    "layer_norm": lambda x, _: F.layer_norm(x, (8,)),
    "logsumexp": lambda x, _: torch.logsumexp(x, -1),
    "pad": lambda x, _: F.pad(x, (0, 3)),
    "linear": lambda x, _: F.linear(x, x[0], x[0, :, 0]),
    "matmul": lambda x, _: x @ x.transpose(1, 2),
    "embedding": lambda x, index: F.embedding(index, x[0]),
    "reshape": lambda x, _: x.transpose(0, 1).reshape(-1),
    "in place": lambda x, _: x.clone().add_(x).mul_(2),
    "slice_scatter": lambda x, _: torch.slice_scatter(x, x[:1], 0, 0, 1),
    "full_like": lambda x, _: torch.full_like(x, 2.0) + torch.ones_like(x),
    "nan_to_num": lambda x, _: torch.nan_to_num(x),
    "outer": lambda x, _: torch.outer(x[0, 0], x[0, 0]),
    "mean and roll": lambda x, _: torch.roll(x, 1, 0) - x.mean(-1, keepdim=True),
    "topk": lambda x, _: torch.topk(x, 2),
}
# What only looks or allocates, or is how the CPU makes a number into a tensor or resolves a view.
_FREE = {
    *("empty", "empty_like", "empty_strided", "resize_", "result_type", "scalar_tensor", "real"),
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "expand", "resolve_conj", "to"),
}
# Under a dispatch mode PyTorch adds a bias out of place; the traffic is the same.
_SAME = {"clone": "copy_", "_to_copy": "copy_", "add_": "add"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_kernels_are_those_the_profiler_sees(name: str) -> None:
    """PyTorch's own profiler, running on real numbers, sees the same kernels in the same order."""
    function = FUNCTIONS[name]
    x, index = torch.randn(3, 6, 8), torch.tensor([0, 2, 1])
    traced = [_SAME.get(each.name, each.name) for each in trace(function, x, index).operations]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            function(x, index)
    seen: list[str] = []

    def walk(event: Any) -> None:
        """Descend from a PyTorch operator to the kernels it is made of."""
        operator = event.name.removeprefix("aten::")
        parts = [child for child in event.cpu_children if child.name.startswith("aten::")]
        if _SAME.get(operator, operator) in traced or not parts:
            seen.append(operator)
        else:
            for part in parts:
                walk(part)

    for event in profiled.events():
        outermost = event.cpu_parent is None or not event.cpu_parent.name.startswith("aten::")
        if event.name.startswith("aten::") and outermost:
            walk(event)
    # The CPU fills the one number of _safe_softmax without an operator; CUDA launches a fill.
    fills_a_number = name == "math attention"
    expected = [each for each in traced if not (fills_a_number and each == "fill_")]
    assert [_SAME.get(each, each) for each in seen if each not in _FREE] == expected


# ---- the trace itself ------------------------------------------------------------------------


def test_real_tensors_serve_as_shapes_and_stay_untouched() -> None:
    """Inputs on the CPU are replaced, views of one buffer by views of one buffer."""
    cache = torch.ones(2, 4, 8)
    traced = trace(lambda keys, values: keys + values, cache[0], cache[0])
    assert listed(traced) == [("add", 128, 128)]
    trace(lambda tensors: tensors["a"][0].zero_(), {"a": [cache]})
    assert cache.eq(1).all()


def test_operations_are_grouped_by_name_and_by_module() -> None:
    """Groups keep the order of first appearance and add up to the whole."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = torch.nn.Linear(8, 16, bias=False, device="meta")
            self.down = torch.nn.Linear(16, 8, bias=False, device="meta")

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(F.silu(self.up(x)))

    traced = trace(Block(), meta(4, 8))
    names = grouped(traced.operations, lambda each: each.name)
    assert [(name, len(equal)) for name, equal in names.items()] == [
        ("mm", 2),
        ("silu", 1),
        ("add", 1),
    ]
    modules = grouped(traced.operations, lambda each: each.module)
    assert list(modules) == ["Block.up", "Block", "Block.down"]
    for field in ("flops", "bytes_read", "bytes_written", "launches"):
        sums = sum(getattr(total(group), field) for group in modules.values())
        assert sums == getattr(traced, field)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.sum().item(), "no values"),
        (lambda x: x[x > 0], "depends on the mask's values"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x + torch.ones(3, device="cpu"), "meta device"),
        (lambda x: x @ torch.zeros(7, 7), "RuntimeError while tracing"),
        (lambda x: x.numpy(), "meta"),
    ],
    ids=["item", "mask", "nonzero", "other device", "wrong shape", "numpy"],
)
def test_what_cannot_be_traced_says_why(function: Callable[[Tensor], Any], message: str) -> None:
    """One line, our own error."""
    with pytest.raises(TraceError, match=message) as caught:
        trace(function, meta(3))
    assert "\n" not in str(caught.value)


def test_what_is_not_a_function_and_what_is_mistaken() -> None:
    """A name is not a function; a mistake in the function keeps its own error."""
    with pytest.raises(TraceError, match="'x': it is not a function"):
        trace("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required"):
        trace(lambda x, y: x + y, meta(3))


def test_code_written_for_cuda_is_traced_without_cuda() -> None:
    """Tensors that the function puts on a CUDA device go where all others are."""

    def function(x: Tensor) -> Tensor:
        moved = x.cuda() + x.to("cuda:0") + torch.ones(3, device="cuda")
        return moved + torch.zeros(3, device=torch.device("cuda", 0))

    names = [each.name for each in trace(function, meta(3)).operations]
    assert names == ["add", "fill_", "add", "zero_", "add"]


def test_inference_mode_changes_nothing() -> None:
    """A function that switches autograd off in its own way is decomposed all the same."""

    def function(x: Tensor) -> Tensor:
        return F.softmax(F.linear(x, x).transpose(0, 1).reshape(-1), dim=0)

    def inferring(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return function(x)

    assert listed(trace(inferring, meta(4, 5))) == listed(trace(function, meta(4, 5)))


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    permutation=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=50)
def test_a_copy_reads_and_writes_every_element_once(sizes: list[int], permutation: Any) -> None:
    """However its dimensions are ordered, a contiguous copy moves numel elements each way."""
    order = list(range(len(sizes)))
    permutation.shuffle(order)
    x = meta(*sizes).permute(order)
    traced = trace(lambda: x.clone(memory_format=torch.contiguous_format))
    assert listed(traced) == [("clone", 4 * x.numel(), 4 * x.numel())]
