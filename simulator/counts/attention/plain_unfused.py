"""Accounts of PyTorch kernels whose logits pass through memory."""

from dataclasses import replace

from simulator.counts.attention.einsum import (
    cache_read,
    output_sum,
    part_product,
    product_flops,
)
from simulator.counts.attention.plain_flash import merges_by_copy, query_fold, several
from simulator.counts.attention.shape import AttentionShape, present
from simulator.counts.operation import Kind, Operation
from simulator.inputs.workload import KvLayout
from simulator.numeric import Numeric

FLOAT_BYTES = 4  # the math path computes in float32


def standard_einsum(
    shape: AttentionShape, repeat: int, layout: KvLayout = "copies"
) -> list[Operation]:
    """Scale the queries, <q,K>, a mask for several query tokens, softmax, <w,V>."""
    tokens = shape.context_tokens + shape.decoded_tokens
    logits = shape.logits_bytes(tokens)

    def product(name: str, *, keys: bool) -> Operation:
        cache = cache_read(shape, layout, keys=keys)
        return Operation(
            name=name,
            kind="attention",
            flops=product_flops(shape, tokens, keys=keys),
            bytes_read=(shape.query_bytes if keys else logits) + cache["kv_bytes_read"],
            bytes_written=logits if keys else shape.output_bytes,
            dtype=shape.dtype,
            repeat=repeat,
            **cache,
        )

    return [
        _step("attention_query_scale", shape.query_bytes, shape.query_bytes, repeat),
        _arrange(shape, "query_fold_tokens", shape.query_bytes, repeat),
        product("attention_scores", keys=True),
        _mask(shape, repeat),
        _step("attention_softmax", logits, logits, repeat),
        product("attention_values", keys=False),
        _arrange(shape, "attention_arrange", shape.output_bytes, repeat),
    ]


def standard_math(
    shape: AttentionShape, repeat: int, layout: KvLayout = "copies"
) -> list[Operation]:
    """Account for the math path of ``F.scaled_dot_product_attention`` (PyTorch 2.5 and newer).

    16-bit inputs are cast to float32, the whole cache included, KV heads repeated to query heads,
    queries and keys both scaled, and the softmax guarded against rows without keys: softmax, test
    for -inf, all, fill, where. Weights are cast back too, for a second result nobody asks for. The
    mask of several query tokens, over all keys, is made numbers (two fills, where) and added.
    """
    tokens = shape.context_tokens + shape.decoded_tokens
    group = shape.heads // shape.kv_heads
    cast = int(shape.activation_bytes != FLOAT_BYTES)
    # Float32 throughout.
    queries, outputs = (shape.rows * w * FLOAT_BYTES for w in (shape.key_width, shape.value_width))
    logits = shape.rows * tokens * FLOAT_BYTES
    repeated = shape.sequences * tokens * shape.heads * FLOAT_BYTES
    keys, values = repeated * shape.key_width, repeated * shape.value_width
    once = (keys + values) // group
    # A byte for each logit and row whether it is -inf, and a number to fill with.
    flags = shape.rows * tokens + shape.rows + FLOAT_BYTES

    def product(name: str, read: Numeric, written: Numeric, *, keys: bool) -> Operation:
        flops = product_flops(shape, tokens, keys=keys)
        operation = _step(name, read, written, repeat, kind="attention")
        return replace(operation, flops=flops, dtype="fp32")

    narrow_logits = shape.logits_bytes(tokens)
    masked = several(shape.query_tokens)
    pairs, element = shape.query_tokens * tokens, shape.activation_bytes
    mask = pairs * element
    apart = masked * several(shape.heads)
    operations = [
        _step(
            "attention_mask", pairs + 2 * element, mask + 2 * element, repeat, launches=3 * masked
        ),
        _step("attention_query_cast", shape.query_bytes, queries, repeat, launches=cast),
        _step(
            "kv_cast",
            cache_read(shape, layout, keys=True)["kv_bytes_read"]
            + cache_read(shape, layout, keys=False)["kv_bytes_read"],
            once,
            repeat,
            launches=2 * int(shape.kv_bytes != FLOAT_BYTES),
        ),
        _step("attention_query_scale", queries, queries, repeat),
        _step("kv_repeat", once, keys + values, repeat, launches=2 * several(group), kind="copy"),
        _step("attention_key_scale", keys, keys, repeat),
        _step(
            "query_fold_tokens",
            queries,
            queries,
            repeat,
            launches=apart * several(shape.sequences),
            kind="copy",
        ),
        product("attention_scores", queries + keys, logits, keys=True),
        _step("attention_mask_add", logits + mask, logits, repeat, launches=masked),
        _step("attention_softmax", 3 * logits + flags, 2 * logits + flags, repeat, launches=5),
        _step("attention_weights_cast", logits, narrow_logits, repeat, launches=cast),
        product("attention_values", logits + values, outputs, keys=False),
        _step("attention_output_cast", outputs, shape.output_bytes, repeat, launches=cast),
        _step(
            "attention_arrange",
            shape.output_bytes,
            shape.output_bytes,
            repeat,
            launches=apart,
            kind="copy",
        ),
    ]
    return _with_cache_reads(operations, shape, layout)


def bifurcated_einsum(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Two <q,K>, their concatenation, one softmax, two <w,V>, a sum.

    The context's weights are a slice of all weights: no product can address it with samples folded
    into rows, so it is copied. A part without keys is left out, which the code does not.
    """
    m_c, m_d = shape.context_tokens, shape.decoded_tokens
    context, own = shape.prompts * m_c, shape.sequences * m_d
    logits = shape.logits_bytes(m_c + m_d)
    both = present(m_c) * present(m_d)
    folds = merges_by_copy(shape) * present(m_c)

    def product(part: str, tokens: Numeric, cached: Numeric, *, keys: bool) -> Operation:
        return part_product(shape, part, tokens, cached, keys=keys, repeat=repeat)

    context_logits = shape.logits_bytes(m_c)
    return [
        _step("attention_query_scale", shape.query_bytes, shape.query_bytes, repeat),
        _arrange(shape, "query_fold_tokens", shape.query_bytes, repeat),
        query_fold(shape, folds, repeat),
        product("context", m_c, context, keys=True),
        product("suffix", m_d, own, keys=True),
        _mask(shape, repeat),
        _step("attention_concatenate", logits, logits, repeat, launches=both, kind="copy"),
        _step("attention_softmax", logits, logits, repeat),
        _step(
            "attention_weights_fold",
            context_logits,
            context_logits,
            repeat,
            # A single weight for each row is addressed where it lies.
            launches=folds * several(m_c),
            kind="copy",
        ),
        product("context", m_c, context, keys=False),
        product("suffix", m_d, own, keys=False),
        output_sum(shape, both, repeat),
        _arrange(shape, "attention_arrange", shape.output_bytes, repeat),
    ]


def _arrange(shape: AttentionShape, name: str, moved: Numeric, repeat: int) -> Operation:
    """Return the copy that makes several query tokens rows of their KV head, or undoes that."""
    needed = several(shape.query_tokens) * several(shape.kv_heads)
    return _step(name, moved, moved, repeat, launches=needed, kind="copy")


def _mask(shape: AttentionShape, repeat: int) -> Operation:
    """Return the masking, in place, of the pairs of several query tokens; none for a single one.

    A byte for each pair says whether it is hidden.
    """
    n = shape.query_tokens
    logits = shape.logits_bytes(n)
    return _step("attention_mask", logits + n * n, logits, repeat, launches=several(n))


def _step(
    name: str,
    read: Numeric,
    written: Numeric,
    repeat: int,
    *,
    launches: Numeric = 1,
    kind: Kind = "elementwise",
) -> Operation:
    """Return kernels that read and write so much, if they are launched at all."""
    exists = present(launches)
    return Operation(
        name=name,
        kind=kind,
        bytes_read=read * exists,
        bytes_written=written * exists,
        launches=launches,
        repeat=repeat,
    )


def _with_cache_reads(
    operations: list[Operation], shape: AttentionShape, layout: KvLayout
) -> list[Operation]:
    """Mark which operations of the math path read the cache itself, not a copy they were given."""
    keys, values = (cache_read(shape, layout, keys=keys) for keys in (True, False))
    both = {field: keys[field] + values[field] for field in keys}
    if shape.kv_bytes != FLOAT_BYTES:
        readers = {"kv_cast": both}
    elif shape.heads > shape.kv_heads:
        readers = {"kv_repeat": both}
    else:
        readers = {"attention_key_scale": keys, "attention_values": values}
    return [replace(each, **readers.get(each.name, {})) for each in operations]
