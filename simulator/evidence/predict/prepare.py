"""Turn measured rows into the operations that were timed, for their predictions.

Rows of one GPU, library and number format become arrays, so that thousands are predicted at once.
Operations do not depend on the constants, so a fit builds them only once.
"""

from typing import Any

import pandas as pd

from simulator.evidence.predict import calls, measured, paper_code, serving, steps
from simulator.evidence.predict.groups import Group, Prepared, each_row
from simulator.evidence.rows.kinds import RowKind


def prepare(table: pd.DataFrame, kind: RowKind) -> Prepared:
    """Turn rows of one kind into groups of operations, with the reader for their code."""
    known = table["gpu_id"].notna()
    skipped = {
        label: f"no profile of GPU {name}" for label, name in table.loc[~known, "gpu"].items()
    }
    rows = table[known]
    own = measured.is_own(rows, kind)
    found = [measured.prepare(rows[own], kind)] if own.any() else []
    rows = rows[~own]
    if kind == "decode_step":
        found.append(each_row(rows, _step))
    elif kind == "end_to_end":
        found.append(each_row(rows, steps.batch_group))
    elif kind == "serving":
        found.append(serving.prepare(rows))
    else:
        found.append(calls.prepare(rows, kind))
    for part in found:
        skipped.update(part.skipped)
    return Prepared([group for part in found for group in part.groups], skipped)


def _step(row: "pd.Series[Any]") -> Group:
    """Return a whole step as a group, by the account of the code that was timed."""
    papers = paper_code.is_papers(row)
    return paper_code.paper_group(row) if papers else steps.step_group(row)
