"""measure: time the kernels, products, streams and whole steps on this machine's GPU."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from simulator.cli.options import (
    AsJson,
    FormatName,
)
from simulator.cli.output import Output, output_of, say
from simulator.cli.words import choice, complete_gpus, complete_scenarios, count
from simulator.errors import MeasurementError, ProfileError
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES, need_installed
from simulator.evidence.measure.cells import KINDS, L2_STATES, MODES, Kind, L2State, Mode
from simulator.inputs.dtypes import Dtype

if TYPE_CHECKING:
    from simulator.evidence.measure.cells import AttentionCell, Plan
    from simulator.timing.constants import Rates

DeviceName = Literal["cuda", "cpu"]
DRY_RUN_GPU = "h100-sxm"
# What --only may say: kinds of timed rows, and hardware counters without timing anything.
COUNTERS = "counters"
ROW_KINDS = (*KINDS, COUNTERS)
# Statuses of rows that another run might change.
RETRIED = ("error", "wrong", "oom")
GRID_PANEL, RUN_PANEL = "What is measured", "How"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(measure)


def measure(
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="Scenario (see 'bifurcate scenarios') or a TOML file. Default: the paper's "
            "regime on 7B shapes, under 25 minutes.",
            autocompletion=complete_scenarios,
        ),
    ] = None,
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the rows; a run there is continued."),
    ] = Path("measured"),
    device: Annotated[
        DeviceName,
        choice(
            "--device",
            panel=RUN_PANEL,
            text="cpu tries everything on small shapes.",
            of=get_args(DeviceName),
        ),
    ] = "cuda",
    kinds: Annotated[
        list[str] | None,
        choice("--only", panel=GRID_PANEL, text="Kind of row, as often as you like.", of=ROW_KINDS),
    ] = None,
    kernels: Annotated[
        list[str] | None,
        typer.Option(
            "--kernel",
            help="Attention kernel, as often as you like. Default: all of ours; "
            f"{' and '.join(OTHER_LIBRARIES)} run other libraries'.",
            rich_help_panel=GRID_PANEL,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        choice(
            "--mode",
            panel=GRID_PANEL,
            text="CUDA graph replay or eager launches. Default: both.",
            of=MODES,
        ),
    ] = None,
    l2: Annotated[
        L2State,
        choice(
            "--l2",
            panel=GRID_PANEL,
            text="L2 before a call: cold rotates over buffers larger than it.",
            of=L2_STATES,
        ),
    ] = L2_STATES[0],
    dtype: Annotated[
        Dtype | None,
        choice(
            "--dtype",
            panel=GRID_PANEL,
            text="Format of weights, caches and activations. Default: bf16.",
            of=("bf16", "fp16", "fp32"),
        ),
    ] = None,
    query_tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--query-tokens",
            help="Query tokens of each sample, as often as you like. "
            "Default: 1, or the scenario's.",
            parser=count,
            metavar="SIZE",
            rich_help_panel=GRID_PANEL,
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            "-g",
            help="Profile to predict with. Default: the one of this card's name.",
            autocompletion=complete_gpus,
        ),
    ] = None,
    retry: Annotated[
        list[str] | None,
        choice(
            "--retry",
            panel=RUN_PANEL,
            text="Measure rows of this status again, as often as you like.",
            of=RETRIED,
        ),
    ] = None,
    skip_oom: Annotated[
        bool, typer.Option("--skip-oom", help="Do not try what should not fit in memory.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", help="Start nothing after so many minutes.", min=0.0),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option("--memory-limit", help="Bytes to use at most.", parser=count, metavar="SIZE"),
    ] = None,
    repeats: Annotated[
        int, typer.Option("--repeats", help="Timed repeats of each cell at most.", min=1)
    ] = 30,
    hardware_counters: Annotated[
        bool,
        typer.Option("--hardware-counters", help="Then count bytes with Nsight Compute (ncu)."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, predicted times and memory, and stop.")
    ] = False,
    format_name: FormatName = None,
    as_json: AsJson = False,
) -> None:
    """Time kernels, products, streams and whole steps on your GPU.

    Every row is safe on disk before the next is measured; the same command goes on where a run
    was stopped.
    """
    output = output_of(format_name, as_json, None)
    timed = [kind for kind in kinds or KINDS if kind != COUNTERS]
    plan = _plan(
        scenario,
        device=device,
        dtype=dtype,
        l2=l2,
        kinds=cast("list[Kind]", timed or ["attention"]),
        kernels=kernels or (),
        modes=(mode,) if mode else MODES,
        query_tokens=query_tokens or (),
    )
    counted = _counted(plan) if hardware_counters or COUNTERS in (kinds or ()) else None
    if not timed:
        plan = replace(plan, cells=())
    for reason in plan.skipped:
        say(f"skipped: {reason}")
    if dry_run:
        shown = plan if timed else replace(plan, cells=tuple(counted or ()))
        _dry_run(shown, folder, device, gpu, output)
        return
    need_installed(kernels or ())
    if find_spec("torch") is None:
        raise MeasurementError(
            "measuring needs PyTorch: pip install 'bifurcated-attention-simulator[torch]' "
            "(--dry-run does not)"
        )
    from simulator.cli.measure_run import measure_plan, summary_table
    from simulator.evidence.kernels import find_kernel
    from simulator.evidence.measure.device import open_device
    from simulator.evidence.measure.predict import timing_for
    from simulator.evidence.measure.runner import Settings

    settings = Settings(
        timing=timing_for(device, repeats),
        skip_oom=skip_oom,
        time_limit_s=None if time_limit is None else 60 * time_limit,
    )
    opened = open_device(device, memory_limit=memory_limit)
    for kernel in kernels or ():
        find_kernel(kernel)  # a library that cannot be used would fail cell by cell
    rates = _rates(gpu, opened.card.gpu)
    result = measure_plan(plan, folder, opened, rates, settings, counted=counted, retry=retry or ())
    output.write(
        table=lambda: summary_table(result),
        json_object=lambda: result,
        rows=lambda: result["files"],
    )


def _plan(
    scenario: str | None,
    *,
    device: DeviceName,
    dtype: Dtype | None,
    l2: L2State,
    kinds: Sequence[Kind],
    kernels: Sequence[str],
    modes: Sequence[Mode],
    query_tokens: Sequence[int],
) -> "Plan":
    """Return the cells that the options ask for."""
    from simulator.evidence.measure import grid
    from simulator.inputs.scenario import load_scenario

    if scenario is not None:
        plan = grid.scenario_grid(load_scenario(scenario), dtype=dtype, l2=l2)
    elif device == "cpu":
        plan = grid.cpu_grid(dtype=dtype or "fp32", l2=l2)
    else:
        plan = grid.default_grid(dtype=dtype or "bf16", l2=l2)
    if device == "cpu":
        others = [kernel for kernel in kernels if kernel in OTHER_LIBRARIES]
        if others:
            raise MeasurementError(f"{others[0]} runs on CUDA only: leave out --device cpu")
        modes = [mode for mode in modes if mode == "eager"]
        if not modes:
            raise MeasurementError("--mode graph needs CUDA: a CPU has no CUDA graphs")
    return grid.select(plan, kinds=kinds, kernels=kernels, modes=modes, query_tokens=query_tokens)


def _counted(plan: "Plan") -> "list[AttentionCell]":
    """Return the kernels of a plan whose bytes are counted."""
    from simulator.evidence.measure.counters import wanted_cells

    return wanted_cells(plan)


def _rates(gpu: str | None, card: str) -> "Rates | None":
    """Return the rates to predict with: of the profile asked for, or of the card's name."""
    from simulator.inputs.hardware import load_hardware
    from simulator.timing.constants import rates

    if gpu is not None:
        return rates(load_hardware(gpu))
    try:
        return rates(load_hardware(card))
    except ProfileError:
        return None


def _dry_run(
    plan: "Plan", folder: Path, device: DeviceName, gpu: str | None, output: Output
) -> None:
    """Show the cells, what they should take, and whether they fit."""
    from simulator.evidence.measure.predict import preview
    from simulator.evidence.measure.store import Store

    if gpu is None and device == "cuda":
        say(f"predictions are for {DRY_RUN_GPU}; --gpu chooses another")
    rates = None if device == "cpu" and gpu is None else _rates(gpu or DRY_RUN_GPU, "")
    done = Store(folder, repair=False).done if folder.is_dir() else set()
    result = preview(plan, gpu=rates, device=device, done=done)

    def table() -> Any:
        from rich.console import Group

        from simulator.views.table import Column, FittedTable

        names = ("variants", "fastest", "slowest", "memory", "fits")
        columns = [Column(name="group", right=False), *(Column(name=name) for name in names)]
        return Group(result.title, "", FittedTable(columns=columns, rows=result.lines))

    output.write(table=table, json_object=result.as_object, rows=lambda: result.rows)
