"""The figures by name: what each shows, the frame it takes, and the function that draws it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.answers import curves
from simulator.answers.study import Study
from simulator.errors import SimulatorError, unknown
from simulator.views.plots import latency
from simulator.views.plots.caption import caption
from simulator.views.plots.style import Caption

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One figure.

    Attributes
    ----------
    shows
        What it shows, in one line.
    frame
        Makes its tidy frame from a study.
    draw
        Draws a frame; pure.
    varied
        What of the question varies in it, so that the line under the title leaves it out.
    """

    shows: str
    frame: Callable[[Study], "pd.DataFrame"]
    draw: Callable[["pd.DataFrame", Caption], "go.Figure"]
    varied: tuple[str, ...] = ()


FIGURES: Mapping[str, Kind] = {
    "latency-samples": Kind(
        shows="step latency against samples, with the roof that binds and where memory ends",
        frame=curves.by_samples,
        draw=latency.latency_samples,
        varied=("samples",),
    ),
    "latency-context": Kind(
        shows="step latency against the shared context, likewise",
        frame=curves.by_context,
        draw=latency.latency_context,
        varied=("context_tokens",),
    ),
    "latency-kernels": Kind(
        shows="step latency against samples for every kernel and execution",
        frame=curves.by_kernel,
        draw=latency.latency_kernels,
        varied=("samples", "kernel", "execution"),
    ),
}


def kind(name: str) -> Kind:
    """Return a figure by name.

    Raises
    ------
    SimulatorError
        If there is none of that name; the message says the nearest.
    """
    if name not in FIGURES:
        raise SimulatorError(
            unknown("figure", name, FIGURES, way_out="see 'bifurcate plot --list'")
        )
    return FIGURES[name]


def figure(name: str, study: Study) -> "go.Figure":
    """Draw a figure of a study.

    Raises
    ------
    SimulatorError
        If there is no such figure, or the question cannot be run.
    """
    wanted = kind(name)
    words = caption(study, wanted.varied)
    return wanted.draw(wanted.frame(study), words)
