"""Layers whose attention or MLP differs: each kind's own matrices, caches and reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import by_name, gemma_4_e2b, mimo_v2, step_operations

from simulator.counts.memory import kv_cache_bytes, weights_bytes
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.model import Experts, LayerGroup, ModelShape, count_parameters
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "hf_varied_models.json").read_text()
)["cases"]
MANY = 10**6  # tokens that visit every expert
ASKED: dict[str, Any] = {"samples": 16, "context_tokens": 32_768, "decoded_tokens": 64}


def kv_read(shape: ModelShape, **settings: Any) -> dict[str, float]:
    """Return the KV bytes that all layers of a kind read, by the name of their attention."""
    return {
        operation.name: operation.kv_bytes_read * operation.repeat
        for operation in step_operations(shape, **settings)
        if operation.kv_bytes_read
    }


@pytest.mark.parametrize("execution", ["graph", "eager"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["config"]["model_type"])
def test_a_step_reads_every_matrix_of_the_transformers_module_once(
    case: dict[str, Any], execution: str
) -> None:
    """Matrices of all kinds of layers, per-layer inputs and residual streams included."""
    shape = shape_from_config(case["config"], name="tiny", where="config.json")
    operations = step_operations(shape, samples=MANY, context_tokens=0, execution=execution)
    read = sum(
        operation.weight_bytes_read * operation.repeat
        for operation in operations
        if operation.kind != "gather"
    )
    assert read == pytest.approx(2 * case["matrices"], rel=1e-12)


def test_a_step_reads_a_compressed_query_and_both_its_matrices() -> None:
    """Step-3: d x rank, rank x queries, and nothing of d x queries."""
    sizes = {"heads": 4, "kv_heads": 1, "head_dim": 16, "hidden_size": 64}
    shape = ModelShape(
        name="tiny", layers=1, **sizes, query_rank=24, intermediate_size=96, vocab_size=100
    )
    attention = 64 * (24 + 2 * 16) + 24 * 4 * 16 + 4 * 16 * 64
    count = count_parameters(shape)
    assert count.attention == attention
    assert count.norms == 3 * 64 + 24
    operations = step_operations(shape, samples=1, context_tokens=0)
    rows = by_name(operations)["embedding"].weight_bytes_read
    read = total(operations).weight_bytes_read - rows
    assert read == 2 * (attention + count.mlp + count.head)


def test_gemma_4_e2b_reads_its_caches_layer_by_layer() -> None:
    """Of 35 layers, 28 see 512 tokens of one head 256 wide, 7 all 32,832 of one head 512 wide.

    The last 20 read the caches of earlier layers, but they read them all the same.
    """
    windowed = 28 * 16 * 512 * 2 * 256 * 2
    full = 7 * 16 * 32_832 * 2 * 512 * 2
    read = kv_read(gemma_4_e2b(), **ASKED)
    assert read == {"attention_windowed": windowed, "attention": full}
    assert sum(read.values()) == 7_765_753_856


def test_gemma_4_e2b_keeps_the_caches_of_15_layers() -> None:
    """12 windows and 3 whole caches, one copy for each sample: 3.33 GB."""
    setup, work = Setup(kv_layout="copies"), Workload(**ASKED)
    kept = 16 * (12 * 512 * 2 * 256 + 3 * 32_832 * 2 * 512) * 2
    assert kv_cache_bytes(gemma_4_e2b(), setup, work) == kept
    writes = [op for op in step_operations(gemma_4_e2b(), **ASKED) if "kv_write" in op.name]
    assert sum(op.repeat for op in writes) == 15


def test_mimo_v2_reads_keys_wider_than_values() -> None:
    """9 layers of 4 KV heads see all tokens, 39 of 8 see 129; K has 192 values, V 128."""
    assert kv_read(mimo_v2(), **ASKED) == {
        "attention": 9 * 16 * 32_832 * 4 * (192 + 128) * 2,
        "attention_windowed": 39 * 16 * 129 * 8 * (192 + 128) * 2,
    }


def test_mimo_v2_multiplies_with_keys_and_values_of_their_widths() -> None:
    """2 FLOPs for each value of K and of V, every one of 64 heads."""
    flops = sum(
        op.flops * op.repeat for op in step_operations(mimo_v2(), **ASKED) if op.kind == "attention"
    )
    assert flops == 2 * 16 * 64 * (192 + 128) * (9 * 32_832 + 39 * 129)


@pytest.mark.parametrize(("ranks", "full", "windowed"), [(2, 2, 4), (4, 1, 2), (8, 1, 1)])
def test_each_kind_of_layer_splits_its_own_kv_heads(ranks: int, full: int, windowed: int) -> None:
    """Four KV heads are copied from eight GPUs on, eight are not."""
    assert kv_read(mimo_v2(), tensor_parallel=ranks, **ASKED) == {
        "attention": 9 * 16 * 32_832 * full * 320 * 2,
        "attention_windowed": 39 * 16 * 129 * windowed * 320 * 2,
    }


def test_layer_inputs_are_rows_of_a_table_not_the_table() -> None:
    """Each of 16 tokens takes 35 x 256 values of a table of 2.3 billion, which lies in memory."""
    shape = gemma_4_e2b()
    gathered = by_name(step_operations(shape, **ASKED))["layer_inputs"]
    assert gathered.weight_bytes_read == 16 * 35 * 256 * 2
    table = 262_144 * 35 * 256
    assert weights_bytes(shape, Setup()) == 2 * count_parameters(shape).total > 2 * table
    assert total(step_operations(shape, **ASKED)).weight_bytes_read < 2 * (
        count_parameters(shape).total - table
    )


def test_layers_that_do_not_run_are_weights_alone() -> None:
    """A step and a prefill have the operations, and the memory the caches, of the others."""
    sizes = {"heads": 4, "kv_heads": 2, "head_dim": 16, "hidden_size": 64}
    common = {"name": "tiny", **sizes, "intermediate_size": 96, "vocab_size": 100}
    three = ModelShape(layers=3, **common)
    crossed = ModelShape(
        layers=5,
        layer_groups=(LayerGroup(count=3), LayerGroup(count=2, runs=False, vectors=34)),
        **common,
    )
    setup, work = Setup(), Workload(samples=4, context_tokens=100)
    for operations in (
        lambda shape: decode_operations(shape, setup, work, resident_blocks=8),
        lambda shape: prefill_operations(shape, setup, work),
    ):
        assert operations(crossed) == operations(three)
    assert kv_cache_bytes(crossed, setup, work) == kv_cache_bytes(three, setup, work)
    layer = (count_parameters(three).total - 2 * 100 * 64 - 64) // 3
    added = count_parameters(crossed).total - count_parameters(three).total
    assert added == 2 * (layer + 34)


def test_zero_experts_are_chosen_and_cost_nothing() -> None:
    """With 4 zero experts beside 8, a token visits two thirds of its 3 experts on average."""
    experts = {"count": 8, "per_token": 3, "intermediate_size": 32}
    shape = ModelShape(
        name="tiny",
        layers=1,
        hidden_size=64,
        heads=4,
        kv_heads=4,
        head_dim=16,
        intermediate_size=0,
        vocab_size=100,
        experts=Experts(**experts, zero=4),
    )
    operations = by_name(step_operations(shape, samples=1, context_tokens=0))
    up = operations["experts_up"]
    assert (up.m, up.groups) == (pytest.approx(2), pytest.approx(2))
    assert operations["router"].n == 12
    one = 3 * 64 * 32
    count = count_parameters(shape)
    assert count.total - count.active == (8 - 2) * one
