"""The forms of an answer: its table, JSON, rows and figure, found by its class.

A command asks for the one it writes. In Python an answer has them as HTML, text and frame.
"""

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simulator.answers.answer import Answer
from simulator.views.columns import Stack, stack

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Width of a cell of Jupyter, and of printed text. [characters]
WIDTH = 120
_PRE = '<pre style="overflow-x:auto;white-space:pre;line-height:normal">{code}</pre>'

# By class of answer: the module that shows it, and how the names of its functions begin: its
# ``_view``, the ``_list`` of several, its JSON's ``_object`` and its CSV's ``_rows``.
VIEWS: Mapping[str, tuple[str, str]] = {
    "Comparison": ("simulator.views.estimate", "compare"),
    "Curve": ("simulator.views.load", "serve"),
    "Estimate": ("simulator.views.estimate", "estimate"),
    "Generation": ("simulator.views.generate", "generate"),
    "Plan": ("simulator.views.plan", "plan"),
    "Quality": ("simulator.views.quality", "quality"),
    "ScalingLaw": ("simulator.views.tradeoff", "scaling"),
    "Studies": ("simulator.views.studies", "studies"),
    "Sweep": ("simulator.views.text", "sweep"),
    "Tradeoff": ("simulator.views.tradeoff", "tradeoff"),
    "TreePlan": ("simulator.views.tree", "tree"),
}
# Likewise the functions that draw figures.
FIGURES: Mapping[str, tuple[str, str]] = {
    "Curve": ("simulator.views.plots.fleet", "load_figure"),
    "Quality": ("simulator.views.plots.quality", "quality_figure"),
    "ScalingLaw": ("simulator.views.plots.losses", "scaling_figure"),
    "Studies": ("simulator.views.plots.losses", "studies_figure"),
    "Tradeoff": ("simulator.views.plots.maps", "crossover_figure"),
}


def form_of(answer: Any, form: str) -> Callable[..., Any]:
    """Return the function that makes a form of answers like this one.

    Parameters
    ----------
    answer
        An answer, or requests by kind of attention.
    form
        ``view``, what a terminal shows; ``list``, the same of several; ``object``, of JSON; or
        ``rows``, of CSV.
    """
    several = isinstance(answer, Mapping)
    name = "Generation" if several else type(answer).__name__
    module, prefix = VIEWS[name]
    function: Callable[..., Any] = getattr(import_module(module), f"{prefix}_{form}")
    if name == "Generation" and not several:
        return lambda one: function({one.attention: one})
    return function


def figure_of(answer: Answer) -> "go.Figure":
    """Draw the figure of an answer."""
    module, name = FIGURES[type(answer).__name__]
    figure: go.Figure = getattr(import_module(module), name)(answer)
    return figure


def html_of(answer: Answer) -> str:
    """Return an answer as HTML: what the terminal shows, in its colours."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(_shown(answer), crop=False)
    return console.export_html(inline_styles=True, code_format=_PRE)


def text_of(answer: Answer) -> str:
    """Return an answer as text: what the terminal shows, without colours."""
    return _shown(answer).text(WIDTH).removesuffix("\n")


def _shown(answer: Answer) -> Stack:
    """Return what the terminal shows of an answer."""
    return stack(form_of(answer, "view")(answer))


def frame_of(answer: Answer) -> "pd.DataFrame":
    """Return an answer as a frame with the columns of its CSV, and every digit of its figures."""
    import pandas as pd

    return pd.DataFrame(form_of(answer, "rows")(answer))
