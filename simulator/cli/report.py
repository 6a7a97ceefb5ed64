"""report: one offline page that answers a scenario or a question."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.cli import options as opt
from simulator.cli.asked import Asked, scenario_of, with_asked
from simulator.cli.output import PAGES, say
from simulator.errors import OutputError, ScenarioError
from simulator.resources import atomic_path

if TYPE_CHECKING:
    from simulator.answers.decision import Decision
    from simulator.inputs.scenario import Scenario


@with_asked(
    opt.of_answer(
        "output", opt.FILE, "Page to write: .html.", opt.OUTPUT_SPELT, Path("report.html")
    ),
    opt.gpus(
        "GPU to decide between, as often as you like. Default: the scenario's, or "
        "h100-sxm, and every GPU with a price."
    ),
    opt.target_step("Longest acceptable decode step. Default: the scenario's."),
    opt.PRICE_PER_HOUR,
    opt.of_answer("date", {"metavar": "TEXT"}, "Date to print.", default=""),
)
def _report(
    question: Asked,
    *,
    output: Path,
    gpu: Sequence[str] | None,
    target_step_ms: float | None,
    price_per_hour: float | None,
    date: str,
) -> None:
    if output.suffix.lower() not in PAGES:
        raise OutputError(f"cannot write {output}: a report is a page, {' or '.join(PAGES)}")
    from simulator import __version__
    from simulator.answers.study import study_scenario
    from simulator.answers.sweep import summarise
    from simulator.inputs.files import read_text
    from simulator.inputs.scenario import find_scenario
    from simulator.views.report.drawings import drawings
    from simulator.views.report.page import Report, report_page

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
                command=_command("report", name, {**found, **limits, "date": date or None}, output),
                sweep=_command("sweep", name, found, Path("grid.csv"))
                if asked_for.points > 1
                else "",
                scenario_text="" if name is None else read_text(find_scenario(name), ScenarioError),
                version=__version__,
                date=date,
            )
        )
        temporary.write_text(page, encoding="utf-8")
    say(f"wrote {output}")


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


def _command(
    command: str, scenario: str | None, options: Mapping[str, object], output: Path
) -> str:
    """Return the command that makes this page, or its grid, with the options that were given."""
    words = ["bifurcate", command, *([] if scenario is None else [scenario])]
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        for item in text if isinstance(text, list) else [text]:
            if item is not None:
                words += [f"--{name.replace('_', '-')}", str(item)]
    return shlex.join([*words, "-o", str(output)])
