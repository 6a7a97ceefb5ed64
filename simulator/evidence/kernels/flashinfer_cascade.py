"""FlashInfer's multi-level cascade: contexts and decoded tokens as two levels of one paged cache.

Its log-sum-exps are base 2; only its own merge uses them.
"""

from typing import Any

import torch
from torch import Tensor

from simulator.evidence.kernels.external import (
    Planned,
    load,
    need,
    page_ends,
    page_numbers,
    parameters_of,
    planned_call,
    query_ends,
)
from simulator.evidence.kernels.inputs import AttentionCall, Inputs
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS, flashinfer_workspace_bytes

_NAME = "flashinfer_cascade"
_WRAPPER = "MultiLevelCascadeAttentionWrapper"


def plan(inputs: Inputs, *, scale: float | None = None, graph: bool = False) -> Planned:
    """Attend with FlashInfer's ``MultiLevelCascadeAttentionWrapper`` with two levels.

    Parameters
    ----------
    inputs
        The five tensors of a kernel.
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.
    graph
        Whether the call will be captured in a CUDA graph.

    Raises
    ------
    KernelError
        If FlashInfer is missing or its interface differs, or it cannot take the inputs.
    """
    wrapper_type = check()
    call = planned_call(_NAME, inputs, scale)
    query, keys = inputs[0], inputs[1]
    levels = [
        query_ends(call),
        page_ends(call),
        tuple(numbers.flatten() for numbers in page_numbers(call)),
        _last_pages(call),
    ]
    wrapper = _wrapper(wrapper_type, call, levels, graph=graph)
    types: dict[str, torch.dtype] = {"q_data_type": query.dtype}
    # Up to 0.2.5 a cache has the type of the query.
    if "kv_data_type" in parameters_of(wrapper.plan):
        types["kv_data_type"] = keys.dtype
    wrapper.plan(
        *(list(level) for level in levels),
        call.heads,
        call.kv_heads,
        call.head_dim,
        PAGE_TOKENS,
        sm_scale=call.scale,
        **types,
    )

    def _run(rows: Tensor, key_pool: Tensor, value_pool: Tensor) -> Tensor:
        output: Tensor = wrapper.run(rows, (key_pool, value_pool))
        return output

    return Planned(run=_run, note="plan not timed")


def check() -> Any:
    """Return the installed wrapper class, or refuse it."""
    wrapper_type = need(_NAME, load(_NAME, "flashinfer"), _WRAPPER)
    need(_NAME, wrapper_type, "plan", ("sm_scale", "q_data_type"))
    return wrapper_type


def _wrapper(
    wrapper_type: Any, call: AttentionCall, levels: list[tuple[Tensor, ...]], *, graph: bool
) -> Any:
    """Make a wrapper; one for a CUDA graph reads its plan from buffers at fixed addresses."""
    size = flashinfer_workspace_bytes(call)
    workspace = torch.empty(size, dtype=torch.uint8, device=call.query.device)
    if not graph:
        return wrapper_type(2, workspace, "NHD")
    buffers = [[torch.empty_like(part) for part in level] for level in levels]
    return wrapper_type(
        2,
        workspace,
        "NHD",
        use_cuda_graph=True,
        qo_indptr_buf_arr=buffers[0],
        paged_kv_indptr_buf_arr=buffers[1],
        paged_kv_indices_buf_arr=buffers[2],
        paged_kv_last_page_len_buf_arr=buffers[3],
    )


def _last_pages(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return the tokens in the last page of each context, and of decoded tokens."""

    def filled(count: int, tokens: int) -> Tensor:
        last = (tokens - 1) % PAGE_TOKENS + 1
        return torch.full((count,), last, dtype=torch.int32, device=call.query.device)

    sequences = call.prompts * call.samples
    return filled(call.prompts, call.context_tokens), filled(sequences, call.decoded_tokens)
