"""Accounts of the attention kernels against the paper and against each other."""

import math
from typing import Any

import numpy as np
import pytest
from builders import (
    SLOTS,
    attention_only,
    by_name,
    deepseek_v3,
    llama_2_7b,
    llama_3_8b_attention,
    mistral_7b,
    model,
    step_operations,
)
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.attention.flash import flash_splits
from simulator.counts.attention.registry import PLAIN_KERNELS, WAYS, find_way
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation, total
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload
from simulator.one_page import Sizes, decode_step, kv_bytes

SIZES = st.fixed_dictionaries(
    {
        "g": st.sampled_from([1, 2, 4, 8]),
        "p": st.sampled_from([1, 3, 8]),
        "b": st.integers(1, 64),
        "n": st.integers(1, 4),
        "m_c": st.integers(1, 9000),
        "m_d": st.integers(1, 500),
    }
)


def _attention(shape: ModelShape, **work: Any) -> dict[str, Operation]:
    named = by_name(step_operations(shape, **work))
    around = {"attention_norm", "attention_residual", "attention_all_reduce"}
    return {
        name: operation
        for name, operation in named.items()
        if name.startswith(("attention", "kv_re", "kv_con", "query_fold")) and name not in around
    }


@given(SIZES)
def test_einsum_moves_what_appendix_e2_says(sizes: dict[str, int]) -> None:
    """Both products together move E.2's elements; split, queries and outputs pass once more.

    The formulas are written out here as the paper prints them. Its section on the overhead of
    splitting counts the second b n d of the outputs and neglects that of the queries.
    """
    g, b, n, m_c, m_d = (sizes[name] for name in ("g", "b", "n", "m_c", "m_d"))
    h, k = g * sizes["p"], 32
    m, d = m_c + m_d, g * sizes["p"] * 32
    standard = (b * h * n * k + b * g * m * k + b * h * n * m) + (
        b * h * n * m + b * g * m * k + b * n * d
    )
    bifurcated = (b * h * n * k + g * m_c * k + b * g * m_d * k + b * h * n * m) + (
        b * h * n * m + g * m_c * k + b * g * m_d * k + b * n * d
    )
    work = {
        "kernel": "einsum",
        "samples": b,
        "query_tokens": n,
        "context_tokens": m_c,
        "decoded_tokens": m_d,
    }
    shape = attention_only(h, g, k)
    moved = {
        attention: sum(
            operation.bytes_moved
            for operation in _attention(shape, attention=attention, **work).values()
            if operation.kind == "attention"
        )
        for attention in ("standard", "bifurcated")
    }
    assert moved["standard"] == 2 * standard
    assert moved["bifurcated"] == 2 * (bifurcated + b * h * n * k + b * n * d)


@given(SIZES)
def test_kv_reads_are_equations_5_and_6(sizes: dict[str, int]) -> None:
    """K and V in bf16: four bytes for every element of g k b (m_c + m_d), g k (m_c + b m_d)."""
    g, b, m_c, m_d = (sizes[name] for name in ("g", "b", "m_c", "m_d"))
    work = {"samples": b, "context_tokens": m_c, "decoded_tokens": m_d}
    for kernel in ("ideal", "flash", "einsum"):
        shape = attention_only(g * sizes["p"], g, 32)
        read = {
            attention: total(
                _attention(shape, attention=attention, kernel=kernel, **work).values()
            ).kv_bytes_read
            for attention in ("standard", "bifurcated")
        }
        assert read["standard"] == 4 * g * 32 * b * (m_c + m_d)
        assert read["bifurcated"] == 4 * g * 32 * (m_c + b * m_d)
    page = Sizes(b=b, m_c=m_c, m_d=m_d, g=g, k=32, h=g * sizes["p"], L=1, d=1, f=1, v=1)
    assert read == {attention: kv_bytes(page, attention) for attention in read}


def test_the_paper_s_flops() -> None:
    """4 b h n k (m_c + m_d): the page that prints the paper, and every kernel."""
    expected = 4 * 16 * 32 * 128 * 8256
    page = Sizes(b=16, m_c=8192, m_d=64, g=8, k=128, h=32, L=1, d=1, f=1, v=1)
    flops = {name: flops for name, _, flops, _ in decode_step(page, "bifurcated")}
    assert flops["attention"] == expected
    for kernel in ("ideal", "flash", "einsum", "sdpa_math"):
        operations = _attention(attention_only(32, 8), attention="bifurcated", kernel=kernel)
        assert total(operations.values()).flops == expected


def test_an_empty_part_is_not_launched() -> None:
    """Without own tokens there is no suffix kernel and nothing to merge; likewise the context."""
    for kernel, merge in (("flash", "attention_merge"), ("einsum", "attention_sum")):
        work = {"attention": "bifurcated", "kernel": kernel}
        fresh = _attention(attention_only(32, 8), decoded_tokens=0, **work)
        alone = _attention(attention_only(32, 8), context_tokens=0, **work)
        for operations, missing in ((fresh, "suffix"), (alone, "context")):
            absent = [operation for name, operation in operations.items() if missing in name]
            assert absent
            for operation in (*absent, operations[merge]):
                assert operation.launches == operation.flops == operation.bytes_moved == 0


@pytest.mark.parametrize("kv_layout", ["copies", "shared", "rebuilt"])
@pytest.mark.parametrize("execution", ["graph", "eager"])
@pytest.mark.parametrize("kernel", tuple(WAYS))
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_without_any_keys_there_is_no_attention(
    attention: str, kernel: str, execution: str, kv_layout: str
) -> None:
    """No context and no own tokens: nothing is launched; one token of either is enough."""
    work = {"attention": attention, "kernel": kernel, "execution": execution}
    layer, sizes = attention_only(32, 8), {"context_tokens": 0, "decoded_tokens": 0}
    for operation in _attention(layer, **work, kv_layout=kv_layout, **sizes).values():
        for field in ("launches", "flops", "bytes_moved", "thread_blocks", "sequences"):
            assert getattr(operation, field) == 0, (operation.name, field)
    for token in sizes:
        some = _attention(layer, **work, kv_layout=kv_layout, **{**sizes, token: 1})
        assert sum(operation.launches for operation in some.values()) > 0


def test_one_stored_context_is_read_as_often_as_copies() -> None:
    """Shared storage saves memory, not reads: only the L2 cache can serve the repeats."""
    for kernel in ("ideal", "flash", "einsum"):
        copies, shared = (
            _attention(mistral_7b(), attention="standard", kernel=kernel, kv_layout=layout)
            for layout in ("copies", "shared")
        )
        moved = [
            sum(operation.bytes_moved for operation in operations.values())
            for operations in (copies, shared)
        ]
        assert moved[0] == moved[1]
        # 15 of 16 reads of 8192 tokens x 8 KV heads x 128 x 2 bytes, K and V.
        more = sum(shared[name].reused_bytes - copies[name].reused_bytes for name in copies)
        assert more == 15 * 8192 * 8 * 128 * 2 * 2


def test_a_rebuilt_cache_is_written_and_read_once_more() -> None:
    """Concatenation reads the context once and writes a whole cache for every sample."""
    token = 8 * 128 * 2 * 2
    rebuilt = _attention(mistral_7b(), attention="standard", kv_layout="rebuilt")
    concatenate = rebuilt.pop("kv_concatenate")
    assert concatenate.bytes_read == (8192 + 16 * 64) * token
    assert concatenate.bytes_written == 16 * (8192 + 64) * token
    assert rebuilt == _attention(mistral_7b(), attention="standard", kv_layout="copies")


@pytest.mark.parametrize("layout", ["copies", "shared", "rebuilt"])
def test_bifurcated_attention_has_one_layout(layout: str) -> None:
    """It keeps one context however the standard baseline stores it."""
    shared = _attention(mistral_7b(), attention="bifurcated", kv_layout="shared")
    assert _attention(mistral_7b(), attention="bifurcated", kv_layout=layout) == shared


def test_only_plain_pytorch_folds_queries_apart() -> None:
    """Serving kernels fold the queries while they rotate them; one head has nothing to fold."""
    folds = {
        execution: "query_fold"
        in _attention(mistral_7b(), attention="bifurcated", execution=execution)
        for execution in ("graph", "compiled", "eager")
    }
    assert folds == {"graph": False, "compiled": False, "eager": True}
    launches = [
        _attention(shape, attention="bifurcated", execution="eager")["query_fold"].launches
        for shape in (mistral_7b(), llama_2_7b(), attention_only(32, 1))
    ]
    assert launches == [1, 0, 0]


def test_the_math_path_repeats_heads_only_where_they_are_grouped() -> None:
    """Multi-head caches need no repeat; compiled, neither repeats nor scaling are left."""
    work = {"attention": "standard", "kernel": "sdpa_math"}
    grouped, multi_head = (
        _attention(shape, execution="eager", **work)["kv_repeat"]
        for shape in (mistral_7b(), llama_2_7b())
    )
    assert (grouped.launches, multi_head.launches) == (2, 0)
    assert multi_head.bytes_moved == 0
    einsum = {**work, "kernel": "einsum"}
    assert _attention(mistral_7b(), **work) == _attention(mistral_7b(), **einsum)


def _filled(blocks: int, splits: int, resident: int) -> float:
    """Return the share of the slots of all waves that the blocks take."""
    waves = blocks * splits / resident
    return waves / math.ceil(waves)


@given(blocks=st.integers(1, 2000), tokens=st.integers(1, 200_000), resident=st.integers(1, 700))
def test_splits_fill_the_gpu_and_are_worth_it(blocks: int, tokens: int, resident: int) -> None:
    """As ``num_splits_heuristic`` of FlashAttention: 85 % as full as the best number of splits."""
    splits = flash_splits(blocks=blocks, tokens=tokens, resident=resident)
    if blocks >= 0.8 * resident:
        assert splits == 1
        return
    most = min(128, math.ceil(tokens / 256))
    assert 1 <= splits <= most
    best = max(_filled(blocks, some, resident) for some in range(1, most + 1))
    assert _filled(blocks, splits, resident) >= 0.85 * best


@pytest.mark.parametrize(
    ("blocks", "resident", "splits"),
    [
        (128, 216, 3),  # A100, batch 16 of 8 KV heads: 384 of 432
        (72, 132, 5),  # H100, 128 samples of 36 heads that share one KV head: 360 of 396
        (96, 132, 4),  # 384 of 396
        (108, 132, 1),  # 82 % of the slots are enough
    ],
)
def test_blocks_that_leave_slots_idle_run_in_several_waves(
    blocks: int, resident: int, splits: int
) -> None:
    """What FlashAttention's heuristic chooses where one wave would leave a third of it idle."""
    assert flash_splits(blocks=blocks, tokens=2**17, resident=resident) == splits


def test_few_heads_are_split_and_many_are_not() -> None:
    """Of 264 resident blocks: 8 heads of 8192 keys are cut in 32, 512 sequence-heads not at all."""
    assert flash_splits(blocks=8, tokens=8192, resident=SLOTS) == 32
    assert flash_splits(blocks=512, tokens=8192, resident=SLOTS) == 1
    assert flash_splits(blocks=8, tokens=64, resident=SLOTS) == 1


@pytest.mark.parametrize(
    ("samples", "context_tokens", "blocks"),
    [
        (1, 256, 8),  # one part for each of 8 KV heads
        (1, 512, 16),  # two even parts
        (1, 768, 24),
        (1, 384, 8 * 384 / 256),  # parts of 256 and 128: the longer one sets the pace
        (64, 512, 16),  # 256 rows fill four tiles a head, which read the same keys
    ],
)
def test_blocks_count_distinct_keys(samples: int, context_tokens: int, blocks: float) -> None:
    """Mistral-7B's 8 KV heads: a context streams in as many blocks as read different parts."""
    operations = _attention(
        mistral_7b(),
        attention="bifurcated",
        samples=samples,
        context_tokens=context_tokens,
        decoded_tokens=1,
    )
    assert operations["attention_context"].effective_blocks == blocks


def test_prompts_multiply_everything_but_launches() -> None:
    """Two contexts with 8 samples each: twice one of 8, in the same kernels."""
    for attention in ("standard", "bifurcated"):
        for kernel in ("ideal", "einsum"):
            work = {"attention": attention, "kernel": kernel, "samples": 8}
            one = total(_attention(mistral_7b(), **work).values())
            two = total(_attention(mistral_7b(), prompts=2, **work).values())
            assert two.launches == one.launches
            for field in ("flops", "bytes_read", "bytes_written", "kv_bytes_read"):
                assert getattr(two, field) == 2 * getattr(one, field)


def test_query_tokens_reuse_the_keys() -> None:
    """Speculative decoding of 4 tokens has 4 times the FLOPs on the same keys."""
    for attention in ("standard", "bifurcated"):
        one, four = (
            total(_attention(mistral_7b(), attention=attention, query_tokens=n).values())
            for n in (1, 4)
        )
        assert four.flops == 4 * one.flops
        assert four.kv_bytes_read == one.kv_bytes_read


def test_a_latent_cache_has_one_head() -> None:
    """MLA: 128 query heads fold into the rows of a single cached head of 576 and 512 values."""
    operations = _attention_of_one_layer(deepseek_v3())
    context = operations["attention_context"]
    assert context.kv_bytes_read == 8192 * 576 * 2
    # 16 samples x 128 heads are 2048 rows, 32 tiles: 264 // 32 = 8 parts of 1024 tokens.
    assert context.effective_blocks == 8
    assert operations["attention_merge"].bytes_written == 16 * 128 * 512 * 2


def _attention_of_one_layer(shape: ModelShape) -> dict[str, Operation]:
    data = {**shape.as_dict(), "layers": 1, "layer_groups": ({"count": 1, "mlp": "experts"},)}
    return _attention(ModelShape.read(data), attention="bifurcated")


@pytest.mark.parametrize(
    ("tree", "again", "stored"),
    [
        ("root=4,problem=3x2", 0, 0),
        # The two problems read the root twice.
        ("root=4+problem=3x2", 4, 4),
        # Four sequences read the root four times, and each of two problems twice.
        ("root=4+problem=3x2+", 3 * 4 + 2 * 3, 4 + 2 * 3),
    ],
)
def test_levels_read_together_are_read_again(tree: str, again: int, stored: int) -> None:
    """Tokens of 16 bytes, 2 samples a problem: what L2 may serve, and what it must hold for it."""
    for kernel in ("ideal", "flash"):
        work = {"tree": tree, "samples": 2, "decoded_tokens": 1, "kernel": kernel}
        operations = _attention(model(), attention="bifurcated", **work).values()
        for field, tokens in (("reused_bytes", again), ("reused_footprint_bytes", stored)):
            assert sum(getattr(each, field) for each in operations) == 16 * tokens


@pytest.mark.parametrize("kernel", ["einsum", "sdpa_math"])
def test_products_take_a_single_level(kernel: str) -> None:
    """A tree of one level is prompts that share nothing; two levels have no product."""
    refusal = find_way(kernel).refusal
    assert refusal(mistral_7b(), Workload()) == ""
    assert refusal(mistral_7b(), Workload(tree="problem=512x8")) == ""
    assert "a tree of 2 levels" in refusal(mistral_7b(), Workload(tree="system=2K,problem=512x8"))


@pytest.mark.parametrize(
    ("context_tokens", "samples", "own"),
    [(200, 100, 4), (130, 3, 5), (128, 64, 1), (0, 70, 3), (300, 1, 0)],
)
def test_one_mask_computes_the_blocks_it_touches(
    context_tokens: int, samples: int, own: int
) -> None:
    """The mask, written out and cut into 128 x 128: FLOPs of every (row, key) of such a block."""
    group, keys = 2, context_tokens + samples * own
    row, key = np.arange(samples * group)[:, None], np.arange(keys)[None, :] - context_tokens
    mask = (key < 0) | (key // max(own, 1) == row // group)
    blocks = [
        mask[i : i + 128, j : j + 128] for i in range(0, len(row), 128) for j in range(0, keys, 128)
    ]
    pairs = sum(block.size for block in blocks if block.any())
    whole = llama_3_8b_attention(samples, context_tokens, resident_blocks=SLOTS)
    shape = whole._replace(prompts=3, heads=8 * group, decoded_tokens=own)
    _, call, _ = PLAIN_KERNELS["bifurcated_flex"].operations(shape)
    assert call.flops == 3 * 2 * 8 * pairs * (128 + 128)


@pytest.mark.parametrize("kernel", tuple(WAYS))
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_products_run_in_the_format_of_the_activations(attention: str, kernel: str) -> None:
    """Which is fp32 where the weights are, and bf16 with weights of 8 bits."""
    for weights, format_ in (("fp32", "fp32"), ("fp16", "fp16"), ("fp8", "bf16")):
        work = {"attention": attention, "kernel": kernel, "weight_dtype": weights}
        operations = _attention(mistral_7b(), **work).values()
        assert {each.dtype for each in operations if each.flops} == {format_}


# Three samples of 10 context and 2 own tokens, 4 heads in 2 groups of 2 values, in bf16: 12 query
# rows, 48 bytes of queries and of outputs, and as much of log-sum-exps. A token takes 16 bytes.
TINY = AttentionShape(
    prompts=1,
    samples=3,
    query_tokens=1,
    context_tokens=10,
    decoded_tokens=2,
    heads=4,
    kv_heads=2,
    key_width=2,
    value_width=2,
    cache_width=8,
    activation_bytes=2,
    kv_bytes=2,
    dtype="bf16",
    resident_blocks=SLOTS,
)


def _plain(name: str, **changes: Any) -> dict[str, Operation]:
    return by_name(PLAIN_KERNELS[name].operations(TINY._replace(**changes)))


def test_a_context_in_chunks_by_hand() -> None:
    """Four chunks of 2 tokens, each with an output and a log-sum-exp, and 2 tokens that remain."""
    found = _plain("bifurcated_flash_chunked")
    chunks, rest, merge = (found[f"attention_{name}"] for name in ("context", "remainder", "merge"))
    assert (chunks.flops, chunks.bytes_read, chunks.bytes_written) == (768, 48 + 128, 4 * 96)
    assert (rest.flops, rest.bytes_read, rest.bytes_written) == (192, 48 + 32, 96)
    # Of each chunk a thread block for each of two KV heads.
    assert (chunks.thread_blocks, rest.thread_blocks) == (8, 2)
    # Six states: own tokens, chunks and remainder.
    assert (merge.bytes_read, merge.bytes_written) == (
        12 * 48 + 96 + 5 * 192,
        12 * 48 + 5 * 96 + 48,
    )
    assert merge.launches == 8
    assert found["query_fold"].bytes_moved == 2 * 48


@pytest.mark.parametrize(
    ("samples", "query_tokens", "context_tokens", "folds"),
    [(1, 1, 10, 0), (1, 4, 10, 1), (2, 4, 10, 1), (3, 1, 10, 1), (3, 1, 0, 0)],
)
def test_chunks_fold_query_tokens_as_samples(
    samples: int, query_tokens: int, context_tokens: int, folds: int
) -> None:
    """One row of one sample is a view; without a context there is nothing to fold for."""
    sizes = {"samples": samples, "query_tokens": query_tokens, "context_tokens": context_tokens}
    assert _plain("bifurcated_flash_chunked", **sizes)["query_fold"].launches == folds


def test_repeated_heads_are_written_and_read_once_more() -> None:
    """3 x 12 tokens of 16 bytes are 576; K and V of twice as many heads, in two kernels."""
    found = _plain("standard_repeat_kv")
    repeat = found["kv_repeat"]
    assert (repeat.bytes_read, repeat.bytes_written, repeat.launches) == (576, 1152, 2)
    assert found["attention"].kv_bytes_read == 1152


def test_a_rebuilt_cache_is_concatenated_then_read() -> None:
    """Stored are 10 + 3 x 2 tokens, rebuilt 3 x 12; then it is a cache of copies."""
    concatenate, *rest = PLAIN_KERNELS["standard_rebuilt"].operations(TINY)
    assert (concatenate.bytes_read, concatenate.bytes_written) == (16 * 16, 36 * 16)
    assert rest == PLAIN_KERNELS["standard_flash"].operations(TINY)
    assert sum(each.kv_bytes_read for each in rest) == 36 * 16


def test_a_middle_level_is_laid_out_by_prompt() -> None:
    """Two nodes of two prompts each: outputs and log-sum-exps of 32 rows are copied, 128 B each."""
    work = {"tree": "a=2,b=3x2,c=2x2", "samples": 2, "decoded_tokens": 1, "execution": "eager"}
    found = _attention(model(), attention="bifurcated", **work)
    spread = {name: each for name, each in found.items() if name.startswith("attention_spread")}
    assert [each.bytes_read for each in spread.values()] == [0, 256, 0]
    assert [each.launches for each in spread.values()] == [0, 2, 0]


def test_masks_of_several_query_tokens_by_hand() -> None:
    """Three of two samples: 24 rows, 9 pairs among new tokens or 21 with all 7 keys."""
    sizes = {"samples": 2, "query_tokens": 3, "context_tokens": 4, "decoded_tokens": 3}
    einsum = _plain("standard_einsum", **sizes)["attention_mask"]
    # A byte for each pair; 24 x 3 logits of 2 bytes are changed in place.
    assert (einsum.bytes_read, einsum.bytes_written, einsum.launches) == (144 + 9, 144, 1)
    found = _plain("standard_math", **sizes)
    # Bytes become numbers of 2 bytes, by two fills and a where.
    made, added = found["attention_mask"], found["attention_mask_add"]
    assert (made.bytes_read, made.bytes_written, made.launches) == (21 + 2 * 2, 42 + 2 * 2, 3)
    # 24 x 7 float32 logits.
    assert (added.bytes_read, added.bytes_written, added.launches) == (672 + 42, 672, 1)
    wide = _plain("standard_math", **sizes, activation_bytes=4)["attention_mask"]
    assert (wide.bytes_read, wide.bytes_written) == (21 + 2 * 4, 84 + 2 * 4)


def test_the_math_path_casts_what_is_not_float32() -> None:
    """Queries, keys and values, weights and outputs; in float32 nothing."""
    for element, launches in ((2, [1, 2, 1, 1]), (4, [0, 0, 0, 0])):
        found = _plain("standard_math", activation_bytes=element, kv_bytes=element)
        assert [each.launches for name, each in found.items() if "cast" in name] == launches


@pytest.mark.parametrize("kernel", tuple(WAYS))
def test_a_way_says_whether_its_logits_pass_through_memory(kernel: str) -> None:
    """If it writes as much as one pass of them: 32 heads x 16 samples x 8256 keys x 2 bytes."""
    written = total(_attention(attention_only(32, 8), kernel=kernel).values()).bytes_written
    assert find_way(kernel).logits_in_memory == (written >= 32 * 16 * 8256 * 2)
