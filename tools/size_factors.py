"""Make the shipped table of size factors from public training runs.

    python tools/size_factors.py RUNS.csv

Its rows have the columns of ``bifurcate scaling`` and ``source``. The rows stay where they are:
``simulator/answers/size_factors.toml`` has figures, the papers they are from, and how well they
foretell each other.
"""

import csv
import sys
from pathlib import Path

from simulator.answers.studies import PooledFactor, Studies, fit_studies
from tools import ROOT

PATH = ROOT / "simulator" / "answers" / "size_factors.toml"
HEAD = """\
# Parameters of a family's models over multi-head's at equal loss, and their loss over multi-head's
# at equal size, minus 1; low and high are the ends of 95 % intervals. kv_share: KV bytes over
# multi-head's. papers: each one's own size factor. lines: of its runs in ../shared/training/
# training_runs.csv, which has a source for each. matched_by: where the parameters went that the
# smaller cache frees. Written by tools/size_factors.py; the method: simulator/answers/studies.py.
"""
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


def _row(factor: PooledFactor) -> str:
    """Write one family as an inline table, without what is not known."""
    known = {key: value for key, value in vars(factor).items() if value is not None}
    return f"    {_value(known)},\n"


def toml(result: Studies, sources: dict[str, str]) -> str:
    """Return the content of the file.

    Parameters
    ----------
    sources
        By paper: where its figures are from.
    """
    summary = {
        "runs": result.runs,
        "sets": result.sets,
        "run_spread": result.run_spread,
        "between": result.between,
        "inconsistency": result.inconsistency,
    }
    left_out = {
        "factors": len(result.left_out),
        "inside": sum(left.inside for left in result.left_out),
        "median_error": result.median_error,
        "largest_error": max(abs(left.error) for left in result.left_out),
    }
    exponents = {each.paper: [each.value, each.stderr] for each in result.exponents if each.own}
    of_tokens = {
        each.paper: [each.of_tokens, each.of_tokens_stderr]
        for each in result.exponents
        if each.of_tokens is not None
    }
    held_out: dict[str, list[float]] = {}
    for each in result.held_out:
        held_out.setdefault(each.run.study, []).append(each.error)
    foretold = {study: [min(errors), max(errors)] for study, errors in held_out.items()}
    lines = [HEAD]
    lines += [f"{key} = {_value(value)}\n" for key, value in summary.items()]
    lines += ["# Each factor that another paper has too, predicted without its paper.\n"]
    lines += [f"left_out = {_value(left_out)}\n"]
    lines += [
        "# -d ln L / d ln N and its standard error, where sizes tell it; others take the mean.\n"
    ]
    lines += [f"exponents = {_value(exponents)}\n"]
    lines += ["# -d ln L / d ln D at equal size, and its standard error.\n"]
    lines += [f"token_exponents = {_value(of_tokens)}\n"]
    lines += [
        "# The largest size of each set with three, from the smaller ones: least and most error.\n"
    ]
    lines += [f"held_out = {_value(foretold)}\n"]
    lines += ["factors = [\n", *(_row(factor) for factor in result.factors), "]\n"]
    lines += ["\n[sources]\n", *(f"{key} = {_value(text)}\n" for key, text in sources.items())]
    return "".join(lines)


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
