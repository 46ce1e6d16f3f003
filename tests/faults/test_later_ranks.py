"""Two ranks whose saves are finished while training goes on: one checkpoint of both, told at the same step."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from surestep.checkpoint.store import CheckpointStore
from surestep.runtime.world import World
from tests.distributed.launch import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    return folder, launch("tests.faults.later_ranks", 2, folder)


def test_the_checkpoints_are_those_of_saves_at_once(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = ranks
    for result in results:
        assert result["later"]["weights"] == result["at once"]["weights"]
        assert result["later"]["saved"] == [2, 4, 6, 8, 10]
    store = CheckpointStore(folder / "later", world=World())
    for step in (2, 4, 6, 8, 10):
        checkpoint, other = (folder / name / f"checkpoint-{step}" for name in ("later", "at-once"))
        assert store.verify(checkpoint) == []
        same = [path for path in other.iterdir() if path.name.startswith(("model", "optimizer", "progress", "random_"))]
        assert {"progress_1.json", "random_1.json"} <= {path.name for path in same}
        for path in same:
            assert (checkpoint / path.name).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("slow", ["main slow", "other slow"])
def test_all_ranks_tell_of_a_save_at_the_same_step(ranks: tuple[Path, list[dict[str, Any]]], slow: str) -> None:
    main, other = (result[slow] for result in ranks[1])
    assert main["saved"] == other["saved"] == [4, 8, 10]
    assert main["told_at"] == other["told_at"]
    # Training went on while one of them was writing.
    assert main["told_at"][0] > 4
    assert main["left"] == other["left"] == []


@pytest.mark.parametrize("failing", ["main", "other"])
def test_all_go_on(ranks: tuple[Path, list[dict[str, Any]]], failing: str) -> None:
    folder, results = ranks
    for result in results:
        found = result[f"{failing} fails"]
        assert found["text"] == ""
        assert found["step"] == 10
        assert found["saved"] == [2, 6, 8, 10]
        assert found["there"] == [f"checkpoint-{step}" for step in (10, 2, 6, 8)]
    said = (folder / "rank0.txt").read_text()
    assert re.search(rf"Step 4: .*No space left on device: .*Make room.* \(rank {int(failing == 'other')}\)", said)
    assert "could not be saved" not in (folder / "rank1.txt").read_text()


def test_all_stop_at_the_same_step(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    main, other = (result["other stops"] for result in ranks[1])
    assert main["step"] == other["step"] in {5, 6}
    for found in (main, other):
        assert found["text"].startswith("SaveError: Step 4: ")
        assert "(rank 1)" in found["text"]
        assert found["there"] == ["checkpoint-2"]


def test_a_signal_to_one_waits_for_the_parts_of_both(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    main, other = (result["signal"] for result in ranks[1])
    assert main["text"] == other["text"] != ""
    assert main["saved"] == other["saved"]
    assert main["saved"][0] == 4
    assert main["saved"][-1] == main["step"] == other["step"]
    store = CheckpointStore(ranks[0] / "signal", world=World())
    assert store.verify(ranks[0] / "signal" / f"checkpoint-{main['step']}") == []
