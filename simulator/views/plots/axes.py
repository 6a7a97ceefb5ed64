"""Axes with their ticks: powers of two for sizes, round numbers over narrow ranges."""

import math
from collections.abc import Callable, Sequence

from simulator.units import KIB, KILO, MEGA, MIB
from simulator.views.plots.layout import Figure


def size_text(value: float) -> str:
    """Write a size on an axis: 8192 as 8K, 1000 as 1,000.

    >>> size_text(8192), size_text(1000), size_text(2**20), size_text(0.5)
    ('8K', '1,000', '1M', '0.5')
    """
    if value < 1:
        return f"{value:g}"
    for factor, letter in ((MIB, "M"), (KIB, "K")):
        if value >= factor and value % factor == 0:
            return f"{value / factor:,.0f}{letter}"
    return f"{value:,.0f}"


# Powers of two below this have too many digits.
_FEW_DIGITS_BELOW = 0.05


def number_text(value: float) -> str:
    """Format a number on an axis that is not a size.

    >>> number_text(1024), number_text(0.25), number_text(1.5), number_text(1e5), number_text(2**-9)
    ('1,024', '0.25', '1.5', '100k', '0.002')
    """
    for factor, letter in ((MEGA, "M"), (KILO, "k")):
        if value >= 10 * KILO and value % factor == 0:
            return f"{value / factor:,.0f}{letter}"
    if value < _FEW_DIGITS_BELOW:
        return f"{value:.2g}"
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def powers(low: float, high: float, base: int = 2) -> list[float]:
    """Return the powers of a base in a range, or around it where it holds fewer than two.

    Parameters
    ----------
    low, high
        Ends of the range, above 0.
    base
        Of the powers.

    >>> powers(1, 9), powers(0.3, 1), powers(5, 6), powers(3, 200, 10)
    ([1, 2, 4, 8], [0.5, 1], [4, 8], [10, 100])
    """
    first = math.ceil(math.log(low, base) - 1e-9)
    last = math.floor(math.log(high, base) + 1e-9)
    if last - first < 1:
        first = math.floor(math.log(low, base) + 1e-9)
        last = max(first + 1, math.ceil(math.log(high, base) - 1e-9))
    return [base**power for power in range(first, last + 1)]


# Over less than this ratio, powers of two give too few ticks.
_NARROW_RANGE, _NARROW_PAD = 4, 0.1


def _round_steps(low: float, high: float) -> list[float]:
    """Return round numbers at equal distances over a range.

    >>> _round_steps(16, 31), _round_steps(0.9, 1.2)
    ([20, 25, 30], [0.9, 1.0, 1.1, 1.2])
    """
    raw = max(high - low, 0.05 * high) / 4
    scale = 10 ** math.floor(math.log10(raw))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    places = range(max(first, 1), max(last, first + 1) + 1)
    return [round(place * step, digits) if digits else int(place * step) for place in places]


def log_axis(
    figure: Figure,
    axis: str,
    values: Sequence[float],
    title: str,
    *,
    base: int = 2,
    text: Callable[[float], str] = number_text,
    most_ticks: int = 12,
    pad: float = 0.03,
) -> None:
    """Make an axis logarithmic, with powers of two as ticks.

    Parameters
    ----------
    axis
        ``xaxis``, ``yaxis2``, ...
    values
        All values drawn along it; those that are not positive have no place on it.
    title
        With its unit in brackets.
    base
        10 where values span too many powers of two.
    text
        How a tick is written. Where values that are no sizes span hardly more than two powers of
        two, ticks are at round numbers.
    most_ticks
        On a wide page; a phone shows half of them.
    pad
        Room at each end, as a share of the axis.
    """
    drawn = [float(value) for value in values if value > 0 and math.isfinite(value)] or [1.0, 2.0]
    low, high = min(drawn), max(drawn)
    ticks = powers(low, high, base)
    if text is not size_text and high < _NARROW_RANGE * low:
        low, high = low * (1 - _NARROW_PAD), high * (1 + _NARROW_PAD)
        ticks = _round_steps(low, high)
    ticks = ticks[:: math.ceil(len(ticks) / most_ticks)]
    room = pad * max(0.5, math.log10(high / low))
    ends = [math.log10(min(low, ticks[0])) - room, math.log10(max(high, ticks[-1])) + room]
    words = [text(tick) for tick in ticks]
    figure.layout[axis].update(type="log", range=ends, title_text=title)
    set_ticks(figure, axis, ticks, words, narrow_most=most_ticks // 2)


def set_ticks(
    figure: Figure, axis: str, ticks: Sequence[float], words: Sequence[str], *, narrow_most: int
) -> None:
    """Set an axis's ticks, of which a phone shows every second one.

    Parameters
    ----------
    figure, axis
        The figure, and the name of the axis in its layout.
    ticks, words
        Where the ticks are, and what stands beside each.
    narrow_most
        So many a phone shows all of.
    """
    figure.layout[axis].update(tickmode="array", tickvals=ticks, ticktext=words)
    narrow_stride = 2 if len(ticks) > narrow_most else 1
    meta = dict(figure.layout.meta or {})
    meta["ticks"] = {**meta.get("ticks", {}), axis: (list(ticks), list(words), narrow_stride)}
    figure.layout.meta = meta
