"""A scenario's decision: its central cases on every GPU, and what holds over its whole grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from simulator.answers.capacity import Capacity, capacity
from simulator.answers.compare import Comparison, compare
from simulator.answers.estimate import DEFAULT_MEMORY_UTILIZATION, Estimate
from simulator.answers.generate import Generation, generate
from simulator.answers.price import cost_per_million_tokens, price_per_hour
from simulator.answers.sweep import NUMERIC_AXES, prepare_sweep
from simulator.answers.verdict import VERDICTS, Verdict
from simulator.errors import ScenarioError, SimulatorError, WorkloadError
from simulator.inputs.files import validate
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario, Value, verdict_of
from simulator.inputs.scenario import Verdict as Expectation
from simulator.inputs.workload import ATTENTIONS, Attention, Workload, workload_for
from simulator.timing.constants import ConstantsChoice

Standing = Literal[
    "does not fit",
    "too slow",
    "bifurcated only",
    "standard only",
    "bifurcated",
    "standard",
    "too close to call",
]
_BY_VERDICT: dict[Verdict, Standing] = {
    "yes": "bifurcated",
    "no": "standard",
    "too close to call": "too close to call",
}

# A page of more rows than this is not read; `bifurcate sweep` writes them all.
MOST_POINTS_LISTED = 240


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
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One GPU, or group of them, for a case.

    Attributes
    ----------
    usd_per_hour
        Of the whole group, None where unknown.
    name
        How the GPU was named: an id or a path.
    asked
        Whether the scenario names this GPU; the others are there to compare.
    target_step_s
        Longest acceptable step, None without one. [s]
    """

    name: str
    comparison: Comparison
    limits: Mapping[Attention, Capacity]
    usd_per_hour: float | None
    asked: bool
    target_step_s: float | None

    @property
    def gpu(self) -> HardwareProfile:
        """The GPU."""
        return self.comparison.standard.gpu

    @property
    def fits(self) -> bool:
        """Whether either kind of attention fits."""
        return any(bool(self.under(name).memory.fits) for name in ATTENTIONS)

    @property
    def standing(self) -> Standing:
        """What to make of it: the kind of attention to use, or why this GPU will not do."""
        if not self.fits:
            return "does not fit"
        if self.target_step_s is not None and self.best.step_s > self.target_step_s:
            return "too slow"
        for name, other in ATTENTIONS, ATTENTIONS[::-1]:
            if not self.under(name).memory.fits:
                return "bifurcated only" if other == "bifurcated" else "standard only"
        return _BY_VERDICT[self.comparison.verdict]

    @property
    def will_do(self) -> bool:
        """Whether the case fits and meets the target."""
        return self.standing not in ("does not fit", "too slow")

    @property
    def best(self) -> Estimate:
        """The faster kind of attention of those that fit, or of both where neither does."""
        every = [self.under(name) for name in ATTENTIONS]
        fitting = [result for result in every if result.memory.fits]
        return min(fitting or every, key=lambda result: result.step_s)

    def under(self, attention: Attention) -> Estimate:
        """Return the step under a kind of attention."""
        comparison = self.comparison
        return comparison.standard if attention == "standard" else comparison.bifurcated

    def usd_per_million_tokens(self, attention: Attention) -> float | None:
        """Return the cost of a million output tokens, None where no price is known. [USD]."""
        if self.usd_per_hour is None:
            return None
        return cost_per_million_tokens(self.usd_per_hour, self.under(attention).tokens_per_s)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A case on every GPU.

    Attributes
    ----------
    choices
        The scenario's own GPUs as it lists them; then those that will do, cheapest per token
        first, and the rest.
    requests
        Whole requests on the scenario's first GPU, by kind of attention; empty where a request
        cannot be followed.
    skipped
        GPUs on which the case cannot be run, a sentence each.
    """

    case: Case
    choices: tuple[Choice, ...]
    requests: Mapping[Attention, Generation]
    skipped: tuple[str, ...]

    @property
    def first(self) -> Choice:
        """The first GPU asked about that can run the case; if none can, the best of all."""
        return self.choices[0]

    @property
    def cheapest(self) -> Choice | None:
        """The choice that will do at the least cost per token."""
        priced = [c for c in self.choices if c.will_do and c.usd_per_hour is not None]
        return min(priced, key=_cost, default=None)

    @property
    def fastest(self) -> Choice | None:
        """The choice that will do with the shortest step."""
        good = [choice for choice in self.choices if choice.will_do]
        return min(good, key=lambda choice: choice.best.step_s, default=None)


@dataclass(frozen=True, kw_only=True)
class GridSummary:
    """What holds over all points of a scenario's grid.

    Attributes
    ----------
    gained
        Points at which bifurcated attention is at least ``GAIN_SPEEDUP`` times as fast.
    standard_fits, bifurcated_fits
        Points that fit in memory.
    verdict
        The answer for the grid as a whole, as the scenario's own is judged.
    decided
        Points by whether to bifurcate, as sure as the predictions are.
    least, most
        The points of least and of most speed-up, as columns of the sweep.
    rows
        Every point, or none where there are more than ``MOST_POINTS_LISTED``.
    skipped
        Combinations that cannot be run, a sentence each.
    """

    points: int
    gained: int
    standard_fits: int
    bifurcated_fits: int
    verdict: Expectation
    decided: Mapping[Verdict, int]
    least: Mapping[str, Any]
    most: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]


def central_cases(scenario: Scenario) -> tuple[Case, ...]:
    """Return a scenario's cases: each model, with each of its numbers of KV heads.

    Numeric axes are taken at the middle of their list, of an even number the upper one; of
    settings with a name the first one listed counts.

    Raises
    ------
    SimulatorError
        If a model is not known, or a setting cannot be.
    """
    axes = scenario.axes
    settings = {
        axis: values[len(values) // 2] if axis in NUMERIC_AXES else values[0]
        for axis, values in axes.items()
        if axis not in ("model", "gpu", "kv_heads", "attention")
    }
    cases = []
    for name, kv_heads in product(axes["model"], axes.get("kv_heads", (None,))):
        heads = None if kv_heads is None else int(kv_heads)
        model = load_model(str(name), kv_heads=heads)
        work = workload_for(model, **settings)
        cases.append(Case(name=str(name), kv_heads=heads, model=model, workload=work))
    return tuple(cases)


def decide(
    case: Case,
    gpus: Mapping[str, HardwareProfile],
    *,
    asked: int,
    output_tokens: int,
    target_step_s: float | None = None,
    constants: ConstantsChoice = "auto",
    memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    usd_per_hour: float | None = None,
) -> Decision:
    """Compare both kinds of attention for a case on several GPUs.

    Parameters
    ----------
    gpus
        By name, those that the scenario names itself first.
    asked
        How many these are.
    output_tokens
        Tokens each sample generates in a whole request.
    usd_per_hour
        Price of one GPU, for every GPU, in place of the profiles' own.

    Raises
    ------
    WorkloadError
        If the case can be run on none of the GPUs.
    """
    settings: dict[str, Any] = {"constants": constants, "memory_utilization": memory_utilization}
    choices: list[Choice] = []
    skipped: list[str] = []
    for index, (name, gpu) in enumerate(gpus.items()):
        try:
            comparison = compare(case.model, gpu, case.workload, **settings)
        except WorkloadError as error:
            skipped.append(str(error))
            continue
        both: dict[Attention, Estimate] = {
            "standard": comparison.standard,
            "bifurcated": comparison.bifurcated,
        }
        choices.append(
            Choice(
                name=name,
                comparison=comparison,
                limits={
                    attention: capacity(result, target_step_s=target_step_s)
                    for attention, result in both.items()
                },
                usd_per_hour=price_per_hour(gpu, case.workload.tensor_parallel, usd_per_hour),
                asked=index < asked,
                target_step_s=target_step_s,
            )
        )
    if not choices:
        raise WorkloadError("; ".join(dict.fromkeys(skipped)) or "no GPU given")
    own = [choice for choice in choices if choice.asked]
    others = [choice for choice in choices if not choice.asked]
    decision = Decision(
        case=case,
        choices=(*own, *sorted(others, key=_order)),
        requests={},
        skipped=tuple(dict.fromkeys(skipped)),
    )
    requests = dict(_requests(decision, output_tokens, usd_per_hour, settings))
    return Decision(
        case=case, choices=decision.choices, requests=requests, skipped=decision.skipped
    )


def summarise(
    scenario: Scenario,
    *,
    constants: ConstantsChoice = "auto",
    memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
) -> GridSummary:
    """Compute a scenario's whole grid, as a sweep does, and sum it up.

    Raises
    ------
    SimulatorError
        If a model or GPU is not known, or nothing can be run.
    """
    grid = prepare_sweep(scenario, constants=constants, memory_utilization=memory_utilization)
    speedups: list[float] = []
    fits = dict.fromkeys(ATTENTIONS, 0)
    decided = dict.fromkeys(VERDICTS, 0)
    extremes: list[Mapping[str, Any]] = []
    rows: list[Mapping[str, Any]] = []
    for block in grid.blocks():
        here = block["speedup"]
        speedups += here.tolist()
        for name in ATTENTIONS:
            fits[name] += int(block[f"{name}_fits"].sum())
        for verdict in VERDICTS:
            decided[verdict] += int((block["verdict"] == verdict).sum())
        extremes += [_row(block, int(here.argmin())), _row(block, int(here.argmax()))]
        if grid.points <= MOST_POINTS_LISTED:
            rows += [_row(block, index) for index in range(len(here))]
    return GridSummary(
        points=grid.points,
        gained=sum(speedup >= GAIN_SPEEDUP for speedup in speedups),
        standard_fits=fits["standard"],
        bifurcated_fits=fits["bifurcated"],
        verdict=verdict_of(speedups),
        decided=decided,
        least=min(extremes, key=lambda row: float(row["speedup"])),
        most=max(extremes, key=lambda row: float(row["speedup"])),
        rows=tuple(rows),
        skipped=grid.skipped,
    )


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


def _requests(
    decision: Decision, output_tokens: int, usd_per_hour: float | None, settings: dict[str, Any]
) -> Iterator[tuple[Attention, Generation]]:
    """Yield the whole request on the first GPU under each kind of attention."""
    case, gpu = decision.case, decision.first.gpu
    for name in ATTENTIONS:
        try:
            yield (
                name,
                generate(
                    case.model,
                    gpu,
                    case.workload.under(name),
                    output_tokens=output_tokens,
                    usd_per_hour=usd_per_hour,
                    **settings,
                ),
            )
        except SimulatorError:
            return  # more than one query token per step: how many are accepted is not known


def _row(block: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return one point of a block of a sweep."""
    return {
        name: column[index : index + 1].tolist()[0] if hasattr(column, "shape") else column
        for name, column in block.items()
    }


def _order(choice: Choice) -> tuple[bool, bool, bool, float, float]:
    """Order GPUs: the scenario's own, then those that will do, by cost and by time."""
    return (
        not choice.asked,
        not choice.will_do,
        not choice.fits,
        _cost(choice),
        choice.best.step_s,
    )


def _cost(choice: Choice) -> float:
    """Return the cost of a million tokens under the better kind of attention; unknown is last."""
    cost = choice.usd_per_million_tokens(choice.best.workload.attention)
    return float("inf") if cost is None else cost
