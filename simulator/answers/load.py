"""A deployment under load: from requests a second, or users, to latency and throughput."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from simulator.answers.advice import runnable
from simulator.answers.answer import Answer
from simulator.answers.estimate import Estimate, Question, estimate, latent_forms
from simulator.answers.price import HOURS_PER_MONTH, Priced, cost_per_million_tokens, price_of
from simulator.counts.request import decode_steps
from simulator.counts.transformer import mixed_operations, prefill_operations
from simulator.errors import WorkloadError
from simulator.inputs.hardware import Price
from simulator.inputs.setup import ATTENTIONS, Attention, Setup
from simulator.inputs.tree import Level, tree_text
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS, Workload
from simulator.numeric import Numeric
from simulator.timing.batching import Served, Server, closed_loop, open_loop
from simulator.timing.interval import Uncertainty, uncertainty, with_engine
from simulator.timing.limits import resident_blocks
from simulator.timing.step import StepTime, step_time

if TYPE_CHECKING:
    import numpy as np

Limit = Literal["memory", "sequences"]
# Sequences that an engine decodes together: vLLM's max_num_seqs on cards of 70 GiB (recalled).
MOST_SEQUENCES = 1024
# Prompts are counted once for all GPUs of a plan.
_prompt_operations = lru_cache(maxsize=64)(prefill_operations)
# The shares of time from which prefill, rather than the batch, is what saturates.
_MOSTLY = 0.5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one request asks.

    Attributes
    ----------
    workload
        Its sizes: one prompt with its samples. In a tree, every level but the last is one node that
        all requests share, such as a system prompt, and stays cached.
    output_tokens
        Tokens each sample generates.
    cached_tokens
        Tokens at the beginning of its prompt whose keys and values are stored when it arrives.
    """

    workload: Workload
    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse a request that no server serves.

        Raises
        ------
        WorkloadError
            If it asks for less than two tokens or more than one prompt, or has nothing to prefill.
        """
        work = self.workload
        if self.output_tokens < 2:  # noqa: PLR2004
            raise WorkloadError(
                f"output_tokens = {self.output_tokens}: a request under load decodes 2 or more"
            )
        if work.prompts != 1:
            one = tree_text([level.but(branches=1) for level in work.tree])
            raise WorkloadError(
                f"prompts = {work.prompts}: a request has one prompt, and the load decides how "
                f"many are decoded together; {f'write --tree {one}' if one else 'leave it out'}"
            )
        if work.context_tokens < 1:
            raise WorkloadError("context_tokens = 0: a request has at least 1 token")
        if self.cached_tokens < 0 or self.stored_tokens >= work.context_tokens:
            raise WorkloadError(
                f"cached_tokens = {self.cached_tokens or self.stored_tokens:,} is not between 0 "
                f"and {work.context_tokens - 1:,}: one token is left to prefill"
            )

    @property
    def stored_tokens(self) -> int:
        """Tokens of the prompt that need no prefill: cached ones, and those that all share."""
        shared = sum(level.tokens for level in self.workload.tree[:-1])
        return max(self.cached_tokens, shared)

    @property
    def length(self) -> int:
        """Tokens that a sample has in the end, those of the prompt among them."""
        return int(self.workload.context_tokens) + self.output_tokens

    @property
    def shares(self) -> bool:
        """Whether samples, or requests, share some of what they attend to."""
        return self.workload.samples > 1 or len(self.workload.tree) > 1

    @property
    def decode_steps(self) -> int:
        """Steps that decode each sample."""
        return decode_steps(self.output_tokens, self.workload.accepted_tokens)

    @classmethod
    def of(cls, work: Workload, output_tokens: int) -> "Request":
        """Return the request of a step's sizes, however many prompts that decodes together.

        Levels of a tree of which there are several nodes become the request's own. An empty prompt
        has a token that begins it, and an answer of one token, which needs no step, another one.
        """
        output_tokens = max(2, output_tokens)
        shared = [level for level in work.tree[:-1] if level.branches == 1]
        if not work.tree or len(shared) < len(work.tree) - 1:
            own = work.but(prompts=1, tree=(), context_tokens=max(1, work.context_tokens))
            return cls(workload=own, output_tokens=output_tokens)
        last = work.tree[-1].but(branches=1)
        single = work.but(prompts=1, tree=(*shared, last))
        return cls(workload=single, output_tokens=output_tokens)

    @property
    def halfway(self) -> Workload:
        """The request's sizes at its mean context, that of a step of many requests."""
        own = (self.output_tokens + 1) // 2
        return self.workload.but(decoded_tokens=max(own, self.workload.query_tokens))

    def together(self, requests: Numeric) -> Workload:
        """Return the sizes of a step that decodes several requests, a number or an array."""
        work = self.halfway
        if not work.tree:
            return work.but(prompts=requests)
        last = Level.unchecked(**{**dict(work.tree[-1]), "branches": requests})
        return work.but(prompts=requests, tree=(*work.tree[:-1], last))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Deployment(Question):
    """One model on one group of GPUs, as a server of equal requests.

    Its workload is the step of a single request, at its mean context.

    Attributes
    ----------
    limit
        What limits the requests decoded together: memory, or the engine's most sequences.
    server, fastest, slowest
        Its times, and those at the lower and upper ends of their intervals; None if not even one
        request fits. The slowest is None too if none surely fits, or the interval is not known.
    """

    request: Request
    limit: Limit
    server: Server | None = None
    fastest: Server | None = None
    slowest: Server | None = None

    @cached_property
    def alone(self) -> Estimate:
        """The decode step of a single request."""
        return estimate(self)

    @property
    def asked(self) -> Question:
        """The question about a step at the sizes of the request itself."""
        return self.of(workload=self.request.workload)

    @property
    def saturates(self) -> str:
        """What gives out first as requests come faster; empty where nothing fits."""
        if self.server is None:
            return ""
        return "prefill" if self.server.prefill_share >= _MOSTLY else self.limit


# What is served where not even one request fits.
NOTHING = Served(
    ttft_s=inf, tpot_s=inf, requests_per_s=0.0, decoding=0.0, utilisation=inf, full_share=1.0
)


@dataclass(frozen=True, kw_only=True)
class Point(Priced):
    """A deployment under one load; each replica gets an equal share of the requests.

    Attributes
    ----------
    replicas
        Equal groups of GPUs.
    concurrency
        Users of a replica who ask again at once; None for requests that arrive at random.
    arrivals_per_s
        Requests that arrive in a second, over all replicas; None of users.
    price
        The price of one GPU, None where unknown.
    """

    deployment: Deployment
    replicas: int = 1
    concurrency: int | None = None
    arrivals_per_s: float | None = None
    price: Price | None = None

    @cached_property
    def served(self) -> Served:
        """What requests see at a replica."""
        return self._under(self.deployment.server)

    @cached_property
    def low(self) -> Served:
        """The same at the lower end of the interval of its times."""
        return self._under(self.deployment.fastest)

    @cached_property
    def high(self) -> Served:
        """The same at the upper end."""
        return self._under(self.deployment.slowest)

    def _under(self, server: Server | None) -> Served:
        """Return what requests see of this load at a server."""
        if server is None:
            return NOTHING
        if self.concurrency is not None:
            return closed_loop(server, self.concurrency)
        return open_loop(server, (self.arrivals_per_s or 0.0) / self.replicas)

    @property
    def gpus(self) -> int:  # type: ignore[override]
        """GPUs of all replicas."""
        return self.replicas * self.deployment.gpus

    @property
    def carried(self) -> bool:
        """Whether the load can be carried."""
        return self.concurrency is not None or self.served.utilisation < 1

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second of all replicas."""
        rate, asked = self.served.requests_per_s * self.replicas, self.deployment.request
        return rate * (int(asked.workload.samples) * asked.output_tokens)

    @property
    def tokens_per_s_per_gpu(self) -> float:
        """Output tokens a second of one GPU."""
        return self.tokens_per_s / self.gpus

    @property
    def tokens_per_s_per_user(self) -> float:
        """Tokens a second that a reader of one sample sees."""
        return 1 / self.served.tpot_s

    @property
    def headroom(self) -> float:
        """Share of the most that it carries which is left."""
        return max(0.0, 1 - self.served.utilisation)

    def total_s(self, served: Served) -> float:
        """Return the time from a request's arrival to its last token, so served. [s]."""
        return served.ttft_s + (self.deployment.request.output_tokens - 1) * served.tpot_s

    @property
    def usd_per_month(self) -> float | None:
        """Price of all GPUs in a month of 730 hours, None where unknown. [USD]."""
        return None if self.usd_per_hour is None else HOURS_PER_MONTH * self.usd_per_hour

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Cost of a million output tokens at this load, None where unknown. [USD]."""
        usd_per_hour = self.usd_per_hour if self.carried else None
        return cost_per_million_tokens(usd_per_hour, self.tokens_per_s)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Curve(Answer):
    """Points of a deployment over a load, each kind of attention.

    Attributes
    ----------
    percentile
        The percentage of requests whose times a table shows; None for the means.
    left_out
        Why a kind of attention is left out, one sentence each.
    """

    request: Request
    points: tuple[Point, ...]
    deployments: tuple[Deployment, ...]
    left_out: tuple[str, ...] = ()
    percentile: float | None = None


def deployments(
    question: Question,
    request: Request,
    *,
    attentions: Sequence[Attention],
    most_sequences: int = MOST_SEQUENCES,
) -> list[Deployment]:
    """Time a model on a GPU as a server of requests, under each kind of attention.

    Where nothing is shared (one sample and no tree) there is one, standard attention. What is held
    on average bounds the requests decoded together, as engines with paged caches have it: they
    preempt a request where all happen to be long.

    Parameters
    ----------
    question, request
        What is decoded, on what and how, and what a request asks; the question's own workload is
        ignored. Of several forms of latent attention that of a single request is taken.
    attentions
        Kinds of attention to try.
    most_sequences
        Sequences that the engine decodes together, of each data-parallel group.

    Raises
    ------
    WorkloadError
        If it cannot run that way, or the engine does not decode all samples of a request together.
    """
    import numpy as np

    samples = int(request.workload.samples)
    if most_sequences < samples:
        raise WorkloadError(
            f"most_sequences = {most_sequences} is less than the {samples} samples asked"
        )
    setup = question.setup
    question.of(workload=request.together(2)).check()
    question = question.of(workload=request.halfway)
    if not request.shares and "standard" in attentions:
        attentions = ("standard",)
    most, at_once = setup.data_parallel * (most_sequences // samples), setup.at_once
    # As many in each stage of each group: fewer in some take as long.
    asked = np.arange(at_once, most + at_once, at_once, dtype=np.float64)
    ways: list[tuple[Question, int, int]] = []
    for attention in (name for name in ATTENTIONS if name in attentions):
        way = question.under(attention)
        forms = latent_forms(way.model, way.setup)
        way = way.of(forms[0] if len(forms) == 1 else estimate(way).setup)
        needs = way.of(workload=request.together(asked)).memory_needs()
        held, surely = (
            min(most, at_once * int(np.broadcast_to(fits, asked.shape).sum()))
            for fits in (needs.fits, needs.surely_fits)
        )
        ways.append((way, held, surely))
    together = asked[asked < max(held for _, held, _ in ways) + at_once]
    servers = _timer(question, request, together) if len(together) else None
    return [
        Deployment(
            **vars(way),
            request=request,
            limit="sequences" if held == most else "memory",
            **(servers(way.setup, held, surely) if servers and held else {}),
        )
        for way, held, surely in ways
    ]


def _timer(
    question: Question, request: Request, together: "np.ndarray"
) -> Callable[[Setup, int, int], dict[str, Any]]:
    """Return what times the servers of a deployment under kinds of attention.

    What these do not change is timed once. Servers get the setup, the most requests that are held,
    and the most that surely are.
    """
    import numpy as np

    model, setup, gpu_rates = question.model, question.setup, question.rates
    execution, at_once, known = setup.execution, setup.at_once, question.interval_known
    work = request.together(together)
    many = question.of(setup, work)
    before, after = many.around()
    prompt, stored = request.workload.but(tree=(), decoded_tokens=0), request.stored_tokens

    def interval(step: StepTime, way: Setup) -> Uncertainty:
        return uncertainty(step, gpu_rates, way, known=known, served=way.engine != "none")

    @cache
    def prefill(way: Setup) -> Uncertainty:
        operations = _prompt_operations(model, way, prompt, cached_tokens=stored)
        return interval(step_time(operations, gpu_rates, execution), way)

    def servers(way: Setup, held: int, surely: int) -> dict[str, Any]:
        alone = interval(before + many.of(way).attending() + after, way)
        steps = with_engine(alone, gpu_rates, way.engine, way.passing(work).sequences)
        # Prompts are computed alike, unless their caches are copied or kept in two forms.
        differs = way.copies or way.rebuilds or way.mixed
        filled = prefill(way if differs else way.under("standard").but(kv_layout="shared"))
        step_s = np.broadcast_to(steps.total_s, together.shape)
        prefill_s = np.full(together.shape, float(filled.total_s))
        decoded_s = taken_s = np.zeros(together.shape)
        if way.max_batched_tokens is not None:
            new = prompt.context_tokens - stored
            room = np.maximum(way.max_batched_tokens - way.passing(work).tokens, 1.0)
            chunks = np.ceil(new / room)
            # Chunks of equal size, timed by the one in the middle.
            size = new / chunks
            cached = stored + (new - size) / 2
            mixed = mixed_operations(
                model,
                way,
                work,
                prompt.but(context_tokens=cached + size),
                cached_tokens=cached,
                resident_blocks=resident_blocks(question.gpu),
            )
            mixed_s = step_time(mixed, gpu_rates, execution).total_s
            prefill_s = chunks * np.maximum(mixed_s - alone.total_s, 0.0)
            # What is decoded meanwhile, and the share of it that others' prompts cannot use.
            decoded_s, taken_s = chunks * step_s, new / room * step_s

        def server(step_ends_s: Numeric, prefill_end_s: Numeric, most: int) -> Server:
            def every(times_s: Numeric) -> np.ndarray:
                of_each = np.broadcast_to(times_s, together.shape)
                return np.repeat(of_each, at_once)[:most]

            scale = float(prefill_end_s) / float(filled.total_s)
            # Groups prefill side by side, and the stages of a pipeline one prompt after the other.
            added_s = scale * prefill_s / at_once
            return Server(
                step_s=every(step_ends_s),
                added_s=every(added_s),
                prefill_s=every(scale * prefill_s + decoded_s),
                occupied_s=every(added_s + taken_s / at_once),
                stalls=way.max_batched_tokens is None,
                decode_steps=request.decode_steps,
                decoded_tokens=request.output_tokens - 1,
            )

        sure = surely and known
        return {
            "server": server(step_s, filled.total_s, held),
            "fastest": server(steps.low_s, filled.low_s, held),
            "slowest": server(steps.high_s, filled.high_s, surely) if sure else None,
        }

    return servers


def share_of(percentile: float | None) -> float | None:
    """Return a percentage of requests as a share; None, for their mean, as it is.

    Raises
    ------
    WorkloadError
        If it is not between 0 and 100.
    """
    if percentile is None:
        return None
    share = percentile / 100
    if not 0 < share < 1:
        raise WorkloadError(f"percentile = {percentile:g} is not between 0 and 100; try 90 or 99")
    return share


def serve(
    question: Question,
    request: Request,
    *,
    attentions: Sequence[Attention],
    users: Sequence[int] = (),
    requests_per_s: Sequence[float] = (),
    percentile: float | None = None,
    most_sequences: int = MOST_SEQUENCES,
    usd_per_hour: float | None = None,
) -> Curve:
    """Return a deployment's curve over users who ask again at once, or over requests a second.

    Parameters
    ----------
    question, request, attentions, most_sequences
        As for :func:`deployments`.
    users
        Users of each point, above zero; powers of two up to what it holds if none are given, and no
        rates.
    requests_per_s
        Requests that arrive in a second, at random, of each further point.
    percentile
        The percentage of these requests whose times a table shows; None for the means.
    usd_per_hour
        Price of one GPU instead of the profile's. [USD/h]

    Raises
    ------
    WorkloadError
        If it cannot run that way, or no requests arrive at random of which there were a percentile.
    """
    if share_of(percentile) is not None and not requests_per_s:
        raise WorkloadError("percentile needs requests that arrive at random; give requests_per_s")
    possible, left_out = runnable(attentions, question.model, question.gpu)
    found = deployments(question, request, attentions=possible, most_sequences=most_sequences)
    price = price_of(question.gpu, usd_per_hour)

    def points(each: Deployment) -> Iterator[Point]:
        if each.server is None:
            return
        for number in users or (() if requests_per_s else _powers(each.server.most)):
            yield Point(deployment=each, concurrency=number, price=price)
        for rate in requests_per_s:
            yield Point(deployment=each, arrivals_per_s=rate, price=price)

    return Curve(
        request=request,
        left_out=left_out if request.shares else (),
        deployments=tuple(found),
        percentile=percentile,
        points=tuple(point for each in found for point in points(each)),
    )


def _powers(most: int) -> list[int]:
    """Return the powers of two up to a number, and the number.

    >>> _powers(6)
    [1, 2, 4, 6]
    """
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most} - {0})
