"""Which GPUs, how many, and at what cost."""

from math import inf
from typing import Any

import pytest
from builders import ROUND_CONSTANTS, asked, deepseek_v3, gpu, llama_2_7b, mistral_7b
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.answers.capacity import Capacity, longest_context
from simulator.answers.estimate import Question, estimate
from simulator.answers.plan import Option, Plan, Targets, plan
from simulator.errors import WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.views.columns import as_object
from simulator.views.plan import LIMITS

CHEAP = gpu(ROUND_CONSTANTS, name="cheap", price=1.0, memory_bandwidth_gb_per_s=1000)
FAST = gpu(ROUND_CONSTANTS, name="fast", price=3.0, memory_bandwidth_gb_per_s=4000)
SMALL = gpu(ROUND_CONSTANTS, name="small", price=0.5, memory_gb=12)
UNPRICED = gpu(ROUND_CONSTANTS, name="unpriced", memory_bandwidth_gb_per_s=8000)
CARDS = (CHEAP, FAST, SMALL, UNPRICED)


def _plan(shape: ModelShape | None = None, **settings: Any) -> Plan:
    cards = settings.pop("cards", CARDS)
    options = {
        name: settings.pop(name)
        for name in ("target_step_s", "tensor_parallel_sizes", "attentions", "usd_per_hour")
        if name in settings
    }
    targets = Targets(target_step_s=options.pop("target_step_s", None))
    question = Question(shape or mistral_7b(), CHEAP, *asked(**settings))
    return plan(question, cards, targets, **options)


def _key(option: Option) -> tuple[str, int, str]:
    return option.result.gpu.id, option.gpus, option.attention


def test_every_combination_is_tried_once() -> None:
    """Four cards, two sizes, both kinds of attention."""
    found = [_key(option) for option in _plan(tensor_parallel_sizes=(1, 4)).options]
    assert len(found) == len(set(found)) == 16


def test_each_option_is_the_estimate_of_its_question() -> None:
    """Same step, same cost, same limits as if asked alone."""
    for option in _plan(tensor_parallel_sizes=(2,), target_step_s=0.02).options:
        result = option.result
        alone = estimate(Question(mistral_7b(), result.gpu, result.setup, result.workload))
        assert option.result.step_s == alone.step_s
        ends = longest_context(result.model, result.workload)
        limits = Capacity(alone, target_step_s=0.02, most_context_tokens=ends)
        assert as_object(LIMITS, option.limits) == as_object(LIMITS, limits)
        assert (limits.longest_context_tokens or 0) <= ends
        if option.usd_per_hour is not None:
            tokens_per_hour = alone.tokens_per_s * 3600
            expected = option.usd_per_hour / tokens_per_hour * 1e6
            assert option.usd_per_million_tokens == pytest.approx(expected)


def test_cheapest_per_token_comes_first_of_those_that_do() -> None:
    """Options that meet the target, by cost, the unpriced last; then those nearest to it."""
    options = _plan(target_step_s=0.03, samples=32).options
    met = [option.meets_target for option in options]
    assert met == sorted(met, reverse=True)
    assert 0 < sum(met) < len(met)
    costs = [option.usd_per_million_tokens for option in options if option.meets_target]
    priced = [cost for cost in costs if cost is not None]
    assert costs == sorted(priced) + [None] * (len(costs) - len(priced))
    rest = [option.result for option in options if not option.meets_target]
    slow = [item.step_s for item in rest if item.memory.fits]
    short = [-float(item.memory.free_bytes) for item in rest if not item.memory.fits]
    assert [bool(item.memory.fits) for item in rest] == [True] * len(slow) + [False] * len(short)
    assert slow == sorted(slow)
    assert short == sorted(short)


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(0, 20000), st.one_of(st.none(), st.floats(0.002, 0.1)))
def test_the_pareto_set_and_the_cheapest(
    samples: int, context_tokens: int, target_s: float | None
) -> None:
    """Against all pairs: in the set is what no other beats in one and matches in the other."""
    result = _plan(samples=samples, context_tokens=context_tokens, target_step_s=target_s)
    for option in result.options:
        step, most = option.result, inf if target_s is None else target_s
        surely = bool(step.memory.surely_fits) and step.step_high_s <= most
        perhaps = bool(step.memory.fits) and step.step_low_s <= most
        assert option.verdict == ("meets" if surely else "maybe" if perhaps else "no")
    able = [
        option
        for option in result.options
        if option.meets_target and option.usd_per_million_tokens is not None
    ]

    def coordinates(option: Option) -> tuple[float, float]:
        return option.result.step_s, option.usd_per_million_tokens or 0.0

    for option in result.options:
        x, y = coordinates(option)
        better = any(a <= x and b <= y and (a < x or b < y) for a, b in map(coordinates, able))
        assert option.pareto == (option in able and not better)
    prices = [option.usd_per_hour for option in able]
    if result.cheapest is None:
        assert not prices
    else:
        assert result.cheapest.usd_per_hour == min(prices)
        equals = [option for option in able if option.usd_per_hour == min(prices)]
        assert result.cheapest.result.step_s == min(option.result.step_s for option in equals)


def test_the_fewest_gpus_of_each_kind() -> None:
    """Two of 12 GB may hold Mistral-7B's 14.5 GB of weights, four surely; unpriced ones count."""
    result = _plan(samples=2, context_tokens=1000)
    assert result.fewest_gpus == {"cheap": 1, "fast": 1, "small": 4, "unpriced": 1}
    pairs = [option.verdict for option in result.options if _key(option)[:2] == ("small", 2)]
    assert set(pairs) == {"maybe"}
    nowhere = _plan(cards=(SMALL,), tensor_parallel_sizes=(1,))
    assert nowhere.fewest_gpus == {"small": None}
    assert nowhere.cheapest is None


def test_a_step_meets_its_target_only_at_the_end_of_its_interval() -> None:
    """8 samples of 6K take 24.9 ms on L40S, up to 26.9: at 25 that is perhaps, at 27 surely."""
    card = load_hardware("l40s")
    work = {"samples": 8, "context_tokens": 6144, "attentions": ("bifurcated",)}
    for target_s, verdict in ((0.027, "meets"), (0.025, "maybe"), (0.023, "no")):
        result = _plan(
            load_model("llama-3.1-8b"),
            cards=(card,),
            tensor_parallel_sizes=(1,),
            target_step_s=target_s,
            **work,
        )
        (option,) = result.options
        assert (option.verdict, option.meets_target) == (verdict, verdict == "meets")
        assert (result.cheapest is option) == (verdict == "meets")
        assert (result.cheapest_maybe is option) == (verdict == "maybe")


def test_bifurcated_is_left_out_where_no_engine_runs_it() -> None:
    """All shared-prefix kernels are CUDA's: an MI300X has none, asked for alone it is planned."""
    card = load_hardware("mi300x")
    result = _plan(cards=(card,), tensor_parallel_sizes=(1,))
    assert [option.attention for option in result.options] == ["standard"]
    assert "no engine's shared-prefix kernel runs on AMD's cards" in result.skipped[0]
    alone = _plan(cards=(card,), tensor_parallel_sizes=(1,), attentions=("bifurcated",))
    assert [option.attention for option in alone.options] == ["bifurcated"]


def test_the_user_s_price_is_every_card_s() -> None:
    """One price for each GPU tried, a group costs as many times."""
    result = _plan(usd_per_hour=2.0, tensor_parallel_sizes=(1, 2))
    assert {(option.gpus, option.usd_per_hour) for option in result.options} == {(1, 2.0), (2, 4.0)}


def test_what_cannot_be_tried_is_said() -> None:
    """Heads that do not divide, and a card without a link, are skipped with their sentence."""
    alone = gpu(name="alone", link_gb_per_s_per_direction=None)
    result = _plan(llama_2_7b(), cards=(alone,), tensor_parallel_sizes=(1, 2, 3))
    assert {option.gpus for option in result.options} == {1}
    assert len(result.skipped) == 2
    assert result.skipped[0].startswith("alone has no link")
    assert result.skipped[1].startswith("tensor_parallel = 3 does not divide the 32 heads")


def test_nothing_to_try_is_an_error() -> None:
    """With every reason in one line."""
    with pytest.raises(WorkloadError, match=r"^nothing to plan with: tensor_parallel = 3"):
        _plan(llama_2_7b(), tensor_parallel_sizes=(3,))
    with pytest.raises(WorkloadError, match=r"^nothing to plan with: no GPU, size or attention$"):
        _plan(cards=())
    with pytest.raises(WorkloadError, match=r"latent cache of DeepSeek-V3; DeepSeek-V3 caches"):
        _plan(deepseek_v3(), kernel="sdpa_math")


@pytest.mark.parametrize("target", [0, -1e-3, float("nan")])
def test_a_target_is_a_time(target: float) -> None:
    """Not nothing, not negative, not a missing value."""
    with pytest.raises(WorkloadError, match=r"^target_step_ms = .* is not positive and finite$"):
        _plan(target_step_s=target)


def test_one_kind_of_attention_can_be_planned_alone() -> None:
    """Bifurcated options keep one context, standard ones the question's own storage."""
    only = _plan(attentions=("bifurcated",), kv_layout="rebuilt")
    assert {option.result.setup.kv_layout for option in only.options} == {"shared"}
    both = _plan(kv_layout="rebuilt")
    layouts = {(option.attention, option.result.setup.kv_layout) for option in both.options}
    assert layouts == {("standard", "rebuilt"), ("bifurcated", "shared")}


APART = (
    gpu(ROUND_CONSTANTS, name="rumour", price=0.1, terms={"low_trust": True}),
    gpu(ROUND_CONSTANTS, name="seconds", price=0.2, terms={"terms": "serverless"}),
)


def test_prices_of_another_kind_rank_apart() -> None:
    """Neither a low-trust nor a serverless price is cheapest or Pareto, however low it is."""
    result = _plan(cards=(*APART, CHEAP), tensor_parallel_sizes=(1,), samples=4)
    names = [option.result.gpu.id for option in result.options]
    assert names[:2] == ["cheap", "cheap"]
    assert result.cheapest is not None
    assert result.cheapest.result.gpu.id == "cheap"
    for option in result.options:
        assert option.meets_target
        assert option.comparable == (option.result.gpu.id == "cheap")
        assert option.comparable or not option.pareto
    alone = _plan(cards=APART, tensor_parallel_sizes=(1,), samples=4)
    assert alone.cheapest is None
    own = _plan(cards=APART, tensor_parallel_sizes=(1,), samples=4, usd_per_hour=1.0)
    assert own.cheapest is not None


def test_what_no_rows_describe_comes_after_what_they_do() -> None:
    """16 GPUs are cheap here, but no rows are of so many: 8 come first, and are the cheapest."""
    cards = {"cards": (load_hardware("h100-sxm"),), "usd_per_hour": 1.0}
    found = _plan(llama_2_7b(), **cards, tensor_parallel_sizes=(8, 16))
    known = [option.result.interval_known for option in found.options]
    assert known == sorted(known, reverse=True)
    assert {option.gpus: option.result.interval_known for option in found.options} == {
        8: True,
        16: False,
    }
    assert found.cheapest is not None
    assert found.cheapest.gpus == 8
    alone = _plan(llama_2_7b(), **cards, tensor_parallel_sizes=(16,))
    assert alone.cheapest is not None
    assert alone.cheapest.gpus == 16


def test_what_no_kernel_runs_is_left_out_of_several_and_said() -> None:
    """Bifurcated attention on a V100, which has no FlashAttention; alone it is still answered."""
    cards = {"cards": (load_hardware("v100-sxm2-32gb"), load_hardware("l40s")), "samples": 4}
    found = _plan(**cards)
    kinds = {(option.result.gpu.id, option.attention) for option in found.options}
    assert kinds == {("v100-sxm2-32gb", "standard"), ("l40s", "standard"), ("l40s", "bifurcated")}
    (why,) = (reason for reason in found.skipped if "left out" in reason)
    assert "FlashAttention does not run on V100 SXM2 32GB" in why
    alone = _plan(**cards, attentions=("bifurcated",))
    assert {option.result.gpu.id for option in alone.options} == {"v100-sxm2-32gb", "l40s"}
