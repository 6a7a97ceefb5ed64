"""The steps of a request against a sample that is followed through it token by token."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.request import decode_steps, last_own_tokens, own_tokens


def _followed(output_tokens: int, query_tokens: int, accepted_tokens: Fraction) -> list[int]:
    """Return the own tokens of each step, from what has been generated and what is cached."""
    generated, cached = Fraction(1), Fraction(0)
    own = []
    while generated < output_tokens:
        own.append(ceil(cached) + query_tokens)
        cached = generated - 1 + accepted_tokens  # kept drafts stay, the others are dropped
        generated += accepted_tokens
    return own


@given(st.integers(1, 700), st.integers(1, 16), st.data())
def test_steps_are_those_of_a_sample_that_is_followed(
    output_tokens: int, query_tokens: int, data: st.DataObject
) -> None:
    """How many steps, and the own tokens at each, in exact arithmetic; a number or an array."""
    tenths = data.draw(st.integers(10, 10 * query_tokens))
    accepted = Fraction(tenths, 10)
    own = _followed(output_tokens, query_tokens, accepted)
    assert decode_steps(output_tokens, float(accepted)) == len(own)
    steps = np.arange(1, len(own) + 1, dtype=np.float64)
    assert own_tokens(steps, query_tokens, float(accepted)).tolist() == own
    last = last_own_tokens(output_tokens, query_tokens, float(accepted))
    assert last == (own[-1] if own else 0)


@pytest.mark.parametrize("accepted_tokens", [1.1, 2.3, 3.7])
def test_long_requests_round_as_exact_arithmetic_does(accepted_tokens: float) -> None:
    """After ten million tokens products of a mean are off by no step and no token."""
    exact = Fraction(str(accepted_tokens))
    for output_tokens in (10**7, 10**7 - 1, 10**7 - 2):
        steps = ceil((output_tokens - 1) / exact)
        assert decode_steps(output_tokens, accepted_tokens) == steps
        own = ceil((steps - 1) * exact) + 4
        assert last_own_tokens(output_tokens, 4, accepted_tokens) == own
