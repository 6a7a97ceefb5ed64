"""The options that ask a question, and the question or the scenario that they form.

Names follow the serving engines where possible: ``--input-len``, ``--num-samples``,
``--tensor-parallel-size``, ``--kv-cache-dtype``, ``--gpu-memory-utilization``.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from simulator.cli import options as opt
from simulator.cli.options import SIZE, SIZES, number_of, of_hardware, of_model, of_work, one_of
from simulator.counts.attention.registry import WAYS
from simulator.counts.request import last_own_tokens
from simulator.errors import ScenarioError, unknown
from simulator.inputs.dtypes import KV_DTYPES, read_dtype
from simulator.inputs.formats import WEIGHT_NAMES
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ENGINES, EXECUTIONS, KV_LAYOUTS, LATENT_FORMS, PROCESS, ROUTINGS
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS

if TYPE_CHECKING:
    from simulator.inputs.scenario import Scenario

# Options that describe a model without a name.
SHAPE = ("layers", "hidden_size", "heads", "head_dim", "intermediate_size", "vocab_size")
# Options of a question that describe a model by its sizes.
OWN_MODEL = ("assume", *SHAPE)
_WEIGHTS = {"metavar": "FORMAT", "autocompletion": opt.complete_weights}
_CACHES = {"metavar": "FORMAT", "autocompletion": opt.complete_caches}
# The options of a question, in the order of the help.
OPTIONS = (
    opt.argument("named", opt.MODEL, "The same as --model."),
    of_model("model", opt.MODEL, "model of a question"),
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


def question_of(**values: Any) -> "Asked":
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

    def single(sizes: dict[str, int]) -> Asked:
        """Return the question of one value for every size."""
        given = settings | sizes
        shape = _model(name, given.pop("kv_heads"), assume, shapes)
        output_tokens = given.pop("output_tokens")
        of_step = given["decoded_tokens"] is not None
        if of_step and output_tokens is not None:
            raise typer.BadParameter(
                "--decoded-tokens is for one step, --output-tokens for a request; give only one"
            )
        if output_tokens == 0:
            raise typer.BadParameter("--output-tokens is at least 1")
        if output_tokens is not None:
            steps = given["query_tokens"], given["accepted_tokens"]
            given["decoded_tokens"] = last_own_tokens(output_tokens, *steps)
        return Asked({"model": shape, **given}, output_tokens, of_step, sizes)

    every = tuple(map(single, chosen))
    return every[0]._replace(each=every)


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
        first, *_ = opt.spellings_of(next(iter(given)))
        raise typer.BadParameter(f"{first} describes a model without --model; give only one")
    if assume is not None and find_preset(name) is not None:
        raise typer.BadParameter(f"--assume is for a config.json, and {name!r} is known by name")
    return load_model(name, kv_heads=kv_heads, assume=assume)


class Asked(NamedTuple):
    """The question that the shared options form.

    Attributes
    ----------
    given
        The model and the other options, as keywords of :mod:`simulator.api`; None if not given.
    output_tokens
        Of a whole request, None if not given.
    of_step
        Whether it says the decoded tokens of a step.
    listed
        Its value of each size that is given as a list.
    each
        The questions for all combinations of these values, the last size fastest.
    """

    given: Mapping[str, Any]
    output_tokens: int | None
    of_step: bool
    listed: Mapping[str, int]
    each: "tuple[Asked, ...]" = ()

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
        return {**self.given, **changes}

    def request(self, **changes: Any) -> dict[str, Any]:
        """Return the question about requests under load, as :meth:`settings` does.

        Raises
        ------
        BadParameter
            If it says the decoded tokens of a step.
        """
        if self.of_step:
            raise typer.BadParameter(
                "--decoded-tokens is for one step; give a load --output-tokens"
            )
        tokens = self.output_tokens or DEFAULT_OUTPUT_TOKENS
        samples = self.given["samples"] or 1
        return self.settings(samples=samples, output_tokens=tokens, **changes)


with_question = opt.with_options((question_of, OPTIONS), opt.ANSWER)


# A scenario's name, or None, and the options of a question.
Named = tuple[str | None, dict[str, Any]]


def asked(context: typer.Context, scenario: str | None, **options: Any) -> Named:
    """Return a scenario's name, None if a model is named instead, and the options that were given.

    Parameters
    ----------
    context
        Of the command, which knows which options were given.
    scenario
        The command's argument: a scenario, or a model.
    options
        The options of a question, unread: among them ``model``, a list of names or None.
    """
    given = {
        name: value
        for name, value in options.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if scenario is None or scenario.endswith(".toml"):
        return scenario, given
    from simulator.inputs.presets import find_preset, presets
    from simulator.inputs.scenario import scenario_files

    if scenario.lower() in scenario_files():
        return scenario, given
    if find_preset(scenario) is None and "/" not in scenario and not scenario.endswith(".json"):
        raise ScenarioError(
            unknown(
                "scenario or model",
                scenario,
                scenario_files(),
                aliases=presets(),
                way_out="see 'bifurcate scenarios' and 'bifurcate models'",
            )
        )
    if given.get("model"):
        raise typer.BadParameter(f"unexpected {scenario!r}: the model is {given['model'][0]!r}")
    return None, {**given, "model": [scenario]}


# With several models, and without the argument for one.
_OPTIONS = (
    opt.parameter("context", typer.Context, ...),
    opt.argument("scenario", opt.SCENARIO | {"metavar": "SCENARIO|MODEL"}),
    opt.of_model("model", opt.MODEL, kind=list[str] | None),
    *(each for each in OPTIONS if each.name not in ("named", "model")),
)
with_asked = opt.with_options((asked, _OPTIONS))


def scenario_of(
    name: str | None, options: Mapping[str, Any], *, gpus: Sequence[str] | None, **changes: Any
) -> "tuple[Scenario, dict[str, Any]]":
    """Return the scenario that is asked about, and the settings that a scenario does not have.

    Parameters
    ----------
    name
        Of a scenario, whose settings the options replace; None to make one of the options.
    options
        The options of a question that were given.
    gpus
        GPUs instead of the scenario's.
    changes
        Further keys of a scenario's workload; None leaves one unchanged.

    Raises
    ------
    BadParameter
        If there is no model, or an option describes one by its sizes.
    """
    from simulator.answers.study import asked_scenario, narrowed
    from simulator.inputs.scenario import load_scenario

    for option in options:
        if option in OWN_MODEL:
            raise typer.BadParameter(
                f"{opt.spellings_of(option)[0]}: pages and grids name their models; give --model, "
                "a preset or a config.json"
            )
    given_values = dict(options)
    settings = {key: given_values.pop(key) for key in PROCESS if key in given_values}
    formats = [given_values.pop(key, None) for key in ("dtype", "quantization")]
    changes |= {**given_values, "weight_dtype": weights_of(*formats)}
    if "model" in changes:
        changes["model"] = tuple(opt.names_in(changes["model"]))
    if "output_tokens" in changes:
        sizes = [
            changes["output_tokens"],
            changes.get("query_tokens", 1),
            changes.get("accepted_tokens", 1),
        ]
        if any(isinstance(size, tuple) for size in sizes):
            raise typer.BadParameter(
                "--output-tokens says which step a grid is about; give one value, and one of "
                "--query-tokens"
            )
        changes.setdefault("decoded_tokens", last_own_tokens(*sizes))
    if name is not None:
        cards = tuple(gpus) if gpus else None
        return narrowed(load_scenario(name), {**changes, "gpu": cards}), settings
    if not changes.get("model"):
        raise typer.BadParameter(
            "nothing is asked; give a scenario (see 'bifurcate scenarios'), or a model and its "
            "sizes: llama-3.1-8b -n 1,4,16 --context 4K,8K"
        )
    return asked_scenario(changes, gpus or [opt.DEFAULT_GPU]), settings
