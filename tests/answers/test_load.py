"""A deployment under load: what is held, what it takes, and what sharing the context changes."""

from math import hypot
from typing import Any

import pytest
from builders import ROUND_CONSTANTS, asked, deepseek_v3, gpu, llama_2_7b, mistral_7b
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from simulator.answers.estimate import Question, estimate
from simulator.answers.load import Deployment, Point, Request, deployments, serve
from simulator.counts.transformer import prefill_operations
from simulator.errors import WorkloadError
from simulator.inputs.hardware import FittedFigure, load_hardware
from simulator.inputs.setup import ATTENTIONS
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.interval import code_spread
from simulator.timing.step import step_time

CARD = gpu(ROUND_CONSTANTS, name="card", price=3.6)
H100 = load_hardware("h100-sxm")


def _request(
    *, output_tokens: int = 256, cached_tokens: int = 0, **sizes: Any
) -> tuple[Any, Request]:
    setup, work = asked(**{"samples": 1, "context_tokens": 2048, **sizes})
    return setup, Request(workload=work, output_tokens=output_tokens, cached_tokens=cached_tokens)


def _asked(model: Any, card: Any, setup: Any) -> Question:
    """Return a question, of whose workload a server takes nothing."""
    return Question(model, card, setup, Workload())


def _ways(shape: Any, card: Any = CARD, **sizes: Any) -> dict[str, Deployment]:
    setup, request = _request(**sizes)
    found = deployments(_asked(shape, card, setup), request, attentions=ATTENTIONS)
    return {each.attention: each for each in found}


def _deploy(model: Any, card: Any, setup: Any, request: Request, **more: int) -> Deployment:
    """Return the deployment under the setup's kind of attention."""
    asked = _asked(model, card, setup)
    (found,) = deployments(asked, request, attentions=[setup.attention], **more)
    return found


def test_one_user_sees_a_step_and_a_prefill() -> None:
    """Nobody else's prefill: TPOT is the step at the mean context, TTFT the prefill.

    Its interval also holds what engines vary: half widths add as squares.
    """
    setup, request = _request(output_tokens=257)
    found = Point(deployment=_deploy(mistral_7b(), CARD, setup, request), concurrency=1)
    halfway = request.workload.but(decoded_tokens=129)
    alone = estimate(Question(mistral_7b(), CARD, setup, halfway))
    prefill = step_time(
        prefill_operations(mistral_7b(), setup, halfway), rates(CARD), setup.execution
    )
    assert found.served.tpot_s == pytest.approx(alone.step_s)
    assert found.served.ttft_s == pytest.approx(prefill.total_s)
    engine, step_s = code_spread("engine"), alone.step_s
    below = hypot(step_s - alone.step_low_s, engine.streaming_below * step_s)
    each_s = engine.sequence_above_us / 1e6
    above = hypot(alone.step_high_s - step_s, engine.streaming_above * step_s, each_s)
    assert (found.low.tpot_s, found.high.tpot_s) == pytest.approx((step_s - below, step_s + above))


def test_many_users_wait_for_the_prefills_of_the_others() -> None:
    """TPOT at 16 users: the step of 16 contexts, and 15 prefills over the 256 steps."""
    setup, request = _request(output_tokens=257)
    found = Point(deployment=_deploy(mistral_7b(), CARD, setup, request), concurrency=16)
    step = estimate(
        Question(mistral_7b(), CARD, setup, request.workload.but(prompts=16, decoded_tokens=129))
    ).step_s
    assert found.served.tpot_s == pytest.approx(step + 15 * found.served.ttft_s / 256)


def test_memory_bounds_what_is_held_on_average_by_hand() -> None:
    """Llama-2-7B: requests of 2,048 + 128 tokens of 524,288 bytes in what the weights leave."""
    setup, request = _request(output_tokens=256)
    found = _deploy(llama_2_7b(), H100, setup, request)
    alone = found.alone.memory
    room = alone.free_bytes + alone.kv_bytes
    assert found.server is not None
    # The last step's workspace grows a little with the batch; the prefill's is larger.
    assert found.server.most == int(room // ((2048 + 128) * 524_288))
    assert found.limit == "memory"


def test_the_engine_bounds_the_sequences() -> None:
    """Of 64 sequences at most, 16 requests of 4 samples."""
    setup, request = _request(samples=4, context_tokens=128)
    found = _deploy(mistral_7b(), H100, setup, request, most_sequences=64)
    assert found.server is not None
    assert (found.server.most, found.limit) == (16, "sequences")


def test_without_anything_shared_there_is_one_way() -> None:
    """One sample of each prompt, and no tree."""
    assert list(_ways(mistral_7b())) == ["standard"]
    assert list(_ways(mistral_7b(), samples=4)) == ["standard", "bifurcated"]
    tree = _ways(mistral_7b(), tree="system=2K,own=512", context_tokens=2560)
    assert list(tree) == ["standard", "bifurcated"]


def test_one_stored_context_holds_more_requests_and_bifurcated_is_faster() -> None:
    """8 samples of 4K: stored once 7 times as many fit or more; read once, they take less time."""
    sizes = {"samples": 8, "context_tokens": 4096, "output_tokens": 128}
    ways = _ways(llama_2_7b(), H100, **sizes)
    stored, bifurcated = ways["standard"].server, ways["bifurcated"].server
    copies = _ways(llama_2_7b(), H100, kv_layout="copies", **sizes)["standard"].server
    assert stored is not None
    assert bifurcated is not None
    assert copies is not None
    assert stored.most >= 6 * copies.most
    assert bifurcated.most == stored.most
    assert bifurcated.capacity_per_s > stored.capacity_per_s


def test_a_shared_system_prompt_is_stored_once_and_never_prefilled() -> None:
    """Levels above a tree's last are one node for all requests, and count as cached."""
    tree, plain = (
        _request(tree="system=2K,own=512", context_tokens=2560)[1],
        _request(context_tokens=2560, cached_tokens=2048)[1],
    )
    assert tree.stored_tokens == plain.stored_tokens == 2048
    work = tree.together(10)
    assert (work.prompts, work.tree[0].branches, work.tree[1].branches) == (10, 1, 10)
    sizes = {"tree": "system=2K,own=512", "context_tokens": 2560}
    held = [
        _ways(mistral_7b(), kv_layout=layout, **sizes)["standard"].server
        for layout in ("copies", "shared")
    ]
    assert held[0] is not None
    assert held[1] is not None
    assert held[1].most > 2 * held[0].most


def test_cached_tokens_shorten_the_first_token_only() -> None:
    """Half of a prompt cached: TTFT is more than halved by half, and the step is the same."""
    found = []
    for cached in (0, 1024):
        setup, request = _request(cached_tokens=cached)
        found.append(Point(deployment=_deploy(mistral_7b(), H100, setup, request), concurrency=1))
    assert found[1].served.tpot_s == found[0].served.tpot_s
    assert 0.4 * found[0].served.ttft_s < found[1].served.ttft_s < 0.7 * found[0].served.ttft_s


def test_chunks_take_less_than_steps_and_prefills_apart() -> None:
    """Weights are read once for both, so more requests a second are carried; the first is later."""
    servers = []
    for chunk in (None, 512):
        setup, request = _request(max_batched_tokens=chunk)
        servers.append(_deploy(mistral_7b(), H100, setup, request).server)
    apart, mixed = servers
    assert apart is not None
    assert mixed is not None
    assert mixed.added_s[0] < apart.added_s[0]
    assert mixed.prefill_s[0] > apart.prefill_s[0]


@settings(max_examples=25)
@given(st.floats(0.1, 0.9), st.integers(1, 4), st.sampled_from([1, 2, 8]))
def test_replicas_share_the_load(share: float, replicas: int, samples: int) -> None:
    """Each replica sees what one sees at its share; prices and throughput add up."""
    setup, request = _request(samples=samples)
    deployment = _deploy(mistral_7b(), CARD, setup, request)
    assert deployment.server is not None
    rate = share * deployment.server.capacity_per_s
    one = Point(deployment=deployment, arrivals_per_s=rate, price=CARD.price_usd_per_hour)
    several = Point(
        deployment=deployment,
        arrivals_per_s=replicas * rate,
        replicas=replicas,
        price=CARD.price_usd_per_hour,
    )
    assert several.served.tpot_s == pytest.approx(one.served.tpot_s)
    assert several.tokens_per_s == pytest.approx(replicas * rate * samples * 256)
    assert several.usd_per_hour == pytest.approx(replicas * 3.6)
    assert several.usd_per_million_tokens == pytest.approx(one.usd_per_million_tokens)
    assert one.low.tpot_s <= one.served.tpot_s <= one.high.tpot_s


def test_a_curve_ends_where_memory_does() -> None:
    """Powers of two and the most; more users never see more tokens a second each."""
    setup, request = _request(samples=2)
    curve = serve(_asked(mistral_7b(), H100, setup), request, attentions=ATTENTIONS)
    for deployment in curve.deployments:
        points = [point for point in curve.points if point.deployment is deployment]
        users = [point.concurrency for point in points]
        assert deployment.server is not None
        assert users[0] == 1
        assert users[-1] == deployment.server.most
        speeds = [point.tokens_per_s_per_user for point in points]
        assert speeds == sorted(speeds, reverse=True)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"output_tokens": 1}, "decodes 2 or more"),
        ({"prompts": 4}, "a request has one prompt.*; leave it out"),
        ({"cached_tokens": 2048}, "one token is left"),
        ({"cached_tokens": -1}, "one token is left"),
        (
            {"tree": "system=2K,own=512x8", "context_tokens": 2560},
            "prompts = 8: .*; write --tree system=2048,own=512$",
        ),
    ],
)
def test_requests_that_no_server_serves(sizes: dict[str, Any], message: str) -> None:
    """One clear line."""
    with pytest.raises(WorkloadError, match=message):
        _request(**sizes)


def test_what_does_not_fit_has_no_server() -> None:
    """A 7B model in 12 GB."""
    small = gpu(ROUND_CONSTANTS, name="small", memory_gb=12)
    setup, request = _request()
    found = _deploy(mistral_7b(), small, setup, request)
    assert found.server is None
    assert not Point(deployment=found, arrivals_per_s=1.0).carried


def test_groups_and_stages_prefill_side_by_side() -> None:
    """2 groups x 2 stages: a prefill adds a quarter of the time that its own token waits."""
    setup, request = _request(data_parallel=2, pipeline_parallel=2)
    server = _deploy(mistral_7b(), CARD, setup, request).server
    assert server is not None
    prefill = step_time(
        prefill_operations(mistral_7b(), setup, request.halfway), rates(CARD), setup.execution
    )
    assert server.prefill_s[0] == pytest.approx(prefill.total_s)
    assert server.added_s == pytest.approx(server.prefill_s / 4)
    assert server.occupied_s == pytest.approx(server.added_s)
    # 4 requests step as one does: one in each stage of each group.
    assert server.step_s[:4] == pytest.approx([server.step_s[0]] * 4)
    assert server.step_s[4] > server.step_s[3]


def test_a_data_parallel_group_of_latent_caches_holds_more_requests() -> None:
    """DeepSeek-V3 on 8 H200: caches that are not copied leave room for six times the requests."""
    most = []
    for how in ({"tensor_parallel": 8}, {"data_parallel": 8, "expert_parallel": 8}):
        setup, request = _request(context_tokens=8192, **how)
        setup = setup.but(weight_dtype="fp8", gpu_memory_utilization=0.95)
        found = _deploy(
            deepseek_v3(), load_hardware("h200-sxm"), setup, request, most_sequences=10**4
        )
        assert found.server is not None
        assert found.limit == "memory"
        most.append(found.server.most)
    assert most[1] > 3 * most[0]


def test_a_curve_has_the_loads_that_are_asked() -> None:
    """Users alone, rates alone, or both; each point is that of its load."""
    setup, request = _request(samples=4)
    asked_of = (_asked(mistral_7b(), CARD, setup), request)
    found = serve(*asked_of, attentions=["standard"], users=[3], requests_per_s=[0.5, 1.0])
    assert [(p.concurrency, p.arrivals_per_s) for p in found.points] == [
        (3, None),
        (None, 0.5),
        (None, 1.0),
    ]
    (deployment,) = found.deployments
    assert found.points[0].served == Point(deployment=deployment, concurrency=3).served
    assert (
        found.points[2].served.tpot_s
        == Point(deployment=deployment, arrivals_per_s=1.0).served.tpot_s
    )


@pytest.mark.parametrize(
    ("loads", "told"),
    [
        ({"users": [0]}, "users = 0 is not positive"),
        ({"requests_per_s": [1.0, -2.0]}, "requests_per_s = -2 is not positive"),
        ({"users": []}, r"users = \[\] is empty"),
        ({"users": [4], "requests_per_s": ()}, r"requests_per_s = \(\) is empty"),
    ],
)
def test_what_is_no_load_is_refused_at_once(loads: dict[str, Any], told: str) -> None:
    """An empty list would be no load, or all that are held."""
    with pytest.raises(WorkloadError, match=told):
        simulator.serve("gpt2", **loads)
    with pytest.raises(WorkloadError, match=told):
        simulator.prepare_sweep("one-sample", **loads)


def test_one_kind_of_attention_may_be_asked_as_for_a_step() -> None:
    """By ``attention`` as well as by a list of them."""
    for way in ({"attention": "bifurcated"}, {"attentions": ["bifurcated"]}):
        curve = simulator.serve("gpt2", samples=4, users=2, **way)
        assert [found.attention for found in curve.deployments] == ["bifurcated"]
        plan = simulator.plan("gpt2", "l4", tensor_parallel=1, **way)
        assert {option.result.setup.attention for option in plan.options} == {"bifurcated"}


def test_a_percentile_is_of_requests_at_random() -> None:
    """Users who ask again at once have none; it is a percentage."""
    setup, request = _request()
    asked = _asked(mistral_7b(), CARD, setup)
    with pytest.raises(WorkloadError, match="give requests_per_s"):
        serve(asked, request, attentions=["standard"], percentile=90)
    at: dict[str, Any] = {"attentions": ["standard"], "requests_per_s": [1.0], "percentile": 100}
    with pytest.raises(WorkloadError, match="is not between 0 and 100"):
        serve(asked, request, **at)


def test_a_curve_bars_what_no_kernel_runs() -> None:
    """Bifurcated attention beside standard, on a V100; alone it is still answered."""
    setup, request = _request(samples=4)
    asked_of = (_asked(mistral_7b(), load_hardware("v100-sxm2-32gb"), setup), request)
    both = serve(*asked_of, attentions=ATTENTIONS)
    assert [each.attention for each in both.deployments] == ["standard"]
    assert "FlashAttention does not run on V100" in both.left_out[0]
    alone = serve(*asked_of, attentions=["bifurcated"])
    assert [each.attention for each in alone.deployments] == ["bifurcated"]
    assert alone.left_out == ()


def test_no_engine_is_the_step_as_it_is() -> None:
    """Times are the same; their interval is the step's own, without what engines vary."""
    setup, request = _request(output_tokens=257)
    with_engine, without = (
        Point(
            deployment=_deploy(mistral_7b(), CARD, setup.but(engine=name), request), concurrency=1
        )
        for name in ("vllm", "none")
    )
    alone = without.deployment.alone
    assert without.served.tpot_s == pytest.approx(alone.step_s)
    assert without.low.tpot_s == pytest.approx(alone.step_low_s)
    assert without.high.tpot_s == pytest.approx(alone.step_high_s)
    assert with_engine.high.tpot_s > without.high.tpot_s


def test_what_an_engine_adds_is_in_every_step() -> None:
    """1 ms a step and 10 us a sequence: 16 users wait 1.16 ms longer for each of 256 tokens.

    Errors of 0.1 ms and 4 us add as squares, and 80 % lie within 1.2816 times that; so does what
    engines may take for a sequence where no rows of the card tell it. TTFT, of prefills, stays.
    """
    figures = {"step": (1000.0, 100.0), "sequence": (10.0, 4.0)}
    own = {
        f"sglang_served_{name}_us": FittedFigure(value=value, stderr=error, source="made up: runs")
        for name, (value, error) in figures.items()
    }
    slow = CARD.but(fitted={**CARD.fitted, **own})
    setup, request = _request(output_tokens=257)
    for engine, added_s in (("sglang", 1.16e-3), ("vllm", 0.0)):
        plain, found = (
            Point(
                deployment=_deploy(mistral_7b(), card, setup.but(engine=engine), request),
                concurrency=16,
            )
            for card in (CARD, slow)
        )
        time_s = plain.served.tpot_s
        assert found.served.tpot_s == pytest.approx(time_s + added_s)
        assert found.served.ttft_s == pytest.approx(plain.served.ttft_s)
    plain, found = (
        Point(
            deployment=_deploy(mistral_7b(), card, setup.but(engine="sglang"), request),
            concurrency=1,
        )
        for card in (CARD, slow)
    )
    error_s, untold_s = (
        1.2816 * hypot(0.1e-3, 0.004e-3),
        code_spread("engine").sequence_above_us / 1e6,
    )
    above_s = hypot(found.high.tpot_s - found.served.tpot_s, untold_s)
    assert above_s == pytest.approx(
        hypot(plain.high.tpot_s - plain.served.tpot_s, error_s), rel=1e-3
    )
    assert found.served.tpot_s - found.low.tpot_s == pytest.approx(
        hypot(plain.served.tpot_s - plain.low.tpot_s, error_s), rel=1e-3
    )
    # Carried constants are of no engine.
    bare = _deploy(mistral_7b(), slow, setup.but(engine="sglang", constants="peak"), request)
    assert Point(deployment=bare, concurrency=1).served.tpot_s < plain.served.tpot_s


def test_a_deployment_equals_only_itself() -> None:
    """So that comparing two compares no arrays, and its text is short."""
    one, other = (
        simulator.serve("gpt2", "l4", users=[1], output_tokens=8).points[0].deployment
        for _ in range(2)
    )
    assert one != other
    assert len({one, other}) == 2
    assert len(repr(one)) < 200


def test_a_request_has_a_context() -> None:
    """Nobody asked about cached tokens: the message is about the context."""
    with pytest.raises(WorkloadError, match="context_tokens = 0: a request has at least 1"):
        simulator.serve("gpt2", "l4", users=[1], context_tokens=0)
