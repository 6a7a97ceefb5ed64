"""The plausibility checks: what slips in spec sheets, and that sound profiles pass."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.inputs.hardware import HardwareProfile, load_hardware, profile_files
from simulator.inputs.hardware_check import check_aliases, check_profile

IDS = sorted(profile_files())
RATES = (
    "fp32_tflops",
    "tf32_tflops",
    "fp16_tflops",
    "bf16_tflops",
    "fp8_tflops",
    "int8_tops",
    "fp4_tflops",
)


@cache
def shipped(name: str) -> HardwareProfile:
    """Load each profile once."""
    return load_hardware(name)


def changed(name: str, table: str = "peak", **values: Any) -> HardwareProfile:
    """Return a shipped profile with figures replaced, or removed where the value is None."""
    data = shipped(name).as_dict()
    target = data[table] if table else data
    for field, value in values.items():
        plain = value is None or isinstance(value, str)
        target[field] = value if plain else {"value": value, "source": "test"}
    return HardwareProfile.read(data)


def findings(name: str, table: str = "peak", **values: Any) -> list[str]:
    """Check a shipped profile after a change."""
    return check_profile(changed(name, table, **values))


@pytest.mark.parametrize("name", IDS)
def test_shipped_profiles_have_no_finding(name: str) -> None:
    """Every card we ship is plausible."""
    assert check_profile(shipped(name)) == []


def test_sparse_rates_are_caught() -> None:
    """The figures with sparsity on NVIDIA's H100 page, 1979 bf16 and 3958 fp8, are found."""
    bf16 = findings("h100-sxm", bf16_tflops=1979)
    assert len(bf16) == 1
    assert "peak.bf16_tflops = 1979" in bf16[0]
    assert "989.4" in bf16[0]
    assert "sparsity" in bf16[0]
    fp8 = findings("h100-sxm", fp8_tflops=3958)
    assert len(fp8) == 1
    assert "peak.fp8_tflops = 3958" in fp8[0]
    assert "sparsity" in fp8[0]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_any_single_rate_doubled_or_halved_is_caught(name: str, factor: float) -> None:
    """A rate with sparsity, or of half a card, is found for every figure of every card."""
    for field in RATES:
        figure = getattr(shipped(name).peak, field)
        if figure is None or (field == "fp32_tflops" and shipped(name).peak.boost_mhz is None):
            continue
        assert findings(name, **{field: figure.value * factor}), field


# The H20s are cut to a quarter of their chip, so twice their rates are still possible.
@pytest.mark.parametrize(
    "name", [name for name in IDS if not name.startswith("h20-") and name != "h20"]
)
def test_all_matrix_rates_doubled_is_caught(name: str) -> None:
    """A sheet that has sparsity throughout agrees with itself, but not with the chip."""
    peak = shipped(name).peak
    doubled: dict[str, Any] = {
        field: getattr(peak, field).value * 2
        for field in RATES[1:]
        if getattr(peak, field) is not None
    }
    assert any("sparsity" in finding for finding in findings(name, **doubled))


@given(
    st.sampled_from([name for name in IDS if shipped(name).peak.rate_mhz]),
    st.sampled_from(["fp16_tflops", "bf16_tflops"]),
    st.floats(1.05, 10) | st.floats(0.1, 0.95),
)
def test_any_slip_of_the_half_rate_is_caught(name: str, field: str, factor: float) -> None:
    """Off by 5 % or more from the chip's arithmetic, a half-precision rate is named."""
    figure = getattr(shipped(name).peak, field)
    if figure is not None:
        changed_to = findings(name, **{field: figure.value * factor})
        assert any(f"peak.{field} = " in finding for finding in changed_to)


def test_a_slip_cannot_hide_behind_the_chip() -> None:
    """Twice the FMAs or twice the clock explain a doubled rate, but no such chip exists."""
    more: dict[str, Any] = {"fp16_tflops": 1978.9, "bf16_tflops": 1978.9, "tf32_tflops": 989.4}
    more |= {"fp8_tflops": 3957.8, "int8_tops": 3957.8}
    fma = findings("h100-sxm", **more, half_fma_per_clock_per_sm=4096)
    assert fma == [
        "peak.half_fma_per_clock_per_sm = 4096: a multiprocessor of 9.0 does 2048 at most"
    ]
    clock = findings("h100-sxm", **more, rate_mhz=3660)
    assert len(clock) == 1
    assert "peak.rate_mhz = 3660" in clock[0]


def test_without_the_chips_figures_the_clock_is_bounded() -> None:
    """With FMAs per clock left out, a sparse rate still needs a clock no H100 has."""
    bare: dict[str, Any] = {"half_fma_per_clock_per_sm": None, "rate_mhz": None}
    assert findings("h100-sxm", **bare) == []
    sparse: dict[str, Any] = {"fp16_tflops": 1979, "bf16_tflops": 1979, "tf32_tflops": 989.4}
    caught = findings("h100-sxm", **bare, **sparse, fp8_tflops=3958, int8_tops=3958)
    assert len(caught) == 1
    assert "peak.fp16_tflops = 1979" in caught[0]
    assert "1980" in caught[0]


def test_an_unknown_chip_must_give_its_figures() -> None:
    """A card of an architecture we do not know is told what is missing to check it."""
    future = {"compute_capability": "13.0"}
    assert findings("h100-sxm", table="", **future) == []
    data = changed("h100-sxm", table="", **future).as_dict()
    data["peak"]["rate_mhz"] = None
    caught = check_profile(HardwareProfile.read(data))
    assert len(caught) == 1
    assert "rate_mhz" in caught[0]
    assert "missing" in caught[0]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        # Errors found in published tables and tools.
        ("a100-sxm-80gb", {"fp8_tflops": 624}, "8.0 has no fp8 matrix path"),
        ("h200-sxm", {"fp16_tflops": 1979}, "peak.fp16_tflops = 1979"),
        ("gb200", {"memory_bandwidth_gb_per_s": 13400}, "peak.memory_bandwidth_gb_per_s = 13400"),
        ("rtx-5090", {"memory_bandwidth_gb_per_s": 280}, None),
        ("h100-nvl", {"memory_gb": 188 * 2}, "peak.memory_gb = 376"),
        ("v100-sxm2-32gb", {"bf16_tflops": 125}, "7.0 has no bf16 matrix path"),
        ("mi250x", {"fp32_tflops": 95.7}, "peak.fp32_tflops = 95.7"),
        ("mi300x", {"fp16_tflops": 330}, "peak.fp16_tflops = 330"),
        ("l4", {"sm_count": 64}, "64 x 512 FMA x 2 x 2040 MHz gives 133.7"),
        ("rtx-4090", {"int8_tops": 1321}, "peak.int8_tops = 1321"),
        ("b300-sxm", {"int8_tops": 4500}, "peak.int8_tops = 4500"),
        # Slips of unit.
        ("h100-sxm", {"memory_bandwidth_gb_per_s": 3.35}, "= 3.35: cards have 1600 to 5400 GB/s"),
        ("h100-sxm", {"memory_gb": 81559}, "peak.memory_gb = 81559"),
        ("h100-sxm", {"l2_mib": 51200}, "peak.l2_mib = 51200"),
        ("h100-sxm", {"boost_mhz": 1.98}, "peak.boost_mhz = 1.98"),
        ("h100-sxm", {"link_gb_per_s_per_direction": 3600}, "peak.link_gb_per_s_per_direction"),
        ("h100-sxm", {"pcie_gb_per_s_per_direction": 0.064}, "peak.pcie_gb_per_s_per_direction"),
        ("h100-sxm", {"tdp_w": 0.7}, "peak.tdp_w = 0.7"),
        ("h100-sxm", {"shared_memory_kib_per_sm": 233472}, "peak.shared_memory_kib_per_sm"),
        ("h100-sxm", {"sm_count": 131.5}, "peak.sm_count = 131.5: not a whole number"),
    ],
)
def test_errors_seen_in_the_wild(name: str, values: dict[str, Any], expected: str | None) -> None:
    """Errors of published tables, and slips of unit, each give a line that names the figure.

    280 GB/s is possible for some GDDR7 card; what betrays it on a 5090 is a measured figure.
    """
    caught = findings(name, **values)
    if expected is None:
        assert caught == []
    else:
        assert any(expected in finding for finding in caught), caught
    assert all("\n" not in finding for finding in caught)


def test_memory_types() -> None:
    """A memory type nobody sells is named with the nearest; one of another era is named too."""
    assert findings("h100-sxm", table="", memory_type="HBM-3") == [
        "unknown memory_type 'HBM-3'; did you mean one of HBM3, HBM3e?"
    ]
    wrong = findings("h100-sxm", table="", memory_type="GDDR7")
    assert "cards of 9.0 have HBM2e or HBM3 or HBM3e" in wrong[0]


def test_measured_rates() -> None:
    """A measured rate above its peak, of a path the card lacks, or a unit off, is found."""
    above = findings("h100-sxm", table="measured", memory_bandwidth_gb_per_s=3400)
    assert len(above) == 1
    assert "measured.memory_bandwidth_gb_per_s = 3400" in above[0]
    assert findings("h100-sxm", table="measured", memory_bandwidth_gb_per_s=3370) == []
    assert len(findings("h100-sxm", table="measured", bf16_tflops=0.7945)) == 1
    lacking = findings("a100-sxm-80gb", table="measured", fp8_tflops=500)
    assert lacking == ["measured.fp8_tflops = 500: peak.fp8_tflops is missing"]
    assert len(findings("h100-sxm", table="measured", memory_mib=40960)) == 1
    assert len(findings("h100-sxm", table="measured", memory_mib=2 * 81559)) == 1


def test_price() -> None:
    """A price in cents is out of range."""
    assert findings("h100-sxm", table="", price_usd_per_hour=229.0) == [
        "price_usd_per_hour = 229: cards have 0.02 to 100 USD per hour"
    ]


def test_exceptions_must_be_needed() -> None:
    """An exception explains the figure it names, exactly; a needless one is a finding."""
    table = "documented_exceptions"
    (unexplained,) = findings("rtx-4090", table, int8_tops=None)
    assert "peak.int8_tops = 660.6: 2 x fp16_tflops gives 330.4" in unexplained
    assert findings("rtx-4090", table, int8_tops=4.0) != []
    assert len(findings("h100-sxm", table, fp8_tflops=1.01)) == 1
    assert findings("a100-sxm-80gb", table, fp8_tflops=2.0) == [
        "documented_exceptions.fp8_tflops: peak.fp8_tflops is missing"
    ]


def test_aliases_of_two_cards() -> None:
    """A name two cards claim is found, whatever its case; a card may repeat its own."""
    first, second = shipped("h100-sxm"), shipped("h100-pcie")
    assert check_aliases([first, second]) == []
    thief = second.but(aliases=("H100_80gb",))
    assert check_aliases([first, thief]) == [
        "the name 'h100-80gb' belongs to h100-sxm and h100-pcie; leave it to one of them"
    ]
    usurper = second.but(aliases=("H100 SXM",))
    assert len(check_aliases([first, usurper])) == 1
    echo = second.but(aliases=("H100-PCIE", "H100 PCIe 80GB"))
    assert check_aliases([first, echo]) == []
