"""What a run would do: cells, predicted times, memory; no torch and no GPU."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from simulator.evidence.measure.cells import Cell, Plan
from simulator.evidence.measure.predict import (
    CUDA_HEADROOM_BYTES,
    Prediction,
    predict,
    timing_for,
    wall_s,
)
from simulator.timing.constants import Rates
from simulator.units import MICROSECOND, format_gib, format_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A plan with its predictions.

    Attributes
    ----------
    wall_s
        Guessed time of the whole run. [s]
    lines
        One per group: name, variants, fastest and slowest call, largest memory, whether it fits.
    rows
        One per cell.
    """

    name: str
    wall_s: float
    lines: list[tuple[str, ...]]
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """The plan in one line."""
        done = sum(row["done"] for row in self.rows)
        oom = sum(row["fits"] is False for row in self.rows)
        text = f"{len(self.rows):,} cells in {len(self.lines):,} groups of {self.name!r}"
        text += f", {done:,} done" if done else ""
        text += f", {oom:,} that should not fit" if oom else ""
        minutes = self.wall_s / 60
        if minutes < 1:
            return text + (", less than a minute" if minutes else "")
        return f"{text}, about {minutes:.0f} minutes"

    def as_object(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "schema_version": 1,
            "plan": self.name,
            "predicted_wall_s": self.wall_s,
            "cells": self.rows,
        }


def preview(plan: Plan, *, gpu: Rates | None, device: str, done: Collection[str]) -> Preview:
    """Predict every cell of a plan.

    Parameters
    ----------
    gpu
        Rates of the card, or None to predict memory only.
    done
        Keys of cells that have a row already: they cost no time.
    """
    timing = timing_for(device, 30)
    l2_bytes = gpu.gpu.l2_bytes if gpu else 0.0
    headroom = CUDA_HEADROOM_BYTES if device == "cuda" else 0
    capacity = _capacity(gpu)
    lines, rows, total = [], [], 0.0
    for group in plan.groups:
        predicted = [
            predict(cell, gpu=gpu, l2_bytes=l2_bytes, headroom_bytes=headroom) for cell in group
        ]
        rows += [
            _row(cell, each, capacity, done=cell.key in done)
            for cell, each in zip(group, predicted, strict=True)
        ]
        pairs = zip(group, predicted, strict=True)
        todo = [
            (cell, each)
            for cell, each in pairs
            if cell.key not in done and each.memory_bytes <= capacity
        ]
        if gpu is not None:
            total += wall_s([cell for cell, _ in todo], [each for _, each in todo], timing)
        lines.append(_line(group[0].group, predicted, capacity))
    return Preview(name=plan.name, wall_s=total, lines=lines, rows=rows)


def _row(cell: Cell, predicted: Prediction, capacity: float, *, done: bool) -> dict[str, Any]:
    """Return one cell's line for CSV and JSON."""
    seconds = predicted.seconds
    return {
        "cell": cell.key,
        "kind": cell.kind,
        "stage": cell.stage,
        "predicted_us": None if seconds is None else round(seconds / MICROSECOND, 3),
        "predicted_memory_bytes": round(predicted.memory_bytes),
        "fits": predicted.memory_bytes <= capacity,
        "done": done,
    }


def _line(name: str, predicted: list[Prediction], capacity: float) -> tuple[str, ...]:
    """Return one group's line for people."""
    times = [each.seconds for each in predicted if each.seconds is not None]
    largest = max(each.memory_bytes for each in predicted)
    fitting = sum(each.memory_bytes <= capacity for each in predicted)
    fits = "yes" if fitting == len(predicted) else f"{fitting} of {len(predicted)}"
    return (
        name,
        str(len(predicted)),
        format_time(min(times)) if times else "",
        format_time(max(times)) if times else "",
        format_gib(largest),
        fits,
    )


def _capacity(gpu: Rates | None) -> float:
    """Return the memory of a card as its driver reports it, or as published. [bytes]."""
    if gpu is None:
        return float("inf")
    return gpu.gpu.reported_memory_bytes or gpu.gpu.memory_bytes
