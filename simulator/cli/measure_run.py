"""One run of ``bifurcate measure``: rows, environment, progress, hardware counters, summary."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from simulator.cli.output import say
from simulator.errors import MeasurementError
from simulator.evidence.measure.counters import counter_key

if TYPE_CHECKING:
    from simulator.evidence.measure.cells import AttentionCell, Plan
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
    counted: Sequence["AttentionCell"] | None = None,
    retry: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure what has no row yet, and return what the folder holds.

    Parameters
    ----------
    counted
        Kernels whose bytes are then counted by Nsight Compute, as long as there is time.
    retry
        Statuses: rows of this plan that have one are measured again.
    """
    from simulator.evidence.measure.environment import Environment
    from simulator.evidence.measure.runner import run
    from simulator.evidence.measure.store import Store, locked

    with locked(folder):
        store = Store(folder)
        for line in store.dropped:
            say(f"{line}; it is measured again")
        keys = [cell.key for cell in plan.cells] + [counter_key(cell) for cell in counted or ()]
        asked = {"plan": plan.name, "cells": len(plan.cells), "skip_oom": settings.skip_oom}
        environment = Environment(folder, device, asked)  # before a row goes: it may refuse
        if "error" in retry:
            environment.forgive()
        again = store.forget(frozenset(keys), retry) if retry else 0
        if again:
            say(f"{again:,} rows are measured again: {', '.join(retry)}")
        before = sum(store.rows.values())
        stopped = ""
        limit_s = settings.time_limit_s
        until = None if limit_s is None else monotonic() + limit_s
        try:
            with _progress(len(plan.cells)) as show:
                measured = run(plan, device, store, gpu=gpu, settings=settings, journal=environment)
                for progress in measured:
                    show(progress)
                    stopped = progress.stopped
            if counted is not None and not stopped:
                stopped = _count(counted, store, device, until)
        except KeyboardInterrupt:
            say("interrupted: the rows are safe, and the same command goes on from here")
            raise
        except MeasurementError:
            if retry:
                say("go on without --retry, or what has failed again is tried again")
            raise
        finally:
            environment.close(rows=sum(store.rows.values()) - before)
    if stopped:
        say(f"{stopped}: the same command goes on from here")
    return _summary(plan.name, keys, store, stopped)


def _count(
    counted: Sequence["AttentionCell"], store: "Store", device: "Device", until: float | None
) -> str:
    """Count bytes by Nsight Compute, or say why not; return why it stopped before the last."""
    from simulator.evidence.measure.counters import count as count_bytes
    from simulator.evidence.measure.counters import find_ncu
    from simulator.evidence.measure.environment import now

    ncu = find_ncu()
    on_cuda = device.torch_device.type == "cuda"
    if not on_cuda or ncu is None:
        reason = (
            "ncu (Nsight Compute) is not installed, nor on the PATH"
            if on_cuda
            else "they need CUDA"
        )
        say(f"no hardware counters: {reason}")
        return ""
    cells = [cell for cell in counted if counter_key(cell) not in store.done]
    say(f"counting bytes of {len(cells)} kernels with {ncu}")
    sm_count = int(str(device.facts()["sm_count"]))
    device.release(thorough=True)
    try:
        rows = count_bytes(ncu, cells, device.card, sm_count=sm_count, at=now(), until=until)
        for row in rows:
            store.append("counters", row)
    except MeasurementError as problem:
        say(f"no more hardware counters: {problem}")
        return ""
    left = any(counter_key(cell) not in store.done for cell in cells)
    return "time limit reached" if left else ""


def _summary(plan: str, keys: Sequence[str], store: "Store", stopped: str) -> dict[str, Any]:
    """Return what the folder holds after a run that was to fill these rows."""
    return {
        "schema_version": 1,
        "plan": plan,
        "cells": len(keys),
        "done": sum(key in store.done for key in keys),
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
