"""report: one offline page that answers a scenario."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import MODEL_PANEL, WORK_PANEL, Constants, PricePerHour, Utilization
from simulator.cli.output import say
from simulator.cli.words import (
    complete_gpus,
    complete_models,
    complete_scenarios,
    number,
    option,
    size,
)
from simulator.errors import OutputError, ScenarioError
from simulator.resources import atomic_path

if TYPE_CHECKING:
    from simulator.answers.decision import Decision
    from simulator.inputs.scenario import Scenario, Value

SUFFIXES = (".html", ".htm")
USUAL_UTILIZATION = 0.9


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    scenario: Annotated[
        str,
        typer.Argument(
            help="Scenario (see 'bifurcate scenarios') or a TOML file.",
            metavar="SCENARIO",
            autocompletion=complete_scenarios,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Page to write: .html.", metavar="FILE"),
    ],
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            "-m",
            panel=MODEL_PANEL,
            text="Model in place of the scenario's, as often as you like.",
            metavar="MODEL",
            autocompletion=complete_models,
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        option(
            "--gpu",
            "--hardware",
            "-g",
            panel=WORK_PANEL,
            text="GPU to decide between, as often as you like. Default: the scenario's, and every "
            "GPU with a price.",
            metavar="GPU",
            autocompletion=complete_gpus,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        size("--samples", "--num-samples", "-n", panel=WORK_PANEL, text="Instead of the grid's."),
    ] = None,
    context_tokens: Annotated[
        int | None,
        size(
            "--context-tokens",
            "--context",
            "--input-len",
            panel=WORK_PANEL,
            text="Instead of the grid's.",
        ),
    ] = None,
    decoded_tokens: Annotated[
        int | None,
        size("--decoded-tokens", "--decoded", panel=WORK_PANEL, text="Instead of the grid's."),
    ] = None,
    output_tokens: Annotated[
        int | None,
        size(
            "--output-tokens",
            "--output-len",
            panel=WORK_PANEL,
            text="Tokens each sample generates in a whole request. Default: the scenario's, "
            "or 256.",
        ),
    ] = None,
    target_step_ms: Annotated[
        float | None,
        option(
            "--target-step-ms",
            panel=WORK_PANEL,
            text="Longest acceptable decode step. Default: the scenario's.",
            parser=number,
            metavar="MS",
        ),
    ] = None,
    price_per_hour: PricePerHour = None,
    gpu_memory_utilization: Utilization = USUAL_UTILIZATION,
    constants: Constants = "auto",
    date: Annotated[
        str, typer.Option("--date", help="Date to print on the page.", metavar="TEXT")
    ] = "",
) -> None:
    """Write one offline page that answers a scenario."""
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write {output}: a report is a page, {' or '.join(SUFFIXES)}")
    axes: dict[str, Sequence[Value] | Value | None] = {
        "model": model,
        "gpu": gpu,
        "samples": samples,
        "context_tokens": context_tokens,
        "decoded_tokens": decoded_tokens,
        "output_tokens": output_tokens,
        "target_step_ms": target_step_ms,
    }
    single: dict[str, object] = {
        "price_per_hour": price_per_hour,
        "gpu_memory_utilization": _unless(USUAL_UTILIZATION, gpu_memory_utilization),
        "constants": _unless("auto", constants),
        "date": date or None,
    }
    command = _command(["bifurcate", "report", scenario], {**axes, **single}, output)
    # The folder is tried first: the page takes seconds.
    with atomic_path(output) as temporary:
        page = _page(
            scenario,
            axes,
            command=command,
            date=date,
            alone=gpu is not None,
            usd_per_hour=price_per_hour,
            constants=constants,
            memory_utilization=gpu_memory_utilization,
        )
        temporary.write_text(page, encoding="utf-8")
    say(f"wrote {output}")


def _page(
    name: str,
    changes: "Mapping[str, Sequence[Value] | Value | None]",
    *,
    command: str,
    date: str,
    alone: bool,
    usd_per_hour: float | None,
    **settings: Any,
) -> str:
    """Answer a scenario, some of its settings changed, and return the page."""
    from simulator import __version__
    from simulator.answers.decision import narrowed, summarise
    from simulator.answers.study import study_scenario
    from simulator.inputs.files import read_text
    from simulator.inputs.scenario import find_scenario, load_scenario
    from simulator.views.report.drawings import drawings
    from simulator.views.report.page import Report, report_page

    scenario = narrowed(load_scenario(name), changes)
    changed = any(value is not None for value in changes.values())
    study = study_scenario(scenario, usd_per_hour=usd_per_hour, **settings)
    decisions = _decisions(
        scenario,
        alone=alone,
        output_tokens=study.output_tokens,
        target_step_s=study.target_step_s,
        usd_per_hour=usd_per_hour,
        **settings,
    )
    return report_page(
        Report(
            scenario=scenario,
            decisions=decisions,
            grid=summarise(scenario, **settings),
            drawings=drawings(study, decisions),
            command=command,
            sweep="" if changed else f"bifurcate sweep {shlex.quote(name)} -o grid.csv",
            scenario_text=read_text(find_scenario(name), ScenarioError),
            version=__version__,
            date=date,
        )
    )


def _decisions(scenario: "Scenario", *, alone: bool, **settings: Any) -> list["Decision"]:
    """Compare, for each case of a scenario, its GPUs and those of known price, or its own alone."""
    from simulator.answers.decision import central_cases, decide
    from simulator.api import priced_gpus
    from simulator.inputs.hardware import load_hardware

    gpus = {str(name): load_hardware(str(name)) for name in scenario.gpus}
    asked = len(gpus)
    if not alone:
        known = {profile.id for profile in gpus.values()}
        gpus |= {profile.id: profile for profile in priced_gpus() if profile.id not in known}
    return [decide(case, gpus, asked=asked, **settings) for case in central_cases(scenario)]


def _unless(usual: object, value: object) -> object:
    """Return a value that is not the usual one."""
    return None if value == usual else value


def _command(start: Sequence[str], options: Mapping[str, object], output: Path) -> str:
    """Return the command that makes the page, with the options that were given."""
    words = list(start)
    for name, value in options.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None:
                words += [f"--{name.replace('_', '-')}", str(item)]
    return shlex.join([*words, "-o", str(output)])
