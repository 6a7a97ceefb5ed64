"""The options that commands share, and the decorator that adds them to a command."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from simulator.cli.command import HELP, OUTPUT_PANEL, SPELT
from simulator.cli.output import FORMATS, output_of
from simulator.errors import SimulatorError, nearest
from simulator.inputs.dtypes import KV_DTYPES
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.hardware import profile_files
from simulator.inputs.setup import ATTENTIONS, CONSTANTS_CHOICES
from simulator.units import parse_count

Command = Callable[..., None]
DEFAULT_GPU = "h100-sxm"
# Groups of three digits, as in 16,384, which may also be a list of two.
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
# A number with a unit that the option has in its name.
_WITH_UNIT = re.compile(r"[$€]?(\d{1,12}(?:\.\d+)?) ?(%|ms|s|USD|\$)?")
_A_FILE = re.compile(r"\.(toml|json|csv|parquet)\b")
# The exit code when --check finds that memory or the target is exceeded.
CHECK_FAILED = 3
# Sections of the help.
MODEL_PANEL, WORK_PANEL = "The model", "The workload"
HARDWARE_PANEL = "The hardware, and what runs on it"


def count(text: str) -> int:
    """Read a size for an option: 8192, 8K (8192) or 8k (8000)."""
    try:
        return parse_count(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def counts(text: str | int) -> int | tuple[int, ...]:
    """Read a size for an option that takes a list as well, such as 1,4,16.

    >>> counts("8K"), counts("1,4,16"), counts("4K, 8K"), counts("4,096"), counts("8K,0")
    (8192, (1, 4, 16), (4096, 8192), 4096, (8192, 0))
    """
    text = str(text)
    parts = text.split(",")
    if len(parts) == 1 or any(re.match("0.", part) for part in parts[1:]):
        return count(text)
    if _THOUSANDS.fullmatch(text):
        raise typer.BadParameter(
            f"{text!r} may be one number or a list; write {text.replace(',', '')!r} or "
            f"{text.replace(',', ', ')!r}"
        )
    values = tuple(count(part.strip()) for part in parts)
    if len(set(values)) < len(values):
        raise typer.BadParameter(f"{text!r} lists a size twice")
    return values


def names_in(texts: Sequence[str] | None) -> list[str]:
    """Return the names in an option that may be repeated, or list several with commas."""
    names = [name.strip() for text in texts or () for name in text.split(",") if name.strip()]
    if texts and not names:
        raise typer.BadParameter(f"{texts[0]!r} names nothing")
    return names


def number(text: str) -> float:
    """Read a number for an option."""
    try:
        return float(text)
    except ValueError:
        part = _WITH_UNIT.fullmatch(text)
        hint = f"; write {float(part[1]) * (0.01 if part[2] == '%' else 1):g}" if part else ""
        raise typer.BadParameter(f"{text!r} is not a number{hint}") from None


def numbers(text: str) -> tuple[float, ...]:
    """Read a list of numbers for an option, such as 0.5,1,2."""
    return tuple(map(number, text.split(",")))


def completion(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes the beginning of one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete.lower())]

    return complete


def names_of(module: str, name: str) -> Callable[[str], list[str]]:
    """Return the same for the names in a table, or those that a function returns, of a module.

    It is imported only to complete a word.

    Parameters
    ----------
    module, name
        The module below ``simulator``, and the name of the table or function.
    """

    def names() -> Iterable[str]:
        found = getattr(import_module(f"simulator.{module}"), name)
        return cast("Iterable[str]", found() if callable(found) else found)

    return completion(names)


complete_models = names_of("inputs.presets", "presets")
complete_gpus = completion(profile_files)
complete_scenarios = names_of("inputs.scenario", "scenario_files")
complete_types = names_of("inputs.hf_config.model_types", "every_type")
complete_weights = completion(lambda: WEIGHT_NAMES)
complete_caches = completion(lambda: (*KV_DTYPES, "auto"))


def parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Return a parameter of a command.

    Parameters
    ----------
    name, annotation
        The name of its value, and its type, with how it is read.
    default
        Its value where it is not given; ``...`` if it must be.
    """
    default = inspect.Parameter.empty if default is ... else default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def option(
    panel: str,
    name: str,
    reads: Mapping[str, Any],
    text: str = "",
    *,
    default: Any = None,
    kind: Any = None,
    spelt: str = "",
) -> inspect.Parameter:
    """Return an option of a command, which is passed its value by this name.

    Parameters
    ----------
    panel, text
        Its section of the help; and what the help says, or the name in ``HELP`` of what it says,
        by default that of its value.
    name, spelt
        Of its value; and its spellings, by default those of ``SPELT``, or the name.
    reads
        How its value is read and completed, and what stands for it in the help.
    default
        Its value where it is not given; ``...`` if it must be.
    kind
        Its type, by default that of ``default``, or text. What is read by a function has its
        result's.
    """
    names = spelt.split() if spelt else spellings_of(name)
    described = typer.Option(*names, help=_said(name, text), rich_help_panel=panel, **reads)
    usual = Any if "parser" in reads else str | None if default is None else type(default)
    return parameter(name, Annotated[kind or usual, described], default)


def _said(name: str, text: str) -> str:
    """Return what the help says of a value: its text, or the one in ``HELP`` that this names."""
    return HELP.get(text, text) if text else HELP[name]


def spellings_of(name: str) -> list[str]:
    """Return the spellings of an option, by the name of its value, the first as messages have it.

    >>> spellings_of("users"), spellings_of("hidden_size")
    (['--users', '--concurrency'], ['--hidden-size'])
    """
    return SPELT.get(name, f"--{name.replace('_', '-')}").split()


def argument(
    name: str, reads: Mapping[str, Any], text: str = "", kind: Any = str | None, default: Any = None
) -> inspect.Parameter:
    """Return an argument of a command.

    Parameters
    ----------
    name, reads, text, kind, default
        As for :func:`option`.
    """
    return parameter(
        name, Annotated[kind, typer.Argument(help=_said(name, text), **reads)], default
    )


of_model, of_work, of_hardware, of_answer = (
    partial(option, panel) for panel in (MODEL_PANEL, WORK_PANEL, HARDWARE_PANEL, OUTPUT_PANEL)
)

# How an option is read, and what stands for its value in the help: a size, and one or several.
SIZE = {"parser": count, "metavar": "SIZE"}
SIZES = {"parser": counts, "metavar": "SIZE[,SIZE...]"}
FILE = {"parser": Path, "metavar": "FILE"}
MODEL: dict[str, Any] = {"metavar": "MODEL", "autocompletion": complete_models}
GPU: dict[str, Any] = {"metavar": "GPU", "autocompletion": complete_gpus}
TYPE: dict[str, Any] = {"metavar": "TYPE", "autocompletion": complete_types}
SCENARIO: dict[str, Any] = {"metavar": "SCENARIO", "autocompletion": complete_scenarios}


def number_of(metavar: str) -> dict[str, Any]:
    """Return the same for a number of some unit."""
    return {"parser": number, "metavar": metavar}


def one_of(words: Iterable[str]) -> dict[str, Any]:
    """Return the same for one of a few words."""
    known = tuple(words)

    def read(value: str) -> str:
        if value in known:
            return value
        guess = nearest(value, known)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}{hint}")

    return {
        "parser": read,
        "metavar": f"[{'|'.join(known)}]",
        "autocompletion": completion(lambda: known),
    }


def gpus(text: str) -> inspect.Parameter:
    """Return an option that names GPUs, as often as one likes."""
    return of_hardware("gpu", GPU, text, kind=list[str] | None)


def target_step(text: str) -> inspect.Parameter:
    """Return an option that sets a target for the step."""
    return of_work("target_step_ms", number_of("MS"), text)


# The options that several commands have.
ONE_GPU = of_hardware("gpu", GPU, default=DEFAULT_GPU)
ATTENTION = of_work("attention", one_of(ATTENTIONS), "Read the context per sample, or once.")
PRICE_PER_HOUR = of_hardware("price_per_hour", number_of("USD"))
TARGET_STEP = target_step("Longest acceptable decode step.")
# Those of a load, of which a plan takes all but the first.
LOAD = (
    of_work("users", SIZES),
    of_work("requests_per_s", {"parser": numbers, "metavar": "RATE[,RATE...]"}),
    of_work("cached_tokens", SIZE),
    of_work("most_sequences", SIZE),
)
CHECK = of_answer("check", {}, default=False)
EXPLAIN = of_answer("explain", {}, default=False)
FIGURE = of_answer("figure", FILE)
CONSTANTS = of_hardware("constants", one_of(CONSTANTS_CHOICES), default="auto")
FORM = (
    of_answer("format_name", one_of(FORMATS), "Form of the answer."),
    of_answer("as_json", {}, "The same as --format json.", default=False),
)
OUTPUT = of_answer("output", FILE, "File to write; .json, .csv or .txt picks the format.")
REPORT_JSON = of_answer("as_json", {}, "Report as JSON.", default=False)

# What a command is passed first: what a function makes of the options of a list.
Built = tuple[Callable[..., Any], Sequence[inspect.Parameter]]


def as_typed(message: str, names: Iterable[str]) -> str:
    """Return an error of the Python API with its arguments named as a command's options.

    Those about a file, whose fields have the names of arguments, stay as they are.

    >>> as_typed("context_tokens = 0: nothing is shared", ["context_tokens"])
    '--context-tokens = 0: nothing is shared'
    """
    if _A_FILE.search(message):
        return message
    for name in names:
        # Names of one word are words of English too.
        argument = name if "_" in name else f"{name}(?= = )"
        message = re.sub(rf"(?<![-\w.'\"]){argument}\b", spellings_of(name)[0], message)
    return message.removeprefix("workload: ")


def with_options(*groups: Built) -> Callable[..., Callable[[Command], Command]]:
    """Add the options of groups to a command, and pass it what each makes of them first.

    The result takes the command's own options, which come before those of the last group.
    """

    def taking(*own: inspect.Parameter) -> Callable[[Command], Command]:
        listed = [options for _, options in groups]
        parameters = [*chain(*listed[:-1]), *own, *chain(*listed[-1:])]

        def decorate(command: Command) -> Command:
            @wraps(command)
            def wrapper(**values: Any) -> None:
                try:
                    built = [
                        build(**{option.name: values.pop(option.name) for option in options})
                        for build, options in groups
                    ]
                    command(*built, **values)
                except SimulatorError as error:
                    error.args = (as_typed(str(error), [option.name for option in parameters]),)
                    raise

            # Typer reads a command's options from its signature.
            wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
            return cast("Command", wrapper)

        return decorate

    return taking


# How and where a command writes its answer; a report is a table or JSON on stdout.
ANSWER: Built = (output_of, (*FORM, OUTPUT))
REPORT: Built = (output_of, [REPORT_JSON])
with_output = with_options(ANSWER)
