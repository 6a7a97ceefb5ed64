"""scenarios: list them, show one with its sources, check files."""

from typing import Annotated

import typer

from simulator.cli.catalog import add_group, finish_check, read_all, write_facts, write_rows
from simulator.cli.options import with_output
from simulator.cli.output import Output
from simulator.cli.words import complete_scenarios


def register(app: typer.Typer) -> None:
    """Add the command group."""
    add_group(
        app,
        "scenarios",
        "List scenarios, show one with its sources, or check files.",
        list_scenarios,
        show=show_scenario,
        check=check_scenarios,
    )


@with_output
def list_scenarios(output: Output) -> None:
    """List the scenarios that ship with this package and your own."""
    from simulator.inputs.scenario import read_scenario, scenario_files

    rows = []
    for path in scenario_files().values():
        scenario = read_scenario(path)
        rows.append(
            {
                "scenario": scenario.id,
                "points": scenario.points,
                "verdict": scenario.verdict,
                "title": scenario.title,
            }
        )
    write_rows(output, rows)


@with_output
def show_scenario(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            help="Scenario or path.", metavar="SCENARIO", autocompletion=complete_scenarios
        ),
    ],
) -> None:
    """Show a scenario: question, grid, expected answer, sources."""
    from simulator.inputs.scenario import load_scenario

    scenario = load_scenario(name)
    facts = scenario.model_dump(mode="json") | {"points": scenario.points}
    write_facts(output, facts)


def check_scenarios(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Scenarios to check. Default: all that are found.", metavar="FILE"),
    ] = None,
) -> None:
    """Check scenarios: every key, and every model and GPU they name."""
    from simulator.inputs.scenario import check_scenario, read_scenario, scenario_files

    names = files or [str(path) for path in scenario_files().values()]
    scenarios, findings = read_all(names, read_scenario)
    for scenario in scenarios:
        findings += [f"{scenario.id}: {line}" for line in check_scenario(scenario)]
    finish_check(findings, len(names), "scenario")
