"""Random states of an explorer's page, and what the Python model says of them."""

import math
import random
from typing import Any

from simulator.answers.compare import _winner
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.verdict import kv_io_ratio, verdict_of
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup, ask
from simulator.inputs.workload import Workload
from simulator.timing.interval import speedup_interval
from simulator.views.explore.menu import Menu

# What docs/commands.md promises of every number on the page.
BOUND = 1e-9

# What a page's script is asked for: the columns of ``truth``.
ANSWER = """(state) => {
  const result = engine.compare(state);
  const columns = (step) => [
    step.seconds, step.tokens_per_s, step.totals.flops, step.totals.bytes_read,
    step.totals.bytes_written, step.totals.kv_bytes_read || 0, step.memory.weights_bytes,
    step.memory.kv_bytes, step.memory.workspace_bytes, step.memory.reserve_bytes,
    step.memory.total_bytes, step.memory.low_bytes, step.memory.high_bytes,
    step.memory.capacity_bytes, step.roofs.launch, step.roofs.memory, step.roofs.compute,
    step.roofs.link, step.interval.low, step.interval.high,
  ];
  const words = (step) => [step.bound, step.memory.fits, step.memory.verdict];
  const steps = [result.standard, result.stored, result.bifurcated];
  const sure = engine.ratioInterval(result.standard, result.bifurcated);
  return {
    numbers: [...steps.flatMap(columns), result.speedup, result.kv_io_ratio, sure.low, sure.high],
    words: [...steps.flatMap(words), result.winner, sure.verdict],
    brief: steps.map((step) => engine.brief(state, step.way).seconds),
  };
}"""


def random_states(data: dict[str, Any], count: int, seed: int) -> list[dict[str, int]]:
    """Draw states over all menus, and log-uniformly over all sliders."""
    rng = random.Random(seed)  # noqa: S311 - points, not secrets

    def size(low: int, high: int) -> int:
        if low == 0 and rng.random() < 0.03:
            return 0
        first = max(low, 1)
        if low == high:
            return low
        return min(high, int(math.exp(rng.uniform(math.log(first), math.log(high + 1)))))

    states: list[dict[str, int]] = []
    while len(states) < count:
        model = rng.randrange(len(data["models"]))
        state = {
            "model": model,
            "gpu": rng.randrange(len(data["gpus"])),
            "kv_heads": rng.choice(data["models"][model]["choices"]),
            "kv_layout": rng.randrange(len(data["layouts"])),
            **{name: rng.randrange(len(items)) for name, items in data["choices"].items()},
            **{name: size(*ends) for name, ends in data["ranges"].items()},
        }
        if rng.random() < 0.5:  # most models have no other kernel
            for name in ("kernel", "execution"):
                state[name] = data["choices"][name].index(data["start"][name])
        if _runs(data, state):
            states.append(state)
    return states


def _runs(data: dict[str, Any], state: dict[str, int]) -> bool:
    """Return whether a page has a state."""
    model = data["models"][state["model"]]
    at = model["choices"].index(state["kv_heads"])
    size = data["choices"]["tensor_parallel"][state["tensor_parallel"]]
    if size not in model["splits"][at] or (size > 1 and not data["gpus"][state["gpu"]]["linked"]):
        return False
    ways = data["plans"][model["plans"][at]]["ways"][state["weight_dtype"]][state["kernel"]]
    return ways[state["execution"]] is not None


def covering(data: dict[str, Any], states: list[dict[str, int]]) -> list[dict[str, int]]:
    """Return of some states those that make the script follow what none before them did.

    A state follows what was recorded of its parts, for models of its architecture and groups of its
    size, and their times on its GPU. What is wrong there is wrong in all states that follow it.
    """
    followed: set[tuple[Any, ...]] = set()
    chosen = []
    for state in states:
        model = data["models"][state["model"]]
        plan = data["plans"][model["plans"][model["choices"].index(state["kv_heads"])]]["ways"]
        ways = plan[state["weight_dtype"]][state["kernel"]][state["execution"]]
        size = state["tensor_parallel"]
        pieces = {(part, size > 0) for way in ways for form in way for part in form}
        pieces |= {("gpu", state["gpu"], state["weight_dtype"], state["kv_dtype"], size)}
        if not pieces <= followed:
            followed |= pieces
            chosen.append(state)
    return chosen


def question(
    offer: Menu, data: dict[str, Any], state: dict[str, int]
) -> tuple[ModelShape, HardwareProfile, Setup, Workload]:
    """Return the question that a state stands for."""
    entry = offer.models[state["model"]]
    model = next(each for each in entry.variants if each.kv_heads == state["kv_heads"])
    rates = offer.gpus[state["gpu"]]
    setup, work = ask(
        model,
        **{**offer.kept, **{name: state[name] for name in offer.moved}},
        **{name: items[state[name]] for name, items in data["choices"].items()},
        kv_layout=data["layouts"][state["kv_layout"]],
        constants=rates.choice,
        gpu_memory_utilization=offer.gpu_memory_utilization,
    )
    return model, rates.gpu, setup, work


def truth(offer: Menu, data: dict[str, Any], state: dict[str, int]) -> dict[str, list[Any]]:
    """Return what ``estimate`` and ``compare`` say of a state."""
    model, gpu, setup, work = question(offer, data, state)
    standard = setup.under("standard")
    steps = [
        estimate(Question(model, gpu, each, work))
        for each in (standard, standard.but(kv_layout="shared"), setup.under("bifurcated"))
    ]
    standard, _, bifurcated = steps
    low, high = map(float, speedup_interval(standard.uncertainty, bifurcated.uncertainty))
    verdict = verdict_of(
        low,
        high,
        standard_fits=bool(standard.memory.fits),
        bifurcated_fits=bool(bifurcated.memory.fits),
        memory_sure="too close to call" not in (standard.memory.verdict, bifurcated.memory.verdict),
    )
    return {
        "numbers": [
            *(number for step in steps for number in _columns(step)),
            standard.step_s / bifurcated.step_s,
            kv_io_ratio(standard.totals.kv_bytes_read, bifurcated.totals.kv_bytes_read),
            low,
            high,
        ],
        "words": [
            *(
                word
                for step in steps
                for word in (step.bound, bool(step.memory.fits), step.memory.verdict)
            ),
            _winner(standard, bifurcated),
            verdict,
        ],
        "brief": [step.step_s for step in steps],
    }


def _columns(step: Estimate) -> list[float]:
    """Return the numbers of one step."""
    totals, needs, roofs = step.totals, step.memory, step.time.by_roof_s
    return [
        step.step_s,
        step.tokens_per_s,
        totals.flops,
        totals.bytes_read,
        totals.bytes_written,
        totals.kv_bytes_read,
        needs.weights_bytes,
        needs.kv_bytes,
        needs.workspace_bytes,
        needs.reserve_bytes,
        needs.total_bytes,
        needs.low_bytes,
        needs.high_bytes,
        needs.capacity_bytes,
        roofs["launch"],
        roofs["memory"],
        roofs["compute"],
        roofs["link"],
        step.step_low_s,
        step.step_high_s,
    ]


def worst_error(answer: dict[str, list[Any]], expected: dict[str, list[Any]]) -> float:
    """Return the largest relative error of a page's answer; infinite where a word differs."""
    if answer["words"] != expected["words"]:
        return math.inf
    pairs = [
        pair
        for key in ("numbers", "brief")
        for pair in zip(answer[key], expected[key], strict=True)
        # JSON has no infinity, the upper end of an interval that is not known.
        if not (pair[0] is None and pair[1] == math.inf)
    ]
    return max(abs(got - want) / (abs(want) or 1.0) for got, want in pairs)
