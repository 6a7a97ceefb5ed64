"""Write docs/gallery.md and docs/figures/: python tools/gallery.py (needs kaleido and a browser).

The command under each figure draws it. A picture is redrawn only if the hash of its content has
changed. With ``--check``, the script only says what is out of date.
"""

import contextlib
import hashlib
import io
import json
import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from simulator.cli import main as bifurcate
from simulator.views.plots.export import image
from simulator.views.plots.registry import SHOWS
from tools import DOCS, page, renew, tables

PICTURES = DOCS / "figures"
MARK = re.compile(r"<!-- ([0-9a-f]{12}) -->")

PART = """## {shows}

{remark}

![{finding}](figures/{file})

    bifurcate plot {command} -o {file}
"""


@dataclass(frozen=True)
class Picture:
    """One figure of one scenario, with a remark on what to look at."""

    figure: str
    scenario: str
    remark: str
    options: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.figure}-{self.scenario}.svg"

    @property
    def words(self) -> tuple[str, ...]:
        """Arguments of its command, without the file."""
        return (self.figure, self.scenario, *self.options)


GALLERY = tuple(
    Picture(**{**entry, "options": tuple(entry.get("options", ()))})
    for entry in tables("gallery.toml")["picture"]
)


@cache
def drawn(picture: Picture) -> Any:
    """Draw a figure with its command."""
    import plotly.graph_objects as go

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.json"
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            bifurcate(["plot", *picture.words, "-o", str(path)])
        return go.Figure(json.loads(path.read_text(encoding="utf-8")))


def fingerprint(picture: Picture) -> str:
    """Return a hash of everything a figure shows, with numbers to four digits."""
    text = json.dumps(rounded(json.loads(drawn(picture).to_json())), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def rounded(value: Any) -> Any:
    """Round every number in data to four digits: further ones differ between machines."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return f"{value:.4g}" if isinstance(value, float) else value


def text() -> str:
    """Return the page."""
    parts = [
        PART.format(
            shows=SHOWS[picture.figure][0].upper() + SHOWS[picture.figure][1:],
            remark=picture.remark,
            finding=drawn(picture).layout.meta["finding"],
            file=picture.file,
            command=shlex.join(picture.words),
        )
        for picture in GALLERY
    ]
    return page("gallery.md", figures="\n".join(parts).rstrip())


def svg(picture: Picture) -> str:
    """Return a figure as reproducible SVG, without Plotly's random ids."""
    text = image(drawn(picture), "svg").decode()
    found = re.search(r'id="(?:top)?defs-([0-9a-f]+)"', text)
    if found:
        text = text.replace(found.group(1), picture.figure)
    text = re.sub(r' (?:class|data-[a-z]+)="[^"]*"', "", text)  # plotly.js's own notes
    return f"{text}\n<!-- {fingerprint(picture)} -->\n"


def stale() -> dict[Path, Callable[[], str]]:
    """Return which files are out of date, and what makes each; only that needs a browser."""
    found: dict[Path, Callable[[], str]] = {}
    for picture in GALLERY:
        path = PICTURES / picture.file
        mark = MARK.search(path.read_text(encoding="utf-8")) if path.exists() else None
        if mark is None or mark.group(1) != fingerprint(picture):
            found[path] = partial(svg, picture)
    target = DOCS / "gallery.md"
    if not target.exists() or target.read_text(encoding="utf-8") != text():
        found[target] = text
    return found


if __name__ == "__main__":
    renew(stale(), "gallery.py")
