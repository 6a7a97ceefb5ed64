"""The watch over pages: a page that misbehaves is caught, one that does not is let pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import OpenPage

pytestmark = pytest.mark.browser

PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><body>{}</body></html>'
MISDEEDS = {
    '<img src="https://example.org/pixel.png">': "asked for https://example.org/pixel.png",
    '<script src="plotly.min.js"></script>': "asked for file:",
    "<script>new WebSocket('wss://example.org/live')</script>": "asked for wss://example.org/live",
    "<script>console.error('not well')</script>": "logged not well",
    "<script>console.warn('take care')</script>": "logged take care",
    "<script>throw new Error('broken')</script>": "raised broken",
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_misdeeds_are_caught(
    misdeed: str, tmp_path: Path, open_page: OpenPage, complaints: list[str]
) -> None:
    """A request, a console message or an error makes the test that opened the page fail."""
    path = tmp_path / "page.html"
    path.write_text(PAGE.format(misdeed), encoding="utf-8")
    open_page(path).wait_for_timeout(200)
    found = "; ".join(complaints)
    complaints.clear()  # or this very test would fail
    assert MISDEEDS[misdeed] in found


def test_a_page_that_keeps_to_itself_passes(tmp_path: Path, open_page: OpenPage) -> None:
    """Links within the page, inline scripts and images in the page are no misdeeds."""
    path = tmp_path / "page.html"
    pixel = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"
    path.write_text(
        PAGE.format(
            f'<img src="{pixel}" alt=""><a href="#end">end</a><p id="end">'
            "<script>document.getElementById('end').textContent = 1 + 1</script>"
        ),
        encoding="utf-8",
    )
    page = open_page(path)
    page.get_by_role("link").click()
    assert page.locator("#end").text_content() == "2"
