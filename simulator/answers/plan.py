"""Capacity planning: which GPUs and how many, for a step in time or for requests a second."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from math import ceil, inf
from operator import attrgetter, le
from typing import Literal

from simulator.answers.advice import runnable
from simulator.answers.answer import Answer
from simulator.answers.capacity import Capacity, longest_context
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.load import MOST_SEQUENCES, Deployment, Point, Request, deployments, share_of
from simulator.answers.price import Priced, cost_per_million_tokens, price_of
from simulator.answers.search import smallest
from simulator.counts.attention.registry import find_way
from simulator.errors import WorkloadError
from simulator.inputs.hardware import HardwareProfile, Price
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.timing.batching import Served, Server
from simulator.units import MILLISECOND

# Stages of the pipelines over several nodes that are tried for a model that one node does not hold.
STAGES = (2, 4)
DEFAULT_TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)
Verdict = Literal["meets", "maybe", "no"]
VERDICTS: tuple[Verdict, ...] = ("meets", "maybe", "no")
# How many times the price of the cheapest option another of its verdict is worth a look under load.
WORTH = 4
# The beginning of what is said of deployments on which a request does not fit.
UNFIT = "a request does not fit on "


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is asked of every option.

    Attributes
    ----------
    target_step_s
        The longest acceptable decode step; None for any. [s]
    requests_per_s
        Requests that arrive in a second, at random; None where a step is planned for.
    ttft_s, tpot_s
        The longest acceptable time to the first token, and per token after it; None for any. [s]
    percentile
        The percentage of the requests that are to keep to them; None where their mean is.
    """

    target_step_s: float | None = None
    requests_per_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    percentile: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is not positive.

        Raises
        ------
        WorkloadError
            If one of them is not.
        """
        shown = {
            "target_step_ms": (self.target_step_s, MILLISECOND),
            "requests_per_s": (self.requests_per_s, 1),
            "ttft_ms": (self.ttft_s, MILLISECOND),
            "tpot_ms": (self.tpot_s, MILLISECOND),
        }
        for name, (value, unit) in shown.items():
            if value is not None and not 0 < value < inf:
                raise WorkloadError(f"{name} = {value / unit:g} is not positive and finite")
        share_of(self.percentile)

    def missed(self, served: Served) -> tuple[str, ...]:
        """Return what a load misses: the load itself, or TTFT and TPOT."""
        if served.utilisation >= 1:
            return ("load",)
        kept: dict[str, bool] = {}
        share = share_of(self.percentile)
        if share is None:
            kept["TTFT"] = self.ttft_s is None or served.ttft_s <= self.ttft_s
            kept["TPOT"] = self.tpot_s is None or served.tpot_s <= self.tpot_s
        elif served.spread is None:
            kept["percentiles not known"] = self.ttft_s is None and self.tpot_s is None
        else:
            kept["TTFT"] = self.ttft_s is None or served.spread.ttft_share(self.ttft_s) >= share
            kept["TPOT"] = self.tpot_s is None or served.spread.tpot_at(share) <= self.tpot_s
        return tuple(name for name, is_kept in kept.items() if not is_kept)


@dataclass(frozen=True, kw_only=True)
class Option(Priced):
    """One way to serve what is asked.

    Attributes
    ----------
    found
        The decode step at the sizes asked, or the replicas of a deployment under the load.
    targets
        What it has to meet.
    price
        The price of one GPU, None where unknown.
    verdict
        ``meets`` if the targets are met at the upper end of the interval of the times, ``no`` if
        they are missed at the lower end, else ``maybe``. A step has to fit too: at the upper end
        of the interval of its memory, or ``maybe`` as far as one can say.
    missed
        What a load misses at the end that decides: the load, TTFT or TPOT, or percentiles that are
        not known; empty if it meets all.
    pareto
        Whether no other option that meets the targets is at least as fast and as cheap per token.
        Only options with comparable prices compete.
    dominated
        Whether another option of the same card and attention has no more GPUs, no longer times,
        and no worse a verdict.
    """

    found: Estimate | Point
    targets: Targets
    price: Price | None
    verdict: Verdict
    missed: tuple[str, ...] = ()
    pareto: bool = False
    dominated: bool = False

    @property
    def deployed(self) -> Estimate | Deployment:
        """What knows the model, the GPU and how one is laid over the other."""
        return self.found.deployment if isinstance(self.found, Point) else self.found

    @property
    def result(self) -> Estimate:
        """The decode step: at the sizes asked, or under load of a request alone."""
        return self.deployed.alone if isinstance(self.deployed, Deployment) else self.deployed

    @property
    def point(self) -> Point:
        """The replicas under the load.

        Raises
        ------
        TypeError
            If a step is asked about.
        """
        if isinstance(self.found, Point):
            return self.found
        raise TypeError("an option of a step has no load")

    @property
    def gpu(self) -> str:
        """The id of its GPU."""
        return self.deployed.gpu.id

    @property
    def gpus(self) -> int:  # type: ignore[override]
        """GPUs of the group, or of all replicas."""
        return self.found.gpus

    @property
    def attention(self) -> Attention:
        """Kind of attention."""
        return self.deployed.attention

    @property
    def meets_target(self) -> bool:
        """Whether it does what is asked."""
        return self.verdict == "meets"

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Cost of a million output tokens, None where no price is known. [USD]."""
        if isinstance(self.found, Point):
            return self.found.usd_per_million_tokens
        return cost_per_million_tokens(self.usd_per_hour, self.found.tokens_per_s)

    @property
    def times_s(self) -> tuple[float, ...]:
        """The step; or the time per output token and to the first one. [s]."""
        if isinstance(self.found, Point):
            return self.found.served.tpot_s, self.found.served.ttft_s
        return (self.found.step_s,)

    @property
    def doubts(self) -> tuple[bool, bool, bool]:
        """Whether it does not fit, has no known interval, and may not fit."""
        unknown = not self.deployed.interval_known
        if isinstance(self.found, Point):  # which fits, and surely if it meets its targets
            return False, unknown, False
        needs = self.found.memory
        return not needs.fits, unknown, not needs.surely_fits

    @cached_property
    def limits(self) -> Capacity:
        """The most samples and longest context, in memory, under the target and of the model."""
        longest = longest_context(self.result.model, self.result.workload)
        return Capacity(self.result, self.targets.target_step_s, longest)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Plan(Answer):
    """All options, and the ones to consider first.

    Attributes
    ----------
    targets
        What was asked of them.
    request
        What one request asks; None of a step.
    options
        Every GPU, way to lay the model over GPUs, and kind of attention tried; under load with as
        few replicas as it needs, and twice if it takes more to be sure. Those that meet the targets
        and then those that may, cheapest per token first, after them those whose price is of
        another kind; then those that fit, fastest first; then the rest, those that lack the least
        memory first. In each of these, options whose interval is not known come last.
    cheapest
        The option with the lowest comparable price per hour that meets the targets, if possible one
        whose interval is known; None if there is none.
    cheapest_maybe
        The same of those that may meet them for less; None if none does.
    fewest_gpus
        For each GPU id, the smallest number of that GPU that meets the targets; None if none does.
    skipped
        What could not be tried, one sentence each.
    """

    targets: Targets
    request: Request | None
    options: tuple[Option, ...]
    cheapest: Option | None
    cheapest_maybe: Option | None
    fewest_gpus: dict[str, int | None]
    skipped: tuple[str, ...]

    def is_dear(self, option: Option) -> bool:
        """Whether an option under load costs too much to be considered beside the cheapest.

        ``WORTH`` times as much; or more at all, if it only may meet the targets and that one does.
        """
        best = self.cheapest or self.cheapest_maybe
        if self.request is None or best is None or option.verdict == "no":
            return False
        most = WORTH if option.verdict == best.verdict else 1
        return (option.usd_per_hour or 0.0) > most * (best.usd_per_hour or 0.0)


def plan(
    question: Question,
    gpus: Sequence[HardwareProfile],
    targets: Targets | None = None,
    *,
    request: Request | None = None,
    gpus_at_most: int | None = None,
    tensor_parallel_sizes: Sequence[int] | None = None,
    attentions: Sequence[Attention] = ATTENTIONS,
    most_sequences: int = MOST_SEQUENCES,
    usd_per_hour: float | None = None,
) -> Plan:
    """Try GPUs, ways to lay a model over them, and kinds of attention on a step or a load.

    Requests are split evenly over the replicas, at random.

    Parameters
    ----------
    question, gpus, targets
        What is decoded and how, on what, and what it has to meet. The question's own GPU,
        ``attention`` and ``tensor_parallel`` are ignored.
    request
        What each of the requests asks, whose sizes then replace the question's; None for a step.
    gpus_at_most
        GPUs of a group, or of all replicas; None for any number.
    attentions
        Kinds of attention to try; among several, bifurcated needs a kernel that runs it.
    tensor_parallel_sizes
        Tensor-parallel sizes to try; those that do not divide the model's heads are skipped. None
        tries what :func:`layouts` returns.
    most_sequences
        Sequences that an engine decodes together.
    usd_per_hour
        Price of one GPU, for every GPU tried, instead of the profiles' own.

    Raises
    ------
    WorkloadError
        If the kernel is unknown, or nothing could be tried.
    """
    if any(size < 1 for size in tensor_parallel_sizes or ()):
        raise WorkloadError("tensor_parallel_sizes: at least 1 GPU shares a layer")
    model, setup = question.model, question.setup
    find_way(setup.kernel)  # an unknown name is an error, not an option to skip
    most, wanted = inf if gpus_at_most is None else gpus_at_most, targets or Targets()
    options: list[Option] = []
    skipped: dict[str, None] = {}
    # The same card may be given twice under different names.
    cards = {gpu.id: gpu for gpu in gpus}
    for gpu in cards.values():
        possible, left_out = runnable(attentions, model, gpu)
        if request is None or request.shares:
            skipped |= dict.fromkeys(left_out)
        price, found, served = price_of(gpu, usd_per_hour), list[Option](), list[Deployment]()
        for way in layouts(model, setup, tensor_parallel_sizes):
            held = any(not option.doubts[0] for option in found)
            if held and way.pipeline_parallel > setup.pipeline_parallel:
                break
            if way.gpus > most:
                skipped[f"{way.gpus} GPUs of a group are more than gpus_at_most = {most}"] = None
                continue
            asked = replace(question, gpu=gpu, setup=way)
            try:
                if request is None:
                    steps = [estimate(asked.under(name)) for name in possible]
                    found += [_in_time(step, wanted, price) for step in steps]
                    continue
                ways = deployments(
                    asked, request, attentions=possible, most_sequences=most_sequences
                )
                served += ways
                found += chain(*(_under_load(each, wanted, most, price) for each in ways))
            except WorkloadError as error:
                skipped[str(error)] = None
        options += _without_the_beaten(found)
        skipped |= dict.fromkeys(_unfit(served))
    if not options:
        why = "; ".join(reason.rstrip(".") for reason in skipped)
        raise WorkloadError(f"nothing to plan with: {why or 'no GPU, size or attention'}")
    ranked = sorted(_on_the_front(options), key=_order)
    sure = _cheapest(ranked, "meets")
    return Plan(
        targets=wanted,
        request=request,
        options=tuple(ranked),
        cheapest=sure,
        cheapest_maybe=_cheapest(ranked, "maybe", below=sure),
        fewest_gpus={gpu: _fewest(ranked, gpu) for gpu in cards},
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


def _in_time(step: Estimate, targets: Targets, price: Price | None) -> Option:
    """Return a step with its verdict."""
    most, needs = targets.target_step_s or inf, step.memory
    missed = not needs.surely_fits or step.step_high_s > most
    hopeless = not needs.fits or step.step_low_s > most
    verdict: Verdict = "no" if hopeless else "maybe" if missed else "meets"
    return Option(found=step, targets=targets, price=price, verdict=verdict)


def _unfit(ways: Sequence[Deployment]) -> Iterator[str]:
    """Say on how many of a card not even one request fits, the most below those on which it does.

    For each kind of attention; once if it is the same for all.
    """
    kinds = dict.fromkeys(way.attention for way in ways)
    most: dict[int, list[str]] = {}
    for kind in kinds:
        alike = [way for way in ways if way.attention == kind]
        least = min((way.gpus for way in alike if way.server is not None), default=inf)
        if fewer := [way.gpus for way in alike if way.gpus < least]:
            most.setdefault(max(fewer), []).append(kind)
    for size, unfit in most.items():
        which = "" if len(unfit) == len(kinds) else f" ({', '.join(unfit)})"
        yield f"{UNFIT}{size} x {ways[0].gpu.id}{which}"


def _under_load(
    deployment: Deployment, targets: Targets, most_gpus: float, price: Price | None
) -> Iterator[Option]:
    """Yield a deployment with the fewest replicas that surely meet the targets, and that may.

    Those that may meet them as predicted. More replicas than one for two requests in flight are
    never tried: they would hardly be faster than a request that has one to itself.
    """
    rate, most = targets.requests_per_s or 0.0, most_gpus / deployment.gpus

    @cache
    def point(replicas: int) -> Point:
        return Point(deployment=deployment, arrivals_per_s=rate, replicas=replicas, price=price)

    def ends(server: Server) -> tuple[int, int]:
        carrying = ceil(rate / server.capacity_per_s)
        high = max(1, int(min(most, max(carrying, rate * server.alone_s / 2))))
        return min(carrying, high), high

    def fewest(server: Server | None, served: Callable[[Point], Served]) -> int | None:
        if server is None:
            return None
        low, high = ends(server)
        return smallest(
            lambda replicas: not targets.missed(served(point(replicas))), low=low, high=high
        )

    if deployment.server is None:
        return
    surely = fewest(deployment.slowest, attrgetter("high"))
    likely = fewest(deployment.server, attrgetter("served"))
    found = [replicas for replicas in (surely, likely) if replicas is not None]
    for replicas in dict.fromkeys(found or ends(deployment.server)[:1]):
        missed = targets.missed(point(replicas).high)
        hopeless = missed and targets.missed(point(replicas).low)
        yield Option(
            found=point(replicas),
            targets=targets,
            price=price,
            verdict="no" if hopeless else "maybe" if missed else "meets",
            missed=hopeless or missed,
        )


def _best(options: Sequence[Option], figures: Callable[[Option], tuple[float, ...]]) -> list[bool]:
    """Return of each option whether no other is as good in all figures and better in one."""
    every = [figures(option) for option in options]
    return [not any(other != own and all(map(le, other, own)) for other in every) for own in every]


def _without_the_beaten(options: Sequence[Option]) -> Iterator[Option]:
    """Yield the options of one card, those marked that another one dominates."""

    def figures(option: Option) -> tuple[float, ...]:
        verdict = VERDICTS.index(option.verdict)
        return (verdict, *option.doubts, option.gpus, *option.times_s)

    for attention in ATTENTIONS:
        alike = [option for option in options if option.attention == attention]
        for option, best in zip(alike, _best(alike, figures), strict=True):
            yield option if best else replace(option, dominated=True)


def _on_the_front(options: Sequence[Option]) -> list[Option]:
    """Mark the options on the Pareto front of time and cost per token."""
    good = [option for option in options if option.meets_target and option.comparable]
    # A bound beats nobody, unless there are bounds alone.
    good = [option for option in good if option.deployed.interval_known] or good
    best = _best(good, lambda option: (*option.times_s, option.usd_per_million_tokens or 0.0))
    front = {id(option) for option, is_best in zip(good, best, strict=True) if is_best}
    return [replace(option, pareto=True) if id(option) in front else option for option in options]


def _order(option: Option) -> tuple[float, ...]:
    """Sort options: those that meet the targets, and that may, by cost; then the nearest first."""
    unfit, unknown, _ = option.doubts
    # Equal loads cost a token in proportion to the hour, in which equals are equal to the last bit.
    load = option.found.served if isinstance(option.found, Point) else None
    cost = option.usd_per_hour if load else option.usd_per_million_tokens
    by_cost = option.verdict != "no" and cost is not None
    short = (-float(option.result.memory.free_bytes),) if unfit else option.times_s
    if load:
        short = (*short, load.utilisation)
    return (
        VERDICTS.index(option.verdict),
        unfit,
        not unfit and unknown,
        by_cost and not option.comparable,
        cost if by_cost and cost is not None else inf,
        *short,
    )


def _cheapest(
    options: Sequence[Option], verdict: Verdict, below: Option | None = None
) -> Option | None:
    """Return the cheapest option per hour of a verdict, the faster of equals."""
    most = inf if below is None else below.usd_per_hour or 0.0
    priced = [
        option
        for option in options
        if option.verdict == verdict and option.comparable and (option.usd_per_hour or 0.0) < most
    ]

    def key(option: Option) -> tuple[float, ...]:
        doubts = option.doubts if verdict == "meets" else ()
        return (*doubts, option.usd_per_hour or 0.0, *option.times_s)

    return min(priced, key=key, default=None)


def _fewest(options: Sequence[Option], gpu: str) -> int | None:
    """Return the fewest GPUs of one kind that meet the targets."""
    good = [option for option in options if option.gpu == gpu and option.meets_target]
    known = [option.gpus for option in good if option.deployed.interval_known]
    return min(known or [option.gpus for option in good], default=None)
