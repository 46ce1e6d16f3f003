"""Streams of `datasets` under a script written for the original: in order, shuffled, and read by worker processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.compat.clients.harness import Sides, assert_same, needs

needs("datasets", "transformers")

Both = Callable[[str], Sides]
WAYS = ["in order", "shuffled", "workers"]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_gives_the_figures_of_the_original(both: Both, way: str) -> None:
    sides = both("streaming")

    assert len([entry for entry in sides.ours[way]["logs"] if "loss" in entry]) == 8
    assert_same(sides.stock[way]["logs"], sides.ours[way]["logs"])


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_resumes_without_a_trace(both: Both, way: str) -> None:
    sides = both("streaming")

    assert_same(sides.ours[way]["resumed"], sides.ours[way]["logs"])
    assert_same(sides.ours[way]["resumed"], sides.stock[way]["resumed"], "train_loss")  # row C8


def test_the_ways_read_in_other_orders(both: Both) -> None:
    ours = both("streaming").ours
    assert len({ours[way]["logs"][1]["loss"] for way in WAYS}) == 3
