"""Adapters to the shared-prefix attention of other libraries, FlashInfer and vLLM.

Both libraries plan: they compute once what depends on sizes alone, for many calls. So an adapter is
a plan. Called like other kernels, it plans again on every call, which is fine for checking results
but too slow for timing.

FlashInfer's multi-level cascade has contexts and decoded tokens as two levels of one paged cache.
Its log-sum-exps are base 2; only its own merge uses them. vLLM's calls are those of
``cascade_attention`` in ``vllm/v1/attention/backends/flash_attn.py``, which versions 0.7 to 0.31
have: its flash-attn on the context and on decoded tokens, and its merge. 0.32 dropped it, but still
has the functions that it calls.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import AttentionCall, Inputs, call_of
from simulator.evidence.kernels.layout import page_pool, pages_of
from simulator.evidence.kernels.other_libraries import (
    OTHER_LIBRARIES,
    PAGE_TOKENS,
    flashinfer_workspace_bytes,
)


def as_pages(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the query's rows and the pools of keys and values: views of a paged cache."""
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    keys = page_pool(context_keys, decoded_keys)
    return query.flatten(0, -3), keys, page_pool(context_values, decoded_values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A planned call that can be made many times, with inputs of one size.

    Attributes
    ----------
    run
        Attends, given the result of ``arrange``.
    arrange
        Converts a kernel's inputs to the arguments of the call.
    note
        Note for measured rows.
    """

    run: Callable[..., Tensor]
    arrange: Callable[[Inputs], tuple[Tensor, ...]] = as_pages
    note: str = ""

    def attend(self, *inputs: Tensor) -> Tensor:
        """Arrange the five inputs, run, and shape the output like the query."""
        return self.run(*self.arrange(cast("Inputs", inputs))).reshape(inputs[0].shape)


def load(kernel: str, *modules: str) -> ModuleType:
    """Import the first module that exists: its place differs between versions.

    Raises
    ------
    KernelError
        If none exists.
    """
    library = OTHER_LIBRARIES[kernel]
    problem = ""
    for module in modules:
        try:
            return import_module(module)
        except Exception as caught:  # noqa: BLE001  (without CUDA, an import fails in many ways)
            problem = " ".join(str(caught).split())
    raise KernelError(
        f"{_versioned(kernel)} is not usable here ({problem}); "
        f"install it on a CUDA machine: pip install {library.distribution}"
    ) from None


def need(kernel: str, module: ModuleType, name: str, parameters: Iterable[str] = ()) -> Any:
    """Return a member of a library's module, checked for its parameters.

    Parameters
    ----------
    kernel
        Name of the kernel, for an error.
    module
        The module, or a class.
    name
        Name of the member.
    parameters
        Parameters that it must take.

    Raises
    ------
    KernelError
        If this version has no such member.
    """
    found = getattr(module, name, None)
    read = f"; the adapter is for {OTHER_LIBRARIES[kernel].versions}"
    if found is None:
        raise KernelError(f"{_versioned(kernel)} has no {module.__name__}.{name}{read}")
    missing = sorted(set(parameters) - set(parameters_of(found)))
    if missing:
        raise KernelError(f"{_versioned(kernel)}: {name} takes no {', '.join(missing)}{read}")
    return found


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)


def planned_call(kernel: str, inputs: Inputs, scale: float | None) -> AttentionCall:
    """Check the inputs of a library's kernel.

    Parameters
    ----------
    kernel
        Its name, for an error.
    inputs
        The five tensors.
    scale
        Factor on the logits, None for the default.

    Raises
    ------
    KernelError
        If they do not match; if there are several query tokens, which no adapter supports; or if a
        part is empty: a paged kernel would return a log-sum-exp of +inf.
    """
    call = call_of(*inputs, scale=scale)
    if call.query_tokens > 1:
        raise KernelError(f"{kernel} takes one query token, not {call.query_tokens}")
    if call.context_tokens == 0 or call.decoded_tokens == 0:
        raise KernelError(f"{kernel} needs at least one context and one decoded token")
    return call


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Contexts, or samples' decoded tokens, as sequences on pages of one cache.

    Attributes
    ----------
    queries, tokens
        Queries and keys of each sequence.
    query_ends, page_ends
        Offsets of the queries and of the pages of each sequence, from 0.
    pages
        Numbers of its pages, [sequences, pages].
    filled
        Tokens on the last page of each sequence.
    """

    queries: int
    tokens: int
    query_ends: Tensor
    page_ends: Tensor
    pages: Tensor
    filled: Tensor


def levels(call: AttentionCall) -> Iterator[Level]:
    """Yield the level of contexts, and that of decoded tokens."""
    sequences, first = call.prompts * call.samples, 0
    for count, queries, tokens in (
        (call.prompts, call.samples, call.context_tokens),
        (sequences, 1, call.decoded_tokens),
    ):
        size, device = pages_of(tokens), call.query.device
        steps = torch.arange(count + 1, dtype=torch.int32, device=device)
        pages = torch.arange(first, first + count * size, dtype=torch.int32, device=device)
        yield Level(
            queries=queries,
            tokens=tokens,
            query_ends=steps * queries,
            page_ends=steps * size,
            pages=pages.view(count, -1),
            filled=torch.full_like(steps[1:], (tokens - 1) % PAGE_TOKENS + 1),
        )
        first += count * size


def _versioned(kernel: str) -> str:
    """Return a library's name, with its version if it is installed."""
    library = OTHER_LIBRARIES[kernel]
    return f"{library.distribution} {library.version}".rstrip()


def check_flashinfer_cascade() -> Any:
    """Return FlashInfer's installed wrapper class, or refuse it."""
    name = "flashinfer_cascade"
    wrapper_type = need(name, load(name, "flashinfer"), "MultiLevelCascadeAttentionWrapper")
    need(name, wrapper_type, "plan", ("sm_scale", "q_data_type"))
    return wrapper_type


def plan_flashinfer_cascade(
    inputs: Inputs, *, scale: float | None = None, graph: bool = False
) -> Planned:
    """Attend with FlashInfer's ``MultiLevelCascadeAttentionWrapper`` with two levels.

    Parameters
    ----------
    inputs
        The five tensors of a kernel.
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.
    graph
        Whether the call will be captured in a CUDA graph, which reads its plan from buffers at
        fixed addresses.

    Raises
    ------
    KernelError
        If FlashInfer is missing or its interface differs, or it cannot take the inputs.
    """
    wrapper_type = check_flashinfer_cascade()
    call = planned_call("flashinfer_cascade", inputs, scale)
    query, keys = inputs[0], inputs[1]
    both = list(levels(call))
    plans = {
        "qo_indptr": [level.query_ends for level in both],
        "paged_kv_indptr": [level.page_ends for level in both],
        "paged_kv_indices": [level.pages.flatten() for level in both],
        "paged_kv_last_page_len": [level.filled for level in both],
    }
    buffers: dict[str, Any] = {
        f"{name}_buf_arr": [torch.empty_like(part) for part in parts]
        for name, parts in plans.items()
        if graph
    }
    size = flashinfer_workspace_bytes(call)
    workspace = torch.empty(size, dtype=torch.uint8, device=query.device)
    in_graph = {"use_cuda_graph": True, **buffers} if graph else {}
    wrapper = wrapper_type(len(both), workspace, "NHD", **in_graph)
    types: dict[str, torch.dtype] = {"q_data_type": query.dtype}
    # Up to 0.2.5 a cache has the type of the query.
    if "kv_data_type" in parameters_of(wrapper.plan):
        types["kv_data_type"] = keys.dtype
    sizes = (call.heads, call.kv_heads, call.head_dim, PAGE_TOKENS)
    wrapper.plan(*plans.values(), *sizes, sm_scale=call.scale, **types)

    def run(rows: Tensor, key_pool: Tensor, value_pool: Tensor) -> Tensor:
        output: Tensor = wrapper.run(rows, (key_pool, value_pool))
        return output

    return Planned(run=run, note="plan not timed")


def check_vllm_cascade() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return vLLM's flash-attn, merge and selection of FlashAttention, or refuse them.

    The last two lie in the first module since version 0.14, and in the second before.
    """
    name, asked = "vllm_cascade", ("seqused_k", "block_table", "return_softmax_lse", "fa_version")
    attend = need(name, load(name, "vllm.vllm_flash_attn"), "flash_attn_varlen_func", asked)
    merges = "vllm.v1.attention.ops.merge_attn_states", "vllm.attention.ops.merge_attn_states"
    choices = "vllm.v1.attention.backends.fa_utils", "vllm.attention.utils.fa_utils"
    merge = need(name, load(name, *merges), "merge_attn_states")
    return attend, merge, need(name, load(name, *choices), "get_flash_attn_version")


def plan_vllm_cascade(
    inputs: Inputs, *, scale: float | None = None, graph: bool = False
) -> Planned:
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
    attend, merge, choose = check_vllm_cascade()
    call = planned_call("vllm_cascade", inputs, scale)
    # The FlashAttention that vLLM would select: its function takes version 2 unless told otherwise.
    asked = {"head_size": call.head_dim} if "head_size" in parameters_of(choose) else {}
    version = choose(**asked)
    if version is None:
        raise KernelError(f"vLLM has no FlashAttention for this GPU and head_dim = {call.head_dim}")

    def part(level: Level, *, causal: bool) -> Callable[..., Any]:
        used = torch.full_like(level.filled, level.tokens)
        return partial(
            attend,
            cu_seqlens_q=level.query_ends,
            seqused_k=used,
            max_seqlen_q=level.queries,
            max_seqlen_k=level.tokens,
            softmax_scale=call.scale,
            causal=causal,
            block_table=level.pages,
            return_softmax_lse=True,
            fa_version=int(version),
        )

    of_context, of_decoded = levels(call)
    context, decoded = part(of_context, causal=False), part(of_decoded, causal=True)

    def run(rows: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        output = torch.empty_like(rows)
        given = {"q": rows, "k": keys, "v": values}
        # Outputs [rows, heads, head_dim], natural log-sum-exps [heads, rows].
        merge(output, *context(**given), *decoded(**given))
        return output

    return Planned(run=run, note=f"FlashAttention-{version}; page tables not timed")


# How each kernel of another library is checked, and planned.
ADAPTERS: dict[str, tuple[Callable[[], Any], Callable[..., Planned]]] = {
    "flashinfer_cascade": (check_flashinfer_cascade, plan_flashinfer_cascade),
    "vllm_cascade": (check_vllm_cascade, plan_vllm_cascade),
}
