"""Every account in simulator/counts equals a trace of the kernel it is named after."""

import pytest

torch = pytest.importorskip("torch")

from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402

from builders import as_traced, attention_shape  # noqa: E402
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from layouts import lay_out  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.counts.attention.plain import merges_by_copy  # noqa: E402
from simulator.counts.attention.registry import PLAIN_KERNELS  # noqa: E402
from simulator.counts.attention.variants import CHUNKS  # noqa: E402
from simulator.counts.operation import Operation  # noqa: E402
from simulator.counts.transformer import attention  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.kernels import bifurcated as kernels_bifurcated  # noqa: E402
from simulator.evidence.tracing import TracedOperation, trace  # noqa: E402

Draw = Callable[..., tuple[Tensor, ...]]
Figures = tuple[float, float, float, int]  # FLOPs, bytes read, bytes written, launches
Sizes = tuple[int, int, int, int, int, int, int]

# prompts, samples, KV heads, group, head width, context tokens, own tokens
SIZES = st.tuples(
    st.sampled_from([1, 1, 2, 3]),
    st.one_of(st.integers(1, 40), st.sampled_from([64, 127, 256])),
    st.sampled_from([1, 2, 3, 8, 32]),
    st.sampled_from([1, 2, 3, 5, 7, 12]),
    st.sampled_from([64, 80, 128, 256]),
    st.one_of(st.sampled_from([1, 2, 127, 128, 129, 8192, 32768]), st.integers(1, 3000)),
    st.one_of(st.sampled_from([1, 2, 128, 300]), st.integers(1, 200)),
)
UNFUSED = ["standard_einsum", "standard_math", "bifurcated_einsum"]


def traced(
    name: str, sizes: Sizes, meta_inputs: Draw, dtype: torch.dtype = torch.bfloat16
) -> list[TracedOperation]:
    """Trace a kernel on caches laid out as it wants them."""
    prompts, samples, kv_heads, group, width, context, own = sizes
    kernel = KERNELS[name]
    inputs = meta_inputs(prompts, samples, kv_heads * group, kv_heads, width, context, own, dtype)
    return list(trace(kernel.function, *lay_out(kernel.layout, *inputs)).operations)


def summed(operations: list[TracedOperation]) -> Figures:
    """Add up kernels in a row."""
    return (
        sum(each.flops for each in operations),
        sum(each.bytes_read for each in operations),
        sum(each.bytes_written for each in operations),
        sum(each.launches for each in operations),
    )


def in_step(account: list[Operation], found: list[TracedOperation]) -> dict[str, Figures]:
    """Give each operation of an account as many traced kernels as it launches, in order."""
    rest = list(found)
    figures = {}
    for operation in account:
        count = int(operation.launches)
        figures[operation.name] = summed(rest[:count])
        del rest[:count]
    assert rest == [], "the trace goes on where the account has ended"
    return figures


def figures_of(account: list[Operation]) -> dict[str, Figures]:
    """Return what an account says, by operation."""
    return {
        each.name: (each.flops, each.bytes_read, each.bytes_written, each.launches)
        for each in account
    }


def expected(kernel: str, account: list[Operation], sizes: Sizes) -> dict[str, Figures]:
    """Return an account's figures, but for the products that a trace does not see as products.

    Against one key there is nothing to sum in <w,V>, so torch.einsum multiplies elementwise: the
    same bytes in one kernel, and no FLOPs that the counter counts.
    """
    figures = figures_of(account)
    *_, context, own = sizes
    single = {"": context + own, "_context": context, "_suffix": own}
    for part, tokens in single.items():
        name = f"attention_values{part}"
        if kernel.endswith("einsum") and tokens == 1 and name in figures:
            figures[name] = (0, *figures[name][1:])
    return figures


def test_every_kernel_has_an_account() -> None:
    """The registries have the same names, and the same chunks."""
    assert sorted(PLAIN_KERNELS) == sorted(KERNELS)
    assert [plain.name for plain in PLAIN_KERNELS.values()] == list(PLAIN_KERNELS)
    assert CHUNKS == kernels_bifurcated.CHUNKS


@pytest.mark.parametrize("name", KERNELS)
@given(sizes=SIZES, resident=st.sampled_from([1, 264]))
@example(sizes=(1, 16, 8, 4, 128, 8192, 64), resident=264)
@example(sizes=(2, 3, 2, 1, 64, 5, 1), resident=264)
@example(sizes=(2, 3, 2, 3, 64, 1, 1), resident=264)
@settings(deadline=None, max_examples=40)
def test_an_account_is_the_trace(name: str, sizes: Sizes, resident: int, meta_inputs: Draw) -> None:
    """FLOPs, bytes read, bytes written and launches, operation by operation, for any shape.

    With 264 resident blocks long keys are split: what passes between parts and their combine is in
    the account, marked as within the call that a trace sees.
    """
    account = as_traced(PLAIN_KERNELS[name].operations(attention_shape(sizes, resident=resident)))
    found = in_step(account, traced(name, sizes, meta_inputs))
    assert found == expected(name, account, sizes)


@pytest.mark.parametrize("name", UNFUSED)
@given(sizes=SIZES)
@settings(deadline=None, max_examples=15)
def test_float32_is_not_cast(name: str, sizes: Sizes, meta_inputs: Draw) -> None:
    """In float32 the math path is as many casts shorter; other kernels only move wider elements."""
    account = as_traced(
        PLAIN_KERNELS[name].operations(attention_shape(sizes, resident=1, element=4))
    )
    assert not [each.name for each in account if each.name.endswith("cast")]
    found = in_step(account, traced(name, sizes, meta_inputs, torch.float32))
    assert found == expected(name, account, sizes)


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"bifurcated_einsum"}))
@given(sizes=SIZES, empty=st.sampled_from([5, 6]))
@settings(deadline=None, max_examples=20)
def test_an_account_is_the_trace_without_context_or_own_tokens(
    name: str, sizes: Sizes, empty: int, meta_inputs: Draw
) -> None:
    """A part without keys is not launched, and nothing is merged."""
    sizes = (*sizes[:empty], 0, *sizes[empty + 1 :])  # type: ignore[assignment]
    account = as_traced(PLAIN_KERNELS[name].operations(attention_shape(sizes, resident=264)))
    found = in_step(account, traced(name, sizes, meta_inputs))
    assert found == expected(name, account, sizes)


@pytest.mark.parametrize("empty", ["context", "own"])
@given(sizes=SIZES)
@settings(deadline=None, max_examples=15)
def test_the_einsum_of_nothing_is_left_out(empty: str, sizes: Sizes, meta_inputs: Draw) -> None:
    """Without keys in one part the code still joins, fills with zeros and adds; engines do not.

    Those are all that a trace has beyond the account: the copy that joins one tensor, the product
    of nothing (no FLOPs, the output written), the sum, and the folded query that nobody reads.
    """
    index = 5 if empty == "context" else 6
    sizes = (*sizes[:index], 0, *sizes[index + 1 :])  # type: ignore[assignment]
    shape = attention_shape(sizes, resident=1)
    account = as_traced(PLAIN_KERNELS["bifurcated_einsum"].operations(shape))
    rest = Counter(summed([each]) for each in traced("bifurcated_einsum", sizes, meta_inputs))
    rest.subtract(expected("bifurcated_einsum", account, sizes).values())
    logits, output = shape.logits_bytes(sizes[5] + sizes[6]), shape.output_bytes
    wanted = Counter([(0, logits, logits, 1), (0, 0, output, 1), (0, 2 * output, output, 1)])
    if empty == "context" and merges_by_copy(shape):
        wanted[0, output, output, 1] += 1
    assert {figures: count for figures, count in rest.items() if count} == wanted


@given(sizes=SIZES)
@settings(deadline=None)
def test_only_splits_and_repeats_are_not_visible(sizes: Sizes) -> None:
    """What an account has and a trace has not: split-KV's partials and combine, and re-reads."""
    for name, plain in PLAIN_KERNELS.items():
        everything = plain.operations(attention_shape(sizes, resident=264))
        seen = as_traced(everything)
        hidden = [each for each in everything if each.launches and each.within]
        # Partials are written once and read once; the result is written by the combine instead.
        partials = sum(each.scratch_bytes for each in hidden)
        again = sum(each.reused_bytes for each in everything)
        for field, invisible in (("bytes_read", partials + again), ("bytes_written", partials)):
            whole, part = (
                sum(getattr(each, field) for each in listed) for listed in (everything, seen)
            )
            assert whole == part + invisible
        assert sum(each.flops for each in everything) == sum(each.flops for each in seen)
        assert all(each.name.endswith("_combine") for each in hidden)
        if name != "standard_flash_expanded":
            assert again == 0
        else:
            prompts, samples, kv_heads, _, width, context, _ = sizes
            assert again == (samples - 1) * prompts * 2 * kv_heads * context * width * 2


@pytest.mark.parametrize("name", sorted(set(KERNELS) & set(PLAIN_KERNELS)))
def test_a_setup_finds_the_account_of_its_kernel(name: str) -> None:
    """The words of a setup lead to the kernel they describe, as rows of measurements say."""
    known = KERNELS[name]
    if known.kernel != known.account or known.expand_kv:
        return  # chunked, flex, trees and repeats have no word of their own
    shape = attention_shape((2, 5, 2, 3, 64, 900, 33), resident=264)
    assert attention(shape, known.setup("bf16")) == PLAIN_KERNELS[name].operations(shape)
