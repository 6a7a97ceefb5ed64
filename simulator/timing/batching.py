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


@dataclass(frozen=True, kw_only=True)
class Server:
    """The times of a server by the requests that it decodes together, 1 to the most it holds.

    Attributes
    ----------
    step_s
        A decode step, at the mean context of those that decode [K]. [s]
    added_s
        Time that the prefill of one prompt adds to what is decoded meanwhile [K]. [s]
    chunks
        Steps over which the prefill is spread, each of which decodes as well [K]; 0 for a prefill
        between two steps.
    chunk_share
        Share of the tokens of those steps that it takes: others' prompts use the rest [K].
    decode_steps
        Steps that decode a request.
    decoded_tokens
        Tokens that they give, all but the first.
    """

    step_s: "np.ndarray"
    added_s: "np.ndarray"
    chunks: "np.ndarray"
    chunk_share: "np.ndarray"
    decode_steps: int
    decoded_tokens: int

    @property
    def most(self) -> int:
        """The most requests that it decodes together, K."""
        return len(self.step_s)

    @property
    def prefill_s(self) -> "np.ndarray":
        """From the start of a prefill to the first token [K]. [s]."""
        whole_s: np.ndarray = self.added_s + self.chunks * self.step_s
        return whole_s

    @property
    def occupied_s(self) -> "np.ndarray":
        """How long a prefill keeps the next one waiting [K]. [s]."""
        occupied_s: np.ndarray = self.added_s + self.chunk_share * self.chunks * self.step_s
        return occupied_s

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
    def prefill_share(self) -> float:
        """Share of the time that prefills take at the most requests a second."""
        return min(1.0, self.capacity_per_s * float(self.occupied_s[-1]))


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
    """

    ttft_s: float
    tpot_s: float
    requests_per_s: float
    decoding: float
    utilisation: float
    full_share: float


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

    The number k of requests in the server is a birth-death chain with arrivals at the rate r and
    ends at the rate e(k) of :attr:`Server.ended_per_s`, which stays e(K) above K. With the mean
    number B of those that decode, by Little's law and Pollaczek and Khinchine's:

        TPOT = (B / r - p) / tokens
        TTFT = E[(k - K)+] / 2 r + r S^2 / 2 (1 - r S) + (1 - P(0)) s(B) / 2 + p

    B / r is all the time in the server, a request's own prefill p included, and S is how long a
    prefill keeps the next one waiting. The first term is the queue for a place: half of the chain's
    own, whose lengths are exponential, since all lengths are equal here.

    Parameters
    ----------
    server
        The server's times.
    requests_per_s
        Requests that arrive in a second, r.
    """
    import numpy as np

    utilisation = requests_per_s / server.capacity_per_s
    if utilisation >= 1:
        return Served(
            ttft_s=inf,
            tpot_s=inf,
            requests_per_s=server.capacity_per_s,
            decoding=server.most,
            utilisation=utilisation,
            full_share=1.0,
        )
    ratios = requests_per_s / server.ended_per_s
    logarithms = np.concatenate(([0.0], np.cumsum(np.log(ratios))))
    weights = np.exp(logarithms - logarithms.max())
    last = float(ratios[-1])
    above = float(weights[-1]) * last / (1 - last)  # a geometric tail of those that wait
    total = float(weights.sum()) + above
    together = np.arange(server.most + 1)
    decoding = float(weights @ together + above * server.most) / total
    waiting = above / (1 - last) / total
    idle = float(weights[0]) / total
    # At the batch that an arrival finds.
    at = max(1.0, decoding)
    numbers = together[1:]
    step_s, added_s, prefill_s, occupied_s = (
        float(np.interp(at, numbers, times))
        for times in (server.step_s, server.added_s, server.prefill_s, server.occupied_s)
    )
    busy = requests_per_s * occupied_s
    prefills_s = inf if busy >= 1 else busy * occupied_s / (2 * (1 - busy))
    return Served(
        ttft_s=waiting / requests_per_s / 2 + prefills_s + (1 - idle) * step_s / 2 + prefill_s,
        tpot_s=(decoding / requests_per_s - added_s) / server.decoded_tokens,
        requests_per_s=requests_per_s,
        decoding=decoding,
        utilisation=utilisation,
        full_share=(float(weights[-1]) + above) / total,
    )
