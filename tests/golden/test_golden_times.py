"""Times worked by hand from the constants of a GPU whose rates are round numbers.

tests/builders.py: memory 1000 GB/s, L2 8000 GB/s for up to 25 MiB, bf16 250 TFLOP/s, fp8 500,
link 200 GB/s, 10 GB/s a thread block, 2 us a launch, eagerly 1 us more and 10 us of the host.
"""

import pytest
from builders import (
    attention_only,
    by_name,
    gpu,
    llama_2_7b,
    llama_3_70b,
    model,
    round_gpu,
    step_operations,
)

from simulator.answers.estimate import Question, estimate
from simulator.counts.operation import Operation
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.roofline import operation_time

ROUND = rates(round_gpu())
US = 1e-6


def _time_us(operation: Operation, execution: str = "graph") -> float:
    return operation_time(operation, ROUND, execution).device_s / US


def test_a_product_bound_by_its_weights() -> None:
    """Llama-2-7B's MLP up projection for one token: 2 x 4096 x 22016 bytes of weights.

    180,355,072 + 8192 read + 44,032 written = 180,407,296 bytes: 180.407 us, and one launch.
    """
    operation = by_name(step_operations(llama_2_7b(), samples=1))["mlp_up"]
    assert _time_us(operation) == pytest.approx(2 + 180.407296)
    time = operation_time(operation, ROUND, "graph")
    assert time.bound == "memory"
    # 22016 / 64 = 344 tiles on 100 SMs: (3.44 + 4) / 2 waves of 2 x 4096 x 64 FLOPs / 2.5e12.
    assert time.compute_s / US == pytest.approx(3.72 * 0.2097152)


def test_a_product_bound_by_arithmetic() -> None:
    """The same for 4096 tokens: 2 x 4096 x 4096 x 22016 FLOPs / 250e12 = 2954.94 us, and a bit.

    64 x 344 tiles of 64 x 64 on 100 SMs: (220.16 + 221) / 2 waves of 2 x 64 x 64 x 4096 / 2.5e12.
    """
    operation = by_name(step_operations(llama_2_7b(), samples=4096))["mlp_up"]
    assert _time_us(operation) == pytest.approx(2 + 220.58 * 13.4217728)
    assert operation_time(operation, ROUND, "graph").bound == "compute"


def test_fp8_weights_compute_at_their_own_rate() -> None:
    """Half the weights' bytes, twice the rate, and the result is written after.

    32 x 172 tiles of 128 x 128 on 100 SMs: (55.04 + 56) / 2 waves of 2 x 128 x 128 x 4096 / 5e12;
    4096 x 22016 results of 2 bytes at 1 TB/s.
    """
    operation = by_name(step_operations(llama_2_7b(), samples=4096, weight_dtype="fp8"))["mlp_up"]
    assert _time_us(operation) == pytest.approx(2 + 55.52 * 26.8435456 + 180.355072)


def test_sixteen_reads_of_a_context() -> None:
    """32 heads of 128, 16 samples of 8192 + 64 tokens: 2,164,260,864 bytes of K and V.

    Queries and outputs: 2 x 16 x 32 x 128 x 2 = 262,144 bytes. No splits: 512 blocks, 200 resident.
    """
    operations = by_name(step_operations(attention_only(32, 32), resident=200, kv_layout="copies"))
    assert _time_us(operations["attention"]) == pytest.approx(2 + 2164.260864 + 0.262144)
    assert _time_us(operations["attention_combine"]) == 0


def test_one_read_of_a_context_and_the_suffixes() -> None:
    """The same bifurcated, on 200 slots: context in 200 // 32 = 6 parts, suffix not split.

    Context: 8192 x 16,384 = 134,217,728 bytes of K and V and 131,072 of queries: 134.349 us.
    6 x 512 rows x 129 x 4 = 1,585,152 bytes of partials stay in L2: 0.198 us.
    Combine: partials from L2 again, and 131,072 + 2048 bytes of output and log-sum-exp.
    Suffix: 16 x 64 x 16,384 = 16,777,216 bytes, queries, output and log-sum-exp.
    Merge: 2 x (131,072 + 2048) bytes from L2, 131,072 written.
    """
    operations = by_name(
        step_operations(attention_only(32, 32), resident=200, attention="bifurcated")
    )
    partials = 1.585152 / 8
    result = 0.131072 + 0.002048
    times = {
        "attention_context": 2 + 134.217728 + 0.131072 + partials,
        "attention_context_combine": 2 + partials + result,
        "attention_suffix": 2 + 16.777216 + 0.131072 + result,
        "attention_suffix_combine": 0,
        "attention_merge": 2 + 2 * result / 8 + 0.131072,
    }
    for name, time_us in times.items():
        assert _time_us(operations[name]) == pytest.approx(time_us), name


def test_too_few_thread_blocks_to_fill_the_memory() -> None:
    """One KV head, one sample, 512 tokens: two parts of 256, two blocks of 10 GB/s.

    512 x 512 bytes, less the first 64 KiB of each block, which its launch hides: 131,072 bytes /
    20 GB/s = 6.5536 us, where the memory alone would need 0.26.
    """
    operations = by_name(
        step_operations(
            attention_only(8, 1),
            attention="standard",
            samples=1,
            context_tokens=512,
            decoded_tokens=0,
        )
    )
    assert _time_us(operations["attention"]) == pytest.approx(2 + 6.5536)


def test_more_rows_do_not_stream_the_same_keys_faster() -> None:
    """512 samples' queries fill eight tiles, but the context still streams in four parts.

    (1024 tokens x 512 bytes - 4 x 65,536 that the launch hides) / (4 blocks x 10 GB/s) = 6.5536 us,
    for 8 samples as for 512.
    """
    for samples in (8, 512):
        operations = by_name(
            step_operations(
                attention_only(1, 1),
                attention="bifurcated",
                samples=samples,
                context_tokens=1024,
                decoded_tokens=1,
            )
        )
        assert _time_us(operations["attention_context"]) == pytest.approx(2 + 6.5536)


def _shared_us(context_tokens: int, layout: str = "shared") -> float:
    """32 samples' reads of a context by 32 KV heads of 128: 16,384 bytes a token."""
    operations = step_operations(
        attention_only(32, 32),
        attention="standard",
        kv_layout=layout,
        samples=32,
        context_tokens=context_tokens,
        decoded_tokens=0,
    )
    return _time_us(by_name(operations)["attention"])


def test_one_stored_context_is_re_read_from_l2() -> None:
    """256 tokens: 4,194,304 bytes fit L2, so one read costs memory, 31 cost L2.

    Queries and outputs: 2 x 32 x 32 x 128 x 2 bytes. 1024 blocks are enough for any rate.
    """
    copy, rows = 4.194304, 0.524288
    assert _shared_us(256) == pytest.approx(2 + copy + 31 * copy / 8 + rows)


@pytest.mark.parametrize(("tokens", "held"), [(2400, 1 / 1.5), (4096, 25 / 64)])
def test_a_context_beyond_l2_is_read_again_once_a_wave_or_once_a_sample(
    tokens: int, held: float
) -> None:
    """L2 holds 25 MiB; the rest takes the mean of two rules.

    264 blocks at once are 8.25 samples of 32 KV heads, so 32 samples take 3.88 waves, each with one
    read from memory. Or all 32 samples read it.
    """
    copy, rows = tokens * 16_384 / 1e6, 0.524288
    in_l2, by_wave, alone = 1 + 31 / 8, 32 / 8.25, 32
    mean = held * in_l2 + (1 - held) * (by_wave + alone) / 2
    assert _shared_us(tokens) == pytest.approx(2 + mean * copy + rows)
    assert _shared_us(tokens) < _shared_us(tokens, "copies")


def test_an_all_reduce_by_hand() -> None:
    """Llama-3-70B over 8 GPUs, 16 samples: 262,144 x 7/4 bytes / 200 GB/s, and one launch."""
    operation = by_name(step_operations(llama_3_70b(), tensor_parallel=8))["mlp_all_reduce"]
    assert _time_us(operation) == pytest.approx(2 + 458_752 / 200e3)
    assert operation_time(operation, ROUND, "graph").bound == "link"


def test_eager_launches_cost_the_device_and_the_host() -> None:
    """Eight kernels of an eager RMSNorm: 8 x (2 + 1) us on the device, 8 x 10 us on the host."""
    operation = by_name(step_operations(model(), execution="eager"))["attention_norm"]
    time = operation_time(operation, ROUND, "eager")
    assert time.launch_s == pytest.approx(24 * US)
    assert time.host_s == pytest.approx(80 * US)
    assert operation_time(operation, ROUND, "graph").host_s == 0


def test_a_whole_step_at_published_peaks() -> None:
    """Llama-2-7B, one sample, no cache, 2000 GB/s, nothing but bytes.

    Weights 13,214,154,752 bytes and a row of the token table; activations by the layer: two norms
    2 x (2 x 8192 + 8192) + 2 x 16,384, QKV 8192 + 24,576, rotary 2 x 16,384, cache write 2 x
    16,384, output 2 x 8192, up 8192 + 44,032, activation 44,032 + 22,016, down 22,016 + 8192.
    Head: norm 24,576 + 16,384, product 8192 + 64,000, sampling 64,000 + 128,000 + 128,000 + 8,
    embedding 8 + 2 x 8192.
    """
    layer = (
        2 * (3 * 8192 + 2 * 8192)
        + (8192 + 24576)
        + 4 * 16384
        + 2 * 8192
        + (8192 + 44032)
        + (44032 + 22016)
        + (22016 + 8192)
    )
    ends = (3 * 8192 + 2 * 8192) + (8192 + 64000) + (64000 + 256000 + 8) + (8 + 2 * 8192)
    moved = 13_214_154_752 + 32 * layer + ends
    setup = Setup(attention="bifurcated", constants="peak")
    work = Workload(context_tokens=0, decoded_tokens=0, samples=1)
    result = estimate(Question(llama_2_7b(), gpu(), setup, work))
    assert result.totals.bytes_read + result.totals.bytes_written == moved
    assert result.step_s == pytest.approx(moved / 2e12)
    assert result.bound == "memory"
