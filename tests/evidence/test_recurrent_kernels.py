"""The recurrences in PyTorch: what they compute, and that accounts have their FLOPs and bytes."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from recurrent_kernels import convolution_step, decay_step, delta_step  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from simulator.counts.attention.linear import LinearShape, convolution, recurrence  # noqa: E402
from simulator.inputs.model import Rule  # noqa: E402

# batch, heads of keys, states for each, key width, value width
SIZES = st.tuples(*[st.integers(1, 5)] * 3, st.integers(2, 33), st.integers(2, 33))


def drawn(sizes: tuple[int, ...], *, tokens: int, device: str = "cpu") -> dict[str, Any]:
    """Draw what some tokens bring: queries, keys, values, decays and strengths."""
    batch, k_heads, group, k_dim, v_dim = sizes
    heads, place = k_heads * group, {"dtype": torch.float64, "device": device}
    return {
        "query": torch.randn(tokens, batch, k_heads, k_dim, **place),
        "key": torch.randn(tokens, batch, k_heads, k_dim, **place) / k_dim,
        "value": torch.randn(tokens, batch, heads, v_dim, **place),
        "decay": torch.rand(tokens, batch, heads, 1, **place),
        "strength": torch.rand(tokens, batch, heads, 1, **place),
    }


def test_a_decayed_state_is_attention_with_weights_that_fade() -> None:
    """The output is the sum over tokens s of q k_s (decays after s) v_s, without any state."""
    tokens, found = drawn((2, 3, 2, 5, 7), tokens=9), []
    state = torch.zeros(2, 6, 5, 7, dtype=torch.float64)
    for t in range(9):
        given_now = {name: tokens[name][t] for name in ("query", "key", "value", "decay")}
        output, state = decay_step(state, **given_now)
        found.append(output)
    keys, queries = (tokens[name].repeat_interleave(2, dim=2) for name in ("key", "query"))
    faded = torch.cumsum(torch.log(tokens["decay"][..., 0]), dim=0)
    for t in range(9):
        weights = (queries[t] * keys[: t + 1]).sum(-1) * torch.exp(faded[t] - faded[: t + 1])
        wanted = (weights[..., None] * tokens["value"][: t + 1]).sum(0)
        torch.testing.assert_close(found[t], wanted)


def test_a_delta_rule_replaces_what_a_key_recalls() -> None:
    """With a key of length one, full strength and no decay, reading the key gives its value."""
    tokens = drawn((2, 3, 2, 5, 7), tokens=1)
    key = torch.nn.functional.normalize(tokens["key"][0], dim=-1)
    state = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    ones = torch.ones(2, 6, 1, dtype=torch.float64)
    value = tokens["value"][0]
    read, _ = delta_step(state, key, key, value, ones, ones)
    torch.testing.assert_close(read, value)
    kept, same = delta_step(state, key, key, value, ones, 0 * ones)
    torch.testing.assert_close(same, state)
    torch.testing.assert_close(
        kept, torch.einsum("bhkv,bhk->bhv", state, key.repeat_interleave(2, dim=1))
    )


def test_steps_of_a_convolution_are_torchs_convolution() -> None:
    """Token by token as all at once."""
    inputs, taps = torch.randn(3, 6, 10), torch.randn(6, 4)
    window = torch.zeros(3, 6, 3)
    outputs = []
    for token in inputs.unbind(-1):
        output, window = convolution_step(window, token, taps)
        outputs.append(output)
    wanted = torch.nn.functional.conv1d(
        torch.nn.functional.pad(inputs, (3, 0)), taps[:, None], groups=6
    )
    torch.testing.assert_close(torch.stack(outputs, dim=-1), wanted)
    torch.testing.assert_close(window, inputs[..., -3:])


@pytest.mark.parametrize("rule", ["delta", "channel_delta", "decay"])
@given(sizes=SIZES)
@settings(deadline=None, max_examples=25)
def test_the_account_has_the_flops_and_the_states_of_the_code(
    rule: Rule, sizes: tuple[int, ...]
) -> None:
    """Every product that torch counts; each state written once, in fp32."""
    batch, k_heads, group, k_dim, v_dim = sizes
    tokens = {name: each[0] for name, each in drawn(sizes, tokens=1, device="meta").items()}
    state = torch.empty(batch, k_heads * group, k_dim, v_dim, device="meta")
    if rule == "channel_delta":
        tokens["decay"] = tokens["decay"].expand(-1, -1, k_dim)
    if rule == "decay":
        del tokens["strength"]
    with FlopCounterMode(display=False) as counter:
        step = decay_step if rule == "decay" else delta_step
        output, new = step(state.double(), **tokens)
    shape = LinearShape(
        batch=batch, k_heads=k_heads, k_dim=k_dim, v_heads=k_heads * group, v_dim=v_dim, rule=rule
    )
    account = recurrence(shape)
    assert counter.get_total_flops() == account.flops
    assert account.bytes_written == 4 * new.numel() + 2 * output.numel()


def test_the_account_of_a_convolution_has_its_window() -> None:
    """Two sequences, six channels, four taps: 12 inputs and 36 kept ones, in and out."""
    output, window = convolution_step(torch.ones(2, 6, 3), torch.ones(2, 6), torch.ones(6, 4))
    shape = LinearShape(batch=2, k_heads=0, k_dim=0, v_heads=6, v_dim=1, taps=4)
    account = convolution(shape, stepped=False)
    assert account.bytes_written == 2 * (output.numel() + window.numel())
    assert account.bytes_read == account.bytes_written
