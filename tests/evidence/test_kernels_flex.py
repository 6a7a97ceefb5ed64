"""The block mask of the FlexAttention kernel visits what each row sees, and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.evidence.kernels.flex import BLOCK, block_mask, visited_blocks

sizes = st.tuples(
    st.integers(1, 60),
    st.sampled_from([1, 3, 4, 7, 12]),
    st.sampled_from([0, 1, 127, 128, 129, 300]),
    st.sampled_from([0, 1, 5, 64, 130]),
).filter(lambda drawn: drawn[2] + drawn[3] > 0)


@given(drawn=sizes)
@settings(deadline=None, max_examples=40)
def test_blocks_are_the_dense_mask_seen_from_afar(drawn: tuple[int, int, int, int]) -> None:
    """A block is full where every pair is visible, partial where some are, absent where none is.

    A partial block of which all is visible is allowed: its mask is applied to no effect.
    """
    samples, group, context_tokens, decoded_tokens = drawn
    rows, keys = samples * group, context_tokens + samples * decoded_tokens
    sample_of_row = torch.arange(rows) // group
    owner_of_key = torch.cat(
        [torch.full((context_tokens,), -1), torch.arange(samples).repeat_interleave(decoded_tokens)]
    )
    visible = (owner_of_key == -1) | (owner_of_key[None] == sample_of_row[:, None])
    for start in range(0, rows, BLOCK):
        full, partial = visited_blocks(
            start, min(start + BLOCK, rows), group, context_tokens, decoded_tokens
        )
        assert not set(full) & set(partial)
        for block in range(-(-keys // BLOCK)):
            seen = visible[start : start + BLOCK, block * BLOCK : (block + 1) * BLOCK]
            if block in full:
                assert seen.all()
            else:
                assert (block in partial) == bool(seen.any())


def test_the_mask_holds_the_visited_blocks() -> None:
    """FlexAttention's tables list the blocks of every block of rows, full and partial apart."""
    samples, group, context_tokens, decoded_tokens = 80, 4, 300, 64
    mask = block_mask(samples, group, context_tokens, decoded_tokens)
    assert mask.shape == (1, 1, samples * group, context_tokens + samples * decoded_tokens)
    for block, start in enumerate(range(0, samples * group, BLOCK)):
        full, partial = visited_blocks(
            start, min(start + BLOCK, samples * group), group, context_tokens, decoded_tokens
        )
        for listed, counts, table in (
            (full, mask.full_kv_num_blocks, mask.full_kv_indices),
            (partial, mask.kv_num_blocks, mask.kv_indices),
        ):
            assert counts is not None
            assert table is not None
            assert table[0, 0, block, : counts[0, 0, block]].tolist() == listed


def test_the_mask_of_many_samples_never_exists_in_full() -> None:
    """1024 samples over 32K tokens: a dense mask would have 4 * 10**8 pairs."""
    mask = block_mask(1024, 4, 32768, 64)
    assert mask.kv_indices.numel() < 10**5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled_flex_skips_blocks_and_stays_exact() -> None:
    """The compiled kernel, which does skip blocks, agrees with the uncompiled one."""
    from simulator.evidence.kernels import KERNELS

    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(size, generator=generator)
        for size in [
            (2, 40, 8, 64),
            (2, 2, 300, 64),
            (2, 2, 300, 64),
            (2, 40, 2, 17, 64),
            (2, 40, 2, 17, 64),
        ]
    ]
    attend = KERNELS["bifurcated_flex"].function
    output = attend(*[tensor.half().cuda() for tensor in inputs])
    expected = attend(*inputs)
    torch.testing.assert_close(output.float().cpu(), expected, rtol=0, atol=2e-3)
