"""Predict rows of ``bifurcate measure`` from the accounts of the kernels that were timed.

These rows name their kernel in :mod:`simulator.evidence.kernels` (column ``implementation``), their
launches (``timing`` or ``execution``) and the state of L2 (``l2_state``), so no guesses are needed:
they are plain PyTorch, one kernel per operation, launched by a graph or by the host.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd

from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.errors import SimulatorError
from simulator.evidence.kernels import ALL_KERNELS, KERNELS
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES
from simulator.evidence.measure.cells import MODES, StepCell
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES, kernel_operations, predict
from simulator.evidence.predict import groups
from simulator.evidence.predict.calls import attention_kernel
from simulator.evidence.predict.groups import Group, Prepared, library_of, profile
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Execution, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Variant, variants_of
from simulator.timing.limits import BLOCKS_PER_SM

# The name that `measure` gives a model with changed KV heads.
_WHAT_IF = re.compile(r"(?P<base>.+) with (?P<kv_heads>\d+) KV heads?")
# An account that iterates over the blocks of a mask takes one row at a time.
_ONE_BY_ONE = ("bifurcated_flex",)
_SIZES = ("prompts", "samples", "context_tokens", "decoded_tokens")


def is_own(rows: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows name a kernel of ``measure``."""
    if "implementation" not in rows or kind not in {"shared_prefix_attention", "decode_step"}:
        return pd.Series(data=False, index=rows.index)
    return rows["implementation"].isin(list(ALL_KERNELS))


def of_other_libraries(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are of other libraries' kernels, which say nothing about PyTorch's."""
    if "implementation" not in rows:
        return pd.Series(data=False, index=rows.index)
    return rows["implementation"].isin(list(OTHER_LIBRARIES))


def prepare(rows: pd.DataFrame, kind: RowKind) -> Prepared:
    """Turn rows of ``bifurcate measure`` into groups of operations."""
    found: list[Group] = []
    skipped: dict[Any, str] = {}
    step = kind == "decode_step"
    if "query_tokens" not in rows:
        rows = rows.assign(query_tokens=1)  # rows of versions that measured only one
    keys = ["gpu_id", "framework", "implementation", "q_heads", "kv_heads", "query_tokens"]
    keys += ["model", "weights_dtype", "execution"] if step else ["dtype", "timing", "head_dim"]
    keys += ["l2_state"] if "l2_state" in rows else []
    for part in _parts(rows, keys):
        gpu = profile(str(part["gpu_id"].iloc[0]))
        try:
            operations = _step(part, gpu) if step else _attention(part, gpu)
        except (SimulatorError, ValueError, KeyError) as problem:
            skipped.update((label, _one_clause(problem)) for label in part.index)
            continue
        first = part.iloc[0]
        execution = _execution(str(first["execution" if step else "timing"]))
        found.append(
            Group(
                kind=kind,
                gpu_id=gpu.id,
                index=part.index,
                operations=operations,
                execution=execution,
                variants=_variants(str(first["implementation"]), gpu),
                setup=_setup(first, execution, step=step),
            )
        )
    return Prepared(found, skipped)


def _setup(row: "pd.Series[Any]", execution: Execution, *, step: bool) -> Setup:
    """Return the setup of a group; plain PyTorch is not an engine's code, even in a graph."""
    name, dtype = str(row["implementation"]), row["weights_dtype" if step else "dtype"]
    known = ALL_KERNELS[name]
    plain: Execution = "compiled" if execution == "graph" else execution
    return known.setup(dtype, execution if name in OTHER_LIBRARIES else plain)


def _variants(implementation: str, gpu: HardwareProfile) -> tuple[Variant, ...]:
    """Return the variants of another library's kernel, none for ours."""
    library = OTHER_LIBRARIES.get(implementation)
    if library is None:
        return ()
    # vLLM's kernel is the FlashAttention that its other rows name.
    kernel = "vllm_flash_attn" if library.framework == "vllm" else library.framework
    return variants_of((library_of(library.framework), attention_kernel(kernel, gpu)))


def _parts(rows: pd.DataFrame, keys: list[str]) -> Iterator[pd.DataFrame]:
    """Yield rows that are counted together."""
    single = rows["implementation"].isin(_ONE_BY_ONE)
    for chosen, names in ((rows[~single], keys), (rows[single], [*keys, *_SIZES])):
        if len(chosen):
            yield from (part for _, part in chosen.groupby(names, sort=True, dropna=False))


def out_of_memory(row: "pd.Series[Any]") -> bool:
    """Return whether a whole step of ours is predicted not to fit its GPU."""
    gpu = profile(str(row["gpu_id"]))
    cell = StepCell(
        model=_model(str(row["model"])),
        kernel=str(row["implementation"]),
        dtype=cast("Dtype", row["weights_dtype"]),
        context_tokens=int(row["context_tokens"]),
        decoded_tokens=int(row["decoded_tokens"]),
        samples=int(row["samples"]),
        prompts=int(row["prompts"]),
        query_tokens=int(row.get("query_tokens", 1)),
    )
    needed = predict(cell, gpu=None, l2_bytes=gpu.l2_bytes, headroom_bytes=CUDA_HEADROOM_BYTES)
    return needed.memory_bytes > gpu.memory_bytes


def _execution(mode: str) -> Execution:
    """Return how operations were launched."""
    if mode not in MODES:
        raise ValueError(f"{mode!r} is not graph or eager")
    return cast("Execution", mode)


def _one_clause(problem: Exception) -> str:
    """Return a message without its list of known names, so that equal ones can be counted."""
    return str(problem).split(";")[0]


def _columns(rows: pd.DataFrame) -> Mapping[str, Any]:
    """Return the sizes of a group's rows: arrays, or numbers of a single row."""
    if len(rows) == 1:
        return {name: int(rows[name].iloc[0]) for name in _SIZES}
    return {name: np.asarray(rows[name], dtype=np.float64) for name in _SIZES}


def _attention(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """One call of a kernel over one layer."""
    first = rows.iloc[0]
    dtype = cast("Dtype", first["dtype"])
    heads, kv_heads, width = (int(first[name]) for name in ("q_heads", "kv_heads", "head_dim"))
    shape = AttentionShape(
        **_columns(rows),
        query_tokens=int(first["query_tokens"]),
        heads=heads,
        kv_heads=kv_heads,
        key_width=width,
        value_width=width,
        cache_width=2 * kv_heads * width,
        activation_bytes=DTYPE_BYTES[dtype],
        kv_bytes=DTYPE_BYTES[dtype],
        dtype=dtype,
        resident_blocks=BLOCKS_PER_SM * gpu.sm_count,
    )
    operations = kernel_operations(str(first["implementation"]), shape)
    if str(first.get("l2_state", "cold")) == "warm":
        return _warm(operations)
    return operations


def _warm(operations: Sequence[Operation]) -> list[Operation]:
    """Return operations that find the data of the previous call in L2."""
    # The cache is nearly everything that a call reads and the next call finds again.
    footprint = sum(item.kv_bytes_read - item.reused_bytes for item in operations)
    return [
        replace(
            item,
            reused_bytes=item.bytes_moved - item.scratch_bytes,
            reused_footprint_bytes=footprint,
        )
        for item in operations
    ]


def _step(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """One whole step of a plain PyTorch transformer."""
    first = rows.iloc[0]
    if str(first.get("operations", "plain")) != "plain":
        raise ValueError(f"operations {first['operations']!r} are not plain PyTorch")
    model = _model(str(first["model"]))
    for column, known in (("layers", model.layers), ("hidden_size", model.hidden_size)):
        if column in rows and not (rows[column] == known).all():
            raise ValueError(f"{model.name} of the rows has other {column} than the preset")
    dtype = cast("Dtype", first["weights_dtype"])
    setup = KERNELS[str(first["implementation"])].setup(dtype)
    work = Workload.grid(**_columns(rows), query_tokens=int(first["query_tokens"]))
    return decode_operations(model, setup, work, resident_blocks=BLOCKS_PER_SM * gpu.sm_count)


@cache
def _model(name: str) -> ModelShape:
    """Load a preset, with the KV heads that the name says."""
    changed = _WHAT_IF.fullmatch(name)
    if changed is None:
        return groups.model(name)
    return groups.model(changed["base"]).with_kv_heads(int(changed["kv_heads"]))
