"""A server simulated event by event: the oracle of the closed forms of continuous batching.

It knows nothing of them: steps follow one another, each takes the time of the requests that it
decodes, and prompts are computed between steps, or in chunks within them.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass
class Request:
    """One request on its way."""

    arrived: float
    steps: int
    first: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What a run's requests saw, without those of its warm-up."""

    ttft_s: np.ndarray
    tpot_s: np.ndarray
    requests_per_s: float


def simulate(
    step_s: Callable[[int], float],
    prefill_s: float,
    *,
    steps: Callable[[np.random.Generator], int],
    most: int,
    requests: int,
    seed: int,
    rate: float | None = None,
    users: int | None = None,
    chunks: int = 0,
) -> Seen:
    """Serve requests that arrive at random at a rate, or of users who ask again at once.

    A prompt takes ``prefill_s`` of its own; in ``chunks``, a part of it is added to each of as many
    decode steps. Whoever finds ``most`` requests in the server waits for a place.
    """
    random = np.random.default_rng(seed)
    now, done = 0.0, []
    if rate is None:
        # Users start one after another, over the time of one answer.
        clients = users or 1
        gap = prefill_s + (steps(random) + chunks) * step_s(clients) / clients
        arrivals = deque(i * gap for i in range(clients))
    else:
        arrivals = deque(np.cumsum(random.exponential(1 / rate, requests)).tolist())
    waiting: deque[Request] = deque()
    decoding: list[Request] = []
    prefilling: Request | None = None
    left = 0
    while len(done) < requests:
        while arrivals and arrivals[0] <= now:
            waiting.append(Request(arrivals.popleft(), steps(random)))
        if prefilling is None and waiting and len(decoding) < most:
            prefilling, left = waiting.popleft(), max(1, chunks)
        if prefilling is None and not decoding:
            now = arrivals[0]
            continue
        spent = 0.0
        if prefilling is not None:
            spent += prefill_s / max(1, chunks)
            left -= 1
        stepping = decoding if prefilling is None or chunks else []
        if chunks or stepping:
            spent += step_s(len(stepping))
        now += spent
        for request in stepping:
            request.steps -= 1
        for request in [each for each in stepping if each.steps == 0]:
            decoding.remove(request)
            done.append((request, now))
            if rate is None:
                arrivals.append(now)
        if prefilling is not None and left == 0:
            prefilling.first = now
            decoding.append(prefilling)
            prefilling = None
    warm = len(done) // 5
    kept = done[warm:]
    return Seen(
        ttft_s=np.array([request.first - request.arrived for request, _ in kept]),
        tpot_s=np.array([end - request.first for request, end in kept]),
        requests_per_s=(len(kept) - 1) / (kept[-1][1] - kept[0][1]),
    )


def mean_of_seeds(values: list[float]) -> tuple[float, float]:
    """Return the mean over runs, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))
