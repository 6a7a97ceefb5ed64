"""Tools for the tests of kernels and traces; without torch there is nothing to collect."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    Draw = Callable[..., tuple[Tensor, ...]]

if find_spec("torch") is None:
    collect_ignore_glob = ["test_kernels*.py", "test_tracing*.py"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Run torch on one thread: the tensors are small, and tests share the machine."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def meta_inputs() -> Draw:
    """A function that makes a kernel's inputs on the meta device."""
    import torch

    def make(
        prompts: int,
        samples: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        context_tokens: int,
        decoded_tokens: int,
        dtype: torch.dtype = torch.bfloat16,
    ) -> tuple[Tensor, ...]:
        def empty(*sizes: int) -> Tensor:
            return torch.empty(*sizes, dtype=dtype, device="meta")

        return (
            empty(prompts, samples, heads, head_dim),
            empty(prompts, kv_heads, context_tokens, head_dim),
            empty(prompts, kv_heads, context_tokens, head_dim),
            empty(prompts, samples, kv_heads, decoded_tokens, head_dim),
            empty(prompts, samples, kv_heads, decoded_tokens, head_dim),
        )

    return make


@pytest.fixture(scope="session")
def random_inputs() -> Draw:
    """A function that draws a kernel's inputs, logits of standard deviation ``logit_scale``."""
    import torch

    def draw(
        sizes: tuple[int, ...],
        dtype: torch.dtype = torch.float64,
        *,
        seed: int = 0,
        logit_scale: float = 1.0,
    ) -> tuple[Tensor, ...]:
        prompts, samples, kv_heads, group, head_dim, context_tokens, decoded_tokens = sizes
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        inputs = (
            normal(prompts, samples, kv_heads * group, head_dim) * logit_scale,
            normal(prompts, kv_heads, context_tokens, head_dim),
            normal(prompts, kv_heads, context_tokens, head_dim),
            normal(prompts, samples, kv_heads, decoded_tokens, head_dim),
            normal(prompts, samples, kv_heads, decoded_tokens, head_dim),
        )
        return tuple(tensor.to(dtype) for tensor in inputs)

    return draw


@pytest.fixture(scope="session")
def reference() -> Callable[..., Tensor]:
    """Attention in float64, one query at a time, straight from its definition."""
    import torch

    def attend(
        query: Tensor,
        context_keys: Tensor,
        context_values: Tensor,
        decoded_keys: Tensor,
        decoded_values: Tensor,
        scale: float | None = None,
    ) -> Tensor:
        prompts, samples, heads, head_dim = query.shape
        group = heads // context_keys.shape[1]
        factor = head_dim**-0.5 if scale is None else scale
        output = torch.empty(query.shape, dtype=torch.float64)
        for prompt in range(prompts):
            for sample in range(samples):
                for head in range(heads):
                    kv_head = head // group
                    parts = (
                        (context_keys[prompt, kv_head], decoded_keys[prompt, sample, kv_head]),
                        (context_values[prompt, kv_head], decoded_values[prompt, sample, kv_head]),
                    )
                    keys, values = (torch.cat(pair).double() for pair in parts)
                    logits = keys @ query[prompt, sample, head].double() * factor
                    weights = torch.exp(logits - logits.max())
                    output[prompt, sample, head] = (weights / weights.sum()) @ values
        return output

    return attend
