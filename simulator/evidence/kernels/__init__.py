"""Attention kernels in PyTorch: the code behind every account in :mod:`simulator.counts`.

>>> from simulator.evidence.kernels import KERNELS
>>> KERNELS["bifurcated_flash"].attention
'bifurcated'
"""

from simulator.evidence.kernels.registry import (
    ALL_KERNELS,
    EXTERNAL_KERNELS,
    KERNELS,
    Implementation,
    Layout,
    find_kernel,
)

__all__ = ["ALL_KERNELS", "EXTERNAL_KERNELS", "KERNELS", "Implementation", "Layout", "find_kernel"]
