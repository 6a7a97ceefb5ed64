"""Latent attention in PyTorch: every form is exact, and its account equals its trace."""

import pytest

torch = pytest.importorskip("torch")

from collections.abc import Iterable  # noqa: E402
from typing import Any  # noqa: E402

import latent_kernels  # noqa: E402
from builders import as_traced, latent_shape  # noqa: E402
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from latent_accounts import PLAIN_LATENT  # noqa: E402
from latent_kernels import expand  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.evidence.tracing import trace  # noqa: E402

# prompts, samples, heads, context tokens, own tokens
Sizes = tuple[int, int, int, int, int]
SIZES = st.tuples(
    st.sampled_from([1, 2, 3]),
    st.integers(1, 40),
    st.sampled_from([2, 3, 16]),
    st.integers(2, 3000),
    st.integers(2, 200),
)
NOPE, ROPE, RANK, VALUE = 8, 4, 24, 6
LATENT_KERNELS = {name: getattr(latent_kernels, name) for name in PLAIN_LATENT}
UNGROUPED = [name for name in LATENT_KERNELS if "grouped" not in name]
GROUPED = [name for name in LATENT_KERNELS if "grouped" in name]


def drawn(sizes: Sizes, device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Draw queries, cached vectors of context and samples, and both up-projections."""
    prompts, samples, heads, context, own = sizes
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (prompts, samples, heads, NOPE + ROPE),
        (prompts, context, RANK + ROPE),
        (prompts, samples, own, RANK + ROPE),
        (heads, NOPE, RANK),
        (heads, RANK, VALUE),
    )
    if device == "meta":
        return [torch.empty(shape, device=device, dtype=dtype) for shape in shapes]
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def inputs_of(name: str, given: list[Tensor]) -> list[Tensor]:
    """Lay out the inputs of one function."""
    query, context, own, key_up, value_up = given
    copies = context.unsqueeze(1).expand(-1, query.shape[1], -1, -1)
    whole = torch.cat([copies, own], dim=2).flatten(0, 1)
    return {
        "standard_latent": [query, whole, key_up, value_up],
        "standard_latent_expanded": [query, *expand(whole, key_up, value_up)],
        "bifurcated_latent": [query, context, own, key_up, value_up],
        "bifurcated_latent_mixed": [
            query,
            *expand(context, key_up, value_up),
            *(own, key_up, value_up),
        ],
    }[name]


def reference(given: list[Tensor]) -> Tensor:
    """Attend one query at a time, to the keys and values that each vector is expanded to."""
    query, context, own, key_up, value_up = given
    output = torch.empty(*query.shape[:3], VALUE, dtype=torch.float64)
    for x in range(query.shape[0]):
        for b in range(query.shape[1]):
            cached = torch.cat([context[x], own[x, b]])
            latent, rope = cached[:, :RANK], cached[:, RANK:]
            for h in range(query.shape[2]):
                keys = torch.cat([latent @ key_up[h].T, rope], dim=1)
                logits = keys @ query[x, b, h] / (NOPE + ROPE) ** 0.5
                weights = torch.exp(logits - logits.max())
                output[x, b, h] = (weights / weights.sum()) @ (latent @ value_up[h])
    return output


@pytest.mark.parametrize("name", UNGROUPED)
@pytest.mark.parametrize("sizes", [(2, 3, 4, 9, 5), (1, 1, 2, 2, 1), (1, 7, 3, 30, 2)])
def test_every_form_is_exact(name: str, sizes: Sizes) -> None:
    """To float64's last digits, the definition and all four functions are equal."""
    given = drawn(sizes, "cpu", torch.float64)
    found = LATENT_KERNELS[name](*inputs_of(name, given))
    torch.testing.assert_close(found, reference(given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", UNGROUPED)
@given(sizes=SIZES)
@example(sizes=(2, 3, 4, 50, 7))
@example(sizes=(1, 1, 128, 2, 2))
@settings(deadline=None, max_examples=30)
def test_an_account_is_the_trace(name: str, sizes: Sizes) -> None:
    """FLOPs, bytes read, bytes written and launches, operation by operation, in order."""
    shape = latent_shape(*sizes, nope=NOPE, rope=ROPE, rank=RANK, value=VALUE)
    account = as_traced(PLAIN_LATENT[name](shape))
    found = trace(LATENT_KERNELS[name], *inputs_of(name, drawn(sizes))).operations
    assert figures(account) == figures(found)


def grouped(
    name: str, sizes: Sizes, groups: int, device: str = "meta", dtype: torch.dtype = torch.bfloat16
) -> list[Any]:
    """Draw the inputs of a function of grouped latent attention, ``groups`` heads more."""
    query, context, own, key_up, value_up = drawn(sizes, device, dtype)
    context_rope, own_rope = context[..., RANK:], own[..., RANK:]
    vectors = [
        torch.randn(*shape, RANK, dtype=dtype).to(device)
        for shape in (
            (*context.shape[:1], groups, context.shape[1]),
            (*own.shape[:2], groups, own.shape[2]),
        )
    ]
    if name.startswith("bifurcated"):
        return [
            query,
            (vectors[0], context_rope.contiguous()),
            (vectors[1], own_rope.contiguous()),
            *(key_up, value_up),
        ]
    copies = [
        each.unsqueeze(1).expand(-1, sizes[1], *[-1] * (each.dim() - 1))
        for each in (vectors[0], context_rope)
    ]
    whole = [
        torch.cat([copy, each], dim=-2).flatten(0, 1)
        for copy, each in zip(copies, (vectors[1], own_rope), strict=True)
    ]
    return [query, *whole, key_up, value_up]


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("sizes", [(2, 3, 4, 9, 5), (1, 1, 2, 2, 1), (1, 7, 6, 30, 2)])
def test_grouped_latent_attention_is_that_of_each_group_alone(name: str, sizes: Sizes) -> None:
    """The heads of a group attend to its vector as MLA does, one query at a time."""
    torch.manual_seed(0)
    given = grouped(name, sizes, 2, "cpu", torch.float64)
    torch.manual_seed(0)
    query, (context, rope), (own, own_rope), key_up, value_up = grouped(
        "bifurcated", sizes, 2, "cpu", torch.float64
    )
    half = sizes[2] // 2
    alone = [
        reference(
            [
                query[:, :, heads],
                torch.cat([context[:, group], rope], -1),
                torch.cat([own[:, :, group], own_rope], -1),
                *(key_up[heads], value_up[heads]),
            ]
        )
        for group, heads in enumerate((slice(0, half), slice(half, None)))
    ]
    found = LATENT_KERNELS[name](*given)
    torch.testing.assert_close(found, torch.cat(alone, dim=2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", GROUPED)
@given(sizes=SIZES, groups=st.sampled_from([2, 4]))
@example(sizes=(2, 3, 4, 50, 7), groups=2)
@example(sizes=(1, 1, 128, 2, 2), groups=2)
@settings(deadline=None, max_examples=30)
def test_an_account_of_groups_is_the_trace(name: str, sizes: Sizes, groups: int) -> None:
    """As above; heads are a multiple of the groups."""
    sizes = (*sizes[:2], sizes[2] * groups, *sizes[3:])
    shape = latent_shape(*sizes, nope=NOPE, rope=ROPE, rank=RANK, value=VALUE, groups=groups)
    account = as_traced(PLAIN_LATENT[name](shape))
    found = trace(LATENT_KERNELS[name], *grouped(name, sizes, groups)).operations
    assert figures(account) == figures(found)


def figures(operations: Iterable[Any]) -> list[tuple[float, ...]]:
    """Return what each launched operation does."""
    return [
        (each.flops, each.bytes_read, each.bytes_written, each.launches)
        for each in operations
        if each.launches
    ]


def test_the_forms_differ_as_their_widths_do() -> None:
    """DeepSeek-V3: 1,088 against 320 multiply-adds a pair, 576 against 40,960 cached values."""
    shape = latent_shape(1, 2, 128, 100, 50, nope=128, rope=64, rank=512, value=128)
    around = ("latent_absorb", "latent_value")
    work = {
        name: (
            sum(each.flops for each in listed if each.name not in around) / (2 * 2 * 128),
            sum(each.kv_bytes_read for each in listed) / 2,
        )
        for name, account in PLAIN_LATENT.items()
        if name in UNGROUPED
        for listed in [account(shape)]
    }
    # <w,V> reads the vectors without their rotary part once more, 512 values.
    assert work == {
        "standard_latent": (1088 * 150, 2 * 150 * (576 + 512)),
        "standard_latent_expanded": (320 * 150, 2 * 150 * 40960),
        "bifurcated_latent": (1088 * 150, (100 + 2 * 50) * (576 + 512)),
        "bifurcated_latent_mixed": (320 * 100 + 1088 * 50, 100 * 40960 + 2 * 50 * (576 + 512)),
    }
