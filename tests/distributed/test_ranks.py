"""One, two and three ranks: the same weights, losses, metrics and predictions; each sample once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from tests.distributed.launch import launch
from tests.distributed.training import SIZE

Ranks = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What every rank of every group came to."""
    return {
        size: launch("tests.distributed.training", size, tmp_path_factory.mktemp(f"ranks{size}")) for size in (1, 2, 3)
    }


def assert_same(one: dict[str, Any], other: dict[str, Any], **within: float) -> None:
    torch.testing.assert_close(one["weights"], other["weights"], **within)
    assert len(one["log"]) == len(other["log"])
    for entry, match in zip(one["log"], other["log"], strict=True):
        # The sums behind a log are float32.
        assert entry == pytest.approx(match, rel=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", ["counted", "accumulated", "tokens", "means", "stream"])
def test_training_is_that_of_one_process(ranks: Ranks, size: int, case: str) -> None:
    for rank in range(size):
        assert_same(ranks[size][rank][case], ranks[1][0][case], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", ["counted", "means", "statistics", "stream"])
def test_all_ranks_end_with_the_same_weights(ranks: Ranks, size: int, case: str) -> None:
    for rank in range(1, size):
        same = {"rtol": 0.0, "atol": 0.0}
        torch.testing.assert_close(ranks[size][rank][case]["weights"], ranks[size][0][case]["weights"], **same)
        assert ranks[size][rank][case]["log"] == ranks[size][0][case]["log"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_have_joined_once_arguments_are_made(ranks: Ranks, size: int) -> None:
    assert [rank["joined"] for rank in ranks[size]] == [size > 1] * size


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("case", ["counted", "accumulated"])
def test_each_sample_is_seen_once_an_epoch(ranks: Ranks, size: int, case: str) -> None:
    seen = Counter(number for rank in ranks[size] for number in rank[case]["seen"])

    assert seen == dict.fromkeys(range(SIZE), 2)


@pytest.mark.parametrize("case", ["counted", "accumulated"])
def test_gradients_are_exchanged_once_a_step(ranks: Ranks, case: str) -> None:
    # 4 or 2 steps an epoch; one bucket holds the whole model.
    steps = {"counted": 8, "accumulated": 4}[case]
    assert [rank[case]["exchanges"] for rank in ranks[2]] == [steps, steps]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("samples", ["1", "5", "8", "13"])
def test_an_evaluation_gives_the_same_on_any_number_of_ranks(ranks: Ranks, size: int, samples: str) -> None:
    alone = ranks[1][0]["evaluated"][samples]
    for rank in ranks[size]:
        assert rank["evaluated"][samples]["metrics"] == pytest.approx(alone["metrics"], rel=1e-12)
        torch.testing.assert_close(rank["evaluated"][samples]["predictions"], alone["predictions"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_metric_by_batch_sees_every_sample_and_the_end(ranks: Ranks, size: int) -> None:
    for rank in ranks[size]:
        assert rank["by_batch"]["metrics"]["eval_number"] == 13
        assert rank["by_batch"]["metrics"]["eval_last"] == 1


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("end", ["resumed", "again"])
def test_a_resumed_run_is_the_whole_one_bit_for_bit(ranks: Ranks, size: int, end: str) -> None:
    for rank in ranks[size]:
        whole, later = rank["resumed"]["whole"], rank["resumed"][end]
        torch.testing.assert_close(later["weights"], whole["weights"], rtol=0.0, atol=0.0)
        assert later["log"][:-1] == whole["log"][:-1]
