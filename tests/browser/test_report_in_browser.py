"""The report in a real browser: figures draw, nothing is asked for, and it can be read anywhere.

``open_page`` fails a test whose page asks for anything or logs an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from accessible import faults
from command_line import bifurcate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    Report = Callable[..., Path]

    from conftest import OpenPage

pytestmark = pytest.mark.browser

DESK, PHONE = (1200, 800), (390, 844)
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
    """Write each report once for all tests of this file."""
    folder = tmp_path_factory.mktemp("reports")
    written: dict[tuple[str, ...], Path] = {}

    def write(*arguments: str) -> Path:
        if arguments not in written:
            path = folder / f"report-{len(written)}.html"
            done = bifurcate("report", *arguments, "-o", str(path))
            assert done.code == 0, done.err
            written[arguments] = path
        return written[arguments]

    return write


def unfold(page: Page) -> None:
    """Open every part of a page."""
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")


@pytest.mark.parametrize("width", [1400, 820, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_all(
    report: Report, open_page: OpenPage, width: int, scheme: str
) -> None:
    """Contrast, names and headings hold, and nothing is wider than the screen, folded or not."""
    page = open_page(report(*CODE), viewport=(width, 844), color_scheme=scheme)
    assert faults(page) == []
    unfold(page)
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("arguments", [CODE, LATENT], ids=["cache", "latent cache"])
def test_every_figure_is_drawn_in_the_form_of_its_page(
    arguments: tuple[str, ...], report: Report, open_page: OpenPage
) -> None:
    """A page and a phone show a drawing each, within it, and no text covers another."""
    page = open_page(report(*arguments))
    unfold(page)
    for viewport in (DESK, PHONE):
        page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        drawings = page.locator("figure > svg:visible")
        assert drawings.count() == page.locator("figure").count() > 5
        overlaps = page.evaluate(
            """() => [...document.querySelectorAll("figure > svg")].flatMap((svg) => {
              const texts = [...svg.querySelectorAll("text")].map((text) =>
                [text.textContent, text.getBoundingClientRect()]).filter(([, box]) => box.width);
              const whole = svg.getBoundingClientRect();
              const out = texts.filter(([, box]) =>
                box.left < whole.left - 1 || box.right > whole.right + 1);
              const over = texts.flatMap(([name, one], at) => texts.slice(at + 1)
                .filter(([, other]) => Math.min(one.right, other.right)
                  - Math.max(one.left, other.left) > 1
                  && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 4)
                .map(([other]) => [name, other]));
              return [...out.map(([name]) => name), ...over];
            })"""
        )
        assert overlaps == [], viewport


def test_what_decides_is_within_one_screen(report: Report, open_page: OpenPage) -> None:
    """At a desk the verdict, its lines, the cards, the table and the map are seen at once."""
    page = open_page(report(*CODE), viewport=(1400, 900))
    boxes = [page.locator(what).first.bounding_box() for what in (".beside", ".tiles", ".verdict")]
    assert all(box is not None and box["y"] + box["height"] <= 900 for box in boxes)


def test_the_cheapest_is_the_same_everywhere(report: Report, open_page: OpenPage) -> None:
    """Card and tables name one GPU, the cheapest per hour; the figure that of the least per token.

    What does not fit has no cost.
    """
    page = open_page(report(*CODE))
    unfold(page)
    card = page.locator(".tiles div", has_text="Cheapest").inner_text().split("\n")
    name, cost = card[2].split(", ")[0], card[2].split("; ")[1].split()[0]
    marked = page.locator("tr", has=page.locator(".badge", has_text="cheapest")).all_inner_texts()
    assert len(marked) == 3  # the first screen's, and that of each model
    for row in marked[:2]:
        assert row.startswith(name)
        assert cost in row
    figure = page.locator("#figure-cost").inner_text()
    best = re.search(r"(.+) costs least per token: ([\d.]+) USD per million\n", figure)
    assert best is not None
    row = page.locator("#decision tr", has_text=best[1]).first.inner_text()
    assert row.endswith(best[2])
    drawn = [float(usd) for usd in re.findall(r"([\d.]+) USD$", figure, re.MULTILINE)]
    assert float(best[2]) == min(drawn) <= float(cost)
    unfit = page.locator("#decision tr", has_text="GiB short").first.inner_text()
    assert unfit.endswith("- / -")


def test_a_link_opens_the_part_it_leads_to(report: Report, open_page: OpenPage) -> None:
    """Parts are folded until they are asked for."""
    page = open_page(report(*CODE))
    part = page.locator("#accuracy table").first
    assert not part.is_visible()
    page.locator("footer").get_by_role("link", name="Accuracy").click()
    part.wait_for(state="visible")


def test_text_of_a_file_runs_nothing(tmp_path: Path, report: Report, open_page: OpenPage) -> None:
    """A scenario whose every text is a script is shown as text."""
    mine = tmp_path / "mine.toml"
    mine.write_text(MINE, encoding="utf-8")
    page = open_page(report(str(mine), "-g", "l4"))
    assert page.title() == f"{NASTY} title"
    assert page.locator("h1").text_content() == f"{NASTY} title"
    assert page.locator("img").count() == 0


def test_without_scripts_the_page_still_answers(report: Report, open_page: OpenPage) -> None:
    """A mail reader that runs no script shows everything, figures as well."""
    page = open_page(report(*CODE), java_script_enabled=False)
    assert page.get_by_text("Use bifurcated attention").first.is_visible()
    assert page.locator("figure > svg").first.is_visible()
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


def test_paper_has_every_part(report: Report, open_page: OpenPage) -> None:
    """On paper nothing is folded but the longest lists."""
    page = open_page(report(*CODE))
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("details.part:not([open])").count() == 0


def test_the_keyboard_reaches_the_tables(report: Report, open_page: OpenPage) -> None:
    """A wide table can be focused and scrolled without a mouse, and has a name."""
    page = open_page(report(*CODE), viewport=PHONE)
    unfold(page)
    region = page.get_by_role("region", name="One decode step of llama-2-7b").first
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")
