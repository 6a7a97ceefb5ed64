"""Attention kernels that rows name: which one it is, and in which thread blocks it does a call."""

import numpy as np

from simulator.counts.transformer import PREFILL_ROWS_PER_BLOCK
from simulator.inputs.hardware import HardwareProfile
from simulator.numeric import Numeric
from simulator.timing.constants import ATTENTION_KERNELS

# Compute capabilities of 100 KiB of shared memory per SM, where FlashAttention-2 takes 64 query
# rows of a causal call.
SMALL_FLASH2_TILES = ("8.6", "8.9")
# FlashInfer decodes groups of fewer query heads than this without tensor cores, in smaller blocks.
TENSOR_CORE_GROUP = 4
# Time of such a block over that of another: on L40S 32,768 take 189 us, 16,384 others 225 us.
SMALL_BLOCK_TIME = 0.42


def attention_kernel(kernel: str, gpu: HardwareProfile) -> str:
    """Return which attention kernel a row's is, or nothing.

    >>> from simulator.inputs.hardware import load_hardware
    >>> attention_kernel("vllm_flash_attn_fa3", load_hardware("h100-sxm"))
    'fa3'
    >>> attention_kernel("vllm_flash_attn", load_hardware("a100-sxm-80gb"))
    'fa2'
    """
    lowered = kernel.lower()
    named = next((name for name in ATTENTION_KERNELS if name in lowered), "")
    if named or "flash_attn" not in lowered:
        return named
    return "fa3" if gpu.compute_capability == "9.0" else "fa2"


def small_blocks(group: Numeric) -> Numeric:
    """Return how long FlashInfer's decode blocks take, for query heads per KV head."""
    return np.where(group < TENSOR_CORE_GROUP, SMALL_BLOCK_TIME, 1.0)


def prefill_block_rows(kernel: str, gpu: HardwareProfile) -> int:
    """Return the query rows of a thread block."""
    small = kernel == "fa2" and gpu.compute_capability in SMALL_FLASH2_TILES
    return PREFILL_ROWS_PER_BLOCK // 2 if small else PREFILL_ROWS_PER_BLOCK


def prefill_blocks(
    kernel: str,
    block_rows: int,
    batch: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    queries: Numeric,
) -> Numeric:
    """Return the thread blocks of prefill calls.

    All but FlashAttention-2 pack the query heads of a KV head into rows; it does so for one query.
    """
    packed = batch * kv_heads * np.ceil(queries * heads / kv_heads / block_rows)
    if kernel != "fa2":
        return packed
    return np.where(queries == 1, packed, batch * heads * np.ceil(queries / block_rows))
