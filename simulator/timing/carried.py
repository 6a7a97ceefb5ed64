"""Constants carried over from GPUs that were measured, to the clock of one that was not.

``carried.toml`` holds what was read in sources and applies to whole GPUs; ``carried_kernels.toml``
what was fitted to kernels (``tools/accuracy.py --carry`` writes it). An entry with ``mhz``, the
clock of the GPU it is of, follows the clock: a kernel's fixed times are part cycles of its SMs and
part the latency of memory, which is no shorter on a faster one; the L2 cache runs with the SMs.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from simulator.inputs.hardware import HardwareProfile
from simulator.timing.slots import BLOCKS_PER_SM, blocks_per_sm, blocks_per_sm_of

Origin = Literal["fitted", "measured", "carried", "peak"]
# Attention kernels that several libraries have: what is fitted to one is the kernel's more than the
# GPU's.
ATTENTION_KERNELS = ("fa2", "fa3", "flashinfer")
# Times fall with this power of the clock. A dependent kernel in a CUDA graph takes 1.44 us on an
# A100 of 1410 MHz and 1.05 us on an L40 of 2490 MHz (RRZE gpu-small-kernels): a power of 0.57.
LATENCY_POWER = 0.6
_POWERS = {
    "_us": -LATENCY_POWER,
    "block_gb_per_s": LATENCY_POWER,
    "tile_gb_per_s": 1,
    "l2_gb_per_s": 1,
}


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant as it is used: its value, where it comes from, and of which kind that is.

    ``name`` is that under which it was found.
    """

    value: float
    source: str
    origin: Origin
    name: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A constant of another GPU, and what it was measured at.

    Attributes
    ----------
    mhz
        The clock; 0 where that has no part.
    blocks_per_sm
        Thread blocks of flash kernels that shared an SM, and its bandwidth.
    """

    value: float
    source: str
    mhz: float = 0.0
    blocks_per_sm: int = BLOCKS_PER_SM


_Table = Mapping[str, Entry]


@dataclass(frozen=True)
class Tables:
    """Everybody's constants, those by architecture, and which architecture is whose nearest kin."""

    default: _Table
    architectures: Mapping[str, _Table]
    kin: Mapping[str, str]


def carried(gpu: HardwareProfile, own: Sequence[str], general: str = "") -> Constant | None:
    """Return the first of some constants that others carry over to a GPU, if there is one.

    Parameters
    ----------
    own
        Names of variants, the most specific first. What the GPU's own architecture has comes first;
        of the rest, what is of the same kernel before what is of the same library.
    general
        The name without variant, which comes last.
    """
    tables = shipped()
    family = gpu.architecture.split()[0]
    kin = tables.kin.get(gpu.architecture, tables.kin.get(family, ""))
    near = [tables.architectures.get(name, {}) for name in (gpu.architecture, family)]
    far = [tables.architectures.get(kin, {}), tables.default]
    kernels_first = sorted(own, key=lambda name: not name.startswith(ATTENTION_KERNELS))
    for candidates, searched in ((own, near), (kernels_first, far), ([general], [*near, *far])):
        for name in candidates:
            if found := _first(searched, name):
                value = found.value * clock_factor(name, found.mhz, gpu)
                if name.endswith("block_gb_per_s"):
                    value *= found.blocks_per_sm / blocks_per_sm(gpu)
                return Constant(value, found.source, "carried", name)
    return None


def in_architecture(gpu: HardwareProfile, name: str) -> bool:
    """Return whether a GPU of the same architecture carries a constant over."""
    family = gpu.architecture.split()[0]
    tables = shipped().architectures
    return any(name in tables.get(near, {}) for near in (gpu.architecture, family))


def clock_factor(name: str, mhz: float, gpu: HardwareProfile) -> float:
    """Return what a constant measured at a clock is multiplied by on another GPU.

    >>> from simulator.inputs.hardware import load_hardware
    >>> clock_factor("launch_us", 990, load_hardware("h100-sxm")) == 0.5**LATENCY_POWER
    True
    """
    power = next((power for suffix, power in _POWERS.items() if name.endswith(suffix)), 0)
    boost = gpu.peak.boost_mhz
    if not mhz or not power or boost is None:
        return 1.0
    return float((boost.value / mhz) ** power)


def _first(tables: Iterable[_Table], name: str) -> Entry | None:
    """Return the first table's constant of that name."""
    return next((table[name] for table in tables if name in table), None)


@cache
def shipped() -> Tables:
    """Read the shipped constants once. Those of whole GPUs come before those of kernels."""
    default: dict[str, Entry] = {}
    architectures: dict[str, dict[str, Entry]] = {}
    kin: dict[str, str] = {}
    for name in ("carried_kernels.toml", "carried.toml"):
        raw = tomllib.loads((files("simulator") / "timing" / name).read_text(encoding="utf-8"))
        default.update(_table(raw["default"]))
        for architecture, entries in raw["architecture"].items():
            blocks = blocks_per_sm_of(architecture)
            architectures.setdefault(architecture, {}).update(_table(entries, blocks))
        kin.update(raw.get("like", {}))
    return Tables(default, architectures, kin)


def _table(
    entries: Mapping[str, Mapping[str, object]], blocks: int = BLOCKS_PER_SM
) -> dict[str, Entry]:
    """Read one table."""
    return {
        name: Entry(
            float(str(entry["value"])),
            str(entry["source"]),
            float(str(entry.get("mhz", 0))),
            blocks,
        )
        for name, entry in entries.items()
    }
