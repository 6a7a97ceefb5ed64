"""Attention in plain PyTorch: an account for every kernel of :mod:`simulator.evidence.kernels`.

The same name means the same implementation. Each account equals a trace of that code, operation by
operation and in the code's order: FLOPs, bytes read, bytes written, launches
(tests/evidence/test_accounts.py; docs/tracing.md says where they differ, and why). An operation
with several launches stands for so many kernels in a row.

With several query tokens of each sample the code is that of
:mod:`simulator.evidence.kernels.query_tokens`, and equals its account as well. Half-precision types
are meant where flash attention is; the math path casts them to float32.
"""

from collections.abc import Callable
from dataclasses import replace

from simulator.counts.attention.flash import rebuild
from simulator.counts.attention.plain_flash import (
    bifurcated_flash,
    bifurcated_flash_chunked,
    bifurcated_flex,
    standard_flash,
    standard_flash_expanded,
    standard_rebuilt,
    standard_repeat_kv,
)
from simulator.counts.attention.plain_unfused import (
    bifurcated_einsum,
    standard_einsum,
    standard_math,
)
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.inputs.workload import Attention, Kernel, KvLayout

Account = Callable[[AttentionShape, int], list[Operation]]

ACCOUNTS: dict[str, Account] = {
    "standard_einsum": standard_einsum,
    "standard_math": standard_math,
    "standard_flash": standard_flash,
    "standard_flash_expanded": standard_flash_expanded,
    "standard_rebuilt": standard_rebuilt,
    "standard_repeat_kv": standard_repeat_kv,
    "bifurcated_einsum": bifurcated_einsum,
    "bifurcated_flash": bifurcated_flash,
    "bifurcated_flash_chunked": bifurcated_flash_chunked,
    "bifurcated_flex": bifurcated_flex,
    # A tree of two levels, one context and own tokens, is bifurcated attention.
    "prefix_tree": bifurcated_flash,
}

_STANDARD_FLASH: dict[KvLayout, str] = {
    "copies": "standard_flash",
    "shared": "standard_flash_expanded",
    "rebuilt": "standard_rebuilt",
}


def account_name(attention: Attention, kernel: Kernel, kv_layout: KvLayout) -> str:
    """Return the name of the PyTorch kernel that runs such a workload.

    >>> account_name("standard", "flash", "shared"), account_name("bifurcated", "einsum", "copies")
    ('standard_flash_expanded', 'bifurcated_einsum')
    """
    if attention == "bifurcated":
        # The math path has no bifurcated form of its own: written out, it is the paper's einsum.
        return "bifurcated_flash" if kernel == "flash" else "bifurcated_einsum"
    if kernel == "flash":
        return _STANDARD_FLASH[kv_layout]
    return "standard_einsum" if kernel == "einsum" else "standard_math"


def pytorch_operations(
    shape: AttentionShape,
    *,
    attention: Attention,
    kernel: Kernel,
    kv_layout: KvLayout,
    repeat: int,
) -> list[Operation]:
    """List the operations of one layer's attention in plain PyTorch."""
    if attention == "standard" and kernel != "flash":
        account = standard_einsum if kernel == "einsum" else standard_math
        rebuilt = [rebuild(shape, repeat)] if kv_layout == "rebuilt" else []
        return rebuilt + account(shape, repeat, kv_layout)
    return ACCOUNTS[account_name(attention, kernel, kv_layout)](shape, repeat)


def as_traced(operations: list[Operation]) -> list[Operation]:
    """Return operations as a trace sees them.

    A kernel that another launches inside one library call, such as the combine of split-KV, is
    folded into that call, and what passes between the two disappears. Where samples read one stored
    context again, a trace counts the storage touched. What is not launched is left out.
    """
    inner = {operation.within: operation for operation in operations if operation.within}
    seen = []
    for operation in operations:
        if operation.within or not operation.launches:
            continue
        within = inner.get(operation.name)
        written = operation.bytes_written
        if within is not None and within.launches:
            written = written - operation.scratch_bytes + within.bytes_written
        read = operation.bytes_read - operation.reused_bytes
        seen.append(replace(operation, bytes_read=read, bytes_written=written))
    return seen
