"""Models of equal quality side by side, and the border between them: the paper's finding."""

from typing import Any

import numpy as np
import pytest

import simulator
from simulator.answers.crossover import PAIRINGS, Border, Crossover
from simulator.answers.scaled import FAMILIES, with_heads
from simulator.answers.size_factor import pooled_factor, shipped_factors
from simulator.errors import SimulatorError, WorkloadError
from simulator.inputs.presets import load_model
from simulator.inputs.setup import ATTENTIONS

BOTH_STANDARD, BOTH_BIFURCATED, MIXED = PAIRINGS
# Multi-head models on GPUs of several kinds.
CASES = [
    ("paper-1b-mha", "a100-sxm-40gb"),
    ("paper-7b-mha", "h100-sxm"),
    ("llama-2-13b", "a100-sxm-80gb"),
    ("codellama-7b", "l40s"),
    ("llama-2-7b", "mi300x"),
]


def map_of(model: str, gpu: str, **changes: Any) -> Crossover:
    """Return where a larger multi-query model is faster than a multi-head one."""
    return simulator.tradeoff(model, gpu, **changes).crossovers[0]


def at(crossed: Crossover, pairing: Any, samples: int, context: int) -> float:
    """Return the multi-query model's speed over the multi-head one's at a point of the map."""
    row = list(crossed.samples).index(samples)
    column = list(crossed.context_tokens).index(context)
    return float(
        crossed.base_step_s[pairing[0]][row, column] / crossed.other_step_s[pairing[1]][row, column]
    )


@pytest.mark.parametrize(("model", "gpu"), CASES)
def test_the_paper_finding(model: str, gpu: str) -> None:
    """The larger multi-query model loses small and wins large, and less where both bifurcate."""
    crossed = map_of(model, gpu)
    # One sample of a short context: weights are all there is, and it has a tenth more of them.
    for pairing in (BOTH_STANDARD, BOTH_BIFURCATED):
        assert 0.85 < at(crossed, pairing, 1, 256) < 1
    # Many samples of a long context under standard attention: it wins by far.
    assert at(crossed, BOTH_STANDARD, 64, 8192) > 3
    # Bifurcation moves the border to more samples, at every context, and shrinks the region.
    standard, bifurcated = crossed.borders[BOTH_STANDARD], crossed.borders[BOTH_BIFURCATED]
    pairs = list(zip(standard.from_samples, bifurcated.from_samples, strict=True))
    assert all(ours <= theirs for ours, theirs in pairs)
    assert any(ours < theirs for ours, theirs in pairs)
    assert bifurcated.share < standard.share
    assert bifurcated.mean_speedup < standard.mean_speedup / 2
    # Multi-head stays competitive: with bifurcated attention it beats multi-query without.
    assert at(crossed, MIXED, 512, 32768) < 1


@pytest.mark.parametrize(("model", "gpu"), CASES[:2])
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_the_map_and_its_border_are_those_of_single_questions(
    model: str, gpu: str, pairing: Any
) -> None:
    """Times on the map equal estimates, and one sample below the border the base is faster."""
    result = simulator.tradeoff(model, gpu)
    crossed, other = result.crossovers[0], result.others[0].model

    def ratio(samples: int, context: int) -> float:
        steps = [
            simulator.estimate(
                shape, gpu, samples=samples, context_tokens=context, attention=attention
            ).step_s
            for shape, attention in zip((model, other), pairing, strict=True)
        ]
        return steps[0] / steps[1]

    border = crossed.borders[pairing]
    for column in (0, 4, 10):
        context = int(crossed.context_tokens[column])
        for samples in (1, 16, 1024):
            assert at(crossed, pairing, samples, context) == pytest.approx(ratio(samples, context))
        first = border.from_samples[column]
        if first:
            assert ratio(first, context) > 1
        if first > 1:
            assert all(ratio(samples, context) <= 1 for samples in (1, first // 2, first - 1))
        until = border.until_samples[column]
        if until:
            assert ratio(until - 1, context) > 1
            assert all(ratio(samples, context) <= 1 for samples in (until, 1024))
        if first and not border.slower_between[column]:
            inside = np.linspace(first, (until or 1025) - 1, 9).astype(int)
            assert all(ratio(int(samples), context) > 1 for samples in inside)


def test_a_border_by_hand() -> None:
    """First win, last win and share of a small table."""
    from simulator.answers.crossover import _border

    table = np.array(
        [[0.5, 2.0, 0.5, 2.0], [2.0, 2.0, 0.5, 0.5], [2.0, 0.5, 0.5, 1.0], [4.0, 0.5, 0.5, 2.0]]
    )
    border = _border(table, np.array([0, 3]))
    assert border == Border(
        from_samples=(2, 1, 0, 1),
        until_samples=(0, 3, 0, 0),
        slower_between=(0, 0, 0, 2),
        share=pytest.approx(4 / 8),
        largest_speedup=4.0,
        mean_speedup=pytest.approx((0.5 * 2 * 0.5 * 2 * 4 * 0.5 * 0.5 * 2) ** (1 / 8)),
    )


def test_an_empty_context_needs_no_prefill() -> None:
    """Nothing to prefill takes no time; one token does."""
    for context, needed in ((0, False), (1, True)):
        result = simulator.tradeoff("gpt2", samples=8, context_tokens=context)
        for candidate in result.candidates:
            assert all((one.prefill_s > 0) == needed for one in candidate.variants.values())


def test_every_variant_is_an_answer_of_its_own() -> None:
    """Steps, prefill and limits are those that estimate, generate and plan give."""
    result = simulator.tradeoff(
        "llama-2-7b", samples=8, context_tokens="4K", target_step_ms=20, target_kv_heads=[1, 8]
    )
    assert [candidate.model.kv_heads for candidate in result.candidates] == [32, 1, 8]
    for candidate in result.candidates:
        for attention in ATTENTIONS:
            variant = candidate.variants[attention]
            asked: dict[str, Any] = {"samples": 8, "context_tokens": "4K", "attention": attention}
            alone = simulator.estimate(candidate.model, **asked)
            assert (variant.result.time, variant.result.memory) == (alone.time, alone.memory)
            request = simulator.generate(candidate.model, output_tokens=1, **asked)
            assert variant.prefill_s == pytest.approx(request.total_s)
            ends = variant.limits.longest_context_tokens
            assert ends is None or ends <= 4096, "where the model ends, as plan says"
            most = variant.limits.most_samples_in_time
            assert most is not None
            last, more = (
                simulator.estimate(candidate.model, **{**asked, "samples": samples})
                for samples in (most, most + 1)
            )
            assert last.step_s <= 0.020
            assert more.step_s > 0.020 or not more.memory.fits


def test_models_under_load_are_what_serve_says() -> None:
    """Four users of each model, under either kind of attention; None where no request fits."""
    asked: dict[str, Any] = {"samples": 8, "context_tokens": "8K"}
    result = simulator.tradeoff("llama-2-7b", users=4, output_tokens=128, **asked)
    for candidate in result.candidates:
        curve = simulator.serve(candidate.model, output_tokens=128, **asked)
        for attention, variant in candidate.variants.items():
            expected = [
                point
                for point in curve.points
                if point.concurrency == 4
                and point.deployment.alone.setup.attention == attention
                and point.deployment.alone.setup.kv_layout == variant.result.setup.kv_layout
            ]
            if variant.loaded is None:
                assert not expected
                continue
            loaded = variant.loaded
            # serve ends at what fits at once; here further users wait.
            if expected:
                assert loaded.served == expected[0].served
            assert loaded.concurrency == 4
    asked = {"samples": 16, "context_tokens": "32K", "kv_layout": "copies"}
    long = simulator.tradeoff("llama-2-7b", users=4, **asked)
    held = [bool(variant.loaded) for variant in long.base.variants.values()]
    assert held == [False, True]
    assert simulator.tradeoff("llama-2-7b").base.variants["standard"].loaded is None


def test_equal_quality_is_in_the_size() -> None:
    """The others have the parameters that their factor asks for, the user's own included."""
    result = simulator.tradeoff("llama-2-7b", target_kv_heads=[1, 4], size_factors=[1.2, 1.0])
    for other, factor in zip(result.others, (1.2, 1.0), strict=True):
        assert other.size_factor is not None
        assert (other.size_factor.value, other.size_factor.origin) == (factor, "given")
        assert other.parameters / result.base.parameters == pytest.approx(factor, rel=0.0101)


def test_a_group_of_gpus_can_split_the_other_model() -> None:
    """Eight GPUs share the heads of both models; the other one's are a multiple of eight."""
    other = simulator.tradeoff("llama-2-7b", tensor_parallel=8).others[0]
    assert other.model.heads % 8 == 0
    assert other.variants["standard"].result.setup.tensor_parallel == 8


def test_a_model_that_shares_already_is_a_base_too() -> None:
    """From 8 KV heads to 1 the factor is the quotient; the paper's is marked as assumed.

    From 8 to 2, both of them groups, it is two fifths of multi-query's, assumed as well.
    """
    table = {
        factor.family: factor.size_factor
        for factor in shipped_factors().factors
        if factor.matched_by == "nothing"
    }
    quotient, paper, groups = (
        other.size_factor
        for other in simulator.tradeoff("llama-3.1-8b").others
        + simulator.tradeoff("llama-3.1-8b", size_factors=["paper"]).others
        + simulator.tradeoff("llama-3.1-8b", target_kv_heads=[2]).others
    )
    assert quotient is not None
    assert paper is not None
    assert groups is not None
    assert quotient.value == pytest.approx(table["multi-query"] / table["multi-group"])
    assert (paper.origin, groups.origin) == ("assumed", "assumed")
    assert paper.value == pytest.approx(1.10**0.6)
    assert groups.value == pytest.approx(table["multi-query"] ** 0.4)
    assert simulator.tradeoff("llama-3.1-8b", kv_heads=32).base.model.kv_heads == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_kv_heads": [32]}, "itself has kv_heads = 32"),
        ({"target_kv_heads": [64]}, "more than the 32 heads"),
        ({"target_kv_heads": [0]}, "at least 1 KV head"),
        ({"target_kv_heads": []}, "no number"),
        ({"size_factors": [1.1, 1.2]}, "one for each"),
        ({"target_step_ms": 0}, "target_step_ms"),
        ({"users": 0}, "users = 0"),
        ({"scale_by": "dept"}, "depth"),
        ({"most_samples": 1}, "most_samples"),
        ({"longest_context_tokens": 100}, "longest_context_tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    """One line names what is wrong."""
    with pytest.raises(WorkloadError, match=words):
        simulator.tradeoff("llama-2-7b", **changes)


def test_a_tree_has_no_crossover() -> None:
    """Trees have sizes of their own, which a map over samples and context cannot vary."""
    with pytest.raises(SimulatorError, match="tree"):
        simulator.tradeoff("llama-2-7b", tree="2x1024,4x512")


@pytest.mark.parametrize(
    ("scale_by", "matched_by"),
    [("width", "nothing"), ("depth", "nothing"), ("mlp", "mlp"), ("heads", "heads")],
)
def test_families_take_the_factor_of_how_they_are_scaled(scale_by: Any, matched_by: Any) -> None:
    """Each family's model has the factor that the table has for its freed parameters."""
    result = simulator.tradeoff(
        "llama-2-7b", families=["mla", "mqa", "gqa"], scale_by=scale_by, samples=4
    )
    base = result.base.model
    forms = (FAMILIES[name] for name in ("mla", "mqa", "gqa"))
    for other, form in zip(result.others, forms, strict=True):
        factor = pooled_factor(shipped_factors(), base, form(base), matched_by)
        assert other.size_factor == factor
        assert other.parameters / result.base.parameters == pytest.approx(factor.value, rel=0.01)
    latent, query, group = (other.model for other in result.others)
    assert latent.latent is not None
    assert (query.kv_heads, group.kv_heads) == (1, 8)
    # The latent cache has 576 values per token and layer, a KV head 256.
    reads = [
        other.variants["standard"].result.totals.kv_bytes_read / other.model.layers
        for other in result.others
    ]
    assert reads[0] / reads[1] == pytest.approx(576 / 256, rel=1e-6)


def test_kv_heads_have_the_factor_of_published_runs_or_the_paper() -> None:
    """By family and what they are scaled by; the paper's 1.10 where it is asked for by name."""
    base = load_model("llama-2-7b")
    for scale_by, matched_by in (("width", "nothing"), ("depth", "nothing"), ("mlp", "mlp")):
        result = simulator.tradeoff("llama-2-7b", scale_by=scale_by, samples=4)  # type: ignore[arg-type]
        expected = pooled_factor(shipped_factors(), base, with_heads(base, 1), matched_by)  # type: ignore[arg-type]
        assert result.others[0].size_factor == expected
    result = simulator.tradeoff(
        "llama-2-7b", target_kv_heads=[1, 8], size_factors=["paper", "paper"], samples=4
    )
    factors = [other.size_factor for other in result.others]
    assert [factor.origin for factor in factors if factor] == ["paper", "assumed"]
    assert [factor.value for factor in factors if factor] == pytest.approx([1.1, 1.1**0.4])


def test_a_family_is_scaled_as_its_runs_were() -> None:
    """GLA-2 has no runs where nothing is put back, CLA none elsewhere; a way asked for holds."""
    result = simulator.tradeoff("llama-2-7b", families=["gla", "cla", "mla"], samples=4)
    gla, cla, mla = (other.size_factor for other in result.others)
    assert gla is not None
    assert cla is not None
    assert mla is not None
    assert "GLA-2, freed parameters in the MLP" in gla.source
    assert "MQA-CLA2, nothing put back" in cla.source
    assert "MLA, nothing put back" in mla.source
    with pytest.raises(SimulatorError, match="no size factor of GLA-2"):
        simulator.tradeoff("llama-2-7b", families=["gla"], scale_by="depth", samples=4)
    with pytest.raises(SimulatorError, match="no size factor of YOCO"):
        simulator.tradeoff("llama-2-7b", families=["yoco"], samples=4)
    once = simulator.tradeoff("llama-2-7b", families=["yoco"], size_factors=[1], samples=4)
    assert once.others[0].parameters / once.base.parameters == pytest.approx(1, rel=0.01)


def test_groups_of_a_latent_cache_split_over_gpus() -> None:
    """On two GPUs MLA keeps 576 values a token and layer on each, GLA-2 256 + 64."""
    result = simulator.tradeoff(
        "llama-2-7b", families=["mla", "gla"], tensor_parallel=2, scale_by="mlp", samples=4
    )
    reads = [other.variants["standard"].result.totals.kv_bytes_read for other in result.others]
    assert reads[0] / reads[1] == pytest.approx(576 / 320)


def test_a_latent_base_is_refused_as_such() -> None:
    """A model with a latent cache cannot be scaled to another family."""
    with pytest.raises(SimulatorError, match="caches a latent vector"):
        simulator.tradeoff("deepseek-v3", families=["mqa"], samples=4)


def test_an_unknown_family_is_refused() -> None:
    """The message names the nearest."""
    with pytest.raises(WorkloadError, match="mla"):
        simulator.tradeoff("llama-2-7b", families=["mlaa"], samples=4)
