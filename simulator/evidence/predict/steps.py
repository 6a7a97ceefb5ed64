"""Predict rows of whole steps: the paper's own code, and end-to-end batches of serving engines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.memory import kv_cache_bytes, weights_bytes
from simulator.counts.transformer import check_split, decode_operations
from simulator.errors import SimulatorError, WorkloadError
from simulator.evidence.predict import paper_code, questions
from simulator.evidence.predict.groups import Ends, Group, library_of, profile
from simulator.evidence.predict.paper_code_time import cell_time, prefill_leak_s, question
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Workload, workload_for
from simulator.timing.constants import ConstantsChoice, Rates, Variant, rates
from simulator.timing.interval import request_interval, uncertainty
from simulator.timing.limits import resident_blocks
from simulator.timing.request import GenerationTime, generation_time
from simulator.timing.step import step_time

# Kernels of the paper's tables.
PAPER_KERNELS = frozenset({"einsum", "flash2", "sdpa-flash", "sdpa-math"})


def prepare(rows: pd.DataFrame, kind: RowKind) -> tuple[list[Group], dict[Any, str]]:
    """Turn rows of whole steps into groups of one row each kind of setting."""
    groups: list[Group] = []
    skipped: dict[Any, str] = {}
    if kind == "decode_step":
        theirs = pd.Series([is_papers(row) for _, row in rows.iterrows()], rows.index, dtype=bool)
        groups, skipped = questions.prepare(rows[~theirs])
        rows = rows[theirs]
    one = _harness_group if kind == "decode_step" else _batch_group
    for _, part in rows.groupby(["gpu_id", "framework"], sort=True):
        cells: dict[Any, Any] = {}
        for label, row in part.iterrows():
            try:
                cells[label] = _cell(row) if kind == "decode_step" else _batch(row)
            except (SimulatorError, ValueError, KeyError) as problem:
                skipped[label] = str(problem)
        if cells:
            groups.append(one(part.loc[list(cells)], kind, cells))
    return groups, skipped


def is_papers(row: "pd.Series[Any]") -> bool:
    """Return whether a whole step is one of the paper's own code, which its names tell."""
    return str(row["kernel"]) in PAPER_KERNELS and row["execution"] in {"eager", "compiled"}


def out_of_memory(row: "pd.Series[Any]") -> bool:
    """Return whether a row of a whole step is predicted not to fit its GPU.

    Raises
    ------
    SimulatorError
        If the row is not one that can be predicted.
    """
    if not is_papers(row):
        return questions.out_of_memory(row)
    cell = _cell(row)
    gpu = profile(str(row["gpu_id"]))
    capacity = (gpu.reported_memory_bytes or gpu.memory_bytes) * paper_code.USABLE_MEMORY
    weights = weights_bytes(cell.model, question(cell))
    return paper_code.memory_bytes(cell, float(weights)) > capacity


def prefill_in_step_s(row: "pd.Series[Any]") -> float:
    """Return what a row of the paper's table charges to a step of the prefill. [s]."""
    cell, gpu = _cell(row), profile(str(row["gpu_id"]))
    name = "harness_host_us"
    host_us = gpu.fitted[name].value if name in gpu.fitted else paper_code.CONSTANTS[name][0]
    return prefill_leak_s(cell, gpu, "auto", host_us)


def _harness_group(
    rows: pd.DataFrame, kind: RowKind, cells: Mapping[Any, paper_code.Cell]
) -> Group:
    """Return the paper's cells of one GPU as a group."""

    def seconds(gpu: HardwareProfile, choice: ConstantsChoice) -> "np.ndarray":
        return np.array([cell_time(cell, gpu, choice).total_s for cell in cells.values()])

    def parts(gpu: HardwareProfile, choice: ConstantsChoice) -> dict[str, "np.ndarray"]:
        times = [cell_time(cell, gpu, choice).parts_s for cell in cells.values()]
        return {name: np.array([time[name] for time in times]) for name in times[0]}

    return Group(
        kind=kind,
        gpu_id=str(rows["gpu_id"].iloc[0]),
        index=rows.index,
        operations=(),
        execution="eager",
        variants=(),
        seconds=seconds,
        parts=parts,
    )


def _cell(row: "pd.Series[Any]") -> paper_code.Cell:
    """Read a row of the paper's table."""
    cell = paper_code.Cell(
        model=_model(str(row["model"])),
        context_tokens=int(row["context_tokens"]),
        samples=int(row["samples"]),
        bifurcated=row["attention"] == "bifurcated",
        kernel=str(row["kernel"]),
        rebuilt=row["kv_layout"] == "rebuilt",
        compiled=row["execution"] == "compiled",
        expand_kv=int(row["expand_kv"]) == 1,
        weights_dtype=str(row["weights_dtype"]),
        ranks=int(row["tensor_parallel"]),
    )
    _check_group(cell.model, profile(str(row["gpu_id"])), question(cell).tensor_parallel)
    return cell


def _check_group(model: ModelShape, gpu: HardwareProfile, ranks: int) -> None:
    """Refuse a group of GPUs over which a model cannot be split.

    Raises
    ------
    WorkloadError
        If heads do not divide, or the GPU has no link.
    """
    check_split(model, ranks)
    if ranks > 1 and gpu.link_bytes_per_s(ranks) is None:
        raise WorkloadError(f"{gpu.id} has no link in its profile for {ranks} GPUs")


@cache
def _model(name: str) -> ModelShape:
    """Load a model once."""
    return load_model(name)


@dataclass(frozen=True, slots=True)
class _Batch:
    """An end-to-end row as a question of ours."""

    model: ModelShape
    work: Workload
    output_tokens: int


def _batch(row: "pd.Series[Any]") -> _Batch:
    """Read an end-to-end row, if its batch fits the card."""
    model = _model(str(row["model"]))
    work = workload_for(
        model,
        prompts=int(row["batch"]),
        samples=1,
        context_tokens=int(row["input_len"]),
        decoded_tokens=int(row["output_len"]),
        weight_dtype=str(row["weight_dtype"]),
        kv_dtype="bf16",
        tensor_parallel=int(row["tp"]),
    )
    gpu = profile(str(row["gpu_id"]))
    _check_group(model, gpu, work.tensor_parallel)
    needed = float(weights_bytes(model, work)) + float(kv_cache_bytes(model, work))
    if needed > gpu.memory_bytes:
        raise ValueError("the batch does not fit the card at once: it was run in parts")
    return _Batch(model, work, int(row["output_len"]))


def _batch_group(rows: pd.DataFrame, kind: RowKind, batches: Mapping[Any, _Batch]) -> Group:
    """Return end-to-end rows of one GPU and engine as a group."""
    library = library_of(str(rows["framework"].iloc[0]))
    variants = (Variant(library),) if library else ()

    steps = np.array([batch.output_tokens for batch in batches.values()], dtype=np.float64)
    known: dict[Any, np.ndarray] = {}

    def seconds(gpu: HardwareProfile, choice: ConstantsChoice) -> "np.ndarray":
        gpu_rates = rates(gpu, choice, variants=variants)
        # A fit of what the engine adds asks for the model's own time again and again.
        used = tuple(
            (name, figure.value)
            for name, figure in gpu.fitted.items()
            if not name.endswith("step_us")
        )
        if (used, choice) not in known:
            known[used, choice] = np.array(
                [_generation(batch, gpu_rates).total_s for batch in batches.values()]
            )
        return known[used, choice] / steps + gpu_rates.step_s

    def ends(gpu: HardwareProfile, choice: ConstantsChoice) -> Ends:
        """Return the GPU's time with its interval, the engine's own as fitted."""
        gpu_rates = rates(gpu, choice, variants=variants)
        found = [_generation_ends_s(batch, gpu_rates) for batch in batches.values()]
        low, high = np.array(found).T / steps + gpu_rates.step_s
        return low, high

    return Group(
        kind=kind,
        gpu_id=str(rows["gpu_id"].iloc[0]),
        index=rows.index,
        operations=(),
        execution="graph",
        variants=variants,
        seconds=seconds,
        ends=ends,
    )


def _generation(batch: _Batch, gpu_rates: Rates) -> GenerationTime:
    """Return the time of a whole batch, prefill included."""
    return generation_time(
        batch.model,
        batch.work,
        gpu_rates,
        output_tokens=batch.output_tokens,
        resident_blocks=resident_blocks(gpu_rates.gpu),
    )


def _generation_ends_s(batch: _Batch, gpu_rates: Rates) -> tuple[float, float]:
    """Return the shortest and the longest that a whole batch may take on the GPU. [s]."""
    work = batch.work
    operations = decode_operations(
        batch.model, work, resident_blocks=resident_blocks(gpu_rates.gpu)
    )
    step = step_time(operations, gpu_rates, work.execution)
    last = uncertainty(operations, step, gpu_rates, work)
    time = _generation(batch, gpu_rates)
    return request_interval(batch.model, work, gpu_rates, time, last)
