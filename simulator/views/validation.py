"""Errors of predictions: by kind, engine and regime, and the worst rows."""

from collections.abc import Mapping
from typing import Any

from simulator.units import MICROSECOND, format_time
from simulator.views import columns
from simulator.views.columns import Column, Line, View
from simulator.views.text import plural

# The groups that a terminal shows; JSON has more.
SHOWN = ("kind", "kind, gpu, framework", "kind, regime")


def _percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.1f} %"


GROUP = (
    Column("value", "text", heading="rows of", wrap=True),
    Column("rows", heading="rows"),
    Column("median_ape", "", "", "median error", lambda group: _percent(group["median_ape"])),
    Column("p90_ape", "", "", "90th percentile", lambda group: _percent(group["p90_ape"])),
    Column("bias", "", "", "bias", lambda group: _percent(group["bias"])),
    Column("inside", heading="inside", cell="{:.0%}"),
)
WORST = (
    Column(
        unit="text",
        heading="row",
        cell=lambda row: (
            " ".join(str(row[key]) for key in ("gpu_id", "framework", "kind") if key in row)
            + f": {row.get('sizes', '')}"
        ),
        wrap=True,
    ),
    Column(heading="measured", cell=lambda row: format_time(row["measured_us"] * MICROSECOND)),
    Column(heading="predicted", cell=lambda row: format_time(row["predicted_us"] * MICROSECOND)),
    Column("", "text", lambda row: row.get("reason"), "the model says", wrap=True),
)


def validation_view(report: Mapping[str, Any]) -> View:
    """Return the errors by kind, engine and regime, and the worst rows.

    Parameters
    ----------
    report
        The JSON object of ``bifurcate validate``.
    """
    parts: list[View] = [_headline(report), ""]
    groups = [group for by in SHOWN for group in report["groups"] if group["by"] == by]
    if groups:
        parts += [columns.as_table(GROUP, groups), ""]
    if "oom_total" in report:
        right = f"{report['oom_correct']} of {report['oom_total']} right"
        parts.append(f"Out of memory or not: {right}.\n")
    if report["from_l2"]:
        parts.append(
            f"{plural(report['from_l2'], 'row')} predicted as served by the L2 cache, as in "
            "replays without a flush; a column l2_state=cold predicts them from memory.\n"
        )
    if report["worst"]:
        parts += [columns.line(("Farthest off", "bold")), columns.as_table(WORST, report["worst"])]
    return columns.stack(*parts)


def _headline(report: Mapping[str, Any]) -> Line:
    """Say how many rows were predicted, and how well."""
    counts = f"{report['predicted']:,} of {plural(report['rows'], 'row')} predicted"
    if report["median_ape"] is None:
        return columns.line(f"{counts}.")
    known = report["intervals"]
    inside = (
        f"{_percent(report['inside'])} of {known:,} lie inside their 80 % intervals."
        if known
        else "None has an 80 % interval."
    )
    return columns.line(
        (counts, "bold"),
        f", half of them within {_percent(report['median_ape'])}, nine in ten within "
        f"{_percent(report['p90_ape'])}; bias {_percent(report['bias'])}. {inside}",
    )
