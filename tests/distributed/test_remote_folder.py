"""Two ranks and a remote folder: one fetches where they share a folder, one of each machine where they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed.launch import launch


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return launch("tests.distributed.remote_folder", 2, tmp_path_factory.mktemp("remote") / "ranks")


def test_they_go_on_from_the_remote_folder_alone(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["broke_off"] == {"broke_off": True}
        assert (rank["ended"]["from"], rank["ended"]["step"]) == (2, 5)
        assert torch.equal(rank["ended"]["weight"], rank["whole"]["weight"])
        assert rank["bucket"] == [f"checkpoint-{step}" for step in range(1, 6)]


def test_each_machine_fetches_its_own_copy(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["fetched"]
        assert rank["own"] == ["checkpoint-2"]
        assert (rank["apart"]["from"], rank["apart"]["step"]) == (2, 5)
        assert torch.equal(rank["apart"]["weight"], rank["whole"]["weight"])


def test_all_of_them_stop_where_one_cannot_send(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["stopped"]["step"] == 0
        assert rank["stopped"]["error"].startswith("SaveError: No checkpoint can be sent to save_remote")
