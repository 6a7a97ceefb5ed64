"""pass@k is the estimator it says it is, and unbiased."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.answers.pass_at_k import SuccessCounts, SuccessRate, pass_at_k
from simulator.errors import WorkloadError
from simulator.inputs.csv_files import ProblemCount


def counts(*pairs: tuple[int, int]) -> SuccessCounts:
    """Return counts of problems as (samples, correct)."""
    return SuccessCounts(
        tuple(
            ProblemCount(line=line, problem=str(line), samples=n, correct=c)
            for line, (n, c) in enumerate(pairs, start=2)
        )
    )


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_it_is_the_share_of_choices_with_a_right_one(n: int) -> None:
    """Every choice of k of n tries, listed: the share that holds one of the c right ones."""
    for c in range(n + 1):
        for k in range(1, n + 1):
            choices = list(combinations(range(n), k))
            share = sum(min(choice) < c for choice in choices) / len(choices)
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_many_tries_take_no_time_of_their_number() -> None:
    """Of 10^9 tries, half of them right: almost independent draws, in as many terms as k."""
    assert pass_at_k(10**9, 5 * 10**8, 10) == pytest.approx(1 - 2**-10, rel=1e-9)


@given(st.integers(1, 400), st.data())
def test_it_is_the_binomial_formula(n: int, data: st.DataObject) -> None:
    """1 - C(n - c, k) / C(n, k) in whole numbers."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(n, c, k) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.7])
@pytest.mark.parametrize(("n", "k"), [(5, 1), (20, 7), (50, 50)])
def test_it_is_unbiased(p: float, n: int, k: int) -> None:
    """Over all outcomes of n tries its mean is 1 - (1 - p)^k exactly."""
    mean = math.fsum(
        math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1)
    )
    assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_the_rate_is_the_same_law() -> None:
    """One rate gives 1 - (1 - p)^k, also where p is tiny."""
    assert SuccessRate(0.25).at(3) == (pytest.approx(1 - 0.75**3), None)
    assert SuccessRate(1.0).at(1) == (1.0, None)
    assert SuccessRate(1e-12).at(10)[0] == pytest.approx(1e-11, rel=1e-9)


def test_counts_give_the_mean_and_its_error() -> None:
    """Mean over problems, and the standard error of that mean."""
    known = counts((10, 1), (10, 5), (20, 0))
    values = [pass_at_k(10, 1, 4), pass_at_k(10, 5, 4), 0.0]
    mean = sum(values) / 3
    variance = sum((value - mean) ** 2 for value in values) / 2
    assert known.at(4) == (pytest.approx(mean), pytest.approx(math.sqrt(variance / 3)))
    assert known.largest_k == 10
    assert counts((10, 1)).at(1)[1] is None


def test_problems_of_different_difficulty_pass_less_often_than_their_mean_rate() -> None:
    """Half the problems easy, half impossible: pass@k stays at a half."""
    known = counts((100, 100), (100, 0))
    assert known.at(50)[0] == pytest.approx(0.5)
    assert SuccessRate(0.5).at(50)[0] > 0.999


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, math.nan])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    """A success rate is above 0 and at most 1."""
    with pytest.raises(WorkloadError, match="success_rate"):
        SuccessRate(rate)


@pytest.mark.parametrize("k", [0, 11])
def test_more_than_was_tried_is_not_estimated(k: int) -> None:
    """No unbiased estimate exists for k above n."""
    with pytest.raises(WorkloadError, match="cannot be estimated"):
        pass_at_k(10, 5, k)


@pytest.mark.parametrize("k", [100, 10_000, 10**9])
def test_no_number_of_samples_is_sure_to_solve_it(k: int) -> None:
    """Half of the samples right: of any number all may still be wrong."""
    assert 0.999 < SuccessRate(0.5).at(k)[0] < 1
    assert SuccessRate(1).at(k)[0] == 1
