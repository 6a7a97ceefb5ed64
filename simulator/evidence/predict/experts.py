"""Predict rows of a layer's experts: the operations that each library timed."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.experts import RoutedExperts, visited_experts
from simulator.counts.operation import Operation, Tile
from simulator.evidence.predict.groups import library_of, numbers, profile
from simulator.inputs.formats import NAMED_FORMATS
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import Routing
from simulator.numeric import maximum, minimum
from simulator.timing.constants import EXPERT_KERNELS, Variant, variants_of

# The rows' names of routings.
_ROUTINGS: dict[str, Routing] = {
    "balanced": "balanced",
    "uniform": "uniform",
    "power_law": "skewed",
}
DEFAULT_EXPONENT = 1.2
# The first versions of today's code. Before, Triton's kernels of vLLM took SGLang's tiles and those
# of SGLang multiplied choices on other GPUs; rows without a gate were timed with one, and
# rows of SGLang have only tokens that chose an expert of the GPU. (Rows are of vLLM 0.14 and 0.24,
# SGLang 0.5.10 and 0.5.14, TensorRT-LLM 1.0 and 1.3.)
_TODAYS = {"vllm": (0, 15), "sglang": (0, 5, 14), "trtllm": (1, 1)}
# Skewed rows of older code, up to so many tokens, put all choices of some token on the first GPU:
# these take as long as if that many experts were read.
_ALL_ON_FIRST = {"vllm": 8, "trtllm": 2}
# The kernels of 4-bit experts that engines choose by default on an architecture, for activations of
# 16 bits as in questions; on others Marlin (vLLM's choice, recalled). Rows under load agree:
# CUTLASS takes twice as long as DeepSeek's steps on B200 allow, Marlin longer than gpt-oss's on
# H100.
FOUR_BITS = {"Blackwell": ("flashinfer_trtllm",), "Hopper": ("vllm_triton", "sglang_triton")}
# What FlashInfer's TensorRT-LLM kernels do inside their products.
_FUSED = ("experts_activation", "experts_down_quantise")


def unknown(row: "pd.Series[Any]") -> str:
    """Return why rows like this cannot be predicted; empty if they can."""
    if row["routing"] in _ROUTINGS:
        return ""
    return f"routing {row['routing']} is not one of {', '.join(_ROUTINGS)}"


def expert_kernel(row: "pd.Series[Any]") -> str:
    """Return the kernel of a row's grouped products; empty if it is not one of those known.

    >>> row = {"kernel": "vllm_fp8moe_flashinfer_cutlass_flashinferexperts", "framework": "vllm"}
    >>> expert_kernel(pd.Series({**row, "dtype": "fp8", "product_dtype": "fp8"}))
    'flashinfer_cutlass'
    """
    lowered, library = str(row["kernel"]).lower(), library_of(str(row["framework"]))
    if row["dtype"] == "mxfp4" and row["product_dtype"] == "fp8":
        lowered = f"{library}_w4a8"
    elif "triton" in lowered or "fused_moe" in lowered:
        lowered = "sglang_triton" if _is_old(row) else f"{library}_triton"
    return next((name for name in EXPERT_KERNELS if name in lowered), "")


def is_typical(row: "pd.Series[Any]") -> bool:
    """Return whether a row is of a kernel and scheme that some default would choose.

    FlashInfer's CUTLASS kernels are four to five times slower than others on Hopper, and
    TensorRT-LLM's for few tokens run with many as well. Of those for 4 bits see ``FOUR_BITS``.
    """
    kernel, family = expert_kernel(row), profile(str(row["gpu_id"])).architecture.split()[0]
    if row["dtype"] in ("mxfp4", "nvfp4"):
        return kernel in FOUR_BITS.get(family, ("marlin",))
    return kernel != "min_latency" and (kernel, family) != ("flashinfer_cutlass", "Hopper")


def variants(row: "pd.Series[Any]") -> tuple[Variant, ...]:
    """Return the variants whose constants hold for a row: of its kernel, then of its library."""
    names = (expert_kernel(row), library_of(str(row["framework"])))
    return variants_of(names, "" if row["dtype"] in ("bf16", "fp16") else row["dtype"])


def operations(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return the kernels of a layer's experts, replayed with the weights in L2 if they fit.

    SGLang's Triton kernels are timed on tokens that have chosen their experts.
    """
    first = rows.iloc[0]
    routing = _ROUTINGS[first["routing"]]
    kernel = expert_kernel(first)
    # SGLang's Triton kernels read 4-bit weights in 16 bits: they were expanded when loaded.
    expanded = kernel == "sglang_triton" and first["dtype"] in ("mxfp4", "nvfp4")
    wide = first["product_dtype"] in ("bf16", "fp16")
    tokens, count, per_token = (numbers(rows, name) for name in ("tokens", "experts", "top_k"))
    ranks, alpha = numbers(rows, "expert_parallel"), numbers(rows, "alpha")
    exponent = np.where(np.isfinite(alpha), alpha, DEFAULT_EXPONENT)
    visited = visited_experts(count, per_token, tokens, routing=routing, exponent=exponent)
    told, pairs = numbers(rows, "distinct_experts"), numbers(rows, "rank_pairs")
    pairs = np.where(np.isfinite(pairs), pairs, tokens * per_token / ranks)
    visited, held = np.where(np.isfinite(told), told, visited / ranks), count / ranks
    library, old = library_of(str(first["framework"])), _is_old(first)
    present = tokens
    if old and routing != "balanced":
        few = tokens <= _ALL_ON_FIRST.get(library, 0)
        visited = np.where(few, maximum(visited, minimum(per_token, held)), visited)
    if old and library == "sglang":
        share = minimum(pairs / (tokens * per_token), 1.0)
        chosen = tokens * (1 - (1 - share) ** per_token)
        present = minimum(tokens, pairs) if routing == "balanced" else chosen
    # Buffers of Triton and Marlin have a row for each of a token's choices, also of experts on
    # other GPUs.
    slots = present * per_token
    multiplies_all = kernel == "marlin" or (old and library == "sglang" and "triton" in kernel)
    routed = RoutedExperts(
        tokens=tokens,
        count=count,
        pairs=slots if multiplies_all else pairs,
        visited=visited,
        held=held,
        even=routing == "balanced",
        hidden=numbers(rows, "hidden_size"),
        inner=numbers(rows, "intermediate") / numbers(rows, "tensor_parallel"),
        ups=2 if old else 1 + numbers(rows, "gated"),
        activations="bf16",
        stored=NAMED_FORMATS["bf16" if expanded else first["dtype"]],
        multiplied=first["product_dtype"],
        tile=_default_tile(present, held) if kernel == "sglang_triton" and wide else None,
    )
    listed = routed.operations()
    if "flashinfer_trtllm" in str(first["kernel"]):
        listed = [item for item in listed if item.name not in _FUSED]
    # TensorRT-LLM multiplies 4-bit weights with 16-bit activations in Triton too (recalled).
    if kernel.endswith("_triton") or (library == "trtllm" and first["dtype"] == "mxfp4" and wide):
        # These gather rows as they load them.
        sglang = library == "sglang"
        without = ("expert_choice", "expert_gather") if sglang else ("expert_gather",)
        listed = [
            _of_slots(item, slots / routed.pairs) for item in listed if item.name not in without
        ]
    together = sum(item.weight_bytes_read for item in listed)
    return [
        replace(item, reused_bytes=item.weight_bytes_read, reused_footprint_bytes=together)
        if item.kind == "experts"
        else item
        for item in listed
    ]


def _is_old(row: "pd.Series[Any]") -> bool:
    """Return whether a row is of code before ``_TODAYS``; rows without a version are of today's."""
    version = tuple(map(int, re.findall(r"\d+", str(row["version"]))[:3]))
    return () < version < _TODAYS.get(library_of(str(row["framework"])), ())


def _default_tile(tokens: Any, held: Any) -> Tile:
    """Return the tile of Triton's kernels for 16 bits where no file for the shape says otherwise.

    SGLang's default (recalled). Rows jump where tokens exceed the experts of the GPU: on A100,
    eight experts of 600 MB take 2.8 ms for 8 tokens and 4.2 ms for 16.
    """
    few = tokens <= held
    return Tile(np.where(few, 16, 64), np.where(few, 32, 64), np.where(few, 64, 32))


def _of_slots(operation: Operation, factor: Any) -> Operation:
    """Return an operation of Triton's layer as it runs over all choices of the tokens.

    These are ``factor`` times the choices of this GPU's experts. Products write zeros for the
    others; activation and sum read them. (Recalled; rows of 2 to 512 parts on L40S and H100 take
    as long.)
    """
    read = factor if operation.name in ("experts_activation", "expert_sum") else 1
    written = factor if operation.kind in ("experts", "activation") else 1
    return replace(
        operation,
        bytes_read=operation.bytes_read * read,
        bytes_written=operation.bytes_written * written,
    )
