"""Limits of a GPU: its published matrix rate, and its resident blocks."""

from simulator.errors import ProfileError
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.hardware import HardwareProfile

# FlashAttention-2, which PyTorch uses on every card, and FlashInfer assume two blocks per SM;
# FlashAttention-3, which engines choose on Hopper, runs one large block per SM. Other cards'
# kernels are unknown: two.
BLOCKS_PER_SM = 2
HOPPER_BLOCKS_PER_SM = 1


def has_low_precision_products(gpu: HardwareProfile, dtype: Dtype) -> bool:
    """Return whether a card multiplies matrices in a format of low precision.

    Weights of a format without a fast path are expanded first.
    """
    return is_low_precision(DTYPE_BYTES[dtype]) and peak_flops_per_s(gpu, dtype)[1] == dtype


def peak_flops_per_s(gpu: HardwareProfile, dtype: Dtype) -> tuple[float, Dtype]:
    """Return the published matrix rate, and the format actually used.

    A card without a path for the format, or with one that is no faster (int8 on a B300 or MI210),
    computes in the next wider one: 8 and 4 bits in bf16, bf16 in fp16.

    Returns
    -------
    tuple
        Rate [FLOP/s] and format.

    Raises
    ------
    ProfileError
        If the card has no suitable path.
    """
    own, low_precision = gpu.peak_flops_per_s(dtype), is_low_precision(DTYPE_BYTES[dtype])
    if own is not None and not low_precision:
        return own, dtype
    narrower: tuple[Dtype, ...] = ("fp16",) if dtype == "bf16" else ()
    for wider in ("bf16", "fp16") if low_precision else narrower:
        rate = gpu.peak_flops_per_s(wider)
        if rate is not None:
            return (rate, wider) if own is None or own <= rate else (own, dtype)
    if own is None:
        raise ProfileError(f"{gpu.id}: no matrix rate for {dtype}")
    return own, dtype


def runs_trtllmgen(gpu: HardwareProfile) -> bool:
    """Return whether engines use TensorRT-LLM's attention kernels: on Blackwell with HBM."""
    return gpu.compute_capability.startswith("10.")


def prefill_tiles(gpu: HardwareProfile, kind: str) -> int:
    """Return the tiles of query rows of a thread block: TensorRT-LLM's prefill takes two."""
    return 2 if kind == "prefill_attention" and runs_trtllmgen(gpu) else 1


def read_in_pairs(gpu: HardwareProfile, kind: str) -> tuple[int, int] | None:
    """Return for how many query rows two thread blocks read the same keys: above, and up to.

    TensorRT-LLM's decode kernel for latent caches gives so many rows two blocks, each with half of
    the values (derived from rows of B200, where 32 heads take longer than 16 or 64).
    """
    return (16, 32) if kind == "latent_attention" and runs_trtllmgen(gpu) else None


def unsplit_tiles(gpu: HardwareProfile) -> tuple[tuple[int, int, int], ...]:
    """Return the tiles of CUTLASS's products of plain 8 bits, as vLLM calls them.

    Steps in the times of products with few columns show them. On Hopper the largest starts at 129
    rows (H100, K = 4096: 11 us up to 128, 16 from 129), elsewhere at 257 (L40S: 22, then 37). They
    split nothing: on H100, 256 rows of K = 16,384 take 52 to 53 us from 1,024 columns to 2,048.

    Returns
    -------
    tuple
        Of each tile: rows of the product above which it is taken, its rows and its columns.
    """
    large = 128 if gpu.compute_capability == "9.0" else 256
    return (0, 64, 64), (64, 64, 128), (large, 128, 128)


def resident_blocks(gpu: HardwareProfile) -> int:
    """Return the resident blocks of a GPU, which flash kernels split the keys to fill."""
    return gpu.sm_count * blocks_per_sm(gpu.architecture)


def blocks_per_sm(architecture: str) -> int:
    """Return the resident blocks of flash kernels per SM of an architecture.

    >>> blocks_per_sm("Hopper GH100"), blocks_per_sm("Ampere")
    (1, 2)
    """
    hopper = architecture.split(maxsplit=1)[0] == "Hopper"
    return HOPPER_BLOCKS_PER_SM if hopper else BLOCKS_PER_SM
