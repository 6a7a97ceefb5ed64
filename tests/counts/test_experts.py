"""Routing decides which experts' weights are read; the rest of a layer follows from its pairs."""

import numpy as np
import pytest
from builders import model, step_operations
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.experts import RoutedExperts, visited_experts
from simulator.counts.operation import Operation
from simulator.inputs.formats import NAMED_FORMATS
from simulator.inputs.model import Experts
from simulator.inputs.setup import ROUTINGS

SIZES = st.tuples(st.integers(1, 512), st.integers(1, 16)).filter(lambda pair: pair[1] <= pair[0])


def routed(**changes: object) -> dict[str, Operation]:
    """Return 3 tokens' 6 visits of 5 among 8 experts, of width 16 and inner width 32."""
    sizes: dict[str, object] = {
        "tokens": 3,
        "count": 8,
        "pairs": 6,
        "visited": 5,
        "held": 8,
        "even": False,
        "hidden": 16,
        "inner": 32,
        "ups": 2,
        "activations": "bf16",
        "stored": "bf16",
        "multiplied": "bf16",
        **changes,
    }
    sizes["stored"] = NAMED_FORMATS[str(sizes["stored"])]
    layer = RoutedExperts(**sizes)  # type: ignore[arg-type]
    return {item.name: item for item in layer.operations()}


def test_balanced_tokens_take_the_experts_in_turn() -> None:
    """16 tokens with 8 experts each: 128 of 256; 64 tokens visit all."""
    assert visited_experts(256, 8, 16, routing="balanced") == 128
    assert visited_experts(256, 8, 64, routing="balanced") == 256


@pytest.mark.parametrize(
    ("tokens", "exponent", "drawn"),
    [(8, 1.01, 63.5), (32, 1.01, 131.3), (128, 1.01, 208.5), (1024, 1.2, 251.3), (64, 1.2, 189.2)],
)
def test_skewed_loads_visit_what_a_benchmark_draws(
    tokens: int, exponent: float, drawn: float
) -> None:
    """256 experts, 8 per token: means of 6 draws of aiconfigurator's generator (its moe rows)."""
    found = visited_experts(256, 8, tokens, routing="skewed", exponent=exponent)
    assert found == pytest.approx(drawn, rel=0.2 if tokens < 64 else 0.05)


def test_the_closed_form_counts_the_loads_above_the_threshold() -> None:
    """Loads at the quantiles of the density, scaled to all visits: how many exceed 0.4."""
    count, per_token, tokens, exponent = 512, 10, 256, 1.2
    most, power = 0.8 * tokens, 1 - exponent
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    loads = ((most**power - 1) * quantiles + 1) ** (1 / power)
    loads *= tokens * per_token / count / loads.mean()
    expected = count * float((loads >= 0.4).mean())
    found = visited_experts(count, per_token, tokens, routing="skewed", exponent=exponent)
    assert found == pytest.approx(expected, rel=1e-3)


@given(SIZES, st.integers(1, 10_000), st.sampled_from(ROUTINGS), st.floats(1.01, 1.9))
def test_no_more_experts_than_there_are_or_than_visits(
    sizes: tuple[int, int], tokens: int, routing: str, exponent: float
) -> None:
    """At least those of one token, at most all, at most one for each visit; balanced has most."""
    how = {"routing": routing, "exponent": exponent}
    found = visited_experts(*sizes, tokens, **how)  # type: ignore[arg-type]
    assert sizes[1] * (1 - 1e-9) <= found <= min(sizes[0], sizes[1] * tokens) * (1 + 1e-9)
    assert found <= visited_experts(*sizes, tokens, routing="balanced") * (1 + 1e-9)


@given(SIZES, st.sampled_from(ROUTINGS))
def test_routing_takes_arrays(sizes: tuple[int, int], routing: str) -> None:
    """An array of tokens gives what its numbers give."""
    tokens = np.array([1.0, 7.0, 64.0, 4096.0])
    how = {"routing": routing, "exponent": 1.2}
    single = [visited_experts(*sizes, int(each), **how) for each in tokens]  # type: ignore[arg-type]
    assert visited_experts(*sizes, tokens, **how) == pytest.approx(single)  # type: ignore[arg-type]


def test_each_product_reads_visited_weights_and_every_pair() -> None:
    """Up: 5 x 16 x 64 weights and 6 x 16 values in, 6 x 64 out; down: 32 wide back to 16."""
    found = routed()
    up, down = found["experts_up"], found["experts_down"]
    assert up.weight_bytes_read == 5 * 16 * 64 * 2
    assert up.bytes_read == up.weight_bytes_read + 6 * 16 * 2
    assert (up.bytes_written, up.flops) == (6 * 64 * 2, 2 * 6 * 16 * 64)
    assert (down.k, down.n, down.m, down.groups, down.held) == (32, 16, 6, 5, 8)
    assert found["expert_gather"].bytes_written == 6 * 16 * 2
    assert "experts_up_quantise" not in found


def test_low_precision_products_have_their_inputs_quantised() -> None:
    """Tokens before they are gathered, pairs before the second product; expanded weights not."""
    found = routed(stored="fp8", multiplied="fp8")
    assert found["experts_up_quantise"].bytes_read == 3 * 16 * 2
    assert found["experts_down_quantise"].bytes_written == 6 * 32
    assert found["experts_up"].bytes_read == 5 * 16 * 64 + 6 * 16
    expanded = routed(stored="int4")
    assert expanded["experts_up"].weights == "int4"
    # Half a byte, and a 16-bit scale for 128 weights.
    assert expanded["experts_up"].weight_bytes_read == 5 * 16 * 64 * (0.5 + 2 / 128)
    assert "experts_up_quantise" not in expanded


def test_routing_changes_the_weights_of_a_step_and_nothing_else_is_read() -> None:
    """4 tokens, 2 of 8 experts each: 8 visited in turn, 5.47 at random."""
    experts = Experts(count=8, per_token=2, intermediate_size=8)
    shape = model(experts=experts)

    def visited(**how: str) -> float:
        named = {item.name: item for item in step_operations(shape, samples=4, **how)}
        return float(named["experts_up"].groups)

    assert visited(routing="balanced") == 8
    assert visited() == pytest.approx(8 * (1 - 0.75**4))
    assert 2 <= visited(routing="skewed") <= 8
