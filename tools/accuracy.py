# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/accuracy.md from measured rows: python tools/accuracy.py ROWS... [-o docs/accuracy.md].

Fits every GPU anew, with whole shapes held out, and GPUs left out in turn; takes a few minutes.
It writes no rows, only errors: on the page, and in simulator/timing/spread.json, on which the
intervals of predictions rest. With --carry it only writes
simulator/timing/carried_kernels.json and carried_libraries.json, from the constants fitted in the
profiles.
"""

import argparse
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from simulator.evidence.fit.calibrate import Calibration, calibrate, error_summary
from simulator.evidence.fit.profile import NAMES
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.calls import attention_kernel, is_fallback
from simulator.evidence.predict.validate import summarise, timed, validate
from simulator.evidence.rows.kinds import RowKind, cache_bytes
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.timing.interval import shipped_spreads
from tools import DOCS, ROOT, carry, page, residuals, spread, table

COLD = 1.5  # times the L2 cache
# Names of some rows, and which they are.
Parts = Callable[[pd.DataFrame], Iterator[tuple[str, "pd.Series[bool]"]]]
TIMING = ROOT / "simulator" / "timing"
SPREADS = TIMING / "spread.json"
# The GPU whose constants each architecture takes over.
CARRIED = {
    "Hopper": "h100-sxm",
    "Ampere GA100": "a100-sxm-80gb",
    "Ada": "l40s",
    "Blackwell": "b200-sxm",
}


def errors(residuals: "np.ndarray") -> str:
    """Write median, 90th percentile and bias as cells of a table."""
    figures = error_summary(residuals).values()
    return " | ".join("" if value is None else f"{100 * value:.1f} %" for value in figures)


def errors_of(rows: pd.DataFrame) -> str:
    """Write the same of predicted rows."""
    return errors(np.log1p(rows["error"].to_numpy(dtype=np.float64)))


ERRORS = "median> | 90th percentile> | bias>"
ROWS_OF = {"module": ", modules", "eager": ", launched one by one"}


def kernels_of(calibrations: Mapping[str, Calibration]) -> list[str]:
    """Tabulate the errors of each fit on held-out shapes."""
    rows = []
    for gpu_id, calibration in calibrations.items():
        for part in calibration.fits:
            if part.before is not None:
                continue  # an engine's own time, which is not shipped: see tools/serving.py
            what = NAMES.get(part.kind, part.kind).replace("_", " ").removesuffix(" module")
            what += ROWS_OF.get(part.rows, "")
            fitted, variant = part.fitted, str(part.variant) or "all"
            rows.append((gpu_id, what, variant, f"{fitted.rows:,}", errors(fitted.held_out)))
    return table(f"GPU | rows of | constants for | rows> | {ERRORS}", rows)


def unseen(
    calibrations: Mapping[str, Calibration], kind: RowKind, *, libraries: bool = True
) -> "pd.Series[float]":
    """Return log(predicted / measured) of each row by its label, its shape held out of the fit.

    The most specific fit of a row counts: general constants, those of its precision, of its library;
    without ``libraries`` only those that name none.
    """
    found: dict[int, float] = {}
    for calibration in calibrations.values():
        for part in calibration.fits:
            if part.kind == kind and (libraries or not part.variant.library):
                found.update(zip(part.labels, part.fitted.held_out.tolist(), strict=True))
    return pd.Series(found, dtype=np.float64)


def regimes(measurements: Measurements, calibrations: Mapping[str, Calibration]) -> list[str]:
    """Tabulate each kind of row by GPU, library, format and size."""
    lines = []
    for kind, dtype, sizes in SIZES:
        if kind not in measurements.tables:
            continue
        every, held_out = measurements.tables[kind], unseen(calibrations, kind)
        names = [every[name] for name in ("gpu_id", "framework", dtype)]
        for (gpu, library, format_), part in every.groupby(names):
            for word, chosen in sizes(part):
                rows = validate(Measurements({kind: part[chosen]})).rows
                if not len(rows):
                    continue
                new = errors(held_out.reindex(part.index[chosen]).to_numpy())
                name = f"{kind.replace('_', ' ')}, {gpu} {library} {format_}, {word}"
                lines.append((name, f"{len(rows):,}", new, errors_of(rows)))
    return table(f"rows | count> | held out: {ERRORS} | in sample: {ERRORS}", lines)


def all_cards(measurements: Measurements, calibrations: Mapping[str, Calibration]) -> list[str]:
    """Tabulate products of all cards, their shapes held out, by format and size."""
    lines = []
    for kind, sizes in POOLED:
        if kind not in measurements.tables:
            continue
        own, general = (unseen(calibrations, kind, libraries=some) for some in (True, False))
        rows = measurements.tables[kind].loc[own.index]
        for format_, part in (("all formats", rows), *rows.groupby("dtype")):
            for word, chosen in sizes(part):
                labels = part.index[chosen]
                known = (errors(found.reindex(labels).to_numpy()) for found in (own, general))
                lines.append((f"{kind}, {format_}, {word}", f"{len(labels):,}", *known))
    return table(f"rows | count> | own library: {ERRORS} | no library named: {ERRORS}", lines)


def by_cache(rows: pd.DataFrame) -> Iterator[tuple[str, "pd.Series[bool]"]]:
    """Yield all rows of attention, and those whose keys are cold."""
    yield "all", rows["kv_len"] > 0
    cached = rows["kv_bytes"] if "kv_bytes" in rows else cache_bytes(rows)
    yield "cold", cached > COLD * rows["gpu_id"].map(lambda name: load_hardware(name).l2_bytes)


def by_size(column: str, *edges: int) -> Parts:
    """Return how to yield rows by a size: up to the first edge, between edges, and beyond."""

    def parts(rows: pd.DataFrame) -> Iterator[tuple[str, "pd.Series[bool]"]]:
        yield f"{column} <= {edges[0]}", rows[column] <= edges[0]
        for low, high in pairwise(edges):
            yield f"{column} {low} to {high}", rows[column].between(low, high, inclusive="right")
        yield f"{column} > {edges[-1]}", rows[column] > edges[-1]

    return parts


# Kinds of row, the column of their format, and their sizes.
SIZES: tuple[tuple[RowKind, str, Parts], ...] = (
    ("decode_attention", "kv_dtype", by_cache),
    ("mla_decode", "kv_dtype", by_cache),
    ("gemm", "dtype", by_size("m", 256)),
    ("moe", "dtype", by_size("tokens", 8, 512)),
)
# Those whose errors over all cards are told.
POOLED: tuple[tuple[RowKind, Parts], ...] = (
    ("gemm", by_size("m", 256)),
    ("moe", by_size("tokens", 512)),
)


def never_measured(found: residuals.Residuals) -> list[str]:
    """Tabulate each GPU's rows of every kind predicted from the constants of the other GPUs."""
    rows = []
    for (family, gpu_id), part in found.carried.groupby(["family", "gpu_id"], sort=True):
        logs = np.log(part["predicted_s"] / part["measured_s"]).to_numpy()
        rows.append((str(family).replace("_", " "), gpu_id, f"{len(part):,}", errors(logs)))
    return table(f"kernels | GPU left out | rows> | {ERRORS}", rows)


def left_out(measurements: Measurements, calibrations: Mapping[str, Calibration]) -> list[str]:
    """Tabulate each GPU predicted from the geometric mean of the others' constants."""
    lines = []
    every = measurements.tables["decode_attention"]
    for gpu_id in sorted(every["gpu_id"].dropna().unique()):
        card = residuals.left_out(gpu_id, calibrations, measurements)
        rows = every[(every["gpu_id"] == gpu_id) & (every["kv_dtype"] != "fp8")]
        used = [not is_fallback(attention_kernel(name, card), card) for name in rows["kernel"]]
        predicted = validate(Measurements({"decode_attention": rows[used]}), gpu=card).rows
        cold = cache_bytes(predicted) > COLD * card.l2_bytes
        for library, part in predicted.groupby("framework"):
            of_cold = errors_of(part[cold[part.index]])
            lines.append((gpu_id, library, f"{len(part):,}", errors_of(part), of_cold))
    return table(f"GPU left out | library | rows> | all: {ERRORS} | cold: {ERRORS}", lines)


def shared_prefix(measurements: Measurements) -> list[str]:
    """Tabulate shared-prefix attention, also from the constants of standard attention alone."""
    every = measurements.tables.get("shared_prefix_attention")
    if every is None:
        return []
    longest, bare = every["prefix_len"].max(), residuals.bare(str(every["gpu_id"].iloc[0]))
    lines = []
    for name, fitted, least, longer in (
        ("standard", every[every["mode"] == "standard"], 0, ""),
        ("both", every, 0, ""),
        (
            "both, prefixes up to a quarter",
            every[every["prefix_len"] <= longest / 4],
            longest / 4,
            ", longer ones",
        ),
    ):
        card = calibrate(Measurements({"shared_prefix_attention": fitted}), bare).profile
        for mode, rows in every[every["prefix_len"] > least].groupby("mode"):
            predicted = validate(Measurements({"shared_prefix_attention": rows}), gpu=card).rows
            lines.append((name, f"{mode}{longer}", len(rows), errors_of(predicted)))
    columns = f"fitted to | predicted | rows> | {ERRORS}"
    return ["\n## Shared-prefix attention\n", *table(columns, lines), ""]


def whole(measurements: Measurements) -> list[str]:
    """Tabulate whole steps and the worst kinds of row with the shipped constants."""
    validation = validate(measurements)
    result = summarise(validation, measurements)
    groups = [
        (
            group["value"].replace("_", " "),
            f"{group['rows']:,}",
            *(f"{100 * group[key]:.1f} %" for key in ("median_ape", "p90_ape", "bias")),
        )
        for group in result["groups"]
        if group["by"] in ("kind", "kind, gpu, framework")
    ]
    lines = table(f"rows | count> | {ERRORS}", groups)
    rows = timed(validation.rows)
    steps = rows[rows["kind"] == "decode_step"]
    if len(steps):
        share = 100 * float((steps["ape"] <= 0.12).mean())  # noqa: PLR2004
        lines.append(
            f"\nOf the paper's cells {share:.0f} % are within 12 %; out of memory or not is right for "
            f"{result['oom_correct']} of {result['oom_total']}."
        )
    lines.append(f"\nNot predicted: {result['skipped']:,} rows, refused: {result['refused']:,}.\n")
    lines += [f"* {count:,} rows: {why}" for why, count in result["skipped_reasons"].items()]
    return lines


def intervals(measurements: Measurements, found: residuals.Residuals) -> list[str]:
    """Tabulate the coverage of intervals on rows that they were not made from."""
    rows = [
        (
            f"{title}{item.what.replace('_', ' ')}",
            item.gpu_id,
            f"{item.rows:,}",
            *(f"{100 * share:.0f} %" for share in (item.inside, item.below, item.above)),
        )
        for title, part in (
            ("shapes held out: ", spread.check_fitted(found)),
            ("GPU left out: ", spread.check_left_out(found)),
            ("sum of ", spread.check_products(found)),
            ("whole steps: ", spread.check_batches(measurements)),
            ("whole steps: ", spread.check_cells(measurements)),
        )
        for item in spread.coverage(part).itertuples()
    ]
    return table("checked on | GPU | rows> | inside> | shorter> | longer>", rows)


def write_carried(measurements: Measurements, folder: Path) -> None:
    """Write the constants that GPUs without rows take over from the profiles of others."""
    gpus = [load_hardware(gpu_id) for gpu_id in CARRIED.values()]
    kernels = carry.kernels_of(measurements.tables["decode_attention"], gpus)
    architectures = {
        name: carry.of_architecture(load_hardware(gpu_id), kernels)
        for name, gpu_id in CARRIED.items()
    }
    default = carry.averaged(gpus, kernels)
    for name, libraries in (("carried_kernels.json", False), ("carried_libraries.json", True)):
        text = carry.text(default, architectures, libraries=libraries)
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Fit, predict, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=DOCS / "accuracy.md")
    parser.add_argument("--spreads", type=Path, default=SPREADS, help="file of the intervals")
    parser.add_argument(
        "--carry", action="store_true", help="write what other GPUs take over alone"
    )
    options = parser.parse_args()
    measurements = load(options.rows)
    if options.carry:
        write_carried(measurements, TIMING)
        return
    fitted_kinds = {stage.kind for stage in STAGES}
    ids = pd.concat(
        [table["gpu_id"] for kind, table in measurements.tables.items() if kind in fitted_kinds]
    )
    calibrations = {
        gpu_id: calibrate(measurements, load_hardware(gpu_id))
        for gpu_id in sorted(ids.dropna().unique())
    }
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    found = residuals.residuals(measurements, calibrations)
    spreads = spread.text(spread.spreads(found, measurements), measurements, date)
    options.spreads.write_text(spreads, encoding="utf-8")
    shipped_spreads.cache_clear()  # the page is about the new intervals
    sections = {
        "kernels": kernels_of(calibrations),
        "all_cards": all_cards(measurements, calibrations),
        "sizes": regimes(measurements, calibrations),
        "never_measured": never_measured(found),
        "left_out": left_out(measurements, calibrations),
        "shared_prefix": shared_prefix(measurements),
        "intervals": intervals(measurements, found),
        "whole": whole(measurements),
    }
    text = page(
        "accuracy.md",
        date=date,
        rows=measurements.rows,
        remarks=page("accuracy_remarks.md").rstrip("\n"),
        cold=COLD,
        coverage=100 * spread.COVERAGE,
        **{name: "\n".join(lines) for name, lines in sections.items()},
    )
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
