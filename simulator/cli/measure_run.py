"""One run of ``bifurcate measure``: rows, environment, progress, hardware counters, summary."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from simulator.cli.output import say
from simulator.errors import MeasurementError

if TYPE_CHECKING:
    from simulator.evidence.measure.cells import Plan
    from simulator.evidence.measure.device import Device
    from simulator.evidence.measure.runner import Progress, Settings
    from simulator.evidence.measure.store import Store
    from simulator.timing.constants import Rates

# Without a terminal, progress is a line now and then. [s]
SECONDS_BETWEEN_LINES = 15.0


def measure_plan(
    plan: "Plan",
    folder: Path,
    device: "Device",
    gpu: "Rates | None",
    settings: "Settings",
    *,
    counters: bool,
) -> dict[str, Any]:
    """Measure what has no row yet, and return what the folder holds."""
    from simulator.evidence.measure.environment import Environment
    from simulator.evidence.measure.runner import run
    from simulator.evidence.measure.store import Store, locked

    with locked(folder):
        store = Store(folder)
        for line in store.dropped:
            say(f"{line}; it is measured again")
        before = sum(store.rows.values())
        asked = {"plan": plan.name, "cells": len(plan.cells), "skip_oom": settings.skip_oom}
        environment = Environment(folder, device, asked)
        stopped = ""
        try:
            with _progress(len(plan.cells)) as show:
                for progress in run(plan, device, store, gpu=gpu, settings=settings):
                    show(progress)
                    stopped = progress.stopped
            if counters and not stopped:
                _count(plan, store, device)
        except KeyboardInterrupt:
            say("interrupted: the rows are safe, and the same command goes on from here")
            raise
        finally:
            environment.close(rows=sum(store.rows.values()) - before)
    if stopped:
        say(f"{stopped}: the same command goes on from here")
    return _summary(plan, store, stopped)


def _count(plan: "Plan", store: "Store", device: "Device") -> None:
    """Count bytes by Nsight Compute, or say why not."""
    from simulator.evidence.measure.counters import count as count_bytes
    from simulator.evidence.measure.counters import counter_key, find_ncu, wanted_cells
    from simulator.evidence.measure.environment import now

    ncu = find_ncu()
    if device.torch_device.type != "cuda" or ncu is None:
        reason = "ncu (Nsight Compute) is not on the PATH" if ncu is None else "they need CUDA"
        say(f"no hardware counters: {reason}")
        return
    cells = [cell for cell in wanted_cells(plan) if counter_key(cell) not in store.done]
    say(f"counting bytes of {len(cells)} kernels with {ncu}")
    sm_count = int(str(device.facts()["sm_count"]))
    device.release(thorough=True)
    try:
        for row in count_bytes(ncu, cells, device.card, sm_count=sm_count, at=now()):
            store.append("counters", row)
    except MeasurementError as problem:
        say(f"no more hardware counters: {problem}")


def _summary(plan: "Plan", store: "Store", stopped: str) -> dict[str, Any]:
    """Return what the folder holds after a run."""
    done = sum(cell.key in store.done for cell in plan.cells)
    return {
        "schema_version": 1,
        "plan": plan.name,
        "cells": len(plan.cells),
        "done": done,
        "stopped": stopped or None,
        "folder": str(store.folder),
        "files": [
            {"kind": kind, "rows": rows, "file": str(store.path(kind)), **store.statuses(kind)}
            for kind, rows in store.rows.items()
        ],
    }


def summary_table(result: dict[str, Any]) -> Any:
    """Return the summary as a table."""
    from rich.console import Group

    from simulator.views.table import simple_table

    columns = ("kind", "rows", "ok", "oom", "wrong", "error", "file")
    rows = [[entry[column] for column in columns] for entry in result["files"]]
    title = f"{result['done']:,} of {result['cells']:,} cells in {result['folder']}"
    return Group(title, "", simple_table(columns, rows))


@contextmanager
def _progress(total: int) -> Iterator[Callable[["Progress"], None]]:
    """Yield what shows progress on stderr: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]} left"),
            TextColumn("{task.description}"),
        )
        with Bar(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=total, left="")

            def draw(progress: "Progress") -> None:
                left = _minutes(progress.seconds_left)
                bar.update(task, completed=progress.done, description=progress.group, left=left)

            yield draw
        return
    last = -SECONDS_BETWEEN_LINES

    def write(progress: "Progress") -> None:
        nonlocal last
        if monotonic() - last < SECONDS_BETWEEN_LINES and progress.done < progress.total:
            return
        last = monotonic()
        left = _minutes(progress.seconds_left)
        say(f"{progress.done:,} of {progress.total:,} cells, about {left} left {progress.group}")

    yield write


def _minutes(seconds: float) -> str:
    """Write a time left.

    >>> _minutes(75), _minutes(3.2)
    ('1:15 min', '3 s')
    """
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
