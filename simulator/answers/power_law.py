"""A robust fit of one power law to the losses of several families of models, with its errors.

    L(N, f) = E + A (N / F_f)^(-alpha)

E is the irreducible loss, alpha the exponent, and F_f the size factor of a family: how much larger
its models must be for the same loss as the reference's, whose F is 1. The form is that of
Hoffmann et al., arXiv 2203.15556, equation 2, at a fixed amount of data (recalled).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simulator.errors import MeasurementError

if TYPE_CHECKING:
    import numpy as np

# The constants that all families share: E, A and alpha.
SHARED = 3
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
    """Residuals as a function of E, log_reducible, alpha and the shifts; the least loss is 1."""

    def __init__(
        self, parameters: "np.ndarray", losses: "np.ndarray", families: "np.ndarray"
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
        self.rows, self.constants = len(self.sizes), SHARED + shifts
        self.spare = self.rows - self.constants
        # One column per shift: which runs it moves.
        self.moved = (self.families[:, None] == np.arange(1, shifts + 1)).astype(float)
        # E stays below every loss.
        self.low = np.array([0.0, -50.0, EXPONENTS[0], *([-LARGEST_SHIFT] * shifts)])
        self.high = np.array([LARGEST_SHARE, 50.0, EXPONENTS[1], *([LARGEST_SHIFT] * shifts)])

    def start(self, share: float, alpha: float) -> "np.ndarray":
        """Return a starting point: the level that fits E and alpha, without shifts."""
        import numpy as np

        irreducible = float(np.clip(share, 1e-3, 0.999))
        exponent = float(np.clip(alpha, 2 * EXPONENTS[0], EXPONENTS[1] / 2))
        level = np.median(np.log(self.losses - irreducible) + exponent * self.sizes)
        return np.array([irreducible, level, exponent, *np.zeros(self.constants - SHARED)])

    def residuals(self, point: "np.ndarray") -> "np.ndarray":
        """Return ln(predicted / observed) of every run."""
        import numpy as np

        return np.asarray(np.log(point[0] + self._reducible(point)) - np.log(self.losses))

    def jacobian(self, point: "np.ndarray") -> "np.ndarray":
        """Return how the residuals change with each constant."""
        import numpy as np

        reducible = self._reducible(point)
        share = (reducible / (point[0] + reducible))[:, None]
        size = (self.sizes - self.moved @ point[SHARED:])[:, None]
        return np.hstack(
            [
                1 / (point[0] + reducible)[:, None],
                share,
                -share * size,
                share * point[2] * self.moved,
            ]
        )

    def fall(self, point: "np.ndarray") -> float:
        """Return by how much ln L of the reference falls over the fitted sizes."""
        import numpy as np

        ends = np.array([self.sizes.min(), self.sizes.max()])
        first, last = point[0] + np.exp(point[1] - point[2] * ends)
        return float(np.log(first / last))

    def _reducible(self, point: "np.ndarray") -> "np.ndarray":
        """Return each run's predicted loss minus E."""
        import numpy as np

        size = self.sizes - self.moved @ point[SHARED:]
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
    covariance
        Of E, log_reducible, alpha and all shifts but the first; E's is 0 where E is fixed at 0.
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
    shifts: "np.ndarray"
    center_parameters: float
    covariance: "np.ndarray"
    residuals: "np.ndarray"
    spread: float
    outliers: "np.ndarray"
    drifts: "np.ndarray"
    drift_errors: "np.ndarray"
    spare: int
    quantile: float

    @property
    def stderr(self) -> "np.ndarray":
        """Standard errors in the order of the covariance."""
        import numpy as np

        return np.sqrt(np.diag(self.covariance))

    def loss(self, parameters: Any, family: Any = 0) -> Any:
        """Return the predicted loss of models of a family, by its number."""
        import numpy as np

        size = np.log(np.asarray(parameters) / self.center_parameters) - self.shifts[family]
        return self.irreducible_loss + np.exp(self.log_reducible - self.exponent * size)

    def size(self, loss: Any, family: Any = 0) -> Any:
        """Return the parameters at which a family has a loss; infinite where it never has."""
        import numpy as np

        above = np.asarray(loss, dtype=float) - self.irreducible_loss
        with np.errstate(divide="ignore", over="ignore"):
            size = (self.log_reducible - np.log(np.maximum(above, 0))) / self.exponent
            return np.exp(size + self.shifts[family]) * self.center_parameters


def fit_power_law(
    parameters: "np.ndarray",
    losses: "np.ndarray",
    families: "np.ndarray",
    *,
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
    starts
        Starting points of the search: E as a share of the least loss, and the exponent.

    Raises
    ------
    MeasurementError
        If there are no more runs than constants, all have one size, losses do not fall with size,
        or scipy is missing.
    """
    optimize, stats = import_scipy()
    problem = Problem(parameters, losses, families)
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
        shifts=np.concatenate([[0.0], best[SHARED:]]),
        center_parameters=problem.center,
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


def _best(
    problem: Problem, least_squares: Any, starts: Sequence[tuple[float, float]]
) -> "np.ndarray":
    """Return the best point: first by least absolute deviations, then with weights.

    Soft absolute deviations find the law despite outliers; the residuals around it give the spread
    that sets the weights of the second fit.
    """
    import numpy as np

    def _solved(point: "np.ndarray", loss: str, scale: float) -> Any:
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


def _spread(residuals: "np.ndarray", constants: int) -> float:
    """Return a robust standard deviation of residuals.

    A fit can make as many residuals zero as it has constants, so the smallest are left out.
    """
    import numpy as np

    largest = np.sort(np.abs(residuals))[constants - 1 :]
    return max(float(np.median(largest)) / MEDIAN_OF_NORMAL, LEAST_SPREAD)


def _covariance(
    jacobian: "np.ndarray", residuals: "np.ndarray", spread: float, *, held: bool
) -> "np.ndarray":
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


def _drifts(
    problem: Problem, best: "np.ndarray", residuals: "np.ndarray", spread: float
) -> tuple["np.ndarray", "np.ndarray"]:
    """Return how ln F of each family seems to change with size, and the standard errors.

    One step leads from the fit towards a law that lets it change. If families had different
    exponents, one size factor would not hold for all sizes.
    """
    import numpy as np

    families = problem.constants - SHARED + 1
    drifts, errors = np.zeros(families), np.zeros(families)
    if families == 1 or problem.spare - (families - 1) < LEAST_SPARE:
        return drifts, errors
    own = problem.jacobian(best)
    wide = np.hstack([own, own[:, SHARED:] * problem.sizes[:, None]])
    scaled = (residuals / (CAUCHY_SCALE * spread)) ** 2
    weights = 1 / (1 + scaled)
    normal = np.linalg.pinv((wide * weights[:, None]).T @ wide)
    step = -normal @ (wide.T @ (weights * residuals))
    covariance = _covariance(wide, residuals + wide @ step, spread, held=False)
    # From each e-fold to each tenfold.
    drifts[1:] = step[problem.constants :] * np.log(10)
    errors[1:] = np.sqrt(np.diag(covariance))[problem.constants :] * np.log(10)
    return drifts, errors
