"""A page's computations: the steps of every model and setting, and the times of every GPU.

Counts do not depend on hardware, and their formulas not on a model's numbers: each part of a step
is recorded once for all models of an architecture, and timed once for all GPUs that the timing
model treats alike.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
from pydantic import PrivateAttr

from simulator.counts.memory import memory
from simulator.counts.operation import Operation, repeated
from simulator.counts.transformer import around_attention, attention, attention_shapes, check_split
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import Dtype
from simulator.inputs.files import Frozen
from simulator.inputs.formats import TENSOR_GROUPS, WeightFormat, WeightFormats
from simulator.inputs.model import ModelShape, count_parameters
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

# Variables from the page's sliders and from its GPU. Known numbers follow: the GPUs of a group, and
# what ``numbers`` returns.
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

# What a page varies of a setup, besides formats and the size of the group.
HOW = ("attention", "kernel", "kv_layout", "execution", "latent_form")
# The fields of an operation that determine the time of one call. Those of type int and bool are
# settings, and no quantities.
_TIMED = [
    item
    for item in fields(Operation)
    if item.name not in ("name", "within", "repeat", "ranks", "low_precision_cache")
]
_NAMES = count()
_FIELDS = attrgetter(*(item.name for item in _TIMED))
# Fields of a model that no formula reads, and its formats, which the page's menus choose.
_TOLD = frozenset({"name", "source", "notes", "max_context_tokens", "weights", "kv_dtype"})


def shape_of(model: ModelShape) -> tuple[tuple[Any, ...], list[float]]:
    """Return what models of one architecture have in common, and the numbers that they differ in.

    Zeros are common: what has none of something has no operations for it.
    """
    leaves = list(_leaves(model))
    numbers = [float(leaf) for leaf in leaves if _is_number(leaf)]
    return tuple(float if _is_number(leaf) else leaf for leaf in leaves), numbers


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what a model's fields hold, of nested ones as well."""
    if isinstance(value, Frozen):
        for name in type(value).model_fields:
            if name not in _TOLD:
                yield from _leaves(getattr(value, name))
    elif isinstance(value, tuple):
        yield len(value), "items"
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _is_number(leaf: Any) -> bool:
    return type(leaf) in (int, float) and leaf != 0


def _replaced(value: Any, numbers: Iterator[Any]) -> Any:
    """Return a model with other numbers, in the order of :func:`shape_of`."""
    if isinstance(value, Frozen):
        names = [name for name in type(value).model_fields if name not in _TOLD]
        return value.but(**{name: _replaced(getattr(value, name), numbers) for name in names})
    if isinstance(value, tuple):
        return tuple(_replaced(item, numbers) for item in value)
    return next(numbers) if _is_number(value) else value


def group_bytes(formats: WeightFormats) -> list[float]:
    """Return the bytes per weight of each group of tensors."""
    return [formats.of(group).bytes for group in TENSOR_GROUPS]


@dataclass(frozen=True, slots=True)
class Timing:
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

    def tapes(self, tapes: Tapes, gpus: Sequence[Rates], ranks: int, alike: Groups) -> list[int]:
        """Record the time of one call on each GPU: the columns of ``TIMES``.

        Parameters
        ----------
        tapes
            Where to record it.
        gpus, ranks
            The GPUs' rates, and the size of the group.
        alike
            GPUs taken together so far.
        """
        found: dict[int, int] = {}
        waiting = [list(range(len(gpus)))]
        while waiting:
            places = waiting.pop()
            recorder = Recorder()
            try:
                outputs = self._times(recorder, together([gpus[at] for at in places], alike), ranks)
            except Differ as differ:
                waiting += [
                    [at for at, yes in zip(places, differ.mask, strict=True) if yes == side]
                    for side in (True, False)
                ]
                continue
            each = tapes.add_each(recorder, outputs, len(places))
            found |= dict(zip(places, each, strict=True))
        return [found[at] for at in range(len(gpus))]

    def _times(self, recorder: Recorder, gpus: Any, ranks: int) -> list[Any]:
        """Return the columns of ``TIMES`` on GPUs alike."""
        quantities: dict[str, Any] = {name: recorder.variable(name) for name in self.used}
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
            cached_stream_s(operation, step.operations[0], gpus)
            if "reused_bytes" in self.used
            else 0.0,
            *(
                stored_ends_s(operation, step.operations[0], gpus)
                if "together_bytes" in self.used
                else (0.0, 0.0)
            ),
            peak_bound_s([no_flops], gpus),
            peak_bound_s([no_bytes], gpus),
        ]


class _Recorded(Setup):
    """A setup whose cached values have some number of bytes."""

    _kv_bytes: Any = PrivateAttr()

    @property
    def kv_bytes(self) -> Any:
        """Bytes of a cached value, a symbol. [bytes]."""
        return self._kv_bytes


@dataclass
class Architecture:
    """Models that differ in numbers alone.

    Attributes
    ----------
    model
        One of them.
    formats
        Number format of each group of weights, and that of its products if it is another.
    base
        Format of activations.
    known
        What its recordings have to serve: GPUs of a group, bytes of a cached value, and the numbers
        of its models, those of :func:`shape_of` and then :func:`group_bytes`.
    """

    model: ModelShape
    base: Dtype
    formats: tuple[tuple[Dtype, Dtype | None], ...]
    known: dict[tuple[float, ...], None] = field(default_factory=dict)
    _models: dict[int, tuple[ModelShape, WeightFormats, Any]] = field(default_factory=dict)

    @cached_property
    def rows(self) -> Any:
        """All that is known, the largest groups first: they do what a single GPU does, and more."""
        return np.array(sorted(self.known, key=itemgetter(0), reverse=True))

    def with_numbers(
        self, recorder: Recorder, values: Sequence[Any]
    ) -> tuple[ModelShape, WeightFormats]:
        """Return a model of this architecture and the formats of its weights.

        Its name is like no other: sums over the weights of a model are kept, by model, and what
        they decide guards all that is recorded of it.
        """
        if id(recorder) not in self._models:
            recorder.guards = {}
            rest = iter(values)
            model = _replaced(self.model, rest).but(name=f"recorded {next(_NAMES)}")
            formats: dict[str, Any] = {
                group: WeightFormat.model_construct(dtype=dtype, multiplied=multiplied, bytes=size)
                for group, (dtype, multiplied), size in zip(
                    TENSOR_GROUPS, self.formats, rest, strict=True
                )
            }
            count_parameters(model)
            told = WeightFormats.model_construct(base=self.base, **formats)
            self._models[id(recorder)] = model, told, recorder.guards
        model, told, guards = self._models[id(recorder)]
        recorder.guards = dict(guards)
        return model, told


# A recording for some models: the tape of its guards, what they have to be, and what was recorded;
# None is what cannot run.
Recording = tuple[int | None, list[float], Any]
Counted = Callable[[ModelShape, Setup, Workload, dict[str, Any]], Any]


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
        Name, timings with a cache of 16 bits and of fewer, and the tape of the timing's quantities
        and of the calls in a step.
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
    operations: Unique[tuple[int, int, int, int]] = field(default_factory=Unique)
    recordings: list[list[Recording]] = field(default_factory=list)
    kinds: list[dict[Family, tuple[bool, bool]]] = field(default_factory=list)
    intervals: Intervals = field(init=False)
    _architectures: dict[Any, Architecture] = field(default_factory=dict)
    _places: dict[Any, int] = field(default_factory=dict)
    _recorders: dict[Any, tuple[Recorder, dict[str, Any], list[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Share the tapes."""
        self.intervals = Intervals(self.tapes)

    def architectures(
        self, model: ModelShape, shape: Hashable, formats: WeightFormats
    ) -> tuple[Architecture, Architecture]:
        """Return a model's architecture with its formats, and without, for what has no products.

        Parameters
        ----------
        model, shape, formats
            The model, its :func:`shape_of`, and the formats of its weights.
        """
        told = tuple(
            (formats.of(each).dtype, formats.of(each).multiplied) for each in TENSOR_GROUPS
        )
        plain: tuple[tuple[Dtype, Dtype | None], ...] = ((formats.base, None),) * len(told)
        one, other = (
            self._architectures.setdefault(
                (shape, formats.base, each), Architecture(model, formats.base, each)
            )
            for each in (told, plain)
        )
        return one, other

    def splits(self, model: ModelShape) -> list[int]:
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
            What is decoded, and how; the setup's own formats and group are left out.
        """
        how = {name: getattr(setup, name) for name in HOW}
        if part != "memory" and not setup.eager:
            how["execution"] = "graph"
        key = part, id(architecture), *how.values()
        if key in self._places:
            return self._places[key]
        counted: Counted = {
            "around": self._around,
            "attention": self._attention,
            "memory": self._memory,
        }[part]
        self.kinds.append({})
        waiting = architecture.rows
        recordings: list[Recording] = []
        while len(waiting):
            recorder, sizes, (ranks, cached, *values) = self._variables(tuple(waiting[0].tolist()))
            model, formats = architecture.with_numbers(recorder, values)
            asked = _Recorded.model_construct(
                **{**dict(setup), **how, "weight_dtype": "auto", "tensor_parallel": ranks}
            )
            asked._checkpoint, asked._kv_bytes = formats, cached  # noqa: SLF001 - a setup's own
            work = self.work.but(**{name: sizes[name] for name in self.moved})
            found = counted(model, asked, work, sizes)
            alone = ranks == 1
            if isinstance(alone, Symbol) and not alone.value:
                # A single GPU has the same operations, but for the collectives.
                recorder.guards.pop(alone.number, None)
            guards = list(recorder.guards.values())
            expected = [value for _, value in guards]
            tape = self.tapes.add(recorder, [symbol for symbol, _ in guards]) if guards else None
            recordings.append((tape, expected, found))
            held = np.ones(len(waiting), dtype=bool)
            if tape is not None:
                inputs = [*([1.0] * len(VARIABLES)), *waiting.T]
                for got, value in zip(self.tapes.follow(tape, inputs), expected, strict=True):
                    held &= got == value
            held[0] = True
            waiting = waiting[~held]
        self.recordings.append(recordings)
        self._places[key] = len(self.recordings) - 1
        return self._places[key]

    def _variables(self, known: tuple[float, ...]) -> tuple[Recorder, dict[str, Any], list[Any]]:
        """Return a recorder for some known numbers, and its variables.

        What several parts of a step have in common is recorded once, whatever the formats: by the
        bytes of a weight nothing is decided.
        """
        decided = known[: -len(TENSOR_GROUPS)]
        if decided not in self._recorders:
            recorder = Recorder()
            sizes: dict[str, Any] = {name: recorder.variable(name) for name in VARIABLES}
            numbers = [recorder.variable(str(at), value) for at, value in enumerate(decided)]
            numbers += [recorder.variable(group) for group in TENSOR_GROUPS]
            self._recorders[decided] = recorder, sizes, numbers
        return self._recorders[decided]

    def kinds_of(self, *parts: int) -> dict[Family, tuple[bool, bool]]:
        """Return the kinds of kernels of some parts together."""
        return {family: of for part in parts for family, of in self.kinds[part].items()}

    def _around(
        self, model: ModelShape, setup: Setup, work: Workload, _: dict[str, Any]
    ) -> list[list[int]]:
        """Record the operations before and after attention."""
        before, after = around_attention(model, setup, work)
        return [self._numbered(before, setup), self._numbered(after, setup)]

    def _attention(
        self, model: ModelShape, setup: Setup, work: Workload, sizes: dict[str, Any]
    ) -> list[int]:
        """Record the operations of attention."""
        operations: list[Operation] = []
        for shape, layers, mark in attention_shapes(model, setup, work, sizes["resident_blocks"]):
            operations += repeated(attention(shape, setup), layers, mark=mark)
        return self._numbered(operations, setup)

    def _memory(
        self, model: ModelShape, setup: Setup, work: Workload, sizes: dict[str, Any]
    ) -> int:
        """Record the memory."""
        given = {name: sizes[name] for name in ("card_bytes", "resident_blocks")}
        needs = memory(model, setup, work, **given)
        outputs = [getattr(needs, name) for name in MEMORY]
        recorder = sizes["card_bytes"].recorder
        return self.tapes.add(recorder, outputs)

    def times(self, gpus: Sequence[Rates]) -> list[list[int | list[int]]]:
        """Record every timing so far: for each GPU the numbers of the tapes.

        A time that depends on the group has one for each of ``sizes``, -1 where nothing is sent.
        """
        found: list[list[int | list[int]]] = [[] for _ in gpus]
        alike: Groups = {}
        linked = [gpu for gpu in gpus if gpu.gpu.link_bytes_per_s(2) is not None]
        for timing in self.timings.items:
            if not timing.grouped:
                each = timing.tapes(self.tapes, gpus, 1, alike)
                for times, tape in zip(found, each, strict=True):
                    times.append(tape)
                continue
            by_size = [
                dict(
                    zip(map(id, linked), timing.tapes(self.tapes, linked, size, alike), strict=True)
                )
                if size > 1
                else {}
                for size in self.sizes
            ]
            for times, gpu in zip(found, gpus, strict=True):
                times.append([tapes.get(id(gpu), -1) for tapes in by_size])
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
        for item, found in zip(_TIMED, _FIELDS(operation), strict=True):
            value: Any = found
            if value is item.default and not value:
                continue  # as most fields are
            if item.type in (int, bool):
                value = item.type(value)
            elif type(value) is Symbol or (isinstance(value, (int, float)) and value):
                quantities[item.name] = value
                continue
            if value != item.default:
                settings.append((item.name, value))
        # Whether the cache has few bits is nothing to decide here: there is a timing for each.
        low: Any = operation.low_precision_cache
        usual, of_low = (
            self.timings.place(
                Timing(
                    execution=execution,
                    settings=(*settings, ("low_precision_cache", True)) if each else (*settings,),
                    used=tuple(quantities),
                    grouped=isinstance(operation.ranks, Symbol),
                )
            )
            for each in ((False, True) if type(low) is Symbol else (low, low))
        )
        outputs = [*quantities.values(), operation.repeat]
        recorder = next(each.recorder for each in outputs if isinstance(each, Symbol))
        tape = self.tapes.add(recorder, outputs)
        return self.operations.place((self.names.place(operation.name), usual, of_low, tape))
