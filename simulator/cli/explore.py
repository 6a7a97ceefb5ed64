"""explore: one offline page with sliders and menus for a scenario or a question."""

from collections.abc import Sequence
from pathlib import Path

import typer

from simulator.cli import options as opt
from simulator.cli.asked import Asked, scenario_of, with_asked
from simulator.cli.output import PAGES, say, write_text
from simulator.errors import OutputError


@with_asked(
    opt.of_answer(
        "output", opt.FILE, "File to write: .html.", opt.OUTPUT_SPELT, Path("explore.html")
    ),
    opt.gpus("GPU to offer, as often as you like. Default: the scenario's, then all."),
)
def _explore(question: Asked, *, output: Path, gpu: Sequence[str] | None) -> None:
    if output.suffix.lower() not in PAGES:
        raise OutputError(f"cannot write {output}: a page goes to .html")
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
