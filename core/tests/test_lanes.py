"""Doing several things at a time."""

from __future__ import annotations

import threading

import pytest

from durable_monty.lanes import in_lanes

WAIT_SECONDS = 30


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(lanes):
    assert in_lanes(lambda item: item * item, range(100), lanes) == [item * item for item in range(100)]
    assert in_lanes(lambda item: item, [], lanes) == []


def test_as_many_are_done_at_a_time_as_there_are_lanes():
    all_there = threading.Barrier(3)
    assert in_lanes(lambda item: all_there.wait(WAIT_SECONDS) >= 0, range(3), 3) == [True] * 3


def test_this_thread_is_the_only_one_if_there_is_one_lane():
    assert set(in_lanes(lambda item: threading.current_thread(), range(5), 1)) == {threading.current_thread()}


def test_what_one_raises_is_raised_when_all_have_stopped():
    begun, is_in_hand, ended = [], threading.Event(), []

    def work(item):
        begun.append(item)
        if item == 0:
            assert is_in_hand.wait(WAIT_SECONDS)
            raise ValueError("the first")
        is_in_hand.set()
        threading.Event().wait(0.05)
        ended.append(item)

    with pytest.raises(ValueError, match="the first"):
        in_lanes(work, range(1000), 2)
    assert len(begun) < 1000
    assert sorted(ended) == sorted(set(begun) - {0})
