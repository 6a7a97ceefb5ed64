"""Search integers for where a monotone condition changes."""

from collections.abc import Callable


def smallest(condition: Callable[[int], bool], *, low: int, high: int) -> int | None:
    """Return the smallest integer in [low, high] for which a condition holds, None for none.

    The condition is expected to stay true once it is; it is tried at doubling steps and then
    halved in, so a few dozen trials cover any range.

    >>> smallest(lambda n: n * n >= 50, low=1, high=1000)
    8
    """
    if low > high:
        return None
    if condition(low):
        return low
    false, step = low, 1
    while True:
        trial = min(high, false + step)
        if condition(trial):
            break
        if trial == high:
            return None
        false, step = trial, step * 2
    true = trial
    while true - false > 1:
        middle = (false + true) // 2
        if condition(middle):
            true = middle
        else:
            false = middle
    return true


def largest(condition: Callable[[int], bool], *, low: int, high: int) -> int | None:
    """Return the largest integer in [low, high] for which a condition holds, None for none.

    The condition is expected to stay false once it is.

    >>> largest(lambda n: n * n <= 50, low=1, high=1000)
    7
    """
    if low > high or not condition(low):
        return None
    first_false = smallest(lambda value: not condition(value), low=low, high=high)
    return high if first_false is None else first_false - 1
