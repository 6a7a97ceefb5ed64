"""A case on several GPUs: how each one performs, and which to choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Literal

from simulator.answers.capacity import Capacity
from simulator.answers.compare import Comparison, compare
from simulator.answers.estimate import Estimate
from simulator.answers.generate import Generation, generate
from simulator.answers.price import Priced, cost_per_million_tokens, price_of
from simulator.answers.study import Case
from simulator.answers.verdict import Verdict
from simulator.errors import WorkloadError
from simulator.inputs.hardware import HardwareProfile, Price
from simulator.inputs.setup import ATTENTIONS, Attention

Standing = Literal[
    "does not fit",
    "too slow",
    "may be too slow",
    "bifurcated only",
    "standard only",
    "bifurcated",
    "standard",
    "too close to call",
    "not known",
]
_BY_VERDICT: dict[Verdict, Standing] = {
    "yes": "bifurcated",
    "no": "standard",
    "too close to call": "too close to call",
    "not known": "not known",
}


@dataclass(frozen=True, kw_only=True)
class Choice(Priced):
    """One GPU, or group of them, for a case.

    Attributes
    ----------
    price, gpus
        Price of one GPU, None where unknown, and how many there are.
    name
        How the GPU was named: an id or a path.
    limits
        How many samples fit in memory and meet the target.
    asked
        Whether the scenario names this GPU; the others are for comparison.
    target_step_s
        Longest acceptable step, None without one. [s]
    """

    name: str
    comparison: Comparison
    limits: Mapping[Attention, Capacity]
    price: Price | None
    gpus: int
    asked: bool
    target_step_s: float | None

    @property
    def gpu(self) -> HardwareProfile:
        """The GPU."""
        return self.comparison.standard.gpu

    @cached_property
    def fitting(self) -> list[Estimate]:
        """The steps under those kinds of attention that fit in memory."""
        steps = map(self.under, ATTENTIONS)
        return [step for step in steps if step.memory.fits]

    @property
    def standing(self) -> Standing:
        """The kind of attention to use, or why this GPU does not qualify."""
        if not self.fitting:
            return "does not fit"
        most = self.target_step_s or inf
        if self.best.step_high_s > most:
            return "too slow" if self.best.step_low_s > most else "may be too slow"
        if len(self.fitting) == 1:
            return "bifurcated only" if self.best.setup.bifurcated else "standard only"
        found = self.comparison
        little = found.verdict == "yes" and found.stored_is_enough
        return "standard" if little else _BY_VERDICT[found.verdict]

    @property
    def will_do(self) -> bool:
        """Whether the case fits and meets the target, at the upper end of its interval."""
        return self.standing not in ("does not fit", "too slow", "may be too slow")

    @property
    def best(self) -> Estimate:
        """The faster kind of attention that fits, or of both if neither fits."""
        every = self.fitting or map(self.under, ATTENTIONS)
        return min(every, key=lambda result: result.step_s)

    def under(self, attention: Attention) -> Estimate:
        """Return the step under a kind of attention."""
        comparison = self.comparison
        return comparison.standard if attention == "standard" else comparison.bifurcated

    def usd_per_million_tokens(self, attention: Attention) -> float | None:
        """Return the cost of a million output tokens, None where no price is known. [USD]."""
        return cost_per_million_tokens(self.usd_per_hour, self.under(attention).tokens_per_s)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A case on every GPU.

    Attributes
    ----------
    choices
        The scenario's own GPUs as it lists them; then those that qualify, cheapest per token
        first; then the rest.
    requests
        Whole requests on the scenario's first GPU, by kind of attention.
    skipped
        GPUs on which the case cannot run, a sentence each.
    """

    case: Case
    choices: tuple[Choice, ...]
    requests: Mapping[Attention, Generation]
    skipped: tuple[str, ...]

    @property
    def first(self) -> Choice:
        """The first requested GPU that can run the case; if none can, the best of all."""
        return self.choices[0]

    @property
    def cheapest(self) -> Choice | None:
        """The qualifying choice with the least comparable price per hour, the faster of equals."""
        priced = [choice for choice in self.choices if choice.will_do and choice.comparable]
        return min(priced, key=lambda each: (each.usd_per_hour, each.best.step_s), default=None)

    @property
    def fastest(self) -> Choice | None:
        """The qualifying choice with the shortest step."""
        good = [choice for choice in self.choices if choice.will_do]
        return min(good, key=lambda choice: choice.best.step_s, default=None)


def decide(
    case: Case,
    gpus: Mapping[str, HardwareProfile],
    *,
    asked: int,
    output_tokens: int,
    target_step_s: float | None = None,
    usd_per_hour: float | None = None,
) -> Decision:
    """Compare both kinds of attention for a case on several GPUs.

    Parameters
    ----------
    case
        The model, how it is run, and its sizes.
    gpus
        By name; those that the scenario names come first.
    asked
        How many GPUs the scenario names.
    output_tokens
        Tokens each sample generates in a whole request.
    usd_per_hour
        Price of one GPU, for every GPU, instead of the profiles' own.

    Raises
    ------
    WorkloadError
        If the case cannot run on any of the GPUs.
    """
    choices: list[Choice] = []
    skipped: list[str] = []
    for index, (name, gpu) in enumerate(gpus.items()):
        try:
            comparison = compare(case.on(gpu))
        except WorkloadError as error:
            skipped.append(str(error))
            continue
        choices.append(
            Choice(
                name=name,
                comparison=comparison,
                limits={
                    step.attention: Capacity(step, target_step_s)
                    for step in (comparison.standard, comparison.bifurcated)
                },
                price=price_of(gpu, usd_per_hour),
                gpus=case.setup.gpus,
                asked=index < asked,
                target_step_s=target_step_s,
            )
        )
    if not choices:
        raise WorkloadError("; ".join(dict.fromkeys(skipped)) or "no GPU is given")
    own = [choice for choice in choices if choice.asked]
    others = [choice for choice in choices if not choice.asked]
    ranked = (*own, *sorted(others, key=_order))
    first = case.on(ranked[0].gpu)
    return Decision(
        case=case,
        choices=ranked,
        requests={
            name: generate(
                first.under(name), output_tokens=output_tokens, usd_per_hour=usd_per_hour
            )
            for name in ATTENTIONS
        },
        skipped=tuple(dict.fromkeys(skipped)),
    )


def _order(choice: Choice) -> tuple[bool, bool, bool, float, float]:
    """Order GPUs: those that qualify first, by the cost of the better attention and by time."""
    cost = choice.usd_per_million_tokens(choice.best.attention)
    return (
        not choice.will_do,
        not choice.fitting,
        not choice.comparable,
        inf if cost is None else cost,
        choice.best.step_s,
    )
