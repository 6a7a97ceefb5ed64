"""explore: one offline page with sliders and menus for a scenario or a question."""

import gc
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli import options as opt
from simulator.cli.asked import Asked, asked, scenario_of
from simulator.cli.output import PAGES, say, write_text
from simulator.errors import OutputError


@opt.with_options(asked)()
def _explore(
    question: Asked,
    output: Annotated[Path, opt.answer("--output -o", "File to write: .html.", opt.FILE)] = Path(
        "explore.html"
    ),
    gpu: Annotated[
        list[str] | None,
        opt.gpu_option("GPU to offer, as often as you like. Default: the scenario's, then all."),
    ] = None,
) -> None:
    if output.suffix.lower() not in PAGES:
        raise OutputError(f"cannot write {output}: a page goes to .html")
    # Next to nothing is garbage until the page is written, and then the process ends.
    gc.disable()
    try:
        _write(question, output, gpu)
    finally:
        gc.freeze()
        gc.enable()


def _write(question: Asked, output: Path, gpu: list[str] | None) -> None:
    """Write the page, and say what it offers."""
    from simulator.views.explore.menu import menu
    from simulator.views.explore.page import page
    from simulator.views.text import plural

    name, found = question
    gpus = opt.names_in(gpu)
    offered_models = () if name is None else opt.names_in(found.pop("model", ()))
    start, settings = scenario_of(name, found, gpus=gpus if name is None else ())
    for unknown in settings.keys() - {"constants", "gpu_memory_utilization"}:
        raise typer.BadParameter(f"--{unknown.replace('_', '-')}: the page has no such setting")
    offer = menu(start, models=offered_models, gpus=gpus, **settings)
    for reason in offer.skipped:
        say(f"skipped: {reason}")
    write_text(page(offer), output)
    offered = f"{plural(len(offer.models), 'model')}, {plural(len(offer.gpus), 'GPU')}"
    say(f"wrote {output}: {offered}; open it in a browser")
