"""Bifurcated attention in one FlexAttention call: a mask instead of a merge."""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import AttentionCall, kernel
from simulator.evidence.kernels.layout import packed_cache
from simulator.evidence.kernels.operators import fold

BLOCK = 128  # rows and keys of a mask block, FlexAttention's default
_SHAPES = 4096  # compiled kernels that one process may hold


@kernel
def bifurcated_flex(call: AttentionCall) -> Tensor:
    """Attend in one call over packed keys, each row to the context and its own sample's tokens.

    There is no rounding between the parts. On CUDA the call is compiled; on the CPU it runs
    uncompiled, with all logits in memory. Its mask is for one query token.
    """
    if call.query_tokens > 1:
        raise KernelError(f"bifurcated_flex takes one query token, not {call.query_tokens}")
    rows = fold(call.query, call.prompts, call.kv_heads)
    keys, values = map(packed_cache, call.context, call.decoded)
    # For a trace, the mask is on the CPU, where it costs the device nothing.
    device = "cpu" if rows.device.type == "meta" else str(rows.device)
    sizes = (call.samples, call.group, call.context_tokens, call.decoded_tokens)
    output = _attend(rows, keys, values, block_mask(*sizes, device), call.scale)
    return torch.unflatten(output, 2, sizes[:2]).transpose(1, 2)


@lru_cache(maxsize=32)
def block_mask(
    samples: int, group: int, context_tokens: int, decoded_tokens: int, device: str = "cpu"
) -> BlockMask:
    """Build the block mask: the blocks of keys that each block of rows visits.

    It depends only on the sizes. An engine builds it once for many layers and steps, so it is
    cached and no kernel's cost includes it. It is built block by block, because
    ``create_block_mask`` would first build the mask of every row and key.

    Parameters
    ----------
    samples, group
        Their product is the number of rows.
    context_tokens, decoded_tokens
        Keys of the context, and of each sample after it.
    device
        Device of the tables.
    """
    rows, keys = samples * group, context_tokens + samples * decoded_tokens
    visits = [
        visited_blocks(start, min(start + BLOCK, rows), group, context_tokens, decoded_tokens)
        for start in range(0, rows, BLOCK)
    ]
    partial_counts, partial_indices = _table([partial for _, partial in visits], keys)
    full_counts, full_indices = _table([full for full, _ in visits], keys)
    mask = BlockMask.from_kv_blocks(
        partial_counts,
        partial_indices,
        full_counts,
        full_indices,
        BLOCK_SIZE=BLOCK,
        mask_mod=_visible(group, context_tokens, decoded_tokens),
        seq_lengths=(rows, keys),
    )
    return mask.to(device)


def visited_blocks(
    first_row: int, end_row: int, group: int, context_tokens: int, decoded_tokens: int
) -> tuple[list[int], list[int]]:
    """List the blocks of keys that some rows see completely, and those they see in part.

    The keys are the context, then the decoded tokens of sample after sample.

    Parameters
    ----------
    first_row, end_row
        Range of rows, half open.
    group
        Query heads per KV head: row r belongs to sample ``r // group``.
    context_tokens, decoded_tokens
        Tokens of the context and of each sample.

    >>> visited_blocks(0, 128, 4, 300, 64)  # 300 context tokens, 32 samples of 64 tokens
    ([0, 1], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])
    """
    full = range(context_tokens // BLOCK)
    own_start = context_tokens + first_row // group * decoded_tokens
    own_end = context_tokens + ((end_row - 1) // group + 1) * decoded_tokens
    partial = set(range(len(full), -(-context_tokens // BLOCK)))
    if decoded_tokens:
        partial |= set(range(own_start // BLOCK, -(-own_end // BLOCK)))
    return list(full), sorted(partial)


def _table(blocks: list[list[int]], keys: int) -> tuple[Tensor, Tensor]:
    """Write lists of blocks as FlexAttention's tables, [1, 1, row blocks] and [..., key blocks]."""
    width = -(-keys // BLOCK)
    counts = torch.tensor([len(visited) for visited in blocks], dtype=torch.int32, device="cpu")
    padded = [visited + [0] * (width - len(visited)) for visited in blocks]
    indices = torch.tensor(padded, dtype=torch.int32, device="cpu")
    return counts[None, None], indices[None, None]


def _visible(
    group: int, context_tokens: int, decoded_tokens: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the mask: a row sees the context and the tokens of its own sample."""

    def _sees(_prompt: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        own = (key - context_tokens) // max(decoded_tokens, 1) == row // group
        return (key < context_tokens) | own

    return _sees


def _attend(rows: Tensor, keys: Tensor, values: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """Call FlexAttention in the form that the device supports."""
    if rows.device.type == "cuda":
        # One kernel per shape, with a higher limit: beyond PyTorch's limit of 8 it would silently
        # fall back to the uncompiled operator.
        with torch._dynamo.config.patch(  # noqa: SLF001
            recompile_limit=_SHAPES, accumulated_recompile_limit=_SHAPES
        ):
            return _compiled()(rows, keys, values, block_mask=mask, scale=scale)
    # The underlying operator: flex_attention refuses the meta device, and on the CPU it would
    # compile a wrapper for every new shape without any speed-up.
    operator: Any = torch.ops.higher_order.flex_attention
    options = {"OUTPUT_LOGSUMEXP": False}
    output: Tensor
    output, *_ = operator(rows, keys, values, _unchanged, mask.as_tuple(), scale, options, (), ())
    return output


@cache
def _compiled() -> Callable[..., Tensor]:
    """Compile FlexAttention once per process."""
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return compiled


def _unchanged(score: Tensor, *_: Tensor) -> Tensor:
    """Return a logit unchanged."""
    return score
