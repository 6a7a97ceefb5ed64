"""Time a trace: convert traced operators to operations of the timing model."""

from collections.abc import Sequence
from dataclasses import replace

from simulator.counts.attention.flash import flash_part, together_bytes
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Kind, Operation
from simulator.evidence.tracing.recorder import TracedOperation
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype

_DTYPES: dict[str, Dtype] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float64": "fp32",  # the timing model knows nothing wider
    "int8": "int8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("mm", "addmm", "_scaled_mm", "convolution", "_convolution"), "gemm"),
    # Batched products have no weights, so they count as attention.
    **dict.fromkeys(("bmm", "baddbmm", "flex_attention"), "attention"),
    **dict.fromkeys(("embedding", "index_select", "gather", "index", "take"), "gather"),
    **dict.fromkeys(("clone", "copy_", "cat", "constant_pad_nd"), "copy"),
}
_FLASH_DIMS = 4


def operations_of(traced: Sequence[TracedOperation], *, resident_blocks: int) -> list[Operation]:
    """Return traced operators as operations of the timing model, each with its bytes and FLOPs.

    Fused attention on the split-KV path gets thread blocks, partial results and combine from the
    account of flash attention, because a trace does not see them.

    Parameters
    ----------
    resident_blocks
        Thread blocks the GPU runs at once.
    """
    operations: list[Operation] = []
    for each in traced:
        is_flash = _is_flash(each)
        operations += _flash(each, resident_blocks=resident_blocks) if is_flash else [_plain(each)]
    return operations


def _plain(traced: TracedOperation) -> Operation:
    """Return an operator as it was traced."""
    kind = _KINDS.get(traced.name, "gemm" if traced.flops else "elementwise")
    # The last tensor read may be a matrix, whose rows are the inner dimension.
    last = traced.sizes[-1] if traced.sizes else ()
    inner, columns = last if kind == "gemm" and len(last) == 2 else (0, 0)  # noqa: PLR2004
    return Operation(
        name=traced.name,
        kind=kind,
        flops=traced.flops,
        bytes_read=traced.bytes_read,
        bytes_written=traced.bytes_written,
        launches=traced.launches,
        m=traced.flops / (2 * inner * columns) if inner and columns else 0,
        n=columns,
        k=inner,
        dtype=_DTYPES.get(traced.dtype, "fp32"),
    )


def _is_flash(traced: TracedOperation) -> bool:
    """Return whether an operator is fused attention over [batch, heads, rows, width]."""
    names = ("flash_attention", "efficient_attention", "cudnn_attention")
    return (
        any(name in traced.name for name in names)
        and len(traced.sizes) >= 3  # noqa: PLR2004
        and all(len(size) == _FLASH_DIMS for size in traced.sizes[:3])
    )


def _flash(traced: TracedOperation, *, resident_blocks: int) -> list[Operation]:
    """Return fused attention with thread blocks, re-reads of expanded keys, and its combine."""
    (batch, heads, rows, width), (_, kv_heads, tokens, _), (*_, value_width) = traced.sizes[:3]
    dtype = _DTYPES.get(traced.dtype, "fp32")
    element = DTYPE_BYTES[dtype]
    shape = AttentionShape(
        prompts=1,
        samples=batch,
        query_tokens=rows,
        context_tokens=0,
        decoded_tokens=tokens,
        heads=heads,
        kv_heads=kv_heads,
        key_width=width,
        value_width=value_width,
        cache_width=kv_heads * (width + value_width),
        activation_bytes=element,
        kv_bytes=element,
        dtype=dtype,
        resident_blocks=resident_blocks,
    )
    part = shape.decoded_part._replace(name=traced.name)
    account, combine = flash_part(shape, part)
    # Keys with stride 0 are counted once but read by every sequence.
    again = max(0, account.bytes_read - traced.bytes_read)
    stored = max(0, traced.bytes_read - shape.query_bytes) if again else 0
    token_bytes = shape.cached_bytes(1)
    shared = part._replace(repeated_tokens=again / token_bytes, stored_tokens=stored / token_bytes)
    call = replace(
        account,
        flops=traced.flops,
        bytes_read=traced.bytes_read + again,
        bytes_written=account.bytes_written if combine.launches else traced.bytes_written,
        reused_bytes=again,
        reused_footprint_bytes=stored,
        together_bytes=together_bytes(shape, shared) if again else None,
    )
    return [call, combine] if combine.launches else [call]
