"""Predict rows of linear attention: short convolutions and recurrences, in each phase."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.attention import linear
from simulator.counts.attention.linear import LinearShape
from simulator.counts.operation import Operation
from simulator.evidence.predict.groups import library_of, numbers, replayed
from simulator.inputs.hardware import HardwareProfile

PHASES = ("decode", "verify", "prefill")
OPERATIONS = ("conv", "recurrence", "conv+recurrence")
# Rows without the size of a state's values: TensorRT-LLM keeps them in 16 bits, others in 32.
STATE_BYTES = {"trtllm": 2}
# Kernels that keep a prefill on the chip; those of Flash Linear Attention pass it through memory.
FUSED = ("flashinfer", "flashkda")
# Kernels that convolve queries, keys and values in one launch each.
THREE_LAUNCHES = "qkv3"
# A kernel that takes 2 and 4 draft tokens in the same time.
PADDED, PADDED_DRAFT = "mtp", 4
# Rows of these families have one call in each graph, whose launch counts as one more; others ten.
ONE_CALL = ("kda",)


def unknown(row: "pd.Series[Any]") -> str:
    """Return why rows like this cannot be predicted; empty if they can."""
    if row["phase"] not in PHASES or row["op"] not in OPERATIONS:
        return f"no linear attention has a {row['op']!r} in a phase {row['phase']!r}"
    if row["op"] == "conv+recurrence" and row["phase"] == "prefill":
        return "no kernel of a prefill is known that also convolves"
    if row["family"] == "mamba2" and row["op"] != "conv":
        return "the scan of Mamba-2 is not known: no rows determine it"
    if "eager" in str(row["timing"]) and row["op"] == "conv":
        return "eager convolutions take the time of their host's code, not of the kernel"
    return ""


def operations(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return the kernels of rows of one family, phase and operation, replayed back to back."""
    first = rows.iloc[0]
    library = library_of(str(first["framework"]))
    shape = _shape(rows, library)
    prefill, verify = first["phase"] == "prefill", first["phase"] == "verify"
    states = shape.seq_len if verify else 1
    if PADDED in first["kernel"]:
        states = np.maximum(states, PADDED_DRAFT)
    # TensorRT-LLM's rows of Gated DeltaNet convolve keys only.
    keys_only = library == "trtllm" and first["family"] == "gdn"
    channels = shape.k_heads * shape.k_dim if keys_only else shape.channels
    window = shape.batch * channels * (shape.taps - 1) * shape.element_bytes
    in_place = {"convolution": window, "recurrence": shape.states_bytes}
    found = []
    if first["op"] != "recurrence":
        found.append(_convolution(first, shape, channels, states))
    if first["op"] != "conv":
        if not prefill:
            found.append(linear.recurrence(shape, states=states))
        elif any(name in str(first["kernel"]).lower() for name in FUSED):
            found.append(linear.fused_recurrence(shape))
        else:
            found += linear.chunked_recurrence(shape)
    if first["op"] == "conv+recurrence":
        found = [_joined(*found)]
    # A replay finds the last one's data in L2; a state is read and written in one place.
    return [replayed(item, item.bytes_moved - in_place.get(item.kind, 0.0)) for item in found]


def _shape(rows: pd.DataFrame, library: str) -> LinearShape:
    """Return the sizes of rows."""
    default = STATE_BYTES.get(library, 4)
    return LinearShape(
        batch=numbers(rows, "batch"),
        seq_len=numbers(rows, "seq_len"),
        k_heads=numbers(rows, "num_k_heads"),
        k_dim=numbers(rows, "head_k_dim"),
        v_heads=numbers(rows, "num_v_heads"),
        v_dim=numbers(rows, "head_v_dim"),
        taps=numbers(rows, "d_conv"),
        state_bytes=pd.to_numeric(rows["state_bytes_per_element"]).fillna(default).to_numpy(float),
        rule="channel_delta" if rows["family"].iloc[0] == "kda" else "delta",
    )


def _convolution(
    row: "pd.Series[Any]", shape: LinearShape, channels: Any, states: Any
) -> Operation:
    """Return the convolution of a library."""
    library, prefill = library_of(str(row["framework"])), row["phase"] == "prefill"
    if library == "vllm":
        # One window that may end at any draft token, instead of one for each.
        states = 1 + (states - 1) / (shape.taps - 1)
    stepped = prefill and library != "trtllm"
    found = linear.convolution(shape, channels=channels, states=states, stepped=stepped)
    launches = 3 if THREE_LAUNCHES in str(row["kernel"]) else 1
    return replace(
        found,
        launches=launches + (row["family"] in ONE_CALL),
        # One thread block for each channel of a sequence; others take many channels each.
        thread_blocks=shape.batch * channels if prefill and not stepped else 0,
    )


def _joined(first: Operation, second: Operation) -> Operation:
    """Return a convolution and a recurrence as one kernel, which takes the fixed time of both."""
    return replace(
        second,
        launches=first.launches,
        bytes_read=first.bytes_read + second.bytes_read,
        bytes_written=first.bytes_written + second.bytes_written,
    )
