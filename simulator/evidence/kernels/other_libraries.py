"""Attention kernels of other libraries: packages, formats and workspaces. No torch."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from simulator.errors import KernelError
from simulator.inputs.dtypes import Dtype

_MIB = 2**20
# FlashInfer recommends the first size as buffer for its split-KV partials, and allocates the second
# for the plan of each level (0.2.0 to 0.7.2, prefill.py). [bytes]
_FLOAT_WORKSPACE_BYTES, _PLAN_BYTES, _LEVELS = 128 * _MIB, 8 * _MIB, 2
# Its plan fills two thread blocks per SM, of at most these rows. No GPU so far has more SMs.
_MOST_BLOCKS, _MOST_ROWS_PER_BLOCK = 2 * 160, 128
_PARTIAL_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherLibrary:
    """The library of a kernel.

    Attributes
    ----------
    package
        Name of the package to import.
    distribution
        Name of the distribution to install.
    framework
        Its name in rows.
    versions
        Those against whose sources the adapter was written.
    """

    package: str
    distribution: str
    framework: str
    versions: str

    @property
    def installed(self) -> bool:
        """Whether the package can be found."""
        return find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The installed version, empty if not installed or unknown."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""


OTHER_LIBRARIES: dict[str, OtherLibrary] = {
    "flashinfer_cascade": OtherLibrary(
        package="flashinfer",
        distribution="flashinfer-python",
        framework="flashinfer",
        versions="0.2.0 to 0.7.2",
    ),
    "vllm_cascade": OtherLibrary(
        package="vllm", distribution="vllm", framework="vllm", versions="0.8.5 to 0.33"
    ),
}
# Formats that they take, and tokens per page: FlashInfer's example and vLLM's default.
LIBRARY_DTYPES: tuple[Dtype, ...] = ("bf16", "fp16")
PAGE_TOKENS = 16


def need_installed(kernels: Iterable[str]) -> None:
    """Refuse kernels of libraries that are not installed.

    Raises
    ------
    KernelError
        If one is not installed.
    """
    for name in kernels:
        library = OTHER_LIBRARIES.get(name)
        if library is not None and not library.installed:
            raise KernelError(
                f"{name} needs {library.distribution}, which is not installed: "
                f"pip install {library.distribution}"
            )


def flashinfer_workspace_bytes(sizes: Any) -> int:
    """Return the size of a float workspace for FlashInfer's plan of a cascade. [bytes].

    Its recommendation, or the most that its plan reserves for partial outputs: ``heads x tiles x
    rows of a tile x (head_dim + 1)`` numbers of 4 bytes, up to version 0.6 for any group size
    (``PrefillPlan`` in scheduler.cuh).

    Parameters
    ----------
    sizes
        What has the sizes of a call: prompts, samples, heads, kv_heads and head_dim.
    """
    heads, kv_heads, head_dim = sizes.heads, sizes.kv_heads, sizes.head_dim
    group = heads // kv_heads
    sequences = sizes.prompts * sizes.samples
    most = 0
    for batch, rows in ((sizes.prompts, sizes.samples * group), (sequences, group)):
        tile = next((size for size in (16, 64) if rows <= size), _MOST_ROWS_PER_BLOCK)
        tiles = max(_MOST_BLOCKS // kv_heads, -(-sequences * group // tile) + batch)
        most = max(most, heads * tiles * tile * (head_dim + 1) * _PARTIAL_BYTES)
    return max(_FLOAT_WORKSPACE_BYTES, -(-most // _MIB) * _MIB)


def workspace_bytes(kernel: str, sizes: Any) -> int:
    """Return the memory that a library's plan keeps besides a call's tensors. [bytes].

    Parameters
    ----------
    kernel
        Name of an implementation; our own keep nothing.
    sizes
        What has the sizes of a call.
    """
    if kernel != "flashinfer_cascade":
        return 0
    return flashinfer_workspace_bytes(sizes) + _LEVELS * _PLAN_BYTES
