"""Formats of a model's weights by group of tensors: how they are stored and multiplied."""

from functools import cache
from typing import Annotated, Any, Literal, get_args

from simulator.inputs.dtypes import (
    DTYPE_BYTES,
    DTYPES,
    EXPANDED,
    Dtype,
    activation_dtype,
    read_dtype,
)
from simulator.inputs.record import Frozen, Rules

# Tensors that a checkpoint gives one format. ``state`` are the projections of layers of linear
# attention and state spaces. Routers, norms and biases keep the format of the activations.
TensorGroup = Literal["attention", "state", "mlp", "experts", "shared_experts", "embedding", "head"]
TENSOR_GROUPS: tuple[TensorGroup, ...] = get_args(TensorGroup)
# The groups within layers: these are what a single format quantises.
LAYER_TENSORS = TENSOR_GROUPS[:-2]

# Names of formats that a person may give for weights; ``auto`` are the checkpoint's own.
WeightName = Literal[Dtype, "awq", "gptq", "auto"]
WEIGHT_NAMES: tuple[WeightName, ...] = (*DTYPES, "awq", "gptq", "auto")


class WeightFormat(Frozen):
    """How some weights are stored, and in what format they are multiplied.

    Attributes
    ----------
    dtype
        The number format whose kernels multiply them.
    bytes
        Bytes per weight, scales and zero points included. Where a checkpoint leaves some tensors of
        a group in 16 bits, this is the mean over the group.
    multiplied
        Format of the products, if not the usual one of the number format (4-bit weights that
        multiply 8-bit activations).
    """

    dtype: Dtype
    bytes: float
    multiplied: Dtype | None = None

    def product_dtype(self, activations: Dtype) -> Dtype:
        """Return the format of the products: some weights are expanded to the activations'."""
        return self.multiplied or (activations if self.dtype in EXPANDED else self.dtype)


def grouped_bytes(bits: float, group: float, *, scale: float = 2, zero_bits: float = 0) -> float:
    """Return the bytes per weight of a format with one scale for a group of weights.

    Parameters
    ----------
    bits
        Of one weight.
    group
        Weights that share a scale.
    scale
        Size of a scale. [bytes]
    zero_bits
        Of a group's zero point.

    Examples
    --------
    >>> grouped_bytes(4, 32), grouped_bytes(4, 128, zero_bits=4)
    (0.5625, 0.51953125)
    """
    return bits / 8 + (scale + zero_bits / 8) / group


# AWQ and GPTQ files hold a 16-bit scale and a 4-bit zero point for each 128 weights.
_FOUR_BITS = WeightFormat(dtype="int4", bytes=grouped_bytes(4, 128, zero_bits=4))
NAMED_FORMATS: dict[str, WeightFormat] = {
    **{dtype: WeightFormat(dtype=dtype, bytes=DTYPE_BYTES[dtype]) for dtype in DTYPES},
    "awq": _FOUR_BITS,
    "gptq": _FOUR_BITS,
}


def _read_format(value: Any) -> Any:
    """Replace the name of a format with the format."""
    name = read_dtype(value)
    return NAMED_FORMATS.get(name, value) if isinstance(name, str) else value


Named = Annotated[WeightFormat, Rules(before=_read_format)]


class WeightFormats(Frozen):
    """The formats of a model's weights; a single name, such as ``fp8``, is :func:`one_format`.

    Attributes
    ----------
    base
        Format of all that is not quantised, and of the activations.
    attention, state, mlp, experts, shared_experts, embedding, head
        The format of each group of tensors; None is the base.
    """

    base: Dtype = "bf16"
    attention: Named | None = None
    state: Named | None = None
    mlp: Named | None = None
    experts: Named | None = None
    shared_experts: Named | None = None
    embedding: Named | None = None
    head: Named | None = None

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Read a single name."""
        name = read_dtype(data)
        return dict(one_format(name)) if isinstance(name, str) and name in NAMED_FORMATS else data

    def of(self, group: TensorGroup) -> WeightFormat:
        """Return the format of a group of tensors."""
        found: WeightFormat | None = getattr(self, group)
        return found or NAMED_FORMATS[self.base]

    @property
    def name(self) -> WeightName:
        """The number format whose :func:`one_format` these are, or ``auto``."""
        return next((name for name in DTYPES if one_format(name) == self), "auto")

    @property
    def products(self) -> Dtype:
        """Number format of the weights of most products outside experts."""
        return (self.mlp or self.of("attention")).dtype

    @property
    def narrowest(self) -> WeightFormat:
        """The format with the fewest bytes."""
        return min(map(self.of, TENSOR_GROUPS), key=lambda found: found.bytes)

    def __str__(self) -> str:
        """Name the number formats: one, or the base and those of the groups that differ.

        >>> formats = WeightFormats(experts=NAMED_FORMATS["mxfp4"])
        >>> str(formats), str(one_format("awq"))
        ('bf16 with mxfp4 experts', 'int4')
        """
        groups: dict[Dtype, list[str]] = {}
        for group in LAYER_TENSORS:
            groups.setdefault(self.of(group).dtype, []).append(group.replace("_", " "))
        if len(groups) == 1:
            return next(iter(groups))
        groups.pop(self.base, None)
        named = [f"{dtype} {', '.join(names)}" for dtype, names in groups.items()]
        return f"{self.base} with {' and '.join(named)}"


@cache
def one_format(name: WeightName | str) -> WeightFormats:
    """Return one format for all matrices within layers; tables and head keep 16 bits or more.

    >>> one_format("int4").of("experts").dtype, one_format("int4").of("head").dtype
    ('int4', 'bf16')
    """
    one = NAMED_FORMATS[name]
    base = activation_dtype(one.dtype)
    if base == one.dtype:
        return WeightFormats(base=base)
    return WeightFormats(base=base, **dict.fromkeys(LAYER_TENSORS, one))
