"""Prices of hours and tokens."""

import math
from pathlib import Path

import pytest
from builders import gpu

from simulator.answers.price import (
    as_gpus,
    cost_per_million_tokens,
    price_per_hour,
    priced_gpus,
    with_prices,
)
from simulator.errors import ProfileError, WorkloadError
from simulator.inputs.hardware import load_hardware


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


def test_a_file_of_one_s_own_prices(tmp_path: Path) -> None:
    """It replaces the profiles' prices, by any name of a card, and leaves the others."""
    path = tmp_path / "prices.toml"
    path.write_text('h100 = 1.5\n"RTX 4090" = 0\n', encoding="utf-8")
    own = {card.id: price_per_hour(card, 2) for card in with_prices(None, path)}
    assert own == {"h100-sxm": 3.0, "rtx-4090": 0.0}
    cards = [load_hardware("h100-sxm"), load_hardware("l40s")]
    first, second = with_prices(cards, path)
    assert price_per_hour(first, 1) == 1.5
    assert first.price_usd_per_hour is not None
    assert first.price_usd_per_hour.comparable
    assert second == cards[1]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("h100 = -1", WorkloadError, "h100 = -1 is not a price"),
        ("h100 = true", WorkloadError, "h100 = True is not a price"),
        ('h100 = "2"', WorkloadError, "h100 = '2' is not a price"),
        ("h100 = nan", WorkloadError, "h100 = nan is not a price"),
        (f"h100 = 1{'0' * 400}", WorkloadError, "h100 = 1000"),
        ("h100 = 1e15", WorkloadError, "h100 = 1000000000000000.0 is not a price"),
        ("h100 = 1e-320", WorkloadError, "h100 = 1e-320 is not a price"),
        ("h1000 = 2", ProfileError, "unknown GPU 'h1000'"),
        ("h100 = 2\nh100-sxm = 3", WorkloadError, "h100-sxm has a price already"),
        ("", WorkloadError, "has no price"),
        ("h100", WorkloadError, "prices.toml"),
    ],
)
def test_a_wrong_price_file_is_refused(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    """One line names the file and the entry."""
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error) as raised:
        with_prices(None, path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_cheap_card_without_flash_attention_is_tried_only_by_name() -> None:
    """A V100 at 0.14 USD/h would be the cheapest answer, which no engine's kernels carry."""
    volta = load_hardware("v100-sxm2-16gb")
    assert volta.price_usd_per_hour is not None
    assert volta not in priced_gpus()
    assert load_hardware("mi300x") in priced_gpus()
    assert as_gpus("v100-sxm2-16gb") == [volta]
