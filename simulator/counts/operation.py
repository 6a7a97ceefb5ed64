"""The unit of account: one operation of a step."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from simulator.inputs.dtypes import Dtype
from simulator.numeric import Numeric

# fmt: off
Kind = Literal[
    "gemm", "experts", "attention", "latent_attention", "prefill_attention", "latent_prefill",
    "index_scores", "prefill_scores", "index_selection", "sparse_attention", "sparse_prefill",
    "convolution", "recurrence", "chunk_solve", "chunk_scan", "fused_scan", "combine",
    "elementwise", "norm", "activation", "rotary", "quantise", "copy", "gather", "collective",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# How messages between GPUs go: see ``Operation.route``.
Route = Literal["around", "all", "next"]
# The kind whose constants and spreads stand in for those that a kind lacks.
KIN: dict[Kind, Kind] = {
    "experts": "gemm",
    "latent_attention": "attention", "latent_prefill": "prefill_attention",
    "index_scores": "attention", "prefill_scores": "index_scores", "index_selection": "elementwise",
    "sparse_attention": "latent_attention", "sparse_prefill": "sparse_attention",
    "convolution": "elementwise", "recurrence": "elementwise",
    "chunk_solve": "chunk_scan", "chunk_scan": "recurrence", "fused_scan": "recurrence",
    "norm": "elementwise", "activation": "elementwise", "rotary": "elementwise",
    "quantise": "elementwise",
}
# The kinds of a layer's state: linear attention and state spaces.
STATE_KINDS: tuple[Kind, ...] = (
    "convolution", "recurrence", "chunk_solve", "chunk_scan", "fused_scan",
)
# fmt: on
# Consecutive kinds of operation in an attention call, whose errors count as one. Sums add them
# last: over a grid all other operations have fewer points, and so has their sum.
ONE_KERNEL: tuple[Kind, ...] = ("attention", "latent_attention", "combine", "copy")
# Parts of a step; those that sharing the context changes come first.
PARTS = (
    *("attention, context", "attention, own tokens", "attention, merging", "states"),
    *("projections", "MLP", "output layer", "small kernels", "GPU to GPU", "waiting for host"),
)
_MLP, _OUTPUT = ("mlp_", "expert", "shared_expert", "router"), ("lm_head", "embedding", "sampling")
_PART_OF_KIND = {
    "collective": "GPU to GPU",
    "combine": "attention, merging",
    "sparse_attention": "attention, own tokens",  # those that a query selects are its own
    **dict.fromkeys(STATE_KINDS, "states"),
}


class Tile(NamedTuple):
    """How a kernel cuts a matrix product: the rows and columns of a tile, and its steps of K."""

    rows: Numeric
    columns: Numeric
    depth: Numeric


# Not frozen, as all else that the code makes: it would take five times as long to make, and a step
# is made of dozens.
@dataclass(slots=True, kw_only=True)
class Operation:
    """One operation of a step, done ``repeat`` times.

    Every numeric field is per call: a number, or an array that broadcasts over a grid.

    Attributes
    ----------
    name, kind
        Its name, and the kind that selects its constants in the timing model.
    flops
        Floating-point operations of matrix products, two per multiply-add, as
        ``torch.utils.flop_counter`` counts them. [FLOP]
    bytes_read, bytes_written
        What the implementation reads and writes, from device memory or L2. [bytes]
    kv_bytes_read, weight_bytes_read
        Bytes of KV cache and of weights in ``bytes_read``. [bytes]
    launches
        Kernels launched.
    effective_blocks
        Number of evenly loaded thread blocks that would read the KV cache in the same time; None
        if there are always enough.
    thread_blocks
        Thread blocks launched, if they may exceed the GPU's resident blocks.
    head_width
        Width of the heads of flash attention, mean of keys and values; 0 for other operations.
    query_rows, tile_rows_per_row
        Of flash attention: the query rows that share the keys of a KV head, and the rows of matrix
        tiles that it multiplies for each of them.
    longest_block_flops
        FLOPs of the longest block, if blocks differ much (causal attention). [FLOP]
    sequences, splits
        Items processed one by one: sequences of a batch, partial results of each row.
    serial_steps
        Steps that each thread block takes one after another: tokens or chunks of a recurrence.
    m, n, k
        Sizes of each launch's matrix product [M, K] x [K, N]; 0 if unknown or if there are many
        small products.
    groups, held, even
        Of a grouped product: the groups into which its M rows are divided, each with its own
        weights (visited experts), those that there are (the GPU's experts), and whether groups have
        equally many rows; 0 if it is a plain one.
    tile
        Of a grouped product: the tile that its kernel takes; None if it takes the fastest.
    parts
        Of a grouped product: the parts of equal size into which all groups are dealt out over GPUs.
        The counts are the mean of the parts; the time is that of the fullest.
    weights
        Stored format of the weights, if the kernel expands them to ``dtype`` on the chip; None if
        they have that format.
    link_bytes, ranks
        Traffic over the GPU's link to its group, per direction [bytes]; and the group's size.
    exchanges
        How often the parts of a collective's message go around: twice in an all-reduce, which first
        adds them up.
    route
        How the messages go: around all GPUs of the group, from each to all others, or from those of
        a pipeline's stage to the next.
    reused_bytes, reused_footprint_bytes
        Traffic that the L2 cache serves if it can hold the footprint: one context read again for
        every sample. [bytes]
    together_bytes
        Those of ``reused_bytes`` that the thread blocks of one wave read at about the same time, so
        that one read from memory may serve them; None if a later call reads the data again. [bytes]
    scratch_bytes
        Traffic that one kernel writes and the next reads, such as split-KV partials; the L2 cache
        serves it if it fits. [bytes]
    within
        Name of the operation whose library call also launches this kernel (the combine of
        split-KV), so that a trace sees both as one.
    dtype
        Format of the matrix product, which selects the compute roof.
    low_precision_cache
        Whether it reads, writes or combines a KV cache of 8 bits or fewer, whose kernels have their
        own constants.
    repeat
        Calls per step, mostly the number of layers with this operation.
    """

    name: str
    kind: Kind
    flops: Numeric = 0
    bytes_read: Numeric = 0
    bytes_written: Numeric = 0
    kv_bytes_read: Numeric = 0
    weight_bytes_read: Numeric = 0
    launches: Numeric = 1
    effective_blocks: Numeric | None = None
    thread_blocks: Numeric = 0
    head_width: Numeric = 0
    query_rows: Numeric = 0
    tile_rows_per_row: Numeric = 1
    longest_block_flops: Numeric = 0
    sequences: Numeric = 0
    splits: Numeric = 0
    serial_steps: Numeric = 0
    m: Numeric = 0
    n: Numeric = 0
    k: Numeric = 0
    groups: Numeric = 0
    held: Numeric = 0
    even: bool = False
    tile: Tile | None = None
    parts: int = 1
    weights: Dtype | None = None
    link_bytes: Numeric = 0
    ranks: int = 1
    exchanges: int = 1
    route: Route = "around"
    reused_bytes: Numeric = 0
    reused_footprint_bytes: Numeric = 0
    together_bytes: Numeric | None = None
    scratch_bytes: Numeric = 0
    within: str = ""
    dtype: Dtype = "bf16"
    low_precision_cache: bool = False
    repeat: int = 1

    @property
    def bytes_moved(self) -> Numeric:
        """Bytes read and written. [bytes]."""
        return self.bytes_read + self.bytes_written


def streamed(
    name: str,
    read: Numeric,
    written: Numeric,
    *,
    launches: Numeric = 1,
    kind: Kind = "elementwise",
    **counts: Any,
) -> Operation:
    """Return kernels that stream bytes in and out.

    Parameters
    ----------
    read, written
        Traffic of all kernels together. [bytes]
    launches
        Number of kernels.
    kind
        What they do, if kernels that do this have constants of their own.
    counts
        Further fields of :class:`Operation`.
    """
    return Operation(
        name=name, kind=kind, bytes_read=read, bytes_written=written, launches=launches, **counts
    )


def repeated(operations: Iterable[Operation], times: int, *, mark: str = "") -> list[Operation]:
    """Return the operations of one layer as those of several layers of its kind.

    Parameters
    ----------
    operations
        Operations of one layer, made for this call: they are changed in place.
    times
        Number of layers.
    mark
        Suffix for their names, if another kind of layer has operations of the same names.
    """
    layers = list(operations)
    for operation in layers:
        # In place: the operations were made for this, and a copy would double the time.
        operation.repeat = times
        if mark:
            operation.name += mark
            if operation.within:
                operation.within += mark
    return layers


class Totals(NamedTuple):
    """Sums over the operations of a step, repeats included."""

    flops: Numeric
    bytes_read: Numeric
    bytes_written: Numeric
    kv_bytes_read: Numeric
    weight_bytes_read: Numeric
    link_bytes: Numeric
    launches: Numeric


def total(operations: Iterable[Operation]) -> Totals:
    """Sum operations, each multiplied by its repeats, attention last."""
    sums: dict[str, Numeric] = dict.fromkeys(Totals._fields, 0)
    for operation in sorted(operations, key=lambda operation: operation.kind in ONE_KERNEL):
        for name, summed in sums.items():
            sums[name] = summed + operation.repeat * getattr(operation, name)
    return Totals(**sums)


def part_of(name: str, kind: str) -> str:
    """Return the part of a step that an operation belongs to.

    >>> part_of("attention_suffix", "attention"), part_of("experts_up", "experts")
    ('attention, own tokens', 'MLP')
    """
    if kind in _PART_OF_KIND:
        return _PART_OF_KIND[kind]
    if kind in ("attention", "latent_attention", "index_scores"):
        return "attention, own tokens" if "suffix" in name else "attention, context"
    if name.startswith(_OUTPUT):
        return "output layer"
    if kind in ("gemm", "experts"):
        return "MLP" if name.startswith(_MLP) else "projections"
    return "small kernels"
