"""Number formats of weights, caches and activations."""

from typing import Literal, get_args

Dtype = Literal["bf16", "fp16", "fp32", "fp8", "fp8_block", "int8", "nvfp4", "mxfp4", "int4"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
# A KV cache has no scales of blocks of weights.
KvDtype = Literal["bf16", "fp16", "fp32", "fp8", "int8", "nvfp4", "mxfp4", "int4"]
KV_DTYPES: tuple[KvDtype, ...] = get_args(KvDtype)

# Bytes per weight, scales included: of fp8_block four bytes per 128 x 128 weights (DeepSeek-V3), of
# nvfp4 one byte per 16 (NVIDIA), of mxfp4 one per 32 (OCP MX 1.0), of int4 two per 128. fp8 and
# int8 have one scale for a tensor or a channel, less than 0.1 %.
DTYPE_BYTES: dict[str, float] = {
    "bf16": 2,
    "fp16": 2,
    "fp32": 4,
    "fp8": 1,
    "fp8_block": 1 + 4 / 128**2,
    "int8": 1,
    "nvfp4": 0.5 + 1 / 16,
    "mxfp4": 0.5 + 1 / 32,
    "int4": 0.5 + 2 / 128,
}
# Bytes per cached value. fp8 has one scale for a tensor. int8 and int4 have a 16-bit scale and zero
# point for each token and head (LMDeploy's), taken as 128 wide; the others have those of weights.
KV_BYTES: dict[str, float] = {
    **{dtype: DTYPE_BYTES[dtype] for dtype in KV_DTYPES},
    "int8": 1 + 4 / 128,
    "int4": 0.5 + 4 / 128,
}

# Weights that kernels expand on the chip, to multiply activations that are not quantised (w4a16).
EXPANDED: tuple[Dtype, ...] = ("int4", "mxfp4")

# Formats whose kernels have constants of their own, and the format whose constants stand in for
# missing ones; after it come those of 16 bits.
Precision = Literal["", "fp8", "fp8_block", "nvfp4", "mxfp4", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)[1:]
STANDS_IN: dict[Precision, Precision] = {"fp8_block": "fp8", "nvfp4": "fp8", "mxfp4": "int4"}

# Spellings of the engines and of Hugging Face files.
DTYPE_ALIASES: dict[str, Dtype] = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "fp4": "nvfp4",
}


def with_stand_ins(precision: Precision) -> list[Precision]:
    """Return a format and those whose constants stand in for missing ones, the nearest first.

    >>> with_stand_ins("mxfp4"), with_stand_ins("")
    (['mxfp4', 'int4'], [])
    """
    return [precision, *with_stand_ins(STANDS_IN.get(precision, ""))] if precision else []


def read_dtype(value: object) -> object:
    """Replace an engine's spelling of a format with ours; leave everything else unchanged.

    >>> read_dtype("bfloat16"), read_dtype("bf16")
    ('bf16', 'bf16')
    """
    return DTYPE_ALIASES.get(value, value) if isinstance(value, str) else value


def is_low_precision(element_bytes: float) -> bool:
    """Return whether a format has 8 bits or fewer per element.

    >>> is_low_precision(DTYPE_BYTES["fp8"]), is_low_precision(DTYPE_BYTES["bf16"])
    (True, False)
    """
    return element_bytes < DTYPE_BYTES["bf16"]


def activation_dtype(weight_dtype: Dtype) -> Dtype:
    """Return the activations' format: that of the weights, or bf16 if weights are quantised.

    >>> activation_dtype("fp16"), activation_dtype("int4")
    ('fp16', 'bf16')
    """
    return "bf16" if is_low_precision(DTYPE_BYTES[weight_dtype]) else weight_dtype
