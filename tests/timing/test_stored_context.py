"""Standard attention over one stored context: what a wave reads together, and what L2 holds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, attention_only, by_name, gpu, round_gpu, step_operations
from hypothesis import given
from hypothesis import strategies as st

from simulator import load_hardware, load_model
from simulator.answers.estimate import Question, estimate
from simulator.counts.operation import Operation
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import rates
from simulator.timing.roofline import cached_bytes, operation_time, stored_ends_s

TOKEN = 2 * 128 * 2  # bytes of a KV head's keys and values
ROUND = rates(round_gpu())


def _stored(kv_heads: int, samples: Any, context: Any, layout: str = "shared") -> Operation:
    """Return standard attention of one layer over a context, as the round GPU runs it."""
    operations = step_operations(
        attention_only(kv_heads, kv_heads),
        attention="standard",
        kv_layout=layout,
        samples=samples,
        context_tokens=context,
        decoded_tokens=0,
        resident=200,
    )
    return by_name(operations)["attention"]


@pytest.mark.parametrize(
    ("kv_heads", "samples", "from_memory"),
    [
        (8, 1, 1),  # nothing is read twice
        (8, 4, 1),  # 32 of 200 blocks: one wave
        (8, 25, 1),  # 200 blocks: one wave, just full
        (8, 64, 64 / 25),  # 512 blocks: 2.56 waves
        (32, 64, 64 / 6.25),  # 2048 blocks: 10.24 waves
        (100, 16, 8),  # two samples at a time
        (200, 16, 16),  # one sample at a time
        (400, 16, 16),  # half a sample at a time: nothing is together
    ],
)
def test_a_wave_reads_a_context_once(kv_heads: int, samples: int, from_memory: float) -> None:
    """200 blocks run at once, one for each sample and KV head."""
    operation = _stored(kv_heads, samples, 1000)
    copy = 1000 * kv_heads * TOKEN
    assert operation.reused_bytes == (samples - 1) * copy
    assert operation.together_bytes == pytest.approx((samples - from_memory) * copy)


def test_copies_are_never_read_together() -> None:
    """Each sample has keys of its own."""
    assert _stored(8, 16, 1000, "copies").together_bytes is None


def test_l2_serves_what_it_holds_and_half_of_what_a_wave_reads_together() -> None:
    """16 samples of 50 MiB, twice what L2 holds: half of 15 reads, and half of the other half."""
    operation = Operation(
        name="a",
        kind="attention",
        bytes_read=16 * 50 * 2**20,
        reused_bytes=15 * 50 * 2**20,
        reused_footprint_bytes=50 * 2**20,
        together_bytes=12 * 50 * 2**20,
    )
    assert cached_bytes(operation, ROUND) == pytest.approx((7.5 + 3) * 50 * 2**20)
    # A replay of private data of that size finds none of it.
    assert cached_bytes(replace(operation, together_bytes=None), ROUND) == 0


_SIZES = st.tuples(
    st.sampled_from([1, 8, 32]), st.integers(1, 300), st.integers(1, 2**17), st.integers(1, 2**16)
)


def _parts(kv_heads: int, samples: int, context: int, layout: str = "shared") -> list[float]:
    """Return the shortest, the predicted and the longest streaming time, without splits. [s]."""
    # Splits of the keys make other times rise and fall in waves.
    operation = replace(
        _stored(kv_heads, samples, context, layout), effective_blocks=None, scratch_bytes=0
    )
    time = operation_time(operation, ROUND, "graph")
    below, above = stored_ends_s(operation, time, ROUND) if layout == "shared" else (0.0, 0.0)
    return [time.stream_s - below, time.stream_s, time.stream_s + above]


@given(_SIZES)
def test_a_shared_token_costs_less_than_a_private_one(sizes: tuple[int, int, int, int]) -> None:
    """More context, or another sample, takes longer, but no longer than with copies."""
    kv_heads, samples, context, more = sizes
    before = _parts(kv_heads, samples, context)
    longer = _parts(kv_heads, samples, context + more)
    wider = _parts(kv_heads, samples + 1, context)
    private = _parts(kv_heads, samples, context, "copies")[1]
    much_private = _parts(kv_heads, samples, context + more, "copies")[1]
    sums = 1e-9  # of roundings
    for end in range(3):
        assert longer[end] >= before[end] * (1 - sums)
        assert wider[end] >= before[end] * (1 - sums)
        assert before[end] <= private * (1 + sums)
    assert longer[1] - before[1] <= (much_private - private) + sums * much_private
    assert before[0] <= before[1] <= before[2]


@given(_SIZES)
def test_no_end_beats_one_read_a_wave(sizes: tuple[int, int, int, int]) -> None:
    """The context comes from memory once in each wave, or at least once if L2 holds it."""
    kv_heads, samples, context, _ = sizes
    copy = context * kv_heads * TOKEN
    held = min(1.0, 25 * 2**20 / copy)
    waves = min(samples, max(1.0, samples * kv_heads / 200))
    least = held * copy + (1 - held) * waves * copy
    assert _parts(kv_heads, samples, context)[0] >= least / 1000e9 * (1 - 1e-9)


def test_arrays_have_the_ends_of_their_numbers() -> None:
    """One formula for a grid and its points."""
    samples, contexts = np.array([1.0, 4.0, 64.0])[:, None], np.array([1e3, 1e4, 1e5])
    grid = Workload.grid(samples=samples, context_tokens=contexts, decoded_tokens=0)
    several = _grid_ends(grid)
    for row, count in enumerate(samples[:, 0]):
        for column, tokens in enumerate(contexts):
            point = Workload(samples=int(count), context_tokens=int(tokens), decoded_tokens=0)
            for end, single in zip(several, _grid_ends(point), strict=True):
                found = np.broadcast_to(end, (3, 3))[row, column]
                assert found == pytest.approx(single, rel=1e-9, abs=1e-15)


def _grid_ends(work: Workload) -> tuple[Any, Any]:
    """Return how much shorter and longer standard attention may be."""
    from simulator.counts.transformer import decode_operations

    setup = Setup(kv_layout="shared")
    operations = decode_operations(attention_only(32, 8), setup, work, resident_blocks=200)
    operation = next(each for each in operations if each.name == "attention")
    return stored_ends_s(operation, operation_time(operation, ROUND, "graph"), ROUND)


@pytest.mark.parametrize(
    ("card", "together_ms", "alone_ms"), [("h100-sxm", 15.9, 29.5), ("l40s", 41.7, 119.2)]
)
def test_an_interval_spans_both_rules(card: str, together_ms: float, alone_ms: float) -> None:
    """Llama-3.1-8B, 16 samples of 32K: ends derived without this program and its compute roof.

    Where reads are few, exponentials take part of the time: 5 % more on H100.
    """
    result = estimate(
        Question(
            load_model("llama-3.1-8b"),
            load_hardware(card),
            Setup(kv_layout="shared"),
            Workload(samples=16, context_tokens=32768),
        )
    )
    error = result.uncertainty.own["stored"]
    assert result.step_s - float(error.below_s) == pytest.approx(together_ms / 1e3, rel=0.06)
    assert result.step_s + float(error.above_s) == pytest.approx(alone_ms / 1e3, rel=0.03)
    assert result.step_low_s <= together_ms / 1e3 * 1.06
    assert result.step_high_s >= alone_ms / 1e3
    moved = float(result.totals.bytes_read + result.totals.bytes_written)
    assert 0 < moved - result.memory_traffic_bytes < float(result.totals.kv_bytes_read)
    assert result.memory_traffic_bytes_low < result.memory_traffic_bytes


def test_a_step_does_not_jump_where_a_context_leaves_l2() -> None:
    """From 16K to 32K on L40S the step took 84 ms more, where copies take 48 ms more."""
    times = [
        estimate(
            Question(
                load_model("llama-3.1-8b"),
                load_hardware("l40s"),
                Setup(kv_layout=layout),
                Workload(samples=16, context_tokens=context),
            )
        ).step_s
        for layout in ("shared", "copies")
        for context in (16384, 32768)
    ]
    assert 0 < times[1] - times[0] < times[3] - times[2]


def _measured(share: float) -> HardwareProfile:
    """Return the round GPU after rows of it told how reads keep up."""
    return gpu({**ROUND_CONSTANTS, "keeping_up": share})


def test_a_measured_share_decides_between_the_rules() -> None:
    """With rows of the card the time moves to them, and the interval spans the rules no more."""
    operation = _stored(8, 16, 2**17)
    shortest, _, longest = (
        operation_time(operation, ROUND, "graph").stream_s + error
        for error in (
            -stored_ends_s(operation, operation_time(operation, ROUND, "graph"), ROUND)[0],
            0.0,
            stored_ends_s(operation, operation_time(operation, ROUND, "graph"), ROUND)[1],
        )
    )
    for share, expected in ((1.0, shortest), (0.5, None), (1e-9, None)):
        card = rates(_measured(share))
        time = operation_time(operation, card, "graph")
        assert stored_ends_s(operation, time, card) == (0.0, 0.0)
        if expected is not None:
            assert time.stream_s == pytest.approx(expected)
        assert shortest <= time.stream_s * (1 + 1e-9)
        assert time.stream_s <= longest
