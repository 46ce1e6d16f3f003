"""Both sides of the differences among several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launch import launch
from tests.parity.differences import shows


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.uneven", 2, tmp_path_factory.mktemp("uneven"))


@shows("R2")
def test_a_batch_that_is_split_is_counted_once(uneven: list[dict[str, Any]]) -> None:
    for rank in uneven:
        theirs, ours = rank["theirs split"], rank["ours split"]
        # The samples of each process are the same.
        assert ours["seen"] == theirs["seen"]
        assert len(ours["seen"]) == 4
        assert ours["steps"] == theirs["steps"] == 4
        assert (theirs["total"], ours["total"]) == (4, 2)


@shows("R1")
def test_no_sample_is_read_twice_to_fill_processes_up(uneven: list[dict[str, Any]]) -> None:
    ranks = uneven
    assert sorted(number for rank in ranks for number in rank["ours"]) == [0, 1, 2, 3, 4]
    assert len([number for rank in ranks for number in rank["theirs"]]) == 8
    # The first round is the same: both cut it from one order.
    for rank in ranks:
        assert rank["ours"][:2] == rank["theirs"][:2]


@shows("H11")
def test_every_process_has_the_best_trial(tmp_path: Path) -> None:
    main, other = launch("tests.distributed.best_of_ranks", 2, tmp_path)

    whole = {"best": {"seed": 3, "width": 2}, "drawn": [True]}
    assert main["theirs"] == whole
    assert other["theirs"] == {"best": None, "drawn": [False]}
    assert main["ours"] == other["ours"] == whole
