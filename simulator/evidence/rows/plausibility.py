"""What no measurement can be: faster than the memory, the matrix units, the link or a launch."""

from collections.abc import Iterator
from functools import cache
from typing import cast

import pandas as pd

from simulator.errors import SimulatorError
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import count_parameters
from simulator.inputs.presets import load_model
from simulator.timing.limits import peak_flops_per_s
from simulator.units import GIGA, MICROSECOND, TERA

# The shortest kernels of the rows used here take 1.0 us in a CUDA graph (RRZE gpu-small-kernels,
# L40); half of it is no launch at all.
SHORTEST_LAUNCH_S = 0.5 * MICROSECOND
# Clocks above the one a peak is published for: 1980 against 1830 MHz on H100.
CLOCK_HEADROOM = 1.10
# Memory clocks are fixed; what is left is rounding of the published figure.
MEMORY_HEADROOM = 1.02
# Of whole steps: the columns that name the weights' format and the GPUs they are split over.
_STEPS = {"decode_step": ("weights_dtype", "tensor_parallel"), "end_to_end": ("weight_dtype", "tp")}


def violations(
    rows: pd.DataFrame, kind: str, gpu: HardwareProfile
) -> Iterator[tuple["pd.Series[bool]", "pd.Series[str] | str"]]:
    """Yield which rows of one GPU break which law.

    Back-to-back replays may read what the L2 cache still holds, so only the bytes beyond its size
    must have come from memory.
    """
    if kind == "bandwidth":
        yield from _bandwidth_violations(rows, gpu)
        return
    seconds = rows["time_s"]
    yield (
        seconds < SHORTEST_LAUNCH_S,
        f"shorter than any launch ({SHORTEST_LAUNCH_S / MICROSECOND:g} us)",
    )
    least_bytes = weights_read_bytes(rows, kind) if kind in _STEPS else compulsory_bytes(rows, kind)
    if least_bytes is not None:
        implied = (least_bytes - gpu.l2_bytes) / seconds
        peak = gpu.memory_bandwidth_bytes_per_s
        text = implied.map(
            lambda rate: f"implies {rate / GIGA:.0f} GB/s, the peak is {peak / GIGA:.0f}"
        )
        yield implied > MEMORY_HEADROOM * peak, text
    flops = least_flops(rows, kind)
    if flops is not None:
        for dtype, part in rows.groupby("dtype"):
            peak, _ = peak_flops_per_s(gpu, cast("Dtype", dtype))
            implied = flops[part.index] / part["time_s"]
            text = implied.map(
                lambda rate, peak=peak: (
                    f"implies {rate / TERA:.0f} TFLOP/s, the peak is {peak / TERA:.0f}"
                )
            )
            bad = (implied > CLOCK_HEADROOM * peak).reindex(rows.index, fill_value=False)
            yield bad, text.reindex(rows.index)
    if kind == "all_reduce":
        for gpus, part in rows.groupby("num_gpus"):
            link = gpu.link_bytes_per_s(int(gpus))
            if link is None:
                continue
            implied = part["message_bytes"] * least_traffic(part) / part["time_s"]
            bad = (implied > MEMORY_HEADROOM * link).reindex(rows.index, fill_value=False)
            yield bad, f"sends faster than the link's {link / GIGA:.0f} GB/s"


def least_traffic(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return what a GPU sends at least, as a share of the message.

    An all-reduce whose sum is made in the switch sends the message once; in the other collectives
    each GPU keeps its own part.
    """
    others = (rows["num_gpus"] - 1) / rows["num_gpus"]
    return others.where(rows["collective"] != "all_reduce", 1.0)


def compulsory_bytes(rows: pd.DataFrame, kind: str) -> "pd.Series[float] | None":
    """Return the bytes that a call must read and write at least. [bytes]."""
    if kind == "gemm":
        element = rows["dtype"].map(DTYPE_BYTES).astype("float64")
        return element * (rows["m"] * rows["k"] + rows["n"] * rows["k"])
    if kind == "elementwise":
        return rows["bytes"]
    if kind == "shared_prefix_attention":
        # The prefix once, each sequence's own tokens: what the rest reads again may come from L2.
        return (rows["prefix_len"] + rows["batch"] * rows["suffix_len"]) * _token_bytes(rows)
    if kind not in {"decode_attention", "prefill_attention"}:
        return None
    return rows["batch"] * rows["kv_len"] * _token_bytes(rows)


def weights_read_bytes(rows: pd.DataFrame, kind: str) -> "pd.Series[float]":
    """Return what every step must read of the weights of a dense model's layers. [bytes].

    0 of a model that is not known, or of which a token may visit a part only.
    """
    dtype, gpus = _STEPS[kind]
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


def _token_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return keys and values of one token. [bytes]."""
    element = rows["kv_dtype"].map(DTYPE_BYTES).astype("float64")
    return 2 * rows["kv_heads"] * rows["head_dim"] * element


def least_flops(rows: pd.DataFrame, kind: str) -> "pd.Series[float] | None":
    """Return the FLOPs of the products that a call must do. [FLOP]."""
    if kind == "gemm":
        return 2 * rows["m"] * rows["n"] * rows["k"]
    if kind == "decode_attention":
        return 4 * rows["batch"] * rows["q_heads"] * rows["head_dim"] * rows["kv_len"]
    if kind == "shared_prefix_attention":
        keys = rows["prefix_len"] + rows["suffix_len"]
        return 4 * rows["batch"] * rows["q_heads"] * rows["head_dim"] * keys
    if kind == "prefill_attention":
        return 4 * rows["batch"] * rows["q_heads"] * rows["head_dim"] * attended_pairs(rows)
    return None


def attended_pairs(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the pairs of query and key in a prefill call: causal ones end at the last key."""
    q, kv = rows["q_len"], rows["kv_len"]
    causal = q * kv - q * (q - 1) / 2
    return causal.where(rows["causal"] == 1, q * kv)


def _bandwidth_violations(
    rows: pd.DataFrame, gpu: HardwareProfile
) -> Iterator[tuple["pd.Series[bool]", str]]:
    """Yield streams from memory that are faster than it."""
    peak = gpu.memory_bandwidth_bytes_per_s
    streams = rows["test"].astype(str).str.startswith("stream")
    yield (
        streams & (rows["time_s"] > MEMORY_HEADROOM * peak),
        f"faster than the memory's {peak / GIGA:.0f} GB/s",
    )
