"""The choices of a page and its start: a scenario, and menus around it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.answers.estimate import check_workload, latent_forms
from simulator.counts.attention.registry import find_way
from simulator.counts.transformer import check_split
from simulator.errors import ScenarioError, SimulatorError
from simulator.inputs.hardware import HardwareProfile, load_hardware, load_profile, profile_files
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, Value
from simulator.inputs.setup import Attention, ConstantsChoice, Execution, KvLayout, Setup, ask
from simulator.inputs.workload import Workload
from simulator.resources import readable
from simulator.timing.constants import Rates, rates

# In addition to the scenario's own: multi-head, multi-group, multi-query, latent, mixtures of
# experts, windows; from half a billion parameters to more than one card can hold.
MODELS = (
    "llama-3.1-8b",
    "llama-2-7b",
    "mistral-7b",
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen2.5-32b",
    "llama-3.1-70b",
    "mixtral-8x7b",
    "qwen3-30b-a3b",
    "gemma-2-9b",
    "starcoder",
    "deepseek-v3",
)
LAYOUTS: tuple[KvLayout, ...] = ("shared", "copies")
# The sliders and their ranges; typed values may go beyond.
RANGES = {
    "samples": (1, 4096),
    "context_tokens": (0, 2**18),
    "decoded_tokens": (0, 2**15),
    "prompts": (1, 64),
}
# The same, if the scenario asks about several.
QUERY_TOKENS = (1, 16)
# Settings that a page keeps from the scenario.
KEPT = (
    *("accepted_tokens", "weight_dtype", "kv_dtype", "tensor_parallel", "tree"),
    *("routing", "routing_exponent", "latent_form"),
)
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
    layouts
        Ways to keep the context under standard attention.
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
    layouts: tuple[KvLayout, ...]
    kept: Mapping[str, Any]
    start: Mapping[str, Value]
    ranges: Mapping[str, tuple[int, int]]
    gpu_memory_utilization: float
    skipped: tuple[str, ...]

    @property
    def moved(self) -> tuple[str, ...]:
        """The sizes that can be moved."""
        return tuple(name for name, (low, high) in self.ranges.items() if low < high)

    def questions(
        self,
        model: ModelShape,
        *,
        attention: Attention,
        kernel: str,
        execution: Execution,
        kv_layout: KvLayout,
    ) -> list[tuple[Setup, Workload]]:
        """Return a question with the settings of the page, in each form among which it chooses.

        There are two forms of latent attention, and none of what cannot run.

        Parameters
        ----------
        model
            The model that decodes it.
        attention, kernel, execution, kv_layout
            The settings that the page's menus choose.
        """
        settings = {"kernel": kernel, "execution": execution, "kv_layout": kv_layout}
        share = self.gpu_memory_utilization
        setup, work = ask(model, gpu_memory_utilization=share, **self.kept, **settings)
        if model.latent is None:
            setup = setup.but(latent_form="auto")
        try:
            check_workload(model, self.gpus[0].gpu, setup, work)
        except SimulatorError:
            return []
        return [(form, work) for form in latent_forms(model, setup.under(attention))]


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
        Names or paths to offer; by default the scenario's own, a dozen models of every family, and
        every GPU with a profile.

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
        if len(axes["query_tokens"]) > 1:
            least = max(QUERY_TOKENS[0], math.ceil(float(kept.get("accepted_tokens", 1))))
            sizes["query_tokens"] = (least, QUERY_TOKENS[1])
    skipped = [
        f"{name} is not a slider or menu of the page: {axes[name][0]} is kept"
        for name in KEPT
        if len(axes.get(name, ())) > 1
    ]
    asked: dict[str, str] = {}
    profiles = _profiles(scenario, gpus, asked)
    entries = _entries(scenario, models, kept, skipped, asked)
    runnable = [gpu for gpu in profiles if _runs(entries[0].model, gpu, kept, skipped)]
    if not runnable:
        raise ScenarioError(f"scenario {scenario.id}: no GPU can run it: {skipped[-1]}")
    for kernel in axes.get("kernel", ()):
        find_way(str(kernel))  # an unknown name is an error, not a point to leave out
    start = _start(axes, entries[0].model, runnable[0], kept, sizes)
    listed = [value for value in axes.get("kv_layout", ()) if value not in LAYOUTS]
    return Menu(
        scenario=scenario,
        models=tuple(entries),
        gpus=tuple(rates(gpu, constants) for gpu in runnable),
        asked=asked,
        layouts=(*LAYOUTS, *listed),  # type: ignore[arg-type]
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


def _entries(
    scenario: Scenario,
    names: Sequence[str],
    kept: Mapping[str, Any],
    skipped: list[str],
    asked: dict[str, str],
) -> list[ModelEntry]:
    """Load the models asked for, or the scenario's and those that the GPUs can split."""
    entries: dict[str, ModelEntry] = {}
    problems: list[str] = []
    for name in names or (*scenario.models, *MODELS):
        model = load_model(name)
        if model.name in entries:
            continue
        asked[model.name] = name
        try:
            check_split(model, int(kept.get("tensor_parallel", 1)))
        except SimulatorError as error:
            problems.append(str(error))
            continue
        entries[model.name] = ModelEntry(model=model, variants=tuple(_variants(model, kept)))
    if not entries:
        raise ScenarioError(f"scenario {scenario.id}: no model can run it: {problems[0]}")
    skipped += problems
    return list(entries.values())


def _variants(model: ModelShape, kept: Mapping[str, Any]) -> list[ModelShape]:
    """Return a model with every number of KV heads that divides its heads and suits the GPUs."""
    if model.latent is not None:
        return [model]
    variants = []
    for count in range(1, model.heads + 1):
        if model.heads % count == 0:
            try:
                changed = model.with_kv_heads(count)
                check_split(changed, int(kept.get("tensor_parallel", 1)))
            except SimulatorError:
                continue
            variants.append(changed)
    return variants


def _runs(
    model: ModelShape, gpu: HardwareProfile, kept: Mapping[str, Any], skipped: list[str]
) -> bool:
    """Return whether a GPU can run the scenario, and report why not."""
    try:
        check_workload(model, gpu, *ask(model, **kept))
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
    usual = Setup().model_dump() | Workload().model_dump()
    for name in (*sizes, "kernel", "execution", "kv_layout"):
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
