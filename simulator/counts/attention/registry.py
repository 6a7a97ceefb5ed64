"""Attention of one layer in one decode step: an account for each implementation.

Symbols as in the paper: b samples, n query tokens, h query heads, g KV heads, k head width, m_c
context and m_d decoded tokens, s bytes per element; P prompts multiply every term. All accounts
are per tensor-parallel rank.

Fused forms are here; plain PyTorch, whose accounts equal a trace of the code, is in
:mod:`simulator.counts.attention.plain`.
"""

from dataclasses import replace

from simulator.counts.attention.einsum import einsum_bifurcated, einsum_standard
from simulator.counts.attention.flash import (
    PARTIAL_BYTES,
    ROWS_PER_BLOCK,
    flash_bifurcated,
    flash_splits,
    flash_standard,
    rebuild,
    standard_read,
)
from simulator.counts.attention.plain import pytorch_operations
from simulator.counts.attention.shape import AttentionShape, present
from simulator.counts.operation import Operation
from simulator.inputs.dtypes import is_low_precision
from simulator.inputs.workload import Attention, Execution, Kernel, KvLayout
from simulator.numeric import Numeric, surely_positive

__all__ = ["PARTIAL_BYTES", "ROWS_PER_BLOCK", "attention_operations", "flash_splits"]


def attention_operations(
    shape: AttentionShape,
    *,
    attention: Attention,
    kernel: Kernel,
    kv_layout: KvLayout,
    execution: Execution,
    repeat: int,
) -> list[Operation]:
    """List the operations of one layer's attention.

    Parameters
    ----------
    kv_layout
        How the context cache lies under standard attention; bifurcated attention always keeps one.
    execution
        ``eager`` is plain PyTorch, one kernel for each operation; the others fuse them.
    repeat
        Layers that have this shape.
    """
    if kernel != "ideal" and execution == "eager":
        operations = pytorch_operations(
            shape, attention=attention, kernel=kernel, kv_layout=kv_layout, repeat=repeat
        )
    elif attention == "bifurcated":
        operations = _bifurcated(shape, kernel, repeat)
    else:
        operations = [rebuild(shape, repeat)] if kv_layout == "rebuilt" else []
        operations += _standard(shape, kernel, kv_layout, repeat)
    tokens = shape.context_tokens + shape.decoded_tokens
    if not surely_positive(tokens):
        operations = [_over_keys(operation, present(tokens)) for operation in operations]
    if is_low_precision(shape.kv_bytes):
        return [replace(operation, low_precision_cache=True) for operation in operations]
    return operations


def _over_keys(operation: Operation, exists: Numeric) -> Operation:
    """Return an operation that is launched only where there are keys at all to attend to."""
    return replace(
        operation,
        bytes_read=operation.bytes_read * exists,
        bytes_written=operation.bytes_written * exists,
        launches=operation.launches * exists,
        thread_blocks=operation.thread_blocks * exists,
        sequences=operation.sequences * exists,
    )


def _standard(
    shape: AttentionShape, kernel: Kernel, layout: KvLayout, repeat: int
) -> list[Operation]:
    """Return fused standard attention."""
    if kernel == "ideal":
        # Equation 5: b g k (m_c + m_d) of K and of V.
        return [standard_read(shape, "attention", layout, repeat, written=shape.output_bytes)]
    if kernel == "flash":
        return flash_standard(shape, layout, repeat)
    # Compiled, the math path's repeats and scaling are folded into its products.
    return einsum_standard(shape, layout, repeat)


def _bifurcated(shape: AttentionShape, kernel: Kernel, repeat: int) -> list[Operation]:
    """Return fused bifurcated attention."""
    if kernel == "ideal":
        return [_ideal_bifurcated(shape, repeat)]
    if kernel == "flash":
        return flash_bifurcated(shape, repeat)
    # The math path has no bifurcated form of its own: written out, it is the paper's einsum.
    return einsum_bifurcated(shape, repeat)


def _ideal_bifurcated(shape: AttentionShape, repeat: int) -> Operation:
    """Equation 6: g k (m_c + b m_d) of K and of V; of a tree each split level once per node."""
    parts = shape.parts
    kv_bytes = shape.cached_bytes(sum(part.caches * part.tokens for part in parts))
    return Operation(
        name="attention",
        kind="attention",
        flops=shape.flops(shape.context_tokens + shape.decoded_tokens),
        bytes_read=shape.query_bytes + kv_bytes,
        bytes_written=shape.output_bytes,
        kv_bytes_read=kv_bytes,
        reused_bytes=shape.cached_bytes(sum(part.repeated_tokens for part in parts)),
        reused_footprint_bytes=shape.cached_bytes(sum(part.stored_tokens for part in parts)),
        dtype=shape.dtype,
        repeat=repeat,
    )
