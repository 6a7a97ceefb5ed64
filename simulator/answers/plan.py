"""Capacity planning: which GPUs, how many of them, and what a million tokens cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from simulator.answers.advice import runnable
from simulator.answers.answer import Answer
from simulator.answers.capacity import Capacity, capacity, longest_context
from simulator.answers.estimate import Estimate, check_workload, estimate
from simulator.answers.price import cost_per_million_tokens, price_of
from simulator.counts.attention.registry import find_way
from simulator.errors import WorkloadError
from simulator.inputs.hardware import HardwareProfile, Price
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.inputs.workload import Workload

# Stages of the pipelines over several nodes that are tried for a model that one node does not hold.
STAGES = (2, 4)
DEFAULT_TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to serve the workload.

    Attributes
    ----------
    result
        The decode step at the workload's own sizes.
    target_step_s
        The target it has to meet. [s]
    price
        The price of one GPU, None where unknown.
    meets_target
        Whether the workload fits, and its step is no longer than the target.
    pareto
        Whether no other option that meets the target is at least as fast and as cheap per token.
        Only options with comparable prices compete.
    """

    result: Estimate
    target_step_s: float | None
    price: Price | None
    meets_target: bool
    pareto: bool = False

    @property
    def comparable(self) -> bool:
        """Whether a price is known that ranks with others."""
        return self.price is not None and self.price.comparable

    @property
    def usd_per_hour(self) -> float | None:
        """Price of the whole group, None where unknown. [USD]."""
        return None if self.price is None else self.price.value * self.gpus

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Cost of a million tokens, None where no price is known. [USD]."""
        return cost_per_million_tokens(self.usd_per_hour, self.result.tokens_per_s)

    @cached_property
    def limits(self) -> Capacity:
        """The most samples and longest context, in memory, under the target and of the model."""
        return capacity(
            self.result,
            target_step_s=self.target_step_s,
            most_context_tokens=longest_context(self.result.model, self.result.workload),
        )

    @property
    def gpus(self) -> int:
        """GPUs in the group."""
        return self.result.setup.gpus

    @property
    def attention(self) -> Attention:
        """Kind of attention."""
        return self.result.setup.attention


@dataclass(frozen=True, kw_only=True)
class Plan(Answer):
    """All options, and the ones to consider first.

    Attributes
    ----------
    options
        Every GPU, way to lay the model over GPUs, and kind of attention tried: those that meet the
        target, cheapest per token first, and after them those whose price is of another kind; then
        those that fit, fastest first; then the rest, those that lack the least memory first. In
        each of these, options whose interval is not known come last.
    cheapest
        The option with the lowest comparable price per hour that meets the target, if possible one
        whose interval is known and that surely fits; None if there is none.
    fewest_gpus
        For each GPU id, the smallest group of that GPU that meets the target; None if none does.
    skipped
        What could not be tried, one sentence each.
    """

    target_step_s: float | None
    options: tuple[Option, ...]
    cheapest: Option | None
    fewest_gpus: dict[str, int | None]
    skipped: tuple[str, ...]


def plan(
    model: ModelShape,
    gpus: Sequence[HardwareProfile],
    setup: Setup,
    work: Workload,
    *,
    target_step_s: float | None = None,
    tensor_parallel_sizes: Sequence[int] | None = None,
    attentions: Sequence[Attention] = ATTENTIONS,
    usd_per_hour: float | None = None,
) -> Plan:
    """Try GPUs, ways to lay a model over them, and kinds of attention on a workload.

    Parameters
    ----------
    model, gpus, setup, work
        The question; the setup's own ``attention`` and ``tensor_parallel`` are ignored.
    target_step_s
        Longest acceptable decode step; None to ask only which options fit. [s]
    attentions
        Kinds of attention to try; among several, bifurcated needs a kernel that runs it.
    tensor_parallel_sizes
        Tensor-parallel sizes to try; those that do not divide the model's heads are skipped. None
        tries what :func:`layouts` returns.
    usd_per_hour
        Price of one GPU, for every GPU tried, instead of the profiles' own.

    Raises
    ------
    WorkloadError
        If the target is not positive, the kernel is unknown, or nothing could be tried.
    """
    if target_step_s is not None and not target_step_s > 0:
        raise WorkloadError(f"target_step_ms = {target_step_s * 1e3} is not positive")
    if any(size < 1 for size in tensor_parallel_sizes or ()):
        raise WorkloadError("tensor_parallel_sizes: at least 1 GPU shares a layer")
    find_way(setup.kernel)  # an unknown name is an error, not an option to skip
    # The same card may be given twice under different names.
    gpus = [gpu for index, gpu in enumerate(gpus) if gpu not in gpus[:index]]
    options: list[Option] = []
    skipped: dict[str, None] = {}
    for gpu in gpus:
        possible, left_out = runnable(attentions, model, gpu)
        skipped |= dict.fromkeys(left_out)
        held = False
        for split in layouts(model, setup, tensor_parallel_sizes):
            if held and split.pipeline_parallel > setup.pipeline_parallel:
                break
            try:
                check_workload(model, gpu, split, work)
            except WorkloadError as error:
                skipped[str(error)] = None
                continue
            price = price_of(gpu, usd_per_hour)
            for attention in possible:
                result = estimate(model, gpu, split.under(attention), work)
                in_time = target_step_s is None or result.step_s <= target_step_s
                held = held or bool(result.memory.fits)
                options.append(
                    Option(
                        result=result,
                        target_step_s=target_step_s,
                        price=price,
                        meets_target=bool(result.memory.fits) and in_time,
                    )
                )
    if not options:
        raise WorkloadError(
            "nothing to plan with: " + ("; ".join(skipped) or "no GPU, size or attention")
        )
    marked = _mark_pareto(options)
    return Plan(
        target_step_s=target_step_s,
        options=tuple(sorted(marked, key=_order)),
        cheapest=_cheapest(marked),
        fewest_gpus={gpu.id: _fewest(marked, gpu.id) for gpu in gpus},
        skipped=tuple(skipped),
    )


def layouts(model: ModelShape, setup: Setup, sizes: Sequence[int] | None = None) -> list[Setup]:
    """Return the ways to lay a model over GPUs that are to be tried, pipelines last.

    Tensor parallelism of each size. Unless sizes are given, or the setup says how: for experts also
    data-parallel groups of one GPU that share them, and pipelines of nodes, for models that the
    largest group does not hold.

    Parameters
    ----------
    model, setup
        What is decoded, and how.
    sizes
        GPUs of a tensor-parallel group.
    """
    tried = DEFAULT_TENSOR_PARALLEL_SIZES if sizes is None else sizes
    ways = [setup.but(tensor_parallel=size) for size in dict.fromkeys(tried)]
    if sizes is not None or setup.gpus > setup.tensor_parallel:
        return ways
    alone = setup.but(tensor_parallel=1)
    if model.experts is not None:
        count = model.experts.count
        ways += [
            alone.but(data_parallel=size, expert_parallel=size)
            for size in tried
            if size > 1 and count % size == 0
        ]
    largest = setup.but(tensor_parallel=tried[-1])
    return [*ways, *(largest.but(pipeline_parallel=stages) for stages in STAGES)]


def _order(option: Option) -> tuple[bool, bool, bool, bool, float, float]:
    """Sort options: first those that meet the target, by cost; then the others, nearest first."""
    cost = option.usd_per_million_tokens
    fits = bool(option.result.memory.fits)
    by_cost = option.meets_target and cost is not None
    return (
        not option.meets_target,
        not fits,
        fits and not option.result.interval_known,
        by_cost and not option.comparable,
        cost if by_cost and cost is not None else float("inf"),
        option.result.step_s if fits else -float(option.result.memory.free_bytes),
    )


def _mark_pareto(options: Sequence[Option]) -> list[Option]:
    """Mark the options on the Pareto front of step time and cost per token."""
    good = [option for option in options if option.meets_target and option.comparable]
    # A bound beats nobody, unless there are bounds alone.
    good = [option for option in good if option.result.interval_known] or good

    def beaten(option: Option) -> bool:
        return any(_dominates(other, option) for other in good)

    return [
        replace(option, pareto=any(option is item for item in good) and not beaten(option))
        for option in options
    ]


def _dominates(other: Option, option: Option) -> bool:
    """Return whether one option is as good as another in both and better in one."""
    ours = (option.result.step_s, option.usd_per_million_tokens or 0.0)
    theirs = (other.result.step_s, other.usd_per_million_tokens or 0.0)
    return theirs != ours and theirs[0] <= ours[0] and theirs[1] <= ours[1]


def _cheapest(options: Sequence[Option]) -> Option | None:
    """Return the cheapest option per hour that meets the target, the faster of equals."""
    priced = [
        (
            not option.result.interval_known,
            not option.result.memory.surely_fits,
            option.usd_per_hour,
            option.result.step_s,
            index,
        )
        for index, option in enumerate(options)
        if option.meets_target and option.comparable
    ]
    return options[min(priced)[-1]] if priced else None


def _fewest(options: Sequence[Option], gpu: str) -> int | None:
    """Return the fewest GPUs of one kind that meet the target."""
    good = [option for option in options if option.result.gpu.id == gpu and option.meets_target]
    known = [option.gpus for option in good if option.result.interval_known]
    return min(known or [option.gpus for option in good], default=None)
