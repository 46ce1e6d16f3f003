"""A search on two ranks: one study, trials that all ranks train, and the same answer everywhere."""

from __future__ import annotations

from typing import Any

import pytest

from tests.distributed.launch import launch

Ranks = list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return launch("tests.distributed.searching", 1, tmp_path_factory.mktemp("alone"))[0]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return launch("tests.distributed.searching", 2, tmp_path_factory.mktemp("ranks"))


def test_trials_are_those_of_one_process(ranks: Ranks, alone: dict[str, Any]) -> None:
    for rank in ranks:
        assert rank["plain"]["trials"] == alone["plain"]["trials"]
        assert rank["plain"]["best"]["params"].keys() == {"learning_rate", "width"}
        assert rank["plain"]["best"]["id"] == alone["plain"]["best"]["id"]
        # An evaluation adds up losses in float32 at the end.
        assert rank["plain"]["best"]["objective"] == pytest.approx(alone["plain"]["best"]["objective"], rel=1e-6)


def test_every_rank_has_the_best_trial_and_one_the_study(ranks: Ranks) -> None:
    assert ranks[0]["plain"]["best"] == ranks[1]["plain"]["best"]
    assert [rank["plain"]["study"] for rank in ranks] == [True, False]


def test_every_rank_lets_go_of_the_models(ranks: Ranks) -> None:
    assert [rank["plain"]["alive"] for rank in ranks] == [0, 0]


def test_ranks_prune_together(ranks: Ranks, alone: dict[str, Any]) -> None:
    assert [rank["pruned"]["steps"] for rank in ranks] == [[10, 5, 10]] * 2
    assert ranks[0]["pruned"]["best"] == ranks[1]["pruned"]["best"]
    assert ranks[0]["pruned"]["states"] == alone["pruned"]["states"] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_a_trial_that_was_cut_off_goes_on_from_its_checkpoint(ranks: Ranks) -> None:
    for rank in ranks:
        whole, broken = rank["continued"]["whole"], rank["continued"]["broken"]
        assert (whole["told"], broken["told"]) == ("", "the trial is cut off")
        assert [(trial["name"], trial["began"], trial["steps"]) for trial in broken["trials"]] == [
            ("run-0", 0, 10),
            ("run-1", 0, 7),
            ("run-2", 6, 10),
        ]
        assert broken["trials"][2]["params"] == broken["trials"][1]["params"] == whole["trials"][1]["params"]
        assert broken["best"]["params"] == whole["best"]["params"]
        assert broken["best"]["objective"] == whole["best"]["objective"]


def test_the_main_rank_decides_where_ranks_differ(ranks: Ranks) -> None:
    assert [rank["own"] for rank in ranks] == [[0.01, 5.0]] * 2


def test_several_objectives_and_a_limit_of_time(ranks: Ranks) -> None:
    one, other = (rank["objectives"] for rank in ranks)

    assert one == other
    assert one
    assert one[0]["objective"][1] == 1.0


@pytest.mark.parametrize(
    ("case", "errors", "words"),
    [
        ("taken", ["ArgumentError", "ArgumentError"], "holds a study named 'kept' already"),
        ("tired", ["SearchError", "SearchError"], "enough of it"),
        ("lost", ["OSError", "SearchError"], "the disk is gone"),
        ("catch", ["NotServedError", "NotServedError"], "2 processes train each trial"),
    ],
)
def test_every_rank_hears_of_an_error(ranks: Ranks, case: str, errors: list[str], words: str) -> None:
    told = [rank["failing"][case] for rank in ranks]

    assert [kind for kind, _ in told] == errors
    assert all(words in text for _, text in told)
