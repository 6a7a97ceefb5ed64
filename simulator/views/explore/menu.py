"""The choices of a page and its start: a scenario, and menus around it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.answers.estimate import Question
from simulator.counts.attention.registry import algorithms, find_way
from simulator.counts.transformer import check_split
from simulator.errors import ScenarioError, SimulatorError
from simulator.inputs.hardware import HardwareProfile, load_hardware, load_profile, profile_files
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model, presets
from simulator.inputs.scenario import Scenario, Value
from simulator.inputs.setup import EXECUTIONS, ConstantsChoice, KvLayout, Setup, ask
from simulator.inputs.workload import Workload
from simulator.resources import readable
from simulator.timing.constants import Rates, rates

LAYOUTS: tuple[KvLayout, ...] = ("shared", "copies")
# The sliders and their ranges; typed values may go beyond.
RANGES = {
    "samples": (1, 4096),
    "context_tokens": (0, 2**18),
    "decoded_tokens": (0, 2**15),
    "prompts": (1, 64),
    "query_tokens": (1, 16),
}
# The formats to choose from, beside the scenario's: the checkpoint's own, and what engines offer.
WEIGHTS = ("auto", "bf16", "fp8", "int4")
CACHES = ("auto", "bf16", "fp8")
# GPUs of a group, within one node.
GROUPS = (1, 2, 4, 8)
# Settings that a page keeps from the scenario.
KEPT = ("accepted_tokens", "tree", "routing", "routing_exponent", "latent_form")
# Settings that have a menu.
SETTINGS = ("weight_dtype", "kv_dtype", "tensor_parallel", "kernel", "execution", "kv_layout")
# What a prefix tree fixes.
BY_TREE = ("context_tokens", "prompts")


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model of the menu, with its possible numbers of KV heads."""

    model: ModelShape
    variants: tuple[ModelShape, ...]


@dataclass(frozen=True, kw_only=True)
class Menu:
    """The choices of a page.

    Attributes
    ----------
    models, gpus
        The scenario's own, or those asked for, come first.
    asked
        The requested name or path of each model and GPU, if it is not its own.
    studied
        Names of the models that have every kernel and execution: the scenario's own, or those asked
        for. The others run as the page starts.
    layouts
        Ways to keep the context under standard attention.
    choices
        Formats of weights (``weight_dtype``) and of the cache (``kv_dtype``), GPUs of a group
        (``tensor_parallel``), ``kernel`` and ``execution``.
    kept
        Settings that the page's menus and sliders do not change.
    start
        The page's initial point: the middle of the scenario's grid.
    ranges
        The end of each size's slider, which starts at 0 or 1; a fixed size has no range.
    skipped
        What was left out, one sentence each.
    """

    scenario: Scenario
    models: tuple[ModelEntry, ...]
    gpus: tuple[Rates, ...]
    asked: Mapping[str, str]
    studied: frozenset[str]
    layouts: tuple[KvLayout, ...]
    choices: Mapping[str, tuple[Any, ...]]
    kept: Mapping[str, Any]
    start: Mapping[str, Value]
    ranges: Mapping[str, tuple[int, int]]
    gpu_memory_utilization: float
    skipped: tuple[str, ...]

    @property
    def moved(self) -> tuple[str, ...]:
        """The sizes that can be moved."""
        return tuple(name for name, (low, high) in self.ranges.items() if low < high)

    def asks(self, model: ModelShape, weights: str, cache: str) -> tuple[Setup, Workload]:
        """Return a question about a model with the page's settings.

        Parameters
        ----------
        model, weights, cache
            The model, and formats of its weights and its cache.
        """
        formats = {"weight_dtype": weights, "kv_dtype": cache}
        share = self.gpu_memory_utilization
        setup, work = ask(model, gpu_memory_utilization=share, **self.kept, **formats)
        return setup if model.latent else setup.but(latent_form="auto"), work


def menu(
    scenario: Scenario,
    *,
    models: Sequence[str] = (),
    gpus: Sequence[str] = (),
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = 0.9,
) -> Menu:
    """Collect the choices of a page about a scenario.

    Parameters
    ----------
    models, gpus
        Names or paths to offer; by default the scenario's own, then every preset, and every GPU
        with a profile.

    Raises
    ------
    SimulatorError
        If a name is unknown, or nothing that was asked for can run.
    """
    ask(
        load_model(scenario.models[0]), gpu_memory_utilization=gpu_memory_utilization
    )  # refuses some
    axes = scenario.axes
    sizes = dict(RANGES)
    kept = {name: axes[name][0] for name in KEPT if name in axes}
    if "query_tokens" in axes:
        # The last one, which is at least the number of accepted tokens.
        kept["query_tokens"] = axes["query_tokens"][-1]
    least = max(1, math.ceil(float(kept.get("accepted_tokens", 1))))
    sizes["query_tokens"] = (least, RANGES["query_tokens"][1])
    skipped = [
        f"{name} is not a slider or menu of the page: {axes[name][0]} is kept"
        for name in KEPT
        if len(axes.get(name, ())) > 1
    ]
    asked: dict[str, str] = {}
    profiles = _profiles(scenario, gpus, asked)
    entries = _entries((*models,) or (*scenario.models, *presets()), asked)
    runnable = [gpu for gpu in profiles if _runs(entries[0].model, gpu, kept, skipped)]
    if not runnable:
        raise ScenarioError(f"no GPU can run what is asked: {skipped[-1]}")
    try:
        check_split(entries[0].model, int(axes.get("tensor_parallel", (1,))[0]))
    except SimulatorError as error:  # the page starts with fewer GPUs
        skipped.append(str(error))
    for kernel in axes.get("kernel", ()):
        find_way(str(kernel))  # an unknown name is an error, not a point to leave out
    listed = [value for value in axes.get("kv_layout", ()) if value not in LAYOUTS]
    usual = {
        "weight_dtype": WEIGHTS,
        "kv_dtype": CACHES,
        "tensor_parallel": GROUPS,
        "kernel": tuple(algorithms()),
        "execution": EXECUTIONS,
    }
    start = _start(axes, entries[0].model, runnable[0], kept, sizes)
    _, work = ask(entries[0].model, **kept)
    work = work.but(prompts=start["prompts"])
    if why := find_way(str(start["kernel"])).refusal(entries[0].model, work):
        skipped.append(why)  # the page starts with another kernel, or with one prompt
    return Menu(
        scenario=scenario,
        models=tuple(entries),
        gpus=tuple(rates(gpu, constants) for gpu in runnable),
        asked=asked,
        studied=frozenset(load_model(name).name for name in (*models,) or scenario.models),
        layouts=(*LAYOUTS, *listed),  # type: ignore[arg-type]
        choices={
            name: tuple(dict.fromkeys((*values, *axes.get(name, ()))))
            for name, values in usual.items()
        },
        kept=kept,
        start=start,
        ranges=_ranges(axes, start, sizes, fixed=BY_TREE if kept.get("tree") else ()),
        gpu_memory_utilization=gpu_memory_utilization,
        skipped=tuple(dict.fromkeys(skipped)),
    )


def _profiles(
    scenario: Scenario, names: Sequence[str], asked: dict[str, str]
) -> list[HardwareProfile]:
    """Load the GPUs asked for, or the scenario's own and all others."""
    profiles = {}
    for name in names or scenario.gpus:
        profile = load_hardware(name)
        asked[profile.id] = name
        profiles[profile.id] = profile
    if not names:
        for profile in readable(load_profile, profile_files().values()):
            profiles.setdefault(profile.id, profile)
    return list(profiles.values())


def _entries(names: Sequence[str], asked: dict[str, str]) -> list[ModelEntry]:
    """Load models, each once."""
    entries: dict[str, ModelEntry] = {}
    for name in names:
        model = load_model(name)
        if model.name not in entries:
            asked[model.name] = name
            entries[model.name] = ModelEntry(model=model, variants=tuple(_variants(model)))
    return list(entries.values())


def _variants(model: ModelShape) -> list[ModelShape]:
    """Return a model with every number of KV heads that divides its heads."""
    if model.latent is not None:
        return [model]
    variants = []
    for count in range(1, model.heads + 1):
        if model.heads % count == 0:
            try:
                variants.append(model.with_kv_heads(count))
            except SimulatorError:
                continue
    return variants


def _runs(
    model: ModelShape, gpu: HardwareProfile, kept: Mapping[str, Any], skipped: list[str]
) -> bool:
    """Return whether a GPU can run the scenario, and report why not."""
    try:
        Question(model, gpu, *ask(model, **kept)).check()
    except SimulatorError as error:
        skipped.append(str(error))
        return False
    return True


def _start(
    axes: Mapping[str, Sequence[Value]],
    model: ModelShape,
    gpu: HardwareProfile,
    kept: Mapping[str, Any],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, Value]:
    """Return the initial point: the middle of each size, the first of everything else."""
    start: dict[str, Value] = {}
    usual = Setup().as_dict() | Workload().as_dict()
    usual |= {"weight_dtype": "auto", "kv_dtype": "auto"}
    for name in (*sizes, *SETTINGS):
        values = axes.get(name, (usual[name],))
        start[name] = values[len(values) // 2 if name in sizes else 0]
    if kept.get("tree"):
        _, work = ask(model, **kept)
        start |= {name: getattr(work, name) for name in BY_TREE}
    kv_heads = axes.get("kv_heads", (model.kv_heads,))[0]
    return {"model": model.name, "gpu": gpu.id, "kv_heads": kv_heads, **start}


def _ranges(
    axes: Mapping[str, Sequence[Value]],
    start: Mapping[str, Value],
    sizes: Mapping[str, tuple[int, int]],
    *,
    fixed: Sequence[str],
) -> dict[str, tuple[int, int]]:
    """Return the range of each slider, which covers the scenario's grid."""
    ranges = {}
    for name, (low, high) in sizes.items():
        own = [value for value in axes.get(name, ()) if isinstance(value, int)]
        ranges[name] = (min([low, *own]), max([high, *own]))
        if name in fixed:
            ranges[name] = (int(start[name]), int(start[name]))
    return ranges
