"""Figures as files: an HTML page that needs no network, an image, or Plotly's JSON."""

import html
import json
from typing import Any

from simulator.errors import OutputError
from simulator.views.plots.layout import FORMS_FROM, WIDE, Figure, form_for, take_form
from simulator.views.text import POLICY

IMAGE_FORMATS = ("png", "svg", "pdf")
# What Plotly's tool bar offers: no button that would send a capacity plan to a server.
CONFIG: dict[str, Any] = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

# Lays a figure out for the width it has, now and whenever the page's width changes. Plotly puts the
# id of the figure's element in place of {plot_id}.
FORM_SCRIPT = """
const figure = document.getElementById("{plot_id}");
let form = "wide", width = figure.clientWidth;
// A legend that takes more rows than the form foresees grows into the title: it gets the room.
const settle = () => {
  const title = figure.querySelector(".g-gtitle text"), legend = figure.querySelector(".legend");
  if (!title || !legend) return;
  const over = title.getBoundingClientRect().bottom - legend.getBoundingClientRect().top;
  if (over > 1) Plotly.relayout(figure, {"margin.t": figure.layout.margin.t + over + 3});
};
const fit = () => {
  const wanted = {forms}.find(([, least]) => figure.clientWidth >= least)[0];
  const roomy = figure.layout.margin.t !== figure.layout.meta[form]["margin.t"];
  if (wanted !== form || (roomy && figure.clientWidth !== width)) {
    form = wanted;
    Plotly.relayout(figure, figure.layout.meta[form]);
  }
  width = figure.clientWidth;
};
figure.on("plotly_afterplot", settle);
fit();
settle();
new ResizeObserver(fit).observe(figure);
""".replace("{forms}", json.dumps(list(FORMS_FROM.items())))


def page(figure: Figure) -> str:
    """Return a figure as one responsive HTML page, plotly.js included, that calls no server."""
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        config=CONFIG,
        post_script=FORM_SCRIPT,
        default_height="100%",
    )
    title = html.escape(figure.layout.meta["finding"])
    # Panels one below the other may need more height than a screen has: the page scrolls.
    stacked_px = figure.layout.meta.get("stacked_px")
    tall = (
        f"@media screen and (max-width:{FORMS_FROM['wide'] - 1}px)"
        f"{{body>div{{min-height:{stacked_px}px}}}}"
        if stacked_px
        else ""
    )
    # One of few rows needs less.
    most_px = figure.layout.meta.get("most_px")
    low = f"body>div{{min-height:0;max-height:{most_px}px}}" if most_px else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        "<style>html,body{height:100%;margin:0}body>div{height:100%;min-height:480px}"
        f"{tall}{low}</style></head>"
        f'<body role="img" aria-label="{title}">\n{drawn}\n</body></html>\n'
    )


def image(figure: Figure, form: str, *, width: int = WIDE[0], height: int = WIDE[1]) -> bytes:
    """Return a figure as a PNG, SVG or PDF.

    Parameters
    ----------
    form
        ``png``, ``svg`` or ``pdf``.
    height
        Of a figure of few rows, no more than it needs unless another is asked for. [px]

    Raises
    ------
    OutputError
        If kaleido or a browser is not installed; it says what to install.
    """
    take_form(figure, form_for(width))
    if height == WIDE[1]:
        height = min(height, figure.layout.meta.get("most_px", height))
    try:
        return bytes(figure.to_image(format=form, width=width, height=height))
    except Exception as problem:  # noqa: BLE001 - kaleido has no error class of its own for these
        raise OutputError(_missing(form, problem)) from None


def _missing(form: str, problem: Exception) -> str:
    """Say what is missing to make an image."""
    text = str(problem).lower()
    why = f"{' '.join(str(problem).split())[:200]};"
    if isinstance(problem, ImportError) or "pip install" in text:
        why = "pip install 'bifurcated-attention-simulator[images]' and a Chrome or Chromium,"
    elif "chrome" in text or "browser" in text or not text:
        why = "no browser found; install Chrome or Chromium (apt install chromium, or "
        why += "plotly_get_chrome),"
    return f"cannot make a {form.upper()}: {why} or write .html, which needs neither"


def plotly_json(figure: Figure) -> str:
    """Return a figure as Plotly's JSON, as ``plotly.io.read_json`` reads it."""
    data: Any = json.loads(figure.to_json())
    return json.dumps(data, indent=1) + "\n"
