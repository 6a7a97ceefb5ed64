"""The explorer in a browser: it draws, answers with the numbers of Python, and keeps its state."""

from __future__ import annotations

import csv
import json
import re
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from accessible import faults
from explore_points import ANSWER, BOUND, random_states, truth, worst_error

import simulator
from simulator.answers.capacity import Capacity
from simulator.answers.study import narrowed
from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.scenario import load_scenario
from simulator.units import format_time
from simulator.views.explore.menu import RANGES, Menu, menu
from simulator.views.explore.page import page
from simulator.views.text import fits_phrase, interval_phrase

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from conftest import OpenPage

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1200, 800), (390, 844)
FIGURES = ("samples", "context_tokens", "speedup", "users", "operations", "roofs", "memory")
WIDTHS = (1400, 820, 390)


@pytest.fixture(scope="module")
def offer() -> Menu:
    """A menu of a few models: multi-head, multi-group, more than a card holds, and latent."""
    return menu(
        load_scenario("code-sampling-8k"),
        models=["llama-2-7b", "llama-3.1-8b", "llama-3.1-70b", "deepseek-v3"],
        gpus=["h100-sxm", "l4", "mi300x"],
    )


@pytest.fixture(scope="module")
def path(offer: Menu, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page on the disk."""
    file = tmp_path_factory.mktemp("explore") / "explore.html"
    file.write_text(page(offer), encoding="utf-8")
    return file


def settle(opened: Page) -> None:
    """Wait until what was asked for is drawn: two pictures of the screen later."""
    opened.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def cell(opened: Page, row: str, way: str) -> str:
    """Return a cell of the answer's table."""
    line = opened.locator("#ways tbody tr").filter(has=opened.get_by_role("rowheader", name=row))
    return line.locator(f'[data-way="{way}"]').inner_text()


def shows_what_compare_says(opened: Page, **question: Any) -> None:
    """Hold the table of a page against ``compare``."""
    result = simulator.compare(**question)
    steps = {"standard": result.standard, "bifurcated": result.bifurcated}
    for way, step in steps.items():
        assert cell(opened, "Step", way) == format_time(step.step_s)
        assert cell(opened, "Between", way) == interval_phrase(step.step_low_s, step.step_high_s)
        assert cell(opened, "Bound by", way) == step.bound
        assert cell(opened, "Tokens/s", way) == f"{step.tokens_per_s:,.0f}"
        assert cell(opened, "Fits in", way) == fits_phrase(step.memory)
    gained = f"{result.speedup:.2f}x" if result.both_fit else "–"
    assert cell(opened, "Speed-up", "bifurcated") == gained
    remarks = opened.locator("#remarks").inner_text()
    if result.standard.memory.fits or not result.stored.memory.fits:
        ends = f"{result.speedup_low:.2f} and {result.speedup_high:.2f}"
        known = f"The speed-up lies between {ends}."
        unknown = "Between which values the speed-up lies is not known."
        assert (known if result.speedup_high < inf else unknown) in remarks
    else:
        assert "The speed-up over one stored context lies between" in remarks
    over = result.stored.step_s / result.bifurcated.step_s
    if abs(result.speedup / over - 1) > TIE_MARGIN and result.standard.memory.fits:
        assert f"keep it, bifurcated is {over:.2f} times as fast." in remarks


def broken_words(opened: Page) -> list[str]:
    """Return what a page should never say."""
    said = opened.locator("body").inner_text()
    return re.findall(r"NaN|undefined|Infinity|null|\[object", said)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_it_opens_from_the_disk_and_draws(
    path: Path, open_page: OpenPage, viewport: tuple[int, int]
) -> None:
    """Every figure is drawn within the page's width, with a title; nothing is sent anywhere."""
    opened = open_page(path, viewport=viewport)
    settle(opened)
    for name in FIGURES:
        figure = opened.locator(f"#figure-{name}")
        assert figure.locator("h2").inner_text()
        assert figure.locator("svg[role=img] :is(polyline, rect, path, circle)").count() > 3
    width = opened.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    table = opened.locator(".scroll").first.evaluate("(box) => [box.scrollWidth, box.clientWidth]")
    assert table[0] <= table[1]
    assert broken_words(opened) == []
    question = {"samples": 32, "context_tokens": 8192, "kv_layout": "copies"}
    shows_what_compare_says(opened, model="llama-2-7b", **question)


def test_no_figure_leaves_its_place(path: Path, open_page: OpenPage) -> None:
    """On a phone no text of a figure is cut off by the edge of the screen."""
    opened = open_page(path, viewport=PHONE)
    settle(opened)
    outside = opened.evaluate("""() => [...document.querySelectorAll("figure svg text")]
      .filter((text) => { const box = text.getBoundingClientRect();
        return box.width > 0 && (box.left < 0 || box.right > window.innerWidth); })
      .map((text) => text.textContent)""")
    assert outside == []


def test_a_turned_phone_draws_anew(path: Path, open_page: OpenPage) -> None:
    """After a change of the window's width, figures are as wide as their place."""
    opened = open_page(path, viewport=DESKTOP)
    opened.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    settle(opened)
    for name in FIGURES:
        box = opened.locator(f"#figure-{name} svg[role=img]").get_attribute("viewBox")
        assert box is not None
        assert float(box.split()[2]) <= PHONE[0]


def test_there_is_nothing_to_share_with(path: Path, open_page: OpenPage) -> None:
    """Buttons copy or save for their user; no link leads out of the page."""
    opened = open_page(path)
    buttons = ["Pin to compare", "Copy link", "Copy command", "Download CSV"]
    assert opened.get_by_role("button").all_inner_texts() == [*buttons, "Back to the scenario"]
    assert opened.locator("a[href]").count() == 0
    assert "share" not in opened.locator("body").inner_text().lower().split()


def test_a_slider_answers_with_the_right_number(path: Path, open_page: OpenPage) -> None:
    """Moved by keys or by the mouse, a slider changes table, headline, figures and address."""
    opened = open_page(path)
    settle(opened)
    before = opened.locator("#figure-samples svg .now").get_attribute("d")
    slider = opened.get_by_label("Samples", exact=True)
    slider.focus()
    for _ in range(4):
        opened.keyboard.press("ArrowLeft")
    settle(opened)
    assert slider.get_attribute("aria-valuetext") == "16 samples"
    assert opened.get_by_label("Samples, exact").input_value() == "16"
    assert opened.locator("#figure-samples svg .now").get_attribute("d") != before
    assert "samples=16" in opened.evaluate("location.hash")
    shows_what_compare_says(
        opened, model="llama-2-7b", samples=16, context_tokens=8192, kv_layout="copies"
    )

    box = slider.bounding_box()
    assert box is not None
    opened.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2)
    settle(opened)
    samples = opened.evaluate("state.samples")
    assert samples > 100
    sizes = {"samples": samples, "context_tokens": 8192, "kv_layout": "copies"}
    shows_what_compare_says(opened, model="llama-2-7b", **sizes)


def test_menus_answer_with_the_right_number(path: Path, open_page: OpenPage) -> None:
    """Every menu changes the answer to that of its choice; a model brings its own KV heads."""
    opened = open_page(path)
    opened.get_by_label("Model").select_option("llama-3.1-8b")
    assert opened.get_by_label("KV heads").input_value() == "8"
    question: dict[str, Any] = {"model": "llama-3.1-8b", "samples": 32, "context_tokens": 8192}
    question["kv_layout"] = "copies"
    shows_what_compare_says(opened, **question)
    opened.get_by_label("GPU", exact=True).select_option("mi300x")
    opened.get_by_label("KV heads").select_option("32")
    opened.get_by_label("Kernel").select_option("einsum")
    opened.get_by_label("Execution").select_option("eager")
    opened.get_by_label("Standard keeps").select_option("shared")
    question |= {"gpu": "mi300x", "kv_heads": 32, "kernel": "einsum"}
    question |= {"execution": "eager", "kv_layout": "shared"}
    shows_what_compare_says(opened, **question)
    # Other formats have the kernel of engines alone.
    for label, name, value in (
        ("Weights", "weight_dtype", "fp8"),
        ("KV cache", "kv_dtype", "fp8"),
        ("Tensor parallel", "tensor_parallel", "2"),
    ):
        opened.get_by_label(label).select_option(value)
        question[name] = int(value) if value.isdigit() else value
    opened.get_by_label("Query tokens, exact").fill("3")
    question |= {"kernel": "flash", "execution": "graph", "query_tokens": 3}
    shows_what_compare_says(opened, **question)


def test_a_model_without_a_kernel_takes_one_it_has(path: Path, open_page: OpenPage) -> None:
    """DeepSeek's latent cache has no sdpa_math: the page falls back to flash and says so by it."""
    opened = open_page(path)
    opened.get_by_label("Kernel").select_option("sdpa_math")
    opened.get_by_label("Model").select_option("deepseek-v3")
    assert opened.get_by_label("Kernel").input_value() == "flash"
    assert opened.locator('#kernel option[value="sdpa_math"]').is_disabled()
    question = {"samples": 32, "context_tokens": 8192, "kv_layout": "copies"}
    shows_what_compare_says(opened, model="deepseek-v3", **question)


def test_a_kernel_of_one_prompt_holds_the_prompts_and_says_why(
    tmp_path: Path, open_page: OpenPage
) -> None:
    """As ``compare`` refuses two prompts with vLLM's cascade attention, the page shows none."""
    asked = {"kernel": ["flash", "vllm-cascade"]}
    offer = menu(narrowed(load_scenario("code-sampling-8k"), asked), gpus=["h100-sxm"])
    file = tmp_path / "page.html"
    file.write_text(page(offer), encoding="utf-8")
    opened = open_page(file)
    prompts, hint = opened.get_by_label("Prompts", exact=True), opened.locator("#prompts-hint")
    opened.get_by_label("Prompts, exact").fill("4")
    opened.get_by_label("Kernel").select_option("vllm-cascade")
    assert opened.get_by_label("Prompts, exact").input_value() == "1"
    assert prompts.is_disabled()
    assert "what all prompts share" in hint.inner_text()
    question = {"samples": 32, "context_tokens": 8192, "kv_layout": "copies"}
    shows_what_compare_says(opened, model="llama-2-7b", kernel="vllm-cascade", **question)
    opened.get_by_label("Kernel").select_option("flash")
    assert not prompts.is_disabled()
    assert "different contexts" in hint.inner_text()
    opened.evaluate("location.hash = 'kernel=vllm-cascade&prompts=4'")
    opened.locator("#footer .warning").filter(has_text="prompts=4").wait_for()


def test_sizes_can_be_typed(path: Path, open_page: OpenPage) -> None:
    """8K and 8k are read as the command line reads them; what is no size is refused in words."""
    opened = open_page(path)
    box = opened.get_by_label("Context, exact")
    box.fill("20k")
    question = {"samples": 32, "context_tokens": 20000, "kv_layout": "copies"}
    shows_what_compare_says(opened, model="llama-2-7b", **question)
    for text, complaint in (
        ("many", "write 8192"),
        ("1.5", "write 8192"),
        ("16,32", "write 8192"),
        ("2000000000", "at most"),
    ):
        box.fill(text)
        assert complaint in opened.locator("#context-problem").inner_text()
        assert box.get_attribute("aria-invalid") == "true"
        assert opened.evaluate("state.context_tokens") == 20000
    box.blur()
    assert box.input_value() == "20,000"
    samples = opened.get_by_label("Samples, exact")
    samples.fill("0")
    assert opened.locator("#samples-problem").inner_text() == "at least 1"


def test_the_address_holds_the_view(path: Path, open_page: OpenPage) -> None:
    """A page opened at an address shows what was chosen; what it does not have is named."""
    opened = open_page(path)
    opened.get_by_label("Model").select_option("llama-3.1-70b")
    opened.get_by_label("Own tokens, exact").fill("512")
    address = opened.evaluate("location.hash")
    again = open_page(path)
    again.evaluate("(hash) => { location.hash = hash; }", address)
    settle(again)
    assert again.get_by_label("Model").input_value() == "llama-3.1-70b"
    assert again.get_by_label("Own tokens, exact").input_value() == "512"
    again.evaluate("() => { location.hash = 'model=<b>gpt9</b>&samples=7&context=x'; }")
    settle(again)
    assert again.get_by_label("Samples, exact").input_value() == "7"
    warning = again.locator("footer .warning").inner_text()
    assert warning == "This page has no model=<b>gpt9</b>, context=x: left out."


def test_the_command_it_shows_is_the_answer_it_shows(path: Path, open_page: OpenPage) -> None:
    """The command in the footer, run as it stands, prints the page's step."""
    from command_line import bifurcate

    opened = open_page(path)
    opened.get_by_label("KV heads").select_option("4")
    opened.get_by_label("Prompts, exact").fill("3")
    words = opened.locator(".command").inner_text().split()
    answer = bifurcate(*words[1:], "--json").json
    shown = cell(opened, "Step", "bifurcated")
    assert shown == format_time(answer["bifurcated"]["step_ms"] / 1000)


def test_what_does_not_fit_is_said(path: Path, open_page: OpenPage) -> None:
    """Too large for a card: the headline, the table and the memory figure all say so."""
    opened = open_page(path)
    opened.get_by_label("Model").select_option("llama-3.1-70b")
    opened.get_by_label("GPU", exact=True).select_option("l4")
    settle(opened)
    assert opened.locator("#headline").inner_text().startswith("Neither fits")
    assert opened.locator("#ways .unfit").count() == 2
    assert opened.locator("#figure-memory h2").inner_text() == "Neither fits in memory"
    assert broken_words(opened) == []


@pytest.mark.parametrize(
    ("model", "gpu", "samples", "context"),
    [
        ("llama-3.1-8b", "l4", 8, 512),  # paged caches have all of the gain
        ("llama-2-7b", "l4", 8, 1024),  # whether there is more cannot be told
        ("llama-2-7b", "h100-sxm", 8, 8192),  # reading once is the larger part
        ("llama-3.1-8b", "h100-sxm", 1, 1024),  # nothing is shared
    ],
)
def test_the_headline_is_what_compare_advises(
    path: Path, open_page: OpenPage, model: str, gpu: str, samples: int, context: int
) -> None:
    """Where one stored context is enough, the page says so: to store it once, or to stay."""
    opened = open_page(path)
    opened.get_by_label("Model").select_option(model)
    opened.get_by_label("GPU", exact=True).select_option(gpu)
    opened.get_by_label("Samples, exact").fill(str(samples))
    opened.get_by_label("Context, exact").fill(str(context))
    for layout, lead in (("copies", "Store the context once"), ("shared", "Keep standard")):
        opened.get_by_label("Standard keeps").select_option(layout)
        settle(opened)
        sizes = {"samples": samples, "context_tokens": context, "kv_layout": layout}
        result = simulator.compare(model, gpu, **sizes)
        said = opened.locator("#headline").inner_text()
        gains = result.winner == "bifurcated" and result.verdict == "yes"
        once = gains and result.advice.startswith(lead)
        assert said.startswith(lead) == once
        assert said.startswith("Bifurcated wins") == (gains and not once)
        same = "Both read the same KV bytes." in opened.locator("#remarks").inner_text()
        assert same == (samples == 1)
        if once:
            more = result.advice.partition("; ")[2].partition(". Then")[0]
            assert said.endswith(f"; {more}")
        if once and result.stored is not result.standard:
            gain = result.standard.step_s / result.stored.step_s
            assert f": {gain:.2f}x as fast, " in said


def test_every_end_of_every_control_holds(path: Path, open_page: OpenPage) -> None:
    """At both ends of all sliders, under every menu, nothing breaks and nothing is not a number."""
    opened = open_page(path, viewport=PHONE)
    data = opened.evaluate("data")
    for high in (0, 1):
        sizes = {name: data["ranges"][name][high] for name in RANGES}
        for model in range(len(data["models"])):
            for kernel in range(len(data["choices"]["kernel"])):
                wanted = {**sizes, "model": model, "kernel": kernel, "gpu": model % 3}
                opened.evaluate("(wanted) => change({ ...state, ...wanted })", wanted)
                settle(opened)
                assert broken_words(opened) == [], wanted
                drawn = opened.locator("#charts").inner_html()
                assert "NaN" not in drawn, wanted
                assert "undefined" not in drawn, wanted


def test_a_click_in_the_map_moves_there(path: Path, open_page: OpenPage) -> None:
    """Figures are controls as well: a cell of the map is a choice of samples and context."""
    opened = open_page(path)
    settle(opened)
    opened.locator("#figure-speedup g[data-speedup]").first.click()
    settle(opened)
    assert opened.evaluate("[state.samples, state.context_tokens]") == [1, 128]
    opened.get_by_role("button", name="Back to the scenario").click()
    assert opened.evaluate("[state.samples, state.context_tokens]") == [32, 8192]


def test_every_control_has_a_name_and_is_reached_by_tab(path: Path, open_page: OpenPage) -> None:
    """Without a mouse all sliders, boxes, menus and the button can be reached and are named."""
    opened = open_page(path)
    reached = []
    for _ in range(32):
        opened.keyboard.press("Tab")
        reached.append(opened.evaluate("document.activeElement.id"))
    sizes = ("samples", "context", "decoded", "prompts", "query-tokens")
    menus = ("model", "gpu", "kv-heads", "kernel", "execution", "kv-layout")
    menus += ("dtype", "kv-dtype", "tp")
    boxes = {f"{name}-text" for name in (*sizes, "target", "price")}
    wanted = {*sizes, *boxes, *menus, "pin", "link", "command", "csv", "reset"}
    assert wanted <= set(reached)
    for name in wanted:
        named = opened.locator(f"#{name}").evaluate(
            "(control) => control.labels?.length > 0 || control.ariaLabel || control.textContent"
        )
        assert named, name


def test_each_control_is_explained(path: Path, open_page: OpenPage) -> None:
    """Below the name of each slider, menu and box stands what it means."""
    opened = open_page(path)
    controls = opened.locator(".control")
    assert controls.count() == controls.locator(".hint").count() == 16
    assert all(controls.locator(".hint").all_inner_texts())
    described = "[...document.querySelectorAll('[aria-describedby]')].every((control) =>"
    described += " document.getElementById(control.getAttribute('aria-describedby')))"
    assert opened.evaluate(described)


def test_a_pinned_state_stays_beside_the_next(path: Path, open_page: OpenPage) -> None:
    """What is pinned keeps its numbers, also under the address of the page."""
    opened = open_page(path)
    settle(opened)
    before = cell(opened, "Step", "bifurcated")
    opened.get_by_role("button", name="Pin to compare").click()
    opened.get_by_label("Samples, exact").fill("128")
    pinned = opened.locator("#pinned-ways tbody tr").first.locator('[data-way="bifurcated"]')
    assert pinned.inner_text() == before
    assert cell(opened, "Step", "bifurcated") != before
    assert "as fast as pinned" in opened.locator("#remarks").inner_text()
    again = open_page(path)
    again.evaluate("(hash) => { location.hash = hash; }", opened.evaluate("location.hash"))
    settle(again)
    assert again.locator("#pinned-ways td").first.inner_text()
    again.get_by_role("button", name="Unpin").click()
    assert again.locator("#pinned").is_hidden()


def test_a_target_and_a_price_are_those_of_plan(path: Path, open_page: OpenPage) -> None:
    """The most samples within a target, and the cost at a price, are what Python says."""
    opened = open_page(path)
    opened.get_by_label("Target", exact=True).fill("12.5")
    opened.get_by_label("Price", exact=True).fill("3")
    step = simulator.estimate("llama-2-7b", samples=32, context_tokens=8192, attention="bifurcated")
    most = Capacity(step, 0.0125)
    expected = f"{most.most_samples_surely} to {most.most_samples_in_time}"
    assert cell(opened, "Most samples in 12.5 ms", "bifurcated") == expected
    cost = float(cell(opened, "USD per million tokens", "bifurcated"))
    assert cost == pytest.approx(3e6 / 3600 / step.tokens_per_s, rel=0.005)
    assert cell(opened, "USD per million tokens", "standard") == "–"  # it does not fit
    opened.get_by_label("Price", exact=True).fill("free")
    assert "number above 0" in opened.locator("#price-problem").inner_text()


def test_the_csv_is_the_table(path: Path, open_page: OpenPage) -> None:
    """A row for each way, of what is shown and of what is pinned, with all settings."""
    opened = open_page(path)
    opened.get_by_role("button", name="Pin to compare").click()
    opened.get_by_label("Samples, exact").fill("16")
    with opened.expect_download() as saved:
        opened.get_by_role("button", name="Download CSV").click()
    rows = list(csv.DictReader(saved.value.path().read_text(encoding="utf-8").splitlines()))
    assert [row["samples"] for row in rows] == ["32", "32", "16", "16"]
    assert [row["attention"] for row in rows] == ["standard", "bifurcated"] * 2
    result = simulator.estimate("llama-2-7b", samples=16, context_tokens=8192, kv_layout="copies")
    assert float(rows[2]["step_ms"]) == pytest.approx(1e3 * result.step_s, rel=1e-9)
    assert rows[2]["weight_dtype"] == "auto"


def test_the_title_is_the_state(path: Path, open_page: OpenPage) -> None:
    """A tab among many says which model, GPU and question it shows."""
    opened = open_page(path)
    opened.get_by_label("GPU", exact=True).select_option("l4")
    opened.get_by_label("Samples, exact").fill("8")
    assert opened.title() == "llama-2-7b on L4: 8 samples of 8K shared tokens"
    assert opened.locator("h1").inner_text() == opened.title()


def test_on_a_phone_the_first_figure_is_within_one_screen(path: Path, open_page: OpenPage) -> None:
    """Answer and figure come before settings and details."""
    opened = open_page(path, viewport=PHONE)
    settle(opened)
    drawing = opened.locator("#figure-samples svg").first.bounding_box()
    assert drawing is not None
    assert drawing["y"] + drawing["height"] <= PHONE[1]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_all(path: Path, open_page: OpenPage, width: int, scheme: str) -> None:
    """Contrast, names, headings and widths hold at every width, in light and in dark."""
    opened = open_page(path, viewport=(width, 844), color_scheme=scheme)
    settle(opened)
    assert faults(opened) == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_a_thousand_random_points_are_those_of_python(
    offer: Menu, path: Path, open_page: OpenPage
) -> None:
    """Whatever is chosen, all numbers are those of ``estimate`` and ``compare``."""
    opened = open_page(path)
    data = json.loads(opened.locator("#data").text_content() or "")
    states = random_states(data, 1000, seed=23)
    answers = opened.evaluate(f"(states) => states.map({ANSWER})", states)
    errors = [
        worst_error(answer, truth(offer, data, state))
        for answer, state in zip(answers, states, strict=True)
    ]
    worst = max(range(len(errors)), key=errors.__getitem__)
    assert errors[worst] <= BOUND, states[worst]
