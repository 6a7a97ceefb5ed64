"""Time of a collective: the fastest way, its chunks, its hops, and several nodes, by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import ROUND_CONSTANTS, gpu
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.pieces import all_gather, all_reduce, all_to_all
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.constants import rates
from simulator.timing.roofline import OperationTime, operation_time

US = 1e-6
WAYS = {**ROUND_CONSTANTS, "hop_us": 1, "exchange_us": 5, "switch_fraction": 0.5}


def card(constants: dict[str, float], **changes: Any) -> HardwareProfile:
    """Return a GPU of which 200 GB/s reach its peers."""
    made = gpu(constants, network_gb_per_s_per_direction=50)
    return made.but(**changes)


def reduced(on: HardwareProfile, message: Any, ranks: int = 8) -> OperationTime:
    """Return the time of an all-reduce."""
    (operation,) = all_reduce("r", message_bytes=message, ranks=ranks)
    return operation_time(operation, rates(on), "graph")


def test_short_messages_go_whole_and_long_ones_in_parts() -> None:
    """64 KiB seven times are 2.3 us; 256 KiB would be 9.2, in parts 5 and 2.3 us."""
    times = reduced(card(WAYS), np.array([65536.0, 262144.0])).link_s / US
    assert times == pytest.approx([7 * 65536 / 200e3, 5 + 1.75 * 262144 / 200e3])


def test_a_switch_that_adds_up_is_used_where_it_is_faster() -> None:
    """64 MB in parts are 112 MB, through the switch 72; two GPUs would send 96 instead of 64."""
    switched = card(WAYS, link_sums=True)
    assert reduced(card(WAYS), 64e6).link_s == pytest.approx(5 * US + 112e6 / 200e9)
    assert reduced(switched, 64e6).link_s == pytest.approx(5 * US + 72e6 / 200e9)
    assert reduced(switched, 64e6, ranks=2).link_s == pytest.approx(64e6 / 200e9)


def test_a_share_of_the_link_rises_with_the_message() -> None:
    """20 MB between two take 100 us, and 40 us more for chunks of 4; 2 GB 10 ms, and 0.4 more."""
    chunked = card({**ROUND_CONSTANTS, "chunk_us": 4})
    assert reduced(chunked, 20e6, ranks=2).link_s == pytest.approx(140 * US)
    assert reduced(chunked, 2e9, ranks=2).link_s == pytest.approx(10.4e-3)


def test_each_further_gpu_takes_a_hop_each_time_around() -> None:
    """Seven hops twice in an all-reduce of eight, once in an all-gather; a launch takes 2 us."""
    (gathered,) = all_gather("g", gathered_bytes=1e6, ranks=8)
    assert reduced(card(WAYS), 1e6).launch_s == pytest.approx((2 + 14) * US)
    assert operation_time(gathered, rates(card(WAYS)), "graph").launch_s == pytest.approx(9 * US)


def test_sixteen_gpus_of_two_nodes_add_up_inside_and_across() -> None:
    """Of each GPU's traffic 14/15 goes over 400 GB/s and 1/15 over 50; half of both is reached."""
    rate = 1 / (14 / 15 / 400e9 + 1 / 15 / 50e9)
    far = {**WAYS, "network_hop_us": 3}
    time = reduced(card(far), 16e6, ranks=16)
    assert time.launch_s == pytest.approx((2 + 2 * (7 + 3)) * US)
    assert time.link_s == pytest.approx(16e6 * 30 / 16 / (rate / 2))


def test_a_rack_is_one_node() -> None:
    """Where the link joins 72, no network is used; a tree takes 14 hops to 64 instead of 63."""
    rack = card({**WAYS, "network_hop_us": 1000}, link_gpus=72)
    time = reduced(rack, 64e6, ranks=64)
    assert time.launch_s == pytest.approx((2 + 2 * 14) * US)
    assert time.link_s == pytest.approx(5 * US + 64e6 * 126 / 64 / 200e9)


@given(st.floats(1, 1e9), st.floats(1, 10), st.sampled_from([2, 4, 8, 16, 32]), st.booleans())
def test_more_data_and_more_gpus_take_longer(
    message: float, more: float, ranks: int, sums: bool
) -> None:
    """And nothing is sent faster than the link's peak."""
    chosen = card({**WAYS, "chunk_us": 1}, link_sums=sums)
    time = reduced(chosen, message, ranks)
    assert reduced(chosen, message * more, ranks).device_s >= time.device_s
    assert time.link_s >= message / 400e9
    if not sums:
        assert reduced(chosen, message, 2 * ranks).device_s >= time.device_s


def test_what_goes_to_all_leaves_the_node_in_proportion() -> None:
    """Of 15 others 8 are in the other node: 8/15 over 50 GB/s, 7/15 over 400; half is reached."""
    far = {**WAYS, "network_hop_us": 3}
    (operation,) = all_to_all("a", sent_bytes=15e6, ranks=16)
    time = operation_time(operation, rates(card(far)), "graph")
    assert time.link_s == pytest.approx(2 * (7e6 / 400e9 + 8e6 / 50e9))
    # Straight to each: one hop inside, one over the network, whatever their number.
    assert time.launch_s == pytest.approx((2 + 1 + 3) * US)
    (inside,) = all_to_all("a", sent_bytes=7e6, ranks=8)
    time = operation_time(inside, rates(card(far)), "graph")
    assert time.link_s == pytest.approx(7e6 / 200e9)
    assert time.launch_s == pytest.approx((2 + 1) * US)


def test_stages_send_over_the_network_where_they_fill_several_nodes() -> None:
    """16 MB inside a node at 200 GB/s, to another one at 25; a direct link to one of 7 peers."""

    def sent_s(ranks: int, on: HardwareProfile) -> Any:
        (operation,) = all_to_all("s", sent_bytes=16e6, ranks=ranks)
        return operation_time(replace(operation, route="next"), rates(on), "graph").link_s

    assert sent_s(8, card(WAYS)) == pytest.approx(16e6 / 200e9)
    assert sent_s(16, card(WAYS)) == pytest.approx(16e6 / 25e9)
    assert sent_s(8, card(WAYS, link_peers=7)) == pytest.approx(7 * 16e6 / 200e9)
