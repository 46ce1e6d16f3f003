"""However a batch is split over micro-batches and ranks, its gradient is that of one big batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from tests.distributed.one_gradient import WAYS, Ranks, at_once, batch_of, cut

WITHIN = {torch.float64: 1e-10, torch.float32: 1e-6}


@cache
def ranks(way: str, size: int, dtype: torch.dtype) -> Ranks:
    return Ranks.make(Path(mkdtemp()), WAYS[way], size, dtype)


@st.composite
def splits(draw: Any) -> list[list[int]]:
    """Draw how many samples each micro-batch of each rank has: full ones, or of any size.

    The last of a rank may be short, or lacking on some ranks.
    """
    size, accumulation = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    one = draw(st.sampled_from([st.just(draw(st.integers(1, 3))), st.integers(1, 3)]))
    last = st.integers(0, 3)
    sizes = [[draw(one) for _ in range(accumulation - 1)] + [n for n in [draw(last)] if n] for _ in range(size)]
    return sizes if any(any(rank) for rank in sizes) else [[1], *sizes[1:]]


# What occurs among the splits that are drawn; the last one has nearly all of it in one split.
DIMENSIONS: dict[str, Callable[[list[list[int]]], bool]] = {
    **{f"accumulation {count}": lambda sizes, count=count: max(map(len, sizes)) == count for count in range(1, 8)},
    **{f"{count} ranks": lambda sizes, count=count: len(sizes) == count for count in range(1, 4)},
    "a short last group": lambda sizes: any(len(rank) > 1 and rank[-1] < rank[0] for rank in sizes),
    "a micro-batch lacks on a rank": lambda sizes: len(set(map(len, sizes))) > 1,
    "a rank has nothing": lambda sizes: [] in sizes,
    "micro-batches of any size": lambda sizes: any(len(set(rank[:-1])) > 1 for rank in sizes),
    "together": lambda sizes: (
        len(sizes) == 3 and max(map(len, sizes)) > 4 and len({n for rank in sizes for n in rank}) == 3
    ),
}


@pytest.mark.parametrize("dtype", WITHIN, ids=["float64", "float32"])
@pytest.mark.parametrize("way", WAYS)
def test_every_split_has_the_gradient_of_one_big_batch(way: str, dtype: torch.dtype) -> None:
    drawn: list[list[list[int]]] = []

    @settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(sizes=splits(), seed=st.integers(0, 10_000))
    def holds(sizes: list[list[int]], seed: int) -> None:
        drawn.append(sizes)
        batch = batch_of(sum(map(sum, sizes)), seed)
        gradient, loss = at_once(WAYS[way], batch, dtype)
        step = ranks(way, len(sizes), dtype).step(cut(batch, sizes))

        for found in step.gradients:
            assert float((found - gradient).norm()) <= WITHIN[dtype] * float(gradient.norm())
        # Sums between logs are float32.
        assert step.loss == pytest.approx(loss, rel=2e-6)
        if step.parts:
            assert sum(step.parts.values()) == pytest.approx(loss, rel=2e-6)

    holds()
    assert [name for name, occurs in DIMENSIONS.items() if not any(map(occurs, drawn))] == []
