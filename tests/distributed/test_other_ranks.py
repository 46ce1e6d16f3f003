"""One training that goes on with other numbers of processes: the samples, the steps and the sums of one process."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.launch import launch
from tests.distributed.training import SIZE

MODULE = "tests.distributed.other_ranks"
# Ranks, and of each kind the samples of a batch, the step that the leg begins with and the one it ends with.
WHOLE = [(1, {"one batch": (12, 0, 0), "a stream": (12, 0, 0), "another batch": (2, 0, 0)})]
LEGS = [
    (1, {"one batch": (4, 0, 1), "a stream": (4, 0, 1), "another batch": (2, 0, 2)}),
    (2, {"one batch": (6, 1, 2), "a stream": (3, 1, 2), "another batch": (3, 2, 3)}),
    (1, {"one batch": (6, 2, 3), "a stream": (12, 2, 3), "another batch": (4, 3, 5)}),
    (3, {"one batch": (2, 3, 0), "a stream": (4, 3, 0), "another batch": (1, 5, 0)}),
]
Legs = list[list[dict[str, Any]]]


def train(folder: Path, legs: list[tuple[int, dict[str, tuple[int, int, int]]]]) -> Legs:
    results = []
    for number, (ranks, kinds) in enumerate(legs):
        named = [":".join(map(str, (kind, *numbers))) for kind, numbers in kinds.items()]
        results.append(launch(MODULE, ranks, folder / f"leg{number}", *named))
    return results


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process came to, without interruption."""
    return train(tmp_path_factory.mktemp("whole"), WHOLE)[0][0]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Legs:
    """What each rank of each leg came to."""
    return train(tmp_path_factory.mktemp("parts"), LEGS)


@pytest.mark.parametrize("kind", ["one batch", "another batch"])
def test_each_sample_comes_once_an_epoch(kind: str, parts: Legs, whole: dict[str, Any]) -> None:
    seen = [sorted(itertools.chain.from_iterable(rank[kind]["seen"] for rank in leg)) for leg in parts]
    order, first = whole[kind]["seen"], 0
    assert sorted(order[:SIZE]) == sorted(order[SIZE:]) == list(range(SIZE))
    for numbers in seen:
        # The same stretch of the common order, dealt out among the ranks.
        assert numbers == sorted(order[first : first + len(numbers)])
        first += len(numbers)
    assert first == 2 * SIZE
    assert parts[-1][0][kind]["steps"][0] == parts[-1][0][kind]["steps"][1]


@pytest.mark.parametrize("kind", ["one batch", "a stream"])
def test_with_one_global_batch_everything_is_that_of_one_process(kind: str, parts: Legs, whole: dict[str, Any]) -> None:
    for rank in parts[-1]:
        torch.testing.assert_close(rank[kind]["weights"], whole[kind]["weights"], rtol=1e-10, atol=1e-12)
        assert rank[kind]["steps"] == whole[kind]["steps"]
        # The log of step 3 has the sums of three legs.
        assert len(rank[kind]["log"]) == len(whole[kind]["log"])
        for entry, expected in zip(rank[kind]["log"], whole[kind]["log"], strict=True):
            assert entry == pytest.approx(expected, rel=1e-6)


def test_the_ranks_of_a_leg_agree(parts: Legs) -> None:
    for leg, kind in itertools.product(parts, LEGS[0][1]):
        for rank in leg[1:]:
            torch.testing.assert_close(rank[kind]["weights"], leg[0][kind]["weights"], rtol=0.0, atol=0.0)
            assert (rank[kind]["log"], rank[kind]["steps"]) == (leg[0][kind]["log"], leg[0][kind]["steps"])
