"""Search integers for the point where a condition changes, or changes for the last time."""

from collections.abc import Callable

# Integers tried per doubling while a ratio is near 1, and the distance from 1 that counts as safe:
# waves of thread blocks and tiles move the ratio by less.
PER_OCTAVE, SAFE_RATIO = 8, 1.1


def smallest(condition: Callable[[int], bool], *, low: int, high: int) -> int | None:
    """Return the smallest integer in [low, high] for which a condition holds, None if none does.

    The condition must stay true once it is true. The search doubles its steps, then bisects, so a
    few dozen trials cover any range.

    Parameters
    ----------
    condition
        What must hold.
    low, high
        Ends of the range, both included.

    Examples
    --------
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
    return _halved(condition, false, trial)


def _halved(condition: Callable[[int], bool], false: int, true: int) -> int:
    """Bisect between two integers to where a condition turns true."""
    while true - false > 1:
        middle = (false + true) // 2
        if condition(middle):
            true = middle
        else:
            false = middle
    return true


def largest(condition: Callable[[int], bool], *, low: int, high: int) -> int | None:
    """Return the largest integer in [low, high] for which a condition holds, None if none does.

    The condition must stay false once it is false.

    Parameters
    ----------
    condition
        What must hold.
    low, high
        Ends of the range, both included.

    Examples
    --------
    >>> largest(lambda n: n * n <= 50, low=1, high=1000)
    7
    """
    if low > high or not condition(low):
        return None
    if condition(high):
        return high  # as a model's longest context often fits
    return _halved(lambda value: not condition(value), low, high) - 1


def from_where_on(ratio: Callable[[int], float], *, high: int, after: int = 1) -> int | None:
    """Return the smallest integer from which on, up to an end, a ratio exceeds 1; None for none.

    The ratio may cross 1 several times: the last crossing counts, and the search comes from above.
    Below n, a ratio r at n falls at most in proportion, or a tenth faster because of waves, so
    nothing is tried down to 1.1 n / r. Near 1 the search steps by an eighth of a doubling and may
    miss crossings within one step.

    Parameters
    ----------
    after
        Integers tried are one more than a multiple of this, where a ratio that moves in such steps
        is smallest.

    >>> from_where_on(lambda n: n / 20, high=1000)
    21
    >>> from_where_on(lambda n: 0.9 if 30 <= n < 40 else (n / 20) ** 0.2, high=1000)
    40
    """
    above = high
    now = ratio(above)
    if now <= 1:
        return None
    while above > 1:
        trial = int(above * min(SAFE_RATIO / now, 2 ** (-1 / PER_OCTAVE)))
        trial = max(1, min(above - 1, (trial - 1) // after * after + 1))
        now = ratio(trial)
        if now <= 1:
            return _halved(lambda n: ratio(n) > 1, trial, above)
        above = trial
    return 1
