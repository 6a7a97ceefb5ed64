"""vLLM's cascade: its flash-attn on the context and on decoded tokens, and its merge.

The calls are those of ``cascade_attention`` in ``vllm/v1/attention/backends/flash_attn.py``, which
versions 0.7 to 0.31 have. 0.32 dropped it, but still has the functions that it calls.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.external import (
    Planned,
    load,
    need,
    page_numbers,
    parameters_of,
    planned_call,
    query_ends,
)
from simulator.evidence.kernels.inputs import Inputs

_NAME = "vllm_cascade"
_FLASH_ATTN = "vllm.vllm_flash_attn"
# Modules in which vLLM selects FlashAttention's version, and merges: since 0.14, and before.
_VERSIONS = ("vllm.v1.attention.backends.fa_utils", "vllm.attention.utils.fa_utils")
_MERGES = ("vllm.v1.attention.ops.merge_attn_states", "vllm.attention.ops.merge_attn_states")


def plan(inputs: Inputs, *, scale: float | None = None, graph: bool = False) -> Planned:
    """Attend with vLLM's flash-attn on context and decoded tokens, merged by vLLM's kernel.

    Each prompt's context is a separate sequence; vLLM supports one context.

    Parameters
    ----------
    inputs
        The five tensors of a kernel.
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.
    graph
        Not used: a call consists only of kernels, which a CUDA graph can capture.

    Raises
    ------
    KernelError
        If vLLM is missing or its interface differs, or it cannot take the inputs.
    """
    del graph
    attend, merge, choose = check()
    shape = planned_call(_NAME, inputs, scale)
    version = _flash_attention(choose, shape.head_dim)
    tables, ends = page_numbers(shape), query_ends(shape)

    def _part(level: int, queries: int, tokens: int, *, causal: bool) -> Callable[..., Any]:
        table = tables[level]
        used = torch.full((len(table),), tokens, dtype=torch.int32, device=table.device)

        def _attend(rows: Tensor, keys: Tensor, values: Tensor) -> Any:
            return attend(
                q=rows,
                k=keys,
                v=values,
                cu_seqlens_q=ends[level],
                seqused_k=used,
                max_seqlen_q=queries,
                max_seqlen_k=tokens,
                softmax_scale=shape.scale,
                causal=causal,
                block_table=table,
                return_softmax_lse=True,
                fa_version=version,
            )

        return _attend

    context = _part(0, shape.samples, shape.context_tokens, causal=False)
    decoded = _part(1, 1, shape.decoded_tokens, causal=True)

    def _run(rows: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = torch.empty_like(rows)
        # Outputs [rows, heads, head_dim], natural log-sum-exps [heads, rows].
        merge(output, *context(rows, keys, values), *decoded(rows, keys, values))
        return output

    return Planned(run=_run, note=f"FlashAttention-{version}; page tables not timed")


def check() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return vLLM's flash-attn, merge and selection of FlashAttention, or refuse them."""
    attend = need(
        _NAME,
        load(_NAME, _FLASH_ATTN),
        "flash_attn_varlen_func",
        ("seqused_k", "block_table", "return_softmax_lse", "fa_version"),
    )
    merge = need(_NAME, load(_NAME, *_MERGES), "merge_attn_states")
    return attend, merge, need(_NAME, load(_NAME, *_VERSIONS), "get_flash_attn_version")


def _flash_attention(choose: Callable[..., Any], head_dim: int) -> int:
    """Return the FlashAttention version that vLLM would select on this GPU.

    ``flash_attn_varlen_func`` takes FlashAttention-2 unless told otherwise.

    Raises
    ------
    KernelError
        If it selects none.
    """
    asked = {"head_size": head_dim} if "head_size" in parameters_of(choose) else {}
    version = choose(**asked)
    if version is None:
        raise KernelError(f"vLLM has no FlashAttention for this GPU and head_dim = {head_dim}")
    return int(version)
