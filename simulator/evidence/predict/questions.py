"""Predict whole decode steps of code that is nobody's we know: as questions about a step are.

The row says which attention, storage and execution; a kernel without a name of ours counts as a
fused one.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import pandas as pd

from simulator.counts.memory import memory
from simulator.counts.transformer import check_split, decode_operations
from simulator.errors import SimulatorError
from simulator.evidence.predict.groups import Group, library_of, profile
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Kernel, Workload, workload_for
from simulator.timing.constants import Variant
from simulator.timing.limits import resident_blocks

# What a sample holds of its own where rows do not say: half way through 128 new tokens.
DECODED_TOKENS = 64
# Words in the names of kernels that keep the logits in memory; others are fused.
_UNFUSED: Mapping[str, Kernel] = {"einsum": "einsum", "math": "sdpa_math", "ideal": "ideal"}


def prepare(rows: pd.DataFrame) -> tuple[list[Group], dict[Any, str]]:
    """Turn rows of whole decode steps into groups of one row each."""
    groups: list[Group] = []
    skipped: dict[Any, str] = {}
    for label, row in rows.iterrows():
        try:
            groups.append(_group(rows.loc[[label]], row))
        except (SimulatorError, ValueError, KeyError) as problem:
            skipped[label] = str(problem)
    return groups, skipped


def out_of_memory(row: "pd.Series[Any]") -> bool:
    """Return whether a step is predicted not to fit its GPU.

    Raises
    ------
    SimulatorError
        If the row is not one that can be predicted.
    """
    model, work = _question(row)
    gpu = profile(str(row["gpu_id"]))
    capacity = gpu.reported_memory_bytes or gpu.memory_bytes
    needed = memory(model, work, capacity_bytes=capacity, resident_blocks=resident_blocks(gpu))
    return not needed.fits


def _group(rows: pd.DataFrame, row: "pd.Series[Any]") -> Group:
    """Return one row's step as a group."""
    model, work = _question(row)
    gpu = profile(str(row["gpu_id"]))
    library = library_of(str(row["framework"]))
    return Group(
        kind="decode_step",
        gpu_id=gpu.id,
        index=rows.index,
        operations=decode_operations(model, work, resident_blocks=resident_blocks(gpu)),
        execution=work.execution,
        variants=(Variant(library),) if library else (),
        how=work,
    )


def _question(row: "pd.Series[Any]") -> tuple[ModelShape, Workload]:
    """Read a row as a question of ours."""
    model = _model(str(row["model"]))
    if int(row["expand_kv"]) == 1:
        model = model.with_kv_heads(model.heads)
    ranks = int(row["tensor_parallel"])
    check_split(model, ranks)
    if ranks > 1 and profile(str(row["gpu_id"])).link_bytes_per_s(ranks) is None:
        raise ValueError(f"{row['gpu_id']} has no link in its profile for {ranks} GPUs")
    name = str(row["kernel"]).lower()
    work = workload_for(
        model,
        prompts=_given(row, "prompts", 1),
        samples=int(row["samples"]),
        context_tokens=int(row["context_tokens"]),
        decoded_tokens=_given(row, "decoded_tokens", DECODED_TOKENS),
        attention=str(row["attention"]),
        kernel=next((kernel for word, kernel in _UNFUSED.items() if word in name), "flash"),
        kv_layout=str(row["kv_layout"]),
        execution=str(row["execution"]),
        weight_dtype=str(row["weights_dtype"]),
        tensor_parallel=ranks,
    )
    return model, work


def _given(row: "pd.Series[Any]", column: str, otherwise: int) -> int:
    """Return a size that a row may leave out."""
    value = row.get(column)
    return otherwise if value is None or pd.isna(value) else int(cast("float", value))


@cache
def _model(name: str) -> ModelShape:
    """Load a model once."""
    return load_model(name)
