"""Sizes as people type and read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import (
    format_gib,
    format_si,
    format_time,
    format_tokens,
    is_power_of_two,
    parse_count,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("128", 128),
        ("8k", 8000),
        ("8K", 8192),
        ("1.5K", 1536),
        ("2m", 2_000_000),
        ("2M", 2 * 1024 * 1024),
        ("1g", 10**9),
        ("1G", 2**30),
        (" 8_192 ", 8192),
        ("10,000", 10_000),
        ("1.005k", 1005),  # 1.005 x 1000 is 1004.9999... in floating point
        ("8192.0", 8192),
        (64, 64),
    ],
)
def test_counts_read_as_vllm_reads_them(text: str | int, count: int) -> None:
    """A small suffix is decimal, a capital one binary, and decimals are exact."""
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["16,32", "1,2,4", "8,", ",8", "1_6", "8K,16K"])
def test_a_list_is_no_count(text: str) -> None:
    """Commas part thousands: several sizes at once are refused, not run together."""
    with pytest.raises(ValueError, match="is not a count"):
        parse_count(text)


@pytest.mark.parametrize("text", ["", "8kb", "-1", "1e3", "nan", "inf", "K", "1.5", "0.3K", "8 K"])
def test_what_is_no_count_is_refused(text: str) -> None:
    """Signs, exponents, unknown suffixes and fractions of a token are quoted and refused."""
    with pytest.raises(ValueError, match=f"^'{text}' is not"):
        parse_count(text)


@given(st.integers(0, 10**12))
def test_a_count_survives_being_typed(count: int) -> None:
    """Plain, in thousands with decimals, and in 1024s with decimals, the count comes back."""
    assert parse_count(count) == parse_count(str(count)) == parse_count(f"{count:,}") == count
    assert parse_count(f"{count // 1000}.{count % 1000:03}k") == count
    # A tenth binary digit is a tenth decimal digit: 1 / 1024 has ten decimals.
    assert parse_count(f"{count // 1024}.{count % 1024 * 5**10:010}K") == count


@given(st.integers(0, 2**40))
def test_formatted_tokens_read_back(tokens: int) -> None:
    """What tables print as a token count can be typed in again."""
    assert parse_count(format_tokens(tokens)) == tokens


@given(st.floats(1e-3, 1e20))
def test_formatted_quantities_keep_three_digits(value: float) -> None:
    """A quantity read back from its text is right to half of the third digit."""
    number, unit = format_si(value, "B").split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=0.006)


@given(st.floats(1e-9, 1e5))
def test_formatted_times_keep_three_digits(seconds: float) -> None:
    """A time read back from its text is right to half of the third digit."""
    number, unit = format_time(seconds).split()
    factor = {"µs": 1e-6, "ms": 1e-3, "s": 1}[unit]
    assert float(number.replace(",", "")) * factor == pytest.approx(seconds, rel=0.006)


def test_what_is_not_finite_is_written_as_it_is() -> None:
    """An infinite or missing value does not break a table."""
    assert format_si(math.inf, "B") == "inf B"
    assert format_time(math.nan) == "nan s"


def test_memory_is_in_gib() -> None:
    """80 GB are 74.5 GiB: 80e9 / 2**30."""
    assert format_gib(80e9) == "74.5 GiB"


@pytest.mark.parametrize(
    ("value", "text"), [(-69_256_347_648, "-69.3 GB"), (1e15, "1.00 PB"), (999, "999 B")]
)
def test_quantities_have_decimal_prefixes(value: float, text: str) -> None:
    """Bytes are decimal, as in the vendors' bandwidths."""
    assert format_si(value, "B") == text


def test_powers_of_two_are_the_whole_ones() -> None:
    """Of all numbers up to 5,000 just 2^0 to 2^12 are powers of two, and nothing below 1 is."""
    assert [n for n in range(5000) if is_power_of_two(n)] == [2**k for k in range(13)]
    assert not any(map(is_power_of_two, (0.25, 0.5, -1, -4)))
