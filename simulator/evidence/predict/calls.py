"""Predict rows of single calls of a library: which operations each kind of row timed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from simulator.counts.attention.registry import attention_operations
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.collectives import all_reduce
from simulator.counts.operation import Operation
from simulator.evidence.predict.attention_kernels import (
    attention_kernel,
    prefill_block_rows,
    prefill_blocks,
    small_blocks,
)
from simulator.evidence.rows import plausibility
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.limits import resident_blocks

# The GEMM rows' harness cycles through several copies of the weights: L2 holds all of them or, as
# lines go in the order they came, none. Rows turn cold between 4 and 8 MB on A100 and H100 (40 and
# 50 MiB of L2) and between 12.6 and 16.8 MB on L40S (96 MiB): as if there were 7 copies.
GEMM_COPIES = 7
# Of the elementwise kernels, the one that gathers rows of a table.
GATHER = "embedding"


def _array(rows: pd.DataFrame, name: str) -> "np.ndarray":
    """Return a column as numbers."""
    return np.asarray(rows[name], dtype=np.float64)


def _dtypes(rows: pd.DataFrame) -> tuple[Dtype, Dtype]:
    """Return the formats of the products and of the cache."""
    first = rows.iloc[0]
    return cast("Dtype", first["dtype"]), cast("Dtype", first.get("kv_dtype", first["dtype"]))


def _attention_shape(
    rows: pd.DataFrame, gpu: HardwareProfile, *, context: str, samples: bool
) -> AttentionShape:
    """Return the sizes of attention rows: ``batch`` samples of one context or as many prompts."""
    dtype, kv_dtype = _dtypes(rows)
    batch, width = _array(rows, "batch"), _array(rows, "head_dim")
    heads, kv_heads = _array(rows, "q_heads"), _array(rows, "kv_heads")
    compute: Dtype = dtype if DTYPE_BYTES[dtype] >= DTYPE_BYTES["bf16"] else "bf16"
    resident: Any = resident_blocks(gpu)
    if attention_kernel(str(rows["kernel"].iloc[0]), gpu) == "fa2":
        resident = np.where(heads > kv_heads, resident, 1)
    return AttentionShape(
        prompts=1 if samples else batch,
        samples=batch if samples else 1,
        query_tokens=1,
        context_tokens=_array(rows, context),
        decoded_tokens=_array(rows, "suffix_len") if "suffix_len" in rows else 0,
        heads=cast("int", heads),
        kv_heads=cast("int", kv_heads),
        key_width=cast("int", width),
        value_width=cast("int", width),
        cache_width=cast("int", 2 * kv_heads * width),
        activation_bytes=DTYPE_BYTES[compute],
        kv_bytes=DTYPE_BYTES[kv_dtype],
        dtype=compute,
        resident_blocks=resident,
    )


def _cache_write(shape: AttentionShape) -> Operation:
    """Return the write of the new token's keys and values, which the rows include."""
    values = shape.sequences * shape.cache_width
    return Operation(
        name="kv_write",
        kind="copy",
        bytes_read=values * shape.activation_bytes,
        bytes_written=values * shape.kv_bytes,
        low_precision_cache=is_low_precision(shape.kv_bytes),
    )


def replayed(operation: Operation) -> Operation:
    """Return the operation as a replay finds it: what fits L2 is still there from the last one."""
    return replace(
        operation,
        reused_bytes=operation.bytes_moved - operation.scratch_bytes,
        reused_footprint_bytes=operation.kv_bytes_read,
    )


def _decode(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Cache write, attention and combine, replayed back to back."""
    kernel = attention_kernel(str(rows["kernel"].iloc[0]), gpu)
    shape = _attention_shape(rows, gpu, context="kv_len", samples=False)
    operations = [_cache_write(shape), *_standard(shape)]
    group = shape.heads / shape.kv_heads
    if kernel == "fa2":
        batch = _array(rows, "batch")
        copied = ((group > 1) & (_array(rows, "kv_heads") > 1) & (batch > 1)).astype(np.float64)
        operations.append(
            Operation(
                name="query_pack",
                kind="copy",
                bytes_read=copied * (shape.query_bytes + shape.output_bytes),
                bytes_written=copied * (shape.query_bytes + shape.output_bytes),
                launches=2 * copied,
            )
        )
    share = small_blocks(group) if kernel == "flashinfer" and shape.kv_bytes > 1 else 1.0
    return [
        replace(replayed(item), thread_blocks=item.thread_blocks * share)
        if item.name == "attention"
        else item
        for item in operations
    ]


def _standard(shape: AttentionShape) -> list[Operation]:
    """Return flash decoding over own copies of the keys."""
    return attention_operations(
        shape,
        attention="standard",
        kernel="flash",
        kv_layout="copies",
        execution="graph",
        repeat=1,
    )


def _prefill(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Write the keys and values, then one causal call, its last block as long as all its keys."""
    dtype, kv_dtype = _dtypes(rows)
    batch, heads, kv_heads = (_array(rows, name) for name in ("batch", "q_heads", "kv_heads"))
    width, queries, keys = (_array(rows, name) for name in ("head_dim", "q_len", "kv_len"))
    element = DTYPE_BYTES[dtype]
    row = batch * queries * heads * width * element
    kv_bytes = 2 * batch * keys * kv_heads * width * DTYPE_BYTES[kv_dtype]
    pairs = plausibility.attended_pairs(rows).to_numpy(dtype=np.float64)
    kernel = attention_kernel(str(rows["kernel"].iloc[0]), gpu)
    block_rows = prefill_block_rows(kernel, gpu)
    new_values = 2 * batch * queries * kv_heads * width
    write = Operation(
        name="kv_write",
        kind="copy",
        bytes_read=new_values * element,
        bytes_written=new_values * DTYPE_BYTES[kv_dtype],
    )
    attention = Operation(
        name="prefill_attention",
        kind="prefill_attention",
        flops=4 * batch * heads * width * pairs,
        bytes_read=row + kv_bytes,
        bytes_written=row,
        kv_bytes_read=kv_bytes,
        thread_blocks=prefill_blocks(kernel, block_rows, batch, heads, kv_heads, queries),
        longest_block_flops=4 * block_rows * keys * width,
        dtype=dtype,
    )
    # A replay finds in L2 what the last one left there, if both kernels' fits.
    moved = write.bytes_moved + attention.bytes_moved
    return [
        replace(item, reused_bytes=item.bytes_moved, reused_footprint_bytes=moved)
        for item in (write, attention)
    ]


def _gemm(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """One product, its weights in L2 where the harness' copies all fit."""
    dtype, _ = _dtypes(rows)
    m, n, k = (_array(rows, name) for name in ("m", "n", "k"))
    weights = n * k * DTYPE_BYTES[dtype]
    return [
        Operation(
            name="gemm",
            kind="gemm",
            flops=2 * m * n * k,
            bytes_read=m * k * DTYPE_BYTES[dtype] + weights,
            bytes_written=m * n * 2,
            weight_bytes_read=weights,
            reused_bytes=np.where(GEMM_COPIES * weights <= gpu.l2_bytes, weights, 0.0),
            m=m,
            n=n,
            k=k,
            dtype=dtype,
        )
    ]


def _elementwise(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """One kernel that streams its bytes, replayed on the same ones."""
    moved = _array(rows, "bytes")
    return [
        Operation(
            name="elementwise",
            kind="gather" if rows["op"].iloc[0] == GATHER else "elementwise",
            bytes_read=moved,
            reused_bytes=moved,
            reused_footprint_bytes=moved,
        )
    ]


def _collective(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """One collective; those that are not an all-reduce send half of what it sends."""
    ranks = int(rows["num_gpus"].iloc[0])
    operation = all_reduce(
        "all_reduce", message_bytes=_array(rows, "message_bytes"), ranks=ranks, repeat=1
    )[0]
    halves = np.where(rows["collective"] == "all_reduce", 1.0, 0.5)
    return [replace(operation, link_bytes=operation.link_bytes * halves)]


def _shared_prefix(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Read own copies, or the prefix once and the suffixes, and merge them."""
    shape = _attention_shape(rows, gpu, context="prefix_len", samples=True)
    write = _cache_write(shape)
    if rows["mode"].iloc[0] == "standard":
        unsplit = replace(shape, resident_blocks=1)
        return [
            write,
            *(replayed(item) if item.name == "attention" else item for item in _standard(unsplit)),
        ]
    parts = attention_operations(
        replace(shape, resident_blocks=1),
        attention="bifurcated",
        kernel="flash",
        kv_layout="shared",
        execution="graph",
        repeat=1,
    )
    # Replays find the keys of both parts in L2 where both fit.
    together = sum(item.kv_bytes_read for item in parts)
    return [
        write,
        *(
            replace(replayed(item), reused_footprint_bytes=together)
            if item.kind == "attention"
            else item
            for item in parts
        ),
    ]


Builder = Callable[[pd.DataFrame, HardwareProfile], list[Operation]]
BUILDERS: dict[RowKind, Builder] = {
    "decode_attention": _decode,
    "prefill_attention": _prefill,
    "gemm": _gemm,
    "elementwise": _elementwise,
    "all_reduce": _collective,
    "shared_prefix_attention": _shared_prefix,
}
