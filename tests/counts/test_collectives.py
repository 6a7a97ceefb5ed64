"""Traffic between GPUs against a ring that is walked step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.pieces import all_gather, all_reduce


def _ring_traffic(ranks: int, message: int, *, reduce: bool) -> float:
    """Send chunks round a ring until every rank has all of them; return what rank 0 sent."""
    chunk, sent = message / ranks, 0.0
    if reduce:
        sums = [{part: {rank} for part in range(ranks)} for rank in range(ranks)]
        for step in range(ranks - 1):
            moves = [(rank, (rank - step) % ranks) for rank in range(ranks)]
            passed = {rank: set(sums[rank][part]) for rank, part in moves}
            for rank, part in moves:
                sums[(rank + 1) % ranks][part] |= passed[rank]
            sent += chunk
        whole = set(range(ranks))
        assert all(any(part == whole for part in sums[rank].values()) for rank in range(ranks))
    held = [{rank} for rank in range(ranks)]
    for step in range(ranks - 1):
        passed = [(rank - step) % ranks for rank in range(ranks)]
        for rank in range(ranks):
            assert passed[rank] in held[rank]
        for rank in range(ranks):
            held[(rank + 1) % ranks].add(passed[rank])
        sent += chunk
    assert all(parts == set(range(ranks)) for parts in held)
    return sent


@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_traffic_is_that_of_a_ring(ranks: int) -> None:
    """Reduce-scatter and all-gather walked round a ring send what is counted."""
    (reduced,) = all_reduce("r", message_bytes=1 << 20, ranks=ranks)
    (gathered,) = all_gather("g", gathered_bytes=1 << 20, ranks=ranks)
    assert reduced.link_bytes == pytest.approx(_ring_traffic(ranks, 1 << 20, reduce=True))
    assert gathered.link_bytes == pytest.approx(_ring_traffic(ranks, 1 << 20, reduce=False))


def test_one_gpu_talks_to_nobody() -> None:
    """A group of one has no collectives at all, not free ones: they would be launched."""
    assert all_reduce("r", message_bytes=100, ranks=1) == []
    assert all_gather("g", gathered_bytes=100, ranks=1) == []


@given(st.integers(2, 64), st.integers(1, 10**9))
def test_an_all_reduce_sends_less_than_twice_the_message(ranks: int, message: int) -> None:
    """Between one message (two GPUs) and two, growing with the group."""
    (operation,) = all_reduce("r", message_bytes=message, ranks=ranks)
    (larger,) = all_reduce("r", message_bytes=message, ranks=ranks + 1)
    assert message <= operation.link_bytes < larger.link_bytes < 2 * message
    assert operation.ranks == ranks
