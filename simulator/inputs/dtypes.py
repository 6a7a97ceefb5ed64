"""Number formats of weights, caches and activations."""

from typing import Literal, get_args

Dtype = Literal["bf16", "fp16", "fp32", "fp8", "int8", "int4"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)

# Bytes per element. Scales of quantised formats (one or two bytes per 64 to 128 elements) are left
# out: they add 1 to 2 %.
DTYPE_BYTES: dict[str, float] = {"bf16": 2, "fp16": 2, "fp32": 4, "fp8": 1, "int8": 1, "int4": 0.5}

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
}


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
