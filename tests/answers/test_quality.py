"""What a target buys is what fits in it, and one sample more does not."""

from typing import Any

import pytest

import simulator
from simulator.answers.quality import Quality
from simulator.errors import WorkloadError
from simulator.inputs.setup import ATTENTIONS

QUESTION: dict[str, Any] = {"context_tokens": "8K", "success_rate": 0.05}


def ask(**changes: Any) -> Quality:
    """Ask about Llama-3.1-8B on an H100."""
    return simulator.quality("llama-3.1-8b", "h100-sxm", **{**QUESTION, **changes})


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("target_step_ms", [7.5, 12.0, 30.0])
def test_one_sample_more_breaks_the_target_or_the_memory(
    attention: Any, target_step_ms: float
) -> None:
    """The samples found fit, by single estimates; one more does not."""
    best = ask(target_step_ms=target_step_ms).best[attention]
    assert best.point is not None
    for samples, good in ((best.point.samples, True), (best.point.samples + 1, False)):
        result = simulator.estimate(
            "llama-3.1-8b", samples=samples, context_tokens="8K", attention=attention
        )
        held = bool(result.memory.fits)
        in_time = result.step_s <= target_step_ms / 1e3
        assert (held and in_time) == good
        if good:
            assert best.point.step_s == pytest.approx(result.step_s, rel=1e-12)
        else:
            assert best.limit == ("memory" if not held else "time")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("drafts", [{}, {"query_tokens": 4, "accepted_tokens": 2.5}], ids=str)
def test_requests_are_those_of_generate(attention: Any, drafts: dict[str, Any]) -> None:
    """The time of a whole request equals generate's, for each number of samples."""
    points = ask(output_tokens=300, most_samples=20, samples=7, **drafts).points[attention]
    assert 7 in [point.samples for point in points]
    for point in points:
        request = simulator.generate(
            "llama-3.1-8b",
            samples=point.samples,
            context_tokens="8K",
            output_tokens=300,
            attention=attention,
            price_per_hour=3.6,
            **drafts,
        )
        assert point.request_s == pytest.approx(request.total_s, rel=1e-9)
        assert point.step_s == pytest.approx(request.last_step.step_s, rel=1e-9)
        assert point.fits == bool(request.memory.fits)


def test_a_request_target_holds() -> None:
    """The most samples whose request is in time."""
    result = ask(output_tokens=100, target_request_s=1.2)
    for attention in ATTENTIONS:
        best = result.best[attention]
        assert best.point is not None
        assert best.limit == "time"
        assert best.point.request_s is not None
        assert best.point.request_s <= 1.2
        more = ask(output_tokens=100, samples=best.point.samples + 1).points[attention]
        after = next(point for point in more if point.samples == best.point.samples + 1)
        assert after.request_s is not None
        assert after.request_s > 1.2


def test_bifurcated_attention_buys_more_quality() -> None:
    """More samples for the same step, so a higher pass@k."""
    best = ask(target_step_ms=15).best
    standard, bifurcated = best["standard"].point, best["bifurcated"].point
    assert standard is not None
    assert bifurcated is not None
    assert bifurcated.samples > 5 * standard.samples
    assert bifurcated.pass_at_k > standard.pass_at_k
    assert standard.pass_at_k == pytest.approx(1 - 0.95**standard.samples)


def test_cost_is_the_request_at_the_price() -> None:
    """3.6 USD per hour are 0.001 USD per second; two prompts share a request."""
    for prompts in (1, 2):
        result = ask(output_tokens=50, price_per_hour=3.6, prompts=prompts, most_samples=4)
        for point in result.points["standard"]:
            assert point.request_s is not None
            assert point.usd_per_problem == pytest.approx(point.request_s / 1000 / prompts)


def test_nothing_may_fit() -> None:
    """A target below a single sample's step, and a model beyond the memory."""
    late = ask(target_step_ms=0.1).best["standard"]
    assert (late.point, late.limit) == (None, "time")
    large = simulator.quality("llama-3.1-405b", "l4", success_rate=0.5).best["bifurcated"]
    assert (large.point, large.limit) == (None, "memory")


def test_counts_end_where_the_tries_do(tmp_path: Any) -> None:
    """With 30 tries of a problem no more than 30 samples are looked at."""
    path = tmp_path / "counts.csv"
    path.write_text("problem,samples,correct\na,30,3\nb,40,10\n", encoding="utf-8")
    result = ask(success_rate=None, problem_counts=path)
    best = result.best["bifurcated"]
    assert best.point is not None
    assert (best.point.samples, best.limit) == (30, "counts")
    assert result.points["standard"][-1].samples == 30
    fewer = ask(success_rate=None, problem_counts=path, most_samples=20).best["bifurcated"]
    assert fewer.point is not None
    assert (fewer.point.samples, fewer.limit) == (20, "search")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_step_ms": 0}, "target_step_ms"),
        ({"target_request_s": -1, "output_tokens": 8}, "target_request_s"),
        ({"target_request_s": 1}, "output_tokens"),
        ({"output_tokens": 0}, "output_tokens"),
        ({"output_tokens": 10**9}, "output_tokens"),
        ({"output_tokens": 8, "context_tokens": 0}, "context_tokens = 0"),
        ({"output_tokens": 8, "accepted_tokens": 2}, "query_tokens"),
        ({"most_samples": 0}, "most_samples"),
        ({"success_rate": None}, "success_rate or problem_counts"),
        ({"problem_counts": "x.csv"}, "success_rate or problem_counts"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    """One line names what is wrong."""
    with pytest.raises(WorkloadError, match=words):
        ask(**changes)
