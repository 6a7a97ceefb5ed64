"""The paper's einsum: matrix products whose logits pass through memory.

Standard: <q,K>, softmax, <w,V>. Bifurcated (section 4.2): two <q,K>, one softmax over both logits,
two <w,V>, a sum. Compilers fuse scaling and masking into the softmax.
"""

from dataclasses import dataclass
from typing import Literal

from simulator.counts.attention.flash import together_bytes
from simulator.counts.attention.plain import copied, merges_by_copy, moved, query_fold
from simulator.counts.attention.shape import AttentionShape, CachePart, present, several
from simulator.counts.attention.way import PlainKernel, Way
from simulator.counts.operation import Operation
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric


@dataclass(frozen=True, kw_only=True)
class Einsum(Way):
    """Batched matrix products over the model's own KV heads."""

    logits_in_memory: bool = True
    spread: Literal["", "unfused"] = "unfused"

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return both products and the softmax between them."""
        return standard_products(shape, rereads=rereads)

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return two products over each part, one softmax, and the sum of the outputs."""
        return bifurcated_products(shape)

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the products and PyTorch's operations around them."""
        if setup.bifurcated:
            return bifurcated_einsum(shape)
        return standard_einsum(shape, rereads=setup.rereads)

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:  # noqa: ARG002
        """Return the size of two tensors of logits. [bytes]."""
        return 2 * shape.logits_bytes(shape.tokens)

    def refusal(self, model: ModelShape, work: Workload) -> str:  # noqa: ARG002
        """Refuse prefix trees: no product spans several levels."""
        if len(work.tree) <= 1:
            return ""
        return (
            f"kernel {self.name!r} has no form for a tree of {len(work.tree)} levels; "
            "use ideal or flash"
        )

    def kv_formula(self, setup: Setup) -> str:  # noqa: ARG002
        """Return an empty text: different operations read keys and values."""
        return ""


def standard_products(shape: AttentionShape, *, rereads: bool) -> list[Operation]:
    """Return <q,K>, softmax and <w,V> over each sequence's whole cache."""
    whole = shape.whole(rereads=rereads)
    return [product(shape, whole, keys=True), _softmax(shape), product(shape, whole, keys=False)]


def bifurcated_products(shape: AttentionShape) -> list[Operation]:
    """Return <q,K> and <w,V> over context and decoded tokens, one softmax, and a sum."""
    shared = shape.expanded or shape
    parts = ((shared, shape.context_part), (shape, shape.decoded_part))
    both = present(shape.context_tokens) * present(shape.decoded_tokens)
    return [
        *(product(sizes, part, keys=True) for sizes, part in parts),
        _softmax(shape),
        *(product(sizes, part, keys=False) for sizes, part in parts),
        moved("attention_sum", 2 * shared.output_bytes, shared.output_bytes, launches=both),
    ]


def product(shape: AttentionShape, part: CachePart, *, keys: bool) -> Operation:
    """Return <q,K> (``keys``) or <w,V> over one part of the cache; no launch if it is empty.

    Parameters
    ----------
    part
        The whole cache, or a part of it.
    """
    logits = shape.logits_bytes(part.tokens)
    cache_bytes = shape.keys_bytes if keys else shape.values_bytes
    kv_bytes = cache_bytes(part.caches * part.tokens)
    exists = present(part.tokens)
    of_part = part.name.removeprefix("attention")
    return Operation(
        name=f"attention_{'scores' if keys else 'values'}{of_part}",
        kind=shape.kind,
        flops=product_flops(shape, part.tokens, keys=keys),
        bytes_read=((shape.query_bytes if keys else logits) + kv_bytes) * exists,
        bytes_written=(logits if keys else shape.output_bytes) * exists,
        kv_bytes_read=kv_bytes,
        launches=exists,
        reused_bytes=cache_bytes(part.repeated_tokens),
        reused_footprint_bytes=cache_bytes(part.stored_tokens),
        together_bytes=together_bytes(shape, part, cache_bytes(1)),
        dtype=shape.dtype,
    )


def product_flops(shape: AttentionShape, tokens: Numeric, *, keys: bool) -> Numeric:
    """Return the FLOPs of <q,K> (``keys``) or <w,V>. [FLOP].

    Parameters
    ----------
    tokens
        Keys that each query row sees.
    """
    return 2 * shape.rows * tokens * (shape.key_width if keys else shape.value_width)


def _softmax(shape: AttentionShape) -> Operation:
    """Return the one pass that scales the logits and takes their softmax."""
    logits = shape.logits_bytes(shape.tokens)
    return moved("attention_softmax", logits, logits)


# In plain PyTorch.


def standard_einsum(shape: AttentionShape, *, rereads: bool = False) -> list[Operation]:
    """Scale the queries, <q,K>, a mask for several query tokens, softmax, <w,V>.

    Parameters
    ----------
    rereads
        Whether the samples read one stored context.
    """
    scores, softmax, values = standard_products(shape, rereads=rereads)
    return [
        moved("attention_query_scale", shape.query_bytes, shape.query_bytes),
        _arrange(shape, "query_fold_tokens", shape.query_bytes),
        scores,
        _mask(shape),
        softmax,
        values,
        _arrange(shape, "attention_arrange", shape.output_bytes),
    ]


def bifurcated_einsum(shape: AttentionShape) -> list[Operation]:
    """Two <q,K>, their concatenation, one softmax, two <w,V>, a sum.

    The context's weights are a slice of all weights, which is copied because no product can address
    it with samples folded into rows. The account leaves out an empty part; the code does not.
    """
    m_c, m_d = shape.context_tokens, shape.decoded_tokens
    context_scores, own_scores, softmax, *values, output_sum = bifurcated_products(shape)
    logits, both = shape.logits_bytes(m_c + m_d), present(m_c) * present(m_d)
    folds = merges_by_copy(shape) * present(m_c)
    return [
        moved("attention_query_scale", shape.query_bytes, shape.query_bytes),
        _arrange(shape, "query_fold_tokens", shape.query_bytes),
        query_fold(shape, folds),
        context_scores,
        own_scores,
        _mask(shape),
        copied("attention_concatenate", logits, both),
        softmax,
        # A single weight per row needs no copy.
        copied("attention_weights_fold", shape.logits_bytes(m_c), folds * several(m_c)),
        *values,
        output_sum,
        _arrange(shape, "attention_arrange", shape.output_bytes),
    ]


def _arrange(shape: AttentionShape, name: str, copied_bytes: Numeric) -> Operation:
    """Return the copy that folds several query tokens into rows of their KV head, or unfolds."""
    return copied(name, copied_bytes, several(shape.query_tokens) * several(shape.kv_heads))


def _mask(shape: AttentionShape) -> Operation:
    """Return the causal masking among several query tokens, in place; none for one token.

    The mask has one byte per pair.
    """
    n = shape.query_tokens
    logits = shape.logits_bytes(n)
    return moved("attention_mask", logits + n * n, logits, launches=several(n))


PLAIN_EINSUM = (
    PlainKernel("standard_einsum", "standard", "einsum", "copies", standard_einsum),
    PlainKernel("bifurcated_einsum", "bifurcated", "einsum", "shared", bifurcated_einsum),
)
