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
from hypothesis import HealthCheck, example, given, settings

from tests.distributed.one_gradient import WAYS, Ranks, Tagger, Way, at_once, batch_of, cut, flat

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


# Seven micro-batches of any size on three ranks, of which one has fewer, and the last of which are short.
TOGETHER = [[3, 1, 2, 3, 3, 1, 2], [2, 2, 1, 3, 3, 1], [1, 3, 2, 1, 2, 3, 1]]
# What occurs among the splits that are drawn.
DIMENSIONS: dict[str, Callable[[list[list[int]]], bool]] = {
    **{f"accumulation {count}": lambda sizes, count=count: max(map(len, sizes)) == count for count in range(1, 8)},
    **{f"{count} ranks": lambda sizes, count=count: len(sizes) == count for count in range(1, 4)},
    "a short last group": lambda sizes: any(len(rank) > 1 and rank[-1] < rank[0] for rank in sizes),
    "a micro-batch lacks on a rank": lambda sizes: len(set(map(len, sizes))) > 1,
    "a rank has nothing": lambda sizes: [] in sizes,
    "micro-batches of any size": lambda sizes: any(len(set(rank[:-1])) > 1 for rank in sizes),
    "all of it together": lambda sizes: sizes == TOGETHER,
}


@pytest.mark.parametrize("dtype", WITHIN, ids=["float64", "float32"])
@pytest.mark.parametrize("way", WAYS)
def test_every_split_has_the_gradient_of_one_big_batch(way: str, dtype: torch.dtype) -> None:
    drawn: list[list[list[int]]] = []

    @settings(max_examples=40, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(sizes=splits(), seed=st.integers(0, 10_000))
    @example(sizes=TOGETHER, seed=1)
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


def mean_of(outputs: Any, labels: Any) -> torch.Tensor:
    """A mean over a micro-batch, of which nobody knows what it is over."""
    return outputs["value"].square().mean()


@cache
def ranks_of_means(size: int) -> Ranks:
    return Ranks.make(Path(mkdtemp()), Way(lambda outputs, batch: [], mean_of), size, torch.float64)


@settings(max_examples=20, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(sizes=splits(), seed=st.integers(0, 10_000))
@example(sizes=[[2, 2, 1], [2, 2], [2]], seed=0)
def test_a_bare_mean_is_divided_by_the_micro_batches_of_all_ranks(sizes: list[list[int]], seed: int) -> None:
    cuts = cut(batch_of(sum(map(sum, sizes)), seed), sizes)
    model = Tagger()
    means = [mean_of(model(batch["tokens"]), None) for share in cuts for batch in share]
    torch.stack(means).mean().backward()
    step = ranks_of_means(len(sizes)).step(cuts)

    for found in step.gradients:
        assert float((found - flat(model)).norm()) <= 1e-10 * float(flat(model).norm())
