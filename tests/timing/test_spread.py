"""Which spread holds for which kernel of which GPU, and what the shipped ones are like."""

import math

import pytest
from builders import gpu, round_gpu

from simulator.counts.operation import KINDS
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
                for narrow in (False, True):
                    assert spread_of(rates(card, choice), family, narrow=narrow)


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
    assert spread_of(h100, "attention", narrow=False) == own["attention"]
    assert spread_of(h100, "gemm", narrow=True) == own["fp8_gemm"]
    # Of A40 there are shared-prefix rows of one shape, and no products.
    assert spread_of(a40, "attention", narrow=False) == SHIPPED.origin["fitted"]["attention"]
    assert spread_of(a40, "gemm", narrow=False) == SHIPPED.origin["carried"]["gemm"]
    assert spread_of(l4, "attention", narrow=False) == SHIPPED.origin["carried"]["attention"]
    assert spread_of(l4, "elementwise", narrow=True) == SHIPPED.origin["carried"]["elementwise"]
    ignored = rates(load_hardware("h100-sxm"), "carried")
    assert spread_of(ignored, "gemm", narrow=False) == SHIPPED.origin["carried"]["gemm"]


def test_a_gpu_without_a_link_reduces_over_pcie() -> None:
    """Its all-reduces have a spread of their own."""
    l4, h200 = rates(load_hardware("l4")), rates(load_hardware("h200-sxm"))
    carried = SHIPPED.origin["carried"]
    assert spread_of(l4, "collective", narrow=False) == carried["pcie_collective"]
    assert spread_of(h200, "collective", narrow=False) == carried["collective"]


@pytest.mark.parametrize("family", ["gemm", "attention", "prefill_attention"])
def test_carried_constants_do_no_better_than_fitted_ones(family: str) -> None:
    """The worst of GPUs left out is no surer than shapes held out."""
    carried: Spread = SHIPPED.origin["carried"][family]
    fitted: Spread = SHIPPED.origin["fitted"][family]
    assert carried.streaming_below >= fitted.streaming_below
    assert carried.streaming_above >= fitted.streaming_above
    assert carried.fixed_above >= fitted.fixed_above
