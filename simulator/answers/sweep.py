"""Sweeps: standard and bifurcated attention at every point of a grid.

The numeric axes of a grid are arrays that broadcast with each other, each along its own dimension.
The functions that answer a single question count and time a whole decode step, operation by
operation, for all points. A grid is cut into blocks of bounded size, so any number of points runs
in constant memory.
"""

import math
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.answers.answer import Answer
from simulator.answers.estimate import Estimate, Question, forms_to_try, model_notes
from simulator.answers.load import Request, serve
from simulator.answers.verdict import VERDICTS, Verdict, kv_io_ratio, verdict_of, winner_of
from simulator.counts.attention.registry import find_way
from simulator.errors import SimulatorError, WorkloadError
from simulator.inputs.files import validate
from simulator.inputs.hardware import load_hardware
from simulator.inputs.parallelism import Parallelism
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario, load_scenario
from simulator.inputs.scenario import Verdict as Expectation
from simulator.inputs.scenario import verdict_of as expectation_of
from simulator.inputs.setup import ATTENTIONS, Attention, Setup, ask, read_limits, read_loads
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric
from simulator.timing.interval import speedup_interval
from simulator.units import MILLISECOND

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

NUMERIC_AXES = ("prompts", "samples", "context_tokens", "decoded_tokens", "query_tokens")
NAMED_AXES = (
    *("tree", "accepted_tokens", "kernel", "kv_layout", "execution", "weight_dtype", "kv_dtype"),
    *(*Parallelism.fields, "routing", "routing_exponent", "latent_form"),
)
# Nobody reads a page with more rows; `bifurcate sweep` writes them all.
MOST_POINTS_LISTED = 240
# Points computed at once: fewer cost more calls; twice as many take half as much memory again.
POINTS_AT_ONCE = 2**17
# Under load each takes 5 to 20 ms: how many take some minutes, and how many are computed at once.
MOST_UNDER_LOAD, UNDER_LOAD_AT_ONCE = 20_000, 2**6
# What a row under load says of its request and load.
TOLD = ("output_tokens", "cached_tokens", "concurrency", "arrivals_per_s")
# What is seen of a load: columns of an answer to :func:`simulator.answers.load.serve`, and where
# its points have them.
SEEN = {
    "ttft_ms": "served.ttft_s",
    "ttft_ms_low": "low.ttft_s",
    "ttft_ms_high": "high.ttft_s",
    "tpot_ms": "served.tpot_s",
    "tpot_ms_low": "low.tpot_s",
    "tpot_ms_high": "high.tpot_s",
    "tokens_per_s_per_user": "tokens_per_s_per_user",
    "tokens_per_s_per_gpu": "tokens_per_s_per_gpu",
    "requests_per_s": "served.requests_per_s",
    "utilisation": "served.utilisation",
    "saturates": "deployment.saturates",
}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Grid(Question):
    """The numeric grid under one combination of model, GPU and named settings.

    Of its workload counts what is not an axis: the tree and the accepted tokens.

    Attributes
    ----------
    axes
        The values of each numeric axis.
    """

    axes: Mapping[str, Sequence[int]]

    @property
    def points(self) -> int:
        """Points of the numeric grid."""
        return math.prod(len(values) for values in self.axes.values())

    def blocks(self, points_at_once: int = POINTS_AT_ONCE) -> Iterator[dict[str, "np.ndarray"]]:
        """Cut the numeric grid into blocks of a bounded number of points, in the grid's own order.

        The last axes stay whole as long as they fit; the first that does not is cut, and the axes
        before it advance one value at a time.
        """
        import numpy as np

        lengths: dict[str, int] = {}
        room = points_at_once
        for axis in reversed(list(self.axes)):
            length = max(1, min(len(self.axes[axis]), room))
            lengths[axis] = length
            room = room // length if length == len(self.axes[axis]) else 1
        arrays = {axis: np.asarray(values, dtype=np.float64) for axis, values in self.axes.items()}
        starts = [range(0, len(arrays[axis]), lengths[axis]) for axis in self.axes]
        for corner in product(*starts):
            yield {
                axis: arrays[axis][start : start + lengths[axis]]
                for axis, start in zip(self.axes, corner, strict=True)
            }


@dataclass(frozen=True, kw_only=True)
class Load:
    """The loads under which the requests of a grid are seen.

    Attributes
    ----------
    sizes
        The tokens of each request: what :class:`~simulator.answers.load.Request` has beside a step.
    asked
        Keywords of :func:`simulator.answers.load.serve`, both kinds of loads among them.
    """

    sizes: Mapping[str, int]
    asked: Mapping[str, Any]

    @property
    def loads(self) -> list[dict[str, Any]]:
        """Each load of a point, as a row that tells it."""
        users = [{"concurrency": users} for users in self.asked["users"]]
        return users + [{"arrivals_per_s": rate} for rate in self.asked["requests_per_s"]]

    def axes(self, given: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Return a scenario's axes: a request has one sample by default, and all of its tokens."""
        decoded = given.get("decoded_tokens")
        most = {"decoded_tokens": (max(decoded),)} if decoded else {}
        return {"samples": (1,), **given, **most}

    def request(self, work: Workload) -> Request:
        """Return the request of a point.

        Raises
        ------
        WorkloadError
            If no server serves it.
        """
        return Request(workload=work, **self.sizes)

    def on(self, grid: Grid, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns of a block of a grid once for each load, and what is seen of it.

        Raises
        ------
        WorkloadError
            If no server serves such requests.
        """
        import numpy as np

        rows: list[dict[str, Any]] = []
        for sizes in zip(*(columns[axis].tolist() for axis in NUMERIC_AXES), strict=True):
            question = grid.but(**dict(zip(NUMERIC_AXES, sizes, strict=True)))
            request = self.request(question.workload)
            curve = serve(question, request, attentions=ATTENTIONS, **self.asked)
            loads = self.loads
            for number, point in enumerate(curve.points):
                row, kind = loads[number % len(loads)], point.deployment.attention
                for name, place in SEEN.items():
                    value = attrgetter(place)(point)
                    row[f"{kind}_{name}"] = value / MILLISECOND if "_ms" in name else value
            output, cached = request.output_tokens, request.stored_tokens
            rows += [{"output_tokens": output, "cached_tokens": cached, **row} for row in loads]
        names = [*TOLD, *(f"{kind}_{name}" for kind in ATTENTIONS for name in SEEN)]
        steps = {
            name: np.repeat(values, len(self.loads)) if isinstance(values, np.ndarray) else values
            for name, values in columns.items()
        }
        return steps | {
            name: np.array([row.get(name, "" if "saturates" in name else math.nan) for row in rows])
            for name in names
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Sweep(Answer):
    """Grids that are ready to run.

    Attributes
    ----------
    grids
        One for each combination of named settings.
    with_tree
        Whether its rows have a column for a tree.
    skipped
        Combinations that cannot run, one sentence each.
    load
        What each point is also put under; None if nothing.
    """

    grids: tuple[Grid, ...]
    with_tree: bool
    skipped: tuple[str, ...]
    load: Load | None = None

    def __post_init__(self) -> None:
        """Refuse more points under load than take some minutes.

        Raises
        ------
        WorkloadError
            If there are more.
        """
        if self.load is not None and self.points > MOST_UNDER_LOAD:
            raise WorkloadError(
                f"{self.points:,} points under load are more than {MOST_UNDER_LOAD:,}, of 5 to "
                "20 ms each; ask for fewer, or for steps alone"
            )

    @property
    def points(self) -> int:
        """Points that will be computed, one for each load."""
        loads = 1 if self.load is None else len(self.load.loads)
        return loads * sum(grid.points for grid in self.grids)

    @property
    def notes(self) -> list[str]:
        """What was assumed in reading the models, one sentence each."""
        return list(dict.fromkeys(note for grid in self.grids for note in model_notes(grid.model)))

    def blocks(self, points_at_once: int = POINTS_AT_ONCE) -> Iterator[dict[str, Any]]:
        """Yield the results block by block: column name to a value or a flat array."""
        if self.load is not None:
            points_at_once = min(points_at_once, UNDER_LOAD_AT_ONCE)
        for grid in self.grids:
            for numeric in grid.blocks(points_at_once):
                columns = compare_grid(grid, numeric)
                if not self.with_tree:
                    columns.pop("tree")
                yield columns if self.load is None else self.load.on(grid, columns)

    def to_frame(self) -> "pd.DataFrame":
        """Compute every point, as a frame with the columns of the CSV."""
        import pandas as pd

        return pd.concat(map(block_frame, self.blocks()), ignore_index=True)


def block_frame(block: Mapping[str, Any]) -> "pd.DataFrame":
    """Return a block as a frame; ends that are not known are missing, not 0 or infinite."""
    import pandas as pd

    missing = math.nan
    return pd.DataFrame(block).replace(math.inf, missing).replace({"speedup_low": {0.0: missing}})


def prepare_sweep(
    scenario: Scenario | str | Path,
    *,
    users: Sequence[int | str] | int | str | None = None,
    requests_per_s: Sequence[float] | float | None = None,
    cached_tokens: int | str | None = None,
    most_sequences: int | str | None = None,
    **settings: Any,
) -> Sweep:
    """Resolve a scenario's names and build its grids.

    Combinations that cannot run (heads that do not divide, a kernel that cannot read a model's
    cache) are skipped and named.

    Parameters
    ----------
    scenario
        A scenario, its id or its path.
    users, requests_per_s, cached_tokens, most_sequences
        As for :func:`simulator.serve`: see the requests of each point under these loads too. A
        request has one prompt, 1 sample and 256 output tokens unless the scenario says so.
    settings
        Fields of :class:`~simulator.inputs.setup.Setup` that a scenario does not have: see
        ``PROCESS`` beside it.

    Raises
    ------
    SimulatorError
        If a model or GPU is unknown, or nothing is left to run.
    WorkloadError
        If a load is none, or there are too many points under load.
    """
    validate(Setup, settings, where="workload", error=WorkloadError)  # not a point to leave out
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario)
    loads = read_loads(users=users, requests_per_s=requests_per_s)
    limits = read_limits(cached_tokens=cached_tokens, most_sequences=most_sequences)
    load = _load(scenario, loads, limits)
    axes = scenario.axes if load is None else load.axes(scenario.axes)
    for kernel in axes.get("kernel", ()):
        find_way(str(kernel))  # an unknown name is an error, not a combination to skip
    usual = Workload()
    numeric = {axis: axes.get(axis, (getattr(usual, axis),)) for axis in NUMERIC_AXES}
    named_axes = [axis for axis in NAMED_AXES if axis in axes]
    gpus = [load_hardware(str(name)) for name in axes["gpu"]]
    grids: list[Grid] = []
    # Each reason once, in order.
    skipped: dict[str, None] = {}
    if len(axes.get("attention", ())) > 0:
        skipped["attention is not an axis of a sweep: both kinds are computed everywhere"] = None
    # A point accepts no more tokens than it processes.
    settings = {**settings, "query_tokens": max(numeric["query_tokens"])}
    for name, kv_heads in product(axes["model"], axes.get("kv_heads", (None,))):
        model = load_model(str(name), kv_heads=None if kv_heads is None else int(kv_heads))
        for gpu in gpus:
            for values in product(*(axes[axis] for axis in named_axes)):
                try:
                    named = dict(zip(named_axes, values, strict=True))
                    setup, work = ask(model, **named, **settings)
                except SimulatorError as error:
                    skipped[str(error)] = None
                    continue
                asked = Question(model, gpu, setup, work)
                sizes, reasons = _what_runs(asked, _sizes(numeric, work), load)
                skipped |= dict.fromkeys(reasons)
                if all(sizes.values()):
                    grids.append(Grid(model, gpu, setup, work, axes=sizes))
    if not grids:
        lead = f"nothing can run, for {len(skipped)} reasons, first: " if len(skipped) > 1 else ""
        raise SimulatorError(f"{lead}{next(iter(skipped))}")
    return Sweep(grids=tuple(grids), with_tree="tree" in axes, skipped=tuple(skipped), load=load)


def _load(scenario: Scenario, loads: dict[str, Any], limits: dict[str, Any]) -> Load | None:
    """Return the loads that a sweep is asked about, if any."""
    if not any(loads.values()):
        if limits:
            raise WorkloadError(
                f"{next(iter(limits))} belongs to a load; give users or requests_per_s"
            )
        return None
    if "decoded_tokens" in scenario.axes and scenario.output_tokens is None:
        raise WorkloadError("decoded_tokens is for one step; give a load output_tokens")
    tokens = read_limits(output_tokens=scenario.output_tokens)
    tokens["cached_tokens"] = limits.pop("cached_tokens", 0)
    return Load(sizes=tokens, asked=loads | limits)


def _sizes(numeric: Mapping[str, Sequence[int]], work: Workload) -> dict[str, Sequence[int]]:
    """Return the numeric axes of a grid; a tree says some of them."""
    of_tree = ("prompts", "context_tokens") if work.tree else ()
    return {**numeric, **{axis: (getattr(work, axis),) for axis in of_tree}}


def _what_runs(
    asked: Question, sizes: Mapping[str, Sequence[int]], load: Load | None
) -> tuple[dict[str, Sequence[int]], list[str]]:
    """Return the sizes of a grid that can run, and why others cannot.

    What refuses some prompts refuses more of them too, and a load's cached tokens shorter contexts.
    """
    easy = {"prompts": min(sizes["prompts"]), "context_tokens": max(sizes["context_tokens"])}
    runs, reasons = dict(sizes), []

    def refusal(**changed: int) -> str:
        try:
            question = asked.but(**{**easy, **changed})
            question.check()
            if load is not None:
                load.request(question.workload)
        except SimulatorError as error:
            return str(error)
        return ""

    for axis in easy:
        easiest_first = sorted(sizes[axis], reverse=axis == "context_tokens")
        # Sizes that run have an empty refusal, and come first.
        kept = bisect(easiest_first, "", key=lambda value: refusal(**{axis: value}))
        left = set(easiest_first[:kept])
        runs[axis] = tuple(value for value in sizes[axis] if value in left)
        reasons += [refusal(**{axis: value}) for value in easiest_first[kept : kept + 1]]
    return runs, reasons


def compare_grid(question: Question, numeric: Mapping[str, "np.ndarray"]) -> dict[str, Any]:
    """Compare both kinds of attention at every point of one block of a grid.

    Parameters
    ----------
    question
        The grid, or what else is asked about.
    numeric
        The values of each numeric axis in this block.

    Returns
    -------
    dict
        The columns of the sweep, see docs/commands.md: settings of the whole block as plain values,
        all others as arrays with one entry per point, last axis fastest.
    """
    import numpy as np

    shape = tuple(len(values) for values in numeric.values())
    axes = dict(zip(numeric, np.ix_(*numeric.values()), strict=True))
    asked = question.but(**axes)

    def flat(values: Numeric) -> "np.ndarray":
        full = np.shape(values) == shape  # no need for a call that is slow on few points
        return (values if full else np.broadcast_to(values, shape)).reshape(-1)

    columns: dict[str, Any] = _settings(question)
    columns.update({axis: flat(values).astype(np.int64) for axis, values in axes.items()})
    before, after = asked.around()

    def named(kind: Attention, step: Estimate) -> dict[str, "np.ndarray"]:
        return {f"{kind}_{name}": flat(values) for name, values in _results(step).items()}

    ((form, attends),) = forms_to_try(asked.under("standard"))  # never mixed, so in one form
    standard = form.answered(before + attends + after)
    columns.update(named("standard", standard))
    chosen: dict[str, Any] = {}
    for form, attends in forms_to_try(asked.under("bifurcated")):
        step = form.answered(before + attends + after)
        one: dict[str, Any] = named("bifurcated", step)
        one["speedup"] = flat(standard.time.total_s / step.time.total_s)
        ends = speedup_interval(standard.uncertainty, step.uncertainty)
        one["speedup_low"], one["speedup_high"] = map(flat, ends)
        read = standard.totals.kv_bytes_read, step.totals.kv_bytes_read
        one["kv_io_ratio"] = flat(kv_io_ratio(*read))
        chosen = _fastest(chosen, one) if chosen else one
    columns.update(chosen)
    fits = columns["standard_fits"], columns["bifurcated_fits"]
    columns["winner"] = winner_of(columns["speedup"], *fits)
    columns["verdict"] = verdict_of(
        columns["speedup_low"],
        columns["speedup_high"],
        standard_fits=fits[0],
        bifurcated_fits=fits[1],
        memory_sure=(columns["standard_memory_verdict"] != "too close to call")
        & (columns["bifurcated_memory_verdict"] != "too close to call"),
    )
    return columns


def compare_on(question: Question, **varied: Sequence[int]) -> dict[str, Any]:
    """Compare both kinds of attention as :func:`compare_grid` does, along some numeric axes.

    ``varied`` has their values; the others stay as in the question's workload.
    """
    import numpy as np

    own = {axis: varied.get(axis, (getattr(question.workload, axis),)) for axis in NUMERIC_AXES}
    numeric = {axis: np.asarray(values, dtype=np.float64) for axis, values in own.items()}
    return compare_grid(question, numeric)


def _fastest(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Choose at every point between two forms: one that fits before others, then the faster."""
    import numpy as np

    fits, other_fits = first["bifurcated_fits"], second["bifurcated_fits"]
    faster = second["bifurcated_step_ms"] < first["bifurcated_step_ms"]
    better = np.where(fits == other_fits, faster, other_fits)
    return {name: np.where(better, second[name], first[name]) for name in first}


def _results(step: Estimate) -> dict[str, Numeric]:
    """Return the columns of a block's steps under one kind of attention."""
    return {
        "step_ms": step.time.total_s / MILLISECOND,
        "step_ms_low": step.uncertainty.low_s / MILLISECOND,
        "step_ms_high": step.uncertainty.high_s / MILLISECOND,
        "tokens_per_s": step.workload.forward_tokens / step.time.total_s,
        "flops": step.totals.flops,
        "bytes_read": step.totals.bytes_read,
        "bytes_written": step.totals.bytes_written,
        "memory_traffic_bytes": step.memory_traffic_bytes,
        "memory_traffic_bytes_low": step.memory_traffic_bytes_low,
        "kv_bytes_read": step.totals.kv_bytes_read,
        "memory_bytes": step.memory.total_bytes,
        "capacity_bytes": step.memory.capacity_bytes,
        "fits": step.memory.fits,
        "memory_verdict": step.memory.verdict,
        "bound": step.bound,
    }


def _settings(question: Question) -> dict[str, Any]:
    """Return the settings that are the same for a whole grid, as columns."""
    model, setup, work = question.model, question.setup, question.workload
    settings = {"model": model.name, "kv_heads": model.kv_heads, "gpu": question.gpu.id}
    for axis in NAMED_AXES:
        settings[axis] = getattr(setup if axis in Setup.fields else work, axis)
    return settings | {"tree": tree_text(work.tree)}


@dataclass(frozen=True, kw_only=True)
class GridSummary:
    """A summary of all points of a scenario's grid.

    Attributes
    ----------
    gained
        Points at which bifurcated attention is at least ``GAIN_SPEEDUP`` times as fast.
    fits
        Points that fit in memory, by kind of attention.
    verdict
        The answer for the whole grid, decided as the scenario's own.
    decided
        Number of points by verdict.
    both_fit
        Points that fit under both kinds of attention.
    least, most
        The points with the smallest and the largest speed-up, as columns of the sweep: of those
        where both fit, if there are any.
    rows
        Every point; empty if there are more than ``MOST_POINTS_LISTED``.
    skipped
        Combinations that cannot run, one sentence each.
    """

    points: int
    gained: int
    fits: Mapping[Attention, int]
    both_fit: int
    verdict: Expectation
    decided: Mapping[Verdict, int]
    least: Mapping[str, Any]
    most: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]


def summarise(scenario: Scenario, **settings: Any) -> GridSummary:
    """Compute a scenario's whole grid, as a sweep does, and summarise it.

    Parameters
    ----------
    settings
        As for :func:`simulator.answers.sweep.prepare_sweep`.

    Raises
    ------
    SimulatorError
        If a model or GPU is unknown, or nothing can run.
    """
    import numpy as np

    grid = prepare_sweep(scenario, **settings)
    speedups: list[float] = []
    fits = dict.fromkeys(ATTENTIONS, 0)
    decided = dict.fromkeys(VERDICTS, 0)
    extremes: list[Mapping[str, Any]] = []
    both_fit = 0
    rows: list[Mapping[str, Any]] = []
    for block in grid.blocks():
        here = block["speedup"]
        speedups += here.tolist()
        for name in ATTENTIONS:
            fits[name] += int(block[f"{name}_fits"].sum())
        for verdict in VERDICTS:
            decided[verdict] += int((block["verdict"] == verdict).sum())
        both = block["standard_fits"] & block["bifurcated_fits"]
        both_fit += int(both.sum())
        # Each the first in the order of the speed-up, after those that fit both ways.
        ends = (int(np.lexsort((order, ~both))[0]) for order in (here, -here))
        extremes += [_row(block, end) for end in ends]
        if grid.points <= MOST_POINTS_LISTED:
            rows += [_row(block, index) for index in range(len(here))]
    return GridSummary(
        points=grid.points,
        gained=sum(speedup >= GAIN_SPEEDUP for speedup in speedups),
        fits=fits,
        both_fit=both_fit,
        verdict=expectation_of(speedups),
        decided=decided,
        least=min(extremes, key=lambda row: (_unfit(row), row["speedup"])),
        most=min(extremes, key=lambda row: (_unfit(row), -row["speedup"])),
        rows=tuple(rows),
        skipped=grid.skipped,
    )


def _unfit(row: Mapping[str, Any]) -> bool:
    """Return whether one kind of attention does not fit at a point."""
    return not all(row[f"{name}_fits"] for name in ATTENTIONS)


def _row(block: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return one point of a block of a sweep."""
    return {
        name: column[index : index + 1].tolist()[0] if hasattr(column, "shape") else column
        for name, column in block.items()
    }
