"""The shape of a model: what fits together, and what follows from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.errors import ModelError
from simulator.inputs.model import Experts, LatentAttention, LayerGroup, ModelShape


def shape(**changes: object) -> ModelShape:
    """Build a small model of eight heads of width 16."""
    fields: dict[str, object] = {
        "name": "small",
        "layers": 6,
        "hidden_size": 128,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 16,
        "intermediate_size": 300,
        "vocab_size": 1000,
    }
    return ModelShape.read({**fields, **changes})


LATENT = LatentAttention(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128)


@pytest.mark.parametrize(
    ("kv_heads", "family"), [(8, "multi-head"), (2, "multi-group"), (1, "multi-query")]
)
def test_the_family_follows_from_the_kv_heads(kv_heads: int, family: str) -> None:
    """As many KV heads as heads is multi-head, one is multi-query, between them multi-group."""
    assert shape(kv_heads=kv_heads).family == family


def test_a_token_takes_keys_and_values_of_every_kv_head_in_the_cache() -> None:
    """Two KV heads of width 16 cache 2 x 2 x 16 values for a token and layer."""
    assert shape().cache_width == 64


def test_latent_attention_caches_one_vector_whatever_the_heads() -> None:
    """DeepSeek-V3 caches 512 + 64 values: 57 times fewer than its 128 heads would."""
    as_latent = shape(heads=128, kv_heads=128, head_dim=128, latent=LATENT)
    as_heads = shape(heads=128, kv_heads=128, head_dim=128)
    assert as_latent.cache_width == 576
    assert as_latent.family == "multi-head latent"
    assert round(as_heads.cache_width / as_latent.cache_width) == 57


def test_layers_are_one_group_unless_said_otherwise() -> None:
    """A plain model has one group of dense layers that see everything."""
    assert shape().layer_groups == (LayerGroup(count=6),)


def test_a_model_with_experts_has_them_in_every_layer_unless_said_otherwise() -> None:
    """A mixture without layer groups is a mixture throughout."""
    experts = Experts(count=4, per_token=2, intermediate_size=50)
    assert shape(experts=experts).layer_groups == (LayerGroup(count=6, mlp="experts"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_groups": [{"count": 5}]}, "do not add up to layers = 6"),
        ({"layer_groups": [{"count": 6, "mlp": "experts"}]}, "with experts but the model has none"),
        ({"kv_heads": 3}, "kv_heads can be 1, 2, 4, 8"),
        ({"experts": {"count": 2, "per_token": 3, "intermediate_size": 8}}, "exceed experts"),
        ({"layers": 0}, "greater than 0"),
        ({"kv_head": 2}, "kv_head"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, object], message: str) -> None:
    """Groups that miss layers, experts that are not there, heads that do not divide."""
    with pytest.raises(ValidationError, match=message):
        shape(**changes)


@given(heads=st.integers(1, 400), kv_heads=st.integers(1, 400))
def test_kv_heads_are_accepted_exactly_where_they_divide_the_heads(
    heads: int, kv_heads: int
) -> None:
    """A refusal lists the values that would have been accepted, and no others."""
    model = shape(heads=heads, kv_heads=heads)
    if heads % kv_heads == 0:
        assert model.with_kv_heads(kv_heads).kv_heads == kv_heads
        return
    with pytest.raises(ModelError) as caught:
        model.with_kv_heads(kv_heads)
    listed = str(caught.value).rpartition("can be ")[2].split(", ")
    assert [int(value) for value in listed] == [n for n in range(1, heads + 1) if heads % n == 0]


def test_changing_kv_heads_changes_nothing_else() -> None:
    """Of all fields only kv_heads and the name differ, and the way back is the same model."""
    model = shape(kv_heads=8)
    other = model.with_kv_heads(2)
    before, after = model.as_dict(), other.as_dict()
    assert {key for key in before if before[key] != after[key]} == {"kv_heads", "name"}
    assert other.with_kv_heads(4).name == "small with 4 KV heads"


def test_latent_attention_has_no_kv_heads_to_change() -> None:
    """The refusal names the model and the reason."""
    model = shape(kv_heads=8, latent=LATENT)
    with pytest.raises(ModelError, match="small caches a latent vector"):
        model.with_kv_heads(8)


@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    window=st.none() | st.integers(1, 10**6),
    latent=st.none() | st.just(LATENT),
)
def test_a_shape_survives_json(
    counts: list[int], window: int | None, latent: LatentAttention | None
) -> None:
    """Writing a shape as JSON and reading it back gives an equal shape."""
    groups = tuple(LayerGroup(count=count, window=window) for count in counts)
    model = shape(layers=sum(counts), layer_groups=groups, latent=latent)
    assert ModelShape.read(json.loads(json.dumps(model.as_dict()))) == model
