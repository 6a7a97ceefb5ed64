"""Capacity planning for a load: which GPUs and how many, for requests a second within latencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

from simulator.answers.advice import runnable
from simulator.answers.answer import Answer
from simulator.answers.load import (
    MOST_SEQUENCES,
    Deployment,
    Point,
    Request,
    at_rate,
    deployments,
)
from simulator.answers.plan import layouts
from simulator.answers.price import price_of
from simulator.answers.search import smallest
from simulator.counts.attention.registry import find_way
from simulator.errors import WorkloadError
from simulator.inputs.hardware import HardwareProfile, Price
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.timing.batching import Served, Server, open_loop

Verdict = Literal["meets", "maybe", "no"]
VERDICTS: tuple[Verdict, ...] = ("meets", "maybe", "no")
# The beginning of what is said of deployments on which a request does not fit.
UNFIT = "a request does not fit on "
HUNDRED = 100


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is asked of every deployment.

    Attributes
    ----------
    requests_per_s
        Requests that arrive in a second, at random.
    ttft_s, tpot_s
        The longest acceptable time to the first token, and per token after it; None for any.
    percentile
        The percentage of the requests that are to keep to them; None where their mean is.
    """

    requests_per_s: float
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
            "requests_per_s": self.requests_per_s,
            "ttft_ms": None if self.ttft_s is None else self.ttft_s * 1e3,
            "tpot_ms": None if self.tpot_s is None else self.tpot_s * 1e3,
        }
        for name, value in shown.items():
            if value is not None and not 0 < value < float("inf"):
                raise WorkloadError(f"{name} = {value:g} is not positive and finite")
        if self.percentile is not None and not 0 < self.percentile < HUNDRED:
            raise WorkloadError(f"percentile = {self.percentile:g} is not between 0 and 100")

    def missed(self, served: Served) -> tuple[str, ...]:
        """Return what is missed: the load, or TTFT and TPOT."""
        if served.utilisation >= 1:
            return ("load",)
        kept: dict[str, bool] = {}
        if self.percentile is None:
            kept["TTFT"] = self.ttft_s is None or served.ttft_s <= self.ttft_s
            kept["TPOT"] = self.tpot_s is None or served.tpot_s <= self.tpot_s
        elif served.spread is None:
            kept["percentiles not known"] = self.ttft_s is None and self.tpot_s is None
        else:
            share = self.percentile / HUNDRED
            kept["TTFT"] = self.ttft_s is None or served.spread.ttft_share(self.ttft_s) >= share
            kept["TPOT"] = self.tpot_s is None or served.spread.tpot_at(share) <= self.tpot_s
        return tuple(name for name, is_kept in kept.items() if not is_kept)


@dataclass(frozen=True, kw_only=True)
class LoadOption:
    """One way to serve the load.

    Attributes
    ----------
    point
        The replicas of a deployment under the load.
    verdict
        ``meets`` if the targets are met at the upper end of the interval of the times, ``no`` if
        they are missed at the lower end, else ``maybe``.
    missed
        What is missed at the end that decides: the load, TTFT or TPOT, or percentiles that are not
        known; empty if it meets all.
    """

    point: Point
    verdict: Verdict
    missed: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether a price is known that ranks with others."""
        return self.point.price is not None and self.point.price.comparable


@dataclass(frozen=True, kw_only=True)
class LoadPlan(Answer):
    """All ways to serve a load that were tried, each with as few replicas as it needs.

    Attributes
    ----------
    options
        Those that meet the targets, those that may, and the others; in each of these the cheapest
        per hour first, then those whose price is of another kind or not known. A deployment is
        there twice if it takes more replicas to be sure.
    cheapest, cheapest_maybe
        The option with the lowest comparable price per hour that meets the targets, and that may;
        None if there is none.
    skipped
        What could not be tried, one sentence each.
    """

    request: Request
    targets: Targets
    options: tuple[LoadOption, ...]
    cheapest: LoadOption | None
    cheapest_maybe: LoadOption | None
    skipped: tuple[str, ...]


def plan_load(
    model: ModelShape,
    gpus: Sequence[HardwareProfile],
    setup: Setup,
    request: Request,
    targets: Targets,
    *,
    gpus_at_most: int | None = None,
    tensor_parallel_sizes: Sequence[int] | None = None,
    attentions: Sequence[Attention] = ATTENTIONS,
    most_sequences: int = MOST_SEQUENCES,
    usd_per_hour: float | None = None,
) -> LoadPlan:
    """Find the replicas that each GPU, way to lay the model over GPUs, and attention needs.

    Requests are split evenly over the replicas, at random. The ways are those of
    :func:`~simulator.answers.plan.layouts`.

    Parameters
    ----------
    model, gpus, setup, request, targets
        The question; the setup's own ``attention`` and ``tensor_parallel`` are ignored.
    gpus_at_most
        GPUs of all replicas; None for any number.
    tensor_parallel_sizes, attentions
        What to try. Sizes that do not divide the model's heads are skipped. So is bifurcated
        attention where no kernel runs it, unless it is the only one asked for.
    most_sequences
        Sequences that an engine decodes together.
    usd_per_hour
        Price of one GPU, for every GPU tried, instead of the profiles' own.

    Raises
    ------
    WorkloadError
        If the kernel is unknown, or nothing could be tried.
    """
    find_way(setup.kernel)  # an unknown name is an error, not an option to skip
    most = inf if gpus_at_most is None else gpus_at_most
    options: list[LoadOption] = []
    skipped: dict[str, None] = {}
    for gpu in {gpu.id: gpu for gpu in gpus}.values():
        price, held = price_of(gpu, usd_per_hour), False
        possible, left_out = runnable(attentions, model, gpu)
        if request.workload.samples > 1:
            skipped |= dict.fromkeys(left_out)
        for way in layouts(model, setup, tensor_parallel_sizes):
            if held and way.pipeline_parallel > setup.pipeline_parallel:
                break
            if way.gpus > most:
                skipped[f"{way.gpus} GPUs of a group are more than gpus_at_most = {most}"] = None
                continue
            try:
                ways = deployments(
                    model,
                    gpu,
                    way,
                    request,
                    attentions=possible,
                    most_sequences=most_sequences,
                )
            except WorkloadError as error:
                skipped[str(error)] = None
                continue
            fit = [each for each in ways if each.server is not None]
            unfit = [each.attention for each in ways if each.server is None]
            if unfit:
                which = f" ({', '.join(unfit)})" if fit else ""
                skipped[f"{UNFIT}{way.gpus} x {gpu.id}{which}"] = None
            held = held or bool(fit)
            options += [
                option for each in fit for option in _options(each, targets, most / way.gpus, price)
            ]
    if not options:
        raise WorkloadError(
            "nothing to plan with: " + ("; ".join(skipped) or "no GPU, size or attention")
        )
    ranked = sorted(options, key=_order)

    def first(verdict: Verdict) -> LoadOption | None:
        return next((x for x in ranked if x.comparable and x.verdict == verdict), None)

    return LoadPlan(
        request=request,
        targets=targets,
        options=tuple(ranked),
        cheapest=first("meets"),
        cheapest_maybe=first("maybe"),
        skipped=tuple(skipped),
    )


def _options(
    deployment: Deployment, targets: Targets, most_replicas: float, price: Price | None
) -> list[LoadOption]:
    """Return a deployment with the fewest replicas that surely meet the targets, and that may.

    Those that may meet them as predicted. More replicas than one for two requests in flight are
    never tried: they would hardly be faster than a request that has one to itself.
    """

    def with_replicas(replicas: int) -> LoadOption:
        point = at_rate(deployment, targets.requests_per_s, replicas=replicas, price=price)
        missed, hopeless = targets.missed(point.high), targets.missed(point.low)
        verdict: Verdict = "no" if hopeless else "maybe" if missed else "meets"
        return LoadOption(point=point, verdict=verdict, missed=hopeless or missed)

    def most_of(server: Server) -> int:
        in_flight = targets.requests_per_s * server.alone_s
        carrying = ceil(targets.requests_per_s / server.capacity_per_s)
        return max(1, int(min(most_replicas, max(carrying, in_flight / 2))))

    def fewest(server: Server | None) -> LoadOption | None:
        if server is None:
            return None

        def met(replicas: int) -> bool:
            return not targets.missed(open_loop(server, targets.requests_per_s / replicas))

        high = most_of(server)
        low = min(high, ceil(targets.requests_per_s / server.capacity_per_s))
        enough = smallest(met, low=low, high=high)
        return None if enough is None else with_replicas(enough)

    surely = fewest(deployment.slowest)
    found = [option for option in (surely, fewest(deployment.server)) if option is not None]
    if len(found) == 2 and found[0].point.replicas <= found[1].point.replicas:  # noqa: PLR2004
        found.pop()
    if found or deployment.server is None:
        return found
    carrying = ceil(targets.requests_per_s / deployment.server.capacity_per_s)
    return [with_replicas(min(carrying, most_of(deployment.server)))]


def _order(option: LoadOption) -> tuple[int, bool, float, float]:
    """Sort options: by verdict, then by price per hour, the faster of equals first."""
    dollars = option.point.usd_per_hour
    return (
        VERDICTS.index(option.verdict),
        not option.comparable,
        float("inf") if dollars is None else dollars,
        option.point.served.tpot_s,
    )
