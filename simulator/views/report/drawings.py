"""The figures of a report: which ones, and for which case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from simulator.answers.decision import Decision
from simulator.answers.study import Study
from simulator.errors import SimulatorError

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure of a report.

    Attributes
    ----------
    name
        Short, of letters, digits and dashes: it becomes the element's id.
    about
        What kind of figure it is, for those who cannot see it.
    """

    name: str
    about: str
    figure: "go.Figure"


def drawings(study: Study, decisions: Sequence[Decision]) -> list[Drawing]:
    """Return every figure of the first case, and one figure of each other case.

    Parameters
    ----------
    study
        The scenario's; its GPUs are those that the decision is between.
    """
    from simulator.views.plots.registry import FIGURES, figure

    drawn: list[Drawing] = []
    reported = [name for name, kind in FIGURES.items() if kind.reported]
    for number, decision in enumerate(decisions):
        of_case = _study(study, decision)
        for name in reported[: 1 if number else None]:
            try:
                picture = figure(name, of_case)
            except SimulatorError:
                continue  # a figure that this case has no form of, as other kernels for MLA
            if not picture.data:
                continue  # one of what fits, where nothing does
            drawn.append(
                Drawing(
                    name=f"{name}-{number + 1}" if number else name,
                    about=f"{decision.case.model.name}: {FIGURES[name].shows}.",
                    figure=picture,
                )
            )
    return drawn


def _study(study: Study, decision: Decision) -> Study:
    """Return the study of one case: its model first, its workload, the decision's GPUs."""
    own = decision.case.model
    others = tuple(model for model in study.models if model.name != own.name)
    return replace(
        study,
        models=(own, *others),
        workload=decision.case.workload,
        gpus=tuple(choice.gpu for choice in decision.choices),
    )
