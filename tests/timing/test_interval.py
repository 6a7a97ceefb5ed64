"""Between which times a step lies: how the errors of its kernels add up, by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
from builders import gpu, mistral_7b, round_gpu

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.workload import Workload
from simulator.timing import interval
from simulator.timing.constants import rates
from simulator.timing.interval import Uncertainty, speedup_interval, uncertainty
from simulator.timing.slots import resident_blocks
from simulator.timing.spread import Spread, spread_of
from simulator.timing.step import step_time

# 1000 GB/s and 2 us for each launch.
CARD = round_gpu()
PRODUCT = Operation(name="product", kind="gemm", bytes_read=8e6)  # 2 us fixed and 8 us streaming
HALF = replace(PRODUCT, repeat=2)


@pytest.fixture
def spreads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Spread]:
    """Give every kind of kernel a spread of the test's own."""
    table: dict[str, Spread] = {}

    def own_spread(_rates: Any, family: str, dtype: str) -> Spread:
        return table[family if dtype == "bf16" else f"{dtype}_{family}"]

    monkeypatch.setattr(interval, "spread_of", own_spread)
    monkeypatch.setattr(interval, "code_spread", lambda code: table.get(code, Spread()))
    return table


def _interval(
    *operations: Operation, card: HardwareProfile = CARD, **how: Any
) -> tuple[float, float, float, Uncertainty]:
    """Return low, predicted and high of operations in microseconds, and where they come from."""
    work = Workload(**how)
    gpu_rates = rates(card)
    step = step_time(operations, gpu_rates, work.execution)
    unsure = uncertainty(operations, step, gpu_rates, work)
    low, high = float(unsure.low_s), float(unsure.high_s)
    return low * 1e6, float(step.total_s) * 1e6, high * 1e6, unsure


def test_fixed_and_streaming_time_each_have_a_spread(spreads: dict[str, Spread]) -> None:
    """2 us of fixed time +- 10 and 50 %, 8 us of streaming +- 20 and 25 %: 10 - 1.8 and 10 + 3 us.

    An operation's two parts are off together.
    """
    spreads["gemm"] = Spread(
        fixed_below=0.1, fixed_above=0.5, streaming_below=0.2, streaming_above=0.25
    )
    low, predicted, high, _ = _interval(PRODUCT)
    assert (low, predicted, high) == pytest.approx((8.2, 10, 13))


def test_layers_are_off_together_and_kernels_as_the_common_share_says(
    spreads: dict[str, Spread],
) -> None:
    """One kernel in 2 layers: 20 % of 20 us. Two kernels with nothing in common: that over root 2.

    Half of the variance in common: root of 1/2 + 1/4.
    """
    for common, factor in ((1.0, 1.0), (0.0, math.sqrt(0.5)), (0.5, math.sqrt(0.75))):
        spreads["gemm"] = Spread(
            fixed_above=0.2,
            fixed_below=0.2,
            streaming_above=0.2,
            streaming_below=0.2,
            common=common,
        )
        low, _, high, _ = _interval(HALF)
        assert (low, high) == pytest.approx((16, 24))
        low, _, high, _ = _interval(PRODUCT, PRODUCT)
        assert (low, high) == pytest.approx((20 - 4 * factor, 20 + 4 * factor))


def test_different_kinds_are_off_independently(spreads: dict[str, Spread]) -> None:
    """3 us of one and 4 us of another are 5 us."""
    spreads["gemm"] = Spread(fixed_above=0.3, streaming_above=0.3)
    spreads["elementwise"] = Spread(fixed_above=0.4, streaming_above=0.4)
    low, predicted, high, _ = _interval(PRODUCT, replace(PRODUCT, kind="elementwise"))
    assert (low, predicted, high) == pytest.approx((20, 20, 25))


def test_traffic_between_gpus_is_off_independently_too(spreads: dict[str, Spread]) -> None:
    """2 us fixed and 8 us over a link of 200 GB/s: 3 us of products and 4 us of that are 5 us."""
    spreads["gemm"] = Spread(
        fixed_above=0.3, streaming_above=0.3, fixed_below=0.3, streaming_below=0.3
    )
    spreads["collective"] = Spread(
        fixed_above=0.4, streaming_above=0.4, fixed_below=0.4, streaming_below=0.4
    )
    reduce = Operation(name="reduce", kind="collective", link_bytes=1.6e6, ranks=2)
    low, predicted, high, unsure = _interval(PRODUCT, reduce)
    assert (low, predicted, high) == pytest.approx((15, 20, 25))
    # Both attentions exchange the same: it cancels in their ratio.
    assert speedup_interval(unsure, unsure) == pytest.approx((1, 1))


def test_nothing_beats_bytes_or_flops_at_published_peaks(spreads: dict[str, Spread]) -> None:
    """8 MB at 2000 GB/s are 4 us, and 5 GFLOP at 500 TFLOP/s 10 us, whatever the spread says."""
    spreads["gemm"] = Spread(fixed_below=0.9, streaming_below=0.9)
    assert _interval(PRODUCT)[0] == pytest.approx(4)
    assert _interval(replace(PRODUCT, flops=5e9))[0] == pytest.approx(10)


def test_narrow_formats_have_a_spread_of_their_own(
    spreads: dict[str, Spread],
) -> None:
    """8-bit weights are a matter of products, an 8-bit cache one of attention."""
    spreads["gemm"] = spreads["attention"] = Spread()
    spreads["fp8_gemm"] = spreads["int4_gemm"] = Spread(fixed_above=1, streaming_above=1)
    spreads["fp8_attention"] = Spread(fixed_above=2, streaming_above=2)
    reading = replace(PRODUCT, kind="attention")
    for formats, highs in (
        ({}, (10, 10)),
        ({"weight_dtype": "fp8"}, (20, 10)),
        ({"weight_dtype": "int4"}, (20, 10)),
        ({"kv_dtype": "fp8"}, (10, 30)),
    ):
        found = [_interval(item, **formats)[2] for item in (PRODUCT, reading)]
        assert found == pytest.approx(highs), formats


def test_plain_code_and_its_host_are_off_on_top(spreads: dict[str, Spread]) -> None:
    """10 us on the device and as much on the host: whichever may be longer makes the high end."""
    spreads["gemm"] = Spread()
    spreads["unfused"] = Spread(streaming_above=0.5)
    spreads["rebuilt"] = Spread(streaming_above=3)
    spreads["eager_host"] = Spread(fixed_above=0.2, fixed_below=0.1)
    assert _interval(PRODUCT)[2] == pytest.approx(10)
    assert _interval(PRODUCT, execution="compiled")[2] == pytest.approx(15)
    assert _interval(PRODUCT, kernel="einsum")[2] == pytest.approx(15)
    assert _interval(PRODUCT, kv_layout="rebuilt")[2] == pytest.approx(40)
    # Eager: 11 us on the device, 10 on the host; then 4 us of bytes behind 20 us of host.
    assert _interval(PRODUCT, execution="eager")[2] == pytest.approx(16.5)
    low, predicted, high, _ = _interval(
        replace(PRODUCT, bytes_read=1e6, launches=2), execution="eager"
    )
    assert (low, predicted, high) == pytest.approx((18, 20, 24))


def test_what_both_steps_have_cancels_in_their_ratio(spreads: dict[str, Spread]) -> None:
    """Equal products say nothing; attention's own error counts for both, its common one cancels."""
    spreads["gemm"] = Spread(fixed_above=0.5, streaming_above=0.5, streaming_below=0.3)
    spreads["attention"] = Spread(common=1, fixed_above=0.3, streaming_above=0.3)
    same = _interval(PRODUCT)[3]
    assert speedup_interval(same, same) == pytest.approx((1, 1))
    reading = replace(PRODUCT, kind="attention")
    common = _interval(reading)[3]
    assert speedup_interval(common, common) == pytest.approx((1, 1))
    spreads["attention"] = Spread(common=0, fixed_above=0.3, streaming_above=0.3)
    alone = _interval(reading)[3]
    # One is up to 30 % longer, or the other.
    assert speedup_interval(alone, alone) == pytest.approx((1 / 1.3, 1.3))


def test_a_shared_error_counts_by_its_share(spreads: dict[str, Spread]) -> None:
    """Products are all of the one step and half of the other: of their 20 %, half is left."""
    spreads["gemm"] = Spread(fixed_above=0.2, streaming_above=0.2)
    spreads["elementwise"] = Spread()
    whole = _interval(PRODUCT)[3]
    half = _interval(PRODUCT, replace(PRODUCT, kind="elementwise"))[3]
    low, high = speedup_interval(half, whole)
    assert (low, high) == pytest.approx((2 / 1.1, 2))


def test_the_first_step_s_own_error_is_the_ratio_s_and_the_second_s_its_inverse(
    spreads: dict[str, Spread],
) -> None:
    """A step that may be 30 % longer and 20 % shorter, over one that is known, and under it."""
    spreads["elementwise"] = Spread()
    spreads["attention"] = Spread(
        common=0, fixed_above=0.3, streaming_above=0.3, fixed_below=0.2, streaming_below=0.2
    )
    known = _interval(replace(PRODUCT, kind="elementwise"))[3]
    unsure = _interval(replace(PRODUCT, kind="attention"))[3]
    assert speedup_interval(unsure, known) == pytest.approx((1 / 1.2, 1.3))
    assert speedup_interval(known, unsure) == pytest.approx((1 / 1.3, 1.2))


def _widths(card: HardwareProfile, constants: Any, **work: Any) -> tuple[float, float]:
    """Return how far a step of Mistral-7B may be off each way, as shares."""
    question = Workload(**work)
    gpu_rates = rates(card, constants)
    operations = decode_operations(mistral_7b(), question, resident_blocks=resident_blocks(card))
    step = step_time(operations, gpu_rates, question.execution)
    unsure = uncertainty(operations, step, gpu_rates, question)
    return 1 - unsure.low_s / step.total_s, unsure.high_s / step.total_s - 1


def test_less_is_known_of_a_gpu_never_measured() -> None:
    """Carried constants are less sure than fitted ones; published peaks are a bound below."""
    fitted = _widths(CARD, "auto")
    carried = _widths(CARD, "carried")
    below, above = _widths(CARD, "peak")
    assert carried[0] > fitted[0]
    assert carried[1] > fitted[1]
    assert below == pytest.approx(0, abs=1e-12)
    assert above > carried[1]
    assert _widths(gpu(), "auto") == pytest.approx(_widths(gpu(), "carried"))


def test_intervals_of_a_step_are_narrower_than_those_of_its_kernels() -> None:
    """Errors of products average out: a step is known better than its least known kernel."""
    below, above = _widths(CARD, "auto", samples=1)
    product = spread_of(rates(CARD), "gemm")
    assert 0 < below < product.streaming_below
    assert 0 < above < product.streaming_above
