"""Predict rows of latent attention (MLA): decode and prefill calls, and whole attention modules.

Decoding attends in the latent space: one KV head whose keys are the cached vectors and whose values
are those without their rotary part. A row's ``scope`` says what else was timed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from simulator.counts.attention import latent
from simulator.counts.attention.flash import flash_part
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.pieces import Shard, cache_write, per_head, rotary
from simulator.counts.transformer import (
    PREFILL_ROWS_PER_BLOCK,
    attention_input,
    attention_output,
)
from simulator.evidence.predict.groups import library_of, model, profile
from simulator.evidence.rows.kinds import (
    EXPANDED_WIDTHS,
    KINDS,
    RowKind,
    attended_pairs,
    latent_widths,
)
from simulator.inputs.dtypes import DTYPE_BYTES, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import LatentAttention
from simulator.inputs.setup import Setup
from simulator.numeric import Numeric
from simulator.timing.limits import peak_flops_per_s, resident_blocks

# The model whose attention the rows timed, with the local heads of a rank.
MODEL = "deepseek-v3"
# A host that launches these calls one by one takes 100 to 215 us, now and then several times that.
# Rows tell the kernel's time if they took this long, and half of it at published peaks.
HOST_BOUND_S = 300e-6


def decode(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return one decode call and what its scope adds to it, replayed back to back."""
    shard, batch = _shard(rows, rows["batch"], "bf16"), _array(rows, "batch")
    return _scoped(rows, shard, _decoded(rows, shard, batch, _array(rows, "kv_len"), gpu))


def prefill(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return one prefill call and what its scope adds to it."""
    shard = _shard(rows, rows["batch"] * rows["q_len"], "bf16")
    key, value = (np.asarray(width, dtype=np.float64) for width in latent_widths(rows))
    pairs = attended_pairs(rows).to_numpy(dtype=np.float64)
    expanded = str(rows["form"].iloc[0]).startswith("expanded")
    attention = _prefilled(rows, shard, _array(rows, "kv_len"), pairs, (key, value), expanded)
    # Prefill has no products to absorb: its keys and values were expanded before.
    return [item for item in _scoped(rows, shard, [attention]) if item.kind != "gemm"]


def module(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return a whole attention module: its projections, norms, rotary, attention and output."""
    tokens, decoding = rows["batch"] * rows["q_len"], rows["phase"].iloc[0] == "decode"
    shard = _shard(rows, tokens, str(rows["gemm_dtype"].iloc[0]))
    past, queries = _array(rows, "past_len"), _array(rows, "q_len")
    if decoding:
        middle = _decoded(rows, shard, _array(rows, "batch"), past + queries, gpu)
    else:
        pairs = queries * (past + (queries + 1) / 2)
        middle = [_prefilled(rows, shard, past + queries, pairs, EXPANDED_WIDTHS, expanded=True)]
    # The norm before the module, which also adds the residual, is outside.
    inside = attention_input(shard, absorbed=decoding)[1:]
    return [*inside, *middle, *attention_output(shard, absorbed=decoding)]


def host_bound(rows: pd.DataFrame, kind: RowKind) -> "pd.Series[bool]":
    """Return which rows the host launched one by one and may have delayed."""
    least_s = pd.Series(0.0, index=rows.index)
    for gpu_id, part in rows.groupby("gpu_id"):
        gpu = profile(str(gpu_id))
        bytes_s = KINDS[kind].least_bytes(part) / gpu.memory_bandwidth_bytes_per_s
        flops_s = KINDS[kind].least_flops(part) / peak_flops_per_s(gpu, "bf16")[0]
        least_s[part.index] = np.maximum(bytes_s, flops_s)
    is_long = (rows["time_s"] >= HOST_BOUND_S) & (least_s >= HOST_BOUND_S / 2)
    return (rows["timing"] == "eager") & ~is_long


def is_slow_path(row: "pd.Series[Any]") -> bool:
    """Return whether a decode row is of a library that has no kernel for its cache.

    FlashAttention has none for latent caches of 8 bits: on H100 SGLang then reads 280 GB/s.
    """
    return row["kernel"] == "flash_attention" and is_low_precision(DTYPE_BYTES[row["kv_dtype"]])


def _array(rows: pd.DataFrame, name: str) -> "np.ndarray":
    """Return a column as numbers."""
    return np.asarray(rows[name], dtype=np.float64)


def _shard(rows: pd.DataFrame, tokens: "pd.Series[float]", weights: str) -> Shard:
    """Return the model with the rows' local heads and latent widths, and their tokens."""
    known = model(MODEL)
    widths = {}
    if "latent_dim" in rows:
        widths = {"kv_rank": _array(rows, "latent_dim"), "rope_dim": _array(rows, "rope_dim")}
    inner = cast("LatentAttention", known.latent).model_copy(update=widths)
    return Shard(
        model=known.model_copy(update={"heads": _array(rows, "heads"), "latent": inner}),
        setup=Setup.model_validate({"weight_dtype": weights, "kv_dtype": rows["kv_dtype"].iloc[0]}),
        tokens=np.asarray(tokens, dtype=np.float64),
    )


def _scoped(
    rows: pd.DataFrame, shard: Shard, attention: Sequence[Operation]
) -> list[Operation]:
    """Return attention with the kernels that the rows' scope names around it."""
    scope = str(rows["scope"].iloc[0])
    inner = cast("LatentAttention", shard.model.latent)
    around = []
    if "rope" in scope:
        around.append(rotary(shard, (shard.heads + 1) * inner.rope_dim, inner.rope_dim))
    if "kv_write" in scope:
        around.append(cache_write(shard, inner.kv_rank + inner.rope_dim))
    if "absorb_q" in scope:
        around.append(per_head(shard, "latent_absorb", inner.nope_dim, inner.kv_rank))
    if "absorb_v" in scope:
        around.append(latent.value_projection(shard, inner))
    return [*around, *attention]


def _decoded(
    rows: pd.DataFrame, shard: Shard, batch: Numeric, keys: Numeric, gpu: HardwareProfile
) -> list[Operation]:
    """Return flash decoding in the latent space; a replay finds in L2 what fits there."""
    key, value = latent.absorbed_widths(cast("LatentAttention", shard.model.latent))
    shape = AttentionShape(
        prompts=batch,
        samples=1,
        query_tokens=1,
        context_tokens=keys,
        decoded_tokens=0,
        heads=shard.heads,
        kv_heads=1,
        key_width=key,
        value_width=value,
        cache_width=key,
        activation_bytes=shard.element_bytes,
        kv_bytes=DTYPE_BYTES[shard.setup.kv_dtype],
        dtype=shard.dtype,
        resident_blocks=resident_blocks(gpu) if _splits(rows, gpu) else 1,
    )
    attention, combine = flash_part(shape, shape.whole(), lse=False)
    moved = attention.bytes_moved - attention.scratch_bytes
    return [
        replace(
            attention,
            kind="latent_attention",
            reused_bytes=moved,
            reused_footprint_bytes=moved,
        ),
        combine,
    ]


def _splits(rows: pd.DataFrame, gpu: HardwareProfile) -> bool:
    """Return whether a kernel splits the keys of a sequence over thread blocks.

    TensorRT-LLM's does not on GPUs before Hopper: on A100 one sequence takes as long as 32.
    """
    old = float(gpu.compute_capability or 0) < 9  # noqa: PLR2004
    return not (old and library_of(str(rows["framework"].iloc[0])) == "trtllm")


def _prefilled(
    rows: pd.DataFrame,
    shard: Shard,
    keys: Numeric,
    pairs: Numeric,
    widths: tuple[Numeric, Numeric],
    expanded: bool,  # noqa: FBT001
) -> Operation:
    """Return a causal call, over each head's expanded keys and values or over the cache.

    Parameters
    ----------
    keys, pairs
        Keys of each prompt, and its pairs of query and key.
    widths
        Of queries and keys, and of values and outputs.
    """
    batch, heads, (key, value) = _array(rows, "batch"), shard.heads, widths
    queries = _array(rows, "q_len")
    row = shard.rows(heads)
    per_key = heads * (key + value) if expanded else key
    kv_bytes = batch * keys * per_key * shard.element_bytes
    moved = row * (key + value) + kv_bytes
    row_blocks = (
        heads * np.ceil(queries / PREFILL_ROWS_PER_BLOCK)
        if expanded
        else np.ceil(queries * heads / PREFILL_ROWS_PER_BLOCK)
    )
    return Operation(
        name="prefill_attention",
        kind="latent_prefill",
        flops=2 * batch * heads * pairs * (key + value),
        bytes_read=row * key + kv_bytes,
        bytes_written=row * value,
        kv_bytes_read=kv_bytes,
        thread_blocks=batch * row_blocks,
        longest_block_flops=2 * PREFILL_ROWS_PER_BLOCK * keys * (key + value),
        reused_bytes=moved,
        reused_footprint_bytes=moved,
        dtype=shard.dtype,
    )
