"""measure: time the kernels, products, streams and whole steps on this machine's GPU."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from simulator.cli import options as opt
from simulator.cli.output import Output, bar, output_of, say
from simulator.errors import MeasurementError, ProfileError
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES, need_installed
from simulator.evidence.measure.cells import KINDS, L2_STATES, MODES, Kind, Mode

if TYPE_CHECKING:
    from simulator.evidence.measure.cells import AttentionCell, Selection
    from simulator.evidence.measure.device import Device
    from simulator.evidence.measure.predict import Preview
    from simulator.evidence.measure.runner import Progress, Settings
    from simulator.evidence.measure.store import Store
    from simulator.timing.constants import Rates

DEVICES = ("cuda", "cpu")
DRY_RUN_GPU = "h100-sxm"
# Values of --only: kinds of timed rows, and hardware counters without any timing.
COUNTERS = "counters"
ROW_KINDS = (*KINDS, COUNTERS)
# Statuses of rows that another run might change.
RETRIED = ("error", "wrong", "oom")
# The type of what may be given several times.
LISTED = list[str] | None
# Without a terminal, progress is one line per this interval. [s]
SECONDS_BETWEEN_LINES = 15.0


of_grid, of_run = partial(opt.option, "What is measured"), partial(opt.option, "How")
OPTIONS = (
    opt.argument("scenario", opt.SCENARIO, "scenario of measure"),
    of_grid("kinds", opt.one_of(ROW_KINDS), "Kind of row; repeatable.", kind=LISTED),
    of_grid(
        "kernels",
        {},
        "Attention kernel, as often as you like. Default: all of ours; "
        f"{' and '.join(OTHER_LIBRARIES)} run other libraries'.",
        kind=LISTED,
    ),
    of_grid("mode", opt.one_of(MODES), "CUDA graph replay or eager launches. Default: both."),
    of_grid("l2", opt.one_of(L2_STATES), default=L2_STATES[0]),
    of_grid("dtype", opt.one_of(("bf16", "fp16", "fp32")), spelt="--dtype"),
    of_grid("query_tokens", opt.SIZE, kind=list[int] | None),
    of_run("device", opt.one_of(DEVICES), default="cuda"),
    of_run("gpu", opt.GPU, "gpu of measure", spelt="--gpu -g"),
    of_run("retry", opt.one_of(RETRIED), kind=LISTED),
    of_run("skip_oom", {}, "Do not try what should not fit in memory.", default=False),
    of_run("time_limit", {"min": 0.0}, kind=float | None),
    of_run("memory_limit", opt.SIZE, "Most bytes to use."),
    of_run("repeats", {"min": 1}, "Most timed repeats of each cell.", default=30),
    of_run("hardware_counters", {}, "Then count bytes with Nsight Compute (ncu).", default=False),
    of_run("dry_run", {}, "Show cells, predicted times and memory, and stop.", default=False),
    of_run("folder", {}, default=Path("measured"), kind=Path),
)


@opt.with_options((output_of, opt.FORM))(*OPTIONS)
def _measure(output: Output, **given: Any) -> None:
    """Time kernels, products, streams and whole steps on your GPU.

    Every row is safe on disk before the next is measured; the same command continues a run that
    was stopped.
    """
    asked = SimpleNamespace(**given)
    timed: list[Kind] = [kind for kind in asked.kinds or KINDS if kind != COUNTERS]
    plan = _plan(asked, timed or ["attention"])
    counted = None
    if asked.hardware_counters or COUNTERS in (asked.kinds or ()):
        from simulator.evidence.measure.counters import wanted_cells

        counted = wanted_cells(plan)  # the kernels whose bytes will be counted
    if not timed:
        plan = replace(plan, cells=())
    for reason in plan.skipped:
        say(f"skipped: {reason}")
    if asked.dry_run:
        _dry_run(plan if timed else replace(plan, cells=tuple(counted or ())), asked, output)
        return
    need_installed(asked.kernels or ())
    if find_spec("torch") is None:
        raise MeasurementError(
            "measuring needs PyTorch: pip install 'bifurcated-attention-simulator[torch]' "
            "(--dry-run does not)"
        )
    from simulator.evidence.kernels import find_kernel
    from simulator.evidence.measure.device import open_device
    from simulator.evidence.measure.predict import timing_for
    from simulator.evidence.measure.runner import Settings

    settings = Settings(
        timing=timing_for(asked.device, asked.repeats),
        skip_oom=asked.skip_oom,
        time_limit_s=None if asked.time_limit is None else 60 * asked.time_limit,
    )
    opened = open_device(asked.device, memory_limit=asked.memory_limit)
    for kernel in asked.kernels or ():
        find_kernel(kernel)  # an unusable library would fail cell by cell
    rates = _rates(asked.gpu, opened.card.gpu)
    retry = asked.retry or ()
    result = _measure_plan(plan, asked.folder, opened, rates, settings, counted, retry)
    output.write(result, _summary_table, dict, lambda result: result["files"])


def _plan(asked: Any, kinds: Sequence[Kind]) -> "Selection":
    """Return the cells that the options select, of some kinds."""
    from simulator.evidence.measure import grid
    from simulator.inputs.scenario import load_scenario

    modes: Sequence[Mode] = (asked.mode,) if asked.mode else MODES
    kernels, tokens = asked.kernels or (), asked.query_tokens or ()
    if asked.scenario is not None:
        plan = grid.scenario_grid(load_scenario(asked.scenario), dtype=asked.dtype, l2=asked.l2)
    elif asked.device == "cpu":
        plan = grid.cpu_grid(dtype=asked.dtype or "fp32", l2=asked.l2)
    else:
        plan = grid.default_grid(dtype=asked.dtype or "bf16", l2=asked.l2)
    if asked.device == "cpu":
        others = [kernel for kernel in kernels if kernel in OTHER_LIBRARIES]
        if others:
            raise MeasurementError(f"{others[0]} runs on CUDA only: leave out --device cpu")
        modes = [mode for mode in modes if mode == "eager"]
        if not modes:
            raise MeasurementError("--mode graph needs CUDA: a CPU has no CUDA graphs")
    return grid.select(plan, kinds=kinds, kernels=kernels, modes=modes, query_tokens=tokens)


def _rates(gpu: str | None, card: str) -> "Rates | None":
    """Return the rates to predict with: from the profile asked for, or by the card's name."""
    from simulator.inputs.hardware import load_hardware
    from simulator.timing.constants import rates

    if gpu is not None:
        return rates(load_hardware(gpu))
    try:
        return rates(load_hardware(card))
    except ProfileError:
        return None


def _dry_run(plan: "Selection", asked: Any, output: Output) -> None:
    from simulator.evidence.measure.predict import preview
    from simulator.evidence.measure.store import Store

    gpu, device, folder = asked.gpu, asked.device, asked.folder
    if gpu is None and device == "cuda":
        say(f"predictions are for {DRY_RUN_GPU}; --gpu chooses another")
    rates = None if device == "cpu" and gpu is None else _rates(gpu or DRY_RUN_GPU, "")
    done = Store(folder, repair=False).done if folder.is_dir() else set()
    result = preview(plan, gpu=rates, device=device, done=done)
    output.write(
        result, _preview_table, lambda result: result.as_object(), lambda result: result.rows
    )


def _preview_table(result: "Preview") -> Any:
    """Return the groups of cells as a table."""
    from simulator.views.columns import notes, stack, table

    numbers = ("groups", "cells", "fastest", "slowest", "most memory", "fit")
    groups = table("shape", *(f"{name}>" for name in numbers), rows=result.lines)
    return stack(result.title, "", groups, *notes(["--json and --format csv list every cell."]))


def _measure_plan(
    plan: "Selection",
    folder: Path,
    device: "Device",
    gpu: "Rates | None",
    settings: "Settings",
    counted: Sequence["AttentionCell"] | None = None,
    retry: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure the cells without a row, and return a summary of the folder.

    Parameters
    ----------
    counted
        Kernels whose bytes Nsight Compute then counts, while time remains.
    retry
        Statuses whose rows of this plan are measured again.
    """
    from simulator.evidence.measure.counters import counter_key
    from simulator.evidence.measure.runner import run
    from simulator.evidence.measure.store import Environment, Store, locked

    with locked(folder):
        store = Store(folder)
        for line in store.dropped:
            say(f"{line}; it is measured again")
        keys = [cell.key for cell in plan.cells] + [counter_key(cell) for cell in counted or ()]
        asked = {"plan": plan.name, "cells": len(plan.cells), "skip_oom": settings.skip_oom}
        environment = Environment(folder, device, asked)  # first, because it may refuse the folder
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
    """Count bytes with Nsight Compute, or say why not; return why it stopped early."""
    from simulator.evidence.measure.counters import count as count_bytes
    from simulator.evidence.measure.counters import counter_key, find_ncu
    from simulator.evidence.measure.store import now

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
    """Return a summary of the folder after a run of these cells."""
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


def _summary_table(result: dict[str, Any]) -> Any:
    """Return the summary as a table."""
    from simulator.views.columns import Column, as_table, line, stack

    shown = (
        Column("kind", "text", heading="kind"),
        *(Column(name, heading=name) for name in ("rows", "ok", "oom", "wrong", "error")),
        Column("file", "text", heading="file", wrap=True),
    )
    title = f"{result['done']:,} of {result['cells']:,} cells in {result['folder']}"
    return stack(line(title), "", as_table(shown, result["files"]))


@contextmanager
def _progress(total: int) -> Iterator[Callable[["Progress"], None]]:
    """Yield a progress display on stderr: a bar on a terminal, occasional lines elsewhere."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        with bar(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")) as shown:
            task = shown.add_task("", total=total)

            def draw(progress: "Progress") -> None:
                left = f"{_minutes(progress.seconds_left)} left {progress.group}"
                shown.update(task, completed=progress.done, description=left)

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
    """Format a remaining time.

    >>> _minutes(75), _minutes(3.2)
    ('1:15 min', '3 s')
    """
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
