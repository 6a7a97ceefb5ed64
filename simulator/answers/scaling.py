"""Scaling laws of multi-head, multi-group and multi-query models, fitted to training runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.answers.answer import Answer
from simulator.answers.power_law import SHARED, PowerLaw, fit_power_law
from simulator.errors import MeasurementError
from simulator.inputs.csv_files import (
    Family,
    RefusedRow,
    Rows,
    TrainingRun,
    are_one_law,
    families_of,
    read_training_runs,
)
from simulator.numeric import Array

# Fewer sizes do not show a family's curve.
LEAST_SIZES = 3
# A size factor changes with size if it moves by this many half widths of a 95 % interval, which
# happens by chance in about one of a hundred fits.
DRIFT_DOUBT = 1.4
# A change of ln F per tenfold size that is too small to report.
LEAST_DRIFT = 0.005
# Beyond it exp() overflows.
LARGEST_LOGARITHM = 700.0


@dataclass(frozen=True, kw_only=True)
class FamilyLaw:
    """The fit's result for one family.

    Attributes
    ----------
    runs, sizes
        Runs, and distinct numbers of parameters among them.
    size_factor
        F: parameters at equal loss over those of the reference family.
    stderr, low, high
        Its standard error, and the ends of its 95 % interval; the reference's equal its F.
    """

    family: Family
    runs: int
    sizes: int
    size_factor: float
    stderr: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class HeldOutRun:
    """A run of the largest size, predicted from the smaller ones.

    Attributes
    ----------
    run, family
        The run, and the name of its family.
    predicted
        Its loss by the law of the others.
    """

    run: TrainingRun
    family: str
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over observed loss, minus 1."""
        return self.predicted / self.run.loss - 1


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ScalingLaw(Answer):
    """One power law for all families, and how well it holds.

    Attributes
    ----------
    law
        Its constants, errors and residuals, in the order of ``runs``.
    runs, families
        The runs fitted, and each run's family as an index into ``laws``.
    laws
        The families: the reference first, then by decreasing number of KV heads.
    held_out
        The largest model of each family; None if the other runs are too few for a fit.
    notes
        What was left out and what the runs cannot tell, one sentence each.
    """

    source: str
    law: PowerLaw
    runs: tuple[TrainingRun, ...]
    families: tuple[int, ...]
    laws: tuple[FamilyLaw, ...]
    held_out: tuple[HeldOutRun, ...] | None
    refused: tuple[RefusedRow, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> FamilyLaw:
        """The family whose size factor is 1."""
        return self.laws[0]


def fit_scaling_law(training_runs: str | Path) -> ScalingLaw:
    """Fit one law to the runs of all families with enough sizes.

    Parameters
    ----------
    training_runs
        A CSV file; see :func:`~simulator.inputs.csv_files.read_training_runs`.

    Raises
    ------
    MeasurementError
        If the file cannot be read, its runs are not of one set or too few, or scipy is missing.
    """
    table = read_training_runs(training_runs)
    if not are_one_law(table.rows):
        raise MeasurementError(
            f"{table.path}: runs that differ in study or metric, or in tokens that follow from the "
            "size, are not one law; 'bifurcate scaling' and fit_studies() compare them set by set"
        )
    kept, order, notes = _kept(table)
    runs = [run for run, _ in kept]
    numbers = [order.index(family) for _, family in kept]
    law = _fit(runs, numbers)
    laws = tuple(
        _family_law(law, number, family, [run for run, of in kept if of == family])
        for number, family in enumerate(order)
    )
    held_out = _hold_out(kept, numbers)
    if held_out is None:
        notes.append(
            "The largest sizes were not held out: without them there are too few runs for a fit."
        )
    notes += _doubts(law, laws, runs)
    return ScalingLaw(
        source=table.path,
        law=law,
        runs=tuple(runs),
        families=tuple(numbers),
        laws=laws,
        held_out=held_out,
        refused=table.refused,
        notes=tuple(notes),
    )


def _kept(
    table: Rows[TrainingRun],
) -> tuple[list[tuple[TrainingRun, Family]], list[Family], list[str]]:
    """Return the runs of families with enough sizes, the families in order, and those left out.

    Raises
    ------
    MeasurementError
        If no family is left, or the reference is not among them.
    """
    pairs = list(zip(table.rows, families_of(table.rows), strict=True))
    # One number of heads for all, because only the order matters here.
    heads = max(run.heads or run.kv_heads or run.group_size or 1 for run in table.rows)
    order = sorted({family for _, family in pairs}, key=lambda item: item.position(heads))
    sizes = {family: len({run.parameters for run, of in pairs if of == family}) for family in order}
    few = [family for family in order if sizes[family] < LEAST_SIZES]
    lines = [f"{family.name}: {sizes[family]} of at least {LEAST_SIZES} sizes" for family in few]
    if order[0] in few:
        raise MeasurementError(
            f"{table.path}: too few sizes in the family that others are compared with "
            f"({'; '.join(lines)}); where models of one family differ in heads, "
            "columns kv_heads and heads say which belong together"
        )
    kept = [(run, family) for run, family in pairs if family not in few]
    left_out = [f"Left out, too few sizes: {line}." for line in lines]
    return kept, [family for family in order if family not in few], left_out


def _fit(runs: Sequence[TrainingRun], numbers: Sequence[int]) -> PowerLaw:
    """Fit the law to runs of numbered families, a joint one if they differ in tokens."""
    import numpy as np

    tokens = [run.tokens or 0.0 for run in runs]
    return fit_power_law(
        np.array([run.parameters for run in runs]),
        np.array([run.loss for run in runs]),
        np.array(numbers),
        tokens=np.array(tokens) if len(set(tokens)) > 1 else None,
    )


def _family_law(law: PowerLaw, number: int, family: Family, runs: list[TrainingRun]) -> FamilyLaw:
    """Return a family's size factor and its interval, symmetric in the logarithm."""
    import numpy as np

    shift = float(law.shifts[number])
    error = 0.0 if number == 0 else float(law.stderr[SHARED + number - 1])
    return FamilyLaw(
        family=family,
        runs=len(runs),
        sizes=len({run.parameters for run in runs}),
        size_factor=float(np.exp(shift)),
        stderr=float(np.exp(shift)) * error,
        low=float(np.exp(max(shift - law.quantile * error, -LARGEST_LOGARITHM))),
        high=float(np.exp(min(shift + law.quantile * error, LARGEST_LOGARITHM))),
    )


def _hold_out(
    kept: Sequence[tuple[TrainingRun, Family]], numbers: Sequence[int]
) -> tuple[HeldOutRun, ...] | None:
    """Predict the largest model of each family from all smaller ones."""
    largest = {of: max(run.parameters for run, other in kept if other == of) for _, of in kept}
    numbered = list(zip(kept, numbers, strict=True))
    rest = [(run, at) for (run, of), at in numbered if run.parameters != largest[of]]
    if len({run.tokens for run, _ in rest}) == 1 < len({run.tokens for run, _ in kept}):
        return None
    try:
        law = _fit([run for run, _ in rest], [at for _, at in rest])
    except MeasurementError:
        return None
    return tuple(
        HeldOutRun(
            run=run, family=of.name, predicted=float(law.loss(run.parameters, at, run.tokens))
        )
        for (run, of), at in numbered
        if run.parameters == largest[of]
    )


def _doubts(law: PowerLaw, laws: Sequence[FamilyLaw], runs: Sequence[TrainingRun]) -> list[str]:
    """Say what the fit cannot tell, and which runs are outliers."""
    doubts = []
    if law.irreducible_loss == 0:
        doubts.append("The irreducible loss came out as 0: these sizes do not show where it is.")
    elif law.stderr[0] > law.irreducible_loss / 2:
        doubts.append(
            f"The irreducible loss, {law.irreducible_loss:.3g}, is not known to better than "
            f"{law.stderr[0]:.2g}: a wider range of sizes would tell."
        )
    if law.token_exponent is not None and law.token_exponent_stderr is None:
        doubts.append(
            f"Two numbers of tokens do not tell their exponent: β = {law.token_exponent:g} is that "
            "of Hoffmann et al., arXiv 2203.15556 (recalled)."
        )
    for law_of, drift, error in zip(laws, law.drifts, law.drift_errors, strict=True):
        if abs(drift) > max(LEAST_DRIFT, DRIFT_DOUBT * law.quantile * error) and error:
            doubts.append(
                f"F of {law_of.family.name} seems to change with size, by a factor of "
                f"{math.exp(drift):.3f} for each tenfold: one F does not do for all sizes."
            )
    far = [str(run.line) for run, is_far in zip(runs, law.outliers, strict=True) if is_far]
    if far:
        doubts.append(
            f"Far off the law, and therefore without weight in it: "
            f"{'line' if len(far) == 1 else 'lines'} {', '.join(far)}."
        )
    return doubts


def predicted_losses(fitted: ScalingLaw) -> Array:
    """Return the law's loss at each run."""
    import numpy as np

    parameters, tokens = np.array([(run.parameters, run.tokens or 0) for run in fitted.runs]).T
    joint = None if fitted.law.center_tokens is None else tokens
    return np.asarray(fitted.law.loss(parameters, np.array(fitted.families), joint))
