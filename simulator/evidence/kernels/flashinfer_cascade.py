"""FlashInfer's multi-level cascade: contexts and own tokens as two levels of one paged cache.

Its log-sum-exps are base 2, which only its own merge sees.
"""

from typing import Any

import torch
from torch import Tensor

from simulator.evidence.kernels.external import (
    Planned,
    load,
    need,
    need_both_parts,
    parameters_of,
    planned_each_time,
)
from simulator.evidence.kernels.inputs import Shape, scale_of, shape_of
from simulator.evidence.kernels.layout import Inputs
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS, flashinfer_workspace_bytes
from simulator.evidence.kernels.paged import page_ends, page_numbers, query_ends

_NAME = "flashinfer_cascade"
_WRAPPER = "MultiLevelCascadeAttentionWrapper"


def plan_flashinfer(inputs: Inputs, *, scale: float | None = None, graph: bool = False) -> Planned:
    """Attend by FlashInfer's ``MultiLevelCascadeAttentionWrapper`` with two levels.

    Raises
    ------
    KernelError
        If FlashInfer is not installed or of another kind, or a part has no tokens.
    """
    wrapper_type = flashinfer_wrapper()
    shape = shape_of(*inputs)
    need_both_parts(_NAME, shape)
    query, keys = inputs[0], inputs[1]
    levels = [
        query_ends(shape, query.device),
        page_ends(shape, query.device),
        tuple(numbers.flatten() for numbers in page_numbers(shape, query.device)),
        _last_pages(shape, query.device),
    ]
    wrapper = _wrapper(wrapper_type, shape, query.device, levels, graph=graph)
    types: dict[str, torch.dtype] = {"q_data_type": query.dtype}
    # Up to 0.2.5 a cache has the type of the query.
    if "kv_data_type" in parameters_of(wrapper.plan):
        types["kv_data_type"] = keys.dtype
    wrapper.plan(
        *(list(level) for level in levels),
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        PAGE_TOKENS,
        sm_scale=scale_of(query, scale),
        **types,
    )

    def run(rows: Tensor, key_pool: Tensor, value_pool: Tensor) -> Tensor:
        output: Tensor = wrapper.run(rows, (key_pool, value_pool))
        return output

    return Planned(run=run, note="plan not timed")


flashinfer_cascade = planned_each_time(_NAME, plan_flashinfer)


def flashinfer_wrapper() -> Any:
    """Return the installed wrapper's type, or refuse it."""
    wrapper_type = need(_NAME, load(_NAME, "flashinfer"), _WRAPPER)
    need(_NAME, wrapper_type, "plan", ("sm_scale", "q_data_type"))
    return wrapper_type


def _wrapper(
    wrapper_type: Any,
    shape: Shape,
    device: torch.device,
    levels: list[tuple[Tensor, ...]],
    *,
    graph: bool,
) -> Any:
    """Make a wrapper; one for a CUDA graph reads its plan from buffers that stay where they are."""
    size = flashinfer_workspace_bytes(
        prompts=shape.prompts,
        samples=shape.samples,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    workspace = torch.empty(size, dtype=torch.uint8, device=device)
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


def _last_pages(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how many tokens the last page of each context, and of own tokens, holds."""

    def filled(count: int, tokens: int) -> Tensor:
        last = (tokens - 1) % PAGE_TOKENS + 1
        return torch.full((count,), last, dtype=torch.int32, device=device)

    sequences = shape.prompts * shape.samples
    return filled(shape.prompts, shape.context_tokens), filled(sequences, shape.decoded_tokens)
