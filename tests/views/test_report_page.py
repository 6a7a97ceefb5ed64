"""The report: what it says is what the API says, in a page that needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from simulator import api
from simulator.answers.decision import decide
from simulator.answers.study import asked_scenario, central_cases, narrowed, study_scenario
from simulator.answers.sweep import summarise
from simulator.inputs.hardware import load_hardware
from simulator.inputs.scenario import Scenario, load_scenario
from simulator.units import format_time
from simulator.views.report import words
from simulator.views.report.drawings import drawings
from simulator.views.report.page import Report, report_page
from simulator.views.report.sections import milliseconds, step_cell

VOID = {"meta", "br", "hr", "img", "link"}
GPUS = ("h100-sxm", "l40s", "v100-sxm2-16gb")
NASTY = '</title><script>alert("x")</script><img src=x onerror=alert(1)>&amp;{plot_id}'


class Page(HTMLParser):
    """A page read back: its elements, their texts, and whether every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a name."""
        return [found for element, found in self.elements if element == name]

    @property
    def words(self) -> str:
        """What a reader reads."""
        return " ".join(text for element, text in self.texts if element not in ("style", "script"))

    def row(self, start: str, column: int = 0) -> list[str]:
        """Return the first row whose cell in a column is a text."""
        return next(row for row in self.rows if len(row) > column and row[column] == start)


def report(scenario: Scenario, *, figures: bool = False) -> Report:
    """Gather a report over three GPUs, the first of them the scenario's."""
    profiles = {gpu: load_hardware(gpu) for gpu in GPUS}
    target_step_s = scenario.target_step_ms and scenario.target_step_ms / 1e3
    decisions = [
        decide(case, profiles, asked=1, output_tokens=128, target_step_s=target_step_s)
        for case in central_cases(scenario)
    ]
    return Report(
        scenario=scenario,
        decisions=decisions,
        grid=summarise(scenario),
        drawings=drawings(study_scenario(scenario), decisions) if figures else (),
        command="bifurcate report x -o x.html",
        sweep="bifurcate sweep x -o grid.csv",
        scenario_text='id = "x"',
        version="1.2.3",
    )


@cache
def page(name: str = "code-sampling-8k", *, figures: bool = False) -> str:
    """Return the page of a shipped scenario."""
    return report_page(report(load_scenario(name), figures=figures))


def test_the_page_is_whole_and_accessible() -> None:
    """Elements are closed; language, title, headings in order, scopes and captions are there."""
    text = page()
    read = Page(text)
    assert text.startswith("<!doctype html>\n")
    assert read.named("html") == [{"lang": "en"}]
    assert len(read.named("title")) == len(read.named("h1")) == len(read.named("main")) == 1
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(read.named("caption")) == len(read.named("table")) > 5
    assert {found.get("scope") for found in read.named("th")} == {"col", "row"}
    ids = [found["id"] for _, found in read.elements if "id" in found]
    assert len(ids) == len(set(ids))
    targets = [str(found["href"]) for found in read.named("a")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)
    regions = [found for _, found in read.elements if found.get("role") == "region"]
    assert all(found["aria-label"] and found["tabindex"] == "0" for found in regions)


def test_the_page_asks_for_nothing() -> None:
    """No element has an address outside the page, and the policy forbids any."""
    read = Page(page(figures=True))
    for name, found in read.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert not found.get(key) or str(found[key]).startswith("#"), (name, found)
    policy = next(item for item in read.named("meta") if "http-equiv" in item)
    assert str(policy["content"]).startswith("default-src 'none';")
    assert "@import" not in page()
    assert "url(" not in page()


def test_prices_that_do_not_rank_are_named_beside_the_cheapest() -> None:
    """A card of low trust costs less by the hour than the cheapest, which the page explains."""
    profiles = {gpu: load_hardware(gpu) for gpu in ("h200-sxm", "mi300x")}
    case, *_ = central_cases(load_scenario("one-sample"))
    decision = decide(case, profiles, asked=1, output_tokens=128)
    assert decision.cheapest is decision.choices[0]
    assert words.unranked(decision) == (
        "Ranked apart, and never cheapest, in USD per hour: "
        "Instinct MI300X 1.85 (Vultr, on demand, low trust)."
    )
    alone = decide(case, {"h200-sxm": profiles["h200-sxm"]}, asked=1, output_tokens=128)
    assert words.unranked(alone) == ""


def test_the_numbers_are_those_of_the_api() -> None:
    """Times, speed-up, limits and costs of the table are what the functions answer."""
    read = Page(page())
    sizes = {"samples": 32, "context_tokens": 8192, "decoded_tokens": 64}
    result = api.compare("llama-2-7b", "h100-sxm", **sizes, kv_layout="copies")
    short, row, *_ = (row for row in read.rows if row[0] == "H100 SXM5 80GB")
    assert row[1].split()[0] == "bifurcated"
    assert [float(cell.split()[0]) for cell in row[3:5]] == [
        float(milliseconds(step.step_s)) for step in (result.standard, result.bifurcated)
    ]
    assert row[2] == "-"  # over what does not fit there is none
    assert row[5] == "no / yes"
    price = result.standard.gpu.price_usd_per_hour
    assert price is not None
    cost = price.value / 3600 / result.bifurcated.tokens_per_s * 1e6
    assert row[8] == f"- / {cost:.3f}"
    assert short[2:] == ["-", "does not fit", row[4], f"{cost:.3f}"]
    answer = next(text for _, text in read.texts if text.startswith("32 s"))
    assert format_time(result.bifurcated.step_s) in answer
    over = result.stored.step_s / result.bifurcated.step_s
    assert f"as paged caches keep it, bifurcated is {over:.2f} times as fast" in answer


def test_every_gpu_has_its_verdict() -> None:
    """A GPU on which the case does not fit, or takes too long, says so."""
    read = Page(page())
    short = api.compare("llama-2-7b", "v100-sxm2-16gb", samples=32, context_tokens=8192)
    missing = -float(short.bifurcated.memory.free_bytes) / 2**30
    assert read.row("V100 SXM2 16GB")[1] == f"no, {missing:.1f} GiB short"
    assert read.row("L40S")[1] == "too slow"


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("code-sampling-8k", "Use bifurcated attention"),
        ("one-sample", "Keep standard attention"),
        ("one-kv-head-per-gpu", "Keep standard attention"),
        ("mla-deepseek-v3", "It depends on the case"),
        ("kv-heads-what-if", "It depends on the case"),
    ],
)
def test_the_verdict_comes_first(name: str, lead: str) -> None:
    """Below the title stands what to do, and then a sentence about the case."""
    read = Page(page(name))
    texts = [text for element, text in read.texts if element in ("h1", "p")]
    title, verdict, answer = texts[1:4]
    assert (title, verdict) == (load_scenario(name).title, lead)
    assert answer.endswith(".")
    assert answer.count(". ") == 0
    assert load_scenario(name).question in read.words
    assert f"The scenario expects “{load_scenario(name).verdict}”" in read.words


def test_the_answer_says_no_more_than_the_case_does() -> None:
    """Where a grid gains but its case does not surely, the answer is not to switch."""
    found = report(load_scenario("code-sampling-8k"))
    first = found.decisions[0]
    for verdict, ratio in (("too close to call", 1.01), ("no", 0.95)):
        unsure = replace(first.first.comparison, verdict=verdict, speedup=ratio)
        choices = (replace(first.first, comparison=unsure), *first.choices[1:])
        decision = replace(first, choices=choices)
        assert words.lead(found.grid, decision) == "It depends on the case"
        assert " instead of " not in words.case_sentence(decision.first, found.grid)
    little = replace(found.grid, verdict="no gain")
    assert words.lead(little, first) == "There is little to gain"


def test_one_point_is_answered_as_surely_as_it_is() -> None:
    """A question of one point is answered by its own interval, not by a share of points."""
    little = "as fast, too little to change kernels for"
    for samples, layout, lead, end in (
        (16, "shared", "Use bifurcated attention", ""),
        (4, "copies", "Store the context once, as paged caches do; ", little),
        (4, "shared", "Keep standard attention; ", little),
        (1, "shared", "Keep standard attention", ""),
    ):
        sizes = {"samples": samples, "context_tokens": 8192, "kv_layout": layout}
        found = report(asked_scenario({"model": ("llama-3.1-8b",), **sizes}, ["l40s"]))
        first = found.decisions[0]
        said = words.lead(found.grid, first)
        assert said.startswith(lead)
        assert end in said
        unsure = replace(first.first.comparison, verdict="too close to call")
        choices = (replace(first.first, comparison=unsure), *first.choices[1:])
        assert words.lead(found.grid, replace(first, choices=choices)) == "Too close to call"


def test_what_fits_nowhere_is_said() -> None:
    """A case that fits on no GPU is answered as such, without a cheapest GPU."""
    read = Page(page("mla-deepseek-v3"))
    assert "neither fits in memory" in read.words
    assert "badge" not in {found.get("class") for found in read.named("span")}
    assert "USD/h" not in read.words


def test_every_assumption_is_there() -> None:
    """Inputs with their defaults, notes, profile hashes, constants, sources, commands, file."""
    found = report(load_scenario("code-sampling-8k"))
    read = Page(report_page(found))
    first = found.decisions[0].first
    for note in first.comparison.bifurcated.notes:
        assert note in read.words
    for choice in found.decisions[0].choices:
        assert choice.gpu.content_hash in read.words
    for source in found.scenario.sources:
        assert source in read.words
    for name in ("kv layout", "query tokens", "weight dtype", "gpu memory utilization"):
        assert read.row(name)[1]
    launch = first.gpu.fitted["attention_launch_us"]
    assert read.row("attention_launch_us")[1:4] == [
        f"{launch.value:.4g}",
        f"{launch.stderr:.2g}",
        f"{launch.rows:,}",
    ]
    for text in (found.command, found.sweep, found.scenario_text, "bifurcate compare -m"):
        assert text in read.words
    assert "1.2.3" in read.words


def test_every_point_of_the_grid_is_listed() -> None:
    """The table of the grid has a row for each point, with what varies in front."""
    read = Page(page())
    rows = [row for row in read.rows if row[0] in ("llama-2-7b", "mistral-7b-v0.2")]
    assert len(rows) == load_scenario("code-sampling-8k").points == 22
    assert rows[0][1:3] == ["8,192", "1"]


@pytest.mark.parametrize(
    ("scenario", "differs"),
    [
        ("best-of-n-math500", "own token"),
        ("rl-r1-zero", "prompt"),
        ("speculative-samples", "query token"),
        ("self-consistency-maj40", "context copy|one stored context"),
    ],
)
def test_the_ends_of_a_range_are_told_apart(scenario: str, differs: str) -> None:
    """Points that differ in more than samples and context are named by that, only those."""
    grid = summarise(load_scenario(scenario))
    least, most = words.point(grid.least, grid), words.point(grid.most, grid)
    assert least != most
    for name in least, most:
        assert re.search(differs, name)
    alike = summarise(load_scenario("shared-prefix-throughput"))
    assert words.point(alike.least, alike).count(",") == 1


def test_own_tokens_tell_two_points_apart() -> None:
    """A grid over nothing but own tokens names both ends by theirs."""
    scenario = narrowed(
        load_scenario("small-model-small-batch"), {"samples": (8,), "decoded_tokens": (1, 512)}
    )
    grid = summarise(scenario)
    named = {words.point(row, grid) for row in (grid.least, grid.most)}
    assert {name.rpartition(", ")[2] for name in named} == {"1 own token", "512 own tokens"}


def nasty() -> Scenario:
    """Return a scenario whose every text would be markup."""
    scenario = narrowed(load_scenario("one-sample"), {"model": ["gpt2"], "gpu": ["h100-sxm"]})
    texts = {
        name: f"{NASTY} {name}" for name in ("title", "description", "question", "verdict_reason")
    }
    return scenario.but(**{**texts, "sources": (NASTY,)})


def test_no_text_of_a_file_becomes_markup() -> None:
    """Names and prose of files, and the command line, are shown as they are and run nothing."""
    found = report(nasty())
    case = found.decisions[0].case
    model = case.model.but(name=NASTY)
    profile = load_hardware("l40s").but(name=NASTY)
    decision = decide(
        replace(case, model=model, name=NASTY), {NASTY: profile}, asked=1, output_tokens=2
    )
    text = report_page(
        replace(
            found,
            decisions=[decision],
            command=NASTY,
            sweep=NASTY,
            scenario_text=NASTY,
            version=NASTY,
            date=NASTY,
        )
    )
    read = Page(text)
    assert len(read.named("script")) == text.count("<script") == 1  # the page's own
    assert read.named("img") == []
    assert not [found for _, found in read.elements if "onerror" in found]
    assert read.words.count(NASTY) > 10


def test_figures_of_a_nasty_scenario_stay_figures() -> None:
    """A model's name in the title of a figure opens no script and no element of its own."""
    scenario = nasty()
    found = report(scenario)
    case = found.decisions[0].case
    model = case.model.but(name=NASTY)
    decision = replace(found.decisions[0], case=replace(case, model=model))
    drawn = drawings(study_scenario(scenario), [decision])
    assert drawn
    read = Page(report_page(replace(found, decisions=[decision], drawings=drawn)))
    assert len(read.named("script")) == 1
    assert read.named("img") == []
    assert len([found for found in read.named("svg") if found.get("role")]) == 2 * len(drawn)


def test_the_same_report_is_the_same_page() -> None:
    """Nothing of the page depends on when or how often it is made."""
    assert report_page(report(load_scenario("code-sampling-8k"))) == page()


def test_a_page_with_figures_is_small() -> None:
    """A page can be mailed: its figures are drawings and need no script."""
    assert len(page(figures=True)) < 300_000


def test_a_question_expects_nothing() -> None:
    """Of a question from the command line no verdict, source or grid is told."""
    found = report(narrowed(load_scenario("one-sample"), {"model": ["gpt2"], "gpu": ["h100-sxm"]}))
    text = report_page(replace(found, expected=False, sweep=""))
    assert "The scenario expects" not in text
    assert found.scenario.verdict_reason not in text
    assert found.scenario.sources[0] not in text
    assert "The scenario expects" in report_page(found)


def test_a_date_is_shown_when_it_is_given() -> None:
    """Only who makes the page dates it."""
    found = report(load_scenario("one-sample"))
    assert "Monday" not in report_page(found)
    assert "bifurcate 1.2.3, Monday" in report_page(replace(found, date="Monday")).replace(
        "</p>", ""
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123456, "12.3"), (4.5, "4,500"), (1.234e-5, "0.0123"), (0.00999, "9.99"), (0.0, "0")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    """Times have three significant digits, and a unit in the column's head."""
    assert milliseconds(seconds) == text


def test_an_upper_end_that_is_not_known_is_left_out() -> None:
    """A step without an upper end has a cell with its lower end alone."""
    result = api.estimate("gpt-oss-20b", "mi300x", kv_layout="shared")
    _, _, within = step_cell(result)
    assert f"at least {milliseconds(result.step_low_s)}<" in str(within)
