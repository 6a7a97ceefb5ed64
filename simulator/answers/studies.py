"""Size factors of families over many studies: one law per paper, pooled with their heterogeneity.

Runs of one study, metric and number of tokens are a set. Within a set, near the sizes trained,

    ln L = level of the set - beta ln N + d_f

beta is the paper's exponent, and d_f what a family changes in ln L at equal size, so its size
factor is F = exp(d_f / beta). The law is a straight line in logarithms, because few public studies
have the sizes that an irreducible loss needs; beta is the slope at their sizes. Sets of a paper
that differ in tokens keep levels of their own. Where these have models of one size and family,
such pairs tell the exponent of tokens, -d ln L / d ln D: gamma.

Families of different papers are pooled by random effects (DerSimonian and Laird 1986; one variance
between papers for all families, as for subgroups in Borenstein et al. 2009, chapter 19; both
recalled).
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from simulator.answers.answer import Answer
from simulator.answers.power_law import CONFIDENCE, LEAST_SPREAD, import_scipy
from simulator.answers.scaling import HeldOutRun
from simulator.errors import MeasurementError
from simulator.inputs.csv_files import (
    Matching,
    RefusedRow,
    TrainingRun,
    families_of,
    family_name,
    read_training_runs,
)
from simulator.numeric import Array

Item = TypeVar("Item")
Shared = TypeVar("Shared")
REFERENCE = "multi-head"
# Sizes that a set must have for its slope to count.
LEAST_SIZES = 3
# A paper with fewer degrees of freedom takes the scatter of all runs for its own.
LEAST_SPARE = 5
# Models whose parameters differ by less than this factor are of one size.
SAME_SIZE = 1.25


@dataclass(frozen=True)
class Exponent:
    """The slopes of ln L in ln N, and in ln D, of a paper.

    Attributes
    ----------
    value
        -d ln L / d ln N.
    stderr
        Its standard error; where it is pooled, with the differences between papers.
    own
        Whether the paper's own sizes tell it; else it is pooled from papers whose do.
    of_tokens, of_tokens_stderr
        -d ln L / d ln D at equal size, None unless the paper has models of one size and family
        after different numbers of tokens.
    """

    paper: str
    value: float
    stderr: float
    own: bool
    of_tokens: float | None = None
    of_tokens_stderr: float | None = None


class Key(NamedTuple):
    """A family, and where the parameters that its smaller cache frees went."""

    family: str
    matched_by: Matching


@dataclass(frozen=True, kw_only=True)
class StudyEffect:
    """What one paper says of one family.

    Attributes
    ----------
    lines
        Lines of its runs in the file.
    exponent
        The paper's.
    cell_loss, cell_size
        What the family changes in ln L and in ln N, against multi-head's runs of the same cells.
    variance
        That of ``cell_loss``, for runs that scatter by 1.
    spread
        How much ln L scatters from run to run.
    kv_share
        KV bytes per token and layer over multi-head's, None if its runs do not tell.
    """

    key: Key
    lines: tuple[int, ...]
    exponent: Exponent
    cell_loss: float
    cell_size: float
    variance: float
    spread: float = 1.0
    kv_share: float | None

    @property
    def paper(self) -> str:
        """The paper."""
        return self.exponent.paper

    @property
    def runs(self) -> int:
        """Number of its runs."""
        return len(self.lines)

    @property
    def log_factor(self) -> float:
        """Logarithm of F against multi-head."""
        return self.cell_loss / self.exponent.value + self.cell_size

    @property
    def log_factor_stderr(self) -> float:
        """Its standard error."""
        slope, doubt = self.exponent.value, self.exponent.stderr
        of_runs = self.spread * math.sqrt(self.variance)
        return math.hypot(of_runs / slope, self.cell_loss * doubt / slope**2)

    @property
    def log_loss(self) -> float:
        """d_f: ln of loss over multi-head's at equal size."""
        return self.cell_loss + self.exponent.value * self.cell_size

    @property
    def log_loss_stderr(self) -> float:
        """Its standard error."""
        of_runs = self.spread * math.sqrt(self.variance)
        return math.hypot(of_runs, self.cell_size * self.exponent.stderr)


@dataclass(frozen=True, kw_only=True)
class PooledFactor:
    """What all papers together say of one family.

    Attributes
    ----------
    papers
        Each paper's own F.
    runs, lines
        Runs of the family, in all papers, and their lines in the file.
    size_factor, low, high
        F against multi-head, the mean over papers, and its 95 % interval.
    loss_change, loss_low, loss_high
        Loss over multi-head's at equal size, minus 1, and its 95 % interval.
    kv_share
        As for :class:`StudyEffect`, the geometric mean over papers.
    """

    family: str
    matched_by: Matching
    papers: Mapping[str, float]
    runs: int
    lines: Sequence[int]
    size_factor: float
    low: float
    high: float
    loss_change: float
    loss_low: float
    loss_high: float
    kv_share: float | None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A paper's size factor of one family, predicted from all other papers.

    Attributes
    ----------
    low, high
        The 95 % interval of the prediction, with the paper's own error.
    """

    paper: str
    family: str
    matched_by: Matching
    size_factor: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Predicted over the paper's own factor, minus 1."""
        return self.predicted / self.size_factor - 1

    @property
    def inside(self) -> bool:
        """Whether the interval holds the paper's own factor."""
        return self.low <= self.size_factor <= self.high


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Effects of each paper, and how they differ.

    Attributes
    ----------
    run_spread
        Standard deviation of ln L from run to run, over all papers; a paper with enough runs has
        its own.
    between, between_loss
        Standard deviation of ln F, and of ln of loss at equal size, between papers.
    inconsistency
        I^2: the share of the variance of ln F over papers that runs' errors do not explain.
    spare
        Effects beyond the first of each family.
    quantile
        Half width of a 95 % interval in standard errors (Student's t).
    """

    exponents: tuple[Exponent, ...]
    effects: tuple[StudyEffect, ...]
    run_spread: float
    between: float
    between_loss: float
    inconsistency: float
    spare: int
    quantile: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Studies(Answer, Fit):
    """Size factors of all families over multi-head, from many studies.

    Attributes
    ----------
    sets
        Number of sets: runs that share study, metric and tokens.
    held_out
        The models of the largest size of every set with three, predicted from the smaller ones.
    left_out
        Each factor that another paper has too, predicted without its paper.
    """

    source: str
    runs: int
    sets: int
    factors: tuple[PooledFactor, ...]
    held_out: tuple[HeldOutRun, ...]
    left_out: tuple[LeftOut, ...]
    refused: tuple[RefusedRow, ...]
    notes: tuple[str, ...]

    @property
    def median_error(self) -> float:
        """The median size of the errors of ``left_out``."""
        from statistics import median

        return median(abs(left.error) for left in self.left_out)


def fit_studies(training_runs: str | Path) -> Studies:
    """Fit a law to each paper's runs, and pool the size factors of their families.

    Parameters
    ----------
    training_runs
        A CSV file; see :func:`~simulator.inputs.csv_files.read_training_runs`. It must have the
        multi-head runs that others are compared with.

    Raises
    ------
    MeasurementError
        If the file cannot be read, no set has three sizes, or scipy is missing.
    """
    table = read_training_runs(training_runs)
    runs = _labelled(table.rows)
    fit = _fit(runs, table.path)
    return Studies(
        **vars(fit),
        source=table.path,
        runs=len(runs),
        sets=len({run.set for run in runs}),
        factors=_pool(fit),
        held_out=tuple(_hold_out(runs)),
        left_out=_leave_out(runs, fit, table.path),
        refused=table.refused,
        notes=tuple(_notes(runs, fit)),
    )


class _Run(NamedTuple):
    """A run with its family's name, and the number of its size within its set."""

    run: TrainingRun
    family: str
    size: int

    @property
    def set(self) -> tuple[str, str, float | None]:
        """Its set."""
        return self.run.set

    @property
    def cell(self) -> tuple[object, ...]:
        """What it shares with the runs that it is compared with directly."""
        return (*self.run.set, self.size)


def _grouped(items: Iterable[Item], shared: Callable[[Item], Shared]) -> dict[Shared, list[Item]]:
    """Return items by what they share, in the order of the first of each."""
    groups: dict[Shared, list[Item]] = {}
    for item in items:
        groups.setdefault(shared(item), []).append(item)
    return groups


def _labelled(rows: Sequence[TrainingRun]) -> list[_Run]:
    """Name the family of every run, and number its size.

    A head width that the paper's multi-head model shares (``H128-``) is no part of the name, and
    named groups of any number are one family, so that papers have it in common.
    """
    labelled = []
    for of_paper in _grouped(rows, lambda run: run.paper).values():
        heads = [re.fullmatch(r"(H\d+-)MHA", run.family or "") for run in of_paper]
        prefix = next((match[1] for match in heads if match), "")
        named = [
            (run, family_name(run.family.removeprefix(prefix)) if run.family else family.name)
            for run, family in zip(of_paper, families_of(of_paper), strict=True)
        ]
        for inside in _grouped(named, lambda pair: pair[0].set).values():
            inside.sort(key=lambda pair: pair[0].parameters)
            sizes = _numbered([run.parameters for run, _ in inside])
            labelled += [_Run(*pair, size) for pair, size in zip(inside, sizes, strict=True)]
    return labelled


def _numbered(parameters: Sequence[float]) -> list[int]:
    """Return the numbers of ascending sizes, the same for those within ``SAME_SIZE`` of another.

    >>> _numbered([100, 110, 200])
    [0, 0, 1]
    """
    steps = (larger > SAME_SIZE * smaller for smaller, larger in pairwise(parameters))
    return list(accumulate(steps, initial=0))


def _fit(runs: Sequence[_Run], source: str) -> Fit:
    """Fit exponents and effects of every paper.

    Raises
    ------
    MeasurementError
        If no paper tells an exponent, or no runs can be compared.
    """
    _, stats = import_scipy()
    papers = _grouped(runs, lambda item: item.run.paper)
    exponents = _exponents(papers, source)
    blocks = [
        block
        for exponent in exponents
        for own in _grouped(papers[exponent.paper], lambda item: item.run.matched_by).values()
        if (block := _block(own, exponent)) is not None
    ]
    freedom = sum(block.spare for block in blocks)
    if not freedom:
        raise MeasurementError(
            f"{source}: no family but {REFERENCE} has two sizes, so runs do not tell how much "
            "they scatter"
        )
    spread = _run_spread(blocks)
    effects = []
    for own in _grouped(blocks, lambda block: block.effects[0].paper).values():
        enough = sum(block.spare for block in own) >= LEAST_SPARE
        of_paper = _run_spread(own) if enough else spread
        effects += [replace(effect, spread=of_paper) for block in own for effect in block.effects]
    families = _grouped(effects, lambda effect: effect.key).values()
    between, inconsistency, spare = _between([_of(own, "log_factor") for own in families])
    between_loss, *_ = _between([_of(own, "log_loss") for own in families])
    return Fit(
        exponents=tuple(exponents),
        effects=tuple(effects),
        run_spread=spread,
        between=between,
        between_loss=between_loss,
        inconsistency=inconsistency,
        spare=spare,
        quantile=float(stats.t.ppf(0.5 + CONFIDENCE / 2, spare or freedom)),
    )


def _run_spread(blocks: "Sequence[_Block]") -> float:
    """Return how much ln L scatters from run to run, by the residuals of blocks."""
    squares = sum(block.squares for block in blocks)
    return max(LEAST_SPREAD, math.sqrt(squares / sum(block.spare for block in blocks)))


def _exponents(papers: Mapping[str, Sequence[_Run]], source: str) -> list[Exponent]:
    """Return each paper's exponent: its own if it has a set of three sizes, else the pooled one.

    Raises
    ------
    MeasurementError
        If no paper has one.
    """
    own = {}
    for paper, runs in papers.items():
        sets = _grouped(runs, lambda item: item.set).values()
        enough = [of_set for of_set in sets if len({item.size for item in of_set}) >= LEAST_SIZES]
        found = _slope([item for of_set in enough for item in of_set])
        if found is not None:
            own[paper] = found
    if not own:
        raise MeasurementError(
            f"{source}: no set has {LEAST_SIZES} sizes of one number of tokens and a loss that "
            "falls with size: there is no exponent (where the size of a model sets its tokens, "
            "leave out the column tokens: F is then of models whose tokens grow with them)"
        )
    between, *_ = _between([list(own.values())])
    mean, error = _mean(list(own.values()), between)
    exponents = []
    for paper, runs in papers.items():
        value, doubt = own.get(paper, (mean, math.hypot(error, between)))
        of_tokens = _of_tokens(runs, value)
        exponents.append(Exponent(paper, value, doubt, paper in own, *of_tokens))
    return exponents


def _of_tokens(runs: Sequence[_Run], exponent: float) -> tuple[float | None, float | None]:
    """Return a paper's exponent of tokens and its standard error, None if runs do not tell.

    By models alike in metric, family, matching and, within ``SAME_SIZE``, size. Small differences
    in size are taken out with the exponent of size.
    """
    import numpy as np

    known = sorted((item for item in runs if item.run.tokens), key=lambda item: item.run.parameters)
    if not known:
        return None, None
    sizes = _numbered([item.run.parameters for item in known])
    alike = [
        (item.run.metric, item.family, item.run.matched_by, size)
        for item, size in zip(known, sizes, strict=True)
    ]
    groups = _members(alike, dict.fromkeys(alike))
    apart = np.eye(len(known)) - groups @ np.linalg.pinv(groups)
    log_tokens = apart @ np.log([item.run.tokens or 1.0 for item in known])
    both = np.log([[item.run.loss, item.run.parameters] for item in known])
    losses = apart @ both @ [1.0, exponent]
    spread = float(log_tokens @ log_tokens)
    spare = len(known) - len(set(alike)) - 1
    if spread < LEAST_SPREAD or spare < 1:
        return None, None
    slope = float(log_tokens @ losses) / spread
    rest = losses - slope * log_tokens
    return -slope, max(LEAST_SPREAD, math.sqrt(float(rest @ rest) / spare / spread))


def _slope(runs: Sequence[_Run]) -> tuple[float, float] | None:
    """Return the exponent of one paper's sets and its standard error, None if runs do not tell.

    Each size counts once: what its families share does not average out over them.
    """
    import numpy as np

    if not runs:
        return None
    design, _ = _design(runs, [(*item.set,) for item in runs])
    sizes = np.log([item.run.parameters for item in runs])
    design = np.column_stack([design, -sizes])
    losses = np.log([item.run.loss for item in runs])
    solution, residuals, inverse = _least_squares(design, losses)
    # Errors that the runs of one size share: the sandwich over cells, for few clusters.
    cells = dict.fromkeys(item.cell for item in runs)
    pulls = _members([item.cell for item in runs], cells).T @ (design * residuals[:, None])
    levels = len({item.set for item in runs}) + 1
    if len(cells) <= levels:
        return None
    sandwich = inverse @ pulls.T @ pulls @ inverse * len(cells) / (len(cells) - levels)
    value = float(solution[-1])
    error = max(LEAST_SPREAD, math.sqrt(float(sandwich[-1, -1])))
    return (value, error) if value > 0 else None


def _design(runs: Sequence[_Run], levels: Sequence[tuple[object, ...]]) -> tuple[Array, list[str]]:
    """Return columns of 0 and 1: one for each level, and one for each family but multi-head."""
    import numpy as np

    families = [name for name in dict.fromkeys(item.family for item in runs) if name != REFERENCE]
    of_levels = _members(levels, dict.fromkeys(levels))
    return np.hstack([of_levels, _members([item.family for item in runs], families)]), families


def _least_squares(design: Array, targets: Array) -> tuple[Array, Array, Array]:
    """Return the solution, what it leaves, and the inverse of the normal equations."""
    import numpy as np

    inverse = np.linalg.pinv(design.T @ design)
    solution = inverse @ design.T @ targets
    return solution, targets - design @ solution, inverse


def _members(values: Sequence[object], groups: Iterable[object]) -> Array:
    """Return columns of 0 and 1: which values are of each group."""
    import numpy as np

    return np.array([[value == group for value in values] for group in groups], dtype=float).T


class _Block(NamedTuple):
    """Runs of one paper and one way of matching, fitted with a level for each size of a set.

    ``squares`` is the sum of squared residuals of ln L at equal size, ``spare`` their degrees of
    freedom.
    """

    effects: list[StudyEffect]
    squares: float
    spare: int


def _block(runs: Sequence[_Run], exponent: Exponent) -> _Block | None:
    """Fit runs of a paper that are matched alike; None if they have nothing to compare with."""
    import numpy as np

    own = _connected(runs)
    if not own:
        return None
    design, families = _design(own, [item.cell for item in own])
    both = np.log([[item.run.loss, item.run.parameters] for item in own])
    solution, rest, inverse = _least_squares(design, both)
    residuals = rest @ np.array([1.0, exponent.value])
    effects = []
    for column, name in enumerate(families, start=len(solution) - len(families)):
        of_family = [item for item in own if item.family == name]
        loss, size = solution[column].tolist()
        effects.append(
            StudyEffect(
                key=Key(name, of_family[0].run.matched_by),
                lines=tuple(sorted(item.run.line for item in of_family)),
                exponent=exponent,
                cell_loss=loss,
                cell_size=size,
                variance=float(inverse[column, column]),
                kv_share=_geometric(_kv_share(item, own) for item in of_family),
            )
        )
    spare = len(own) - int(np.linalg.matrix_rank(design))
    return _Block(effects, float(residuals @ residuals), spare)


def _connected(runs: Sequence[_Run]) -> list[_Run]:
    """Return the runs that a chain of common families and cells joins to multi-head's."""
    families, cells = {REFERENCE}, set[tuple[object, ...]]()
    while True:
        cells_now = {item.cell for item in runs if item.family in families}
        families_now = families | {item.family for item in runs if item.cell in cells_now}
        if (cells_now, families_now) == (cells, families):
            return [item for item in runs if item.cell in cells] if len(families) > 1 else []
        families, cells = families_now, cells_now


def _kv_share(item: _Run, runs: Sequence[_Run]) -> float | None:
    """Return a run's KV bytes over those of multi-head of the same cell.

    By the rows' own figures, else by KV heads; a multi-head model of fewer heads has wider or
    narrower ones, so that its heads do not tell.
    """
    same = [each.run for each in runs if each.cell == item.cell and each.family == REFERENCE]
    if not same:
        return None
    ours, theirs = item.run, same[0]
    if ours.kv_bytes_per_token_layer and theirs.kv_bytes_per_token_layer:
        return ours.kv_bytes_per_token_layer / theirs.kv_bytes_per_token_layer
    if ours.kv_heads and theirs.kv_heads and ours.kv_heads != ours.heads:
        return ours.kv_heads / theirs.kv_heads
    return None


def _geometric(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the values that are known, None if none is."""
    known = [math.log(value) for value in values if value is not None]
    return math.exp(sum(known) / len(known)) if known else None


def _of(effects: Sequence[StudyEffect], what: str) -> list[tuple[float, float]]:
    """Return a figure of effects, each with its standard error."""
    return [(getattr(effect, what), getattr(effect, f"{what}_stderr")) for effect in effects]


def _between(families: Iterable[Sequence[tuple[float, float]]]) -> tuple[float, float, int]:
    """Return the standard deviation between papers, I^2, and the degrees of freedom.

    Parameters
    ----------
    families
        For each: every paper's value and its standard error.
    """
    total, freedom, scale = 0.0, 0, 0.0
    for values in families:
        weights = [1 / error**2 for _, error in values]
        mean, _ = _mean(values, 0.0)
        total += sum(w * (v - mean) ** 2 for w, (v, _) in zip(weights, values, strict=True))
        scale += sum(weights) - sum(w**2 for w in weights) / sum(weights)
        freedom += len(values) - 1
    if not freedom:
        return 0.0, 0.0, 0
    excess = max(0.0, total - freedom)
    return math.sqrt(excess / scale), excess / total if total else 0.0, freedom


def _mean(values: Sequence[tuple[float, float]], between: float) -> tuple[float, float]:
    """Return the mean of values with their standard errors, and its own, by random effects."""
    weights = [1 / (error**2 + between**2) for _, error in values]
    mean = sum(w * value for w, (value, _) in zip(weights, values, strict=True)) / sum(weights)
    return mean, 1 / math.sqrt(sum(weights))


def _pool(fit: Fit) -> tuple[PooledFactor, ...]:
    """Pool each family's effects over the papers, sorted by matching and factor."""
    pooled = []
    for key, own in _grouped(fit.effects, lambda effect: effect.key).items():
        factor, error = _mean(_of(own, "log_factor"), fit.between)
        loss, loss_error = _mean(_of(own, "log_loss"), fit.between_loss)
        reach, loss_reach = fit.quantile * error, fit.quantile * loss_error
        pooled.append(
            PooledFactor(
                family=key.family,
                matched_by=key.matched_by,
                papers={effect.paper: math.exp(effect.log_factor) for effect in own},
                runs=sum(effect.runs for effect in own),
                lines=tuple(line for effect in own for line in effect.lines),
                size_factor=math.exp(factor),
                low=math.exp(factor - reach),
                high=math.exp(factor + reach),
                loss_change=math.expm1(loss),
                loss_low=math.expm1(loss - loss_reach),
                loss_high=math.expm1(loss + loss_reach),
                kv_share=_geometric(effect.kv_share for effect in own),
            )
        )
    return tuple(sorted(pooled, key=lambda item: (item.matched_by, item.size_factor)))


def _hold_out(runs: Sequence[_Run]) -> Iterator[HeldOutRun]:
    """Predict the largest size of every set with enough sizes from its smaller ones."""
    import numpy as np

    for of_set, own in _grouped(runs, lambda item: item.set).items():
        largest = max(item.size for item in own)
        if largest + 1 < LEAST_SIZES:
            continue
        rest = [item for item in own if item.size < largest]
        known = {item.family for item in rest}
        left = [item for item in own if item.size == largest and item.family in known]
        both = [*rest, *left]  # of one design, so that they have the same columns
        design, _ = _design(both, [of_set] * len(both))
        sizes = np.log([item.run.parameters for item in both])
        design = np.column_stack([design, sizes])
        losses = np.log([item.run.loss for item in rest])
        line = np.linalg.pinv(design[: len(rest)]) @ losses
        for item, loss in zip(left, np.exp(design[len(rest) :] @ line).tolist(), strict=True):
            yield HeldOutRun(run=item.run, family=item.family, predicted=loss)


def _leave_out(runs: Sequence[_Run], fit: Fit, source: str) -> tuple[LeftOut, ...]:
    """Predict each paper's factors from the other papers."""
    left = []
    for paper, effects in _grouped(fit.effects, lambda effect: effect.paper).items():
        try:
            rest = _fit([item for item in runs if item.run.paper != paper], source)
        except MeasurementError:
            continue
        for effect in effects:
            others = _of([each for each in rest.effects if each.key == effect.key], "log_factor")
            if not others:
                continue
            mean, error = _mean(others, rest.between)
            reach = rest.quantile * math.hypot(error, rest.between, effect.log_factor_stderr)
            left.append(
                LeftOut(
                    paper=paper,
                    family=effect.key.family,
                    matched_by=effect.key.matched_by,
                    size_factor=math.exp(effect.log_factor),
                    predicted=math.exp(mean),
                    low=math.exp(mean - reach),
                    high=math.exp(mean + reach),
                )
            )
    return tuple(left)


def _notes(runs: Sequence[_Run], fit: Fit) -> list[str]:
    """Say which laws are borrowed, and which runs have nothing to be compared with."""
    notes = []
    borrowed = [exponent.paper for exponent in fit.exponents if not exponent.own]
    if borrowed:
        notes.append(
            f"Too few sizes for an exponent of their own, so the pooled one: {', '.join(borrowed)}."
        )
    alone = [
        exponent.paper
        for exponent in fit.exponents
        if exponent.of_tokens is None
        and len({item.run.tokens for item in runs if item.run.paper == exponent.paper}) > 1
    ]
    if alone:
        notes.append(
            "Sets that differ in tokens have levels of their own, without models of one size and "
            f"family that would tell what tokens do: {', '.join(alone)}."
        )
    used = {(effect.paper, effect.key) for effect in fit.effects}
    unused = [
        item.run.line
        for item in runs
        if item.family != REFERENCE
        and (item.run.paper, Key(item.family, item.run.matched_by)) not in used
    ]
    if unused:
        notes.append(
            f"Nothing joins them to a {REFERENCE} run: "
            f"{'line' if len(unused) == 1 else 'lines'} {', '.join(map(str, unused))}."
        )
    if not fit.spare:
        notes.append("No family is in two papers: intervals hold no differences between papers.")
    return notes
