"""Check that a GPU profile is physically plausible, to catch the usual errors in spec sheets.

A source does not make a number right: rates with sparsity, two GPUs counted as one, and rates at
another precision are copied along with their source. Recomputing figures from the chip finds them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.errors import unknown
from simulator.units import GIGA, MEGA, MIB, TERA

if TYPE_CHECKING:  # who reads a profile checks it
    from simulator.inputs.hardware import Figure, HardwareProfile

TOLERANCE = 0.02
# A microbenchmark may exceed a rounded peak only slightly.
ABOVE_PEAK = 1.01
BELOW_PEAK = 0.3
# No GPU runs its matrix units faster; used if a profile has no boost clock. [MHz].
FASTEST_CLOCK_MHZ = 3000.0


_RANGES = {
    "sm_count": (4, 1024, "multiprocessors"),
    "l2_mib": (1, 1024, "MiB"),
    "memory_side_cache_mib": (16, 4096, "MiB"),
    "boost_mhz": (500, FASTEST_CLOCK_MHZ, "MHz"),
    "shared_memory_kib_per_sm": (16, 512, "KiB"),
    "link_gb_per_s_per_direction": (10, 2000, "GB/s"),
    "pcie_gb_per_s_per_direction": (4, 256, "GB/s"),
    "network_gb_per_s_per_direction": (1, 400, "GB/s"),
    "tdp_w": (30, 2500, "W"),
}

# Matrix rates as multiples of the half-precision rate.
_TIMES_HALF = {"tf32_tflops": 0.5, "fp8_tflops": 2.0, "int8_tops": 2.0, "fp4_tflops": 4.0}


@dataclass(frozen=True)
class Architecture:
    """Limits of one multiprocessor (NVIDIA) or compute unit (AMD) of an architecture.

    Attributes
    ----------
    half_fma
        The most half-precision matrix FMAs per clock.
    fp32_fma
        FP32 FMAs per clock outside the matrix units.
    formats
        Matrix formats of the hardware besides fp16, separated by spaces.
    memory_types
        Memory types it was sold with, separated by spaces.
    """

    half_fma: int
    fp32_fma: int
    formats: str
    memory_types: str


# Vendors' architecture papers, recalled; they agree with the arithmetic of every shipped profile.
ARCHITECTURES = {
    "7.0": Architecture(512, 64, "", "HBM2"),
    "7.5": Architecture(512, 64, "int8", "GDDR6"),
    "8.0": Architecture(1024, 64, "tf32 bf16 int8", "HBM2 HBM2e"),
    "8.6": Architecture(512, 128, "tf32 bf16 int8", "GDDR6 GDDR6X"),
    "8.9": Architecture(512, 128, "tf32 bf16 fp8 int8", "GDDR6 GDDR6X"),
    "9.0": Architecture(2048, 128, "tf32 bf16 fp8 int8", "HBM2e HBM3 HBM3e"),
    "10.0": Architecture(4096, 128, "tf32 bf16 fp8 int8 fp4", "HBM3e"),
    "10.3": Architecture(4096, 128, "tf32 bf16 fp8 int8 fp4", "HBM3e"),
    "12.0": Architecture(512, 128, "tf32 bf16 fp8 int8 fp4", "GDDR7"),
    "gfx90a": Architecture(512, 64, "bf16 int8", "HBM2e"),
    "gfx942": Architecture(1024, 128, "tf32 bf16 fp8 int8", "HBM3 HBM3e"),
    "gfx950": Architecture(2048, 128, "bf16 fp8 int8 fp4", "HBM3e"),
}

# Smallest and largest memory [GB] and bandwidth [GB/s] of cards sold with each type; recalled,
# with some room around the shipped profiles.
MEMORY_RANGES = {
    "HBM2": ((8, 64), (400, 1700)),
    "HBM2e": ((16, 128), (1000, 3300)),
    "HBM3": ((64, 192), (1600, 5400)),
    "HBM3e": ((90, 300), (3500, 8200)),
    "HBM4": ((128, 600), (8000, 24000)),
    "GDDR6": ((4, 64), (150, 1000)),
    "GDDR6X": ((8, 24), (500, 1150)),
    "GDDR7": ((8, 128), (250, 2000)),
    "LPDDR5X": ((8, 1024), (60, 700)),
}


def check_profile(profile: "HardwareProfile") -> list[str]:
    """Return the implausible figures of a profile, one line each; empty for a sound one.

    Published figures that break a rule for a known reason belong in the profile's
    ``documented_exceptions``; an exception that is not needed is itself a finding.
    """
    rules = [_half_rate, _rates_times_half, _fp32_rate, _clock, _formats]
    rules += [_memory, _ranges, _measured, _exceptions]
    return [finding for rule in rules for finding in rule(profile)]


def check_aliases(profiles: "Iterable[HardwareProfile]") -> list[str]:
    """Return the names that more than one profile claims, one line each."""
    owners: dict[str, list[str]] = {}
    for profile in profiles:
        for name in sorted(profile.names):
            owners.setdefault(name, []).append(profile.id)
    return [
        f"the name {name!r} belongs to {' and '.join(ids)}; leave it to one of them"
        for name, ids in owners.items()
        if len(ids) > 1
    ]


def _half_rate(profile: "HardwareProfile") -> Iterator[str]:
    """Recompute the half-precision rate from multiprocessors, FMAs per clock and clock."""
    peak = profile.peak
    fma, clock = peak.half_fma_per_clock_per_sm, peak.rate_mhz
    architecture = ARCHITECTURES.get(profile.compute_capability)
    if fma and architecture and fma.value > architecture.half_fma:
        yield (
            f"peak.half_fma_per_clock_per_sm = {fma.value:g}: a multiprocessor of "
            f"{profile.compute_capability} does {architecture.half_fma} at most"
        )
    if fma and clock:
        computed = _computed(profile, fma.value, clock.value)
        yield from _compare("fp16_tflops", peak.fp16_tflops, *computed)
        yield from _compare("bf16_tflops", peak.bf16_tflops, *computed)
        return
    # The matrix units have the same rate for both formats.
    yield from _compare("bf16_tflops", peak.bf16_tflops, peak.fp16_tflops.value, "fp16_tflops")
    if architecture:
        yield from _below_clock(profile, "fp16_tflops", architecture.half_fma)
    else:
        yield (
            "peak: half_fma_per_clock_per_sm and rate_mhz are missing, so the half-precision "
            "rate cannot be recomputed"
        )


def _rates_times_half(profile: "HardwareProfile") -> Iterator[str]:
    """Check tf32 at half, fp8 and int8 at twice, fp4 at four times the half-precision rate."""
    half = profile.peak.fp16_tflops.value
    for field, factor in _TIMES_HALF.items():
        expected = _excepted(profile, field, half * factor, f"{factor:g} x fp16_tflops")
        yield from _compare(field, getattr(profile.peak, field), *expected)


def _fp32_rate(profile: "HardwareProfile") -> Iterator[str]:
    """Recompute the FP32 rate of the plain units at the boost clock."""
    peak = profile.peak
    architecture = ARCHITECTURES.get(profile.compute_capability)
    if architecture is None:
        return
    if peak.boost_mhz is None:
        yield from _below_clock(profile, "fp32_tflops", architecture.fp32_fma)
        return
    computed = _computed(profile, architecture.fp32_fma, peak.boost_mhz.value)
    expected = _excepted(profile, "fp32_tflops", *computed)
    yield from _compare("fp32_tflops", peak.fp32_tflops, *expected)


def _clock(profile: "HardwareProfile") -> Iterator[str]:
    """Check that the card can reach the clock behind its published rate."""
    rate, boost = profile.peak.rate_mhz, profile.peak.boost_mhz
    fastest = boost.value if boost else FASTEST_CLOCK_MHZ
    if rate and not fastest / 2 <= rate.value <= fastest * (1 + TOLERANCE):
        yield (
            f"peak.rate_mhz = {rate.value:g}: published rates are made at a clock between half "
            f"of the fastest and the fastest, {fastest:g} MHz"
        )


def _formats(profile: "HardwareProfile") -> Iterator[str]:
    """Check that the card has a matrix path for each given rate."""
    architecture = ARCHITECTURES.get(profile.compute_capability)
    if architecture is None:
        return
    for field in ("bf16_tflops", *_TIMES_HALF):
        figure: Figure | None = getattr(profile.peak, field)
        name = field.partition("_")[0]
        if figure and name not in architecture.formats.split():
            yield (
                f"peak.{field} = {figure.value:g}: {profile.compute_capability} has no {name} "
                f"matrix path; leave the figure out"
            )


def _memory(profile: "HardwareProfile") -> Iterator[str]:
    """Check that size and bandwidth of the memory suit its type and the architecture."""
    kind = profile.memory_type
    if kind not in MEMORY_RANGES:
        yield unknown("memory_type", kind, MEMORY_RANGES)
        return
    architecture = ARCHITECTURES.get(profile.compute_capability)
    if architecture and kind not in architecture.memory_types.split():
        yield (
            f"memory_type = {kind!r}: cards of {profile.compute_capability} have "
            f"{' or '.join(architecture.memory_types.split())}"
        )
    size, bandwidth = MEMORY_RANGES[kind]
    figure = profile.peak.memory_bandwidth_gb_per_s
    yield from _between("memory_gb", profile.peak.memory_gb, *size, f"GB of {kind}")
    yield from _between("memory_bandwidth_gb_per_s", figure, *bandwidth, f"GB/s with {kind}")


def _ranges(profile: "HardwareProfile") -> Iterator[str]:
    """Check the magnitude of the other figures, to catch a wrong unit."""
    for field, (low, high, unit) in _RANGES.items():
        yield from _between(field, getattr(profile.peak, field), low, high, unit)
    if profile.peak.sm_count.value % 1:
        yield f"peak.sm_count = {profile.peak.sm_count.value:g}: not a whole number"
    price = profile.price_usd_per_hour
    if price:
        yield from _between("price_usd_per_hour", price, 0.02, 100, "USD per hour", table="")


def _measured(profile: "HardwareProfile") -> Iterator[str]:
    """Check that measured rates are below their peak, but not so low that a unit is wrong."""
    peak, measured = profile.peak, profile.measured
    for field in ("memory_bandwidth_gb_per_s", "fp16_tflops", "bf16_tflops", "fp8_tflops"):
        figure: Figure | None = getattr(measured, field)
        published: Figure | None = getattr(peak, field)
        if figure is None:
            continue
        told = f"measured.{field} = {figure.value:g}"
        if published is None:
            yield f"{told}: peak.{field} is missing"
        elif not BELOW_PEAK <= (share := figure.value / published.value) <= ABOVE_PEAK:
            yield f"{told}: {share:.3g} times the published {published.value:g}"
    if figure := measured.memory_mib:
        published = peak.memory_gb
        share = figure.value * MIB / (published.value * GIGA)
        # From a tenth reserved for error correction to GB that are really GiB (1.074).
        if not 0.9 <= share <= 1.08:  # noqa: PLR2004
            told = f"measured.memory_mib = {figure.value:g}"
            yield f"{told}: {share:.3g} times the published {published.value:g} GB"


def _exceptions(profile: "HardwareProfile") -> Iterator[str]:
    """Check that each documented exception is needed."""
    for field in type(profile.documented_exceptions).fields:
        figure: Figure | None = getattr(profile.documented_exceptions, field)
        if figure is None:
            continue
        if getattr(profile.peak, field) is None:
            yield f"documented_exceptions.{field}: peak.{field} is missing"
        elif abs(figure.value - 1) <= TOLERANCE:
            yield (
                f"documented_exceptions.{field} = {figure.value:g}: within {TOLERANCE:.0%} of "
                f"the arithmetic, so it is not an exception"
            )


def _computed(profile: "HardwareProfile", fma: float, mhz: float) -> tuple[float, str]:
    """Return the rate of multiprocessors of so many FMAs per clock [TFLOP/s], and its formula."""
    count = profile.peak.sm_count.value
    return 2 * count * fma * mhz * MEGA / TERA, f"{count:g} x {fma:g} FMA x 2 x {mhz:g} MHz"


def _excepted(
    profile: "HardwareProfile", field: str, expected: float, how: str
) -> tuple[float, str]:
    """Apply a documented exception to an expected figure."""
    factor: Figure | None = getattr(profile.documented_exceptions, field)
    if factor is None:
        return expected, how
    return expected * factor.value, f"{how}, times the documented {factor.value:g},"


def _compare(field: str, figure: "Figure | None", expected: float, how: str) -> Iterator[str]:
    """Yield a finding where a published figure is not the expected one."""
    if figure is None or abs(figure.value / expected - 1) <= TOLERANCE:
        return
    ratio = figure.value / expected
    sparse = " (the rate with sparsity?)" if abs(ratio / 2 - 1) <= TOLERANCE else ""
    yield (
        f"peak.{field} = {figure.value:g}: {how} gives {expected:.4g}; "
        f"this is {ratio:.3g} times as much{sparse}"
    )


def _below_clock(profile: "HardwareProfile", field: str, fma: int) -> Iterator[str]:
    """Yield a finding where a rate needs a clock that no such card reaches."""
    count, boost = profile.peak.sm_count.value, profile.peak.boost_mhz
    fastest = boost.value if boost else FASTEST_CLOCK_MHZ
    tera_per_s: float = getattr(profile.peak, field).value
    needed = tera_per_s * TERA / (2 * count * fma) / MEGA
    if needed > fastest * (1 + TOLERANCE):
        yield (
            f"peak.{field} = {tera_per_s:g}: {count:g} x {fma} FMA x 2 needs {needed:.0f} MHz, "
            f"above {fastest:g} (the rate with sparsity?)"
        )


def _between(
    field: str, figure: "Figure | None", low: float, high: float, unit: str, *, table: str = "peak."
) -> Iterator[str]:
    """Yield a finding where a figure is outside its range."""
    if figure is not None and not low <= figure.value <= high:
        yield f"{table}{field} = {figure.value:g}: cards have {low:g} to {high:g} {unit}"
