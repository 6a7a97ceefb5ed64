"""models, gpus and scenarios: each lists the known names, shows one, and checks files."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from simulator.cli import options as opt
from simulator.cli.command import Catalogue, Command
from simulator.cli.output import Output, say
from simulator.errors import SimulatorError, unknown
from simulator.resources import readable

CHECK_FOUND = 1
Item = TypeVar("Item")
FILES = opt.argument("files", {"metavar": "FILE"}, kind=list[str] | None)


@opt.with_output()
def _list_models(output: Output) -> None:
    """List the models that are known by name."""
    from simulator.inputs.presets import load_model, presets
    from simulator.views.catalogues import MODELS

    _write_list(
        output,
        MODELS,
        map(load_model, presets()),
        spare=("layers", "hidden_size", "heads", "head_dim"),
    )


@opt.with_output(
    opt.argument("name", opt.MODEL, "Preset, config.json or folder.", str, ...),
    opt.of_answer("kv_heads", opt.SIZE, "Replace its number of KV heads."),
    opt.of_answer("assume", opt.TYPE, "Model type to read an unknown config.json as."),
)
def _show_model(output: Output, **asked: Any) -> None:
    """Show a model's shape, parameters and KV bytes per token."""
    from simulator.inputs.presets import load_model
    from simulator.views.catalogues import model_facts

    _write_facts(output, model_facts(load_model(**asked)))


@opt.with_output()
def _list_types(output: Output) -> None:
    """List every model_type of a config.json that can be read."""
    from simulator.inputs.hf_config.model_types import every_type
    from simulator.views.catalogues import TYPES

    _write_list(output, TYPES, every_type().items())


@opt.with_output()
def _list_gpus(output: Output) -> None:
    """List the GPUs that are known by name."""
    from simulator.inputs.hardware import profile_files, read_profile
    from simulator.views.catalogues import GPUS

    _write_list(output, GPUS, readable(read_profile, profile_files().values()))


@opt.with_output(opt.argument("name", opt.GPU, "GPU or path.", str, ...))
def _show_gpu(output: Output, name: str) -> None:
    """Show a GPU's figures and constants, with sources."""
    from simulator.inputs.hardware import load_hardware
    from simulator.views.catalogues import gpu_facts, gpu_rows, gpu_view

    profile = load_hardware(name)
    facts = gpu_facts(profile)
    rows = gpu_rows(facts)
    output.write(facts, lambda _: gpu_view(profile, rows), dict, lambda _: rows)


@opt.with_options()(FILES)
def _check_gpus(files: Sequence[str] | None) -> None:
    """Check profiles against arithmetic and plausibility."""
    from simulator.inputs.hardware import profile_files, read_profile
    from simulator.inputs.hardware_check import check_aliases, check_profile

    _check("profile", files, profile_files(), read_profile, check_profile, check_aliases)


@opt.with_output()
def _list_scenarios(output: Output) -> None:
    """List the scenarios that ship with this package and your own."""
    from simulator.inputs.scenario import read_scenario, scenario_files
    from simulator.views.catalogues import SCENARIOS

    _write_list(output, SCENARIOS, readable(read_scenario, scenario_files().values()))


@opt.with_output(opt.argument("name", opt.SCENARIO, "Scenario or path.", str, ...))
def _show_scenario(output: Output, name: str) -> None:
    """Show a scenario: question, grid, expected answer, sources."""
    from simulator.inputs.scenario import load_scenario

    scenario = load_scenario(name)
    _write_facts(output, scenario.as_dict() | {"points": scenario.points})


@opt.with_options()(FILES)
def _check_scenarios(files: Sequence[str] | None) -> None:
    """Check scenarios: keys, and named models, GPUs and kernels."""
    from simulator.counts.attention.registry import WAYS
    from simulator.inputs.scenario import Scenario, check_scenario, read_scenario, scenario_files

    def check(scenario: Scenario) -> list[str]:
        kernels = [str(name) for name in scenario.axes.get("kernel", ()) if name not in WAYS]
        return [*check_scenario(scenario), *(unknown("kernel", name, WAYS) for name in kernels)]

    _check("scenario", files, scenario_files(), read_scenario, check)


def _group(lister: opt.Command, show: opt.Command, **others: opt.Command) -> typer.Typer:
    """Return a group of commands that lists the names when called without a command."""
    group = typer.Typer(cls=Catalogue, rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    @opt.with_options()(opt.parameter("context", typer.Context, ...), *opt.FORM, opt.OUTPUT)
    def _default(context: typer.Context, **form: Any) -> None:
        if context.invoked_subcommand is None:
            lister(**form)
        elif any(form.values()):
            name = context.invoked_subcommand
            raise typer.BadParameter(f"options of the answer go after {name!r}")

    for name, command in {"list": lister, "show": show, **others}.items():
        group.command(name, cls=Command)(command)
    return group


_models = _group(_list_models, _show_model, types=_list_types)
_gpus = _group(_list_gpus, _show_gpu, check=_check_gpus)
_scenarios = _group(_list_scenarios, _show_scenario, check=_check_scenarios)


def _check(
    what: str,
    files: Sequence[str] | None,
    shipped: Mapping[str, Path],
    read: Callable[[Path], Item],
    check: Callable[[Item], Iterable[str]],
    check_all: Callable[[list[Item]], Iterable[str]] = lambda _: (),
) -> None:
    """Report on stderr what is wrong in files, by default all that are known; exit with 1 if so."""
    paths = [Path(name) for name in files or ()] or [*shipped.values()]
    items, findings = list[Any](), list[str]()
    for path in paths:
        try:
            items.append(read(path))
        except SimulatorError as error:
            findings.append(str(error))
    findings += [f"{item.id}: {line}" for item in items for line in check(item)]
    findings += check_all(items)
    for finding in findings:
        say(finding)
    if findings:
        raise typer.Exit(CHECK_FOUND)
    say(f"{len(paths)} {what}{'' if len(paths) == 1 else 's'} checked: nothing found")


def _write_list(
    output: Output, columns: Any, items: Iterable[Any], spare: Collection[str] = ()
) -> None:
    """Write a list as a table, JSON or CSV; a narrow terminal drops the spare columns."""
    from simulator.views.columns import as_object, simple_table

    rows = [as_object(columns, item) for item in items]
    output.write(rows, lambda rows: simple_table(rows, spare), list, list)


def _write_facts(output: Output, facts: dict[str, Any]) -> None:
    """Write the facts of one item: one line each, or one JSON object."""
    from simulator.views.columns import facts_view

    flat = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    output.write(facts, facts_view, dict, lambda _: [flat])
