"""Attention whose logits pass through memory, as a compiler fuses it: the paper's products."""

from simulator.counts.attention.shape import AttentionShape, present
from simulator.counts.operation import Operation
from simulator.inputs.workload import KvLayout
from simulator.numeric import Numeric


def einsum_standard(shape: AttentionShape, layout: KvLayout, repeat: int) -> list[Operation]:
    """Batched <q,K>, softmax, batched <w,V>; logits are written and read between them."""
    tokens = shape.context_tokens + shape.decoded_tokens
    logits = shape.logits_bytes(tokens)

    def product(name: str, *, keys: bool, read: Numeric, written: Numeric) -> Operation:
        cache = cache_read(shape, layout, keys=keys)
        return Operation(
            name=name,
            kind="attention",
            flops=product_flops(shape, tokens, keys=keys),
            bytes_read=read + cache["kv_bytes_read"],
            bytes_written=written,
            dtype=shape.dtype,
            repeat=repeat,
            **cache,
        )

    return [
        product("attention_scores", keys=True, read=shape.query_bytes, written=logits),
        _softmax(shape, tokens, repeat),
        product("attention_values", keys=False, read=logits, written=shape.output_bytes),
    ]


def einsum_bifurcated(shape: AttentionShape, repeat: int) -> list[Operation]:
    """Two <q,K> products, one softmax over both logits, two <w,V> products, a sum.

    Section 4.2 of the paper.
    """
    m_c, m_d = shape.context_tokens, shape.decoded_tokens
    both = present(m_c) * present(m_d)
    scores, values = (
        [
            part_product(shape, "context", m_c, shape.prompts * m_c, keys=keys, repeat=repeat),
            part_product(shape, "suffix", m_d, shape.sequences * m_d, keys=keys, repeat=repeat),
        ]
        for keys in (True, False)
    )
    return [*scores, _softmax(shape, m_c + m_d, repeat), *values, output_sum(shape, both, repeat)]


def part_product(
    shape: AttentionShape, part: str, tokens: Numeric, cached: Numeric, *, keys: bool, repeat: int
) -> Operation:
    """Return <q,K> or <w,V> over one part of the keys; a part without keys is not launched."""
    logits = shape.logits_bytes(tokens)
    kv_bytes = shape.keys_bytes(cached) if keys else shape.values_bytes(cached)
    exists = present(tokens)
    return Operation(
        name=f"attention_{'scores' if keys else 'values'}_{part}",
        kind="attention",
        flops=product_flops(shape, tokens, keys=keys),
        bytes_read=((shape.query_bytes if keys else logits) + kv_bytes) * exists,
        bytes_written=(logits if keys else shape.output_bytes) * exists,
        kv_bytes_read=kv_bytes,
        launches=exists,
        dtype=shape.dtype,
        repeat=repeat,
    )


def output_sum(shape: AttentionShape, both: Numeric, repeat: int) -> Operation:
    """Return the sum of both parts' outputs, where there are both."""
    return Operation(
        name="attention_sum",
        kind="elementwise",
        bytes_read=2 * shape.output_bytes * both,
        bytes_written=shape.output_bytes * both,
        launches=both,
        repeat=repeat,
    )


def product_flops(shape: AttentionShape, tokens: Numeric, *, keys: bool) -> Numeric:
    """FLOPs of <q,K> or <w,V> against ``tokens`` keys. [FLOP]."""
    return 2 * shape.rows * tokens * (shape.key_width if keys else shape.value_width)


def cache_read(shape: AttentionShape, layout: KvLayout, *, keys: bool) -> dict[str, Numeric]:
    """Return the bytes of every sequence's keys or values, and what of them is read again."""
    cache_bytes = shape.keys_bytes if keys else shape.values_bytes
    tokens = shape.context_tokens + shape.decoded_tokens
    once = shape.prompts * shape.context_tokens if layout == "shared" else 0
    return {
        "kv_bytes_read": cache_bytes(shape.sequences * tokens),
        "reused_bytes": cache_bytes(once) * (shape.samples - 1),
        "reused_footprint_bytes": cache_bytes(once),
    }


def _softmax(shape: AttentionShape, tokens: Numeric, repeat: int) -> Operation:
    """Return the one pass over the logits that scales them and takes their softmax."""
    moved = shape.logits_bytes(tokens)
    return Operation(
        name="attention_softmax",
        kind="elementwise",
        bytes_read=moved,
        bytes_written=moved,
        repeat=repeat,
    )
