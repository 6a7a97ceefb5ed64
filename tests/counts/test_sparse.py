"""Sparse attention: indexer, scores, selection and attention, by hand and against PyTorch."""

from typing import Any

import numpy as np
import pytest
from builders import by_name, deepseek_v3
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.attention import sparse
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import total
from simulator.counts.pieces import Shard
from simulator.counts.transformer import attention_shape
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import Indexer
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.roofline import operation_time
from simulator.views.explore.symbol import Recorder, Symbol

V32 = Indexer(heads=64, dim=128, top_k=2048)
LAYERS = 61


def shape(kv_dtype: str = "bf16", **sizes: Any) -> AttentionShape:
    """Return the attention of one layer of DeepSeek-V3.2: 128 heads over 576 cached values."""
    work = Workload(**{"samples": 16, "context_tokens": 32768, "decoded_tokens": 64, **sizes})
    setup = Setup(kv_dtype=kv_dtype)
    return attention_shape(deepseek_v3(), setup, work, None, resident_blocks=132)


def test_a_token_keeps_132_bytes_more_in_each_layer() -> None:
    """128 values of 8 bits and one fp32 scale: the 8,052 bytes a token of vLLM's 61 layers."""
    assert sparse.index_key_bytes(V32) == 132
    assert LAYERS * sparse.index_key_bytes(V32) == 8052


@pytest.mark.parametrize("ranks", [1, 8])
def test_the_projections_are_whole_on_every_gpu(ranks: int) -> None:
    """Matrices of 1,536 x 8,192, 7,168 x 128 and 7,168 x 64, whatever the group."""
    shard = Shard(model=deepseek_v3(), setup=Setup(tensor_parallel=ranks), tokens=16, positions=1)
    latent = deepseek_v3().latent
    assert latent is not None
    found = by_name(sparse.projections(shard, V32, latent))
    weights = 1536 * 8192 + 7168 * 128 + 7168 * 64
    assert total(found.values()).weight_bytes_read == 2 * weights
    assert total(found.values()).flops == 2 * 16 * weights
    # 16 tokens: keys of 16 bits in, keys of 8 bits and their scales out.
    write = found["index_key_write"]
    assert (write.bytes_read, write.bytes_written) == (16 * 256, 16 * 132)
    # A norm of the key's 128 values; 65 rotary parts of 64.
    assert found["index_key_norm"].bytes_read == 16 * 256
    assert found["index_rotary"].bytes_read == 16 * 65 * 64 * 2
    assert found["index_quantise"].bytes_written == 16 * 8192


def test_a_decode_layer_by_hand() -> None:
    """16 samples of 32,768 shared and 64 own tokens."""
    scored, selection = sparse.scores(shape(), V32)
    attended = sparse.attention(shape(), V32)
    tokens = 32768 + 64
    # Each sample scores all its tokens: 64 heads of 128 multiply-adds.
    assert scored.flops == 2 * 16 * tokens * 64 * 128
    assert scored.kv_bytes_read == 16 * tokens * 132
    assert scored.bytes_read == 16 * tokens * 132 + 16 * 64 * (128 + 4)
    assert scored.bytes_written == selection.bytes_read == 16 * tokens * 4
    assert selection.bytes_written == 16 * 2048 * 4
    # 2,048 of them, as 576 values of two bytes, for 128 heads.
    assert attended.flops == 2 * 16 * 128 * 2048 * (576 + 512)
    assert attended.kv_bytes_read == 16 * 2048 * 576 * 2
    assert attended.bytes_read == 16 * (2048 * (1152 + 4) + 128 * 576 * 2)
    assert attended.bytes_written == 16 * 128 * 512 * 2


def test_bifurcated_attention_reads_the_shared_index_keys_once() -> None:
    """The context once, 64 own tokens of 16 samples; the same products and the same scores."""
    whole = total(sparse.scores(shape(), V32))
    parts = sparse.scores(shape(), V32, bifurcated=True)
    assert [item.name for item in parts] == [
        "index_scores_context",
        "index_scores_suffix",
        "index_selection",
    ]
    assert total(parts).kv_bytes_read == (32768 + 16 * 64) * 132
    assert total(parts).flops == whole.flops
    assert total(parts).bytes_written == whole.bytes_written


def test_a_stored_context_may_be_read_through_the_cache() -> None:
    """15 of 16 reads of the shared index keys are repeats."""
    scored, _ = sparse.scores(shape(), V32, rereads=True)
    assert scored.reused_bytes == 15 * 32768 * 132
    assert scored.reused_footprint_bytes == 32768 * 132


def test_what_is_selected_is_each_samples_own() -> None:
    """Nothing of it is shared, not even a stored context."""
    own = sparse.selected(shape(), V32)
    assert (own.context_tokens, own.decoded_tokens, own.levels) == (0, 2048, ())
    attended = sparse.attention(shape(), V32)
    assert attended.reused_bytes == 0


def test_a_short_context_is_attended_in_full() -> None:
    """1,000 tokens are fewer than the 2,048 that may be selected."""
    small = shape(context_tokens=936)
    assert sparse.attention(small, V32).kv_bytes_read == 16 * 1000 * 1152


def test_a_prefill_by_hand() -> None:
    """Two prompts of 5,000 tokens: 5,000 x 5,001 / 2 pairs each are scored."""
    scored, selection, attended = sparse.prefill(shape(), V32, prompts=2, tokens=5000)
    pairs, read = 2 * 12_502_500, 2 * sum(min(place, 2048) for place in range(1, 5001))
    assert scored.flops == 2 * pairs * 64 * 128
    assert scored.kv_bytes_read == 2 * 5000 * 132
    assert scored.bytes_written == 4 * pairs
    # The first 2,048 queries take all their tokens: only the others select.
    assert selection.thread_blocks == 2 * (5000 - 2048)
    assert selection.bytes_read == 4 * (pairs - 2 * 2048 * 2049 // 2)
    assert selection.bytes_written == 4 * 2 * (5000 - 2048) * 2048
    assert attended.flops == 2 * read * 128 * (576 + 512)
    assert attended.kv_bytes_read == read * 1152
    # All but the first read of each prompt's 5,000 tokens are repeats.
    assert attended.reused_bytes == (read - 2 * 5000) * 1152
    assert attended.reused_footprint_bytes == 5000 * 1152


def test_a_prefill_of_nothing_does_nothing() -> None:
    """An empty context has no kernels."""
    nothing = total(sparse.prefill(shape(), V32, prompts=1, tokens=0, before=100))
    assert (nothing.flops, nothing.bytes_read, nothing.launches) == (0, 0, 0)


@given(before=st.integers(0, 10_000), tokens=st.integers(1, 5_000), prompts=st.integers(1, 4))
def test_two_levels_do_what_one_does(before: int, tokens: int, prompts: int) -> None:
    """A prefill after cached tokens has the pairs of the whole one without theirs."""
    whole, first = (
        total(sparse.prefill(shape(), V32, prompts=prompts, tokens=count))
        for count in (before + tokens, max(before, 1))
    )
    rest = total(sparse.prefill(shape(), V32, prompts=prompts, tokens=tokens, before=before))
    assert rest.flops == whole.flops - first.flops * (before > 0)


@given(context=st.integers(1, 500_000), own=st.integers(1, 5_000), samples=st.integers(1, 500))
def test_bytes_grow_with_the_context_up_to_the_selection(
    context: int, own: int, samples: int
) -> None:
    """Scores read every token more; attention stops at ``top_k``."""
    sizes = {"samples": samples, "decoded_tokens": own}
    small, large = (shape(context_tokens=context + more, **sizes) for more in (0, 1000))
    for bifurcated in (False, True):
        before, after = (
            total(sparse.scores(each, V32, bifurcated=bifurcated)) for each in (small, large)
        )
        assert after.kv_bytes_read - before.kv_bytes_read == (
            1000 * 132 * (1 if bifurcated else samples)
        )
    before, after = (sparse.attention(each, V32).kv_bytes_read for each in (small, large))
    assert before <= after <= samples * 2048 * 1152


@pytest.mark.parametrize("gpu", ["a100-sxm-80gb", "h100-sxm", "b200-sxm", "mi300x"])
@given(context=st.integers(1, 200_000), samples=st.integers(1, 300))
def test_no_time_is_below_its_bound(gpu: str, context: int, samples: int) -> None:
    """Bytes and FLOPs at published peaks take no longer than what is predicted."""
    card = load_hardware(gpu)
    layer = shape(samples=samples, context_tokens=context)
    operations = [
        *sparse.scores(layer, V32, bifurcated=True),
        sparse.attention(layer, V32),
        *sparse.prefill(layer, V32, prompts=1, tokens=context),
    ]
    for operation in operations:
        predicted, peak = (
            operation_time(operation, rates(card, choice), "graph").device_s
            for choice in ("auto", "peak")
        )
        # Scores just written may come from L2.
        cached = operation.scratch_bytes / card.memory_bandwidth_bytes_per_s
        assert predicted >= (peak - cached) * (1 - 1e-9)


def test_arrays_give_what_numbers_give() -> None:
    """One formula serves a point and a grid."""
    contexts = np.array([100.0, 2048.0, 100_000.0])
    layer = shape(samples=4)
    grid = [
        *sparse.scores(layer._replace(context_tokens=contexts), V32, bifurcated=True),
        sparse.attention(layer._replace(context_tokens=contexts), V32),
        *sparse.prefill(layer, V32, prompts=1, tokens=contexts),
    ]
    for place, context in enumerate(contexts.tolist()):
        point = [
            *sparse.scores(layer._replace(context_tokens=context), V32, bifurcated=True),
            sparse.attention(layer._replace(context_tokens=context), V32),
            *sparse.prefill(layer, V32, prompts=1, tokens=context),
        ]
        for many, one in zip(grid, point, strict=True):
            for name in ("flops", "bytes_read", "bytes_written", "serial_steps"):
                values = np.broadcast_to(getattr(many, name), len(contexts))
                assert values[place] == getattr(one, name)


def test_formulas_take_symbols() -> None:
    """A page records them, so nothing branches on a size."""
    recorder = Recorder()
    context, samples = recorder.variable("context"), recorder.variable("samples")
    layer = shape()._replace(context_tokens=context, samples=samples)
    listed = [
        *sparse.scores(layer, V32, bifurcated=True),
        *sparse.scores(layer, V32, rereads=True),
        sparse.attention(layer, V32),
        *sparse.prefill(layer, V32, prompts=1, tokens=context),
    ]
    card = rates(load_hardware("h100-sxm"))
    assert all(isinstance(operation_time(item, card, "graph").device_s, Symbol) for item in listed)


def test_products_are_those_of_plain_pytorch() -> None:
    """Scores, selection and attention written out, on PyTorch's meta device."""
    torch = pytest.importorskip("torch", reason="counts FLOPs with torch.utils.flop_counter")
    from torch.utils.flop_counter import FlopCounterMode

    samples, heads, cached, small = 3, 16, 500, Indexer(heads=4, dim=32, top_k=100)

    def meta(*sizes: int) -> Any:
        return torch.empty(*sizes, device="meta")

    def scored() -> Any:
        logits = torch.bmm(meta(samples, small.heads, small.dim), meta(samples, small.dim, cached))
        return (logits.relu() * meta(samples, small.heads, 1)).sum(1)

    def attended(chosen: Any) -> Any:
        cache = meta(samples, cached, 576)
        rows = cache.gather(1, chosen[..., None].expand(-1, -1, 576))
        weights = torch.bmm(meta(samples, heads, 576), rows.mT).softmax(-1)
        return torch.bmm(weights, rows[..., :512])

    with FlopCounterMode(display=False) as of_scores:
        chosen = scored().topk(small.top_k).indices
    with FlopCounterMode(display=False) as of_attention:
        attended(chosen)
    layer = shape(samples=samples, context_tokens=cached - 64)._replace(heads=heads)
    assert total(sparse.scores(layer, small)).flops == of_scores.get_total_flops()
    assert sparse.attention(layer, small).flops == of_attention.get_total_flops()
