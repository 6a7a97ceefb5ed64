"""All ways of attention by name, and their implementations in plain PyTorch.

To add one, write its file and name it here; CONTRIBUTING.md shows how.
"""

from simulator.counts.attention import flash
from simulator.counts.attention.einsum import PLAIN_EINSUM, Einsum
from simulator.counts.attention.ideal import Ideal
from simulator.counts.attention.sdpa_math import PLAIN_MATH, SdpaMath
from simulator.counts.attention.variants import PLAIN_VARIANTS
from simulator.counts.attention.way import PlainKernel, Way
from simulator.errors import WorkloadError, unknown

WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Ideal(name="ideal"),
        flash.Flash(name="flash"),
        Einsum(name="einsum"),
        SdpaMath(name="sdpa_math"),
        flash.VLLM_CASCADE,
        flash.FLASHINFER,
        flash.TRTLLM_CASCADE,
    )
}
PLAIN_KERNELS: dict[str, PlainKernel] = {
    plain.name: plain for plain in (*flash.PLAIN_FLASH, *PLAIN_EINSUM, *PLAIN_MATH, *PLAIN_VARIANTS)
}


def algorithms() -> tuple[str, ...]:
    """Return the names of the ways that belong to no engine: pictures of all ways draw these."""
    return tuple(name for name, way in WAYS.items() if not isinstance(way, flash.EngineFlash))


def find_way(name: str) -> Way:
    """Return a way of attention by its name.

    Raises
    ------
    WorkloadError
        If no way has that name.
    """
    way = WAYS.get(name)
    if way is None:
        raise WorkloadError(unknown("kernel", str(name), WAYS))
    return way
