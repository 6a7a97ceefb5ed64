"""vLLM's cascade: its flash-attn on the context, on own tokens, and its merge.

The calls are those of ``cascade_attention`` in ``vllm/v1/attention/backends/flash_attn.py``, which
0.7 to 0.31 have and 0.32 has no more; the functions it is made of are still there.
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
    need_both_parts,
    parameters_of,
    planned_each_time,
)
from simulator.evidence.kernels.inputs import scale_of, shape_of
from simulator.evidence.kernels.layout import Inputs
from simulator.evidence.kernels.paged import page_numbers, query_ends

_NAME = "vllm_cascade"
_FLASH_ATTN = "vllm.vllm_flash_attn"
# Where vLLM says which FlashAttention it takes, and where it merges: since 0.14, and before.
_VERSIONS = ("vllm.v1.attention.backends.fa_utils", "vllm.attention.utils.fa_utils")
_MERGES = ("vllm.v1.attention.ops.merge_attn_states", "vllm.attention.ops.merge_attn_states")


def plan_vllm(inputs: Inputs, *, scale: float | None = None, graph: bool = False) -> Planned:
    """Attend by vLLM's flash-attn on the context and on own tokens, merged by vLLM's kernel.

    Of several prompts each context is a sequence of its own; vLLM knows one context.

    Raises
    ------
    KernelError
        If vLLM is not installed or of another kind, or a part has no tokens.
    """
    del graph  # Every call is made of kernels alone.
    attend, merge, choose = vllm_functions()
    shape = shape_of(*inputs)
    need_both_parts(_NAME, shape)
    query = inputs[0]
    version = _flash_attention(choose, shape.head_dim)
    tables = page_numbers(shape, query.device)
    ends = query_ends(shape, query.device)
    factor = scale_of(query, scale)

    def part(level: int, queries: int, tokens: int, *, causal: bool) -> Callable[..., Any]:
        table = tables[level]
        used = torch.full((len(table),), tokens, dtype=torch.int32, device=query.device)

        def call(rows: Tensor, keys: Tensor, values: Tensor) -> Any:
            return attend(
                q=rows,
                k=keys,
                v=values,
                cu_seqlens_q=ends[level],
                seqused_k=used,
                max_seqlen_q=queries,
                max_seqlen_k=tokens,
                softmax_scale=factor,
                causal=causal,
                block_table=table,
                return_softmax_lse=True,
                fa_version=version,
            )

        return call

    context = part(0, shape.samples, shape.context_tokens, causal=False)
    own = part(1, 1, shape.decoded_tokens, causal=True)

    def run(rows: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = torch.empty_like(rows)
        # Outputs [rows, heads, head_dim], natural log-sum-exps [heads, rows].
        merge(output, *context(rows, keys, values), *own(rows, keys, values))
        return output

    return Planned(run=run, note=f"FlashAttention-{version}; page tables not timed")


vllm_cascade = planned_each_time(_NAME, plan_vllm)


def vllm_functions() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the installed flash-attn, merge and choice of FlashAttention, or refuse them."""
    attend = need(
        _NAME,
        load(_NAME, _FLASH_ATTN),
        "flash_attn_varlen_func",
        ("seqused_k", "block_table", "return_softmax_lse", "fa_version"),
    )
    merge = need(_NAME, load(_NAME, *_MERGES), "merge_attn_states")
    return attend, merge, need(_NAME, load(_NAME, *_VERSIONS), "get_flash_attn_version")


def _flash_attention(choose: Callable[..., Any], head_dim: int) -> int:
    """Return the FlashAttention that vLLM itself would take on this GPU.

    ``flash_attn_varlen_func`` takes FlashAttention-2 unless told.

    Raises
    ------
    KernelError
        If it takes none.
    """
    asked = {"head_size": head_dim} if "head_size" in parameters_of(choose) else {}
    version = choose(**asked)
    if version is None:
        raise KernelError(f"vLLM has no FlashAttention for this GPU and head_dim = {head_dim}")
    return int(version)
