"""Several query tokens in one step: kernels are exact, and their accounts equal traces."""

from collections.abc import Callable

import pytest
import torch
from builders import as_traced
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layouts import lay_out
from torch import Tensor

from simulator.counts.attention.registry import PLAIN_KERNELS
from simulator.counts.attention.shape import AttentionShape
from simulator.errors import KernelError
from simulator.evidence.kernels import KERNELS
from simulator.evidence.tracing import trace

Draw = Callable[..., tuple[Tensor, ...]]
Reference = Callable[..., Tensor]
# prompts, samples, query tokens, KV heads, group, head width, context tokens, own tokens
Sizes = tuple[int, int, int, int, int, int, int, int]
SEVERAL = [name for name, kernel in KERNELS.items() if kernel.takes_several_tokens]
EVERY = pytest.mark.parametrize("name", SEVERAL)


@st.composite
def sizes(draw: st.DrawFn, *, longest_context: int = 40) -> Sizes:
    """Draw sizes in which every sample holds its new tokens."""
    tokens = draw(st.sampled_from([1, 2, 3, 5, 8]))
    return (
        draw(st.sampled_from([1, 1, 2, 3])),
        draw(st.sampled_from([1, 2, 4])),
        tokens,
        draw(st.sampled_from([1, 2, 3])),
        draw(st.sampled_from([1, 2, 4])),
        draw(st.sampled_from([64, 128])),
        draw(st.integers(0, longest_context)),
        tokens + draw(st.sampled_from([0, 1, 9])),
    )


def for_kernel(name: str, inputs: tuple[Tensor, ...]) -> tuple[object, ...]:
    """Lay the caches out as the kernel of that name wants them; levels are lists for a tree."""
    query, *caches = lay_out(KERNELS[name].layout, *inputs)
    if name == "prefix_tree":
        return query, [caches[0]], [caches[1]], caches[2], caches[3]
    return query, *caches


@EVERY
@given(drawn=sizes(), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=8)
def test_kernels_are_exact(
    name: str, drawn: Sizes, seed: int, random_inputs: Draw, reference: Reference
) -> None:
    """Each new token attends to the context and to the own tokens up to itself, no further."""
    prompts, samples, tokens, kv_heads, group, width, context, own = drawn
    one = (prompts, samples, kv_heads, group, width, context, own)
    _, *caches = random_inputs(one, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    size = (prompts, samples, tokens, kv_heads * group, width)
    query = torch.randn(size, generator=generator, dtype=torch.float64)
    output = KERNELS[name].function(*for_kernel(name, (query, *caches))).reshape(query.shape)
    for index in range(tokens):
        seen = own - tokens + index + 1
        shorter = (*caches[:2], *(part[..., :seen, :] for part in caches[2:]))
        truth = reference(query[:, :, index], *shorter)
        assert (output[:, :, index] - truth).abs().max() <= 1e-12


@EVERY
@given(drawn=sizes(longest_context=3000), resident=st.sampled_from([1, 264]))
@settings(deadline=None, max_examples=25)
def test_accounts_are_traces(name: str, drawn: Sizes, resident: int, meta_inputs: Draw) -> None:
    """FLOPs, bytes and launches of n query tokens, kernel by kernel.

    FLOPs are those of n x (m_c + m_d) pairs: the counter, like the account, takes whole tiles.
    """
    prompts, samples, tokens, kv_heads, group, width, context, own = drawn
    # What a product with no or one key is traced as has tests of its own, with one query token.
    assume("flash" in name or (context > 1 and own > 1))
    heads = kv_heads * group
    shape = AttentionShape(
        prompts=prompts,
        samples=samples,
        query_tokens=tokens,
        context_tokens=context,
        decoded_tokens=own,
        heads=heads,
        kv_heads=kv_heads,
        key_width=width,
        value_width=width,
        cache_width=2 * kv_heads * width,
        activation_bytes=2,
        kv_bytes=2,
        dtype="bf16",
        resident_blocks=resident,
    )
    _, *caches = meta_inputs(prompts, samples, heads, kv_heads, width, context, own)
    query = torch.empty(prompts, samples, tokens, heads, width, dtype=torch.bfloat16, device="meta")
    ready = KERNELS[name].with_masks(tokens, [context + own], "meta")
    found = trace(ready, *for_kernel(name, (query, *caches))).operations
    rest = [(each.flops, each.bytes_read, each.bytes_written, each.launches) for each in found]
    for each in as_traced(PLAIN_KERNELS[name].operations(shape)):
        kernels, rest = rest[: int(each.launches)], rest[int(each.launches) :]
        figures = (each.flops, each.bytes_read, each.bytes_written, each.launches)
        assert figures == tuple(map(sum, zip(*kernels, strict=True))), each.name
    assert rest == []


@pytest.mark.parametrize("tokens", [1, 3])
def test_levels_of_a_tree_are_their_paths(tokens: int) -> None:
    """Attention over levels is attention over each prompt's path from the root, all at once."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    # nodes, tokens: a root, two tasks, four prompts, and three samples of each with 5 own tokens
    shapes = [(1, 7), (2, 4), (4, 9)]
    keys, values = ([normal(nodes, 2, long, 64) for nodes, long in shapes] for _ in range(2))
    own = normal(4, 3, 2, 5, 64), normal(4, 3, 2, 5, 64)
    query = normal(4, 3, tokens, 6, 64)
    paths = [
        torch.cat([part.repeat_interleave(4 // part.shape[0], dim=0) for part in parts], dim=2)
        for parts in (keys, values)
    ]
    found = KERNELS["prefix_tree"].function(query, keys, values, *own)
    assert (found - KERNELS["standard_einsum"].function(query, *paths, *own)).abs().max() <= 1e-12
    if tokens == 1:
        one = KERNELS["prefix_tree"].function(query[:, :, 0], keys, values, *own)  # type: ignore[arg-type]
        assert (found[:, :, 0] - one).abs().max() <= 1e-14


@EVERY
def test_fewer_keys_than_new_tokens_are_refused(name: str, random_inputs: Draw) -> None:
    """The new tokens' own keys must be in the cache."""
    _, *caches = random_inputs((1, 2, 2, 2, 64, 0, 3))
    query = torch.zeros(1, 2, 4, 4, 64, dtype=torch.float64)
    with pytest.raises(KernelError, match="4 query tokens, but a sample has 3 "):
        KERNELS[name].function(query, *caches)
    with pytest.raises(KernelError, match=r"or \[prompts, samples, query_tokens"):
        KERNELS[name].function(query.unsqueeze(0), *caches)


@EVERY
def test_one_token_may_leave_out_its_axis(name: str, random_inputs: Draw) -> None:
    """A query of one token gives the same, bit by bit, with and without the axis of tokens."""
    query, *caches = random_inputs((2, 3, 2, 2, 64, 10, 4))
    with_axis = KERNELS[name].function(query.unsqueeze(2), *caches)
    assert torch.equal(with_axis.squeeze(2), KERNELS[name].function(query, *caches))


def test_flexattention_takes_one_token(random_inputs: Draw) -> None:
    """Its mask is not causal among new tokens, so several are refused in one line."""
    assert set(KERNELS) - set(SEVERAL) == {"bifurcated_flex"}
    query, *caches = random_inputs((1, 2, 2, 2, 64, 10, 4))
    several = query.unsqueeze(2).expand(-1, -1, 3, -1, -1)
    with pytest.raises(KernelError, match="bifurcated_flex takes one query token, not 3"):
        KERNELS["bifurcated_flex"].function(several, *caches)


def test_one_token_takes_flash_attentions_fast_path(
    meta_inputs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No causal flag and no mask for one token; several have the flag and share KV heads."""
    calls = []
    native = torch.ops.aten._scaled_dot_product_flash_attention

    def spy(query: Tensor, keys: Tensor, values: Tensor, **options: object) -> object:
        calls.append((query.shape[1] // keys.shape[1], options.get("is_causal", False)))
        return native(query, keys, values, **options)

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention", spy)
    query, *caches = meta_inputs(2, 3, 8, 2, 64, 100, 7)
    for name in SEVERAL:
        if "flash" in name or name in ("standard_rebuilt", "prefix_tree"):
            KERNELS[name].function(query, *caches)
    assert {causal for _, causal in calls} == {False}
    calls.clear()
    KERNELS["standard_flash"].function(query.unsqueeze(2).expand(-1, -1, 4, -1, -1), *caches)
    assert calls == [(4, True)]
