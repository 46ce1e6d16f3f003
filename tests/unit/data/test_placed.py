"""Loaders of somebody else: their order, their batches on a device, and resuming in them."""

from __future__ import annotations

import pytest
import torch
from tests.unit.data.reads import skip_batches
from torch.utils.data import DataLoader, SequentialSampler

from surestep.data.loaders import set_epoch
from surestep.data.placed import PlacedLoader, place_loader
from surestep.data.samplers import SeededRandomSampler
from surestep.data.seek import seekable
from surestep.errors import ArgumentError
from surestep.runtime.world import World

CPU, META = torch.device("cpu"), torch.device("meta")


def shuffled() -> DataLoader[int]:
    return DataLoader(range(10), batch_size=3, shuffle=True)


def test_the_order_follows_from_seed_and_epoch() -> None:
    loader = place_loader(shuffled(), seed=7, device=CPU, world=World())

    for epoch in (0, 3):
        set_epoch(loader, epoch)
        order = torch.cat(list(loader))
        assert order.equal(torch.randperm(10, generator=torch.Generator().manual_seed(7 + epoch)))
    assert isinstance(loader.sampler, SeededRandomSampler)
    assert loader.batch_sampler is not None
    assert loader.batch_sampler.sampler is loader.sampler


def test_batches_are_put_on_the_device_and_the_loader_still_seeks() -> None:
    given = shuffled()
    loader = place_loader(given, seed=7, device=META, world=World())

    assert isinstance(loader, PlacedLoader)
    assert [(batch.device, len(batch)) for batch in loader] == [(META, 3), (META, 3), (META, 3), (META, 1)]
    assert seekable(loader) == "seek"
    assert [len(batch) for batch in skip_batches(loader, 2)] == [3, 1]
    assert len(loader) == len(given)
    assert [batch.device for batch in given] == [CPU] * 4


def test_a_batch_sampler_of_a_user_is_replayed() -> None:
    class Backwards(torch.utils.data.BatchSampler):
        def __iter__(self):
            return reversed(list(super().__iter__()))

    given = DataLoader(range(6), batch_sampler=Backwards(SequentialSampler(range(6)), 2, drop_last=False))
    loader = place_loader(given, seed=7, device=META, world=World())

    assert seekable(loader) == "indices"
    assert [batch.tolist() for batch in place_loader(given, seed=7, device=CPU, world=World())] == [
        [4, 5],
        [2, 3],
        [0, 1],
    ]
    assert [batch.device for batch in skip_batches(loader, 1)] == [META] * 2


def test_a_stream_has_an_order_of_its_own() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(4))

    loader = place_loader(DataLoader(Stream(), batch_size=2), seed=7, device=META, world=World())
    assert [batch.device for batch in loader] == [META] * 2


class Numbers(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(10))


@pytest.mark.parametrize(
    ("given", "rounds"),
    [
        (DataLoader(range(10), batch_size=4), [[0, 1], [4, 5], [8]]),
        (DataLoader(Numbers(), batch_size=4), [[0, 1], [4, 5], [8]]),
    ],
    ids=["indices", "stream"],
)
def test_a_batch_may_be_split_among_the_ranks(given: DataLoader[int], rounds: list[list[int]]) -> None:
    first = place_loader(given, seed=7, device=CPU, world=World(0, 2), split=True)
    second = place_loader(given, seed=7, device=CPU, world=World(1, 2), split=True)

    assert [batch.tolist() for batch in first] == rounds
    assert [batch.tolist() for batch in second] == [[2, 3], [6, 7], [9]]
    # The loader that was given is as it was.
    assert [len(batch) for batch in given] == [4, 4, 2]


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"a batch of 3 cannot be split among 2 processes. Write a multiple of 2"):
        place_loader(DataLoader(range(10), batch_size=3), seed=7, device=CPU, world=World(0, 2), split=True)

    class Own(torch.utils.data.BatchSampler):
        pass

    loader = DataLoader(range(10), batch_sampler=Own(SequentialSampler(range(10)), 2, drop_last=False))
    with pytest.raises(ArgumentError, match="Own makes batches that are dealt out whole"):
        place_loader(loader, seed=7, device=CPU, world=World(0, 2), split=True)
