"""GPU profiles: what a card is on paper, what was measured on it, and what was fitted to it.

A profile is one TOML file. The three kinds of figure are apart and never overwrite each other:
``[peak]`` is published, ``[measured]`` was read on a real card, ``[fitted]`` holds the constants of
the timing model fitted to measured rows. Every figure carries its source.
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from simulator.errors import ProfileError, unknown
from simulator.inputs.dtypes import Dtype
from simulator.inputs.files import read_toml, validate
from simulator.resources import HARDWARE_PATH_VARIABLE, toml_files
from simulator.units import GIGA, MIB, TERA

SCHEMA_VERSION = 1


class _Frozen(BaseModel):
    """Base of everything a person writes: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figure(_Frozen):
    """A number and where it comes from."""

    value: Annotated[float, Field(gt=0)]
    source: Annotated[str, Field(min_length=3)]


class FittedFigure(Figure):
    """A constant fitted to measured rows, with its standard error in the same unit."""

    stderr: Annotated[float, Field(ge=0)] | None = None
    rows: Annotated[int, Field(gt=0)] | None = None
    date: str | None = None


class Peak(_Frozen):
    """Published figures. Rates are dense: twice as much with sparsity is not a rate we can use."""

    memory_gb: Figure
    memory_bandwidth_gb_per_s: Figure
    fp32_tflops: Figure
    tf32_tflops: Figure | None = None
    fp16_tflops: Figure
    bf16_tflops: Figure | None = None
    fp8_tflops: Figure | None = None
    int8_tops: Figure | None = None
    fp4_tflops: Figure | None = None
    l2_mib: Figure
    sm_count: Figure
    boost_mhz: Figure | None = None
    # The clock at which the published half-precision rate is exactly SMs x FMA per clock x 2.
    rate_mhz: Figure | None = None
    half_fma_per_clock_per_sm: Figure | None = None
    shared_memory_kib_per_sm: Figure | None = None
    link_gb_per_s_per_direction: Figure | None = None
    pcie_gb_per_s_per_direction: Figure | None = None
    tdp_w: Figure


class Measured(_Frozen):
    """Rates read on a real card by a microbenchmark; large transfers and large products."""

    memory_bandwidth_gb_per_s: Figure | None = None
    bf16_tflops: Figure | None = None
    fp8_tflops: Figure | None = None
    l2_bandwidth_gb_per_s: Figure | None = None


class HardwareProfile(_Frozen):
    """One GPU.

    Attributes
    ----------
    id
        The file's name without ``.toml``.
    aliases
        Names by which frameworks, drivers and benchmark files call the card.
    fitted
        Constants of the timing model fitted to rows of this card, by their names in
        ``simulator/timing/constants.py``; empty until the card has been calibrated.
    """

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    name: str
    vendor: str
    architecture: str
    compute_capability: str
    memory_type: str
    link: str = "none"
    confidence: Annotated[str, Field(pattern="^[ABC]$")]
    retrieved: str
    aliases: tuple[str, ...] = ()
    notes: str = ""
    peak: Peak
    measured: Measured = Measured()
    fitted: dict[str, FittedFigure] = {}
    price_usd_per_hour: Figure | None = None

    @cached_property
    def content_hash(self) -> str:
        """First twelve hex digits of the SHA-256 of the content: a result names what it used."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def memory_bytes(self) -> float:
        """Memory of the card. [bytes]."""
        return self.peak.memory_gb.value * GIGA

    @property
    def memory_bandwidth_bytes_per_s(self) -> float:
        """Published memory bandwidth. [bytes/s]."""
        return self.peak.memory_bandwidth_gb_per_s.value * GIGA

    @property
    def l2_bytes(self) -> float:
        """Size of the L2 cache. [bytes]."""
        return self.peak.l2_mib.value * MIB

    @property
    def sm_count(self) -> int:
        """Streaming multiprocessors (NVIDIA) or compute units (AMD)."""
        return int(self.peak.sm_count.value)

    @property
    def link_bytes_per_s(self) -> float | None:
        """Bandwidth to the other GPUs of a node, per direction. [bytes/s]."""
        figure = self.peak.link_gb_per_s_per_direction or self.peak.pcie_gb_per_s_per_direction
        return figure.value * GIGA if figure else None

    def peak_flops_per_s(self, dtype: Dtype) -> float | None:
        """Published dense matrix rate for a dtype, or None where the card has no such path.

        int4 weights are expanded to 16 bits before the product, so they have no rate of their own.
        fp32 means what PyTorch does by default: no TF32.
        """
        figures: dict[str, Figure | None] = {
            "bf16": self.peak.bf16_tflops,
            "fp16": self.peak.fp16_tflops,
            "fp32": self.peak.fp32_tflops,
            "fp8": self.peak.fp8_tflops,
            "int8": self.peak.int8_tops,
        }
        figure = figures.get(dtype)
        return figure.value * TERA if figure else None


def load_hardware(name: str | Path) -> HardwareProfile:
    """Load a GPU profile by id, alias or path.

    A path is a string that ends in ``.toml`` or a :class:`~pathlib.Path`. Names are looked up in
    the folders of ``$BIFURCATE_HARDWARE_PATH`` first, then among the shipped profiles, whatever
    their case.

    Raises
    ------
    ProfileError
        If no profile has that name, or the file is malformed.
    """
    text = str(name)
    if isinstance(name, Path) or text.endswith(".toml"):
        return read_profile(Path(name))
    files = profile_files()
    lowered = text.strip().lower()
    if lowered in files:
        return read_profile(files[lowered])
    # Aliases need every file, so they are read only when the quick way failed.
    names: list[str] = []
    for path in files.values():
        data = read_toml(path, ProfileError)
        aliases = [str(alias) for alias in data.get("aliases", ())]
        if lowered in {alias.lower() for alias in aliases} | {str(data.get("name", "")).lower()}:
            return read_profile(path)
        names += [path.stem, *aliases]
    raise ProfileError(unknown("GPU", text, names, way_out="see 'bifurcate gpus'"))


def profile_files() -> dict[str, Path]:
    """Map the id of each GPU profile to its file; the user's own hide the shipped ones."""
    return toml_files("hardware_profiles", HARDWARE_PATH_VARIABLE)


def read_profile(path: Path) -> HardwareProfile:
    """Read one profile file.

    Raises
    ------
    ProfileError
        If the file is missing, malformed, or its id is not its name.
    """
    data = read_toml(path, ProfileError)
    profile = validate(HardwareProfile, data, where=str(path), error=ProfileError)
    if profile.id != path.stem:
        raise ProfileError(f"{path}: id = {profile.id!r} is not the file's name {path.stem!r}")
    return profile
