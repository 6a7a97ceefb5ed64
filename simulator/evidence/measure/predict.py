"""Predictions for a cell and for a run: time by the timing model, memory by the accounts.

The measured code is plain PyTorch, one kernel per operation, even when a CUDA graph replays its
launches. So its operations are those of ``execution = "eager"``; a graph changes only the time of
their launches.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.evidence.measure.cells import AttentionCell, Cell, Selection
from simulator.timing.constants import Rates
from simulator.timing.limits import BLOCKS_PER_SM
from simulator.timing.step import step_time
from simulator.units import MICROSECOND, format_gib, format_time

# Rotating buffers add up to this many times the L2. If lines were evicted at random, a cyclic walk
# over c times the cache would still hit a share h = exp(c (h - 1)): 11 % for 2.5, 2 % for 4.
ROTATION = 4.0
# The most calls between two events.
LARGEST_ROTATION = 256
# CUDA's own memory besides tensors: handles, library workspaces, fragmentation. [bytes]
CUDA_HEADROOM_BYTES = 256 * 2**20
# Wall time of a cell besides the timed calls: inputs, check, capture. [s]
_SETUP_S, _STEP_SETUP_S, _COMPILE_S = 0.05, 0.3, 20.0
# Where the name of a group goes on from the shape to its sizes.
_SIZES = re.compile(r" (?:P|r|m)?\d")
# Random numbers are written at about this rate. [bytes/s] (guess; a dry run only)
_FILL_BYTES_PER_S = 300e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often and how long a cell is timed.

    Attributes
    ----------
    warm_up
        Passes that do not count.
    least, most
        Limits of the passes that count; more than the least run only within ``budget_s``.
    least_pass_s
        A pass repeats its calls until it should take about this long. [s]
    """

    warm_up: int = 2
    least: int = 5
    most: int = 30
    budget_s: float = 0.1
    least_pass_s: float = 100e-6


def timing_for(device: str, most: int) -> Repeats:
    """Return how long cells are timed on a device, with a limit on repeats."""
    if device == "cpu":
        return Repeats(warm_up=1, least=min(3, most), most=most, budget_s=0.0, least_pass_s=0.0)
    return Repeats(least=min(Repeats().least, most), most=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted time and memory of a cell.

    Attributes
    ----------
    seconds
        One call on the device; None without a GPU profile. [s]
    input_bytes
        Tensors that exist before the call: caches, weights, rotated buffers. [bytes]
    workspace_bytes
        Peak allocation of the call. [bytes]
    headroom_bytes
        What the device needs beside tensors. [bytes]
    """

    seconds: float | None
    input_bytes: float
    workspace_bytes: float
    headroom_bytes: float = 0.0

    @property
    def memory_bytes(self) -> float:
        """All memory of the cell. [bytes]."""
        return self.input_bytes + self.workspace_bytes + self.headroom_bytes


def predict(
    cell: Cell, *, gpu: Rates | None, l2_bytes: float, headroom_bytes: float = 0.0
) -> Prediction:
    """Predict a cell's time and memory.

    Parameters
    ----------
    cell
        The cell to time.
    gpu
        Rates of the card, or None to predict memory only.
    l2_bytes
        Size of the cache that cold cells must exceed. [bytes]
    headroom_bytes
        What the device needs beside tensors. [bytes]
    """
    seconds = None
    if gpu is not None:
        listed = cell.operations(BLOCKS_PER_SM * gpu.gpu.sm_count)
        seconds = float(step_time(listed, gpu, cell.mode).total_s)
    one_set, workspace = cell.call_bytes()
    sets = rotation(one_set, l2_bytes) if cell.l2 == "cold" and cell.kind != "step" else 1
    return Prediction(
        seconds=seconds,
        input_bytes=one_set * sets,
        workspace_bytes=workspace,
        headroom_bytes=headroom_bytes,
    )


def rotation(set_bytes: float, l2_bytes: float) -> int:
    """Return the number of buffer sets that keep L2 cold.

    >>> rotation(2**20, 50 * 2**20), rotation(2**30, 50 * 2**20)
    (200, 1)
    """
    return max(1, min(LARGEST_ROTATION, math.ceil(ROTATION * l2_bytes / max(1.0, set_bytes))))


def wall_s(planned: Sequence[tuple[Cell, Prediction]], timing: Repeats) -> float:
    """Guess how long a group's cells take to prepare, check and time. [s]."""
    total = 0.0
    for cell, prediction in planned:
        call_s = prediction.seconds or 0.0
        sets = prediction.input_bytes / max(1.0, cell.call_bytes()[0])
        pass_s = max(call_s * max(1.0, sets), min(timing.least_pass_s, call_s * LARGEST_ROTATION))
        counted = min(timing.most, int(timing.budget_s / max(pass_s, 1e-9)))
        passes = timing.warm_up + 1 + max(timing.least, counted)
        setup = _STEP_SETUP_S if cell.kind == "step" else _SETUP_S
        compiled = isinstance(cell, AttentionCell) and cell.kernel == "bifurcated_flex"
        total += setup + passes * pass_s + (_COMPILE_S if compiled and cell.graph else 0)
    largest = max((prediction.input_bytes for _, prediction in planned), default=0.0)
    return total + largest / _FILL_BYTES_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A plan with its predictions.

    Attributes
    ----------
    wall_s
        Estimated time of the whole run. [s]
    groups
        Groups of cells that share their inputs.
    lines
        One per kind of cell and its shape: name, groups, cells, fastest and slowest call, largest
        memory, whether it fits.
    rows
        One per cell.
    """

    name: str
    wall_s: float
    groups: int
    lines: list[tuple[str, ...]]
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """The plan in one line."""
        done = sum(row["done"] for row in self.rows)
        oom = sum(row["fits"] is False for row in self.rows)
        text = f"{len(self.rows):,} cells in {self.groups:,} groups of {self.name!r}"
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


def preview(plan: Selection, *, gpu: Rates | None, device: str, done: Collection[str]) -> Preview:
    """Predict every cell of a plan.

    Parameters
    ----------
    plan
        The cells.
    gpu
        Rates of the card, or None to predict memory only.
    device
        cuda or cpu.
    done
        Keys of cells that already have a row: they take no time.
    """
    timing = timing_for(device, 30)
    l2_bytes = gpu.gpu.l2_bytes if gpu else 0.0
    headroom = CUDA_HEADROOM_BYTES if device == "cuda" else 0
    capacity = math.inf if gpu is None else gpu.gpu.memory_bytes
    rows, total = [], 0.0
    shapes: dict[str, list[list[Prediction]]] = {}
    for group in plan.groups:
        planned = [
            (cell, predict(cell, gpu=gpu, l2_bytes=l2_bytes, headroom_bytes=headroom))
            for cell in group
        ]
        rows += [_row(cell, each, capacity, done=cell.key in done) for cell, each in planned]
        shape = _SIZES.split(group[0].group)[0]
        shapes.setdefault(shape, []).append([each for _, each in planned])
        if gpu is not None:
            todo = [
                (cell, each)
                for cell, each in planned
                if cell.key not in done and each.memory_bytes <= capacity
            ]
            total += wall_s(todo, timing)
    lines = [_line(shape, groups, capacity) for shape, groups in shapes.items()]
    return Preview(name=plan.name, wall_s=total, groups=len(plan.groups), lines=lines, rows=rows)


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


def _line(shape: str, groups: list[list[Prediction]], capacity: float) -> tuple[str, ...]:
    """Return one shape's line of the table."""
    predicted = [each for group in groups for each in group]
    times = [each.seconds for each in predicted if each.seconds is not None]
    largest = max(each.memory_bytes for each in predicted)
    fitting = sum(each.memory_bytes <= capacity for each in predicted)
    return (
        shape,
        f"{len(groups):,}",
        f"{len(predicted):,}",
        format_time(min(times)) if times else "",
        format_time(max(times)) if times else "",
        format_gib(largest),
        "all" if fitting == len(predicted) else f"{fitting:,}",
    )
