"""Turn measured rows into the operations that were timed, for their predictions.

Rows of one GPU, library and number format become arrays, so that thousands are predicted at once.
Operations do not depend on the constants, so a fit builds them only once.
"""

import pandas as pd

from simulator.evidence.predict import calls, measured, paper_code, serving, steps
from simulator.evidence.predict.groups import Prepared, by_engine
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
        papers = paper_code.is_papers(rows)
        read, make = paper_code.paper_cell, paper_code.PaperGroup
        found += [steps.prepare_steps(rows[~papers]), by_engine(rows[papers], kind, read, make)]
    elif kind == "end_to_end":
        found.append(by_engine(rows, kind, steps.batch, steps.BatchGroup))
    elif kind == "serving":
        found.append(serving.prepare(rows))
    else:
        found.append(calls.prepare(rows, kind))
    for part in found:
        skipped.update(part.skipped)
    return Prepared([group for part in found for group in part.groups], skipped)
