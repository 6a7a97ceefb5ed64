"""Studies and cases: a scenario or a question, prepared for figures and pages.

A study is one question and the values to vary around it; a case is one model of a scenario.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.sweep import NUMERIC_AXES
from simulator.errors import ScenarioError
from simulator.inputs.files import validate
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, Value
from simulator.inputs.setup import Attention, Setup, ask
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS, Workload
from simulator.units import MILLISECOND

# How far an axis reaches around a single size, and the shortest context worth a point.
_SAMPLES_ABOVE, _CONTEXT_AROUND, _SHORTEST_CONTEXT = 8, 16, 128


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question, and what to vary around it.

    Attributes
    ----------
    models, gpus
        Models and GPUs to compare; the first of each is the question's own.
    setup, workload
        How the question is run, and its sizes.
    samples, context_tokens, kv_heads
        Values along these axes, ascending; without ``kv_heads``, the usual what-ifs.
    output_tokens
        Tokens each sample generates in a whole request.
    target_step_s
        Longest acceptable step, None without one. [s]
    usd_per_hour
        Price of one GPU instead of the profiles' own. [USD/h]
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

    @property
    def question(self) -> Question:
        """The question about one step."""
        return Question(self.model, self.gpu, self.setup, self.workload)

    @property
    def samples_axis(self) -> tuple[int, ...]:
        """Samples to draw: those asked for, and powers of two around them."""
        asked = {self.workload.samples, *self.samples}
        high = max(asked) if len(asked) > 1 else _SAMPLES_ABOVE * max(asked)
        return _axis(asked, 1, high)

    @property
    def context_axis(self) -> tuple[int, ...]:
        """Context lengths to draw, no longer than the model supports unless asked for."""
        asked = {self.workload.context_tokens, *self.context_tokens}
        longest = self.model.max_context_tokens or max(asked) * _CONTEXT_AROUND
        around = self.workload.context_tokens
        low = min(asked - {0} | {max(_SHORTEST_CONTEXT, around // _CONTEXT_AROUND)})
        high = max(asked | {min(longest, max(around, _SHORTEST_CONTEXT) * _CONTEXT_AROUND)})
        return _axis(asked, low, high)

    def estimate(self, attention: Attention) -> Estimate:
        """Estimate the question's own step.

        Raises
        ------
        WorkloadError
            If it cannot run that way.
        """
        return estimate(self.question.under(attention))


def _axis(asked: set[int], low: int, high: int) -> tuple[int, ...]:
    """Return the powers of two from low to high, the values asked for, and the ends."""
    powers = (2**power for power in range(max(high, 1).bit_length()))
    values = {low, high, *asked, *(p for p in powers if low <= p <= high)}
    return tuple(sorted(values - {0}))  # a context of no tokens has no place on a logarithmic axis


def study_scenario(scenario: Scenario, usd_per_hour: float | None = None, **settings: Any) -> Study:
    """Return a scenario as a study: its first model at the middle of every axis of its grid.

    Parameters
    ----------
    usd_per_hour
        Price of one GPU instead of the profiles' own. [USD/h]
    settings
        Fields of :class:`~simulator.inputs.setup.Setup` that a scenario does not have: see
        ``PROCESS`` beside it.

    Raises
    ------
    SimulatorError
        If a model or GPU is not known, or a setting cannot be.
    """
    axes, target_ms = scenario.axes, scenario.target_step_ms
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
        target_step_s=None if target_ms is None else target_ms * MILLISECOND,
        usd_per_hour=usd_per_hour,
    )


def _whole(values: Sequence[object]) -> tuple[int, ...]:
    """Return the numbers of an axis in ascending order."""
    return tuple(sorted(value for value in values if isinstance(value, int)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model of a scenario at the middle of every axis of its grid.

    Attributes
    ----------
    name, kv_heads
        The scenario's name for the model, and the KV heads it asks for; None for the model's own.
    """

    name: str
    kv_heads: int | None
    model: ModelShape
    setup: Setup
    workload: Workload

    def on(self, gpu: HardwareProfile) -> Question:
        """Return the question about it on a GPU."""
        return Question(self.model, gpu, self.setup, self.workload)


def central_cases(scenario: Scenario, **settings: Any) -> tuple[Case, ...]:
    """Return a scenario's cases: each model, with each of its numbers of KV heads.

    A case takes each numeric axis at the middle of its list, the upper one of an even number, and
    the first one listed of the named settings.

    Raises
    ------
    SimulatorError
        If a model is not known, or a setting cannot be.
    """
    axes = scenario.axes
    settings |= {
        axis: values[len(values) // 2] if axis in NUMERIC_AXES else values[0]
        for axis, values in axes.items()
        if axis not in ("model", "gpu", "kv_heads", "attention")
    }
    cases = []
    for name, kv_heads in product(axes["model"], axes.get("kv_heads", (None,))):
        heads = None if kv_heads is None else int(kv_heads)
        model = load_model(str(name), kv_heads=heads)
        setup, work = ask(model, **settings)
        cases.append(Case(name=str(name), kv_heads=heads, model=model, setup=setup, workload=work))
    return tuple(cases)


def narrowed(scenario: Scenario, changes: Mapping[str, Value | Sequence[Value] | None]) -> Scenario:
    """Return a scenario with some settings replaced; None leaves a setting unchanged.

    Raises
    ------
    ScenarioError
        If a value is impossible.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    update: dict[str, Any] = {
        f"{name}s": given.pop(name) for name in ("model", "gpu") if name in given
    }
    data = scenario.as_dict() | update
    data["workload"] = {**scenario.workload, **given}
    return validate(Scenario, data, where=f"scenario {scenario.id}", error=ScenarioError)


def asked_scenario(settings: Mapping[str, Any], gpus: Sequence[str]) -> Scenario:
    """Return a question as a scenario of one point, without an expected answer.

    Parameters
    ----------
    settings
        Models under ``model``; all others are keys of a scenario's workload.

    Raises
    ------
    ScenarioError
        If a value is impossible.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    data = {
        "schema_version": 1,
        "id": "question",
        "title": "Does reading the shared context once pay off?",
        "description": "A question from the command line.",
        "question": "Standard or bifurcated attention, and on which GPU?",
        "sources": "the command line",
        "verdict": "mixed",
        "verdict_reason": "Nothing is expected of a question.",
        "models": given.pop("model"),
        "gpus": tuple(gpus),
        "workload": given,
    }
    return validate(Scenario, data, where="question", error=ScenarioError)
