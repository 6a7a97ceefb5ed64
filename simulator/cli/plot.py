"""plot: one figure of a scenario or a question, as a page, an image or Plotly's JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import options as opt
from simulator.cli.asked import OWN_MODEL, Asked, asked, scenario_of
from simulator.cli.output import USUAL_HEIGHT, USUAL_WIDTH, check_figure, draw, write_text
from simulator.cli.question import question_of

if TYPE_CHECKING:
    from simulator.answers.study import Study


@opt.with_options(asked)()
def _plot(
    question: Asked,
    figure: Annotated[
        str | None,
        typer.Argument(
            help="Figure (see --list).",
            metavar="FIGURE",
            autocompletion=opt.names_of("views.plots.registry", "FIGURES"),
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        opt.gpu_option(
            "GPU; more than one to compare those. Default: the scenario's, or h100-sxm."
        ),
    ] = None,
    price_per_hour: opt.PricePerHour = None,
    output: Annotated[
        Path | None,
        opt.answer(
            "--output -o",
            "File to write: .html, .png, .svg, .pdf, or .json as Plotly reads it. "
            "Default: FIGURE.html.",
            opt.FILE,
        ),
    ] = None,
    width: Annotated[
        int, opt.answer("--width", "Width of an image in pixels.", opt.SIZE)
    ] = USUAL_WIDTH,
    height: Annotated[
        int, opt.answer("--height", "Height of an image in pixels.", opt.SIZE)
    ] = USUAL_HEIGHT,
    show_list: Annotated[bool, typer.Option("--list", help="List the figures, and stop.")] = False,
) -> None:
    from simulator.views.plots.registry import FIGURES, kind
    from simulator.views.plots.registry import figure as drawn

    if show_list:
        room = max(map(len, FIGURES))
        lines = [f"{name:<{room}}  {item.shows}" for name, item in FIGURES.items()]
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
