"""What would crash the process or answer wrongly in native code is stopped before it gets there."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from layouts import lay_out
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels import KERNELS, find_kernel
from simulator.evidence.kernels.inputs import call_of
from simulator.evidence.kernels.layout import packed_cache, per_sample_cache
from simulator.evidence.kernels.operators import flash, merge

Draw = Callable[..., tuple[Tensor, ...]]
Inputs = tuple[Tensor, ...]
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)


@pytest.fixture
def inputs(random_inputs: Draw) -> Inputs:
    """Inputs every kernel takes: 2 prompts, 3 samples, 2 KV heads, group 2."""
    return random_inputs((2, 3, 2, 2, 64, 10, 4))


# ---- crash cases of the native operators -----------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        "(64, 8, 4, 128), torch.randn(1, 8, 4096, 128)",  # reads far past the one batch of keys
        "(1, 2, 3, 64), torch.randn(1, 2, 0, 64)",  # divides by zero
    ],
    ids=["batch mismatch", "no keys"],
)
def test_the_unguarded_operator_really_dies(sizes: str) -> None:
    """The guards are not for show: PyTorch's CPU operator takes the process down."""
    code = f"""
import torch
query, keys = torch.randn{sizes}
torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, keys)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=120
    )
    assert done.returncode < 0


def test_flash_refuses_a_batch_mismatch() -> None:
    """A query batch against one shared batch of keys must be expanded first."""
    query, keys = torch.randn(4, 2, 3, 64), torch.randn(1, 2, 5, 64)
    with pytest.raises(KernelError, match="use expand"):
        flash(query, keys, keys)
    output, _ = flash(query, keys.expand(4, -1, -1, -1), keys.expand(4, -1, -1, -1))
    torch.testing.assert_close(output[1], flash(query[1:2], keys, keys)[0][0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_flash_over_no_keys_is_nothing(dtype: torch.dtype) -> None:
    """No keys: output 0 and log-sum-exp -inf, on which a merge gives the other part untouched."""
    query, keys = torch.randn(2, 2, 3, 64, dtype=dtype), torch.randn(2, 2, 5, 64, dtype=dtype)
    empty = flash(query, keys[:, :, :0], keys[:, :, :0])
    assert empty[0].eq(0).all()
    assert empty[1].eq(-torch.inf).all()
    state = flash(query, keys, keys)
    torch.testing.assert_close(merge([empty, state]), state[0], rtol=0, atol=0)
    torch.testing.assert_close(merge([state, empty]), state[0], rtol=0, atol=0)


def test_the_native_operator_is_never_asked_about_no_keys(
    monkeypatch: pytest.MonkeyPatch, random_inputs: Draw
) -> None:
    """FlashAttention-2 would answer log-sum-exp +inf, and a merge would drop the context."""
    seen = []
    native = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def spy(query: Tensor, keys: Tensor, values: Tensor, **keywords: Any) -> Any:
        seen.append(keys.shape[2])
        return native(query, keys, values, **keywords)

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", spy)
    for sizes in [(1, 2, 2, 3, 64, 9, 0), (1, 2, 2, 3, 64, 0, 2), (2, 1, 1, 1, 64, 1, 1)]:
        for kernel in KERNELS.values():
            kernel.function(*random_inputs(sizes))
    assert seen
    assert 0 not in seen


def test_flash_refuses_what_does_not_match() -> None:
    """Heads, widths, types, dimensions, devices and strides are checked before native code."""
    query, keys = torch.randn(1, 2, 3, 64), torch.randn(1, 2, 5, 64)
    bad = {
        "heads": (query, keys[:, :1], keys[:, :1]),
        "head_dim": (query, keys[..., :32], keys[..., :32]),
        "values": (query, keys, keys[:, :, :4]),
        "float64": (query, keys.double(), keys),
        "int": (query.int(), keys.int(), keys.int()),
        "batch, heads, rows": (query[0], keys, keys),
        "cpu": (query, keys.to("meta"), keys),
        "stride": (query, keys.transpose(2, 3).contiguous().transpose(2, 3), keys),
        "nothing to ask": (query[:, :, :0], keys, keys),
    }
    for message, tensors in bad.items():
        with pytest.raises(KernelError, match=message):
            flash(*tensors)


@pytest.mark.parametrize("head_dim", [20, 264])
def test_cuda_flash_refuses_widths_it_would_pad_or_reject(head_dim: int) -> None:
    """The direct call skips the padding that F.scaled_dot_product_attention does."""
    query = torch.empty(1, 2, 3, head_dim, dtype=torch.bfloat16, device="meta")
    with pytest.raises(KernelError, match=f"head_dim = {head_dim}"):
        flash(query, query, query)


@pytest.mark.parametrize(
    ("dtype", "rows"), [(torch.float16, 3), (torch.float32, 3), (torch.float64, 3)]
)
def test_what_cuda_would_run_has_the_same_shapes(dtype: torch.dtype, rows: int) -> None:
    """On the meta device, standing in for CUDA, padded log-sum-exps are cut to the rows."""
    query = torch.empty(2, 2, rows, 64, dtype=dtype, device="meta")
    keys = torch.empty(2, 2, 40, 64, dtype=dtype, device="meta")
    output, log_sum_exp = flash(query, keys, keys)
    assert output.shape == query.shape
    assert log_sum_exp.shape == query.shape[:-1]
    assert log_sum_exp.dtype == torch.promote_types(dtype, torch.float32)


def test_the_unfused_path_for_float64_on_cuda_is_exact() -> None:
    """The path that only a GPU takes is right where it can be run, here."""
    from simulator.evidence.kernels.operators import _unfused

    query, keys = torch.randn(2, 3, 4, 64).double() * 50, torch.randn(2, 3, 9, 64).double()
    output, log_sum_exp = _unfused(query, keys, keys, 0.125)
    expected, expected_lse = flash(query, keys, keys)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_sum_exp, expected_lse, rtol=1e-14, atol=0)


# ---- inputs that do not belong together ------------------------------------------------------


@EVERY_KERNEL
def test_every_kernel_says_what_is_wrong_with_its_inputs(name: str, inputs: Inputs) -> None:
    """One clear line names the tensor, its shape and what it must be; nothing native runs."""
    attend = KERNELS[name].function
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    bad = {
        r"decoded_keys is \[2, 2": (query, *inputs[1:3], decoded_keys[:, :2], decoded_values),
        "values is": (query, context_keys, context_values[:, :, :3], *inputs[3:]),
        "decoded_values is": (*inputs[:4], decoded_values[:, :, :, :2]),
        "KV heads": (query[:, :, :3], *inputs[1:]),
        "query is": (query[0], *inputs[1:]),
        "decoded_keys is": (*inputs[:3], decoded_keys[0], decoded_values[0]),
        "float32": (query, context_keys.float(), *inputs[2:]),
        "float64, float32": tuple(tensor.int() for tensor in inputs),
        "meta": (query.to("meta"), *inputs[1:]),
        "nothing to attend to": (
            query,
            context_keys[:, :, :0],
            context_values[:, :, :0],
            decoded_keys[:, :, :, :0],
            decoded_values[:, :, :, :0],
        ),
    }
    for message, tensors in bad.items():
        with pytest.raises(KernelError, match=message) as caught:
            attend(*tensors)
        assert "\n" not in str(caught.value)


def test_a_tree_says_which_level_does_not_fit(inputs: Inputs) -> None:
    """Nodes must divide the prompts, and keys and values have as many levels."""
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    attend = KERNELS["prefix_tree"].function
    three = torch.cat([context_keys, context_keys[:1]])
    with pytest.raises(KernelError, match=r"level_1 has 3 nodes, which do not divide 2 prompts"):
        attend(query, [context_keys, three], [context_values, three], decoded_keys, decoded_values)
    with pytest.raises(KernelError, match="2 levels of keys and 1 of values"):
        attend(query, [context_keys] * 2, [context_values], decoded_keys, decoded_values)


def test_fewer_than_one_chunk_is_refused(inputs: Inputs) -> None:
    """A context cannot be cut into no chunks."""
    from simulator.evidence.kernels.bifurcated import bifurcated_flash_chunked

    with pytest.raises(KernelError, match="chunks = 0"):
        bifurcated_flash_chunked(*inputs, chunks=0)


# ---- the registry ----------------------------------------------------------------------------


def test_the_registry_has_every_kernel_by_its_own_name() -> None:
    """The kernels the project promises exist, each under its name, with one line about it."""
    assert set(KERNELS) == {
        "standard_einsum",
        "standard_math",
        "standard_flash",
        "standard_flash_expanded",
        "standard_rebuilt",
        "standard_repeat_kv",
        "bifurcated_einsum",
        "bifurcated_flash",
        "bifurcated_flash_chunked",
        "bifurcated_flex",
        "prefix_tree",
    }
    for name, kernel in KERNELS.items():
        assert kernel.name == name
        assert kernel.attention == ("standard" if name.startswith("standard") else "bifurcated")
        assert kernel.function.__name__ == name
        assert kernel.library is None


def test_a_kernel_is_called_as_its_function(inputs: Inputs) -> None:
    """What the registry holds is itself an attend(query, ...), its scale included."""
    for kernel in KERNELS.values():
        assert torch.equal(kernel(*inputs, scale=0.5), kernel.function(*inputs, scale=0.5))


def test_an_unknown_kernel_names_the_nearest() -> None:
    """A typing error gets a suggestion."""
    assert find_kernel("bifurcated_flash") is KERNELS["bifurcated_flash"]
    with pytest.raises(KernelError, match="did you mean 'bifurcated_flash'"):
        find_kernel("bifurcatd_flash")


# ---- layouts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2, 3, 2, 2, 64, 10, 4), (1, 1, 1, 1, 64, 1, 1)])
def test_caches_laid_out_for_a_kernel_are_seen_without_a_copy(
    sizes: tuple[int, ...], random_inputs: Draw
) -> None:
    """A kernel that finds its layout looks at the one buffer; a change in the cache shows in it."""
    for layout, whole in (("copies", per_sample_cache), ("packed", packed_cache)):
        _, context_keys, _, decoded_keys, _ = lay_out(layout, *random_inputs(sizes))
        together = whole(context_keys, decoded_keys)
        context_keys.fill_(7.0)
        decoded_keys.fill_(9.0)
        tokens = context_keys.shape[2]
        assert together[:, :, :tokens].eq(7).all()
        assert together[:, :, tokens:].eq(9).all()


@pytest.mark.parametrize("decoded_tokens", [0, 1, 4])
@pytest.mark.parametrize("context_tokens", [0, 1, 10])
def test_laying_out_does_not_change_what_the_caches_hold(
    context_tokens: int, decoded_tokens: int, random_inputs: Draw
) -> None:
    """Copies are the context, then the sample's own; packed is the context, then all samples'."""
    if context_tokens + decoded_tokens == 0:
        return
    inputs = random_inputs((2, 3, 2, 2, 64, context_tokens, decoded_tokens))
    shape = call_of(*inputs)
    query, keys, _, own, _ = lay_out("copies", *inputs)
    assert query.shape == (6, 1, 4, 64)
    together = per_sample_cache(keys, own)
    for prompt in range(shape.prompts):
        for sample in range(shape.samples):
            expected = torch.cat([inputs[1][prompt], inputs[3][prompt, sample]], dim=1)
            assert together[prompt * shape.samples + sample].equal(expected)
    _, keys, _, own, _ = lay_out("packed", *inputs)
    together = packed_cache(keys, own)
    for prompt in range(shape.prompts):
        expected = torch.cat([inputs[1][prompt], *inputs[3][prompt]], dim=1)
        assert together[prompt].equal(expected)


def test_neighbouring_memory_of_other_tensors_is_not_mistaken_for_a_cache(
    random_inputs: Draw,
) -> None:
    """Tensors that do not lie as a cache are copied together, not viewed across each other."""
    _, context_keys, _, decoded_keys, _ = random_inputs((1, 1, 2, 2, 64, 4, 4))
    cases = [
        (context_keys, decoded_keys),  # separate buffers
        (context_keys[:, :, :2], context_keys[:, None, :, 3:]),  # a gap of one token
        (context_keys[:, :, 2:], context_keys[:, None, :, :2]),  # in the wrong order
        (context_keys, context_keys.unsqueeze(1)),  # the same memory twice
    ]
    for context, decoded in cases:
        expected = torch.cat([context, decoded[:, 0]], dim=2)
        assert per_sample_cache(context, decoded).equal(expected)
