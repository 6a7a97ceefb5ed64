"""A question and the values to vary around it: what figures and pages are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from simulator.answers.cases import central_cases
from simulator.answers.estimate import Estimate, estimate
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.scenario import Scenario
from simulator.inputs.setup import Attention, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates, rates
from simulator.units import MILLISECOND

DEFAULT_OUTPUT_TOKENS = 256
# How far around a single size its axis reaches, and how short a context is still worth a point.
_SAMPLES_ABOVE, _CONTEXT_AROUND, _SHORTEST_CONTEXT = 8, 16, 128


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question, and what to vary around it.

    Attributes
    ----------
    models, gpus
        To compare; the first of each is the question's own.
    setup, workload
        How it is run, and the point that is asked about.
    samples, context_tokens, kv_heads
        Values along these axes, in ascending order; no ``kv_heads`` means the usual what-ifs.
    output_tokens
        Tokens each sample generates in a whole request.
    target_step_s
        Longest acceptable step, None without one. [s]
    usd_per_hour
        Price of one GPU in place of the profiles' own.
    """

    models: tuple[ModelShape, ...]
    gpus: tuple[HardwareProfile, ...]
    setup: Setup
    workload: Workload
    samples: tuple[int, ...] = ()
    context_tokens: tuple[int, ...] = ()
    kv_heads: tuple[int, ...] = ()
    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    target_step_s: float | None = None
    usd_per_hour: float | None = None

    @property
    def model(self) -> ModelShape:
        """The question's model."""
        return self.models[0]

    @property
    def gpu(self) -> HardwareProfile:
        """The question's GPU."""
        return self.gpus[0]

    @cached_property
    def rates(self) -> Rates:
        """Constants of the question's GPU."""
        return rates(self.gpu, self.setup.constants)

    @property
    def samples_axis(self) -> tuple[int, ...]:
        """Samples to draw: powers of two around those asked for, and these."""
        asked = {self.workload.samples, *self.samples}
        high = max(asked) if len(asked) > 1 else _SAMPLES_ABOVE * max(asked)
        return _axis(asked, 1, high)

    @property
    def context_axis(self) -> tuple[int, ...]:
        """Context lengths to draw, no longer than the model was made for unless asked."""
        asked = {self.workload.context_tokens, *self.context_tokens}
        longest = self.model.max_context_tokens or max(asked) * _CONTEXT_AROUND
        around = self.workload.context_tokens
        low = min(asked - {0} | {max(_SHORTEST_CONTEXT, around // _CONTEXT_AROUND)})
        high = max(asked | {min(longest, max(around, _SHORTEST_CONTEXT) * _CONTEXT_AROUND)})
        return _axis(asked, low, high)

    def estimate(self, attention: Attention) -> Estimate:
        """Estimate the step that is asked about.

        Raises
        ------
        WorkloadError
            If it cannot be run in that form.
        """
        return estimate(self.model, self.gpu, self.setup.under(attention), self.workload)


def _axis(asked: set[int], low: int, high: int) -> tuple[int, ...]:
    """Return the powers of two from low to high, the values asked for, and the ends."""
    powers = (2**power for power in range(max(high, 1).bit_length()))
    values = {low, high, *asked, *(p for p in powers if low <= p <= high)}
    return tuple(sorted(values - {0}))  # a context of no tokens has no place on a logarithmic axis


def study_scenario(
    scenario: Scenario, *, usd_per_hour: float | None = None, **settings: Any
) -> Study:
    """Return a scenario as a study: its first model at the middle of every axis of its grid.

    Parameters
    ----------
    usd_per_hour
        Price of one GPU in place of the profiles' own. [USD/h]
    settings
        Fields of :class:`~simulator.inputs.setup.Setup` that a scenario does not have:
        ``constants`` and ``gpu_memory_utilization``.

    Raises
    ------
    SimulatorError
        If a model or GPU is not known, or a setting cannot be.
    """
    axes = scenario.axes
    cases = central_cases(scenario, **settings)
    return Study(
        models=tuple(case.model for case in cases[:: len(axes.get("kv_heads", (None,)))]),
        gpus=tuple(load_hardware(str(name)) for name in axes["gpu"]),
        setup=cases[0].setup,
        workload=cases[0].workload,
        samples=_whole(axes.get("samples", ())),
        context_tokens=_whole(axes.get("context_tokens", ())),
        kv_heads=_whole(axes.get("kv_heads", ())),
        output_tokens=scenario.output_tokens or DEFAULT_OUTPUT_TOKENS,
        target_step_s=None
        if scenario.target_step_ms is None
        else scenario.target_step_ms * MILLISECOND,
        usd_per_hour=usd_per_hour,
    )


def _whole(values: Sequence[object]) -> tuple[int, ...]:
    """Return the numbers of an axis in ascending order."""
    return tuple(sorted(value for value in values if isinstance(value, int)))
