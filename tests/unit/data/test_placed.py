"""Loaders of somebody else: their order, their batches on a device, and resuming in them."""

from __future__ import annotations

import torch
from tests.unit.data.reads import skip_batches
from torch.utils.data import DataLoader, SequentialSampler

from surestep.data.loaders import set_epoch
from surestep.data.placed import PlacedLoader, place_loader
from surestep.data.samplers import SeededRandomSampler
from surestep.data.seek import seekable
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
