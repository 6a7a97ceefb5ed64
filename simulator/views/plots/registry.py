"""The figures by name: what each shows, the frame it takes, and the function that draws it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from simulator.answers import frames
from simulator.answers.study import Study
from simulator.errors import SimulatorError, unknown
from simulator.numeric import Frame
from simulator.views.plots import along, breakdown, fleet, losses, maps
from simulator.views.plots.caption import caption
from simulator.views.plots.layout import Caption, Figure


class Kind(NamedTuple):
    """How one figure is made.

    Attributes
    ----------
    frame
        Makes its tidy frame from a study.
    draw
        Draws a frame; pure.
    varied
        What of the question varies in it, so that the line under the title leaves it out.
    """

    frame: Callable[[Study], Frame]
    draw: Callable[[Frame, Caption], Figure]
    varied: tuple[str, ...] = ()


FIGURES: Mapping[str, Kind] = {
    "latency-samples": Kind(
        frames.by_samples, partial(along.latency, axis="samples"), ("samples",)
    ),
    "latency-context": Kind(
        frames.by_context, partial(along.latency, axis="context_tokens"), ("context_tokens",)
    ),
    "latency-kernels": Kind(
        frames.by_kernel, along.latency_kernels, ("samples", "kernel", "execution")
    ),
    "operations": Kind(frames.operations, breakdown.operations),
    "roofline": Kind(frames.operations, breakdown.roofline),
    "speedup-map": Kind(
        frames.by_context_and_samples, maps.speedup_map, ("context_tokens", "samples")
    ),
    "kv-io": Kind(frames.by_context_and_samples, maps.kv_io, ("context_tokens", "samples")),
    "memory": Kind(frames.memory_by_samples, along.memory, ("samples",)),
    "pareto": Kind(frames.by_gpu, fleet.pareto, ("gpu", "model", "samples")),
    "load": Kind(fleet.load_frame, fleet.load, ("decoded_tokens", "prompts")),
    "cost": Kind(frames.at_question, fleet.cost, ("gpu",)),
    "kv-heads": Kind(frames.by_kv_heads, along.kv_heads, ("samples",)),
    "equal-quality": Kind(
        maps.equal_quality_frame, maps.equal_quality, ("context_tokens", "samples")
    ),
    "loss-kv": Kind(frames.by_family, losses.loss_kv),
    "generation": Kind(frames.by_own_tokens, along.generation, ("decoded_tokens",)),
}
# What each shows, in one line.
SHOWS: Mapping[str, str] = {
    "latency-samples": "step latency against samples, with the roof that binds and where "
    "memory ends",
    "latency-context": "step latency against the shared context, with the same marks",
    "latency-kernels": "step latency against samples for every kernel and execution",
    "operations": "time and bytes of a step, operation by operation, stacked",
    "roofline": "operations under the GPU's roofs, before and after bifurcation",
    "speedup-map": "speed-up over context and samples, with break-even and the ends of memory",
    "kv-io": "end-to-end speed-up against the ratio of KV bytes read",
    "memory": "memory against samples: weights, caches and where the card ends",
    "pareto": "throughput against latency over GPUs and models, with the Pareto frontiers",
    "load": "under load: throughput of a GPU against what each user sees, over concurrency",
    "cost": "cost of a million tokens on each GPU, standard and bifurcated",
    "kv-heads": "multi-head, multi-group and multi-query forms of the model against samples",
    "equal-quality": "where a larger multi-query model of equal quality is faster, by "
    "kind of attention",
    "loss-kv": "loss of attention families at equal size, against their KV bytes and their step",
    "generation": "a whole generation, step by step: the gain fades as samples grow "
    "their own tokens",
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


def figure(name: str, study: Study) -> Figure:
    """Draw a figure of a study.

    Raises
    ------
    SimulatorError
        If there is no such figure, or the question cannot be run.
    """
    wanted = kind(name)
    words = caption(study, wanted.varied)
    return wanted.draw(wanted.frame(study), words)
