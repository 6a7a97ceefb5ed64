"""Fit constants of the timing model to rows of one kind: robust, in log time, reproducible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
# A carried constant this near to the lower edge of its range was fitted to be at it.
EDGE_FACTOR = 2
RESAMPLES = 400
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
        By name; standard errors from resampling whole shapes.
    at_bound
        Constants that ended at the edge of their range.
    bounded
        Constants that do not affect times at the fitted value, but would a little beyond it: for
        example host time if the GPU is never idle. Any value on this side fits equally well.
    unidentified
        Constants that the rows cannot determine: they keep their value.
    correlated
        Pairs that the rows can hardly separate, with their correlation.
    residuals, held_out
        log(predicted / measured), in sample, and with each shape predicted by a fit without it.
    rows, shapes
        Number of rows and of distinct shapes fitted.
    """

    constants: Mapping[str, float]
    stderr: Mapping[str, float]
    at_bound: tuple[str, ...]
    bounded: tuple[str, ...]
    unidentified: tuple[Key, ...]
    correlated: tuple[tuple[str, str, float], ...]
    residuals: "np.ndarray"
    held_out: "np.ndarray"
    rows: int
    shapes: int


def with_constants(gpu: HardwareProfile, values: Mapping[str, float]) -> HardwareProfile:
    """Return a profile with these constants, for use during a fit."""
    figures = {
        name: FittedFigure.model_construct(
            value=value, source="being fitted", stderr=None, rows=None, date=None
        )
        for name, value in values.items()
    }
    return gpu.model_copy(update={"fitted": {**gpu.fitted, **figures}})


def fit(
    gpu: HardwareProfile,
    groups: Sequence[Group],
    measured: Sequence["np.ndarray"],
    shapes: Sequence["np.ndarray"],
    free: Sequence[Free],
    *,
    variant: Variant = GENERAL,
    keep_edges: bool = False,
) -> Fitted:
    """Fit constants to groups of rows.

    Parameters
    ----------
    gpu
        The fit starts from its constants; those that the rows cannot determine stay.
    groups
        The rows, as operations.
    measured, shapes
        For each group: times [s], and the shape of each row. Whole shapes are held out and
        resampled, because errors of one shape are correlated.
    free
        The constants to fit.
    variant
        The library or format of the constants.
    keep_edges
        Whether a constant at the edge of its range, where it is next to nothing or all there is,
        counts as known: it then neither goes nor blurs the others.
    """
    problem = _Problem(gpu, groups, measured, shapes, free, variant)
    start = problem.start()
    jacobian = problem.jacobian(start)
    sensitive = np.abs(jacobian).max(axis=0) > LEAST_SENSITIVITY if len(jacobian) else np.array([])
    used = [item for item, seen in zip(free, sensitive, strict=True) if seen]
    everything = np.ones(problem.rows, dtype=bool)
    while True:
        problem = _Problem(gpu, groups, measured, shapes, used, variant)
        best = problem.solve(everything, problem.start())
        errors, correlation = problem.uncertainty(best, keep_edges=keep_edges)
        if not len(errors) or errors.max() <= LARGEST_ERROR:
            break
        # Without the worst constant, the rows may determine the others.
        used = [item for i, item in enumerate(used) if i != int(errors.argmax())]
    left = tuple(item.key for item in free if item not in used)
    residuals = problem.residuals(best)
    held_out = np.full(problem.rows, np.nan)
    folds = _folds(problem.shapes)
    for fold in range(FOLDS):
        test = folds == fold
        if test.any() and not test.all():
            held_out[test] = problem.residuals(problem.solve(~test, best))[test]
    names = [str(item.key.of(variant)) for item in used]
    edge = [name for name, told in zip(names, problem.at_edge(best), strict=True) if told]
    seen = np.abs(problem.jacobian(best)).max(axis=0, initial=0.0) > LEAST_SENSITIVITY
    pairs = [
        (names[i], names[j], float(correlation[i, j]))
        for i in range(len(names))
        for j in range(i)
        if abs(correlation[i, j]) > 0.95  # noqa: PLR2004
    ]
    values = {name: float(np.exp(value)) for name, value in zip(names, best, strict=True)}
    return Fitted(
        constants=values,
        stderr={
            name: values[name] * float(error) for name, error in zip(names, errors, strict=True)
        },
        at_bound=tuple(edge),
        bounded=tuple(name for name, told in zip(names, seen, strict=True) if not told),
        unidentified=left,
        correlated=tuple(pairs),
        residuals=residuals,
        held_out=held_out,
        rows=problem.rows,
        shapes=len(np.unique(problem.shapes)),
    )


def _folds(shapes: "np.ndarray") -> "np.ndarray":
    """Distribute the shapes, in order, over the folds."""
    _, order = np.unique(shapes, return_inverse=True)
    return np.asarray(order) % FOLDS


def _next_to_nothing(value: float, item: Free) -> bool:
    """Return whether a constant is at the lower edge of its range, and a fit may start higher.

    A value carried over from a fit that ended there differs by the clocks of the GPUs.
    """
    return value < item.low * EDGE_FACTOR and item.start < item.high


class _Problem:
    """Residuals as a function of the constants' logarithms."""

    def __init__(
        self,
        gpu: HardwareProfile,
        groups: Sequence[Group],
        measured: Sequence["np.ndarray"],
        shapes: Sequence["np.ndarray"],
        free: Sequence[Free],
        variant: Variant,
    ) -> None:
        self._gpu, self._groups, self._free, self._variant = gpu, groups, free, variant
        self._measured = np.log(np.concatenate(measured))
        self.shapes = np.concatenate(shapes).astype(str)
        self.rows = len(self._measured)
        self._low = np.log([item.low for item in free])
        self._high = np.log([item.high for item in free])

    def start(self) -> "np.ndarray":
        """Return the profile's current constants, clipped to their ranges."""
        variants = self._groups[0].variants if self._variant != GENERAL else ()
        constants = rates(self._gpu, variants=variants).constants
        values = [
            constants[item.key].value if item.key in constants else item.start
            for item in self._free
        ]
        # Rows do not seem to determine a constant that is next to nothing.
        values = [
            item.start if not 0 < value < np.inf or _next_to_nothing(value, item) else value
            for value, item in zip(values, self._free, strict=True)
        ]
        return np.clip(np.log(values), self._low + 1e-6, self._high - 1e-6)

    def residuals(self, point: "np.ndarray") -> "np.ndarray":
        """Return log(predicted / measured) of every row."""
        values = {
            str(item.key.of(self._variant)): float(np.exp(value))
            for item, value in zip(self._free, point, strict=True)
        }
        gpu = with_constants(self._gpu, values)
        predicted = np.concatenate([group.predict(gpu) for group in self._groups])
        return np.asarray(np.log(predicted) - self._measured)

    def jacobian(self, point: "np.ndarray") -> "np.ndarray":
        """Return how the residuals change with the logarithm of each constant."""
        step = 1e-4
        columns = []
        for i in range(len(point)):
            moved = point.copy()
            moved[i] += step
            below = point.copy()
            below[i] -= step
            columns.append((self.residuals(moved) - self.residuals(below)) / (2 * step))
        return np.array(columns).T.reshape(self.rows, len(point))

    def solve(self, rows: "np.ndarray", start: "np.ndarray") -> "np.ndarray":
        """Return the best point for a subset of the rows."""
        from scipy.optimize import least_squares

        if not len(start):
            return start
        result = least_squares(
            lambda point: self.residuals(point)[rows],
            start,
            bounds=(self._low, self._high),
            loss="soft_l1",
            f_scale=ROBUST_SCALE,
            max_nfev=60,
        )
        return np.asarray(result.x)

    def at_edge(self, point: "np.ndarray") -> "np.ndarray":
        """Return which constants are at the edge of their range."""
        distance = np.minimum(point - self._low, self._high - point)
        return np.asarray(distance < NEAR_EDGE)

    def uncertainty(
        self, best: "np.ndarray", *, keep_edges: bool
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return standard errors of the logarithms and their correlations.

        A bootstrap over shapes without refitting: each draw takes one Gauss-Newton step from the
        fit of all rows.
        """
        count = len(best)
        if not count:
            return np.zeros(0), np.zeros((0, 0))
        residuals, jacobian = self.residuals(best), self.jacobian(best)
        if keep_edges:
            jacobian = jacobian * ~self.at_edge(best)
        robust = 1 / np.sqrt(1 + (residuals / ROBUST_SCALE) ** 2)
        _, shape = np.unique(self.shapes, return_inverse=True)
        shapes = int(shape.max()) + 1
        normal = np.zeros((shapes, count, count))
        gradient = np.zeros((shapes, count))
        for i in range(shapes):
            rows = shape == i
            weighted = jacobian[rows] * robust[rows][:, None]
            normal[i] = weighted.T @ jacobian[rows]
            gradient[i] = weighted.T @ residuals[rows]
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
