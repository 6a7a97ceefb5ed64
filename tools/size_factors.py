"""Make the shipped table of size factors from public training runs.

    python tools/size_factors.py RUNS.csv

Its rows have the columns of ``bifurcate scaling`` and ``source``. The rows stay where they are:
``simulator/answers/size_factors.toml`` has figures, the papers they are from, and how well they
foretell each other.
"""

import csv
import sys
from pathlib import Path

from simulator.answers.studies import Studies, fit_studies
from tools import ROOT, page

PATH = ROOT / "simulator" / "answers" / "size_factors.toml"
SUMMARY = ("runs", "sets", "run_spread", "between", "inconsistency")
DIGITS = 5


def _value(value: object) -> str:
    """Write a value of an inline table."""
    if isinstance(value, float):
        return repr(round(value, DIGITS))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def toml(result: Studies, sources: dict[str, str]) -> str:
    """Return the content of the file.

    Parameters
    ----------
    sources
        By paper: where its figures are from.
    """
    held_out: dict[str, list[float]] = {}
    for each in result.held_out:
        held_out.setdefault(each.run.study, []).append(each.error)
    figures: dict[str, object] = {
        **{name: getattr(result, name) for name in SUMMARY},
        "left_out": {
            "factors": len(result.left_out),
            "inside": sum(left.inside for left in result.left_out),
            "median_error": result.median_error,
            "largest_error": max(abs(left.error) for left in result.left_out),
        },
        "exponents": {
            each.paper: [each.value, each.stderr] for each in result.exponents if each.own
        },
        "token_exponents": {
            each.paper: [each.of_tokens, each.of_tokens_stderr]
            for each in result.exponents
            if each.of_tokens is not None
        },
        "held_out": {study: [min(errors), max(errors)] for study, errors in held_out.items()},
    }
    # Each family without what is not known.
    known = (
        {key: value for key, value in vars(factor).items() if value is not None}
        for factor in result.factors
    )
    return page(
        "size_factors.txt",
        **{name: _value(value) for name, value in figures.items()},
        factors="\n".join(f"    {_value(each)}," for each in known),
        sources="\n".join(f"{key} = {_value(text)}" for key, text in sources.items()),
    )


def sources_of(path: Path) -> dict[str, str]:
    """Return where the figures of each paper are from, by its first row."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["study"].split("-", 1)[0], row["source"].replace('"', "'"))
    return found


if __name__ == "__main__":
    RUNS = Path(sys.argv[1])
    PATH.write_text(toml(fit_studies(RUNS), sources_of(RUNS)), encoding="utf-8")
