"""The options that ask a question, and the question they form.

Names follow the serving engines where possible: ``--input-len``, ``--num-samples``,
``--tensor-parallel-size``, ``--kv-cache-dtype``, ``--gpu-memory-utilization``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated, Any

import typer

from simulator.cli.options import (
    HARDWARE_PANEL,
    MODEL_PANEL,
    WORK_PANEL,
    BatchedTokens,
    Constants,
    EngineName,
    ModelArgument,
    ModelName,
    Utilization,
    choice,
    complete_caches,
    complete_types,
    complete_weights,
    number,
    option,
    output_options,
    size,
    sizes,
    with_options,
)
from simulator.counts.attention.registry import WAYS
from simulator.counts.request import last_own_tokens
from simulator.inputs.dtypes import KV_DTYPES, read_dtype
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import (
    EXECUTIONS,
    KV_LAYOUTS,
    LATENT_FORMS,
    ROUTINGS,
    Execution,
    KvLayout,
    LatentForm,
    Routing,
    Setup,
    ask,
)
from simulator.inputs.workload import Workload

# Of whole requests.
DEFAULT_OUTPUT_TOKENS = 256
# A size, or several; Typer takes no union of types.
Sizes = Any


def question_of(
    named: ModelArgument = None,
    model: ModelName = None,
    kv_heads: Annotated[
        Sizes,
        sizes("--kv-heads", panel=MODEL_PANEL, text="Replace the model's number of KV heads."),
    ] = None,
    assume: Annotated[
        str | None,
        option(
            "--assume",
            panel=MODEL_PANEL,
            text="Model type to read an unknown config.json as, e.g. llama.",
            metavar="TYPE",
            autocompletion=complete_types,
        ),
    ] = None,
    layers: Annotated[
        int | None, size("--layers", panel=MODEL_PANEL, text="Without --model: layers.")
    ] = None,
    hidden_size: Annotated[
        int | None, size("--hidden-size", panel=MODEL_PANEL, text="Without --model: width.")
    ] = None,
    heads: Annotated[
        int | None, size("--heads", panel=MODEL_PANEL, text="Without --model: query heads.")
    ] = None,
    head_dim: Annotated[
        int | None, size("--head-dim", panel=MODEL_PANEL, text="Without --model: head width.")
    ] = None,
    intermediate_size: Annotated[
        int | None,
        size("--intermediate-size", panel=MODEL_PANEL, text="Without --model: MLP width."),
    ] = None,
    vocab_size: Annotated[
        int | None, size("--vocab-size", panel=MODEL_PANEL, text="Without --model: vocabulary.")
    ] = None,
    context_tokens: Annotated[
        Sizes,
        sizes(
            "--context-tokens",
            "--context",
            "--input-len",
            panel=WORK_PANEL,
            text="Tokens of the shared context. Default: 8192.",
        ),
    ] = None,
    samples: Annotated[
        Sizes,
        sizes(
            "--samples",
            "--num-samples",
            "-n",
            panel=WORK_PANEL,
            text="Sequences sampled from each context. Default: 16; with --batch-size, and of a "
            "request under load, 1.",
        ),
    ] = None,
    prompts: Annotated[
        Sizes,
        sizes(
            "--prompts",
            "--batch-size",
            panel=WORK_PANEL,
            text="Distinct contexts decoded together; alone, that many sequences. Default: 1.",
        ),
    ] = None,
    tree: Annotated[
        str | None,
        option(
            "--tree",
            panel=WORK_PANEL,
            text="What contexts share, from the root down, instead of both: "
            "system=2K,problem=512x8 is 2048 tokens above 8 problems of 512.",
            metavar="LEVELS",
        ),
    ] = None,
    decoded_tokens: Annotated[
        Sizes,
        sizes(
            "--decoded-tokens",
            "--decoded",
            panel=WORK_PANEL,
            text="Decoded tokens of each sample at this step. Default: 64.",
        ),
    ] = None,
    output_tokens: Annotated[
        Sizes,
        sizes(
            "--output-tokens",
            "--output-len",
            panel=WORK_PANEL,
            text="Tokens each sample generates: the step asked about is the last, the longest. "
            "Default of whole requests: 256.",
        ),
    ] = None,
    query_tokens: Annotated[
        Sizes, sizes("--query-tokens", panel=WORK_PANEL, text="Tokens per sample in one step.")
    ] = 1,
    accepted_tokens: Annotated[
        float,
        option(
            "--accepted-tokens",
            panel=WORK_PANEL,
            text="Of those, how many are kept on average; generate takes its steps by it.",
            parser=number,
            metavar="TOKENS",
        ),
    ] = 1,
    kernel: Annotated[
        str,
        choice(
            "--kernel",
            panel=HARDWARE_PANEL,
            text="Attention kernel, or that of an engine.",
            of=tuple(WAYS),
        ),
    ] = "flash",
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
            panel=HARDWARE_PANEL,
            text="CUDA graph as engines use, compiled, or plain eager PyTorch.",
            of=EXECUTIONS,
        ),
    ] = EXECUTIONS[0],
    dtype: Annotated[
        str | None,
        option(
            "--dtype",
            "--weight-dtype",
            panel=HARDWARE_PANEL,
            text=f"Format of all matrices in layers: {', '.join(WEIGHT_NAMES)}. auto, the default: "
            "the checkpoint's own.",
            metavar="FORMAT",
            autocompletion=complete_weights,
        ),
    ] = None,
    quantization: Annotated[
        str | None,
        option(
            "--quantization",
            panel=HARDWARE_PANEL,
            text="The same; beside it --dtype may name a format of 16 bits, as in engines.",
            metavar="FORMAT",
            autocompletion=complete_weights,
        ),
    ] = None,
    kv_dtype: Annotated[
        str | None,
        option(
            "--kv-dtype",
            "--kv-cache-dtype",
            panel=HARDWARE_PANEL,
            text=f"Format of the KV cache: {', '.join(KV_DTYPES)}, auto. Default: what the "
            "checkpoint states, else that of the activations.",
            metavar="FORMAT",
            autocompletion=complete_caches,
        ),
    ] = None,
    tensor_parallel: Annotated[
        Sizes,
        sizes(
            "--tensor-parallel-size",
            "--tensor-parallel",
            "--tp",
            panel=HARDWARE_PANEL,
            text="GPUs that share each layer. Default: 1.",
        ),
    ] = None,
    data_parallel: Annotated[
        Sizes,
        sizes(
            "--data-parallel-size",
            "--data-parallel",
            "--dp",
            panel=HARDWARE_PANEL,
            text="Groups of such GPUs with requests of their own, which share the experts. "
            "Default: 1.",
        ),
    ] = None,
    expert_parallel: Annotated[
        Sizes,
        sizes(
            "--expert-parallel-size",
            "--expert-parallel",
            "--ep",
            panel=HARDWARE_PANEL,
            text="Parts into which whole experts are dealt out over the GPUs of all groups. "
            "Default: 1, every GPU has a slice of each.",
        ),
    ] = None,
    pipeline_parallel: Annotated[
        Sizes,
        sizes(
            "--pipeline-parallel-size",
            "--pipeline-parallel",
            "--pp",
            panel=HARDWARE_PANEL,
            text="Stages, each with a part of the layers. Default: 1.",
        ),
    ] = None,
    routing: Annotated[
        Routing,
        choice(
            "--routing",
            panel=HARDWARE_PANEL,
            text="How tokens choose a model's experts: in turn, at random, or by a power law.",
            of=ROUTINGS,
        ),
    ] = "uniform",
    routing_exponent: Annotated[
        float,
        option(
            "--routing-exponent",
            panel=HARDWARE_PANEL,
            text="Exponent of skewed routing, between 1 and 2.",
            parser=number,
            metavar="POWER",
        ),
    ] = 1.2,
    latent_form: Annotated[
        LatentForm,
        choice(
            "--latent-form",
            panel=HARDWARE_PANEL,
            text="Latent attention (MLA): absorbed, expanded to every head, or mixed: shared "
            "context expanded, own tokens absorbed. auto takes the faster of absorbed and mixed.",
            of=LATENT_FORMS,
        ),
    ] = LATENT_FORMS[0],
    gpu_memory_utilization: Utilization = 0.9,
    engine: EngineName = "vllm",
    max_batched_tokens: BatchedTokens = None,
    constants: Constants = "auto",
) -> "Question":
    """Return the question that the shared options ask.

    Parameters
    ----------
    named, model, kv_heads, assume, layers, hidden_size, heads, head_dim, intermediate_size, \
    vocab_size
        The model: by its name, or its sizes.
    context_tokens, samples, prompts, tree, decoded_tokens, output_tokens, query_tokens, \
    accepted_tokens
        The sizes of a step, or of a request.
    kernel, kv_layout, execution, dtype, quantization, kv_dtype, tensor_parallel, data_parallel, \
    expert_parallel, pipeline_parallel, routing, routing_exponent, latent_form, \
    gpu_memory_utilization, engine, max_batched_tokens, constants
        How it is run.
    """
    if named is not None and model is not None:
        raise typer.BadParameter(f"unexpected {named!r}: the model is {model!r}")
    shapes = {
        "layers": layers,
        "hidden_size": hidden_size,
        "heads": heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate_size,
        "vocab_size": vocab_size,
    }
    settings = {
        "context_tokens": context_tokens,
        "samples": samples,
        "prompts": prompts,
        "tree": tree,
        "decoded_tokens": decoded_tokens,
        "output_tokens": output_tokens,
        "query_tokens": query_tokens,
        "accepted_tokens": accepted_tokens,
        "kernel": kernel,
        "kv_layout": kv_layout,
        "execution": execution,
        "weight_dtype": weights_of(dtype, quantization),
        "kv_dtype": kv_dtype,
        "tensor_parallel": tensor_parallel,
        "data_parallel": data_parallel,
        "expert_parallel": expert_parallel,
        "pipeline_parallel": pipeline_parallel,
        "routing": routing,
        "routing_exponent": routing_exponent,
        "latent_form": latent_form,
        "gpu_memory_utilization": gpu_memory_utilization,
        "engine": engine,
        "max_batched_tokens": max_batched_tokens,
        "constants": constants,
        "kv_heads": kv_heads,
    }
    lists = {name: value for name, value in settings.items() if isinstance(value, tuple)}
    chosen = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    name = named if model is None else model
    asked = tuple(_single(name, assume, shapes, **settings | sizes) for sizes in chosen)
    every = tuple(replace(each, listed=sizes) for each, sizes in zip(asked, chosen, strict=True))
    return replace(every[0], each=every)


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
            f"--dtype {dtype} and --quantization {quantization} are two formats; give one of both"
        )
    return quantization or dtype


def _decoded(
    decoded_tokens: int | None, output_tokens: int | None, query_tokens: int, accepted_tokens: float
) -> int | None:
    """Return the decoded tokens at the question's step; None keeps the default."""
    if decoded_tokens is not None and output_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is a step's, --output-tokens a whole request's; give one of both"
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
        raise typer.BadParameter(f"--{first} describes a model without --model; give one of both")
    if assume is not None and find_preset(name) is not None:
        raise typer.BadParameter(f"--assume is for a config.json, and {name!r} is known by name")
    return load_model(name, kv_heads=kv_heads, assume=assume)


@dataclass(frozen=True, kw_only=True)
class Question:
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
    listed: Mapping[str, int] = field(default_factory=dict)
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
                "generate, plan, sweep, plot, report or explore"
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
                "--decoded-tokens is a step's; under load requests have --output-tokens"
            )
        sizes = {
            "samples": self.samples or 1,
            "output_tokens": self.output_tokens or DEFAULT_OUTPUT_TOKENS,
        }
        return self.settings(**sizes, **changes)


with_question = with_options(question_of, output_options)
