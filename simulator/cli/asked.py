"""The options of a question given with a scenario: they replace the scenario's settings."""

import inspect
from collections.abc import Mapping
from typing import Any, get_args

import typer

from simulator.cli.options import GpuName, ModelName
from simulator.cli.question import question_of
from simulator.counts.request import last_own_tokens
from simulator.inputs.setup import PROCESS

# Options of a question that describe a model by its sizes.
OWN_MODEL = (
    "assume",
    "layers",
    "hidden_size",
    "heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)
# Options that a scenario names differently.
_FIELDS = {"dtype": "weight_dtype"}


def asked(**values: Any) -> dict[str, Any]:
    """Return the options of a question unread; a scenario needs only those that were given."""
    return values


asked.__signature__ = inspect.signature(question_of)  # type: ignore[attr-defined]


def given(context: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a question that were given on the command line."""
    return {
        name: value
        for name, value in values.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def scenario_key(option: str) -> str | None:
    """Return the key in a scenario's file that corresponds to an option of a question.

    >>> scenario_key("--input-len"), scenario_key("-g"), scenario_key("--layers")
    ('context_tokens under [workload]', 'gpus', None)
    """
    described = {"model": ModelName, "gpu": GpuName}
    described |= {
        name: parameter.annotation
        for name, parameter in inspect.signature(question_of).parameters.items()
    }
    for name, annotation in described.items():
        info = get_args(annotation)[1]
        # Typer keeps the first name of an annotated option in the place of its default.
        if option in (info.default, *info.param_decls) and name not in (*OWN_MODEL, *PROCESS):
            field = _FIELDS.get(name, name)
            return f"{field}s" if field in ("model", "gpu") else f"{field} under [workload]"
    return None


def changes_of(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changes to a scenario, and the settings that a scenario does not have.

    Raises
    ------
    BadParameter
        If an option describes a model by its sizes; a scenario names its models.
    """
    for name in options:
        if name in OWN_MODEL:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} describes a model; give it without a scenario"
            )
    changes = {
        _FIELDS.get(name, name): value for name, value in options.items() if name not in PROCESS
    }
    settings = {name: options[name] for name in PROCESS if name in options}
    if "model" in changes:
        changes["model"] = (changes["model"],)
    if "output_tokens" in changes:
        last = last_own_tokens(
            changes["output_tokens"],
            changes.get("query_tokens", 1),
            changes.get("accepted_tokens", 1),
        )
        changes.setdefault("decoded_tokens", last)
    return changes, settings
