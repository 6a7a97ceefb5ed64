"""Other libraries' shared-prefix attention under the same signature, where they are installed."""

from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import Shape, scale_of, shape_of
from simulator.evidence.kernels.operators import State, merge

# FlashInfer asks for a buffer of this size for its split-KV partials. [bytes]
_WORKSPACE_BYTES = 128 * 1024 * 1024
_PAGE_TOKENS = 16


def flashinfer_cascade(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend by FlashInfer's ``MultiLevelCascadeAttentionWrapper`` with two levels.

    The caches are copied into pages and the plan is made inside this call: right for checking
    results, too much for timing, which should hold wrapper and pages over many calls. Written
    against the source of flashinfer-python 0.7.2.

    Raises
    ------
    KernelError
        If FlashInfer is not installed, or a part has no tokens.
    """
    flashinfer = _library("flashinfer", "flashinfer-python")
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    _need_both_parts(shape, "FlashInfer's cascade")
    sequences = shape.prompts * shape.samples
    own_keys, own_values = decoded_keys.flatten(0, 1), decoded_values.flatten(0, 1)
    context_pages = -(-shape.context_tokens // _PAGE_TOKENS)
    own_pages = -(-shape.decoded_tokens // _PAGE_TOKENS)
    first_own_page = shape.prompts * context_pages
    pages = torch.cat(
        [
            torch.stack([_paged(context_keys), _paged(context_values)], dim=1),
            torch.stack([_paged(own_keys), _paged(own_values)], dim=1),
        ]
    )  # [pages, 2, page tokens, kv_heads, head_dim]

    def steps(count: int, size: int) -> Tensor:
        return torch.arange(count + 1, dtype=torch.int32, device=query.device) * size

    def last_page(count: int, tokens: int) -> Tensor:
        filled = (tokens - 1) % _PAGE_TOKENS + 1
        return torch.full((count,), filled, dtype=torch.int32, device=query.device)

    page_numbers = torch.arange(pages.shape[0], dtype=torch.int32, device=query.device)
    workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=query.device)
    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(2, workspace, "NHD")
    wrapper.plan(
        [steps(shape.prompts, shape.samples), steps(sequences, 1)],
        [steps(shape.prompts, context_pages), steps(sequences, own_pages)],
        [page_numbers[:first_own_page], page_numbers[first_own_page:]],
        [
            last_page(shape.prompts, shape.context_tokens),
            last_page(sequences, shape.decoded_tokens),
        ],
        shape.heads,
        shape.kv_heads,
        shape.head_dim,
        _PAGE_TOKENS,
        sm_scale=scale_of(query, scale),
        q_data_type=query.dtype,
        kv_data_type=context_keys.dtype,
    )
    output: Tensor = wrapper.run(query.flatten(0, 1), pages)
    return output.reshape(query.shape)


def vllm_cascade(
    query: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    decoded_keys: Tensor,
    decoded_values: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """Attend by vLLM's flash-attn on the context and on own tokens, merged in float32.

    The context call takes a prompt's samples as one sequence, as vLLM's cascade does. The calling
    convention of ``flash_attn_varlen_func`` is recalled, and was not run against vLLM.

    Raises
    ------
    KernelError
        If vLLM is not installed, or a part has no tokens.
    """
    library = _library("vllm.vllm_flash_attn", "vllm")
    shape = shape_of(query, context_keys, context_values, decoded_keys, decoded_values)
    _need_both_parts(shape, "vLLM's cascade")
    rows = query.flatten(0, 1)  # [prompts * samples, heads, head_dim]

    def attend(keys: Tensor, values: Tensor, queries_per_sequence: int) -> State:
        batch, kv_heads, tokens, head_dim = keys.shape
        packed = (batch * tokens, kv_heads, head_dim)

        def ends(size: int) -> Tensor:
            return torch.arange(batch + 1, dtype=torch.int32, device=query.device) * size

        output, log_sum_exp = library.flash_attn_varlen_func(
            q=rows,
            k=keys.transpose(1, 2).reshape(packed),
            v=values.transpose(1, 2).reshape(packed),
            max_seqlen_q=queries_per_sequence,
            cu_seqlens_q=ends(queries_per_sequence),
            max_seqlen_k=tokens,
            cu_seqlens_k=ends(tokens),
            softmax_scale=scale_of(query, scale),
            causal=False,
            return_softmax_lse=True,
        )
        return output, log_sum_exp.transpose(0, 1)  # [heads, rows] -> [rows, heads]

    context = attend(context_keys, context_values, shape.samples)
    own = attend(decoded_keys.flatten(0, 1), decoded_values.flatten(0, 1), 1)
    return merge([own, context]).reshape(query.shape)


def _library(module: str, package: str) -> ModuleType:
    """Import a library, or say plainly that it is not there."""
    try:
        return import_module(module)
    except ImportError as problem:
        raise KernelError(
            f"{package} is not usable here ({problem}); install it on a CUDA machine: "
            f"pip install {package}"
        ) from None


def _need_both_parts(shape: Shape, what: str) -> None:
    """Refuse an empty part: a paged or varlen kernel would return a log-sum-exp of +inf."""
    if shape.context_tokens == 0 or shape.decoded_tokens == 0:
        raise KernelError(f"{what} needs at least one context and one decoded token")


def _paged(cache: Tensor) -> Tensor:
    """Copy [sequences, kv_heads, tokens, head_dim] into pages [..., page tokens, kv_heads, ...]."""
    sequences, kv_heads, tokens, head_dim = cache.shape
    count = -(-tokens // _PAGE_TOKENS)
    pages = cache.new_zeros(sequences, count * _PAGE_TOKENS, kv_heads, head_dim)
    pages[:, :tokens] = cache.transpose(1, 2)
    return pages.view(sequences * count, _PAGE_TOKENS, kv_heads, head_dim)
