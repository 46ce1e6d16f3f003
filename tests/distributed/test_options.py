"""Two ranks: every setting of the exchange has the effect that it names, and changes no number that it should not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.launch import launch

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.options", 2, tmp_path_factory.mktemp("options"))


def assert_close(one: Weights, other: Weights) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-7)


def test_the_group_is_the_one_asked_for(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert (rank["backend"], rank["timeout"]) == ("gloo", 77)


def test_smaller_buckets_are_more(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        plain, small = rank["plain"], rank["small buckets"]
        # The last of the four steps is exchanged by hand.
        assert plain["steps"] == small["steps"] == 4
        assert small["exchanges"] > plain["exchanges"] >= 3
        assert_close(small["weights"], plain["weights"])


def test_a_graph_may_be_said_to_stay_the_same(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert_close(rank["static"]["weights"], rank["unused"]["weights"])
        assert rank["static refused"]["kind"] == "ArgumentError"
        assert "the first one of a step does not" in rank["static refused"]["text"]


def test_buffers_follow_the_main_process_unless_they_are_not_to(ranks: list[dict[str, Any]]) -> None:
    own = [rank["own buffers"]["weights"]["norm.running_mean"] for rank in ranks]
    shared = [rank["buffers"]["weights"]["layers.0.weight"] for rank in ranks]

    assert torch.equal(shared[0], shared[1])
    assert not torch.allclose(own[0], own[1])


def test_what_a_forward_leaves_unused_is_looked_for_unless_it_is_not_to(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["unused"]["steps"] == 4
        assert rank["unused refused"]["kind"] == "RuntimeError"
        assert "find_unused_parameters" in rank["unused refused"]["text"]
