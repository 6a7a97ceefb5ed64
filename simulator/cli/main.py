"""The ``bifurcate`` command: its commands, and the one place where errors become exit codes."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from simulator.cli.command import Command
from simulator.cli.output import fail
from simulator.errors import SimulatorError

HELP = """\
What will a decode step cost, and does reading the shared context once pay off?

Analytical latency and memory-IO answers for standard and bifurcated attention.
Sizes: 8K is 8192, 8k is 8000. Data goes to stdout, everything else to stderr.
"""

# The exit code of a command line that cannot be read.
MISUSED = 2
# What shells report of a program that Ctrl-C ended; Typer turns the interrupt into it too.
INTERRUPTED = 130

# Set to anything, it shows the traceback of an error that is ours.
DEBUG_VARIABLE = "BIFURCATE_DEBUG"

# Each module's commands, in the order of the help. Only the one asked for is loaded and built: the
# options of all the others would take longer than the answer.
MODULES = {
    "answers": ("estimate", "compare", "generate", "plan"),
    "tradeoff": ("scaling", "tradeoff", "quality"),
    "tree": ("tree",),
    "sweep": ("sweep",),
    "explore": ("explore",),
    "plot": ("plot",),
    "report": ("report",),
    "measure": ("measure",),
    "trace": ("trace",),
    "evidence": ("calibrate",),
    "validate": ("validate",),
    "models": ("models",),
    "gpus": ("gpus",),
    "scenarios": ("scenarios",),
}


def build(command: str | None = None) -> typer.Typer:
    """Return the command line: whole, or with no more than the module of one command."""
    app = typer.Typer(
        help=HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(invoke_without_command=True)(root)
    wanted = [name for name, commands in MODULES.items() if command in commands]
    for name in wanted or MODULES:
        import_module(f"simulator.cli.{name}").register(app)
    for made in app.registered_commands:
        made.cls = Command
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 answered, 1 our error, 2 usage, 3 the check failed."""
    if sys.stdout is None:
        fail("cannot write the answer: stdout is closed", 1)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        app = build(words[0] if words else None)
        code = app(args=arguments, prog_name="bifurcate", standalone_mode=False)
    except typer.TyperException as error:
        fail(error.format_message().removeprefix("Invalid value: "), error.exit_code)
    except SimulatorError as error:
        fail(str(error), 1)
    except BrokenPipeError:
        # The reader of our output went away (as head does); Python would complain at exit.
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
