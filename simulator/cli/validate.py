"""validate: predictions held against measured rows."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.evidence import KeepSuspect, Rows, say_refused
from simulator.cli.figures import check_figure, write_figure
from simulator.cli.options import Constants
from simulator.cli.output import check_parquet, csv_text, output_of, say, write_text
from simulator.cli.words import complete_gpus
from simulator.errors import OutputError

if TYPE_CHECKING:
    from simulator.evidence.predict.validate import Validation
    from simulator.evidence.rows.reading import Measurements
    from simulator.inputs.hardware import HardwareProfile

SUFFIXES = (".csv", ".parquet", ".json", ".html")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(validate)


def validate(
    rows: Rows,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            "-g",
            help="Only this GPU's rows; and the GPU of rows that name none.",
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
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            help="Predicted against measured: .html, .png, .svg, .pdf, or .json as Plotly reads "
            "it.",
            metavar="FILE",
        ),
    ] = None,
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
    say_refused(measurements)
    result = checking.validate(measurements, gpu=card, choice=constants)
    for reason, count in sorted(result.skipped.items()):
        say(f"skipped {plural(count, 'row')}: {reason}")
    if gpu is not None and not len(result.rows):
        say(f"no rows of {load_hardware(gpu).id} could be predicted")
    if output is not None and output.suffix != ".html":
        _write(result, measurements, output)
        output = None
    for path in (output, figure):
        if path is not None:
            _draw(result, card, path)
    report = summaries.summarise(result, measurements)

    def table() -> Any:
        from simulator.views.validation import validation_view

        return validation_view(report)

    output_of(None, as_json, None).write(table=table, json_object=lambda: report, rows=list)


def _check_suffix(path: Path | None, known: tuple[str, ...]) -> None:
    """Refuse a file whose suffix says nothing, before any work.

    Raises
    ------
    OutputError
        If the suffix is not a known one, or nothing here can write such a file.
    """
    if path is None:
        return
    if path.suffix not in known:
        suffixes = f"known suffixes: {', '.join(known)}"
        raise OutputError(f"cannot tell a format from {path.name!r}; {suffixes}")
    check_parquet(path)


def _calibrated(path: Path, gpu: str | None) -> Any:
    """Read a calibrated profile; named otherwise than its GPU, it stands for ``gpu``."""
    from simulator.inputs.hardware import load_hardware, read_profile

    card = read_profile(path)
    return card.model_copy(update={"id": load_hardware(gpu).id}) if gpu else card


def _write(result: "Validation", measurements: "Measurements", path: Path) -> None:
    """Write rows or report, as the file's suffix says."""
    from simulator.evidence.predict.summaries import summarise, whole_numbers
    from simulator.resources import atomic_path

    if path.suffix == ".json":
        write_text(json.dumps(summarise(result, measurements), indent=2) + "\n", path)
    elif path.suffix == ".parquet":
        with atomic_path(path) as temporary:
            whole_numbers(result.rows).to_parquet(temporary, index=False)
    else:
        rows = whole_numbers(result.rows).astype(object)
        write_text(csv_text(rows.where(rows.notna(), "").to_dict("records")), path)
    say(f"wrote {path}")


def _draw(result: "Validation", card: "HardwareProfile | None", path: Path) -> None:
    """Write the figure, with what its predictions rest on."""
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
