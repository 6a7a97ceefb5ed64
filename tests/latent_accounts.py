"""The accounts of latent_kernels.py, made of the pieces of which decode steps are counted."""

from collections.abc import Callable

from simulator.counts.attention.einsum import bifurcated_products, product, standard_products
from simulator.counts.attention.plain import copied, merges_by_copy, moved, query_fold
from simulator.counts.attention.shape import AttentionShape, CachePart, several
from simulator.counts.operation import Operation
from simulator.numeric import Numeric


def standard_latent(shape: AttentionShape) -> list[Operation]:
    """Absorbed queries, <q,K>, softmax, <w,V>, and outputs out of the latent space."""
    return [*_absorb(shape), *standard_products(shape, rereads=False), _leave(shape)]


def standard_latent_expanded(shape: AttentionShape) -> list[Operation]:
    """<q,K>, softmax and <w,V> with keys and values of every head."""
    widths = _of_heads(shape)
    return [_scale(widths), *standard_products(widths, rereads=False)]


def bifurcated_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_latent`` with two products each, over the context and over own vectors."""
    of_context, of_own, softmax, *rest = bifurcated_products(shape._replace(expanded=None))
    joined = copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1)
    return [*_absorb(shape), of_context, of_own, joined, softmax, *rest, _leave(shape)]


def bifurcated_latent_mixed(shape: AttentionShape) -> list[Operation]:
    """Products with an expanded context and with own vectors, whose outputs leave before the sum.

    As in ``bifurcated_einsum``, queries and the context's weights are copied where no product can
    address them with samples folded into rows.
    """
    widths = _of_heads(shape)
    of_context, of_own, softmax, context_values, own_values, added = bifurcated_products(shape)
    folds = merges_by_copy(widths)
    weights = shape.logits_bytes(shape.context_tokens)
    return [
        *_absorb(shape),
        query_fold(widths, folds),
        of_context,
        of_own,
        copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1),
        softmax,
        copied("attention_weights_fold", weights, folds * several(shape.context_tokens)),
        context_values,
        own_values,
        _leave(shape),
        added,
    ]


def standard_grouped_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_latent`` with a vector for each group: its logits and rotary ones are added."""
    _, softmax, values = standard_products(shape, rereads=False)
    return [*_absorb_groups(shape), *_scores(shape, shape.whole()), softmax, values, _leave(shape)]


def bifurcated_grouped_latent(shape: AttentionShape) -> list[Operation]:
    """``standard_grouped_latent`` over the context and over own vectors.

    As in ``bifurcated_einsum``, queries and the context's weights are copied where no product can
    address them with samples folded into rows.
    """
    _, _, softmax, *values, added = bifurcated_products(shape._replace(expanded=None))
    vectors, folds = _vectors(shape), merges_by_copy(shape)
    weights = shape.logits_bytes(shape.context_tokens)
    return [
        *_absorb_groups(shape),
        query_fold(vectors, folds),
        *_scores(shape, shape.context_part),
        *_scores(shape, shape.decoded_part),
        copied("attention_concatenate", shape.logits_bytes(shape.tokens), 1),
        softmax,
        copied("attention_weights_fold", weights, folds * several(shape.context_tokens)),
        *values,
        added,
        _leave(shape),
    ]


def _vectors(shape: AttentionShape) -> AttentionShape:
    """Return the sizes of the keys without their rotary part."""
    width = shape.value_width
    return shape._replace(key_width=width, cache_width=shape.kv_heads * width)


def _scores(shape: AttentionShape, part: CachePart) -> list[Operation]:
    """Return <q,K> with each group's vector and with the shared rotary keys, and their sum."""
    width = shape.key_width - shape.value_width
    rotary = shape._replace(kv_heads=1, key_width=width, cache_width=width)
    logits = shape.logits_bytes(part.tokens)
    return [
        product(_vectors(shape), part, keys=True),
        product(rotary, part, keys=True),
        moved("attention_scores_sum", 2 * logits, logits),
    ]


def _absorb_groups(shape: AttentionShape) -> list[Operation]:
    """Scale the queries, move them into the latent space, and arrange them by sequence."""
    scale, absorb, _ = _absorb(shape)
    arranged = copied("query_arrange", _vectors(shape).query_bytes, several(shape.sequences))
    return [scale, absorb, arranged]


def _of_heads(shape: AttentionShape) -> AttentionShape:
    """Return the sizes of the expanded form."""
    return shape.expanded or shape


def _scale(widths: AttentionShape) -> Operation:
    """Return the scaling of the queries."""
    return moved("attention_query_scale", widths.query_bytes, widths.query_bytes)


def _absorb(shape: AttentionShape) -> list[Operation]:
    """Scale the queries, move them into the latent space, and join them with their rotary part."""
    widths = _of_heads(shape)
    rotary_width = shape.key_width - shape.value_width
    nope_width = widths.key_width - rotary_width
    absorb = _product_of_heads(shape, "latent_absorb", nope_width, shape.value_width)
    return [_scale(widths), absorb, copied("latent_query_join", shape.query_bytes, 1)]


def _leave(shape: AttentionShape) -> Operation:
    """Return the product that moves outputs out of the latent space."""
    width = _of_heads(shape).value_width
    return _product_of_heads(shape, "latent_value", shape.value_width, width)


def _product_of_heads(
    shape: AttentionShape, name: str, inner: Numeric, columns: Numeric
) -> Operation:
    """Return each head's product of its rows with its own matrix [inner, columns]."""
    weights = shape.heads * inner * columns * shape.activation_bytes
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * shape.rows * inner * columns,
        bytes_read=shape.rows * inner * shape.activation_bytes + weights,
        bytes_written=shape.rows * columns * shape.activation_bytes,
        weight_bytes_read=weights,
        dtype=shape.dtype,
    )


# The accounts of the PyTorch functions of the same names.
PLAIN_LATENT: dict[str, Callable[[AttentionShape], list[Operation]]] = {
    account.__name__: account
    for account in (
        standard_latent,
        standard_latent_expanded,
        bifurcated_latent,
        bifurcated_latent_mixed,
        standard_grouped_latent,
        bifurcated_grouped_latent,
    )
}
