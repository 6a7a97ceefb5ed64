"""Arithmetic on numbers and on arrays."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.numeric import ceil_div, floor_div, maximum, minimum, summed, surely_positive, where
from simulator.views.explore.symbol import Recorder

COUNTS = st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20)


@pytest.mark.parametrize("function", [maximum, minimum])
@given(first=COUNTS, second=st.integers(-(10**9), 10**9))
def test_arrays_give_what_their_numbers_give(
    function: Callable, first: list[int], second: int
) -> None:
    """maximum and minimum of an array and a number are those of each of its numbers."""
    expected = [function(value, second) for value in first]
    assert function(np.array(first, dtype=float), second).tolist() == expected
    assert function(second, np.array(first, dtype=float)).tolist() == expected


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_a_sum_of_numbers_is_that_of_arrays_to_the_last_bit(values: list[float]) -> None:
    """From Python 3.12 on, sum() would add plain floats in another way."""
    assert summed(np.array([value]) for value in values).tolist() == [summed(values)]


@given(COUNTS)
def test_where_chooses_elementwise(values: list[int]) -> None:
    """An array condition chooses for each element, whatever the branches are."""
    array = np.array(values, dtype=float)
    chosen = where(array > 0, array, -1)
    assert chosen.tolist() == [value if value > 0 else -1 for value in values]


def test_a_plain_condition_may_choose_an_array() -> None:
    """A number's condition picks one of two arrays as a whole."""
    both = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    assert where(condition=True, if_true=both[0], if_false=both[1]).tolist() == [1, 2]
    assert where(condition=False, if_true=both[0], if_false=both[1]).tolist() == [3, 4]


@given(st.integers(0, 10**15), st.integers(1, 10**6))
def test_ceil_div_covers_and_does_not_overshoot(numerator: int, denominator: int) -> None:
    """q boxes of d hold n, q - 1 do not; arrays agree."""
    quotient = ceil_div(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator
    assert ceil_div(np.array([float(numerator)]), denominator).tolist() == [quotient]


@given(st.integers(1, 10**6), st.integers(1, 2**33), st.integers(-1, 1))
def test_arrays_divide_exactly_next_to_a_multiple(divisor: int, times: int, off: int) -> None:
    """Rounding the quotient of whole numbers below 2**53 never crosses one."""
    number = divisor * times + off
    for whole in floor_div(np.array([float(number)]), divisor), floor_div(number, divisor):
        assert whole == number // divisor
    assert floor_div(number, np.array([-float(divisor)])).tolist() == [number // -divisor]


def test_plain_numbers_stay_exact_integers() -> None:
    """Beyond 2**53 a float would lose the last digit; an int does not."""
    big = 2**60 + 1
    assert maximum(big, 1) == big
    assert ceil_div(big * 3, 3) == big
    assert isinstance(minimum(big, 10**30), int)


def test_plain_numbers_do_not_import_numpy() -> None:
    """A single what-if question never pays for importing numpy."""
    code = (
        "import sys; from simulator.numeric import maximum, where; maximum(1, 2); where(1, 2, 3); "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_what_is_known_everywhere_is_surely_positive() -> None:
    """One zero among many, nothing at all, or a symbol: not sure."""
    assert surely_positive(3)
    assert surely_positive(np.array([1.0, 2.0]))
    assert not surely_positive(0)
    assert not surely_positive(np.array([1.0, 0.0]))
    assert not surely_positive(np.array([]))
    assert not surely_positive(Recorder().variable("tokens"))
