"""A page's computations: the steps of every model and setting, and the times of every GPU.

Counts do not depend on hardware, and their formulas not on a model's numbers: each part of a step
is recorded once for all models of an architecture, and timed once for all GPUs that the timing
model treats alike.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import count, product
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numpy as np

from simulator.counts.memory import memory
from simulator.counts.operation import PARTS, Operation, part_of
from simulator.counts.transformer import around_attention, attention_operations, check_split
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import Dtype
from simulator.inputs.formats import TENSOR_GROUPS, WeightFormat, WeightFormats
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.record import Frozen
from simulator.inputs.setup import Execution, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import FAMILY, Family, cached_stream_s, peak_bound_s
from simulator.timing.roofline import ROOFS, stored_ends_s
from simulator.timing.step import step_time
from simulator.views.explore.alike import Differ, Groups, together
from simulator.views.explore.intervals import STORED, Intervals
from simulator.views.explore.symbol import Recorder, Symbol
from simulator.views.explore.tape import Tapes, Unique

# Variables from the page's sliders and from its GPU. Then come the GPUs of the group, bytes of a
# cached value and of a weight of each group of tensors, and the numbers of models by their paths.
VARIABLES = (
    *("samples", "context_tokens", "decoded_tokens", "prompts", "query_tokens"),
    *("resident_blocks", "card_bytes"),
)
_RANKS = len(VARIABLES)
_CACHED, _GROUPS = _RANKS + 1, _RANKS + 2
MEMORY = (
    *("weights_bytes", "kv_bytes", "workspace_bytes", "reserve_bytes"),
    *("total_bytes", "low_bytes", "high_bytes", "capacity_bytes"),
)
TIMES = (
    *("device_s", "host_s", "collective_s", *(f"{roof}_s" for roof in ROOFS)),
    *("cached_s", *STORED, "peak_memory_s", "peak_compute_s"),
)

# Format of what is not quantised, then of each group of weights, and that of its products if it is
# another.
Stored = tuple[Dtype, tuple[tuple[Dtype, Dtype | None], ...]]

# What a page varies of a setup, besides formats and the size of the group.
HOW = ("attention", "kernel", "kv_layout", "execution", "latent_form")
# The fields of an operation that determine the time of one call, with their defaults. Those of type
# int and bool are settings, and no quantities.
_TIMED = {
    item.name: (item.default, item.type if item.type in (int, bool) else None)
    for item in fields(Operation)
    if item.name not in ("name", "within", "repeat", "ranks", "low_precision_cache")
}
_NAMES = count()
_FIELDS = attrgetter(*_TIMED)
# Fields of a model that no formula reads, and its formats, which the page's menus choose.
_TOLD = frozenset({"name", "source", "notes", "max_context_tokens", "weights", "kv_dtype"})


def shape_of(model: ModelShape) -> tuple[tuple[Any, ...], list[float]]:
    """Return what models of one architecture have in common, and the numbers that they differ in.

    Zeros are common: what has none of something has no operations for it.
    """
    leaves: list[Any] = []
    _collect(model, leaves)
    numbers = [float(leaf) for leaf in leaves if _is_number(leaf)]
    return tuple(float if _is_number(leaf) else leaf for leaf in leaves), numbers


def _collect(value: Any, leaves: list[Any]) -> None:
    """Add what a model's fields hold to the leaves, of nested ones as well."""
    if isinstance(value, Frozen):
        for name, part in value:
            if name not in _TOLD:
                _collect(part, leaves)
    elif type(value) is tuple:
        leaves.append((len(value), "items"))
        for item in value:
            _collect(item, leaves)
    else:
        leaves.append(value)


def _is_number(leaf: Any) -> bool:
    return type(leaf) in (int, float) and leaf != 0


def _replaced(value: Any, variable: Callable[[str], Any], path: str = "") -> Any:
    """Return a model with other numbers, by their paths."""
    if isinstance(value, Frozen):
        return value.but(
            **{
                name: _replaced(part, variable, f"{path}.{name}")
                for name, part in value
                if name not in _TOLD
            }
        )
    if isinstance(value, tuple):
        return tuple(_replaced(item, variable, f"{path}[{at}]") for at, item in enumerate(value))
    return variable(path) if _is_number(value) else value


def stored_as(formats: WeightFormats) -> Stored:
    """Return what of formats decides how weights are multiplied."""
    return formats.base, tuple(
        (each.dtype, each.multiplied) for each in map(formats.of, TENSOR_GROUPS)
    )


def group_bytes(formats: WeightFormats) -> list[float]:
    """Return the bytes per weight of each group of tensors."""
    return [formats.of(group).bytes for group in TENSOR_GROUPS]


class Timing(NamedTuple):
    """One way to time an operation.

    Attributes
    ----------
    settings
        The operation's fields that are not quantities: kind, format of its product.
    used
        Its quantities that are not plain zeros, which are the variables of its tapes.
    grouped
        Whether its time depends on the GPUs of the group.
    """

    execution: Execution
    settings: tuple[tuple[str, Any], ...]
    used: tuple[str, ...]
    grouped: bool

    def tapes(
        self, tapes: Tapes, gpus: Mapping[int, Rates], ranks: int, alike: Groups
    ) -> dict[int, int]:
        """Record the time of one call: the tape of the columns of ``TIMES``, for each GPU.

        Parameters
        ----------
        tapes
            Where to record it.
        gpus, ranks
            The GPUs' rates by their places on the page, and the size of the group.
        alike
            GPUs taken together so far.
        """
        found: dict[int, int] = {}
        waiting = [tuple(gpus)]
        while waiting:
            places = waiting.pop()
            recorder = Recorder()
            try:
                outputs = self._times(recorder, together([gpus[at] for at in places], alike), ranks)
            except Differ as differ:
                waiting += [
                    tuple(at for at, yes in zip(places, differ.mask, strict=True) if yes == side)
                    for side in (True, False)
                ]
                continue
            found |= dict.fromkeys(places, tapes.add(recorder, outputs, places))
        return found

    def _times(self, recorder: Recorder, gpus: Any, ranks: int) -> list[Any]:
        """Return the columns of ``TIMES`` on GPUs alike."""
        quantities: dict[str, Any] = {
            name: recorder.variable(at) for at, name in enumerate(self.used)
        }
        operation = Operation(name="", ranks=ranks, **dict(self.settings), **quantities)
        step = step_time([operation], gpus, self.execution)
        no_flops = replace(operation, flops=0)
        no_bytes = replace(
            operation, bytes_read=0, bytes_written=0, reused_bytes=0, scratch_bytes=0
        )
        return [
            step.device_s,
            step.host_s,
            step.collective_s,
            *step.by_roof_s.values(),
            cached_stream_s(operation, step.times[0], gpus) if "reused_bytes" in self.used else 0.0,
            *(
                stored_ends_s(operation, step.times[0], gpus)
                if "together_bytes" in self.used
                else (0.0, 0.0)
            ),
            peak_bound_s([no_flops], gpus),
            peak_bound_s([no_bytes], gpus),
        ]


class _Recorded(Setup):
    """A setup with symbols for the bytes of weights and of cached values."""

    _kv_bytes: Any = None

    @cached_property
    def weights(self) -> WeightFormats:
        """Formats of the weights, kept because counts ask for them time and again."""
        return self._checkpoint

    @cached_property
    def kv_bytes(self) -> Any:
        """Bytes of a cached value, a symbol. [bytes]."""
        return self._kv_bytes


@dataclass
class Architecture:
    """Models that differ in numbers alone.

    Attributes
    ----------
    model
        One of them, with variables for its numbers.
    places
        The variables of what its recordings have to serve: GPUs of a group, bytes of a cached
        value, and the numbers of its models, those of :func:`shape_of`.
    known
        What these variables stand for, in each model and group.
    """

    model: ModelShape
    places: list[int]
    known: dict[tuple[float, ...], None] = field(default_factory=dict)
    _supposed: dict[tuple[float, ...], tuple[ModelShape, Any]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> Any:
        """All that is known, the largest groups first: they do what a single GPU does, and more."""
        return np.array(sorted(self.known, key=itemgetter(0), reverse=True))

    def supposed(self, recorder: Recorder, row: tuple[float, ...]) -> ModelShape:
        """Return the model, supposing that its variables are known numbers.

        Its name is like no other: sums over the weights of a model are kept, by model, and what
        they decide guards all that is recorded of it.
        """
        recorder.suppose(dict(zip(self.places, row, strict=True)))
        if row not in self._supposed:
            model = self.model.but(name=f"recorded {next(_NAMES)}")
            count_parameters(model)
            self._supposed[row] = model, recorder.guards
        model, guards = self._supposed[row]
        recorder.guards = dict(guards)
        return model


class Met(NamedTuple):
    """A model that the programs know: its numbers, and the groups that can split its heads."""

    architecture: Architecture
    numbers: list[float]
    splits: list[int]


# A recording for some models: the tape of its guards, what they have to be, and what was recorded;
# None is what cannot run.
Recording = tuple[int | None, list[float], Any]
Counted = Callable[[ModelShape, Setup], Any]


@dataclass
class Programs:
    """Everything that the page's script replays, each part recorded once.

    Attributes
    ----------
    work
        The workload, whose moved sizes the page has as variables.
    moved
        The sizes that vary; the others are fixed as in ``work``.
    sizes, kv_bytes
        GPUs of the groups to offer, and bytes of a cached value in each format of the cache.
    operations
        Name, part of a step, timings with a cache of 16 bits and of fewer, and the tape of the
        timing's quantities and of the calls in a step.
    recordings
        Of each part of each step: of its operations, or of its memory.
    kinds
        Of each part: the kinds of its kernels; whether they read data again, or a stored context.
    """

    work: Workload
    moved: Sequence[str]
    sizes: Sequence[int]
    kv_bytes: Sequence[float]
    tapes: Tapes = field(default_factory=Tapes)
    names: Unique[str] = field(default_factory=Unique)
    timings: Unique[Timing] = field(default_factory=Unique)
    operations: Unique[tuple[int, int, int, int, int]] = field(default_factory=Unique)
    recordings: list[list[Recording]] = field(default_factory=list)
    kinds: list[dict[Family, tuple[bool, bool]]] = field(default_factory=list)
    intervals: Intervals = field(init=False)
    _recorder: Recorder = field(default_factory=Recorder)
    _paths: Unique[str] = field(default_factory=Unique)
    _architectures: dict[tuple[Any, ...], Architecture] = field(default_factory=dict)
    _places: dict[Any, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Share the tapes, and make the sizes variables."""
        self.intervals = Intervals(self.tapes)
        self._sizes = {name: self._recorder.variable(at) for at, name in enumerate(VARIABLES)}
        self.work = self.work.but(**{name: self._sizes[name] for name in self.moved})

    def meet(self, model: ModelShape) -> Met:
        """Take note of a model that recordings have to serve."""
        shape, numbers = shape_of(model)
        if shape not in self._architectures:
            places = [_RANKS, _CACHED]

            def variable(path: str) -> Symbol:
                places.append(_GROUPS + len(TENSOR_GROUPS) + self._paths.place(path))
                return self._recorder.variable(places[-1])

            self._architectures[shape] = Architecture(_replaced(model, variable), places)
        met = Met(self._architectures[shape], numbers, self._splits(model))
        sizes = product(met.splits, self.kv_bytes)
        met.architecture.known |= dict.fromkeys((*size, *numbers) for size in sizes)
        return met

    def _stored(self, stored: Stored) -> WeightFormats:
        """Return formats of weights with variables for their bytes."""
        base, formats = stored
        sizes: list[Any] = [self._recorder.variable(_GROUPS + at) for at in range(len(formats))]
        groups: dict[str, Any] = {
            group: WeightFormat.unchecked(dtype=dtype, multiplied=multiplied, bytes=size)
            for group, (dtype, multiplied), size in zip(TENSOR_GROUPS, formats, sizes, strict=True)
        }
        return WeightFormats.unchecked(base=base, **groups)

    def _splits(self, model: ModelShape) -> list[int]:
        """Return the sizes of a group over which the heads of a model can be split."""
        found = []
        for size in self.sizes:
            with suppress(WorkloadError):
                check_split(model, size)
                found.append(size)
        return found

    def record(self, part: str, architecture: Architecture, setup: Setup) -> int:
        """Record a part of a step, and return its number.

        Parameters
        ----------
        part
            ``around`` attention, ``attention``, or ``memory``.
        architecture, setup
            What is decoded, and how; bytes of weights and of cached values, and the group, are
            variables.
        """
        how = {name: getattr(setup, name) for name in HOW}
        if part != "memory" and not setup.eager:
            how["execution"] = "graph"
        stored = stored_as(setup.weights)
        if part != "around":
            # What has no products does not depend on their formats.
            stored = stored[0], ((stored[0], None),) * len(TENSOR_GROUPS)
        key = part, id(architecture), stored, *how.values()
        if key in self._places:
            return self._places[key]
        counted: Counted = {
            "around": self._around,
            "attention": self._attention,
            "memory": self._memory,
        }[part]
        self.kinds.append({})
        ranks, cached = map(self._recorder.variable, (_RANKS, _CACHED))
        fields = {**dict(setup), **how, "weight_dtype": "auto", "tensor_parallel": ranks}
        asked = _Recorded.unchecked(**fields, _checkpoint=self._stored(stored), _kv_bytes=cached)
        waiting = architecture.rows
        recordings: list[Recording] = []
        while len(waiting):
            model = architecture.supposed(self._recorder, tuple(waiting[0].tolist()))
            found = counted(model, asked)
            guards = self._recorder.guards
            alone = ranks == 1
            if isinstance(alone, Symbol) and not alone.value:
                # A single GPU has the same operations, but for the collectives.
                guards.pop(alone.key, None)
            expected = [value for _, value in guards.values()]
            symbols = [symbol for symbol, _ in guards.values()]
            tape = self.tapes.add(self._recorder, symbols) if symbols else None
            recordings.append((tape, expected, found))
            held = np.ones(len(waiting), dtype=bool)
            if tape is not None:
                inputs = dict(zip(architecture.places, waiting.T, strict=True))
                for got, value in zip(self.tapes.follow(tape, inputs), expected, strict=True):
                    held &= got == value
            held[0] = True
            waiting = waiting[~held]
        self.recordings.append(recordings)
        self._places[key] = len(self.recordings) - 1
        return self._places[key]

    def kinds_of(self, *parts: int) -> dict[Family, tuple[bool, bool]]:
        """Return the kinds of kernels of some parts together."""
        return {family: of for part in parts for family, of in self.kinds[part].items()}

    def _around(self, model: ModelShape, setup: Setup) -> list[list[int]]:
        """Record the operations before and after attention."""
        before, after = around_attention(model, setup, self.work)
        return [self._numbered(before, setup), self._numbered(after, setup)]

    def _attention(self, model: ModelShape, setup: Setup) -> list[int]:
        """Record the operations of attention."""
        blocks: Any = self._sizes["resident_blocks"]
        return self._numbered(attention_operations(model, setup, self.work, blocks), setup)

    def _memory(self, model: ModelShape, setup: Setup) -> int:
        """Record the memory."""
        given: Any = {name: self._sizes[name] for name in ("card_bytes", "resident_blocks")}
        needs = memory(model, setup, self.work, **given)
        return self.tapes.add(self._recorder, [getattr(needs, name) for name in MEMORY])

    def times(self, gpus: Sequence[Rates]) -> list[list[int | list[int]]]:
        """Record every timing so far: for each GPU the numbers of the tapes.

        A time that depends on the group has one for each of ``sizes``, -1 where nothing is sent.
        """
        alike: Groups = {}
        every = dict(enumerate(gpus))
        linked = {at: gpu for at, gpu in every.items() if gpu.gpu.link_bytes_per_s(2) is not None}
        found: list[list[int | list[int]]] = [[] for _ in gpus]
        for timing in self.timings.items:
            if timing.grouped:
                by_size = [
                    timing.tapes(self.tapes, linked, size, alike) if size > 1 else {}
                    for size in self.sizes
                ]
                for at, times in enumerate(found):
                    times.append([tapes.get(at, -1) for tapes in by_size])
            else:
                tapes = timing.tapes(self.tapes, every, 1, alike)
                for at, times in enumerate(found):
                    times.append(tapes[at])
        return found

    def _numbered(self, operations: Sequence[Operation], setup: Setup) -> list[int]:
        """Record operations, and return their numbers."""
        for each in operations:
            family = FAMILY[each.kind]
            again, stored = self.kinds[-1].get(family, (False, False))
            self.kinds[-1][family] = (
                again or isinstance(each.reused_bytes, Symbol),
                stored or isinstance(each.together_bytes, Symbol),
            )
        return [self._operation(each, setup.execution) for each in operations]

    def _operation(self, operation: Operation, execution: Execution) -> int:
        """Record one operation, and return its number."""
        quantities: dict[str, Any] = {}
        settings: list[tuple[str, Any]] = []
        for (name, (default, kind)), found in zip(_TIMED.items(), _FIELDS(operation), strict=True):
            value: Any = found
            if value is default and not value:
                continue  # as most fields are
            if kind is not None:
                value = kind(value)
            elif type(value) is Symbol or (isinstance(value, (int, float)) and value):
                quantities[name] = value
                continue
            if value != default:
                settings.append((name, value))
        timing = Timing(
            execution, (*settings,), (*quantities,), isinstance(operation.ranks, Symbol)
        )
        # Whether the cache has few bits is nothing to decide here: there is a timing for each.
        low: Any = operation.low_precision_cache
        few = timing._replace(settings=(*settings, ("low_precision_cache", True)))
        usual = self.timings.place(few if low is True else timing)
        of_low = usual if low is False else self.timings.place(few)
        tape = self.tapes.add(self._recorder, [*quantities.values(), operation.repeat])
        part = PARTS.index(part_of(operation.name, operation.kind))
        return self.operations.place((self.names.place(operation.name), part, usual, of_low, tape))
