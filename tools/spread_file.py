"""Write ``spread.toml``: the spreads that the intervals rest on, with source, rows and date."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from simulator.evidence.rows.kinds import RowKind
from simulator.evidence.rows.reading import Measurements
from simulator.timing.interval import Spread
from tools.residuals import FAMILIES
from tools.spread import COVERAGE

KINDS: tuple[RowKind, ...] = (*FAMILIES, "decode_step")
HEAD = """\
# How far measured times lie from predicted ones, as shares of these: {coverage:.0%} of them
# are within, as many above as below. Written by tools/accuracy.py (make accuracy) on {date}
# from {rows:,} rows; what the columns mean: simulator/timing/interval.py.
coverage = {coverage}
date = "{date}"
source = "residuals of rows of {sources}"
"""
TABLES = {
    "fitted": "Shapes that the fit of their GPU had not seen, over all GPUs.",
    "carried": "The worst of GPUs left out in turn, predicted from the constants of the others.",
    "peak": "What published peaks leave out: a share, and time of each launch [us].",
    "gpu": "Shapes that the fit had not seen, of GPUs with rows enough of their own.",
    "code": "On top: bifurcated calls from standard's constants; the paper's plain PyTorch steps.",
}


def toml(tables: Mapping[str, Any], measurements: Measurements, date: str) -> str:
    """Write ``spread.toml``."""
    used = [table for kind, table in measurements.tables.items() if kind in KINDS]
    sources = sorted({str(name) for table in used for name in table["source"].dropna().unique()})
    rows = sum(len(table) for table in used)
    lines = [HEAD.format(coverage=COVERAGE, date=date, rows=rows, sources=", ".join(sources))]
    for name, comment in TABLES.items():
        parts = tables[name].items()
        nested = parts if name == "gpu" else [("", tables[name])]
        lines.append(f"# {comment}")
        for key, entries in nested:
            lines.append(f"[{name}.{key}]" if key else f"[{name}]")
            lines += [f"{family} = {_entry(item)}" for family, item in entries.items()]
            lines.append("")
    return "\n".join(lines)


def _entry(item: Spread) -> str:
    """Write a spread as an inline table, without what is as it is by default."""
    default = Spread()
    values = {field.name: getattr(item, field.name) for field in fields(Spread)}
    told = {name: value for name, value in values.items() if value != getattr(default, name)}
    return "{ " + ", ".join(f"{name} = {value:g}" for name, value in told.items()) + " }"
