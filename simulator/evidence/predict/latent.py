"""Predict rows of latent attention (MLA): decode and prefill calls, and whole attention modules.

Decoding attends in the latent space: one KV head whose keys are the cached vectors and whose values
are those without their rotary part. A row's ``scope`` says what else was timed; a module has all.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from simulator.counts.attention.flash import flash_part
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.pieces import Shard
from simulator.counts.transformer import PREFILL_ROWS_PER_BLOCK, attention_input, attention_output
from simulator.evidence.predict.groups import library_of, model, numbers, profile, replayed
from simulator.evidence.rows.kinds import KINDS, RowKind, attended_pairs, latent_widths
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import Setup
from simulator.timing.limits import peak_flops_per_s, resident_blocks

# The model whose attention the rows timed, with the local heads of a rank.
MODEL = "deepseek-v3"
# The operations of a module by the words of a scope. The norm before a module is outside.
SCOPE = {
    "rope": "rotary",
    "kv_write": "kv_write",
    "absorb_q": "latent_absorb",
    "absorb_v": "latent_value",
}
OUTSIDE = "attention_norm"
# A host that launches these calls one by one takes 100 to 215 us, now and then several times that:
# rows tell the kernel's time if they took this long, and half of it at published peaks.
HOST_BOUND_S = 300e-6


def host_bound(rows: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows the host launched one by one and may have delayed."""
    gpus, known = rows["gpu_id"].map(profile), cast("Any", KINDS[kind])
    bytes_s = known.least_bytes(rows) / gpus.map(lambda gpu: gpu.memory_bandwidth_bytes_per_s)
    flops_s = known.least_flops(rows) / gpus.map(lambda gpu: peak_flops_per_s(gpu, "bf16")[0])
    is_long = (rows["time_s"] >= HOST_BOUND_S) & (np.maximum(bytes_s, flops_s) >= HOST_BOUND_S / 2)
    return (rows["timing"] == "eager") & ~is_long


def is_typical(row: "pd.Series[Any]") -> bool:
    """Return whether a decode row is of a library that has a kernel for its cache.

    FlashAttention has none for latent caches of 8 bits: on H100 SGLang then reads 280 GB/s.
    """
    low_precision = is_low_precision(DTYPE_BYTES[row["kv_dtype"]])
    return row["kernel"] != "flash_attention" or not low_precision


def decode(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return one decode call and what its scope adds to it."""
    shard = _shard(rows.assign(q_len=1))
    return _timed(rows, shard, _decoded(rows, shard, gpu), absorbed=True)


def prefill(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return one prefill call and what its scope adds to it."""
    shard = _shard(rows)
    return _timed(rows, shard, [_prefilled(rows, shard)], absorbed=False)


def module(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return a whole attention module: its projections, norms, rotary, attention and output."""
    rows = rows.assign(kv_len=rows["past_len"] + rows["q_len"])
    call = decode if rows["phase"].iloc[0] == "decode" else prefill
    return call(rows, gpu)


def _shard(rows: pd.DataFrame) -> Shard:
    """Return the model with the rows' local heads and latent widths, and their tokens."""
    known, first = model(MODEL), rows.iloc[0]
    widths = {"kv_rank": numbers(rows, "latent_dim"), "rope_dim": numbers(rows, "rope_dim")}
    inner = cast("Any", known.latent).but(**widths)
    formats = {"weight_dtype": first.get("gemm_dtype", "bf16"), "kv_dtype": first["kv_dtype"]}
    return Shard(
        model=known.but(heads=numbers(rows, "heads"), latent=inner),
        setup=Setup.read(formats),
        tokens=numbers(rows, "batch") * numbers(rows, "q_len"),
    )


def _timed(
    rows: pd.DataFrame, shard: Shard, attention: Sequence[Operation], *, absorbed: bool
) -> list[Operation]:
    """Return attention and the operations around it that were timed, as in a replay.

    A replay finds everything in L2, weights too, if it all fits. TensorRT-LLM rotates in the kernel
    that writes the cache.
    """
    fused = ("rotary",) if library_of(str(rows["framework"].iloc[0])) == "trtllm" else ()
    module = [
        *attention_input(shard, absorbed=absorbed),
        *attention_output(shard, absorbed=absorbed),
    ]
    if "scope" in rows:
        scope = str(rows["scope"].iloc[0]).split("+")
        around = [item for item in module if item.name in map(SCOPE.get, scope)]
    else:
        around = [item for item in module if item.name != OUTSIDE]
    timed = [*around, *attention]
    together = sum(item.bytes_moved for item in timed)
    return [
        replace(replayed(item, together), launches=item.launches * (item.name not in fused))
        for item in timed
    ]


def _decoded(rows: pd.DataFrame, shard: Shard, gpu: HardwareProfile) -> list[Operation]:
    """Return flash decoding in the latent space.

    TensorRT-LLM does not split keys over blocks before Hopper: on A100 one sequence takes as long
    as 32.
    """
    value = numbers(rows, "latent_dim")
    old = gpu.vendor == "NVIDIA" and float(gpu.compute_capability) < 9  # noqa: PLR2004
    splits = not (old and library_of(str(rows["framework"].iloc[0])) == "trtllm")
    shape = absorbed_shape(
        rows,
        value + numbers(rows, "rope_dim"),
        value,
        shard.setup.kv_dtype,
        context_tokens=numbers(rows, "kv_len"),
        resident_blocks=resident_blocks(gpu) if splits else 1,
    )
    attention, combine = (
        replace(item, low_precision_cache=is_low_precision(shape.kv_bytes))
        for item in flash_part(shape, shape.whole(), lse=False)
    )
    return [replace(attention, kind="latent_attention"), combine]


def absorbed_shape(
    rows: pd.DataFrame, key: Any, value: Any, kv_dtype: Dtype, **sizes: Any
) -> AttentionShape:
    """Return attention in the latent space, in 16 bits: one KV head of cached vectors.

    Parameters
    ----------
    rows
        Rows with their batch and heads.
    key, value
        Widths of the cached vectors, and of those without their rotary part.
    kv_dtype
        Format of the cache.
    sizes
        Context tokens and resident blocks, and query tokens if more than one.
    """
    return AttentionShape(
        **{"query_tokens": 1, **sizes},
        prompts=numbers(rows, "batch"),
        samples=1,
        decoded_tokens=0,
        heads=cast("int", numbers(rows, "heads")),
        kv_heads=1,
        key_width=key,
        value_width=value,
        cache_width=key,
        activation_bytes=DTYPE_BYTES["bf16"],
        kv_bytes=DTYPE_BYTES[kv_dtype],
        dtype="bf16",
    )


def _prefilled(rows: pd.DataFrame, shard: Shard) -> Operation:
    """Return a causal call, over each head's expanded keys and values or over the cache."""
    batch, queries, keys = (numbers(rows, name) for name in ("batch", "q_len", "kv_len"))
    heads, pairs = shard.heads, attended_pairs(rows).to_numpy(dtype=np.float64)
    key, value = (np.asarray(width, dtype=np.float64) for width in latent_widths(rows))
    expanded = rows["form"].iloc[0] == "expanded_192_128"
    kv_heads, held = (heads, heads * (key + value)) if expanded else (1, key)
    kv_bytes = batch * keys * held * shard.element_bytes
    blocks = np.ceil(queries * heads / kv_heads / PREFILL_ROWS_PER_BLOCK)
    return Operation(
        name="prefill_attention",
        kind="latent_prefill",
        flops=2 * batch * heads * pairs * (key + value),
        bytes_read=shard.rows(heads) * key + kv_bytes,
        bytes_written=shard.rows(heads) * value,
        kv_bytes_read=kv_bytes,
        thread_blocks=batch * kv_heads * blocks,
        head_width=(key + value) / 2,
        longest_block_flops=2 * PREFILL_ROWS_PER_BLOCK * keys * (key + value),
        dtype=shard.dtype,
        low_precision_cache=is_low_precision(DTYPE_BYTES[shard.setup.kv_dtype]),
    )
