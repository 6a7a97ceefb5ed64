"""How far measured times lie from predicted ones, by kind of kernel and origin of its constants.

``spread.toml`` holds what rows on real GPUs showed, on shapes or whole GPUs that no fit had seen;
``make accuracy`` writes it. Of the constants' origins, ``fitted`` is a GPU's own residuals (those
of all fitted GPUs where it has none), ``carried`` the worst of GPUs left out in turn, ``peak`` how
much longer than its published peaks a kernel takes.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from simulator.counts.operation import Kind
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.constants import Rates
from simulator.timing.limits import has_low_precision_products
from simulator.units import MICROSECOND

# Kinds of operation that rows cannot tell apart: a call of decode attention writes the new keys and
# adds up partial results.
Family = Literal["gemm", "attention", "prefill_attention", "elementwise", "collective"]
FAMILIES: tuple[Family, ...] = get_args(Family)
FAMILY: dict[Kind, Family] = {
    "gemm": "gemm",
    "attention": "attention",
    "combine": "attention",
    "copy": "attention",
    "prefill_attention": "prefill_attention",
    "elementwise": "elementwise",
    "gather": "elementwise",
    "collective": "collective",
}
Code = Literal["bifurcated", "eager_host", "unfused", "rebuilt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where most measured times lie, as shares of the predicted one.

    Attributes
    ----------
    fixed_below, fixed_above
        Of the fixed time of launches: how much less and how much more it may be.
    streaming_below, streaming_above
        Of the time of bytes from memory, and of products.
    cached_below, cached_above
        Of the time of bytes that the L2 cache serves.
    launch_above_us
        Time of each launch that a prediction from published peaks leaves out. [us]
    common
        Share of the variance that all kernels of the kind have in common; the rest is each one's.
    """

    fixed_below: float = 0.0
    fixed_above: float = 0.0
    streaming_below: float = 0.0
    streaming_above: float = 0.0
    cached_below: float = 0.0
    cached_above: float = 0.0
    launch_above_us: float = 0.0
    common: float = 1.0

    @property
    def launch_above_s(self) -> float:
        """Time of each launch that a prediction from published peaks leaves out. [s]."""
        return self.launch_above_us * MICROSECOND


@dataclass(frozen=True, slots=True)
class Spreads:
    """The spreads of ``spread.toml``.

    Attributes
    ----------
    coverage
        Share of the measured times that an interval is to hold.
    origin
        By origin of the constants, ``fitted``, ``carried`` or ``peak``, then by kind of kernel.
    gpu
        Of GPUs with constants of their own, by id, then by kind of kernel.
    code
        On top of the kernels' own: of bifurcated attention, of the host of plain PyTorch code, of
        the device time of unfused code, and of rebuilt caches.
    """

    coverage: float
    origin: Mapping[str, Mapping[str, Spread]]
    gpu: Mapping[str, Mapping[str, Spread]]
    code: Mapping[str, Spread]


def spread_of(gpu_rates: Rates, family: Family, dtype: Dtype = "bf16") -> Spread:
    """Return the spread of a kind of kernel for the constants that a GPU has.

    Parameters
    ----------
    dtype
        Format of the weights of products, of the cache of attention.
    """
    known = shipped_spreads()
    low_precision = is_low_precision(DTYPE_BYTES[dtype]) and family in ("gemm", "attention")
    if low_precision and family == "gemm" and not has_low_precision_products(gpu_rates.gpu, dtype):
        # No rows are of weights that are expanded first: those of 16 bits stand in for them.
        origin = "peak" if gpu_rates.choice == "peak" else "carried"
        return known.origin[origin][family]
    tables = _tables(known, gpu_rates.low_precision if low_precision else gpu_rates, family)
    names = (spread_name(gpu_rates.gpu, family, low_precision=low_precision), family)
    return next(table[name] for name in names for table in tables if name in table)


def spread_name(gpu: HardwareProfile, family: Family, *, low_precision: bool) -> str:
    """Return under which name the spread of a kind of kernel is kept.

    8-bit products and caches have one of their own, as they have constants of their own, and so
    have collectives where GPUs have no link but PCIe.
    """
    if family == "collective" and gpu.link == "none":
        return "pcie_collective"
    return f"fp8_{family}" if low_precision else family


def _tables(known: Spreads, gpu_rates: Rates, family: Family) -> list[Mapping[str, Spread]]:
    """Return where to look for a spread, the most specific place first."""
    if gpu_rates.choice == "peak":
        return [known.origin["peak"]]
    constants = gpu_rates.constants
    names = ("bandwidth_fraction", "launch_us")
    used = [constants[f"{_kind(family)}_{name}"] for name in names]
    if any(constant.origin == "fitted" for constant in used):
        own = known.gpu.get(gpu_rates.gpu.id, {})
        return [own, known.origin["fitted"], known.origin["carried"]]
    return [known.origin["carried"]]


def _kind(family: Family) -> Kind:
    """Return the kind of operation whose constants a family's come from."""
    return family


def code_spread(code: Code) -> Spread:
    """Return the spread of a way to run attention, on top of its kernels' own."""
    return shipped_spreads().code[code]


@cache
def shipped_spreads() -> Spreads:
    """Read the shipped spreads once."""
    text = (files("simulator") / "timing" / "spread.toml").read_text(encoding="utf-8")
    return spreads_from(tomllib.loads(text))


def spreads_from(raw: Mapping[str, Any]) -> Spreads:
    """Read spreads from the tables of ``spread.toml``."""
    known = {field.name for field in fields(Spread)}

    def table(entries: Mapping[str, Mapping[str, float]]) -> dict[str, Spread]:
        return {
            name: Spread(**{key: value for key, value in entry.items() if key in known})
            for name, entry in entries.items()
        }

    return Spreads(
        coverage=raw["coverage"],
        origin={name: table(raw[name]) for name in ("fitted", "carried", "peak")},
        gpu={name: table(entries) for name, entries in raw["gpu"].items()},
        code=table(raw["code"]),
    )
