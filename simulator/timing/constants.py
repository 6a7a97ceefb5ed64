"""Constants of the timing model: the meaning of each, its value for a GPU, and its source.

A constant is looked up by a :class:`Key`: library, precision, kind of operation and name. A caller
may name variants (libraries or kernels, and formats of 8 and 4 bits), whose own constants come
before general ones. The first one found is used, and its source is kept:

1. fitted to the GPU: of a variant of 8 or 4 bits;
2. transferred from other GPUs: of such a variant. They predict kernels of 8 bits better than the
   GPU's own 16-bit constants do;
3. fitted to the GPU: of another variant, of the kind of operation, of all kinds;
4. transferred: of another variant, of the kind of operation;
5. all of these for the kind that stands in for it (``KIN`` in ``counts/operation.py``);
6. measured on the GPU;
7. transferred: of all kinds.

A transferred matrix rate above the largest measured on the GPU gives way to that one.

``carried.toml`` holds published constants of whole GPUs, ``carried_kernels.json`` and, for named
libraries and kernels, ``carried_libraries.json`` constants fitted to kernels (``tools/accuracy.py
--carry`` writes it). An entry with ``mhz``, the clock of its GPU, scales with the clock: a kernel's
fixed times consist of SM cycles and of memory latency, which is no shorter on a faster GPU; the L2
cache runs at the SMs' clock. One with ``sm_tflops`` grows with a power of the matrix rate of an SM:
between architectures libraries and makers match the loads of tiles of 16 and 8 bits to it (16-bit
tiles of A100, L40S, H100, H200 and B200 load 5.2 times apart per clock, 2.5 per FLOP). One with
``tflops_per_w`` depends on power; without it, the share of the matrix rate that products reach
falls with the boost clock. Shares of the bandwidth follow what the GPU's memory streams, where a
reading says.
"""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import chain
from math import inf
from typing import Any, Literal, NamedTuple, cast

from simulator.counts.operation import KIN, KINDS, STATE_KINDS, Kind, Operation, Route
from simulator.errors import ProfileError, unknown
from simulator.inputs.dtypes import DTYPES, PRECISIONS, Dtype, Precision, with_stand_ins
from simulator.inputs.hardware import NODE_GPUS, FittedFigure, HardwareProfile
from simulator.inputs.setup import ConstantsChoice, Engine
from simulator.resources import PACKAGE
from simulator.timing.limits import (
    BLOCKS_PER_SM,
    blocks_per_sm,
    has_low_precision_products,
    peak_flops_per_s,
)
from simulator.units import GIGA, MICROSECOND

Origin = Literal["fitted", "measured", "carried", "peak"]

LIBRARIES = ("vllm", "sglang", "trtllm", "nccl")
# Attention kernels of several libraries: their fitted constants say more about the kernel than
# about the GPU.
ATTENTION_KERNELS = ("fa2", "fa3", "flashinfer", "trtllmgen", "triton")
# Kernels of grouped products: in Triton, which each library tunes; shared by libraries; for weights
# of 4 bits with activations of 8; and TensorRT-LLM's for few tokens.
EXPERT_KERNELS = (
    *("vllm_triton", "sglang_triton", "marlin", "deepgemm", "flashinfer_cutlass"),
    *("flashinfer_trtllm", "vllm_w4a8", "trtllm_w4a8", "min_latency"),
)
# The constants of caches of 8 bits and fewer.
LOW_PRECISION: Precision = "fp8"
# Kinds of operation that multiply by weights, whose format selects their constants.
PRODUCTS: tuple[Kind, ...] = ("gemm", "experts")
# The kernels of sparse attention.
SPARSE_KERNELS: tuple[Kind, ...] = (
    *("index_scores", "prefill_scores", "index_selection", "sparse_attention", "sparse_prefill"),
)
# Kinds whose kernels differ more between architectures than between libraries.
OF_ARCHITECTURE: tuple[Kind, ...] = ("latent_attention", "latent_prefill")
# Products, and the kernels that quantise their activations.
BY_FORMAT: tuple[Kind, ...] = (*PRODUCTS, "quantise")
# Kinds of kernel that only stream their bytes.
STREAMING: tuple[Kind, ...] = ("elementwise", "norm", "activation", "rotary", "quantise", "gather")
# What an engine adds to the steps of the GPU: its own, on its own card, and never carried over.
SERVED = ("served_step_us", "served_sequence_us")
OF_ENGINES = ("step_us", *SERVED)
# Fitted constants of a published program's code, which only evidence reads.
HARNESS_PREFIX = "harness_"
# Times fall with this power of the clock. A dependent kernel in a CUDA graph takes 1.44 us on an
# A100 at 1410 MHz and 1.05 us on an L40 at 2490 MHz (RRZE gpu-small-kernels): a power of 0.57.
LATENCY_POWER = 0.6
# Over PCIe, ``link_fraction`` is the share that a pair of GPUs reaches. Larger groups share the
# host: four L40S reach about a quarter of a pair's share, eight a tenth (aiconfigurator rows). Of
# powers in tenths this is the best on held-out shapes. No host holds more GPUs than a node.
PCIE_PAIR, PCIE_POWER = 2, 1.8
# On one design, the rate of products grows with this power of the published power: a clock takes
# power as its cube (its voltage grows with it). Of shares measured on pairs of cards (MAMF table):
# A100 SXM to PCIe 0.87 to 0.81 (predicted 0.79), H100 to GH200 0.80 to 0.84 (0.87), B200 to B300
# 0.78 to 0.79 (0.80). L40S's 0.66 becomes 0.93 on an RTX 4090, which reaches 161 of 165 TFLOP/s:
# no card is known to reach a larger share than that.
WATT_POWER, LARGEST_SHARE = 1 / 3, 0.975
# Between designs, the share of products falls with this power of the boost clock, at which the
# published rate is told: the power limit lets products hold less of a higher clock. From A100
# (1,410 MHz, 0.88) over H100 and B200 (0.84, 0.81) to L40S (2,520 MHz, 0.68); of powers in tenths
# the best on cards left out.
BOOST_POWER = 0.3
# Loads grow with this power of an SM's matrix rate: of powers in tenths the best on products and
# experts of cards left out.
SM_POWER = 0.8
# What kernels that only read or copy reach of the published bandwidth: 0.946 to 0.971 on V100, A40,
# A100 40GB, H100 PCIe and GH200, but 0.88 on A100 80GB and 0.76 on MI300X (RRZE gpu-benches). So
# products and attention on A100 80GB reach about 0.92 of their shares elsewhere.
STREAM_SHARE = 0.96
_LITTLE_TO_DO = "rows with little to do: batch 1, few tokens, or m = 1 with small n and k"
# The most rates of GPUs and variants to cache.
_MOST_KEPT = 512


class Variant(NamedTuple):
    """A variant of the constants: a library or kernel, and a precision.

    Attributes
    ----------
    library
        A library or an attention kernel; empty for any.
    precision
        The format of products (one of ``PRECISIONS``), or ``fp8`` for caches of 8 bits and fewer;
        empty for 16 bits.
    """

    library: str = ""
    precision: Precision = ""

    def __str__(self) -> str:
        """Return the variant as the prefix of its constants' names: ``vllm_fp8``."""
        return "_".join(filter(None, self))


# Any library in 16 bits, and in the other formats.
GENERAL = Variant()
VARIANTS = (
    *(Variant(library) for library in (*LIBRARIES, *ATTENTION_KERNELS)),
    *(Variant(library, each) for each in PRECISIONS for library in ("", *LIBRARIES)),
    *(Variant(kernel, LOW_PRECISION) for kernel in ATTENTION_KERNELS),
    *(Variant(kernel, each) for each in ("", *PRECISIONS) for kernel in EXPERT_KERNELS),
)


def variants_of(names: Iterable[str], precision: Precision = "") -> tuple[Variant, ...]:
    """Return the variants of libraries and kernels in a format, the most specific first.

    >>> [str(each) for each in variants_of(["vllm"], "nvfp4")]
    ['vllm_nvfp4', 'nvfp4', 'vllm_fp8', 'fp8', 'vllm']
    """
    named = [name for name in names if name]
    own = [Variant(name, each) for each in with_stand_ins(precision) for name in (*named, "")]
    return (*own, *map(Variant, named))


class Key(NamedTuple):
    """The key of a constant.

    Attributes
    ----------
    name
        One of ``CONSTANTS``.
    kind
        The kind of operation; None for all kinds.
    precision, library
        The variant.
    """

    name: str
    kind: Kind | None = None
    precision: Precision = ""
    library: str = ""

    def of(self, variant: Variant) -> "Key":
        """Return this constant's key for a variant."""
        return Key(self.name, self.kind, variant.precision, variant.library)

    def __str__(self) -> str:
        """Return the name in profiles and tables: ``vllm_fp8_attention_launch_us``."""
        parts = (self.library, self.precision, self.kind, self.name)
        return "_".join(part for part in parts if part)


class Definition(NamedTuple):
    """The definition of a constant.

    Attributes
    ----------
    meaning, unit
        What it multiplies or adds, and its unit.
    at_peak
        Its value on an ideal GPU, which reaches its published peaks without overheads.
    by_kind
        Whether each kind of operation has its own value.
    kinds
        Kinds that have a value of their own though others share one.
    clock_power
        The power of the clock with which it scales.
    needs
        Counts of an operation, at least one of which must be nonzero for the constant to affect the
        operation's time; None if it does not affect the model's own step.
    eager_only
        Whether it matters only outside CUDA graphs.
    fit
        By kind of operation, the plausible range of a fitted value: least and most. A fit starts
        from the GPU's value; if that is zero, from an optional third number, or from 1.
    rows
        The measured rows that can determine it.
    """

    meaning: str
    unit: str = ""
    at_peak: float = 1.0
    by_kind: bool = False
    kinds: tuple[Kind, ...] = ()
    clock_power: float = 0.0
    needs: tuple[str, ...] | None = ()
    eager_only: bool = False
    fit: Mapping[Kind | None, tuple[float, ...]] = {}
    rows: str = "other shapes"

    @property
    def description(self) -> str:
        """The meaning with the unit."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


# With the clock, fixed times fall and rates rise; shares of published figures stay.
_time = partial(Definition, unit="us", at_peak=0.0, clock_power=-LATENCY_POWER)
_rate = partial(Definition, unit="GB/s", at_peak=inf, clock_power=1)
_LATENT: tuple[Kind, ...] = ("latent_attention", "latent_prefill")
_WITH_LATENT: tuple[Kind | None, ...] = (None, "latent_attention")

# As many fields to a line as fit, so that a constant is seen at a glance.
# fmt: off
CONSTANTS: dict[str, Definition] = {
    "bandwidth_fraction": Definition(
        "achieved share of the published memory bandwidth", by_kind=True,
        fit={
            **dict.fromkeys(("attention", "gemm"), (0.3, 1)), "experts": (0.1, 1),
            **dict.fromkeys(("prefill_attention", *STREAMING, "recurrence"), (0.1, 1)),
            # Public rows are of additions inside a model, whose input may be in L2: no copy of
            # memory exceeds this share (A40, RRZE gpu-benches).
            "elementwise": (0.1, 0.95),
            **dict.fromkeys(_LATENT, (0.02, 1)), **dict.fromkeys(SPARSE_KERNELS, (0.1, 1)),
        },
        rows="rows whose bytes are several times the L2 cache"),
    "launch_us": _time(
        "fixed time of each launch in a CUDA graph", by_kind=True,
        fit={
            "attention": (0.5, 40), "combine": (0.02, 20), "copy": (0.3, 12), "gemm": (0.3, 15),
            "experts": (0.3, 60), "prefill_attention": (0.5, 60),
            **dict.fromkeys(_LATENT, (0.5, 60)), **dict.fromkeys(STREAMING, (0.3, 20)),
            "collective": (0.5, 60),
            **dict.fromkeys((*STATE_KINDS, *SPARSE_KERNELS), (0.3, 60)),
        },
        rows=_LITTLE_TO_DO),
    "block_us": _time(
        "time of each further wave of thread blocks over all SMs", by_kind=True,
        needs=("thread_blocks", "groups"),
        fit={
            **dict.fromkeys(("attention", "prefill_attention", *_LATENT), (0.01, 30)),
            "experts": (0.01, 30), "convolution": (0.001, 30, 0.1), "quantise": (1e-3, 5, 0.2),
            **dict.fromkeys(SPARSE_KERNELS, (1e-3, 30, 1.0)),
        },
        rows="calls with many more thread blocks than SMs: a large batch of short sequences"),
    "serial_us": _time(
        "time of each step that a thread block takes after another", by_kind=True,
        needs=("serial_steps",),
        fit=dict.fromkeys((*STATE_KINDS, *SPARSE_KERNELS), (0.01, 20, 0.5)),
        rows="linear and sparse attention of few sequences with many tokens"),
    "overlap": Definition(
        "how memory and compute times add: 1 in full, 2 and 4 as roots of powers, 16 not",
        at_peak=inf, by_kind=True, needs=("flops", "effective_blocks")),
    "flops_fraction": Definition(
        "achieved share of the published matrix rate", by_kind=True, needs=("flops",),
        fit={
            "gemm": (0.1, 1), "experts": (0.02, 1),
            **dict.fromkeys(("prefill_attention", *_LATENT), (0.05, 1)),
            **dict.fromkeys(SPARSE_KERNELS, (0.02, 1)),
        },
        rows="rows with many FLOPs per byte: m of 1024 and more, or long prefill"),
    "link_fraction": Definition(
        "achieved share of the published link bandwidth", needs=("link_bytes",),
        fit={None: (0.02, 1)}, rows="collectives of 16 MB and more"),
    "switch_fraction": Definition(
        "achieved share of the link bandwidth where the switch adds up", needs=("link_bytes",),
        fit={None: (0.02, 1)}, rows="all-reduces of 64 MB and more of eight GPUs"),
    "hop_us": _time(
        "time of each further GPU that a collective passes, each time around",
        needs=("link_bytes",), fit={None: (0.005, 20)},
        rows="collectives of little data and of 2, 4 and 8 GPUs"),
    "network_hop_us": _time(
        "time of each further node that a collective passes, each time around",
        clock_power=0.0, needs=("link_bytes",)),
    "exchange_us": _time(
        "fixed time of an all-reduce that sends parts instead of whole messages",
        needs=("link_bytes",), fit={None: (0.01, 60)}, rows="all-reduces of 64 KB to 4 MB"),
    "chunk_us": _time(
        "time of each chunk in the pipeline of a collective", needs=("link_bytes",),
        fit={None: (1e-3, 100)}, rows="collectives of 1 MB to 64 MB"),
    "tile_gb_per_s": _rate(
        "rate at which one SM loads the tiles of a product", needs=("m",),
        fit={None: (5, 1000)}, rows="products of 64 to 256 rows and many columns"),
    "tile_start_k": Definition(
        "length of the inner dimension that takes as long as a tile's start and end",
        at_peak=0.0, needs=("m",), fit={None: (1, 4000, 200)},
        rows="products of many rows with a short inner dimension"),
    "sequence_us": _time(
        "time of each sequence of an attention call", kinds=("latent_attention",),
        needs=("sequences",), fit=dict.fromkeys(_WITH_LATENT, (1e-5, 0.1)),
        rows="decode attention with a batch of 512 and more"),
    "group_us": _time(
        "time of each expert that the GPU holds, visited or not, in a grouped product",
        needs=("held",), fit={None: (1e-4, 2, 0.02)}, rows="few tokens over many experts"),
    "visit_us": _time(
        "time of each choice of an expert by a token, beside its bytes and FLOPs",
        needs=("held",), fit={None: (1e-5, 0.1, 0.002)}, rows="many tokens over narrow experts"),
    "group_start_k": Definition(
        "length of the inner dimension that takes as long as the start and end of an expert's tile",
        at_peak=0.0, needs=("held",), fit={None: (16, 8192, 512)},
        rows="experts of narrow parts: split over many GPUs"),
    "split_us": _time(
        "time of each partial result that a combine adds up", needs=("splits",),
        fit={None: (1e-4, 1)}, rows="decode attention of one long sequence with few KV heads"),
    "exp_g_per_s": _rate(
        "exponentials of softmax that one SM computes", unit="G/s", needs=("head_width",),
        fit={None: (2, 200)}, rows="long prefill with narrow heads (64)"),
    "split_k_us": _time(
        "time of splitting a product's inner dimension over thread blocks", needs=("m",),
        fit={None: (0.05, 100)}, rows="products with a long inner dimension and few columns"),
    "l2_gb_per_s": _rate(
        "L2 bandwidth of one SM", kinds=("latent_attention",),
        needs=("reused_bytes", "scratch_bytes"), fit=dict.fromkeys(_WITH_LATENT, (4, 200)),
        rows="replayed calls whose bytes fit L2"),
    "l2_stream_gb_per_s": _rate(
        "bandwidth at which one SM streams from L2, which no attention kernel exceeds",
        needs=("together_bytes",)),
    "sm_gb_per_s": _rate(
        "rate at which one SM processes the bytes of a kernel, also from L2", by_kind=True,
        fit=dict.fromkeys(STATE_KINDS, (2, 200, 30)),
        rows="kernels that read faster from no cache: convolutions, chunks of linear attention"),
    "l2_fraction": Definition(
        "share of L2 that a working set can take before it spills", kinds=("latent_attention",),
        needs=("reused_bytes", "scratch_bytes"), fit=dict.fromkeys(_WITH_LATENT, (0.3, 1)),
        rows="replayed calls whose bytes are about the size of L2"),
    "keeping_up": Definition(
        "share of the reads of a context stored once that follow a wave's first through L2",
        needs=("together_bytes",), fit={None: (0.02, 1)},
        rows="flash over expanded keys (bifurcate measure: standard_flash_expanded)"),
    "block_gb_per_s": _rate(
        "bandwidth of one thread block of attention", clock_power=LATENCY_POWER,
        kinds=("latent_attention",), needs=("effective_blocks",),
        fit=dict.fromkeys(_WITH_LATENT, (3, 400)),
        rows="decode attention with fewer sequences x KV heads than SMs, and long ones"),
    "step_us": _time(
        "time of each step in which the GPU waits for a serving engine", needs=None,
        fit={None: (1, 50_000, 1000)}, rows="end-to-end batches of one sequence"),
    "served_step_us": _time(
        "time that a serving engine under load adds to each step", needs=None,
        fit={None: (10, 50_000, 5000)}, rows="runs of one configuration with few users"),
    "served_sequence_us": _time(
        "time that a serving engine under load adds to each step for each of its sequences",
        needs=None, fit={None: (1, 5000, 300)},
        rows="runs of one configuration with many users"),
    "module_us": _time(
        "time that a library's timed code takes beyond the kernels counted here", needs=None,
        fit={None: (0.1, 300, 10)}, rows="whole attention modules, or products, of few tokens"),
    "sparse_module_us": _time(
        "time that a module of sparse attention takes beyond the kernels counted here",
        needs=None, fit={None: (0.1, 500, 50)},
        rows="whole modules of sparse attention of few tokens"),
    "eager_launch_us": _time(
        "fixed time added to each launch outside a graph", eager_only=True,
        fit={None: (0.02, 20)}, rows=_LITTLE_TO_DO),
    "host_us_per_launch": _time(
        "host time of each launch outside a graph", clock_power=0.0, eager_only=True,
        fit={None: (0.5, 60)}, rows="rows launched from the host, with little for the GPU to do"),
}
# fmt: on
# Every constant that may affect an operation's time.
KEYS = tuple(
    Key(name, kind)
    for name, definition in CONSTANTS.items()
    for kind in (KINDS if definition.by_kind else (None, *definition.kinds))
)
_TILE_RATE = Key("tile_gb_per_s")
# A constant that stands in for another: decode attention multiplies like prefill attention, whose
# rows show the matrix rate.
_STAND_IN = {Key("flops_fraction", "attention"): Key("flops_fraction", "prefill_attention")}


# The constants of any library in 16 bits, and the variants, by their texts in profiles' names.
_PLAIN_KEYS = {str(key): key for key in (*map(Key, CONSTANTS), *KEYS)}
_VARIANT_TEXTS = {str(variant): variant for variant in VARIANTS}


def key_named(name: str) -> Key:
    """Return the key of a constant from its name in profiles and tables.

    A table of all names would take longer to make than a command has for its answer.

    Raises
    ------
    KeyError
        If there is no such constant.

    Examples
    --------
    >>> key_named("vllm_fp8_launch_us")
    Key(name='launch_us', kind=None, precision='fp8', library='vllm')
    """
    if key := _PLAIN_KEYS.get(name):
        return key
    parts = name.split("_")
    for count in range(1, len(parts)):
        variant = _VARIANT_TEXTS.get("_".join(parts[:count]))
        key = _PLAIN_KEYS.get("_".join(parts[count:])) if variant else None
        if variant and key and (of_experts(key) or variant.library not in EXPERT_KERNELS):
            return key.of(variant)
    raise KeyError(name)


def of_experts(key: Key) -> bool:
    """Return whether a constant is one of experts' grouped products."""
    return key.kind == "experts" or key.name in ("group_us", "visit_us", "group_start_k")


def fitted_constants(gpu: HardwareProfile) -> Mapping[Key, FittedFigure]:
    """Return a GPU's fitted constants, without those of published programs.

    Raises
    ------
    ProfileError
        If the timing model does not know one.
    """
    fitted = {}
    for name, figure in gpu.fitted.items():
        if name.startswith(HARNESS_PREFIX):
            continue
        try:
            fitted[key_named(name)] = figure
        except KeyError:
            problem = unknown("constant", name, _PLAIN_KEYS)
            raise ProfileError(f"{gpu.id}: fitted: {problem}") from None
    return fitted


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant in use: its value, its source, and the kind of source.

    ``key`` is the key under which it was found; None if it was measured or is a published peak.
    """

    value: float
    source: str
    origin: Origin
    key: Key | None = None


class Entry(NamedTuple):
    """A constant of another GPU, and the conditions of its measurement.

    Attributes
    ----------
    mhz
        The clock; 0 if it does not scale with the clock.
    tflops_per_w
        Published 16-bit matrix rate per watt, for shares that depend on power; else 0. [TFLOP/s/W]
    sm_tflops
        Published 16-bit matrix rate of one SM, for rates that grow with it and times that fall;
        else 0. [TFLOP/s]
    blocks_per_sm
        Resident blocks of flash kernels per SM, which shared its bandwidth.
    """

    value: float
    source: str
    mhz: float = 0.0
    tflops_per_w: float = 0.0
    sm_tflops: float = 0.0
    blocks_per_sm: int = BLOCKS_PER_SM

    def on(self, gpu: HardwareProfile, key: Key) -> float:
        """Return the constant's value on another GPU."""
        value = self.value * clock_factor(key, self.mhz, gpu)
        if self.sm_tflops:
            value *= sm_factor(key, self.sm_tflops, gpu)
        if key.name == "block_gb_per_s":
            value *= self.blocks_per_sm / blocks_per_sm(gpu.architecture)
        if self.tflops_per_w:
            value = powered_share(value, self.tflops_per_w, gpu)
        if is_product_share(key):
            value = min(value, LARGEST_SHARE)
        if key.name == "bandwidth_fraction":
            value = min(value * stream_factor(gpu), 1.0)
        return value


_Table = Mapping[Key, Entry]


class Tables(NamedTuple):
    """Constants of other GPUs: of all, by architecture, and the relatives of architectures."""

    default: _Table
    architectures: Mapping[str, _Table]
    kin: Mapping[str, str]


@cache
def carried_entry(
    architecture: str, own: tuple[Key, ...], general: Key | None
) -> tuple[Entry, Key] | None:
    """Return the first constant found for an architecture: fits ask for it again and again.

    Parameters
    ----------
    architecture
        That of the GPU to transfer to.
    own
        Keys of variants. Constants of the GPU's own architecture come first, then those of its
        relative; of each, those of the same kernel come before those of the same library. Of kinds
        whose kernels differ between architectures, no library's come from another one.
    general
        The key without a variant, which comes last.
    """
    libraries = any(key.library for key in own)
    near, relative, everywhere = _tables_for(architecture, libraries=libraries)
    default = shipped(libraries=libraries).default
    kernels_first = sorted(own, key=lambda key: key.library not in ATTENTION_KERNELS)
    elsewhere = [key for key in kernels_first if not (key.library and key.kind in OF_ARCHITECTURE)]
    searched = [
        *((key, near) for key in kernels_first),
        *((key, table) for table in (relative, default) for key in elsewhere),
    ]
    if general is not None:
        searched.append((general, everywhere))
    for key, table in searched:
        if entry := table.get(key):
            return entry, key
    return None


def clock_factor(key: Key, mhz: float, gpu: HardwareProfile) -> float:
    """Return the factor on a constant measured at some clock, for another GPU.

    It is ``(GPU's clock / measured clock)^power``.

    Parameters
    ----------
    key
        The constant.
    mhz
        The clock of the measurement; 0 if unknown, for a factor of 1. [MHz]
    gpu
        The other GPU.

    Examples
    --------
    >>> from simulator.inputs.hardware import load_hardware
    >>> clock_factor(Key("launch_us"), 990, load_hardware("h100-sxm")) == 0.5**LATENCY_POWER
    True
    """
    power, boost = clock_power(key), gpu.peak.boost_mhz
    if not mhz or not power or boost is None:
        return 1.0
    return float((boost.value / mhz) ** power)


def clock_power(key: Key) -> float:
    """Return the power of the clock with which a constant scales."""
    return -BOOST_POWER if is_product_share(key) else CONSTANTS[key.name].clock_power


def is_product_share(key: Key) -> bool:
    """Return whether a constant is the share of the matrix rate that plain products reach."""
    return (key.name, key.kind) == ("flops_fraction", "gemm")


def stream_factor(gpu: HardwareProfile) -> float:
    """Return what a GPU's memory streams, as a share of the peak, over what it does on most GPUs.

    >>> from simulator.inputs.hardware import load_hardware
    >>> round(stream_factor(load_hardware("a100-sxm-80gb")), 2)
    0.92
    """
    found = _stream_share(gpu)
    return found / STREAM_SHARE if found else 1.0


def _stream_share(gpu: HardwareProfile) -> float | None:
    """Return the share of the published bandwidth that was read on a GPU; None if none was.

    A reading above the published peak means that the published figure is low.
    """
    figure = gpu.measured.memory_bandwidth_gb_per_s
    return min(1.0, figure.value / gpu.peak.memory_bandwidth_gb_per_s.value) if figure else None


def powered_share(share: float, tflops_per_w: float, gpu: HardwareProfile) -> float:
    """Return the share of the published matrix rate that products reach, from another GPU's.

    Power and not architecture limits it: see ``WATT_POWER``.

    Parameters
    ----------
    share, tflops_per_w
        The other GPU's share, and its published 16-bit matrix rate per watt. [TFLOP/s/W]
    gpu
        The GPU.

    Examples
    --------
    >>> from simulator.inputs.hardware import load_hardware
    >>> round(powered_share(0.66, 362 / 350, load_hardware("rtx-4090")), 2)
    0.93
    """
    factor = (tflops_per_w / published_tflops_per_w(gpu)) ** WATT_POWER
    return min(share * float(factor), LARGEST_SHARE)


def published_tflops_per_w(gpu: HardwareProfile) -> float:
    """Return a GPU's published 16-bit matrix rate per watt. [TFLOP/s/W]."""
    return _half_tflops(gpu) / gpu.peak.tdp_w.value


def sm_factor(key: Key, measured_tflops: float, gpu: HardwareProfile) -> float:
    """Return the factor on a constant of an SM with some matrix rate, for another GPU's.

    Rates grow with a power of the published 16-bit matrix rate of an SM, and times fall.

    Parameters
    ----------
    key
        The constant.
    measured_tflops
        The rate of the measured GPU's SM. [TFLOP/s]
    gpu
        The other GPU.
    """
    ratio = float((sm_tflops(gpu) / measured_tflops) ** SM_POWER)
    return ratio if CONSTANTS[key.name].clock_power > 0 else 1 / ratio


def sm_tflops(gpu: HardwareProfile) -> float:
    """Return the published 16-bit matrix rate of one of a GPU's SMs. [TFLOP/s]."""
    return _half_tflops(gpu) / gpu.sm_count


def _half_tflops(gpu: HardwareProfile) -> float:
    """Return a GPU's published 16-bit matrix rate. [TFLOP/s]."""
    return (gpu.peak.bf16_tflops or gpu.peak.fp16_tflops).value


@cache
def _tables_for(architecture: str, *, libraries: bool = False) -> tuple[_Table, _Table, _Table]:
    """Return the constants of an architecture's own GPUs, of its relative, and of all GPUs.

    An architecture with a relative of its own takes nothing from the family that it is named after:
    Blackwell with GDDR has neither the memory nor the kernels of Blackwell with HBM.
    """
    tables = shipped(libraries=libraries)
    family = architecture.split(maxsplit=1)[0]
    of = tables.architectures
    near = {} if architecture in tables.kin else of.get(family, {})
    near = {**near, **of.get(architecture, {})}
    # SMs of one architecture load alike, whatever matrix rate is sold (H20: a seventh of H100's).
    near = {key: entry._replace(sm_tflops=0.0) for key, entry in near.items()}
    relative = of.get(tables.kin.get(architecture, tables.kin.get(family, "")), {})
    return near, relative, {**tables.default, **relative, **near}


@cache
def shipped(*, libraries: bool = False) -> Tables:
    """Read the shipped constants once. Those of whole GPUs come before those of kernels.

    Parameters
    ----------
    libraries
        Whether to read those of named libraries and kernels too, which only evidence asks for.
    """
    default: dict[Key, Entry] = {}
    architectures: dict[str, dict[Key, Entry]] = {}
    kin: dict[str, str] = {}
    kernels = ["carried_libraries.json"] if libraries else []
    for name in (*kernels, "carried_kernels.json", "carried.toml"):
        raw = _tables_in(name)
        default.update(_table(raw["default"]))
        for architecture, entries in raw["architecture"].items():
            blocks = blocks_per_sm(architecture)
            architectures.setdefault(architecture, {}).update(_table(entries, blocks))
        kin.update(raw.get("like", {}))
    return Tables(default, architectures, kin)


def _tables_in(name: str) -> dict[str, Any]:
    """Read a file of constants; those that a tool writes are in JSON, which is read far faster."""
    text = (PACKAGE / "timing" / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else tomllib.loads(text)


def _table(entries: Mapping[str, Any], blocks: int = BLOCKS_PER_SM) -> dict[Key, Entry]:
    """Read one table."""
    return {
        key_named(name): Entry(blocks_per_sm=blocks, **entry) for name, entry in entries.items()
    }


# Base units of the units of constants.
_BASE = {"": 1.0, "us": MICROSECOND, "GB/s": GIGA, "G/s": GIGA}


def _one(name: str, *, of: str = "") -> "cached_property[float]":
    """Return the property of a constant in base units, for all of a GPU's units of some kind."""
    return cached_property(lambda gpu: gpu.value(name, of=of))


def _by_kind(name: str, *, of: str = "") -> "cached_property[dict[Kind, float]]":
    """Return the same of a constant that differs between kinds of operation."""
    return cached_property(lambda gpu: {kind: gpu.value(name, kind, of=of) for kind in KINDS})


@dataclass(frozen=True)
class Rates:
    """A GPU's achieved rates and fixed times, ready for the timing model.

    Attributes
    ----------
    bandwidth_bytes_per_s, sm_bytes_per_s, launch_s, block_s, serial_s, overlap
        By kind of operation: bandwidth of the memory and of one SM, time of a launch, time of each
        further wave of thread blocks and of each serial step, and how times under different roofs
        add.
    sm_count
        Streaming multiprocessors.
    sequence_s
        By kind: time of each sequence.
    group_s, visit_s, split_s
        Time of each expert, of each choice of one by a token, and of each partial result.
    group_start_k
        Length of K that takes as long as the start and end of a tile of a grouped product.
    hop_s, network_hop_s, exchange_s, chunk_s
        Of collectives: the time of each further GPU and node, of sending parts, and of a chunk.
    tile_bytes_per_s, tile_start_k, split_k_s
        Of matrix products: the load rate of one SM, the start and end of a tile as a length of the
        inner dimension, and the time of split-K.
    step_s
        Overhead of a serving engine per step, which is not part of the model's own step.
    l2_bandwidth_bytes_per_s, l2_bytes
        By kind: bandwidth of the L2 cache, and the working set it can hold.
    l2_stream_bytes_per_s, keeping_up
        Bandwidth of the L2 cache to plain streams, and the share of a wave's reads of a context
        stored once that L2 serves, however long the context.
    block_bytes_per_s
        By kind: bandwidth of one thread block.
    exponentials_per_s
        Rate of the exponentials of softmax.
    eager_launch_s, host_s_per_launch
        Time of each launch outside a CUDA graph: added on the device, and on the host.
    constants
        Every constant with its source, by its key without variant.
    variants
        The variants whose constants come before the general ones.
    """

    gpu: HardwareProfile
    choice: ConstantsChoice
    variants: tuple[Variant, ...]
    constants: Mapping[Key, Constant] = field(repr=False)

    bandwidth_bytes_per_s = _by_kind("bandwidth_fraction", of="memory_bandwidth_bytes_per_s")
    sm_bytes_per_s = _by_kind("sm_gb_per_s")
    launch_s = _by_kind("launch_us")
    block_s = _by_kind("block_us")
    serial_s = _by_kind("serial_us")
    overlap = _by_kind("overlap")
    sequence_s = _by_kind("sequence_us")
    group_s = _one("group_us")
    visit_s = _one("visit_us")
    group_start_k = _one("group_start_k")
    split_s = _one("split_us")
    hop_s = _one("hop_us")
    network_hop_s = _one("network_hop_us")
    exchange_s = _one("exchange_us")
    chunk_s = _one("chunk_us")
    tile_bytes_per_s = _one("tile_gb_per_s")
    tile_start_k = _one("tile_start_k")
    split_k_s = _one("split_k_us")
    l2_bandwidth_bytes_per_s = _by_kind("l2_gb_per_s", of="sm_count")
    l2_stream_bytes_per_s = _one("l2_stream_gb_per_s", of="sm_count")
    l2_bytes = _by_kind("l2_fraction", of="l2_bytes")
    keeping_up = _one("keeping_up")
    block_bytes_per_s = _by_kind("block_gb_per_s")
    exponentials_per_s = _one("exp_g_per_s", of="sm_count")
    step_s = _one("step_us")
    eager_launch_s = _one("eager_launch_us")
    host_s_per_launch = _one("host_us_per_launch")

    def value(self, name: str, kind: Kind | None = None, *, of: str = "") -> float:
        """Return a constant in base units.

        Parameters
        ----------
        name
            One of ``CONSTANTS``.
        kind
            The kind of operation; the constant of all kinds stands in for a missing one.
        of
            The figure of the GPU that the constant is a share of, or that counts its units.
        """
        found = self.constants.get(Key(name, kind)) or self.constants[Key(name)]
        unit = _BASE[CONSTANTS[name].unit]
        return found.value * (unit * getattr(self.gpu, of) if of else unit)

    @property
    def sm_count(self) -> int:
        """Streaming multiprocessors."""
        return self.gpu.sm_count

    @cached_property
    def origin(self) -> Literal["fitted", "carried", "peak"]:
        """Whether times are bounds, or some constants were fitted to the GPU."""
        fitted = any(constant.origin == "fitted" for constant in self.constants.values())
        return "peak" if self.choice == "peak" else "fitted" if fitted else "carried"

    @cached_property
    def _by_precision(self) -> dict[Precision, "Rates"]:
        """The rates of each format asked for so far."""
        return {"": self}

    def at(self, precision: Precision) -> "Rates":
        """Return the rates of products or caches in a format of ``PRECISIONS``."""
        found = self._by_precision.get(precision)
        if found is None:
            names = [variant.library for variant in self.variants if not variant.precision]
            own = [each for each in variants_of(names, precision) if each in VARIANTS]
            found = rates(self.gpu, self.choice, variants=own)
            self._by_precision[precision] = found
        return found

    @cached_property
    def peak_flops_per_s(self) -> Mapping[Dtype, tuple[float, Dtype]]:
        """Published matrix rate by format [FLOP/s], and the format actually used."""
        return {dtype: peak_flops_per_s(self.gpu, dtype) for dtype in DTYPES}

    @cached_property
    def _product_precisions(self) -> Mapping[Dtype, Precision]:
        """The precision of products with weights of each format; 16 bits where it is missing."""
        found: dict[Dtype, Precision] = {"int4": "int4"}
        for dtype in DTYPES:
            if has_low_precision_products(self.gpu, dtype):
                found[dtype] = "fp8" if dtype == "int8" else cast("Precision", dtype)
            elif dtype == "nvfp4":
                found[dtype] = "int4"  # expanded on the chip, like int4
            elif dtype == "mxfp4":
                found[dtype] = "mxfp4"  # so too, by kernels of their own
        return found

    def precision_of(self, operation: Operation) -> Precision:
        """Return the precision whose constants hold for an operation; empty for 16 bits."""
        if operation.low_precision_cache:
            return LOW_PRECISION
        if operation.kind in BY_FORMAT:
            return self.product_precision(operation.weights or operation.dtype)
        return ""

    def product_precision(self, dtype: Dtype) -> Precision:
        """Return the precision of products with weights of a format; empty for 16 bits."""
        return self._product_precisions.get(dtype, "")

    def quantises(self, dtype: Dtype) -> bool:
        """Return whether activations are quantised to multiply in a format.

        A card without products in that format expands the weights instead.
        """
        return self.product_precision(dtype) not in ("", "int4")

    def of(self, operation: Operation) -> "Rates":
        """Return the rates for an operation, which depend on its formats."""
        if operation.kind not in BY_FORMAT and not operation.low_precision_cache:
            return self
        precision = self.precision_of(operation)
        return self.at(precision) if precision and not self._of_a_format else self

    @cached_property
    def _of_a_format(self) -> bool:
        """Whether these are the rates of a format already."""
        return any(variant.precision for variant in self.variants)

    @property
    def keeping_up_measured(self) -> bool:
        """Whether rows of the card tell how the reads of a stored context keep up."""
        return self.constants[Key("keeping_up")].origin == "fitted"

    def flops_per_s(self, kind: Kind, dtype: Dtype) -> float:
        """Return the achieved matrix rate for a kind of operation. [FLOP/s]."""
        return self.peak_flops_per_s[dtype][0] * self.constants[Key("flops_fraction", kind)].value

    def link_bytes_per_s(self, gpus: int, route: Route = "around") -> float:
        """Return the achieved bandwidth between the GPUs of a group, per direction. [bytes/s].

        Raises
        ------
        ProfileError
            If the profile has no link.
        """
        share = inside = self.constants[Key("link_fraction")].value
        if self.choice != "peak" and self.gpu.over_pcie(gpus):
            inside *= (PCIE_PAIR / min(gpus, NODE_GPUS)) ** PCIE_POWER
        rate = self.gpu.link_bytes_per_s(gpus, route=route, share=inside, network_share=share)
        if rate is None:
            raise ProfileError(f"{self.gpu.id} has no link in its profile")
        return rate

    @cached_property
    def switch_bytes_per_s(self) -> float:
        """Achieved bandwidth to a switch that adds up, per direction. [bytes/s]."""
        link = self.gpu.peak.link_gb_per_s_per_direction
        return link.value * GIGA * self.constants[Key("switch_fraction")].value if link else 0.0


def rates(
    gpu: HardwareProfile, choice: ConstantsChoice = "auto", *, variants: Iterable[Variant] = ()
) -> Rates:
    """Return a GPU's rates from its constants, cached by profile object.

    Parameters
    ----------
    gpu
        Its profile.
    choice
        ``auto`` takes the best known, ``carried`` ignores what was fitted or measured on this
        card, ``peak`` uses the published peaks and no fixed times: a bound, not a prediction.
    variants
        Names of ``VARIANTS`` whose constants come before the general ones, in that order.

    Raises
    ------
    ProfileError
        If the profile has a fitted constant that the timing model does not know.
    """
    # A cached entry holds its profile, so no other profile can have the same identity.
    asked = (id(gpu), choice, tuple(variants))
    kept = _KEPT.get(asked)
    if kept is None:
        kept = _gather(gpu, choice, asked[2])
        if len(_KEPT) >= _MOST_KEPT:
            _KEPT.clear()
        _KEPT[asked] = kept
    return kept


_KEPT: dict[tuple[int, ConstantsChoice, tuple[Variant, ...]], Rates] = {}


def _gather(gpu: HardwareProfile, choice: ConstantsChoice, variants: tuple[Variant, ...]) -> Rates:
    """Look up every constant, and convert them to rates and times in base units."""
    search = _Search(gpu, choice)
    plain = dict(rates(gpu, choice).constants) if variants else {}
    constants = plain | {key: search.find(key, variants) for key in search.own(variants)}
    constants[_TILE_RATE] = _tile_rate(search, constants[_TILE_RATE], variants)
    return Rates(gpu, choice, variants, constants)


class _Search:
    """The places where a GPU's constants are looked up, in order."""

    def __init__(self, gpu: HardwareProfile, choice: ConstantsChoice) -> None:
        fitted = fitted_constants(gpu)  # refuses unknown names, whatever the choice
        self.gpu, self.choice = gpu, choice
        self._fitted = fitted if choice == "auto" else {}
        self._measured = _measured(gpu) if choice == "auto" else {}
        # The parts of the model with constants from rows of the card in a format. Constants that
        # these rows could not determine are then the card's 16-bit ones, which were in use when the
        # others were fitted.
        self._told = frozenset(
            (key.precision, part_of(key)) for key in self._fitted if key.precision
        )

    def find(self, key: Key, variants: Sequence[Variant]) -> Constant:
        """Return the first constant found, from the card's own to the general ones."""
        if self.choice == "peak":
            peak = CONSTANTS[key.name].at_peak
            return Constant(peak, "published peak, no overheads", "peak")
        general = Key(key.name)
        found = (
            self._of_kind(key, variants)
            or self._measured.get(key.name)
            or self._carried(carried_entry(self.gpu.architecture, (), general))
        )
        if found is None:
            raise ProfileError(f"no value for the constant {key.name}")
        return self._within_measured(key, variants, found)

    def own(self, variants: tuple[Variant, ...]) -> Sequence[Key]:
        """Return the constants that variants may have of their own; most are not among them."""
        if not variants:
            return KEYS
        known = _of_variants(self._fitted, variants) | _carried_keys(variants)
        return [
            key
            for key in KEYS
            if key.name == "flops_fraction" or not known.isdisjoint(_lineage(key))
        ]

    def _within_measured(self, key: Key, variants: Sequence[Variant], found: Constant) -> Constant:
        """Return a matrix rate: a carried one, or the largest measured on the card if smaller."""
        if key.name != "flops_fraction" or found.origin != "carried":
            return found
        low_precision = any(variant.precision == LOW_PRECISION for variant in variants)
        name = str(Key(key.name, precision=LOW_PRECISION if low_precision else ""))
        largest = self._measured.get(name)
        return largest if largest and largest.value < found.value else found

    def _of_kind(self, key: Key, variants: Sequence[Variant]) -> Constant | None:
        """Return a constant of its kind of operation, or of the kind that stands in for it."""
        if not self._fitted:
            return self._carried(_first_carried(self.gpu.architecture, key, tuple(variants)))
        for own, keys, general in _searched(key, tuple(variants), self._told):
            if not own and (entry := carried_entry(self.gpu.architecture, keys, general)):
                return self._carried(entry)
            for each in keys if own else ():
                if figure := self._fitted.get(each):
                    return Constant(figure.value, figure.source, "fitted", each)
        return None

    def _carried(self, found: tuple[Entry, Key] | None) -> Constant | None:
        """Return what was found in the tables, carried over to the GPU."""
        if found is None:
            return None
        entry, key = found
        return Constant(entry.on(self.gpu, key), entry.source, "carried", key)


@cache
def _searched(
    key: Key, variants: tuple[Variant, ...], told: frozenset[tuple[Precision, str]]
) -> list[tuple[bool, tuple[Key, ...], Key | None]]:
    """Return where a constant of a kind is searched, in order: own ones or others', keys, general.

    Parameters
    ----------
    key, variants
        The constant, and the variants that come before it.
    told
        The parts of the model that rows of the card in a format tell of.
    """
    by_kind = CONSTANTS[key.name].by_kind
    low_precision = tuple(key.of(variant) for variant in variants if variant.precision)
    sixteen_bit = tuple(key.of(variant) for variant in variants if not variant.precision)
    found: list[tuple[bool, tuple[Key, ...], Key | None]] = [(True, low_precision, None)]
    if not any((each.precision, part_of(key)) in told for each in low_precision):
        found.append((False, low_precision, None))
    # A constant of this kind of operation is better than a general one measured here.
    found += [
        (True, (*sixteen_bit, key, *([Key(key.name)] if by_kind else [])), None),
        (False, sixteen_bit, key if key.kind else None),
    ]
    if instead := _stand_in(key):
        # Queries over a cache of 8 bits are in 16 bits.
        plain = tuple(variant for variant in variants if not variant.precision)
        found += _searched(instead, plain if key in _STAND_IN else variants, told)
    return [place for place in found if place[1] or place[2]]


@cache
def _first_carried(
    architecture: str, key: Key, variants: tuple[Variant, ...]
) -> tuple[Entry, Key] | None:
    """Return where a GPU of an architecture without constants of its own finds one of a kind."""
    places = _searched(key, variants, frozenset())
    found = (carried_entry(architecture, keys, general) for own, keys, general in places if not own)
    return next(filter(None, found), None)


def _of_variants(keys: Iterable[Key], variants: tuple[Variant, ...]) -> set[Key]:
    """Return the constants, without variant, that are among some keys for one of the variants."""
    return {key.of(GENERAL) for key in keys if (key.library, key.precision) in variants}


@cache
def _carried_keys(variants: tuple[Variant, ...]) -> set[Key]:
    """Return the constants that variants have on some other GPU."""
    tables = shipped(libraries=any(variant.library for variant in variants))
    return _of_variants(chain(tables.default, *tables.architectures.values()), variants)


@cache
def _lineage(key: Key) -> list[Key]:
    """Return a constant and those that stand in for it, one after the other."""
    instead = _stand_in(key)
    return [key, *(_lineage(instead) if instead else [])]


def _stand_in(key: Key) -> Key | None:
    """Return the constant, of another kind of operation, that stands in for one; None if none."""
    if key in _STAND_IN:
        return _STAND_IN[key]
    if key.kind not in KIN:
        return None
    return key._replace(kind=KIN[key.kind] if CONSTANTS[key.name].by_kind else None)


def _tile_rate(search: _Search, found: Constant, variants: Sequence[Variant]) -> Constant:
    """Return the rate at which an SM loads tiles, given the constant found.

    Kernels of low precision differ between architectures. A slow one of another architecture does
    not lower this rate below as many weights per second as in 16 bits.
    """
    near, _, _ = _tables_for(search.gpu.architecture)
    low_precision = [variant for variant in variants if variant.precision]
    known = any(_TILE_RATE.of(variant) in near for variant in low_precision)
    if found.origin != "carried" or not low_precision or known:
        return found
    plain = search.find(_TILE_RATE, [variant for variant in variants if not variant.precision])
    if found.value >= plain.value / 2:
        return found
    source = f"as many weights as in 16 bits: {plain.source}"
    return replace(plain, value=plain.value / 2, source=source)


def part_of(key: Key) -> str:
    """Return the part of the model that a constant belongs to: rows of one kind determine it."""
    if key.name in ("tile_gb_per_s", "tile_start_k", "split_k_us"):
        return key.kind or "gemm"
    if key.name == "exp_g_per_s":
        return "prefill_attention"
    if of_experts(key):
        return "experts"
    return "attention" if key.kind in (None, "combine", "copy") else str(key.kind)


def _measured(gpu: HardwareProfile) -> Mapping[str, Constant]:
    """Return the constants that follow from rates measured on the card."""
    peak, measured = gpu.peak, gpu.measured
    found = {}
    if (figure := measured.memory_bandwidth_gb_per_s) and (share := _stream_share(gpu)):
        found["bandwidth_fraction"] = Constant(share, figure.source, "measured")
    if figure := measured.bf16_tflops or measured.fp16_tflops:
        share = min(1.0, figure.value / _half_tflops(gpu))
        found["flops_fraction"] = Constant(share, figure.source, "measured")
        # Products of 8 bits reach no larger share than those of 16.
        found["fp8_flops_fraction"] = found["flops_fraction"]
    if peak.fp8_tflops and (figure := measured.fp8_tflops):
        share = min(1.0, figure.value / peak.fp8_tflops.value)
        found["fp8_flops_fraction"] = Constant(share, figure.source, "measured")
    if figure := measured.l2_bandwidth_gb_per_s:
        of_sm = figure.value / gpu.sm_count
        found["l2_gb_per_s"] = Constant(of_sm, figure.source, "measured")
    return found


def served_s(
    gpu: HardwareProfile, choice: ConstantsChoice, engine: Engine
) -> list[tuple[float, float]]:
    """Return what an engine under load adds to a step, and for each sequence of it. [s].

    Each with its standard error; zero where no rows of the card tell it.

    Parameters
    ----------
    gpu, choice
        The GPU, and where its constants come from: these are no one else's.
    engine
        The engine.
    """
    own = gpu.fitted if choice == "auto" else {}
    figures = (own.get(f"{engine}_{name}") for name in SERVED)
    return [
        (item.value * MICROSECOND, (item.stderr or 0.0) * MICROSECOND) if item else (0.0, 0.0)
        for item in figures
    ]


def used_constants(
    operations: Sequence[Operation], gpu_rates: Rates, *, eager: bool
) -> Iterator[tuple[Key, Constant]]:
    """Yield the constants that affect the time of some operations, 16-bit ones first.

    Parameters
    ----------
    operations
        The operations; those without launches use no constants.
    gpu_rates
        The GPU's rates.
    eager
        Whether they run outside a CUDA graph, where more constants apply.

    Yields
    ------
    tuple
        The key, whose precision marks constants of fewer than 16 bits, and the constant.
    """
    launched = [item for item in operations if item.launches]
    for precision in ("", *PRECISIONS):
        some = [item for item in launched if gpu_rates.precision_of(item) == precision]
        for key, constant in gpu_rates.at(precision).constants.items() if some else ():
            # A rate without a limit affects no time.
            unlimited = constant.value == inf and constant.origin == "carried"
            if not unlimited and _is_used(some, key, eager=eager):
                yield key.of(Variant(precision=precision)), constant


def _is_used(operations: Sequence[Operation], key: Key, *, eager: bool) -> bool:
    """Return whether a constant affected the time of some operations."""
    definition = CONSTANTS[key.name]
    shared = [kind for kind in KINDS if key.kind is None and kind not in definition.kinds]
    found = [item for item in operations if item.kind in (key.kind, *shared)]
    if not found or definition.needs is None:
        return False
    if definition.eager_only:
        return eager
    return not definition.needs or any(
        getattr(item, count) for item in found for count in definition.needs
    )
