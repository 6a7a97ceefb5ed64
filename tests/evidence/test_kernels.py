"""Every kernel is exact: float64 and float32 against attention's definition in float64."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import lay_out
from torch import Tensor

from simulator.evidence.kernels import KERNELS

Draw = Callable[..., tuple[Tensor, ...]]
Reference = Callable[..., Tensor]
EVERY_KERNEL = pytest.mark.parametrize("name", KERNELS)
BOUND = {torch.float64: 1e-12, torch.float32: 2e-6}


def sizes() -> st.SearchStrategy[tuple[int, ...]]:
    """Draw prompts, samples, kv_heads, group, head_dim, context_tokens, decoded_tokens."""
    return st.tuples(
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 3),
        st.sampled_from([1, 2, 3, 5, 7, 12]),
        st.sampled_from([64, 80, 128, 256]),
        st.sampled_from([0, 1, 2, 31, 127, 128, 129, 200]),
        st.sampled_from([0, 1, 1, 7, 33]),
    ).filter(lambda drawn: drawn[5] + drawn[6] > 0)


def error(output: Tensor, truth: Tensor) -> float:
    """Return the largest absolute error."""
    return (output.double() - truth).abs().max().item()


@EVERY_KERNEL
@given(shape=sizes(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=8)
def test_every_kernel_is_exact(
    name: str, shape: tuple[int, ...], seed: int, random_inputs: Draw, reference: Reference
) -> None:
    """Each kernel gives attention's definition, whatever the shape, caches laid out or not."""
    kernel = KERNELS[name]
    for dtype, bound in BOUND.items():
        inputs = random_inputs(shape, dtype, seed=seed)
        truth = reference(*inputs)
        output = kernel.function(*inputs)
        assert output.shape == inputs[0].shape
        assert output.dtype == dtype
        assert error(output, truth) <= bound
        laid_out = kernel.function(*lay_out(kernel.layout, *inputs))
        assert error(laid_out.reshape(truth.shape), truth) <= bound


def inputs_with_whole_logits(
    shape: tuple[int, ...], dtype: torch.dtype, seed: int, *, distinct: bool
) -> tuple[Tensor, ...]:
    """Draw inputs whose logits are whole numbers, exact in every type and at every magnification.

    Random large logits would measure the rounding of the logits: with logits of 2500, one unit in
    the last place of float32 moves the weights by 1e-4, in one pass too.

    distinct
        Whether no two keys have the same logit; else logits are few and small, full of ties.
    """
    prompts, samples, kv_heads, group, head_dim, context_tokens, decoded_tokens = shape
    generator = torch.Generator().manual_seed(seed)

    def signs(*size: int) -> Tensor:
        return torch.randint(0, 2, size, generator=generator) * 2 - 1

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype)

    query = torch.zeros(prompts, samples, kv_heads * group, head_dim, dtype=dtype)
    query[..., :4] = signs(*query.shape[:-1], 4).to(dtype)
    context = (prompts, kv_heads, context_tokens, head_dim)
    decoded = (prompts, samples, kv_heads, decoded_tokens, head_dim)
    keys = [
        torch.randint(-2, 3, size, generator=generator).to(dtype) for size in (context, decoded)
    ]
    if distinct:
        ranks = torch.randperm(context_tokens + decoded_tokens, generator=generator).to(dtype)
        for part, own in zip(keys, ranks.split([context_tokens, decoded_tokens]), strict=True):
            part.zero_()
            part[..., 0] = own
    return query, keys[0], normal(*context), keys[1], normal(*decoded)


@EVERY_KERNEL
@pytest.mark.parametrize("magnification", [100.0, 2500.0])
@given(shape=sizes(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=3)
def test_large_logits_keep_every_kernel_exact(
    name: str, magnification: float, shape: tuple[int, ...], seed: int, reference: Reference
) -> None:
    """Logits of hundreds of thousands neither overflow nor lose a part of the keys."""
    for dtype, bound in BOUND.items():
        inputs = inputs_with_whole_logits(shape, dtype, seed, distinct=True)
        truth = reference(*inputs, scale=magnification)
        output = KERNELS[name].function(*inputs, scale=magnification)
        assert error(output, truth) <= bound


@EVERY_KERNEL
@pytest.mark.parametrize("magnification", [100.0, 2500.0])
@given(shape=sizes(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=3)
def test_ties_of_large_logits_cost_the_rounding_of_the_log_sum_exp(
    name: str, magnification: float, shape: tuple[int, ...], seed: int, reference: Reference
) -> None:
    """Where parts tie, a merge knows their weights as well as their log-sum-exps are rounded.

    One pass has no such error, so this bound grows with the logits; it is the price of every merge
    by log-sum-exp, whoever's.
    """
    for dtype, bound in BOUND.items():
        inputs = inputs_with_whole_logits(shape, dtype, seed, distinct=False)
        truth = reference(*inputs, scale=magnification)
        output = KERNELS[name].function(*inputs, scale=magnification)
        largest_logit = 8 * magnification
        largest_value = max(inputs[2].abs().amax() if inputs[2].numel() else 0, 5.0)
        rounding = torch.finfo(dtype).eps * largest_logit * largest_value
        assert error(output, truth) <= bound + (0 if _in_one_pass(name) else rounding)


def _in_one_pass(name: str) -> bool:
    """Return whether a kernel has no merge."""
    return name.endswith(("sum", "flex")) or (
        name.startswith("standard") and "expanded" not in name
    )


@EVERY_KERNEL
@pytest.mark.parametrize("magnification", [100.0, 2500.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_large_logits_in_16_bits(
    name: str, magnification: float, dtype: torch.dtype, reference: Reference
) -> None:
    """In 16 bits too, little more than the rounding of the output is left."""
    inputs = inputs_with_whole_logits((2, 3, 2, 7, 80, 129, 9), dtype, 1, distinct=False)
    truth = reference(*inputs, scale=magnification)
    output = KERNELS[name].function(*inputs, scale=magnification)
    spacing = torch.finfo(dtype).eps * truth.abs().max().item()
    assert error(output, truth) <= 1.5 * spacing


@EVERY_KERNEL
def test_the_scale_is_a_factor_on_the_logits(
    name: str, random_inputs: Draw, reference: Reference
) -> None:
    """A given scale replaces 1 / sqrt(head_dim), zero included."""
    inputs = random_inputs((1, 3, 2, 3, 64, 20, 5))
    for scale in (0.0, 0.3):
        output = KERNELS[name].function(*inputs, scale=scale)
        assert error(output, reference(*inputs, scale=scale)) <= 1e-12


@EVERY_KERNEL
def test_caches_may_be_slices_of_larger_buffers(
    name: str, random_inputs: Draw, reference: Reference
) -> None:
    """Preallocated caches, of which only a part is valid, give the same answer."""
    sizes_used = (2, 3, 2, 3, 64, 40, 7)
    inputs = random_inputs(sizes_used)
    buffers = [torch.full((*t.shape[:-2], 64, t.shape[-1]), torch.nan).double() for t in inputs[1:]]
    for buffer, used in zip(buffers, inputs[1:], strict=True):
        buffer[..., : used.shape[-2], :] = used
    sliced = [
        buffer[..., : used.shape[-2], :] for buffer, used in zip(buffers, inputs[1:], strict=True)
    ]
    output = KERNELS[name].function(inputs[0], *sliced)
    assert error(output, reference(*inputs)) <= 1e-12


@pytest.mark.parametrize("chunks", [1, 3, 7, 64])
def test_any_number_of_chunks_gives_the_same_answer(
    chunks: int, random_inputs: Draw, reference: Reference
) -> None:
    """A remainder, chunks of one token and more chunks than tokens are all exact."""
    from simulator.evidence.kernels.bifurcated import bifurcated_flash_chunked

    for shape in [(2, 3, 2, 3, 64, 50, 4), (1, 2, 1, 5, 64, 5, 0), (1, 2, 3, 1, 64, 0, 3)]:
        inputs = random_inputs(shape)
        output = bifurcated_flash_chunked(*inputs, chunks=chunks)
        assert error(output, reference(*inputs)) <= 1e-12


@given(
    level_tokens=st.lists(st.sampled_from([0, 1, 17, 64]), min_size=3, max_size=3),
    decoded_tokens=st.sampled_from([1, 9]),
    group=st.sampled_from([1, 3, 7]),
    samples=st.integers(1, 3),
)
@settings(deadline=None, max_examples=15)
def test_a_tree_of_any_depth_is_exact(
    level_tokens: list[int],
    decoded_tokens: int,
    group: int,
    samples: int,
    random_inputs: Draw,
    reference: Reference,
) -> None:
    """Few-shot examples for all, a document for two prompts each, a problem each, samples."""
    prompts, nodes = 4, (1, 2, 4)
    query, _, _, decoded_keys, decoded_values = random_inputs(
        (prompts, samples, 2, group, 64, 1, decoded_tokens)
    )
    generator = torch.Generator().manual_seed(5)
    levels = [
        [torch.randn(count, 2, tokens, 64, generator=generator).double() for _ in range(2)]
        for count, tokens in zip(nodes, level_tokens, strict=True)
    ]
    keys, values = ([level[part] for level in levels] for part in range(2))
    output = KERNELS["prefix_tree"].function(query, keys, values, decoded_keys, decoded_values)
    # What each prompt sees, written out: its node of every level, one after the other.
    whole_keys, whole_values = (
        torch.cat([level.repeat_interleave(prompts // len(level), dim=0) for level in part], dim=2)
        for part in (keys, values)
    )
    truth = reference(query, whole_keys, whole_values, decoded_keys, decoded_values)
    assert error(output, truth) <= 1e-12
