"""A loss or gradient that is not finite on one rank: all stop, or leave the step out, together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.distributed.launch import launch

KINDS = ["loss", "gradient", "all"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.spoiled", 2, tmp_path_factory.mktemp("spoiled"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_rank_stops_and_says_where_it_was(ranks: list[dict[str, Any]], kind: str) -> None:
    for rank in ranks:
        told = rank["stopped"][kind]
        assert (told["step"], told["state"], told["micro_batch"], told["samples"]) == (2, 1, 1, [6, 7])
        assert "rank 1, micro-batch 1 of 1" in told["text"]
        assert "rank 1, its samples, by their numbers in the dataset: 6, 7" in told["text"]
        assert "rank 0, micro-batch" not in told["text"]
        assert all(value.isfinite().all() for value in told["weights"].values())


@pytest.mark.parametrize("case", [*KINDS, "accumulated", "last", "rewound", "late"])
def test_every_rank_leaves_the_same_steps_out(ranks: list[dict[str, Any]], case: str) -> None:
    one, other = (rank["skipped"][case] if case in KINDS else rank[case] for rank in ranks)

    for name in ("layer.weight", "layer.bias"):
        assert torch.equal(one["weights"][name], other["weights"][name])
    assert one["left_out"] == other["left_out"]
    assert one["left_out"][-1] == 2
    assert one["rates"] == other["rates"] == one["log"][-1]["step"] - 2
    assert all(value.isfinite().all() for value in one["weights"].values())
    losses = [entry["loss"] for entry in one["log"] if "loss" in entry]
    assert sum(map(math.isnan, losses)) == (0 if case == "late" else 2)


def test_going_back_comes_to_what_skipping_comes_to(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for name in ("layer.weight", "layer.bias"):
            assert torch.equal(rank["rewound"]["weights"][name], rank["skipped"]["loss"]["weights"][name])
