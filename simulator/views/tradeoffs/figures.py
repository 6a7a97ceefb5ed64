"""Figures of scaling laws, models of equal quality and pass@k: their frames and captions."""

from typing import TYPE_CHECKING

from simulator._version import __version__
from simulator.answers.estimate import Estimate
from simulator.answers.quality import Quality
from simulator.answers.scaling import ScalingLaw
from simulator.answers.study import Study
from simulator.answers.tradeoff import Tradeoff, tradeoff
from simulator.views.plots.caption import caption
from simulator.views.plots.equal_quality import equal_quality
from simulator.views.plots.quality import quality_latency
from simulator.views.plots.scaling import scaling_law
from simulator.views.plots.style import Caption
from simulator.views.results import milliseconds
from simulator.views.text import plural
from simulator.views.tradeoffs.quality_results import quality_rows
from simulator.views.tradeoffs.results import family_row, map_rows, run_rows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Points of a law's curve.
POINTS = 60


def scaling_figure(result: ScalingLaw) -> "go.Figure":
    """Draw a fitted law with its runs and residuals."""
    import pandas as pd

    law = result.law
    subject = (
        f"{plural(len(result.runs), 'training run')} of {result.source}; "
        f"irreducible loss {law.irreducible_loss:.4g} ± {law.stderr[0]:.2g}, "
        f"exponent {law.exponent:.3g} ± {law.stderr[2]:.2g}"
    )
    notes = (
        "L = E + A (N / F)^-α: one E, A and α for all families. In brackets the 95 % interval.",
        *result.notes,
        f"bifurcate {__version__}.",
    )
    return scaling_law(
        pd.DataFrame(run_rows(result)),
        _curves(result),
        pd.DataFrame([family_row(family) for family in result.laws]),
        Caption(subject, notes),
    )


def _curves(result: ScalingLaw) -> "pd.DataFrame":
    """Return the law of each family over the sizes of all runs."""
    import numpy as np
    import pandas as pd

    sizes = [run.parameters for run in result.runs]
    parameters = np.geomspace(min(sizes), max(sizes), POINTS)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "family": family.family.name,
                    "parameters": parameters,
                    "loss": result.law.loss(parameters, number),
                }
            )
            for number, family in enumerate(result.laws)
        ],
        ignore_index=True,
    )


def crossover_figure(result: Tradeoff) -> "go.Figure":
    """Draw where the first of the other models is faster than the base."""
    import pandas as pd

    frame = pd.DataFrame(map_rows(result))
    first = result.others[0].model.name
    about = caption(_study(result.base.variants["standard"].result), ("samples", "context_tokens"))
    factor = result.others[0].size_factor
    note = () if factor is None else (f"Size factor {factor.value:.3f}: {factor.source}.",)
    return equal_quality(
        frame[frame["model"] == first], Caption(about.subject, (*note, *about.notes))
    )


def equal_quality_frame(study: Study) -> "pd.DataFrame":
    """Return the map of a study's model against a multi-query one of equal quality.

    Raises
    ------
    SimulatorError
        If the model cannot be scaled, or is multi-query itself.
    """
    import pandas as pd

    result = tradeoff(
        study.model,
        study.gpu,
        study.workload,
        constants=study.constants,
        memory_utilization=study.memory_utilization,
        usd_per_hour=study.usd_per_hour,
    )
    return pd.DataFrame(map_rows(result))


def quality_figure(result: Quality) -> "go.Figure":
    """Draw pass@k against what a target is set for: the request if that has one, else the step."""
    import pandas as pd

    by_request = result.target_request_s is not None
    about = caption(_study(result.results["standard"]), ("samples",))
    step_ms = milliseconds(result.target_step_s)
    return quality_latency(
        pd.DataFrame(quality_rows(result)),
        Caption(about.subject, (f"pass@k: {result.success.source}.", *about.notes)),
        axis="request_s" if by_request else "step_ms",
        target=result.target_request_s if by_request else step_ms,
    )


def _study(result: Estimate) -> Study:
    """Return an estimate's question."""
    return Study(
        models=(result.model,),
        gpus=(result.gpu,),
        workload=result.workload,
        constants=result.rates.choice,
        memory_utilization=result.memory_utilization,
    )
