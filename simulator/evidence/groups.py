"""Groups of measured rows that are predicted together, and what their predictions share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.counts.operation import Operation
from simulator.evidence.row_kinds import RowKind
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.workload import Execution
from simulator.timing.constants import LIBRARIES, ConstantsChoice, rates
from simulator.timing.step import step_time

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Group:
    """Rows that share everything but sizes.

    Attributes
    ----------
    index
        Their labels in the table.
    operations
        What was timed, with arrays as long as ``index``.
    variants
        Prefixes of the constants to use, the most specific first.
    seconds, parts
        Of programs with a timing of their own: their times, and what these are made of by name. [s]
    """

    kind: RowKind
    gpu_id: str
    index: "pd.Index[Any]"
    operations: Sequence[Operation]
    execution: Execution
    variants: tuple[str, ...]
    seconds: Callable[[HardwareProfile, ConstantsChoice], "np.ndarray"] | None = None
    parts: Callable[[HardwareProfile, ConstantsChoice], dict[str, "np.ndarray"]] | None = None

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted times. [s]."""
        if self.seconds is not None:
            return self.seconds(gpu, choice)
        gpu_rates = rates(gpu, choice, variants=self.variants)
        total = step_time(self.operations, gpu_rates, self.execution).total_s
        return np.broadcast_to(np.asarray(total, dtype=np.float64), len(self.index)).copy()


def library_of(framework: str) -> str:
    """Return the library whose constants a framework's rows use, or nothing.

    >>> library_of("vLLM-0.2.x+relay"), library_of("someone's own")
    ('vllm', '')
    """
    lowered = framework.lower().replace("-", "").replace("_", "")
    if lowered.startswith("tensorrtllm"):
        return "trtllm"
    return next((name for name in LIBRARIES if lowered.startswith(name)), "")


@cache
def profile(gpu_id: str) -> HardwareProfile:
    """Load a profile once."""
    return load_hardware(gpu_id)
