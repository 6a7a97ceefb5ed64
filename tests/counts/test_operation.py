"""The unit of account, and sums of it."""

import numpy as np

from simulator.counts.operation import KINDS, Operation, Totals, total


def test_a_sum_counts_repeats() -> None:
    """Three calls of one and one of another: every field is added as often as it happens."""
    often = Operation(
        name="a",
        kind="gemm",
        flops=10,
        bytes_read=20,
        bytes_written=3,
        kv_bytes_read=4,
        weight_bytes_read=5,
        link_bytes=6,
        launches=2,
        repeat=3,
    )
    once = Operation(name="b", kind="copy", bytes_read=1)
    totals = total([often, once])
    assert totals == Totals(
        flops=30,
        bytes_read=61,
        bytes_written=9,
        kv_bytes_read=12,
        weight_bytes_read=15,
        link_bytes=18,
        launches=7,
    )
    assert often.bytes_moved == 23


def test_nothing_sums_to_zero() -> None:
    """No operations, no traffic."""
    assert set(total([])) == {0}


def test_a_generator_is_summed_once_for_all_fields() -> None:
    """Operations that can be walked only once are all counted in every field."""
    totals = total(Operation(name="a", kind="gemm", flops=1, bytes_read=2) for _ in range(3))
    assert (totals.flops, totals.bytes_read, totals.launches) == (3, 6, 3)


def test_arrays_broadcast_in_a_sum() -> None:
    """Fields over different axes add up to their grid."""
    rows = Operation(name="a", kind="copy", bytes_read=np.array([[1.0], [2.0]]), repeat=2)
    columns = Operation(name="b", kind="copy", bytes_read=np.array([[10.0, 20.0]]))
    assert total([rows, columns]).bytes_read.tolist() == [[12, 22], [14, 24]]


def test_kinds_are_distinct() -> None:
    """Constants are looked up by kind: two of a name would share them."""
    assert len(set(KINDS)) == len(KINDS)
