"""GPU profiles: a card's published, measured and fitted figures.

A profile is one TOML file. Its three kinds of figures never overwrite each other: ``[peak]`` is
published, ``[measured]`` was measured on a real card, ``[fitted]`` holds the constants of the
timing model fitted to measured rows. Every figure has its source.
"""

import json
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from simulator.errors import OwnFileWarning, ProfileError, unknown
from simulator.inputs.dtypes import Dtype
from simulator.inputs.files import (
    head_of,
    name_or_path,
    read_if_changed,
    read_named,
    read_text,
    read_toml,
)
from simulator.inputs.record import Frozen, Rules
from simulator.resources import (
    HARDWARE_PATH_VARIABLE,
    own_files,
    readable,
    search_dirs,
    shipped,
    toml_files,
)
from simulator.units import GIGA, MIB, TERA

Text = Annotated[str, Rules(strip_whitespace=True, min_length=1)]
# What drivers report over what makers publish: the median of the 44 shipped profiles that have both
# (1.006 on cards with GDDR6 and error correction, else 1.035 to 1.074).
REPORTED_SHARE = 1.069
# GPUs of a node, unless the link joins more.
NODE_GPUS = 8
# FlashAttention and the shared-prefix kernels built on it need this compute capability.
LEAST_CAPABILITY = 8.0
_CAPABILITY = re.compile(r"\d{1,3}\.\d")
# The most warnings about one file; 'gpus check' has all.
MOST_FINDINGS = 3
# Figures of cards are far inside, so that what is computed from them is a finite number.
SMALLEST_FIGURE, LARGEST_FIGURE = 1e-18, 1e12


def _not_tiny(value: float) -> float:
    """Refuse a number above zero that is hardly one."""
    if 0 < value < SMALLEST_FIGURE:
        raise ValueError("is too small to compute with")
    return value


class Figure(Frozen):
    """A number and where it comes from."""

    value: Annotated[float, Rules(gt=0, le=LARGEST_FIGURE, strict=True, after=_not_tiny)]
    source: Annotated[str, Rules(strip_whitespace=True, min_length=3)]

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Refuse a bare number."""
        if isinstance(data, int | float | str):
            # pydantic turns a ValueError into an error message, a TypeError into a traceback.
            raise ValueError('must be written { value = ..., source = "..." }')  # noqa: TRY004
        return data


class FittedFigure(Figure):
    """A constant fitted to measured rows, with its standard error in the same unit."""

    stderr: Annotated[float, Rules(ge=0)] | None = None
    rows: Annotated[int, Rules(gt=0)] | None = None
    date: str | None = None


class Price(Figure):
    """What one GPU costs for an hour, and what kind of price that is. [USD].

    Attributes
    ----------
    provider, day
        Who asks it, and when it was read: a day, or only the year where the source has no more.
    terms
        On demand; serverless, which is billed by the second of work; or the user's own.
    low_trust
        Whether the source is second-hand, or contradicts itself.
    """

    value: Annotated[float, Rules(ge=0, le=LARGEST_FIGURE, strict=True, after=_not_tiny)]
    provider: str = ""
    terms: Literal["on demand", "serverless", "own"] = "own"
    day: str = ""
    low_trust: bool = False

    @property
    def comparable(self) -> bool:
        """Whether it ranks with prices on demand; whoever gives an own price sees to that."""
        return self.terms != "serverless" and not self.low_trust

    @property
    def told(self) -> str:
        """Provider, terms and day in words."""
        words = [self.provider, self.terms, self.day, "low trust" if self.low_trust else ""]
        return ", ".join(filter(None, words))


class Peak(Frozen):
    """Published figures. Rates are dense, never those with sparsity."""

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
    # A larger cache before memory, such as AMD's Infinity Cache.
    memory_side_cache_mib: Figure | None = None
    sm_count: Figure
    boost_mhz: Figure | None = None
    # The clock at which the published half-precision rate equals SMs x FMA per clock x 2.
    rate_mhz: Figure | None = None
    half_fma_per_clock_per_sm: Figure | None = None
    shared_memory_kib_per_sm: Figure | None = None
    link_gb_per_s_per_direction: Figure | None = None
    pcie_gb_per_s_per_direction: Figure | None = None
    # Between nodes, of each GPU.
    network_gb_per_s_per_direction: Figure | None = None
    tdp_w: Figure


class Measured(Frozen):
    """Rates of a real card in microbenchmarks of large transfers and large products.

    ``memory_mib`` is the total the driver reports (``nvidia-smi``). Makers sell 2**30 bytes as one
    GB, and some cards keep part of the memory for error correction. ``l2_mib`` is what the device
    reports where tables say otherwise.
    """

    memory_mib: Figure | None = None
    l2_mib: Figure | None = None
    memory_bandwidth_gb_per_s: Figure | None = None
    fp16_tflops: Figure | None = None
    bf16_tflops: Figure | None = None
    fp8_tflops: Figure | None = None
    l2_bandwidth_gb_per_s: Figure | None = None


class DocumentedExceptions(Frozen):
    """Published figures that break the usual arithmetic (hardware_check), with reasons.

    The value is the published figure over the computed one: 2 for the GeForce cards' int8, which is
    four times their half-precision rate instead of two.
    """

    fp32_tflops: Figure | None = None
    tf32_tflops: Figure | None = None
    fp8_tflops: Figure | None = None
    int8_tops: Figure | None = None
    fp4_tflops: Figure | None = None


# The fields of the rates of formats that are called otherwise.
_RATES: dict[Dtype, str] = {
    "fp8_block": "fp8_tflops",
    "int8": "int8_tops",
    **dict.fromkeys(("nvfp4", "mxfp4"), "fp4_tflops"),
}


class HardwareProfile(Frozen):
    """One GPU.

    Attributes
    ----------
    id
        The file's name without ``.toml``.
    compute_capability
        NVIDIA's number ("9.0") or AMD's name ("gfx942").
    link, link_gpus
        The link between the GPUs of a node, and how many it joins: a bridge joins two.
    link_peers
        Number of peers that share a GPU's link bandwidth equally; None for a switch, which can
        give all of it to any peer.
    link_sums
        Whether the link's switch can add up an all-reduce.
    confidence
        A: sources agree and the arithmetic holds; B: some figures recalled; C: sources conflict.
    aliases
        Names of the card in frameworks, drivers and benchmark files.
    fitted
        Constants of the timing model fitted to rows of this card, by their names in
        ``simulator/timing/constants.py``; empty until the card has been calibrated.
    sources
        Full references for the short names in the figures' sources, ``"NAME; NAME: what it says"``.

    Raises
    ------
    pydantic.ValidationError
        If a figure is wrong or missing; :func:`load_hardware` raises ProfileError instead.
    """

    schema_version: Literal[1]
    id: Text
    name: Text
    vendor: Text
    architecture: Text
    compute_capability: Text
    memory_type: Text
    link: Text = "none"
    link_gpus: Annotated[int, Rules(ge=2)] = 8
    link_peers: Annotated[int, Rules(ge=1)] | None = None
    link_sums: bool = False
    confidence: Literal["A", "B", "C"]
    retrieved: Text
    aliases: tuple[Text, ...] = ()
    notes: Annotated[str, Rules(strip_whitespace=True)] = ""
    peak: Peak
    documented_exceptions: DocumentedExceptions = DocumentedExceptions()
    measured: Measured = Measured()
    fitted: dict[str, FittedFigure] = {}  # noqa: RUF012, nobody changes it
    sources: dict[Text, Text] = {}  # noqa: RUF012, nobody changes it
    price_usd_per_hour: Price | None = None

    def _check(self) -> None:
        capability = self.compute_capability
        if self.vendor == "NVIDIA" and not _CAPABILITY.fullmatch(capability):
            raise ValueError(
                f"compute_capability = {capability!r} is not NVIDIA's number, such as 9.0"
            )

    def __repr__(self) -> str:
        """Return the id and hash: figures with their sources fill pages."""
        return f"HardwareProfile({self.id}, hash {self.content_hash})"

    def __hash__(self) -> int:
        """Return a hash of the figures, so that functions can cache results by profile."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash. It is of numbers alone, so that it is the same in every process."""
        peak, fitted = self.peak, self.fitted.values()
        figures = (peak.memory_bandwidth_gb_per_s, peak.fp16_tflops, peak.sm_count, *fitted)
        return hash(tuple([figure.value for figure in figures]))

    @cached_property
    def content_hash(self) -> str:
        """First twelve hex digits of the content's SHA-256, with which results name it."""
        import hashlib

        content = json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def names(self) -> frozenset[str]:
        """Every name of the card, normalised."""
        return frozenset(map(normalise_name, (self.id, self.name, *self.aliases)))

    @property
    def memory_bytes(self) -> float:
        """Memory that the driver reports; carried as a share of the published one. [bytes]."""
        figure = self.measured.memory_mib
        return figure.value * MIB if figure else self.peak.memory_gb.value * GIGA * REPORTED_SHARE

    @property
    def memory_carried(self) -> bool:
        """Whether the profile does not say what the driver reports."""
        return self.measured.memory_mib is None

    @property
    def memory_bandwidth_bytes_per_s(self) -> float:
        """Published memory bandwidth. [bytes/s]."""
        return self.peak.memory_bandwidth_gb_per_s.value * GIGA

    @property
    def l2_bytes(self) -> float:
        """Size of the last cache before memory: L2, or a larger one behind it. [bytes].

        A size that the device reports comes before a published one.
        """
        l2_mib = self.measured.l2_mib or self.peak.l2_mib
        return (self.peak.memory_side_cache_mib or l2_mib).value * MIB

    @property
    def without_flash(self) -> str:
        """Why FlashAttention, and kernels built on it, do not run here; empty if they do."""
        capability = self.compute_capability
        if self.vendor != "NVIDIA" or float(capability) >= LEAST_CAPABILITY:
            return ""
        return (
            f"FlashAttention does not run on {self.name} (compute capability {capability}; "
            f"it needs {LEAST_CAPABILITY})"
        )

    @property
    def sm_count(self) -> int:
        """Streaming multiprocessors (NVIDIA) or compute units (AMD)."""
        return int(self.peak.sm_count.value)

    def link_bytes_per_s(
        self, gpus: int, *, route: str = "around", share: float = 1.0, network_share: float = 1.0
    ) -> float | None:
        """Return the bandwidth of one GPU to its group, per direction. [bytes/s].

        A group with more GPUs than the link joins communicates over PCIe. In a smaller group, only
        the bandwidth to its members counts. A group of several nodes adds up inside each, across
        and inside again: of each GPU's traffic ``(nodes - 1) / (gpus - 1)`` goes over the network,
        or if the profile has none, at PCIe's rate, which no network card exceeds. What goes from
        each GPU to all others leaves the node in proportion to the GPUs outside; what goes on to a
        pipeline's next stage leaves it if the stages fill several nodes.

        Parameters
        ----------
        gpus
            Size of the group.
        route
            How messages go: see :class:`simulator.counts.operation.Operation`.
        share, network_share
            Achieved shares of the published bandwidth, inside a node and between nodes.
        """
        link, pcie = self.peak.link_gb_per_s_per_direction, self.peak.pcie_gb_per_s_per_direction
        nodes = self.nodes(gpus)
        inside = gpus / nodes
        if link is None or self.over_pcie(gpus):
            rate = pcie.value * GIGA if pcie else None
        else:
            peers = self.link_peers or 1
            reached = 1 if route == "next" else inside - 1
            rate = link.value * GIGA * min(reached, peers) / peers
        network = self.peak.network_gb_per_s_per_direction or pcie
        if nodes == 1 or rate is None or network is None:
            return rate * share if nodes == 1 and rate is not None else None
        across = {
            "around": (nodes - 1) / (gpus - 1),
            "all": (gpus - inside) / (gpus - 1),
            "next": 1.0,
        }[route]
        inside_s, across_s = (1 - across) / rate, across / (network.value * GIGA)
        return 1 / (inside_s / share + across_s / network_share)

    def nodes(self, gpus: int) -> int:
        """Return the nodes that a group of GPUs fills: a node has 8, or all that the link joins."""
        return ceil(gpus / max(self.link_gpus, NODE_GPUS))

    def over_pcie(self, gpus: int) -> bool:
        """Return whether GPUs of one node communicate over PCIe, because no link joins them."""
        inside = gpus / self.nodes(gpus)
        return self.peak.link_gb_per_s_per_direction is None or inside > self.link_gpus

    def peak_flops_per_s(self, dtype: Dtype) -> float | None:
        """Return the published dense matrix rate for a dtype, or None without such a path.

        int4 weights are expanded to 16 bits before the product, so they have no rate of their own.
        fp32 means what PyTorch does by default: no TF32.
        """
        field = _RATES.get(dtype, f"{dtype}_tflops")
        figure: Figure | None = getattr(self.peak, field, None)
        return figure.value * TERA if figure else None


# Drivers, clouds and measured rows spell one card in many ways: NVIDIA H100 80GB HBM3,
# H100-SXM5-80GB, h100_sxm. Words for the maker or the memory type do not distinguish cards, the
# generation of a form factor rarely does, and memory sizes are rounded differently.

_FILLERS = frozenset(
    {"nvidia", "amd", "instinct", "geforce", "tesla", "quadro", "tensor", "core", "gpu", "graphics"}
    | {"hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7", "generation", "oam"}
)
_SYNONYMS = {"workstation": "ws", "edition": ""}
_MEMORY = r"(\d+)gi?b"
_SXM = r"sxm\d?"
# 8xh100 and h100x8.
_SEVERAL = r"(?i)(?P<before>\d{1,2})\s?x\s?(?P<card>\S.*)|(?P<name>.*\S)\s?x\s?(?P<after>\d{1,2})"
# Chips of Apple, Google, AWS, Intel and Huawei, none of which has a profile.
_FOREIGN = r"(?i)apple|m[1-5]\b|tpu|v[3-7][ep]?$|trainium|trn|inferentia|gaudi|ascend|910"
# 192 for 180 GB, 140 for 141: makers and drivers count differently.
_MEMORY_TOLERANCE = 0.08


def normalise_name(name: str) -> str:
    """Return the form in which names of GPUs are compared.

    >>> normalise_name("NVIDIA H100_80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


class Card(NamedTuple):
    """A card's names, and its memory if known. [GB]."""

    names: tuple[str, ...]
    memory_gb: float | None = None


def respelled(name: str, cards: Mapping[str, Card]) -> str | None:
    """Return the id of the only card with a name of the same meaning, or None.

    Examples
    --------
    >>> cards = {"b200": Card(("B200 SXM",), 180), "b300": Card(("B300 SXM",), 288)}
    >>> respelled("NVIDIA B200-SXM6-192GB", cards)
    'b200'
    >>> respelled("B200-PCIe", cards)
    """
    wanted, memory_gb = _telling(name)
    found = [
        card
        for card, known in cards.items()
        if any(wanted == _telling(each)[0] for each in (card, *known.names))
        and _agree(memory_gb, known.memory_gb)
    ]
    return found[0] if len(found) == 1 and wanted else None


def _telling(name: str) -> tuple[frozenset[str], int | None]:
    """Return the words of a name that distinguish cards, and its memory size. [GB]."""
    words: set[str] = set()
    memory_gb = None
    for word in normalise_name(name).split("-"):
        if size := re.fullmatch(_MEMORY, word):
            memory_gb = int(size[1])
        elif word not in _FILLERS:
            words.add("sxm" if re.fullmatch(_SXM, word) else _SYNONYMS.get(word, word))
    return frozenset(words - {""}), memory_gb


def _agree(named_gb: float | None, memory_gb: float | None) -> bool:
    """Return whether a memory size in a name fits a card."""
    if named_gb is None or memory_gb is None:
        return True
    return abs(named_gb / memory_gb - 1) <= _MEMORY_TOLERANCE


GpuLike = str | Path | HardwareProfile


def load_hardware(name: str | Path) -> HardwareProfile:
    """Load a GPU profile by id, alias or path.

    A path is a string that ends in ``.toml`` or a :class:`~pathlib.Path`. Names are looked up in
    the folders of ``$BIFURCATE_HARDWARE_PATH`` first, then among the shipped profiles; in each
    folder, ids come before aliases. Case does not matter, and ``_``, a space and ``-`` are alike.
    A name that matches no profile counts as another spelling if it fits exactly one card.

    A file is read again only if it has changed. Calls share the profile; to change it, copy it with
    ``but``.

    Raises
    ------
    ProfileError
        If no profile has that name, or the file is malformed.
    """
    text = str(name_or_path(name, "GPU", ProfileError))
    if isinstance(name, Path) or text.lower().endswith(".toml"):
        return load_profile(Path(name))
    wanted = normalise_name(text)
    for folder in search_dirs("hardware_profiles", HARDWARE_PATH_VARIABLE):
        path = _find(folder, wanted)
        if path is not None:
            return load_profile(path)
    files, cards = profile_files(), _cards()
    other = respelled(text, cards)
    if other is not None:
        return load_profile(files[other])
    aliases = [name for card in cards.values() for name in card.names]
    if re.match(_FOREIGN, text):
        raise ProfileError(
            f"unknown GPU {text!r}; see 'bifurcate gpus' for those of NVIDIA and AMD, or give "
            "--gpu a profile of your own (.toml)"
        )
    if several := re.fullmatch(_SEVERAL, text):
        one, number = several["card"] or several["name"], several["before"] or several["after"]
        raise ProfileError(f"unknown GPU {text!r}; write -g {one} --tp {number}")
    if "," in text:
        raise ProfileError(f"{text!r} is not one GPU; 'bifurcate plan' tries several")
    raise ProfileError(unknown("GPU", text, cards, aliases=aliases, way_out="see 'bifurcate gpus'"))


def as_gpu(gpu: GpuLike) -> HardwareProfile:
    """Return a GPU's profile from its id, an alias, a path, or a profile.

    Raises
    ------
    ProfileError
        If there is no such profile, or its file is malformed.
    """
    return gpu if isinstance(gpu, HardwareProfile) else load_hardware(gpu)


def profile_files() -> dict[str, Path]:
    """Map the id of each GPU profile to its file; the user's own hide the shipped ones."""
    return toml_files("hardware_profiles", HARDWARE_PATH_VARIABLE)


@read_if_changed
def read_profile(path: str | Path) -> HardwareProfile:
    """Read one profile file, again only if it has changed.

    Raises
    ------
    ProfileError
        If the file is missing, malformed, or its id is not its name.
    """
    return read_named(HardwareProfile, path, ProfileError)


@read_if_changed
def load_profile(path: Path) -> HardwareProfile:
    """Read one profile file, and warn of figures in a user's own that are hardly possible.

    Raises
    ------
    ProfileError
        As :func:`read_profile`.
    """
    profile = read_profile(path)
    if not shipped(path):
        from simulator.inputs.hardware_check import check_profile

        for finding in check_profile(profile)[:MOST_FINDINGS]:
            warnings.warn(f"{path}: {finding}", OwnFileWarning, stacklevel=2)
    return profile


def _find(folder: Path, wanted: str) -> Path | None:
    """Return the file in ``folder`` whose id, or else whose name or alias, is ``wanted``."""
    files = _ids(folder)
    for name, path in files:
        if name == wanted:
            return path
    texts = readable(lambda path: (path, _normal_head(path)), (path for _, path in files))
    for path, text in texts:
        # Parsing TOML is slow, so only files that contain the name are parsed.
        if wanted in text and wanted in map(normalise_name, _names(path)):
            return path
    return None


@read_if_changed
def _ids(folder: Path) -> tuple[tuple[str, Path], ...]:
    """Map the normalised id of each profile in a folder to its file."""
    return tuple((normalise_name(path.stem), path) for path in own_files(folder))


@read_if_changed
def _normal_head(path: Path) -> str:
    """Return the normalised text of a file before its first table."""
    return normalise_name(head_of(read_text(path, ProfileError)))


def _names(path: Path) -> tuple[str, ...]:
    """Return the names in a profile's file, even if the rest is wrong."""
    data = read_toml(path, ProfileError, part=head_of)
    aliases = data.get("aliases")
    names = [data.get("name"), *(aliases if isinstance(aliases, list) else [])]
    return tuple(name for name in names if isinstance(name, str))


@read_if_changed
def _card(path: Path) -> Card:
    """Return the names and the memory in a profile's file, even if the rest is wrong."""
    try:
        memory_gb = float(read_toml(path, ProfileError)["peak"]["memory_gb"]["value"])
    except (KeyError, TypeError, ValueError):
        memory_gb = None
    return Card(_names(path), memory_gb)


def _cards() -> dict[str, Card]:
    """Return the names and memory of every profile by id; a file that is not TOML has neither."""
    cards: dict[str, Card] = {}
    for card, path in profile_files().items():
        try:
            cards[card] = _card(path)
        except ProfileError:
            cards[card] = Card(())  # 'gpus check' reports it
    return cards
