"""What the groups models, gpus and scenarios share: they list, show one, and check files."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from simulator.cli.command import Command
from simulator.cli.options import AsJson, FormatName, OutputPath
from simulator.cli.output import Output, say
from simulator.errors import SimulatorError

CHECK_FOUND = 1


class Catalogue(TyperGroup):
    """A group that tells who names a thing alone how to show it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command, or say which one was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            if "Did you mean" not in error.message:
                error.message += f" To show one: {ctx.command_path} show {args[0]}"
            raise


def add_group(
    app: typer.Typer,
    name: str,
    text: str,
    lister: Callable[..., None],
    **commands: Callable[..., None],
) -> None:
    """Add a group of commands that lists when none of them is named."""
    group = typer.Typer(name=name, help=text, cls=Catalogue, rich_markup_mode=None)

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

    group.command("list", cls=Command)(lister)
    for command, function in commands.items():
        group.command(command, cls=Command)(function)
    app.add_typer(group, name=name)


def read_all(names: Sequence[str], read: Callable[[Path], Any]) -> tuple[list[Any], list[str]]:
    """Read files, and collect what is wrong with those that cannot be read."""
    good, findings = [], []
    for name in names:
        try:
            good.append(read(Path(name)))
        except SimulatorError as error:
            findings.append(str(error))
    return good, findings


def finish_check(findings: Sequence[str], number: int, what: str) -> None:
    """Report findings on stderr and end with 1 if there are any."""
    for finding in findings:
        say(finding)
    if findings:
        raise typer.Exit(CHECK_FOUND)
    say(f"{number} {what}{'' if number == 1 else 's'} checked: nothing found")


def write_rows(output: Output, rows: Sequence[dict[str, Any]], spare: Collection[str] = ()) -> None:
    """Write a list as a table, JSON or CSV; a narrow table may lack the spare columns."""

    def table() -> object:
        from simulator.views.table import simple_table

        return simple_table(list(rows[0]), [list(row.values()) for row in rows], spare)

    output.write(table=table, json_object=lambda: list(rows), rows=lambda: rows)


def write_facts(output: Output, facts: dict[str, Any]) -> None:
    """Write the facts of one thing: a line each, or one JSON object."""

    def table() -> object:
        from simulator.views.table import facts_view

        return facts_view(facts)

    flat = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    output.write(table=table, json_object=lambda: facts, rows=lambda: [flat])
