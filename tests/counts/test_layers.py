"""Everything around attention: each weight is read once; plain PyTorch does it in more kernels."""

from typing import Any

import pytest
from builders import (
    REAL_MODELS,
    by_name,
    deepseek_v3,
    mixtral_8x7b,
    model,
    model_shapes,
    step_operations,
)
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import Operation, total
from simulator.inputs.dtypes import DTYPE_BYTES, activation_dtype
from simulator.inputs.model import Experts, LatentAttention, ModelShape, count_parameters
from simulator.inputs.presets import load_model, presets

# So many tokens that every expert is visited.
MANY = 10**6


def _matrices_read(shape: ModelShape, **work: Any) -> float:
    """Weight bytes a step reads, the rows of the token table left out."""
    operations = step_operations(shape, samples=MANY, context_tokens=0, **work)
    rows = by_name(operations[:1])["embedding"].weight_bytes_read
    return total(operations).weight_bytes_read - rows


def _matrices_held(shape: ModelShape) -> int:
    """Parameters that some product multiplies, from the exact count; a tied head is one."""
    count = count_parameters(shape)
    width = shape.embedding_size or shape.hidden_size
    widening = 2 * width * shape.hidden_size if width != shape.hidden_size else 0
    head = shape.vocab_size * (width + shape.lm_head_bias)
    return count.attention + count.mlp + head + widening - _vectors(shape)


def _vectors(shape: ModelShape) -> int:
    """Values in layers that multiply nothing: convolutions, decays, scales, norms of index keys."""
    values = 0
    for group in shape.layer_groups:
        values += group.count * group.vectors
        if group.state is not None:
            values += group.count * (group.state.channels * group.state.taps + group.state.vectors)
        if shape.indexer is not None and group.attends and group.indexes:
            values += group.count * 2 * shape.indexer.dim
    return values


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_step_reads_every_matrix_of_a_preset_once(name: str) -> None:
    """The bytes read are those of the published parameters: nothing is forgotten, nothing twice."""
    shape = load_model(name)
    assert _matrices_read(shape) == pytest.approx(2 * _matrices_held(shape), rel=1e-12)


@given(model_shapes(), st.sampled_from(["graph", "eager"]))
def test_a_step_reads_every_matrix_once(shape: ModelShape, execution: str) -> None:
    """Biases, gates, routers, latent and narrow token tables included, however it is executed."""
    read = _matrices_read(shape, execution=execution)
    assert read == pytest.approx(2 * _matrices_held(shape), rel=1e-12)


@given(model_shapes(), st.sampled_from(["standard", "bifurcated"]))
def test_plain_pytorch_multiplies_the_same_with_more_traffic(
    shape: ModelShape, attention: str
) -> None:
    """Eager execution has the FLOPs of fused execution, but more launches and bytes."""
    work = {"attention": attention, "samples": 3, "context_tokens": 100, "decoded_tokens": 3}
    fused, eager = (
        total(step_operations(shape, execution=execution, **work))
        for execution in ("graph", "eager")
    )
    assert eager.flops == fused.flops
    assert eager.launches > fused.launches
    assert eager.bytes_read + eager.bytes_written > fused.bytes_read + fused.bytes_written


@pytest.mark.parametrize("shape", REAL_MODELS, ids=lambda shape: shape.name)
def test_compiled_and_graph_do_the_same_work(shape: ModelShape) -> None:
    """They differ in how kernels are launched, not in what they move."""
    assert step_operations(shape, execution="compiled") == step_operations(shape, execution="graph")


def _names(**changes: Any) -> list[str]:
    return [operation.name for operation in step_operations(model(**changes))]


def test_norms_are_those_of_the_architecture() -> None:
    """Falcon-7B's parallel block has one norm, Llama two, Gemma-2 four; OPT-350m no final one."""
    norms = {
        count: [name for name in _names(norms_per_layer=count) if name.endswith("_norm")]
        for count in (0, 1, 2, 4)
    }
    assert norms == {
        0: ["final_norm"],
        1: ["attention_norm", "final_norm"],
        2: ["attention_norm", "mlp_norm", "final_norm"],
        4: ["attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm", "final_norm"],
    }
    assert "final_norm" not in _names(extra_norms=0)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"norm": "rms"}, 8),
        ({"norm": "layer"}, 16),  # weights and biases
        ({"norm": "layer", "norm_bias": False}, 8),
        ({"norm": "layer", "norm_weight": False}, 0),  # OLMo
    ],
)
def test_norms_read_the_weights_they_have(changes: dict[str, Any], weights: int) -> None:
    """A fused norm reads input and residual, 2 x 8 x 2 bytes, and its vectors."""
    operation = by_name(step_operations(model(**changes), samples=1))["attention_norm"]
    assert operation.bytes_read == 2 * (16 + weights)


def test_rotary_and_query_norms_are_there_where_the_model_has_them() -> None:
    """GPT-2 rotates nothing; Qwen3 normalises queries and keys."""
    assert "rotary" in _names()
    assert "rotary" not in _names(rotary=False, position_embeddings=64)
    assert "qk_norm" not in _names()
    assert "qk_norm" in _names(qk_norm="head")


def test_learned_positions_are_looked_up_beside_the_tokens() -> None:
    """Two tables: two rows and two indices for each of 3 tokens."""
    named = by_name(step_operations(model(position_embeddings=64), samples=3))
    assert named["embedding"].bytes_read == 3 * (2 * 8 * 2 + 2 * 8)


def test_a_narrow_token_table_is_widened_and_narrowed() -> None:
    """OPT-350m: rows of 4 become 8 wide before the layers, and 4 again before the head."""
    operations = by_name(step_operations(model(embedding_size=4), samples=1))
    assert operations["embedding"].weight_bytes_read == 4 * 2
    assert operations["embedding_projection"].flops == 2 * 4 * 8
    assert operations["head_projection"].flops == 2 * 8 * 4
    assert operations["lm_head"].flops == 2 * 4 * 32


def test_a_tied_head_is_multiplied_like_any_other() -> None:
    """Tying saves memory, not reads."""
    tied, free = (
        by_name(step_operations(model(tied_embeddings=tied)))["lm_head"] for tied in (True, False)
    )
    assert tied == free


@given(st.sampled_from(["bf16", "fp16", "fp32", "fp8", "int8", "int4"]), model_shapes())
def test_weights_are_read_in_their_format(dtype: str, shape: ModelShape) -> None:
    """Layers' matrices in the weights' format, table and head in that of the activations."""
    wide = DTYPE_BYTES[activation_dtype(dtype)]
    everything = step_operations(shape, weight_dtype=dtype)
    operations = [item for item in everything if item.kind != "quantise"]
    plain = step_operations(shape)
    for operation, bf16 in zip(operations, plain, strict=True):
        if operation.name in ("embedding", "lm_head", "embedding_projection", "head_projection"):
            assert operation.weight_bytes_read == pytest.approx(bf16.weight_bytes_read / 2 * wide)
        else:
            elements = bf16.weight_bytes_read / 2
            smallest, largest = sorted((DTYPE_BYTES[dtype], wide))
            assert smallest * elements <= operation.weight_bytes_read <= largest * elements
    named = by_name([item for item in operations if item.name == "output_projection"][:1])
    assert named["output_projection"].dtype == ("bf16" if dtype == "int4" else dtype)


def test_experts_cost_what_their_tokens_visit() -> None:
    """Mixtral, 3 tokens: FLOPs of 2 experts each, whichever they are, and a router of 8 columns."""
    named = by_name(step_operations(mixtral_8x7b(), samples=3))
    assert named["experts_up"].flops == 2 * 3 * 2 * 4096 * 2 * 14336
    assert named["experts_down"].flops == 2 * 3 * 2 * 14336 * 4096
    assert named["router"].flops == 2 * 3 * 4096 * 8


def test_a_gated_shared_expert_has_its_gate() -> None:
    """Qwen2-MoE weighs its shared expert by one more column."""
    experts = {"count": 4, "per_token": 2, "intermediate_size": 8, "shared_intermediate_size": 8}
    gated = model(experts=Experts(**experts, shared_gate=True))
    plain = model(experts=Experts(**experts))
    assert by_name(step_operations(gated, samples=3))["shared_expert_gate"].flops == 2 * 3 * 8
    assert "shared_expert_gate" not in by_name(step_operations(plain))


def test_dense_layers_come_before_the_experts() -> None:
    """DeepSeek-V3: 3 dense MLPs, 58 with experts and a shared expert."""
    repeats = {
        operation.name: operation.repeat
        for operation in step_operations(deepseek_v3())
        if operation.name in ("mlp_up", "experts_up", "shared_expert_up")
    }
    assert repeats == {"mlp_up": 3, "experts_up": 58, "shared_expert_up": 58}


def test_a_latent_model_without_query_compression() -> None:
    """DeepSeek-V2-Lite projects queries directly: 8 -> 4 heads x (4 + 2)."""
    latent = LatentAttention(kv_rank=6, rope_dim=2, nope_dim=4, value_dim=4)
    named = by_name(step_operations(model(latent=latent), samples=1))
    assert named["query_projection"].flops == 2 * 8 * 24
    assert "query_up_projection" not in named
    assert named["kv_write"].bytes_written == (6 + 2) * 2


def _sampling(**work: Any) -> Operation:
    return by_name(step_operations(model(), samples=5, **work))["sampling"]


def test_every_token_is_sampled() -> None:
    """Logits of each query token of each sample: 5 x 32 x 2 bytes, for speculation of 3, thrice."""
    assert _sampling().bytes_read == 5 * 32 * (2 + 4)
    assert _sampling(query_tokens=3).bytes_read == 3 * 5 * 32 * (2 + 4)


def test_plain_pytorch_samples_as_gpt_fast_does() -> None:
    """Five rows of 32 logits of 2 bytes, 8 times read and 5 times written, in 8 kernels.

    A byte for each logit whether it is filled, the last of the top 32 for each row, those with
    their int64 places, and the int64 token that is chosen.
    """
    sampling = _sampling(execution="eager")
    logits, mask = 5 * 32 * 2, 5 * 32
    assert sampling.bytes_read == 8 * logits + mask + 5 * 2
    assert sampling.bytes_written == 5 * logits + mask + 5 * 32 * (2 + 8) + 5 * 8
    assert sampling.launches == 8


@pytest.mark.parametrize(
    ("qk_norm", "execution", "read", "written"),
    [
        # Three tokens, 4 + 2 heads of 2 values, 2 bytes each.
        ("head", "graph", 3 * 6 * 2 * 2, 3 * 6 * 2 * 2),
        ("all", "graph", 3 * 6 * 2 * 2, 3 * 6 * 2 * 2),
        # Eagerly every value is read twice in 2 bytes and four times in 4, written as often but
        # once; three float32 for each vector are both; weights of a head, or of all, are read.
        ("head", "eager", 3 * 12 * (4 + 16) + 3 * 6 * 12 + 2 * 4, 3 * 12 * (4 + 12) + 3 * 6 * 12),
        ("all", "eager", 3 * 12 * (4 + 16) + 3 * 2 * 12 + 12 * 2, 3 * 12 * (4 + 12) + 3 * 2 * 12),
    ],
)
def test_queries_and_keys_are_normalised_by_head_or_all_together(
    qk_norm: str, execution: str, read: int, written: int
) -> None:
    """Values are as many either way; vectors and weights are not."""
    shape = model(qk_norm=qk_norm)
    found = by_name(step_operations(shape, samples=3, execution=execution))["qk_norm"]
    assert (found.bytes_read, found.bytes_written) == (read, written)


def test_activations_of_quantised_products_are_quantised_first() -> None:
    """Four inputs a layer, for 3 tokens: 8 wide (twice), 8 of the heads, 16 of the MLP."""
    shape = model(heads=2, kv_heads=1, head_dim=4, intermediate_size=16)
    named = by_name(step_operations(shape, samples=3, weight_dtype="fp8"))
    widths = {
        "attention_quantise": 8,
        "output_quantise": 8,
        "mlp_quantise": 8,
        "mlp_inner_quantise": 16,
    }
    assert widths.keys() == {name for name, item in named.items() if item.kind == "quantise"}
    for name, width in widths.items():
        moved = named[name].bytes_read, named[name].bytes_written, named[name].weight_bytes_read
        assert moved == (3 * width * 2, 3 * width, 0)
    # The product then reads them in its format; the head stays in 16 bits.
    up, head = named["mlp_up"], named["lm_head"]
    assert up.bytes_read - up.weight_bytes_read == 3 * 8
    assert head.bytes_read - head.weight_bytes_read == 3 * 8 * 2


@pytest.mark.parametrize(
    "options", [{}, {"weight_dtype": "int4"}, {"weight_dtype": "fp8", "execution": "eager"}]
)
def test_nothing_is_quantised_in_16_bits_or_by_plain_pytorch(options: dict[str, str]) -> None:
    """Weights of 4 bits are expanded, and plain PyTorch has no such kernel."""
    assert not [item for item in step_operations(model(), **options) if item.kind == "quantise"]


def test_fused_kernels_are_known_by_what_they_do() -> None:
    """Norms, activations and rotary of engines; plain PyTorch's many small kernels stay plain."""
    shape = model(rotary=True)
    for execution, kinds in (
        ("graph", {"attention_norm": "norm", "mlp_activation": "activation", "rotary": "rotary"}),
        ("eager", dict.fromkeys(("attention_norm", "mlp_activation", "rotary"), "elementwise")),
    ):
        named = by_name(step_operations(shape, execution=execution))
        assert {name: named[name].kind for name in kinds} == kinds
