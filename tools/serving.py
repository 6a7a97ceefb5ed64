# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/serving.md from rows of serving benchmarks: python tools/serving.py ROWS... [-o PAGE].

It writes no rows, only errors. Nothing is fitted to the rows but the terms of one section, which
try whether a model or card left out of their fit gains, and each configuration's own. Takes a
minute.
"""

import argparse
import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from simulator.errors import MeasurementError
from simulator.evidence.fit.calibrate import StageFit, calibrate
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.timing.interval import VENDOR
from tools import DOCS, page, table, tables
from tools.spread import FIT_LICENCE, LONGEST_INPUT

PAGE = DOCS / "serving.md"
COVERAGE = 80
CELL = ["gpu_id", "framework", "model", "weights_dtype"]
CONCURRENCY = (0, 4, 8, 16, 32, 64, 128, 10**9)
SHARES = (0, 0.05, 0.1, 0.2, 0.4, 0.6, 1)
# A poor cell has at least so many rows, and such a median error.
LEAST_ROWS, POOR = 8, 0.15
COLUMNS = "rows | count> | median> | 90th percentile> | bias> | step alone: median> | inside> | high / low>"

# Causes of poor cells, and of rows left out.
CAUSES: dict[str, str] = tables("serving.toml")


def per_cent(value: float) -> str:
    """Write a share as a cell of a table."""
    return "" if np.isnan(value) else f"{100 * value:.1f} %"


def cells_of(name: str, rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the cells of a table with the errors of some rows."""
    inside = rows["inside"].dropna().astype(float)
    alone = (rows["predicted_step_ms"] / rows["tpot_ms"] - 1).abs()
    width = (rows["predicted_us_high"] / rows["predicted_us_low"]).median()
    figures = (rows["ape"].median(), rows["ape"].quantile(0.9), rows["error"].median())
    cells = map(per_cent, (*figures, alone.median(), inside.mean()))
    return name, f"{len(rows):,}", *cells, "" if np.isnan(width) else f"{width:.2f}"


def tabulated(parts: Iterator[tuple[str, pd.DataFrame]]) -> list[str]:
    """Return a table of parts of the rows; empty parts are left out."""
    return table(COLUMNS, (cells_of(name, part) for name, part in parts if len(part)))


def vendors(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return the maker of each row's card."""
    return rows["gpu_id"].map(lambda name: load_hardware(name).vendor)


def overall(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each vendor, clean and with prefill."""
    for vendor, part in rows.groupby(vendors(rows), sort=True):
        clean = part["class"] == "clean"
        short = part["input_len"] <= LONGEST_INPUT * part["output_len"]
        yield f"{vendor}, clean", part[clean]
        yield f"{vendor}, all up to {LONGEST_INPUT} input tokens for one of output", part[short]
        yield f"{vendor}, all", part


def by(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each combination of values."""
    for values, part in rows.groupby(names, sort=True):
        yield " ".join(str(value) for value in values), part


def binned(rows: pd.DataFrame, values: "pd.Series[float]", edges: tuple[float, ...], unit: float = 1, sign: str = "") -> Iterator[tuple[str, pd.DataFrame]]:  # fmt: skip
    """Yield the rows between neighbouring edges, the upper one included."""
    for low, high in pairwise(edges):
        chosen = (values > low) & (values <= high) if low else values <= high
        name = f"over {unit * low:g}{sign}" if high == edges[-1] else f"up to {unit * high:g}{sign}"
        yield name, rows[chosen]


def steps(rows: pd.DataFrame) -> list[str]:
    """Tell how close steps, times to first token and whole requests are, where rows have them."""
    cells = []
    later = rows["length_ratio"] * rows["output_len"] - 1
    for what in ("", "predicted_"):
        rows[f"{what}request_ms"] = rows[f"{what}ttft_ms"] + later * rows[f"{what}tpot_ms"]
    for engine, part in rows.groupby("framework", sort=True):
        row = [engine]
        for name in ("step_ms", "ttft_ms", "request_ms"):
            error = (part[f"predicted_{name}"] / part[name] - 1).dropna()
            row += [f"{len(error):,}", per_cent(error.abs().median()), per_cent(error.median())]
        cells.append(row)
    columns = "engine | steps> | median> | bias> | TTFT: rows> | median> | bias> | requests> | median> | bias>"
    return table(columns, cells)


def poor(rows: pd.DataFrame) -> Iterator[str]:
    """Name the cells with large errors, and their cause."""
    for names, part in rows.groupby(CELL, sort=True):
        if len(part) >= LEAST_ROWS and part["ape"].median() > POOR:
            cell = " ".join(names)
            figures = f"{len(part)} rows, median {per_cent(part['ape'].median())}, bias {per_cent(part['error'].median())}"
            yield f"* **{cell}** ({figures}): {CAUSES.get(cell, 'cause not known.')}"


def terms(rows: pd.DataFrame, names: tuple[str, ...]) -> "np.ndarray":
    """Return the engine terms that fit rows best, in ms for each step, layer or sequence.

    Relative errors are least in the sum of their sizes, by weights that are adapted in turn.
    """
    columns = np.stack([rows[name] for name in names], axis=1) / rows["tpot_ms"].to_numpy()[:, None]
    missing = 1 - rows["predicted_tpot_ms"].to_numpy() / rows["tpot_ms"].to_numpy()
    weights = np.ones(len(rows))
    for _ in range(50):
        found = np.linalg.lstsq(columns * weights[:, None], missing * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(missing - columns @ found), 1e-3))
    return np.asarray(found)


def engines(rows: pd.DataFrame, plain: pd.DataFrame, blind: pd.DataFrame) -> list[str]:
    """Tabulate what an engine's own kernels, its lockstep and fitted terms gain.

    Parameters
    ----------
    rows, plain, blind
        Predictions for the engine of each row, with the kernels of vLLM, and for the engine where
        no TTFT tells of lockstep.
    """
    cells = []
    chosen = (vendors(rows) == VENDOR) & (rows["licence"] == FIT_LICENCE)
    layers = {name: load_model(name).layers for name in rows["model"].unique()}
    fit = rows[chosen].assign(step=1.0, layer=rows["model"].map(layers), sequence=rows["concurrency"])  # fmt: skip
    before = [each.set_index(["file", "line"])["ape"] for each in (plain, blind, rows)]
    for engine, part in fit.groupby("framework", sort=True):
        # Under vLLM some rows in lockstep are impossible, and have no error.
        places = list(zip(part["file"], part["line"], strict=True))
        for name, column in (("a model", "model"), ("a card", "gpu_id")):
            shown = [per_cent(errors.reindex(places).median()) for errors in before]
            kinds = (("step",), ("layer",), ("sequence",), ("step", "sequence"))
            shown += [per_cent(left_out(part, column, names).abs().median()) for names in kinds]
            cells.append((engine, name, f"{len(part):,}", *shown))
    columns = "engine | left out | rows> | plain: median> | as the engine> | lockstep> | per step> | per layer> | per sequence> | step and sequence>"
    return table(columns, cells)


def calibrated(rows: pd.DataFrame) -> list[str]:
    """Tabulate what `bifurcate calibrate` gains on each configuration's own rows, as read."""
    cells = []
    for engine, runs in rows[vendors(rows) == VENDOR].groupby("framework", sort=True):
        found: list[StageFit] = []
        for (name, *_), part in runs.groupby([*CELL, "tensor_parallel"]):
            if len(part) < LEAST_ROWS:
                continue
            own = Measurements({"serving": part.reset_index(drop=True)})
            with suppress(MeasurementError):  # impossible rows alone
                found += calibrate(own, load_hardware(str(name))).fits
        told = [fit for fit in found if fit.fitted.constants]
        before, after, others = (
            pd.Series(np.expm1(np.concatenate([np.zeros(0), *residuals])))
            for residuals in (
                [fit.before for fit in told],
                [fit.fitted.held_out for fit in told],
                [fit.before for fit in found if not fit.fitted.constants],
            )
        )
        errors = [per_cent(each.abs().median()) for each in (before, after, others)]
        gained = len(before), *errors[:2], len(others), errors[2], per_cent((others > 0).mean())
        cells.append((engine, len(found), len(told), *gained))
    columns = "engine | configurations> | with a time> | rows of these> | as shipped> | calibrated> | rows of others> | as shipped> | predicted too long>"
    return table(columns, cells)


def left_out(rows: pd.DataFrame, column: str, names: tuple[str, ...]) -> "pd.Series[float]":
    """Return errors with terms fitted to the rows of other models, or of other cards."""
    errors = []
    for value, unseen in rows.groupby(column):
        seen = rows[rows[column] != value]
        added = unseen[list(names)].to_numpy() @ terms(seen, names) if len(seen) else 0.0
        errors.append((unseen["predicted_tpot_ms"] + added) / unseen["tpot_ms"] - 1)
    return pd.concat(errors)


def text(read: pd.DataFrame, date: str) -> str:
    """Return the page about serving rows, as read."""
    for name in ("ttft_ms", "step_ms"):
        read[name] = pd.to_numeric(read[name]) if name in read else np.nan
    found, plain, blind = (
        validate(Measurements({"serving": asked}))
        for asked in (read, read.assign(framework="vllm"), read.assign(ttft_ms=np.nan))
    )
    rows = found.rows
    locked = rows["predicted_tpot_ms"] != blind.rows["predicted_tpot_ms"]
    share = 1 - rows["predicted_step_ms"] / rows["predicted_tpot_ms"]
    sections = {
        "overall": [*left_aside(found.unpredicted), *tabulated(overall(rows))],
        "cells": tabulated(by(rows, CELL)),
        "concurrency": tabulated(binned(rows, rows["concurrency"], CONCURRENCY)),
        "prefill": tabulated(binned(rows, share, SHARES, 100, " %")),
        "steps": steps(rows),
        "poor": poor(rows),
        "engines": engines(rows, plain.rows, blind.rows),
        "calibrated": calibrated(read),
    }
    return page(
        "serving.md",
        date=date,
        rows=len(rows),
        coverage=COVERAGE,
        locked=locked.sum(),
        one_by_one=per_cent(blind.rows["ape"][locked].median()),
        together=per_cent(rows["ape"][locked].median()),
        least_rows=LEAST_ROWS,
        poor_error=f"{100 * POOR:.0f} %",
        licence=FIT_LICENCE,
        **{name: "\n".join(lines) for name, lines in sections.items()},
    )


def left_aside(rows: pd.DataFrame) -> Iterator[str]:
    """Yield a line for the rows of each cell that are not predicted for one reason."""
    for values, part in rows.groupby([*CELL, "outcome"]) if len(rows) else ():
        *names, why = values
        cell, reason = " ".join(names), why.removeprefix("skipped: ")
        yield (
            f"Left out: {len(part)} rows of {cell}: {reason}. {CAUSES.get(cell, '')}".rstrip()
            + "\n"
        )


def main() -> None:
    """Read the rows, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=PAGE)
    options = parser.parse_args()
    found = load(options.rows).tables
    if "serving" not in found:
        raise SystemExit("no rows of serving benchmarks")
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    options.output.write_text(text(found["serving"], date), encoding="utf-8")


if __name__ == "__main__":
    main()
