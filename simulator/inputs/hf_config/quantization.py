"""The format of the weights: ``torch_dtype`` or ``dtype``, and ``quantization_config`` above it."""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from simulator.inputs.dtypes import DTYPE_ALIASES, DTYPES, Dtype
from simulator.inputs.hf_config.reader import ConfigReader

# Methods with one format.
_FIXED: dict[str, Dtype] = {
    "fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "mxfp8": "fp8",
    "eetq": "int8",
    "mxfp4": "int4",
    "nvfp4": "int4",
}
_INT4_BITS, _INT8_BITS = 4, 8


def read_weight_dtype(reader: ConfigReader) -> tuple[Dtype, list[str]]:
    """Return the format of the weights, and notes on what was assumed.

    Formats of four bits or fewer are taken for int4, others up to eight bits for int8 or fp8.
    A file without a dtype is taken for bf16; a quantization method that is not known keeps the
    dtype, and says so.
    """
    dtype = _plain_dtype(reader)
    quantization = reader.anywhere("quantization_config")
    if quantization is None:
        return dtype, []
    if not isinstance(quantization, Mapping):
        reader.fail(f"quantization_config = {reprlib.repr(quantization)} must be an object")
    # NVIDIA's modelopt is one method with several algorithms.
    names = [str(quantization.get(key, "")).lower() for key in ("quant_method", "quant_algo")]
    bits = _bits(names[0], quantization)
    quantized = _FIXED.get(names[0]) or _FIXED.get(names[1]) or (_by_bits(*bits) if bits else None)
    method = " ".join(name for name in names if name) or "without a method"
    if quantized is None:
        return dtype, [f"quantization {method} is not known: weights taken as {dtype}"]
    if quantized == dtype:
        return dtype, []
    # Embeddings, routers and, in some files, attention are left alone; one format stands for all.
    note = (
        f"quantization {method}: all weights taken as {quantized}, though files keep some {dtype}"
    )
    return quantized, [note]


def _plain_dtype(reader: ConfigReader) -> Dtype:
    """Return the dtype of the file, bf16 where it has none or a rare one."""
    value = reader.anywhere("dtype")
    name = str(value).removeprefix("torch.").lower()
    plain = DTYPE_ALIASES.get(name, name)
    for dtype in DTYPES:
        if plain == dtype:
            return dtype
    if value is not None and not isinstance(value, str):
        reader.fail(f"torch_dtype = {reprlib.repr(value)} must be a name such as 'bfloat16'")
    return "bf16"


def _bits(method: str, quantization: Mapping[str, Any]) -> tuple[int, bool] | None:
    """Return the width of a weight [bits] and whether it is a float, or None where unsaid."""
    for bits in (_INT4_BITS, _INT8_BITS):
        if quantization.get(f"load_in_{bits}bit"):  # bitsandbytes
            return bits, False
    for scheme in _schemes(quantization):
        bits = scheme.get("bits", scheme.get("num_bits", scheme.get("w_bit")))
        if isinstance(bits, int) and not isinstance(bits, bool) and bits > 0:
            return bits, scheme.get("type") == "float"
    return (8, True) if method.endswith("fp8") else None


def _schemes(quantization: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the parts that may state the bits: the top, then each group's weights."""
    yield quantization
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            yield weights


def _by_bits(bits: int, is_float: bool) -> Dtype | None:
    """Return the format that holds a weight of some bits."""
    if bits <= _INT4_BITS:
        return "int4"
    if bits <= _INT8_BITS:
        return "fp8" if is_float else "int8"
    return None
