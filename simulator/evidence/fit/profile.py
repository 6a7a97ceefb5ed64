"""Write fitted constants into a GPU profile and keep the rest of it."""

import re
from pathlib import Path

from simulator.evidence import tables
from simulator.evidence.fit.calibrate import Calibration, StageFit, error_summary
from simulator.evidence.fit.solver import Fitted
from simulator.timing.constants import GENERAL

DIGITS = 4


# The public projects behind the short names in the rows' source column: short and full name.
SOURCES: dict[str, dict[str, str]] = tables("fit/sources.toml")
# Kinds of rows that hold more than their name says: NCCL's rows are of four collectives.
NAMES = {"all_reduce": "collectives"}


def profile_text(original: str, calibration: Calibration, *, gpu_id: str, date: str) -> str:
    """Return a profile's text with its ``[fitted]`` table replaced, but for constants that stay.

    Parameters
    ----------
    original
        The profile's text, with its comments.
    calibration
        The fits of the GPU.
    gpu_id
        The profile's id, which is the name of its file.
    date
        The date recorded for every constant, next to the rows' sources.
    """
    import tomlkit

    document = tomlkit.parse(original)
    document["id"] = gpu_id
    old, kept = document.pop("fitted", {}), {*calibration.profile.fitted} - {*calibration.values()}
    table = old if kept else tomlkit.table()
    for name in {*table} - kept:
        table.remove(name)
    for part in calibration.fits:
        fitted = part.fitted
        if not fitted.constants:
            continue
        kind = NAMES.get(part.kind, part.kind)
        name = f"{kind}, {part.variant}" if part.variant != GENERAL else kind
        if not kept:  # notes would stay where their constants go
            table.add(tomlkit.comment(_note(name, fitted)))
        if fitted.bounded:
            table.add(tomlkit.comment(f"the rows only bound {', '.join(fitted.bounded)}"))
        for constant, value in fitted.constants.items():
            spread = fitted.stderr.get(constant)
            error = "" if spread is None else f"stderr = {_rounded(spread)!r}, "
            text = (
                f"{{ value = {_rounded(value)!r}, {error}rows = {fitted.rows}, "
                f'date = "{date}", source = "{_source(part)}" }}'
            )
            table.add(constant, tomlkit.value(text))
    for part in calibration.fits:
        for name in part.sources:
            known = SOURCES.get(name, {"full": "rows given to bifurcate calibrate"})
            document.setdefault("sources", tomlkit.table())[_short(name)] = known["full"]
    document["fitted"] = table
    return tomlkit.dumps(document)


def _note(name: str, fitted: Fitted) -> str:
    """Describe the rows of a fit, and how well it predicts held-out shapes."""
    text = f"{name}: {fitted.rows} rows of {fitted.shapes} shapes"
    errors = error_summary(fitted.held_out)
    if errors["median_ape"] is None:
        return text
    median, p90 = (f"{100 * errors[which]:.1f} %" for which in ("median_ape", "p90_ape"))
    return f"{text}; on held-out shapes median {median}, 90th percentile {p90}"


def _source(part: StageFit) -> str:
    """Name the sources of a fit's rows."""
    what = NAMES.get(part.kind, part.kind).replace("_", " ")
    what += f" of {', '.join(part.models)}" if part.models else ""
    names = map(_short, part.sources)
    return "; ".join(f"{name}: {what}" for name in names) or f"recalled, the user's rows: {what}"


def _short(name: str) -> str:
    """Return a source's short name, without what separates sources or TOML escapes."""
    known = SOURCES.get(name, {"short": name})
    return re.sub(r"[\s;:\"\\\\]+", " ", known["short"]).strip() or "rows"


def _rounded(value: float) -> float:
    """Round to significant digits, so that a profile reads well."""
    return float(f"{value:.{DIGITS}g}")


def profile_path(gpu_id: str) -> Path:
    """Return the file of a shipped or user's profile."""
    from simulator.inputs.hardware import profile_files

    return profile_files()[gpu_id]
