"""Attention kernels in real PyTorch: the code behind every account in :mod:`simulator.counts`.

>>> from simulator.evidence.kernels import KERNELS
>>> KERNELS["bifurcated_flash"].attention
'bifurcated'
"""

from simulator.evidence.kernels.inputs import Attend, Shape, shape_of
from simulator.evidence.kernels.layout import Inputs, Layout, lay_out
from simulator.evidence.kernels.registry import EXTERNAL_KERNELS, KERNELS, Kernel, find_kernel

__all__ = [
    "EXTERNAL_KERNELS",
    "KERNELS",
    "Attend",
    "Inputs",
    "Kernel",
    "Layout",
    "Shape",
    "find_kernel",
    "lay_out",
    "shape_of",
]
