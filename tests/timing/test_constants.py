"""Which constant counts, where it says it is from, and whether it had a part in a step."""

from dataclasses import replace
from typing import Any

import pytest
from builders import gpu, mistral_7b
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.operation import KIN, KINDS, Operation
from simulator.counts.transformer import decode_operations
from simulator.errors import ProfileError
from simulator.inputs.dtypes import Dtype
from simulator.inputs.hardware import load_hardware, profile_files
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Execution, Setup, ask
from simulator.inputs.workload import Workload
from simulator.timing import constants
from simulator.timing.constants import (
    CONSTANTS,
    EXPERT_KERNELS,
    GENERAL,
    KEYS,
    LARGEST_SHARE,
    VARIANTS,
    Entry,
    Key,
    Variant,
    carried_entry,
    fitted_constants,
    key_named,
    powered_share,
    published_tflops_per_w,
    rates,
    shipped,
    used_constants,
)
from simulator.timing.limits import resident_blocks
from simulator.timing.roofline import operation_time
from simulator.timing.step import decode_time

CARRIED = shipped()
KNOWN = [*dict.fromkeys([*CONSTANTS, *map(str, KEYS)])]
HOPPER = {"architecture": "Hopper GH100"}


def _carried(name: str, family: str | None = None) -> float:
    return (CARRIED.architectures[family] if family else CARRIED.default)[key_named(name)].value


def test_constants_of_this_kind_come_before_general_ones() -> None:
    """Fitted for the kind, fitted, carried for the kind, measured, carried: the first one found.

    Prefill attention's matrix rate has all five; each is taken away in turn.
    """
    name, kind = "flops_fraction", "prefill_attention"
    own, general = {f"{kind}_{name}": 0.11}, {name: 0.22}
    measured = {"bf16_tflops": 400.0}  # 0.8 of 500

    def used(card: Any, kind: str = kind) -> tuple[float, str]:
        constant = rates(card).constants[key_named(f"{kind}_{name}")]
        return constant.value, constant.origin

    carried_kind = _carried(f"{kind}_{name}", "Hopper")
    assert used(gpu({**own, **general}, measured=measured, **HOPPER)) == (0.11, "fitted")
    assert used(gpu(general, measured=measured, **HOPPER)) == (0.22, "fitted")
    assert used(gpu(measured=measured, **HOPPER)) == (carried_kind, "carried")
    # A copy has no constant of its own kind: what was measured comes next.
    assert used(gpu(measured=measured, **HOPPER), "copy") == (0.8, "measured")
    assert used(gpu(**HOPPER), "copy") == (_carried(name, "Hopper"), "carried")
    assert used(gpu(), "copy") == (_carried(name), "carried")


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "nvfp4"])
def test_no_carried_matrix_rate_exceeds_the_largest_measured(dtype: Dtype) -> None:
    """165 of 500 TFLOP/s measured: products take no larger share, in 8 bits neither."""
    card = gpu(measured={"bf16_tflops": 165}, fp4_tflops=2000, **HOPPER)
    used = rates(card).of(Operation(name="a", kind="gemm", dtype=dtype))
    found = used.constants[key_named("gemm_flops_fraction")]
    assert (found.value, found.origin) == (pytest.approx(0.33), "measured")
    if dtype != "bf16":
        own = gpu(measured={"bf16_tflops": 165, "fp8_tflops": 250}, fp4_tflops=2000, **HOPPER)
        used = rates(own).of(Operation(name="a", kind="gemm", dtype=dtype))
        assert used.constants[key_named("gemm_flops_fraction")].value == pytest.approx(0.25)


def test_power_decides_which_share_of_the_matrix_rate_is_reached() -> None:
    """L40S's 0.66 at 362 TFLOP/s and 350 W: more on cards with more watts, none above 0.975."""
    of_l40s = 362 / 350
    share = {
        name: powered_share(0.66, of_l40s, load_hardware(name))
        for name in ("l40s", "rtx-4090", "l20", "l4", "rtx-6000-ada", "a10g")
    }
    assert share["l40s"] == pytest.approx(0.66)
    assert share["l4"] < share["rtx-6000-ada"] < share["l40s"] < share["l20"] < share["rtx-4090"]
    assert share["rtx-4090"] * 165.2 == pytest.approx(161, rel=0.06)
    assert share["a10g"] == LARGEST_SHARE


@pytest.mark.parametrize(
    ("one", "other"),
    [("a100-sxm-80gb", "a100-pcie-80gb"), ("h100-sxm", "gh200-144gb"), ("b200-sxm", "b300-sxm")],
)
def test_the_power_rule_holds_between_measured_cards(one: str, other: str) -> None:
    """Of one design each: the share measured on one predicts that of the other within 7 %."""
    cards = [load_hardware(name) for name in (one, other)]
    shares = [card.measured.bf16_tflops.value / card.peak.bf16_tflops.value for card in cards]
    predicted = powered_share(shares[0], published_tflops_per_w(cards[0]), cards[1])
    assert predicted == pytest.approx(shares[1], rel=0.07)


def test_a_tile_s_load_rate_grows_with_the_matrix_rate_of_an_sm() -> None:
    """5 TFLOP/s an SM where the entry's GPU has 2.5: the 0.8th power of 2, at whatever clock."""
    entry = Entry(30.0, "made up", sm_tflops=2.5)
    assert entry.on(gpu(boost_mhz=1500), key_named("tile_gb_per_s")) == pytest.approx(30 * 2**0.8)


def test_a_relative_of_another_architecture_is_not_of_its_own_family() -> None:
    """GB202 takes Ada's constants, not those of the Blackwell with other tensor cores."""
    cards = [gpu(architecture=name) for name in ("Blackwell Ultra", "Blackwell GB202")]
    shares = [rates(card).constants[key_named("copy_flops_fraction")].source for card in cards]
    assert "B200" in shares[0]
    assert "B200" not in shares[1]


def test_a_card_that_expands_weights_quantises_nothing() -> None:
    """No time on an A100, its 16-bit constants elsewhere, or its own of the format."""
    kernel = Operation(name="a", kind="quantise", bytes_read=2e6, bytes_written=1e6, dtype="fp8")
    constants = {"quantise_launch_us": 5, "fp8_quantise_launch_us": 7}
    time = operation_time(kernel, rates(gpu(constants)), "graph")
    assert time.launch_s == pytest.approx(7e-6)
    assert time.memory_s >= 3e6 / 2000e9
    old = rates(gpu(constants, fp8_tflops=None, int8_tops=None))
    assert operation_time(kernel, old, "graph").device_s == 0
    assert operation_time(replace(kernel, dtype="nvfp4"), rates(gpu()), "graph").device_s == 0


def test_an_architecture_s_constant_comes_before_everybody_s() -> None:
    """Of those carried over for the kind and in general alike."""
    name = "prefill_attention_flops_fraction"
    assert _carried(name, "Hopper") != _carried(name)
    assert rates(gpu(**HOPPER)).constants[key_named(name)].value == _carried(name, "Hopper")
    assert rates(gpu()).constants[key_named(name)].value == _carried(name)


@pytest.mark.parametrize(
    ("measured", "name", "value"),
    [
        ({"memory_bandwidth_gb_per_s": 1500}, "copy_bandwidth_fraction", 0.75),
        # A reading above the published peak says that the peak is low.
        ({"memory_bandwidth_gb_per_s": 2100}, "copy_bandwidth_fraction", 1.0),
        ({"bf16_tflops": 400}, "copy_flops_fraction", 0.8),
        ({"l2_bandwidth_gb_per_s": 7000}, "l2_gb_per_s", 70),
    ],
)
def test_measured_rates_become_shares_of_peak(
    measured: dict[str, float], name: str, value: float
) -> None:
    """Peaks of 2000 GB/s and 500 TFLOP/s: the share achieved, its source kept."""
    constant = rates(gpu(measured=measured)).constants[key_named(name)]
    assert constant.value == pytest.approx(value)
    assert (constant.origin, constant.source) == ("measured", "made up")


def test_carried_ignores_the_card_s_own() -> None:
    """The way to ask what would be said of a card nobody has calibrated."""
    card = gpu({"bandwidth_fraction": 0.5}, measured={"bf16_tflops": 165})
    assert rates(card, "carried").constants == rates(gpu(), "carried").constants
    assert rates(card, "carried").origin == "carried"


def test_peak_is_published_rates_and_no_overheads() -> None:
    """A bound: every byte at full bandwidth, every FLOP at full rate, launches free."""
    peak = rates(gpu({"bandwidth_fraction": 0.5, "launch_us": 9}), "peak")
    assert set(peak.bandwidth_bytes_per_s.values()) == {2000e9}
    assert set(peak.launch_s.values()) == {0}
    assert (peak.eager_launch_s, peak.host_s_per_launch) == (0, 0)
    assert all(peak.flops_per_s(kind, "bf16") == 500e12 for kind in KINDS)
    assert peak.link_bytes_per_s(2) == 400e9
    assert peak.origin == "peak"


@pytest.mark.parametrize("name", KNOWN)
def test_every_documented_constant_can_be_fitted(name: str) -> None:
    """No name that is accepted is without effect: it is used, and the answer says so."""
    card = rates(gpu({name: 0.5}))
    assert card.origin == "fitted"
    used = [item for item in card.constants.values() if item.origin == "fitted"]
    assert used
    assert {item.value for item in used} == {0.5}


@pytest.mark.parametrize("name", ["gemm_link_fraction", "attention_block_gb_per_s"])
def test_a_constant_that_no_kind_has_is_an_error(name: str) -> None:
    """Fitted for a kind that does not look it up, it would silently change nothing."""
    with pytest.raises(ProfileError, match=rf"^round: fitted: unknown constant '{name}'"):
        rates(gpu({name: 0.5}))


def test_an_unknown_fitted_constant_is_an_error() -> None:
    """A mistyped name would silently change nothing: the message has the card and the nearest."""
    with pytest.raises(
        ProfileError,
        match=r"^round: fitted: unknown constant 'bandwith_fraction'; "
        "did you mean 'bandwidth_fraction'",
    ):
        rates(gpu({"bandwith_fraction": 0.5}))


def test_a_group_beyond_its_link_is_slower() -> None:
    """Where a bridge joins two GPUs, four talk over PCIe; both at the achieved share."""
    data = gpu({"link_fraction": 0.5}, pcie_gb_per_s_per_direction=32).as_dict()
    card = type(gpu()).read({**data, "link_gpus": 2})
    assert rates(card).link_bytes_per_s(2) == 200e9
    assert rates(card, "peak").link_bytes_per_s(4) == 32e9
    assert rates(card).link_bytes_per_s(4) < 16e9


def test_a_host_is_shared_over_pcie() -> None:
    """NCCL's all-reduce of 128 MiB on L40S: 20.0, 5.1 and 1.5 of 32 GB/s with 2, 4 and 8 GPUs."""
    nccl = rates(load_hardware("l40s"), variants=(Variant("nccl"),))
    achieved = [nccl.link_bytes_per_s(gpus) / 1e9 for gpus in (2, 4, 8)]
    assert achieved == pytest.approx([20.0, 5.1, 1.5], rel=0.15)
    bridged = rates(load_hardware("a40"))
    assert bridged.link_bytes_per_s(8) < bridged.link_bytes_per_s(4) / 3
    switched = rates(load_hardware("h100-sxm"))
    assert switched.link_bytes_per_s(8) == switched.link_bytes_per_s(2)


def test_no_more_gpus_share_a_host_than_it_holds() -> None:
    """Sixteen L40S are two hosts of eight: each shares its own, and little goes between them."""
    card = rates(load_hardware("l40s"))
    assert card.gpu.over_pcie(16)
    eight, sixteen = card.link_bytes_per_s(8), card.link_bytes_per_s(16)
    assert eight < sixteen < 1.1 * eight
    assert card.link_bytes_per_s(32) == pytest.approx(sixteen, rel=0.05)


def test_a_card_without_a_link_says_so() -> None:
    """Not a division by zero."""
    card = gpu(link_gb_per_s_per_direction=None)
    with pytest.raises(ProfileError, match=r"^round has no link"):
        rates(card).link_bytes_per_s(2)


@pytest.mark.parametrize("name", sorted(profile_files()))
def test_every_shipped_card_has_all_constants_with_their_sources(name: str) -> None:
    """Shares are shares, times are not negative, and nothing is without a source."""
    card = rates(load_hardware(name))
    for key, constant in card.constants.items():
        assert constant.source.strip(), key
        assert constant.value >= 0, key
        if key.name.endswith("_fraction"):
            assert 0 < constant.value <= 1, key


def test_every_shipped_architecture_section_is_of_some_card() -> None:
    """A misspelt section of carried.toml would be read by nobody."""
    families = set()
    for name in profile_files():
        architecture = load_hardware(name).architecture
        families |= {architecture, architecture.split()[0]}
    assert set(CARRIED.architectures) <= families
    assert set(CARRIED.kin) <= families
    assert set(CARRIED.kin.values()) <= set(CARRIED.architectures)


def test_the_nearest_kin_s_constants_come_before_everybody_s() -> None:
    """An RTX PRO 6000 has no rows: its launches are taken to cost what they cost on Ada."""
    name = "attention_launch_us"
    kin = gpu(architecture="Blackwell GB202")
    assert rates(kin).constants[key_named(name)].value == _carried(name, "Ada") != _carried(name)


def test_a_library_s_own_constants_come_first() -> None:
    """Fitted or carried; another library gets the general ones."""
    card = gpu({"vllm_attention_launch_us": 7, "attention_launch_us": 5})
    vllm, sglang = Variant("vllm"), Variant("sglang")
    used = [
        rates(card, variants=variants).constants[key_named("attention_launch_us")].value
        for variants in ((), (vllm,), (sglang,), (sglang, vllm))
    ]
    assert used == [5, 7, 5, 7]


_EIGHT_BIT = Operation(name="reads", kind="attention", low_precision_cache=True)


def test_8_bit_products_and_caches_have_constants_of_their_own() -> None:
    """Each by its own format: an fp8 cache beside 16-bit weights, and the other way round."""
    own = {"attention_launch_us": 5, "fp8_attention_launch_us": 9}
    card = rates(gpu({**own, "gemm_launch_us": 3, "fp8_gemm_launch_us": 4}))
    product = Operation(name="product", kind="gemm", dtype="fp8")
    for operation, launch_us in (
        (_EIGHT_BIT, 9),
        (replace(_EIGHT_BIT, low_precision_cache=False), 5),
        (product, 4),
        (replace(product, dtype="bf16"), 3),
        (replace(product, dtype="int8"), 4),
        # Norms of a model with fp8 weights are as they were.
        (replace(product, kind="elementwise"), rates(gpu()).launch_s["elementwise"] * 1e6),
    ):
        time = operation_time(operation, card, "graph")
        assert time.launch_s == pytest.approx(launch_us * 1e-6), operation


def test_a_card_without_an_8_bit_path_multiplies_with_16_bit_kernels() -> None:
    """An A100 expands fp8 weights first; its int8 path is another format's."""
    card = rates(gpu({"fp8_gemm_launch_us": 4, "gemm_launch_us": 3}, fp8_tflops=None))
    product = Operation(name="product", kind="gemm", dtype="fp8")
    assert card.of(product) is card
    assert card.of(replace(product, dtype="int8")) is card.at("fp8")


def test_8_bit_constants_of_others_come_before_the_card_s_own_of_16_bits() -> None:
    """Unless its own 8-bit rows told some: what they could not tell was 16 bits' in that fit."""
    launches = {"attention_launch_us": 5, "copy_launch_us": 1}
    without = rates(gpu(launches)).of(_EIGHT_BIT)
    for name in launches:
        found = without.constants[key_named(name)]
        assert (found.origin, found.key) == ("carried", key_named(f"fp8_{name}"))
    some = rates(gpu({**launches, "fp8_attention_launch_us": 9})).of(_EIGHT_BIT)
    assert [some.constants[key_named(name)].value for name in launches] == [9, 1]
    # Rows of products say nothing of caches.
    others = rates(gpu({**launches, "fp8_gemm_launch_us": 9})).of(_EIGHT_BIT)
    assert others.constants[key_named("attention_launch_us")].key == key_named(
        "fp8_attention_launch_us"
    )


def test_peaks_know_no_formats_but_the_rate() -> None:
    """A bound is made of published figures alone, in 8 bits too."""
    bound = rates(gpu(), "peak").of(_EIGHT_BIT)
    assert bound.bandwidth_bytes_per_s["attention"] == 2000e9
    assert set(bound.launch_s.values()) == {0}


def test_every_carried_name_is_looked_up() -> None:
    """A misspelt name in carried.toml would be read by nobody."""
    for name in ("carried.toml", "carried_kernels.json", "carried_libraries.json"):
        raw = constants._tables_in(name)
        for table in (raw["default"], *raw["architecture"].values()):
            for text in table:
                assert key_named(text).of(GENERAL) in {key_named(known) for known in KNOWN}, text


def test_every_name_has_one_key() -> None:
    """What a profile or a table calls a constant is written and read without guessing."""
    kernels = [each for each in VARIANTS if each.library in EXPERT_KERNELS]
    of_experts = [key for key in KNOWN if "experts" in key or key.startswith(("group_", "visit_"))]
    for variant in (GENERAL, *VARIANTS):
        for name in of_experts if variant in kernels else KNOWN:
            key = key_named(name).of(variant)
            assert key_named(str(key)) == key
    assert key_named("vllm_fp8_attention_launch_us") == Key("launch_us", "attention", "fp8", "vllm")


def test_a_profile_s_rates_are_gathered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same object has the same rates; a copy with other constants has its own."""
    card = gpu({"launch_us": 2})
    assert rates(card) is rates(card) is rates(card, variants=[])
    assert rates(card) is not rates(card, "carried")
    vllm = (Variant("vllm"),)
    assert rates(card, variants=vllm) is rates(card, variants=vllm) is not rates(card)
    for launch_us in (3, 4):
        other = card.but(fitted=gpu({"launch_us": launch_us}).fitted)
        assert rates(other).launch_s["gemm"] == pytest.approx(launch_us * 1e-6)
    # Only so many are kept, and dropping them changes nothing.
    monkeypatch.setattr(constants, "_MOST_KEPT", 1)
    first = rates(card)
    rates(gpu())
    assert rates(card) == first


def _stand_ins(kind: Any) -> list[Any]:
    """Return the kinds whose constants a kind takes if it has none, nearest first."""
    return [KIN[kind], *_stand_ins(KIN[kind])] if kind in KIN else []


@given(st.sampled_from(KINDS), st.floats(0.05, 1))
def test_a_fitted_share_is_the_rate_used(kind: Any, share: float) -> None:
    """Bandwidth and matrix rate of one kind change, those of others but its kin do not."""
    fitted = {f"{kind}_bandwidth_fraction": share, f"{kind}_flops_fraction": share}
    plain, changed = rates(gpu()), rates(gpu(fitted))
    for other in KINDS:
        if other == kind:
            assert changed.bandwidth_bytes_per_s[other] == pytest.approx(share * 2000e9)
            assert changed.flops_per_s(other, "bf16") == pytest.approx(share * 500e12)
        elif kind not in _stand_ins(other):
            assert changed.bandwidth_bytes_per_s[other] == plain.bandwidth_bytes_per_s[other]
            # Attention over a cache multiplies like prefill.
            if kind != "prefill_attention" or "attention" not in other:
                assert changed.flops_per_s(other, "bf16") == plain.flops_per_s(other, "bf16")


@pytest.mark.parametrize("name", sorted(profile_files()))
def test_half_the_weight_bytes_are_no_slower(name: str) -> None:
    """Where a step is weights, fp8 beats 16 bits by a tenth or more on every card, measured or not.

    Hopper's 8-bit kernels load tiles slowly for the bandwidth of a B200; Blackwell has its own.
    """
    card, shape = load_hardware(name), load_model("llama-3.1-70b")
    half = "bf16" if card.peak.bf16_tflops else "fp16"
    step = {
        dtype: decode_time(
            shape, *ask(shape, samples=1, context_tokens=256, weight_dtype=dtype), rates(card)
        ).total_s
        for dtype in (half, "fp8")
    }
    assert step["fp8"] < 0.9 * step[half]


def test_a_card_s_own_8_bit_tiles_are_not_raised() -> None:
    """A rate carried to another architecture has a floor; one fitted to the card is what it is."""
    own = gpu({"tile_gb_per_s": 200, "fp8_tile_gb_per_s": 30})
    assert rates(own).at("fp8").tile_bytes_per_s == 30e9
    other = gpu({"tile_gb_per_s": 1000})
    lent = rates(other).at("fp8")
    assert lent.tile_bytes_per_s == 500e9
    assert lent.constants[key_named("tile_gb_per_s")].source.startswith(
        "as many weights as in 16 bits: "
    )


def test_a_hopper_block_carries_to_hopper_whole_and_by_halves_to_where_two_share() -> None:
    """H200 has H100's blocks at H100's clock; an Ada SM runs two, so each gets half of it."""
    h100, h200, l4 = map(load_hardware, ("h100-sxm", "h200-sxm", "l4"))
    one = rates(h100).constants[key_named("block_gb_per_s")].value
    assert rates(h200).constants[key_named("block_gb_per_s")].value == pytest.approx(one, rel=0.01)
    alone = constants.Entry(60.0, "one block an SM", blocks_per_sm=1)
    assert alone.on(l4, key_named("block_gb_per_s")) == 30


CARD = rates(gpu())


def _names(*operations: Operation, execution: Execution = "graph") -> set[str]:
    """Return the names of the constants that operations use."""
    return {str(key) for key, _ in used_constants(operations, CARD, eager=execution == "eager")}


def test_a_kernel_that_only_streams_uses_its_launch_and_its_bandwidth() -> None:
    """No rate of products, no cache, no link; launched one by one, the host too."""
    streams = Operation(name="norm", kind="elementwise", bytes_read=1e6)
    used = {"elementwise_launch_us", "elementwise_bandwidth_fraction"}
    assert _names(streams) == used
    assert _names(streams, execution="eager") == used | {"eager_launch_us", "host_us_per_launch"}
    assert _names(Operation(name="none", kind="gemm", launches=0)) == set()


def test_a_step_with_an_8_bit_cache_uses_both_kinds_of_constants() -> None:
    """Attention those of 8 bits alone, products and norms those of 16 bits alone."""
    model, card = mistral_7b(), gpu()
    work, resident = Workload(samples=4, context_tokens=4096), resident_blocks(card)
    cache = Setup(kv_dtype="fp8")
    names = _names(*decode_operations(model, cache, work, resident_blocks=resident))
    assert {"fp8_attention_launch_us", "fp8_copy_launch_us", "gemm_launch_us"} <= names
    assert not {"attention_launch_us", "fp8_gemm_launch_us", "step_us"} & names
    # The head is not quantised with the layers.
    weights = Setup(weight_dtype="fp8")
    names = _names(*decode_operations(model, weights, work, resident_blocks=resident))
    assert {"fp8_gemm_launch_us", "gemm_launch_us", "attention_launch_us"} <= names
    assert "fp8_attention_launch_us" not in names


def test_a_library_s_16_bit_constants_come_after_8_bit_ones() -> None:
    """Its own in 8 bits, anybody's in 8 bits, then its own in 16 bits, then everybody's."""
    vllm, name = (Variant("vllm"), Variant("vllm", "fp8")), "attention_launch_us"
    fitted = {name: 1, f"vllm_{name}": 2, f"fp8_{name}": 3, f"vllm_fp8_{name}": 4}
    for left_out, value in (("", 4), ("vllm_fp8_", 3), ("fp8_", 2), ("vllm_", 1)):
        if left_out:
            del fitted[left_out + name]
        # Some constant of 8 bits, so that other GPUs' do not come before the card's own.
        card = rates(gpu({**fitted, "fp8_copy_launch_us": 9}), variants=vllm)
        assert card.at("fp8").launch_s["attention"] == pytest.approx(value * 1e-6)


@pytest.mark.parametrize("name", sorted(profile_files()))
def test_fitted_constants_lie_where_a_fit_may_put_them(name: str) -> None:
    """A range that the shipped constants do not lie in would move them at the next fit."""
    for key, figure in fitted_constants(load_hardware(name)).items():
        least, most, *_ = constants.CONSTANTS[key.name].fit[key.kind]
        assert least <= figure.value <= most, key


def test_no_share_may_be_fitted_above_what_is_published() -> None:
    """A rate above its peak says that the peak is wrong; and every range has an inside."""
    for name, definition in constants.CONSTANTS.items():
        for least, most, *_ in definition.fit.values():
            assert 0 < least < most
            assert most <= 1 or not name.endswith("_fraction")


def test_decode_attention_multiplies_at_the_rate_of_prefill() -> None:
    """Of its library if that is known; a rate of its own comes first; an 8-bit cache has none."""
    fitted = {
        "prefill_attention_flops_fraction": 0.6,
        "vllm_prefill_attention_flops_fraction": 0.7,
        "fp8_prefill_attention_flops_fraction": 0.3,
    }
    card, tera = gpu(fitted), 500e12
    assert rates(card).flops_per_s("attention", "bf16") == pytest.approx(0.6 * tera)
    vllm = rates(card, variants=(Variant("vllm"),))
    assert vllm.flops_per_s("attention", "bf16") == pytest.approx(0.7 * tera)
    assert rates(card).at("fp8").flops_per_s("attention", "bf16") == pytest.approx(0.6 * tera)
    own = gpu({**fitted, "attention_flops_fraction": 0.5})
    assert rates(own).flops_per_s("attention", "bf16") == pytest.approx(0.5 * tera)


def test_blackwell_with_gddr_takes_after_ada() -> None:
    """Not after the family of its name, whose memory and kernels are others; B300 does."""
    share = Key("flops_fraction")
    of_family = shipped().architectures["Blackwell"][share].source

    def source(card: str, key: Key) -> str:
        found = carried_entry(load_hardware(card).architecture, (), key)
        assert found is not None
        return found[0].source

    assert source("b300-sxm", share) == of_family
    assert source("rtx-5090", share) != of_family
    assert source("rtx-5090", Key("launch_us", "attention")) == "L40S"


def test_latent_attention_has_a_block_rate_of_its_own() -> None:
    """Without one it takes that of other GPUs, not that of ordinary attention."""
    name = "latent_attention_block_gb_per_s"
    shared = rates(gpu({"block_gb_per_s": 20.0})).constants[key_named(name)]
    assert (shared.origin, shared.key) == ("carried", key_named(name))
    own = gpu({"block_gb_per_s": 20.0, "latent_attention_block_gb_per_s": 50.0})
    assert rates(own).block_bytes_per_s["latent_attention"] == 50e9
    assert rates(own).block_bytes_per_s["attention"] == 20e9


def test_a_library_s_latent_kernel_stays_with_its_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On another architecture the general constant is nearer than the library's from elsewhere."""
    share = Key("bandwidth_fraction", "latent_attention")
    elsewhere = {
        share.of(Variant("trtllm")): constants.Entry(0.9, "there"),
        share: constants.Entry(0.7, "anywhere"),
    }
    monkeypatch.setattr(constants, "_tables_for", lambda *_, **__: ({}, elsewhere, elsewhere))
    found = carried_entry(gpu().architecture, (share.of(Variant("trtllm")),), share)
    assert found == (elsewhere[share], share)


@pytest.mark.parametrize("card", ["b200", "h100-sxm", "l4", "mi300x"])
@pytest.mark.parametrize("variant", [each for each in VARIANTS if each.precision], ids=str)
def test_what_a_variant_leaves_alone_is_what_a_search_would_find(
    card: str, variant: Variant
) -> None:
    """Only constants that a format may have of its own are searched for, fitted or carried."""
    profile = load_hardware(card)
    search = constants._Search(profile, "auto")
    found = rates(profile, variants=(variant,)).constants
    searched = search.own((variant,))
    others = [key for key in KEYS if key not in searched]
    assert others
    assert {key: found[key] for key in others} == {
        key: search.find(key, (variant,)) for key in others
    }
