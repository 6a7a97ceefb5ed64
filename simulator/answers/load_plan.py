"""Capacity planning for a load: which GPUs and how many, for requests a second within latencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from simulator.answers.load import (
    MOST_SEQUENCES,
    NOTHING,
    Deployment,
    Point,
    Request,
    at_rate,
    deployments,
)
from simulator.answers.plan import DEFAULT_TENSOR_PARALLEL_SIZES
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
# Replicas tried where the GPUs are not limited.
MOST_REPLICAS = 10**5


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is asked of every deployment.

    Attributes
    ----------
    requests_per_s
        Requests that arrive in a second, at random.
    ttft_s, tpot_s
        The longest acceptable mean time to the first token, and per token after it; None for any.
    """

    requests_per_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None

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

    def missed(self, served: Served) -> tuple[str, ...]:
        """Return what is missed: the load, or TTFT and TPOT."""
        if served.utilisation >= 1:
            return ("load",)
        limits = (("TTFT", served.ttft_s, self.ttft_s), ("TPOT", served.tpot_s, self.tpot_s))
        return tuple(name for name, found, most in limits if most is not None and found > most)


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
        What is missed at the end that decides: the load, TTFT or TPOT; empty if it meets all.
    """

    point: Point
    verdict: Verdict
    missed: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether a price is known that ranks with others."""
        return self.point.price is not None and self.point.price.comparable


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
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
    tensor_parallel_sizes: Sequence[int] = DEFAULT_TENSOR_PARALLEL_SIZES,
    attentions: Sequence[Attention] = ATTENTIONS,
    most_sequences: int = MOST_SEQUENCES,
    usd_per_hour: float | None = None,
) -> LoadPlan:
    """Find the replicas that each GPU, tensor-parallel size and kind of attention needs.

    Requests are split evenly over the replicas, at random.

    Parameters
    ----------
    model, gpus, setup, request, targets
        The question; the setup's own ``attention`` and ``tensor_parallel`` are ignored.
    gpus_at_most
        GPUs of all replicas; None for any number.
    tensor_parallel_sizes, attentions
        What to try; sizes that do not divide the model's heads are skipped.
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
    most = MOST_REPLICAS if gpus_at_most is None else gpus_at_most
    options: list[LoadOption] = []
    skipped: dict[str, None] = {}
    for gpu in dict.fromkeys(gpu.id for gpu in gpus):
        profile = next(item for item in gpus if item.id == gpu)
        price = price_of(profile, usd_per_hour)
        for size in dict.fromkeys(tensor_parallel_sizes):
            if size > most:
                skipped[f"{size} GPUs of a group are more than gpus_at_most = {most}"] = None
                continue
            try:
                found = deployments(
                    model,
                    profile,
                    setup.but(tensor_parallel=size),
                    request,
                    attentions=attentions,
                    most_sequences=most_sequences,
                )
            except WorkloadError as error:
                skipped[str(error)] = None
                continue
            unfit = [each.attention for each in found if each.server is None]
            if unfit:
                which = "" if len(unfit) == len(found) else f" ({', '.join(unfit)})"
                skipped[f"{UNFIT}{size} x {gpu}{which}"] = None
            for each in found:
                if each.server is not None:
                    options += _options(each, targets, most // size, price)
    if not options:
        raise WorkloadError("nothing to plan with: " + ("; ".join(skipped) or "no GPU given"))
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
    deployment: Deployment, targets: Targets, most_replicas: int, price: Price | None
) -> list[LoadOption]:
    """Return a deployment with the fewest replicas that surely meet the targets, and that may.

    Those that may meet them as predicted, or at least at the lower end of the interval.
    """

    def with_replicas(replicas: int) -> LoadOption:
        point = at_rate(deployment, targets.requests_per_s, replicas=replicas, price=price)
        missed, hopeless = targets.missed(point.high), targets.missed(point.low)
        verdict: Verdict = "no" if hopeless else "maybe" if missed else "meets"
        return LoadOption(point=point, verdict=verdict, missed=hopeless or missed)

    def fewest(server: Server | None) -> LoadOption | None:
        def met(replicas: int) -> bool:
            served = open_loop(server, targets.requests_per_s / replicas) if server else NOTHING
            return not targets.missed(served)

        if not met(most_replicas):
            return None
        return with_replicas(smallest(met, low=1, high=most_replicas) or most_replicas)

    surely = fewest(deployment.slowest)
    may = fewest(deployment.server) or fewest(deployment.fastest)
    found = [option for option in (surely, may) if option is not None]
    if len(found) == 2 and found[0].point.replicas <= found[1].point.replicas:  # noqa: PLR2004
        found.pop()
    if found:
        return found
    carrying = smallest(
        lambda replicas: with_replicas(replicas).point.carried, low=1, high=most_replicas
    )
    return [with_replicas(carrying or most_replicas)]


def _order(option: LoadOption) -> tuple[int, bool, float, float]:
    """Sort options: by verdict, then by price per hour, the faster of equals first."""
    dollars = option.point.usd_per_hour
    return (
        VERDICTS.index(option.verdict),
        not option.comparable,
        float("inf") if dollars is None else dollars,
        option.point.served.tpot_s,
    )
