"""How far off predictions are, as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.units import MICROSECOND, format_time
from simulator.views.table import Column, FittedTable
from simulator.views.text import plural

# The groups that a terminal shows; JSON has more.
SHOWN = ("kind", "kind, gpu, framework", "kind, regime")
ERROR_COLUMNS = (
    Column(name="rows of", right=False, wrap=True),
    *(Column(name=name) for name in ("rows", "median error", "90th percentile", "bias", "inside")),
)
WORST_COLUMNS = (
    Column(name="row", right=False, wrap=True),
    *(Column(name=name) for name in ("measured", "predicted")),
    Column(name="the model says", right=False, wrap=True),
)


def validation_view(report: Mapping[str, Any]) -> RenderableType:
    """Return the errors by kind, engine and regime, and the worst rows.

    Parameters
    ----------
    report
        The JSON object of ``bifurcate validate``.
    """
    parts: list[RenderableType] = [_headline(report), Text()]
    rows = [_error_row(group) for by in SHOWN for group in report["groups"] if group["by"] == by]
    if rows:
        parts += [FittedTable(columns=ERROR_COLUMNS, rows=rows), Text()]
    if "oom_total" in report:
        parts.append(
            Text(f"Out of memory or not: {report['oom_correct']} of {report['oom_total']} right.\n")
        )
    if report["worst"]:
        parts += [Text("Farthest off", style="bold"), _worst_table(report["worst"])]
    return Group(*parts)


def _headline(report: Mapping[str, Any]) -> Text:
    """Say how many rows were predicted, and how well."""
    counts = f"{report['predicted']:,} of {plural(report['rows'], 'row')} predicted"
    if report["median_ape"] is None:
        return Text(f"{counts}.")
    return Text.assemble(
        (counts, "bold"),
        f", half of them within {_percent(report['median_ape'])}, nine in ten within "
        f"{_percent(report['p90_ape'])}; bias {_percent(report['bias'])}. {_intervals(report)}",
    )


def _intervals(report: Mapping[str, Any]) -> str:
    """Say how many times lie in the intervals that are to hold 80 % of them."""
    known = report["intervals"]
    if not known:
        return "None has an 80 % interval."
    return f"{_percent(report['inside'])} of {known:,} lie inside their 80 % intervals."


def _error_row(group: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one group as a row."""
    figures = (_percent(group[key]) for key in ("median_ape", "p90_ape", "bias"))
    inside = "" if group["inside"] is None else f"{group['inside']:.0%}"
    return (group["value"], f"{group['rows']:,}", *figures, inside)


def _worst_table(worst: Sequence[Mapping[str, Any]]) -> FittedTable:
    """Return the rows that are farthest off, with what the model makes of them."""
    rows = [
        (
            " ".join(str(row[key]) for key in ("gpu_id", "framework", "kind") if key in row)
            + f": {row.get('sizes', '')}",
            format_time(row["measured_us"] * MICROSECOND),
            format_time(row["predicted_us"] * MICROSECOND),
            str(row.get("reason", "")),
        )
        for row in worst
    ]
    return FittedTable(columns=WORST_COLUMNS, rows=rows)


def _percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.1f} %"
