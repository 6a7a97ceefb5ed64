"""How the tests of tests/fuzz look for examples.

By default a few, the same every time. ``make fuzz`` looks for new ones: BIFURCATE_FUZZ is their
number for each test, and BIFURCATE_FUZZ_S the seconds after which a test looks no further.
"""

import os
import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("BIFURCATE_FUZZ", "20"))
SECONDS = float(os.environ.get("BIFURCATE_FUZZ_S", "inf"))

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="BIFURCATE_FUZZ" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Values in the place of any other, in a file or a call.
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([0, 1, -1, 3, 2**31, 2**70, 10**400, 1.5, 1e308, 1e-320, True, None, "", "x"]),
    st.sampled_from([[], {}, [1], {"value": 1}, "\x1b[31m", "=cmd|x", "9" * 400, [[[[]]]]]),
    st.floats(),
    st.text(max_size=12),
)


class Clock:
    """When the test at hand began."""

    start = 0.0


def time_is_over() -> bool:
    """Return whether the test at hand looks no further."""
    return time.monotonic() - Clock.start > SECONDS
