"""Predict rows of ``bifurcate measure`` from the accounts of the kernels that were timed.

These rows name their kernel in :mod:`simulator.evidence.kernels` (column ``implementation``), their
launches (``timing`` or ``execution``) and the state of L2 (``l2_state``), so no guesses are needed:
they are plain PyTorch, one kernel per operation, launched by a graph or by the host.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.operation import Operation
from simulator.errors import SimulatorError
from simulator.evidence.kernels import ALL_KERNELS, KERNELS
from simulator.evidence.measure.cells import MODES, AttentionCell, KernelCell, StepCell
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES, predict
from simulator.evidence.predict import groups
from simulator.evidence.predict.calls import attention_kernel
from simulator.evidence.predict.groups import Group, Prepared, library_of, profile, replayed
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.timing.constants import Variant, variants_of
from simulator.timing.limits import BLOCKS_PER_SM

# The name that `measure` gives a model with changed KV heads.
_WHAT_IF = re.compile(r"(?P<base>.+) with (?P<kv_heads>\d+) KV heads?")
# An account that iterates over the blocks of a mask takes one row at a time.
_ONE_BY_ONE = ("bifurcated_flex",)
_SIZES = ("prompts", "samples", "context_tokens", "decoded_tokens")


def named(rows: pd.DataFrame) -> "pd.Series[Any]":
    """Return the kernel of ``measure`` that each row names, if it has such a column."""
    return rows.get("implementation", pd.Series("", index=rows.index))


def is_own(rows: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows name a kernel of ``measure``."""
    known = ALL_KERNELS if kind in {"shared_prefix_attention", "decode_step"} else ()
    return named(rows).isin([*known])


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
    single = rows["implementation"].isin(_ONE_BY_ONE)
    parts = [
        part
        for chosen, names in ((rows[~single], keys), (rows[single], [*keys, *_SIZES]))
        for _, part in chosen.groupby(names, sort=True, dropna=False)
    ]
    for part in parts:
        gpu, first = profile(str(part["gpu_id"].iloc[0])), part.iloc[0]
        execution = first["execution" if step else "timing"]
        try:
            listed = _operations(part, gpu, step=step)
        except (SimulatorError, ValueError, KeyError) as problem:
            # Without the list of known names, so that equal reasons can be counted.
            skipped |= dict.fromkeys(part.index, str(problem).split(";")[0])
            continue
        name = str(first["implementation"])
        # Plain PyTorch is not an engine's code, even in a graph.
        plain: Any = "compiled" if execution == "graph" and name in KERNELS else execution
        dtype = first["weights_dtype" if step else "dtype"]
        found.append(
            Group(
                kind=kind,
                gpu_id=gpu.id,
                index=part.index,
                operations=listed,
                execution=execution,
                variants=_variants(name, gpu),
                setup=ALL_KERNELS[name].setup(dtype, plain),
                oom=tuple(_out_of_memory(part, gpu)) if step else (),
            )
        )
    return Prepared(found, skipped)


def _variants(implementation: str, gpu: HardwareProfile) -> tuple[Variant, ...]:
    """Return the variants of another library's kernel, none for ours."""
    library = ALL_KERNELS[implementation].library
    if library is None:
        return ()
    # vLLM's kernel is the FlashAttention that its other rows name.
    kernel = "vllm_flash_attn" if library.framework == "vllm" else library.framework
    return variants_of((library_of(library.framework), attention_kernel(kernel, gpu)))


def _out_of_memory(rows: pd.DataFrame, gpu: HardwareProfile) -> Iterator[bool]:
    """Yield whether each whole step of ours is predicted not to fit its GPU."""
    for label in rows.index:
        cell = _cell(rows.loc[[label]], step=True)
        needed = predict(cell, gpu=None, l2_bytes=gpu.l2_bytes, headroom_bytes=CUDA_HEADROOM_BYTES)
        yield needed.memory_bytes > gpu.memory_bytes


def _cell(rows: pd.DataFrame, *, step: bool) -> KernelCell:
    """Return a group's rows as one cell, whose sizes are arrays, or numbers of a single row."""
    first = rows.iloc[0]
    sizes: dict[str, Any] = {
        name: int(first[name]) if len(rows) == 1 else np.asarray(rows[name], dtype=np.float64)
        for name in _SIZES
    }
    sizes |= {"kernel": str(first["implementation"])}
    sizes |= {"query_tokens": int(first.get("query_tokens", 1))}
    if step:
        return StepCell(model=_model(str(first["model"])), dtype=first["weights_dtype"], **sizes)
    heads, kv_heads, width = (int(first[name]) for name in ("q_heads", "kv_heads", "head_dim"))
    dtype = first["dtype"]
    return AttentionCell(heads=heads, kv_heads=kv_heads, head_dim=width, dtype=dtype, **sizes)


def _operations(rows: pd.DataFrame, gpu: HardwareProfile, *, step: bool) -> list[Operation]:
    """Return one call of a kernel over one layer, or a whole step of a plain transformer."""
    first = rows.iloc[0]
    mode, cell = first["execution" if step else "timing"], _cell(rows, step=step)
    if mode not in MODES:
        raise ValueError(f"{mode!r} is not graph or eager")
    listed = cell.operations(BLOCKS_PER_SM * gpu.sm_count)
    if isinstance(cell, StepCell):
        if str(first.get("operations", "plain")) != "plain":
            raise ValueError(f"operations {first['operations']!r} are not plain PyTorch")
        for column in ("layers", "hidden_size"):
            if column in rows and not (rows[column] == getattr(cell.model, column)).all():
                raise ValueError(
                    f"{cell.model.name} of the rows has other {column} than the preset"
                )
    elif str(first.get("l2_state", "cold")) == "warm":
        # A call finds the data of the last one. The cache is nearly all that it reads again.
        footprint = sum(item.kv_bytes_read - item.reused_bytes for item in listed)
        return [replayed(item, footprint) for item in listed]
    return listed


@cache
def _model(name: str) -> ModelShape:
    """Load a preset, with the KV heads that the name says."""
    changed = _WHAT_IF.fullmatch(name)
    if changed is None:
        return groups.model(name)
    return groups.model(changed["base"]).with_kv_heads(int(changed["kv_heads"]))
