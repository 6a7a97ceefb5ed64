"""The pieces of a transformer's layer: products, norms, rotary, the cache write, collectives.

There are two ways to execute the same mathematics. ``graph`` and ``compiled`` run fused kernels
(residual added inside the norm, gate and up projection in one product, the activation fused with
their product). ``eager`` is plain PyTorch: one kernel per elementwise operation, which moves more
bytes and launches several times as many kernels.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from simulator.counts.operation import Operation, Route, repeated, streamed
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, is_low_precision
from simulator.inputs.formats import NAMED_FORMATS, TensorGroup, WeightFormat
from simulator.inputs.model import LayerGroup, ModelShape
from simulator.inputs.setup import Setup
from simulator.numeric import Numeric, quotient

INDEX_BYTES = 8  # token ids and positions are int64
FLOAT_BYTES = 4  # norms and sampling compute in float32


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One GPU's shard of a model and the tokens it processes.

    Matrices are split over the GPUs by columns, then by rows; norms, the router and MLA's
    down-projections are replicated.

    Attributes
    ----------
    tokens
        Tokens that pass through every layer in this step, T = P b n.
    positions
        Distinct positions among them: all samples are at the same one.
    """

    model: ModelShape
    setup: Setup
    tokens: Numeric
    positions: Numeric = 1

    @property
    def ranks(self) -> int:
        """GPUs of the tensor-parallel group."""
        return self.setup.tensor_parallel

    @property
    def heads(self) -> int:
        """Query heads on this GPU."""
        return self.model.heads // self.ranks

    def of(self, group: LayerGroup) -> "Shard":
        """Return the shard of a model with the sizes of a group's layers."""
        return replace(self, model=self.model.of(group)) if group.sizes else self

    @cached_property
    def eager(self) -> bool:
        """Whether each elementwise operation is a separate kernel."""
        return self.setup.eager

    @cached_property
    def dtype(self) -> Dtype:
        """Format of activations."""
        return self.setup.activation_dtype

    @cached_property
    def element_bytes(self) -> float:
        """Bytes of one activation."""
        return DTYPE_BYTES[self.dtype]

    def weights(self, group: TensorGroup | None) -> WeightFormat:
        """Return the format of a group's weights; None for those that nobody quantises."""
        return self.setup.weights.of(group) if group else NAMED_FORMATS[self.dtype]

    def product_dtype(self, group: TensorGroup | None) -> Dtype:
        """Return the format of products with a group's weights."""
        return self.weights(group).product_dtype(self.dtype)

    def rows(self, width: Numeric) -> Numeric:
        """Bytes of ``width`` activations for every token. [bytes]."""
        return self.tokens * width * self.element_bytes

    def split(self, width: int, over: int | None = None) -> Numeric:
        """Return one GPU's share of a width, as a whole number if it divides.

        ``over`` is the number of GPUs that share it, by default the tensor-parallel group's.
        """
        return quotient(width, self.ranks if over is None else over)


def gemm(
    shard: Shard,
    name: str,
    inner: Numeric,
    columns: Numeric,
    *,
    bias: bool = False,
    matrices: int = 1,
    group: TensorGroup | None = "attention",
    tokens: Numeric | None = None,
) -> Operation:
    """Return a product of activations and weights: [M, K] x [K, N], M tokens.

    At decode sizes every weight is read exactly once.

    Parameters
    ----------
    inner, columns
        K, and N of all matrices together.
    bias
        Whether to add a vector of N.
    matrices
        Weight matrices that share the input, or have one each, and a kernel each.
    group
        The tensors among which the weights are, for their format; None for what nobody quantises.
    tokens
        M, if not all tokens of the step.
    """
    stored, product_dtype = shard.weights(group), shard.product_dtype(group)
    rows = shard.tokens if tokens is None else tokens
    weights = inner * columns * stored.bytes
    if bias:
        weights = weights + columns * shard.element_bytes
    # A quantised product reads quantised activations.
    element = shard.element_bytes if shard.eager else DTYPE_BYTES[product_dtype]
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * rows * inner * columns,
        bytes_read=rows * inner * element * matrices + weights,
        bytes_written=rows * columns * shard.element_bytes,
        weight_bytes_read=weights,
        launches=matrices,
        m=rows,
        n=columns / matrices if matrices > 1 else columns,
        k=inner,
        weights=stored.dtype if stored.dtype != product_dtype else None,
        dtype=product_dtype,
    )


def per_head(shard: Shard, name: str, inner: int, columns: int) -> Operation:
    """Return a batched product, one small matrix per head: h times [T, inner] x [inner, columns].

    Engines multiply these in the activations' format, whatever that of the weights.

    Parameters
    ----------
    inner, columns
        Sizes of each head's matrix.
    """
    heads = shard.heads
    weights = heads * inner * columns * shard.weights("attention").bytes
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * shard.tokens * heads * inner * columns,
        bytes_read=shard.rows(heads * inner) + weights,
        bytes_written=shard.rows(heads * columns),
        weight_bytes_read=weights,
        dtype=shard.dtype,
    )


def quantise(
    name: str, rows: Numeric, width: Numeric, *, element: float, dtype: Dtype
) -> Operation:
    """Return the kernel that quantises activations for products in 8 or 4 bits.

    It reads every value, finds the scales on the way, and writes the values in the products'
    format. A card without products in that format expands the weights instead; the timing model
    gives this kernel no time there.

    Parameters
    ----------
    rows, width
        Rows of activations, each quantised by its own thread block, and values per row.
    element
        Size of one activation. [bytes]
    dtype
        The products' format.
    """
    values = rows * width
    return streamed(
        name,
        values * element,
        values * DTYPE_BYTES[dtype],
        kind="quantise",
        thread_blocks=rows,
        dtype=dtype,
    )


def quantised(
    shard: Shard, name: str, width: Numeric, *, group: TensorGroup = "attention"
) -> list[Operation]:
    """Return the kernel that quantises the input of a layer's products, if they need one.

    Products in 16 bits need none; plain PyTorch has none, and some engines have none.

    Parameters
    ----------
    width
        Values per row.
    group
        The tensors that are multiplied.
    """
    dtype = shard.product_dtype(group)
    if not shard.setup.quantises_apart or not is_low_precision(DTYPE_BYTES[dtype]):
        return []
    return [quantise(name, shard.tokens, width, element=shard.element_bytes, dtype=dtype)]


def norm(shard: Shard, name: str) -> Operation:
    """Normalise every token's hidden vector.

    The fused kernel also adds the residual (read both, write the sum and the result). Plain PyTorch
    adds it in a separate kernel.
    """
    width = shard.model.hidden_size
    if shard.eager:
        return _eager_norm(shard, name, rows=shard.tokens, width=width)
    row = shard.rows(width)
    read = 2 * row + _norm_weight_bytes(shard, width)
    return streamed(name, read, 2 * row, kind="norm")


def vector_norm(shard: Shard, name: str, rows: Numeric, width: int) -> Operation:
    """Normalise vectors inside a layer: queries, keys, MLA's compressed vectors.

    Parameters
    ----------
    rows, width
        Number of vectors, and values per vector.
    """
    if shard.eager:
        return _eager_norm(shard, name, rows=rows, width=width)
    moved = rows * width * shard.element_bytes
    return streamed(name, moved, moved, kind="norm")


def _eager_norm(shard: Shard, name: str, *, rows: Numeric, width: int) -> Operation:
    """Return the kernels of a norm in plain PyTorch.

    LayerNorm is one kernel and also writes mean and reciprocal deviation. RMSNorm is eight: cast to
    float32, square, mean, add epsilon, reciprocal root, multiply, cast back, multiply by the
    weight; float32 needs no casts.
    """
    row, weights = rows * width * shard.element_bytes, _norm_weight_bytes(shard, width)
    scalars = rows * FLOAT_BYTES
    if shard.model.norm == "layer":
        return streamed(name, row + weights, row + 2 * scalars)
    wide = rows * width * FLOAT_BYTES
    casts = int(shard.element_bytes != FLOAT_BYTES)
    weighted = int(shard.model.norm_weight)
    return streamed(
        name,
        casts * (row + wide) + 3 * wide + 3 * scalars + weighted * row + weights,
        casts * (wide + row) + 2 * wide + 3 * scalars + weighted * row,
        launches=5 + 2 * casts + weighted,
    )


def _norm_weight_bytes(shard: Shard, width: int) -> Numeric:
    """Bytes of a norm's weight and bias, if any. [bytes]."""
    biases = shard.model.norm == "layer" and shard.model.norm_bias
    return shard.model.norm_weight * (1 + biases) * width * shard.element_bytes


def residual_add(shard: Shard, name: str) -> list[Operation]:
    """Add the residual in a separate kernel, as only plain PyTorch does."""
    if not shard.eager:
        return []
    row = shard.rows(shard.model.hidden_size)
    return [streamed(name, 2 * row, row)]


def rotary(shard: Shard, width: int, head_dim: int, *, parts: int = 2) -> Operation:
    """Rotate queries and keys by their positions.

    Plain PyTorch does for each of the two: times cosine, negate a half, concatenate, times sine,
    add. It reads both tables for each position.

    Parameters
    ----------
    width
        Rotated values per token, of queries and keys together.
    head_dim
        Width of one head and of the tables.
    parts
        2, or 1 where a layer reads the keys of another.
    """
    row = shard.rows(width)
    if not shard.eager:
        return streamed("rotary", row, row, kind="rotary")
    tables = parts * 2 * shard.positions * head_dim * shard.element_bytes
    return streamed("rotary", row * 5.5 + tables, row * 4.5, launches=5 * parts)


def cache_write(shard: Shard, width: int) -> Operation:
    """Write the new tokens' keys and values, ``width`` values each, into the cache."""
    kv_element = shard.setup.kv_bytes
    return streamed(
        "kv_write",
        shard.rows(width),
        shard.tokens * width * kv_element,
        launches=2 if shard.eager else 1,
        kind="copy",
        low_precision_cache=is_low_precision(kv_element),
    )


def all_reduce(name: str, *, message_bytes: Numeric, ranks: int) -> list[Operation]:
    """Return an all-reduce; nothing on a single GPU.

    A ring, and every algorithm of least traffic, sends ``2 (ranks - 1) / ranks`` of the message
    over each rank's link in each direction (Patarasuk and Yuan, 2009).

    Parameters
    ----------
    message_bytes
        Size of the message on every rank. [bytes]
    ranks
        GPUs of the group.
    """
    sent = message_bytes * 2 * (ranks - 1) / ranks
    return _collective(name, message_bytes, ranks, sent, exchanges=2)


def all_gather(name: str, *, gathered_bytes: Numeric, ranks: int) -> list[Operation]:
    """Return an all-gather; nothing on a single GPU.

    Parameters
    ----------
    gathered_bytes
        Size of the gathered result on every rank. [bytes]
    ranks
        GPUs of the group.
    """
    return _collective(name, gathered_bytes, ranks, gathered_bytes * (ranks - 1) / ranks)


def all_to_all(name: str, *, sent_bytes: Numeric, ranks: int) -> list[Operation]:
    """Return an all-to-all, in which each GPU has something for each other; nothing on one GPU.

    Parameters
    ----------
    sent_bytes
        What a GPU sends to all others together, as much as it receives. [bytes]
    ranks
        GPUs of the group.
    """
    return _collective(name, sent_bytes, ranks, sent_bytes, route="all")


def stage_sends(shard: Shard) -> list[Operation]:
    """Return how each stage of a pipeline passes the tokens on to the next; nothing for one stage.

    Both the hidden state and the residual go on. Each GPU of a tensor-parallel group sends its
    part, and the receivers gather the whole (vLLM's ``send_tensor_dict``).
    """
    sends, ranks, gpus = shard.setup.pipeline_parallel - 1, shard.ranks, shard.setup.gpus
    if not sends:
        return []
    passed = 2 * shard.rows(shard.model.hidden_size)
    operations = [
        *_collective("stage_send", passed / ranks, gpus, passed / ranks, route="next"),
        *all_gather("stage_all_gather", gathered_bytes=passed, ranks=ranks),
    ]
    return repeated(operations, sends)


def _collective(
    name: str,
    moved: Numeric,
    ranks: int,
    sent: Numeric,
    *,
    exchanges: int = 1,
    route: Route = "around",
) -> list[Operation]:
    """Return what a group exchanges: bytes of memory, and bytes over each link; none if alone."""
    if ranks == 1:
        return []
    way = {"link_bytes": sent, "ranks": ranks, "exchanges": exchanges, "route": route}
    return [streamed(name, moved, moved, kind="collective", **way)]
