"""PyTorch's own fused attention, with its log-sum-exp and its crash cases guarded; the merge.

Attention over a set of keys is summed up by a *state*: the output over those keys and the
log-sum-exp of their logits. States of disjoint sets of keys merge exactly into the state of their
union, so a context can be read once for all samples and each sample's own tokens apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import scale_of

# (output [..., rows, head_dim], log-sum-exp [..., rows] in float32, or float64 for float64)
State = tuple[Tensor, Tensor]

_HALF = (torch.float16, torch.bfloat16)
_DIMS = 4
# FlashAttention-2 as PyTorch ships it: 16-bit, head widths in steps of 8 up to 256.
_FLASH_HEAD_DIM_STEP = 8
_FLASH_LARGEST_HEAD_DIM = 256


def flash(query: Tensor, keys: Tensor, values: Tensor, *, scale: float | None = None) -> State:
    """Attend without a mask in one fused kernel, and return the log-sum-exp with the output.

    The operator is called directly, because ``F.scaled_dot_product_attention`` throws the
    log-sum-exp away. On CUDA it is FlashAttention-2 for 16-bit types, the memory-efficient kernel
    for float32 and plain matrix products for float64; on the CPU PyTorch's flash kernel for CPUs;
    on the meta device what CUDA would run.

    Parameters
    ----------
    query
        [batch, heads, rows, head_dim]
    keys, values
        [batch, heads, tokens, head_dim]; dimensions of stride 0 are not copied.
    scale
        Factor on the logits, 1 / sqrt(head_dim) by default.

    Returns
    -------
    output
        [batch, heads, rows, head_dim]
    log_sum_exp
        [batch, heads, rows], natural logarithm, -inf where there are no keys. Not contiguous on
        the CPU.

    Raises
    ------
    KernelError
        If the shapes do not match (PyTorch 2.13's CPU kernel would crash the process), or the
        device has no fused kernel for this type and width.
    """
    _check(query, keys, values)
    if keys.shape[2] == 0:
        # No keys: FlashAttention-2 says +inf, and the CPU's kernel divides by zero and dies.
        return _nothing(query)
    factor = scale_of(query, scale)
    if query.device.type == "cpu":
        output, log_sum_exp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            query, keys, values, scale=factor
        )
    elif query.dtype in _HALF:
        _check_flash_width(query)
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_flash_attention(  # noqa: SLF001
            query, keys, values, scale=factor
        )
    elif query.dtype == torch.float32:
        output, log_sum_exp, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(  # noqa: SLF001
            query, keys, values, None, compute_log_sumexp=True, scale=factor
        )
        log_sum_exp = log_sum_exp[:, :, : query.shape[2]]  # padded to a multiple of 32 rows
    else:
        output, log_sum_exp = _unfused(query, keys, values, factor)
    return output, log_sum_exp


def merge(states: Sequence[State]) -> Tensor:
    """Merge the attention over disjoint sets of keys into the attention over all of them.

    ``sum_i softmax_i(lse)_i * output_i``, computed in float32 (float64 for float64) whatever the
    type of the outputs: rounding the weights to 16 bits would be the largest error of all. A set
    without keys, log-sum-exp -inf, has weight 0; at least one set must have keys.

    Parameters
    ----------
    states
        Outputs [..., head_dim] and log-sum-exps [...] of the same shape each, contiguous or not.
    """
    outputs = [output for output, _ in states]
    if len(outputs) == 1:
        return outputs[0]
    log_sum_exps = torch.stack([log_sum_exp for _, log_sum_exp in states])
    weights = torch.softmax(log_sum_exps, dim=0).unsqueeze(-1)  # [states, ..., 1]
    total = outputs[0] * weights[0]  # 16-bit x float32 is float32
    for output, weight in zip(outputs[1:-1], weights[1:-1], strict=True):
        total.addcmul_(output, weight)
    # The last pass writes in the outputs' own type, which spares a pass for the cast.
    merged = torch.empty(total.shape, dtype=outputs[0].dtype, device=total.device)
    return torch.addcmul(total, outputs[-1], weights[-1], out=merged)


def _check(query: Tensor, keys: Tensor, values: Tensor) -> None:
    """Refuse what the native kernels would crash on or answer wrongly."""
    for name, tensor in (("query", query), ("keys", keys), ("values", values)):
        if tensor.dim() != _DIMS:
            raise KernelError(f"{name} is {list(tensor.shape)}, not [batch, heads, rows, head_dim]")
        if tensor.dtype != query.dtype or not tensor.is_floating_point():
            raise KernelError(f"{name} is {tensor.dtype}, query is {query.dtype}")
        if tensor.device != query.device:
            raise KernelError(f"{name} is on {tensor.device}, query on {query.device}")
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1 and tensor.numel():
            raise KernelError(
                f"{name} has stride {tensor.stride(-1)} within a head; a flash kernel needs 1 "
                "(call .contiguous() first)"
            )
    batch, heads, _, head_dim = query.shape
    expected = (batch, heads, keys.shape[2], head_dim)
    if tuple(keys.shape) != expected or tuple(values.shape) != expected:
        raise KernelError(
            f"keys {list(keys.shape)} and values {list(values.shape)} do not go with query "
            f"{list(query.shape)}: batch, heads and head_dim must be equal (use expand)"
        )
    if query.numel() == 0:
        raise KernelError(f"query is {list(query.shape)}: there is nothing to ask")


def _check_flash_width(query: Tensor) -> None:
    """Refuse head widths that the direct call does not pad for."""
    head_dim = query.shape[-1]
    if head_dim % _FLASH_HEAD_DIM_STEP or head_dim > _FLASH_LARGEST_HEAD_DIM:
        raise KernelError(
            f"head_dim = {head_dim}: the flash kernel takes multiples of {_FLASH_HEAD_DIM_STEP} "
            f"up to {_FLASH_LARGEST_HEAD_DIM}"
        )


def _nothing(query: Tensor) -> State:
    """Return the state of no keys at all: it merges as if it were not there."""
    dtype = torch.promote_types(query.dtype, torch.float32)
    return torch.zeros_like(query), query.new_full(query.shape[:-1], -torch.inf, dtype=dtype)


def _unfused(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> State:
    """Attend by two matrix products: slow, for checking results in float64 on a GPU."""
    logits = (query * scale) @ keys.transpose(-1, -2)  # [batch, heads, rows, tokens]
    log_sum_exp = torch.logsumexp(logits, dim=-1)
    return torch.exp(logits - log_sum_exp.unsqueeze(-1)) @ values, log_sum_exp
