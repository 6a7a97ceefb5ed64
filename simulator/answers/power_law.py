"""A robust fit of one power law to the losses of several families of models, with its errors.

    L(N, f) = E + A (N / F_f)^(-alpha)

E is the irreducible loss, alpha the exponent, and F_f the size factor of a family: how much larger
its models must be for the same loss as the reference's, whose F is 1. Where runs differ in training
tokens D, the law is joint, with another term B D^(-beta). The form is that of Hoffmann et al.,
arXiv 2203.15556, equation 2 (recalled), at a fixed amount of data without the last term.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.errors import MeasurementError
from simulator.numeric import Array

# The constants that all families share: E, A and alpha.
SHARED = 3
# beta where too few numbers of tokens tell it: Hoffmann et al., appendix D.3 (recalled).
TOKEN_EXPONENT = 0.28
LEAST_TOKEN_COUNTS = 3
# Limits that no fit of trained models has come near.
EXPONENTS = (1e-3, 3.0)
LARGEST_SHIFT = 7.0
LARGEST_SHARE = 1 - 1e-6
# Where the search starts: E as a share of the least loss, and alpha.
STARTS = tuple((share, alpha) for share in (0.05, 0.5, 0.8, 0.95) for alpha in (0.05, 0.2, 0.6))
# An irreducible loss below this share of the least loss counts as 0.
LEAST_SHARE = 1e-3
# Residuals beyond this many spreads lose weight: 95 % as efficient as least squares
# where errors are normal (the usual tuning constant of Cauchy's weights, recalled).
CAUCHY_SCALE = 2.385
# The law must fall by this many spreads of its residuals over the fitted sizes.
LEAST_FALL = 3.0
# A residual of this many spreads is an outlier.
OUTLIER = 5.0
# The median absolute value of normal errors, over their standard deviation.
MEDIAN_OF_NORMAL = 0.6745
# No loss is known more precisely than this relative error.
LEAST_SPREAD = 1e-7
CONFIDENCE = 0.95
# A test for factors that change with size needs this many runs to spare.
LEAST_SPARE = 3


class Problem:
    """Residuals as a function of E, log_reducible, alpha and the shifts; the least loss is 1.

    A joint law has two constants more at the end: ln of its term in tokens, and beta unless fixed.
    """

    def __init__(
        self, parameters: Array, losses: Array, families: Array, tokens: "Array | None" = None
    ) -> None:
        import numpy as np

        sizes = np.log(np.asarray(parameters, dtype=float))
        if np.ptp(sizes) == 0:
            raise MeasurementError("all runs are of one size: a law in size cannot be fitted")
        self.center = float(np.exp(sizes.mean()))
        self.sizes = sizes - np.log(self.center)
        self.least = float(np.min(losses))
        self.losses = np.asarray(losses, dtype=float) / self.least
        self.families = np.asarray(families, dtype=int)
        shifts = int(self.families.max())
        self.of_shifts = slice(SHARED, SHARED + shifts)
        self.tokens, self.center_tokens, self.free_tokens = np.zeros(len(sizes)), None, 0
        if tokens is not None:
            self.center_tokens = float(np.exp(np.log(tokens).mean()))
            self.tokens = np.log(tokens) - np.log(self.center_tokens)
            self.free_tokens = 2 if len(np.unique(tokens)) >= LEAST_TOKEN_COUNTS else 1
        self.rows = len(self.sizes)
        self.constants = SHARED + shifts + self.free_tokens
        self.spare = self.rows - self.constants
        # One column per shift: which runs it moves.
        self.moved = (self.families[:, None] == np.arange(1, shifts + 1)).astype(float)
        # E stays below every loss.
        terms = np.array([(-50.0, 50.0), EXPONENTS])
        moves = np.tile([-LARGEST_SHIFT, LARGEST_SHIFT], (shifts, 1))
        limits = np.vstack([[(0.0, LARGEST_SHARE)], terms, moves, terms[: self.free_tokens]])
        self.low, self.high = limits.T

    def start(self, share: float, alpha: float) -> Array:
        """Return a starting point: the level that fits E and alpha, without shifts."""
        import numpy as np

        irreducible = float(np.clip(share, 1e-3, 0.999))
        exponent = float(np.clip(alpha, 2 * EXPONENTS[0], EXPONENTS[1] / 2))
        own = [np.log((1 - irreducible) / 4), TOKEN_EXPONENT][: self.free_tokens]
        moves = np.zeros(self.constants - SHARED - len(own))
        point = np.array([irreducible, 0.0, exponent, *moves, *own])
        left = np.maximum(self.losses - irreducible - self._of_tokens(point), 1e-3)
        point[1] = np.median(np.log(left) + exponent * self.sizes)
        return point

    def residuals(self, point: Array) -> Array:
        """Return ln(predicted / observed) of every run."""
        import numpy as np

        predicted = point[0] + self._reducible(point) + self._of_tokens(point)
        return np.asarray(np.log(predicted) - np.log(self.losses))

    def jacobian(self, point: Array) -> Array:
        """Return how the residuals change with each constant."""
        import numpy as np

        reducible, of_tokens = self._reducible(point), self._of_tokens(point)
        predicted = (point[0] + reducible + of_tokens)[:, None]
        share = reducible[:, None] / predicted
        size = (self.sizes - self.moved @ point[self.of_shifts])[:, None]
        columns = [1 / predicted, share, -share * size, share * point[2] * self.moved]
        of_share = of_tokens[:, None] / predicted
        columns += [of_share, -of_share * self.tokens[:, None]][: self.free_tokens]
        return np.hstack(columns)

    def fall(self, point: Array) -> float:
        """Return by how much ln L of the reference falls over the fitted sizes."""
        import numpy as np

        ends = np.array([self.sizes.min(), self.sizes.max()])
        rest = point[0] + (np.exp(point[self.of_shifts.stop]) if self.free_tokens else 0)
        first, last = rest + np.exp(point[1] - point[2] * ends)
        return float(np.log(first / last))

    def beta(self, point: Array) -> float:
        """Return the exponent of tokens, fixed or fitted."""
        return float(point[-1]) if self.free_tokens > 1 else TOKEN_EXPONENT

    def _of_tokens(self, point: Array) -> Array:
        """Return each run's predicted term in tokens, 0 where the law has none."""
        import numpy as np

        if not self.free_tokens:
            return np.zeros(self.rows)
        level = point[self.of_shifts.stop] - self.beta(point) * self.tokens
        return np.asarray(np.exp(np.clip(level, -200, 200)))

    def _reducible(self, point: Array) -> Array:
        """Return each run's predicted term in size."""
        import numpy as np

        size = self.sizes - self.moved @ point[self.of_shifts]
        return np.asarray(np.exp(np.clip(point[1] - point[2] * size, -200, 200)))


@dataclass(frozen=True)
class PowerLaw:
    """Constants of the law, with their errors and residuals.

    Attributes
    ----------
    irreducible_loss
        E.
    log_reducible
        ln(loss - E) of the reference at ``center_parameters``.
    exponent
        alpha.
    shifts
        ln F of each family, the reference's 0 first.
    center_parameters
        The size at which ``log_reducible`` is given.
    log_of_tokens, token_exponent, center_tokens
        ln of the term in tokens at ``center_tokens``, and beta; None unless the law is joint.
    covariance
        Of E, log_reducible, alpha, all shifts but the first, log_of_tokens, and beta unless it is
        fixed; E's is 0 where E is fixed at 0.
    residuals
        ln(predicted / observed) of each run.
    spread
        Their robust standard deviation.
    outliers
        Whether each run is an outlier; outliers have almost no weight.
    drifts, drift_errors
        How much ln F of each family seems to grow per tenfold size, and the standard errors; 0 for
        the reference, and for all families if the runs are too few to tell.
    spare
        Runs beyond the number of constants.
    quantile
        Half width of a 95 % interval in standard errors (Student's t).
    """

    irreducible_loss: float
    log_reducible: float
    exponent: float
    shifts: Array
    center_parameters: float
    log_of_tokens: float | None
    token_exponent: float | None
    center_tokens: float | None
    covariance: Array
    residuals: Array
    spread: float
    outliers: Array
    drifts: Array
    drift_errors: Array
    spare: int
    quantile: float

    @property
    def stderr(self) -> Array:
        """Standard errors in the order of the covariance."""
        import numpy as np

        return np.sqrt(np.diag(self.covariance))

    @property
    def token_exponent_stderr(self) -> float | None:
        """The standard error of beta, None where it is fixed or there is none."""
        fixed = len(self.covariance) < SHARED + len(self.shifts) + 1
        return None if fixed else float(self.stderr[-1])

    def loss(self, parameters: Any, family: Any = 0, tokens: Any = None) -> Any:
        """Return the predicted loss of models of a family, by its number.

        Parameters
        ----------
        parameters, family
            Sizes, and the family's number or one for each.
        tokens
            Of a joint law, the training tokens; None for ``center_tokens``.
        """
        import numpy as np

        size = np.log(np.asarray(parameters) / self.center_parameters) - self.shifts[family]
        return self._unavoidable(tokens) + np.exp(self.log_reducible - self.exponent * size)

    def _unavoidable(self, tokens: Any) -> Any:
        """Return what no size removes: E and the term in tokens."""
        import numpy as np

        if self.log_of_tokens is None or self.center_tokens is None or self.token_exponent is None:
            return self.irreducible_loss
        beyond = 0.0 if tokens is None else np.log(np.asarray(tokens) / self.center_tokens)
        return self.irreducible_loss + np.exp(self.log_of_tokens - self.token_exponent * beyond)

    def size(self, loss: Any, family: Any = 0, tokens: Any = None) -> Any:
        """Return the parameters at which a family has a loss; infinite where it never has.

        Parameters
        ----------
        loss
            The loss.
        family, tokens
            As for :meth:`loss`.
        """
        import numpy as np

        above = np.asarray(loss, dtype=float) - self._unavoidable(tokens)
        with np.errstate(divide="ignore", over="ignore"):
            size = (self.log_reducible - np.log(np.maximum(above, 0))) / self.exponent
            return np.exp(size + self.shifts[family]) * self.center_parameters


def fit_power_law(
    parameters: Array,
    losses: Array,
    families: Array,
    *,
    tokens: "Array | None" = None,
    starts: Sequence[tuple[float, float]] = STARTS,
) -> PowerLaw:
    """Fit the law.

    Parameters
    ----------
    parameters, losses
        The parameters and the loss of each run.
    families
        The number of each run's family; 0 is the reference, and no number up to the largest is
        missing.
    tokens
        Training tokens of each run, for a joint law; they must not follow from the sizes.
    starts
        Starting points of the search: E as a share of the least loss, and the exponent.

    Raises
    ------
    MeasurementError
        If there are no more runs than constants, all have one size, losses do not fall with size,
        or scipy is missing.
    """
    optimize, stats = import_scipy()
    problem = Problem(parameters, losses, families, tokens)
    if problem.spare < 1:
        raise MeasurementError(
            f"{problem.rows} runs cannot tell {problem.constants} constants and how sure they are: "
            f"{problem.constants + 1} runs are needed"
        )
    best = _best(problem, optimize.least_squares, starts)
    residuals = problem.residuals(best)
    spread = _spread(residuals, problem.constants)
    if problem.fall(best) < LEAST_FALL * spread:
        raise MeasurementError(
            "losses do not fall with size by more than they scatter: there is no law to fit"
        )
    held = best[0] <= LEAST_SHARE
    covariance = _covariance(problem.jacobian(best), residuals, spread, held=held)
    drifts, drift_errors = _drifts(problem, best, residuals, spread)
    import numpy as np

    units = np.array([problem.least, *np.ones(problem.constants - 1)])
    return PowerLaw(
        irreducible_loss=0.0 if held else float(best[0]) * problem.least,
        log_reducible=float(best[1] + np.log(problem.least)),
        exponent=float(best[2]),
        shifts=np.concatenate([[0.0], best[problem.of_shifts]]),
        center_parameters=problem.center,
        log_of_tokens=float(best[problem.of_shifts.stop] + np.log(problem.least))
        if problem.free_tokens
        else None,
        token_exponent=problem.beta(best) if problem.free_tokens else None,
        center_tokens=problem.center_tokens,
        covariance=covariance * np.outer(units, units),
        residuals=residuals,
        spread=spread,
        outliers=np.abs(residuals) > OUTLIER * spread,
        drifts=drifts,
        drift_errors=drift_errors,
        spare=problem.spare,
        quantile=float(stats.t.ppf(0.5 + CONFIDENCE / 2, problem.spare)),
    )


def import_scipy() -> tuple[Any, Any]:
    """Import what the fit needs.

    Raises
    ------
    MeasurementError
        If scipy is not installed.
    """
    try:
        from scipy import optimize, stats
    except ImportError:
        raise MeasurementError(
            "fitting a scaling law needs scipy: "
            "pip install 'bifurcated-attention-simulator[calibrate]'"
        ) from None
    return optimize, stats


def _best(problem: Problem, least_squares: Any, starts: Sequence[tuple[float, float]]) -> Array:
    """Return the best point: first by least absolute deviations, then with weights.

    Soft absolute deviations find the law despite outliers; the residuals around it give the spread
    that sets the weights of the second fit.
    """
    import numpy as np

    def _solved(point: Array, loss: str, scale: float) -> Any:
        return least_squares(
            problem.residuals,
            np.clip(point, problem.low + 1e-9, problem.high - 1e-9),
            jac=problem.jacobian,
            bounds=(problem.low, problem.high),
            loss=loss,
            f_scale=scale,
            x_scale="jac",
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
            max_nfev=500,
        )

    # From coarse to fine: the sum of soft absolute values is convex enough only when it is coarse.
    points = [problem.start(*start) for start in starts]
    for scale in (0.1, 0.01, 0.001):
        found = [_solved(point, "soft_l1", scale) for point in points]
        points = [item.x for item in found]
    best = min(found, key=lambda item: float(item.cost)).x
    for _ in range(3):
        spread = _spread(problem.residuals(best), problem.constants)
        best = _solved(best, "cauchy", CAUCHY_SCALE * spread).x
    return np.asarray(best)


def _spread(residuals: Array, constants: int) -> float:
    """Return a robust standard deviation of residuals.

    A fit can make as many residuals zero as it has constants, so the smallest are left out.
    """
    import numpy as np

    largest = np.sort(np.abs(residuals))[constants - 1 :]
    return max(float(np.median(largest)) / MEDIAN_OF_NORMAL, LEAST_SPREAD)


def _covariance(jacobian: Array, residuals: Array, spread: float, *, held: bool) -> Array:
    """Return the covariance of the constants under Cauchy's weights (Huber's formula).

    A fixed constant has none.
    """
    import numpy as np

    rows, constants = jacobian.shape
    scaled = (residuals / (CAUCHY_SCALE * spread)) ** 2
    pull = residuals / (1 + scaled)
    slope = (1 - scaled) / (1 + scaled) ** 2
    mean_slope = max(float(slope.mean()), 0.1)
    free = constants - held
    variance = float(pull @ pull) / (rows - free) / mean_slope**2
    covariance = np.zeros((constants, constants))
    used = slice(int(held), None)
    weighted = jacobian[:, used]
    covariance[used, used] = variance * np.linalg.pinv(weighted.T @ weighted)
    return covariance


def _drifts(problem: Problem, best: Array, residuals: Array, spread: float) -> tuple[Array, Array]:
    """Return how ln F of each family seems to change with size, and the standard errors.

    One step leads from the fit towards a law that lets it change. If families had different
    exponents, one size factor would not hold for all sizes.
    """
    import numpy as np

    families = problem.moved.shape[1] + 1
    drifts, errors = np.zeros(families), np.zeros(families)
    if families == 1 or problem.spare - (families - 1) < LEAST_SPARE:
        return drifts, errors
    own = problem.jacobian(best)
    wide = np.hstack([own, own[:, problem.of_shifts] * problem.sizes[:, None]])
    scaled = (residuals / (CAUCHY_SCALE * spread)) ** 2
    weights = 1 / (1 + scaled)
    normal = np.linalg.pinv((wide * weights[:, None]).T @ wide)
    step = -normal @ (wide.T @ (weights * residuals))
    covariance = _covariance(wide, residuals + wide @ step, spread, held=False)
    # From each e-fold to each tenfold.
    drifts[1:] = step[problem.constants :] * np.log(10)
    errors[1:] = np.sqrt(np.diag(covariance))[problem.constants :] * np.log(10)
    return drifts, errors
