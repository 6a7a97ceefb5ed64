"""The decode steps of a whole request: their number, and the decoded tokens at each."""

import math

from simulator.numeric import Numeric, ceil_div

# Floating-point error of products with a mean number of accepted tokens.
_ROUNDING = 1e-6


def decode_steps(output_tokens: int, accepted_tokens: float) -> int:
    """Return how many decode steps follow the prefill.

    The prefill gives the first token, and each step ``accepted_tokens`` more; a remainder takes a
    whole step.

    >>> decode_steps(256, 1), decode_steps(256, 2.5), decode_steps(1, 2.5)
    (255, 102, 0)
    """
    # No step accepts fewer than one token.
    return max(0, math.ceil((output_tokens - 1) / max(1.0, accepted_tokens) - _ROUNDING))


def own_tokens(step: Numeric, query_tokens: Numeric, accepted_tokens: Numeric) -> Numeric:
    """Return the decoded tokens of each sample at a step, counted from 1.

    All its tokens but the last have been through the model. This step processes the last one and
    the drafted ones; they are in the cache whether or not they are kept. A mean is rounded up to
    whole tokens.

    Parameters
    ----------
    step
        Number of the step, or an array of them.
    query_tokens, accepted_tokens
        Tokens of each sample that a step processes, and that it keeps on average.

    Examples
    --------
    >>> own_tokens(1, 1, 1.0), own_tokens(1, 4, 2.5), own_tokens(3, 4, 2.5)
    (1.0, 4.0, 9.0)
    """
    return ceil_div((step - 1) * accepted_tokens - _ROUNDING, 1) + query_tokens


def last_own_tokens(output_tokens: int, query_tokens: int, accepted_tokens: float) -> int:
    """Return the decoded tokens at the last step; 0 if the prefill gives the only token.

    Parameters
    ----------
    output_tokens
        Tokens each sample generates.
    query_tokens, accepted_tokens
        Tokens of each sample that a step processes, and that it keeps on average.

    Examples
    --------
    >>> last_own_tokens(129, 1, 1), last_own_tokens(129, 4, 4), last_own_tokens(1, 4, 4)
    (128, 128, 0)
    """
    steps = decode_steps(output_tokens, accepted_tokens)
    return int(own_tokens(steps, query_tokens, accepted_tokens)) if steps else 0
