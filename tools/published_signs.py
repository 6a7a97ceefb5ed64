"""Write docs/published_signs.md: python tools/refresh.py.

Published cells in which reading a shared context once was measured to win, to lose or to change
nothing, each next to the model's ratio. Remarks and reports without a measurement are no cells.
Tests check every cell: cells that agree must still agree, and cells listed as missed must still be
missed. A cell is timed as the kernel that was measured, as far as its source tells what it does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from simulator.answers.estimate import Question, estimate
from simulator.counts.attention.flash import FLASHINFER_ROWS, EngineFlash, SharedKernel
from simulator.counts.attention.registry import find_way
from simulator.counts.operation import repeated
from simulator.counts.transformer import attention_shapes
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Attention, ask
from simulator.timing.constants import rates
from simulator.timing.interval import Uncertainty, uncertainty
from simulator.timing.limits import resident_blocks
from simulator.timing.step import step_time
from simulator.units import MICROSECOND
from tools import DOCS, page, tables

Sign = Literal["wins", "loses", "no gain"]
MeasuredOn = Literal["kernel", "decode step", "whole batch"]

SIZES = ("samples", "context_tokens", "decoded_tokens")
# What a group says of its cells, besides their fields.
APART = ("model", "heads", "cells")
# "No gain" is stated for figures rounded to two digits, and for throughputs where a smaller
# difference would not have been noticed.
NOTICED = 0.10

# Kernels that nobody runs any more: FlashInfer's first cascade kernels did not split the keys.
FORMER = {
    "flashinfer-2024": EngineFlash(
        name="flashinfer-2024", shared=SharedKernel(splits=False, rows=FLASHINFER_ROWS)
    )
}


@dataclass(frozen=True, kw_only=True)
class PublishedCell:
    """One published figure.

    Attributes
    ----------
    source, what
        Where it was published, and the configuration in words.
    measured_on
        What the source timed.
    baseline
        What it was compared with.
    untold
        What the source leaves out, and is assumed here; empty if nothing.
    measured
        The published ratio, or statement.
    sign
        The sign of that: a win, a loss, or no change.
    of
        Whether the model times attention alone, with ``both_us`` beside it, or a whole step.
    shape, gpu, work
        The model, the GPU's name, and the fields of the workload.
    standard, bifurcated
        Further fields of each side.
    kernel
        The kernel that was measured: one of ``WAYS`` or ``FORMER``.
    both_us, bifurcated_us
        Time that every measured call contains, of both sides or of the shared kernel alone, as the
        source's other cells show; no byte or FLOP explains it. [us]
    hot
        Whether the timed loop found standard attention's keys in the L2 cache.
    why
        The likely reason why the model misses it; empty if it does not.
    """

    source: str
    what: str
    measured_on: MeasuredOn = "kernel"
    baseline: str
    untold: str = ""
    measured: str
    sign: Sign
    of: Literal["attention", "step"] = "attention"
    shape: ModelShape
    gpu: str
    work: Mapping[str, Any]
    standard: Mapping[str, Any] = field(default_factory=dict)
    bifurcated: Mapping[str, Any] = field(default_factory=dict)
    kernel: str = "flash"
    both_us: float = 0.0
    bifurcated_us: float = 0.0
    hot: bool = False
    why: str = ""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.source}: {self.what}"

    def ratio(self) -> float:
        """Return the model's time of standard over that of bifurcated attention."""
        return self._time_s("standard") / self._time_s("bifurcated")

    def agrees(self) -> bool:
        """Return whether the model has the sign right."""
        ratio = self.ratio()
        if self.sign == "wins":
            return ratio > 1
        return ratio < (1 if self.sign == "loses" else 1 + NOTICED)

    def uncertainty(self, attention: Attention) -> Uncertainty:
        """Return one side's time and interval, of the whole step or of the attention alone."""
        more = self.standard if attention == "standard" else self.bifurcated
        # Kernels are timed over a copy of the context each, unless a source says otherwise.
        usual = {"decoded_tokens": 128, "kv_layout": "copies", "attention": attention}
        setup, work = ask(self.shape, **{**usual, **self.work, **more})
        card = load_hardware(self.gpu)
        if self.of == "step":
            return estimate(Question(self.shape, card, setup, work)).uncertainty
        way = FORMER.get(self.kernel) or find_way(self.kernel)
        operations = [
            operation
            for shape, layers, _ in attention_shapes(self.shape, setup, work, resident_blocks(card))
            for operation in repeated(
                way.bifurcated(shape)
                if setup.bifurcated
                else way.standard(shape, rereads=setup.rereads),
                layers,
            )
        ]
        if self.hot and attention == "standard":
            operations = [
                replace(item, reused_bytes=keys, reused_footprint_bytes=keys)
                for item in operations
                for keys in [item.kv_bytes_read]
            ]
        card_rates = rates(card)
        step = step_time(operations, card_rates, setup.execution)
        return uncertainty(step, card_rates, setup)

    def _time_s(self, attention: Attention) -> float:
        """Return one side's time, with what every measured call contains. [s]."""
        added_us = self.both_us + (self.bifurcated_us if attention == "bifurcated" else 0.0)
        return float(self.uncertainty(attention).total_s) + added_us * MICROSECOND


def one_layer(heads: int, kv_heads: int, head_dim: int = 128) -> ModelShape:
    """Return a model of one layer, for its attention alone."""
    return ModelShape(
        name=f"{heads} heads, {kv_heads} KV heads",
        layers=1,
        hidden_size=heads * head_dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=16,
        vocab_size=32,
    )


def cells() -> Iterator[PublishedCell]:
    """Yield every published cell, as ``pages/published_signs.toml`` lists them."""
    for group in tables("published_signs.toml")["group"]:
        shape = load_model(group["model"]) if "model" in group else one_layer(*group["heads"])
        shared = {name: value for name, value in group.items() if name not in APART}
        for cell in group["cells"]:
            sizes = {name: size for name, size in cell.items() if name in SIZES}
            count = sizes["samples"]
            words = {**cell, "samples": f"{count} sample{'s' if count > 1 else ''}"}
            told = {
                **shared,
                **{name: cell[name] for name in ("measured", "sign", "hot") if name in cell},
                "what": group["what"].format(**words),
                "work": {**group.get("work", {}), **sizes},
                "why": group["why"] if cell.get("missed") else "",
            }
            yield PublishedCell(shape=shape, **told)


def generated() -> dict[Path, str]:
    """Return the page and its expected content."""
    lines: dict[bool, list[str]] = {True: [], False: []}
    for cell in cells():
        told = (cell.source, cell.what, cell.measured_on, cell.baseline, cell.untold or "–")
        why = [cell.why] if cell.why else []
        figures = (*told, cell.measured, f"{cell.ratio():.2g}", *why)
        lines[not cell.why].append(f"| {' | '.join(figures)} |")
    text = page(
        "published_signs.md",
        noticed=f"{1 + NOTICED:g}",
        right="\n".join(lines[True]),
        wrong="\n".join(lines[False]),
        missed=len(lines[False]),
        total=sum(map(len, lines.values())),
    )
    return {DOCS / "published_signs.md": text}
