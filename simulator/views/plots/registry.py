"""The figures by name: what each shows, the frame it takes, and the function that draws it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.answers import frames
from simulator.answers.study import Study
from simulator.errors import SimulatorError, unknown
from simulator.views.plots import breakdown, fleet, generation, latency, load, loss_kv, maps, memory
from simulator.views.plots.caption import caption
from simulator.views.plots.equal_quality import equal_quality, equal_quality_frame
from simulator.views.plots.layout import Caption

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
        frame=frames.by_samples,
        draw=latency.latency_samples,
        varied=("samples",),
    ),
    "latency-context": Kind(
        shows="step latency against the shared context, with the same marks",
        frame=frames.by_context,
        draw=latency.latency_context,
        varied=("context_tokens",),
    ),
    "latency-kernels": Kind(
        shows="step latency against samples for every kernel and execution",
        frame=frames.by_kernel,
        draw=latency.latency_kernels,
        varied=("samples", "kernel", "execution"),
    ),
    "operations": Kind(
        shows="time and bytes of a step, operation by operation, stacked",
        frame=frames.operations,
        draw=breakdown.operations,
    ),
    "roofline": Kind(
        shows="operations under the GPU's roofs, before and after bifurcation",
        frame=frames.operations,
        draw=breakdown.roofline,
    ),
    "speedup-map": Kind(
        shows="speed-up over context and samples, with break-even and the ends of memory",
        frame=frames.by_context_and_samples,
        draw=maps.speedup_map,
        varied=("context_tokens", "samples"),
    ),
    "kv-io": Kind(
        shows="end-to-end speed-up against the ratio of KV bytes read",
        frame=frames.by_context_and_samples,
        draw=maps.kv_io,
        varied=("context_tokens", "samples"),
    ),
    "memory": Kind(
        shows="memory against samples: weights, caches and where the card ends",
        frame=frames.memory_by_samples,
        draw=memory.memory,
        varied=("samples",),
    ),
    "pareto": Kind(
        shows="throughput against latency over GPUs and models, with the Pareto frontiers",
        frame=frames.by_gpu,
        draw=fleet.pareto,
        varied=("gpu", "model", "samples"),
    ),
    "load": Kind(
        shows="under load: throughput of a GPU against what each user sees, over concurrency",
        frame=frames.by_concurrency,
        draw=load.load,
        varied=("decoded_tokens", "prompts"),
    ),
    "cost": Kind(
        shows="cost of a million tokens on each GPU, standard and bifurcated",
        frame=frames.at_question,
        draw=fleet.cost,
        varied=("gpu",),
    ),
    "kv-heads": Kind(
        shows="multi-head, multi-group and multi-query forms of the model against samples",
        frame=frames.by_kv_heads,
        draw=latency.kv_heads,
        varied=("samples",),
    ),
    "equal-quality": Kind(
        shows="where a larger multi-query model of equal quality is faster, by kind of attention",
        frame=equal_quality_frame,
        draw=equal_quality,
        varied=("context_tokens", "samples"),
    ),
    "loss-kv": Kind(
        shows="loss of attention families at equal size, against their KV bytes and their step",
        frame=frames.by_family,
        draw=loss_kv.loss_kv,
    ),
    "generation": Kind(
        shows="a whole generation, step by step: the gain fades as samples grow their own tokens",
        frame=frames.by_own_tokens,
        draw=generation.generation,
        varied=("decoded_tokens",),
    ),
}


def kind(name: str) -> Kind:
    """Return a figure by name.

    Raises
    ------
    SimulatorError
        If there is none of that name; the message says the nearest.
    """
    if name in FIGURES:
        return FIGURES[name]
    raise SimulatorError(unknown("figure", name, FIGURES, way_out="see 'bifurcate plot --list'"))


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
