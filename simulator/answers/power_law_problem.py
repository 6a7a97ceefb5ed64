"""The residuals of a power law, and how they change with its constants; no fit of them yet."""

from typing import TYPE_CHECKING

from simulator.errors import MeasurementError

if TYPE_CHECKING:
    import numpy as np

# The constants that all families share: E, A and alpha.
SHARED = 3
# No fit of trained models has come near these.
EXPONENTS = (1e-3, 3.0)
LARGEST_SHIFT = 7.0
LARGEST_SHARE = 1 - 1e-6


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
        """Return a whole point: the level that suits E and alpha, and no shifts."""
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
        """Return by how much ln L of the reference falls over the sizes there are."""
        import numpy as np

        ends = np.array([self.sizes.min(), self.sizes.max()])
        first, last = point[0] + np.exp(point[1] - point[2] * ends)
        return float(np.log(first / last))

    def _reducible(self, point: "np.ndarray") -> "np.ndarray":
        """Return what each run's predicted loss has above E."""
        import numpy as np

        size = self.sizes - self.moved @ point[SHARED:]
        return np.asarray(np.exp(np.clip(point[1] - point[2] * size, -200, 200)))
