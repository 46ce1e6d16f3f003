"""Whole trainings on one, two and three ranks: whatever form a loss has, the gradient is that of one big batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.distributed import one_gradient as og
from tests.distributed.launch import launch
from tests.distributed.losses import LAYOUTS, whole

Ranks = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What every rank of every group came to."""
    return {
        size: launch("tests.distributed.losses", size, tmp_path_factory.mktemp(f"losses{size}")) for size in (1, 2, 3)
    }


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", og.WAYS)
def test_the_gradient_is_that_of_one_big_batch(ranks: Ranks, way: str, layout: str, size: int) -> None:
    gradient, loss = og.at_once(og.WAYS[way], whole(layout), torch.float64)
    for rank in ranks[size]:
        found = rank[layout][way]
        logged, *parts = found["logged"].values()

        assert found["steps"] == 1
        assert float((found["gradient"] - gradient).norm()) <= 1e-10 * float(gradient.norm())
        # Sums between logs are float32.
        assert logged == pytest.approx(loss, rel=2e-6)
        assert sum(parts) == pytest.approx(loss if parts else 0, rel=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["parts", "parts weighed beforehand", "everything at once", "an override"])
def test_each_part_is_logged_as_by_one_process(ranks: Ranks, way: str, layout: str) -> None:
    alone = ranks[1][0][layout][way]["logged"]

    assert len(alone) >= 2
    for size in (2, 3):
        for rank in ranks[size]:
            assert rank[layout][way]["logged"] == pytest.approx(alone, rel=2e-6)
