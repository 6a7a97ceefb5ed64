"""Continuous batching in closed form: worked by hand, and against a simulation of events."""

import math

import numpy as np
import pytest
from continuous_batching import Engine, at_random, of_seeds, of_users
from hypothesis import given
from hypothesis import strategies as st

from simulator.timing.batching import Server, _decay, _waited, closed_loop, open_loop


def _server(engine: Engine) -> Server:
    """Return the times of a simulated engine."""
    together = np.arange(1, engine.most + 1)
    every = np.ones(engine.most)
    step_s = engine.base_s + engine.each_s * together
    return Server(
        step_s=step_s,
        added_s=engine.prefill_s * every,
        prefill_s=engine.prefill_s + engine.chunks * step_s,
        occupied_s=engine.prefill_s + engine.chunks * step_s,
        stalls=not engine.chunks,
        decode_steps=engine.steps,
        decoded_tokens=engine.steps,
    )


# Steps of 8 ms and 0.1 ms for each request. Prefill takes little of the time, then most of it.
SHORT_PROMPTS = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.02, steps=100, most=64)
LONG_PROMPTS = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.08, steps=100, most=64)
MUCH_ROOM = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.08, steps=100, most=256)
MANY_CHUNKS = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.04, steps=200, most=128, chunks=8)
CHUNKED = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.012, steps=100, most=64, chunks=2)
FEW_PLACES = Engine(base_s=8e-3, each_s=1e-4, prefill_s=0.01, steps=100, most=8)


def _enough(share: float) -> int:
    """Return requests that tell a mean to 2 %: the closer to the capacity, the more."""
    return round(1800 / (1 - share))


def test_closed_loop_by_hand() -> None:
    """4 users, steps of 10 ms, prefills of 40 ms, 100 steps: each waits for 3 prefills."""
    server = _server(Engine(base_s=0.01, each_s=0.0, prefill_s=0.04, steps=100, most=8))
    found = closed_loop(server, 4)
    assert found.tpot_s == pytest.approx(0.01 + 3 * 0.04 / 100)
    assert found.ttft_s == pytest.approx(0.04)
    # All work there is in the time of one answer: 100 steps and 4 prefills.
    assert found.requests_per_s == pytest.approx(4 / (100 * 0.01 + 4 * 0.04))


def test_users_beyond_the_places_wait() -> None:
    """Of 12 users 8 decode as 8 do; a place is free after the time of half an answer of the 8."""
    server = _server(Engine(base_s=0.01, each_s=0.0, prefill_s=0.04, steps=100, most=8))
    eight, twelve = closed_loop(server, 8), closed_loop(server, 12)
    assert twelve.tpot_s == eight.tpot_s
    assert twelve.requests_per_s == pytest.approx(eight.requests_per_s)
    assert twelve.ttft_s == pytest.approx(0.04 + (100 * 0.01 + 8 * 0.04) / 2)


def test_one_place_is_a_queue_of_equal_services() -> None:
    """A server of one request without prefill is M/D/1: its queue is known in closed form."""
    server = _server(Engine(base_s=0.01, each_s=0.0, prefill_s=1e-9, steps=100, most=1))
    found = open_loop(server, 0.5)
    assert found.tpot_s == pytest.approx(0.01)
    # Half the service time in the queue at half the load, and half a step until the next one.
    assert found.ttft_s == pytest.approx(0.5 * 1.0 / (2 * (1 - 0.5)) + 0.5 * 0.01 / 2, rel=1e-6)
    assert found.full_share == pytest.approx(0.5)


def test_a_constant_rate_of_service_is_an_endless_row_of_servers() -> None:
    """Steps that take the same at any batch, without prefill: Poisson with mean r x service."""
    server = _server(Engine(base_s=0.01, each_s=0.0, prefill_s=1e-9, steps=100, most=200))
    found = open_loop(server, 20.0)
    assert found.decoding == pytest.approx(20.0)
    assert found.tpot_s == pytest.approx(0.01)


def test_what_cannot_be_carried_says_so() -> None:
    """At the capacity and beyond, times grow without end, and throughput is the capacity."""
    server = _server(SHORT_PROMPTS)
    for share in (1.5, 1.0, 1 - 1e-15):
        found = open_loop(server, share * server.capacity_per_s)
        assert found.utilisation == pytest.approx(share)
        assert found.ttft_s == found.tpot_s == float("inf")
        assert found.requests_per_s == server.capacity_per_s


@given(
    st.floats(1e-3, 0.1),
    st.floats(0, 1e-3),
    st.floats(1e-4, 0.5),
    st.integers(2, 200),
    st.integers(1, 64),
    st.floats(0.01, 0.95),
    st.floats(1.1, 3.0),
)
def test_slower_is_later_and_time_has_no_unit(
    base_s: float,
    each_s: float,
    prefill_s: float,
    steps: int,
    most: int,
    share: float,
    slower: float,
) -> None:
    """All times scaled scale the answer at the inverse rate; more requests are never faster."""

    def server(scale: float) -> Server:
        return _server(
            Engine(
                base_s=scale * base_s,
                each_s=scale * each_s,
                prefill_s=scale * prefill_s,
                steps=steps,
                most=most,
            )
        )

    rate = share * server(1.0).capacity_per_s
    found, scaled = open_loop(server(1.0), rate), open_loop(server(slower), rate / slower)
    assert scaled.tpot_s == pytest.approx(slower * found.tpot_s)
    assert scaled.ttft_s == pytest.approx(slower * found.ttft_s)
    less = open_loop(server(1.0), rate / slower)
    assert less.tpot_s <= found.tpot_s * (1 + 1e-9)
    assert less.ttft_s <= found.ttft_s * (1 + 1e-9)


@pytest.mark.parametrize("engine", [SHORT_PROMPTS, LONG_PROMPTS, CHUNKED], ids=str)
@pytest.mark.parametrize("users", [1, 4, 32])
def test_closed_loop_is_what_events_give(engine: Engine, users: int) -> None:
    """TPOT within 1 %, throughput within 0.5 %: the simulation of users has no chance in it."""
    seen, found = of_users(engine, users, requests=600), closed_loop(_server(engine), users)
    assert found.tpot_s == pytest.approx(seen.tpot_s, rel=0.01)
    assert found.requests_per_s == pytest.approx(seen.requests_per_s, rel=0.005)


@pytest.mark.parametrize(
    ("engine", "share", "tolerance"),
    [
        (SHORT_PROMPTS, 0.3, 0.02),
        (SHORT_PROMPTS, 0.8, 0.05),
        (CHUNKED, 0.5, 0.05),
        (CHUNKED, 0.8, 0.05),
        # Prefill takes 60 and 70 % of the time.
        (LONG_PROMPTS, 0.8, 0.05),
        (MUCH_ROOM, 0.8, 0.06),
    ],
    ids=str,
)
def test_mean_tpot_at_random_is_what_events_give(
    engine: Engine, share: float, tolerance: float
) -> None:
    """Within 5 %, a little more where prefill takes most of the time; the mean is known to 2 %."""
    server = _server(engine)
    rate = share * server.capacity_per_s
    mean, error = of_seeds(engine, rate, lambda seen: seen.tpot_s, requests=_enough(share), seeds=4)
    assert error < 0.02 * mean
    assert open_loop(server, rate).tpot_s == pytest.approx(mean, rel=tolerance)


@pytest.mark.parametrize(
    ("engine", "share", "tolerance"),
    [
        (SHORT_PROMPTS, 0.5, 0.02),
        (SHORT_PROMPTS, 0.7, 0.05),
        (LONG_PROMPTS, 0.5, 0.03),
        (LONG_PROMPTS, 0.7, 0.05),
        (MUCH_ROOM, 0.8, 0.05),
        (CHUNKED, 0.5, 0.05),
        (MANY_CHUNKS, 0.8, 0.05),
        (CHUNKED, 0.7, 0.05),
        (CHUNKED, 0.8, 0.05),
    ],
    ids=str,
)
def test_mean_ttft_at_random_is_what_events_give(
    engine: Engine, share: float, tolerance: float
) -> None:
    """Within 5 % while memory is hardly ever full; the mean is known to 2 %."""
    server = _server(engine)
    rate = share * server.capacity_per_s
    found = open_loop(server, rate)
    assert found.full_share < 0.01
    # Six runs at four fifths of the capacity may all lie 5 % above the mean of thirty.
    seeds = 20 if (engine, share) == (CHUNKED, 0.8) else 6
    mean, error = of_seeds(
        engine, rate, lambda seen: seen.ttft_s, requests=_enough(share), seeds=seeds
    )
    assert error < 0.02 * mean
    assert found.ttft_s == pytest.approx(mean, rel=tolerance)


@pytest.mark.parametrize(
    ("engine", "share"),
    [(SHORT_PROMPTS, 0.7), (LONG_PROMPTS, 0.7), (MUCH_ROOM, 0.8), (CHUNKED, 0.8)],
    ids=str,
)
def test_percentiles_at_random_are_what_events_give(engine: Engine, share: float) -> None:
    """p50 within 10 %, p90 and p99 within 25 %, of TTFT and of TPOT."""
    server = _server(engine)
    rate = share * server.capacity_per_s
    spread = open_loop(server, rate).spread
    assert spread is not None
    runs = [at_random(engine, rate, requests=4000, seed=seed) for seed in range(6)]
    for at, tolerance in ((0.5, 0.10), (0.9, 0.25), (0.99, 0.25)):
        ttft_s, tpot_s = (
            np.mean([np.quantile(getattr(run, times), at) for run in runs])
            for times in ("ttfts_s", "tpots_s")
        )
        assert spread.ttft_at(at) == pytest.approx(ttft_s, rel=tolerance)
        assert spread.tpot_at(at) == pytest.approx(tpot_s, rel=tolerance)


def test_the_share_within_a_time_is_the_inverse_of_its_percentile() -> None:
    """And rises with the time, from nothing before the prefill of the first."""
    server = _server(LONG_PROMPTS)
    spread = open_loop(server, 0.7 * server.capacity_per_s).spread
    assert spread is not None
    for share in (0.5, 0.9, 0.99):
        assert spread.ttft_share(spread.ttft_at(share)) == pytest.approx(share, abs=1e-3)
    times = [spread.ttft_share(seconds) for seconds in np.linspace(0, 2, 30)]
    assert times == sorted(times)
    assert (times[0], spread.ttft_share(LONG_PROMPTS.prefill_s * 0.99)) == (0, 0)


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.9])
def test_the_queue_of_equal_services_is_crommelin_s(busy: float) -> None:
    """Waits of M/D/1: exact within one service, the tail within 2 % of Crommelin's (1932) sum."""
    within = np.array([0.5, 1.0, 1.5, 2.5, 4.0])
    exact = [
        (1 - busy)
        * sum(
            (busy * (number - wait)) ** number
            * math.exp(-busy * (number - wait))
            / math.factorial(number)
            for number in range(int(wait) + 1)
        )
        for wait in within
    ]
    every = np.ones(len(within))
    found = _waited(within, every, 0 * every, busy * every, _decay(busy * every))
    assert found == pytest.approx(exact, abs=0.02)
    assert found[:2] == pytest.approx(exact[:2])


@pytest.mark.parametrize(
    ("engine", "share"), [(FEW_PLACES, 0.7), (SHORT_PROMPTS, 0.9), (LONG_PROMPTS, 0.9)], ids=str
)
def test_mean_ttft_with_a_queue_for_memory(engine: Engine, share: float) -> None:
    """Within 25 % of the mean of many runs, which is itself known only to some 10 %."""
    server = _server(engine)
    rate = share * server.capacity_per_s
    found = open_loop(server, rate)
    assert found.full_share > 0.1
    assert found.spread is None
    mean, error = of_seeds(engine, rate, lambda seen: seen.ttft_s, requests=8000, seeds=6)
    assert error < 0.1 * mean
    assert found.ttft_s == pytest.approx(mean, rel=0.25)


def test_throughput_at_random_is_the_arrivals() -> None:
    """What arrives leaves."""
    server = _server(SHORT_PROMPTS)
    rate = 0.6 * server.capacity_per_s
    assert open_loop(server, rate).requests_per_s == rate
    seen = at_random(SHORT_PROMPTS, rate, requests=3000, seed=0)
    assert seen.requests_per_s == pytest.approx(rate, rel=0.05)
