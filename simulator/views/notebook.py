"""Answers in Python: as HTML, text and frames, made of the tables and columns of their views."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from simulator.answers.answer import Answer
from simulator.answers.compare import Comparison
from simulator.answers.estimate import Estimate
from simulator.answers.generate import Generation
from simulator.answers.load import Curve
from simulator.answers.plan import Plan
from simulator.answers.quality import Quality
from simulator.answers.scaling import ScalingLaw
from simulator.answers.studies import Studies
from simulator.answers.tradeoff import Tradeoff
from simulator.answers.tree import TreePlan
from simulator.views import estimate, generate, load, plan, quality, studies, tradeoff, tree
from simulator.views.columns import Row, View, stack
from simulator.views.lines import Stack

if TYPE_CHECKING:
    import pandas as pd

# Width of a cell of Jupyter, and of printed text. [characters]
WIDTH = 120
_PRE = '<pre style="overflow-x:auto;white-space:pre;line-height:normal">{code}</pre>'


# By class of answer: the function that shows it, and the one that makes its rows of CSV.
VIEWS: dict[type[Answer], tuple[Callable[[Any], View], Callable[[Any], Sequence[Row]]]] = {
    Comparison: (estimate.compare_view, estimate.compare_rows),
    Curve: (load.serve_view, load.serve_rows),
    Estimate: (estimate.estimate_view, estimate.estimate_rows),
    Generation: (
        lambda result: generate.generate_view({result.attention: result}),
        lambda result: generate.generate_rows({result.attention: result}),
    ),
    Plan: (plan.plan_view, plan.plan_rows),
    Quality: (quality.quality_view, quality.quality_rows),
    ScalingLaw: (tradeoff.scaling_view, tradeoff.run_rows),
    Studies: (studies.studies_view, studies.factor_rows),
    Tradeoff: (tradeoff.tradeoff_view, tradeoff.variant_rows),
    TreePlan: (tree.tree_view, tree.tree_rows),
}


def html_of(answer: Answer) -> str:
    """Return an answer as HTML: what the terminal shows, in its colours."""
    from rich.console import Console

    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(_view(answer), crop=False)
    return console.export_html(inline_styles=True, code_format=_PRE)


def text_of(answer: Answer) -> str:
    """Return an answer as text: what the terminal shows, without colours."""
    return _view(answer).text(WIDTH).removesuffix("\n")


def _view(answer: Answer) -> Stack:
    """Return what the terminal shows."""
    show, _ = VIEWS[type(answer)]
    return stack(show(answer))


def frame_of(answer: Answer) -> "pd.DataFrame":
    """Return an answer as a frame with the columns of its CSV, and every digit of its figures."""
    import pandas as pd

    _, rows = VIEWS[type(answer)]
    return pd.DataFrame(rows(answer))
