"""The options that commands share, and the decorator that adds them to a command."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from simulator.cli.command import OUTPUT_PANEL
from simulator.cli.output import FORMATS, Format, Output, output_of
from simulator.errors import nearest
from simulator.inputs.dtypes import KV_DTYPES
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.hardware import profile_files
from simulator.inputs.setup import ATTENTIONS, CONSTANTS_CHOICES, Attention, ConstantsChoice
from simulator.units import parse_count

Command = Callable[..., None]
DEFAULT_GPU = "h100-sxm"
# Groups of three digits, as in 16,384, which may also be a list of two.
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
# A number with a unit that the option has in its name.
_WITH_UNIT = re.compile(r"[$€]?(\d{1,12}(?:\.\d+)?) ?(%|ms|s|USD|\$)?")
# The exit code when --check finds that memory or the target is exceeded.
CHECK_FAILED = 3


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

    >>> counts("8K"), counts("1,4,16"), counts("4K, 8K"), counts("4,096")
    (8192, (1, 4, 16), (4096, 8192), 4096)
    """
    text = str(text)
    parts = text.split(",")
    if len(parts) == 1 or any(part.startswith("0") for part in parts[1:]):
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
    return [name.strip() for text in texts or () for name in text.split(",") if name.strip()]


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


def option(spelt: str, text: str, reads: Mapping[str, Any] | None = None, *, panel: str) -> Any:
    """Return an option's description.

    Parameters
    ----------
    spelt
        Its spellings.
    text
        Its help text.
    reads
        How its value is read and completed, and what stands for it in the help.
    panel
        Its section of the help.
    """
    return typer.Option(*spelt.split(), help=text, rich_help_panel=panel, **(reads or {}))


def listed(
    panel: str,
    name: str,
    reads: Mapping[str, Any],
    text: str,
    spelt: str = "",
    default: Any = None,
    kind: Any = None,
) -> inspect.Parameter:
    """Return an option of a command's list; the command passes its value on by this name.

    Parameters
    ----------
    panel, reads, text
        As for :func:`option`.
    name
        Of its value; also its spelling, unless ``spelt`` has others.
    default
        Its value where it is not given; ``...`` if it must be.
    kind
        Its type, by default that of ``default``, or text. What is read by a function has its
        result's.
    """
    described = option(spelt or f"--{name.replace('_', '-')}", text, reads, panel=panel)
    default = inspect.Parameter.empty if default is ... else default
    usual = str | None if default is None else type(default)
    kind = kind or (Any if "parser" in reads else usual)
    return keyword(name, Annotated[kind, described], default)


def keyword(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    """Return an option of a command's list, described by a type of this module.

    Parameters
    ----------
    name
        The name of its value.
    annotation
        The type, such as ``GpuName``.
    default
        Its value where it is not given.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def argument(
    name: str, reads: Mapping[str, Any], text: str, kind: Any = str | None, default: Any = None
) -> inspect.Parameter:
    """Return an argument of a command's list.

    Parameters
    ----------
    name, reads, text, kind, default
        As for :func:`listed`; ``...`` is the default of one that must be given.
    """
    default = inspect.Parameter.empty if default is ... else default
    return keyword(name, Annotated[kind, typer.Argument(help=text, **reads)], default)


on_model = partial(option, panel=MODEL_PANEL)
work = partial(option, panel=WORK_PANEL)
hardware = partial(option, panel=HARDWARE_PANEL)
answer = partial(option, panel=OUTPUT_PANEL)
of_model, of_work, of_hardware, of_answer = (
    partial(listed, panel) for panel in (MODEL_PANEL, WORK_PANEL, HARDWARE_PANEL, OUTPUT_PANEL)
)

# How an option is read, and what stands for its value in the help: a size, and one or several.
SIZE = {"parser": count, "metavar": "SIZE"}
SIZES = {"parser": counts, "metavar": "SIZE[,SIZE...]"}
FILE = {"metavar": "FILE"}
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


def gpu_option(text: str) -> Any:
    """Return the description of an option that names GPUs."""
    return hardware("--gpu --hardware -g", text, GPU)


def target_option(text: str) -> Any:
    """Return the description of an option that sets a target for the step."""
    return work("--target-step-ms", text, number_of("MS"))


ModelNames = Annotated[
    list[str] | None,
    on_model("--model -m", "Model, as in 'bifurcate models'; as often as you like.", MODEL),
]
GpuName = Annotated[str, gpu_option("GPU (see 'bifurcate gpus') or a profile's path.")]
AttentionName = Annotated[
    Attention | None,
    work("--attention", "Read the context per sample, or once.", one_of(ATTENTIONS)),
]
PricePerHour = Annotated[
    float | None,
    hardware(
        "--price-per-hour",
        "Price of one GPU in USD per hour, instead of the profile's.",
        number_of("USD"),
    ),
]
TargetStep = Annotated[float | None, target_option("Longest acceptable decode step.")]
Check = Annotated[
    bool, answer("--check", "Exit with 3 if it does not fit or the target is not met.")
]
Explain = Annotated[
    bool, answer("--explain", "Show each formula with the numbers in it and its reference.")
]
FormatName = Annotated[Format | None, answer("--format", "Form of the answer.", one_of(FORMATS))]
AsJson = Annotated[bool, answer("--json", "The same as --format json.")]
OutputPath = Annotated[
    Path | None, answer("--output -o", "File to write; .json, .csv or .txt picks the format.", FILE)
]
FigurePath = Annotated[
    Path | None,
    answer("--figure", "Draw it too: .html, .png, .svg, .pdf, or .json as Plotly reads it.", FILE),
]
# The options of a load, of which a plan takes all but the first.
LOAD = (
    of_work(
        "users",
        SIZES,
        "Under load: users who ask again at once. Default of serve: powers of two up to what it "
        "holds.",
        "--users --concurrency",
    ),
    of_work(
        "requests_per_s",
        {"parser": numbers, "metavar": "RATE[,RATE...]"},
        "Under load: requests that arrive in a second, at random.",
    ),
    of_work(
        "cached_tokens",
        SIZE,
        "Under load: tokens of each prompt that are stored when it arrives. Default: those of "
        "a --tree's levels above the last.",
    ),
    of_work(
        "most_sequences",
        SIZE,
        "Under load: sequences that the engine decodes together. Default: 1024.",
        "--max-num-seqs",
    ),
)
Constants = Annotated[
    ConstantsChoice,
    hardware(
        "--constants",
        "Constants of the timing model: the best known, those of other cards, or bare peaks.",
        one_of(CONSTANTS_CHOICES),
    ),
]


def output_options(
    format_name: FormatName = None, as_json: AsJson = False, output: OutputPath = None
) -> Output:
    """Return the output that the shared options ask for.

    Parameters
    ----------
    format_name, as_json, output
        Their values on the command line.
    """
    return output_of(format_name, as_json, output)


def report_output(format_name: FormatName = None, as_json: AsJson = False) -> Output:
    """Return the output of an answer that goes to stdout."""
    return output_of(format_name, as_json, None)


def report_json(as_json: Annotated[bool, answer("--json", "Report as JSON.")] = False) -> Output:
    """Return the output of a report, a table or JSON on stdout."""
    return output_of(None, as_json, None)


def with_options(*builders: Callable[..., Any]) -> Callable[..., Callable[[Command], Command]]:
    """Add the options of builders to a command, and pass it their results first.

    The result takes the command's own options, which come before those of the last builder, as a
    list; without one they are those of the command's signature.
    """

    def taking(*listed: inspect.Parameter) -> Callable[[Command], Command]:
        def decorate(command: Command) -> Command:
            signature = list(inspect.signature(command).parameters.values())
            own = listed or signature[len(builders) :]
            groups = [list(inspect.signature(builder).parameters.values()) for builder in builders]
            parameters = [
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for group in (*groups[:-1], own, groups[-1])
                for parameter in group
            ]

            @wraps(command)
            def wrapper(**values: Any) -> None:
                built = [
                    builder(**{parameter.name: values.pop(parameter.name) for parameter in group})
                    for builder, group in zip(builders, groups, strict=True)
                ]
                command(*built, **values)

            # Typer reads a command's options from its signature.
            wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
            return cast("Command", wrapper)

        return decorate

    return taking


with_output = with_options(output_options)
