"""A server simulated event by event: the oracle of the closed forms of continuous batching.

It knows nothing of them: steps follow one another, each takes the time of the requests that it
decodes, and prompts are computed between steps, or in chunks within them.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Request:
    """One request on its way: when it arrived, had its first token, and ended; steps left."""

    arrived: float
    steps: int
    first: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A server with a linear step.

    Attributes
    ----------
    base_s, each_s
        A step takes ``base_s``, and ``each_s`` for each request that it decodes. [s]
    prefill_s
        Time of its own that a prompt takes. [s]
    chunks
        Decode steps over which it is spread; 0 for a prefill between two steps.
    steps, most
        Decode steps of a request; requests that are served together.
    """

    base_s: float
    each_s: float
    prefill_s: float
    steps: int
    most: int
    chunks: int = 0

    def step_s(self, requests: int) -> float:
        """Return the time of a step."""
        return self.base_s + self.each_s * requests


@dataclass
class Run:
    """One run: requests arrive at the given times, and again at once for users."""

    engine: Engine
    arrivals: deque[float]
    again: bool
    now: float = 0.0
    waiting: deque[Request] = field(default_factory=deque)
    decoding: list[Request] = field(default_factory=list)
    done: list[Request] = field(default_factory=list)
    prefilling: Request | None = None
    chunks_left: int = 0

    def until(self, requests: int) -> "Run":
        """Serve until so many requests have ended."""
        while len(self.done) < requests:
            self._admit()
            if self.prefilling is None and not self.decoding:
                self.now = self.arrivals[0]
            else:
                self._work()
        return self

    def _admit(self) -> None:
        """Take in who has arrived, and begin the next prefill if there is a place."""
        while self.arrivals and self.arrivals[0] <= self.now:
            self.waiting.append(Request(self.arrivals.popleft(), self.engine.steps))
        if self.prefilling is None and self.waiting and len(self.decoding) < self.engine.most:
            self.prefilling = self.waiting.popleft()
            self.chunks_left = max(1, self.engine.chunks)

    def _work(self) -> None:
        """Run a step, a prefill, or a step with a chunk of one."""
        engine, first = self.engine, self.prefilling
        stepping = self.decoding if first is None or engine.chunks else []
        if first is not None:
            self.now += engine.prefill_s / max(1, engine.chunks)
            self.chunks_left -= 1
        if stepping or engine.chunks:
            self.now += engine.step_s(len(stepping))
        for request in stepping:
            request.steps -= 1
            request.ended = self.now
        ended = [request for request in stepping if request.steps == 0]
        self.decoding = [request for request in self.decoding if request.steps]
        self.done += ended
        self.arrivals.extend(self.now for _ in ended if self.again)
        if first is not None and self.chunks_left == 0:
            first.first = self.now
            self.decoding.append(first)
            self.prefilling = None


@dataclass(frozen=True)
class Seen:
    """What each request of a run saw after a warm-up of a fifth."""

    ttfts_s: np.ndarray
    tpots_s: np.ndarray
    requests_per_s: float

    @property
    def ttft_s(self) -> float:
        """Mean time to the first token. [s]."""
        return float(self.ttfts_s.mean())

    @property
    def tpot_s(self) -> float:
        """Mean time per token after it. [s]."""
        return float(self.tpots_s.mean())


def seen(run: Run) -> Seen:
    """Return what a run's requests saw."""
    kept = run.done[len(run.done) // 5 :]
    steps = run.engine.steps
    return Seen(
        ttfts_s=np.array([request.first - request.arrived for request in kept]),
        tpots_s=np.array([(request.ended - request.first) / steps for request in kept]),
        requests_per_s=(len(kept) - 1) / (kept[-1].ended - kept[0].ended),
    )


def of_users(engine: Engine, users: int, *, requests: int) -> Seen:
    """Serve users who ask again at once, and who begin one after another."""
    answer_s = (engine.steps + engine.chunks) * engine.step_s(users) / users + engine.prefill_s
    arrivals = deque(number * answer_s for number in range(users))
    return seen(Run(engine, arrivals, again=True).until(requests))


def at_random(engine: Engine, rate: float, *, requests: int, seed: int) -> Seen:
    """Serve requests that arrive at random."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, requests)
    return seen(Run(engine, deque(np.cumsum(gaps).tolist()), again=False).until(requests))


def mean_of(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean over runs, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def of_seeds(
    engine: Engine, rate: float, measure: Callable[[Seen], float], *, requests: int, seeds: int
) -> tuple[float, float]:
    """Return a measure's mean over several seeds, and its standard error."""
    return mean_of(
        [measure(at_random(engine, rate, requests=requests, seed=seed)) for seed in range(seeds)]
    )
