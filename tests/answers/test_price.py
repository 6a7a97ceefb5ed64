"""Prices of hours and tokens."""

import math

import pytest
from builders import gpu

from simulator.answers.price import cost_per_million_tokens, price_per_hour
from simulator.errors import WorkloadError


def test_the_user_s_price_comes_first() -> None:
    """It replaces the profile's, counts for each GPU, and may be zero: owned cards."""
    card = gpu(price=2.5)
    assert price_per_hour(card, 8) == 20
    assert price_per_hour(card, 8, 1.25) == 10
    assert price_per_hour(card, 8, 0) == 0
    assert price_per_hour(gpu(), 2) is None
    assert price_per_hour(gpu(), 2, 3) == 6


@pytest.mark.parametrize("price", [-0.01, math.nan, math.inf, -math.inf])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    """The message has the option and the value."""
    with pytest.raises(WorkloadError, match=rf"^price_per_hour = {price} is not a price"):
        price_per_hour(gpu(), 1, price)


def test_a_million_tokens_by_hand() -> None:
    """1000 tokens/s are 3.6 million an hour: at 7.20 USD an hour, 2 USD a million."""
    assert cost_per_million_tokens(7.2, 1000) == pytest.approx(2)
    assert cost_per_million_tokens(0, 1000) == 0
