"""Why rows are refused: missing or invalid columns, or a physically impossible time."""

from collections.abc import Iterator
from functools import cache
from itertools import chain
from math import inf
from typing import Any

import pandas as pd

from simulator.errors import SimulatorError
from simulator.evidence.rows.kinds import KINDS, VALUES, WINDOW, KindOfRow, RowKind
from simulator.inputs.dtypes import DTYPE_BYTES, DTYPES
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import count_parameters
from simulator.inputs.presets import load_model
from simulator.timing.limits import peak_flops_per_s
from simulator.units import GIGA, MICROSECOND, TERA

# A larger size is a typing error.
LARGEST_SIZE = 1e15
# The shortest kernels of our rows take 1.0 us in a CUDA graph (RRZE gpu-small-kernels, L40);
# nothing launches in half of that.
SHORTEST_LAUNCH_S = 0.5 * MICROSECOND
# GPUs boost above the clock of their published peak: H100 to 1980 instead of 1830 MHz.
CLOCK_HEADROOM = 1.10
# Memory clocks are fixed: this allows for the rounding of the published figure.
MEMORY_HEADROOM = 1.02

# A series with at least so many impossible rows, and such a share of them, timed something else
# than it says; so did its other rows, whose times happen to be possible.
LEAST_IMPOSSIBLE, IMPOSSIBLE_SHARE = 3, 0.1

# Rows with a flaw, and its description.
_Flaw = tuple["pd.Series[bool]", "pd.Series[str] | str"]


def unusable(frame: pd.DataFrame, kind: RowKind) -> "pd.Series[Any]":
    """Return why each row is unusable (a size or the time is missing), None if it is usable."""
    return _first_flaws(frame, _missing(frame, kind))


def impossible(frame: pd.DataFrame, kind: RowKind) -> "pd.Series[Any]":
    """Return why each row is impossible on its GPU, None if it is possible."""
    timed = frame[frame["gpu_id"].notna() & ~is_oom(frame, kind)]
    flaws = (
        (bad.reindex(frame.index, fill_value=False), text)
        for name, rows in timed.groupby("gpu_id")
        for bad, text in _violations(rows, kind, load_hardware(str(name)))
    )
    return _first_flaws(frame, chain(_marked(frame, kind), flaws))


def _marked(frame: pd.DataFrame, kind: RowKind) -> Iterator[_Flaw]:
    """Yield the rows that their file marks as impossible."""
    if "plausible" in KINDS[kind].optional:
        # Short times are no wonder where L2 holds the data.
        cold = frame["fits_l2"] != 1 if "fits_l2" in frame else True
        yield (frame["plausible"] == 0) & cold, "its file marks it as implausible"
    if "series_plausible" in KINDS[kind].optional:
        yield frame["series_plausible"] == 0, "its file marks its series as implausible"


def distrusted(frame: pd.DataFrame, kind: RowKind, refused: "pd.Series[bool]") -> "pd.Series[bool]":
    """Return which other rows belong to a series with many impossible rows.

    A series has one GPU, library, kernel and shape. A column ``series_plausible`` of 0 says so of a
    row too.

    Parameters
    ----------
    frame
        Rows of one kind.
    kind
        Their kind, whose ``series`` says which columns are a shape.
    refused
        Which rows are impossible.
    """
    shared = ("gpu", "framework", "kernel", *KINDS[kind].series)
    many = of_bad_series(refused, [frame[name].astype(str) for name in shared if name in frame])
    if "series_plausible" in frame:
        many |= pd.to_numeric(frame["series_plausible"], errors="coerce") == 0
    return many & ~refused


def of_bad_series(bad: "pd.Series[bool]", names: "list[pd.Series[Any]]") -> "pd.Series[bool]":
    """Return which rows belong to a series, of equal names, with many bad rows."""
    series = bad.astype(float).groupby(names)
    several = series.transform("sum") >= LEAST_IMPOSSIBLE
    return several & (series.transform("mean") >= IMPOSSIBLE_SHARE)


def is_oom(frame: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows ran out of memory and thus have no time."""
    if kind != "decode_step":
        return pd.Series(data=False, index=frame.index)
    return frame["status"].astype(str).str.lower() == "oom"


def _first_flaws(frame: pd.DataFrame, flaws: Iterator[_Flaw]) -> "pd.Series[Any]":
    """Return the first flaw of each row, None without a flaw."""
    reasons = pd.Series([None] * len(frame), index=frame.index, dtype=object)
    for bad, text in flaws:
        new = bad & reasons.isna()
        reasons[new] = text[new] if isinstance(text, pd.Series) else text
    return reasons


def _missing(frame: pd.DataFrame, kind: RowKind) -> Iterator[_Flaw]:
    """Yield the rows where a column holds an invalid value."""
    columns = KINDS[kind]
    yield frame["gpu"].isna() & frame["gpu_id"].isna(), "no GPU is named"
    for name in columns.sizes:
        yield ~frame[name].between(1, LARGEST_SIZE), f"{name} is not a size"
    given = {*columns.sizes, *columns.optional}
    for name in filter(given.__contains__, VALUES["numbers"]):
        (least, what), most = VALUES["numbers"][name], inf if name == WINDOW else LARGEST_SIZE
        yield ~frame[name].between(least, most), f"{name} is not {what}"
    for name in filter(given.__contains__, VALUES["switches"]):
        yield ~frame[name].isin((0, 1)), f"{name} is not 0 or 1"
    for name in columns.words:
        yield frame[name].isna(), f"{name} is missing"
    for name in VALUES["formats"]:
        if name in frame:
            known = WEIGHT_NAMES if name == "weights_dtype" else DTYPES
            yield ~frame[name].isin(known), f"{name} is not one of {', '.join(known)}"
    if {"q_heads", "kv_heads"} <= set(columns.sizes):
        several = frame["q_heads"] % frame["kv_heads"] != 0
        yield several, "q_heads is not a multiple of kv_heads"
    untimed = frame["time_s"].isna() & ~is_oom(frame, kind)
    if "status" in frame:
        status = frame["status"].fillna("ok").astype(str)
        failed = untimed & (status.str.lower() != "ok")
        yield failed, "status is " + status + ": nothing was timed"
    yield untimed, f"{columns.result} is not a positive number"


def _violations(rows: pd.DataFrame, kind: RowKind, gpu: HardwareProfile) -> Iterator[_Flaw]:
    """Yield the rows of one GPU that beat its memory, matrix units, link or fastest launch.

    Back-to-back replays may read from the L2 cache, so only the bytes beyond its size must come
    from memory.
    """
    seconds, memory = rows["time_s"], gpu.memory_bandwidth_bytes_per_s
    if kind == "bandwidth":
        streams = rows["test"].astype(str).str.startswith("stream")
        text = f"faster than the memory's {memory / GIGA:.0f} GB/s"
        yield streams & (seconds > MEMORY_HEADROOM * memory), text
        return
    shortest = f"shorter than any launch ({SHORTEST_LAUNCH_S / MICROSECOND:g} us)"
    yield seconds < SHORTEST_LAUNCH_S, shortest
    known = KINDS[kind]
    if known.least_bytes or known.weights:
        least = known.least_bytes(rows) if known.least_bytes else _weights_bytes(rows, known)
        implied = (least - gpu.l2_bytes) / seconds
        text = f" GB/s, the peak is {memory / GIGA:.0f}"
        words = implied.map(lambda rate: f"implies {rate / GIGA:.0f}{text}")
        yield implied > MEMORY_HEADROOM * memory, words
    if known.least_flops:
        # Each row's format has its own peak.
        formats = rows["product_dtype" if "product_dtype" in rows else "dtype"]
        peak = formats.map({name: peak_flops_per_s(gpu, name)[0] for name in formats.unique()})
        implied = known.least_flops(rows) / seconds
        pairs = zip(implied, peak, strict=True)
        words = pd.Series(
            [f"implies {a / TERA:.0f} TFLOP/s, the peak is {b / TERA:.0f}" for a, b in pairs],
            index=rows.index,
        )
        yield implied > CLOCK_HEADROOM * peak, words
    if kind == "all_reduce":
        for gpus, part in rows.groupby("num_gpus"):
            link = gpu.link_bytes_per_s(int(gpus))
            if link is None:
                continue
            implied = part["message_bytes"] * _least_traffic(part) / part["time_s"]
            bad = (implied > MEMORY_HEADROOM * link).reindex(rows.index, fill_value=False)
            yield bad, f"sends faster than the link's {link / GIGA:.0f} GB/s"


def _least_traffic(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the least that a GPU sends, as a share of the message.

    A switch that adds up an all-reduce receives the message once; in the other collectives each GPU
    keeps its own part.
    """
    others = (rows["num_gpus"] - 1) / rows["num_gpus"]
    return others.where(rows["collective"] != "all_reduce", 1.0)


def _weights_bytes(rows: pd.DataFrame, known: KindOfRow) -> "pd.Series[float]":
    """Return the weight bytes that every step of a dense model must read. [bytes].

    0 for an unknown model, or one whose tokens visit only part of the weights.
    """
    dtype, gpus = known.weights or ("", "")
    parameters = {name: _layer_parameters(str(name)) for name in rows["model"].unique()}
    element = rows[dtype].map(DTYPE_BYTES).astype("float64")
    return rows["model"].map(parameters).astype("float64") * element / rows[gpus]


@cache
def _layer_parameters(name: str) -> int:
    """Return the parameters of a dense model's attention and MLP."""
    try:
        model = load_model(name)
    except SimulatorError:
        return 0
    count = count_parameters(model)
    return 0 if model.experts else count.attention + count.mlp
