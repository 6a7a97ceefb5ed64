"""A scenario's cases, and scenarios made of a question or with some settings replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from simulator.answers.sweep import NUMERIC_AXES
from simulator.errors import ScenarioError
from simulator.inputs.files import validate
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, Value
from simulator.inputs.setup import Setup, ask
from simulator.inputs.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model of a scenario at the middle of every axis of its grid.

    Attributes
    ----------
    name, kv_heads
        How the scenario names the model, and the KV heads it asks for; None for the model's own.
    """

    name: str
    kv_heads: int | None
    model: ModelShape
    setup: Setup
    workload: Workload


def central_cases(scenario: Scenario, **settings: Any) -> tuple[Case, ...]:
    """Return a scenario's cases: each model, with each of its numbers of KV heads.

    Numeric axes are taken at the middle of their list, of an even number the upper one; of
    settings with a name the first one listed counts.

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
    """Return a scenario with some settings replaced; None leaves one as it is.

    Raises
    ------
    ScenarioError
        If a value is impossible.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    update: dict[str, Any] = {
        f"{name}s": given.pop(name) for name in ("model", "gpu") if name in given
    }
    data = scenario.model_dump() | update
    data["workload"] = {**scenario.workload, **given}
    return validate(Scenario, data, where=f"scenario {scenario.id}", error=ScenarioError)


def asked_scenario(settings: Mapping[str, Any], gpus: Sequence[str]) -> Scenario:
    """Return a question as a scenario of one point, with no answer to expect.

    Parameters
    ----------
    settings
        Models under ``model``; the others are keys of a scenario's workload.

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
