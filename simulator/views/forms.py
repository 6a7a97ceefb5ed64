"""The forms of an answer: its table, JSON, rows and figure, found by its class.

A command asks for the one it writes. In Python an answer has them as HTML, text and frame.
"""

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from simulator.answers.answer import Answer

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    from rich.console import Console

# Width of a cell of Jupyter, and of printed text. [characters]
WIDTH = 120
_PRE = '<pre style="overflow-x:auto;white-space:pre;line-height:normal">{code}</pre>'

# By class of answer: the module that shows it, and how the names of its functions begin.
VIEWS: Mapping[str, str] = {
    "Comparison": "estimate.compare",
    "Curve": "load.serve",
    "Estimate": "estimate.estimate",
    "Generation": "generate.generate",
    "Plan": "plan.plan",
    "Quality": "quality.quality",
    "ScalingLaw": "tradeoff.scaling",
    "Studies": "studies.studies",
    "Tradeoff": "tradeoff.tradeoff",
    "TreePlan": "tree.tree",
}
# Likewise the functions that draw figures.
FIGURES: Mapping[str, str] = {
    "Curve": "fleet.load_figure",
    "Quality": "quality.quality_figure",
    "ScalingLaw": "scaling.scaling_figure",
    "Studies": "loss_kv.studies_figure",
    "Tradeoff": "maps.crossover_figure",
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
    name = VIEWS["Generation" if several else type(answer).__name__]
    function = _found(f"{name}_{form}")
    if name == VIEWS["Generation"] and not several:
        return lambda one: function({one.attention: one})
    return function


def figure_of(answer: Answer) -> "go.Figure":
    """Draw the figure of an answer."""
    figure: go.Figure = _found(f"plots.{FIGURES[type(answer).__name__]}")(answer)
    return figure


def _found(name: str) -> Callable[..., Any]:
    """Return a function of the views by its name; only its module is loaded."""
    module, _, function = name.rpartition(".")
    found: Callable[..., Any] = getattr(import_module(f"simulator.views.{module}"), function)
    return found


def html_of(answer: Answer) -> str:
    """Return an answer as HTML: what the terminal shows, in its colours."""
    return _shown(answer).export_html(inline_styles=True, code_format=_PRE)


def text_of(answer: Answer) -> str:
    """Return an answer as text: what the terminal shows, without colours."""
    return "\n".join(line.rstrip() for line in _shown(answer).export_text().splitlines())


def _shown(answer: Answer) -> "Console":
    """Return a console that has recorded an answer."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(form_of(answer, "view")(answer))
    return console


def frame_of(answer: Answer) -> "pd.DataFrame":
    """Return an answer as a frame with the columns of its CSV, and every digit of its figures."""
    import pandas as pd

    return pd.DataFrame(form_of(answer, "rows")(answer))
