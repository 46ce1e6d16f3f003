"""Which generators of its own data draws from, told by one sample; whether a batch read twice is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from surestep.data.probing import own_draws, read_twice
from surestep.data.reading import Reader


class Noisy(Dataset[Any]):
    """Numbers with noise from a generator of their own; it counts what is read."""

    def __init__(self, *, draws: bool = True, size: int = 8) -> None:
        self.generator, self.draws, self.size, self.reads = np.random.default_rng(3), draws, size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> float:
        self.reads += 1
        if index >= 7:
            raise IndexError("no such sample")
        return index + float(self.generator.normal() if self.draws else 0.0)


class Forgetful(Noisy):
    """Has a generator that nobody finds."""

    def __getitem__(self, index: int) -> float:
        return index + float(np.random.default_rng().normal())


class NoFirst(Noisy):
    def __getitem__(self, index: int) -> float:
        raise KeyError(index)


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __iter__(self) -> Any:
        return iter(torch.rand(8, generator=self.generator))


def reader(dataset: Any, workers: int = 0) -> Reader:
    return Reader(DataLoader(dataset, 2, num_workers=workers), seed=1)


NAMED = ("dataset.generator (numpy.random._generator.Generator)",)


def test_the_generator_that_is_drawn_from_is_named_and_put_back() -> None:
    data = Noisy()
    before = data.generator.bit_generator.state
    assert own_draws(reader(data)) == NAMED
    assert data.generator.bit_generator.state == before
    assert data.reads == 1


@pytest.mark.parametrize(
    ("make", "reads"), [(lambda: Noisy(draws=False), 1), (NoFirst, 0), (Stream, 0), (lambda: range(8), 0)]
)
def test_nothing_is_named_otherwise(make: Callable[[], Any], reads: int) -> None:
    data = make()
    assert own_draws(reader(data)) == ()
    assert getattr(data, "reads", 0) == reads


def test_a_batch_that_is_another_one_the_second_time_is_found() -> None:
    found = read_twice(reader(Forgetful()))
    assert found is not None
    assert found.differs is not None


@pytest.mark.parametrize("workers", [0, 1])
def test_own_draws_are_repeated_where_this_process_reads_alone(workers: int) -> None:
    data = Noisy()
    before = data.generator.bit_generator.state
    found = read_twice(reader(data, workers))
    assert (None if found is None else found.where) == (NAMED if workers else None)
    assert data.generator.bit_generator.state == before
