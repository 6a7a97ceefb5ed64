"""Constants of the timing model: which ones a GPU has, and where each comes from.

For a kind of operation a constant is looked up as ``<kind>_<name>`` and then as ``<name>`` in the
profile's fitted constants; then as ``<kind>_<name>`` among those carried over from other GPUs; then
as ``<name>`` in its measured rates and among those carried over. Where the caller names variants, a
library or a kernel, ``<variant>_<kind>_<name>`` comes before. Of the carried ones
(:mod:`simulator.timing.carried`), those of its architecture, or of its nearest kin, come before
everybody's. The first one found is used, and its source is kept.

Products and caches of 8 bits have constants of their own, ``fp8_<kind>_<name>``. Those of another
GPU come before 16-bit ones of the same: they predict its 8-bit kernels better.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from simulator.counts.operation import KINDS, Kind, Operation
from simulator.errors import ProfileError, unknown
from simulator.inputs.dtypes import Dtype
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import ConstantsChoice
from simulator.timing.carried import ATTENTION_KERNELS, Constant, carried, in_architecture
from simulator.timing.limits import has_low_precision_products, peak_flops_per_s
from simulator.units import GIGA, MICROSECOND

# Name: what it multiplies or adds, and its unit.
CONSTANTS = {
    "bandwidth_fraction": "achieved share of the published memory bandwidth",
    "flops_fraction": "achieved share of the published matrix rate",
    "block_gb_per_s": "bandwidth of one thread block of attention [GB/s]",
    "l2_gb_per_s": "L2 bandwidth of one SM [GB/s]",
    "l2_fraction": "share of L2 that a working set can take before it spills",
    "launch_us": "fixed time of each launch in a CUDA graph [us]",
    "block_us": "time of each further wave of thread blocks over all SMs [us]",
    "sequence_us": "time of each sequence of an attention call [us]",
    "split_us": "time of each partial result that a combine adds up [us]",
    "tile_gb_per_s": "rate at which one SM loads the tiles of a product [GB/s]",
    "split_k_us": "time of splitting a product's inner dimension over thread blocks [us]",
    "overlap": "how memory and compute times add: 1 in full, 2 and 4 as roots of powers, 16 not",
    "eager_launch_us": "fixed time added to each launch outside a graph [us]",
    "host_us_per_launch": "host time of each launch outside a graph [us]",
    "link_fraction": "achieved share of the published link bandwidth",
    "step_us": "time of each step in which the GPU waits for a serving engine [us]",
}
# These may be prefixed with a kind of operation.
BY_KIND = ("bandwidth_fraction", "flops_fraction", "launch_us", "block_us", "overlap")
# Any of them may hold for one library's kernels, for 8-bit caches and products, or for both, as
# ``vllm_attention_launch_us`` or ``sglang_fp8_attention_bandwidth_fraction``; or for an attention
# kernel that several libraries have.
LIBRARIES = ("vllm", "sglang", "trtllm", "nccl")
LOW_PRECISION = "fp8"
LOW_PRECISION_VARIANTS = (LOW_PRECISION, *(f"{library}_{LOW_PRECISION}" for library in LIBRARIES))
_LOW_PRECISION_PREFIXES = tuple(f"{variant}_" for variant in LOW_PRECISION_VARIANTS)
VARIANTS = (*LIBRARIES, *ATTENTION_KERNELS, *LOW_PRECISION_VARIANTS)
# Over PCIe ``link_fraction`` is the share that a pair of GPUs reaches. More of them share the host:
# four L40S reach about a quarter of what a pair does, eight a tenth (aiconfigurator rows); of
# powers in tenths the best on shapes held out. No rows are of more, whom no host holds.
PCIE_PAIR, PCIE_HOST, PCIE_POWER = 2, 8, 1.8
# Fitted constants of a published program's own code, which only evidence reads.
HARNESS_PREFIX = "harness_"
# A GPU that does what is published, at once.
_PEAK_VALUES = {
    "bandwidth_fraction": 1.0,
    "flops_fraction": 1.0,
    "block_gb_per_s": float("inf"),
    "l2_gb_per_s": float("inf"),
    "l2_fraction": 1.0,
    "launch_us": 0.0,
    "block_us": 0.0,
    "sequence_us": 0.0,
    "split_us": 0.0,
    "tile_gb_per_s": float("inf"),
    "split_k_us": 0.0,
    "overlap": float("inf"),
    "eager_launch_us": 0.0,
    "host_us_per_launch": 0.0,
    "link_fraction": 1.0,
    "step_us": 0.0,
}


@dataclass(frozen=True)
class Rates:
    """A GPU's achieved rates and fixed times, ready for the timing model.

    Attributes
    ----------
    bandwidth_bytes_per_s, launch_s, block_s, overlap
        By kind of operation; of a launch, of a further wave of thread blocks, and how times under
        different roofs add.
    sequence_s, split_s
        For each thing that is walked through one by one.
    tile_bytes_per_s, split_k_s
        Of matrix products: what one SM loads, and the time of splitting the inner dimension.
    step_s
        What a serving engine adds to every step; no part of the model's own step.
    l2_bandwidth_bytes_per_s, l2_bytes
        Bandwidth of the L2 cache, and the working set it can hold.
    block_bytes_per_s
        Bandwidth of one thread block.
    eager_launch_s, host_s_per_launch
        Added to each launch outside a CUDA graph: on the device, and on the host.
    constants
        Every constant by name, with its source.
    variants
        Whose constants come before the general ones.
    """

    gpu: HardwareProfile
    bandwidth_bytes_per_s: Mapping[Kind, float]
    launch_s: Mapping[Kind, float]
    block_s: Mapping[Kind, float]
    overlap: Mapping[Kind, float]
    sequence_s: float
    split_s: float
    tile_bytes_per_s: float
    split_k_s: float
    l2_bandwidth_bytes_per_s: float
    l2_bytes: float
    block_bytes_per_s: float
    step_s: float
    eager_launch_s: float
    host_s_per_launch: float
    origin: Literal["fitted", "carried", "peak"]
    constants: Mapping[str, Constant]
    choice: ConstantsChoice
    variants: tuple[str, ...] = ()

    @cached_property
    def low_precision(self) -> "Rates":
        """Those of products and caches in 8 bits."""
        own = [name for name in self.variants if name in LOW_PRECISION_VARIANTS]
        rest = [name for name in self.variants if name not in LOW_PRECISION_VARIANTS]
        return rates(self.gpu, self.choice, variants=dict.fromkeys((*own, LOW_PRECISION, *rest)))

    def of(self, operation: Operation) -> "Rates":
        """Return those that an operation is timed with, which depend on its formats."""
        if LOW_PRECISION not in self.variants and (
            operation.low_precision_cache
            or (operation.kind == "gemm" and has_low_precision_products(self.gpu, operation.dtype))
        ):
            return self.low_precision
        return self

    def flops_per_s(self, kind: Kind, dtype: Dtype) -> float:
        """Return the achieved matrix rate for a kind of operation. [FLOP/s]."""
        peak, _ = peak_flops_per_s(self.gpu, dtype)
        return peak * self.constants[f"{kind}_flops_fraction"].value

    def link_bytes_per_s(self, gpus: int) -> float:
        """Return the achieved bandwidth between the GPUs of a group, per direction. [bytes/s].

        Raises
        ------
        ProfileError
            If the profile has no link at all.
        """
        peak = self.gpu.link_bytes_per_s(gpus)
        if peak is None:
            raise ProfileError(f"{self.gpu.id} has no link in its profile")
        share = self.constants["link_fraction"].value
        if self.choice != "peak" and self.gpu.over_pcie(gpus):
            share *= (PCIE_PAIR / min(gpus, PCIE_HOST)) ** PCIE_POWER
        return peak * share


def rates(
    gpu: HardwareProfile, choice: ConstantsChoice = "auto", *, variants: Iterable[str] = ()
) -> Rates:
    """Gather the constants of a GPU.

    Parameters
    ----------
    choice
        ``auto`` takes the best known, ``carried`` ignores what was fitted or measured on this
        card, ``peak`` uses the published peaks and no fixed times: a bound, not a prediction.
    variants
        Of ``VARIANTS``, those whose own constants come before the general ones, in that order.

    Raises
    ------
    ProfileError
        If the profile has a fitted constant that the timing model does not know.
    """
    _check_names(gpu)
    variants = tuple(variants)
    constants: dict[str, Constant] = {}

    def value(name: str, kind: Kind | None = None) -> float:
        found = _find(gpu, name, kind, choice, variants)
        constants[f"{kind}_{name}" if kind else name] = found
        return found.value

    peak_bandwidth = gpu.memory_bandwidth_bytes_per_s
    bandwidth = {kind: peak_bandwidth * value("bandwidth_fraction", kind) for kind in KINDS}
    launch = {kind: value("launch_us", kind) * MICROSECOND for kind in KINDS}
    block = {kind: value("block_us", kind) * MICROSECOND for kind in KINDS}
    overlap = {kind: value("overlap", kind) for kind in KINDS}
    for kind in KINDS:
        value("flops_fraction", kind)
    value("link_fraction")
    constants["tile_gb_per_s"] = tile = _tile_rate(gpu, choice, variants)
    return Rates(
        gpu=gpu,
        bandwidth_bytes_per_s=bandwidth,
        launch_s=launch,
        block_s=block,
        overlap=overlap,
        sequence_s=value("sequence_us") * MICROSECOND,
        split_s=value("split_us") * MICROSECOND,
        tile_bytes_per_s=tile.value * GIGA,
        split_k_s=value("split_k_us") * MICROSECOND,
        l2_bandwidth_bytes_per_s=value("l2_gb_per_s") * GIGA * gpu.sm_count,
        l2_bytes=gpu.l2_bytes * value("l2_fraction"),
        block_bytes_per_s=value("block_gb_per_s") * GIGA,
        step_s=value("step_us") * MICROSECOND,
        eager_launch_s=value("eager_launch_us") * MICROSECOND,
        host_s_per_launch=value("host_us_per_launch") * MICROSECOND,
        origin=_origin(constants, choice),
        constants=constants,
        choice=choice,
        variants=variants,
    )


def _find(
    gpu: HardwareProfile,
    name: str,
    kind: Kind | None,
    choice: ConstantsChoice,
    variants: Sequence[str],
) -> Constant:
    """Return the first constant found on the way from the card's own to everybody's."""
    if choice == "peak":
        return Constant(_PEAK_VALUES[name], "published peak, no overheads", "peak")
    names = [f"{kind}_{name}", name] if kind else [name]
    own = [f"{variant}_{item}" for variant in variants for item in names[:1]]
    low_precision = [item for item in own if is_of_low_precision(item)]
    wide = [item for item in own if item not in low_precision]
    if found := _fitted(gpu, low_precision, choice):
        return found
    if not (choice == "auto" and _has_low_precision(gpu, names[0])) and (
        found := carried(gpu, low_precision)
    ):
        return found
    # A constant of this kind of operation says more than a general one measured on the card.
    general = names[0] if kind else ""
    if found := _fitted(gpu, [*wide, *names], choice) or carried(gpu, wide, general):
        return found
    if choice == "auto" and (measured := _measured(gpu, name)):
        return measured
    everybodys = carried(gpu, (), name)
    if everybodys is None:
        raise ProfileError(f"no value for the constant {name}")
    return everybodys


def _tile_rate(gpu: HardwareProfile, choice: ConstantsChoice, variants: Sequence[str]) -> Constant:
    """Return the rate at which an SM loads tiles.

    Another architecture's 8-bit kernels are other kernels: what held those of the measured one back
    is not carried so far that fewer weights a second are loaded than in 16 bits.
    """
    name = "tile_gb_per_s"
    found = _find(gpu, name, None, choice, variants)
    low_precision = f"{LOW_PRECISION}_{name}"
    if (
        found.origin != "carried"
        or LOW_PRECISION not in variants
        or in_architecture(gpu, low_precision)
    ):
        return found
    wide = _find(
        gpu, name, None, choice, [item for item in variants if item not in LOW_PRECISION_VARIANTS]
    )
    if found.value >= wide.value / 2:
        return found
    return replace(
        wide, value=wide.value / 2, source=f"as many weights as in 16 bits: {wide.source}"
    )


def _fitted(gpu: HardwareProfile, names: Iterable[str], choice: ConstantsChoice) -> Constant | None:
    """Return the first of some constants that was fitted to the card, if it counts."""
    if choice != "auto":
        return None
    for name in names:
        if found := gpu.fitted.get(name):
            return Constant(found.value, found.source, "fitted", name)
    return None


def is_of_low_precision(name: str) -> bool:
    """Return whether a constant is of 8-bit products or caches.

    >>> is_of_low_precision("vllm_fp8_split_us"), is_of_low_precision("vllm_split_us")
    (True, False)
    """
    return name.startswith(_LOW_PRECISION_PREFIXES)


def _has_low_precision(gpu: HardwareProfile, name: str) -> bool:
    """Return whether 8-bit rows of the card told constants of the same part, products or the rest.

    What they could not tell is then the card's own of 16 bits, with which the others were fitted.
    """
    return any(
        _of_products(item) == _of_products(name) for item in gpu.fitted if is_of_low_precision(item)
    )


def _of_products(name: str) -> bool:
    """Return whether a constant is one of matrix products."""
    return any(part in name for part in ("gemm_", "tile_gb_per_s", "split_k_us"))


def _measured(gpu: HardwareProfile, name: str) -> Constant | None:
    """Return a constant that follows from a rate measured on the card."""
    peak, measured = gpu.peak, gpu.measured
    if name == "bandwidth_fraction" and (figure := measured.memory_bandwidth_gb_per_s):
        # A reading above the published peak says that the peak is low, not that a GPU beats it.
        share = min(1.0, figure.value / peak.memory_bandwidth_gb_per_s.value)
        return Constant(share, figure.source, "measured")
    if name == "flops_fraction" and (figure := measured.bf16_tflops):
        half = peak.bf16_tflops or peak.fp16_tflops
        return Constant(min(1.0, figure.value / half.value), figure.source, "measured")
    if name == "l2_gb_per_s" and (figure := measured.l2_bandwidth_gb_per_s):
        return Constant(figure.value / gpu.sm_count, figure.source, "measured")
    return None


def _origin(
    constants: Mapping[str, Constant], choice: ConstantsChoice
) -> Literal["fitted", "carried", "peak"]:
    """Return what the constants are as a whole: fitted if any was fitted to this card."""
    if choice == "peak":
        return "peak"
    fitted = any(constant.origin == "fitted" for constant in constants.values())
    return "fitted" if fitted else "carried"


def _check_names(gpu: HardwareProfile) -> None:
    """Refuse fitted constants that nothing would read."""
    for name in gpu.fitted:
        if name.startswith(HARNESS_PREFIX):
            continue
        variant = next((item for item in reversed(VARIANTS) if name.startswith(f"{item}_")), "")
        if name.removeprefix(f"{variant}_") not in _KNOWN:
            raise ProfileError(f"{gpu.id}: fitted: {unknown('constant', name, _KNOWN)}")


_KNOWN = {*CONSTANTS, *(f"{kind}_{name}" for kind in KINDS for name in BY_KIND)}
