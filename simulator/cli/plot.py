"""plot: one figure of a scenario or a question, as a page, an image or Plotly's JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli import options as opt
from simulator.cli.asked import OWN_MODEL, Asked, scenario_of, with_asked
from simulator.cli.output import USUAL_HEIGHT, USUAL_WIDTH, check_figure, draw, write_text
from simulator.cli.question import question_of

if TYPE_CHECKING:
    from simulator.answers.study import Study


@with_asked(
    opt.argument(
        "figure",
        {"metavar": "FIGURE", "autocompletion": opt.names_of("views.plots.registry", "FIGURES")},
        "Figure (see --list).",
    ),
    opt.gpus("GPU; more than one to compare those. Default: the scenario's, or h100-sxm."),
    opt.PRICE_PER_HOUR,
    opt.of_answer(
        "output",
        opt.FILE,
        "File to write: .html, .png, .svg, .pdf, or .json as Plotly reads it. "
        "Default: FIGURE.html.",
        opt.OUTPUT_SPELT,
    ),
    opt.of_answer("width", opt.SIZE, "Width of an image in pixels.", default=USUAL_WIDTH),
    opt.of_answer("height", opt.SIZE, "Height of an image in pixels.", default=USUAL_HEIGHT),
    opt.of_answer("show_list", {}, "List the figures, and stop.", "--list", default=False),
)
def _plot(
    question: Asked,
    *,
    figure: str | None,
    gpu: Sequence[str] | None,
    price_per_hour: float | None,
    output: Path | None,
    width: int,
    height: int,
    show_list: bool,
) -> None:
    from simulator.views.plots.registry import SHOWS, kind
    from simulator.views.plots.registry import figure as drawn

    if show_list:
        room = max(map(len, SHOWS))
        lines = [f"{name:<{room}}  {shown}" for name, shown in SHOWS.items()]
        write_text("\n".join(lines) + "\n", None)
        return
    if figure is None:
        raise typer.BadParameter("no figure is named; see 'bifurcate plot --list'")
    kind(figure)
    path = output or Path(f"{figure}.html")
    check_figure(path, width, height)
    name, found = question
    study = _study(name, found, opt.names_in(gpu), price_per_hour)
    draw(drawn(figure, study), path, width, height)


def _study(
    name: str | None, options: dict[str, Any], gpus: Sequence[str], price: float | None
) -> "Study":
    """Return the study of a scenario, or of a question, whose model may be one of its own."""
    from simulator.answers.study import DEFAULT_OUTPUT_TOKENS, Study, study_scenario
    from simulator.inputs.hardware import load_hardware

    if name is not None or not any(option in OWN_MODEL for option in options):
        found, settings = scenario_of(name, options, gpus=gpus)
        return study_scenario(found, usd_per_hour=price, **settings)
    question = question_of(**options | {"model": None})
    return Study(
        models=(question.model,),
        gpus=tuple(load_hardware(name) for name in gpus or [opt.DEFAULT_GPU]),
        setup=question.setup,
        workload=question.workload,
        output_tokens=question.output_tokens or DEFAULT_OUTPUT_TOKENS,
        usd_per_hour=price,
    )
