"""The numbers of the samples of a batch, told without reading it: those that the loader gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, SubsetRandomSampler

from surestep.data.grouping import BatchRebalanceSampler, LengthGroupedSampler
from surestep.data.loaders import LoaderSettings, build_loader, set_epoch
from surestep.data.numbers import named_samples, sample_numbers
from surestep.data.samplers import SeededRandomSampler
from surestep.runtime.world import World

SIZE = 23


def loader_of(sampler: Any = None, rank: int = 0, size: int = 1, *, drop_last: bool = False) -> DataLoader[Any]:
    settings = LoaderSettings(batch_size=4, pin_memory=False, drop_last=drop_last)
    world = World(rank=rank, size=size)
    return build_loader(list(range(SIZE)), list, settings, sampler, training=True, seed=7, world=world)


@pytest.mark.parametrize(("rank", "size"), [(0, 1), (0, 2), (1, 2), (2, 3)])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(
    "sampler", [lambda: None, lambda: SeededRandomSampler(SIZE, 3), lambda: LengthGroupedSampler(4, lengths=LENGTHS)]
)
def test_they_are_what_the_loader_gives(sampler: Any, rank: int, size: int, drop_last: bool) -> None:
    loader = loader_of(sampler(), rank, size, drop_last=drop_last)
    for epoch in (0, 2):
        set_epoch(loader, epoch)
        given = list(loader)
        set_epoch(loader, epoch)
        for first in range(len(given)):
            assert sample_numbers(loader, epoch, first * 4 * size, 2) == given[first : first + 2]
        assert list(loader) == given, "the loader's own order was disturbed"


LENGTHS = [(number * 7) % 11 + 1 for number in range(SIZE)]


def test_a_sampler_of_whole_batches_tells_them_too() -> None:
    loader = loader_of(BatchRebalanceSampler(LENGTHS, 8, 1, 2, seed=3))
    set_epoch(loader, 1)
    given = list(loader)

    assert sample_numbers(loader, 1, 8, 2) == given[2:4]


def test_they_are_not_told_where_nobody_knows() -> None:
    assert sample_numbers(loader_of(SubsetRandomSampler(range(SIZE))), 0, 0, 1) is None
    assert sample_numbers([1, 2], 0, 0, 1) is None
    assert sample_numbers(DataLoader(list(range(4)), batch_size=None), 0, 0, 1) is None


def test_a_column_that_names_samples() -> None:
    assert named_samples({"x": 1, "id": ["a", "b"]}) == ("id", ["a", "b"])
    assert named_samples({"number": torch.tensor([3, 4]), "x": 1}) == ("number", [3, 4])
    assert named_samples({"ids": torch.zeros(2, 5), "x": 1}) is None
    assert named_samples([1, 2]) is None
