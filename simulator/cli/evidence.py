"""calibrate and validate: measured rows against the timing model."""

import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import Constants, FigurePath, complete_gpus
from simulator.cli.output import (
    check_figure,
    check_parquet,
    csv_text,
    json_text,
    output_of,
    say,
    write_figure,
    write_text,
)
from simulator.errors import MeasurementError, OutputError

if TYPE_CHECKING:
    from simulator.evidence.fit.calibrate import Calibration
    from simulator.evidence.predict.validate import Validation
    from simulator.evidence.rows.reading import Measurements
    from simulator.inputs.hardware import HardwareProfile

Rows = Annotated[
    list[Path],
    typer.Argument(
        help="Files of measured rows (.csv or .parquet), folders of them, or sample: synthetic "
        "rows that ship.",
        metavar="ROWS...",
    ),
]
KeepSuspect = Annotated[
    bool, typer.Option("--keep-suspect", help="Keep rows that break physics but have a time.")
]
# The most refused rows to list one by one.
MOST_LISTED = 10
# Shapes shown per fit; the JSON has all.
MOST_SHAPES = 3
# Where validate writes its rows, its report or its figure.
SUFFIXES = (".csv", ".parquet", ".json", ".html")


def _calibrate(
    rows: Rows,
    gpu: Annotated[
        str,
        typer.Option(
            "--gpu", "-g", help="GPU whose rows are fitted.", autocompletion=complete_gpus
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Profile to write (.toml).", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    keep_suspect: KeepSuspect = False,
) -> None:
    """Fit a GPU's constants to measured rows."""
    _needs("scipy", "tomlkit")
    from simulator.evidence.fit import calibrate as fitting
    from simulator.evidence.fit.profile import profile_path, profile_text
    from simulator.evidence.rows.reading import load
    from simulator.inputs.files import read_text
    from simulator.inputs.hardware import load_hardware

    card = load_hardware(gpu)
    if output is not None and output.suffix != ".toml":
        raise OutputError(f"cannot write {output}: a profile goes to .toml")
    measurements = load(rows, gpu=card.id, keep_suspect=keep_suspect)
    _say_refused(measurements)
    result = fitting.calibrate(measurements, card)
    if output is not None:
        path = Path(gpu) if gpu.endswith(".toml") else profile_path(card.id)
        text = profile_text(
            read_text(path, MeasurementError),
            result,
            date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        )
        # The id of a profile is the name of its file.
        if output.stem != card.id:
            text = text.replace(f'id = "{card.id}"', f'id = "{output.stem}"', 1)
        write_text(text, output)
        say(f"wrote {len(result.values())} constants of {card.id} to {output}")
    report = output_of(None, as_json, None)
    report.write(result, _calibration_table, _calibration_json, lambda _: [])


def _needs(*packages: str) -> None:
    """Refuse to start without a package that calibration needs.

    Raises
    ------
    MeasurementError
        With the command that installs it.
    """
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise MeasurementError(
            f"calibrate needs {' and '.join(missing)}: "
            "pip install 'bifurcated-attention-simulator[calibrate]'"
        )


def _say_refused(measurements: "Measurements") -> None:
    """List the rows that are left out, refused, or kept although they are impossible."""
    from simulator.views.text import plural

    others = measurements.of_others
    if others:
        named = [f"{name} ({count:,})" for name, count in others.items()]
        more = f" and {len(named) - MOST_LISTED} more" if len(named) > MOST_LISTED else ""
        say(
            f"left out: {plural(sum(others.values()), 'row')} of other GPUs: "
            f"{', '.join(named[:MOST_LISTED])}{more}"
        )
    for rows, what in (
        (measurements.refused, "refused"),
        (measurements.suspect, "kept though suspect"),
    ):
        if rows:
            say(f"{what}: {plural(len(rows), 'row')}")
        for row in rows[:MOST_LISTED]:
            say(f"  {row.file}, line {row.line}: {row.reason}")
        if len(rows) > MOST_LISTED:
            say(f"  and {len(rows) - MOST_LISTED:,} more")
    for series, count in measurements.distrusted.items():
        say(
            f"warning: do not trust {plural(count, 'other row')} of {series}: many of their series "
            "are impossible"
        )


def _calibration_json(result: "Calibration") -> dict[str, Any]:
    """Return the fits as JSON."""
    from simulator.evidence.fit.calibrate import error_summary, shape_errors
    from simulator.evidence.fit.stages import wanted_rows

    parts = []
    for part in result.fits:
        fitted = part.fitted
        seen, unseen = error_summary(fitted.residuals), error_summary(fitted.held_out)
        parts.append(
            {
                "kind": part.kind,
                "variant": str(part.variant) or None,
                "rows": fitted.rows,
                "shapes": fitted.shapes,
                "constants": {
                    name: {
                        "value": value,
                        "stderr": fitted.stderr.get(name),
                    }
                    for name, value in fitted.constants.items()
                },
                "in_sample": _errors(seen),
                "held_out": _errors(unseen),
                "bounded": list(fitted.bounded),
                "not_identified": {str(key): wanted_rows(key) for key in fitted.unidentified},
                "correlated": [
                    {"first": first, "second": second, "correlation": value}
                    for first, second, value in fitted.correlated
                ],
                "residuals": shape_errors(part),
            }
        )
    return {
        "schema_version": 1,
        "gpu": result.profile.id,
        "fits": parts,
        "left_out": result.left_out,
    }


def _errors(summary: tuple[float, float, float]) -> dict[str, float | None]:
    """Name the three figures of an error summary."""
    values = [None if math.isnan(value) else value for value in summary]
    return dict(zip(("median_ape", "p90_ape", "bias"), values, strict=True))


def _calibration_table(result: "Calibration") -> Any:
    """Return the fits as tables, with the constants that rows cannot tell, and the worst shapes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from simulator.evidence.fit.calibrate import error_summary
    from simulator.evidence.fit.stages import wanted_rows

    table = Table(title=f"Constants of {result.profile.id}", title_justify="left")
    for name in ("Rows", "Constant", "Value", "Error", "Held-out shapes", "Remarks"):
        table.add_column(name, justify="right" if name in ("Value", "Error") else "left")
    for part in result.fits:
        fitted = part.fitted
        median, p90, _ = error_summary(fitted.held_out)
        what = f"{part.kind} ({fitted.rows:,})"
        errors = "" if math.isnan(median) else f"{100 * median:.1f} %, p90 {100 * p90:.1f} %"
        for name, value in fitted.constants.items():
            bounded = name in fitted.bounded
            remarks = ["at the edge of its range: the rows only bound it"] if bounded else []
            remarks += [
                f"hardly told from {second if first == name else first}"
                for first, second, _ in fitted.correlated
                if name in (first, second)
            ][:1]
            error = "" if bounded else f"{fitted.stderr[name]:.2g}"
            table.add_row(what, name, f"{value:.4g}", error, errors, "; ".join(remarks))
            what = errors = ""
        for key in fitted.unidentified:
            table.add_row(
                what, str(key), "?", "", "", f"these rows cannot tell; add {wanted_rows(key)}"
            )
            what = ""
    for reason in result.left_out:
        table.add_row("", "", "", "", "", f"not fitted: {reason}")
    return Group(table, Text(), _residual_table(result))


def _residual_table(result: "Calibration") -> Any:
    """Return the shapes with the largest held-out errors of each fit."""
    from rich.table import Table

    from simulator.evidence.fit.calibrate import shape_errors

    table = Table(title="Shapes farthest off when held out", title_justify="left")
    for name in ("Rows of", "Shape", "Rows", "Held out", "Bias", "Fitted", "Worst row"):
        table.add_column(name, justify="left" if name in ("Rows of", "Shape") else "right")
    for part in result.fits:
        what = f"{part.kind}, {part.variant}" if str(part.variant) else part.kind
        for item in shape_errors(part)[:MOST_SHAPES]:
            table.add_row(
                what,
                ", ".join(f"{name} {value}" for name, value in item["shape"].items()),
                f"{item['rows']:,}",
                *(
                    "" if item[name] is None else f"{100 * item[name]:.1f} %"
                    for name in ("held_out_median_ape", "held_out_bias", "median_ape", "worst_ape")
                ),
            )
            what = ""
    return table


def _validate(
    rows: Rows,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            "-g",
            help="Use only this GPU's rows; also the GPU of rows that name none.",
            autocompletion=complete_gpus,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", help="Profile to use instead of the shipped one.", metavar="FILE"
        ),
    ] = None,
    constants: Constants = "auto",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Every row with its prediction (.csv, .parquet), the report (.json) or the "
            "figure (.html).",
            metavar="FILE",
        ),
    ] = None,
    figure: FigurePath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    keep_suspect: KeepSuspect = False,
) -> None:
    """Compare predictions with measured rows."""
    from simulator.evidence.predict import summaries
    from simulator.evidence.predict import validate as checking
    from simulator.evidence.rows.reading import load
    from simulator.inputs.hardware import load_hardware
    from simulator.views.text import plural

    _check_suffix(output, SUFFIXES)
    if figure is not None:
        check_figure(figure)
    card = _calibrated(calibration, gpu) if calibration else None
    measurements = load(rows, gpu=gpu, keep_suspect=keep_suspect)
    _say_refused(measurements)
    result = checking.validate(measurements, gpu=card, choice=constants)
    if card is not None and result.constants and card.id not in result.constants:
        raise MeasurementError(
            f"no row is of {card.id}, the profile of --calibration; say with --gpu whose it is: "
            f"{', '.join(sorted(result.constants))}"
        )
    for reason, count in sorted(result.skipped.items()):
        say(f"skipped {plural(count, 'row')}: {reason}")
    if output is not None and output.suffix != ".html":
        _write(result, measurements, output)
        output = None
    for path in (output, figure):
        if path is not None and len(result.rows):
            _draw(result, card, path)
    if not len(result.rows):
        of = f" of {load_hardware(gpu).id}" if gpu else ""
        raise MeasurementError(f"no row{of} could be predicted")
    report = summaries.summarise(result, measurements)
    from simulator.views.validation import validation_view

    output_of(None, as_json, None).write(report, validation_view, dict, lambda _: [])


def _check_suffix(path: Path | None, known: tuple[str, ...]) -> None:
    """Refuse a file with an unknown suffix before any work.

    Raises
    ------
    OutputError
        If the suffix is unknown, or the package that writes such files is missing.
    """
    if path is None:
        return
    if path.suffix not in known:
        suffixes = f"known suffixes: {', '.join(known)}"
        raise OutputError(f"cannot tell a format from {path.name!r}; {suffixes}")
    check_parquet(path)


def _calibrated(path: Path, gpu: str | None) -> Any:
    """Read a calibrated profile; it replaces the profile of ``gpu``, whatever its name is."""
    from simulator.inputs.hardware import load_hardware, read_profile

    card = read_profile(path)
    return card.model_copy(update={"id": load_hardware(gpu).id}) if gpu else card


def _write(result: "Validation", measurements: "Measurements", path: Path) -> None:
    """Write rows or report, as the file's suffix says."""
    from simulator.evidence.predict.summaries import summarise, whole_numbers
    from simulator.resources import atomic_path

    rows = whole_numbers(result.every_row(measurements))
    if path.suffix == ".json":
        write_text(json_text(summarise(result, measurements)), path)
    elif path.suffix == ".parquet":
        with atomic_path(path) as temporary:
            rows.to_parquet(temporary, index=False)
    else:
        rows = rows.astype(object)
        write_text(csv_text(rows.where(rows.notna(), "").to_dict("records")), path)
    say(f"wrote {path}")


def _draw(result: "Validation", card: "HardwareProfile | None", path: Path) -> None:
    """Write the figure, with the source of its constants."""
    import pandas as pd

    from simulator.evidence.predict.summaries import timed
    from simulator.inputs.hardware import load_hardware
    from simulator.views.plots.accuracy import predicted_measured

    gpus = []
    for name, origin in result.constants.items():
        gpu = card if card is not None and card.id == name else load_hardware(name)
        gpus.append({"gpu": name, "constants": origin, "hash": gpu.content_hash})
    write_figure(predicted_measured(timed(result.rows), gpus=pd.DataFrame(gpus)), path)
    say(f"wrote {path}")
