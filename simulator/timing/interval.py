"""Intervals of the time of a step or a request, from the spreads of its kernels.

An interval holds 80 % of measured times. ``spread.json`` states how far measured times lie from
predicted ones, by kind of kernel and origin of its constants, on shapes or whole GPUs that no fit
had seen; ``make accuracy`` writes it. ``fitted`` has a GPU's own residuals (or those of all fitted
GPUs), ``carried`` the worst of GPUs left out in turn, ``peak`` how much longer a kernel takes than
at published peaks. The parts of an interval:

* Errors of the fixed and the streaming time of a kind of kernel are fully correlated.
* All kernels of a kind share a part of their error; the rest is independent between kernels, but
  equal in every layer. The kernels of attention count as one. Errors of different kinds are
  independent: half widths add as squares.
* Standard attention over a stored context may read it once in each wave of thread blocks, or once
  for every sample: no row tells which, so the interval spans both.
* Bifurcated attention, predicted from standard attention's constants, adds a spread.
* Plain PyTorch and the host that launches it, which no kernel rows describe, have their own
  spread, from whole steps; so has a serving engine under load, from public serving runs: its
  version, its scheduler, the kernels that it chose, and the host between steps, which may take a
  time for each sequence.
* No step is faster than its memory traffic and FLOPs at published peaks.

In the ratio of two steps, the errors of products and norms and the common share of attention's
error cancel; attention's own share and the errors of plain code and its host do not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, Literal, NamedTuple, get_args

from simulator.counts.attention.registry import find_way
from simulator.counts.operation import KIN, ONE_KERNEL, STATE_KINDS, Kind, Operation, Totals, total
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, Precision, is_low_precision, with_stand_ins
from simulator.inputs.hardware import NODE_GPUS, HardwareProfile
from simulator.inputs.model import ModelShape, Rule
from simulator.inputs.setup import Engine, Setup
from simulator.numeric import Numeric, maximum, minimum, square_root, where
from simulator.resources import PACKAGE
from simulator.timing.constants import (
    LOW_PRECISION,
    PCIE_PAIR,
    PCIE_POWER,
    PRODUCTS,
    SPARSE_KERNELS,
    STREAMING,
    Key,
    Rates,
    served_s,
)
from simulator.timing.roofline import OperationTime, cached_bytes, is_used, stored_ends_s
from simulator.timing.step import StepTime, memory_traffic
from simulator.units import MICROSECOND

# Kinds of operation that rows cannot separate: a call of decode attention also writes the new keys
# and adds up partial results.
# fmt: off
Family = Literal[
    "gemm", "experts", "attention", "latent_attention", "prefill_attention", "latent_prefill",
    "sparse_attention", "recurrence", "elementwise", "collective",
]
# fmt: on
FAMILIES: tuple[Family, ...] = get_args(Family)
FAMILY: dict[Kind, Family] = {
    **{family: family for family in FAMILIES},
    **dict.fromkeys(("combine", "copy"), "attention"),
    # A layer has an indexer and the attention to what it selects.
    **dict.fromkeys(SPARSE_KERNELS, "sparse_attention"),
    # Rows of linear attention tell one from the other, but a layer has both.
    **dict.fromkeys(STATE_KINDS, "recurrence"),
    **dict.fromkeys(STREAMING, "elementwise"),
}
# Kinds of kernel that read the KV cache, whose format selects their spread.
CACHE_READERS: tuple[Family, ...] = ("attention", "latent_attention", "sparse_attention")
Code = Literal["bifurcated", "eager_host", "unfused", "rebuilt", "engine"]
# Rows of collectives are of groups up to this size, and all rows are of this vendor's GPUs.
MOST_GPUS, VENDOR = 8, "NVIDIA"
# The spread of collectives over PCIe. Rows are of one host, on which a node's GPUs share much; on
# another they may share nothing, and eight take this much less of the predicted time. For smaller
# groups, which have the same spread, it is wider than need be.
OVER_PCIE, UNSHARED = "pcie_collective", 1 - (PCIE_PAIR / NODE_GPUS) ** PCIE_POWER
# Standard errors on either side that hold 80 % of a normal distribution.
_NORMAL = 1.2816
# Added to a kind's time in denominators, so that a kind without time has no error. [s]
_TINY_S = 1e-15


class Spread(NamedTuple):
    """The spread of measured times, as shares of the predicted time.

    Attributes
    ----------
    fixed_below, fixed_above
        How much shorter and longer the fixed time of launches may be.
    streaming_below, streaming_above
        The same for the time of bytes from memory, and of products.
    cached_below, cached_above
        The same for the time of bytes that the L2 cache serves.
    launch_above_us
        Time of each launch that a prediction from published peaks leaves out. [us]
    sequence_above_us
        Time that an engine under load may take for each sequence of a step. [us]
    common
        Share of the variance that all kernels of the kind share; the rest is independent.
    """

    fixed_below: float = 0.0
    fixed_above: float = 0.0
    streaming_below: float = 0.0
    streaming_above: float = 0.0
    cached_below: float = 0.0
    cached_above: float = 0.0
    launch_above_us: float = 0.0
    sequence_above_us: float = 0.0
    common: float = 1.0

    def of(self, streaming_s: Numeric, fixed_s: Numeric = 0.0) -> "Deviation":
        """Return the error of a streaming and a fixed time."""
        return Deviation(
            self.streaming_below * streaming_s + self.fixed_below * fixed_s,
            self.streaming_above * streaming_s + self.fixed_above * fixed_s,
        )


class Spreads(NamedTuple):
    """The spreads of ``spread.json``.

    Attributes
    ----------
    coverage
        Share of the measured times that an interval should hold.
    origin
        By origin of the constants, ``fitted``, ``carried`` or ``peak``, then by kind of kernel.
    gpu
        For GPUs with fitted constants, by id, then by kind of kernel.
    code
        Spreads added to the kernels' own: of bifurcated attention, of the host of plain PyTorch
        code, of the device time of unfused code, of rebuilt caches, and of engines under load.
    """

    coverage: float
    origin: Mapping[str, Mapping[str, Spread]]
    gpu: Mapping[str, Mapping[str, Spread]]
    code: Mapping[str, Spread]


@dataclass(slots=True, kw_only=True)
class FamilyTime:
    """Time of all operations of a kind of kernel in a step.

    Attributes
    ----------
    total_s, fixed_s
        All of it, and the fixed part: launches and items processed one by one.
    squares_s2
        Sum of the squares of each operation's part of ``total_s``, large if few operations dominate
        the time; 0 if their errors count as one. [s^2]
    launches
        Kernels launched.
    cached_s
        Streaming time of bytes that L2 serves, of kernels that read data repeatedly.
    """

    total_s: Numeric = 0.0
    fixed_s: Numeric = 0.0
    squares_s2: Numeric = 0.0
    launches: Numeric = 0.0
    cached_s: Numeric = 0.0


class StepSums(NamedTuple):
    """The sums over a step's operations that determine its interval.

    Attributes
    ----------
    total_s, device_s, host_s, collective_s
        As in :class:`~simulator.timing.step.StepTime`.
    bound_s
        Time of its memory traffic or FLOPs at published peaks: see :func:`peak_bound_s`.
    families
        What is spent by kind of kernel.
    stored_below_s, stored_above_s
        How much shorter and longer it is if a stored context is read once in each wave of thread
        blocks, or for every sample; zero without one.
    """

    total_s: Numeric
    device_s: Numeric
    host_s: Numeric
    collective_s: Numeric
    bound_s: Numeric
    families: Mapping[Family, FamilyTime]
    stored_below_s: Numeric = 0.0
    stored_above_s: Numeric = 0.0


class Deviation(NamedTuple):
    """One independent error of a step: how much shorter and longer it may make it. [s]."""

    below_s: Numeric
    above_s: Numeric


class Uncertainty(NamedTuple):
    """The independent errors of a step, by name.

    Attributes
    ----------
    low_s, high_s
        Ends of the interval of the step's time, with the coverage of the spreads.
    shared
        Errors that it shares with other steps of the same model, GPU and setup.
    own
        Errors of only this step.
    known
        Whether rows tell how far the time may be off; if not, its upper end is infinite.
    """

    total_s: Numeric
    low_s: Numeric
    high_s: Numeric
    shared: Mapping[str, Deviation]
    own: Mapping[str, Deviation]
    known: bool = True


def uncertainty(
    step: StepTime, gpu_rates: Rates, setup: Setup, *, known: bool = True, served: bool = False
) -> Uncertainty:
    """Return the interval of a step's time, and its errors.

    Parameters
    ----------
    step, gpu_rates, setup
        The step, the rates it was timed with, and how it is run.
    known
        Whether rows tell how far such times may be off (:func:`unknown_regime`); if not, the
        interval begins at the published peaks and has no upper end.
    served
        Whether it is a step of an engine under load, with the spread of these.
    """
    sums = step_sums(step, gpu_rates)
    spreads = {
        family: spread_of(gpu_rates, family, format_of(family, setup)) for family in sums.families
    }
    peak = gpu_rates.choice == "peak"
    found = uncertainty_of(sums, spreads, setup, peak=peak, served=served)
    if known:
        return found
    bound = minimum(sums.bound_s, sums.total_s)
    return found._replace(low_s=bound, high_s=sums.total_s * inf, known=False)


def with_engine(
    step: Uncertainty, gpu_rates: Rates, engine: Engine, sequences: Numeric
) -> Uncertainty:
    """Return the interval of a step with the time that an engine under load adds to it.

    The errors of the GPU's time and of the engine's are independent; no engine saves time. Where
    rows do not tell what it takes for each sequence, it may take as much as most engines do.

    Parameters
    ----------
    step
        The step on the GPU alone.
    gpu_rates, engine
        The rates it was timed with, whose profile has the engine's times.
    sequences
        Those that the step decodes.
    """
    (each_s, error_s), (sequence_s, sequence_error_s) = served_s(
        gpu_rates.gpu, gpu_rates.choice, engine
    )
    total_s = step.total_s + each_s + sequence_s * sequences
    errors_s = _NORMAL * _root_of_squares(error_s, sequence_error_s * sequences)
    below_s = _root_of_squares(step.total_s - step.low_s, errors_s)
    above_s = _root_of_squares(step.high_s - step.total_s, errors_s)
    if not sequence_s and engine != "none":
        untold_s = code_spread("engine").sequence_above_us * MICROSECOND
        above_s = _root_of_squares(above_s, untold_s * sequences)
    return step._replace(
        total_s=total_s, low_s=maximum(total_s - below_s, step.low_s), high_s=total_s + above_s
    )


# Recurrences of a state that rows have timed (Gated DeltaNet, Kimi Delta Attention), and the lone
# convolution.
TIMED_RULES: set[Rule] = {"delta", "channel_delta", "convolution"}


def unknown_regime(model: ModelShape, gpu_rates: Rates, setup: Setup) -> str:
    """Say why no row tells how far a step's time may be off; empty if some do.

    Constants carried to another vendor's GPU hold for dense models with a cache of their own: of 13
    public decode steps of Llama 70B on MI300X 12 are within the carried interval, of 54 of
    DeepSeek-V3 only 19 (InferenceMAX). Reads of one stored context are between the two ends above
    on every GPU.

    Parameters
    ----------
    model, gpu_rates, setup
        What is decoded, the GPU's rates, and how it is run.
    """
    if gpu_rates.choice == "peak":
        return ""  # a bound already
    if untimed := {group.state.rule for group in model.layer_groups if group.state} - TIMED_RULES:
        return f"no rows time the recurrence of its layers ({', '.join(sorted(untimed))})"
    if setup.gpus > MOST_GPUS:
        return f"no rows are of more than {MOST_GPUS} GPUs"
    if setup.data_parallel > 1 or setup.pipeline_parallel > 1:
        return "no rows are of data-parallel groups or pipelines"
    vendor = gpu_rates.gpu.vendor
    if vendor == VENDOR or gpu_rates.origin == "fitted":
        return ""
    asked = {"experts": model.experts is not None, "latent attention": model.latent is not None}
    what = next((name for name, is_asked in asked.items() if is_asked), "")
    return f"no rows are of {what} on GPUs of {vendor}" if what else ""


def uncertainty_of(
    step: StepSums,
    spreads: Mapping[Family, Spread],
    setup: Setup,
    *,
    peak: bool,
    served: bool = False,
) -> Uncertainty:
    """Return the interval of a step's time, from its sums and the spreads of its kernels.

    Parameters
    ----------
    step
        Sums over its operations.
    spreads
        The spread of each kind of its kernels.
    setup
        How it is run.
    peak
        Whether the times are those of published peaks, which are lower bounds.
    served
        Whether it is a step of an engine under load.
    """
    shared, own = _kernel_errors(step, spreads, setup, peak=peak)
    if served:
        own["engine"] = code_spread("engine").of(step.total_s)
    if code := _code_error(step, setup):
        own["code"] = code
    across = shared.pop("collective", None)
    below, above = _added([*shared.values(), *own.values()])
    low, high = step.device_s - below, step.device_s + above
    if setup.eager:
        host = code_spread("eager_host").of(0.0, step.host_s)
        low = maximum(low, step.host_s - host.below_s)
        high = maximum(high, step.host_s + host.above_s)
        waits = step.host_s > step.device_s
        shared, own = ({name: _unless(waits, p) for name, p in q.items()} for q in (shared, own))
        own["host"] = _unless(step.host_s <= step.device_s, host)
    if across is not None:
        shared["collective"] = across
        busy = step.total_s - step.collective_s
        low = step.total_s - _root_of_squares(busy - low, across.below_s)
        high = step.total_s + _root_of_squares(high - busy, across.above_s)
    # A bound may be off in its last digit.
    bound = minimum(step.bound_s, step.total_s)
    return Uncertainty(
        total_s=step.total_s, low_s=maximum(low, bound), high_s=high, shared=shared, own=own
    )


def speedup_interval(first: Uncertainty, second: Uncertainty) -> tuple[Numeric, Numeric]:
    """Return the interval of the ratio of the first step's time to the second's.

    A shared error counts by the difference of its shares in the two, to first order. If either
    step's interval is not known, the ends are 0 and infinity.
    """
    if not (first.known and second.known):
        return 0.0, inf
    squares_down: Numeric = 0.0
    squares_up: Numeric = 0.0
    of_first, of_second = 1 / first.total_s, 1 / second.total_s
    for name in dict.fromkeys([*first.shared, *second.shared]):
        one, two = (each.shared.get(name, Deviation(0.0, 0.0)) for each in (first, second))
        # Both longer, or both shorter: one makes the ratio larger, the other smaller.
        longer = one.above_s * of_first - two.above_s * of_second
        shorter = two.below_s * of_second - one.below_s * of_first
        squares_up = squares_up + maximum(maximum(longer, shorter), 0.0) ** 2
        squares_down = squares_down + minimum(minimum(longer, shorter), 0.0) ** 2
    for mine, share, divides in ((first, of_first, False), (second, of_second, True)):
        for error in mine.own.values():
            # A step that is shorter by a share x divides or multiplies the ratio by 1 - x.
            shorter = error.below_s / maximum(mine.total_s - error.below_s, _TINY_S)
            longer = error.above_s * share
            up, down = (shorter, longer) if divides else (longer, shorter)
            squares_up = squares_up + up**2
            squares_down = squares_down + down**2
    ratio = first.total_s * of_second
    return ratio / (1 + square_root(squares_down)), ratio * (1 + square_root(squares_up))


def _kernel_errors(
    step: StepSums, spreads: Mapping[Family, Spread], setup: Setup, *, peak: bool
) -> tuple[dict[str, Deviation], dict[str, Deviation]]:
    """Return the errors of a step's kernels: those shared with other steps, and its own."""
    if peak:
        above: Numeric = 0.0
        for family, time in step.families.items():
            above = above + spreads[family].streaming_above * time.total_s
            launch_s = spreads[family].launch_above_us * MICROSECOND
            above = above + launch_s * time.launches
        return {"peak": Deviation(0.0, above)}, {}
    shared: dict[str, Deviation] = {}
    own: dict[str, Deviation] = {}
    if is_used(step.stored_above_s):
        own["stored"] = Deviation(step.stored_below_s, step.stored_above_s)
    for family, time in step.families.items():
        spread = spreads[family]
        streaming = time.total_s - time.fixed_s
        error = spread.of(streaming, time.fixed_s)
        below, above = error.below_s, error.above_s
        if is_used(time.cached_s):
            below = below + (spread.cached_below - spread.streaming_below) * time.cached_s
            above = above + (spread.cached_above - spread.streaming_above) * time.cached_s
        if family in CACHE_READERS:
            alone, together = square_root(1 - spread.common), square_root(spread.common)
            own[family] = Deviation(alone * below, alone * above)
            if setup.bifurcated:
                name = "bifurcated" if family == "attention" else f"bifurcated_{family}"
                own[name] = code_spread("bifurcated").of(streaming, time.fixed_s)
        else:
            rest = (1 - spread.common) * time.squares_s2 / (time.total_s + _TINY_S) ** 2
            together = square_root(spread.common + rest)
        shared[family] = Deviation(together * below, together * above)
    return shared, own


def _code_error(step: StepSums, setup: Setup) -> Deviation | None:
    """Return the error of code outside serving engines, None for an engine's code."""
    kind: Code | Literal[""] = find_way(setup.kernel).spread
    if not setup.graph:
        kind = "unfused"
    if setup.rebuilds:
        kind = "rebuilt"
    return code_spread(kind).of(step.device_s) if kind else None


def _unless(condition: Numeric, error: Deviation) -> Deviation:
    """Return an error, or zero where a condition holds."""
    return Deviation(where(condition, 0.0, error.below_s), where(condition, 0.0, error.above_s))


def _added(errors: Sequence[Deviation]) -> tuple[Numeric, Numeric]:
    """Combine independent errors: the root of the sum of their squares. [s]."""
    below: Numeric = 0.0
    above: Numeric = 0.0
    for error in errors:
        below = below + error.below_s * error.below_s
        above = above + error.above_s * error.above_s
    return square_root(below), square_root(above)


def _root_of_squares(first: Numeric, second: Numeric) -> Numeric:
    """Combine two independent errors. [s]."""
    return square_root(first * first + second * second)


def step_sums(step: StepTime, gpu_rates: Rates) -> StepSums:
    """Return the sums over a step's operations that determine its interval."""
    families: dict[Family, FamilyTime] = {}
    stored_below_s: Numeric = 0.0
    stored_above_s: Numeric = 0.0
    for operation, time in step.calls:
        whole = families.setdefault(FAMILY[operation.kind], FamilyTime())
        if not time.runs:
            continue  # a kernel that this card does not run
        spent = operation.repeat * time.device_s
        whole.total_s = whole.total_s + spent
        whole.fixed_s = whole.fixed_s + operation.repeat * time.launch_s
        if operation.kind not in ONE_KERNEL:
            whole.squares_s2 = whole.squares_s2 + spent * spent
        whole.launches = whole.launches + operation.repeat * operation.launches
        if is_used(operation.reused_bytes):
            cached = operation.repeat * cached_stream_s(operation, time, gpu_rates)
            whole.cached_s = whole.cached_s + cached
            if operation.together_bytes is not None:
                below, above = stored_ends_s(operation, time, gpu_rates)
                stored_below_s = stored_below_s + operation.repeat * below
                stored_above_s = stored_above_s + operation.repeat * above
    return StepSums(
        total_s=step.total_s,
        device_s=step.device_s,
        host_s=step.host_s,
        collective_s=step.collective_s,
        bound_s=peak_bound_s(step.operations, gpu_rates, step.totals),
        families=families,
        stored_below_s=stored_below_s,
        stored_above_s=stored_above_s,
    )


def cached_stream_s(operation: Operation, time: OperationTime, gpu_rates: Rates) -> Numeric:
    """Return the streaming time of an operation's repeated reads from the L2 cache. [s].

    It is zero if nothing is read repeatedly, as with a single sample.

    Parameters
    ----------
    operation, time
        One operation and its time.
    gpu_rates
        The rates it was timed with.
    """
    share = cached_bytes(operation, gpu_rates) / maximum(operation.bytes_moved, 1.0)
    return where(operation.reused_bytes > 0, share, 0.0) * time.stream_s


def peak_bound_s(
    operations: Sequence[Operation], gpu_rates: Rates, totals: Totals | None = None
) -> Numeric:
    """Return a lower bound of a step's time: memory traffic or FLOPs at published peaks. [s].

    Parameters
    ----------
    operations
        The step's operations.
    gpu_rates
        The GPU's rates.
    totals
        Sums over the operations, if they are known already.
    """
    totals = total(operations) if totals is None else totals
    moved = memory_traffic(operations, gpu_rates, totals, least=True)
    products: dict[Dtype, list[Operation]] = {}
    for operation in operations:
        if is_used(operation.flops):
            products.setdefault(operation.dtype, []).append(operation)
    compute: Numeric = 0.0
    for dtype, some in products.items():
        flops: Numeric = totals.flops
        if len(products) > 1:
            flops = sum(operation.repeat * operation.flops for operation in some)
        compute = compute + flops / gpu_rates.peak_flops_per_s[dtype][0]
    return maximum(moved / gpu_rates.gpu.memory_bandwidth_bytes_per_s, compute)


def format_of(family: Family, setup: Setup) -> Dtype:
    """Return the format that selects a kind of kernel's spread: of weights, or of the cache."""
    if family in PRODUCTS:
        weights = setup.weights
        return weights.of("experts").dtype if family == "experts" else weights.products
    return setup.kv_dtype if family in CACHE_READERS else "bf16"


def spread_of(gpu_rates: Rates, family: Family, dtype: Dtype = "bf16") -> Spread:
    """Return the spread of a kind of kernel for a GPU's constants.

    Parameters
    ----------
    gpu_rates
        The GPU's rates, with the origin of their constants.
    family
        The kind of kernel.
    dtype
        Format of the weights for products, of the cache for attention.
    """
    known = shipped_spreads()
    precision = _precision(gpu_rates, family, dtype)
    tables = _tables(known, gpu_rates.at(precision), family)
    if family in PRODUCTS and is_low_precision(DTYPE_BYTES[dtype]) and precision in ("", "int4"):
        # Weights that are expanded first: 16-bit rows of other GPUs represent them.
        tables = tables[-1:]
    names = spread_names(gpu_rates.gpu, family, precision)
    found = next(table[name] for name in names for table in tables if name in table)
    if names[0] == OVER_PCIE and gpu_rates.choice != "peak":
        found = found._replace(streaming_below=max(found.streaming_below, UNSHARED))
    return found


def _precision(gpu_rates: Rates, family: Family, dtype: Dtype) -> Precision:
    """Return the precision of a kind of kernel: of its products, or of the cache it reads."""
    if family in PRODUCTS:
        return gpu_rates.product_precision(dtype)
    if family in CACHE_READERS and is_low_precision(DTYPE_BYTES[dtype]):
        return LOW_PRECISION
    return ""


def spread_names(gpu: HardwareProfile, family: Family, precision: Precision) -> list[str]:
    """Return the names under which a kind of kernel's spread may stand in ``spread.json``.

    Its own name comes first, then those of the formats and of the kind that stand in for it.

    Parameters
    ----------
    gpu
        Its collectives have a separate spread if some GPUs of a node are joined by PCIe alone.
    family
        The kind of kernel.
    precision
        The format of products and caches.

    Examples
    --------
    >>> from simulator.inputs.hardware import load_hardware
    >>> spread_names(load_hardware("b200-sxm"), "experts", "nvfp4")
    ['nvfp4_experts', 'fp8_experts', 'experts', 'nvfp4_gemm', 'fp8_gemm', 'gemm']
    """
    if family == "collective" and gpu.over_pcie(NODE_GPUS):
        return [OVER_PCIE, family]
    names = [*(f"{each}_{family}" for each in with_stand_ins(precision)), family]
    kin = KIN.get(family)
    return names if kin is None else [*names, *spread_names(gpu, FAMILY[kin], precision)]


def _tables(known: Spreads, gpu_rates: Rates, family: Family) -> list[Mapping[str, Spread]]:
    """Return the tables in which to look for a spread, the most specific first."""
    if gpu_rates.choice == "peak":
        return [known.origin["peak"]]
    used = (gpu_rates.constants[Key(name, family)] for name in ("bandwidth_fraction", "launch_us"))
    if any(constant.origin == "fitted" for constant in used):
        own = known.gpu.get(gpu_rates.gpu.id, {})
        return [own, known.origin["fitted"], known.origin["carried"]]
    return [known.origin["carried"]]


def code_spread(code: Code) -> Spread:
    """Return the spread that a way of running attention adds to its kernels' own."""
    return shipped_spreads().code[code]


@cache
def shipped_spreads() -> Spreads:
    """Read the shipped spreads once."""
    text = (PACKAGE / "timing" / "spread.json").read_text(encoding="utf-8")
    return spreads_from(json.loads(text))


def spreads_from(raw: Mapping[str, Any]) -> Spreads:
    """Read spreads from the tables of ``spread.json``."""

    def table(entries: Mapping[str, Mapping[str, float]]) -> dict[str, Spread]:
        return {name: Spread(**entry) for name, entry in entries.items()}

    return Spreads(
        coverage=raw["coverage"],
        origin={name: table(raw[name]) for name in ("fitted", "carried", "peak")},
        gpu={name: table(entries) for name, entries in raw["gpu"].items()},
        code=table(raw["code"]),
    )
