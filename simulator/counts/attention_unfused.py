"""Attention whose logits pass through memory: the paper's einsum code and PyTorch's math path."""

from collections.abc import Callable

from simulator.counts.attention_shape import AttentionShape, present
from simulator.counts.operation import Operation
from simulator.inputs.workload import Execution, KvLayout
from simulator.numeric import Numeric


def einsum_standard(
    shape: AttentionShape, layout: KvLayout, execution: Execution, repeat: int
) -> list[Operation]:
    """Batched <q,K>, softmax, batched <w,V>; logits are written and read between them."""
    tokens = shape.context_tokens + shape.decoded_tokens
    products = _split_products(shape, "attention", layout, tokens, repeat)
    return [products[0], _softmax(shape, tokens, execution, repeat, eager_passes=3), products[1]]


def einsum_bifurcated(
    shape: AttentionShape, _layout: KvLayout, execution: Execution, repeat: int
) -> list[Operation]:
    """Two <q,K> products, one softmax over concatenated logits, two <w,V> products, a sum.

    Section 4.2 of the paper; the passes are those of its code (docs/equations.md): concatenate,
    scale, add the bias, softmax.
    """

    def product(name: str, tokens: Numeric, cached: Numeric, *, keys: bool) -> Operation:
        logits = shape.logits_bytes(tokens)
        width = shape.key_width if keys else shape.value_width
        kv_bytes = shape.keys_bytes(cached) if keys else shape.values_bytes(cached)
        exists = present(tokens)
        return Operation(
            name=name,
            kind="attention",
            flops=2 * shape.rows * tokens * width,
            bytes_read=((shape.query_bytes if keys else logits) + kv_bytes) * exists,
            bytes_written=(logits if keys else shape.output_bytes) * exists,
            kv_bytes_read=kv_bytes,
            launches=exists,
            dtype=shape.dtype,
            repeat=repeat,
        )

    m_c, m_d = shape.context_tokens, shape.decoded_tokens
    context, decoded = shape.prompts * m_c, shape.sequences * m_d
    both = present(m_c) * present(m_d)
    return [
        product("attention_scores_context", m_c, context, keys=True),
        product("attention_scores_suffix", m_d, decoded, keys=True),
        _softmax(shape, m_c + m_d, execution, repeat, eager_passes=4),
        product("attention_values_context", m_c, context, keys=False),
        product("attention_values_suffix", m_d, decoded, keys=False),
        Operation(
            name="attention_sum",
            kind="elementwise",
            bytes_read=2 * shape.output_bytes * both,
            bytes_written=shape.output_bytes * both,
            launches=both,
            repeat=repeat,
        ),
    ]


def math_standard(
    shape: AttentionShape, layout: KvLayout, execution: Execution, repeat: int
) -> list[Operation]:
    """PyTorch's SDPA math path: KV heads repeated, keys scaled, then two batched products.

    Compiled, the repeats and the scaling are folded into the products.
    """
    tokens = shape.context_tokens + shape.decoded_tokens
    if execution != "eager":
        return einsum_standard(shape, layout, execution, repeat)
    group = shape.heads // shape.kv_heads
    cached = shape.sequences * tokens
    keys, values = shape.keys_bytes(cached), shape.values_bytes(cached)
    repeated_keys, repeated_values = keys * group, values * group
    operations = []
    if group > 1:
        operations.append(
            Operation(
                name="kv_repeat",
                kind="copy",
                bytes_read=keys + values,
                bytes_written=repeated_keys + repeated_values,
                kv_bytes_read=keys + values,
                launches=2,
                repeat=repeat,
            )
        )
    scale = Operation(
        name="attention_scale",
        kind="elementwise",
        bytes_read=shape.query_bytes + repeated_keys,
        bytes_written=shape.query_bytes + repeated_keys,
        kv_bytes_read=0 if group > 1 else keys,
        launches=2,
        repeat=repeat,
    )
    logits = shape.logits_bytes(tokens)
    scores = Operation(
        name="attention_scores",
        kind="attention",
        flops=2 * shape.rows * tokens * shape.key_width,
        bytes_read=shape.query_bytes + repeated_keys,
        bytes_written=logits,
        dtype=shape.dtype,
        repeat=repeat,
    )
    values = Operation(
        name="attention_values",
        kind="attention",
        flops=2 * shape.rows * tokens * shape.value_width,
        bytes_read=logits + repeated_values,
        bytes_written=shape.output_bytes,
        kv_bytes_read=0 if group > 1 else values,
        dtype=shape.dtype,
        repeat=repeat,
    )
    softmax = _softmax(shape, tokens, execution, repeat, eager_passes=1)
    return [*operations, scale, scores, softmax, values]


def _split_products(
    shape: AttentionShape, name: str, layout: KvLayout, tokens: Numeric, repeat: int
) -> tuple[Operation, Operation]:
    """Return <q,K> and <w,V> as two kernels with the logits in memory between them."""
    logits = shape.logits_bytes(tokens)
    once = shape.prompts * shape.context_tokens if layout == "shared" else 0

    def product(
        suffix: str,
        width: int,
        cache_bytes: Callable[[Numeric], Numeric],
        read: Numeric,
        written: Numeric,
    ) -> Operation:
        kv_bytes = cache_bytes(shape.sequences * tokens)
        return Operation(
            name=f"{name}_{suffix}",
            kind="attention",
            flops=2 * shape.rows * tokens * width,
            bytes_read=read + kv_bytes,
            bytes_written=written,
            kv_bytes_read=kv_bytes,
            reused_bytes=cache_bytes(once) * (shape.samples - 1),
            reused_footprint_bytes=cache_bytes(once),
            dtype=shape.dtype,
            repeat=repeat,
        )

    return (
        product("scores", shape.key_width, shape.keys_bytes, shape.query_bytes, logits),
        product("values", shape.value_width, shape.values_bytes, logits, shape.output_bytes),
    )


def _softmax(
    shape: AttentionShape,
    tokens: Numeric,
    execution: Execution,
    repeat: int,
    *,
    eager_passes: int,
) -> Operation:
    """Return the passes over the logits: one fused kernel, or ``eager_passes`` kernels."""
    passes = eager_passes if execution == "eager" else 1
    moved = passes * shape.logits_bytes(tokens)
    return Operation(
        name="attention_softmax",
        kind="elementwise",
        bytes_read=moved,
        bytes_written=moved,
        launches=passes,
        repeat=repeat,
    )
