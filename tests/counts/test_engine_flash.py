"""Shared-prefix kernels of engines: what each does otherwise than folded flash decoding."""

from typing import Any

import pytest
from builders import attention_only, deepseek_v3, llama_2_7b, windowed

from simulator.counts.attention.flash import FLASHINFER_ROWS, SharedKernel
from simulator.counts.attention.registry import find_way
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation, total
from simulator.counts.transformer import attention_shape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

ENGINES = ("vllm-cascade", "flashinfer", "trtllm-cascade")


def _shape(samples: int = 128, context: int = 4096, decoded: int = 64) -> AttentionShape:
    """Return 32 query heads on 8 KV heads of an A100."""
    work = Workload(samples=samples, context_tokens=context, decoded_tokens=decoded)
    setup = Setup(attention="bifurcated")
    return attention_shape(attention_only(32, 8), setup, work, resident_blocks=216)


def _named(kernel: str, **sizes: int) -> dict[str, Operation]:
    return {item.name: item for item in find_way(kernel).bifurcated(_shape(**sizes))}


@pytest.mark.parametrize(
    ("kernel", "blocks"),
    [
        (SharedKernel(), 8),  # 4 x 128 rows of a KV head in tiles of 64
        (SharedKernel(folds=False), 8),  # 128 rows of each of 4 heads: 2 tiles each
        (SharedKernel(folds=False, rows=(16,)), 32),  # 128 rows of each of 4 heads: 8 tiles each
        (SharedKernel(rows=FLASHINFER_ROWS), 4),  # more than 64 rows: tiles of 128
    ],
)
def test_blocks_of_a_kv_head(kernel: SharedKernel, blocks: int) -> None:
    """128 samples, four query heads a KV head."""
    assert kernel.row_blocks(_shape(), 128) == blocks


def test_the_smallest_tile_that_holds_all_rows() -> None:
    """FlashInfer: 16 rows in one tile of 16, 17 in one of 64, 65 in one of 128."""
    kernel, shape = SharedKernel(rows=FLASHINFER_ROWS, folds=False), _shape()
    assert [kernel.row_blocks(shape, rows) // 4 for rows in (16, 17, 64, 65, 129)] == [
        1,
        1,
        1,
        1,
        2,
    ]


def test_keys_are_not_split() -> None:
    """vLLM's FlashAttention-2 call over the prefix: 64 blocks, though 216 fit, and no combine."""
    operations = _named("vllm-cascade")
    context = operations["attention_context"]
    assert (context.thread_blocks, context.effective_blocks) == (64, 8)
    assert operations["attention_context_combine"].launches == 0
    assert _named("flash")["attention_context"].effective_blocks > 8


def test_the_last_kernel_merges() -> None:
    """TensorRT-LLM: two kernels and no merge; the second reads the first's result, 4 + 2 x 128."""
    operations = _named("trtllm-cascade", decoded=3)
    assert "attention_merge" not in operations
    plain = _named("flash", decoded=3)["attention_suffix"]
    read = operations["attention_suffix"].bytes_read - plain.bytes_read
    assert read == 128 * 32 * (128 * 2 + 4)
    alone = _named("trtllm-cascade", decoded=0)["attention_suffix"]
    assert alone.bytes_read == 0


@pytest.mark.parametrize("kernel", ENGINES)
def test_work_is_that_of_folded_flash(kernel: str) -> None:
    """The same products and the same KV bytes, whatever the tiles."""
    ours, theirs = (total(find_way(name).bifurcated(_shape())) for name in ("flash", kernel))
    assert (theirs.flops, theirs.kv_bytes_read) == (ours.flops, ours.kv_bytes_read)
    standard = [find_way(name).standard(_shape(), rereads=True) for name in ("flash", kernel)]
    assert standard[0] == standard[1]


@pytest.mark.parametrize(
    ("kernel", "model", "sizes", "words"),
    [
        ("vllm-cascade", "windows", {}, "sliding window"),
        ("trtllm-cascade", "full", {"tree": "1K, 512*4"}, "one prefix, not a tree"),
        ("flashinfer", "windows", {"tree": "1K, 512*4"}, ""),
        ("vllm-cascade", "full", {}, ""),
        ("vllm-cascade", "full", {"prompts": 8}, "what all prompts share"),
        ("vllm-cascade", "full", {"tree": "512*4"}, "what all prompts share"),
        ("flashinfer", "full", {"prompts": 8}, ""),
        ("trtllm-cascade", "full", {"prompts": 8}, ""),
    ],
)
def test_what_an_engine_does_not_share(
    kernel: str, model: str, sizes: dict[str, Any], words: str
) -> None:
    """vLLM and TensorRT-LLM share one prefix in layers of full attention, vLLM of all requests."""
    work = Workload(**sizes)
    refusal = find_way(kernel).refusal(windowed() if model == "windows" else llama_2_7b(), work)
    assert words in refusal
    assert bool(words) == bool(refusal)


@pytest.mark.parametrize("kernel", ENGINES)
def test_no_engine_shares_a_latent_cache(kernel: str) -> None:
    """A remark of flashinfer#789 says so of FlashInfer's; the others need K and V."""
    assert "latent" in find_way(kernel).refusal(deepseek_v3(), Workload())
