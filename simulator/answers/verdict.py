"""Whether to share the reads of a context, given the uncertainty of the predictions."""

from math import inf
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["yes", "no", "too close to call", "not known"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Those that decide nothing.
OPEN: tuple[Verdict, ...] = ("too close to call", "not known")

# A difference below this share of a step is too small to act on.
TIE_MARGIN = 0.02


def verdict_of(
    low: float, high: float, *, standard_fits: bool, bifurcated_fits: bool, memory_sure: bool = True
) -> Verdict:
    """Return whether to bifurcate, given the interval of the speed-up.

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
    """
    by_time: Verdict = "too close to call"
    if high < 1 + TIE_MARGIN:
        by_time = "no"
    elif low > 1:
        by_time = "yes"
    elif high == inf:
        by_time = "not known"
    if standard_fits == bifurcated_fits:
        return by_time
    only: Verdict = "yes" if bifurcated_fits else "no"
    return only if memory_sure or only == by_time else "too close to call"


def verdicts(
    low: "np.ndarray",
    high: "np.ndarray",
    standard_fits: "np.ndarray",
    bifurcated_fits: "np.ndarray",
    memory_sure: "np.ndarray",
) -> "np.ndarray":
    """Return :func:`verdict_of` at every point.

    Parameters
    ----------
    low, high
        Ends of the speed-up's interval.
    standard_fits, bifurcated_fits
        Whether each fits in memory.
    memory_sure
        Whether both of these are sure.
    """
    import numpy as np

    yes, no, close, unknown = range(len(VERDICTS))
    rest = np.where(low > 1, yes, np.where(high < inf, close, unknown))
    by_time = np.where(high < 1 + TIE_MARGIN, no, rest)
    only = np.where(bifurcated_fits, yes, no)
    only = np.where(memory_sure | (only == by_time), only, close)
    # As references: an array of texts would hold each of them anew.
    return np.array(VERDICTS, dtype=object)[
        np.where(standard_fits == bifurcated_fits, by_time, only)
    ]
