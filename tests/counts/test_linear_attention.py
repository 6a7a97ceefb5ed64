"""Linear attention: convolution, recurrence and chunks, against hand-worked numbers and PyTorch."""

import numpy as np

from simulator.counts.attention.linear import (
    CHANNEL_DECAY_STEP,
    LinearShape,
    chunked_recurrence,
    convolution,
    fused_recurrence,
    recurrence,
)
from simulator.counts.operation import total

# Two sequences; one key head of width 4, two value heads of width 8: 16 values of inputs a token.
SMALL = LinearShape(batch=2, k_heads=1, k_dim=4, v_heads=2, v_dim=8)


def test_the_convolution_reads_its_window_and_writes_it_back() -> None:
    """24 channels: 48 inputs and 144 window values of two bytes, read and written."""
    found = convolution(SMALL, stepped=False)
    assert SMALL.channels == 4 + 4 + 16
    assert (found.bytes_read, found.bytes_written) == (2 * (48 + 144), 2 * (48 + 144))
    assert found.serial_steps == 0


def test_a_stepped_convolution_takes_up_to_eight_tokens_one_after_another() -> None:
    """More tokens go to other blocks."""
    steps = [
        convolution(
            LinearShape(batch=1, seq_len=n, k_heads=1, k_dim=4, v_heads=1, v_dim=4), stepped=True
        ).serial_steps
        for n in (1, 5, 8, 1000)
    ]
    assert steps == [1, 5, 8, 8]


def test_a_decode_step_reads_and_writes_every_state() -> None:
    """Four states of 32 values in fp32; 48 inputs and 32 outputs of two bytes; 6 FLOPs a value."""
    found = recurrence(SMALL)
    assert SMALL.states_bytes == 4 * 32 * 4
    assert (found.bytes_read, found.bytes_written) == (512 + 96, 512 + 64)
    assert found.flops == 4 * 32 * 6
    assert (found.launches, found.serial_steps) == (1, 0)


def test_the_state_does_not_grow_with_what_was_read_before() -> None:
    """A longer context changes nothing: a shape has no context."""
    assert not any("context" in name for name in LinearShape._fields)


def test_draft_tokens_each_leave_a_state() -> None:
    """Three draft tokens: the states are read once and written three times."""
    shape = LinearShape(batch=2, seq_len=3, k_heads=1, k_dim=4, v_heads=2, v_dim=8)
    found = recurrence(shape, states=3)
    assert found.bytes_written == 3 * 64 + 3 * 512
    assert found.bytes_read == 3 * 96 + 512
    assert found.serial_steps == 2


def test_a_fused_prefill_moves_only_its_ends() -> None:
    """One kernel with a block for each state; a chunk of 64 tokens is one step."""
    shape = LinearShape(batch=2, seq_len=130, k_heads=1, k_dim=4, v_heads=2, v_dim=8)
    scan = fused_recurrence(shape)
    assert (scan.bytes_read, scan.bytes_written) == (260 * 48 + 512, 260 * 32 + 512)
    assert (scan.serial_steps, scan.thread_blocks, scan.launches) == (3, 4, 1)
    # For each token and head: 64 x (2 x 4 + 8) + 64 x (4 + 8) + 3 x 4 x 8 multiply-adds.
    assert scan.flops == 260 * 2 * 2 * (64 * 16 + 64 * 12 + 96)


def test_an_unfused_prefill_does_the_same_products_with_more_traffic() -> None:
    """Fusing changes bytes and launches, not FLOPs."""
    shape = LinearShape(batch=2, seq_len=130, k_heads=1, k_dim=4, v_heads=2, v_dim=8)
    fused, apart = total([fused_recurrence(shape)]), total(chunked_recurrence(shape))
    assert apart.flops == fused.flops
    assert apart.bytes_read > fused.bytes_read
    assert apart.launches > fused.launches


def test_a_decay_by_channel_costs_more_and_longer_steps() -> None:
    """Kimi Delta Attention scales queries and keys, channel by channel."""
    shape = LinearShape(batch=1, seq_len=256, k_heads=4, k_dim=128, v_heads=4, v_dim=128)
    by_channel = shape._replace(rule="channel_delta")
    for head, channel in (
        (chunked_recurrence(shape), chunked_recurrence(by_channel)),
        ([fused_recurrence(shape)], [fused_recurrence(by_channel)]),
    ):
        assert channel[-1].serial_steps == CHANNEL_DECAY_STEP * head[-1].serial_steps
        assert total(channel).bytes_read > total(head).bytes_read
        assert total(channel).flops == total(head).flops


def test_work_grows_with_batch_and_tokens_as_an_array() -> None:
    """One formula serves numbers and arrays."""
    shape = LinearShape(
        batch=np.array([1.0, 2.0]), seq_len=128, k_heads=2, k_dim=16, v_heads=4, v_dim=16
    )
    for item in chunked_recurrence(shape):
        assert np.allclose(item.bytes_read / item.bytes_read[0], [1, 2])
