"""Layers with a state: a Mamba-2 layer by hand, shares of GPUs, and what a GPU holds and reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import SLOTS, asked, by_name, step_operations

from simulator.counts.attention.linear import sequence_bytes
from simulator.counts.memory import kv_cache_bytes, state_bytes_per_sequence, weights_bytes
from simulator.counts.operation import total
from simulator.counts.pieces import Shard
from simulator.counts.transformer import check_split, decode_operations, prefill_operations
from simulator.errors import WorkloadError
from simulator.inputs.hf_config.model_types import shape_from_config
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import Setup

# Nemotron-H-56B: 256 heads of 64 values, states of 256 rows, 8 heads of keys.
NEMOTRON: dict[str, Any] = {
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "M-*-",
    "hidden_size": 8192,
    "intermediate_size": 32768,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "mamba_num_heads": 256,
    "mamba_head_dim": 64,
    "ssm_state_size": 256,
    "n_groups": 8,
    "vocab_size": 131072,
}
HYBRIDS = [
    case["config"]
    for case in json.loads(
        (Path(__file__).parents[1] / "data" / "hf_hybrids.json").read_text(encoding="utf-8")
    )["cases"]
]


def read(config: dict[str, Any], **changes: Any) -> ModelShape:
    """Read a config."""
    return shape_from_config({**config, **changes}, name="hybrid", where="config.json")


def splits(model: ModelShape, ranks: int) -> bool:
    """Return whether some GPUs can share a model."""
    try:
        check_split(model, ranks)
    except WorkloadError:
        return False
    return True


def test_a_step_of_mamba_2_is_as_worked_by_hand() -> None:
    """16 sequences; 2 T k n FLOPs of a product, two products with each state."""
    found = by_name(step_operations(read(NEMOTRON), samples=16))
    # z, x, B and C of 8 heads, and a time step for each head.
    columns = 16384 + 16384 + 2 * 8 * 256 + 256
    assert found["state_input_projection"].flops == 2 * 16 * 8192 * columns
    assert found["state_output_projection"].flops == 2 * 16 * 16384 * 8192
    recurrence = found["recurrence"]
    states = 16 * 256 * 256 * 64 * 4
    assert recurrence.flops == 16 * 256 * 2 * (2 * 256 * 64)
    assert recurrence.bytes_read == states + 16 * 2 * (16384 + 2 * 8 * 256)
    assert recurrence.bytes_written == states + 16 * 2 * 16384
    # Channels of x, B and C: three earlier inputs of each, and the new one, in and out.
    assert found["convolution"].bytes_read == 16 * 20480 * 2 * (1 + 3)
    assert found["convolution"].bytes_written == 16 * 20480 * 2 * (1 + 3)


def test_a_sequence_holds_a_state_in_fp32_and_the_inputs_of_its_convolution() -> None:
    """16.8 MB and 123 kB a layer, however long the context."""
    model = read(NEMOTRON)
    setup, short = asked(context_tokens=1000, kv_layout="copies")
    _, long = asked(context_tokens=100_000)
    states = 256 * 256 * 64 * 4 + 20480 * 3 * 2
    assert state_bytes_per_sequence(model, setup) == states
    cached = 8 * 2 * 128 * 2
    grown = kv_cache_bytes(model, setup, long) - kv_cache_bytes(model, setup, short)
    assert grown == 99_000 * cached * short.samples  # one copy each


def test_gpus_split_states_and_copy_keys_that_are_fewer() -> None:
    """Of 16 GPUs each has 16 heads of values, and one of 8 heads of keys."""
    found = by_name(step_operations(read(NEMOTRON), samples=16, tensor_parallel=16))
    columns = (16384 + 16384 + 256) / 16 + 2 * 256
    assert found["state_input_projection"].flops == 2 * 16 * 8192 * columns
    assert found["convolution"].bytes_read == 16 * (16384 / 16 + 2 * 256) * 2 * 4
    assert found["recurrence"].flops == 16 * 16 * 2 * (2 * 256 * 64)
    assert found["state_all_reduce"].bytes_read == 16 * 8192 * 2
    shard = Shard(model=read(NEMOTRON), setup=Setup(tensor_parallel=16), tokens=1)
    state = next(group.state for group in shard.model.layer_groups if group.state)
    assert sequence_bytes(shard, state) == 256 * 256 * 64 * 4 / 16 + 1536 * 3 * 2


def test_a_prefill_of_mamba_2_multiplies_inside_chunks_of_its_own_size() -> None:
    """For each token: q k^T for each head of keys; with values, k v^T and S^T q for each state."""
    setup, work = asked(context_tokens=1000, samples=4)
    found = by_name(prefill_operations(read(NEMOTRON, chunk_size=128), setup, work))
    pairs, states = 8 * 128 * 256, 256 * (128 * 64 + 2 * 256 * 64)
    assert found["recurrence"].flops == 1000 * 2 * (pairs + states)
    assert found["recurrence"].serial_steps == 8


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({"mamba_num_heads": 96, "n_groups": 6}, 64, "the 96 state heads and 6 key heads of"),
        ({"mamba_num_heads": 96, "n_groups": 6}, 4, "the 96 state heads and 6 key heads of"),
        ({"num_key_value_heads": 64}, 128, "the 64 heads and 64 KV heads of"),
    ],
)
def test_states_that_do_not_split_are_named(
    changes: dict[str, Any], ranks: int, message: str
) -> None:
    """Heads of states must divide; heads of keys divide, or are copied."""
    with pytest.raises(WorkloadError, match=message):
        check_split(read(NEMOTRON, **changes), ranks)


def test_experts_behind_a_projection_are_narrower() -> None:
    """Nemotron 3: tokens go from 96 values to 32 and back; experts multiply 32 values."""
    model = read(
        {**NEMOTRON, "hybrid_override_pattern": "E", "hidden_size": 96},
        moe_latent_size=32,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        moe_shared_expert_intermediate_size=64,
    )
    found = by_name(step_operations(model, samples=5, routing="balanced"))
    assert found["experts_latent_projection"].flops == 2 * 5 * 96 * 32
    assert found["experts_latent_output"].flops == 2 * 5 * 32 * 96
    assert found["experts_up"].flops == 2 * (5 * 2) * 32 * 48
    assert found["experts_up"].weight_bytes_read == 8 * 32 * 48 * 2
    assert found["router"].flops == 2 * 5 * 96 * 8


def test_scans_have_no_products_of_their_own() -> None:
    """Mamba multiplies channel by channel; only its projections are matrix products."""
    sizes = {"hidden_size": 8192, "vocab_size": 211, "num_hidden_layers": 1}
    model = read({"model_type": "mamba", **sizes})
    found = by_name(step_operations(model, samples=3, tensor_parallel=4))
    assert found["recurrence"].flops == 0
    # A quarter of 16384 channels with 16 values each; keys and queries of 16 values are copied.
    assert found["recurrence"].bytes_read == 3 * (4096 * 16 * 4 + 2 * (4096 + 2 * 16))
    # Time steps of rank 512, keys and queries: split by rows, so summed over the GPUs.
    assert found["selection"].flops == 2 * 3 * 4096 * (512 + 32)
    assert found["selection_all_reduce"].bytes_read == 3 * (512 + 32) * 2


@pytest.mark.parametrize("config", HYBRIDS, ids=lambda config: config["model_type"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_gpu_reads_the_matrices_that_it_holds(config: dict[str, Any], ranks: int) -> None:
    """With all experts visited, a step reads all but tables, norms, and vectors.

    Blocks that several layers share are read once for each layer.
    """
    model = read(config)
    if not splits(model, ranks):
        pytest.skip("the heads do not split")
    biased = model.output_bias or model.mlp_bias or model.lm_head_bias
    operations = step_operations(
        model, samples=10**6, context_tokens=0, tensor_parallel=ranks, weight_dtype="bf16"
    )
    rows = by_name(operations[:1])["embedding"].weight_bytes_read
    read_bytes = total(operations).weight_bytes_read - rows
    count = count_parameters(model)
    vectors = sum(
        group.count
        * (group.vectors + (state.vectors + state.channels * state.taps if state else 0))
        for group in model.layer_groups
        for state in [group.state]
    )
    tables = 0 if model.tied_embeddings else count.embedding
    kept = 2 * (tables / ranks + count.norms + vectors / ranks)
    held = weights_bytes(model, Setup(tensor_parallel=ranks, weight_dtype="bf16"))
    shared = any(group.distinct not in (None, group.count) for group in model.layer_groups)
    if shared or biased:
        # Biases of sums over GPUs are read by each.
        assert read_bytes >= (held - kept) * (1 - 1e-9)
    else:
        assert read_bytes == pytest.approx(held - kept, rel=1e-9)


@pytest.mark.parametrize("config", HYBRIDS, ids=lambda config: config["model_type"])
def test_every_hybrid_has_a_step_and_a_prefill(config: dict[str, Any]) -> None:
    """Where nothing attends, a step and the memory do not depend on the context."""
    model = read(config)
    setup, short = asked(context_tokens=640, samples=3)
    _, long = asked(context_tokens=6400, samples=3)
    steps = [
        total(decode_operations(model, setup, work, resident_blocks=SLOTS))
        for work in (short, long)
    ]
    prefills = [total(prefill_operations(model, setup, work)) for work in (short, long)]
    if any(group.attends and not group.limited for group in model.layer_groups):
        assert steps[1].bytes_read > steps[0].bytes_read
        assert prefills[1].flops > 9 * prefills[0].flops
    elif not any(group.attends for group in model.layer_groups):
        assert steps[1] == steps[0]
        assert kv_cache_bytes(model, setup, short) == kv_cache_bytes(model, setup, long)
