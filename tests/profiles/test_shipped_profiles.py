"""Every shipped GPU profile: complete, sourced, and in agreement with the facts gathered."""

import csv
import re
from functools import cache
from pathlib import Path

import pytest

from simulator.inputs.hardware import (
    Figure,
    HardwareProfile,
    load_hardware,
    normalise_name,
    read_profile,
)
from simulator.inputs.hardware_check import check_aliases
from simulator.resources import data_dir

PATHS = sorted(data_dir("hardware_profiles").glob("*.toml"))
SHARED = Path(__file__).parents[3] / "shared"
FACTS = SHARED / "facts" / "gpu_specs.csv"
MEASUREMENTS = SHARED / "measurements"

# The cards the question is asked about; a file lost in packaging or by a slip is noticed.
EXPECTED = {
    "v100-sxm2-16gb",
    "v100-sxm2-32gb",
    "t4",
    "a10",
    "a10g",
    "a30",
    "a40",
    "a100-pcie-40gb",
    "a100-pcie-80gb",
    "a100-sxm-40gb",
    "a100-sxm-80gb",
    "a800-sxm-80gb",
    "l4",
    "l40",
    "l40s",
    "l20",
    "rtx-3090",
    "rtx-4090",
    "rtx-4080",
    "rtx-5080",
    "rtx-5090",
    "rtx-a4000",
    "rtx-a5000",
    "rtx-a6000",
    "rtx-6000-ada",
    "rtx-pro-6000-ws",
    "rtx-pro-6000-server",
    "h100-pcie",
    "h100-sxm",
    "h100-nvl",
    "h200-sxm",
    "h200-nvl",
    "h20",
    "h20-141gb",
    "h800-sxm",
    "gh200-96gb",
    "gh200-144gb",
    "b200-sxm",
    "b300-sxm",
    "gb200",
    "gb300",
    "mi210",
    "mi250x",
    "mi250x-gcd",
    "mi300x",
    "mi325x",
    "mi355x",
}

# Cards not in the facts: one die, and cuts of a card that is.
DERIVED = {"v100-sxm2-16gb", "a800-sxm-80gb", "mi250x-gcd", "h20-141gb"}
# Cards in use that the facts have nothing on: recalled data sheets.
RECALLED = {
    "l40",
    "l20",
    "a30",
    "rtx-4080",
    "rtx-5080",
    "rtx-a4000",
    "rtx-a5000",
    "rtx-a6000",
    "h200-nvl",
}
# Announced, barely shipped: left out as the facts advise.
LEFT_OUT = {"b100"}

PEAK_COLUMNS = {
    "memory_gb": "memory_gb",
    "memory_bandwidth_gb_per_s": "mem_bw_gb_per_s",
    "fp32_tflops": "fp32_tflops",
    "tf32_tflops": "tf32_tflops_dense",
    "fp16_tflops": "fp16_tflops_dense",
    "bf16_tflops": "bf16_tflops_dense",
    "fp8_tflops": "fp8_tflops_dense",
    "int8_tops": "int8_tops_dense",
    "fp4_tflops": "fp4_tflops_dense",
    "l2_mib": "l2_mb",
    "sm_count": "sm_or_cu_count",
    "boost_mhz": "boost_mhz",
    "rate_mhz": "arithmetic_clock_mhz",
    "half_fma_per_clock_per_sm": "half_fma_per_clk_per_sm",
    "shared_memory_kib_per_sm": "shared_mem_kb_per_sm",
    "link_gb_per_s_per_direction": "link_gb_per_s_per_direction",
    "pcie_gb_per_s_per_direction": "pcie_gb_per_s_per_direction",
    "tdp_w": "tdp_w",
}
# Where the facts gathered first were wrong, by card and field.
CORRECTED: dict[str, dict[str, float | None]] = {
    # The devices report 152 multiprocessors, not the HGX cards' 148; the clock is computed back.
    "gb200": {"sm_count": 152, "boost_mhz": 2008, "rate_mhz": 2008},
    "gb300": {"sm_count": 152},
    # Of the two figures in circulation, the one that 148 multiprocessors give.
    "b200-sxm": {"fp32_tflops": 75},
    # The price was of cards with 16 GB, of another provider than the others' (0.79).
    "v100-sxm2-32gb": {"price_usd_per_hour": None, "read_gb_per_s": 867},
    # Of the kernels in the source, the one that only reads: the facts took those that copy.
    "a100-sxm-40gb": {"read_gb_per_s": 1500},
    "h100-pcie": {"read_gb_per_s": 1942},
    "v100-sxm2-16gb": {"read_gb_per_s": 867},
    # 362 TFLOP/s are below what the boost clock gives.
    "l40s": {"rate_mhz": 2490},
}
# Rates cut for export, or a clock that nobody published.
WITHOUT_CLOCK = {"h20", "h20-141gb", "b300-sxm", "gb300"}
# Figures that a source has, where it has not all: one that has none of a profile's is no source.
MATRIX = {"fp16_tflops", "bf16_tflops", "fp8_tflops", "int8_tops", "fp4_tflops"}
MEMORY = {"memory_gb", "memory_bandwidth_gb_per_s"}
LINKS = {"link_gb_per_s_per_direction", "pcie_gb_per_s_per_direction"}
HELD_BY = {
    "llm-analysis": MATRIX | MEMORY | {"link_gb_per_s_per_direction"},
    "LLM-Viewer": MATRIX | {"memory_bandwidth_gb_per_s"},
    "aiconfigurator": MATRIX | MEMORY | LINKS | {"tdp_w", "boost_mhz"},
    "skypilot-catalog": {"memory_gb", "price_usd_per_hour"},
    "ml-engineering network": {"link_gb_per_s_per_direction"},
    "MAMF table": {"bf16_tflops", "fp8_tflops"},
    "gpu-benches": {"memory_bandwidth_gb_per_s"},
    "transformers-benchmarks": {"fp16_tflops"},
}
TEXT_COLUMNS = {
    "name": "name",
    "vendor": "vendor",
    "architecture": "arch",
    "compute_capability": "compute_capability",
    "memory_type": "memory_type",
    "confidence": "confidence",
}


@cache
def shipped(path: Path) -> HardwareProfile:
    """Read each file once."""
    return read_profile(path)


def figures(profile: HardwareProfile) -> dict[str, Figure]:
    """Return every figure of a profile by its place in the file."""
    found = {
        f"{table}.{name}": getattr(part, name)
        for table in ("peak", "measured", "documented_exceptions")
        for part in [getattr(profile, table)]
        for name in type(part).fields
        if getattr(part, name) is not None
    }
    found |= {f"fitted.{name}": figure for name, figure in profile.fitted.items()}
    if profile.price_usd_per_hour:
        found["price_usd_per_hour"] = profile.price_usd_per_hour
    return found


def fact_rows() -> list[dict[str, str]]:
    """Return the rows of the facts, none where the folder is absent."""
    if not FACTS.is_file():
        return []
    with FACTS.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["id"] not in LEFT_OUT]


def number(text: str) -> float | None:
    """Read a cell; an empty one, and a link of 0, mean there is none."""
    return float(text) or None if text else None


def value(figure: Figure | None) -> float | None:
    """Return a figure's value."""
    return figure.value if figure else None


def test_the_set_is_complete() -> None:
    """Every card expected is shipped, and nothing else."""
    assert {path.stem for path in PATHS} == EXPECTED


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_file_loads_and_is_named_by_its_id(path: Path) -> None:
    """A shipped file loads, its id is its name, and ids are small letters."""
    profile = shipped(path)
    assert profile.id == path.stem
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", profile.id)
    assert profile.notes
    assert profile.aliases


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_profile_claims_a_reading_of_its_own(path: Path) -> None:
    """This project has read no card: every figure comes from someone else."""
    assert not re.search(r"\bown reading|by this project", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_source_can_be_looked_up(path: Path) -> None:
    """Each part of each source is recalled, arithmetic, or spelled out in [sources]; none idle."""
    profile = shipped(path)
    used = set()
    for place, figure in figures(profile).items():
        if place.startswith("documented_exceptions") and ":" not in figure.source:
            continue  # a reason in words
        for part in figure.source.split(";"):
            name = part.split(":")[0].strip()
            assert name, place
            if not name.startswith(("recalled", "arithmetic")):
                assert name in profile.sources, place
                used.add(name)
    assert used == set(profile.sources)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_figure_has_a_source_that_can_hold_it(path: Path) -> None:
    """At least one source of each figure is known to have such a figure, or all figures."""
    for place, figure in figures(shipped(path)).items():
        field = place.rpartition(".")[2]
        if place.startswith(("fitted", "documented_exceptions")):
            continue
        names = [part.split(":")[0].strip() for part in figure.source.split(";")]
        assert any(field in HELD_BY.get(name, {field}) for name in names), (place, figure.source)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_multiprocessors_clock_and_width_give_the_rates(path: Path) -> None:
    """Multiprocessors x FMA per clock x 2 x clock is the half-precision rate within 1 %."""
    peak = shipped(path).peak
    fma, clock = peak.half_fma_per_clock_per_sm, peak.rate_mhz
    if fma is None or clock is None:
        assert path.stem in WITHOUT_CLOCK
        return
    tera_per_s = peak.sm_count.value * fma.value * 2 * clock.value * 1e6 / 1e12
    assert peak.fp16_tflops.value == pytest.approx(tera_per_s, rel=0.01)
    boost = peak.boost_mhz
    assert boost is None or clock.value <= boost.value * 1.01


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_price_says_what_it_is(path: Path) -> None:
    """Provider and terms of each; a day, or it is not to be trusted; serverless is marked."""
    price = shipped(path).price_usd_per_hour
    if price is None:
        return
    assert price.provider
    assert price.terms != "own"
    assert price.low_trust or re.fullmatch(r"20\d\d(-\d\d-\d\d)?", price.day)
    assert price.provider in price.source
    assert ("serverless" in price.source) == (price.terms == "serverless")
    assert price.comparable == (price.terms == "on demand" and not price.low_trust)


def test_the_size_that_a_device_reports_comes_first() -> None:
    """The H200's tables say 50 MiB of L2; the device says 60, which its caches obey."""
    card = load_hardware("h200-sxm")
    assert value(card.peak.l2_mib) == 50
    assert card.l2_bytes == 60 * 2**20


def test_cards_with_a_bridge_are_pairs() -> None:
    """The bridge of an A30 joins two, at 200 GB/s both ways; four talk over PCIe."""
    card = load_hardware("a30")
    assert card.link_bytes_per_s(2) == 100e9
    assert card.over_pcie(4)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_one_figure_a_line(path: Path) -> None:
    """Every figure is an inline table on a line of its own, so that changes read well."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "{ value = " in line]
    assert len(lines) == len(figures(shipped(path)))
    assert all(line.endswith(" }") for line in lines)


def test_names_and_aliases_are_unique() -> None:
    """No two cards answer to one name."""
    assert check_aliases(map(shipped, PATHS)) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_aliases_resolve_to_their_card(path: Path) -> None:
    """Every alias, and the name, loads the card that claims it; no alias is there for nothing."""
    profile = shipped(path)
    for name in (profile.name, *profile.aliases):
        assert load_hardware(name).id == profile.id
    compared = [normalise_name(name) for name in (profile.id, *profile.aliases)]
    assert len(set(compared)) == len(compared), "an alias repeats the id or another alias"


@pytest.mark.parametrize(
    ("name", "bandwidth", "half", "memory"),
    [
        # NVIDIA and AMD product pages, dense: the figures everyone checks first.
        ("v100-sxm2-32gb", 900, 125, 32),
        ("a100-sxm-80gb", 2039, 312, 80),
        ("h100-sxm", 3350, 989.4, 80),
        ("h200-sxm", 4800, 989.4, 141),
        ("b200-sxm", 8000, 2250, 180),
        ("l40s", 864, 362, 48),
        ("mi300x", 5325, 1307.4, 192),
        ("mi250x-gcd", 1638, 191.5, 64),
    ],
)
def test_headline_figures(name: str, bandwidth: float, half: float, memory: float) -> None:
    """Bandwidth, dense half-precision rate and memory of well-known cards."""
    peak = load_hardware(name).peak
    assert peak.memory_bandwidth_gb_per_s.value == bandwidth
    assert peak.fp16_tflops.value == half
    assert peak.memory_gb.value == memory


def test_a800_is_an_a100_with_a_slower_link() -> None:
    """The A800 differs from the A100 SXM 80GB in NVLink alone: 400 GB/s both ways."""
    a800, a100 = load_hardware("a800").peak, load_hardware("a100").peak
    different = {
        name for name in PEAK_COLUMNS if value(getattr(a800, name)) != value(getattr(a100, name))
    }
    assert different == {"link_gb_per_s_per_direction"}
    assert a800.link_gb_per_s_per_direction is not None
    assert a800.link_gb_per_s_per_direction.value == 200
    assert "recalled" in a800.link_gb_per_s_per_direction.source


def test_one_die_is_half_of_the_card() -> None:
    """One process on an MI250X sees half of what grows with the card."""
    die, card = load_hardware("mi250x-gcd"), load_hardware("mi250x")
    assert die.sm_count * 2 == card.sm_count
    assert die.l2_bytes * 2 == card.l2_bytes
    assert die.memory_bytes * 2 == card.memory_bytes
    assert die.memory_bandwidth_bytes_per_s * 2 == pytest.approx(
        card.memory_bandwidth_bytes_per_s, rel=1e-3
    )


@pytest.mark.skipif(not FACTS.is_file(), reason="the gathered facts are not beside this checkout")
def test_every_card_of_the_facts_is_shipped() -> None:
    """The facts and the profiles name the same cards, but for those listed here."""
    assert {row["id"] for row in fact_rows()} == {path.stem for path in PATHS} - DERIVED - RECALLED


@pytest.mark.skipif(not FACTS.is_file(), reason="the gathered facts are not beside this checkout")
@pytest.mark.parametrize("row", fact_rows(), ids=lambda row: row["id"])
def test_figures_agree_with_the_facts(row: dict[str, str]) -> None:
    """Each figure of the file is the one gathered, no more and no fewer."""
    profile = load_hardware(row["id"])
    for field, column in TEXT_COLUMNS.items():
        assert getattr(profile, field) == row[column], field
    corrected = CORRECTED.get(row["id"], {})
    for field, column in PEAK_COLUMNS.items():
        expected = corrected.get(field, number(row[column]))
        assert value(getattr(profile.peak, field)) == expected, field
    price = corrected.get("price_usd_per_hour", number(row["price_usd_per_gpu_hour"]))
    assert value(profile.price_usd_per_hour) == price
    measured = profile.measured
    # The column is called bf16; on a card without bf16 its row is an fp16 product.
    half = measured.bf16_tflops if profile.peak.bf16_tflops else measured.fp16_tflops
    assert value(half) == number(row["measured_bf16_tflops"])
    assert value(measured.fp8_tflops) == number(row["measured_fp8_tflops"])
    # A reading without a public source is in no profile.
    told = number(row["measured_mem_bw_gb_per_s"])
    if row["measured_mem_bw_source"].startswith("unverified"):
        told = None
    assert value(measured.memory_bandwidth_gb_per_s) == corrected.get("read_gb_per_s", told)


@pytest.mark.skipif(not FACTS.is_file(), reason="the gathered facts are not beside this checkout")
@pytest.mark.parametrize("row", fact_rows(), ids=lambda row: row["id"])
def test_what_was_recalled_says_so(row: dict[str, str]) -> None:
    """A card whose facts rest on memory has figures marked recalled."""
    if "recalled" in row["sources"]:
        sources = [figure.source for figure in figures(load_hardware(row["id"])).values()]
        # The FMA counts are recalled on most cards: they are not what is asked for here.
        assert any(re.search(r"recalled (vendor|AWS|NVIDIA)", source) for source in sources)


@pytest.mark.skipif(
    not MEASUREMENTS.is_dir(), reason="the measured rows are not beside this checkout"
)
def test_cards_of_the_measured_rows_resolve() -> None:
    """Every GPU named in a measured row is a card of ours."""
    names = set()
    for path in sorted(MEASUREMENTS.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            names |= {row["gpu"] for row in csv.DictReader(file)}
    assert names
    for name in names:
        assert load_hardware(name).id in {path.stem for path in PATHS}, name
