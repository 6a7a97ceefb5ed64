"""Stand-ins for FlashInfer's and vLLM's cascade, for tests without them.

Each takes exactly what the library of some version takes (tests/data/library_signatures.toml), and
computes in plain products what that library documents: FlashInfer's log-sum-exp is base 2 and
[rows, heads], vLLM's natural and [heads, rows]; causal masks are aligned to the last key.
"""

import inspect
import math
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

SIGNATURES: dict[str, dict[str, list[dict[str, Any]]]] = tomllib.loads(
    (Path(__file__).parent / "data" / "library_signatures.toml").read_text(encoding="utf-8")
)
PAGE_TOKENS = 16


def versions(library: str, function: str) -> list[str]:
    """Every version of a library of which a function's signature is known."""
    return [version for entry in SIGNATURES[library][function] for version in entry["versions"]]


def entry_of(library: str, function: str, version: str) -> dict[str, Any]:
    """What is known of a function in a version."""
    return next(entry for entry in SIGNATURES[library][function] if version in entry["versions"])


def signature(library: str, function: str, version: str) -> inspect.Signature:
    """What a function takes in a version."""
    text = entry_of(library, function, version)["signature"]
    scope: dict[str, Any] = {}
    exec(f"def stand_in({text}): ...", scope)  # noqa: S102  (our own data file)
    return inspect.signature(scope["stand_in"])


def taking(known: inspect.Signature, function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function of named arguments another function's signature."""

    def call(*arguments: Any, **named: Any) -> Any:
        bound = known.bind(*arguments, **named)
        bound.apply_defaults()
        return function(**bound.arguments)

    vars(call)["__signature__"] = known
    return call


def attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attend to [tokens, kv_heads, head_dim]; output, natural log-sum-exp [rows, heads]."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (part.repeat_interleave(group, dim=1) for part in (keys, values))
    logits = torch.einsum("qhd,khd->qhk", query, keys) * scale
    if causal:
        rows, _, tokens = logits.shape
        unseen = torch.ones(rows, tokens, dtype=torch.bool).triu(tokens - rows + 1)
        logits = logits.masked_fill(unseen.unsqueeze(1), -torch.inf)
    return torch.einsum("qhk,khd->qhd", logits.softmax(-1), values), logits.logsumexp(-1)


def read_pages(pool: Tensor, numbers: Tensor, tokens: int) -> Tensor:
    """Read so many tokens from pages, [tokens, kv_heads, head_dim]."""
    assert -(-tokens // pool.shape[1]) <= len(numbers)
    return pool[numbers.long()].flatten(0, 1)[:tokens]


def check_pool(pool: Tensor, *sizes: int) -> None:
    """A pool of pages has no gaps."""
    assert pool.is_contiguous()
    assert pool.shape[1:] == sizes


class Cascade:
    """FlashInfer's wrapper, level by level as it goes: base 2, the last level first."""

    def __init__(self, version: str, **given: Any) -> None:
        workspace = given["float_workspace_buffer"]
        assert (workspace.dtype, given["kv_layout"]) == (torch.uint8, "NHD")
        assert workspace.numel() >= 128 * 2**20
        self.levels, self.graph = given["num_levels"], given["use_cuda_graph"]
        self.buffers = [
            given[f"{name}_buf_arr"]
            for name in (
                "qo_indptr",
                "paged_kv_indptr",
                "paged_kv_indices",
                "paged_kv_last_page_len",
            )
        ]
        assert all((part is not None) == self.graph for part in self.buffers)
        self.plan = taking(signature("flashinfer", "plan", version), self._plan)
        self.run = taking(signature("flashinfer", "run", version), self._run)

    def _plan(self, **given: Any) -> None:
        """Keep the plan; for a graph in the buffers."""
        names = ("qo_indptr_arr", "paged_kv_indptr_arr", "paged_kv_indices_arr")
        lists = [given[name] for name in (*names, "paged_kv_last_page_len")]
        assert all(part.dtype == torch.int32 for level in lists for part in level)
        assert all(len(level) == self.levels for level in lists)
        if self.graph:
            for buffers, level in zip(self.buffers, lists, strict=True):
                for buffer, part in zip(buffers, level, strict=True):
                    assert (buffer.dtype, buffer.shape) == (part.dtype, part.shape)
                    buffer.copy_(part)
            lists = self.buffers
        self.planned = list(zip(*lists, strict=True))
        self.sizes = given["page_size"], given["num_kv_heads"], given["head_dim"]
        self.heads, self.scale = given["num_qo_heads"], given["sm_scale"]
        self.types = given["q_data_type"], given.get("kv_data_type") or given["q_data_type"]
        assert not given["causal"]

    def _run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor]) -> Tensor:
        """Attend to every level and merge by powers of two."""
        assert q.shape[1:] == (self.heads, self.sizes[2])
        assert self.types == (q.dtype, paged_kv_cache[0].dtype)
        for pool in paged_kv_cache:
            check_pool(pool, *self.sizes)
        output, exponent = self._level(self.planned[-1], q, paged_kv_cache)
        for level in self.planned[:-1]:
            other, other_exponent = self._level(level, q, paged_kv_cache)
            total = torch.logaddexp2(exponent, other_exponent)
            weights = torch.exp2(exponent - total), torch.exp2(other_exponent - total)
            output = output * weights[0].unsqueeze(-1) + other * weights[1].unsqueeze(-1)
            exponent = total
        return output

    def _level(
        self, level: tuple[Tensor, ...], q: Tensor, pools: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Attend to one level."""
        return self.of_level(level, q, pools, self.sizes[0], self.scale)

    @staticmethod
    def of_level(
        level: tuple[Tensor, ...],
        q: Tensor,
        pools: tuple[Tensor, Tensor],
        page_tokens: int,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Attend to one level; log-sum-exp base 2, [rows, heads]."""
        query_ends, page_ends, numbers, last = level
        assert int(query_ends[-1]) == len(q)
        assert int(page_ends[-1]) == len(numbers)
        found = []
        for owner in range(len(query_ends) - 1):
            listed = numbers[page_ends[owner] : page_ends[owner + 1]]
            tokens = (len(listed) - 1) * page_tokens + int(last[owner])
            keys, values = (read_pages(pool, listed, tokens) for pool in pools)
            rows = q[query_ends[owner] : query_ends[owner + 1]]
            found.append(attend(rows, keys, values, scale))
        return (
            torch.cat([output for output, _ in found]),
            torch.cat([lse for _, lse in found]) / math.log(2),
        )


def flash_attn_varlen_func(**given: Any) -> tuple[Tensor, Tensor]:
    """vLLM's flash-attn over a paged cache, log-sum-exp [heads, rows]."""
    q, k, v, table = given["q"], given["k"], given["v"], given["block_table"]
    ends, used = given["cu_seqlens_q"], given["seqused_k"]
    assert given["return_softmax_lse"]
    assert given["fa_version"] == 3
    assert given.get("cu_seqlens_k") is None
    assert ends.dtype == used.dtype == table.dtype == torch.int32
    assert len(ends) - 1 == len(used) == len(table)
    assert int(ends[-1]) == len(q)
    for pool in (k, v):
        check_pool(pool, PAGE_TOKENS, k.shape[2], q.shape[2])
    found = []
    for owner in range(len(used)):
        rows, tokens = q[ends[owner] : ends[owner + 1]], int(used[owner])
        assert len(rows) <= given["max_seqlen_q"]
        assert tokens <= given["max_seqlen_k"]
        keys, values = (read_pages(pool, table[owner], tokens) for pool in (k, v))
        found.append(attend(rows, keys, values, given["softmax_scale"], causal=given["causal"]))
    return torch.cat([output for output, _ in found]), torch.cat([lse for _, lse in found]).T


def merge_attn_states(**given: Any) -> None:
    """vLLM's merge, by natural log-sum-exps of [heads, rows], into an output of its caller's."""
    prefix, suffix = given["prefix_lse"], given["suffix_lse"]
    rows, heads, _ = given["output"].shape
    assert prefix.shape == suffix.shape == (heads, rows)
    weights = torch.softmax(torch.stack([prefix, suffix]), dim=0).transpose(1, 2).unsqueeze(-1)
    merged = given["prefix_output"] * weights[0] + given["suffix_output"] * weights[1]
    given["output"].copy_(merged)


def module(name: str, **members: Any) -> ModuleType:
    """A module that holds these."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(members)
    return made


def install_flashinfer(patch: pytest.MonkeyPatch, version: str) -> None:
    """Let ``import flashinfer`` find the stand-in of a version."""
    made = signature("flashinfer", "init", version)

    def wrapper(*arguments: Any, **named: Any) -> Cascade:
        bound = made.bind(*arguments, **named)
        bound.apply_defaults()
        return Cascade(version, **bound.arguments)

    # The adapter looks at the class's plan before it makes one.
    vars(wrapper)["plan"] = taking(signature("flashinfer", "plan", version), lambda **_: None)
    found = module("flashinfer", MultiLevelCascadeAttentionWrapper=wrapper)
    patch.setitem(sys.modules, "flashinfer", found)


def install_vllm(patch: pytest.MonkeyPatch, version: str) -> None:
    """Let ``import vllm`` and what is below find the stand-ins of a version, and nothing else."""
    attend_name, merge_name, choose_name = (
        "flash_attn_varlen_func",
        "merge_attn_states",
        "get_flash_attn_version",
    )
    for name in VLLM_MODULES:
        patch.setitem(sys.modules, name, None)
    patch.setitem(sys.modules, "vllm", module("vllm"))
    functions = {
        merge_name: merge_attn_states,
        choose_name: lambda **_: 3,
        attend_name: flash_attn_varlen_func,
    }
    for name, function in functions.items():
        source = entry_of("vllm", name, version)["source"]
        place = source.removesuffix(".py").replace("/", ".")
        place = "vllm.vllm_flash_attn" if name == attend_name else place
        known = taking(signature("vllm", name, version), function)
        patch.setitem(sys.modules, place, module(place, **{name: known}))


VLLM_MODULES = (
    "vllm",
    "vllm.vllm_flash_attn",
    "vllm.attention.ops.merge_attn_states",
    "vllm.attention.utils.fa_utils",
    "vllm.v1.attention.ops.merge_attn_states",
    "vllm.v1.attention.backends.fa_utils",
)
