"""Between which times a step lies: the spreads of its kernels, added up.

An interval holds 80 % of measured times (``spread.toml``). Its parts:

* The fixed and the streaming time of a kind of kernel are off together.
* Of a kind's error, a share is common to all its kernels, and the rest each kernel's own, the same
  in every layer; the kernels of attention count as one. Different kinds are off independently:
  half widths add as squares.
* Bifurcated attention, predicted from standard attention's constants, has a spread on top.
* Code that no kernel rows describe, plain PyTorch and the host that launches it, has a spread of
  its own, from whole steps.
* No step is faster than its bytes and FLOPs at published peaks.

What two steps have in common, products, norms and the common share of attention's error, cancels in
their ratio; the own share of attention, and plain code and its host, do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.counts.attention.registry import find_way
from simulator.counts.operation import Operation, Totals
from simulator.inputs.dtypes import Dtype
from simulator.inputs.setup import Setup
from simulator.numeric import Numeric, maximum, minimum, square_root, where
from simulator.timing.constants import Rates
from simulator.timing.spent import Spent, spent_by
from simulator.timing.spread import Family, Spread, code_spread, spread_of
from simulator.timing.step import StepTime

# Added to a kind's time where it is divided by, so that nothing of a kind is no error. [s]
_TINY_S = 1e-15


@dataclass(frozen=True, slots=True)
class Part:
    """One independent error of a step: by how much it may be shorter and longer. [s]."""

    below_s: Numeric
    above_s: Numeric


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """The independent errors of a step, by name.

    Attributes
    ----------
    low_s, high_s
        Between which the step's time lies, with the coverage of the spreads.
    shared
        Errors that another step of the same model, GPU and way to run has as well.
    own
        Errors of this step alone.
    """

    total_s: Numeric
    low_s: Numeric
    high_s: Numeric
    shared: Mapping[str, Part]
    own: Mapping[str, Part]


def uncertainty(
    operations: Sequence[Operation],
    step: StepTime,
    gpu_rates: Rates,
    setup: Setup,
    totals: Totals | None = None,
) -> Uncertainty:
    """Return between which times a step lies, and why; ``totals`` where they are known already."""
    spent = spent_by(operations, step, gpu_rates, totals)
    spreads = {
        family: spread_of(gpu_rates, family, format_of(family, setup)) for family in spent.families
    }
    return uncertainty_of(spent, spreads, setup, peak=gpu_rates.choice == "peak")


def format_of(family: Family, setup: Setup) -> Dtype:
    """Return the format that a kind of kernel's spread depends on: of weights, or of the cache."""
    dtypes: dict[Family, Dtype] = {"gemm": setup.weight_dtype, "attention": setup.kv_dtype}
    return dtypes.get(family, "bf16")


def uncertainty_of(
    step: Spent, spreads: Mapping[Family, Spread], setup: Setup, *, peak: bool
) -> Uncertainty:
    """Return between which times a step lies, from what it spends and the spreads of its kernels.

    Parameters
    ----------
    peak
        Whether the times are those of published peaks, which nothing undercuts.
    """
    shared, own = _kernel_parts(step, spreads, setup, peak=peak)
    if code := _code_part(step, setup):
        own["code"] = code
    across = shared.pop("collective", None)
    below, above = _added([*shared.values(), *own.values()])
    low, high = step.device_s - below, step.device_s + above
    if setup.eager:
        host = _host_part(step)
        low = maximum(low, step.host_s - host.below_s)
        high = maximum(high, step.host_s + host.above_s)
        waits = step.host_s > step.device_s
        shared, own = ({name: _unless(waits, p) for name, p in q.items()} for q in (shared, own))
        own["host"] = _unless(step.host_s <= step.device_s, host)
    if across is not None:
        shared["collective"] = across
        busy = step.total_s - step.collective_s
        low = step.total_s - _norm(busy - low, across.below_s)
        high = step.total_s + _norm(high - busy, across.above_s)
    # A bound is one up to the last digit only.
    bound = minimum(step.bound_s, step.total_s)
    return Uncertainty(
        total_s=step.total_s, low_s=maximum(low, bound), high_s=high, shared=shared, own=own
    )


def speedup_interval(first: Uncertainty, second: Uncertainty) -> tuple[Numeric, Numeric]:
    """Return between which ratios the first step's time over the second's lies.

    To first order: an error that both have counts by the difference of its shares in the two.
    """
    squares_down: Numeric = 0.0
    squares_up: Numeric = 0.0
    nothing = Part(0.0, 0.0)
    of_first, of_second = 1 / first.total_s, 1 / second.total_s
    for name in dict.fromkeys([*first.shared, *second.shared]):
        one, two = first.shared.get(name, nothing), second.shared.get(name, nothing)
        # Both longer, and both shorter: one of the two makes the ratio larger, the other smaller.
        longer = one.above_s * of_first - two.above_s * of_second
        shorter = two.below_s * of_second - one.below_s * of_first
        squares_up = squares_up + maximum(maximum(longer, shorter), 0.0) ** 2
        squares_down = squares_down + minimum(minimum(longer, shorter), 0.0) ** 2
    for mine, share, divides in ((first, of_first, False), (second, of_second, True)):
        # Independent errors of one step, as one.
        below, above = _added(list(mine.own.values()))
        up, down = (below, above) if divides else (above, below)
        squares_up = squares_up + (up * share) ** 2
        squares_down = squares_down + (down * share) ** 2
    ratio = first.total_s * of_second
    return ratio / (1 + square_root(squares_down)), ratio * (1 + square_root(squares_up))


def _kernel_parts(
    step: Spent, spreads: Mapping[Family, Spread], setup: Setup, *, peak: bool
) -> tuple[dict[str, Part], dict[str, Part]]:
    """Return the errors of a step's kernels, those that other steps share and its own."""
    if peak:
        above: Numeric = 0.0
        for family, time in step.families.items():
            above = above + spreads[family].streaming_above * time.total_s
            above = above + spreads[family].launch_above_s * step.launches[family]
        return {"peak": Part(0.0, above)}, {}
    shared: dict[str, Part] = {}
    own: dict[str, Part] = {}
    for family, time in step.families.items():
        spread = spreads[family]
        streaming = time.total_s - time.fixed_s
        below = spread.streaming_below * streaming + spread.fixed_below * time.fixed_s
        above = spread.streaming_above * streaming + spread.fixed_above * time.fixed_s
        if family in step.cached_s:
            cached_s = step.cached_s[family]
            below = below + (spread.cached_below - spread.streaming_below) * cached_s
            above = above + (spread.cached_above - spread.streaming_above) * cached_s
        if family == "attention":
            alone, together = square_root(1 - spread.common), square_root(spread.common)
            own[family] = Part(alone * below, alone * above)
            if setup.bifurcated:
                more = code_spread("bifurcated")
                own["bifurcated"] = Part(
                    more.streaming_below * streaming + more.fixed_below * time.fixed_s,
                    more.streaming_above * streaming + more.fixed_above * time.fixed_s,
                )
        else:
            rest = (1 - spread.common) * time.squares_s2 / (time.total_s + _TINY_S) ** 2
            together = square_root(spread.common + rest)
        shared[family] = Part(together * below, together * above)
    return shared, own


def _code_part(step: Spent, setup: Setup) -> Part | None:
    """Return the error of code that is not a serving engine's, None where it is."""
    if setup.rebuilds:
        spread = code_spread("rebuilt")
    elif not setup.graph:
        spread = code_spread("unfused")
    elif kind := find_way(setup.kernel).spread:
        spread = code_spread(kind)
    else:
        return None
    return Part(spread.streaming_below * step.device_s, spread.streaming_above * step.device_s)


def _host_part(step: Spent) -> Part:
    """Return the error of the host's launches."""
    spread = code_spread("eager_host")
    return Part(spread.fixed_below * step.host_s, spread.fixed_above * step.host_s)


def _unless(condition: Numeric, part: Part) -> Part:
    """Return an error where a condition does not hold, none where it does."""
    return Part(where(condition, 0.0, part.below_s), where(condition, 0.0, part.above_s))


def _added(parts: Sequence[Part]) -> tuple[Numeric, Numeric]:
    """Return independent errors as one: the root of the sum of their squares. [s]."""
    below: Numeric = 0.0
    above: Numeric = 0.0
    for part in parts:
        below = below + part.below_s * part.below_s
        above = above + part.above_s * part.above_s
    return square_root(below), square_root(above)


def _norm(first: Numeric, second: Numeric) -> Numeric:
    """Return two independent errors as one. [s]."""
    return square_root(first * first + second * second)
