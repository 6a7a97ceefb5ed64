"""Which GPUs, and how many, for requests a second within latencies."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf
from typing import Any

import pytest
from builders import ROUND_CONSTANTS, asked, gpu, mistral_7b, mixtral_8x7b
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.answers.estimate import Question
from simulator.answers.load import Point, Request
from simulator.answers.plan import Option, Plan, Targets, layouts, plan
from simulator.errors import WorkloadError
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.setup import Setup
from simulator.timing.batching import closed_loop

CHEAP = gpu(ROUND_CONSTANTS, name="cheap", price=1.0, memory_bandwidth_gb_per_s=1000)
FAST = gpu(ROUND_CONSTANTS, name="fast", price=3.0, memory_bandwidth_gb_per_s=4000)
SMALL = gpu(ROUND_CONSTANTS, name="small", price=0.5, memory_gb=12)
UNPRICED = gpu(ROUND_CONSTANTS, name="unpriced", memory_bandwidth_gb_per_s=8000)
CARDS = (CHEAP, FAST, SMALL, UNPRICED)


def _plan(
    targets: Targets, *, samples: int = 1, cards: Sequence[HardwareProfile] = CARDS, **more: Any
) -> Plan:
    setup, work = asked(samples=samples, context_tokens=2048)
    request = Request(workload=work, output_tokens=256)
    question = Question(mistral_7b(), CHEAP, setup, work)
    return plan(question, cards, targets, request=request, **more)


def test_replicas_are_the_fewest_that_meet_the_targets() -> None:
    """One less misses a target at the upper end of the interval, for each option that meets all."""
    targets = Targets(requests_per_s=30, ttft_s=2.0, tpot_s=0.03)
    met = [option for option in _plan(targets).options if option.verdict == "meets"]
    assert met
    for option in met:
        point = option.point
        assert not targets.missed(point.high)
        if point.replicas > 1:
            fewer = Point(
                deployment=point.deployment, arrivals_per_s=30, replicas=point.replicas - 1
            )
            assert targets.missed(fewer.high)


@settings(max_examples=6, deadline=None)
@given(st.floats(0.5, 500), st.floats(0.01, 0.1), st.sampled_from([1, 4]))
def test_verdicts_are_those_of_the_ends(rate: float, tpot_s: float, samples: int) -> None:
    """meets: at the upper end; no: not even at the lower end, with any replicas; ranked so."""
    targets = Targets(requests_per_s=rate, tpot_s=tpot_s)
    result = _plan(targets, samples=samples, cards=(CHEAP, FAST), tensor_parallel_sizes=(1, 8))
    order = [("meets", "maybe", "no").index(option.verdict) for option in result.options]
    assert order == sorted(order)
    for option in result.options:
        high, low = (bool(targets.missed(end)) for end in (option.point.high, option.point.low))
        assert (high, low) == {"meets": (False, False), "maybe": (True, False)}.get(
            option.verdict, (True, True)
        )


def test_cheapest_is_the_least_price_per_hour_that_meets() -> None:
    """Of comparable prices; those without a price rank behind, and never are cheapest."""
    result = _plan(Targets(requests_per_s=30, tpot_s=0.05))
    met = [option for option in result.options if option.verdict == "meets"]
    dollars = [option.point.usd_per_hour for option in met]
    priced = [value for value in dollars if value is not None]
    assert priced == sorted(priced)
    assert dollars == priced + [None] * (len(dollars) - len(priced))
    assert result.cheapest is not None
    assert result.cheapest.point.usd_per_hour == priced[0]


def test_what_costs_too_much_beside_the_cheapest_is_dear() -> None:
    """A maybe for more than the cheapest that meets; four times as much as the cheapest alike."""
    result = _plan(Targets(requests_per_s=30, tpot_s=0.02), cards=(CHEAP, FAST))
    assert result.cheapest is not None
    least = result.cheapest.point.usd_per_hour or 0.0
    dear = {option.verdict for option in result.options if result.is_dear(option)}
    assert {"meets", "maybe"} <= dear
    for option in result.options:
        most = {"meets": 4 * least, "maybe": least}.get(option.verdict, inf)
        assert result.is_dear(option) == ((option.point.usd_per_hour or 0.0) > most)
    if result.cheapest_maybe is not None:
        assert (result.cheapest_maybe.point.usd_per_hour or 0.0) < least
    hopeless = _plan(Targets(requests_per_s=30, tpot_s=1e-5), cards=(CHEAP, FAST))
    assert hopeless.cheapest is None
    assert not any(map(hopeless.is_dear, hopeless.options))


def test_gpus_at_most_bound_all_replicas() -> None:
    """A load for more than 4 GPUs misses; larger groups are not tried."""
    result = _plan(Targets(requests_per_s=1000), gpus_at_most=4)
    assert {option.verdict for option in result.options} == {"no"}
    assert all(option.point.gpus <= 4 for option in result.options)
    assert all(option.missed == ("load",) for option in result.options)
    assert any("8 GPUs" in reason for reason in result.skipped)
    assert result.cheapest is None


@pytest.mark.parametrize("targets", [Targets(requests_per_s=30, tpot_s=0.03), Targets()])
def test_dominated_options_are_beaten_by_another_of_the_card(targets: Targets) -> None:
    """By one with no more GPUs and no longer times; those left are beaten by none."""
    setup, work = asked(samples=64, context_tokens=2048)
    load = Request(workload=work, output_tokens=256) if targets.requests_per_s else None
    cards = (CHEAP, load_hardware("l40s"))
    question = Question(mistral_7b(), CHEAP, setup, work)
    found = plan(question, cards, targets, request=load).options
    assert any(option.dominated for option in found)
    for option in found:
        better = [
            other
            for other in found
            if (other.deployed.gpu, other.attention) == (option.deployed.gpu, option.attention)
            and ("meets", "maybe", "no").index(other.verdict)
            <= ("meets", "maybe", "no").index(option.verdict)
            and other.doubts <= option.doubts
            and other.gpus <= option.gpus
            and all(a <= b for a, b in zip(other.times_s, option.times_s, strict=True))
            and (other.gpus, other.times_s) != (option.gpus, option.times_s)
        ]
        assert option.dominated == bool(better)


def test_what_holds_no_request_is_said() -> None:
    """12 GB hold no 7B model on one GPU; said once for each card, of the most GPUs."""
    assert _plan(Targets(requests_per_s=1)).skipped == ("a request does not fit on 1 x small",)
    tiny = gpu(ROUND_CONSTANTS, name="tiny", memory_gb=6)
    result = _plan(Targets(requests_per_s=1), cards=(tiny, CHEAP))
    assert result.skipped == ("a request does not fit on 4 x tiny",)
    groups = {o.point.deployment.gpus for o in result.options if o.deployed.gpu is tiny}
    assert groups == {8}


def test_a_card_of_unknown_interval_never_surely_meets() -> None:
    """No rows are of experts on AMD's cards."""
    setup, work = asked(samples=1, context_tokens=2048)
    card, request = load_hardware("mi300x"), Request(workload=work, output_tokens=256)
    question = Question(mixtral_8x7b(), card, setup, work)
    result = plan(question, [card], Targets(requests_per_s=1), request=request, usd_per_hour=2.0)
    assert {option.verdict for option in result.options} == {"maybe"}
    assert result.cheapest_maybe is not None
    least = result.cheapest_maybe.point.usd_per_hour or 0.0
    for option in result.options:
        assert result.is_dear(option) == ((option.point.usd_per_hour or 0.0) > 4 * least)
    assert any(map(result.is_dear, result.options))


@pytest.mark.parametrize(
    "wrong", [{"requests_per_s": 0.0}, {"requests_per_s": 1.0, "tpot_s": -0.01}]
)
def test_targets_are_positive(wrong: dict[str, float]) -> None:
    """One clear line."""
    with pytest.raises(WorkloadError, match="is not positive"):
        Targets(**wrong)


def test_a_percentile_takes_more_than_the_mean() -> None:
    """Of a deployment, p99 needs as many replicas as the mean or more, and is met where known."""
    targets = Targets(requests_per_s=30, ttft_s=0.5, tpot_s=0.03)
    means, most = (
        {
            (option.point.deployment.alone.gpu.id, option.point.deployment.gpus): option.point
            for option in _plan(asked_of, cards=(CHEAP, FAST)).options
            if option.verdict == "meets"
        }
        for asked_of in (targets, replace(targets, percentile=99))
    )
    assert most
    for name, point in most.items():
        assert point.replicas >= means[name].replicas
        spread = point.high.spread
        assert spread is not None
        assert spread.ttft_at(0.99) <= 0.5 * (1 + 1e-6)
        assert spread.tpot_at(0.99) <= 0.03


def test_replicas_are_no_more_than_one_for_two_requests_in_flight() -> None:
    """A target just above what a request alone takes is missed, not met by ever more replicas."""
    free = _plan(Targets(requests_per_s=30), cards=(CHEAP,), tensor_parallel_sizes=(1,)).options[0]
    server = free.point.deployment.server
    assert server is not None
    tpot_s = 1.001 * closed_loop(server, 1).tpot_s
    near = _plan(
        Targets(requests_per_s=30, tpot_s=tpot_s), cards=(CHEAP,), tensor_parallel_sizes=(1,)
    )
    for option in near.options:
        assert option.point.replicas <= ceil(30 * server.alone_s / 2)
        assert option.point.served.tpot_s > tpot_s
        assert option.verdict != "meets"


def test_experts_are_also_laid_over_data_parallel_groups_and_pipelines() -> None:
    """Mixtral: groups that divide 8 experts; stages of 8 GPUs only where 8 do not hold it."""
    ways = [way.words for way in layouts(mixtral_8x7b(), Setup())]
    assert ways == [
        *("", "TP2", "TP4", "TP8"),
        *("DP2 EP2", "DP4 EP4", "DP8 EP8"),
        *("TP8 PP2", "TP8 PP4"),
    ]
    assert [way.words for way in layouts(mixtral_8x7b(), Setup(), (2,))] == ["TP2"]
    asked_for = Setup(data_parallel=2, expert_parallel=2)
    assert layouts(mixtral_8x7b(), asked_for)[0].words == "DP2 EP2"
    held = {option.point.deployment.alone.setup.pipeline_parallel for option in _mixtral(80)}
    assert held == {1}
    # Weights of 93 GB and what engines keep: 16 GPUs of 16 GB hold them, 8 do not.
    spread = {option.point.deployment.alone.setup.words for option in _mixtral(16)}
    assert spread == {"TP8 PP2"}


def _mixtral(memory_gb: float) -> Sequence[Option]:
    """Plan for Mixtral on a card of so much memory."""
    setup, work = asked(samples=1, context_tokens=512)
    card = gpu(ROUND_CONSTANTS, name="card", memory_gb=memory_gb, network_gb_per_s_per_direction=50)
    request = Request(workload=work, output_tokens=64)
    question = Question(mixtral_8x7b(), card, setup, work)
    return plan(question, [card], Targets(requests_per_s=1), request=request).options


def test_what_no_kernel_runs_is_left_out_of_several_and_said() -> None:
    """Bifurcated attention on a V100, which has no FlashAttention; alone it is still answered."""
    cards, targets = (load_hardware("v100-sxm2-32gb"),), Targets(requests_per_s=1)
    found = _plan(targets, samples=4, cards=cards)
    assert {option.point.deployment.attention for option in found.options} == {"standard"}
    assert any("FlashAttention does not run on V100" in reason for reason in found.skipped)
    alone = _plan(targets, samples=4, cards=cards, attentions=("bifurcated",))
    assert {option.point.deployment.attention for option in alone.options} == {"bifurcated"}
