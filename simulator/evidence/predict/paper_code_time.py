"""How long a step of the paper's own code takes, from the account of :mod:`harness`."""

from dataclasses import dataclass
from functools import cache

from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.evidence.predict import paper_code
from simulator.evidence.predict.groups import profile
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload, workload_for
from simulator.timing.constants import ConstantsChoice, Key, rates
from simulator.timing.limits import peak_flops_per_s
from simulator.timing.step import step_time
from simulator.units import GIGA, MICROSECOND, NANOSECOND

_STEPS = paper_code.STEPS_RUN / paper_code.NEW_TOKENS


def question(cell: paper_code.Cell) -> Workload:
    """Return the cell's weights and context as a question of ours.

    Raises
    ------
    WorkloadError
        If there is no such question.
    """
    return workload_for(
        cell.model,
        samples=1,
        context_tokens=cell.context_tokens,
        decoded_tokens=1,
        weight_dtype=cell.weights_dtype if cell.weights_dtype in DTYPES else "bf16",
        kv_dtype="bf16",
        tensor_parallel=cell.ranks,
        execution="eager",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTime:
    """What the harness calls a step is made of. [s]."""

    launch_s: float
    memory_s: float
    compute_s: float
    link_s: float
    host_s: float
    prefill_s: float

    @property
    def device_s(self) -> float:
        """Time of the GPU's work."""
        return self.memory_s + self.compute_s + self.launch_s + self.link_s

    @property
    def total_s(self) -> float:
        """Time that the harness reports: fewer steps than it divides by, and some prefill."""
        return max(self.host_s, self.device_s) * _STEPS + self.prefill_s

    @property
    def parts_s(self) -> dict[str, float]:
        """The parts that add up to it; or the host's, where the GPU waits for it."""
        device = {
            "launch": self.launch_s,
            "memory": self.memory_s,
            "compute": self.compute_s,
            "link": self.link_s,
        }
        waits = self.host_s > self.device_s
        shown = {name: _STEPS * value * (not waits) for name, value in device.items()}
        return {**shown, "host": _STEPS * self.host_s * waits, "prefill": self.prefill_s}


def cell_time(cell: paper_code.Cell, gpu: HardwareProfile, choice: ConstantsChoice) -> CellTime:
    """Return the predicted step time of one cell."""
    constant = {
        name: gpu.fitted[name].value if name in gpu.fitted else value
        for name, (value, _, _) in paper_code.CONSTANTS.items()
    }
    bandwidth = gpu.memory_bandwidth_bytes_per_s
    layer = paper_code.account(cell, gpu.l2_bytes)
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
        paper_code.COMPILED_ACTIVATION_PASSES
        if cell.compiled
        else paper_code.EAGER_ACTIVATION_PASSES
    )
    activation_bytes = b * cell.model.hidden_size * paper_code.CACHE_BYTES * activations
    kernels = layers * (
        layer.kernels + (paper_code.COMPILED_KERNELS if cell.compiled else paper_code.EAGER_KERNELS)
    )
    launch_us = constant["harness_graph_kernel_us" if cell.compiled else "harness_kernel_us"]
    weights_s, products_s = read_s / constant["harness_weights_fraction"], product_s * b
    memory_s = (
        layers * (streamed / bandwidth + layer.values_bytes / values_rate)
        + layers * activation_bytes / (constant["harness_pass_fraction"] * bandwidth)
        + b * cell.model.vocab_size * constant["harness_sampling_ns"] * NANOSECOND
    )
    host_us = 0.0 if cell.compiled else constant["harness_host_us"]
    return CellTime(
        launch_s=kernels * launch_us * MICROSECOND,
        memory_s=memory_s + (weights_s if weights_s >= products_s else 0.0),
        compute_s=products_s if products_s > weights_s else 0.0,
        link_s=_link_s(cell, gpu, choice),
        host_s=(kernels + paper_code.EAGER_KERNELS_OUTSIDE_LAYERS) * host_us * MICROSECOND,
        prefill_s=prefill_leak_s(cell, gpu, choice, constant["harness_host_us"]),
    )


@cache
def _weight_traffic(model: ModelShape, work: Workload) -> tuple[float, float]:
    """Return the weight bytes that a step of one sample reads, and its matrix FLOPs."""
    operations = decode_operations(model, work, resident_blocks=1)
    products = [operation for operation in operations if operation.kind == "gemm"]
    return float(total(products).weight_bytes_read), float(total(products).flops)


def _weights_s(cell: paper_code.Cell, gpu: HardwareProfile) -> tuple[float, float]:
    """Return the time to read the weights at the published bandwidth, and to multiply one row."""
    read, flops = _weight_traffic(cell.model, question(cell))
    if cell.weights_dtype == "int8" and not cell.compiled:
        read *= 5  # read, written in 16 bits, and read again
    rate, _ = peak_flops_per_s(gpu, "bf16")
    achieved = rates(gpu).constants[Key("flops_fraction", "gemm")].value
    return read / gpu.memory_bandwidth_bytes_per_s, flops / (rate * achieved)


def _link_s(cell: paper_code.Cell, gpu: HardwareProfile, choice: ConstantsChoice) -> float:
    """Return the time of the all-reduces; its hook reduces the first sample alone."""
    if cell.ranks == 1:
        return 0.0
    gpu_rates = rates(gpu, choice)
    message = cell.model.hidden_size * paper_code.CACHE_BYTES * (1 + cell.samples)
    one = message / gpu_rates.link_bytes_per_s(cell.ranks)
    return cell.model.layers * (2 * gpu_rates.launch_s["collective"] + one)


def prefill_leak_s(
    cell: paper_code.Cell, gpu: HardwareProfile, choice: ConstantsChoice, host_us: float
) -> float:
    """Return the part of prefill that is charged to each step: what the host did not wait for."""
    device_s, launches = _prefill(cell.model, question(cell), gpu, choice)
    return max(0.0, device_s - launches * host_us * MICROSECOND) / paper_code.NEW_TOKENS


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
