"""The ``bifurcate`` command: its subcommands, and the only place that sets exit codes."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, cast

import typer

from simulator.cli.command import COMMANDS, SUMMARIES, Command, Commands, hint_of
from simulator.cli.output import fail, say, write_any_encoding
from simulator.errors import SimulatorError

HELP = """\
What will a decode step cost, and does reading the shared context once pay off?

Analytical latency and memory-IO answers for standard and bifurcated attention.
Sizes: 8K is 8192, 8k is 8000. Data goes to stdout, everything else to stderr.
"""

# The exit code of a command line that cannot be read.
MISUSED = 2
# The exit code that shells and Typer use for a program ended by Ctrl-C.
INTERRUPTED = 130

# What some type for the option that prints the version.
VERSION = ("version", "-v", "-V")

# If set, a bug of ours shows its traceback.
DEBUG_VARIABLE = "BIFURCATE_DEBUG"


def build(command: str | None = None) -> typer.Typer:
    """Return the whole command line, or one with a single command, or for an option with none."""
    app = typer.Typer(
        cls=Commands,
        help=HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(root)
    option = command is not None and command.startswith("-")
    for name in [command] if command in COMMANDS else () if option else SUMMARIES:
        made = getattr(import_module(f"simulator.cli.{COMMANDS[name]}"), f"_{name}")
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=name, help=SUMMARIES[name])
        else:
            app.command(name, cls=Command, help=made.__doc__ or SUMMARIES[name])(made)
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


def _options(words: Sequence[str]) -> list[str]:
    """Return a command line with options in place of the commands ``help`` and ``version``.

    >>> _options(["help", "compare"]), _options(["version"])
    (['compare', '--help'], ['--version'])
    """
    if words and words[0] == "help":
        return [*words[1:], "--help"]
    return ["--version", *words[1:]] if words and words[0] in VERSION else [*words]


def _way_out(word: str) -> str:
    """Return the hint of errors that have none of their own, by the first word typed."""
    if word and word not in COMMANDS and not word.startswith("-"):
        from simulator.inputs.presets import find_preset

        if find_preset(word):
            return f"a command comes first: bifurcate compare {word}"
    of_command = f"{word} " if word in COMMANDS else ""
    return f"'bifurcate {of_command}--help' says what can be asked"


def _misuse(error: typer.TyperException) -> tuple[str, str]:
    """Say what cannot be read of a command line, and the hint, if there is one."""
    hint = hint_of(error)
    message = error.message if hint else error.format_message()
    what, _, guess = message.removeprefix("Invalid value: ").partition(" Did you mean ")
    return what.rstrip("."), f"did you mean {guess}" if guess else hint


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 answered, 1 error, 2 wrong usage, 3 check failed."""
    if sys.stdout is None:
        fail("cannot write the answer: stdout is closed", 1)
    words = _options(sys.argv[1:] if arguments is None else arguments)
    way_out = _way_out(words[0] if words else "")
    write_any_encoding()
    warnings.showwarning = cast("Any", _warn)
    try:
        app = build(words[0] if words else None)
        code = app(args=words, prog_name="bifurcate", standalone_mode=False)
    except typer.TyperException as error:
        what, hint = _misuse(error)
        fail(what, error.exit_code, hint=hint, way_out=way_out)
    except SimulatorError as error:
        fail(str(error), 1, way_out=way_out)
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
            f"a bug of ours, not of yours: {type(error).__name__}: {error}",
            1,
            hint=f"{DEBUG_VARIABLE}=1 shows where",
        )
    if code == INTERRUPTED:
        fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)
