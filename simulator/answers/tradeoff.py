"""Models of equal quality with smaller caches, and when the larger one is faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.answers.answer import Answer
from simulator.answers.capacity import Capacity, longest_context
from simulator.answers.crossover import LONGEST_CONTEXT, MOST_SAMPLES, Crossover, crossover
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.generate import among_users
from simulator.answers.load import Point, Request
from simulator.answers.price import cost_per_million_tokens, price_per_hour
from simulator.answers.scaled import FAMILIES, SCALE_BY, ScaleBy, scale_model, with_heads
from simulator.answers.scaling import ScalingLaw, fit_scaling_law
from simulator.answers.size_factor import (
    FactorTable,
    SizeFactor,
    fitted_factor,
    given_factor,
    paper_factor,
    pooled_factor,
    shipped_factors,
)
from simulator.answers.studies import Studies, fit_studies
from simulator.counts.transformer import prefill_operations
from simulator.errors import ModelError, WorkloadError, unknown
from simulator.inputs.csv_files import Matching, are_one_law, read_training_runs
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS
from simulator.timing.interval import speedup_interval
from simulator.timing.step import step_time

# By what a model is scaled: where the parameters go that its smaller cache frees.
FREED: Mapping[ScaleBy, Matching] = {
    "width": "nothing",
    "depth": "nothing",
    "mlp": "mlp",
    "heads": "heads",
}
# Ways to scale in the order in which they are tried, where none is asked for.
WAYS: tuple[ScaleBy, ...] = ("width", "mlp", "heads")
# The word for the factor of the paper's own case: multi-query 1.10 times multi-head.
PAPER_CASE = "paper"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One model under one kind of attention.

    Attributes
    ----------
    result
        The decode step at the workload's own sizes.
    prefill_s
        Time to fill the caches and, with copies, to copy them to every sample. [s]
    limits
        The most samples and the longest context, in memory and under the target.
    usd_per_million_tokens
        Price of decoding, None if unknown.
    speedup, speedup_low, speedup_high
        The base's step time under the same attention over this one's, and its interval; errors of
        matrix products count as common to both models.
    loaded
        A server of it under as many users as asked; None if none were, or no request fits.
    """

    result: Estimate
    prefill_s: float
    limits: Capacity
    usd_per_million_tokens: float | None
    speedup: float
    speedup_low: float
    speedup_high: float
    loaded: Point | None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the equally good models.

    Attributes
    ----------
    size_factor
        Parameters over the base's at which it is as good; None for the base itself.
    parameters
        Its parameters.
    size_error
        Relative difference between these and the wanted size.
    variants
        By kind of attention.
    """

    model: ModelShape
    size_factor: SizeFactor | None = None
    parameters: int
    size_error: float = 0.0
    variants: Mapping[Attention, Contender]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tradeoff(Answer):
    """Equally good models side by side.

    Attributes
    ----------
    base
        The model to match.
    others
        Models with other numbers of KV heads, sized to be as good.
    crossovers
        Where each of ``others`` is faster than the base, in order.
    scaling
        The law behind the size factors; None where they are of no single set of runs.
    target_step_s
        Longest acceptable decode step, None for any. [s]
    users
        Users that each model serves as well, None if none.
    """

    base: Candidate
    others: tuple[Candidate, ...]
    crossovers: tuple[Crossover, ...]
    scaling: ScalingLaw | None
    target_step_s: float | None
    users: int | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All models, the base first."""
        return (self.base, *self.others)


def tradeoff(
    question: Question,
    *,
    target_kv_heads: Sequence[int] = (1,),
    families: Sequence[str] = (),
    size_factors: Sequence[float | str] = (),
    scaling: ScalingLaw | Studies | str | Path | None = None,
    scale_by: ScaleBy | None = None,
    target_step_s: float | None = None,
    most_samples: int = MOST_SAMPLES,
    longest_context_tokens: int = LONGEST_CONTEXT,
    usd_per_hour: float | None = None,
    users: int | None = None,
    output_tokens: int = DEFAULT_OUTPUT_TOKENS,
) -> Tradeoff:
    """Compare a model with equally good ones that have other numbers of KV heads.

    Parameters
    ----------
    question
        About the model to match, usually multi-head; its own ``attention`` is ignored.
    target_kv_heads
        KV heads of each model to compare with.
    families
        Families to compare with instead: ``mqa``, ``gqa`` (four query heads for each KV head),
        ``mla``, ``gla`` (two groups), ``cla`` (multi-query, two layers to a cache) or ``yoco``.
    size_factors
        Parameters of each over the base's at equal quality, or ``paper`` for the paper's 1.10; if
        none, those of ``scaling``. Without either, those of the shipped table, by family and by
        what ``scale_by`` does with freed parameters.
    scale_by
        What makes the other models larger; see :func:`~simulator.answers.scaled.scale_model`. None
        takes the first of ``WAYS`` for which runs tell the family's factor.
    target_step_s
        Longest acceptable decode step, for the most samples and longest context. [s]
    most_samples, longest_context_tokens
        How far to search for the crossover.
    usd_per_hour
        Price of one GPU instead of the profile's own. [USD/h]
    users, output_tokens
        Also serve this many users, who ask again as soon as they have their answer: requests of one
        of the work's prompts with its samples, which generate so many tokens each.

    Raises
    ------
    SimulatorError
        If a model cannot be scaled, or the workload cannot run.
    """
    if target_step_s is not None and not target_step_s > 0:
        raise WorkloadError(f"target_step_ms = {target_step_s * 1e3:g} is not positive")
    if users is not None and users < 1:
        raise WorkloadError(f"users = {users}: a load has at least 1")
    base, setup, work = question.model, question.setup, question.workload
    price = price_per_hour(question.gpu, setup.gpus, usd_per_hour)

    base_steps = {name: estimate(question.under(name)) for name in ATTENTIONS}
    request = None if users is None else Request.of(work, output_tokens)
    known = _known(scaling)
    forms, longest = _forms(base, target_kv_heads, families), longest_context(base, work)

    def contender(model: ModelShape, attention: Attention) -> Contender:
        asked = replace(question, model=model).under(attention)
        first = result = base_steps[attention]
        low, high = 1.0, 1.0
        if model is not base:
            result = estimate(asked)
            low, high = map(float, speedup_interval(first.uncertainty, result.uncertainty))
        filling = prefill_operations(model, result.setup, work)
        prefill = step_time(filling, result.rates, setup.execution)
        return Contender(
            result=result,
            prefill_s=float(prefill.total_s) if work.context_tokens else 0.0,
            limits=Capacity(result, target_step_s, longest),
            usd_per_million_tokens=cost_per_million_tokens(price, result.tokens_per_s),
            speedup=first.step_s / result.step_s,
            speedup_low=low,
            speedup_high=high,
            loaded=among_users(asked, request, users, usd_per_hour),
        )

    def candidate(model: ModelShape, **size: Any) -> Candidate:
        return Candidate(
            model=model,
            parameters=count_parameters(model).total,
            variants={attention: contender(model, attention) for attention in ATTENTIONS},
            **size,
        )

    first = candidate(base)
    others = []
    if size_factors and len(size_factors) != len(forms):
        raise WorkloadError(
            f"{len(size_factors)} size factors for {len(forms)} models: give one for each"
        )
    asked: Sequence[float | str | None] = size_factors or [None] * len(forms)
    for form, given in zip(forms, asked, strict=True):
        factor, way = _factor(base, form, given, known, scale_by)
        scaled, error = scale_model(
            base, form, size_factor=factor.value, scale_by=way, ranks=setup.tensor_parallel
        )
        others.append(candidate(scaled, size_factor=factor, size_error=error))
    ends = {"most_samples": most_samples, "longest_context_tokens": longest_context_tokens}
    return Tradeoff(
        base=first,
        others=tuple(others),
        crossovers=tuple(crossover(question, other.model, **ends) for other in others),
        scaling=known if isinstance(known, ScalingLaw) else None,
        target_step_s=target_step_s,
        users=users,
    )


def fit_runs(training_runs: str | Path) -> ScalingLaw | Studies:
    """Fit one law to the runs of one set, and pool those of several.

    Raises
    ------
    MeasurementError
        As for ``fit_scaling_law`` and ``fit_studies``.
    """
    if are_one_law(read_training_runs(training_runs).rows):
        return fit_scaling_law(training_runs)
    return fit_studies(training_runs)


def _known(scaling: ScalingLaw | Studies | str | Path | None) -> ScalingLaw | FactorTable:
    """Return what tells size factors: a law of one set of runs, or a table of pooled ones."""
    if scaling is None:
        return shipped_factors()
    if not isinstance(scaling, (ScalingLaw, Studies)):
        scaling = fit_runs(scaling)
    if isinstance(scaling, ScalingLaw):
        return scaling
    return FactorTable(factors=scaling.factors, source=f"pooled over the runs of {scaling.source}")


def _forms(base: ModelShape, kv_heads: Sequence[int], families: Sequence[str]) -> list[ModelShape]:
    """Return the base with the attention of each model to compare with.

    Raises
    ------
    WorkloadError
        If a family is unknown, or a number is not one to compare with.
    """
    for name in families:
        if name not in FAMILIES:
            raise WorkloadError(unknown("family", name, FAMILIES))
    for number in () if families else kv_heads:
        if number < 1:
            raise WorkloadError(f"a model has at least 1 KV head, not {number}")
        if number > base.heads:
            raise WorkloadError(
                f"{number} KV heads are more than the {base.heads} heads of {base.name}"
            )
    forms = [FAMILIES[name](base) for name in families]
    forms = forms or [with_heads(base, number) for number in kv_heads]
    if not forms:
        raise WorkloadError("no number of KV heads to compare with was given")
    if base in forms:
        raise WorkloadError(
            f"{base.name} itself has kv_heads = {base.kv_heads}: compare it with another number, "
            f"or start from a model with more (kv_heads = {base.heads} makes it multi-head)"
        )
    return forms


def _factor(
    base: ModelShape,
    form: ModelShape,
    given: float | str | None,
    known: ScalingLaw | FactorTable,
    scale_by: ScaleBy | None,
) -> tuple[SizeFactor, ScaleBy]:
    """Return the size factor of a model to compare with, and what it is scaled by.

    Raises
    ------
    SimulatorError
        If the data do not tell the factor, or what is given is none.
    """
    if scale_by is not None and scale_by not in SCALE_BY:
        raise WorkloadError(unknown("scale_by", str(scale_by), SCALE_BY))
    if given is not None:
        named = paper_factor(base, form) if isinstance(given, str) else given_factor(given)
        return named, scale_by or WAYS[0]
    if isinstance(known, ScalingLaw):
        return fitted_factor(known, base, form), scale_by or WAYS[0]
    problems = []
    for way in WAYS if scale_by is None else (scale_by,):
        try:
            return pooled_factor(known, base, form, FREED[way]), way
        except ModelError as problem:
            problems.append(problem)
    raise problems[0]
