"""One step of the layers that keep a state: delta rules, decays, scans and short convolutions.

Plain PyTorch, for one new token per sequence. The same names of dimensions everywhere::

    state            [batch, heads, k_dim, v_dim]
    query, key       [batch, k_heads, k_dim]     each head of keys serves heads / k_heads states
    value            [batch, heads, v_dim]
    decay            [batch, heads, 1], or [batch, heads, k_dim] with a decay for each channel

Every function returns the output and the new state, and changes neither of its inputs.
"""

import torch
from torch import Tensor


def delta_step(
    state: Tensor, query: Tensor, key: Tensor, value: Tensor, decay: Tensor, strength: Tensor
) -> tuple[Tensor, Tensor]:
    """Take a step of a gated delta rule (Gated DeltaNet, Kimi Delta Attention).

    S = g S + b k (v - (g S)^T k)^T,  o = S^T q.

    Parameters
    ----------
    state, query, key, value, decay
        As above.
    strength
        How much of a recalled value is replaced, b: [batch, heads, 1].
    """
    heads = state.shape[1]
    decayed = state * decay[..., None]
    recalled = _read(decayed, _repeated(key, heads))
    new = decayed + _outer(_repeated(key, heads), strength * (value - recalled))
    return _read(new, _repeated(query, heads)), new


def decay_step(
    state: Tensor, query: Tensor, key: Tensor, value: Tensor, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """Take a step of a state that decays (Mamba-2, lightning attention).

    S = g S + k v^T,  o = S^T q. In Mamba-2 the value is the input times its time step, and the
    query and key are C and B.

    Parameters
    ----------
    state, query, key, value, decay
        As above.
    """
    heads = state.shape[1]
    new = state * decay[..., None] + _outer(_repeated(key, heads), value)
    return _read(new, _repeated(query, heads)), new


def convolution_step(window: Tensor, inputs: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """Take a step of a short convolution over each channel.

    Parameters
    ----------
    window
        The last inputs: [batch, channels, taps - 1].
    inputs
        The new token's: [batch, channels].
    taps
        [channels, taps]
    """
    seen = torch.cat([window, inputs[..., None]], dim=-1)
    return (seen * taps).sum(dim=-1), seen[..., 1:].contiguous()


def _repeated(keys: Tensor, heads: int) -> Tensor:
    """Repeat each head of keys for the states that it serves."""
    return keys.repeat_interleave(heads // keys.shape[1], dim=1)


def _read(state: Tensor, keys: Tensor) -> Tensor:
    """Multiply every state by a vector of keys, S^T k."""
    return torch.einsum("bhkv,bhk->bhv", state, keys)


def _outer(keys: Tensor, values: Tensor) -> Tensor:
    """Return the product k v^T of every head."""
    rows, columns = keys.flatten(0, 1)[..., None], values.flatten(0, 1)[:, None, :]
    return torch.unflatten(torch.bmm(rows, columns), 0, keys.shape[:2])
