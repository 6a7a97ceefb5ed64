"""A way of attention that is not the package's own: linear attention, without a softmax.

Without one a bifurcated step needs no merge: the outputs of context and own tokens add up. What is
here is all that a new way is, the worked example of CONTRIBUTING.md; :func:`add` is its line in the
registry, and tests/evidence/test_toy_way.py has its PyTorch functions.
"""

from dataclasses import dataclass

import pytest

from simulator.counts.attention import registry
from simulator.counts.attention.einsum import product
from simulator.counts.attention.plain import merges_by_copy, moved, query_fold
from simulator.counts.attention.shape import AttentionShape, CachePart, present
from simulator.counts.attention.way import PlainKernel, Way
from simulator.counts.operation import Operation
from simulator.inputs.setup import Setup
from simulator.numeric import Numeric, where


@dataclass(frozen=True, kw_only=True)
class Linear(Way):
    """One kernel for each part that is read apart; in plain PyTorch two products."""

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return one kernel in which each sequence reads all its keys."""
        return [_kernel(shape, shape.whole(rereads=rereads))]

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return a kernel for each part, and the sum of their outputs."""
        states: Numeric = sum(present(part.tokens) for part in shape.parts)
        needed = where(states > 1, 1, 0)
        added = moved(
            "attention_sum", states * shape.output_bytes, shape.output_bytes, launches=needed
        )
        return [*(_kernel(shape, part) for part in shape.parts), added]

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the products, whose logits pass through memory."""
        return bifurcated_linear(shape) if setup.bifurcated else standard_linear(shape)

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:
        """Return the logits, which only plain PyTorch has in memory."""
        return shape.logits_bytes(shape.tokens) if setup.eager else 0


def _kernel(shape: AttentionShape, part: CachePart) -> Operation:
    """Return attention over one part of the keys in one kernel."""
    exists = present(part.tokens)
    kv_bytes = shape.cached_bytes(part.caches * part.tokens)
    return Operation(
        name=part.name,
        kind="attention",
        flops=shape.flops(part.tokens),
        bytes_read=(shape.query_bytes + kv_bytes) * exists,
        bytes_written=shape.output_bytes * exists,
        kv_bytes_read=kv_bytes,
        launches=exists,
        reused_bytes=shape.cached_bytes(part.repeated_tokens),
        reused_footprint_bytes=shape.cached_bytes(part.stored_tokens),
        dtype=shape.dtype,
    )


def standard_linear(shape: AttentionShape) -> list[Operation]:
    """Return <q,K> and <w,V> over each sequence's whole cache."""
    return [product(shape, shape.whole(), keys=keys) for keys in (True, False)]


def bifurcated_linear(shape: AttentionShape) -> list[Operation]:
    """Return both products over the context, then over own tokens, and the sum of the outputs."""
    both = present(shape.context_tokens) * present(shape.decoded_tokens)
    return [
        query_fold(shape, merges_by_copy(shape) * present(shape.context_tokens)),
        *(product(shape, shape.context_part, keys=keys) for keys in (True, False)),
        *(product(shape, shape.decoded_part, keys=keys) for keys in (True, False)),
        moved("attention_sum", 2 * shape.output_bytes, shape.output_bytes, launches=both),
    ]


LINEAR = Linear(name="linear")
PLAIN_LINEAR = (
    PlainKernel(
        name="standard_linear",
        attention="standard",
        kernel="linear",
        kv_layout="copies",
        operations=standard_linear,
    ),
    PlainKernel(
        name="bifurcated_linear",
        attention="bifurcated",
        kernel="linear",
        kv_layout="shared",
        operations=bifurcated_linear,
    ),
)


def add(patch: pytest.MonkeyPatch, way: Way = LINEAR) -> None:
    """Enter the way in the registry for one test."""
    patch.setitem(registry.WAYS, way.name, way)
    for plain in PLAIN_LINEAR:
        patch.setitem(registry.PLAIN_KERNELS, plain.name, plain)
