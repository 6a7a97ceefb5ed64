"""How two times add that overlap."""

import math

from simulator.numeric import Numeric, maximum, square_root

# Powers that need nothing but square roots, each up to where the next is nearer.
_POWERS = ((1, 1.5), (2, 3.0), (4, 8.0))


def norm(first: Numeric, second: Numeric, power: float) -> Numeric:
    """Return how two times add that overlap: ``(x^p + y^p)^(1/p)`` for p of 1, 2, 4 or infinity.

    A power between is taken as the nearest of these, which need nothing but square roots.

    >>> norm(3.0, 4.0, 1), norm(3.0, 4.0, 2), norm(3.0, 4.0, 100)
    (7.0, 5.0, 4.0)
    """
    power = overlap_power(power)
    if power == 1:
        return first + second
    if power == math.inf:
        return maximum(first, second)
    first, second = first * first, second * second
    if power == 2:  # noqa: PLR2004
        return square_root(first + second)
    return square_root(square_root(first * first + second * second))


def overlap_power(power: float) -> float:
    """Return the power of a norm that is computed for a fitted one: 1, 2, 4 or infinity.

    >>> overlap_power(1.2), overlap_power(1.7), overlap_power(3), overlap_power(16)
    (1, 2, 4, inf)
    """
    return next((known for known, limit in _POWERS if power < limit), math.inf)
