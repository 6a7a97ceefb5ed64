"""The step as a whole: splits over GPUs, windows, prefill."""

import pytest
from builders import (
    by_name,
    deepseek_v3,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    step_operations,
    windowed,
)
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import total
from simulator.counts.transformer import (
    check_split,
    prefill_operations,
    rank_geometry,
    visible_tokens,
)
from simulator.errors import WorkloadError
from simulator.inputs.model import LatentAttention, LayerGroup
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

BIFURCATED = Setup(attention="bifurcated")


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16, 32, 64])
def test_heads_divide_or_are_copied(ranks: int) -> None:
    """Llama-3-70B's 64 heads and 8 KV heads go over any power of two up to 64."""
    check_split(llama_3_70b(), ranks)
    kv_heads, *_, cached = rank_geometry(llama_3_70b(), Setup(tensor_parallel=ranks))
    assert kv_heads == max(1, 8 // ranks)
    assert cached == 2 * kv_heads * 128


@pytest.mark.parametrize("ranks", [3, 7, 128])
def test_a_split_through_a_head_is_refused(ranks: int) -> None:
    """The message says the sizes that work."""
    with pytest.raises(
        WorkloadError,
        match=f"^tensor_parallel = {ranks} does not divide the 64 heads and 8 KV heads of "
        "Llama-3-70B; it can be 1, 2, 4, 8, 16, 32, 64$",
    ):
        check_split(llama_3_70b(), ranks)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 300))
def test_a_window_sees_the_last_tokens(context: int, decoded: int, window: int) -> None:
    """Laid out one after the other, context then own, the last ``window`` are seen."""
    line = ["context"] * context + ["own"] * decoded
    seen = line[-window:]
    group = LayerGroup(count=1, window=window)
    assert visible_tokens(group, context, decoded) == (seen.count("context"), seen.count("own"))


def test_a_latent_cache_is_not_split() -> None:
    """Every rank of MLA keeps all 576 values, whatever the group."""
    for ranks in (1, 8):
        setup = Setup(tensor_parallel=ranks)
        assert rank_geometry(deepseek_v3(), setup) == (1, 576, 512, 576)


def test_a_grouped_latent_cache_is_split_by_its_vectors() -> None:
    """GLA-2 of 2 x 256 + 64 values: 1,152 bytes on one GPU, 640 on each of two, as on more."""
    latent = LatentAttention(kv_rank=256, rope_dim=64, groups=2, nope_dim=128, value_dim=128)
    shape = deepseek_v3().but(latent=latent)
    for ranks, vectors, values in ((1, 2, 576), (2, 1, 320), (8, 1, 320)):
        setup = Setup(tensor_parallel=ranks)
        assert rank_geometry(shape, setup) == (vectors, 320, 256, values)
    check_split(shape.but(heads=12, kv_heads=12), 4)
    with pytest.raises(WorkloadError, match="12 heads and 2 latent vectors"):
        check_split(shape.but(heads=12, kv_heads=12), 3)


def test_an_expanded_latent_cache_is_split_by_heads() -> None:
    """128 heads of 192 + 128 values, 16 of them on each of 8 GPUs."""
    for ranks, heads in ((1, 128), (8, 16)):
        setup = Setup(tensor_parallel=ranks, latent_form="expanded")
        assert rank_geometry(deepseek_v3(), setup) == (heads, 192, 128, heads * 320)


@given(st.integers(0, 400), st.one_of(st.none(), st.integers(1, 200)))
def test_prefill_attends_causally(tokens: int, window: int | None) -> None:
    """Counted pair by pair: each token sees itself and those before it, within the window."""
    pairs = sum(min(position + 1, window or tokens) for position in range(tokens))
    shape = windowed(window, layers=1, layer_groups=({"count": 1, "window": window},))
    (attention,) = [
        operation
        for operation in prefill_operations(shape, Setup(), Workload(context_tokens=tokens))
        if operation.kind == "prefill_attention"
    ]
    assert attention.flops == 4 * 16 * 256 * pairs


def test_prefill_does_not_depend_on_the_samples() -> None:
    """Every prompt is read once; only contiguous copies then cost something."""
    work = Workload(prompts=3, context_tokens=1000)
    one, many = (
        prefill_operations(mistral_7b(), BIFURCATED, work.but(samples=samples))
        for samples in (1, 50)
    )
    assert one == many
    copies = Setup(kv_layout="copies")
    *same, broadcast = prefill_operations(mistral_7b(), copies, work.but(samples=50))
    assert same == one
    context = 3 * 1000 * 4096
    assert (broadcast.bytes_read, broadcast.bytes_written) == (context, 50 * context)
    assert broadcast.repeat == 32


def test_prefill_fills_the_cache_it_will_read() -> None:
    """The bytes of K and V written are those of the context's tokens."""
    named = by_name(prefill_operations(llama_2_7b(), BIFURCATED, Workload(context_tokens=77)))
    assert named["kv_write"].bytes_written * named["kv_write"].repeat == 77 * 524_288


def test_prefill_of_several_prompts_is_as_much_each() -> None:
    """Twice the prompts, twice the FLOPs and cache; the weights are read once."""
    one, two = (
        total(
            prefill_operations(
                mistral_7b(), BIFURCATED, Workload(context_tokens=500, prompts=prompts)
            )
        )
        for prompts in (1, 2)
    )
    assert two.flops == 2 * one.flops
    assert two.kv_bytes_read == 2 * one.kv_bytes_read
    table = 500 * 4096 * 2
    assert two.weight_bytes_read - 2 * table == one.weight_bytes_read - table


def test_layers_of_a_kind_are_one_line() -> None:
    """However layers alternate, attention is one line for each window and names never repeat."""
    groups = [{"count": 1, "window": window} for window in (64, None, 64, None)]
    shape = windowed(layers=4, layer_groups=tuple(groups))
    named = by_name(step_operations(shape, attention="standard"))
    assert named["attention"].repeat == named["attention_windowed"].repeat == 2
    assert named["attention"].kv_bytes_read > named["attention_windowed"].kv_bytes_read
    assert named["qkv_projection"].repeat == 4
