"""A figure's page in a browser: it draws, fits a phone, and offers no way to send it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from command_line import bifurcate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

DESKTOP, TABLET, PHONE = (1200, 800), (768, 1024), (390, 844)
FIGURES = ("latency-samples", "speedup-map", "kv-heads")
DRAWN = {"speedup-map": ".heatmaplayer .hm"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page for each of a few figures."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name in FIGURES:
        made[name] = folder / f"{name}.html"
        done = bifurcate("plot", name, "code-sampling-8k", "-g", "h100-sxm", "-o", str(made[name]))
        assert done.code == 0, done.err
    return made


def width_of_form(page: Page) -> str:
    """Return which form the figure on a page has taken."""
    return str(
        page.evaluate(
            "(() => { const figure = document.querySelector('.plotly-graph-div');"
            "return ['wide', 'medium', 'narrow'].find("
            "form => figure.layout.meta[form]['margin.l'] === figure.layout.margin.l); })()"
        )
    )


@pytest.mark.parametrize(
    ("name", "forms"),
    [
        ("latency-samples", ("wide", "medium", "narrow")),
        ("speedup-map", ("wide", "narrow")),
        ("kv-heads", ("medium",)),  # the others below, where it changes its width
    ],
)
def test_a_page_draws_and_takes_the_form_for_its_width(
    name: str, forms: tuple[str, ...], pages: dict[str, Path], open_page: Callable[..., Page]
) -> None:
    """Traces are drawn, on a wide page in the wide form, on a phone in the narrow one."""
    for form in forms:
        viewport = {"wide": DESKTOP, "medium": TABLET, "narrow": PHONE}[form]
        page = open_page(pages[name], viewport=viewport)
        page.wait_for_selector(DRAWN.get(name, ".scatterlayer .trace"), state="attached")
        page.wait_for_timeout(300)
        assert width_of_form(page) == form
        overflow = page.evaluate("document.documentElement.scrollWidth")
        assert overflow <= viewport[0]


def test_names_of_gpus_are_whole_on_a_phone(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    """The longest name of a GPU with a price ends within the page."""
    path = tmp_path / "cost.html"
    done = bifurcate("plot", "cost", "code-sampling-8k", "-o", str(path))
    assert done.code == 0, done.err
    page = open_page(path, viewport=PHONE)
    page.wait_for_selector(".scatterlayer .trace", state="attached")
    page.wait_for_timeout(300)
    assert width_of_form(page) == "narrow"
    lefts = page.eval_on_selector_all(
        ".ytick text", "names => names.map(name => name.getBoundingClientRect().left)"
    )
    assert len(lefts) > 10
    assert min(lefts) >= 0


def test_a_page_that_changes_its_width_changes_its_form(
    pages: dict[str, Path], open_page: Callable[..., Page]
) -> None:
    """Turning a phone lays the figure out anew, and back."""
    page = open_page(pages["kv-heads"], viewport=DESKTOP)
    page.wait_for_selector(".scatterlayer .trace", state="attached")
    for viewport, form in ((PHONE, "narrow"), (DESKTOP, "wide")):
        page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        page.wait_for_timeout(500)
        assert width_of_form(page) == form


def test_no_button_sends_the_figure_anywhere(
    pages: dict[str, Path], open_page: Callable[..., Page]
) -> None:
    """The tool bar has its usual buttons, and none for sharing."""
    page = open_page(pages["latency-samples"], viewport=DESKTOP)
    page.wait_for_selector(".modebar-btn", state="attached")
    titles = page.eval_on_selector_all(
        ".modebar-btn", "buttons => buttons.map(button => button.getAttribute('data-title'))"
    )
    assert any("zoom" in str(title).lower() for title in titles)
    words = ("share", "cloud", "studio", "send", "produced with")
    assert [title for title in titles if any(word in str(title).lower() for word in words)] == []


def test_texts_of_a_figure_do_not_overlap(
    pages: dict[str, Path], open_page: Callable[..., Page]
) -> None:
    """Title, legend, axis title and footer of a figure lie one below the other, in both forms."""
    page = open_page(pages["latency-samples"], viewport=DESKTOP)
    page.wait_for_selector(".scatterlayer .trace", state="attached")
    for viewport in (DESKTOP, TABLET, PHONE):
        page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        page.wait_for_timeout(500)
        boxes = page.evaluate(
            "['.g-gtitle text', '.legend', '.xy .gridlayer', '.g-xtitle text', '.annotation text']"
            ".map(what => document.querySelector(what).getBoundingClientRect())"
            ".map(box => [box.top, box.bottom, box.left, box.right])"
        )
        for above, below in itertools.pairwise(boxes):
            assert above[1] <= below[0] + 2, (viewport, boxes)
        assert all(box[2] >= -1 and box[3] <= viewport[0] + 1 for box in boxes), (viewport, boxes)


def test_numbers_in_cells_do_not_touch(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    """In the maps of equal quality every number and name has its own place, at every width."""
    path = tmp_path / "map.html"
    done = bifurcate("plot", "equal-quality", "code-sampling-8k", "-g", "h100-sxm", "-o", str(path))
    assert done.code == 0, done.err
    page = open_page(path, viewport=DESKTOP)
    page.wait_for_selector(".heatmap-label", state="attached")
    for viewport in (DESKTOP, TABLET, PHONE):
        page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        page.wait_for_timeout(500)
        boxes = page.evaluate(
            "[...document.querySelectorAll('.heatmap-label, .annotation text')]"
            ".map(one => one.getBoundingClientRect()).filter(box => box.width)"
            ".map(box => [box.left, box.right, box.top, box.bottom])"
        )
        assert len(boxes) > 200
        touching = [
            (one, other)
            for one, other in itertools.combinations(boxes, 2)
            if min(one[1], other[1]) - max(one[0], other[0]) > 1
            and min(one[3], other[3]) - max(one[2], other[2]) > 1
        ]
        assert touching == [], viewport
        # Lines of text, half a line between them.
        tops = sorted({round(box[2]) for box in boxes})
        assert min(below - above for above, below in itertools.pairwise(tops)) > 16, viewport
