"""plot: one figure of a scenario or a question, as a page, an image or Plotly's JSON."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.figures import USUAL_HEIGHT, USUAL_WIDTH, check_figure, write_figure
from simulator.cli.options import OUTPUT_PANEL, WORK_PANEL, PricePerHour, with_options
from simulator.cli.output import say, write_text
from simulator.cli.question import question_of
from simulator.cli.words import complete_gpus, complete_scenarios, option, size

if TYPE_CHECKING:
    from simulator.answers.study import Study

DEFAULT_GPU = "h100-sxm"
# Options of a question that make up a model of their own.
_OWN_MODEL = (
    "assume",
    "layers",
    "hidden_size",
    "heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)
# Options whose name in a scenario is another, and those that a scenario does not have.
_FIELDS, _NO_AXES = {"dtype": "weight_dtype"}, ("constants", "gpu_memory_utilization")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plot)


def complete_figures(incomplete: str) -> list[str]:
    """Complete a figure's name."""
    from simulator.views.plots.registry import FIGURES

    return [name for name in FIGURES if name.startswith(incomplete.lower())]


def _asked(**values: Any) -> dict[str, Any]:
    """Return the options of a question as they are; a scenario needs only those that were given."""
    return values


_asked.__signature__ = inspect.signature(question_of)  # type: ignore[attr-defined]


@with_options(_asked)
def plot(
    asked: dict[str, Any],
    context: typer.Context,
    figure: Annotated[
        str | None,
        typer.Argument(
            help="Figure (see --list).", metavar="FIGURE", autocompletion=complete_figures
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Argument(
            help="Scenario (see 'bifurcate scenarios') or a TOML file; options given beside it "
            "replace its own. Or no scenario, and the options of a question.",
            metavar="[SCENARIO]",
            autocompletion=complete_scenarios,
        ),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        option(
            "--gpu",
            "--hardware",
            "-g",
            panel=WORK_PANEL,
            text="GPU; more than one to compare those. Default: the scenario's, or h100-sxm.",
            metavar="GPU",
            autocompletion=complete_gpus,
        ),
    ] = None,
    price_per_hour: PricePerHour = None,
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            panel=OUTPUT_PANEL,
            text="File to write: .html, .png, .svg, .pdf, or .json as Plotly reads it. "
            "Default: FIGURE.html.",
            metavar="FILE",
        ),
    ] = None,
    width: Annotated[
        int, size("--width", panel=OUTPUT_PANEL, text="Width of an image in pixels.")
    ] = USUAL_WIDTH,
    height: Annotated[
        int, size("--height", panel=OUTPUT_PANEL, text="Height of an image in pixels.")
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
    given = [
        name
        for name in asked
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if scenario is None:
        study = _of_question(asked, gpu or [DEFAULT_GPU], price_per_hour)
    else:
        study = _of_scenario(scenario, asked, given, gpu, price_per_hour)
    drawn = draw(figure, study)
    write_figure(drawn, path, width, height)
    say(f"wrote {path}: {drawn.layout.meta['finding']}")


def _of_question(asked: dict[str, Any], gpus: Sequence[str], price: float | None) -> "Study":
    """Return the study around a question's options."""
    from simulator.answers.study import DEFAULT_OUTPUT_TOKENS, Study
    from simulator.inputs.hardware import load_hardware

    question = question_of(**asked)
    return Study(
        models=(question.model,),
        gpus=tuple(load_hardware(name) for name in gpus),
        workload=question.workload,
        output_tokens=question.output_tokens or DEFAULT_OUTPUT_TOKENS,
        usd_per_hour=price,
        constants=question.constants,
        memory_utilization=question.gpu_memory_utilization,
    )


def _of_scenario(
    name: str,
    asked: dict[str, Any],
    given: Sequence[str],
    gpus: Sequence[str] | None,
    price: float | None,
) -> "Study":
    """Return the study of a scenario, with the options that were given in place of its own."""
    from simulator.answers.decision import narrowed
    from simulator.answers.study import study_scenario
    from simulator.inputs.scenario import load_scenario

    for key in given:
        if key in _OWN_MODEL:
            raise typer.BadParameter(
                f"--{key.replace('_', '-')} describes a model; give it without a scenario"
            )
    changes = {_FIELDS.get(key, key): asked[key] for key in given}
    settings = {key: asked[key] for key in _NO_AXES if changes.pop(key, None) is not None}
    if "gpu_memory_utilization" in settings:
        settings["memory_utilization"] = settings.pop("gpu_memory_utilization")
    if "model" in changes:
        changes["model"] = (changes["model"],)
    if "output_tokens" in changes:
        changes.setdefault("decoded_tokens", max(0, changes["output_tokens"] - 1))
    changes["gpu"] = tuple(gpus) if gpus else None
    found = narrowed(load_scenario(name), changes)
    return study_scenario(found, usd_per_hour=price, **settings)
