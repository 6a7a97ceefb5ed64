"""The numbers in tables and sentences are those of the answers, and the sentences are true."""

import re
from dataclasses import replace
from functools import partial

import pytest

import simulator
from simulator.answers.compare import Comparison
from simulator.inputs.setup import ATTENTIONS
from simulator.inputs.workload import Workload
from simulator.units import format_gib, format_si, format_time, format_tokens
from simulator.views.columns import SCHEMA_VERSION, View, plain, stack
from simulator.views.estimate import (
    break_even,
    compare_object,
    compare_view,
    estimate_object,
    estimate_view,
    verdict,
)
from simulator.views.forms import form_of
from simulator.views.generate import generate_view
from simulator.views.plan import MOST_OPTIONS_SHOWN, plan_view
from simulator.views.text import fits_between, interval_phrase, samples_phrase


def shown(view: View) -> str:
    """Return the text of a view on a wide page."""
    return stack(view).text(200)


def told(result: Comparison) -> str:
    """Return the verdict without its markup."""
    return re.sub(r"\[/?\w*\]", "", " ".join(verdict(result)))


@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt2", "deepseek-v3", "llama-2-70b"])
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_an_estimate_shows_its_own_numbers(model: str, attention: str) -> None:
    """Step, traffic, memory and every operation of an estimate stand in its view."""
    result = simulator.estimate(model, attention=attention)
    text = shown(estimate_view(result))
    totals = result.totals
    moved = float(totals.bytes_read + totals.bytes_written)
    for part in (
        f"Step {format_time(result.step_s)}",
        f"{result.tokens_per_s:,.0f} tokens/s",
        f"bound by {result.bound}",
        f"{format_si(moved, 'B')} moved",
        f"{format_si(float(totals.kv_bytes_read), 'B')} KV",
        f"{format_si(float(totals.weight_bytes_read), 'B')} weights",
        f"{totals.launches:,.0f} launches",
        f"Memory {format_gib(float(result.memory.total_bytes))} of",
        fits_between(result.memory),
    ):
        assert part in text
    rows = text.split("bound by\n")[1].split("\n\n")[0].splitlines()
    names = [item.name for item in result.operations if item.launches]
    assert [row.split()[0] for row in rows] == names
    shares = [float(share) for share in re.findall(r"(\d+\.\d)%", "\n".join(rows))]
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))
    for note in result.notes:
        assert f"- {note}" in text


def test_a_comparison_shows_its_own_numbers() -> None:
    """Every variant's step, ratio, KV bytes and memory stand in its row."""
    result = simulator.compare("llama-2-7b", samples=16, context_tokens="8K")
    rows = {line[:29].strip(): line for line in shown(compare_view(result)).splitlines()[8:12]}
    assert result.copies is not None
    variants = {
        "standard, one stored context": result.standard,
        "standard, a context copy each": result.copies,
        "bifurcated": result.bifurcated,
    }
    for name, item in variants.items():
        row = rows[name]
        assert format_time(item.step_s) in row
        times = f"{result.standard.step_s / item.step_s:.2f}x"
        assert (times in row) == bool(item.memory.fits)
        assert format_si(float(item.totals.kv_bytes_read), "B") in row
        assert format_gib(float(item.memory.total_bytes)) in row
        assert ("no, " in row) == (not item.memory.fits)
    assert "69.3 GB" in rows["standard, a context copy each"]
    assert "4.83 GB" in rows["bifurcated"]


@pytest.mark.parametrize("layout", ["copies", "rebuilt"])
def test_who_asks_about_another_layout_sees_that_one(layout: str) -> None:
    """Standard attention has one row then, and what storing the context once gains is told."""
    result = simulator.compare("llama-2-7b", samples=8, kv_layout=layout)
    assert "standard, one stored context" not in shown(compare_view(result))
    gain = result.standard.step_s / result.stored.step_s
    alone = "storing the context once alone, as paged caches do,"
    assert f"{alone} is {gain:.2f} times as fast" in told(result)


def test_no_gain_is_told_over_what_does_not_fit() -> None:
    """64 copies of 8K exceed an H100: the figure is that over one stored context, which fits."""
    result = simulator.compare("llama-2-7b", samples=64, context_tokens="8K", kv_layout="copies")
    text = told(result)
    over = result.stored.step_s / result.bifurcated.step_s
    assert result.stored.memory.fits
    assert not result.standard.memory.fits
    assert f"{result.speedup:.2f} times" not in text
    assert text.startswith("Only bifurcated fits: standard is ")
    assert f"as paged caches keep it, bifurcated is {over:.2f} times as fast" in text
    neither = simulator.compare("llama-2-7b", "l4", samples=64, context_tokens="64K")
    assert told(neither).startswith("Neither fits: bifurcated is ")
    for answer in (result, neither):
        said = compare_object(answer)
        assert said["speedup"] is said["speedup_low"] is said["speedup_high"] is None
        assert said["speedup_over_copies"] is None
        assert not re.search(r"\d\.\d\dx", shown(compare_view(answer)))


@pytest.mark.parametrize(
    ("name", "card", "samples", "lead"),
    [
        ("llama-3.1-8b", "h100", 32, "Bifurcated wins: "),
        ("llama-3.1-8b", "l40s", 4, "Bifurcated is faster: 1.02 times "),
        (
            "llama-3.2-3b",
            "t4",
            32,
            "Bifurcated would be faster, but no engine's kernel runs it here: ",
        ),
    ],
)
def test_bifurcated_wins_only_where_switching_is_the_advice(
    name: str, card: str, samples: int, lead: str
) -> None:
    """A gain too small to act on is no win, nor is one that no kernel brings."""
    result = simulator.compare(name, card, samples=samples, context_tokens="8K")
    assert result.verdict == "yes"
    assert told(result).startswith(lead)
    assert ("wins" in lead) == result.advice.startswith("Switch")


def test_the_ratio_of_bytes_is_never_sold_as_the_speed_up() -> None:
    """The verdict gives both figures, and says that the one is not the other."""
    result = simulator.compare("llama-3.1-8b", samples=16, context_tokens="8K")
    text = told(result)
    assert f"{result.speedup:.2f} times as fast" in text
    assert f"{result.kv_io_ratio:.1f} times fewer KV bytes; that ratio is not the speed-up" in text
    assert result.speedup < result.kv_io_ratio / 2


@pytest.mark.parametrize("samples", [2, 16, 64])
def test_break_even_points_are_where_the_verdict_says(samples: int) -> None:
    """At the points told bifurcated is faster, and one below them it is not."""
    result = simulator.compare("llama-3.1-8b", samples=samples, context_tokens="4K")
    text = told(result)

    def faster(**work: int) -> bool:
        at = {"samples": samples, "context_tokens": 4096, **work}
        return simulator.compare("llama-3.1-8b", **at).speedup > 1

    most = result.break_even_samples
    assert most is not None
    assert f"with {most:,} or more samples" in text
    assert faster(samples=most)
    assert most == 1 or not faster(samples=most - 1)
    context = result.break_even_context_tokens
    if context is None:
        assert "a longer context does not make it faster for good" in text
    else:
        assert f"{context:,} or more context tokens" in text
        assert faster(context_tokens=context)
        assert context == 1 or not faster(context_tokens=context - 1)


@pytest.mark.parametrize(
    ("samples", "context", "speedup", "said"),
    [
        (
            3,
            500,
            0.9,
            (
                "Bifurcated is faster with 3 or more samples at this context, "
                "and with 500 or more context tokens at 8 samples."
            ),
        ),
        (
            9,
            None,
            0.9,
            (
                "Bifurcated is faster with 9 or more samples at this context; "
                "at 8 samples a longer context does not make it faster for good."
            ),
        ),
        (
            None,
            1,
            1.0,
            (
                "Bifurcated is faster with 1 or more context tokens at 8 samples; "
                "more samples alone do not make it faster for good."
            ),
        ),
        (
            3,
            None,
            1.1,
            (
                "Bifurcated is faster with 3 or more samples at this context; "
                "at 8 samples it does not stay faster with a longer context."
            ),
        ),
        (
            None,
            500,
            1.1,
            (
                "Bifurcated is faster with 500 or more context tokens at 8 samples; "
                "with more samples it does not stay faster."
            ),
        ),
        (
            None,
            None,
            0.9,
            (
                "More samples of this 4K-token context do not make bifurcated faster for good, "
                "nor does a longer one at 8 samples."
            ),
        ),
        (
            None,
            None,
            1.1,
            (
                "Bifurcated does not stay faster with more samples of this 4K-token context, "
                "nor with a longer one at 8 samples."
            ),
        ),
    ],
)
def test_break_even_points_are_said_plainly(
    samples: int | None, context: int | None, speedup: float, said: str
) -> None:
    """From where on, or that there is no such point: whether it is faster now or not."""
    result = replace(simulator.compare("gpt2", samples=8, context_tokens="4K"), speedup=speedup)
    vars(result).update(break_even_samples=samples, break_even_context_tokens=context)
    assert break_even(result) == said


def test_the_gain_over_one_stored_context_is_told_where_it_is_another() -> None:
    """Copies cost reads that a paged cache saves: its users gain less, and read so at once."""
    asked = partial(simulator.compare, gpu="h100-sxm", kv_layout="copies")
    result = asked("llama-3.1-8b", samples=16, context_tokens="8K")
    over = result.stored.step_s / result.bifurcated.step_s
    told_over = "over one stored context, as paged caches keep it, bifurcated is"
    assert f"{told_over} {over:.2f} times as fast" in told(result)
    few = asked("qwen2.5-7b", samples=40, context_tokens="1K")
    assert f"{told_over} no faster" in told(few)
    stored = simulator.compare("llama-3.1-8b", "h100-sxm", samples=16)
    assert "over one stored context" not in told(stored)


def test_a_loss_is_called_a_loss() -> None:
    """Where bifurcated attention is slower, the verdict says so and does not advise it."""
    result = simulator.compare("llama-3.1-8b", samples=1, context_tokens=512)
    assert result.speedup < 1
    text = told(result)
    assert "Bifurcated wins" not in text
    assert "Switch to bifurcated" not in text


@pytest.mark.parametrize(
    ("model", "gpu", "words"),
    [("llama-3.1-8b", "h100-sxm", "Fastest that fits: "), ("llama-3.1-405b", "l4", "GiB short.")],
)
def test_a_plan_without_an_answer_says_what_comes_nearest(model: str, gpu: str, words: str) -> None:
    """Too slow or too large: the option to start from is named, and stands first in the table."""
    result = simulator.plan(model, gpus=[gpu], target_step_ms=0.1)
    text = shown(plan_view(result))
    first = result.options[0]
    laid = {"h100-sxm": "", "l4": " (TP8 PP4)"}[gpu]
    named = f"{first.gpus} x {gpu}{laid}, {first.attention}"
    assert "No option meets 100 µs." in text
    assert named in text
    assert words in text


def test_what_does_not_fit_says_by_how_much() -> None:
    """A comparison of which nothing fits says how much is short and what to do about it."""
    result = simulator.compare("llama-3.1-405b", "l4")
    short = format_gib(-float(result.bifurcated.memory.free_bytes))
    assert f"{short} short" in told(result)
    assert f"no, {short} short" in shown(compare_view(result))


def test_a_request_shows_its_own_numbers() -> None:
    """Prefill, decode, total, speed and cost of each kind stand in its row."""
    results = {
        kind: simulator.generate("mistral-7b", output_tokens=2000, attention=kind)
        for kind in ("standard", "bifurcated")
    }
    text = shown(generate_view(results))
    for kind, item in results.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"{kind} "))
        time = item.time
        whole = (float(time.prefill.total_s), time.decode_s, item.total_s)
        times = [format_time(seconds) for seconds in whole]
        times.append(interval_phrase(item.total_low_s, item.total_high_s))
        times += [format_time(seconds) for seconds in (time.first_step_s, time.last_step_s)]
        words = " ".join(times).split()
        assert row.split()[1 : 1 + len(words)] == words
        assert f"{item.tokens_per_s:,.0f}" in row
        assert f"{item.usd_per_million_tokens:,.3f}" in row
    ratio = results["standard"].total_s / results["bifurcated"].total_s
    assert f"{ratio:.2f} times as fast" in text


def test_a_price_that_is_not_known_is_called_so() -> None:
    """Without a price the cost is unknown, not zero."""
    result = simulator.generate("gpt2", "a10", output_tokens=8)
    assert "unknown" in shown(generate_view({"standard": result}))


@pytest.mark.parametrize(("samples", "word"), [(1, "slow"), (64, "fast")])
def test_a_slower_request_is_said_to_be_slower(samples: int, word: str) -> None:
    """With nothing to share bifurcated attention only costs launches: no '0.96 times as fast'."""
    results = {
        name: simulator.generate("llama-3.1-8b", samples=samples, attention=name, output_tokens=8)
        for name in ATTENTIONS
    }
    ratio = results["standard"].total_s / results["bifurcated"].total_s
    times = max(ratio, 1 / ratio)
    said = f"Over the whole request, prefill included, bifurcated is {times:.2f} times as {word}."
    assert said in shown(generate_view(results))


def test_a_plan_shows_its_own_numbers() -> None:
    """The cheapest option is told first and marked, and every option shown has its figures."""
    result = simulator.plan("llama-3.1-8b", ["h100", "l4"], target_step_ms=15, samples=16)
    text = shown(plan_view(result))
    best = result.cheapest
    assert best is not None
    assert f"Cheapest per hour that meets 15.0 ms: {best.gpus} x {best.result.gpu.id}" in text
    rows = text.split("longest context")[1].splitlines()[1:]
    worth = [option for option in result.options if not option.dominated]
    assert f"Not shown: {len(result.options) - len(worth)} that another of the same card" in text
    for row, option in zip(rows, worth[:MOST_OPTIONS_SHOWN], strict=False):
        limits = option.limits
        assert row.split()[:3] == [option.result.gpu.id, str(option.gpus), option.attention]
        assert format_time(option.result.step_s) in row
        if limits.most_samples_in_time is not None:
            assert f" {format_tokens(limits.most_samples_in_time)} " in row
        assert ("cheapest" in row) == (option in (best, result.cheapest_maybe))
        assert ("Pareto" in row) == option.pareto
        assert ("too slow" in row) == (bool(option.result.memory.fits) and not option.meets_target)


def test_a_plan_says_what_it_does_not_rank_and_what_is_least_per_token() -> None:
    """Cards that would do at prices of low trust are named, shown or not."""
    result = simulator.plan("llama-3.1-8b", samples=4, context_tokens="8K")
    text = shown(plan_view(result))
    assert result.cheapest is not None
    apart = text.split("Ranked apart, and never cheapest: ")[1]
    assert "rtx-3090 0.39" in apart
    assert "mi300x 1.85 (Vultr, on demand, low trust)" in apart
    assert "any of 15 cards" in text
    least = result.options[0]
    assert least is not result.cheapest
    assert f"Least per token: {least.gpus} x {least.gpu}, " in text


@pytest.mark.parametrize(
    ("answer", "loaded", "tokens"),
    [("plan", {}, 204_864), ("plan", {"requests_per_s": 0.1}, 205_056), ("serve", {}, 205_056)],
)
def test_contexts_beyond_the_model_are_warned_of(
    answer: str, loaded: dict[str, float], tokens: int
) -> None:
    """200K of context and 64 own tokens, or 256 of a request; the model ends at 128K."""
    result = getattr(simulator, answer)("llama-3.1-8b", "h100", context_tokens="200K", **loaded)
    warning = f"Warning: {tokens:,} tokens exceed the 131,072 that llama-3.1-8b was made for."
    assert warning in shown(form_of(result, "view")(result))
    if answer == "plan" and not loaded:
        limits = [option.limits.longest_context_tokens for option in result.options]
        assert set(limits) == {131_072 - 64}


def test_a_load_names_the_sequences_of_each_request() -> None:
    """64 users are not the one sequence of a request."""
    curve = simulator.serve("llama-3.1-8b", users=64)
    assert "\neach request: 1 sequence from an 8K-token context" in shown(
        form_of(curve, "view")(curve)
    )


def test_a_tradeoff_that_does_not_fit_has_a_verdict() -> None:
    """Neither model fits a T4: that is said, not how fast it would be."""
    result = simulator.tradeoff("llama-3.1-8b", "t4")
    text = shown(form_of(result, "view")(result))
    assert ": neither fits with standard attention; neither fits with bifurcated" in text


def test_a_plan_without_an_answer_says_so() -> None:
    """Where nothing meets the target the first line says that."""
    text = shown(plan_view(simulator.plan("llama-3.1-8b", ["l4"], target_step_ms=0.1)))
    assert "No option meets 100 µs." in text


@pytest.mark.parametrize(
    ("work", "phrase"),
    [
        (
            {"samples": 1, "decoded_tokens": 1},
            "1 sequence from an 8K-token context, 1 own token each",
        ),
        ({"context_tokens": 0}, "16 sequences from a 0-token context, 64 own tokens each"),
        ({"context_tokens": 18}, "16 sequences from an 18-token context, 64 own tokens each"),
        ({"context_tokens": 11264}, "16 sequences from an 11K-token context, 64 own tokens each"),
        ({"context_tokens": 1800}, "16 sequences from a 1,800-token context, 64 own tokens each"),
        ({"prompts": 4}, "64 sequences, 16 from each of 4 8K-token contexts, 64 own tokens each"),
        (
            {"query_tokens": 3},
            (
                "16 sequences from an 8K-token context, 64 own tokens each, "
                "3 query tokens per step, 1 accepted"
            ),
        ),
    ],
)
def test_questions_are_said_in_plain_english(work: dict[str, int], phrase: str) -> None:
    """Numbers agree with their nouns, and the article with the number as it is spoken."""
    assert samples_phrase(Workload(**work)) == phrase


def test_plain_numbers() -> None:
    """Counts are integers, fractions stay; beyond 2**53 a float is left as computed."""
    assert plain(3.0) == 3
    assert type(plain(3.0)) is int
    assert plain(2.5) == 2.5
    assert type(plain(2.0**60)) is float


def test_the_schema_has_a_version() -> None:
    """Every object says which version of the schema it follows."""
    assert estimate_object(simulator.estimate("gpt2"))["schema_version"] == SCHEMA_VERSION == 3


def test_an_interval_that_is_not_known_keeps_a_table_narrow() -> None:
    """Cells hold its lower end, a note says the rest, and the speed-up has none either."""
    result = simulator.compare("llama-3.1-405b", "h100-sxm", tensor_parallel=16, samples=32)
    text = shown(compare_view(result))
    assert f"at least {format_time(result.bifurcated.step_low_s)} " in text
    table, _, answer = " ".join(text.split()).partition(
        "Not known, as no rows are of more than 8 GPUs:"
    )
    assert "not known" not in table
    assert "Interval not known: no rows are of more than 8 GPUs." in answer
    assert f"{result.speedup:.2f} times as fast end to end (interval not known)" in answer
    found = compare_object(result)
    assert found["verdict"] == "not known"
    assert found["speedup_low"] is found["speedup_high"] is None


def test_a_plan_says_why_an_interval_is_not_known() -> None:
    """AMD's options come after the others, and a note says why."""
    found = simulator.plan(
        "gpt-oss-20b", ["h100-sxm", "mi300x"], tensor_parallel_sizes=[1], target_step_ms=1000
    )
    text = " ".join(shown(plan_view(found)).split())
    assert "Interval not known: no rows are of experts on GPUs of AMD." in text
