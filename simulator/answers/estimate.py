"""One decode step: its time, traffic and memory, and what binds it."""

from dataclasses import dataclass
from functools import cached_property

from simulator.counts.memory import Memory, memory
from simulator.counts.operation import Operation, Totals, total
from simulator.counts.transformer import check_split, decode_operations
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import DTYPE_BYTES, activation_dtype, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload, WorkloadLike, forward_tokens
from simulator.timing.constants import LOW_PRECISION, ConstantsChoice, Key, Rates, rates
from simulator.timing.interval import Uncertainty, uncertainty
from simulator.timing.limits import has_low_precision_products, peak_flops_per_s, resident_blocks
from simulator.timing.roofline import Roof
from simulator.timing.step import StepTime, step_time
from simulator.units import format_gib

# What serving engines allow themselves by default (vLLM --gpu-memory-utilization).
DEFAULT_MEMORY_UTILIZATION = 0.9
# How the note on what does not fit begins.
DOES_NOT_FIT = "Does not fit"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One decode step of a workload on one GPU, or on each GPU of a tensor-parallel group.

    Counts and memory are those of one GPU; tokens per second are the group's.
    """

    model: ModelShape
    gpu: HardwareProfile
    workload: Workload
    operations: tuple[Operation, ...]
    time: StepTime
    memory: Memory
    rates: Rates
    memory_utilization: float
    notes: tuple[str, ...]

    @property
    def step_s(self) -> float:
        """Time of the step. [s]."""
        return float(self.time.total_s)

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """Between which times the step lies, and which errors make it so."""
        return uncertainty(self.operations, self.time, self.rates, self.workload, self.totals)

    @property
    def step_low_s(self) -> float:
        """The shortest the step may be: see :mod:`simulator.timing.interval`. [s]."""
        return float(self.uncertainty.low_s)

    @property
    def step_high_s(self) -> float:
        """The longest the step may be. [s]."""
        return float(self.uncertainty.high_s)

    @property
    def tokens_per_s(self) -> float:
        """Tokens the step moves forward, per second: all samples of all prompts."""
        return float(forward_tokens(self.workload)) / self.step_s

    @property
    def bound(self) -> Roof:
        """What the step's time is bound by."""
        return self.time.bound

    @cached_property
    def totals(self) -> Totals:
        """Sums over the operations."""
        return total(self.operations)


def estimate(
    model: ModelShape,
    gpu: HardwareProfile,
    workload: Workload,
    *,
    constants: ConstantsChoice = "auto",
    memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
) -> Estimate:
    """Estimate one decode step.

    Parameters
    ----------
    model, gpu, workload
        What is decoded, on what, and how.
    constants
        Which constants of the timing model to use; see :func:`simulator.timing.constants.rates`.
    memory_utilization
        Share of the card's memory the process may use, in (0, 1].

    Raises
    ------
    WorkloadError
        If the workload cannot be run in that form.
    """
    check_workload(model, gpu, workload)
    check_utilization(memory_utilization)
    return estimate_with(model, rates(gpu, constants), workload, memory_utilization)


def estimate_with(
    model: ModelShape, gpu_rates: Rates, workload: Workload, memory_utilization: float
) -> Estimate:
    """Estimate one decode step with constants that are already gathered."""
    gpu = gpu_rates.gpu
    resident = resident_blocks(gpu)
    operations = tuple(decode_operations(model, workload, resident_blocks=resident))
    needs = memory(
        model,
        workload,
        capacity_bytes=gpu.memory_bytes * memory_utilization,
        resident_blocks=resident,
    )
    return Estimate(
        model=model,
        gpu=gpu,
        workload=workload,
        operations=operations,
        time=step_time(operations, gpu_rates, workload.execution),
        memory=needs,
        rates=gpu_rates,
        memory_utilization=memory_utilization,
        notes=tuple(_notes(model, gpu_rates, workload, needs)),
    )


def check_utilization(memory_utilization: float) -> None:
    """Refuse a share of the memory that is none.

    Raises
    ------
    WorkloadError
        If it is not in (0, 1].
    """
    if not 0 < memory_utilization <= 1:
        raise WorkloadError(
            f"gpu_memory_utilization = {memory_utilization} is not in (0, 1]; engines use 0.9"
        )


def check_workload(model: ModelShape, gpu: HardwareProfile, work: WorkloadLike) -> None:
    """Refuse what cannot be run in that form, before anything is counted.

    Raises
    ------
    WorkloadError
        For heads that do not divide over the group, a latent cache or a tree under a kernel that
        has no form of it, or a group without a link.
    """
    check_split(model, work.tensor_parallel)
    if model.latent is not None and work.kernel == "sdpa_math":
        raise WorkloadError(
            f"{model.name} caches a latent vector, which kernel 'sdpa_math' cannot read; "
            "use ideal, flash or einsum"
        )
    if len(work.tree) > 1 and work.kernel not in ("ideal", "flash"):
        raise WorkloadError(
            f"kernel {work.kernel!r} has no form for a tree of {len(work.tree)} levels; "
            "use ideal or flash"
        )
    if work.tensor_parallel > 1 and gpu.link_bytes_per_s(work.tensor_parallel) is None:
        raise WorkloadError(f"{gpu.id} has no link in its profile: tensor_parallel must be 1")


def _notes(model: ModelShape, gpu_rates: Rates, work: Workload, needs: Memory) -> list[str]:
    """Say what had to be assumed and what the user should know, a sentence each."""
    notes = [
        constants_note(gpu_rates),
        _length_note(model, work),
        _dtype_note(gpu_rates.gpu, work),
        _narrow_note(gpu_rates, work),
        *_group_notes(model, gpu_rates.gpu, work),
    ]
    if any(group.window is not None for group in model.layer_groups):
        notes.append("Layers with a sliding window read and keep only their window.")
    if len(work.tree) > 1 and work.attention == "bifurcated":
        joined = ", ".join(level.name for level in work.tree if not level.split)
        notes.append(
            f"Levels read together with what is below them: {joined}."
            if joined
            else "Each level of the tree is read once per node; see 'bifurcate tree' for others."
        )
    if work.attention == "standard" and work.kv_layout == "shared" and work.samples > 1:
        notes.append(
            "Reads of the one stored context are repeated for every sample; those that the L2 "
            "cache can hold are timed at its bandwidth."
        )
    if model.latent is not None:
        notes.append(
            "The latent cache (MLA) is read once for all heads of a sample: small, and soon bound "
            "by arithmetic, it has less to share than others."
        )
    if work.query_tokens > 1:
        notes.append(
            f"Tokens per second count {work.accepted_tokens:g} of {work.query_tokens} query tokens "
            "of each sample as accepted; whoever drafts them is not timed."
        )
    notes.append(fits_note(needs))
    return [note for note in notes if note]


def fits_note(needs: Memory) -> str:
    """Say by how much something does not fit; empty where it does."""
    if needs.fits:
        return ""
    return f"{DOES_NOT_FIT}: {format_gib(-float(needs.free_bytes))} short on each GPU."


def _length_note(model: ModelShape, work: Workload) -> str:
    """Warn of more tokens than the model was made for."""
    tokens = work.context_tokens + work.decoded_tokens
    if model.max_context_tokens is None or tokens <= model.max_context_tokens:
        return ""
    limit = model.max_context_tokens
    return f"Warning: {tokens:,} tokens exceed the {limit:,} that {model.name} was made for."


def _dtype_note(gpu: HardwareProfile, work: Workload) -> str:
    """Say which matrix rate stands in for one the card does not have."""
    for dtype in (work.weight_dtype, activation_dtype(work.weight_dtype)):
        _, used = peak_flops_per_s(gpu, dtype)
        if dtype not in (used, "int4"):
            path = "no" if gpu.peak_flops_per_s(dtype) is None else "no faster"
            return f"{gpu.name} has {path} {dtype} matrix path: computed at its {used} rate."
    return ""


def _narrow_note(gpu_rates: Rates, work: Workload) -> str:
    """Say where 8-bit kernels are predicted by less than rows of theirs on this card."""
    if gpu_rates.choice == "peak":
        return ""
    parts = []
    if is_low_precision(DTYPE_BYTES[work.weight_dtype]):
        if not has_low_precision_products(gpu_rates.gpu, work.weight_dtype):
            parts.append(f"products of {work.weight_dtype} weights are timed as 16-bit ones")
        elif work.weight_dtype != LOW_PRECISION:
            parts.append(
                f"products of {work.weight_dtype} weights are timed as {LOW_PRECISION} ones"
            )
    if is_low_precision(DTYPE_BYTES[work.kv_dtype]) and work.kv_dtype != LOW_PRECISION:
        parts.append(f"{work.kv_dtype} caches are timed as {LOW_PRECISION} ones")
    if parts:
        return f"No rows are of these formats: {', '.join(parts)}."
    used = {
        gpu_rates.low_precision.constants[key].origin
        for key, dtype in (
            (Key("launch_us", "gemm"), work.weight_dtype),
            (Key("launch_us", "attention"), work.kv_dtype),
        )
        if is_low_precision(DTYPE_BYTES[dtype])
    }
    if gpu_rates.origin == "fitted" and used == {"carried"}:
        return f"Constants of {LOW_PRECISION} kernels are carried over from other GPUs."
    return ""


def _group_notes(model: ModelShape, gpu: HardwareProfile, work: Workload) -> list[str]:
    """Say what a tensor-parallel group changes in the figures."""
    if work.tensor_parallel == 1:
        return []
    notes = ["FLOPs, bytes and memory are those of one GPU of the group."]
    if model.latent is not None or model.kv_heads < work.tensor_parallel:
        notes.append("Every GPU holds a copy of KV heads that cannot be split further.")
    if gpu.peak.link_gb_per_s_per_direction is not None and work.tensor_parallel > gpu.link_gpus:
        notes.append(
            f"{gpu.link} joins {gpu.link_gpus} GPUs: a group of {work.tensor_parallel} is timed "
            "at PCIe's rate."
        )
    return notes


def constants_note(gpu_rates: Rates) -> str:
    """Say where the constants of the timing model come from."""
    name = gpu_rates.gpu.name
    if gpu_rates.origin == "peak":
        return "Published peaks and no overheads: a bound, not a prediction."
    if gpu_rates.origin == "fitted":
        return f"Constants fitted to rows measured on {name}."
    measured = any(item.origin == "measured" for item in gpu_rates.constants.values())
    if measured and gpu_rates.choice == "auto":
        return (
            f"Large-transfer and matrix rates measured on {name}, other constants carried over "
            "from other GPUs: not calibrated."
        )
    return f"Constants carried over from other GPUs: {name} has not been calibrated."
