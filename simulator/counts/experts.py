"""The routed experts of a layer: how many of them some tokens visit, and what that costs.

Tokens are sorted by expert, multiplied in two grouped products, and summed back. Only the weights
of visited experts are read, so the routing decides the bytes:

* balanced: experts in turn, as a benchmark deals them out: n tokens visit min(count, n k);
* uniform: each token draws its k experts at random: count (1 - (1 - k / count)^n) on average;
* skewed: loads of experts from a power law, density x^-exponent between 1 and 0.8 n, as in
  aiconfigurator's measured rows (``power_law`` with exponents of 1.01 and 1.2); between 0.01 and 2
  if there are fewer visits than experts.

Skewed routing is in closed form: with the mean load of a visit n k / count, an expert is visited if
its load is at least ``VISITED_LOAD``; the share of experts above a threshold is an integral of the
density.
"""

from dataclasses import dataclass

from simulator.counts.operation import Operation, Tile, streamed
from simulator.counts.pieces import FLOAT_BYTES, INDEX_BYTES, quantise
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.formats import WeightFormat
from simulator.inputs.setup import Routing
from simulator.numeric import Numeric, maximum, minimum, where

# The expected visits from which an expert counts as visited. Loads that are rounded to whole visits
# say 0.5; aiconfigurator then hands out the visits lost by rounding to further experts. With this
# value, its mean numbers of visited experts are within 5 % (median over 1 to 16K tokens).
VISITED_LOAD = 0.4
# Smallest and largest load of the power law, before scaling: with fewer visits than experts, and
# the largest, as a share of the tokens, with more.
FEW_VISITS, LARGEST_LOAD = (0.01, 2.0), 0.8


def visited_experts(
    count: Numeric,
    per_token: Numeric,
    tokens: Numeric,
    *,
    routing: Routing = "uniform",
    exponent: Numeric = 1.2,
) -> Numeric:
    """Return the expected number of distinct experts that some tokens visit.

    Parameters
    ----------
    count, per_token
        Number of experts, and experts that each token visits.
    tokens
        Number of tokens.
    routing
        How tokens choose experts.
    exponent
        Of skewed routing: the power of the density of loads, not 1 or 2.

    Examples
    --------
    >>> visited_experts(8, 2, 1), round(visited_experts(8, 2, 16), 3)
    (2.0, 7.92)
    >>> visited_experts(256, 8, 16, routing="balanced")
    128
    >>> round(visited_experts(256, 8, 16, routing="skewed"))
    78
    """
    visits = tokens * per_token
    if routing == "balanced":
        return minimum(count, visits)
    if routing == "uniform":
        return count * (1 - (1 - per_token / count) ** tokens)
    many = visits > count
    least = where(many, 1.0, FEW_VISITS[0])
    most = where(many, LARGEST_LOAD * tokens, FEW_VISITS[1])
    first, second = 1 - exponent, 2 - exponent
    share = most**first - least**first
    mean = first / second * (most**second - least**second) / share
    threshold = VISITED_LOAD * mean * count / maximum(visits, VISITED_LOAD)
    above = (most**first - minimum(maximum(threshold, least), most) ** first) / share
    return minimum(visits, maximum(minimum(per_token, visits), count * above))


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The routed experts of a layer on one GPU, and the tokens that visit them.

    Attributes
    ----------
    tokens, count
        Tokens, and the experts among which each chooses.
    pairs, visited, held
        Pairs of a token and one of this GPU's experts, the distinct experts in them, and the
        experts that the GPU holds.
    even
        Whether visited experts have equally many tokens.
    parts
        GPUs that share the experts; this one holds an average share.
    hidden, inner
        Width of a token, and this GPU's part of an expert's inner width.
    ups
        Matrices before the activation: 2 with a gate.
    bias
        Whether the matrices have biases.
    activations, stored, multiplied
        Formats of activations, of stored weights, and of the products.
    tile
        The tile that the kernel takes; None if it takes the fastest.
    """

    tokens: Numeric
    count: Numeric
    pairs: Numeric
    visited: Numeric
    held: Numeric
    even: bool
    parts: int = 1
    hidden: Numeric
    inner: Numeric
    ups: Numeric
    bias: bool = False
    activations: Dtype
    stored: WeightFormat
    multiplied: Dtype
    tile: Tile | None = None

    def operations(self, *, eager: bool = False, quantises: bool = True) -> list[Operation]:
        """Return the layer's operations after its router, in the order of the step.

        Parameters
        ----------
        eager
            Whether plain PyTorch loops over the visited experts.
        quantises
            Whether kernels of their own quantise the products' inputs, if these need it.
        """
        element = DTYPE_BYTES[self.activations]
        loops = self.visited if eager else 1
        row, pair = self.tokens * self.hidden * element, self.pairs * self.hidden * element
        activated = self.pairs * self.inner * element
        choice, wide = self.pairs * INDEX_BYTES, self.ups * self.inner
        quantised = not eager and is_low_precision(DTYPE_BYTES[self.multiplied])
        moved = DTYPE_BYTES[self.multiplied] / element if quantised else 1

        def quantising(name: str, rows: Numeric, width: Numeric) -> list[Operation]:
            if not (quantised and quantises):
                return []
            return [quantise(name, rows, width, element=element, dtype=self.multiplied)]

        return [
            streamed("expert_choice", self.tokens * self.count * FLOAT_BYTES, choice, launches=2),
            *quantising("experts_up_quantise", self.tokens, self.hidden),
            streamed("expert_gather", row * moved, pair * moved, launches=loops),
            self._product("experts_up", self.hidden, wide, loops, quantised),
            streamed(
                "experts_activation",
                self.ups * activated,
                activated,
                launches=loops,
                kind="elementwise" if eager else "activation",
            ),
            *quantising("experts_down_quantise", self.pairs, self.inner),
            self._product("experts_down", self.inner, self.hidden, loops, quantised),
            streamed("expert_sum", pair, row, launches=loops),
        ]

    def _product(
        self, name: str, inner: Numeric, columns: Numeric, launches: Numeric, quantised: bool
    ) -> Operation:
        """Return a grouped product: a matrix [inner, columns] for every visited expert."""
        element = DTYPE_BYTES[self.activations]
        weights = inner * columns * self.stored.bytes
        if self.bias:
            weights = weights + columns * element
        loaded = DTYPE_BYTES[self.multiplied] if quantised else element
        return Operation(
            name=name,
            kind="experts",
            flops=2 * self.pairs * inner * columns,
            bytes_read=self.pairs * inner * loaded + self.visited * weights,
            bytes_written=self.pairs * columns * element,
            weight_bytes_read=self.visited * weights,
            launches=launches,
            m=self.pairs,
            n=columns,
            k=inner,
            groups=self.visited,
            held=self.held,
            even=self.even,
            tile=self.tile,
            parts=self.parts,
            weights=self.stored.dtype if self.stored.dtype != self.multiplied else None,
            dtype=self.multiplied,
        )
