"""Which spread holds for which kernel of which GPU, and what the shipped ones are like."""

import math

import pytest
from builders import gpu, round_gpu

from simulator.counts.operation import KINDS
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import rates
from simulator.timing.spread import FAMILIES, FAMILY, Spread, shipped_spreads, spread_of

SHIPPED = shipped_spreads()


def test_every_kind_of_operation_has_a_spread_whatever_its_constants() -> None:
    """Each kind is of a family, and each family has a spread for carried constants and peaks."""
    assert set(FAMILY) == set(KINDS)
    assert set(FAMILY.values()) == set(FAMILIES)
    for origin in ("carried", "peak"):
        assert set(SHIPPED.origin[origin]) >= set(FAMILIES)
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


def test_a_gpu_without_a_link_reduces_over_pcie() -> None:
    """Its all-reduces have a spread of their own."""
    l4, h200 = rates(load_hardware("l4")), rates(load_hardware("h200-sxm"))
    carried = SHIPPED.origin["carried"]
    assert spread_of(l4, "collective") == carried["pcie_collective"]
    assert spread_of(h200, "collective") == carried["collective"]


@pytest.mark.parametrize("family", ["gemm", "attention", "prefill_attention"])
def test_carried_constants_do_no_better_than_fitted_ones(family: str) -> None:
    """The worst of GPUs left out is no surer than shapes held out."""
    carried: Spread = SHIPPED.origin["carried"][family]
    fitted: Spread = SHIPPED.origin["fitted"][family]
    assert carried.streaming_below >= fitted.streaming_below
    assert carried.streaming_above >= fitted.streaming_above
    assert carried.fixed_above >= fitted.fixed_above
