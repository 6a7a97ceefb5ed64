"""Predict rows of ``bifurcate measure``: the accounts of the very kernels that were timed.

These rows name their kernel in :mod:`simulator.evidence.kernels` (column ``implementation``), their
launches (``timing`` or ``execution``) and what L2 held (``l2_state``), so nothing is guessed: plain
PyTorch, one kernel for each operation, the launches those of a graph or of the host.
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
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES
from simulator.evidence.measure.cells import IMPLEMENTATIONS, KNOWN_KERNELS, StepCell
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES, kernel_operations, predict
from simulator.evidence.predict.attention_kernels import attention_kernel
from simulator.evidence.predict.groups import Group, HowTimed, library_of, profile
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Execution, WorkloadGrid
from simulator.timing.constants import Variant
from simulator.timing.limits import BLOCKS_PER_SM

# A model as `measure` names it where its KV heads were changed.
_WHAT_IF = re.compile(r"(?P<base>.+) with (?P<kv_heads>\d+) KV heads?")
# An account that walks through the blocks of a mask takes one size at a time.
_ONE_BY_ONE = ("bifurcated_flex",)
_SIZES = ("prompts", "samples", "context_tokens", "decoded_tokens")


def is_own(rows: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows name a kernel that ``measure`` knows."""
    if "implementation" not in rows or kind not in {"shared_prefix_attention", "decode_step"}:
        return pd.Series(data=False, index=rows.index)
    return rows["implementation"].isin(list(KNOWN_KERNELS))


def of_other_libraries(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are of other libraries' kernels, which tell nothing of PyTorch's."""
    if "implementation" not in rows:
        return pd.Series(data=False, index=rows.index)
    return rows["implementation"].isin(list(OTHER_LIBRARIES))


def prepare(rows: pd.DataFrame, kind: RowKind) -> tuple[list[Group], dict[Any, str]]:
    """Turn rows of our own measuring into groups of operations."""
    groups: list[Group] = []
    skipped: dict[Any, str] = {}
    step = kind == "decode_step"
    keys = ["gpu_id", "framework", "implementation", "q_heads", "kv_heads"]
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
        groups.append(
            Group(
                kind=kind,
                gpu_id=gpu.id,
                index=part.index,
                operations=operations,
                execution=execution,
                variants=_variants(str(first["implementation"]), gpu),
                how=_how(first, execution, step=step),
            )
        )
    return groups, skipped


def _how(row: "pd.Series[Any]", execution: Execution, *, step: bool) -> HowTimed:
    """Return how a group was run; plain PyTorch is no engine's code, in a graph neither."""
    name, dtype = str(row["implementation"]), row["weights_dtype" if step else "dtype"]
    known = KNOWN_KERNELS[name]
    plain: Execution = "compiled" if execution == "graph" else execution
    return HowTimed(
        attention=known.attention,
        kernel=known.account,
        kv_layout=known.kv_layout,
        execution=execution if name in OTHER_LIBRARIES else plain,
        weight_dtype=dtype,
        kv_dtype=dtype,
    )


def _variants(implementation: str, gpu: HardwareProfile) -> tuple[Variant, ...]:
    """Return whose constants another library's kernel has, none for ours."""
    library = OTHER_LIBRARIES.get(implementation)
    if library is None:
        return ()
    # vLLM takes the FlashAttention that its rows elsewhere are of.
    kernel = "vllm_flash_attn" if library.framework == "vllm" else library.framework
    listed = (library_of(library.framework), attention_kernel(kernel, gpu))
    return tuple(Variant(name) for name in listed if name)


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
    )
    needed = predict(cell, gpu=None, l2_bytes=gpu.l2_bytes, headroom_bytes=CUDA_HEADROOM_BYTES)
    return needed.memory_bytes > (gpu.reported_memory_bytes or gpu.memory_bytes)


def as_left(rows: pd.DataFrame, operations: Sequence[Operation]) -> list[Operation]:
    """Return operations as their rows found L2, where the rows say so: cold, nothing is there."""
    if "l2_state" not in rows or str(rows["l2_state"].iloc[0]) != "cold":
        return list(operations)
    return [replace(item, reused_bytes=0.0) for item in operations]


def _execution(mode: str) -> Execution:
    """Return how operations were launched."""
    if mode not in {"graph", "eager"}:
        raise ValueError(f"{mode!r} is not graph or eager")
    return cast("Execution", mode)


def _one_clause(problem: Exception) -> str:
    """Return a message without its list of what is known: it is counted, not read alone."""
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
        query_tokens=1,
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
    """Return operations that find in L2 what the same call left there."""
    # Of what a call reads, the cache is nearly all that the next call finds again.
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
    implementation = IMPLEMENTATIONS[str(first["implementation"])]
    dtype = cast("Dtype", first["weights_dtype"])
    work = WorkloadGrid(
        **_columns(rows),
        attention=implementation.attention,
        kernel=implementation.account,
        kv_layout=implementation.kv_layout,
        execution="eager",
        weight_dtype=dtype,
        kv_dtype=dtype,
    )
    return decode_operations(model, work, resident_blocks=BLOCKS_PER_SM * gpu.sm_count)


@cache
def _model(name: str) -> ModelShape:
    """Load a preset, its KV heads changed as the name says."""
    changed = _WHAT_IF.fullmatch(name)
    if changed is None:
        return load_model(name)
    return load_model(changed["base"]).with_kv_heads(int(changed["kv_heads"]))
