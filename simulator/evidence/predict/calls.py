"""Predict rows of single library calls: the operations that each kind of row timed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Kind, Operation, streamed
from simulator.counts.pieces import all_gather, all_reduce, quantise
from simulator.counts.transformer import PREFILL_ROWS_PER_BLOCK
from simulator.counts.transformer import attention as attention_of
from simulator.evidence.predict import experts, latent, linear, sparse
from simulator.evidence.predict.groups import (
    Group,
    Prepared,
    library_of,
    numbers,
    profile,
    replayed,
)
from simulator.evidence.rows import kinds
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import DTYPE_BYTES, PRECISIONS, Dtype, Precision, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import Attention, Execution, Setup
from simulator.numeric import Numeric
from simulator.timing.constants import ATTENTION_KERNELS, Key, Variant, variants_of
from simulator.timing.limits import resident_blocks, runs_trtllmgen

# The GEMM rows' harness cycles through copies of the weights: L2 holds all of them or, because it
# evicts lines in order, none. With six, rows turn cold between 4 and 8 MB on A100 and H100 (40 and
# 50 MiB of L2) and between 12.6 and 16.8 MB on L40S (96 MiB): as if there were one more, for the
# other operands.
OTHER_OPERANDS = 1
_SERIES = ("gpu_id", "framework", "kernel", "dtype")
# SGLang's static quantisation is four plain operations of PyTorch: to fp32, times the scale, clamp,
# to fp8. They move 27 bytes a value where one kernel moves 3.
PLAIN_QUANTISE_LAUNCHES, PLAIN_QUANTISE_BYTES = 4, 27 / 3
# Time of a thread block that knows the scale, over that of one that finds it first: on H100 16,384
# rows of 256 values take vLLM's static kernel 12 us and its dynamic one 27 us.
STATIC_BLOCK_TIME = 0.4
# One scale for a whole tensor (vLLM's fp8 products): a block finds the largest of its row in steps
# of so many values, and tells it to all others, in as long as so many steps more. Then a second
# kernel reads the row again. 16,384 rows take 110 to 123 us up to 2,048 values, 64 to 76 us more
# for each further 2,048 (H200 and B200, products of next to no columns).
ONE_SCALE_STEP, ONE_SCALE_START = 2048, 0.77
# TensorRT-LLM's rows find the scales of a dynamic quantisation in four plain operations.
SCALES, SCALES_LAUNCHES = "absmax_scale", 4
# Compute capabilities with 100 KiB of shared memory per SM, where FlashAttention-2 takes 64 query
# rows of a causal call.
SMALL_FLASH2_TILES = ("8.6", "8.9")
# FlashInfer decodes groups of fewer query heads than this without tensor cores, in smaller blocks.
TENSOR_CORE_GROUP = 4
# Time of such a block over that of another: on L40S 32,768 take 189 us, 16,384 others 225 us.
SMALL_BLOCK_TIME = 0.42


def prepare(rows: pd.DataFrame, kind: RowKind) -> Prepared:
    """Turn calls of one kind into groups, one per GPU, library and number format."""
    builder = BUILDERS.get(kind)
    if builder is None:
        why = f"{kind} rows measure a rate, not a call"
        return Prepared([], dict.fromkeys(rows.index, why))
    groups: list[Group] = []
    skipped = _not_kernel_times(rows, kind)
    hosts = rows[rows["host_bound"] == 1] if "host_bound" in rows else rows[:0]
    hidden = set(zip(*(hosts[name] for name in _SERIES), strict=True))
    rows = rows.drop(index=list(skipped))
    if kind == "sparse_attention":
        rows = sparse.as_read(rows)
    shared = (*_SERIES, "timing", *kinds.VALUES["shared"])
    keys = [rows[name].astype(str) for name in shared if name in rows]
    for (gpu_id, *_), part in rows.groupby(keys, sort=True):
        gpu, first = profile(str(gpu_id)), part.iloc[0]
        if why := _unknown(first, gpu, kind):
            skipped.update(dict.fromkeys(part.index, why))
            continue
        operations = builder(part, gpu)
        if str(first.get("l2_state", "")) == "cold":
            operations = [replace(item, reused_bytes=0.0) for item in operations]
        execution = _execution(first)
        standard = first.get("mode", "standard") == "standard"
        setup = Setup(
            attention="standard" if standard else "bifurcated",
            kv_layout="shared",
            execution=execution,
            weight_dtype=first["dtype"],
            kv_dtype=first.get("kv_dtype", "bf16"),
        )
        groups.append(
            Group(
                kind=kind,
                gpu_id=gpu.id,
                index=part.index,
                operations=operations,
                execution=execution,
                variants=experts.variants(first) if kind == "moe" else _variants(first, gpu),
                setup=setup,
                around=_around(first, gpu, kind),
                cache=sparse.precision(first) if kind == "sparse_attention" else "",
                typical=_is_typical(first, gpu, kind),
                determines=tuple(first[list(_SERIES)]) not in hidden,
            )
        )
    return Prepared(groups, skipped)


def _not_kernel_times(rows: pd.DataFrame, kind: RowKind) -> dict[Any, str]:
    """Return the rows, by label, whose time is not that of a kernel."""
    if kind == "sparse_attention":
        return sparse.not_kernel_times(rows)
    if kind.startswith("mla"):
        why = "launched one by one and too short: the host's time, not the kernel's"
        return dict.fromkeys(rows.index[latent.host_bound(rows, kind)], why)
    if "host_bound" in rows:
        why = "the time of the host that launches it, not of a kernel (host_bound)"
        return dict.fromkeys(rows.index[rows["host_bound"] == 1], why)
    if "op" in rows:
        why = "a difference of two timings, without the static_quantize row to add it to"
        return dict.fromkeys(rows.index[rows["op"] == kinds.DIFFERENCE], why)
    return {}


def _unknown(row: "pd.Series[Any]", gpu: HardwareProfile, kind: RowKind) -> str:
    """Return why rows like this cannot be predicted; empty if they can."""
    if kind == "all_reduce" and gpu.link_bytes_per_s(int(row["num_gpus"])) is None:
        return f"{gpu.id} has no link in its profile"
    if kind == "moe":
        return experts.unknown(row)
    if kind == "sparse_attention":
        return sparse.unknown(row)
    return linear.unknown(row) if kind == "linear_attention" else ""


def _around(row: "pd.Series[Any]", gpu: HardwareProfile, kind: RowKind) -> Key | None:
    """Return the constant with the time around the kernels of a row, None if there is none.

    On Blackwell SGLang's rows of single products with scales of blocks take 12 us longer than its
    modules let them: six modules of sparse attention with such products take as long as with
    products in 16 bits. The rows turn the scales into the kernel's layout, which engines do once.
    """
    if kind == "sparse_attention":
        return Key("sparse_module_us") if sparse.is_module(row) else None
    sglang = library_of(str(row["framework"])) == "sglang"
    turned = kind == "gemm" and sglang and row["dtype"] == "fp8_block" and runs_trtllmgen(gpu)
    return Key("module_us") if kind == "mla_module" or turned else None


def _variants(row: "pd.Series[Any]", gpu: HardwareProfile) -> tuple[Variant, ...]:
    """Return the variants whose constants hold for a row, the most specific first."""
    library = library_of(str(row["framework"]))
    if "gemm_dtype" in row:  # each operation of a module has its own format
        return variants_of([library])
    kernel = attention_kernel(str(row["kernel"]), gpu) if "kv_dtype" in row else ""
    if "kv_heads" in row and is_fallback(kernel, gpu):
        library = kernel
    dtype = str(row.get("kv_dtype", row["dtype"]))
    formats = (dtype, str(row["dtype"]))
    precision: Precision = next((each for each in PRECISIONS if each in formats), "")
    return variants_of([library] if precision else dict.fromkeys((library, kernel)), precision)


def _execution(row: "pd.Series[Any]") -> Execution:
    """Return how a row was launched: in a graph unless stated otherwise."""
    words = f"{row['timing']} {row.get('impl', '')} {row['kernel']}".lower()
    return "eager" if "eager" in words else "graph"


def attention_kernel(kernel: str, gpu: HardwareProfile) -> str:
    """Return the attention kernel that a row names; empty if none.

    >>> from simulator.inputs.hardware import load_hardware
    >>> attention_kernel("vllm_flash_attn_fa3", load_hardware("h100-sxm"))
    'fa3'
    >>> attention_kernel("vllm_flash_attn", load_hardware("a100-sxm-80gb"))
    'fa2'
    >>> attention_kernel("vllm_flashinfer_trtllmdecode", load_hardware("b200-sxm"))
    'trtllmgen'
    """
    lowered = kernel.lower()
    # TensorRT-LLM's kernel for Blackwell, also when FlashInfer calls it.
    if "trtllm" in lowered and runs_trtllmgen(gpu):
        return "trtllmgen"
    named = next((name for name in ATTENTION_KERNELS if name in lowered), "")
    if named or "flash_attn" not in lowered:
        return named
    return "fa3" if gpu.compute_capability == "9.0" else "fa2"


def _is_typical(row: "pd.Series[Any]", gpu: HardwareProfile, kind: RowKind) -> bool:
    """Return whether rows are of a kernel that a sane engine would choose."""
    if kind == "moe":
        return experts.is_typical(row)
    if kind == "mla_decode":
        return latent.is_typical(row)
    kernel = attention_kernel(str(row["kernel"]), gpu)
    return "kv_heads" not in row or not is_fallback(kernel, gpu)


def is_fallback(kernel: str, gpu: HardwareProfile) -> bool:
    """Return whether engines only fall back to a kernel on a GPU: it tells nothing of the GPU."""
    return kernel == "triton" or (kernel == "flashinfer" and runs_trtllmgen(gpu))


def small_blocks(group: Numeric) -> Numeric:
    """Return the relative time of FlashInfer's decode blocks, by query heads per KV head."""
    return np.where(group < TENSOR_CORE_GROUP, SMALL_BLOCK_TIME, 1.0)


def prefill_block_rows(kernel: str, gpu: HardwareProfile) -> int:
    """Return the query rows of a kernel's thread block."""
    small = (kernel == "fa2" and gpu.compute_capability in SMALL_FLASH2_TILES) or kernel == "triton"
    return PREFILL_ROWS_PER_BLOCK // 2 if small else PREFILL_ROWS_PER_BLOCK


def folds_heads(kernel: str, name: str, queries: Numeric) -> Numeric:
    """Return whether a prefill call folds the query heads of a KV head into the rows of a block.

    FlashAttention-2 does for one query. TensorRT-LLM's kernel does where it decodes, but not where
    it prefills: 256 prompts of one token take it as long for 24 query heads of 8 KV heads as for 24
    of 24 (B200). All others do.

    Parameters
    ----------
    kernel, name
        The kernel, as :func:`attention_kernel` returns it, and its name in the row.
    queries
        Queries of each prompt, a number or an array.
    """
    if kernel == "trtllmgen":
        return name.endswith("decode")
    return queries == 1 if kernel == "fa2" else True


def prefill_blocks(
    block_rows: int,
    batch: Numeric,
    heads: Numeric,
    kv_heads: Numeric,
    queries: Numeric,
    *,
    folded: Numeric,
) -> Numeric:
    """Return the thread blocks of prefill calls.

    Parameters
    ----------
    block_rows
        Query rows of a thread block.
    batch, heads, kv_heads, queries
        Prompts, query heads, KV heads, and queries of each prompt: numbers or arrays.
    folded
        Whether the query heads of a KV head share blocks.
    """
    together = batch * kv_heads * np.ceil(queries * heads / kv_heads / block_rows)
    return np.where(folded, together, batch * heads * np.ceil(queries / block_rows))


def _dtypes(rows: pd.DataFrame) -> tuple[Dtype, Dtype]:
    """Return the formats of the products and of the cache."""
    first = rows.iloc[0]
    return cast("Dtype", first["dtype"]), cast("Dtype", first.get("kv_dtype", first["dtype"]))


def _attention_shape(
    rows: pd.DataFrame, gpu: HardwareProfile, context: "pd.Series[float]", *, samples: bool
) -> AttentionShape:
    """Return the sizes of attention rows: ``batch`` samples of one context or as many prompts."""
    dtype, kv_dtype = _dtypes(rows)
    batch, width = numbers(rows, "batch"), numbers(rows, "head_dim")
    heads, kv_heads = numbers(rows, "q_heads"), numbers(rows, "kv_heads")
    compute: Dtype = dtype if DTYPE_BYTES[dtype] >= DTYPE_BYTES["bf16"] else "bf16"
    resident: Any = resident_blocks(gpu)
    if attention_kernel(str(rows["kernel"].iloc[0]), gpu) == "fa2":
        resident = np.where(heads > kv_heads, resident, 1)
    return AttentionShape(
        prompts=1 if samples else batch,
        samples=batch if samples else 1,
        query_tokens=1,
        context_tokens=context.to_numpy(dtype=np.float64),
        decoded_tokens=numbers(rows, "suffix_len") if "suffix_len" in rows else 0,
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
    read, written = values * shape.activation_bytes, values * shape.kv_bytes
    low = is_low_precision(shape.kv_bytes)
    return streamed("kv_write", read, written, kind="copy", low_precision_cache=low)


def _decode(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Cache write, attention and combine, replayed back to back."""
    kernel = attention_kernel(str(rows["kernel"].iloc[0]), gpu)
    shape = _attention_shape(rows, gpu, kinds.read_tokens(rows), samples=False)
    operations = [_cache_write(shape), *_flash(shape, "standard")]
    group = shape.heads / shape.kv_heads
    if kernel == "fa2":
        batch = numbers(rows, "batch")
        copied = ((group > 1) & (numbers(rows, "kv_heads") > 1) & (batch > 1)).astype(np.float64)
        moved = copied * (shape.query_bytes + shape.output_bytes)
        operations.append(streamed("query_pack", moved, moved, launches=2 * copied, kind="copy"))
    share = small_blocks(group) if kernel == "flashinfer" and shape.kv_bytes > 1 else 1.0
    return [
        replace(replayed(item, item.kv_bytes_read), thread_blocks=item.thread_blocks * share)
        if item.name == "attention"
        else item
        for item in operations
    ]


def _flash(shape: AttentionShape, attention: Attention) -> list[Operation]:
    """Return flash decoding: standard over copies of the keys, or bifurcated."""
    return attention_of(shape, Setup(kv_layout="copies").under(attention))


def _prefill(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return the cache write and one causal call, whose last block reads all its keys."""
    dtype, kv_dtype = _dtypes(rows)
    name = str(rows["kernel"].iloc[0])
    kernel = attention_kernel(name, gpu)
    batch, heads, kv_heads = (numbers(rows, name) for name in ("batch", "q_heads", "kv_heads"))
    width, queries = numbers(rows, "head_dim"), numbers(rows, "q_len")
    keys = kinds.read_tokens(rows).to_numpy(dtype=np.float64)
    element = DTYPE_BYTES[dtype]
    row = batch * queries * heads * width * element
    kv_bytes = 2 * batch * keys * kv_heads * width * DTYPE_BYTES[kv_dtype]
    pairs = kinds.attended_pairs(rows).to_numpy(dtype=np.float64)
    block_rows = prefill_block_rows(kernel, gpu)
    longest = numbers(rows, kinds.WINDOW) + block_rows - 1
    new_values = 2 * batch * queries * kv_heads * width
    read, written = new_values * element, new_values * DTYPE_BYTES[kv_dtype]
    before = [streamed("kv_write", read, written, kind="copy")]
    if kernel == "trtllmgen" and is_low_precision(DTYPE_BYTES[kv_dtype]):
        before = _casts(new_values, row / element if dtype == kv_dtype else 0)
    attention = Operation(
        name="prefill_attention",
        kind="prefill_attention",
        flops=4 * batch * heads * width * pairs,
        bytes_read=row + kv_bytes,
        bytes_written=row,
        kv_bytes_read=kv_bytes,
        thread_blocks=prefill_blocks(
            block_rows, batch, heads, kv_heads, queries, folded=folds_heads(kernel, name, queries)
        ),
        longest_block_flops=4 * block_rows * np.minimum(keys, longest) * width,
        head_width=width,
        # TensorRT-LLM's kernel turns queries into the cache's format: vLLM's rows with queries in
        # 16 bits over 8-bit keys are as fast as SGLang's in 8.
        dtype=kv_dtype if kernel == "trtllmgen" else dtype,
    )
    # A replay finds the last one's data in L2, if those of both kernels fit.
    moved = sum(item.bytes_moved for item in (*before, attention))
    return [replayed(item, moved) for item in (*before, attention)]


def _casts(new_values: Numeric, query_values: Numeric) -> list[Operation]:
    """Return the kernels that write a cache in 8 bits, from values in 16 bits.

    vLLM has one, which takes twice the time of its bytes. SGLang, whose rows are of queries in 8
    bits, casts queries, keys and values with PyTorch's operations, and then copies the last two.
    """
    casts = [("kv_write", 2 * new_values, 1)]
    if np.any(query_values):
        casts = [("query_cast", query_values, 1), ("kv_write", new_values, 3)]
    read, written = DTYPE_BYTES["bf16"], DTYPE_BYTES["fp8"]
    how: dict[str, Any] = {"kind": "quantise", "dtype": "fp8"}
    return [
        streamed(name, values * read, values * written, launches=launches, **how)
        for name, values, launches in casts
    ]


def _gemm(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return one product, with its weights in L2 if all copies of the harness fit.

    In 8 and 4 bits, the row includes the kernel that quantises x.
    """
    dtype, _ = _dtypes(rows)
    m, n, k = (numbers(rows, name) for name in ("m", "n", "k"))
    copies = numbers(rows, "weights_rotated")
    copies = copies + np.where(copies > 1, OTHER_OPERANDS, 0)
    weights = n * k * DTYPE_BYTES[dtype]
    product = Operation(
        name="gemm",
        kind="gemm",
        flops=2 * m * n * k,
        bytes_read=m * k * DTYPE_BYTES[dtype] + weights,
        bytes_written=m * n * 2,
        weight_bytes_read=weights,
        reused_bytes=np.where(copies * weights <= gpu.l2_bytes, weights, 0.0),
        m=m,
        n=n,
        k=k,
        dtype=dtype,
    )
    if not is_low_precision(DTYPE_BYTES[dtype]):
        return [product]
    quantised = replayed(quantise("quantise", m, k, element=DTYPE_BYTES["bf16"], dtype=dtype))
    first = rows.iloc[0]
    if dtype == "fp8" and library_of(str(first["framework"])) == "vllm":
        steps = np.ceil(k / ONE_SCALE_STEP) + ONE_SCALE_START
        quantised = replace(quantised, serial_steps=steps)
    return [quantised, product]


def _elementwise(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return the kernels that stream the bytes of one call.

    Graphs replay it on the same bytes. Kernels timed one by one ran inside a model, whose other
    kernels pass their bytes through L2 in between.
    """
    operations = _streamed(rows)
    return operations if rows["timing"].iloc[0] == "kernel" else [*map(replayed, operations)]


def _streamed(rows: pd.DataFrame) -> list[Operation]:
    """Return the kernels of one elementwise call."""
    moved, first = numbers(rows, "bytes"), rows.iloc[0]
    op, library = str(first["op"]), library_of(str(first["framework"]))
    kind: Kind = kinds.VALUES["elementwise_kinds"].get(op, "elementwise")
    if kind != "quantise":
        launches = SCALES_LAUNCHES if op == SCALES else 1
        return [streamed(op, moved, 0.0, launches=launches, kind=kind)]
    if library == "sglang":
        launches = PLAIN_QUANTISE_LAUNCHES
        return [streamed(op, moved * PLAIN_QUANTISE_BYTES, 0.0, launches=launches)]
    count, width = numbers(rows, "rows"), numbers(rows, "width")
    element, (dtype, _) = DTYPE_BYTES["bf16"], _dtypes(rows)
    # Some rows state the format that the kernel reads.
    dtype = dtype if is_low_precision(DTYPE_BYTES[dtype]) else "fp8"
    kernel = quantise(op, count, width, element=element, dtype=dtype)
    if op != kinds.DYNAMIC:
        return [replace(kernel, thread_blocks=count * STATIC_BLOCK_TIME)]
    if library == "trtllm":
        read = count * width * element
        return [streamed(SCALES, read, 0.0, launches=SCALES_LAUNCHES), kernel]
    return [kernel]


def _collective(rows: pd.DataFrame, _: HardwareProfile) -> list[Operation]:
    """Return one collective, which engines outside a graph do on a copy of the message."""
    ranks = int(rows["num_gpus"].iloc[0])
    message = numbers(rows, "message_bytes")
    if rows["collective"].iloc[0] == "all_reduce":
        reduced = all_reduce("all_reduce", message_bytes=message, ranks=ranks)
        copied = streamed("copy", message, message, kind="copy")
        eager = _execution(rows.iloc[0]) == "eager"
        return [replayed(copied), *reduced] if eager else reduced
    return all_gather(str(rows["collective"].iloc[0]), gathered_bytes=message, ranks=ranks)


def _shared_prefix(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return standard attention over copies, or bifurcated attention with its merge."""
    whole = _attention_shape(rows, gpu, rows["prefix_len"], samples=True)
    shape = whole._replace(resident_blocks=1)
    standard = rows["mode"].iloc[0] == "standard"
    parts = _flash(shape, "standard" if standard else "bifurcated")
    # Replays find the keys of all parts in L2 if they all fit.
    together = sum(item.kv_bytes_read for item in parts)
    return [
        _cache_write(shape),
        *(replayed(item, together) if item.kind == "attention" else item for item in parts),
    ]


Builder = Callable[[pd.DataFrame, HardwareProfile], list[Operation]]
BUILDERS: dict[RowKind, Builder] = {
    "decode_attention": _decode,
    "prefill_attention": _prefill,
    "mla_decode": latent.decode,
    "mla_prefill": latent.prefill,
    "mla_module": latent.module,
    "gemm": _gemm,
    "moe": experts.operations,
    "elementwise": _elementwise,
    "all_reduce": _collective,
    "shared_prefix_attention": _shared_prefix,
    "linear_attention": linear.operations,
    "sparse_attention": sparse.operations,
}
