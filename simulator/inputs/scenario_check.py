"""Can a scenario be asked? Its models and GPUs are looked up, which loading it does not do."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

from simulator.errors import SimulatorError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario


def check_scenario(scenario: Scenario) -> list[str]:
    """Look up the models and GPUs of a scenario and return what is wrong, one line each.

    Every model is tried with every ``kv_heads`` of the grid. Two names of one model or GPU are a
    problem too: their points would count twice.
    """
    kv_heads = [value for value in scenario.axes.get("kv_heads", ()) if isinstance(value, int)]
    problems = [
        *_unresolved("gpus", scenario.gpus, lambda name: load_hardware(name).id),
        *_unresolved("models", scenario.models, lambda name: load_model(name).name),
    ]
    if problems:
        return problems
    for model, count in product(scenario.models, kv_heads):
        try:
            load_model(model, kv_heads=count)
        except SimulatorError as error:
            problems.append(f"kv_heads: {error}")
    return problems


def _unresolved(key: str, names: Sequence[str], own_name: Callable[[str], str]) -> Iterator[str]:
    """Yield a line for each name that cannot be loaded or means the same as an earlier one."""
    first: dict[str, str] = {}
    for name in names:
        try:
            found = own_name(name)
        except SimulatorError as error:
            yield f"{key}: {error}"
            continue
        if found in first:
            yield f"{key}: {first[found]!r} and {name!r} are both {found}"
        first.setdefault(found, name)
