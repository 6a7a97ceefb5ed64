"""Counts of real models against figures worked by hand or published."""

import itertools

import pytest
from builders import (
    SLOTS,
    asked,
    by_name,
    deepseek_v3,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    mixtral_8x7b,
    model,
    step_operations,
    windowed,
)

from simulator.counts.attention.ideal import Ideal
from simulator.counts.experts import visited_experts
from simulator.counts.memory import kv_cache_bytes, weights_bytes
from simulator.counts.operation import total
from simulator.counts.transformer import attention_shape, prefill_operations
from simulator.inputs.model import LatentAttention, LayerGroup, ModelShape, count_parameters
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

# Two samples of four context tokens, with three own tokens each.
HAND = Workload(context_tokens=4, samples=2, decoded_tokens=3)


@pytest.mark.parametrize(
    ("shape", "cached_bytes"),
    [
        (mistral_7b(), 131_072),  # 32 layers x 2 x 8 KV heads x 128 x 2 bytes
        (llama_2_7b(), 524_288),  # 32 x 2 x 32 x 128 x 2
        (llama_2_7b(kv_heads=1), 16_384),  # 32 x 2 x 1 x 128 x 2
        (llama_3_70b(), 327_680),  # 80 x 2 x 8 x 128 x 2
        # 61 x (512 + 64) x 2: the 70.272 KB of "Insights into DeepSeek-V3" (arXiv 2505.09343,
        # recalled), whose table also has 516.096 KB for Llama-3.1-405B
        (deepseek_v3(), 70_272),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_kv_bytes_per_token(shape: ModelShape, cached_bytes: int) -> None:
    """One token's K and V in all layers, in bf16."""
    assert shape.cached_values * 2 == cached_bytes


def test_llama_3_1_405b_caches_what_is_published() -> None:
    """516.096 KB a token (arXiv 2505.09343, recalled): 126 layers x 2 x 8 x 128 x 2 bytes."""
    assert load_model("llama-3.1-405b").cached_values * 2 == 516_096


@pytest.mark.parametrize("kernel", ["ideal", "flash", "einsum"])
def test_kv_bytes_of_sixteen_samples(kernel: str) -> None:
    """Llama-2-7B, context 8192, 64 own tokens, 16 samples: the paper's equations 5 and 6.

    Standard: 524,288 x 16 x (8192 + 64) = 69,256,347,648.
    Bifurcated: 524,288 x (8192 + 16 x 64) = 4,831,838,208.
    """
    work = {"context_tokens": 8192, "decoded_tokens": 64, "samples": 16, "kernel": kernel}
    standard = total(step_operations(llama_2_7b(), attention="standard", **work))
    bifurcated = total(step_operations(llama_2_7b(), attention="bifurcated", **work))
    assert standard.kv_bytes_read == 69_256_347_648
    assert bifurcated.kv_bytes_read == 4_831_838_208


def test_the_ideal_kernel_reads_equations_5_and_6() -> None:
    """One layer of g = 2 KV heads, k = 2; b = 2 samples of m_c = 4 and m_d = 3 tokens, in bf16.

    Equation 5: g k b (m_c + m_d) = 2 x 2 x 2 x 7 = 56 elements of K, and as many of V: 224 bytes.
    Equation 6: g k (m_c + b m_d) = 2 x 2 x (4 + 2 x 3) = 40 elements of each: 160 bytes.
    """
    shape = attention_shape(model(), Setup(), HAND, resident_blocks=SLOTS)
    whole, (context, own) = shape.whole(), shape.parts
    # Each of 2 sequences has a cache of 7 keys; or one of 4 serves both, and each has 3 of its own.
    assert (whole.caches, whole.tokens, whole.sharers) == (2, 7, 1)
    assert (context.caches, context.tokens, context.sharers) == (1, 4, 2)
    assert (own.caches, own.tokens, own.sharers) == (2, 3, 1)
    ideal = Ideal(name="ideal")
    (standard,) = ideal.standard(shape, rereads=False)
    (bifurcated,) = ideal.bifurcated(shape)
    # The queries of 2 samples x 4 heads are 2 x 4 x 2 x 2 = 32 bytes, the outputs as many.
    for operation, kv_bytes in ((standard, 224), (bifurcated, 160)):
        assert operation.kv_bytes_read == kv_bytes
        assert operation.bytes_read == 32 + kv_bytes
        assert operation.bytes_written == 32
        # 2 samples x 4 heads x 7 keys x 2 wide x 2 products x 2.
        assert operation.flops == 448
    # One stored context: of 2 x 4 reads of its tokens, 4 are stored, and 4 are repeats.
    stored = shape.whole(rereads=True)
    assert (stored.stored_tokens, stored.repeated_tokens) == (4, 4)
    (shared,) = ideal.standard(shape, rereads=True)
    assert shared.kv_bytes_read == 224
    assert shared.reused_bytes == shared.reused_footprint_bytes == 4 * 2 * 2 * 2 * 2


@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
@pytest.mark.parametrize("kernel", ["ideal", "flash", "einsum", "sdpa_math"])
def test_flops_of_a_step(attention: str, kernel: str) -> None:
    """2 x (matrix parameters) x tokens, and 4 h k (m_c + m_d) for each sample and layer.

    A layer has 4 x 4096^2 + 3 x 4096 x 11008 = 202,375,168 matrix parameters, the head 4096 x
    32,000 = 131,072,000: together 32 x 202,375,168 + 131,072,000 = 6,607,077,376.
    """
    matrices = 6_607_077_376
    attention_flops = 32 * 16 * 4 * 32 * 128 * (8192 + 64)
    work = {"context_tokens": 8192, "decoded_tokens": 64, "samples": 16}
    totals = total(step_operations(llama_2_7b(), attention=attention, kernel=kernel, **work))
    assert totals.flops == 2 * matrices * 16 + attention_flops == 280_682_823_680


def test_flops_of_a_prefill() -> None:
    """2 x layers' parameters x tokens, the head once, and half of the square of attention.

    1024 tokens see 1024 x 1025 / 2 = 524,800 pairs; each costs 4 x 4096 FLOPs in 32 layers.
    """
    totals = total(prefill_operations(llama_2_7b(), Setup(), Workload(context_tokens=1024)))
    layers, head = 2 * 32 * 202_375_168 * 1024, 2 * 131_072_000
    assert totals.flops == layers + head + 32 * 4 * 4096 * 524_800


@pytest.mark.parametrize(
    ("name", "tensor_bytes"),
    [
        # "total_size" of the model.safetensors.index.json on Hugging Face (recalled). Llama-2's
        # also has 32 tables of 64 rotary frequencies in half precision, which are not weights.
        ("llama-2-7b", 13_476_835_328 - 32 * 64 * 2),
        ("mistral-7b", 14_483_464_192),
        ("llama-3.1-8b", 16_060_522_496),
        ("llama-3-70b", 141_107_412_992),
        ("mixtral-8x7b", 93_405_585_408),
        ("qwen2.5-7b", 15_231_233_024),
    ],
)
def test_weights_take_what_their_files_take(name: str, tensor_bytes: int) -> None:
    """A 16-bit checkpoint on one GPU takes the bytes of its published files."""
    assert weights_bytes(load_model(name), Setup(weight_dtype="bf16")) == tensor_bytes


def test_only_visited_experts_are_read() -> None:
    """Mixtral: one token reads 2 of 8 experts a layer; two tokens 3.5 on average.

    The second token's two experts are each among the first's with probability 1/4: 2 + 2 - 0.5.
    An expert has 3 x 4096 x 14336 = 176,160,768 parameters.
    """
    assert [visited_experts(8, 2, tokens) for tokens in (0, 1, 2)] == [0, 2, 3.5]
    for samples, visited in ((1, 2), (2, 3.5)):
        named = by_name(step_operations(mixtral_8x7b(), samples=samples))
        read = sum(named[name].weight_bytes_read for name in ("experts_up", "experts_down"))
        assert read == visited * 176_160_768 * 2


def test_expected_experts_by_enumeration() -> None:
    """Averaged over all choices of 2 of 4 experts by each of 3 tokens, counted out."""
    choices = list(itertools.combinations(range(4), 2))
    visited = [len(set().union(*tokens)) for tokens in itertools.product(choices, repeat=3)]
    assert visited_experts(4, 2, 3) == pytest.approx(sum(visited) / len(visited), rel=1e-12)


def test_mixtral_flops_are_those_of_its_active_parameters() -> None:
    """12,879,925,248 of 46,702,792,704 parameters are active (recalled: "12.9B").

    Without the token table (131,072,000) and norms (65 x 4096) the matrices have 12,748,587,008.
    """
    totals = total(step_operations(mixtral_8x7b(), samples=3, context_tokens=0, decoded_tokens=0))
    assert totals.flops == 2 * 3 * 12_748_587_008


def test_a_latent_cache_is_read_once_for_all_heads() -> None:
    """DeepSeek-V3: 576 cached values serve 128 heads, each with 576 + 512 multiply-adds.

    Intensity: 2 x 128 x 1088 FLOPs for 576 x 2 bytes = 241.8 FLOP/B, whatever the samples.
    """
    operation = by_name(
        step_operations(_one_layer(deepseek_v3()), attention="standard", kernel="ideal", samples=16)
    )["attention"]
    assert operation.kv_bytes_read == 16 * (8192 + 64) * 576 * 2
    assert operation.flops / operation.kv_bytes_read == pytest.approx(241.78, abs=0.01)


def test_a_latent_step_has_the_flops_of_its_parameters() -> None:
    """Absorbed or expanded, MLA multiplies every token by every attention matrix once.

    DeepSeek-V3 has 671,026,419,200 parameters (recalled). No product are the routers' 58 x 256
    correction biases, the token table 129,280 x 7168 and the norms 61 x (2 x 7168 + 1536 + 512) +
    7168; idle are 58 x 248 experts of 3 x 7168 x 2048. That leaves 36,624,596,992.
    """
    matrices = 36_624_596_992
    work = {"samples": 5, "context_tokens": 0, "decoded_tokens": 0}
    assert total(step_operations(deepseek_v3(), **work)).flops == 2 * 5 * matrices
    prefill = total(prefill_operations(deepseek_v3(), Setup(), Workload(context_tokens=1)))
    # One token sees itself: 128 heads x (128 + 64 + 128) x 2 in 61 layers.
    assert prefill.flops == 2 * matrices + 61 * 128 * 320 * 2


def test_grouped_latent_attention_by_hand() -> None:
    """DeepSeek-V3 with GLA-2 (arXiv:2505.21487): two vectors of 256 values for 64 heads each.

    The cache is as large, 576 values; each head multiplies 256 + 64 + 256 of them a token instead
    of 1,088. Intensity: 2 x 128 x 576 FLOPs for 576 x 2 bytes, 128 FLOP/B: half as many heads share
    what is read. On each of two GPUs: 64 heads and 256 + 64 values.
    """
    sizes = {"attention": "standard", "kernel": "ideal", "samples": 16}
    latent = LatentAttention(
        kv_rank=256, rope_dim=64, groups=2, query_rank=1536, nope_dim=128, value_dim=128
    )
    gla = _one_layer(deepseek_v3().but(latent=latent))
    mla = _one_layer(deepseek_v3())
    tokens = 16 * (8192 + 64)
    whole = by_name(step_operations(gla, **sizes))
    assert whole["attention"].kv_bytes_read == tokens * 576 * 2
    assert whole["attention"].flops == tokens * 2 * 128 * 576
    assert whole["kv_write"].bytes_written == 16 * 576 * 2
    half = by_name(step_operations(gla, **sizes, tensor_parallel=2))["attention"]
    assert half.kv_bytes_read == tokens * 320 * 2
    assert half.flops == tokens * 2 * 64 * 576
    copy = by_name(step_operations(mla, **sizes, tensor_parallel=2))["attention"]
    assert copy.kv_bytes_read == tokens * 576 * 2
    # One token of prefill multiplies what a step does, and sees itself: 128 heads x 320 x 2.
    alone = {"samples": 1, "context_tokens": 0, "decoded_tokens": 0}
    prefill = prefill_operations(gla, Setup(), Workload(context_tokens=1))
    assert total(prefill).flops - total(step_operations(gla, **alone)).flops == 128 * 320 * 2
    # Each head's up-projections are half as tall; everything else is the same.
    parameters = [count_parameters(shape).total for shape in (mla, gla)]
    assert parameters[0] - parameters[1] == 256 * 128 * (128 + 128)


def _sharing(*groups: LayerGroup) -> ModelShape:
    """Return 8 layers of 4 KV heads of 16 for 8 heads, whose caches layers share."""
    return model(layers=8, hidden_size=128, heads=8, kv_heads=4, head_dim=16, layer_groups=groups)


def test_cross_layer_attention_by_hand() -> None:
    """CLA2 (arXiv:2405.12981): half the caches and their projections; reads as without sharing.

    A layer caches 2 x 4 x 16 = 128 values, 256 bytes; 3 samples of 100 + 10 tokens.
    """
    plain = _sharing(LayerGroup(count=8))
    shared = _sharing(LayerGroup(count=4), LayerGroup(count=4, kv="earlier"))
    sizes = {"samples": 3, "context_tokens": 100, "decoded_tokens": 10, "kv_layout": "copies"}
    setup, work = asked(**sizes)
    assert (plain.cached_values * 2, shared.cached_values * 2) == (8 * 256, 4 * 256)
    assert kv_cache_bytes(shared, setup, work) == 4 * 256 * 3 * 110
    before, after = (total(step_operations(each, **sizes)) for each in (plain, shared))
    assert before.kv_bytes_read == after.kv_bytes_read == 8 * 256 * 3 * 110
    # 4 layers without two projections of 128 x 64 to keys and values.
    assert before.flops - after.flops == 4 * 2 * 3 * 128 * 128
    saved = count_parameters(plain).total - count_parameters(shared).total
    assert saved == 4 * 128 * 128


def test_a_decoder_that_caches_once_by_hand() -> None:
    """YOCO (arXiv:2405.05254): windows of 20 in 4 layers, then one cache for 4 layers.

    3 samples of 100 + 10 tokens: 4 windows and one whole cache are kept; 4 windows are read, and
    the whole cache by 4 layers.
    """
    shape = _sharing(
        LayerGroup(count=4, window=20), LayerGroup(count=1), LayerGroup(count=3, kv="earlier")
    )
    sizes = {"samples": 3, "context_tokens": 100, "decoded_tokens": 10, "kv_layout": "copies"}
    setup, work = asked(**sizes)
    assert kv_cache_bytes(shape, setup, work) == 256 * 3 * (4 * 20 + 110)
    assert total(step_operations(shape, **sizes)).kv_bytes_read == 256 * 3 * (4 * 20 + 4 * 110)
    # Bifurcated: of a window, 10 own tokens and 10 of the context, which samples share.
    sizes["attention"] = "bifurcated"
    read = total(step_operations(shape, **sizes)).kv_bytes_read
    assert read == 256 * (4 * (10 + 3 * 10) + 4 * (100 + 3 * 10))


def test_windows_hide_the_start_of_the_context() -> None:
    """Gemma-2-9B: 21 layers see 8192 + 64 tokens, 21 the last 4096; 8192 bytes a token and layer.

    Bifurcated, a window of 4096 holds the 64 own tokens of each sample and 4032 of the context.
    """
    one = total(step_operations(windowed(), attention="standard", samples=1))
    assert one.kv_bytes_read == 21 * 8192 * (8256 + 4096)
    sixteen = total(step_operations(windowed(), attention="bifurcated", samples=16))
    assert sixteen.kv_bytes_read == 21 * 8192 * (8192 + 16 * 64) + 21 * 8192 * (4032 + 16 * 64)
    stored = kv_cache_bytes(windowed(), Setup(attention="bifurcated"), Workload(samples=16))
    assert stored == sixteen.kv_bytes_read


def test_one_gpu_of_eight() -> None:
    """Llama-3-70B over 8 GPUs: 8 query heads and 1 KV head each.

    QKV: 8192 x (8 + 2) x 128; output 8 x 128 x 8192; MLP 3 x 8192 x 3584 columns, 80 times;
    the head 8192 x 16032.
    """
    work = {"tensor_parallel": 8, "samples": 4, "context_tokens": 1000, "decoded_tokens": 0}
    totals = total(step_operations(llama_3_70b(), attention="standard", **work))
    layer = 8192 * 1280 + 1024 * 8192 + 3 * 8192 * 3584
    matrices = 80 * layer + 8192 * 16032
    assert totals.flops == 2 * 4 * matrices + 80 * 4 * 4 * 8 * 128 * 1000
    assert totals.kv_bytes_read == 80 * 4 * 1000 * 2 * 128 * 2
    assert totals.weight_bytes_read == 2 * (matrices + 4 * 8192)
    # Weights on each GPU: an eighth of the matrices and tables, all norms.
    matrices_and_tables = 70_553_706_496 - 161 * 8192
    expected = 2 * (matrices_and_tables / 8 + 161 * 8192)
    assert weights_bytes(llama_3_70b(), Setup(tensor_parallel=8)) == expected


def test_traffic_of_an_all_reduce() -> None:
    """Each of 8 GPUs sends 7/8 of 16 x 8192 x 2 bytes twice: reduce-scatter, then all-gather.

    Two a layer and one for the vocabulary-parallel token table: 161. The logits of 16 samples,
    16 x 128256 x 2 bytes, are gathered once.
    """
    operations = step_operations(llama_3_70b(), tensor_parallel=8, samples=16)
    message = 16 * 8192 * 2
    reduces = [operation for operation in operations if operation.name.endswith("all_reduce")]
    assert [operation.link_bytes for operation in reduces] == [message * 7 / 4] * 3
    assert sum(operation.repeat for operation in reduces) == 161
    gather = by_name(operations)["logits_all_gather"]
    assert gather.link_bytes == 16 * 128256 * 2 * 7 / 8


def test_fewer_kv_heads_than_gpus_are_copied() -> None:
    """A multi-query model over 8 GPUs reads its one KV head on each of them."""
    one = llama_2_7b(kv_heads=1)
    work = {"attention": "bifurcated", "samples": 8}
    alone = total(step_operations(one, **work))
    of_eight = total(step_operations(one, tensor_parallel=8, **work))
    assert of_eight.kv_bytes_read == alone.kv_bytes_read
    # Stored too: a rank's K and V matrices are 4096 x 256, all of them.
    layer = 4096 * (4096 * 2 + 3 * 11008) / 8 + 4096 * 256
    expected = 2 * (32 * layer + 2 * 4096 * 32000 / 8 + 65 * 4096)
    assert weights_bytes(one, Setup(tensor_parallel=8)) == expected


def test_quantised_weights_keep_tables_in_sixteen_bits() -> None:
    """int4 Llama-2-7B: 33/64 bytes for 32 x 202,375,168, two for both tables and 65 norms."""
    matrices = 6_476_005_376 * 33 / 64  # a 16-bit scale for 128 weights of half a byte
    expected = matrices + 2 * (2 * 131_072_000 + 65 * 4096)
    assert weights_bytes(llama_2_7b(), Setup(weight_dtype="int4")) == expected
    totals = total(step_operations(llama_2_7b(), weight_dtype="int4", samples=1))
    assert totals.weight_bytes_read == matrices + 2 * 131_072_000 + 4096 * 2


def test_splits_of_one_sequence() -> None:
    """Mistral-7B, one sample, 8192 tokens, H100: 8 KV heads cut in 32 parts of 256 tokens.

    Partials: 32 parts x 32 heads x (128 values + a log-sum-exp) x 4 bytes, written and read.
    """
    named = by_name(
        step_operations(
            mistral_7b(), resident=SLOTS, attention="standard", samples=1, decoded_tokens=0
        )
    )
    partials = 32 * 32 * 129 * 4
    assert named["attention"].bytes_written == partials
    assert named["attention_combine"].bytes_read == partials
    assert named["attention_combine"].bytes_written == 32 * 128 * 2
    assert named["attention"].effective_blocks == 256


def _one_layer(shape: ModelShape) -> ModelShape:
    return ModelShape(
        **{**shape.as_dict(), "layers": 1, "layer_groups": ({"count": 1, "mlp": "experts"},)}
    )
