"""Continuous batching in closed form: from the time of a step to latency and throughput.

A server decodes all requests that it holds, one step after another, and computes the prompts of new
ones in between. A step is therefore not the time per output token (TPOT): each token also waits for
a share of the others' prefill. No event is simulated, but a test simulates them to judge the forms.

All outputs have the same length, so the samples of a prompt begin and end together, and the unit
that comes and goes is the request.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


# Percentiles hold while the memory is full in less than this share of the time, up to this share of
# the most requests a second (tests/timing/test_batching.py); beyond, queues for memory decide.
_SELDOM_FULL, _FARTHEST = 0.01, 0.8 + 1e-9
# States of less chance than this are left out of percentiles; moments of a step to arrive at.
_LEAST_CHANCE, _MOST_STATES, _ARRIVALS = 1e-6, 32, 16
# Halvings of an interval that holds a percentile, and the means within which it is searched.
_HALVINGS, _FARTHEST_MEANS = 40, 64
_ROOT_STEPS = 12
# From this share of a server's capacity on, its queue is longer than numbers can tell from endless.
_NEARLY_ALL = 1 - 1e-9


@dataclass(frozen=True, kw_only=True)
class Server:
    """The times of a server by the requests that it decodes together, 1 to the most it holds.

    Attributes
    ----------
    step_s
        A decode step, at the mean context of those that decode [K]. [s]
    added_s
        Time that the prefill of one prompt adds to what is decoded meanwhile [K]. [s]
    prefill_s
        From the start of a prefill to the first token [K]. [s]
    occupied_s
        How long a prefill keeps the next one waiting [K]. [s]
    stalls
        Whether nothing is decoded during a prefill; else it goes in chunks with decode steps.
    decode_steps
        Steps that decode a request.
    decoded_tokens
        Tokens that they give, all but the first.
    """

    step_s: "np.ndarray"
    added_s: "np.ndarray"
    prefill_s: "np.ndarray"
    occupied_s: "np.ndarray"
    stalls: bool
    decode_steps: int
    decoded_tokens: int

    @property
    def most(self) -> int:
        """The most requests that it decodes together, K."""
        return len(self.step_s)

    @cached_property
    def ended_per_s(self) -> "np.ndarray":
        """Requests that end in a second while k are decoded, k / (steps s(k) + k p) [K]."""
        import numpy as np

        together = np.arange(1, self.most + 1)
        ended: np.ndarray = together / (self.decode_steps * self.step_s + together * self.added_s)
        return ended

    @cached_property
    def capacity_per_s(self) -> float:
        """The most requests a second: with all that it holds, and as fast as prefills follow."""
        return min(float(self.ended_per_s[-1]), 1 / float(self.occupied_s[-1]))

    @property
    def alone_s(self) -> float:
        """Time of a request that has the server to itself. [s]."""
        return float(self.prefill_s[0] + self.decode_steps * self.step_s[0])

    @property
    def prefill_share(self) -> float:
        """Share of the time that prefills take at the most requests a second."""
        return min(1.0, self.capacity_per_s * float(self.occupied_s[-1]))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the times of requests are spread that arrive at random at a server.

    Attributes
    ----------
    server, requests_per_s
        What serves how many.
    chances
        The chance that k requests are decoded together [K + 1].
    tpot_s
        The mean time per output token. [s]
    full_share, full_s
        The share of requests that wait for a place, and how long these do on average. [s]
    """

    server: Server
    requests_per_s: float
    chances: "np.ndarray"
    tpot_s: float
    full_share: float
    full_s: float

    def ttft_share(self, seconds: float) -> float:
        """Return the share of requests whose first token comes within a time.

        A request waits for the rest of a step, for the prefills of those before it (the queue with
        equal services, M/D/1: exact up to one service, then its exponential tail), and for its own.
        The number decoded changes slowly beside these. A request that finds no place waits longer,
        by an exponential time.

        Parameters
        ----------
        seconds
            The time. [s]
        """
        import numpy as np

        chances, prefill_s, *waits = self._states
        within_s = seconds - prefill_s
        soon = float(chances @ _waited(within_s, *waits))
        if not self.full_s:  # a chance too small to tell
            return soon
        late = float(chances @ np.exp(-np.maximum(within_s, 0.0) / self.full_s))
        return (1 - self.full_share) * soon + self.full_share * min(soon, 1 - late)

    @cached_property
    def _states(self) -> "tuple[np.ndarray, ...]":
        """Chances of some states that stand for all, prefill times, and what `_waited` takes."""
        import numpy as np

        cumulated = np.cumsum(self.chances)
        likely = int((self.chances > _LEAST_CHANCE).sum())
        shares = (np.arange(min(_MOST_STATES, likely)) + 0.5) / min(_MOST_STATES, likely)
        found = np.searchsorted(cumulated, shares * cumulated[-1])
        at, server = np.maximum(found, 1) - 1, self.server
        step_s = np.where(found == 0, 0.0, server.step_s[at])
        chances = np.full(len(shares), 1 / len(shares))
        occupied_s = server.occupied_s[at]
        busy = np.minimum(self.requests_per_s * occupied_s, 1 - 1e-6)
        return chances, server.prefill_s[at], occupied_s, step_s, busy, _decay(busy)

    def ttft_at(self, share: float) -> float:
        """Return the time within which a share of the requests have their first token. [s]."""
        low, high = 0.0, _FARTHEST_MEANS * float(self.server.prefill_s.max() + self.full_s)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self.ttft_share(middle) < share:
                low = middle
            else:
                high = middle
        return high

    def tpot_at(self, share: float) -> float:
        """Return the mean time per output token that a share of the requests do not exceed. [s].

        A request sees the number decoded from its first step to its last, which has two thirds of
        the variance at one moment, and as many prefills as begin meanwhile: those that are decoded
        at its end, so the two vary half alike. A more loaded time is as far from the mean as the
        states are, in this proportion.

        Parameters
        ----------
        share
            Between 0 and 1.
        """
        import numpy as np

        server, numbers = self.server, np.arange(len(self.chances))
        cumulated = np.cumsum(self.chances)
        mean = float(self.chances @ numbers) / float(cumulated[-1])
        at = float(np.interp(share * cumulated[-1], cumulated, numbers))
        steps_s, added_s = (
            float(np.interp(at, numbers[1:], times) - np.interp(mean, numbers[1:], times))
            for times in (server.decode_steps * server.step_s, numbers[1:] * server.added_s)
        )
        squares = 2 / 3 * steps_s**2 + steps_s * added_s + added_s**2
        off_s = float(np.copysign(np.sqrt(squares), at - mean))
        return self.tpot_s + off_s / server.decoded_tokens


def _decay(busy: "np.ndarray") -> "np.ndarray":
    """Return z, where the tail of a queue falls by exp(-z) in a service: busy (e^z - 1) = z [S]."""
    import numpy as np

    decay: np.ndarray = np.maximum(2 * (1 - busy) / busy, -2 * np.log(busy))
    for _ in range(_ROOT_STEPS):  # Newton's method from above
        growth = busy * np.exp(decay)
        decay = decay - (growth - busy - decay) / (growth - 1)
    return decay


def _waited(
    within_s: "np.ndarray",
    occupied_s: "np.ndarray",
    step_s: "np.ndarray",
    busy: "np.ndarray",
    decay: "np.ndarray",
) -> "np.ndarray":
    """Return the share of requests that wait for a step's rest and for prefills no longer [S].

    Parameters
    ----------
    within_s, occupied_s, step_s
        The longest time, one prefill, and one step in each state [S]. [s]
    busy, decay
        The share of time that prefills take, and the decay of their queue's tail [S].
    """
    import numpy as np

    rest_s = step_s[:, None] * (np.arange(_ARRIVALS) + 0.5) / _ARRIVALS
    services = (within_s[:, None] - rest_s) / occupied_s[:, None]
    busy, decay = busy[:, None], decay[:, None]
    inside = (1 - busy) * np.exp(busy * np.clip(services, 0.0, 1.0))
    beyond = (1 - (1 - busy) * np.exp(busy)) * np.exp(-decay * np.maximum(services - 1, 0.0))
    share: np.ndarray = np.where(
        services < 0, 0.0, np.where(services < 1, inside, 1 - beyond)
    ).mean(axis=1)
    return share


@dataclass(frozen=True, kw_only=True)
class Served:
    """What requests see, on average.

    Attributes
    ----------
    ttft_s, tpot_s
        From the arrival to the first token, and per token after it; infinite if the server cannot
        carry the load. [s]
    requests_per_s
        Requests that end in a second.
    decoding
        Requests that are decoded together, the mean over time.
    utilisation
        Requests a second over the most that the server carries.
    full_share
        Share of the time in which as many are decoded as it holds.
    spread
        How the times are spread; None where that is not known: of users, where requests wait for
        memory, and close to the most that the server carries.
    """

    ttft_s: float
    tpot_s: float
    requests_per_s: float
    decoding: float
    utilisation: float
    full_share: float
    spread: Spread | None = None

    def ttft_at(self, share: float | None) -> float | None:
        """Return the mean TTFT, or that which a share of requests keep, None if unknown. [s]."""
        if share is None:
            return self.ttft_s
        return None if self.spread is None else self.spread.ttft_at(share)

    def tpot_at(self, share: float | None) -> float | None:
        """Return the same of TPOT. [s]."""
        if share is None:
            return self.tpot_s
        return None if self.spread is None else self.spread.tpot_at(share)


def closed_loop(server: Server, users: int) -> Served:
    """Return what ``users`` see who ask again as soon as they have their answer.

        TPOT = s(N) + (N - 1) p / steps,    TTFT = p

    In the time of one's answer each of the others starts once. Users beyond the most that the
    server holds, or that its prefills keep up with, wait.

    Parameters
    ----------
    server
        The server's times.
    users
        Requests in flight, N.
    """
    kept_up = int((server.ended_per_s * server.occupied_s <= 1).sum())
    at = max(1, min(users, kept_up)) - 1
    ended = float(server.ended_per_s[at])
    decode_s = server.decode_steps * float(server.step_s[at]) + at * float(server.added_s[at])
    ttft_s = float(server.prefill_s[at]) + (users - at - 1) / ended
    rate = users / (ttft_s + decode_s)
    return Served(
        ttft_s=ttft_s,
        tpot_s=decode_s / server.decoded_tokens,
        requests_per_s=rate,
        decoding=at + 1,
        utilisation=min(1.0, rate / server.capacity_per_s),
        full_share=float(users >= server.most),
    )


def open_loop(server: Server, requests_per_s: float) -> Served:
    """Return what requests see that arrive at random (Poisson), whatever the server does.

    While nothing is prefilled, k requests that are decoded end at the rate m(k) = k / (steps s(k)).
    Those who arrive during a prefill follow it at once, so that, seen from those that are decoded,
    requests come in clusters: with prefills for a share p r of the time, of the size 1 / (1 - p r)
    on average and with the square 1 / (1 - p r)^3. Lengths are equal, so a cluster also ends
    together, which doubles what its size adds to the variance. Clusters of geometric size that have
    this variance, with the chance q = 1 - (1 - p r)^2 of one more, make a chain in product form:

        P(j) = r' / m(j) x product over 0 < i < j of (q + r' / m(i)) P(0),  r' = r (1 - p r)

    With the mean number B of those that are decoded, the most K, and how long S a prefill keeps the
    next one waiting, by Little's law and Pollaczek and Khinchine's:

        TPOT = (B / r + p (1 / (1 - p r)^2 - 1) / 2) / tokens
        TTFT = P(k > K) / (1 - r / e(K)) / 2 r + E[r S^2 / 2 (1 - r S)]
             + (1 - P(0)) E[s^2] / 2 E[s] + E[prefill]

    The second part of TPOT are the prefills of those who come later in the same cluster; where
    prefills go in chunks, they decode meanwhile. The first part of TTFT is the queue for a place:
    without a prefill those in it come one by one, and since lengths are equal it is half of that
    for exponential ones.

    Parameters
    ----------
    server
        The server's times.
    requests_per_s
        Requests that arrive in a second, r.
    """
    import numpy as np

    rate, utilisation = requests_per_s, requests_per_s / server.capacity_per_s
    if utilisation > _NEARLY_ALL:
        return Served(
            ttft_s=inf,
            tpot_s=inf,
            requests_per_s=server.capacity_per_s,
            decoding=server.most,
            utilisation=utilisation,
            full_share=1.0,
        )
    together = np.arange(server.most + 1)
    ended = together[1:] / (server.decode_steps * server.step_s)
    left = np.maximum(1 - rate * server.added_s, 1 - utilisation)
    clustered, clusters = 1 - left**2, rate * left
    factors = np.log(clustered + clusters / ended)
    logarithms = np.concatenate(([0.0], np.cumsum(factors[:-1])))
    logarithms += np.log(clusters[0]) - np.log(ended)
    largest = max(0.0, float(logarithms.max()))
    weights = np.exp(np.concatenate(([0.0], logarithms)) - largest)
    last = float(np.exp(factors[-1]))
    above = float(weights[-1]) * last / (1 - last)  # a geometric tail of those that wait
    total = float(weights.sum()) + above
    weights[-1] += above
    chances = weights / total
    decoding = float(chances @ together)
    full_s = above / (1 - rate / server.ended_per_s[-1]) / total / rate / 2
    # An arrival that finds nobody is as the first one.
    busy = rate * server.occupied_s
    prefills_s = busy * server.occupied_s / (2 * np.maximum(1 - busy, 1 - utilisation))
    waits_s = prefills_s + server.prefill_s
    step_s = server.step_s
    rest_s = chances[1:] @ step_s**2 / 2 / max(float(chances[1:] @ step_s), 1e-300)
    ttft_s = full_s + chances[1:] @ waits_s + chances[0] * waits_s[0] + (1 - chances[0]) * rest_s
    later_s = float(chances[1:] @ (server.added_s * (1 / left**2 - 1))) / 2
    tpot_s = (decoding / rate + server.stalls * later_s) / server.decoded_tokens
    full_share = float(chances[-1])
    known = full_share < _SELDOM_FULL and utilisation <= _FARTHEST
    return Served(
        ttft_s=float(ttft_s),
        tpot_s=tpot_s,
        requests_per_s=rate,
        decoding=decoding,
        utilisation=utilisation,
        full_share=full_share,
        spread=Spread(
            server=server,
            requests_per_s=rate,
            chances=chances,
            tpot_s=tpot_s,
            full_share=full_share,
            full_s=full_s / full_share if full_share else 0.0,
        )
        if known
        else None,
    )
