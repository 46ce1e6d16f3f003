"""Two ranks: a mistake ends all of them with the error that names it, and a preflight finds and undoes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.launch import launch
from tests.distributed.mistaken import MISTAKES

# What each says, and of whose making it is: of rank 1 alone, or of both.
SAYS = {
    "no labels in a table": ("DataError", "no labels are left", False),
    "a label beyond the classes in a table": ("DataError", "A label is 7, and the model has the classes 0 to 1", False),
    "a label beyond the classes on one rank": ("DataError", "A label is 7, and the model has the classes 0 to 1", True),
    "no sample": ("DataError", "train_dataset is empty", False),
    "fewer samples than ranks": ("DataError", "1 samples for 2 processes", False),
    "no sample to evaluate": ("DataError", "eval_dataset is empty", False),
    "nothing to train": ("ModelError", "Every parameter of Line is frozen", False),
    "a batch that cannot be made on one rank": ("ValueError", "this batch cannot be made", True),
    "a metric that no evaluation gives": ("ArgumentError", "no evaluation gives 'eval_f2'", False),
    "a metric that fails": ("ZeroDivisionError", "this metric cannot be computed", False),
    "an evaluation that fails on one rank": ("RuntimeError", "not in this mode", True),
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.mistaken", 2, tmp_path_factory.mktemp("mistaken"))


@pytest.mark.parametrize("name", MISTAKES)
def test_every_rank_ends_with_the_error(ranks: list[dict[str, Any]], name: str) -> None:
    kind, text, alone = SAYS[name]
    first, second = (rank["mistakes"][name] for rank in ranks)

    assert second["kind"] == kind
    assert text in first["text"]
    assert text in second["text"]
    assert ("It happened on rank 1." in first["notes"]) is alone
    assert "It happened on rank 1." not in second["notes"]
    # An error that is not ours is quoted elsewhere.
    assert first["kind"] == (kind if not alone or kind == "DataError" else "RankError")


PROBLEMS = {
    "nothing": [],
    "a forward that fails on one rank": ["Another rank has failed: IndexError", "On rank 1: IndexError: Target 7"],
    "no memory on one rank": ["Another rank has failed: OutOfMemoryError", "On rank 1: OutOfMemoryError"],
    "a loss that is not finite on one rank": ["The loss of the first step is nan"],
    "inputs that are not finite on one rank": ["On rank 1: 'x' has values that are NaN"],
    "no learning rate": ["Every learning rate is 0"],
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_preflight_tells_every_rank_what_one_has_found(ranks: list[dict[str, Any]], name: str) -> None:
    first, second = (rank["planted"][name] for rank in ranks)

    assert first["problems"] == second["problems"]
    assert len(first["problems"]) == len(PROBLEMS[name])
    for problem, start in zip(first["problems"], PROBLEMS[name], strict=True):
        assert start in problem
    assert first["verdicts"] == second["verdicts"]
    for rank in (first, second):
        assert rank["same"]
        assert rank["drawn"]
        assert rank["left"] == []


def test_a_preflight_tries_every_stage(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["planted"]["nothing"]["verdicts"] == ["well"] * 4


def test_a_run_is_the_same_with_and_without_a_preflight(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        for one, other in zip(rank["without"], rank["with"], strict=True):
            assert all(torch.equal(value, other[name]) for name, value in one.items())
