"""Two ranks, one of which runs out of memory: both try a smaller batch, and the run is that of the size found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.launch import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.fitting", 2, tmp_path_factory.mktemp("fitting"))


@pytest.mark.parametrize("where", ["forward", "backward", "step", "pairs", "weighed"])
def test_both_find_the_size_that_fits_the_one(ranks: list[dict[str, Any]], where: str) -> None:
    for rank in ranks:
        looked, plain = rank[where]["looked"], rank[where]["plain"]
        assert (looked["size"], looked["most"]) == (6, 8)
        assert not looked["wrapped"]
        assert plain["wrapped"]
        for name, value in plain["weights"].items():
            torch.testing.assert_close(looked["weights"][name], value, rtol=1e-10, atol=1e-12)
        assert [sorted(entry) for entry in looked["log"]] == [sorted(entry) for entry in plain["log"]]
        for one, other in zip(looked["log"], plain["log"], strict=True):
            assert one == pytest.approx(other, rel=1e-5)


def test_where_nothing_fits_both_say_so(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["nothing"]["kind"] == "NoBatchSizeFitsError"


def test_what_the_others_do_not_know_of_is_not_tried_again(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert (rank["elsewhere"]["kind"], rank["elsewhere"]["text"]) == ("OutOfMemoryError", "no memory for the log")


def test_a_forward_that_waits_for_others_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["meeting"]["kind"] == "NotServedError"
        assert "'norm' is a SyncBatchNorm" in rank["meeting"]["text"]
