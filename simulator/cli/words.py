"""How single words of the command line are read, completed and described."""

from collections.abc import Sequence
from typing import Any

import typer

from simulator.errors import nearest
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import profile_files
from simulator.units import parse_count


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
    from simulator.inputs.hf_config.model_types import MODEL_TYPES, NESTED

    return [name for name in sorted({*MODEL_TYPES, *NESTED}) if name.startswith(incomplete.lower())]


def complete_dtypes(incomplete: str) -> list[str]:
    """Complete a number format."""
    return [name for name in DTYPES if name.startswith(incomplete.lower())]


def option(*names: str, panel: str, text: str, **more: Any) -> Any:
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
    return option(
        *names, panel=panel, text=text, parser=read, metavar=metavar, autocompletion=complete
    )


def size(*names: str, panel: str, text: str) -> Any:
    """Return the description of an option that is a size."""
    return option(*names, panel=panel, text=text, parser=count, metavar="SIZE")
