"""Fit constants of the timing model to rows of one kind: robust, in log time, reproducible."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import numpy as np

from simulator.evidence.predict.groups import Group
from simulator.inputs.hardware import FittedFigure, HardwareProfile
from simulator.timing.constants import GENERAL, Key, Variant, rates

# Residuals are log(predicted / measured); rows with larger ones lose weight as outliers.
ROBUST_SCALE = 0.05
# Rows cannot determine a constant if every time's relative sensitivity to it is below this.
LEAST_SENSITIVITY = 0.01
# Nor a constant whose relative standard error exceeds this.
LARGEST_ERROR = 0.5
# Logarithms nearer to the edge of a range are at it.
NEAR_EDGE = 1e-3
# Residuals that add up to nothing in each of a few shapes tell no error. [share of a constant].
LEAST_ERROR = 1e-6
# A carried constant this near to the lower edge of its range was fitted to be at it.
EDGE_FACTOR = 2
# The rows do without a constant if the fit is no worse than by this share.
LEAST_GAIN = 0.01
RESAMPLES = 400
# A fit of few rows acts as if it had seen this many more, with the known noise.
KNOWN_ROWS = 3
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Free:
    """A constant to fit: its key without variant, and its plausible range.

    The fit starts from the GPU's value, or from ``start`` if that is zero or without a limit.
    """

    key: Key
    low: float
    high: float
    start: float = 1.0


@dataclass(frozen=True)
class Fitted:
    """A fitted set of constants.

    Attributes
    ----------
    constants, stderr
        By name; standard errors, of those that are not bounded, from resampling whole shapes.
    bounded
        Constants at the edge of their range: they are next to nothing or all there is, or affect no
        time at any value on this side (host time if the GPU is never idle).
    correlated
        Pairs that the rows can hardly separate, with their correlation.
    residuals, held_out
        log(predicted / measured), in sample, and with each shape predicted by a fit without it.
    rows, shapes
        Number of rows and of distinct shapes fitted.
    """

    constants: Mapping[str, float]
    stderr: Mapping[str, float]
    bounded: tuple[str, ...]
    correlated: tuple[tuple[str, str, float], ...]
    residuals: "np.ndarray"
    held_out: "np.ndarray"
    rows: int
    shapes: int


def with_constants(gpu: HardwareProfile, values: Mapping[str, float]) -> HardwareProfile:
    """Return a profile with these constants, for use during a fit."""
    figures = {
        name: FittedFigure.unchecked(value=value, source="being fitted")
        for name, value in values.items()
    }
    return gpu.but(fitted={**gpu.fitted, **figures})


def fit(
    gpu: HardwareProfile,
    groups: Sequence[Group],
    measured: "np.ndarray",
    shapes: "np.ndarray",
    free: Sequence[Free],
    *,
    variant: Variant = GENERAL,
    noise: float = 0.0,
) -> Fitted:
    """Fit constants to groups of rows.

    A constant that the rows hardly tell keeps the GPU's value if they fit as well with it. If not,
    it goes to the edge of its range on the other side. At an edge, the rows bound it.

    Parameters
    ----------
    gpu
        The fit starts from its constants; those that the rows cannot determine stay.
    groups
        The rows, as operations.
    measured, shapes
        Times [s], and the shape of each row, as text, group after group. Whole shapes are held out
        and resampled, because errors of one shape are correlated.
    free
        The constants to fit.
    variant
        The library or format of the constants.
    noise
        The standard deviation of one row's logarithm, where rows may be too few to show it.
    """
    problem = _Problem(
        gpu,
        groups,
        measured=np.log(measured),
        shapes=shapes,
        free=tuple(free),
        variant=variant,
        noise=noise,
    )
    rows = len(problem.measured)
    seen = np.any([problem.seen(start) for start in problem.starts()], axis=0)
    problem = replace(problem, free=tuple(compress(free, seen)))
    problem, best, edges = _settled(problem)
    errors, correlation = problem.uncertainty(best)
    names = problem.names
    held_out = np.full(rows, np.nan)
    folds = _folds(problem.shapes)
    for fold in range(FOLDS):
        test = folds == fold
        if test.any() and not test.all():
            held_out[test] = problem.residuals(problem.solve(best, ~test))[test]
    pairs = [
        (names[i], names[j], float(correlation[i, j]))
        for i in range(len(names))
        for j in range(i)
        if abs(correlation[i, j]) > 0.95  # noqa: PLR2004
    ]
    values = {name: float(np.exp(value)) for name, value in zip(names, best, strict=True)}
    constants = {**values, **edges}
    shares = dict(zip(names, map(float, errors), strict=True))
    stderr = {
        name: values[name] * share for name, share in shares.items() if LEAST_ERROR < share < np.inf
    }
    return Fitted(
        constants=constants,
        stderr=stderr,
        bounded=tuple(name for name in constants if shares.get(name, np.inf) == np.inf),
        correlated=tuple(pairs),
        residuals=problem.residuals(best),
        held_out=held_out,
        rows=rows,
        shapes=len(np.unique(problem.shapes)),
    )


def _settled(problem: "_Problem") -> tuple["_Problem", "np.ndarray", dict[str, float]]:
    """Return a problem without what the rows hardly tell, its solution, and constants at edges."""
    best = min(map(problem.solve, problem.starts()), key=problem.cost)
    edges: dict[str, float] = {}
    told: set[Free] = set()
    while True:
        errors, _ = problem.uncertainty(best)
        doubtful = [
            (error, i)
            for i, (error, item) in enumerate(zip(errors, problem.free, strict=True))
            if error > LARGEST_ERROR and item not in told
        ]
        if not doubtful:
            return problem, best, edges
        # Without the worst constant, the rows may determine the others.
        _, worst = max(doubtful)
        most = problem.cost(best) * (1 + LEAST_GAIN)
        for value in (None, problem.far_edge(worst, best)):
            less = problem.without(worst, value)
            point = less.solve(np.delete(best, worst))
            if less.cost(point) <= most:
                edge = less.at_edge(problem.free[worst])
                edges |= {} if edge is None else {problem.names[worst]: edge}
                problem, best = less, point
                break
        else:
            told.add(problem.free[worst])


def _folds(shapes: "np.ndarray") -> "np.ndarray":
    """Distribute the shapes, in order, over the folds."""
    _, order = np.unique(shapes, return_inverse=True)
    return np.asarray(order) % FOLDS


def _robust(residuals: "np.ndarray") -> "np.ndarray":
    """Return the factor by which residuals weigh less than in a sum of squares."""
    return np.asarray(np.sqrt(1 + (residuals / ROBUST_SCALE) ** 2))


def _next_to_nothing(value: float, item: Free) -> bool:
    """Return whether a constant is at the lower edge of its range, and a fit may start higher.

    A value carried over from a fit that ended there differs by the clocks of the GPUs.
    """
    return value < item.low * EDGE_FACTOR and item.start < item.high


@dataclass(frozen=True)
class _Problem:
    """Residuals as a function of the logarithms of the ``free`` constants.

    ``measured`` are logarithms of times; ``measured`` and ``shapes`` hold all groups' rows.
    """

    gpu: HardwareProfile
    groups: Sequence[Group]
    measured: "np.ndarray"
    shapes: "np.ndarray"
    free: tuple[Free, ...]
    variant: Variant
    noise: float = 0.0

    @property
    def names(self) -> list[str]:
        """The names of the constants in a profile."""
        return [str(item.key.of(self.variant)) for item in self.free]

    @cached_property
    def low(self) -> "np.ndarray":
        """The lower edges of the ranges."""
        return np.log([item.low for item in self.free])

    @cached_property
    def high(self) -> "np.ndarray":
        """The upper edges of the ranges."""
        return np.log([item.high for item in self.free])

    def starts(self) -> list["np.ndarray"]:
        """Return where to start: the GPU's current constants, and the middle of their ranges."""
        # Rows do not seem to determine a constant that is next to nothing.
        values = [
            item.start if not 0 < value < np.inf or _next_to_nothing(value, item) else value
            for value, item in zip(map(self._value(self.gpu), self.free), self.free, strict=True)
        ]
        return [np.log(values), (self.low + self.high) / 2]

    def _value(self, gpu: HardwareProfile) -> Callable[[Free], float]:
        """Return how to look up a constant in a profile."""
        variants = self.groups[0].variants if self.variant != GENERAL else ()
        known = rates(gpu, variants=variants)
        if not any(variant.precision for variant in variants):
            known = known.at(self.variant.precision)
        constants = known.constants
        return lambda item: constants[item.key].value if item.key in constants else item.start

    def without(self, index: int, value: float | None) -> "_Problem":
        """Return the problem without a constant: at the GPU's value, or at another."""
        kept = {} if value is None else {self.names[index]: value}
        free = (*self.free[:index], *self.free[index + 1 :])
        return replace(self, gpu=with_constants(self.gpu, kept), free=free)

    def at_edge(self, item: Free) -> float | None:
        """Return the edge of a constant's range where the GPU's value is, or None."""
        value = self._value(self.gpu)(item)
        return next((edge for edge in (item.low, item.high) if np.isclose(value, edge)), None)

    def far_edge(self, index: int, point: "np.ndarray") -> float:
        """Return the edge of a constant's range where it is, or opposite to the GPU's value."""
        item, value = self.free[index], point[index]
        below, above = value - self.low[index], self.high[index] - value
        if min(below, above) <= NEAR_EDGE:
            return item.low if below < above else item.high
        others = self.without(index, None).at(np.delete(point, index))
        return item.low if np.exp(value) < self._value(others)(item) else item.high

    def at(self, point: "np.ndarray") -> HardwareProfile:
        """Return the GPU with these constants."""
        return with_constants(
            self.gpu, dict(zip(self.names, map(float, np.exp(point)), strict=True))
        )

    def residuals(self, point: "np.ndarray") -> "np.ndarray":
        """Return log(predicted / measured) of every row."""
        gpu = self.at(point)
        predicted = np.concatenate([group.predict(gpu) for group in self.groups])
        return np.asarray(np.log(predicted) - self.measured)

    def cost(self, point: "np.ndarray") -> float:
        """Return what a solution makes least: a sum of squares, of outliers rather of errors."""
        return float(np.sum(_robust(self.residuals(point)) - 1))

    def jacobian(self, point: "np.ndarray") -> "np.ndarray":
        """Return how the residuals change with the logarithm of each constant."""
        step = 1e-4
        columns = [
            (self.residuals(point + moved) - self.residuals(point - moved)) / (2 * step)
            for moved in step * np.eye(len(point))
        ]
        return np.array(columns).T.reshape(len(self.measured), len(point))

    def seen(self, point: "np.ndarray") -> "np.ndarray":
        """Return which constants affect the time of a row."""
        most = np.abs(self.jacobian(point)).max(axis=0, initial=0.0)
        return np.asarray(most > LEAST_SENSITIVITY)

    def loose(self, point: "np.ndarray") -> "np.ndarray":
        """Return which constants fit as well at an edge, but for a row's share of the cost."""
        most = self.cost(point) * (1 + 1 / len(self.measured))
        edges = [
            [np.where(np.arange(len(point)) == i, edge, point) for edge in (self.low, self.high)]
            for i in range(len(point))
        ]
        return np.array([min(map(self.cost, pair)) <= most for pair in edges], dtype=bool)

    def solve(self, start: "np.ndarray", rows: "np.ndarray | None" = None) -> "np.ndarray":
        """Return the best point for all or a subset of the rows."""
        from scipy.optimize import least_squares

        if not len(start):
            return start
        chosen = slice(None) if rows is None else rows
        result = least_squares(
            lambda point: self.residuals(point)[chosen],
            np.clip(start, self.low + 1e-6, self.high - 1e-6),
            bounds=(self.low, self.high),
            loss="soft_l1",
            f_scale=ROBUST_SCALE,
            max_nfev=60,
        )
        return np.asarray(result.x)

    def uncertainty(self, best: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
        """Return standard errors of the logarithms and their correlations.

        At the edge of a range, where an edge fits as well, or where no row shows the constant, the
        error is infinite.
        """
        count = len(best)
        if not count:
            return np.zeros(0), np.zeros((0, 0))
        errors, correlation = self._of_few(best) if self.noise else self._resampled(best)
        distance = np.minimum(best - self.low, self.high - best)
        errors[(distance < NEAR_EDGE) | self.loose(best) | ~self.seen(best)] = np.inf
        return errors, correlation

    def _of_few(self, best: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
        """Return errors and correlations by the rows' scatter, shape by shape if that is more.

        What so few rows show of their scatter counts together with as few of the known noise.
        """
        residuals, jacobian = self.residuals(best), self.jacobian(best)
        weighted = jacobian / _robust(residuals)[:, None]
        inverse = np.linalg.pinv(weighted.T @ jacobian)
        known = len(residuals) - len(best) + KNOWN_ROWS
        squares = residuals @ (residuals / _robust(residuals)) + KNOWN_ROWS * self.noise**2
        alike = self.shapes[:, None] == np.unique(self.shapes)
        of_shape = inverse @ (weighted * residuals[:, None]).T @ alike
        factor = alike.shape[1] / max(alike.shape[1] - 1, 1)
        variances = np.maximum(
            squares / known * np.diag(inverse), factor * np.sum(of_shape**2, axis=1)
        )
        deviations = np.sqrt(np.diag(inverse))
        return np.sqrt(variances), inverse / np.outer(deviations, deviations)

    def _resampled(self, best: "np.ndarray") -> tuple["np.ndarray", "np.ndarray"]:
        """Return errors and correlations from a bootstrap over shapes without refitting.

        Each draw takes one Gauss-Newton step from the fit of all rows.
        """
        count = len(best)
        residuals, jacobian = self.residuals(best), self.jacobian(best)
        weighted = jacobian / _robust(residuals)[:, None]
        _, shape = np.unique(self.shapes, return_inverse=True)
        of_shape = [shape == i for i in range(shape.max() + 1)]
        normal = np.array([weighted[rows].T @ jacobian[rows] for rows in of_shape])
        gradient = np.array([weighted[rows].T @ residuals[rows] for rows in of_shape])
        shapes = len(of_shape)
        generator = np.random.default_rng(0)
        steps = []
        for _ in range(RESAMPLES):
            drawn = np.bincount(generator.integers(0, shapes, shapes), minlength=shapes)
            matrix = np.tensordot(drawn, normal, axes=1) + 1e-9 * np.eye(count)
            steps.append(-np.linalg.solve(matrix, drawn @ gradient))
        spread = np.array(steps)
        errors = spread.std(axis=0)
        scaled = np.where(errors > 0, errors, 1)
        centred = (spread - spread.mean(axis=0)) / scaled
        return errors, centred.T @ centred / RESAMPLES
