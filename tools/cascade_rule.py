"""Write docs/cascade_rule.md: python tools/refresh.py.

The page maps where vLLM's cascade rule and our own times choose differently. Everything on it is
computed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.answers.estimate import Question
from simulator.answers.rules import LEAST_PREFIX_TOKENS, LEAST_REQUESTS, RULES
from simulator.answers.sweep import compare_grid
from simulator.answers.verdict import TIE_MARGIN
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.units import format_tokens
from tools import DOCS, PAGES, table

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MODEL, GPUS, KV_HEADS = "llama-2-7b", ("a100-sxm-80gb", "h100-sxm"), (32, 8, 1)
SAMPLES = (1, 2, 4, 7, 8, 16, 32, 64, 128, 256, 512, 1024)
CONTEXTS = tuple(2**power for power in range(7, 18))

PAGE = (PAGES / "cascade_rule.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Panel:
    """The grid of one head shape on one GPU; arrays are contexts by samples.

    Attributes
    ----------
    standard_ms, bifurcated_ms
        Steps over one stored context. [ms]
    shares
        Whether the rule reads the context once.
    fits
        Whether the step fits in memory.
    sure
        Whether the interval of the speed-up says yes or no.
    """

    gpu: str
    kv_heads: int
    standard_ms: "Array"
    bifurcated_ms: "Array"
    shares: "Array"
    fits: "Array"
    sure: "Array"

    @property
    def title(self) -> str:
        """Name of the panel."""
        return f"{self.gpu}, 32 heads, {self.kv_heads} KV head{'s' if self.kv_heads > 1 else ''}"

    @property
    def loss_ms(self) -> "Array":
        """Time the rule loses. [ms]."""
        chosen = np.where(self.shares, self.bifurcated_ms, self.standard_ms)
        return chosen - np.minimum(self.standard_ms, self.bifurcated_ms)

    @property
    def loss(self) -> "Array":
        """The loss as a share of the faster step."""
        return self.loss_ms / np.minimum(self.standard_ms, self.bifurcated_ms)

    @property
    def differs(self) -> "Array":
        """Cells that fit and lose more than a tie."""
        return (self.loss >= TIE_MARGIN) & self.fits


def panels() -> Iterator[Panel]:
    """Yield the grid of every GPU and head shape."""
    contexts = np.array(CONTEXTS, dtype=np.float64)
    samples = np.array(SAMPLES, dtype=np.float64)
    shape = (len(contexts), len(samples))
    setup = Setup(kv_layout="shared")
    for kv_heads in KV_HEADS:
        model = load_model(MODEL, kv_heads=kv_heads)
        for gpu in GPUS:
            card = load_hardware(gpu)
            asked = Question(model, card, setup, Workload())
            columns = compare_grid(asked, {"context_tokens": contexts, "samples": samples})
            grid = asked.but(context_tokens=contexts[:, None], samples=samples[None, :])
            yield Panel(
                gpu=gpu,
                kv_heads=kv_heads,
                standard_ms=columns["standard_step_ms"].reshape(shape),
                bifurcated_ms=columns["bifurcated_step_ms"].reshape(shape),
                shares=np.broadcast_to(RULES["vllm"].reads_once(grid), shape),
                fits=columns["bifurcated_fits"].reshape(shape),
                sure=columns["verdict"].reshape(shape) != "too close to call",
            )


def causes(panel: Panel) -> Mapping[str, "Array"]:
    """Return where the rule differs, by the deciding part of the rule."""
    few = np.array(SAMPLES)[None, :] < LEAST_REQUESTS
    short = np.array(CONTEXTS)[:, None] < LEAST_PREFIX_TOKENS
    no = panel.differs & ~panel.shares
    return {
        f"says no: prefix below {LEAST_PREFIX_TOKENS} tokens": no & short,
        f"says no: fewer than {LEAST_REQUESTS} requests": no & few & ~short,
        "says no: flash decoding needs no more waves": no & ~few & ~short,
        "says yes, too early": panel.differs & panel.shares,
    }


def cause_table(every: list[Panel]) -> str:
    """Tabulate how often and how much each part of the rule loses."""
    rows = []
    for panel in every:
        found = {cause: mask for cause, mask in causes(panel).items() if mask.any()}
        for number, (cause, mask) in enumerate(found.items()):
            i, j = divmod(int(np.argmax(np.where(mask, panel.loss, -1))), len(SAMPLES))
            title, count = "" if number else panel.title, f"{mask.sum()} of {panel.fits.sum()}"
            most = f"{percent(panel.loss[i, j])}, {panel.loss_ms[i, j]:.3g} ms"
            where = f"{SAMPLES[j]:,} samples of {format_tokens(CONTEXTS[i])}"
            rows.append((title, cause, count, percent(np.median(panel.loss[mask])), most, where))
    columns = "head shape, GPU | the rule | cells> | median loss> | largest loss> | where"
    return "\n".join(table(columns, rows))


def percent(share: float) -> str:
    """Write a share."""
    return f"{100 * share:.0f} %"


def findings(every: list[Panel]) -> dict[str, Any]:
    """Return the figures of the page's sentences about the table."""
    short, few, waves, early = range(4)

    def largest(cause: int, *kv_heads: int) -> str:
        losses = [
            float(np.max(panel.loss, where=list(causes(panel).values())[cause], initial=0))
            for panel in every
            if panel.kv_heads in (kv_heads or KV_HEADS)
        ]
        return percent(max(losses))

    def up_to(kv_heads: int) -> str:
        """Say up to how many samples counting waves is wrong, on each GPU."""
        masks = {
            panel.gpu: list(causes(panel).values())[waves].any(axis=0)
            for panel in every
            if panel.kv_heads == kv_heads
        }
        most = {gpu: np.array(SAMPLES)[mask].max() for gpu, mask in masks.items() if mask.any()}
        return " and ".join(f"{samples} samples on {gpu}" for gpu, samples in most.items())

    return {
        "points": sum(int(panel.fits.sum()) for panel in every),
        "wrong": sum(int(panel.differs.sum()) for panel in every),
        "sure": sum(int((panel.differs & panel.sure).sum()) for panel in every),
        "early": largest(early),
        "short": largest(short),
        "few": {heads: largest(few, heads) for heads in KV_HEADS},
        "waves": {heads: largest(waves, heads) for heads in KV_HEADS},
        "up_to": {heads: up_to(heads) for heads in KV_HEADS},
    }


def cell_text(panel: Panel, i: int, j: int) -> str:
    """Write one cell of a table."""
    if not panel.fits[i, j]:
        return "–"
    if not panel.differs[i, j]:
        return "·"
    sign = "" if panel.sure[i, j] else "~"
    return f"{'B' if panel.shares[i, j] else 'S'} {sign}{100 * panel.loss[i, j]:.0f} %"


def panel_table(panel: Panel) -> str:
    """Tabulate one panel, contexts downwards and samples to the right."""
    rows = (
        (format_tokens(context), *(cell_text(panel, i, j) for j in range(len(SAMPLES))))
        for i, context in enumerate(CONTEXTS)
    )
    columns = " | ".join(f"{name}>" for name in ("context", *(f"{each:,}" for each in SAMPLES)))
    return "\n".join([f"\n### {panel.title}\n", *table(columns, rows)])


def generated() -> dict[Path, str]:
    """Return the files of this page and their expected content."""
    every = list(panels())
    page = PAGE.format(
        tokens=LEAST_PREFIX_TOKENS,
        requests=LEAST_REQUESTS,
        model=MODEL,
        decoded=Workload().decoded_tokens,
        tie=percent(TIE_MARGIN),
        causes=cause_table(every),
        **findings(every),
        tables="\n".join(map(panel_table, every)),
    )
    return {DOCS / "cascade_rule.md": page}
