"""The ``bifurcate`` command: its subcommands, and the only place that sets exit codes."""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperOption

from simulator.cli.output import fail, say, write_any_encoding
from simulator.errors import OutputError, SimulatorError

HELP = """\
What will a decode step cost, and does reading the shared context once pay off?

Analytical latency and memory-IO answers for standard and bifurcated attention.
Sizes: 8K is 8192, 8k is 8000. Data goes to stdout, everything else to stderr.
"""

# The exit code of a command line that cannot be read.
MISUSED = 2
# The exit code that shells and Typer use for a program ended by Ctrl-C.
INTERRUPTED = 130

# What people who know an engine's options look for.
_CONTEXT, _SAMPLES = "--context is the length of the context", "-n is the number of samples"
_GPUS = "--tp is the number of GPUs that share each layer; other parallelism is not modelled"
MEANT = {
    **dict.fromkeys(("--max-model-len", "--seq-len", "--prompt-len", "--ctx"), _CONTEXT),
    **dict.fromkeys(("--max-num-seqs", "--n", "--best-of"), _SAMPLES),
    **dict.fromkeys(("--num-gpus", "--gpus", "-t"), _GPUS),
    **dict.fromkeys(("--pipeline-parallel-size", "--data-parallel-size"), _GPUS),
    **dict.fromkeys(("--tpot", "--target-tpot-ms"), "--target-step-ms is the longest step"),
    "--enable-prefix-caching": "--kv-layout shared stores the context once",
    "--enforce-eager": "--execution eager is plain PyTorch",
}
# The options that some take for commands, and other spellings of one.
SAID_OTHERWISE = {"help": "--help", "version": "--version", "-v": "--version", "-V": "--version"}

# Options that name a file to write.
OUTPUTS = ("output", "figure")

# If set, a bug of ours shows its traceback.
DEBUG_VARIABLE = "BIFURCATE_DEBUG"

# The module of each command, in the order of the help. Only the requested command is loaded and
# built, because the options of all the others would take longer than the answer.
COMMANDS = {
    **dict.fromkeys(("estimate", "compare", "generate", "plan", "serve"), "answers"),
    **dict.fromkeys(("scaling", "tradeoff", "quality"), "tradeoff"),
    "tree": "answers",
    **{name: name for name in ("sweep", "explore", "plot", "report", "measure", "trace")},
    **dict.fromkeys(("calibrate", "validate"), "evidence"),
    **dict.fromkeys(("models", "gpus", "scenarios"), "catalogues"),
}


class Command(TyperCommand):
    """A command that refuses a second value of an option that takes one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, after checking that none of it would be ignored."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        self._check(ctx, args)
        rest = super().parse_args(ctx, args)
        _check_outputs(ctx.params)
        return rest

    def _check(self, ctx: Any, args: list[str]) -> None:
        """Refuse a second value of an option that takes one, and explain options of a scenario."""
        try:
            _, spare, order = self.make_parser(ctx).parse_args(list(args))
        except typer.TyperException as error:
            # Typer's class of an unknown option has no public name; it alone has possibilities.
            unknown_option = hasattr(error, "possibilities")
            needs_scenario = any(item.name == "scenario" and item.required for item in self.params)
            if unknown_option and needs_scenario:
                _explain_option(error, str(self.name), args)
            elif unknown_option:
                _say_meant(error)
            raise
        if spare and any(item.name == "model" for item in self.params):
            raise typer.BadParameter(
                f"unexpected {' '.join(spare)!r}: -m names a model, and a name with spaces stands "
                "in quotes"
            )
        for item, times in Counter(order).items():
            single = isinstance(item, TyperOption) and not (item.multiple or item.is_flag)
            if single and times > 1:
                raise typer.BadParameter(
                    f"{item.opts[0]} takes one value and is given {times} times"
                )


def _check_outputs(values: Mapping[str, Any]) -> None:
    """Refuse to write over a file that the command reads.

    Raises
    ------
    OutputError
        If an output is one of the inputs.
    """
    # Older versions of Typer make paths of texts only later.
    outputs = [Path(values[name]) for name in OUTPUTS if isinstance(values.get(name), str | Path)]
    outputs = [path for path in outputs if path.is_file()]
    for name, value in values.items() if outputs else ():
        for item in value if isinstance(value, list | tuple) else [value]:
            if name in OUTPUTS or not isinstance(item, str | Path):
                continue
            for path in outputs:
                if any(read.exists() and read.samefile(path) for read in _reads(Path(item), path)):
                    raise OutputError(f"cannot write {path}: it is an input; name another file")


def _reads(given: Path, output: Path) -> Iterable[Path]:
    """Return the files that an input stands for, among them the output if it is one."""
    if not given.is_dir():
        return [given]
    rows = [given / output.name] if output.suffix in (".csv", ".parquet") else []
    return [given / "config.json", *rows]


def _say_meant(error: Any) -> None:
    """Say which of our options an engine's option corresponds to, if one does."""
    if meant := MEANT.get(error.option_name):
        error.possibilities = None
        error.message += f": {meant}"


def _explain_option(error: Any, command: str, args: Sequence[str]) -> None:
    """Say which scenario key corresponds to an option of a question."""
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


def build(command: str | None = None) -> typer.Typer:
    """Return the whole command line, or one with a single command."""
    app = typer.Typer(
        help=HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(root)
    for name in [command] if command in COMMANDS else COMMANDS:
        made = import_module(f"simulator.cli.{COMMANDS[name]}").COMMANDS[name]
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=name)
        else:
            app.command(name, cls=Command)(made)
    return app


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version, or the help where there is no command, or go on to the command."""
    if version:
        from simulator import __version__

        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(MISUSED)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line."""
    say(f"warning: {message}")


def _misuse(error: typer.TyperException, words: Sequence[str]) -> str:
    """Say what cannot be read of a command line."""
    message = error.format_message().removeprefix("Invalid value: ")
    option = SAID_OTHERWISE.get(words[0] if words else "")
    return f"{message.rstrip('.')}; did you mean {option!r}?" if option else message


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 answered, 1 error, 2 wrong usage, 3 check failed."""
    if sys.stdout is None:
        fail("cannot write the answer: stdout is closed", 1)
    words = sys.argv[1:] if arguments is None else arguments
    write_any_encoding()
    warnings.showwarning = cast("Any", _warn)
    try:
        app = build(words[0] if words else None)
        code = app(args=arguments, prog_name="bifurcate", standalone_mode=False)
    except typer.TyperException as error:
        fail(_misuse(error, words), error.exit_code)
    except SimulatorError as error:
        fail(str(error), 1)
    except BrokenPipeError:
        # The reader of our output is gone (as with head); Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(f"cannot write the answer: {error.strerror or error}", 1)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        fail(
            f"a bug of ours, not of yours: {type(error).__name__}: {error} "
            f"({DEBUG_VARIABLE}=1 shows where)",
            1,
        )
    if code == INTERRUPTED:
        fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)
