"""Bytes that a cell moves and needs, and its sizes in the form of the accounts."""

from dataclasses import replace

from simulator.counts import memory
from simulator.counts.attention.shape import AttentionShape
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS, workspace_bytes
from simulator.evidence.measure.cells import (
    FLOAT32_BYTES,
    AttentionCell,
    Cell,
    ElementwiseCell,
    KernelCell,
    MemoryCell,
    StepCell,
)
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.workload import Workload


def attention_shape(cell: KernelCell, *, resident_blocks: int) -> AttentionShape:
    """Return the attention sizes of a cell, or of a layer of its step, for the accounts."""
    return AttentionShape(
        prompts=cell.prompts,
        samples=cell.samples,
        query_tokens=cell.query_tokens,
        context_tokens=cell.context_tokens,
        decoded_tokens=cell.decoded_tokens,
        heads=cell.heads,
        kv_heads=cell.kv_heads,
        key_width=cell.head_dim,
        value_width=cell.head_dim,
        cache_width=2 * cell.kv_heads * cell.head_dim,
        activation_bytes=DTYPE_BYTES[cell.dtype],
        kv_bytes=DTYPE_BYTES[cell.dtype],
        dtype=cell.dtype,
        resident_blocks=resident_blocks,
    )


def workload(cell: StepCell) -> Workload:
    """Return the workload of a step cell."""
    return Workload.grid(
        context_tokens=cell.context_tokens,
        samples=cell.samples,
        prompts=cell.prompts,
        query_tokens=cell.query_tokens,
        decoded_tokens=cell.decoded_tokens,
    )


def step_weights_bytes(cell: StepCell) -> float:
    """Return the bytes of a step cell's weights."""
    return memory.weights_bytes(cell.model, cell.implementation.setup(cell.dtype))


def call_bytes(cell: Cell) -> tuple[float, float]:
    """Return the bytes of one set of a cell's inputs, and the bytes that a call allocates."""
    if isinstance(cell, StepCell):
        setup, work = cell.implementation.setup(cell.dtype), workload(cell)
        inputs = step_weights_bytes(cell) + memory.kv_cache_bytes(cell.model, setup, work)
        workspace = memory.workspace_bytes(cell.model, setup, work, resident_blocks=1)
        extra = _attention_workspace(cell, attention_shape(cell, resident_blocks=1))
        # Sampling holds the logits, the mask, the probabilities and the noise at once.
        tokens = cell.sequences * cell.query_tokens
        logits = tokens * cell.model.vocab_size * DTYPE_BYTES[cell.dtype]
        return inputs, workspace + extra + 4 * logits
    if isinstance(cell, AttentionCell):
        layout = cell.implementation.layout
        if layout == "paged":  # whole pages
            context, decoded = (
                -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
                for tokens in (cell.context_tokens, cell.decoded_tokens)
            )
            cell = replace(cell, context_tokens=context, decoded_tokens=decoded)
        shape = attention_shape(cell, resident_blocks=1)
        context = shape.context_copy_bytes * (cell.samples if layout == "copies" else 1)
        return shape.query_bytes + context + shape.decoded_bytes, _attention_workspace(cell, shape)
    if isinstance(cell, MemoryCell):
        return cell.working_set_bytes, 0.0
    read, written = cell.moved
    return read, written * (2 if isinstance(cell, ElementwiseCell) else 1)


def _attention_workspace(cell: KernelCell, shape: AttentionShape) -> float:
    """Return a rough upper bound of a call's peak allocation. [bytes]."""
    tokens = cell.context_tokens + cell.decoded_tokens
    cache = shape.sequences * tokens * shape.cache_width * shape.kv_bytes
    group = shape.heads // shape.kv_heads
    outputs = 6 * shape.output_bytes + workspace_bytes(
        cell.kernel,
        prompts=shape.prompts,
        samples=shape.samples,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.key_width,
    )
    if cell.kernel == "standard_rebuilt":
        return float(outputs + cache)
    if cell.kernel == "standard_repeat_kv":
        return float(outputs + cache * group)
    if cell.kernel == "standard_math":
        # Everything in float32, KV heads repeated, the keys scaled, the logits.
        wide = FLOAT32_BYTES / shape.kv_bytes
        repeats = 1 + (group if group > 1 else 0) + group / 2
        return float(outputs + wide * (cache * repeats + 2 * shape.logits_bytes(tokens)))
    if cell.kernel.endswith("einsum"):
        return float(outputs + 4 * shape.logits_bytes(tokens))
    if cell.kernel == "bifurcated_flex" and cell.dtype == "fp32":
        return float(outputs + 4 * shape.rows * tokens * FLOAT32_BYTES * cell.samples)
    return float(outputs)
