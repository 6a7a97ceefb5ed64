"""A command that says what it would otherwise drop or not explain."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption


class Command(TyperCommand):
    """A command whose options take one value unless they take any number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, once it is known that nothing of it would be dropped."""
        if not ctx.resilient_parsing:
            self._check(ctx, args)
        return super().parse_args(ctx, args)

    def _check(self, ctx: Any, args: list[str]) -> None:
        """Refuse a second value of an option that takes one, and explain one of a scenario."""
        try:
            *_, order = self.make_parser(ctx).parse_args(list(args))
        except typer.TyperException as error:
            # Typer's class of an unknown option has no public name; it alone has possibilities.
            unknown_option = hasattr(error, "possibilities")
            needs_scenario = any(item.name == "scenario" and item.required for item in self.params)
            if unknown_option and needs_scenario:
                _explain(error, str(self.name), args)
            raise
        for item, times in Counter(order).items():
            single = isinstance(item, TyperOption) and not (item.multiple or item.is_flag)
            if single and times > 1:
                raise typer.BadParameter(
                    f"{item.opts[0]} takes one value and is given {times} times"
                )


def _explain(error: Any, command: str, args: Sequence[str]) -> None:
    """Say where a scenario has what an option of a question sets, if it is one."""
    from simulator.cli.asked import scenario_key
    from simulator.inputs.scenario import scenario_files

    if key := scenario_key(error.option_name):
        files = scenario_files()
        named = next((str(files[word]) for word in args if word in files), "a scenario's file")
        error.possibilities = None
        error.message += (
            f": {command} takes all but a few settings from a scenario, by name or file; "
            f"set {key} in a copy of {named} and give the copy's path"
        )
