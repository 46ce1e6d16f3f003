"""A save that fails on one rank: all go on together, or all stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    return folder, launch("tests.faults.failing_ranks", 2, folder)


@pytest.mark.parametrize("failing", ["main", "other"])
def test_all_go_on(ranks: tuple[Path, list[dict[str, Any]]], failing: str) -> None:
    folder, results = ranks
    for result in results:
        found = result[f"{failing} goes on"]
        assert found["step"] == 10
        assert found["text"] == ""
        assert set(found["there"]) == {f"checkpoint-{step}" for step in (2, 6, 8, 10)}
    rank = 0 if failing == "main" else 1
    assert (
        f"No space left on device. Make room, or set save_total_limit or save_only_model=True. (rank {rank})"
        in (folder / "rank0.txt").read_text()
    )
    assert "could not be saved" not in (folder / "rank1.txt").read_text()


def test_all_stop(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    for result in ranks[1]:
        found = result["other stops"]
        assert found["step"] == 4
        assert found["there"] == ["checkpoint-2"]
        assert found["text"].startswith("SaveError: Step 4: ")
        assert "(rank 1)" in found["text"]


def test_an_error_that_is_not_the_disks_ends_all(ranks: tuple[Path, list[dict[str, Any]]]) -> None:
    main, other = (result["other has a bug"] for result in ranks[1])
    assert other["text"] == "ZeroDivisionError: a bug"
    assert main["text"].startswith("OthersFailedError: ")
    assert main["step"] == other["step"] == 4
    assert main["there"] == other["there"] == ["checkpoint-2"]
