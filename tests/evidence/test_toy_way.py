"""The account of a new way of attention equals a trace of its PyTorch functions."""

import pytest

torch = pytest.importorskip("torch")

from collections.abc import Callable  # noqa: E402

import toy_way  # noqa: E402
from builders import as_traced, attention_shape  # noqa: E402
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.evidence.tracing import trace  # noqa: E402


def standard_linear(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend to each sequence's whole cache; inputs as of the package's standard kernels."""
    queries = torch.unflatten(query.flatten(0, 1), 1, (keys.shape[1], -1))
    logits = torch.einsum("bgpk,bgmk->bgpm", queries, keys)
    return torch.einsum("bgpm,bgmk->bgpk", logits, values).reshape(query.shape)


def bifurcated_linear(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
) -> Tensor:
    """Attend to the context for all samples at once, then to each sample's own tokens."""
    queries = torch.unflatten(query, 2, (context_keys.shape[1], -1))
    logits = torch.einsum("xbgpk,xgmk->xbgpm", queries, context_keys)
    context_output = torch.einsum("xbgpm,xgmk->xbgpk", logits, context_values)
    logits = torch.einsum("xbgpk,xbgmk->xbgpm", queries, decoded_keys)
    decoded_output = torch.einsum("xbgpm,xbgmk->xbgpk", logits, decoded_values)
    return (decoded_output + context_output).reshape(query.shape)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "standard_linear": standard_linear,
    "bifurcated_linear": bifurcated_linear,
}
# prompts, samples, KV heads, group, head width, context tokens, own tokens. Against a single key
# torch.einsum does not multiply matrices.
SIZES = st.tuples(
    st.sampled_from([1, 2, 3]),
    st.integers(1, 40),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 3, 4]),
    st.sampled_from([64, 80]),
    st.integers(2, 3000),
    st.integers(2, 200),
)


def whole(context: Tensor, decoded: Tensor) -> Tensor:
    """Return one cache for each sequence: [prompts * samples, kv_heads, tokens, head_dim]."""
    copies = context.unsqueeze(1).expand(-1, decoded.shape[1], -1, -1, -1)
    return torch.cat([copies, decoded], dim=3).flatten(0, 1)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(sizes=SIZES)
@example(sizes=(1, 16, 8, 4, 64, 1000, 64))
@example(sizes=(1, 1, 1, 1, 64, 2, 2))
@settings(deadline=None, max_examples=40)
def test_its_account_is_its_trace(
    name: str, sizes: tuple[int, ...], meta_inputs: Callable[..., tuple[Tensor, ...]]
) -> None:
    """FLOPs, bytes read and written, operation by operation, in the code's order."""
    prompts, samples, kv_heads, group, width, context, own = sizes
    inputs = meta_inputs(prompts, samples, kv_heads * group, kv_heads, width, context, own)
    if name == "standard_linear":
        query, context_keys, context_values, own_keys, own_values = inputs
        inputs = (query, whole(context_keys, own_keys), whole(context_values, own_values))
    [plain] = [each for each in toy_way.PLAIN_LINEAR if each.name == name]
    shape = attention_shape(sizes, resident=264)
    account = as_traced(plain.operations(shape))
    assert all(each.launches == 1 for each in account)
    assert [(each.flops, each.bytes_read, each.bytes_written) for each in account] == [
        (each.flops, each.bytes_read, each.bytes_written)
        for each in trace(FUNCTIONS[name], *inputs).operations
        if each.launches
    ]


def test_both_functions_say_the_same(random_inputs: Callable[..., tuple[Tensor, ...]]) -> None:
    """Outputs of context and own tokens add up to those of the whole cache."""
    query, context_keys, context_values, own_keys, own_values = random_inputs(
        (2, 3, 2, 4, 16, 9, 5)
    )
    standard = standard_linear(
        query, whole(context_keys, own_keys), whole(context_values, own_values)
    )
    bifurcated = bifurcated_linear(query, context_keys, context_values, own_keys, own_values)
    torch.testing.assert_close(standard, bifurcated)
