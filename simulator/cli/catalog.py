"""models, gpus and scenarios: list them, show one with its sources, check a file."""

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import typer

from simulator.cli.options import (
    AsJson,
    FormatName,
    OutputPath,
    with_output,
)
from simulator.cli.output import Output, say
from simulator.cli.words import (
    complete_gpus,
    complete_models,
    complete_scenarios,
    complete_types,
    count,
)
from simulator.errors import SimulatorError

CHECK_FOUND = 1

KvHeads = Annotated[
    int | None,
    typer.Option(
        "--kv-heads", help="What if it had so many KV heads.", parser=count, metavar="SIZE"
    ),
]
Assume = Annotated[
    str | None,
    typer.Option(
        "--assume",
        help="Model type to read an unknown config.json as.",
        metavar="TYPE",
        autocompletion=complete_types,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command groups."""
    app.add_typer(
        _group("models", "List models, or show one.", list_models, show=show_model), name="models"
    )
    app.add_typer(
        _group(
            "gpus",
            "List GPUs, show one with its sources, or check profiles.",
            list_gpus,
            show=show_gpu,
            check=check_gpus,
        ),
        name="gpus",
    )
    app.add_typer(
        _group(
            "scenarios",
            "List scenarios, show one with its sources, or check files.",
            list_scenarios,
            show=show_scenario,
            check=check_scenarios,
        ),
        name="scenarios",
    )


def _group(
    name: str, text: str, lister: Callable[..., None], **commands: Callable[..., None]
) -> typer.Typer:
    """Return a group of commands that lists when none of them is named."""
    group = typer.Typer(name=name, help=text, rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def default(
        context: typer.Context,
        format_name: FormatName = None,
        as_json: AsJson = False,
        output: OutputPath = None,
    ) -> None:
        if context.invoked_subcommand is None:
            lister(format_name=format_name, as_json=as_json, output=output)
        elif as_json or format_name or output:
            name = context.invoked_subcommand
            raise typer.BadParameter(f"options of the answer go after {name!r}")

    group.command("list")(lister)
    for command, function in commands.items():
        group.command(command)(function)
    return group


@with_output
def list_models(output: Output) -> None:
    """List the models that are known by name."""
    from simulator.inputs.parameters import count_parameters
    from simulator.inputs.presets import load_model, presets

    rows = []
    for name in presets():
        shape = load_model(name)
        rows.append(
            {
                "model": name,
                "family": shape.family,
                "parameters": count_parameters(shape).total,
                "layers": shape.layers,
                "hidden_size": shape.hidden_size,
                "heads": shape.heads,
                "kv_heads": shape.kv_heads,
                "head_dim": shape.head_dim,
                "max_context_tokens": shape.max_context_tokens,
            }
        )
    _write_rows(output, rows, spare=("hidden_size", "head_dim"))


@with_output
def show_model(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            help="Preset, config.json or folder.", metavar="MODEL", autocompletion=complete_models
        ),
    ],
    kv_heads: KvHeads = None,
    assume: Assume = None,
) -> None:
    """Show a model's shape, parameters and KV bytes per token."""
    from simulator.counts.memory import kv_bytes_per_token
    from simulator.inputs.parameters import count_parameters
    from simulator.inputs.presets import load_model
    from simulator.inputs.workload import Workload

    shape = load_model(name, kv_heads=kv_heads, assume=assume)
    parameters = count_parameters(shape)
    facts = {
        **shape.model_dump(mode="json"),
        "family": shape.family,
        "parameters": parameters.total,
        "active_parameters": parameters.active,
        "embedding_parameters": parameters.embedding,
        "head_parameters": parameters.head,
        "attention_parameters": parameters.attention,
        "mlp_parameters": parameters.mlp,
        "norm_parameters": parameters.norms,
        "kv_bytes_per_token_bf16": int(kv_bytes_per_token(shape, Workload())),
    }
    _write_facts(output, facts)


@with_output
def list_gpus(output: Output) -> None:
    """List the GPUs that are known by name."""
    from simulator.inputs.hardware import profile_files, read_profile

    rows = []
    for path in profile_files().values():
        profile = read_profile(path)
        half = profile.peak.bf16_tflops or profile.peak.fp16_tflops
        price = profile.price_usd_per_hour
        rows.append(
            {
                "gpu": profile.id,
                "name": profile.name,
                "memory_gb": profile.peak.memory_gb.value,
                "bandwidth_gb_per_s": profile.peak.memory_bandwidth_gb_per_s.value,
                "half_tflops": half.value,
                "l2_mib": profile.peak.l2_mib.value,
                "usd_per_hour": None if price is None else price.value,
                "constants": "fitted" if profile.fitted else "carried",
            }
        )
    _write_rows(output, rows)


@with_output
def show_gpu(
    output: Output,
    name: Annotated[
        str, typer.Argument(help="GPU or path.", metavar="GPU", autocompletion=complete_gpus)
    ],
) -> None:
    """Show a GPU's figures and constants, with sources."""
    from simulator.inputs.hardware import load_hardware
    from simulator.timing.constants import rates

    profile = load_hardware(name)
    constants = rates(profile).constants
    answer = {
        **profile.model_dump(mode="json", exclude_none=True),
        "hash": profile.content_hash,
        "constants": {
            key: {"value": item.value, "origin": item.origin, "source": item.source}
            for key, item in constants.items()
        },
    }
    rows = [
        {"figure": f"{table}.{key}", "value": figure["value"], "source": figure["source"]}
        for table in ("peak", "measured", "fitted")
        for key, figure in answer.get(table, {}).items()
    ]
    if "price_usd_per_hour" in answer:
        rows.append({"figure": "price_usd_per_hour", **answer["price_usd_per_hour"]})
    rows += [
        {
            "figure": f"constant {key}",
            "value": item["value"],
            "source": f"{item['origin']}: {item['source']}",
        }
        for key, item in answer["constants"].items()
        if item["origin"] != "fitted"
    ]

    def table() -> object:
        from rich.console import Group
        from rich.text import Text

        from simulator.views.table import notes, simple_table

        aliases = ", ".join(profile.aliases)
        head = f"{profile.name}   {profile.vendor} {profile.architecture}, confidence "
        lines = [f"also called: {aliases}"] if aliases else []
        lines += [f"hash {profile.content_hash}, figures retrieved {profile.retrieved}"]
        lines += [profile.notes] if profile.notes else []
        return Group(
            Text(f"{head}{profile.confidence}", style="bold"),
            *notes(lines),
            Text(),
            simple_table(list(rows[0]), [list(row.values()) for row in rows]),
        )

    output.write(table=table, json_object=lambda: answer, rows=lambda: rows)


def check_gpus(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Profiles to check. Default: all that are found.", metavar="FILE"),
    ] = None,
) -> None:
    """Check profiles against arithmetic and plausibility."""
    from simulator.inputs.hardware import profile_files, read_profile
    from simulator.inputs.hardware_check import check_aliases, check_profile

    names = files or [str(path) for path in profile_files().values()]
    profiles, findings = _read_all(names, lambda name: read_profile(_path(name)))
    for profile in profiles:
        findings += [f"{profile.id}: {line}" for line in check_profile(profile)]
    findings += check_aliases(profiles)
    _finish_check(findings, len(names), "profile")


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
    _write_rows(output, rows)


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
    _write_facts(output, facts)


def check_scenarios(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Scenarios to check. Default: all that are found.", metavar="FILE"),
    ] = None,
) -> None:
    """Check scenarios: every key, and every model and GPU they name."""
    from simulator.inputs.scenario import check_scenario, read_scenario, scenario_files

    names = files or [str(path) for path in scenario_files().values()]
    scenarios, findings = _read_all(names, lambda name: read_scenario(_path(name)))
    for scenario in scenarios:
        findings += [f"{scenario.id}: {line}" for line in check_scenario(scenario)]
    _finish_check(findings, len(names), "scenario")


def _path(name: str) -> Any:
    """Return a path; commands that check files take nothing else."""
    from pathlib import Path

    return Path(name)


def _read_all(names: Sequence[str], read: Callable[[str], Any]) -> tuple[list[Any], list[str]]:
    """Read files, and collect what is wrong with those that cannot be read."""
    good, findings = [], []
    for name in names:
        try:
            good.append(read(name))
        except SimulatorError as error:
            findings.append(str(error))
    return good, findings


def _finish_check(findings: Sequence[str], number: int, what: str) -> None:
    """Report findings on stderr and end with 1 if there are any."""
    for finding in findings:
        say(finding)
    if findings:
        raise typer.Exit(CHECK_FOUND)
    say(f"{number} {what}{'' if number == 1 else 's'} checked: nothing found")


def _write_rows(
    output: Output, rows: Sequence[dict[str, Any]], spare: Collection[str] = ()
) -> None:
    """Write a list as a table, JSON or CSV; a narrow table may lack the spare columns."""

    def table() -> object:
        from simulator.views.table import simple_table

        return simple_table(list(rows[0]), [list(row.values()) for row in rows], spare)

    output.write(table=table, json_object=lambda: list(rows), rows=lambda: rows)


def _write_facts(output: Output, facts: dict[str, Any]) -> None:
    """Write the facts of one thing: a line each, or one JSON object."""

    def table() -> object:
        from simulator.views.table import facts_view

        return facts_view(facts)

    flat = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    output.write(table=table, json_object=lambda: facts, rows=lambda: [flat])
