"""A page's computations: the steps of every model and setting, and the times of every GPU.

Counts do not depend on hardware, so each operation is recorded once for all GPUs; its time is
recorded for each GPU and each of a few dozen ways to time an operation.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

from simulator.counts.memory import memory
from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Execution, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import cached_stream_s, peak_bound_s
from simulator.timing.roofline import ROOFS, stored_ends_s
from simulator.timing.step import step_time
from simulator.views.explore.intervals import STORED, Intervals
from simulator.views.explore.symbol import Recorder, Symbol
from simulator.views.explore.tape import Tapes, Unique

# Variables from the page's sliders, and from its GPU.
VARIABLES = (
    "samples",
    "context_tokens",
    "decoded_tokens",
    "prompts",
    "query_tokens",
    "resident_blocks",
    "card_bytes",
)
MEMORY = (
    "weights_bytes",
    "kv_bytes",
    "workspace_bytes",
    "reserve_bytes",
    "total_bytes",
    "low_bytes",
    "high_bytes",
    "capacity_bytes",
)
TIMES = (
    "device_s",
    "host_s",
    "collective_s",
    *(f"{roof}_s" for roof in ROOFS),
    "cached_s",
    *STORED,
    "peak_memory_s",
    "peak_compute_s",
)

# The fields of an operation that determine the time of one call: name, whether it is a setting and
# not a quantity, and default.
_TIMED = tuple(
    (item.name, item.type is int, item.default)
    for item in fields(Operation)
    if item.name not in ("name", "within", "repeat")
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One way to time an operation.

    Attributes
    ----------
    settings
        The operation's fields that are not quantities: kind, format of its product, ranks.
    used
        Its quantities that are not plain zeros, which are the variables of its tapes.
    """

    execution: Execution
    settings: tuple[tuple[str, Any], ...]
    used: tuple[str, ...]

    def tape(self, tapes: Tapes, gpu_rates: Rates) -> int:
        """Record the time of one call on a GPU: the columns of ``TIMES``."""
        recorder = Recorder()
        quantities: dict[str, Any] = {name: recorder.variable(name) for name in self.used}
        operation = Operation(name="", **dict(self.settings), **quantities)
        step = step_time([operation], gpu_rates, self.execution)
        no_flops = replace(operation, flops=0)
        no_bytes = replace(
            operation, bytes_read=0, bytes_written=0, reused_bytes=0, scratch_bytes=0
        )
        outputs = (
            step.device_s,
            step.host_s,
            step.collective_s,
            *(step.by_roof_s[roof] for roof in ROOFS),
            cached_stream_s(operation, step.operations[0], gpu_rates)
            if "reused_bytes" in self.used
            else 0.0,
            *(
                stored_ends_s(operation, step.operations[0], gpu_rates)
                if "together_bytes" in self.used
                else (0.0, 0.0)
            ),
            peak_bound_s([no_flops], gpu_rates),
            peak_bound_s([no_bytes], gpu_rates),
        )
        return tapes.add(recorder, outputs)


@dataclass
class Programs:
    """Everything that the page's script replays, each part recorded once.

    Attributes
    ----------
    operations
        Name, calls in a step, timing, and the tape of the timing's quantities.
    steps
        Numbers of the operations of a step.
    intervals
        Intervals of the steps' times.
    """

    tapes: Tapes = field(default_factory=Tapes)
    names: Unique[str] = field(default_factory=Unique)
    timings: Unique[Timing] = field(default_factory=Unique)
    operations: Unique[tuple[int, int, int, int]] = field(default_factory=Unique)
    steps: Unique[tuple[int, ...]] = field(default_factory=Unique)
    intervals: Intervals = field(init=False)
    _recorder: Recorder = field(default_factory=Recorder)
    _variables: dict[str, Symbol] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the variables that all steps share, so that common parts are recorded once."""
        self.intervals = Intervals(self.tapes)
        self._variables = {name: self._recorder.variable(name) for name in VARIABLES}

    def add(
        self,
        model: ModelShape,
        setup: Setup,
        work: Workload,
        moved: Collection[str],
        *,
        peak: bool,
    ) -> tuple[int, int, int]:
        """Record a decode step, its memory and its interval.

        Parameters
        ----------
        model, setup, work
            What is decoded, how, and its sizes.
        moved
            The sizes that vary; the others are fixed as in ``work``.
        peak
            Whether the constants are published peaks.

        Returns
        -------
        tuple
            The numbers of the step, of the tape of its memory (columns ``MEMORY``), and of its
            interval.
        """
        known: dict[str, Any] = {name: self._variables[name] for name in moved}
        resident: Any = self._variables["resident_blocks"]
        grid = work.but(**known)
        operations = decode_operations(model, setup, grid, resident_blocks=resident)
        step = self.steps.place(
            tuple(self._operation(each, setup.execution) for each in operations)
        )
        card: Any = self._variables["card_bytes"]
        needs = memory(model, setup, grid, card_bytes=card, resident_blocks=resident)
        held = self.tapes.add(self._recorder, [getattr(needs, name) for name in MEMORY])
        return step, held, self.intervals.add(setup, operations, peak=peak)

    def times(self, gpu_rates: Rates) -> list[int]:
        """Record every timing so far on a GPU, and return the numbers of the tapes."""
        return [timing.tape(self.tapes, gpu_rates) for timing in self.timings.items]

    def _operation(self, operation: Operation, execution: Execution) -> int:
        """Record one operation, and return its number."""
        quantities: dict[str, Any] = {}
        settings: list[tuple[str, Any]] = []
        for name, whole, default in _TIMED:
            value = getattr(operation, name)
            if value is default and not value:
                continue  # as most fields are
            if type(value) is Symbol or (not whole and isinstance(value, (int, float)) and value):
                quantities[name] = value
            elif value != default:
                settings.append((name, value))
        timing = self.timings.place(
            Timing(execution=execution, settings=tuple(settings), used=tuple(quantities))
        )
        tape = self.tapes.add(self._recorder, list(quantities.values()))
        return self.operations.place(
            (self.names.place(operation.name), operation.repeat, timing, tape)
        )
