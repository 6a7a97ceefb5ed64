"""plot, report and explore: figures and pages of a scenario or a question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli import options as opt
from simulator.cli import output as out
from simulator.cli.question import OWN_MODEL, Named, question_of, scenario_of, with_asked
from simulator.errors import OutputError, ScenarioError
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS
from simulator.resources import atomic_path

if TYPE_CHECKING:
    from simulator.answers.decision import Decision
    from simulator.answers.study import Study
    from simulator.inputs.scenario import Scenario


@with_asked(
    opt.argument(
        "figure",
        {"metavar": "FIGURE", "autocompletion": opt.names_of("views.plots.registry", "FIGURES")},
        "Figure (see --list).",
    ),
    opt.gpus("GPU; more than one to compare those. Default: the scenario's, or h100-sxm."),
    opt.PRICE_PER_HOUR,
    opt.of_answer("output", opt.FILE),
    opt.of_answer("width", opt.SIZE, "Width of an image in pixels.", default=out.USUAL_WIDTH),
    opt.of_answer("height", opt.SIZE, "Height of an image in pixels.", default=out.USUAL_HEIGHT),
    opt.of_answer("show_list", {}, "List the figures, and stop.", default=False),
)
def _plot(
    question: Named,
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
        out.write_text("\n".join(lines) + "\n", None)
        return
    if figure is None:
        raise typer.BadParameter("no figure is named; see 'bifurcate plot --list'")
    kind(figure)
    path = output or Path(f"{figure}.html")
    out.check_figure(path, width, height)
    name, found = question
    study = _study(name, found, opt.names_in(gpu), price_per_hour)
    out.draw(drawn(figure, study), path, width, height)


def _study(
    name: str | None, options: dict[str, Any], gpus: Sequence[str], price: float | None
) -> "Study":
    """Return the study of a scenario, or of a question, whose model may be one of its own."""
    from simulator.answers.study import Study, study_scenario
    from simulator.inputs.hardware import load_hardware
    from simulator.inputs.setup import ask

    if name is not None or not any(option in OWN_MODEL for option in options):
        found, settings = scenario_of(name, options, gpus=gpus)
        return study_scenario(found, usd_per_hour=price, **settings)
    question = question_of(**options | {"model": None})
    setup, work = ask(**question.given)
    return Study(
        models=(question.given["model"],),
        gpus=tuple(load_hardware(name) for name in gpus or [opt.DEFAULT_GPU]),
        setup=setup,
        workload=work,
        output_tokens=question.output_tokens or DEFAULT_OUTPUT_TOKENS,
        usd_per_hour=price,
    )


@with_asked(
    opt.of_answer("output", opt.FILE, "Page to write: .html.", default=Path("report.html")),
    opt.gpus(
        "GPU to decide between, as often as you like. Default: the scenario's, or "
        "h100-sxm, and every GPU with a price."
    ),
    opt.target_step("Longest acceptable decode step. Default: the scenario's."),
    opt.PRICE_PER_HOUR,
    opt.of_answer("date", {"metavar": "TEXT"}, "Date to print.", default=""),
)
def _report(
    question: Named,
    *,
    output: Path,
    gpu: Sequence[str] | None,
    target_step_ms: float | None,
    price_per_hour: float | None,
    date: str,
) -> None:
    if output.suffix.lower() not in out.PAGES:
        raise OutputError(f"cannot write {output}: a report is a page, {' or '.join(out.PAGES)}")
    from simulator import __version__
    from simulator.answers.study import study_scenario
    from simulator.answers.sweep import summarise
    from simulator.inputs.files import read_text
    from simulator.inputs.scenario import find_scenario
    from simulator.views.report.drawings import drawings
    from simulator.views.report.page import Report, command_line, report_page

    name, found = question
    gpus = opt.names_in(gpu) or None
    asked_for, settings = scenario_of(name, found, gpus=gpus, target_step_ms=target_step_ms)
    # Check the folder first, because the page takes seconds.
    with atomic_path(output) as temporary:
        study = study_scenario(asked_for, usd_per_hour=price_per_hour, **settings)
        decisions = _decisions(
            asked_for,
            settings,
            alone=gpus is not None,
            output_tokens=study.output_tokens,
            target_step_s=study.target_step_s,
            usd_per_hour=price_per_hour,
        )
        limits = {"target_step_ms": target_step_ms, "price_per_hour": price_per_hour}
        found |= {"gpu": gpus}
        page = report_page(
            Report(
                scenario=asked_for,
                expected=name is not None,
                decisions=decisions,
                grid=summarise(asked_for, **settings),
                drawings=drawings(study, decisions),
                command=command_line(
                    "report", name, **found, **limits, date=date or None, o=output
                ),
                sweep=command_line("sweep", name, **found, o="grid.csv")
                if asked_for.points > 1
                else "",
                scenario_text="" if name is None else read_text(find_scenario(name), ScenarioError),
                version=__version__,
                date=date,
            )
        )
        temporary.write_text(page, encoding="utf-8")
    out.say(f"wrote {output}")


def _decisions(
    scenario: "Scenario", settings: Mapping[str, Any], *, alone: bool, **limits: Any
) -> list["Decision"]:
    """Compare each case on the requested GPUs, alone or with all GPUs of known price."""
    from simulator.answers.decision import decide
    from simulator.answers.price import priced_gpus
    from simulator.answers.study import central_cases
    from simulator.inputs.hardware import load_hardware

    gpus = {str(name): load_hardware(str(name)) for name in scenario.gpus}
    asked_for = len(gpus)
    if not alone:
        known = {profile.id for profile in gpus.values()}
        gpus |= {profile.id: profile for profile in priced_gpus() if profile.id not in known}
    cases = central_cases(scenario, **settings)
    return [decide(case, gpus, asked=asked_for, **limits) for case in cases]


@with_asked(
    opt.of_answer("output", opt.FILE, "File to write: .html.", default=Path("explore.html")),
    opt.gpus("GPU to offer, as often as you like. Default: the scenario's, then all."),
)
def _explore(question: Named, *, output: Path, gpu: Sequence[str] | None) -> None:
    if output.suffix.lower() not in out.PAGES:
        raise OutputError(f"cannot write {output}: a page goes to .html")
    from simulator.views.explore.menu import menu
    from simulator.views.explore.page import page
    from simulator.views.text import plural

    name, found = question
    gpus = opt.names_in(gpu)
    offered_models = () if name is None else opt.names_in(found.pop("model", ()))
    start, settings = scenario_of(name, found, gpus=gpus if name is None else ())
    for unknown in settings.keys() - {"constants", "gpu_memory_utilization"}:
        raise typer.BadParameter(f"{opt.spellings_of(unknown)[0]}: the page has no such setting")
    offer = menu(start, models=offered_models, gpus=gpus, **settings)
    for reason in offer.skipped:
        out.say(f"skipped: {reason}")
    out.write_text(page(offer), output)
    offered = f"{plural(len(offer.models), 'model')}, {plural(len(offer.gpus), 'GPU')}"
    out.say(f"wrote {output}: {offered}; open it in a browser")
