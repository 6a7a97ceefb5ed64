"""Where a condition changes, found in a few dozen trials."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.answers.search import from_where_on, largest, smallest

RANGES = st.tuples(st.integers(-50, 50), st.integers(-50, 400)).filter(
    lambda pair: pair[0] <= pair[1]
)


@given(RANGES, st.integers(-100, 500))
def test_the_smallest_and_the_largest_are_found(ends: tuple[int, int], threshold: int) -> None:
    """As a walk through the whole range finds them, and None where it finds none."""
    low, high = ends
    reached = [value for value in range(low, high + 1) if value >= threshold]
    assert smallest(lambda n: n >= threshold, low=low, high=high) == min(reached, default=None)
    below = [value for value in range(low, high + 1) if value < threshold]
    assert largest(lambda n: n < threshold, low=low, high=high) == max(below, default=None)


@given(st.integers(1, 10**12))
def test_a_wide_range_takes_few_trials(threshold: int) -> None:
    """Doubling, then halving: two trials for each binary digit."""
    tried: list[int] = []

    def reached(value: int) -> bool:
        tried.append(value)
        return value >= threshold

    assert smallest(reached, low=1, high=10**12) == threshold
    assert len(tried) <= 82
    assert all(1 <= value <= 10**12 for value in tried)


def test_an_empty_range_has_no_answer() -> None:
    """Nothing is tried where there is nothing to try."""
    assert smallest(lambda _: True, low=2, high=1) is None
    assert largest(lambda _: True, low=2, high=1) is None


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_a_condition_that_wavers_still_changes_at_the_answer(holds: list[bool]) -> None:
    """Whatever the condition, the answer is a place where it turns: it holds there, not beside."""
    high = len(holds) - 1
    found = smallest(lambda n: holds[n], low=0, high=high)
    if found is not None:
        assert holds[found]
        assert found == 0 or not holds[found - 1]
    most = largest(lambda n: holds[n], low=0, high=high)
    if most is not None:
        assert holds[most]
        assert most == high or not holds[most + 1]


@given(st.lists(st.sampled_from([0.5, 0.98, 1.0, 1.02, 3.0]), min_size=1, max_size=60))
def test_from_where_on_is_a_turn_whatever_the_ratio(ratios: list[float]) -> None:
    """The ratio is above 1 there and not beside it; there is none where it ends below."""
    high = len(ratios)
    found = from_where_on(lambda n: ratios[n - 1], high=high)
    assert (found is None) == (ratios[-1] <= 1)
    if found is not None:
        assert ratios[found - 1] > 1
        assert found == 1 or ratios[found - 2] <= 1


@given(st.integers(1, 10**6), st.floats(0.05, 1), st.sampled_from([1, 256]))
def test_a_ratio_that_rises_turns_once(threshold: int, power: float, after: int) -> None:
    """At the threshold, in proportion or slower, found in few trials."""
    tried: list[int] = []

    def ratio(n: int) -> float:
        tried.append(n)
        return float((n / threshold) ** power) * (1 + 1e-9)

    high = 2**22
    assert from_where_on(ratio, high=high, after=after) == threshold
    assert all(1 <= n <= high for n in tried)
    assert len(set(tried)) <= 8 * 22 + 22


@given(st.integers(0, 15), st.integers(1, 40), st.floats(0.1, 0.5))
def test_the_last_of_several_crossings_counts(dip: int, where: int, power: float) -> None:
    """A ratio that falls below 1 once more, for a quarter of a doubling, below 1.1 before."""
    threshold = 10 * where
    start = round(threshold * 1.1 ** (dip / 15 / power))
    end = round(start * 2**0.25) + 1

    def ratio(n: int) -> float:
        return 0.99 if start <= n < end else float((n / threshold) ** power) * (1 + 1e-9)

    assert from_where_on(ratio, high=2**16) == end
