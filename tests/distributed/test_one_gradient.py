"""However a batch is split over micro-batches and ranks, its gradient is that of one big batch."""

from __future__ import annotations

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
    """Draw how many samples each micro-batch of each rank has: the last may be short, or lacking on some ranks."""
    size, accumulation = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    full, last = draw(st.integers(1, 3)), st.integers(0, 3)
    sizes = [[full] * (accumulation - 1) + [n for n in [draw(last)] if n] for _ in range(size)]
    return sizes if any(any(rank) for rank in sizes) else [[1], *sizes[1:]]


@pytest.mark.parametrize("dtype", WITHIN, ids=["float64", "float32"])
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=40, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sizes=splits(), seed=st.integers(0, 10_000))
def test_every_split_has_the_gradient_of_one_big_batch(
    way: str, dtype: torch.dtype, sizes: list[list[int]], seed: int
) -> None:
    batch = batch_of(sum(map(sum, sizes)), seed)
    gradient, loss = at_once(WAYS[way], batch, dtype)
    step = ranks(way, len(sizes), dtype).step(cut(batch, sizes))

    for found in step.gradients:
        assert float((found - gradient).norm()) <= WITHIN[dtype] * float(gradient.norm())
    # Sums between logs are float32.
    assert step.loss == pytest.approx(loss, rel=2e-6)
    if step.parts:
        assert sum(step.parts.values()) == pytest.approx(loss, rel=2e-6)
