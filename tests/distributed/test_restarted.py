"""Two ranks that are started by the same command again and again: they agree, and end as if nothing had been."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.launch import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.restarted", 2, tmp_path_factory.mktemp("restarted") / "ranks")


def test_it_goes_on_and_ends_as_one_that_was_left_alone(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["broke_off"] == [{"broke_off": True}] * 2
        assert (rank["ended"]["step"], rank["ended"]["report"]["step"]) == (5, 2)
        assert rank["whole"]["report"] is None
        assert torch.equal(rank["ended"]["weight"], rank["whole"]["weight"])


def test_the_generators_of_each_rank_are_reported(ranks: list[dict[str, Any]]) -> None:
    (part,) = [part for part in ranks[0]["ended"]["report"]["parts"] if part["name"] == "random generators"]

    assert (part["outcome"], part["note"]) == ("restored", "ranks 0, 1")
    assert ranks[0]["ended"]["report"]["origin"]["processes"] == 2


def test_a_complete_run_returns_on_every_rank_what_it_returned(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["again"]["report"]["complete"]
        assert rank["again"]["output"] == ranks[0]["ended"]["output"]
        assert torch.equal(rank["again"]["weight"], rank["ended"]["weight"])


def test_what_is_refused_is_refused_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    assert ["max_grad_norm was 1.0 and is 0.1" in rank["refused"] for rank in ranks] == [True, True]
