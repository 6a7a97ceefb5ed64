"""The report in a real browser: figures draw, nothing is asked for, and it can be read anywhere.

``open_page`` fails a test whose page asks for anything or logs an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command_line import bifurcate

from simulator.views.plots import registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    Report = Callable[..., Path]

    from conftest import OpenPage

pytestmark = pytest.mark.browser

DESK, PHONE = (1200, 800), (390, 844)
# Each figure draws itself when its script runs, and its form for the page's width after that.
DRAWN = """() => [...document.querySelectorAll(".js-plotly-plot")].every((plot) => {
  if (!plot._fullData || !plot.querySelector(".main-svg")) return false;
  const { wide, medium, narrow } = plot.layout.meta;
  const forms = plot.clientWidth < 640 ? [narrow] : [wide, medium];
  return forms.some((form) => plot.layout.title.font.size === form["title.font.size"]);
})"""
NASTY = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
MINE = f"""
schema_version = 1
id = "mine"
title = "{NASTY} title"
description = "{NASTY} description"
question = "{NASTY} question"
sources = ["{NASTY} source"]
verdict = "no gain"
verdict_reason = "{NASTY} reason"
models = ["gpt2"]
gpus = ["l4"]

[workload] # {NASTY}
samples = 4
"""


GPUS = ("-g", "h100-sxm", "-g", "l40s", "-g", "v100-sxm2-16gb")
CODE, LATENT = ("code-sampling-8k", *GPUS), ("mla-deepseek-v3", *GPUS)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Write each report once for all tests of this file: whole, or with its first figure alone."""
    folder = tmp_path_factory.mktemp("reports")
    written: dict[tuple[object, ...], Path] = {}
    first = dict(list(registry.FIGURES.items())[:1])

    def write(*arguments: str, whole: bool = False) -> Path:
        key = (*arguments, whole)
        if key not in written:
            path = folder / f"report-{len(written)}.html"
            with pytest.MonkeyPatch.context() as patch:
                if not whole:
                    patch.setattr(registry, "FIGURES", first)
                done = bifurcate("report", *arguments, "-o", str(path))
            assert done.code == 0, done.err
            written[key] = path
        return written[key]

    return write


def wait_until_drawn(page: Page) -> int:
    """Wait for every figure of a page, and return how many there are."""
    page.wait_for_function(DRAWN)
    return page.locator(".js-plotly-plot").count()


@pytest.mark.parametrize(
    ("arguments", "viewport"),
    [(CODE, DESK), (CODE, PHONE), (LATENT, PHONE)],
    ids=["desk", "phone", "latent cache"],
)
def test_every_figure_draws_its_traces(
    arguments: tuple[str, ...],
    viewport: tuple[int, int],
    report: Report,
    open_page: OpenPage,
) -> None:
    """Every figure has drawn what its data hold, and none has a button that sends it away."""
    page = open_page(report(*arguments, whole=True), viewport=viewport)
    assert wait_until_drawn(page) == page.locator("figure").count() > 5
    empty = """() => [...document.querySelectorAll(".js-plotly-plot")].filter((plot) =>
      !plot.querySelector(".trace, .heatmaplayer image, .heatmaplayer .hm, .bars .point")
      || plot._fullData.length === 0).map((plot) => plot.id)"""
    assert page.evaluate(empty) == []
    buttons = page.locator(".modebar-btn").evaluate_all(
        "(all) => all.map((button) => button.dataset.title || '')"
    )
    assert buttons
    assert [name for name in buttons if "share" in name.lower() or "cloud" in name.lower()] == []


@pytest.mark.parametrize("viewport", [DESK, PHONE, (320, 640)])
def test_nothing_is_wider_than_the_screen(
    viewport: tuple[int, int], report: Report, open_page: OpenPage
) -> None:
    """The page does not scroll sideways; a table that is too wide scrolls by itself."""
    page = open_page(report(*CODE), viewport=viewport)
    assert wait_until_drawn(page) == 2  # the first figure, of both models
    assert not page.get_by_text("Figures need JavaScript").is_visible()
    for folded in page.locator("details").all():
        folded.evaluate("(element) => { element.open = true }")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport[0]


@pytest.mark.parametrize("width", [1300, 1000, 800, 650, 390])
def test_no_title_is_cut_or_covered(width: int, report: Report, open_page: OpenPage) -> None:
    """At any width the title of a figure ends within it, and above the legend."""
    page = open_page(report(*CODE), viewport=(width, 800))
    wait_until_drawn(page)
    page.wait_for_function(
        """() => [...document.querySelectorAll(".js-plotly-plot")].every((plot) => {
          const [title, legend] = [".g-gtitle text", ".legend"].map(
            (part) => plot.querySelector(part).getBoundingClientRect());
          const right = plot.getBoundingClientRect().right;
          return title.right <= right && title.bottom <= legend.top + 2;
        })"""
    )


def test_a_figure_changes_its_form_with_the_page(report: Report, open_page: OpenPage) -> None:
    """Turning a phone, or narrowing a window, lays the figures out anew."""
    page = open_page(report(*CODE))
    wait_until_drawn(page)
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    wait_until_drawn(page)
    width = (
        "() => Math.max(...[...document.querySelectorAll('.main-svg')].map((s) => s.clientWidth))"
    )
    page.wait_for_function(f"({width})() <= {PHONE[0]}")


def test_pointing_at_a_line_says_its_number(report: Report, open_page: OpenPage) -> None:
    """A point of a figure under the pointer shows the time that the table has."""
    page = open_page(report(*CODE))
    wait_until_drawn(page)
    figure = page.locator("#figure-latency-samples")
    figure.scroll_into_view_if_needed()
    place = figure.evaluate(
        """(plot) => {
          const trace = plot._fullData.find(
            (item) => item.name === "bifurcated" && item.hoverinfo !== "skip");
          const at = [...trace.x].indexOf(32), box = plot.getBoundingClientRect();
          const axes = plot._fullLayout;
          return {
            x: box.x + axes.xaxis._offset + axes.xaxis.c2p(trace.x[at]),
            y: box.y + axes.yaxis._offset + axes.yaxis.c2p(trace.y[at]),
            step_ms: trace.y[at],
          };
        }"""
    )
    page.mouse.move(place["x"], place["y"])
    page.wait_for_function("() => document.querySelector('.hoverlayer .hovertext')")
    label = figure.locator(".hoverlayer").text_content() or ""
    row = page.locator("#decision ~ div tr", has_text="H100").first
    shown = (row.locator("td").nth(2).text_content() or "").split()[0]
    assert float(shown) == pytest.approx(place["step_ms"], rel=0.005)
    assert shown[:3] in label


def test_text_of_a_file_runs_nothing(tmp_path: Path, report: Report, open_page: OpenPage) -> None:
    """A scenario whose every text is a script is shown as text."""
    mine = tmp_path / "mine.toml"
    mine.write_text(MINE, encoding="utf-8")
    page = open_page(report(str(mine), "-g", "l4"))
    wait_until_drawn(page)
    assert page.title() == f"{NASTY} title"
    assert page.locator("h1").text_content() == f"{NASTY} title"
    assert page.locator("img").count() == 0


def test_without_scripts_the_page_still_answers(report: Report, open_page: OpenPage) -> None:
    """A mail reader that runs no script shows everything but the figures, and says so."""
    page = open_page(report(*CODE), java_script_enabled=False)
    assert page.get_by_text("Use bifurcated attention:").is_visible()
    assert page.get_by_text("Figures need JavaScript").is_visible()
    assert not page.locator("figure").first.is_visible()
    assert page.locator("table").first.is_visible()


def test_the_page_in_the_dark(report: Report, open_page: OpenPage) -> None:
    """Where the system is dark the page is, and its text stands out from it."""
    colours = (
        "() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor] }"
    )
    light = open_page(report(*CODE)).evaluate(colours)
    dark = open_page(report(*CODE), color_scheme="dark").evaluate(colours)
    assert light != dark

    def brightness(colour: str) -> float:
        return sum(map(float, colour[4:-1].split(","))) / 3

    assert brightness(light[1]) - brightness(light[0]) > 150
    assert brightness(dark[0]) - brightness(dark[1]) > 150


def test_in_print_figures_are_whole(report: Report, open_page: OpenPage) -> None:
    """On paper, narrower than the screen, every figure is scaled and not cut."""
    page = open_page(report(*CODE))
    wait_until_drawn(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    boxes = page.locator(".main-svg").evaluate_all(
        "(all) => all.map((svg) => [svg.viewBox.baseVal.width, +svg.getAttribute('width')])"
    )
    assert boxes
    assert all(inner == outer > 0 for inner, outer in boxes)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".main-svg[viewBox]").count() == 0


def test_the_keyboard_reaches_the_tables(report: Report, open_page: OpenPage) -> None:
    """A wide table can be focused and scrolled without a mouse, and has a name."""
    page = open_page(report(*CODE), viewport=PHONE)
    region = page.get_by_role("region", name="One decode step of llama-2-7b").first
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")
