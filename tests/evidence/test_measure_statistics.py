"""Median, spread, and the order in which variants are timed."""

import pytest

torch = pytest.importorskip("torch")

from simulator.evidence.measure.cells import MemoryCell  # noqa: E402
from simulator.evidence.measure.predict import Repeats  # noqa: E402
from simulator.evidence.measure.rows import Machine, Outcome, row_of, spread_fraction  # noqa: E402
from simulator.evidence.measure.runner import time_interleaved  # noqa: E402


class FakeWatch:
    """A stopwatch that writes down when it ran and takes a fixed time."""

    def __init__(self, name: str, seconds: float, log: list[str]) -> None:
        self.name, self.seconds, self.log = name, seconds, log

    def __call__(self) -> float:
        self.log.append(self.name)
        return self.seconds


def test_variants_take_turns() -> None:
    """Round after round each variant runs once, so that a drifting clock hits all alike."""
    log: list[str] = []
    watches = [FakeWatch(name, 1.0, log) for name in "abc"]
    time_interleaved(watches, Repeats(warm_up=1, least=3, most=3))
    assert "".join(log) == "abcabcabcabc"


def test_warm_up_is_not_counted() -> None:
    """A first slow pass does not show in the times."""
    seconds = iter([99.0, 99.0, 1.0, 1.0, 1.0])
    taken = time_interleaved([lambda: next(seconds)], Repeats(warm_up=2, least=3, most=3))
    assert taken == [[1.0, 1.0, 1.0]]


def test_a_slow_variant_stops_early_and_a_fast_one_goes_on() -> None:
    """Each variant has its own share of time, but at least the least repeats."""
    log: list[str] = []
    slow, fast = FakeWatch("s", 0.5, log), FakeWatch("f", 2**-6, log)
    timing = Repeats(warm_up=0, least=5, most=20, budget_s=2**-3)
    taken = time_interleaved([slow, fast], timing)
    assert [len(each) for each in taken] == [5, 8]


def test_an_outlier_moves_neither_median_nor_spread_much() -> None:
    """Median and quartiles, not mean and deviation."""
    times = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 50.0]
    cell = MemoryCell(test="stream_copy", working_set_bytes=2**20)
    card = Machine(gpu="card", framework="torch", version="2.11.0")
    row = row_of(cell, card, Outcome(status="ok", seconds=[1e-6 * each for each in times]))
    assert spread_fraction(times) == pytest.approx(0.04 / 1.04, rel=0.01)
    assert row["spread_fraction"] == "0.0385"
    assert (row["latency_us"], row["min_us"], row["max_us"]) == ("1.04", "1", "50")
    assert row["repeats"] == 9


def test_one_repeat_has_no_spread() -> None:
    """A single time is its own median."""
    assert spread_fraction([2.0]) == 0.0
