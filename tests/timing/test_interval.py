"""Between which times a step lies: how errors add up by hand, and which spread holds where."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import SLOTS, gpu, llama_2_7b, mistral_7b, round_gpu

from simulator import load_model
from simulator.answers.estimate import Question, estimate
from simulator.counts.operation import KINDS, Operation
from simulator.counts.transformer import decode_operations
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.setup import Setup, ask
from simulator.inputs.workload import Workload
from simulator.timing import interval
from simulator.timing.constants import rates
from simulator.timing.interval import (
    FAMILIES,
    FAMILY,
    Spread,
    Uncertainty,
    peak_bound_s,
    shipped_spreads,
    speedup_interval,
    spread_names,
    spread_of,
    step_sums,
    uncertainty,
    unknown_regime,
)
from simulator.timing.limits import resident_blocks
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
    setup = Setup(**how)
    gpu_rates = rates(card)
    step = step_time(operations, gpu_rates, setup.execution)
    unsure = uncertainty(step, gpu_rates, setup)
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


def test_low_precision_has_a_spread_of_its_own(spreads: dict[str, Spread]) -> None:
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


def test_without_one_step_s_interval_a_ratio_has_none(spreads: dict[str, Spread]) -> None:
    """Products that are known, over or under some that are not."""
    spreads["gemm"] = Spread(fixed_above=0.5)
    known = _interval(PRODUCT)[3]
    unknown = known._replace(high_s=math.inf, known=False)
    assert speedup_interval(known, unknown) == speedup_interval(unknown, known) == (0, math.inf)


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
    assert speedup_interval(unsure, known) == pytest.approx((0.8, 1.3))
    assert speedup_interval(known, unsure) == pytest.approx((1 / 1.3, 1 / 0.8))


def _widths(card: HardwareProfile, constants: Any, **work: Any) -> tuple[float, float]:
    """Return how far a step of Mistral-7B may be off each way, as shares."""
    gpu_rates, setup = rates(card, constants), Setup()
    resident = resident_blocks(card)
    operations = decode_operations(mistral_7b(), setup, Workload(**work), resident_blocks=resident)
    step = step_time(operations, gpu_rates, setup.execution)
    unsure = uncertainty(step, gpu_rates, setup)
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


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_reads_nothing_again_in_an_array_either(samples: int) -> None:
    """A grid's cached time at one sample of a stored context is none, as of a single answer."""
    setup = Setup(kv_layout="shared", execution="eager")
    work = Workload(samples=samples, context_tokens=2000)
    gpu_rates = rates(load_hardware("h100-sxm"))
    cached = []
    for each in (work, work.but(samples=np.array([float(samples)]))):
        operations = decode_operations(llama_2_7b(), setup, each, resident_blocks=SLOTS)
        sums = step_sums(step_time(operations, gpu_rates, "eager"), gpu_rates)
        cached.append(float(np.sum(sums.families["attention"].cached_s)))
    assert cached[0] == pytest.approx(cached[1], rel=1e-12)
    assert (cached[0] > 0) == (samples > 1)


def test_no_step_is_faster_than_its_bytes_or_flops_at_published_peaks() -> None:
    """2000 GB/s and, in bf16 and fp8, 500 and 1000 TFLOP/s; what L2 serves takes no time."""
    card = rates(round_gpu())
    read = {"name": "a", "kind": "attention", "bytes_read": 8e6, "bytes_written": 2e6}
    assert peak_bound_s([Operation(**read)], card) == pytest.approx(5e-6)
    again = Operation(**read, reused_bytes=1e6, scratch_bytes=3e6, repeat=2)
    assert peak_bound_s([again], card) == pytest.approx(2 * 3e-6)
    products = [
        Operation(name="b", kind="gemm", flops=5e9, dtype="bf16", repeat=3),
        Operation(name="c", kind="gemm", flops=5e9, dtype="fp8"),
    ]
    assert peak_bound_s([again, *products], card) == pytest.approx((3 * 10 + 5) * 1e-6)


SHIPPED = shipped_spreads()


def test_every_kind_of_operation_has_a_spread_whatever_its_constants() -> None:
    """Each kind is of a family, and each family has a spread for carried constants and peaks."""
    assert set(FAMILY) == set(KINDS)
    assert set(FAMILY.values()) == set(FAMILIES)
    for origin in ("carried", "peak"):
        known = set(SHIPPED.origin[origin])
        assert all(known & set(spread_names(round_gpu(), family, "")) for family in FAMILIES)
    for card in (round_gpu(), gpu(), *map(load_hardware, ("l40s", "a40", "l4", "mi300x"))):
        for choice in ("auto", "carried", "peak"):
            for family in FAMILIES:
                for dtype in DTYPES:
                    assert spread_of(rates(card, choice), family, dtype)


def test_spreads_are_shares_that_leave_time_positive() -> None:
    """Nothing is shorter by all of itself, nothing is longer by less than nothing."""
    tables = [*SHIPPED.origin.values(), *SHIPPED.gpu.values(), SHIPPED.code]
    for item in (item for table in tables for item in table.values()):
        for part in ("fixed", "streaming", "cached"):
            assert 0 <= getattr(item, f"{part}_below") < 1
            assert 0 <= getattr(item, f"{part}_above") < math.inf
        assert 0 <= item.common <= 1


def test_the_constants_origin_picks_the_spread() -> None:
    """Its own rows where there are enough, all fitted GPUs' where not, carried where not fitted."""
    h100, a40, l4 = (rates(load_hardware(name)) for name in ("h100-sxm", "a40", "l4"))
    own = SHIPPED.gpu["h100-sxm"]
    assert spread_of(h100, "attention") == own["attention"]
    assert spread_of(h100, "gemm", "fp8") == own["fp8_gemm"]
    # Of A40 there are shared-prefix rows of one shape, and no products.
    assert spread_of(a40, "attention") == SHIPPED.origin["fitted"]["attention"]
    assert spread_of(a40, "gemm") == SHIPPED.origin["carried"]["gemm"]
    assert spread_of(l4, "attention") == SHIPPED.origin["carried"]["attention"]
    assert spread_of(l4, "elementwise", "fp8") == SHIPPED.origin["carried"]["elementwise"]
    ignored = rates(load_hardware("h100-sxm"), "carried")
    assert spread_of(ignored, "gemm") == SHIPPED.origin["carried"]["gemm"]


def test_a_kind_without_rows_held_out_is_as_sure_as_others_constants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no fitted GPU has a spread for it, a fitted constant has the one of carried ones."""
    without = SHIPPED._replace(origin={**SHIPPED.origin, "fitted": {}}, gpu={})
    monkeypatch.setattr(interval, "shipped_spreads", lambda: without)
    assert spread_of(rates(round_gpu()), "gemm") == SHIPPED.origin["carried"]["gemm"]


def test_8_bit_kernels_have_the_spread_of_their_own_constants() -> None:
    """A100 has no 8-bit rows: its caches are as sure as others' constants, its weights as 16 bits.

    int8 has A100's matrix path and nobody's rows; fp8 and int4 weights are expanded first.
    """
    h100, a100 = rates(load_hardware("h100-sxm")), rates(load_hardware("a100-sxm-80gb"))
    own, carried = SHIPPED.gpu["h100-sxm"], SHIPPED.origin["carried"]
    assert spread_of(h100, "attention", "fp8") == own["fp8_attention"]
    assert spread_of(a100, "attention", "fp8") == carried["fp8_attention"]
    assert spread_of(a100, "gemm", "int8") == carried["fp8_gemm"]
    for card, dtype in ((a100, "fp8"), (a100, "int4"), (h100, "int4")):
        assert spread_of(card, "gemm", dtype) == carried["gemm"]
    bound = rates(load_hardware("h100-sxm"), "peak")
    assert spread_of(bound, "gemm", "int4") == SHIPPED.origin["peak"]["gemm"]
    assert spread_of(bound, "gemm", "fp8") == SHIPPED.origin["peak"]["fp8_gemm"]


@pytest.mark.parametrize("name", ["l4", "l40s", "h100-pcie"])
def test_all_reduces_over_pcie_may_be_of_a_host_that_shares_nothing(name: str) -> None:
    """Of eight on the measured host, each has (2 / 8)^1.8 of a pair's rate: 0.082."""
    spread = spread_of(rates(load_hardware(name)), "collective")
    assert spread.streaming_below == pytest.approx(0.918, abs=0.001)
    table = SHIPPED.origin["fitted" if name == "l40s" else "carried"]
    assert spread.streaming_above == table["pcie_collective"].streaming_above


def test_all_reduces_over_a_link_have_its_spread() -> None:
    """Constants of an H200's link are carried."""
    carried = SHIPPED.origin["carried"]["collective"]
    assert spread_of(rates(load_hardware("h200-sxm")), "collective") == carried


@pytest.mark.parametrize("family", ["gemm", "attention", "prefill_attention"])
def test_carried_constants_do_no_better_than_fitted_ones(family: str) -> None:
    """The worst of GPUs left out is no surer than shapes held out."""
    carried: Spread = SHIPPED.origin["carried"][family]
    fitted: Spread = SHIPPED.origin["fitted"][family]
    assert carried.streaming_below >= fitted.streaming_below
    assert carried.streaming_above >= fitted.streaming_above
    assert carried.fixed_above >= fitted.fixed_above


def test_a_bound_may_be_exceeded_by_a_share_and_by_each_launch(spreads: dict[str, Spread]) -> None:
    """8 MB at 2000 GB/s are 4 us: as much again, and 3 us for each of two launches, may come."""
    spreads["gemm"] = Spread(streaming_above=1, launch_above_us=3)
    peak, operations = rates(CARD, "peak"), [replace(PRODUCT, launches=2)]
    step = step_time(operations, peak, "graph")
    unsure = uncertainty(step, peak, Setup())
    assert (unsure.low_s, unsure.high_s) == pytest.approx((4e-6, 4e-6 + 4e-6 + 6e-6))
    spreads["gemm"] = Spread()
    assert uncertainty(step, peak, Setup()).high_s == pytest.approx(4e-6)


def test_bytes_from_l2_have_a_spread_of_their_own(spreads: dict[str, Spread]) -> None:
    """Of 10 MB 4 come from L2: 6 us and 0.5 us, of which 40 % are 2.6 us that L2 serves.

    The other 3.9 us may be 10 % shorter and 50 % longer, those of L2 30 and 100 %.
    """
    spreads["attention"] = Spread(
        streaming_below=0.1, streaming_above=0.5, cached_below=0.3, cached_above=1
    )
    reading = Operation(name="a", kind="attention", bytes_read=10e6, reused_bytes=4e6)
    low, predicted, high, _ = _interval(reading)
    assert predicted == pytest.approx(2 + 6.5)
    assert predicted - low == pytest.approx(0.1 * 3.9 + 0.3 * 2.6)
    assert high - predicted == pytest.approx(0.5 * 3.9 + 2.6)
    spreads["attention"] = Spread()
    assert _interval(reading)[:3] == pytest.approx((8.5, 8.5, 8.5))


def test_only_the_slower_of_device_and_host_is_unsure(spreads: dict[str, Spread]) -> None:
    """4 us of the device behind 10 of the host; then 1001 us of the device before them."""
    spreads["gemm"] = Spread(fixed_below=0.1, streaming_above=0.2)
    spreads["eager_host"] = Spread(fixed_above=0.2, fixed_below=0.1)
    for moved, kernels, host in ((1e6, (0, 0), (1e-6, 2e-6)), (998e6, (0.3e-6, 199.6e-6), (0, 0))):
        unsure = _interval(replace(PRODUCT, bytes_read=moved), execution="eager")[3]
        for found, expected in ((unsure.shared["gemm"], kernels), (unsure.own["host"], host)):
            assert (found.below_s, found.above_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model_name", "card", "settings", "why"),
    [
        ("llama-3.1-70b", "h100-sxm", {"tensor_parallel": 8}, ""),
        ("llama-3.1-70b", "h100-sxm", {"tensor_parallel": 16}, "no rows are of more than 8 GPUs"),
        ("llama-3.1-70b", "h100-sxm", {"tensor_parallel": 16, "constants": "peak"}, ""),
        ("llama-3.1-70b", "mi300x", {}, ""),
        ("llama-3.1-70b", "mi300x", {"kv_layout": "copies"}, ""),
        ("mixtral-8x7b", "mi300x", {}, "no rows are of experts on GPUs of AMD"),
        ("mixtral-8x7b", "h200-sxm", {}, ""),
    ],
)
def test_an_interval_is_known_where_rows_are(
    model_name: str, card: str, settings: dict[str, Any], why: str
) -> None:
    """Other vendors' constants are NVIDIA's; public steps show how far that goes."""
    shape, setup = load_model(model_name), Setup(**settings)
    assert unknown_regime(shape, rates(load_hardware(card), setup.constants), setup) == why
    result = estimate(Question(shape, load_hardware(card), setup, Workload(samples=4)))
    peak = estimate(
        Question(shape, load_hardware(card), setup.but(constants="peak"), Workload(samples=4))
    )
    assert any(why in note for note in result.notes)
    assert result.interval_known == (not why)
    if why:
        assert result.step_high_s == math.inf
        # Both add the same bytes, in another order.
        assert 0 < result.step_low_s <= peak.step_s * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "products", "experts"),
    [("gpt-oss-20b", "bf16", "mxfp4"), ("deepseek-v3", "fp8_block", "fp8_block")],
)
def test_experts_and_other_products_have_spreads_of_their_own_formats(
    name: str, products: str, experts: str
) -> None:
    """gpt-oss keeps everything but its experts in 16 bits."""
    setup, _ = ask(load_model(name), kv_dtype="fp8")
    found = [interval.format_of(family, setup) for family in ("gemm", "experts", "attention")]
    assert found == [products, experts, "fp8"]
