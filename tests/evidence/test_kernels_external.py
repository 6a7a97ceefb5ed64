"""Adapters to other libraries: absent here, so a stand-in plays the library by its documentation.

The stand-ins compute with plain products, and check what an adapter hands over: paging, offsets
and scale. That the real libraries agree is for a machine that has them.
"""

import sys
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels import EXTERNAL_KERNELS, find_kernel

Draw = Callable[..., tuple[Tensor, ...]]
Reference = Callable[..., Tensor]


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attend to [tokens, kv_heads, head_dim], return output and natural log-sum-exp."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (part.repeat_interleave(group, dim=1) for part in (keys, values))
    logits = torch.einsum("qhd,khd->qhk", query, keys) * scale
    return torch.einsum("qhk,khd->qhd", logits.softmax(-1), values), logits.logsumexp(-1)


class Cascade:
    """Two levels over one paged cache, as FlashInfer documents its wrapper."""

    def __init__(self, levels: int, workspace: Tensor, layout: str) -> None:
        assert (levels, workspace.dtype, layout) == (2, torch.uint8, "NHD")

    def plan(self, *plan: Any, sm_scale: float, q_data_type: Any, kv_data_type: Any) -> None:
        """Keep the plan."""
        assert q_data_type == kv_data_type
        self.levels = list(zip(*plan[:4], strict=True))
        self.heads, self.kv_heads, self.head_dim, self.page_size = plan[4:]
        self.scale = sm_scale

    def run(self, query: Tensor, pages: Tensor) -> Tensor:
        """Attend to each row's pages of every level at once."""
        assert pages.shape[1:] == (2, self.page_size, self.kv_heads, self.head_dim)
        output = torch.empty_like(query)
        for row in range(query.shape[0]):
            seen: list[Tensor] = []
            for query_ends, page_ends, page_numbers, last_page in self.levels:
                owner = int(torch.searchsorted(query_ends, row, right=True)) - 1
                listed = page_numbers[page_ends[owner] : page_ends[owner + 1]].long()
                tokens = (len(listed) - 1) * self.page_size + int(last_page[owner])
                seen.append(pages[listed].transpose(1, 2).flatten(0, 1)[:tokens])
            keys, values = torch.cat(seen).unbind(1)
            output[row] = attend(query[row : row + 1], keys, values, self.scale)[0][0]
        return output


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    max_seqlen_q: int,
    cu_seqlens_q: Tensor,
    max_seqlen_k: int,
    cu_seqlens_k: Tensor,
    softmax_scale: float,
    causal: bool,
    return_softmax_lse: bool,
) -> tuple[Tensor, Tensor]:
    """Attend sequence by sequence, log-sum-exp as [heads, rows], as vLLM's flash-attn does."""
    assert return_softmax_lse
    assert not causal
    ends = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True))
    parts = []
    for (query_start, key_start), (query_end, key_end) in pairwise(ends):
        assert query_end - query_start <= max_seqlen_q
        assert key_end - key_start <= max_seqlen_k
        keys, values = k[key_start:key_end], v[key_start:key_end]
        parts.append(attend(q[query_start:query_end], keys, values, softmax_scale))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]).T


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins where the adapters look."""
    flashinfer, vllm_flash_attn = ModuleType("flashinfer"), ModuleType("vllm.vllm_flash_attn")
    vars(flashinfer)["MultiLevelCascadeAttentionWrapper"] = Cascade
    vars(vllm_flash_attn)["flash_attn_varlen_func"] = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flashinfer", flashinfer)
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.vllm_flash_attn", vllm_flash_attn)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", EXTERNAL_KERNELS)
@pytest.mark.parametrize("scale", [None, 0.4])
def test_an_adapter_hands_over_the_whole_problem(
    name: str, scale: float | None, random_inputs: Draw, reference: Reference
) -> None:
    """Pages, offsets and the last page's length describe exactly the caches given."""
    for shape in [(2, 3, 2, 3, 64, 40, 5), (1, 4, 1, 1, 64, 16, 16), (3, 1, 2, 7, 64, 1, 33)]:
        inputs = random_inputs(shape)
        output = EXTERNAL_KERNELS[name].function(*inputs, scale=scale)
        truth = reference(*inputs, scale=scale)
        torch.testing.assert_close(output, truth, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", EXTERNAL_KERNELS)
def test_an_adapter_refuses_an_empty_part(name: str, random_inputs: Draw) -> None:
    """An empty sequence would come back with a log-sum-exp of +inf."""
    for sizes in [(1, 2, 1, 1, 64, 4, 0), (1, 2, 1, 1, 64, 0, 4)]:
        with pytest.raises(KernelError, match="at least one context and one decoded token"):
            EXTERNAL_KERNELS[name].function(*random_inputs(sizes))


@pytest.mark.parametrize("name", EXTERNAL_KERNELS)
def test_an_absent_library_is_named(
    name: str, random_inputs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which package is missing and how to get it."""
    for module in ("flashinfer", "vllm", "vllm.vllm_flash_attn"):
        monkeypatch.setitem(sys.modules, module, None)
    kernel = EXTERNAL_KERNELS[name]
    with pytest.raises(KernelError, match=r"pip install (flashinfer-python|vllm)") as caught:
        kernel.function(*random_inputs((1, 2, 1, 1, 64, 4, 2)))
    assert "\n" not in str(caught.value)
    assert not kernel.available
    with pytest.raises(KernelError, match="which is not installed"):
        find_kernel(name)
