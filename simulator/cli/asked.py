"""A scenario from the command line: by name with its settings replaced, or made of a question."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli import options as opt
from simulator.cli.question import OPTIONS, SHAPE, weights_of
from simulator.counts.request import last_own_tokens
from simulator.errors import ScenarioError, unknown
from simulator.inputs.setup import PROCESS

if TYPE_CHECKING:
    from simulator.inputs.scenario import Scenario

MODELS = opt.of_model("model", opt.MODEL, kind=list[str] | None)
# Options of a question that describe a model by its sizes.
OWN_MODEL = ("assume", *SHAPE)
# A scenario's name, or None, and the options of a question.
Asked = tuple[str | None, dict[str, Any]]


def asked(context: typer.Context, scenario: str | None, **options: Any) -> Asked:
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
    *(MODELS if each.name == "model" else each for each in OPTIONS if each.name != "named"),
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
                f"--{option.replace('_', '-')}: pages and grids name their models; give --model, a "
                "preset or a config.json"
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
