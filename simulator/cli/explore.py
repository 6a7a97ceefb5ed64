"""explore: one offline page with sliders and menus for a scenario."""

from pathlib import Path
from typing import Annotated

import typer

from simulator.cli import options as opt
from simulator.cli.output import PAGES, say, write_text
from simulator.errors import OutputError


def _explore(
    scenario: opt.ScenarioName,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .html.", metavar="FILE")
    ] = Path("explore.html"),
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Model to offer, as often as you like. Default: the scenario's, then presets.",
            metavar="MODEL",
            autocompletion=opt.complete_models,
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        opt.gpu_option(
            "GPU to offer, as often as you like. Default: the scenario's, then all others."
        ),
    ] = None,
    gpu_memory_utilization: opt.Utilization = 0.9,
    constants: opt.Constants = "auto",
) -> None:
    """Write a page with sliders and menus that answers at once."""
    if output.suffix.lower() not in PAGES:
        raise OutputError(f"cannot write {output}: a page goes to .html")
    from simulator.inputs.scenario import load_scenario
    from simulator.views.explore.menu import menu
    from simulator.views.explore.page import page
    from simulator.views.text import plural

    offer = menu(
        load_scenario(scenario),
        models=model or (),
        gpus=gpu or (),
        constants=constants,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    for reason in offer.skipped:
        say(f"skipped: {reason}")
    write_text(page(offer), output)
    offered = f"{plural(len(offer.models), 'model')}, {plural(len(offer.gpus), 'GPU')}"
    say(f"wrote {output}: {offered}; open it in a browser")


# The commands of this module.
COMMANDS = {"explore": _explore}
