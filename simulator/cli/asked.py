"""A scenario from the command line: by name with its settings replaced, or made of a question."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from simulator.cli.options import DEFAULT_GPU, ModelNames, names_in
from simulator.cli.question import OPTIONS, SHAPE, weights_of
from simulator.counts.request import last_own_tokens
from simulator.errors import ScenarioError, unknown
from simulator.inputs.setup import PROCESS

if TYPE_CHECKING:
    from simulator.inputs.scenario import Scenario

# Options of a question that describe a model by its sizes.
OWN_MODEL = ("assume", *SHAPE)


def asked(**values: Any) -> dict[str, Any]:
    """Return the options of a question unread; a scenario needs only those that were given."""
    return values


# With several models, and without the argument for one.
asked.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        each.replace(annotation=ModelNames) if each.name == "model" else each
        for each in OPTIONS
        if each.name != "named"
    ]
)


def given(context: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a question that were given on the command line."""
    return {
        name: value
        for name, value in values.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def named_model(name: str | None, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return a scenario's name and a question's options, where the name may be that of a model.

    Parameters
    ----------
    name
        The command's argument.
    options
        The options of a question, among them ``model``, a list of names or None.
    """
    from simulator.inputs.presets import find_preset, presets
    from simulator.inputs.scenario import scenario_files

    if name is None or name.endswith(".toml") or name.lower() in scenario_files():
        return name, options
    if find_preset(name) is None and "/" not in name and not name.endswith(".json"):
        raise ScenarioError(
            unknown(
                "scenario or model",
                name,
                scenario_files(),
                aliases=presets(),
                way_out="see 'bifurcate scenarios' and 'bifurcate models'",
            )
        )
    if options.get("model"):
        raise typer.BadParameter(f"unexpected {name!r}: the model is {options['model'][0]!r}")
    return None, {**options, "model": [name]}


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
        changes["model"] = tuple(names_in(changes["model"]))
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
    return asked_scenario(changes, gpus or [DEFAULT_GPU]), settings
