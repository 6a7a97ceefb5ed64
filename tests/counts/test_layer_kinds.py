"""Layers of several kinds: what each sees, reads, keeps and multiplies."""

import pytest
from builders import by_name, model, step_operations
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.memory import kv_cache_bytes, state_bytes_per_sequence
from simulator.counts.operation import total
from simulator.counts.transformer import kinds, prefill_operations, visible_tokens
from simulator.inputs.model import (
    Indexer,
    LatentAttention,
    LayerGroup,
    ModelShape,
    State,
    count_parameters,
)
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

DELTA = State(
    rule="delta",
    k_heads=2,
    k_dim=4,
    v_heads=4,
    v_dim=8,
    columns=2 * 8 + 2 * 32 + 2 * 4,
    channels=2 * 8 + 32,
    taps=4,
    vectors=2 * 4 + 8,
)


def hybrid(**changes: object) -> ModelShape:
    """Return a model of width 64: three layers with a state, one with attention."""
    groups = (LayerGroup(count=3, attends=False, state=DELTA), LayerGroup(count=1))
    return model(
        layers=4, hidden_size=64, heads=8, kv_heads=2, head_dim=8, layer_groups=groups, **changes
    )


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100))
def test_a_chunk_holds_the_tokens_since_it_began(context: int, decoded: int, chunk: int) -> None:
    """Laid out one after the other, the last token sees those that share its chunk."""
    line = ["context"] * context + ["own"] * decoded
    last = len(line) - 1
    seen = [kind for place, kind in enumerate(line) if place // chunk == last // chunk]
    group = LayerGroup(count=1, chunk=chunk)
    assert visible_tokens(group, context, decoded) == (seen.count("context"), seen.count("own"))


@given(st.integers(1, 60), st.integers(1, 20))
def test_a_prefill_multiplies_the_pairs_of_each_chunk(tokens: int, chunk: int) -> None:
    """Every query with each key of its chunk up to itself, 4 k FLOPs for each head."""
    shape = model(
        layers=1, heads=4, kv_heads=2, head_dim=8, layer_groups=(LayerGroup(count=1, chunk=chunk),)
    )
    pairs = sum(query % chunk + 1 for query in range(tokens))
    operations = prefill_operations(shape, Setup(), Workload(context_tokens=tokens))
    assert by_name(operations)["prefill_attention_chunked"].flops == pairs * 4 * 4 * 8


def test_llama_4_keeps_64_tokens_in_its_chunks_after_8k() -> None:
    """At 8K + 64 tokens 36 layers hold 64 tokens and 12 hold all: 8 x 128 K and V in 16 bits."""
    scout = load_model("llama-4-scout")
    work = Workload(context_tokens="8K", decoded_tokens=64, samples=1)
    per_token = 2 * 8 * 128 * 2
    assert kv_cache_bytes(scout, Setup(attention="bifurcated"), work) == per_token * (
        36 * 64 + 12 * (8192 + 64)
    )


def test_a_state_is_counted_by_hand() -> None:
    """Three layers of 4 states [4, 8]: 128 values in fp32, and 3 inputs of 48 channels in 16 bits.

    A token and head multiplies its state three times: 6 x 4 x 8 FLOPs.
    """
    shape = hybrid()
    per_layer = 4 * 4 * 8 * 4 + 3 * 48 * 2
    assert state_bytes_per_sequence(shape, Setup()) == 3 * per_layer
    assert shape.cached_values == 2 * 2 * 8  # one layer attends
    named = by_name(step_operations(shape, samples=5))
    step = named["recurrence"]
    assert step.repeat == 3
    assert step.flops == 5 * 4 * 6 * 4 * 8
    states = 5 * 4 * 4 * 8 * 4
    assert step.bytes_read == states + 5 * (2 * 8 + 32) * 2
    assert step.bytes_written == states + 5 * 32 * 2
    assert named["state_input_projection"].flops == 2 * 5 * 64 * DELTA.columns


def test_parameters_of_a_state_are_counted_by_hand() -> None:
    """In: 64 x 88; out: 32 x 64; convolution: 48 x 4; decays, biases and a norm: 16."""
    attending = model(layers=4, hidden_size=64, heads=8, kv_heads=2, head_dim=8)
    state = 64 * 88 + 32 * 64 + 48 * 4 + 16
    attention = 64 * (64 + 2 * 16) + 64 * 64
    assert count_parameters(hybrid()).total == count_parameters(attending).total + 3 * (
        state - attention
    )


@given(samples=st.integers(1, 64), context=st.integers(0, 4096))
def test_states_grow_with_samples_and_not_with_the_context(samples: int, context: int) -> None:
    """Shared or not, each sample has its own; only layers with attention have keys to share."""
    work = Workload(samples=samples, context_tokens=context, decoded_tokens=1)
    for layout in ("copies", "shared"):
        setup = Setup(kv_layout=layout)
        keys = kv_cache_bytes(hybrid(), setup, work) - samples * state_bytes_per_sequence(
            hybrid(), setup
        )
        stored = context * (samples if layout == "copies" else 1) + samples
        assert keys == stored * 2 * 2 * 8 * 2


def test_a_cache_of_an_earlier_layer_is_read_and_not_kept() -> None:
    """Two of four layers read another's: half the cache, the same reads, no key projections."""
    groups = (LayerGroup(count=2), LayerGroup(count=2, kv="earlier"))
    plain = model(layers=4, heads=8, kv_heads=2, head_dim=8)
    shared = model(layers=4, heads=8, kv_heads=2, head_dim=8, layer_groups=groups)
    work = Workload(context_tokens=100, samples=3)
    assert 2 * kv_cache_bytes(shared, Setup(), work) == kv_cache_bytes(plain, Setup(), work)
    read = [total(step_operations(shape, samples=3)).kv_bytes_read for shape in (plain, shared)]
    assert read[0] == read[1]
    saved = count_parameters(plain).attention - count_parameters(shared).attention
    assert saved == 2 * plain.hidden_size * 2 * 2 * 8


def test_layers_of_other_sizes_have_operations_of_their_own() -> None:
    """Two KV heads in one layer, four half as wide in three others, whose values are narrower."""
    groups = (
        LayerGroup(count=1),
        LayerGroup(count=3, kv_heads=4, head_dim=4, value_dim=2, window=10),
    )
    shape = model(layers=4, heads=8, kv_heads=2, head_dim=8, layer_groups=groups)
    assert shape.cached_values == 2 * 16 + 3 * 4 * 6
    named = by_name(step_operations(shape, samples=3))
    assert named["qkv_projection"].n == 64 + 2 * 16
    assert named["qkv_projection_2"].n == 32 + 16 + 8
    assert named["output_projection_2"].k == 8 * 2
    assert named["attention_windowed"].repeat == 3


def test_an_indexer_limits_what_a_query_reads() -> None:
    """DeepSeek-V3.2's forms in small: 5,000 keys are scored, 64 of them read, by each sample."""
    latent = LatentAttention(kv_rank=16, rope_dim=4, query_rank=8, nope_dim=6, value_dim=6)
    indexer = Indexer(heads=4, dim=128, top_k=64)
    shape = model(layers=2, heads=4, kv_heads=4, head_dim=10, latent=latent, indexer=indexer)
    named = {
        attention: by_name(step_operations(shape, attention=attention, samples=8))
        for attention in ("standard", "bifurcated")
    }
    for of_one in named.values():
        assert of_one["sparse_attention"].kv_bytes_read == 8 * 64 * 20 * 2
    keys = {
        attention: sum(
            operation.kv_bytes_read for name, operation in of_one.items() if "index_scores" in name
        )
        for attention, of_one in named.items()
    }
    work = Workload()
    context, own = work.context_tokens, work.decoded_tokens
    assert keys == {"standard": 132 * 8 * (context + own), "bifurcated": 132 * (context + 8 * own)}


def test_kinds_are_merged_where_nothing_differs() -> None:
    """Windows do not change projections, nor experts attention."""
    groups = (
        LayerGroup(count=2, window=8),
        LayerGroup(count=3),
        LayerGroup(count=1, window=8, mlp="none"),
    )
    shape = model(layers=6, layer_groups=groups)
    found = {
        fields: [(layers, mark) for _, layers, mark in kinds(shape, *fields)]
        for fields in (("kv_heads",), ("window",), ("mlp",))
    }
    assert found == {
        ("kv_heads",): [(6, "")],
        ("window",): [(3, "_windowed"), (3, "")],
        ("mlp",): [(5, ""), (1, "")],
    }


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"count": 4, "attends": False, "mlp": "none"}], "needs attention, a state or an MLP"),
        ([{"count": 4, "window": 8, "chunk": 8}], "a window or chunks, not both"),
        ([{"count": 4, "kv_heads": 3}], "8 heads for 3 KV heads"),
    ],
)
def test_layers_that_cannot_be_are_refused(groups: list[dict[str, object]], message: str) -> None:
    """A layer that does nothing, two limits at once, heads that do not divide."""
    with pytest.raises(ValueError, match=message):
        model(layers=4, heads=8, kv_heads=2, head_dim=8, layer_groups=groups)


def test_drafting_layers_pass_once_for_each_token_that_they_draft() -> None:
    """Three query tokens: two passes of one token a sequence, joined from 2 x 64 values."""
    shape = model(layers=4, hidden_size=64, heads=8, kv_heads=2, head_dim=8, draft_layers=1)
    plain = shape.but(draft_layers=0)
    assert step_operations(shape, samples=5) == step_operations(plain, samples=5)
    drafted = step_operations(shape, samples=5, query_tokens=3)
    checked = step_operations(plain, samples=5, query_tokens=3)
    names = {operation.name for operation in checked}
    drafts = [operation for operation in drafted if operation.name not in names]
    assert len(drafted) - len(drafts) == len(checked)
    assert all(operation.name.endswith("_draft") for operation in drafts)
    assert {operation.repeat for operation in drafts} == {2}
    named = by_name(drafts)
    assert named["input_projection_draft"].flops == 2 * 5 * 2 * 64 * 64
    assert named["attention_draft"].kv_bytes_read == by_name(checked)["attention"].kv_bytes_read
    work = Workload(samples=5, query_tokens=3)
    kept = [kv_cache_bytes(each, Setup(), work) for each in (shape, plain)]
    assert kept[0] * 4 == kept[1] * 5
