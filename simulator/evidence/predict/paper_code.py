"""Predict the paper's tables: its code's decode step, operation by operation.

An account of gpt-fast-parallel-sampling at 2e10003 (generate.py, model.py) in bytes per rank, with
one rate per kind of operation, and the peculiarities of its harness:

* Attention runs over the allocated length, context + 128 tokens rounded up to 8; only the flash
  kernels stop at the current position.
* ``expand_kv`` repeats the KV heads to all query heads on every step; ``rebuilt`` concatenates the
  whole cache on every step. With as many KV heads as query heads a repeat is a clone of contiguous
  memory: a plain copy in eager code, which compiled code leaves out.
* The step is (run - prefill) / 128 for 127 steps, and prefill is timed without synchronising: the
  part of it that the GPU has not finished when the host returns is charged to the steps.
* A compiled run holds two sets of caches: the graph keeps those of the first run.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from simulator.counts.memory import weights_bytes
from simulator.counts.operation import total
from simulator.counts.pieces import all_reduce
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.evidence import tables
from simulator.evidence.predict.groups import Group, model, of_program, profile
from simulator.evidence.predict.steps import check_ranks
from simulator.inputs.dtypes import DTYPE_BYTES, DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ConstantsChoice, Execution, Setup, ask
from simulator.inputs.workload import Workload
from simulator.timing.constants import Key, Variant, rates
from simulator.timing.limits import peak_flops_per_s
from simulator.timing.step import step_time
from simulator.units import GIGA, MICROSECOND, NANOSECOND

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# Kernels and executions of the paper's tables.
PAPER_KERNELS = ("einsum", "flash2", "sdpa-flash", "sdpa-math")
PAPER_EXECUTIONS = ("eager", "compiled")
NEW_TOKENS = 128
STEPS_RUN = 127
CACHE_BYTES = 2  # caches and activations are bf16
# torch.cat of an expanded input uses a slow strided kernel up to this many output elements.
STRIDED_CAT_ELEMENTS = 2**31
# Kernels of a layer outside attention: two norms of 8, rotary of 9 for queries and for keys, four
# products and the cache write, MLP and residuals (eager); what Inductor leaves of them (compiled).
EAGER_KERNELS, COMPILED_KERNELS = 45, 9
EAGER_KERNELS_OUTSIDE_LAYERS = 20
# Passes over the activations of a layer.
EAGER_ACTIVATION_PASSES, COMPILED_ACTIVATION_PASSES = 60, 25
# Repeated keys and values that an SDPA call holds besides the cache: inferred from the cells
# that ran out of memory (64 samples of 8K fit rebuilt, 128 do not; FlashAttention-2 fits 256).
SDPA_HELD_COPIES, FLASH_HELD_COPIES = 4, 1.25
# Share of the driver's reported memory that context and fragmentation leave.
USABLE_MEMORY = 0.97
# A context within this share of L2 is read from memory once for all samples' plain copies.
L2_SHARE = 0.6

# Value, least and most of each constant.
CONSTANTS: dict[str, tuple[float, float, float]] = tables("predict/paper_code.toml")
# Traffic that streams through memory, at its constant's share of the bandwidth.
STREAMED = (
    *("flash", "repeat", "strided_cat", "cat", "pass", "product"),
    *("fused_read", "fused_copy", "fused_pass"),
)
# The harness runs fewer steps than it divides by.
_STEPS = STEPS_RUN / NEW_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperCell:
    """One cell of the paper's table: its sizes and how it was run."""

    model: ModelShape
    context_tokens: int
    samples: int
    bifurcated: bool
    kernel: str
    rebuilt: bool
    compiled: bool
    expand_kv: bool
    weights_dtype: str
    ranks: int


def is_papers(row: "pd.Series[Any]") -> bool:
    """Return whether a whole step is of the paper's code, by kernel and execution."""
    return row["kernel"] in PAPER_KERNELS and row["execution"] in PAPER_EXECUTIONS


@dataclass(frozen=True, kw_only=True)
class PaperGroup(Group):
    """One cell, timed as the harness times it."""

    cell: PaperCell
    execution: Execution = "eager"

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted time. [s]."""
        return self.column(sum(cell_parts_s(self.cell, gpu, choice).values()))

    def parts(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> dict[str, "np.ndarray"]:
        """Return the cell's time by bound. [s]."""
        times = cell_parts_s(self.cell, gpu, choice)
        return {name: self.column(time) for name, time in times.items()}


def paper_group(row: "pd.Series[Any]") -> PaperGroup:
    """Return a row of the paper's table as a group."""
    cell = paper_cell(row)
    oom = _memory_bytes(cell) > profile(str(row["gpu_id"])).memory_bytes * USABLE_MEMORY
    return PaperGroup(kind="decode_step", **of_program(row), cell=cell, oom=(oom,))


def paper_cell(row: "pd.Series[Any]") -> PaperCell:
    """Read a row of the paper's table."""
    cell = PaperCell(
        model=model(str(row["model"])),
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
    check_ranks(cell.model, str(row["gpu_id"]), _one_sample(cell)[0].tensor_parallel)
    return cell


def _one_sample(cell: PaperCell) -> tuple[Setup, Workload]:
    """Return the cell's setup, and its workload for one sample.

    Raises
    ------
    WorkloadError
        If they are impossible.
    """
    return ask(
        cell.model,
        samples=1,
        context_tokens=cell.context_tokens,
        decoded_tokens=1,
        weight_dtype=cell.weights_dtype if cell.weights_dtype in DTYPES else "bf16",
        kv_dtype="bf16",
        tensor_parallel=cell.ranks,
        execution="eager",
    )


# One layer's bytes by kind of operation (``STREAMED``), its ``kernels`` launched, and the bytes of
# the product of weights with the context's ``values``: it has few thread blocks, each of which
# reads the whole context.
Account = defaultdict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Recurring sizes per layer [bytes], in the symbols of the paper's section 4.3."""

    group: int  # p = h / g
    context: float  # K and V of the context, once
    decoded: float  # K and V of one sample's decode buffer
    cache: float  # K and V of one sample, allocated length
    logits: float
    context_logits: float
    position: float  # K and V of one sample up to the current position


def _sizes(cell: PaperCell) -> _Sizes:
    """Return the recurring sizes of a cell."""
    model = cell.model
    heads = model.heads // cell.ranks
    kv_heads = max(1, model.kv_heads // cell.ranks)
    token = 2 * kv_heads * model.head_dim * CACHE_BYTES
    allocated = -(-(cell.context_tokens + NEW_TOKENS) // 8) * 8
    row = heads * cell.samples * CACHE_BYTES
    return _Sizes(
        group=heads // kv_heads,
        context=token * cell.context_tokens,
        decoded=token * NEW_TOKENS,
        cache=token * allocated,
        logits=row * (cell.context_tokens + NEW_TOKENS),
        context_logits=row * cell.context_tokens,
        position=token * (cell.context_tokens + NEW_TOKENS / 2),
    )


def account(cell: PaperCell, l2_bytes: float) -> Account:
    """Return the account of one layer's attention."""
    size = _sizes(cell)
    if cell.bifurcated:
        layer = _bifurcated_compiled(cell, size) if cell.compiled else _bifurcated(cell, size)
    elif cell.compiled:
        layer = _standard_compiled(cell, size)
    else:
        layer = _standard(cell, size, l2_bytes)
    if DTYPE_BYTES.get(cell.weights_dtype, 2) < CACHE_BYTES and not cell.compiled:
        layer["kernels"] += 8  # each of four matrices is widened and its result scaled
    if cell.ranks > 1:
        layer["kernels"] += 4
    return layer


def _standard(cell: PaperCell, size: _Sizes, l2_bytes: float) -> Account:
    """Eager: rebuild, repeat, then flash or the math path."""
    layer = Account(float)
    b, p = cell.samples, size.group
    if cell.rebuilt:
        # One sample's expanded context is contiguous; larger outputs take plain copies.
        strided = b > 1 and b * size.cache / 2 / CACHE_BYTES < STRIDED_CAT_ELEMENTS
        # The strided kernel is bound by its own requests, whether L2 serves them or not.
        cached = size.context / 2 <= L2_SHARE * l2_bytes and not strided
        reads = size.context if cached else b * size.context
        moved = reads + b * size.decoded + b * size.cache
        layer["strided_cat" if strided else "cat"] += moved
        layer["kernels"] += 2
    widened = p if cell.expand_kv else 1
    if cell.expand_kv:
        layer[_repeat(p)] += b * size.cache * (1 + p)
        layer["kernels"] += 2
    if cell.kernel != "sdpa-math":
        layer["flash"] += b * size.position * widened
        layer["kernels"] += 1
        return layer
    # Keys times the root of the scale, read and written.
    layer["pass"] += b * size.cache * p
    layer["product"] += b * size.cache * p + 2 * size.logits
    layer["pass"] += 4 * size.logits  # mask and softmax
    layer["kernels"] += 9
    return layer


def _standard_compiled(cell: PaperCell, size: _Sizes) -> Account:
    """Compiled math path: a one-row product is a fused multiply and sum over the model's own KV."""
    layer = Account(float, kernels=4)
    if cell.rebuilt:
        layer["fused_copy"] += 2 * cell.samples * size.cache * size.group
        return layer
    _fused_product(layer, cell.samples * size.cache, size.group)
    layer["fused_pass"] += 2 * size.logits
    return layer


def _bifurcated(cell: PaperCell, size: _Sizes) -> Account:
    """Eager: repeats, four products, and five passes over the concatenated logits."""
    b = cell.samples
    widened = size.group if cell.expand_kv else 1
    layer = Account(float, kernels=12)
    if cell.expand_kv:
        layer[_repeat(size.group)] += (size.context + b * size.decoded) * (1 + size.group)
        layer["kernels"] += 4
    layer["product"] += widened * (size.context / 2 + b * size.decoded) + 2 * size.logits
    layer["values"] += widened * size.context / 2
    # Logits of grouped heads have five dimensions, which the strided kernel does not support.
    layer["strided_cat" if cell.expand_kv else "cat"] += 2 * size.logits
    layer["pass"] += 6 * size.logits  # scale, bias, softmax: each reads and writes
    return layer


def _bifurcated_compiled(cell: PaperCell, size: _Sizes) -> Account:
    """Compiled: fused passes; with one row per head, fused products too."""
    b, p = cell.samples, size.group
    layer = Account(float, kernels=8)
    layer["fused_pass"] += 2.5 * size.logits
    if cell.expand_kv and b == 1:
        _fused_product(layer, size.context + size.decoded, p)
        layer["product"] += 2 * size.context_logits
        return layer
    widened = p if cell.expand_kv else 1
    layer["product"] += widened * size.context / 2
    layer["values"] += widened * size.context / 2
    if cell.expand_kv:
        layer["fused_copy"] += size.context * (1 + p) * (p > 1)
        _fused_product(layer, b * size.decoded, p)
        layer["product"] += 2 * size.context_logits
    else:
        layer["product"] += b * size.decoded + 2 * size.logits
    return layer


def _repeat(group: int) -> str:
    """Return the kind of a repeat: its strided kernel, or a plain copy."""
    return "repeat" if group > 1 else "pass"


def _fused_product(layer: Account, kv_bytes: float, group: int) -> None:
    """Add a product fused into a multiplication and a sum.

    It reads keys or values from memory, and again for each further query head of a group.
    """
    layer["pass"] += kv_bytes
    layer["fused_read"] += kv_bytes * (group - 1)


def _values_blocks(cell: PaperCell) -> float:
    """Return the thread blocks of <w,V>: tiles of 64 columns for each multiplied head."""
    heads = cell.model.heads if cell.expand_kv else cell.model.kv_heads
    return max(1, heads // cell.ranks) * max(1, cell.model.head_dim // 64)


def _memory_bytes(cell: PaperCell) -> float:
    """Return the memory a cell needs. [bytes]."""
    size = _sizes(cell)
    weights = float(weights_bytes(cell.model, _one_sample(cell)[0]))
    b, layers = cell.samples, cell.model.layers
    shared = cell.bifurcated or cell.rebuilt
    caches = layers * (size.context + b * size.decoded if shared else b * size.cache)
    if cell.compiled:
        caches *= 2
    held = 0.0
    if not cell.bifurcated and (cell.expand_kv or cell.rebuilt):
        repeated = b * size.cache * (size.group if cell.expand_kv else 1)
        copies = FLASH_HELD_COPIES if cell.kernel == "flash2" else SDPA_HELD_COPIES
        # Compiled code over separate caches never writes repeats.
        held = 0.0 if cell.compiled and not cell.rebuilt else copies * repeated
    elif cell.bifurcated:
        held = 4 * size.logits
        if cell.expand_kv:
            held += size.group * (size.context + b * size.decoded)
    return weights + caches + held


def prefill_in_step_s(row: "pd.Series[Any]") -> float:
    """Return the prefill time that a row of the paper's table adds to each step. [s]."""
    cell, gpu = paper_cell(row), profile(str(row["gpu_id"]))
    return _prefill_leak_s(cell, gpu, "auto", _constants(gpu)["harness_host_us"])


def _constants(gpu: HardwareProfile) -> dict[str, float]:
    """Return the harness' constants: those fitted on the GPU, or the ones above."""
    return {
        name: gpu.fitted[name].value if name in gpu.fitted else value
        for name, (value, _, _) in CONSTANTS.items()
    }


def cell_parts_s(
    cell: PaperCell, gpu: HardwareProfile, choice: ConstantsChoice
) -> dict[str, float]:
    """Return the predicted parts of one cell's step, by what binds them, as the harness times it.

    It divides by too many steps, and adds prefill. If the GPU waits for its host, only the host's
    part counts.

    Parameters
    ----------
    cell
        One cell of the paper's table.
    gpu
        Its GPU, whose fitted constants of the harness are used if it has them.
    choice
        Where the constants of the link and of the prefill come from.
    """
    constant = _constants(gpu)
    bandwidth = gpu.memory_bandwidth_bytes_per_s
    layer = account(cell, gpu.l2_bytes)
    layers, b = cell.model.layers, cell.samples
    streamed = sum(layer[name] / constant[f"harness_{name}_fraction"] for name in STREAMED)
    values_rate = min(
        constant["harness_product_fraction"] * bandwidth,
        _values_blocks(cell) * constant["harness_block_gb_per_s"] * GIGA,
    )
    read_s, product_s = _weights_s(cell, gpu)
    passes, around = (
        (COMPILED_ACTIVATION_PASSES, COMPILED_KERNELS)
        if cell.compiled
        else (EAGER_ACTIVATION_PASSES, EAGER_KERNELS)
    )
    activation_bytes = b * cell.model.hidden_size * CACHE_BYTES * passes
    kernels = layers * (layer["kernels"] + around)
    launch_us = constant["harness_graph_kernel_us" if cell.compiled else "harness_kernel_us"]
    weights_s, products_s = read_s / constant["harness_weights_fraction"], product_s * b
    memory_s = (
        layers * (streamed / bandwidth + layer["values"] / values_rate)
        + layers * activation_bytes / (constant["harness_pass_fraction"] * bandwidth)
        + b * cell.model.vocab_size * constant["harness_sampling_ns"] * NANOSECOND
    )
    device = {
        "launch": kernels * launch_us * MICROSECOND,
        "memory": memory_s + (weights_s if weights_s >= products_s else 0.0),
        "compute": products_s if products_s > weights_s else 0.0,
        "link": _link_s(cell, gpu, choice),
    }
    host_us = constant["harness_host_us"]
    calls = 0 if cell.compiled else kernels + EAGER_KERNELS_OUTSIDE_LAYERS
    host_s = calls * host_us * MICROSECOND
    waits = host_s > sum(device.values())
    parts = {name: _STEPS * part * (not waits) for name, part in device.items()}
    prefill_s = _prefill_leak_s(cell, gpu, choice, host_us)
    return {**parts, "host": _STEPS * host_s * waits, "prefill": prefill_s}


@cache
def _weight_traffic(shape: ModelShape, setup: Setup, work: Workload) -> tuple[float, float]:
    """Return the weight bytes that a step of one sample reads, and its matrix FLOPs."""
    operations = decode_operations(shape, setup, work, resident_blocks=1)
    products = total([operation for operation in operations if operation.kind == "gemm"])
    return float(products.weight_bytes_read), float(products.flops)


def _weights_s(cell: PaperCell, gpu: HardwareProfile) -> tuple[float, float]:
    """Return the time to read the weights at the published bandwidth, and to multiply one row."""
    read, flops = _weight_traffic(cell.model, *_one_sample(cell))
    if cell.weights_dtype == "int8" and not cell.compiled:
        read *= 5  # read, written in 16 bits, and read again
    rate, _ = peak_flops_per_s(gpu, "bf16")
    achieved = rates(gpu).constants[Key("flops_fraction", "gemm")].value
    return read / gpu.memory_bandwidth_bytes_per_s, flops / (rate * achieved)


def _link_s(cell: PaperCell, gpu: HardwareProfile, choice: ConstantsChoice) -> float:
    """Return the time of NCCL's all-reduces; the hook of attention reduces only one sample."""
    nccl = rates(gpu, choice, variants=(Variant("nccl"),))
    row = cell.model.hidden_size * CACHE_BYTES
    reduces = [
        reduce
        for rows in (1, cell.samples)
        for reduce in all_reduce("reduce", message_bytes=rows * row, ranks=cell.ranks)
    ]
    return cell.model.layers * float(step_time(reduces, nccl, "graph").total_s)


def _prefill_leak_s(
    cell: PaperCell, gpu: HardwareProfile, choice: ConstantsChoice, host_us: float
) -> float:
    """Return the prefill time added to each step, because the host did not wait for it. [s]."""
    device_s, launches = _prefill(cell.model, cell.context_tokens, cell.ranks, gpu.id, choice)
    return max(0.0, device_s - launches * host_us * MICROSECOND) / NEW_TOKENS


@cache
def _prefill(
    shape: ModelShape, tokens: int, ranks: int, gpu_id: str, choice: ConstantsChoice
) -> tuple[float, float]:
    """Return the GPU time of the predicted prefill, in 16 bits, and its launches."""
    setup = Setup(kv_layout="copies", tensor_parallel=ranks, execution="eager")
    work = Workload(samples=1, context_tokens=tokens, decoded_tokens=1)
    operations = prefill_operations(shape, setup, work)
    time = step_time(operations, rates(profile(gpu_id), choice), "eager")
    return float(time.device_s), float(total(operations).launches)
