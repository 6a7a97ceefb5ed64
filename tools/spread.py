"""The spreads behind intervals: how far measured times lie from predicted ones, by kind.

* Of kernels: quantiles of measured over predicted time of rows that no fit has seen, linear in the
  shares of fixed time and of bytes from the L2 cache.
* Of plain PyTorch code, on top of its kernels: whole steps of the paper's tables, predicted as
  questions are, without the constants fitted to its harness.
* Of engines under load, on top of their kernels: public serving runs.

This module writes ``spread.json``, and checks the coverage of intervals on rows that they were not
made from:

* Kernels of a GPU with constants of its own: spreads of four folds of shapes, checked on the fifth.
* Kernels of a GPU left out: constants and spreads of the other GPUs, checked on it.
* Four products of one size, as in a step: spreads of single ones, added as for a step.
* Whole steps, with the shipped constants and spreads: batches of serving engines, and the paper's
  plain PyTorch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from simulator.evidence.fit.calibrate import calibrate
from simulator.evidence.fit.solver import FOLDS
from simulator.evidence.predict.groups import Group, each_row, profile
from simulator.evidence.predict.paper_code import prefill_in_step_s
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.steps import step_group
from simulator.evidence.rows.kinds import RowKind
from simulator.evidence.rows.reading import Measurements
from simulator.timing.constants import rates
from simulator.timing.interval import VENDOR, Code, Spread
from simulator.timing.step import step_time
from simulator.units import MICROSECOND
from tools import tables
from tools.carry import NO_GUIDE, entry_lines
from tools.residuals import FAMILIES, Residuals, predicted_rows

if TYPE_CHECKING:
    from simulator.evidence.predict.serving import ServingGroup

COVERAGE = 0.8
LOW, HIGH = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
# Fewer rows than this say too little about the ends of a distribution.
LEAST_ROWS = 50
# Fewer rows than this, of one or two head shapes, do not represent all questions about a GPU.
LEAST_OWN_ROWS = 300
# Fewer rows than this, each more than half of its kind, say too little about the time from memory
# and from the L2 cache.
LEAST_TELLING, HALF = 20, 0.5
# The parts of a kernel's time, in the order of the fit's coefficients.
PARTS = ("fixed", "streaming", "cached")
# Matrix products of a layer, and how often as many of one size are drawn to check their sum.
PRODUCTS, DRAWS = 4, 20

# Runs of more users show what an engine takes for each sequence.
MANY_USERS = 64
# Rows of other licences test, and teach nothing; nor do those of more input tokens for each output
# token, which depend on how requests arrive.
FIT_LICENCE, LONGEST_INPUT = "Apache-2.0", 8
# Kernels of the paper's tables, and their names in questions.
PAPER_KERNELS = ("einsum", "flash2", "sdpa-math")

FILE_KINDS: tuple[RowKind, ...] = (*FAMILIES, "decode_step")
# What the file says of itself and of its tables.
WORDS = tables("spread.toml")


def spread(frame: pd.DataFrame) -> Spread:
    """Return the spread that holds ``COVERAGE`` of some rows, as many above as below it."""
    ratio = (frame["measured_s"] / frame["predicted_s"] - 1).to_numpy()
    fixed, streaming, cached = time_shares(frame)
    features = np.column_stack([fixed, streaming, cached])
    if min((streaming > HALF).sum(), (cached > HALF).sum()) < LEAST_TELLING:
        features = np.column_stack([fixed, 1 - fixed])
    # If few rows determine a coefficient, it is at most the largest observed ratio.
    least, most = np.quantile(ratio, [0.01, 0.99])
    above = _quantile(features, ratio, HIGH).clip(0, max(most, 0))
    below = (-_quantile(features, ratio, LOW)).clip(0, max(-least, 0))
    ends: dict[str, float] = {}
    for part, i in zip(PARTS, (0, 1, -1), strict=True):
        ends[f"{part}_below"], ends[f"{part}_above"] = _rounded(below[i]), _rounded(above[i])
    return Spread(**ends, common=_rounded(common_share(frame)))


def time_shares(frame: pd.DataFrame) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Return the shares of fixed time, of time from memory and of time from L2, for each row."""
    fixed = frame["fixed_share"].to_numpy().clip(0, 1)
    cached = (1 - fixed) * frame["cached_share"].to_numpy()
    return fixed, 1 - fixed - cached, cached


def peak_spread(frame: pd.DataFrame) -> Spread:
    """Return how much longer most rows take than published peaks: a share, and time per launch."""
    measured = frame["measured_s"].to_numpy()
    features = np.column_stack([frame["predicted_s"], frame["launches"] * MICROSECOND])
    late = measured - frame["predicted_s"].to_numpy()
    # Shares of the measured time: a row of a microsecond counts as much as one of a millisecond.
    found = _quantile(features / measured[:, None], late / measured, HIGH).clip(min=0)
    return Spread(streaming_above=_rounded(found[0]), launch_above_us=_rounded(found[1]))


def _quantile(features: "np.ndarray", values: "np.ndarray", level: float) -> "np.ndarray":
    """Return the linear quantile regression of values on some features, without a constant."""
    from scipy.optimize import minimize

    def loss(weights: "np.ndarray") -> float:
        off = values - features @ weights
        return float(np.mean(np.maximum(level * off, (level - 1) * off)))

    # Starts from the best of a coarse grid: the loss is convex, but not smooth.
    scale = float(np.quantile(values / np.maximum(features.sum(axis=1), 1e-12), level))
    count = features.shape[1]
    starts = [np.array(factors) * scale for factors in product((0.3, 1, 3), repeat=count)]
    start = min(starts, key=loss)
    options = {"xatol": 1e-5, "fatol": 1e-9, "maxiter": 2000}
    return np.asarray(minimize(loss, start, method="Nelder-Mead", options=options).x)


def common_share(frame: pd.DataFrame) -> float:
    """Return the share of the variance of log residuals that calls of one size have in common.

    The intraclass correlation of different shapes of one GPU, library and size: this part does not
    average out over the kernels of a step.
    """
    logs = np.log(frame["measured_s"] / frame["predicted_s"]).clip(-1, 1)
    logs = logs - logs.mean()
    variance = float((logs**2).mean())
    sums = logs.groupby([frame["gpu_id"], frame["size"]]).agg(["sum", "count"])
    squares = (logs**2).groupby([frame["gpu_id"], frame["size"]]).sum()
    several = sums["count"] > 1
    pairs = (sums["count"] * (sums["count"] - 1))[several]
    if not len(pairs) or variance == 0:
        return 1.0
    products = (sums["sum"] ** 2 - squares)[several]
    return float(np.clip(products.sum() / pairs.sum() / variance, 0, 1))


def _rounded(value: float) -> float:
    """Round a figure to three digits: more would be noise."""
    return float(f"{value:.3g}") + 0.0


def widest(spreads: Sequence[Spread]) -> Spread:
    """Return the spread that holds on the worst of some GPUs."""
    ends = [f"{part}_{side}" for part in PARTS for side in ("below", "above")]
    return Spread(**{end: max(getattr(item, end) for item in spreads) for end in ends})


def either_way(item: Spread) -> Spread:
    """Return a symmetric spread, as ratios.

    With few GPUs, the sign of each one's error says little about the next GPU.
    """
    ends = {}
    for part in PARTS:
        below, above = getattr(item, f"{part}_below"), getattr(item, f"{part}_above")
        ratio = max(1 + above, 1 / (1 - below))
        ends[f"{part}_below"], ends[f"{part}_above"] = _rounded(1 - 1 / ratio), _rounded(ratio - 1)
    return item._replace(**ends)


def by_gpu(frame: pd.DataFrame, least_rows: int) -> dict[str, dict[str, Spread]]:
    """Return the spreads of each GPU's own rows, where there are enough of them."""
    found: dict[str, dict[str, Spread]] = {}
    for (gpu_id, family), part in frame.groupby(["gpu_id", "family"], sort=True):
        if len(part) >= least_rows:
            found.setdefault(str(gpu_id), {})[str(family)] = spread(part)
    return found


def worst_gpu(frame: pd.DataFrame) -> dict[str, Spread]:
    """Return the spread of the worst GPU by kind of kernel, with the common share over all GPUs.

    A GPU whose one kernel guides no other (``carry.NO_GUIDE``) says nothing about others. Where
    rows are of one GPU, how far the next is off is not known: no less than for the kin, such as
    16-bit experts for int4 ones.
    """
    found: dict[str, Spread] = {}
    odd = pd.Series(data=False, index=frame.index)
    for gpu_id, kind in NO_GUIDE:
        odd |= (frame["gpu_id"] == gpu_id) & frame["family"].str.endswith(kind)
    frame = frame[~odd]
    own = by_gpu(frame, LEAST_ROWS)
    for family, part in frame.groupby("family", sort=True):
        spreads = [table[str(family)] for table in own.values() if str(family) in table]
        if spreads:
            common = _rounded(common_share(part))
            found[str(family)] = either_way(widest(spreads))._replace(common=common)
    for name, part in frame.groupby("family")[["gpu_id", "kin"]]:
        if name in found and len(part["gpu_id"].unique()) == 1:
            item = found[name]
            kin = next((found[each] for each in part["kin"].iloc[0] if each in found), item)
            found[name] = widest([item, kin])._replace(common=item.common)
    return found


def bifurcated(measurements: Measurements) -> Spread:
    """Return the spread of shared-prefix rows predicted from constants of standard rows alone."""
    table = measurements.tables.get("shared_prefix_attention")
    if table is None:
        return Spread()
    frames = []
    for gpu_id, rows in table[table["gpu_id"].notna()].groupby("gpu_id"):
        standard = Measurements({"shared_prefix_attention": rows[rows["mode"] == "standard"]})
        card = calibrate(standard, profile(str(gpu_id))).profile
        shared = rows[rows["mode"] != "standard"]
        frames += [
            predicted_rows(group, shared, card, "auto")
            for group in prepare(shared, "shared_prefix_attention").groups
            if group.execution == "graph"
        ]
    return spread(pd.concat(frames))._replace(common=0.0) if frames else Spread()


def spreads(found: Residuals, measurements: Measurements) -> dict[str, Any]:
    """Return the tables of ``spread.json``."""
    fitted = {str(name): spread(part) for name, part in found.fitted.groupby("family")}
    carried = {
        # Constants of other GPUs are no better than a GPU's own.
        name: widest([item, fitted.get(name, item)])._replace(common=item.common)
        for name, item in worst_gpu(found.carried).items()
    }
    return {
        "fitted": fitted,
        "carried": carried,
        "peak": {str(name): peak_spread(part) for name, part in found.peak.groupby("family")},
        "gpu": by_gpu(found.fitted, LEAST_OWN_ROWS),
        "code": {
            "bifurcated": bifurcated(measurements),
            **code_spreads(measurements),
            "engine": engine_spread(serving_errors(measurements)),
        },
    }


def paper_steps(measurements: Measurements) -> "Iterator[tuple[pd.Series[Any], Group]]":
    """Yield the paper's cells that a question can describe, and what they are as questions.

    Cells that repeat KV heads in memory are left out, because no setup does that.
    """
    table = measurements.tables.get("decode_step")
    if table is None or "expand_kv" not in table:
        return
    plain = (table["expand_kv"].astype(float) == 0) & (table["tensor_parallel"].astype(float) == 1)
    known = table["kernel"].isin(PAPER_KERNELS) & (table["weights_dtype"] == "bf16")
    rows = table[plain & known & table["time_s"].notna() & table["gpu_id"].notna()]
    for group in each_row(rows, step_group).groups:
        yield rows.loc[group.index[0]], group


def measured_s(row: "pd.Series[Any]") -> float:
    """Return the time of a cell's step, without the prefill that its timing charges to it. [s]."""
    return float(row["time_s"]) - prefill_in_step_s(row)


def code_spreads(measurements: Measurements) -> dict[str, Spread]:
    """Return how far off the host's launches, unfused kernels and rebuilt caches are."""
    late: dict[Code, list[float]] = {"eager_host": [], "unfused": [], "rebuilt": []}
    for row, group in paper_steps(measurements):
        step = step_time(group.operations, rates(profile(group.gpu_id)), group.execution)
        code: Code = "rebuilt" if row["kv_layout"] == "rebuilt" else "unfused"
        if step.host_s > step.device_s:
            code = "eager_host"
        late[code].append(measured_s(row) / float(step.total_s) - 1)
    return {name: _code_spread(name, np.array(values)) for name, values in late.items()}


def _code_spread(code: Code, late: "np.ndarray") -> Spread:
    """Return the spread of cells from their delays, as shares of the predicted time."""
    if not len(late):
        return Spread()
    low, high = (float(f"{np.quantile(late, level):.3g}") for level in (LOW, HIGH))
    below, above = max(0.0, -low), max(0.0, high)
    if code == "eager_host":
        return Spread(fixed_below=below, fixed_above=above)
    return Spread(streaming_below=below, streaming_above=above)


def serving_errors(measurements: Measurements) -> pd.DataFrame:
    """Return measured times of serving runs and the ends of their kernels' intervals.

    All as ratios to predicted times, ``ratio``, ``low`` and ``high``; ``sequence_us`` is the
    predicted time over the number of sequences [us]. Of NVIDIA's GPUs, and of rows with little
    prefill whose licence lets us learn from them.
    """
    table = measurements.tables.get("serving", pd.DataFrame())
    frames = []
    for group in prepare(table, "serving").groups if len(table) else ():
        gpu, rows = profile(group.gpu_id), table.loc[group.index]
        ends = cast("ServingGroup", group).interval(gpu, served=False)
        if ends is None or gpu.vendor != VENDOR:
            continue
        found, measured = group.predict(gpu), rows["time_s"].to_numpy()
        low, high = (end / found for end in ends)
        each = {"sequence_us": found / rows["concurrency"] / MICROSECOND}
        frames.append(rows.assign(ratio=measured / found, low=low, high=high, **each))
    if not frames:
        return pd.DataFrame()
    joined = pd.concat(frames)
    short = joined["input_len"] <= LONGEST_INPUT * joined["output_len"]
    return joined[short & (joined["licence"] == FIT_LICENCE)]


def engine_spread(errors: pd.DataFrame) -> Spread:
    """Return the spread that, added to that of kernels, holds ``COVERAGE`` of serving runs.

    Spreads add as squares: a run outside its kernels' interval needs the root of the difference.
    What runs of many users miss beyond that grows with their sequences.
    """
    if not len(errors):
        return Spread()

    def without(off: "pd.Series[float]", held: "pd.Series[float] | float") -> "pd.Series[float]":
        return np.sqrt((off.clip(lower=0) ** 2 - held**2).clip(lower=0))

    late = errors["ratio"] - 1
    below, above = without(-late, 1 - errors["low"]), without(late, errors["high"] - 1)
    ends = {
        f"streaming_{side}": _rounded(float(missing.quantile(HIGH)))
        for side, missing in (("below", below), ("above", above))
    }
    beyond = without(above, ends["streaming_above"])
    of_each = (beyond * errors["sequence_us"])[errors["concurrency"] > MANY_USERS]
    if len(of_each) >= LEAST_ROWS:
        ends["sequence_above_us"] = _rounded(float(of_each.quantile(HIGH)))
    return Spread(**ends)


def text(tables: Mapping[str, Any], measurements: Measurements, date: str) -> str:
    """Return the text of ``spread.json``, with source, rows and date."""
    used = [table for kind, table in measurements.tables.items() if kind in FILE_KINDS]
    sources = sorted({str(name) for table in used for name in table["source"].dropna().unique()})
    told = {name: _told(found) for name, found in tables.items()}
    return entry_lines(
        {
            "about": WORDS["about"].format(coverage=COVERAGE, date=date, rows=sum(map(len, used))),
            "tables": WORDS["tables"],
            "coverage": COVERAGE,
            "date": date,
            "source": f"residuals of rows of {', '.join(sources)}",
            **told,
        }
    )


def _told(found: Any) -> Any:
    """Return spreads, or tables of them, without default values."""
    if isinstance(found, Mapping):
        return {name: _told(item) for name, item in found.items()}
    return {
        name: float(f"{value:g}")
        for name, value in found._asdict().items()
        if value != Spread._field_defaults[name]
    }


def coverage(checked: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the shares of measured times inside, below and above their intervals.

    Parameters
    ----------
    checked
        Rows, each with its GPU, ``what`` it checks, and the ends of its interval.
    """
    frames = [frame[["what", "gpu_id", "measured_s", "low_s", "high_s"]] for frame in checked]
    if not frames:
        return pd.DataFrame()
    rows = pd.concat(frames)
    below, above = rows["measured_s"] < rows["low_s"], rows["measured_s"] > rows["high_s"]
    groups = rows.assign(below=below, above=above).groupby(["what", "gpu_id"], sort=False)
    shares = groups[["below", "above"]].mean().assign(rows=groups.size()).reset_index()
    return shares.assign(inside=1 - shares["below"] - shares["above"])


def bounds(frame: pd.DataFrame, item: Spread) -> pd.DataFrame:
    """Return rows with the ends of their intervals under a spread. [s]."""
    shares = dict(zip(PARTS, time_shares(frame), strict=True))
    below, above = (
        sum(getattr(item, f"{part}_{side}") * share for part, share in shares.items())
        for side in ("below", "above")
    )
    predicted = frame["predicted_s"]
    return frame.assign(low_s=predicted * (1 - below), high_s=predicted * (1 + above))


def check_fitted(found: Residuals) -> Iterator[pd.DataFrame]:
    """Check each GPU's own spreads, fold by fold of its shapes."""
    for (family, gpu_id), part in found.fitted.groupby(["family", "gpu_id"]):
        if len(part) < LEAST_ROWS:
            continue
        every = found.fitted[found.fitted["family"] == family]
        others = every[every["gpu_id"] != gpu_id]
        folds = [(part[test], part[~test]) for test in (part["fold"] == i for i in range(FOLDS))]
        # A GPU with few rows takes the spread of all GPUs: here, of all others.
        few = len(part) < LEAST_OWN_ROWS <= len(others)
        for some, seen in [(part, others)] if few else folds:
            if len(some) and len(seen):
                yield bounds(some, spread(seen)).assign(what=family)


def check_left_out(found: Residuals) -> Iterator[pd.DataFrame]:
    """Check each GPU against the spreads of the others, which were left out in turn as well."""
    own = by_gpu(found.carried, LEAST_ROWS)
    for (family, gpu_id), part in found.carried.groupby(["family", "gpu_id"]):
        others = [
            table[str(family)]
            for other, table in own.items()
            if other != gpu_id and str(family) in table
        ]
        if others and len(part) >= LEAST_ROWS:
            yield bounds(part, either_way(widest(others))).assign(what=family)


def check_products(found: Residuals) -> Iterator[pd.DataFrame]:
    """Check sums of products of one size, whose individual errors average out."""
    generator = np.random.default_rng(0)
    every = found.fitted[found.fitted["family"] == "gemm"]
    for gpu_id, part in every.groupby("gpu_id"):
        item = spread(part)
        sums = []
        for _, alike in bounds(part, item).groupby("size"):
            figures = alike[["measured_s", "predicted_s", "low_s", "high_s"]].to_numpy()
            for _ in range(DRAWS if len(figures) > PRODUCTS else 0):
                four = figures[generator.choice(len(figures), PRODUCTS, replace=False)]
                measured, predicted, low, high = four.sum(axis=0)
                alone = (four[:, 1] ** 2).sum() / predicted**2
                width = np.sqrt(item.common + (1 - item.common) * alone)
                ends = (predicted + width * (end - predicted) for end in (low, high))
                sums.append((measured, *ends))
        frame = pd.DataFrame(sums, columns=["measured_s", "low_s", "high_s"])
        yield frame.assign(what="four products", gpu_id=gpu_id)


def _checked(
    what: str, group: Group, measured: "np.ndarray | list[float]"
) -> Iterator[pd.DataFrame]:
    """Yield a group's times with the ends of their intervals, where these are known."""
    ends = group.interval(profile(group.gpu_id))
    if ends is not None:
        low, high = ends
        times = {"measured_s": measured, "low_s": low, "high_s": high}
        yield pd.DataFrame(times).assign(what=what, gpu_id=group.gpu_id)


def check_batches(measurements: Measurements) -> Iterator[pd.DataFrame]:
    """Check end-to-end batches: the engine's fitted time, and the GPU's time with its interval."""
    table = measurements.tables.get("end_to_end")
    if table is None:
        return
    for group in prepare(table[table["time_s"].notna()], "end_to_end").groups:
        rows = table.loc[group.index]
        what = f"batches of {rows['framework'].iloc[0]}"
        yield from _checked(what, group, rows["time_s"].to_numpy(dtype=np.float64))


def check_cells(measurements: Measurements) -> Iterator[pd.DataFrame]:
    """Check the paper's cells, predicted as plain questions."""
    for row, group in paper_steps(measurements):
        what = f"the paper's {row['attention']} steps, {row['execution']}"
        yield from _checked(what, group, [measured_s(row)])
