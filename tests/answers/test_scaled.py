"""A scaled model has the size it should have, in sizes that real models have."""

import pytest
from builders import deepseek_v3, llama_2_7b, mixtral_8x7b, windowed
from hypothesis import given
from hypothesis import strategies as st

from simulator.answers.scaled import (
    FAMILIES,
    SCALE_BY,
    ScaleBy,
    caching_once,
    scale_model,
    sharing_caches,
    with_heads,
    with_latent_cache,
)
from simulator.errors import ModelError
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.presets import load_model

DENSE = ("llama-2-7b", "llama-3.1-70b", "llama-3.2-1b", "qwen2.5-7b", "qwen3-4b", "phi-2")


def dense_parameters(d: int, layers: int, heads: int, g: int, k: int, inner: int, v: int) -> int:
    """Count a Llama's parameters by hand."""
    attention = d * heads * k * 2 + d * 2 * g * k
    return layers * (attention + 3 * d * inner + 2 * d) + d + 2 * v * d


def test_a_larger_multi_query_llama_by_hand() -> None:
    """The scaled Llama-2-7B has 1.10 times the parameters, counted independently."""
    model, _ = scale_model(llama_2_7b(), with_heads(llama_2_7b(), 1), size_factor=1.1)
    base = dense_parameters(4096, 32, 32, 32, 128, 11008, 32000)
    assert base == 6738415616
    size = dense_parameters(
        model.hidden_size, model.layers, model.heads, 1, 128, model.intermediate_size, 32000
    )
    assert count_parameters(model).total == size
    assert size / base == pytest.approx(1.1, rel=0.01)
    assert (model.layers, model.heads % 4, model.hidden_size) == (32, 0, model.heads * 128)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("scale_by", SCALE_BY)
@pytest.mark.parametrize(("kv_heads", "factor"), [(1, 1.1), (4, 1.05), (2, 0.97)])
def test_sizes_are_round_and_true(
    name: str, scale_by: ScaleBy, kv_heads: int, factor: float
) -> None:
    """Size within 1 %, heads that divide, steps of 64 and 128, proportions within 10 %."""
    base = load_model(name)
    base = base.with_kv_heads(base.heads)
    model, error = scale_model(
        base, with_heads(base, kv_heads), size_factor=factor, scale_by=scale_by
    )
    assert abs(error) <= 0.01
    assert count_parameters(model).total / count_parameters(base).total == pytest.approx(
        factor, rel=0.0101
    )
    assert model.kv_heads == kv_heads
    assert model.head_dim == base.head_dim
    assert model.intermediate_size % 64 == 0
    assert model.hidden_size % 128 == 0 or model.hidden_size == model.heads * model.head_dim
    mlp, heads = model.intermediate_size / base.intermediate_size, model.heads / base.heads
    for of, free in ((mlp, "mlp"), (heads, "heads")):
        if scale_by != free:
            assert of * base.hidden_size / model.hidden_size == pytest.approx(1, abs=0.1001)
    if scale_by != "width":
        assert model.hidden_size == base.hidden_size
    if scale_by in ("depth", "mlp"):
        assert model.heads == base.heads
    if scale_by != "depth":
        assert model.layers == base.layers


@pytest.mark.parametrize("scale_by", SCALE_BY)
@pytest.mark.parametrize(("groups", "kept"), [(1, "cache"), (2, "cache of 2 groups")])
def test_a_latent_llama_by_hand(scale_by: ScaleBy, groups: int, kept: str) -> None:
    """Its cache is 576 wide; 0.9 of the parameters, counted from DeepSeek's matrices by hand.

    With two vectors of 256, each head's matrices out of the latent space are half as tall.
    """
    base = llama_2_7b()
    model, _ = scale_model(
        base, with_latent_cache(base, groups), size_factor=0.9, scale_by=scale_by
    )
    d = model.hidden_size
    assert model.cache_width == 4 * 128 + 64
    attention = (
        d * model.heads * (128 + 64)  # queries
        + d * (512 + 64)  # down to the latent vector and the rotary key
        + 512 // groups * model.heads * (128 + 128)  # up to keys and values
        + model.heads * 128 * d  # output
        + 512  # norms of the latent vectors
    )
    layer = attention + 3 * d * model.intermediate_size + 2 * d
    assert count_parameters(model).total == model.layers * layer + d + 2 * 32000 * d
    assert count_parameters(model).total / 6738415616 == pytest.approx(0.9, rel=0.01)
    assert model.name.endswith(f" x 0.90 with a latent {kept}")


def test_layers_that_share_caches_by_hand() -> None:
    """A multi-query Llama of one cache for two layers: 16 caches of 256 values in 32 layers.

    It has as many parameters as multi-head with the freed ones in the MLP: keys and values of 32
    heads of 128 in every layer, less those of one head in half the layers.
    """
    base = llama_2_7b()
    form = sharing_caches(with_heads(base, 1))
    assert form.cached_values == 16 * 256
    freed = count_parameters(base).total - count_parameters(form).total
    assert freed == 4096 * (32 * 2 * 4096 - 16 * 2 * 128)
    wide, _ = scale_model(base, form, size_factor=1.0, scale_by="mlp")
    assert wide.cached_values == 16 * 256
    assert wide.intermediate_size == pytest.approx(11008 + freed / 32 / 3 / 4096, abs=256)
    assert wide.name == "Llama-2-7B x 1.00 with 1 KV head in 16 of 32 layers"
    odd = sharing_caches(base.replaced({"layers": 5}), 3)
    assert [group.count for group in odd.layer_groups] == [2, 3]
    with pytest.raises(ModelError, match="scale it by width"):
        scale_model(base, form, size_factor=1.0, scale_by="depth")


def test_a_decoder_that_caches_once_by_hand() -> None:
    """YOCO of 32 layers: 16 windows of 1,024, and one cache for 16 layers."""
    once = caching_once(llama_2_7b())
    assert [(each.count, each.window, each.kv) for each in once.layer_groups] == [
        (16, 1024, "own"),
        (1, None, "own"),
        (15, None, "earlier"),
    ]
    with pytest.raises(ModelError, match="several kinds"):
        caching_once(windowed())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_scaled(family: str) -> None:
    """By width, by the MLP and by heads, split over two GPUs, within 1 % of the size asked for."""
    base = llama_2_7b()
    for scale_by in ("width", "mlp", "heads"):
        form = FAMILIES[family](base)
        model, _ = scale_model(base, form, size_factor=1.05, scale_by=scale_by, ranks=2)
        assert count_parameters(model).total / 6738415616 == pytest.approx(1.05, rel=0.01)
        assert model.layer_groups == form.layer_groups


def test_freed_parameters_go_where_they_are_sent() -> None:
    """A multi-query Llama of the same size: an MLP 1.25 times as wide, or nearly twice the heads.

    K and V of 31 heads are 2 x 31 x 128 x 4096 parameters a layer: 2645 columns of an MLP of three
    matrices, or 31 query heads with their outputs.
    """
    base = llama_2_7b()
    wide, _ = scale_model(base, with_heads(base, 1), size_factor=1.0, scale_by="mlp")
    assert wide.intermediate_size == pytest.approx(11008 + 2645, abs=256)
    assert (wide.heads, wide.hidden_size) == (32, 4096)
    many, _ = scale_model(base, with_heads(base, 1), size_factor=1.0, scale_by="heads")
    assert many.heads == pytest.approx(32 + 31, abs=1)
    assert (many.hidden_size, many.kv_heads) == (4096, 1)
    assert many.intermediate_size == pytest.approx(11008, abs=256)


@given(st.sampled_from(DENSE), st.floats(0.8, 1.6), st.sampled_from([1, 2, 4, 8]))
def test_any_factor_comes_out_or_is_refused(name: str, factor: float, kv_heads: int) -> None:
    """Whatever the factor, the size is within 1 % or one line says that there is none."""
    base = load_model(name)
    try:
        model, _ = scale_model(base, with_heads(base, kv_heads), size_factor=factor)
    except ModelError as problem:
        assert "\n" not in str(problem)  # noqa: PT017
        return
    assert abs(count_parameters(model).total / (factor * count_parameters(base).total) - 1) <= 0.01


def test_a_tensor_parallel_group_can_split_it() -> None:
    """The heads are a multiple of the group's size."""
    model, _ = scale_model(llama_2_7b(), with_heads(llama_2_7b(), 1), size_factor=1.1, ranks=8)
    assert model.heads % 8 == 0


def test_windows_stay() -> None:
    """Layers of several kinds keep their windows when the model grows in width."""
    model, _ = scale_model(windowed(), with_heads(windowed(), 1), size_factor=1.05)
    assert model.layer_groups == windowed().layer_groups


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (deepseek_v3(), {}, "latent"),
        (mixtral_8x7b(), {}, "mixture of experts"),
        (windowed(), {"scale_by": "depth"}, "scale it by width"),
        (llama_2_7b(), {"scale_by": "height"}, "known: depth, heads, mlp, width"),
        (llama_2_7b(), {"scale_by": "depth", "kv_heads": 5}, "kv_heads can be 1, 2, 4, 8, 16, 32"),
        (llama_2_7b(), {"size_factor": 40.0}, "another size factor"),
    ],
)
def test_what_cannot_be_scaled_is_refused(base: ModelShape, changes: dict, words: str) -> None:
    """One line says why a model cannot be scaled."""
    form = with_heads(base, changes.get("kv_heads", 1))
    asked = {"size_factor": 1.1, **changes}
    asked.pop("kv_heads", None)
    with pytest.raises(ModelError, match=words):
        scale_model(base, form, **asked)
