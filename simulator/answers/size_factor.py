"""How much larger a model of another family must be to be as good: F, and its source."""

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Literal

from simulator.answers.power_law import SHARED
from simulator.answers.scaling import LARGEST_LOGARITHM, ScalingLaw
from simulator.answers.studies import REFERENCE, PooledFactor
from simulator.errors import ModelError, WorkloadError
from simulator.inputs.csv_files import Matching
from simulator.inputs.model import ModelShape
from simulator.resources import PACKAGE

Origin = Literal["paper", "assumed", "fitted", "interpolated", "given", "studies"]
# Athiwaratkun et al., arXiv 2403.08845, sections 5.1 and 5.2: a multi-query model about 10 %
# larger is as good as a multi-head one, and F = 1.1 in the study of latency.
PAPER_SIZE_FACTOR = 1.10
PAPER = "Athiwaratkun et al., arXiv 2403.08845, sections 5.1 and 5.2"
# A factor outside these is a typing error.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.2, 5.0
# Positions between multi-head and multi-query that differ by less than this are the same.
SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class SizeFactor:
    """Parameters of one model over those of another of equal loss.

    Attributes
    ----------
    low, high
        Ends of the 95 % interval, None where it is unknown.
    origin
        ``paper``; ``assumed`` between the paper's two ends; ``fitted`` to training runs;
        ``interpolated`` between fitted families; ``given`` by the user; ``studies``, the mean over
        papers.
    source
        The same in words.
    """

    value: float
    low: float | None = None
    high: float | None = None
    origin: Origin
    source: str


def given_factor(value: float) -> SizeFactor:
    """Return a factor that the user gives.

    Raises
    ------
    WorkloadError
        If the factor is implausible.
    """
    if not SMALLEST_FACTOR <= value <= LARGEST_FACTOR:
        raise WorkloadError(
            f"size_factor = {value:g} is not between {SMALLEST_FACTOR:g} and {LARGEST_FACTOR:g}; "
            f"a multi-query model {PAPER_SIZE_FACTOR:.2f} times as large is as good, by the paper"
        )
    return SizeFactor(value=value, origin="given", source="given by the user")


def paper_factor(base: ModelShape, form: ModelShape) -> SizeFactor:
    """Return the factor by the paper's two ends, 1 for multi-head and 1.10 for multi-query.

    Between them, ln F is assumed to grow by the same amount with each halving of the KV heads.

    Raises
    ------
    ModelError
        If the other model differs in more than KV heads.

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> llama = load_model("llama-2-7b")
    >>> [round(paper_factor(llama, llama.but(kv_heads=g)).value, 3) for g in (32, 8, 1)]
    [1.0, 1.039, 1.1]
    """
    if family_of(form) not in _BY_HEADS:
        raise ModelError(f"the paper has no size factor of {family_of(form)}; give it")
    start, end = position(base), position(form)
    value = PAPER_SIZE_FACTOR ** (end - start)
    if {round(start, 9), round(end, 9)} <= {0.0, 1.0}:
        return SizeFactor(value=value, origin="paper", source=PAPER)
    return SizeFactor(
        value=value,
        origin="assumed",
        source=f"assumed between the ends of {PAPER}: "
        "ln F grows by the same amount with each halving of the KV heads",
    )


def fitted_factor(scaling: ScalingLaw, base: ModelShape, form: ModelShape) -> SizeFactor:
    """Return the factor by a fitted law; ln F is interpolated between its families.

    Parameters
    ----------
    scaling
        The law.
    base, form
        The model to match, and it with the other's attention.

    Raises
    ------
    ModelError
        If either is of no family fitted, nor between two of them by its KV heads.
    """
    import numpy as np

    start, end = _weights(scaling, base), _weights(scaling, form)
    difference = [ours - theirs for ours, theirs in zip(end, start, strict=True)]
    pairs = zip(difference, scaling.law.shifts, strict=True)
    shift = sum(weight * float(value) for weight, value in pairs)
    # The reference has a shift of 0, known exactly.
    vector, shifts = np.array(difference[1:]), slice(SHARED, SHARED + len(difference) - 1)
    variance = float(vector @ scaling.law.covariance[shifts, shifts] @ vector)
    error = scaling.law.quantile * math.sqrt(max(0.0, variance))
    between = any(SAME < weight < 1 - SAME for weight in (*start, *end))
    return SizeFactor(
        value=math.exp(shift),
        low=math.exp(max(shift - error, -LARGEST_LOGARITHM)),
        high=math.exp(min(shift + error, LARGEST_LOGARITHM)),
        origin="interpolated" if between else "fitted",
        source=f"{'between families ' if between else ''}fitted to the runs of {scaling.source}",
    )


@dataclass(frozen=True, kw_only=True)
class FactorTable:
    """Size factors over multi-head, pooled over papers.

    Attributes
    ----------
    source
        Where they are from, in words.
    """

    factors: tuple[PooledFactor, ...]
    source: str


@cache
def shipped_factors() -> FactorTable:
    """Read the shipped table once; ``tools/size_factors.py`` makes it from public runs."""
    text = (PACKAGE / "answers" / "size_factors.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return FactorTable(
        factors=tuple(PooledFactor(**{"kv_share": None, **row}) for row in table["factors"]),
        source="pooled over published runs (size_factors.toml)",
    )


# Families that KV heads alone tell apart, as training runs name them.
_BY_HEADS = {REFERENCE: "MHA", "multi-group": "GQA", "multi-query": "MQA"}


def family_of(model: ModelShape) -> str:
    """Return the family of a model as training runs name it.

    >>> from simulator.answers.scaled import FAMILIES
    >>> from simulator.inputs.presets import load_model
    >>> [family_of(form(load_model("llama-2-7b"))) for form in FAMILIES.values()]
    ['multi-query', 'multi-group', 'MLA', 'GLA-2', 'MQA-CLA2', 'YOCO']
    """
    if model.latent is not None:
        return "MLA" if model.latent.groups == 1 else f"GLA-{model.latent.groups}"
    kept = sum(group.count for group in model.layer_groups if group.kv != "earlier")
    if kept == model.layers or model.family not in _BY_HEADS:
        return model.family
    if any(group.window for group in model.layer_groups):
        return "YOCO"
    number = model.kv_heads if model.family == "multi-group" else ""
    return f"{_BY_HEADS[model.family]}{number}-CLA{round(model.layers / kept)}"


def pooled_factor(
    table: FactorTable, base: ModelShape, form: ModelShape, matched_by: Matching
) -> SizeFactor:
    """Return the factor of a family, for parameters that its smaller cache frees put there.

    If the base is not multi-head, it is the quotient of two factors, as if their errors had nothing
    in common, so that its interval is too wide rather than too narrow. Groups of different numbers
    are one family: between them, ln F is assumed to be a part of multi-query's, as for
    :func:`paper_factor`.

    Parameters
    ----------
    table
        The factors.
    base, form
        The model to match, and it with the other's attention.
    matched_by
        Where the parameters go.

    Raises
    ------
    ModelError
        If the table has no such family.
    """
    own, family = family_of(base), family_of(form)
    what = family
    origin: Origin = "studies"
    # The weights of families in ln F: the other's less the base's, where neither is the reference.
    weights = {name: weight for name, weight in ((family, 1.0), (own, -1.0)) if name != REFERENCE}
    if own == family == "multi-group":
        weights, origin = {"multi-query": position(form) - position(base)}, "assumed"
        what = "assumed: a part of multi-query's ln F, the same for each halving of the KV heads"
    elif own != REFERENCE:
        what = f"{family} over {own}"
    terms = [(weight, _pooled(table, name, matched_by)) for name, weight in weights.items()]
    shift = sum(weight * math.log(each.size_factor) for weight, each in terms)
    reach = math.hypot(*(weight * math.log(each.high / each.low) / 2 for weight, each in terms))
    papers = sorted({paper for _, each in terms for paper in each.papers})
    return SizeFactor(
        value=math.exp(shift),
        low=math.exp(shift - reach),
        high=math.exp(shift + reach),
        origin=origin,
        source=f"{what}, {_FREED[matched_by]}: {', '.join(papers)}, {table.source}",
    )


_FREED = {
    "mlp": "freed parameters in the MLP",
    "heads": "freed parameters in query heads",
    "nothing": "nothing put back",
    "unknown": "freed parameters unknown",
}


def _pooled(table: FactorTable, family: str, matched_by: Matching) -> PooledFactor:
    """Find a family in a table."""
    for factor in table.factors:
        if (factor.family, factor.matched_by) == (family, matched_by):
            return factor
    others = " or ".join(_FREED[each.matched_by] for each in table.factors if each.family == family)
    raise ModelError(
        f"no size factor of {family} with {_FREED[matched_by]} is {table.source}"
        f"{f' (but with {others})' if others else ''}; give the size factor"
    )


def position(model: ModelShape) -> float:
    """Return where a model's KV heads lie between multi-head (0) and multi-query (1)."""
    if model.heads == 1:
        return 0.0
    return math.log(model.heads / model.kv_heads) / math.log(model.heads)


def _weights(scaling: ScalingLaw, model: ModelShape) -> list[float]:
    """Return the interpolation weights of the families: only the two nearest have any."""
    wanted, family = position(model), family_of(model)
    by_heads = family in _BY_HEADS
    places = [law.family.position(model.heads) for law in scaling.laws]
    weights = [0.0] * len(places)
    for index, (place, law) in enumerate(zip(places, scaling.laws, strict=True)):
        if law.family.name == family or (by_heads and abs(place - wanted) < SAME):
            weights[index] = 1.0
            return weights
    below = [index for index, place in enumerate(places) if place < wanted]
    above = [index for index, place in enumerate(places) if wanted < place < math.inf]
    if not (below and above and by_heads):
        names = ", ".join(law.family.name for law in scaling.laws)
        sides = f"on both sides of {model.kv_heads} KV heads of {model.heads}"
        raise ModelError(
            f"{scaling.source} has no runs {sides if by_heads else f'of {family}'} "
            f"(families fitted: {names}); give the size factor"
        )
    first = max(below, key=lambda index: places[index])
    second = min(above, key=lambda index: places[index])
    share = (wanted - places[first]) / (places[second] - places[first])
    weights[first], weights[second] = 1 - share, share
    return weights
