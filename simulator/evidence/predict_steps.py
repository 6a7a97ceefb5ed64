"""Predict rows of whole steps: the paper's own code, and end-to-end batches of serving engines."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.memory import kv_cache_bytes, weights_bytes
from simulator.counts.operation import total
from simulator.counts.step import decode_operations, prefill_operations
from simulator.errors import SimulatorError
from simulator.evidence import harness
from simulator.evidence.groups import Group, block_slots, library_of, profile
from simulator.evidence.measurements import RowKind
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Workload
from simulator.timing.constants import ConstantsChoice, Rates, peak_flops_per_s, rates
from simulator.timing.generation import generation_time
from simulator.timing.step import step_time
from simulator.units import GIGA, MICROSECOND, NANOSECOND


def prepare(rows: pd.DataFrame, kind: RowKind) -> tuple[list[Group], dict[Any, str]]:
    """Turn rows of whole steps into groups of one row each kind of setting."""
    groups: list[Group] = []
    skipped: dict[Any, str] = {}
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


def out_of_memory(row: "pd.Series[Any]") -> bool:
    """Return whether a row of the paper's table is predicted not to fit its GPU.

    Raises
    ------
    SimulatorError
        If the row is not one that can be predicted.
    """
    cell = _cell(row)
    gpu = profile(str(row["gpu_id"]))
    capacity = (gpu.reported_memory_bytes or gpu.memory_bytes) * harness.USABLE_MEMORY
    weights = weights_bytes(cell.model, _work(cell))
    return harness.memory_bytes(cell, float(weights)) > capacity


def prefill_in_step_s(row: "pd.Series[Any]") -> float:
    """Return what a row of the paper's table charges to a step of the prefill. [s]."""
    cell, gpu = _cell(row), profile(str(row["gpu_id"]))
    name = "harness_host_us"
    host_us = gpu.fitted[name].value if name in gpu.fitted else harness.CONSTANTS[name][0]
    return _leak_s(cell, gpu, "auto", host_us)


def _harness_group(rows: pd.DataFrame, kind: RowKind, cells: Mapping[Any, harness.Cell]) -> Group:
    """Return the paper's cells of one GPU as a group."""

    def seconds(gpu: HardwareProfile, choice: ConstantsChoice) -> "np.ndarray":
        return np.array([_cell_s(cell, gpu, choice) for cell in cells.values()])

    return Group(
        kind=kind,
        gpu_id=str(rows["gpu_id"].iloc[0]),
        index=rows.index,
        operations=(),
        execution="eager",
        variants=(),
        seconds=seconds,
    )


def _cell(row: "pd.Series[Any]") -> harness.Cell:
    """Read a row of the paper's table."""
    kernel = str(row["kernel"])
    if kernel not in {"einsum", "flash2", "sdpa-flash", "sdpa-math"}:
        raise ValueError(f"kernel {kernel!r} is not one of the paper's code")
    if row["execution"] not in {"eager", "compiled"}:
        raise ValueError(f"execution {row['execution']!r} is not eager or compiled")
    return harness.Cell(
        model=_model(str(row["model"])),
        context_tokens=int(row["context_tokens"]),
        samples=int(row["samples"]),
        bifurcated=row["attention"] == "bifurcated",
        kernel=kernel,
        rebuilt=row["kv_layout"] == "rebuilt",
        compiled=row["execution"] == "compiled",
        expand_kv=int(row["expand_kv"]) == 1,
        weights_dtype=str(row["weights_dtype"]),
        ranks=int(row["tensor_parallel"]),
    )


@cache
def _model(name: str) -> ModelShape:
    """Load a model once."""
    return load_model(name)


def _work(cell: harness.Cell) -> Workload:
    """Return the cell's weights and context as a question of ours."""
    dtype: Any = cell.weights_dtype if cell.weights_dtype in DTYPES else "bf16"
    return Workload(
        samples=1,
        context_tokens=cell.context_tokens,
        decoded_tokens=1,
        weight_dtype=dtype,
        tensor_parallel=cell.ranks,
        execution="eager",
    )


def _cell_s(cell: harness.Cell, gpu: HardwareProfile, choice: ConstantsChoice) -> float:
    """Return the predicted step time of one cell. [s]."""
    constant = {
        name: gpu.fitted[name].value if name in gpu.fitted else value
        for name, (value, _, _) in harness.CONSTANTS.items()
    }
    bandwidth = gpu.memory_bandwidth_bytes_per_s
    layer = harness.account(cell, gpu.l2_bytes)
    layers, b = cell.model.layers, cell.samples
    streamed = sum(
        getattr(layer, field) / constant[f"harness_{name}_fraction"]
        for field, name in (
            ("flash", "flash"),
            ("repeat", "repeat"),
            ("strided_cat", "strided_cat"),
            ("cat", "cat"),
            ("passes", "pass"),
            ("product", "product"),
            ("fused_read", "fused_read"),
            ("fused_copy", "fused_copy"),
            ("fused_pass", "fused_pass"),
        )
    )
    values_rate = min(
        constant["harness_product_fraction"] * bandwidth,
        layer.values_blocks * constant["harness_block_gb_per_s"] * GIGA,
    )
    read_s, product_s = _weights_s(cell, gpu)
    activations = (
        harness.COMPILED_ACTIVATION_PASSES if cell.compiled else harness.EAGER_ACTIVATION_PASSES
    )
    activation_bytes = b * cell.model.hidden_size * harness.CACHE_BYTES * activations
    kernels = layers * (
        layer.kernels + (harness.COMPILED_KERNELS if cell.compiled else harness.EAGER_KERNELS)
    )
    launch_us = constant["harness_graph_kernel_us" if cell.compiled else "harness_kernel_us"]
    device_s = (
        max(read_s / constant["harness_weights_fraction"], product_s * b)
        + layers * (streamed / bandwidth + layer.values_bytes / values_rate)
        + layers * activation_bytes / (constant["harness_pass_fraction"] * bandwidth)
        + b * cell.model.vocab_size * constant["harness_sampling_ns"] * NANOSECOND
        + kernels * launch_us * MICROSECOND
        + _link_s(cell, gpu, choice)
    )
    host_us = 0.0 if cell.compiled else constant["harness_host_us"]
    host_s = (kernels + harness.EAGER_KERNELS_OUTSIDE_LAYERS) * host_us * MICROSECOND
    leak_s = _leak_s(cell, gpu, choice, constant["harness_host_us"])
    steps = harness.STEPS_RUN / harness.NEW_TOKENS
    return float(max(host_s, device_s) * steps + leak_s)


@cache
def _weight_traffic(model: ModelShape, work: Workload) -> tuple[float, float]:
    """Return the weight bytes that a step of one sample reads, and its matrix FLOPs."""
    operations = decode_operations(model, work, block_slots=1)
    products = [operation for operation in operations if operation.kind == "gemm"]
    return float(total(products).weight_bytes_read), float(total(products).flops)


def _weights_s(cell: harness.Cell, gpu: HardwareProfile) -> tuple[float, float]:
    """Return the time to read the weights at the published bandwidth, and to multiply one row."""
    read, flops = _weight_traffic(cell.model, _work(cell))
    if cell.weights_dtype == "int8" and not cell.compiled:
        read *= 5  # read, written in 16 bits, and read again
    rate, _ = peak_flops_per_s(gpu, "bf16")
    achieved = rates(gpu).constants["gemm_flops_fraction"].value
    return read / gpu.memory_bandwidth_bytes_per_s, flops / (rate * achieved)


def _link_s(cell: harness.Cell, gpu: HardwareProfile, choice: ConstantsChoice) -> float:
    """Return the time of the all-reduces; its hook reduces the first sample alone."""
    if cell.ranks == 1:
        return 0.0
    gpu_rates = rates(gpu, choice)
    message = cell.model.hidden_size * harness.CACHE_BYTES * (1 + cell.samples)
    one = message / gpu_rates.link_bytes_per_s(cell.ranks)
    return cell.model.layers * (2 * gpu_rates.launch_s["collective"] + one)


def _leak_s(
    cell: harness.Cell, gpu: HardwareProfile, choice: ConstantsChoice, host_us: float
) -> float:
    """Return the part of prefill that is charged to each step: what the host did not wait for."""
    device_s, launches = _prefill(cell.model, _work(cell), gpu, choice)
    return max(0.0, device_s - launches * host_us * MICROSECOND) / harness.NEW_TOKENS


_PREFILLS: dict[tuple[str, int, int, str, str], tuple[float, float]] = {}


def _prefill(
    model: ModelShape, work: Workload, gpu: HardwareProfile, choice: ConstantsChoice
) -> tuple[float, float]:
    """Return the GPU time of the predicted prefill, and its launches."""
    key = (model.name, work.context_tokens, work.tensor_parallel, gpu.id, choice)
    if key not in _PREFILLS:
        operations = prefill_operations(model, work)
        time = step_time(operations, rates(profile(gpu.id), choice), "eager")
        _PREFILLS[key] = float(time.device_s), float(total(operations).launches)
    return _PREFILLS[key]


@dataclass(frozen=True, slots=True)
class _Batch:
    """An end-to-end row as a question of ours."""

    model: ModelShape
    work: Workload
    output_tokens: int


def _batch(row: "pd.Series[Any]") -> _Batch:
    """Read an end-to-end row, if its batch fits the card."""
    model = _model(str(row["model"]))
    work = Workload(
        prompts=int(row["batch"]),
        samples=1,
        context_tokens=int(row["input_len"]),
        decoded_tokens=int(row["output_len"]),
        weight_dtype=str(row["weight_dtype"]),
        tensor_parallel=int(row["tp"]),
    )
    gpu = profile(str(row["gpu_id"]))
    needed = float(weights_bytes(model, work)) + float(kv_cache_bytes(model, work))
    if needed > gpu.memory_bytes:
        raise ValueError("the batch does not fit the card at once: it was run in parts")
    return _Batch(model, work, int(row["output_len"]))


def batch_question(row: "pd.Series[Any]") -> tuple[ModelShape, Workload, int]:
    """Return an end-to-end row as a question, with the tokens that each sequence generates.

    Raises
    ------
    ValueError
        If the batch does not fit the card at once.
    """
    batch = _batch(row)
    return batch.model, batch.work, batch.output_tokens


def _batch_group(rows: pd.DataFrame, kind: RowKind, batches: Mapping[Any, _Batch]) -> Group:
    """Return end-to-end rows of one GPU and engine as a group."""
    library = library_of(str(rows["framework"].iloc[0]))
    variants = (library,) if library else ()

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
                [_generation_s(batch, gpu_rates) for batch in batches.values()]
            )
        return known[used, choice] / steps + gpu_rates.step_s

    return Group(
        kind=kind,
        gpu_id=str(rows["gpu_id"].iloc[0]),
        index=rows.index,
        operations=(),
        execution="graph",
        variants=variants,
        seconds=seconds,
    )


def _generation_s(batch: _Batch, gpu_rates: Rates) -> float:
    """Return the time of a whole batch, prefill included. [s]."""
    return generation_time(
        batch.model,
        batch.work,
        gpu_rates,
        output_tokens=batch.output_tokens,
        block_slots=block_slots(gpu_rates.gpu),
    ).total_s
