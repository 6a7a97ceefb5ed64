"""Scenarios: real workloads as grids, each with a question and an expected answer.

A scenario is one TOML file: prose first, then ``[workload]``, where every key holds one value or a
list. A list is an axis of the grid. Models and GPUs are axes too. Loading does not look up their
names, which would read every profile; :func:`check_scenario` does.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from simulator.errors import ScenarioError, SimulatorError, unknown
from simulator.inputs.files import describe, name_or_path, read_named
from simulator.inputs.record import Frozen, Rules
from simulator.inputs.setup import PROCESS, Setup
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import LARGEST_COUNT, AtLeastOne, Workload, one_of_each
from simulator.resources import SCENARIO_PATH_VARIABLE, toml_files

SCHEMA_VERSION = 1

Verdict = Literal["gain", "no gain", "mixed"]
Basis = Literal["measured", "stated", "derived"]
Value = int | float | str

# The speed-up that justifies a change of kernel; larger than a good model's error.
GAIN_SPEEDUP = 1.1
# Shares of a grid's points: real grids start at one or two samples, where there is no gain.
GAIN_SHARE, NO_GAIN_SHARE = 0.75, 0.1


def _listed(value: Any) -> Any:
    """Read one value as a list of one, and refuse an empty list."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("the list is empty")
    return values


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse repeats: a point of the grid would count twice."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{value!r} is listed twice")
        seen.add(value)
    return values


def _filled(text: str) -> str:
    """Refuse a blank text."""
    if not text.strip():
        raise ValueError("is blank")
    return text.strip()


Text = Annotated[str, Rules(after=_filled)]
Texts = Annotated[tuple[Text, ...], Rules(before=_listed, after=_distinct)]


class _Settings(Setup, Workload):
    """The keys of ``[workload]``: a step's setup and sizes, and three more."""

    kv_heads: AtLeastOne | None = None
    output_tokens: AtLeastOne | None = None
    target_step_ms: Annotated[float, Rules(gt=0)] | None = None


_SCALARS = ("output_tokens", "target_step_ms")
# A scenario has no choice of constants or engine, and no limit on memory.
_KEYS = [name for name in _Settings.fields if name not in PROCESS]


def _known_schema(value: Any) -> Any:
    """Refuse another version of the files."""
    if type(value) is not int or value != SCHEMA_VERSION:
        raise ValueError(f"is not a version this program reads; it reads {SCHEMA_VERSION}")
    return value


def _read_workload(data: Any) -> dict[str, Value | tuple[Value, ...]]:
    """Read every setting, and collect the mistakes."""
    if not isinstance(data, Mapping):
        raise ValueError("should be a table, [workload], of sizes and settings")  # noqa: TRY004
    read: dict[str, Value | tuple[Value, ...]] = {}
    problems: list[str] = []
    for key, value in data.items():
        try:
            read[key] = _read_setting(str(key), value)
        except ValueError as problem:
            problems.append(str(problem))
    sized = [key for key in ("context_tokens", "prompts") if key in read]
    if "tree" in read and sized:
        problems.append(f"{' and '.join(sized)}: the tree says so; leave it out")
    if problems:
        raise ValueError("; ".join(problems))
    return one_of_each(read)


class Scenario(Frozen):
    """One real workload.

    Attributes
    ----------
    id
        The file's name without ``.toml``.
    title
        The result, in one line.
    question
        The question of the person who plans this workload.
    sources
        Sources of sizes and verdict.
    verdict
        The expected answer about bifurcated attention for the time of a whole decode step, in the
        sense of :func:`verdict_of`. It is not this package's output.
    verdict_basis
        What the verdict rests on. Measured: a source timed decode steps or whole batches at the
        grid's sizes. Stated: a source says so, or timed attention alone or another setting; so it
        is where a file does not say. Derived: it follows from bytes and sizes, and nobody timed it.
    models, gpus
        Names or paths for :func:`~simulator.inputs.presets.load_model` and
        :func:`~simulator.inputs.hardware.load_hardware`; relative paths start at the working
        directory.
    workload
        The file's settings, with sizes such as ``8K`` as numbers: a value, or a tuple for an axis.
        Keys are the fields of :class:`~simulator.inputs.workload.Workload`, whose defaults apply to
        absent keys, ``kv_heads`` (a changed number of the model's KV heads), ``output_tokens`` and
        ``target_step_ms``.
    """

    schema_version: Annotated[int, Rules(before=_known_schema)]
    id: Annotated[str, Rules(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    title: Text
    description: Text
    question: Text
    sources: Texts
    verdict: Verdict
    verdict_basis: Basis = "stated"
    verdict_reason: Text
    models: Texts
    gpus: Texts
    workload: Annotated[dict[str, Value | tuple[Value, ...]], Rules(before=_read_workload)]

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Refuse settings above their table."""
        if isinstance(data, Mapping):
            for key in data:
                if key in _KEYS:
                    raise ValueError(f"{key} belongs under [workload]")
        return data

    @property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """The grid: model and GPU, then the settings in the file's order, each with its values.

        A single value is an axis of length one.
        """
        axes: dict[str, tuple[Value, ...]] = {"model": self.models, "gpu": self.gpus}
        for key, value in self.workload.items():
            if key not in _SCALARS:
                axes[key] = value if isinstance(value, tuple) else (value,)
        return axes

    @property
    def points(self) -> int:
        """Number of points of the grid."""
        return math.prod(len(values) for values in self.axes.values())

    @property
    def output_tokens(self) -> int | None:
        """Tokens each sample generates, if the scenario says so."""
        value = self.workload.get("output_tokens")
        return value if isinstance(value, int) else None

    @property
    def target_step_ms(self) -> float | None:
        """Longest acceptable decode step, if the scenario says so. [ms]."""
        value = self.workload.get("target_step_ms")
        return value if isinstance(value, float) else None

    def cells(self) -> Iterator[dict[str, Value]]:
        """Yield every point of the grid as a dict by axis, the last axis fastest."""
        axes = self.axes
        for values in product(*axes.values()):
            yield dict(zip(axes, values, strict=True))


def _read_setting(key: str, value: Any) -> Value | tuple[Value, ...]:
    """Read one key of ``[workload]``: a value, or a list of distinct ones."""
    if key in Scenario.fields:
        raise ValueError(f"{key} belongs above [workload]")
    if key not in _KEYS:
        raise ValueError(unknown("key", key, _KEYS))
    if not isinstance(value, list | tuple):
        return _read_value(key, value)
    if key in _SCALARS:
        raise ValueError(f"{key} is one value, not a list")
    values = tuple(_read_value(key, item) for item in value)
    try:
        return _distinct(_listed(values))
    except ValueError as problem:
        raise ValueError(f"{key}: {problem}") from None


def _read_value(key: str, value: Any) -> Value:
    """Read one value like :class:`Workload`, with all errors in one line."""
    # No setting is true or false, but pydantic would read true as 1.
    if isinstance(value, bool):
        raise ValueError(f"{key} = {str(value).lower()} is neither a number nor a name")  # noqa: TRY004
    # A step accepts no more than it processes, which another key of the grid states.
    more = {"query_tokens": LARGEST_COUNT} if key == "accepted_tokens" else {}
    try:
        read = getattr(_Settings.read({**more, key: value}), key)
    except ValueError as problem:
        raise ValueError("; ".join(describe(problem, _Settings))) from None
    return tree_text(read) if key == "tree" else read


def verdict_of(speedups: Sequence[float]) -> Verdict:
    """Return a scenario's verdict from the speed-ups over its grid.

    "gain" if at least three quarters of the points are at least 1.1 times as fast, "no gain" if at
    most a tenth of them are, else "mixed".

    Parameters
    ----------
    speedups
        Step time with standard attention over that with bifurcated attention, for each point,
        whether or not it fits in memory.

    Raises
    ------
    ScenarioError
        If there are no points, or a speed-up is not a number.

    Examples
    --------
    >>> verdict_of([1.0, 1.3, 2.1, 5.0]), verdict_of([1.02, 0.97]), verdict_of([1.0, 1.5])
    ('gain', 'no gain', 'mixed')
    """
    if not speedups or any(math.isnan(speedup) for speedup in speedups):
        raise ScenarioError("a verdict needs at least one speed-up, all of them numbers")
    share = sum(speedup >= GAIN_SPEEDUP for speedup in speedups) / len(speedups)
    if share >= GAIN_SHARE:
        return "gain"
    return "no gain" if share <= NO_GAIN_SHARE else "mixed"


def load_scenario(name: str | Path) -> Scenario:
    """Load a scenario by id or path.

    A path is a string that ends in ``.toml`` or a :class:`~pathlib.Path`. Ids are looked up in the
    folders of ``$BIFURCATE_SCENARIO_PATH`` first, then among the shipped scenarios, ignoring
    case.

    Raises
    ------
    ScenarioError
        If no scenario has that id, or the file is malformed.
    """
    return read_scenario(find_scenario(name))


def find_scenario(name: str | Path) -> Path:
    """Return the file of a scenario by id or path, as :func:`load_scenario` takes them.

    Raises
    ------
    ScenarioError
        If no scenario has that id.
    """
    text = str(name_or_path(name, "scenario", ScenarioError))
    if isinstance(name, Path) or text.endswith(".toml"):
        return Path(name)
    files = scenario_files()
    path = files.get(text.strip().lower())
    if path is None:
        raise ScenarioError(unknown("scenario", text, files, way_out="see 'bifurcate scenarios'"))
    return path


def scenario_files() -> dict[str, Path]:
    """Map the id of each scenario to its file; the user's own hide the shipped ones."""
    return toml_files("scenarios", SCENARIO_PATH_VARIABLE)


def read_scenario(path: str | Path) -> Scenario:
    """Read one scenario file.

    Raises
    ------
    ScenarioError
        If the file is missing, malformed, or its id is not its name.
    """
    return read_named(Scenario, path, ScenarioError)


def check_scenario(scenario: Scenario) -> list[str]:
    """Look up the models and GPUs of a scenario and return its problems, one line each.

    Every model is tried with every ``kv_heads`` of the grid. Two names of one model or GPU are a
    problem too: their points would count twice.
    """
    from simulator.inputs.hardware import load_hardware
    from simulator.inputs.presets import load_model

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
    """Yield a line for each name that cannot be loaded or duplicates an earlier one."""
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
