"""Both sides of the differences among several processes."""

from __future__ import annotations

from pathlib import Path

from tests.distributed.launch import launch
from tests.parity.differences import shows


@shows("R1")
def test_no_sample_is_read_twice_to_fill_processes_up(tmp_path: Path) -> None:
    ranks = launch("tests.distributed.uneven", 2, tmp_path)

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
