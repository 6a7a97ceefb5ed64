"""calibrate and validate: measured rows against the timing model."""

import datetime as dt
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.cli import options as opt
from simulator.cli.output import (
    MOST_LISTED,
    Output,
    check_figure,
    check_parquet,
    csv_text,
    json_text,
    say,
    say_first,
    write_figure,
    write_text,
)
from simulator.errors import MeasurementError, OutputError, ProfileError
from simulator.inputs.setup import ENGINES, ConstantsChoice
from simulator.resources import HARDWARE_PATH_VARIABLE
from simulator.units import significant

if TYPE_CHECKING:
    from simulator.evidence.fit.calibrate import Calibration
    from simulator.evidence.predict.validate import Validation
    from simulator.evidence.rows.reading import Measurements
    from simulator.inputs.hardware import HardwareProfile

ROWS = opt.argument("rows", {"metavar": "ROWS"}, kind=list[Path], default=...)
ENGINE = opt.of_answer("engine", opt.one_of(ENGINES[:-1]), "engine of rows")
KEEP_SUSPECT = opt.of_answer("keep_suspect", {}, default=False)
# Shapes shown per fit; the JSON has all.
MOST_SHAPES = 3
# What is shown of a shape: its errors, by their names in the JSON, and their headings.
SHAPE_ERRORS = {
    "held_out_median_ape": "held out",
    "held_out_bias": "bias",
    "median_ape": "fitted",
    "worst_ape": "worst row",
}
# Where validate writes its rows, its report or its figure.
SUFFIXES = (".csv", ".parquet", ".json", ".html")


@opt.with_options(opt.REPORT)(
    ROWS,
    opt.of_answer(
        "gpu", opt.GPU, "GPU whose rows are fitted.", spelt="--gpu -g", default=..., kind=str
    ),
    opt.of_answer("output", opt.FILE, "Profile to write (.toml)."),
    ENGINE,
    KEEP_SUSPECT,
)
def _calibrate(form: Output, *, gpu: str, output: Path | None, **asked: Any) -> None:
    if missing := [name for name in ("scipy", "tomlkit") if find_spec(name) is None]:
        raise MeasurementError(
            f"calibrate needs {' and '.join(missing)}: "
            "pip install 'bifurcated-attention-simulator[calibrate]'"
        )
    from simulator.evidence.fit import calibrate as fitting
    from simulator.evidence.fit.profile import profile_path, profile_text
    from simulator.evidence.rows.reading import load
    from simulator.inputs.files import read_text
    from simulator.inputs.hardware import load_hardware

    card = _known_card(gpu)
    if output is not None and output.suffix != ".toml":
        raise OutputError(f"cannot write {output}: a profile goes to .toml")
    measurements = load(asked.pop("rows"), gpu=card.id, **asked)
    _say_refused(measurements)
    result = fitting.calibrate(measurements, card)
    if output is not None:
        named = not gpu.lower().endswith(".toml")
        old = profile_path(load_hardware(gpu).id) if named else Path(gpu)
        text = profile_text(
            read_text(old, MeasurementError),
            result,
            gpu_id=output.stem,
            date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
        )
        write_text(text, output)
        say(f"wrote {len(result.values())} constants of {card.id} to {output}")
    form.write(result, _calibration_table, _calibration_json, lambda _: [])


def _known_card(name: str | Path, of: "HardwareProfile | None" = None) -> "HardwareProfile":
    """Return a profile under the id of the card that rows name.

    Parameters
    ----------
    name
        Its name, or its file, whose card is known by the name of the card that it gives.
    of
        The card that it stands for instead.

    Raises
    ------
    MeasurementError
        If no card has that name.
    """
    from simulator.inputs.hardware import load_hardware

    card = load_hardware(name)
    try:
        known = of or load_hardware(card.name)
    except ProfileError:
        raise MeasurementError(
            f"{name}: rows find their GPU by name, and {card.name!r} is none that is known; use "
            f"{HARDWARE_PATH_VARIABLE}=FOLDER with the file in that folder"
        ) from None
    return card.but(id=known.id)


def _say_refused(measurements: "Measurements") -> None:
    """List the rows that are made up, left out, refused, or kept although they are impossible."""
    from simulator.views.text import plural

    if any("synthetic" in set(rows["source"]) for rows in measurements.tables.values()):
        say("note: rows whose source is synthetic are made up, not measured")
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
        lines = [f"  {row.file}, line {row.line}: {row.reason}" for row in rows]
        say_first(lines, lambda left: f"  and {left:,} more")
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
        parts.append(
            {
                "kind": part.kind,
                "variant": str(part.variant) or None,
                "rows": fitted.rows,
                "shapes": fitted.shapes,
                "constants": {
                    name: {"value": value, "stderr": fitted.stderr.get(name)}
                    for name, value in fitted.constants.items()
                },
                **({} if part.before is None else {"without": error_summary(part.before)}),
                "in_sample": error_summary(fitted.residuals),
                "held_out": error_summary(fitted.held_out),
                "bounded": list(fitted.bounded),
                "not_identified": {str(key): wanted_rows(key) for key in part.untold},
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


def _calibration_table(result: "Calibration") -> Any:
    """Return the fits as tables, with the constants that rows cannot tell, and the worst shapes."""
    from simulator.evidence.fit.calibrate import error_summary, shape_errors
    from simulator.evidence.fit.stages import wanted_rows
    from simulator.views.columns import line, stack, table

    lines: list[tuple[str, ...]] = []
    for part in result.fits:
        fitted = part.fitted
        held_out, told = error_summary(fitted.held_out), ""
        if held_out["median_ape"] is not None:
            told = f"{100 * held_out['median_ape']:.1f} %, p90 {100 * held_out['p90_ape']:.1f} %"
        if part.before is not None and fitted.constants:
            told += f"; {100 * error_summary(part.before)['median_ape']:.1f} % without"
        named = [(f"{part.kind} ({fitted.rows:,})", told)]
        for name, value in fitted.constants.items():
            bounded = name in fitted.bounded
            remarks = ["at the edge of its range: the rows only bound it"] if bounded else []
            remarks += [
                f"hardly told from {second if first == name else first}"
                for first, second, _ in fitted.correlated
                if name in (first, second)
            ][:1]
            error = "" if bounded else significant(fitted.stderr[name], 2)
            what, errors = named.pop() if named else ("", "")
            lines.append((what, name, f"{value:.4g}", error, errors, "; ".join(remarks)))
        for key in part.untold:
            what, _ = named.pop() if named else ("", "")
            why = f"these rows cannot tell; add {wanted_rows(key)}"
            lines.append((what, str(key), "?", "", "", why))
    lines += [("", "", "", "", "", f"not fitted: {reason}") for reason in result.left_out]
    shapes = [
        (
            "" if number else f"{part.kind}, {part.variant}".removesuffix(", "),
            ", ".join(f"{name} {value}" for name, value in item["shape"].items()),
            f"{item['rows']:,}",
            *("" if item[name] is None else f"{100 * item[name]:.1f} %" for name in SHAPE_ERRORS),
        )
        for part in result.fits
        for number, item in enumerate(shape_errors(part)[:MOST_SHAPES])
    ]
    return stack(
        line((f"Constants of {result.profile.id}", "bold")),
        "",
        table("rows", "constant", "value>", "error>", "held-out shapes", "remarks", rows=lines),
        "",
        line(("Shapes farthest off when held out", "bold")),
        "",
        table(
            "rows of",
            "shape",
            "rows>",
            *(f"{name}>" for name in SHAPE_ERRORS.values()),
            rows=shapes,
        ),
    )


@opt.with_options(opt.REPORT)(
    ROWS,
    opt.of_answer("gpu", opt.GPU, "gpu of validate", spelt="--gpu -g"),
    opt.of_answer("calibration", opt.FILE, "Profile to use instead of the shipped one."),
    opt.CONSTANTS,
    opt.of_answer("output", opt.FILE, "output of validate"),
    opt.FIGURE,
    ENGINE,
    KEEP_SUSPECT,
)
def _validate(
    form: Output,
    *,
    gpu: str | None,
    calibration: Path | None,
    constants: ConstantsChoice,
    output: Path | None,
    figure: Path | None,
    **asked: Any,
) -> None:
    from simulator.evidence.predict import validate as checking
    from simulator.evidence.rows.reading import load
    from simulator.views.text import plural
    from simulator.views.validation import validation_view

    if output is not None:
        _check_suffix(output)
    check_figure(figure)
    card = None if gpu is None else _known_card(gpu)
    wanted = None if card is None else card.id
    if calibration is not None:
        card = _known_card(calibration, card)
    measurements = load(asked.pop("rows"), gpu=wanted, **asked)
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
    for drawn in (output, figure):
        if drawn is not None and len(result.rows):
            _draw(result, card, drawn)
    if not len(result.rows):
        of = f" of {wanted}" if wanted else ""
        raise MeasurementError(f"no row{of} could be predicted")
    form.write(checking.summarise(result, measurements), validation_view, dict, lambda _: [])


def _check_suffix(path: Path) -> None:
    """Refuse a file with an unknown suffix before any work."""
    if path.suffix not in SUFFIXES:
        known = f"known suffixes: {', '.join(SUFFIXES)}"
        raise OutputError(f"cannot tell a format from {path.name!r}; {known}")
    check_parquet(path)


def _write(result: "Validation", measurements: "Measurements", path: Path) -> None:
    """Write rows or report, as the file's suffix says."""
    from simulator.evidence.predict.validate import summarise, whole_numbers
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

    from simulator.evidence.predict.validate import timed
    from simulator.inputs.hardware import load_hardware
    from simulator.views.plots.accuracy import predicted_measured

    gpus = []
    for name, origin in result.constants.items():
        gpu = card if card is not None and card.id == name else load_hardware(name)
        gpus.append({"gpu": name, "constants": origin, "hash": gpu.content_hash})
    write_figure(predicted_measured(timed(result.rows), gpus=pd.DataFrame(gpus)), path)
    say(f"wrote {path}")
