"""Write docs/cascade_rule.md: python tools/refresh.py.

The page maps where vLLM's cascade rule and our own times choose differently. Everything on it is
computed.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.answers.estimate import Question
from simulator.answers.rules import LEAST_PREFIX_TOKENS, LEAST_REQUESTS, RULES
from simulator.answers.sweep import compare_grid
from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.units import format_tokens
from tools import DOCS, page, table

MODEL, GPUS, KV_HEADS = "llama-2-7b", ("a100-sxm-80gb", "h100-sxm"), (32, 8, 1)
SAMPLES = (1, 2, 4, 7, 8, 16, 32, 64, 128, 256, 512, 1024)
CONTEXTS = tuple(2**power for power in range(7, 18))
# The deciding part of the rule where it chooses differently.
SHORT = f"says no: prefix below {LEAST_PREFIX_TOKENS} tokens"
FEW = f"says no: fewer than {LEAST_REQUESTS} requests"
WAVES = "says no: flash decoding needs no more waves"
EARLY = "says yes, too early"
CAUSES = (SHORT, FEW, WAVES, EARLY)


def points() -> pd.DataFrame:
    """Return every cell of the grids of all head shapes and GPUs, over one stored context.

    ``shares`` says whether the rule reads the context once, ``fits`` whether the step fits in
    memory, ``sure`` whether the interval of the speed-up says yes or no. ``loss_ms`` and ``loss``
    are what the rule loses, in time and as a share of the faster step, and ``cause`` is why, empty
    for a tie. [ms]
    """
    grids = [_grid(gpu, kv_heads) for kv_heads, gpu in product(KV_HEADS, GPUS)]
    found = pd.concat(grids, ignore_index=True)
    best = found[["standard_ms", "bifurcated_ms"]].min(axis=1)
    chosen = found["bifurcated_ms"].where(found["shares"], found["standard_ms"])
    loss_ms = chosen - best
    loss = loss_ms / best
    differs = (loss >= TIE_MARGIN) & found["fits"]
    short, few = found["context"] < LEAST_PREFIX_TOKENS, found["samples"] < LEAST_REQUESTS
    cause = np.select([~differs, found["shares"], short, few], ["", EARLY, SHORT, FEW], WAVES)
    return found.assign(loss_ms=loss_ms, loss=loss, cause=cause)


def _grid(gpu: str, kv_heads: int) -> pd.DataFrame:
    """Return the cells of one head shape on one GPU, contexts by samples."""
    model, setup = load_model(MODEL, kv_heads=kv_heads), Setup(kv_layout="shared")
    asked = Question(model, load_hardware(gpu), setup, Workload())
    axes = {"context_tokens": CONTEXTS, "samples": SAMPLES}
    columns = compare_grid(asked, {name: np.array(axis, float) for name, axis in axes.items()})
    sizes = {name: columns[name].astype(float) for name in axes}
    return pd.DataFrame(
        {
            "title": f"{gpu}, 32 heads, {kv_heads} KV head{'s' if kv_heads > 1 else ''}",
            "gpu": gpu,
            "kv_heads": kv_heads,
            "context": columns["context_tokens"],
            "samples": columns["samples"],
            "standard_ms": columns["standard_step_ms"],
            "bifurcated_ms": columns["bifurcated_step_ms"],
            "shares": RULES["vllm"].reads_once(asked.but(**sizes)),
            "fits": columns["bifurcated_fits"],
            "sure": columns["verdict"] != "too close to call",
        }
    )


def cause_table(every: pd.DataFrame) -> str:
    """Tabulate how often and how much each part of the rule loses."""
    rows = []
    for title, panel in every.groupby("title", sort=False):
        lost = {cause: panel[panel["cause"] == cause] for cause in CAUSES}
        found = {cause: cells for cause, cells in lost.items() if len(cells)}
        for number, (cause, cells) in enumerate(found.items()):
            worst = cells.loc[cells["loss"].idxmax()]
            shown, count = "" if number else title, f"{len(cells)} of {panel['fits'].sum()}"
            most = f"{percent(worst['loss'])}, {worst['loss_ms']:.3g} ms"
            where = f"{worst['samples']:,} samples of {format_tokens(worst['context'])}"
            rows.append((shown, cause, count, percent(cells["loss"].median()), most, where))
    columns = "head shape, GPU | the rule | cells> | median loss> | largest loss> | where"
    return "\n".join(table(columns, rows))


def percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.0f} %"


def findings(every: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of the page's sentences about the table."""
    of_heads = {heads: every[every["kv_heads"] == heads] for heads in KV_HEADS}

    def largest(cause: str, cells: pd.DataFrame = every) -> str:
        return percent(cells["loss"].where(cells["cause"] == cause, 0).max())

    def up_to(cells: pd.DataFrame) -> str:
        """Say up to how many samples counting waves is wrong, on each GPU."""
        most = cells[cells["cause"] == WAVES].groupby("gpu", sort=False)["samples"].max()
        return " and ".join(f"{samples} samples on {gpu}" for gpu, samples in most.items())

    return {
        "points": every["fits"].sum(),
        "wrong": (every["cause"] != "").sum(),
        "sure": ((every["cause"] != "") & every["sure"]).sum(),
        "early": largest(EARLY),
        "short": largest(SHORT),
        "few": {heads: largest(FEW, cells) for heads, cells in of_heads.items()},
        "waves": {heads: largest(WAVES, cells) for heads, cells in of_heads.items()},
        "up_to": {heads: up_to(cells) for heads, cells in of_heads.items()},
    }


def cell_text(cell: Any) -> str:
    """Write one cell of a table."""
    if not cell.fits:
        return "–"
    if not cell.cause:
        return "·"
    return f"{'B' if cell.shares else 'S'} {'' if cell.sure else '~'}{100 * cell.loss:.0f} %"


def panel_table(title: str, panel: pd.DataFrame) -> str:
    """Tabulate one panel, contexts downwards and samples to the right."""
    rows = (
        (format_tokens(context), *map(cell_text, cells.itertuples()))
        for context, cells in panel.groupby("context")
    )
    columns = " | ".join(f"{name}>" for name in ("context", *(f"{each:,}" for each in SAMPLES)))
    return "\n".join([f"\n### {title}\n", *table(columns, rows)])


def generated() -> dict[Path, str]:
    """Return the files of this page and their expected content."""
    every = points()
    text = page(
        "cascade_rule.md",
        tokens=LEAST_PREFIX_TOKENS,
        requests=LEAST_REQUESTS,
        model=MODEL,
        decoded=Workload().decoded_tokens,
        tie=percent(TIE_MARGIN),
        causes=cause_table(every),
        **findings(every),
        tables="\n".join(panel_table(*each) for each in every.groupby("title", sort=False)),
    )
    return {DOCS / "cascade_rule.md": text}
