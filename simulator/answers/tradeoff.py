"""Models of equal quality with fewer KV heads, and when the larger one is faster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.answers.capacity import Capacity, capacity
from simulator.answers.crossover import LONGEST_CONTEXT, MOST_SAMPLES, Crossover, crossover
from simulator.answers.estimate import Estimate, estimate
from simulator.answers.price import cost_per_million_tokens, price_per_hour
from simulator.answers.scaled import ScaleBy, scale_model
from simulator.answers.scaling import ScalingLaw, fit_scaling_law
from simulator.answers.size_factor import (
    LATENT,
    FactorTable,
    SizeFactor,
    fitted_factor,
    given_factor,
    paper_factor,
    pooled_factor,
    shipped_factors,
)
from simulator.answers.studies import REFERENCE, Studies, fit_studies
from simulator.counts.transformer import prefill_operations
from simulator.errors import WorkloadError, unknown
from simulator.inputs.csv_files import Matching, are_one_set, read_training_runs
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.inputs.workload import Workload
from simulator.timing.interval import speedup_interval
from simulator.timing.step import step_time

# By what a model is scaled: where the parameters go that its smaller cache frees.
FREED: Mapping[ScaleBy, Matching] = {
    "width": "nothing",
    "depth": "nothing",
    "mlp": "mlp",
    "heads": "heads",
}
# Families that counts know: multi-query, grouped-query and latent attention.
FAMILIES = ("mqa", "gqa", "mla")
# Query heads for each KV head of gqa; public runs have three to fifteen.
GROUP_SIZE = 4


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
    """

    result: Estimate
    prefill_s: float
    limits: Capacity
    usd_per_million_tokens: float | None
    speedup: float
    speedup_low: float
    speedup_high: float


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
    size_factor: SizeFactor | None
    parameters: int
    size_error: float
    variants: Mapping[Attention, Contender]


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
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
    """

    base: Candidate
    others: tuple[Candidate, ...]
    crossovers: tuple[Crossover, ...]
    scaling: ScalingLaw | None
    target_step_s: float | None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All models, the base first."""
        return (self.base, *self.others)


def tradeoff(
    base: ModelShape,
    gpu: HardwareProfile,
    setup: Setup,
    work: Workload,
    *,
    target_kv_heads: Sequence[int] = (1,),
    families: Sequence[str] = (),
    size_factors: Sequence[float] = (),
    scaling: ScalingLaw | Studies | str | Path | None = None,
    scale_by: ScaleBy = "width",
    target_step_s: float | None = None,
    most_samples: int = MOST_SAMPLES,
    longest_context_tokens: int = LONGEST_CONTEXT,
    usd_per_hour: float | None = None,
) -> Tradeoff:
    """Compare a model with equally good ones that have other numbers of KV heads.

    Parameters
    ----------
    base
        The model to match, usually multi-head.
    gpu, setup, work
        The GPU, how the models run, and the sizes; the setup's own ``attention`` is ignored.
    target_kv_heads
        KV heads of each model to compare with.
    families
        Families to compare with instead: ``mqa``, ``gqa`` (four query heads for each KV head) or
        ``mla``.
    size_factors
        Parameters of each over the base's at equal quality; if none, those of ``scaling``. Without
        either, those of the shipped table for ``families`` and for what ``scale_by`` does with
        freed parameters, and the paper's for ``target_kv_heads`` where that is nothing.
    scale_by
        What makes the other models larger; see :func:`~simulator.answers.scaled.scale_model`.
    target_step_s
        Longest acceptable decode step, for the most samples and longest context. [s]
    most_samples, longest_context_tokens
        How far to search for the crossover.
    usd_per_hour
        Price of one GPU instead of the profile's own. [USD/h]

    Raises
    ------
    SimulatorError
        If a model cannot be scaled, or the workload cannot run.
    """
    if target_step_s is not None and not target_step_s > 0:
        raise WorkloadError(f"target_step_ms = {target_step_s * 1e3:g} is not positive")
    price = price_per_hour(gpu, setup.gpus, usd_per_hour)

    def steps(model: ModelShape) -> dict[Attention, Estimate]:
        return {
            attention: estimate(model, gpu, setup.under(attention), work)
            for attention in ATTENTIONS
        }

    base_steps = steps(base)
    if scaling is not None and not isinstance(scaling, (ScalingLaw, Studies)):
        scaling = fit_runs(scaling)
    wanted = _wanted(base, target_kv_heads, families)

    def _candidate(
        model: ModelShape, factor: SizeFactor | None = None, error: float = 0.0
    ) -> Candidate:
        results = base_steps if model is base else steps(model)
        return Candidate(
            model=model,
            size_factor=factor,
            parameters=count_parameters(model).total,
            size_error=error,
            variants={
                attention: _variant(result, base_steps[attention], target_step_s, price)
                for attention, result in results.items()
            },
        )

    first = _candidate(base)
    others = []
    table = None
    if isinstance(scaling, Studies):
        table = FactorTable.of(scaling)
    elif scaling is None and (families or FREED[scale_by] != "nothing"):
        table = shipped_factors()
    law = scaling if isinstance(scaling, ScalingLaw) else None
    factors = _factors(base, wanted, size_factors, law or table, FREED[scale_by])
    for number, factor in zip(wanted, factors, strict=True):
        scaled = scale_model(
            base,
            kv_heads=number,
            size_factor=factor.value,
            scale_by=scale_by,
            ranks=setup.tensor_parallel,
        )
        others.append(_candidate(scaled.model, factor, scaled.size_error))
    rates = base_steps["standard"].rates
    return Tradeoff(
        base=first,
        others=tuple(others),
        crossovers=tuple(
            crossover(
                base,
                other.model,
                rates,
                setup,
                work,
                most_samples=most_samples,
                longest_context_tokens=longest_context_tokens,
            )
            for other in others
        ),
        scaling=law,
        target_step_s=target_step_s,
    )


def fit_runs(training_runs: str | Path) -> ScalingLaw | Studies:
    """Fit one law to the runs of one set, and pool those of several.

    Raises
    ------
    MeasurementError
        As for ``fit_scaling_law`` and ``fit_studies``.
    """
    if are_one_set(read_training_runs(training_runs).rows):
        return fit_scaling_law(training_runs)
    return fit_studies(training_runs)


def _wanted(
    base: ModelShape, target_kv_heads: Sequence[int], families: Sequence[str]
) -> list[int | None]:
    """Return the KV heads of each model to compare with, None for a latent cache.

    Raises
    ------
    WorkloadError
        If a family is unknown, or a number is not one to compare with.
    """
    for name in families:
        if name not in FAMILIES:
            raise WorkloadError(unknown("family", name, FAMILIES))
    numbers = {"mqa": 1, "gqa": max(1, base.heads // GROUP_SIZE), "mla": None}
    wanted = [numbers[name] for name in families] or list(target_kv_heads)
    if not wanted:
        raise WorkloadError("no number of KV heads to compare with was given")
    for number in wanted:
        if number is None:
            continue
        if number < 1:
            raise WorkloadError(f"a model has at least 1 KV head, not {number}")
        if number == base.kv_heads:
            raise WorkloadError(
                f"{base.name} itself has kv_heads = {number}: compare it with another number, "
                f"or start from a model with more (kv_heads = {base.heads} makes it multi-head)"
            )
        if number > base.heads:
            raise WorkloadError(
                f"{number} KV heads are more than the {base.heads} heads of {base.name}"
            )
    return wanted


def _family(kv_heads: int | None, heads: int) -> str:
    """Return the family of a number of KV heads as training runs name it."""
    if kv_heads is None:
        return LATENT
    if kv_heads == heads:
        return REFERENCE
    return "multi-query" if kv_heads == 1 else "multi-group"


def _factors(
    base: ModelShape,
    wanted: Sequence[int | None],
    size_factors: Sequence[float],
    known: ScalingLaw | FactorTable | None,
    matched_by: Matching,
) -> list[SizeFactor]:
    """Return the size factor of each model to compare with; without data, the paper's.

    Raises
    ------
    SimulatorError
        If there is not one factor for each, or the data do not tell one.
    """
    if size_factors:
        if len(size_factors) != len(wanted):
            raise WorkloadError(
                f"{len(size_factors)} size factors for {len(wanted)} numbers of KV heads: "
                "give one for each"
            )
        return [given_factor(value) for value in size_factors]
    factors = []
    for number in wanted:
        if isinstance(known, FactorTable):
            family = _family(number, base.heads)
            factors.append(pooled_factor(known, base, family, matched_by))
        elif number is None:
            raise WorkloadError("runs of one set tell no factor of latent caches; give it")
        elif known is None:
            factors.append(paper_factor(base, number))
        else:
            factors.append(fitted_factor(known, base, number))
    return factors


def _variant(
    result: Estimate,
    base: Estimate,
    target_step_s: float | None,
    usd_per_hour: float | None,
) -> Contender:
    """Return prefill, limits, price and speed-up over the base for one variant."""
    prefill = step_time(
        prefill_operations(result.model, result.setup, result.workload),
        result.rates,
        result.setup.execution,
    )
    low, high = (
        (1.0, 1.0)
        if result is base
        else map(float, speedup_interval(base.uncertainty, result.uncertainty))
    )
    return Contender(
        result=result,
        prefill_s=float(prefill.total_s) if result.workload.context_tokens else 0.0,
        limits=capacity(result, target_step_s=target_step_s),
        usd_per_million_tokens=None
        if usd_per_hour is None
        else cost_per_million_tokens(usd_per_hour, result.tokens_per_s),
        speedup=base.step_s / result.step_s,
        speedup_low=low,
        speedup_high=high,
    )
