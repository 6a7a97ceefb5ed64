"""Make the choices that PyTorch would make on CUDA.

A few functions choose their operator by the device. On the meta device they take the plain path; a
trace represents CUDA, so it takes CUDA's path. Only direct calls of the traced code are redirected:
calls inside ``torch.nn.MultiheadAttention`` stay plain.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from simulator.evidence.kernels.operators import FLASH_LARGEST, FLASH_STEP, HALF
from simulator.evidence.tracing.costs import Call


class CudaChoices(TorchFunctionMode):
    """Redirect functions on the meta device to the operator that CUDA would run.

    Parameters
    ----------
    record
        Called with each kernel that exists only on CUDA.
    """

    def __init__(self, record: Callable[[Call], None]) -> None:
        super().__init__()
        self._replacements: dict[Any, Callable[..., Any]] = {
            torch.nn.functional.scaled_dot_product_attention: _attention,
            torch.nn.functional.rms_norm: partial(_rms_norm, record),
            torch.rms_norm: partial(_rms_norm, record),
            torch.Tensor.__setitem__: _set_item,
            torch.Tensor.cuda: lambda tensor, *_, **__: tensor.to("meta"),
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace a known function, run any other; CUDA becomes the meta device."""
        del types
        if func is torch.device:  # only names a device
            return func(*args, **(kwargs or {}))
        here = tuple(_on_meta(value) for value in args)
        named = {key: _on_meta(value) for key, value in (kwargs or {}).items()}
        replacement = self._replacements.get(func)
        if replacement is not None:
            result = replacement(*here, **named)
            if result is not NotImplemented:
                return result
        return func(*here, **named)


def _on_meta(value: Any) -> Any:
    """Return the meta device for a CUDA device, and anything else unchanged."""
    if isinstance(value, torch.device | str) and str(value).startswith("cuda"):
        return torch.device("meta")
    return value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Try flash attention, then memory-efficient attention, then the plain products.

    The order and the conditions of ``select_sdp_backend`` on CUDA (recalled), with the switches of
    ``torch.nn.attention.sdpa_kernel``; cuDNN is left out, because it has the same traffic.
    """
    plain = query.device.type != "meta" or query.dim() != 4 or query.shape[0] != key.shape[0]  # noqa: PLR2004
    if plain or not all(tensor.stride(-1) == 1 for tensor in (query, key, value)):
        return NotImplemented
    repeats = query.shape[1] // key.shape[1]
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    if (
        torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        and query.dtype in HALF
        and attn_mask is None
        and query.shape[-1] == value.shape[-1] <= FLASH_LARGEST
    ):
        missing = -query.shape[-1] % FLASH_STEP
        padded = [pad(each, (0, missing)) if missing else each for each in (query, key, value)]
        output = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            *padded, dropout_p, is_causal, scale=factor
        )[0]
        return output[..., : value.shape[-1]] if missing else output
    if (
        torch.backends.cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]
        and query.dtype in (*HALF, torch.float32)
        and (repeats == 1 or not enable_gqa)
    ):
        bias = None
        if attn_mask is not None:
            bias = _bias(attn_mask, query.dtype).expand(*query.shape[:3], key.shape[2])
        return torch.ops.aten._scaled_dot_product_efficient_attention(  # noqa: SLF001
            query,
            key,
            value,
            bias,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=factor,
            compute_log_sumexp=False,
        )[0]
    return NotImplemented


def _bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask into numbers to add, as ``F.scaled_dot_product_attention`` does."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.logical_not(), -torch.inf)


def _rms_norm(
    record: Callable[[Call], None],
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    """Take the fused kernel, as PyTorch 2.9 and newer do on CUDA (recalled)."""
    del eps
    same_dtype = weight is None or weight.dtype == input.dtype
    if input.device.type != "meta" or not same_dtype:
        return NotImplemented
    output = torch.empty_like(input)
    rows = input.shape[: input.dim() - len(normalized_shape)]
    inverse_norms = torch.empty(rows, dtype=torch.float32, device=input.device)
    read = [input] if weight is None else [input, weight]
    fresh = [output, inverse_norms]
    record(Call(name="_fused_rms_norm", args={}, read=read, written=[], fresh=fresh))
    return output


def _set_item(target: Any, index: Any, value: Any) -> Any:
    """Fill with a number in one kernel, as indexing a CUDA tensor does."""
    indices = index if isinstance(index, tuple) else (index,)
    is_basic = all(isinstance(each, int | slice | type(...) | None) for each in indices)
    if not (isinstance(target, Tensor) and isinstance(value, int | float) and is_basic):
        return NotImplemented
    target[index].fill_(value)
    return None
