"""The original's functions for several processes, on two real ones and on one alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import surestep
from surestep.errors import NotServedError
from tests.distributed.launch import launch


def test_two_ranks_gather_what_the_originals_functions_gather(tmp_path: Path) -> None:
    results = launch("tests.distributed.gathering", 2, tmp_path)

    for rank, result in enumerate(results):
        torch.testing.assert_close(result["ours"], result["theirs"], rtol=0, atol=0)
        assert result["ours"]["first"] is (rank == 0)
        assert result["ours"]["size"] == 2
    assert results[0]["ours"]["concat"]["b"][0].tolist() == [0, 1]
    assert results[0]["ours"]["cut"].shape == (3, 3)


def test_one_process_alone() -> None:
    values = [torch.ones(2)]

    assert surestep.nested_gather(values, surestep.ParallelMode.NOT_DISTRIBUTED) is values
    assert surestep.nested_gather(None, surestep.ParallelMode.DISTRIBUTED) is None
    assert surestep.total_processes_number(-1) == 1
    assert [surestep.is_main_process(rank) for rank in (-1, 0, 1)] == [True, True, False]
    with surestep.torch_distributed_zero_first(-1):
        pass
    with pytest.raises(NotServedError, match="Start the script with torchrun"):
        surestep.distributed_concat(values)
