"""The options that ask a question, and the question they form.

Names follow the serving engines where possible: ``--input-len``, ``--num-samples``,
``--tensor-parallel-size``, ``--kv-cache-dtype``, ``--gpu-memory-utilization``.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated, Any

import typer

from simulator.cli import options as opt
from simulator.cli.options import (
    SIZE,
    SIZES,
    keyword,
    number_of,
    of_hardware,
    of_model,
    of_work,
    one_of,
)
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
from simulator.inputs.workload import Workload

# Of whole requests.
DEFAULT_OUTPUT_TOKENS = 256
# Options that describe a model without a name.
SHAPE = ("layers", "hidden_size", "heads", "head_dim", "intermediate_size", "vocab_size")
_WEIGHTS = {"metavar": "FORMAT", "autocompletion": opt.complete_weights}
_CACHES = {"metavar": "FORMAT", "autocompletion": opt.complete_caches}
# The options of a question, in the order of the help.
OPTIONS = (
    keyword(
        "named", Annotated[str | None, typer.Argument(help="The same as --model.", **opt.MODEL)]
    ),
    of_model(
        "model",
        opt.MODEL,
        "Preset (see 'bifurcate models'), config.json, folder with one, or Hugging Face id.",
        "--model -m",
    ),
    of_model("kv_heads", SIZES, "Replace the model's number of KV heads."),
    of_model("assume", opt.TYPE, "Model type to read an unknown config.json as, e.g. llama."),
    of_model("layers", SIZE, "Without --model: layers."),
    of_model("hidden_size", SIZE, "Without --model: width."),
    of_model("heads", SIZE, "Without --model: query heads."),
    of_model("head_dim", SIZE, "Without --model: head width."),
    of_model("intermediate_size", SIZE, "Without --model: MLP width."),
    of_model("vocab_size", SIZE, "Without --model: vocabulary."),
    of_work(
        "context_tokens",
        SIZES,
        "Tokens of the shared context. Default: 8192.",
        "--context-tokens --context --input-len",
    ),
    of_work(
        "samples",
        SIZES,
        "Sequences sampled from each context. Default: 16; with --batch-size, and of a "
        "request under load, 1.",
        "--samples --num-samples -n",
    ),
    of_work(
        "prompts",
        SIZES,
        "Distinct contexts decoded together; alone, that many sequences. Default: 1.",
        "--prompts --batch-size",
    ),
    of_work(
        "tree",
        {"metavar": "LEVELS"},
        "What contexts share, from the root down, instead of both: "
        "system=2K,problem=512x8 is 2048 tokens above 8 problems of 512.",
    ),
    of_work(
        "decoded_tokens",
        SIZES,
        "Decoded tokens of each sample at this step. Default: 64.",
        "--decoded-tokens --decoded",
    ),
    of_work(
        "output_tokens",
        SIZES,
        "Tokens each sample generates: the step asked about is the last, the longest. "
        "Default of whole requests: 256.",
        "--output-tokens --output-len",
    ),
    of_work("query_tokens", SIZES, "Tokens per sample in one step.", default=1),
    of_work(
        "accepted_tokens",
        number_of("TOKENS"),
        "Of those, how many are kept on average; generate takes its steps by it.",
        default=1,
    ),
    of_hardware(
        "kernel", one_of(tuple(WAYS)), "Attention kernel, or that of an engine.", default="flash"
    ),
    of_work(
        "kv_layout",
        one_of(KV_LAYOUTS),
        "How standard attention stores the context: a copy per sample, one for all, "
        "or one that is concatenated anew on every step.",
        default=KV_LAYOUTS[0],
    ),
    of_hardware(
        "execution",
        one_of(EXECUTIONS),
        "CUDA graph as engines use, compiled, or plain eager PyTorch.",
        default=EXECUTIONS[0],
    ),
    of_hardware(
        "dtype",
        _WEIGHTS,
        f"Format of all matrices in layers: {', '.join(WEIGHT_NAMES)}. auto, the default: "
        "the checkpoint's own.",
        "--dtype --weight-dtype",
    ),
    of_hardware(
        "quantization",
        _WEIGHTS,
        "The same; beside it --dtype may name a format of 16 bits, as in engines.",
    ),
    of_hardware(
        "kv_dtype",
        _CACHES,
        f"Format of the KV cache: {', '.join(KV_DTYPES)}, auto. Default: what the "
        "checkpoint states, else that of the activations.",
        "--kv-dtype --kv-cache-dtype",
    ),
    of_hardware(
        "tensor_parallel",
        SIZES,
        "GPUs that share each layer. Default: 1.",
        "--tensor-parallel-size --tensor-parallel --tp",
    ),
    of_hardware(
        "data_parallel",
        SIZES,
        "Groups of such GPUs with requests of their own, which share the experts. Default: 1.",
        "--data-parallel-size --data-parallel --dp",
    ),
    of_hardware(
        "expert_parallel",
        SIZES,
        "Parts into which whole experts are dealt out over the GPUs of all groups. "
        "Default: 1, every GPU has a slice of each.",
        "--expert-parallel-size --expert-parallel --ep",
    ),
    of_hardware(
        "pipeline_parallel",
        SIZES,
        "Stages, each with a part of the layers. Default: 1.",
        "--pipeline-parallel-size --pipeline-parallel --pp",
    ),
    of_hardware(
        "routing",
        one_of(ROUTINGS),
        "How tokens choose a model's experts: in turn, at random, or by a power law.",
        default="uniform",
    ),
    of_hardware(
        "routing_exponent",
        number_of("POWER"),
        "Exponent of skewed routing, between 1 and 2.",
        default=1.2,
    ),
    of_hardware(
        "latent_form",
        one_of(LATENT_FORMS),
        "Latent attention (MLA): absorbed, expanded to every head, or mixed: shared "
        "context expanded, own tokens absorbed. auto takes the faster of absorbed and mixed.",
        default=LATENT_FORMS[0],
    ),
    of_hardware(
        "gpu_memory_utilization",
        number_of("SHARE"),
        "Share of the card's memory that may be used.",
        default=0.9,
    ),
    of_hardware(
        "engine",
        one_of(ENGINES),
        "Your engine, or none for a loop of your own: whose meaning that share has (vLLM's, "
        "SGLang's --mem-fraction-static, TensorRT-LLM's free_gpu_memory_fraction), whose switch "
        "compare names. SGLang and TensorRT-LLM quantise activations in the kernel before.",
        default="vllm",
    ),
    of_hardware(
        "max_batched_tokens",
        SIZE,
        "Tokens of the largest prefill batch, for which engines keep memory. Default: 8192 on "
        "cards of 70 GiB and more (TensorRT-LLM: on all), else 2048.",
        "--max-batched-tokens --max-num-batched-tokens",
    ),
    keyword("constants", opt.Constants, "auto"),
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
    every = tuple(replace(each, listed=sizes) for each, sizes in zip(asked, chosen, strict=True))
    return replace(every[0], each=every)


question_of.__signature__ = inspect.Signature(OPTIONS)  # type: ignore[attr-defined]


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
                "--decoded-tokens is a step's; under load requests have --output-tokens"
            )
        sizes = {
            "samples": self.samples or 1,
            "output_tokens": self.output_tokens or DEFAULT_OUTPUT_TOKENS,
        }
        return self.settings(**sizes, **changes)


with_question = opt.with_options(question_of, opt.output_options)
