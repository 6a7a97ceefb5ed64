"""plot: one figure of a scenario or a question, as a page, an image or Plotly's JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli import options as opt
from simulator.cli.asked import asked, changes_of, given
from simulator.cli.output import (
    USUAL_HEIGHT,
    USUAL_WIDTH,
    check_figure,
    say,
    write_figure,
    write_text,
)
from simulator.cli.question import question_of

if TYPE_CHECKING:
    from simulator.answers.study import Study


def complete_figures(incomplete: str) -> list[str]:
    """Complete a figure's name."""
    from simulator.views.plots.registry import FIGURES

    return [name for name in FIGURES if name.startswith(incomplete.lower())]


@opt.with_options(asked)
def _plot(
    options: dict[str, Any],
    context: typer.Context,
    figure: Annotated[
        str | None,
        typer.Argument(
            help="Figure (see --list).", metavar="FIGURE", autocompletion=complete_figures
        ),
    ] = None,
    scenario: opt.QuestionScenario = None,
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
            "--output",
            "-o",
            text="File to write: .html, .png, .svg, .pdf, or .json as Plotly reads it. "
            "Default: FIGURE.html.",
            metavar="FILE",
        ),
    ] = None,
    width: Annotated[
        int, opt.size("--width", panel=opt.OUTPUT_PANEL, text="Width of an image in pixels.")
    ] = USUAL_WIDTH,
    height: Annotated[
        int, opt.size("--height", panel=opt.OUTPUT_PANEL, text="Height of an image in pixels.")
    ] = USUAL_HEIGHT,
    show_list: Annotated[bool, typer.Option("--list", help="List the figures, and stop.")] = False,
) -> None:
    """Draw a figure: page, image or Plotly's JSON."""
    from simulator.views.plots.registry import FIGURES, kind
    from simulator.views.plots.registry import figure as draw

    if show_list:
        room = max(map(len, FIGURES))
        lines = [f"{name:<{room}}  {item.shows}" for name, item in FIGURES.items()]
        write_text("\n".join(lines) + "\n", None)
        return
    if figure is None:
        raise typer.BadParameter("give a FIGURE; 'bifurcate plot --list' names them")
    kind(figure)
    path = output or Path(f"{figure}.html")
    check_figure(path, width, height)
    if scenario is None:
        study = _of_question(options, gpu or [opt.DEFAULT_GPU], price_per_hour)
    else:
        study = _of_scenario(scenario, given(context, options), gpu, price_per_hour)
    drawn = draw(figure, study)
    write_figure(drawn, path, width, height)
    say(f"wrote {path}: {drawn.layout.meta['finding']}")


def _of_question(options: dict[str, Any], gpus: Sequence[str], price: float | None) -> "Study":
    """Return the study around a question's options."""
    from simulator.answers.study import DEFAULT_OUTPUT_TOKENS, Study
    from simulator.inputs.hardware import load_hardware

    question = question_of(**options)
    return Study(
        models=(question.model,),
        gpus=tuple(load_hardware(name) for name in gpus),
        setup=question.setup,
        workload=question.workload,
        output_tokens=question.output_tokens or DEFAULT_OUTPUT_TOKENS,
        usd_per_hour=price,
    )


def _of_scenario(
    name: str, options: dict[str, Any], gpus: Sequence[str] | None, price: float | None
) -> "Study":
    """Return the study of a scenario, with its settings replaced by the given options."""
    from simulator.answers.study import narrowed, study_scenario
    from simulator.inputs.scenario import load_scenario

    changes, settings = changes_of(options)
    changes["gpu"] = tuple(gpus) if gpus else None
    found = narrowed(load_scenario(name), changes)
    return study_scenario(found, usd_per_hour=price, **settings)


# The commands of this module.
COMMANDS = {"plot": _plot}
