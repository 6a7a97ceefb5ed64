"""Arithmetic that takes a number or a numpy array, so one formula serves a point and a grid.

Plain numbers stay plain: a single question never imports numpy, integers stay exact at any size,
and the command line starts quickly. Arrays must be float64, which is exact up to 2**53.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# A Python number, or a numpy array that broadcasts with the others in the same formula. The type is
# Any, because plain numbers must not import numpy.
Numeric = Any
# Types of arrays and frames, for annotations: they need no import of numpy or pandas.
Array: TypeAlias = "np.ndarray"
Frame: TypeAlias = "pd.DataFrame"
Name = TypeVar("Name", bound=str)
# Larger whole numbers are not exact in float64: they are shown as computed.
LARGEST_EXACT = 2**53
# Types of plain numbers: a search for arrays among them would cost more than the arithmetic.
_PLAIN: Any = frozenset({int, float, bool})


def _arrays(*values: Numeric) -> Any | None:
    """Return the numpy module if any value is an array, else None."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        for value in values:  # any() would take twice as long, and all formulas pass here
            if isinstance(value, numpy.ndarray):
                return numpy
    return None


def maximum(first: Numeric, second: Numeric) -> Numeric:
    """Return the larger of two numbers, elementwise for arrays."""
    if first.__class__ in _PLAIN and second.__class__ in _PLAIN:
        return second if second > first else first  # noqa: FURB136  a call costs more
    numpy = _arrays(first, second)
    return max(first, second) if numpy is None else numpy.maximum(first, second)


def minimum(first: Numeric, second: Numeric) -> Numeric:
    """Return the smaller of two numbers, elementwise for arrays."""
    if first.__class__ in _PLAIN and second.__class__ in _PLAIN:
        return second if second < first else first  # noqa: FURB136  a call costs more
    numpy = _arrays(first, second)
    return min(first, second) if numpy is None else numpy.minimum(first, second)


def summed(values: Iterable[Numeric]) -> Numeric:
    """Return the sum, added in order, so that a point equals its place in a grid to the last bit.

    From Python 3.12 on, ``sum`` adds plain numbers more exactly than arrays.
    """
    return reduce(add, values, 0)


def where(condition: Numeric, if_true: Numeric, if_false: Numeric) -> Numeric:
    """Return ``if_true`` where the condition holds, else ``if_false``.

    Parameters
    ----------
    condition, if_true, if_false
        Numbers, or arrays that broadcast with each other.
    """
    if condition.__class__ is bool and if_true.__class__ in _PLAIN and if_false.__class__ in _PLAIN:
        return if_true if condition else if_false
    numpy = _arrays(condition, if_true, if_false)
    if numpy is None:
        return if_true if condition else if_false
    return numpy.where(condition, if_true, if_false)


def named(names: Sequence[Name], places: Numeric) -> Name:
    """Return the name at a place; for an array of places, an array of names.

    >>> named(("yes", "no"), 1)
    'no'
    """
    numpy = _arrays(places)
    if numpy is None:
        return names[places]
    # As references: an array of texts would hold each of them anew.
    found: Name = numpy.array(names, dtype=object).take(places)
    return found


def square_root(value: Numeric) -> Numeric:
    """Return the square root, elementwise for arrays."""
    if value.__class__ in _PLAIN:
        return math.sqrt(value)
    numpy = _arrays(value)
    return math.sqrt(value) if numpy is None else numpy.sqrt(value)


def surely_positive(value: Numeric) -> bool:
    """Return whether a number, or every element of an array, is known to be above zero.

    Use it only to skip work without effect: nothing is known about a symbol, so no result may
    depend on the answer.

    >>> surely_positive(2), surely_positive(0)
    (True, False)
    """
    numpy = _arrays(value)
    if numpy is None:
        return bool(value > 0)
    return type(value) is numpy.ndarray and value.size > 0 and bool(value.min() > 0)


def quotient(numerator: Numeric, denominator: Numeric) -> Numeric:
    """Return a quotient, of whole numbers as one if they divide.

    >>> quotient(12, 4), quotient(3, 4)
    (3, 0.75)
    """
    whole = numerator.__class__ is int and denominator.__class__ is int
    if whole and numerator % denominator == 0:
        return numerator // denominator
    return numerator / denominator


def floor_div(numerator: Numeric, denominator: Numeric) -> Numeric:
    """Return the quotient rounded down.

    Of whole numbers in arrays the divided and rounded quotient is exact too, and several times as
    fast as numpy's own.

    >>> floor_div(129, 128), floor_div(129, -128)
    (1, -2)
    """
    numpy = sys.modules.get("numpy")
    if numpy and numpy.ndarray in (numerator.__class__, denominator.__class__):
        return numpy.floor(numerator / denominator)
    return numerator // denominator


def ceil_div(numerator: Numeric, denominator: Numeric) -> Numeric:
    """Return the quotient rounded up.

    >>> ceil_div(129, 128)
    2
    """
    return -floor_div(numerator, -denominator)
