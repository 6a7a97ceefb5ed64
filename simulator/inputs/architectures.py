"""What chips and memories of each generation can do, the bounds for checking GPU profiles."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """What one multiprocessor (NVIDIA) or compute unit (AMD) of an architecture can do.

    Attributes
    ----------
    half_fma
        Most half-precision matrix FMAs per clock.
    fp32_fma
        FP32 FMAs per clock outside the matrix units.
    formats
        Matrix rates beside fp16 that the hardware has.
    memory_types
        Memory it was sold with.
    """

    half_fma: int
    fp32_fma: int
    formats: frozenset[str]
    memory_types: frozenset[str]


def _architecture(half_fma: int, fp32_fma: int, formats: str, memory_types: str) -> Architecture:
    """Build one row of the table below from space-separated names."""
    return Architecture(
        half_fma, fp32_fma, frozenset(formats.split()), frozenset(memory_types.split())
    )


# Vendors' architecture papers, recalled; they agree with the arithmetic of every shipped profile.
ARCHITECTURES = {
    "7.0": _architecture(512, 64, "", "HBM2"),
    "7.5": _architecture(512, 64, "int8", "GDDR6"),
    "8.0": _architecture(1024, 64, "tf32 bf16 int8", "HBM2 HBM2e"),
    "8.6": _architecture(512, 128, "tf32 bf16 int8", "GDDR6 GDDR6X"),
    "8.9": _architecture(512, 128, "tf32 bf16 fp8 int8", "GDDR6 GDDR6X"),
    "9.0": _architecture(2048, 128, "tf32 bf16 fp8 int8", "HBM2e HBM3 HBM3e"),
    "10.0": _architecture(4096, 128, "tf32 bf16 fp8 int8 fp4", "HBM3e"),
    "10.3": _architecture(4096, 128, "tf32 bf16 fp8 int8 fp4", "HBM3e"),
    "12.0": _architecture(512, 128, "tf32 bf16 fp8 int8 fp4", "GDDR7"),
    "gfx90a": _architecture(512, 64, "bf16 int8", "HBM2e"),
    "gfx942": _architecture(1024, 128, "tf32 bf16 fp8 int8", "HBM3 HBM3e"),
    "gfx950": _architecture(2048, 128, "bf16 fp8 int8 fp4", "HBM3e"),
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
