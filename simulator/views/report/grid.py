"""The part of a report that lists the points of the scenario's grid."""

from simulator.answers.sweep import GridSummary
from simulator.inputs.scenario import GAIN_SPEEDUP, Scenario
from simulator.inputs.workload import ATTENTIONS
from simulator.units import MILLISECOND
from simulator.views.cells import setting
from simulator.views.report import words
from simulator.views.report.html import Child, Head, Html, bullets, table, tag
from simulator.views.report.sections import BOTH, MOST_ROWS_OPEN, milliseconds


def grid_section(scenario: Scenario, grid: GridSummary) -> Html:
    """Return every point of the scenario's grid, folded where there are many."""
    parts: list[Child] = [tag("p", words.grid_sentence(grid))]
    if grid.rows:
        whole = _grid_table(scenario, grid)
        parts.append(
            whole
            if len(grid.rows) <= MOST_ROWS_OPEN
            else tag("details", tag("summary", f"All {grid.points:,} points"), whole)
        )
    else:
        many = "Too many points to list here; the sweep below writes them all."
        parts.append(tag("p", many, class_="note"))
    return tag("div", parts, bullets(grid.skipped))


def _grid_table(scenario: Scenario, grid: GridSummary) -> Html:
    """Return the table of all points: what varies, then what comes out."""
    always = ("samples", "context_tokens")
    varying = [
        axis
        for axis, values in scenario.axes.items()
        if axis in grid.rows[0] and (axis in always or len(values) > 1)
    ]
    heads = [
        Head(name=name.replace("_", " "), number=isinstance(grid.rows[0][name], int))
        for name in varying
    ]
    heads += [
        Head(name="standard", unit="ms per step"),
        Head(name="bifurcated", unit="ms per step"),
        Head(name="speed-up", unit="times"),
        Head(name="fits", unit=BOTH, number=False, short=True),
        Head(name="bound by", unit=BOTH, number=False, short=True),
        Head(name="bifurcate?", number=False, short=True),
    ]
    rows: list[list[Child]] = [
        [
            *(setting(row[name]) for name in varying),
            *(milliseconds(row[f"{name}_step_ms"] * MILLISECOND) for name in ATTENTIONS),
            [
                f"{row['speedup']:.2f}",
                " ",
                tag("small", f"{row['speedup_low']:.2f} to {row['speedup_high']:.2f}"),
            ],
            " / ".join("yes" if row[f"{name}_fits"] else "no" for name in ATTENTIONS),
            " / ".join(row[f"{name}_bound"] for name in ATTENTIONS),
            str(row["verdict"]),
        ]
        for row in grid.rows
    ]
    caption = f"Every point of the grid; a gain is a speed-up of at least {GAIN_SPEEDUP:g}"
    return table(caption, heads, rows)
