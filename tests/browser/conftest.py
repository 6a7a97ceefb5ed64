"""A headless Chromium for the pages this project writes, and what every page must keep to.

``open_page(path)`` opens a page from the disk. When the test ends, it fails if the page asked for
anything beyond itself, or logged an error, or raised one. Chromium comes from the system's packages
(``.ci/run`` installs it); where there is none the tests are skipped and say so.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-extensions",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page that asks for an address is caught all the same; nothing leaves the machine.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# What a page may ask for besides its own file: bytes that it carries itself.
WITHIN_THE_PAGE = ("data:", "blob:", "about:")
DESKTOP, PHONE = (1200, 800), (390, 844)
PATIENCE_MS = 30_000


class OpenPage(Protocol):
    """What ``open_page`` takes."""

    def __call__(
        self, path: Path, *, viewport: tuple[int, int] = DESKTOP, **context: Any
    ) -> Page: ...


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a file of tests, its profile new and empty.

    Not for the whole session: while it runs, this thread has a running event loop, and nothing
    else in it may call ``asyncio.run`` (kaleido does).
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(EXECUTABLES)} is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the pages of one test did that a page must not do; ``open_page`` fails on any."""
    return []


@pytest.fixture
def open_page(browser: Browser, complaints: list[str]) -> Iterator[OpenPage]:
    """Open pages from the disk; fail if one asked for anything, logged or raised an error.

    ``viewport`` is width and height in pixels; other keywords go to the browser's context
    (``color_scheme="dark"``, ``java_script_enabled=False`` ...).
    """
    contexts = []

    def watch(page: Page, own: str) -> None:
        def asked(url: str) -> None:
            if url.split("#", maxsplit=1)[0] != own and not url.startswith(WITHIN_THE_PAGE):
                complaints.append(f"asked for {url}")

        page.on("request", lambda request: asked(request.url))
        page.on("websocket", lambda socket: asked(socket.url))
        page.on("pageerror", lambda error: complaints.append(f"raised {error}"))
        page.on(
            "console",
            lambda message: (
                complaints.append(f"logged {message.text}")
                if message.type in {"error", "warning"}
                else None
            ),
        )

    def open_it(path: Path, *, viewport: tuple[int, int] = DESKTOP, **context: Any) -> Page:
        width, height = viewport
        inside = browser.new_context(viewport={"width": width, "height": height}, **context)
        contexts.append(inside)
        inside.set_default_timeout(PATIENCE_MS)
        url = path.resolve().as_uri()
        # Pages that the page opens are watched as well.
        inside.on("page", lambda page: watch(page, url))
        page = inside.new_page()
        page.goto(url)
        return page

    yield open_it
    for inside in contexts:
        inside.close()
    assert not complaints, "the page " + "; ".join(complaints)
