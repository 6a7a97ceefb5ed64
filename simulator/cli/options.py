"""The options that commands share, and the question they add up to.

Names follow the serving engines where those have one: ``--input-len``, ``--num-samples``,
``--tensor-parallel-size``, ``--kv-cache-dtype``, ``--gpu-memory-utilization``.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from simulator.cli.output import FORMATS, Format, Output, output_of
from simulator.errors import nearest
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import profile_files
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import (
    ATTENTIONS,
    EXECUTIONS,
    KERNELS,
    KV_LAYOUTS,
    Attention,
    Execution,
    Kernel,
    KvLayout,
    Workload,
    workload_for,
)
from simulator.timing.constants import CONSTANTS_CHOICES, ConstantsChoice
from simulator.units import parse_count

MODEL_PANEL, WORK_PANEL, OUTPUT_PANEL = "The model", "The workload", "The answer"


def count(text: str) -> int:
    """Read a size for an option: 8192, 8K (8192) or 8k (8000)."""
    try:
        return parse_count(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def number(text: str) -> float:
    """Read a number for an option."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def complete_models(incomplete: str) -> list[str]:
    """Complete a model's name."""
    from simulator.inputs.presets import presets

    return [name for name in presets() if name.startswith(incomplete.lower())]


def complete_gpus(incomplete: str) -> list[str]:
    """Complete a GPU's name."""
    return [name for name in profile_files() if name.startswith(incomplete.lower())]


def complete_scenarios(incomplete: str) -> list[str]:
    """Complete a scenario's name."""
    from simulator.inputs.scenario import scenario_files

    return [name for name in scenario_files() if name.startswith(incomplete.lower())]


def complete_types(incomplete: str) -> list[str]:
    """Complete a config.json's model type."""
    from simulator.inputs.hf_config.families import FAMILIES, NESTED

    return [name for name in sorted({*FAMILIES, *NESTED}) if name.startswith(incomplete.lower())]


def complete_dtypes(incomplete: str) -> list[str]:
    """Complete a number format."""
    return [name for name in DTYPES if name.startswith(incomplete.lower())]


def _option(*names: str, panel: str, text: str, **more: Any) -> Any:
    """Return an option's description."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def choice(*names: str, panel: str, text: str, of: Sequence[str]) -> Any:
    """Return the description of an option that is one of a few words."""

    def read(value: str) -> str:
        if value in of:
            return value
        guess = nearest(value, of)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(of)}{hint}")

    def complete(incomplete: str) -> list[str]:
        return [word for word in of if word.startswith(incomplete)]

    metavar = f"[{'|'.join(of)}]"
    return _option(
        *names, panel=panel, text=text, parser=read, metavar=metavar, autocompletion=complete
    )


def _size(*names: str, panel: str, text: str) -> Any:
    """Return the description of an option that is a size."""
    return _option(*names, panel=panel, text=text, parser=count, metavar="SIZE")


ModelName = Annotated[
    str | None,
    _option(
        "--model",
        "-m",
        panel=MODEL_PANEL,
        text="Preset (see 'bifurcate models'), a config.json, or a folder with one.",
        metavar="MODEL",
        autocompletion=complete_models,
    ),
]
GpuName = Annotated[
    str,
    _option(
        "--gpu",
        "--hardware",
        "-g",
        panel=WORK_PANEL,
        text="GPU (see 'bifurcate gpus') or a profile's path.",
        metavar="GPU",
        autocompletion=complete_gpus,
    ),
]
AttentionName = Annotated[
    Attention | None,
    choice(
        "--attention",
        panel=WORK_PANEL,
        text="Read the context per sample, or once.",
        of=ATTENTIONS,
    ),
]
PricePerHour = Annotated[
    float | None,
    _option(
        "--price-per-hour",
        panel=WORK_PANEL,
        text="Price of one GPU in USD per hour, in place of the profile's.",
        parser=number,
        metavar="USD",
    ),
]
Check = Annotated[
    bool,
    _option(
        "--check",
        panel=OUTPUT_PANEL,
        text="Exit with 3 if it does not fit or the target is not met.",
    ),
]
Explain = Annotated[
    bool,
    _option(
        "--explain",
        panel=OUTPUT_PANEL,
        text="Show each formula with the numbers in it and its reference.",
    ),
]
FormatName = Annotated[
    Format | None,
    choice("--format", panel=OUTPUT_PANEL, text="Form of the answer.", of=FORMATS),
]
AsJson = Annotated[bool, _option("--json", panel=OUTPUT_PANEL, text="The same as --format json.")]
OutputPath = Annotated[
    Path | None,
    _option(
        "--output",
        "-o",
        panel=OUTPUT_PANEL,
        text="File to write; .json, .csv or .txt picks the format.",
        metavar="FILE",
    ),
]
Constants = Annotated[
    ConstantsChoice,
    choice(
        "--constants",
        panel=WORK_PANEL,
        text="Constants of the timing model: the best known, those of other cards, or bare peaks.",
        of=CONSTANTS_CHOICES,
    ),
]
Utilization = Annotated[
    float,
    _option(
        "--gpu-memory-utilization",
        panel=WORK_PANEL,
        text="Share of the card's memory that may be used.",
        parser=number,
        metavar="SHARE",
    ),
]


def _question(
    model: ModelName = None,
    kv_heads: Annotated[
        int | None,
        _size("--kv-heads", panel=MODEL_PANEL, text="What if the model had so many KV heads."),
    ] = None,
    assume: Annotated[
        str | None,
        _option(
            "--assume",
            panel=MODEL_PANEL,
            text="Model type to read an unknown config.json as, e.g. llama.",
            metavar="TYPE",
            autocompletion=complete_types,
        ),
    ] = None,
    layers: Annotated[
        int | None, _size("--layers", panel=MODEL_PANEL, text="Without --model: layers.")
    ] = None,
    hidden_size: Annotated[
        int | None, _size("--hidden-size", panel=MODEL_PANEL, text="Without --model: width.")
    ] = None,
    heads: Annotated[
        int | None, _size("--heads", panel=MODEL_PANEL, text="Without --model: query heads.")
    ] = None,
    head_dim: Annotated[
        int | None, _size("--head-dim", panel=MODEL_PANEL, text="Without --model: head width.")
    ] = None,
    intermediate_size: Annotated[
        int | None,
        _size("--intermediate-size", panel=MODEL_PANEL, text="Without --model: MLP width."),
    ] = None,
    vocab_size: Annotated[
        int | None, _size("--vocab-size", panel=MODEL_PANEL, text="Without --model: vocabulary.")
    ] = None,
    context_tokens: Annotated[
        int,
        _size(
            "--context-tokens",
            "--context",
            "--input-len",
            panel=WORK_PANEL,
            text="Tokens of the shared context.",
        ),
    ] = 8192,
    samples: Annotated[
        int,
        _size(
            "--samples",
            "--num-samples",
            "-n",
            panel=WORK_PANEL,
            text="Sequences sampled from each context.",
        ),
    ] = 16,
    prompts: Annotated[
        int,
        _size(
            "--prompts",
            "--batch-size",
            panel=WORK_PANEL,
            text="Distinct contexts decoded together.",
        ),
    ] = 1,
    decoded_tokens: Annotated[
        int | None,
        _size(
            "--decoded-tokens",
            "--decoded",
            panel=WORK_PANEL,
            text="Tokens each sample holds of its own at this step. Default: 64.",
        ),
    ] = None,
    output_tokens: Annotated[
        int | None,
        _size(
            "--output-tokens",
            "--output-len",
            panel=WORK_PANEL,
            text="Tokens each sample generates: the step asked about is the last, the longest. "
            "Default of generate: 256.",
        ),
    ] = None,
    query_tokens: Annotated[
        int,
        _size("--query-tokens", panel=WORK_PANEL, text="Tokens per sample in one step."),
    ] = 1,
    kernel: Annotated[
        Kernel, choice("--kernel", panel=WORK_PANEL, text="Attention kernel.", of=KERNELS)
    ] = KERNELS[1],
    kv_layout: Annotated[
        KvLayout,
        choice(
            "--kv-layout",
            panel=WORK_PANEL,
            text="How standard attention stores the context: a copy per sample, one for all, "
            "or one that is concatenated anew on every step.",
            of=KV_LAYOUTS,
        ),
    ] = KV_LAYOUTS[0],
    execution: Annotated[
        Execution,
        choice(
            "--execution",
            panel=WORK_PANEL,
            text="CUDA graph as engines use, compiled, or plain eager PyTorch.",
            of=EXECUTIONS,
        ),
    ] = EXECUTIONS[0],
    dtype: Annotated[
        str | None,
        _option(
            "--dtype",
            "--weight-dtype",
            "--quantization",
            panel=WORK_PANEL,
            text="Format of the weights: bf16, fp16, fp32, fp8, int8 or int4. "
            "Default: the model's own.",
            metavar="FORMAT",
            autocompletion=complete_dtypes,
        ),
    ] = None,
    kv_dtype: Annotated[
        str | None,
        _option(
            "--kv-dtype",
            "--kv-cache-dtype",
            panel=WORK_PANEL,
            text="Format of the KV cache. Default: that of the activations.",
            metavar="FORMAT",
            autocompletion=complete_dtypes,
        ),
    ] = None,
    tensor_parallel: Annotated[
        int,
        _size(
            "--tensor-parallel-size",
            "--tensor-parallel",
            "--tp",
            panel=WORK_PANEL,
            text="GPUs that share each layer.",
        ),
    ] = 1,
    gpu_memory_utilization: Utilization = 0.9,
    constants: Constants = "auto",
) -> "Question":
    """Return the question that the shared options ask."""
    flags = {
        "layers": layers,
        "hidden_size": hidden_size,
        "heads": heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate_size,
        "vocab_size": vocab_size,
    }
    shape = _model(model, kv_heads, assume, flags)
    workload = workload_for(
        shape,
        context_tokens=context_tokens,
        samples=samples,
        prompts=prompts,
        decoded_tokens=_decoded(decoded_tokens, output_tokens),
        query_tokens=query_tokens,
        kernel=kernel,
        kv_layout=kv_layout,
        execution=execution,
        weight_dtype=dtype,
        kv_dtype=kv_dtype,
        tensor_parallel=tensor_parallel,
    )
    return Question(
        model=shape,
        workload=workload,
        gpu_memory_utilization=gpu_memory_utilization,
        constants=constants,
        output_tokens=output_tokens,
        decoded_tokens=decoded_tokens,
    )


def _decoded(decoded_tokens: int | None, output_tokens: int | None) -> int | None:
    """Return the own tokens at the step asked about; None leaves the default."""
    if decoded_tokens is not None and output_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is a step's, --output-tokens a whole request's; give one of both"
        )
    if output_tokens == 0:
        raise typer.BadParameter("--output-tokens is at least 1")
    # The last token generated is never fed back.
    return decoded_tokens if output_tokens is None else output_tokens - 1


def _model(
    name: str | None, kv_heads: int | None, assume: str | None, flags: dict[str, int | None]
) -> ModelShape:
    """Return the model that the options describe."""
    from simulator.inputs.presets import find_preset, load_model, model_from_flags

    given: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if name is None:
        if not {"layers", "hidden_size", "heads"} <= given.keys():
            raise typer.BadParameter(
                "give --model, or at least --layers, --hidden-size and --heads "
                "(e.g. --model llama-3.1-8b; see 'bifurcate models')"
            )
        return model_from_flags(kv_heads=kv_heads, **given)
    if given:
        first = next(iter(given)).replace("_", "-")
        raise typer.BadParameter(f"--{first} describes a model without --model; give one of both")
    if assume is not None and find_preset(name) is not None:
        raise typer.BadParameter(f"--assume is for a config.json, and {name!r} is known by name")
    return load_model(name, kv_heads=kv_heads, assume=assume)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the shared options add up to.

    Attributes
    ----------
    output_tokens, decoded_tokens
        As given, None where not.
    """

    model: ModelShape
    workload: Workload
    gpu_memory_utilization: float
    constants: ConstantsChoice
    output_tokens: int | None
    decoded_tokens: int | None

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the question as the keywords of the functions of :mod:`simulator.api`."""
        return {
            "model": self.model,
            "constants": self.constants,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            **self.workload.model_dump(),
            **changes,
        }


def _output(
    format_name: FormatName = None, as_json: AsJson = False, output: OutputPath = None
) -> Output:
    """Return the output that the shared options ask for."""
    return output_of(format_name, as_json, output)


def with_options(
    *builders: Callable[..., Any],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of builders, and their results as its first arguments.

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


with_question = with_options(_question, _output)
with_output = with_options(_output)
