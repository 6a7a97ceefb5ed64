"""pass@k: how probable it is that at least one of k samples solves a problem."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from simulator.errors import WorkloadError
from simulator.inputs.csv_files import ProblemCount, RefusedRow, read_problem_counts


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from n samples of a problem, c of them correct.

    1 - C(n - c, k) / C(n, k): the share of all choices of k of the n samples that contain a correct
    one (Chen et al., arXiv 2107.03374, equation 1; recalled).

    Parameters
    ----------
    samples, correct
        Samples of the problem, n, and those that solve it, c.
    k
        Samples drawn.

    Raises
    ------
    WorkloadError
        If k exceeds n: no unbiased estimate exists.

    Examples
    --------
    >>> round(pass_at_k(10, 3, 1), 12), pass_at_k(10, 3, 8)
    (0.3, 1.0)
    """
    if not 1 <= k <= samples:
        raise WorkloadError(f"pass@{k} cannot be estimated from {samples} samples of a problem")
    if samples - correct < k:
        return 1.0
    # A sum of logarithms, because the binomials themselves overflow. The share of choices without
    # a correct sample is the same product with c and k exchanged: the shorter one is taken.
    few, many = sorted((correct, k))
    misses = math.fsum(math.log1p(-many / (samples - drawn)) for drawn in range(few))
    return -math.expm1(misses)


@dataclass(frozen=True)
class SuccessRate:
    """One rate for all problems: samples are right independently with one probability.

    Attributes
    ----------
    largest_k
        The most samples for which pass@k is known: None for any number.
    refused
        Rows of a file that are not used: there is no file.
    """

    rate: float
    largest_k: ClassVar[None] = None
    refused: ClassVar[tuple[RefusedRow, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse a rate that is not a probability.

        Raises
        ------
        WorkloadError
            If it is not above 0 and at most 1.
        """
        if not 0 < self.rate <= 1:
            raise WorkloadError(
                f"success_rate = {self.rate:g} is not in (0, 1]: it is the share of single samples "
                "that are right"
            )

    def at(self, k: int) -> tuple[float, None]:
        """Return 1 - (1 - p)^k.

        >>> SuccessRate(0.5).at(2)
        (0.75, None)
        """
        if self.rate == 1:
            return 1.0, None
        # It is below one for any k; where a float rounds it up, return the last float below.
        return min(-math.expm1(k * math.log1p(-self.rate)), math.nextafter(1, 0)), None

    @property
    def source(self) -> str:
        """Say what one rate assumes."""
        return (
            f"one success rate of {self.rate:g} for every problem; where problems differ in "
            "difficulty, pass@k is lower"
        )


@dataclass(frozen=True)
class SuccessCounts:
    """Counts by problem: pass@k is the mean of the unbiased estimates."""

    problems: tuple[ProblemCount, ...]
    path: str = ""
    refused: tuple[RefusedRow, ...] = ()

    @property
    def largest_k(self) -> int:
        """The fewest samples that any problem has."""
        return min(problem.samples for problem in self.problems)

    def at(self, k: int) -> tuple[float, float | None]:
        """Return the mean over problems, and its standard error from their spread, if they tell."""
        values = [pass_at_k(item.samples, item.correct, k) for item in self.problems]
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return mean, None
        square = math.fsum((value - mean) ** 2 for value in values)
        return mean, math.sqrt(square / (len(values) - 1) / len(values))

    @property
    def source(self) -> str:
        """Say what was counted."""
        problems = f"{len(self.problems):,} problem{'s' if len(self.problems) != 1 else ''}"
        fewest, most = self.largest_k, max(problem.samples for problem in self.problems)
        samples = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
        return f"unbiased estimates from {problems} of {self.path}, {samples} samples each"


# What is known about how often a sample is right.
Success = SuccessRate | SuccessCounts


def success_of(
    problem_counts: str | Path | None = None, success_rate: float | None = None
) -> Success:
    """Return what is known about how often a sample is right: a file of counts, or one rate.

    Raises
    ------
    SimulatorError
        If not exactly one of the two is given, or the file cannot be read.
    """
    if (success_rate is None) == (problem_counts is None):
        raise WorkloadError("give either success_rate or problem_counts")
    if problem_counts is None:
        return SuccessRate(float(success_rate or 0))
    table = read_problem_counts(problem_counts)
    return SuccessCounts(table.rows, table.path, table.refused)
