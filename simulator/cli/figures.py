"""Where figures go: a page, an image or Plotly's JSON, by the file's suffix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import OUTPUT_PANEL
from simulator.cli.output import write_text
from simulator.cli.words import option
from simulator.errors import OutputError
from simulator.resources import atomic_path

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAGES, JSON = (".html", ".htm"), ".json"
USUAL_WIDTH, USUAL_HEIGHT = 1200, 700
MOST_PIXELS = 8192

FigurePath = Annotated[
    Path | None,
    option(
        "--figure",
        panel=OUTPUT_PANEL,
        text="Draw it too: .html, .png, .svg, .pdf, or .json as Plotly reads it.",
        metavar="FILE",
    ),
]


def check_figure(path: Path, width: int = USUAL_WIDTH, height: int = USUAL_HEIGHT) -> None:
    """Refuse a suffix or a size before anything is computed.

    Raises
    ------
    OutputError
        If the suffix is not one of ours.
    BadParameter
        If the size is none of an image.
    """
    from simulator.views.plots.export import IMAGE_FORMATS

    known = (*PAGES[:1], *(f".{form}" for form in IMAGE_FORMATS), JSON)
    if path.suffix.lower() not in (*known, PAGES[1]):
        raise OutputError(f"cannot write {path}: a figure goes to {', '.join(known)}")
    for name, pixels in (("width", width), ("height", height)):
        if not 100 <= pixels <= MOST_PIXELS:  # noqa: PLR2004
            raise typer.BadParameter(f"--{name} {pixels} is not between 100 and {MOST_PIXELS}")


def write_figure(
    drawn: "go.Figure", path: Path, width: int = USUAL_WIDTH, height: int = USUAL_HEIGHT
) -> None:
    """Write a figure in the form of the file's suffix; the file appears only when it is whole."""
    from simulator.views.plots import export

    suffix = path.suffix.lower()
    if suffix in PAGES:
        write_text(export.page(drawn), path)
    elif suffix == JSON:
        write_text(export.plotly_json(drawn), path)
    else:
        with atomic_path(path) as temporary:
            picture = export.image(drawn, suffix.removeprefix("."), width=width, height=height)
            temporary.write_bytes(picture)
