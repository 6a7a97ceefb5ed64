"""The gallery shows every figure, as today's constants give it, in files a code host can show."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from simulator.views.plots.registry import FIGURES
from tools import gallery

DOCS = Path(__file__).parents[2] / "docs"
MOST_BYTES, MOST_BYTES_OF_ALL = 150_000, 2_000_000


def test_every_figure_is_shown() -> None:
    """No figure is missing, and some scenario of the gallery has no gain."""
    assert {picture.figure for picture in gallery.GALLERY} == set(FIGURES)
    assert "eager-gqa" in {picture.scenario for picture in gallery.GALLERY}


def test_the_gallery_is_current() -> None:
    """Page and pictures say what the commands find today."""
    stale = [path.name for path in gallery.stale()]
    assert stale == [], "run python tools/gallery.py (it needs kaleido and a browser)"


def test_pictures_are_small_and_no_others_lie_about() -> None:
    """Each picture is small, all of them together too, and each is shown."""
    files = {path.name: path.stat().st_size for path in (DOCS / "figures").iterdir()}
    assert set(files) == {picture.file for picture in gallery.GALLERY}
    assert max(files.values()) < MOST_BYTES
    assert sum(files.values()) < MOST_BYTES_OF_ALL


def test_pictures_are_svg_without_anything_from_elsewhere() -> None:
    """A picture is well-formed SVG, with no script, and refers to nothing outside itself."""
    for picture in gallery.GALLERY:
        text = (DOCS / "figures" / picture.file).read_text(encoding="utf-8")
        assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 - our own
        assert "<script" not in text
        links = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert [link for link in links if not link.startswith(("#", "data:"))] == []


def test_the_readme_shows_one_of_them() -> None:
    """The README shows a picture of the gallery, with the words of its command."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"\(docs/figures/([\w.-]+)\)", readme)
    assert len(shown) == 1
    for picture in gallery.GALLERY:
        if picture.file in shown:
            assert f"bifurcate plot {' '.join(picture.words)}" in readme
