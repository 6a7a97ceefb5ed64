"""The options that ask a question, and the question they form.

Names follow the serving engines where possible: ``--input-len``, ``--num-samples``,
``--tensor-parallel-size``, ``--kv-cache-dtype``, ``--gpu-memory-utilization``.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import typer

from simulator.cli import options as opt
from simulator.cli.help import HELP
from simulator.cli.options import SIZE, SIZES, number_of, of_hardware, of_model, of_work, one_of
from simulator.counts.attention.registry import WAYS
from simulator.counts.request import last_own_tokens
from simulator.inputs.dtypes import KV_DTYPES, read_dtype
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import (
    ENGINES,
    EXECUTIONS,
    KV_LAYOUTS,
    LATENT_FORMS,
    ROUTINGS,
    Setup,
    ask,
)
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS, Workload

# Options that describe a model without a name.
SHAPE = ("layers", "hidden_size", "heads", "head_dim", "intermediate_size", "vocab_size")
_WEIGHTS = {"metavar": "FORMAT", "autocompletion": opt.complete_weights}
_CACHES = {"metavar": "FORMAT", "autocompletion": opt.complete_caches}
# The options of a question, in the order of the help.
OPTIONS = (
    opt.argument("named", opt.MODEL, "The same as --model."),
    of_model("model", opt.MODEL, HELP["model of a question"]),
    of_model("kv_heads", SIZES, "Replace the model's number of KV heads."),
    of_model("assume", opt.TYPE, "Model type to read an unknown config.json as, e.g. llama."),
    of_model("layers", SIZE, "Without --model: layers."),
    of_model("hidden_size", SIZE, "Without --model: width."),
    of_model("heads", SIZE, "Without --model: query heads."),
    of_model("head_dim", SIZE, "Without --model: head width."),
    of_model("intermediate_size", SIZE, "Without --model: MLP width."),
    of_model("vocab_size", SIZE, "Without --model: vocabulary."),
    of_work("context_tokens", SIZES, "Tokens of the shared context. Default: 8192."),
    of_work("samples", SIZES),
    of_work("prompts", SIZES),
    of_work("tree", {"metavar": "LEVELS"}),
    of_work("decoded_tokens", SIZES, "Decoded tokens of each sample at this step. Default: 64."),
    of_work("output_tokens", SIZES),
    of_work("query_tokens", SIZES, "Tokens per sample in one step.", default=1),
    of_work("accepted_tokens", number_of("TOKENS"), default=1),
    of_hardware("kernel", one_of(tuple(WAYS)), default="flash"),
    of_work("kv_layout", one_of(KV_LAYOUTS), default=KV_LAYOUTS[0]),
    of_hardware("execution", one_of(EXECUTIONS), default=EXECUTIONS[0]),
    of_hardware(
        "dtype",
        _WEIGHTS,
        f"Format of all matrices in layers: {', '.join(WEIGHT_NAMES)}. auto, the default: "
        "the checkpoint's own.",
    ),
    of_hardware("quantization", _WEIGHTS),
    of_hardware(
        "kv_dtype",
        _CACHES,
        f"Format of the KV cache: {', '.join(KV_DTYPES)}, auto. Default: what the "
        "checkpoint states, else that of the activations.",
    ),
    of_hardware("tensor_parallel", SIZES, "GPUs that share each layer. Default: 1."),
    of_hardware("data_parallel", SIZES),
    of_hardware("expert_parallel", SIZES),
    of_hardware("pipeline_parallel", SIZES, "Stages, each with a part of the layers. Default: 1."),
    of_hardware("routing", one_of(ROUTINGS), default="uniform"),
    of_hardware("routing_exponent", number_of("POWER"), default=1.2),
    of_hardware("latent_form", one_of(LATENT_FORMS), default=LATENT_FORMS[0]),
    of_hardware("gpu_memory_utilization", number_of("SHARE"), default=0.9),
    of_hardware("engine", one_of(ENGINES), default="vllm"),
    of_hardware("max_batched_tokens", SIZE),
    opt.CONSTANTS,
)


def question_of(**values: Any) -> "Question":
    """Return the question that options ask; those of ``OPTIONS`` not given have their defaults."""
    settings = {each.name: each.default for each in OPTIONS} | values
    named, model = settings.pop("named"), settings.pop("model")
    if named is not None and model is not None:
        raise typer.BadParameter(f"unexpected {named!r}: the model is {model!r}")
    assume, kv_heads = settings.pop("assume"), settings.pop("kv_heads")
    shapes = {name: settings.pop(name) for name in SHAPE}
    settings["weight_dtype"] = weights_of(settings.pop("dtype"), settings.pop("quantization"))
    settings["kv_heads"] = kv_heads  # varies the fastest in lists
    lists = {name: value for name, value in settings.items() if isinstance(value, tuple)}
    chosen = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    name = named if model is None else model
    asked = tuple(_single(name, assume, shapes, **settings | sizes) for sizes in chosen)
    every = tuple(each._replace(listed=sizes) for each, sizes in zip(asked, chosen, strict=True))
    return every[0]._replace(each=every)


def _single(
    model: str | None,
    assume: str | None,
    shapes: Mapping[str, int | None],
    *,
    kv_heads: int | None,
    decoded_tokens: int | None,
    output_tokens: int | None,
    **settings: Any,
) -> "Question":
    """Return the question of one value for every size."""
    shape = _model(model, kv_heads, assume, shapes)
    decoded = _decoded(
        decoded_tokens, output_tokens, settings["query_tokens"], settings["accepted_tokens"]
    )
    setup, workload = ask(shape, decoded_tokens=decoded, **settings)
    return Question(
        model=shape,
        setup=setup,
        workload=workload,
        samples=settings["samples"],
        output_tokens=output_tokens,
        decoded_tokens=decoded_tokens,
        tensor_parallel=settings["tensor_parallel"],
    )


def weights_of(dtype: str | None, quantization: str | None) -> str | None:
    """Return the format of the weights that --dtype and --quantization name together.

    Raises
    ------
    BadParameter
        If they name two.

    Examples
    --------
    >>> weights_of("bf16", None), weights_of("half", "fp8"), weights_of(None, "awq")
    ('bf16', 'fp8', 'awq')
    """
    unquantised = ("auto", "bf16", "fp16", quantization)
    if quantization is not None and dtype is not None and read_dtype(dtype) not in unquantised:
        raise typer.BadParameter(
            f"--dtype {dtype} and --quantization {quantization} are two formats; give only one"
        )
    return quantization or dtype


def _decoded(
    decoded_tokens: int | None, output_tokens: int | None, query_tokens: int, accepted_tokens: float
) -> int | None:
    """Return the decoded tokens at the question's step; None keeps the default."""
    if decoded_tokens is not None and output_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is for one step, --output-tokens for a whole request; give only one"
        )
    if output_tokens == 0:
        raise typer.BadParameter("--output-tokens is at least 1")
    if output_tokens is None:
        return decoded_tokens
    return last_own_tokens(output_tokens, query_tokens, accepted_tokens)


def _model(
    name: str | None, kv_heads: int | None, assume: str | None, flags: Mapping[str, int | None]
) -> ModelShape:
    """Return the model that the options describe."""
    from simulator.inputs.presets import find_preset, load_model, model_from_flags

    given: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if name is None:
        if not {"layers", "hidden_size", "heads"} <= given.keys():
            raise typer.BadParameter(
                "no model is named; give one, such as llama-3.1-8b, or --layers, --hidden-size and "
                "--heads; 'bifurcate models' lists those with names"
            )
        return model_from_flags(kv_heads=kv_heads, **given)
    if given:
        first = next(iter(given)).replace("_", "-")
        raise typer.BadParameter(f"--{first} describes a model without --model; give only one")
    if assume is not None and find_preset(name) is not None:
        raise typer.BadParameter(f"--assume is for a config.json, and {name!r} is known by name")
    return load_model(name, kv_heads=kv_heads, assume=assume)


class Question(NamedTuple):
    """The question that the shared options form.

    Attributes
    ----------
    samples, output_tokens, decoded_tokens, tensor_parallel
        Their values, None where not given.
    listed
        Its value of each size that is given as a list.
    each
        The questions for all combinations of these values, the last size fastest.
    """

    model: ModelShape
    setup: Setup
    workload: Workload
    samples: int | None
    output_tokens: int | None
    decoded_tokens: int | None
    tensor_parallel: int | None
    listed: Mapping[str, int] = {}
    each: "tuple[Question, ...]" = ()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the question as the keywords of the functions of :mod:`simulator.api`.

        Raises
        ------
        BadParameter
            If it is several.
        """
        if len(self.each) > 1:
            raise typer.BadParameter(
                f"{' and '.join(self.listed)}: one value here; give lists to compare, estimate, "
                "generate, plan, serve, sweep, plot, report or explore"
            )
        settings = self.setup.model_dump() | self.workload.model_dump()
        return {"model": self.model, **settings, **changes}

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the question about requests under load, likewise.

        Raises
        ------
        BadParameter
            If it says the decoded tokens of a step.
        """
        if self.decoded_tokens is not None:
            raise typer.BadParameter(
                "--decoded-tokens is for one step; give a load --output-tokens"
            )
        sizes = {
            "samples": self.samples or 1,
            "output_tokens": self.output_tokens or DEFAULT_OUTPUT_TOKENS,
        }
        return self.settings(**sizes, **changes)


with_question = opt.with_options((question_of, OPTIONS), opt.ANSWER)
