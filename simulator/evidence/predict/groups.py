"""Groups of measured rows that are predicted together, and what their predictions share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.counts.operation import Operation
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import Dtype
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.workload import Attention, Execution, HowRun, Kernel, KvLayout
from simulator.timing.constants import LIBRARIES, ConstantsChoice, Variant, rates
from simulator.timing.interval import uncertainty
from simulator.timing.step import step_time

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class HowTimed:
    """How rows were run, as far as the interval of their times depends on it.

    A single call of a library's kernel unless said otherwise; see
    :class:`~simulator.inputs.workload.HowRun`.
    """

    attention: Attention = "standard"
    kernel: Kernel = "flash"
    kv_layout: KvLayout = "shared"
    execution: Execution = "graph"
    weight_dtype: Dtype = "bf16"
    kv_dtype: Dtype = "bf16"


# The shortest and the longest that times may be. [s]
Ends = tuple["np.ndarray", "np.ndarray"]


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
        Whose constants come before general ones, the most specific first.
    seconds, parts, ends
        Of programs with a timing of their own: their times, what these are made of by name, and
        between which they lie. [s]
    how
        How the rows were run; None where programs have a timing of their own.
    """

    kind: RowKind
    gpu_id: str
    index: "pd.Index[Any]"
    operations: Sequence[Operation]
    execution: Execution
    variants: tuple[Variant, ...]
    seconds: Callable[[HardwareProfile, ConstantsChoice], "np.ndarray"] | None = None
    parts: Callable[[HardwareProfile, ConstantsChoice], dict[str, "np.ndarray"]] | None = None
    ends: Callable[[HardwareProfile, ConstantsChoice], Ends] | None = None
    how: HowRun | None = None

    @property
    def low_precision(self) -> bool:
        """Whether the rows are of an 8-bit format, whose constants are its own."""
        return any(variant.precision for variant in self.variants)

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted times. [s]."""
        if self.seconds is not None:
            return self.seconds(gpu, choice)
        gpu_rates = rates(gpu, choice, variants=self.variants)
        total = step_time(self.operations, gpu_rates, self.execution).total_s
        return self._column(total)

    def interval(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> Ends | None:
        """Return between which times the rows lie, None where nothing says how far off they are."""
        if self.ends is not None:
            return self.ends(gpu, choice)
        if self.how is None:
            return None
        gpu_rates = rates(gpu, choice, variants=self.variants)
        step = step_time(self.operations, gpu_rates, self.execution)
        found = uncertainty(self.operations, step, gpu_rates, self.how)
        return self._column(found.low_s), self._column(found.high_s)

    def _column(self, values: Any) -> "np.ndarray":
        """Return a value for each row."""
        return np.broadcast_to(np.asarray(values, dtype=np.float64), len(self.index)).copy()


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
