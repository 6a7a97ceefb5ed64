"""Building blocks of a layer: matrix products, norms, rotary, the cache write.

Two ways to execute the same mathematics are counted. ``graph`` and ``compiled`` run fused kernels
(residual added inside the norm, gate and up projection in one product, the activation fused with
their product). ``eager`` is plain PyTorch: one kernel for each elementwise operation, which moves
more bytes and launches several times as many kernels.
"""

from dataclasses import dataclass

from simulator.counts.operation import Operation
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, activation_dtype, is_low_precision
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Execution
from simulator.numeric import Numeric

INDEX_BYTES = 8  # token ids and positions are int64
FLOAT_BYTES = 4  # norms and sampling compute in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One GPU's slice of a model, at work on a number of tokens.

    Attributes
    ----------
    tokens
        Tokens that pass through every layer in this step, T = P b n.
    positions
        Different positions they have: all samples are at the same one.
    ranks
        GPUs of the tensor-parallel group. Matrices are split by columns, then by rows; norms, the
        router and MLA's down-projections are replicated.
    """

    model: ModelShape
    ranks: int
    tokens: Numeric
    weight_dtype: Dtype
    kv_dtype: Dtype
    execution: Execution
    positions: Numeric = 1

    @property
    def eager(self) -> bool:
        """Whether each elementwise operation is a kernel of its own."""
        return self.execution == "eager"

    @property
    def dtype(self) -> Dtype:
        """Format of activations."""
        return activation_dtype(self.weight_dtype)

    @property
    def element_bytes(self) -> float:
        """Bytes of one activation."""
        return DTYPE_BYTES[self.dtype]

    def rows(self, width: Numeric) -> Numeric:
        """Bytes of ``width`` activations for every token. [bytes]."""
        return self.tokens * width * self.element_bytes

    def split(self, width: int) -> float:
        """Return one GPU's share of a width, a whole number where it divides."""
        return width // self.ranks if width % self.ranks == 0 else width / self.ranks


def gemm(
    part: Slice,
    name: str,
    inner: Numeric,
    columns: Numeric,
    *,
    repeat: int,
    bias: bool = False,
    matrices: int = 1,
    dtype: Dtype | None = None,
    tokens: Numeric | None = None,
) -> Operation:
    """Return a product of activations and weights: [T, inner] x [inner, columns].

    At decode sizes every weight is read exactly once.

    Parameters
    ----------
    matrices
        Weight matrices that share the input but are multiplied by a kernel each.
    dtype
        Format of the weights, where it is not that of the model's layers.
    tokens
        Rows, where they are not all tokens of the step.
    """
    weight_dtype = dtype or part.weight_dtype
    rows = part.tokens if tokens is None else tokens
    weights = inner * columns * DTYPE_BYTES[weight_dtype]
    if bias:
        weights = weights + columns * part.element_bytes
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * rows * inner * columns,
        bytes_read=rows * inner * part.element_bytes * matrices + weights,
        bytes_written=rows * columns * part.element_bytes,
        weight_bytes_read=weights,
        launches=matrices,
        m=rows,
        n=columns / matrices if matrices > 1 else columns,
        k=inner,
        weight_element_bytes=DTYPE_BYTES[weight_dtype] if weight_dtype == "int4" else None,
        # int4 weights are expanded before the product, which runs in the activations' format.
        dtype=part.dtype if weight_dtype == "int4" else weight_dtype,
        repeat=repeat,
    )


def elementwise(
    name: str, read: Numeric, written: Numeric, *, launches: Numeric = 1, repeat: int = 1
) -> Operation:
    """Return kernels that stream ``read`` bytes in and ``written`` bytes out."""
    return Operation(
        name=name,
        kind="elementwise",
        bytes_read=read,
        bytes_written=written,
        launches=launches,
        repeat=repeat,
    )


def norm(part: Slice, name: str, *, repeat: int, residual: bool = True) -> Operation:
    """Normalise every token's hidden vector.

    Fused, the residual is added in the same kernel (read both, write the sum and the result). In
    plain PyTorch it is added apart.
    """
    width = part.model.hidden_size
    if part.eager:
        return eager_norm(part, name, rows=part.tokens, width=width, repeat=repeat)
    both = 2 if residual else 1
    row, weights = part.rows(width), _norm_weight_bytes(part, width)
    return elementwise(name, both * row + weights, both * row, repeat=repeat)


def vector_norm(part: Slice, name: str, rows: Numeric, width: int, *, repeat: int) -> Operation:
    """Normalise ``rows`` vectors inside a layer: queries, keys, MLA's compressed vectors."""
    if part.eager:
        return eager_norm(part, name, rows=rows, width=width, repeat=repeat)
    moved = rows * width * part.element_bytes
    return elementwise(name, moved, moved, repeat=repeat)


def eager_norm(part: Slice, name: str, *, rows: Numeric, width: int, repeat: int) -> Operation:
    """Return the kernels of a norm in plain PyTorch.

    LayerNorm is one, which also writes mean and reciprocal deviation. RMSNorm is eight: to float32,
    square, mean, add epsilon, reciprocal root, multiply, back, multiply by the weight; float32
    needs no casts.
    """
    row, weights = rows * width * part.element_bytes, _norm_weight_bytes(part, width)
    scalars = rows * FLOAT_BYTES
    if part.model.norm == "layer":
        return elementwise(name, row + weights, row + 2 * scalars, repeat=repeat)
    wide = rows * width * FLOAT_BYTES
    casts = int(part.element_bytes != FLOAT_BYTES)
    weighted = int(part.model.norm_weight)
    return elementwise(
        name,
        casts * (row + wide) + 3 * wide + 3 * scalars + weighted * row + weights,
        casts * (wide + row) + 2 * wide + 3 * scalars + weighted * row,
        launches=5 + 2 * casts + weighted,
        repeat=repeat,
    )


def _norm_weight_bytes(part: Slice, width: int) -> Numeric:
    """Bytes of a norm's weight and bias, where it has them. [bytes]."""
    biases = part.model.norm == "layer" and part.model.norm_bias
    return part.model.norm_weight * (1 + biases) * width * part.element_bytes


def residual_add(part: Slice, name: str, *, repeat: int) -> list[Operation]:
    """Add the residual as a kernel of its own, which only plain PyTorch does."""
    if not part.eager:
        return []
    row = part.rows(part.model.hidden_size)
    return [elementwise(name, 2 * row, row, repeat=repeat)]


def rotary(part: Slice, width: int, head_dim: int, *, repeat: int) -> Operation:
    """Rotate queries and keys of ``width`` values per token by their positions.

    Plain PyTorch, for each of the two: times cosine, negate a half, concatenate, times sine, add;
    both tables are read for each position.
    """
    if part.eager:
        tables = 2 * 2 * part.positions * head_dim * part.element_bytes
        return elementwise(
            "rotary",
            part.rows(width) * 5.5 + tables,
            part.rows(width) * 4.5,
            launches=10,
            repeat=repeat,
        )
    return elementwise("rotary", part.rows(width), part.rows(width), repeat=repeat)


def cache_write(part: Slice, width: int, *, repeat: int) -> Operation:
    """Write the new tokens' keys and values into the cache."""
    return Operation(
        name="kv_write",
        kind="copy",
        bytes_read=part.rows(width),
        bytes_written=part.tokens * width * DTYPE_BYTES[part.kv_dtype],
        launches=2 if part.eager else 1,
        low_precision_cache=is_low_precision(DTYPE_BYTES[part.kv_dtype]),
        repeat=repeat,
    )


def per_head(
    part: Slice, name: str, heads: int, inner: int, columns: int, repeat: int
) -> Operation:
    """Return a batched product with one small matrix per head: [T, inner] x [inner, columns]."""
    weights = heads * inner * columns * DTYPE_BYTES[part.weight_dtype]
    return Operation(
        name=name,
        kind="gemm",
        flops=2 * part.tokens * heads * inner * columns,
        bytes_read=part.rows(heads * inner) + weights,
        bytes_written=part.rows(heads * columns),
        weight_bytes_read=weights,
        dtype=part.dtype if part.weight_dtype == "int4" else part.weight_dtype,
        repeat=repeat,
    )
