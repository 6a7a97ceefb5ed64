"""How many thread blocks of a flash kernel a GPU runs at once: what the kernels split the keys for.

FlashAttention-2, which is PyTorch's on every card, and FlashInfer count on two blocks an SM;
FlashAttention-3, the kernel that engines choose on Hopper, keeps one large block on each. Of other
cards' kernels nothing is known: two.
"""

from simulator.inputs.hardware import HardwareProfile

BLOCKS_PER_SM = 2
HOPPER_BLOCKS_PER_SM = 1


def blocks_per_sm(gpu: HardwareProfile) -> int:
    """Return the thread blocks of flash kernels that an SM runs at once."""
    return blocks_per_sm_of(gpu.architecture)


def blocks_per_sm_of(architecture: str) -> int:
    """Return the same for all GPUs of an architecture."""
    hopper = architecture.split(maxsplit=1)[0] == "Hopper"
    return HOPPER_BLOCKS_PER_SM if hopper else BLOCKS_PER_SM


def resident_blocks(gpu: HardwareProfile) -> int:
    """Return the thread blocks a GPU runs at once, which flash kernels split the keys to fill."""
    return gpu.sm_count * blocks_per_sm(gpu)
