"""The options that commands share, and the decorator that adds them to a command."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from simulator.cli.command import OUTPUT_PANEL
from simulator.cli.output import FORMATS, Format, Output, output_of
from simulator.errors import nearest
from simulator.inputs.dtypes import KV_DTYPES
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.hardware import profile_files
from simulator.inputs.setup import (
    ATTENTIONS,
    CONSTANTS_CHOICES,
    ENGINES,
    Attention,
    ConstantsChoice,
    Engine,
)
from simulator.units import parse_count

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


def _completion(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes the beginning of one of these names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete.lower())]

    return complete


def _presets() -> Iterable[str]:
    from simulator.inputs.presets import presets

    return presets()


def _scenarios() -> Iterable[str]:
    from simulator.inputs.scenario import scenario_files

    return scenario_files()


def _model_types() -> Iterable[str]:
    from simulator.inputs.hf_config.model_types import every_type

    return every_type()


complete_models = _completion(_presets)
complete_gpus = _completion(profile_files)
complete_scenarios = _completion(_scenarios)
complete_types = _completion(_model_types)
complete_weights = _completion(lambda: WEIGHT_NAMES)
complete_caches = _completion(lambda: (*KV_DTYPES, "auto"))


def option(*names: str, panel: str, text: str, **more: Any) -> Any:
    """Return an option's description."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


on_model = partial(option, panel=MODEL_PANEL)
work = partial(option, panel=WORK_PANEL)
hardware = partial(option, panel=HARDWARE_PANEL)
answer = partial(option, panel=OUTPUT_PANEL)


def choice(*names: str, panel: str, text: str, of: Sequence[str]) -> Any:
    """Return the description of an option that takes one of a few words.

    Parameters
    ----------
    names
        Its spellings.
    panel, text
        Its section of the help, and its help text.
    of
        The words it accepts.
    """

    def read(value: str) -> str:
        if value in of:
            return value
        guess = nearest(value, of)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(of)}{hint}")

    return option(
        *names,
        panel=panel,
        text=text,
        parser=read,
        metavar=f"[{'|'.join(of)}]",
        autocompletion=_completion(lambda: of),
    )


def size(*names: str, panel: str, text: str) -> Any:
    """Return the description of an option that is a size."""
    return option(*names, panel=panel, text=text, parser=count, metavar="SIZE")


def sizes(*names: str, panel: str, text: str) -> Any:
    """Return the description of an option that is a size or a list of sizes, for a table."""
    return option(*names, panel=panel, text=text, parser=counts, metavar="SIZE[,SIZE...]")


def gpu_option(text: str) -> Any:
    """Return the description of an option that names GPUs."""
    return hardware(
        "--gpu", "--hardware", "-g", text=text, metavar="GPU", autocompletion=complete_gpus
    )


def target_option(text: str) -> Any:
    """Return the description of an option that sets a target for the step."""
    return work("--target-step-ms", text=text, parser=number, metavar="MS")


ModelName = Annotated[
    str | None,
    on_model(
        "--model",
        "-m",
        text="Preset (see 'bifurcate models'), config.json, folder with one, or Hugging Face id.",
        metavar="MODEL",
        autocompletion=complete_models,
    ),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(help="The same as --model.", metavar="MODEL", autocompletion=complete_models),
]
ModelNames = Annotated[
    list[str] | None,
    on_model(
        "--model",
        "-m",
        text="Model, as in 'bifurcate models'; as often as you like.",
        metavar="MODEL",
        autocompletion=complete_models,
    ),
]
GpuName = Annotated[str, gpu_option("GPU (see 'bifurcate gpus') or a profile's path.")]
QuestionScenario = Annotated[
    str | None,
    typer.Argument(
        help="Scenario (see 'bifurcate scenarios') or a TOML file; options replace its own. "
        "Or a model, and the options of a question.",
        metavar="SCENARIO|MODEL",
        autocompletion=complete_scenarios,
    ),
]
AttentionName = Annotated[
    Attention | None,
    choice(
        "--attention", panel=WORK_PANEL, text="Read the context per sample, or once.", of=ATTENTIONS
    ),
]
PricePerHour = Annotated[
    float | None,
    hardware(
        "--price-per-hour",
        text="Price of one GPU in USD per hour, instead of the profile's.",
        parser=number,
        metavar="USD",
    ),
]
TargetStep = Annotated[float | None, target_option("Longest acceptable decode step.")]
CachedTokens = Annotated[
    int | None,
    size(
        "--cached-tokens",
        panel=WORK_PANEL,
        text="Under load: tokens of each prompt that are stored when it arrives. Default: those of "
        "a --tree's levels above the last.",
    ),
]
MostSequences = Annotated[
    int | None,
    size(
        "--max-num-seqs",
        panel=WORK_PANEL,
        text="Under load: sequences that the engine decodes together. Default: 1024.",
    ),
]
Check = Annotated[
    bool, answer("--check", text="Exit with 3 if it does not fit or the target is not met.")
]
Explain = Annotated[
    bool, answer("--explain", text="Show each formula with the numbers in it and its reference.")
]
FormatName = Annotated[
    Format | None, choice("--format", panel=OUTPUT_PANEL, text="Form of the answer.", of=FORMATS)
]
AsJson = Annotated[bool, answer("--json", text="The same as --format json.")]
OutputPath = Annotated[
    Path | None,
    answer(
        "--output",
        "-o",
        text="File to write; .json, .csv or .txt picks the format.",
        metavar="FILE",
    ),
]
FigurePath = Annotated[
    Path | None,
    answer(
        "--figure",
        text="Draw it too: .html, .png, .svg, .pdf, or .json as Plotly reads it.",
        metavar="FILE",
    ),
]
Constants = Annotated[
    ConstantsChoice,
    choice(
        "--constants",
        panel=HARDWARE_PANEL,
        text="Constants of the timing model: the best known, those of other cards, or bare peaks.",
        of=CONSTANTS_CHOICES,
    ),
]
Utilization = Annotated[
    float,
    hardware(
        "--gpu-memory-utilization",
        text="Share of the card's memory that may be used.",
        parser=number,
        metavar="SHARE",
    ),
]
EngineName = Annotated[
    Engine,
    choice(
        "--engine",
        panel=HARDWARE_PANEL,
        text="Your engine, or none for a loop of your own: whose meaning that share has (vLLM's, "
        "SGLang's --mem-fraction-static, TensorRT-LLM's free_gpu_memory_fraction), whose switch "
        "compare names. SGLang and TensorRT-LLM quantise activations in the kernel before.",
        of=ENGINES,
    ),
]
BatchedTokens = Annotated[
    int | None,
    size(
        "--max-batched-tokens",
        "--max-num-batched-tokens",
        panel=HARDWARE_PANEL,
        text="Tokens of the largest prefill batch, for which engines keep memory. Default: 8192 on "
        "cards of 70 GiB and more (TensorRT-LLM: on all), else 2048.",
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


def with_options(
    *builders: Callable[..., Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of builders to a command, and pass it their results first.

    Typer reads a command's options from its signature, so the wrapper's signature is the
    command's own options before those of the last builder.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[len(builders) :]
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

        signature = inspect.Signature(parameters)
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
        return cast("Callable[..., None]", wrapper)

    return decorate


with_output = with_options(output_options)
