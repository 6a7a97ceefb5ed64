"""Training runs: the loss that models of several sizes and numbers of KV heads came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.inputs.rows import (
    RowError,
    Rows,
    positive_number,
    read_rows,
    whole_number,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that share keys and values in the same way.

    Known by the query heads per KV head, or by the number of KV heads where the heads are not
    known or that number is what the models have in common.

    Attributes
    ----------
    name
        ``multi-head``, ``multi-query``, or the number that the models have in common.
    group_size
        Query heads per KV head; 1 is multi-head, None where it differs or is not known.
    kv_heads
        KV heads; 1 is multi-query, None where it differs or is not known.
    """

    name: str
    group_size: int | None = None
    kv_heads: int | None = None

    def position(self, heads: int) -> float:
        """Return how far from multi-head (0) to multi-query (1) a model of so many heads lies.

        It is ln(h / g) / ln h: each halving of the KV heads is a step of the same length.

        >>> Family(name="multi-group of 4", group_size=4).position(16)
        0.5
        """
        if heads == 1 or self.group_size == 1:
            return 0.0
        if self.group_size is not None:
            return math.log(self.group_size) / math.log(heads)
        return 1 - math.log(min(self.kv_heads or heads, heads)) / math.log(heads)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One trained model.

    Attributes
    ----------
    line
        Where it stands in its file.
    parameters
        Of the model, counted the same way in all runs.
    loss
        On the same held-out data, in nats per token or any other unit that all runs share.
    kv_heads, heads, group_size
        As far as they are given; one of kv_heads and group_size always is.
    """

    line: int
    parameters: float
    loss: float
    kv_heads: int | None = None
    heads: int | None = None
    group_size: int | None = None


COLUMNS = ("parameters", "loss")
FAMILY_COLUMNS = ("kv_heads", "heads", "group_size")


def read_training_runs(path: str | Path) -> Rows[TrainingRun]:
    """Read training runs from a CSV file.

    Its columns are ``parameters``, ``loss`` and either ``group_size`` (query heads per KV head) or
    ``kv_heads``, with ``heads`` where models of different size have different numbers of them.

    Raises
    ------
    MeasurementError
        If the file cannot be read, lacks a column, or has no row that can be used.
    """
    return read_rows(path, _run, required=COLUMNS, optional=FAMILY_COLUMNS)


def _run(line: int, cells: Mapping[str, str]) -> TrainingRun:
    """Build one run, checked for what cannot be."""
    counts = {
        name: whole_number(cells, name) if cells.get(name) else None for name in FAMILY_COLUMNS
    }
    kv_heads, heads, group_size = (counts[name] for name in FAMILY_COLUMNS)
    if kv_heads is None and group_size is None:
        raise RowError("neither kv_heads nor group_size is given")
    if heads is not None:
        if kv_heads is not None and heads % kv_heads:
            raise RowError(f"heads = {heads} is not a multiple of kv_heads = {kv_heads}")
        if group_size is not None and heads % group_size:
            raise RowError(f"heads = {heads} is not a multiple of group_size = {group_size}")
        if kv_heads is None and group_size is not None:
            kv_heads = heads // group_size
        if kv_heads is not None and group_size not in (None, heads // kv_heads):
            raise RowError(
                f"group_size = {group_size} is not heads / kv_heads = {heads // kv_heads}"
            )
        group_size = heads // kv_heads if kv_heads is not None else group_size
    return TrainingRun(
        line=line,
        parameters=positive_number(cells, "parameters"),
        loss=positive_number(cells, "loss"),
        kv_heads=kv_heads,
        heads=heads,
        group_size=group_size,
    )


def families_of(runs: Sequence[TrainingRun]) -> tuple[Family, ...]:
    """Return the family of each run.

    A run is multi-head or multi-query if its heads say so. What lies between is put together by the
    query heads per KV head, or by the KV heads where that makes fewer families.
    """
    between = [run for run in runs if _extreme(run) is None]
    by_group = {run.group_size for run in between}
    by_kv_heads = {run.kv_heads for run in between}
    use_group = None not in by_group and (None in by_kv_heads or len(by_group) <= len(by_kv_heads))
    return tuple(_extreme(run) or _between(run, use_group=use_group) for run in runs)


def _extreme(run: TrainingRun) -> Family | None:
    """Return the family of a run that is certainly multi-head or multi-query."""
    if run.group_size == 1:
        return Family(name="multi-head", group_size=1)
    if run.kv_heads == 1:
        return Family(name="multi-query", kv_heads=1)
    return None


def _between(run: TrainingRun, *, use_group: bool) -> Family:
    """Return the family of any other run."""
    if use_group or run.kv_heads is None:
        return Family(name=f"{run.group_size} heads per KV head", group_size=run.group_size)
    return Family(name=f"{run.kv_heads} KV heads", kv_heads=run.kv_heads)
