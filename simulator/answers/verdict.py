"""Whether it is faster to share the reads of a context, given the uncertainty of the predictions.

Each function takes numbers, or arrays for the points of a grid, of which it returns an array.
"""

from math import inf
from typing import Literal, get_args

from simulator.numeric import Numeric, named, where

Winner = Literal["standard", "bifurcated", "tie"]
WINNERS: tuple[Winner, ...] = get_args(Winner)
Verdict = Literal["yes", "no", "too close to call", "not known", "neither fits"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Those that decide nothing.
OPEN: tuple[Verdict, ...] = ("too close to call", "not known")

# A difference below this share of a step is too small to act on.
TIE_MARGIN = 0.02


def verdict_of(
    low: Numeric,
    high: Numeric,
    *,
    standard_fits: Numeric,
    bifurcated_fits: Numeric,
    memory_sure: Numeric = True,
) -> Verdict:
    """Return whether bifurcated is faster, given the interval of the speed-up.

    No if even the best case is no gain to act on; yes if even the worst case is a gain. If only one
    kind of attention fits in memory, the answer is that one; unless that is not sure, and time says
    otherwise.

    Parameters
    ----------
    low, high
        Ends of the speed-up's interval; 0 and infinity if it is not known.
    standard_fits, bifurcated_fits
        Whether each fits in memory.
    memory_sure
        Whether both of these are sure.

    Examples
    --------
    >>> verdict_of(1.2, 1.6, standard_fits=True, bifurcated_fits=True)
    'yes'
    >>> verdict_of(0.9, 1.1, standard_fits=True, bifurcated_fits=True)
    'too close to call'
    >>> verdict_of(0.98, 1.01, standard_fits=True, bifurcated_fits=True)
    'no'
    >>> verdict_of(0.0, inf, standard_fits=True, bifurcated_fits=True)
    'not known'
    >>> verdict_of(1.2, 1.6, standard_fits=False, bifurcated_fits=False)
    'neither fits'
    """
    yes, no, close, unknown, neither = range(len(VERDICTS))
    rest = where(low > 1, yes, where(high < inf, close, unknown))
    by_time = where(high < 1 + TIE_MARGIN, no, rest)
    only = where(bifurcated_fits, yes, no)
    only = where(memory_sure | (only == by_time), only, close)
    alike = where(bifurcated_fits, by_time, neither)
    return named(VERDICTS, where(standard_fits == bifurcated_fits, alike, only))


def winner_of(speedup: Numeric, standard_fits: Numeric, bifurcated_fits: Numeric) -> Winner:
    """Return the faster kind of attention that fits, or a tie.

    Parameters
    ----------
    speedup
        Standard's time over bifurcated's.
    standard_fits, bifurcated_fits
        Whether each fits in memory.
    """
    close = where(abs(speedup - 1) < TIE_MARGIN, 2, where(speedup > 1, 1, 0))
    only = where(standard_fits, 0, 1)
    return named(WINNERS, where(standard_fits == bifurcated_fits, close, only))


def kv_io_ratio(standard: Numeric, bifurcated: Numeric) -> Numeric:
    """Return standard's KV bytes read over bifurcated's; 1 where neither reads any."""
    nothing = bifurcated == 0
    return where(nothing, 1.0, standard / where(nothing, 1.0, bifurcated))
