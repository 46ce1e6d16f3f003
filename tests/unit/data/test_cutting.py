"""What loaders know of their batches, against what they give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
)

from surestep.data.cutting import Cutting
from surestep.data.grouping import BatchRebalanceSampler, LengthGroupedSampler
from surestep.data.loaders import LoaderSettings, build_loader
from surestep.data.reading import Reader
from surestep.data.samplers import SeededRandomSampler
from surestep.runtime.world import World

SIZE = 23
LENGTHS = [(number * 7) % 11 + 1 for number in range(SIZE)]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(SIZE))


class Sized(Stream):
    def __len__(self) -> int:
        return SIZE


class SharedOut(Stream):
    _distributed = (0, 2)


def loader_of(sampler: Any = None, *, size: int = 1, rank: int = 0, drop_last: bool = False, batch: int = 4) -> Any:
    settings = LoaderSettings(batch_size=batch, pin_memory=False, drop_last=drop_last)
    return build_loader(
        list(range(SIZE)), list, settings, sampler, training=True, seed=7, world=World(rank=rank, size=size)
    )


SAMPLERS = {
    "in order": lambda: None,
    "shuffled": lambda: SeededRandomSampler(SIZE, 3),
    "by length": lambda: LengthGroupedSampler(4, lengths=LENGTHS),
    "of others": lambda: SubsetRandomSampler(range(SIZE)),
}


@pytest.mark.parametrize("samples", range(0, SIZE + 2, 3))
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_batches_told_are_those_that_come(sampler: str, drop_last: bool, samples: int) -> None:
    loader = loader_of(SAMPLERS[sampler](), drop_last=drop_last)

    assert Cutting(loader).samples_per_batch == 4
    assert Cutting(loader).batches_from(samples) == len(
        list(Reader(loader, seed=0).batches(0, start=min(samples, SIZE)))
    )


@pytest.mark.parametrize("samples", range(0, SIZE, 3))
def test_of_ranks_the_most_that_one_has(samples: int) -> None:
    given = []
    for rank in range(3):
        loader = loader_of(SeededRandomSampler(SIZE, 3), size=3, rank=rank, batch=2)
        reader = Reader(loader, seed=0, world=World(rank=rank, size=3))
        given.append(list(reader.batches(0, start=samples)))
    cutting = Cutting(loader, 3)

    assert cutting.samples_per_batch == 6
    assert cutting.batches_from(samples) == max(map(len, given))
    assert len([number for rank in given for batch in rank for number in batch]) == SIZE - samples


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", [0, 8, 16])
def test_steps_that_are_balanced_are_cut_between_two(samples: int, drop_last: bool) -> None:
    loader = loader_of(BatchRebalanceSampler(LENGTHS, 8, 1, 2, seed=3, drop_last=drop_last))

    assert Cutting(loader).samples_per_batch == 4
    assert Cutting(loader).batches_from(samples) == len(list(Reader(loader, seed=0).batches(0, start=samples)))


def test_streams() -> None:
    assert Cutting(DataLoader(Stream(), batch_size=4)).samples_per_batch == 4
    assert Cutting(DataLoader(Stream(), batch_size=4)).batches_from(5) is None
    assert Cutting(DataLoader(Sized(), batch_size=4)).batches_from(5) == 5
    assert Cutting(DataLoader(Sized(), batch_size=None)).samples_per_batch is None
    shared = loader = DataLoader(SharedOut(), batch_size=4)
    assert Cutting(shared, 2).samples_per_batch == 8
    assert "SharedOut shares the samples out" in str(Cutting(loader, 2).obstacle(other_size=False, other_ranks=True))
    assert Cutting(loader, 2).obstacle(other_size=True, other_ranks=False) is None


def test_a_sampler_that_knows_the_ranks() -> None:
    order = DistributedSampler(range(SIZE), num_replicas=2, rank=0, shuffle=False)
    loader = DataLoader(range(SIZE), 4, sampler=order)
    cutting = Cutting(loader, 2)

    assert cutting.samples_per_batch == 8
    # 12 samples of this rank, of which 4 are read.
    assert cutting.batches_from(8) == 2
    assert "DistributedSampler shares the samples out" in str(cutting.obstacle(other_size=False, other_ranks=True))


class Own(BatchSampler):
    """A cut of a user's."""


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        (DataLoader(range(SIZE), batch_sampler=Own(RandomSampler(range(SIZE)), 4, False)), "Own"),
        (DataLoader(range(SIZE), batch_sampler=[[1, 2], [3]]), "list"),
        (DataLoader(range(SIZE), batch_size=None), "DataLoader"),
        ([[1, 2], [3]], "list"),
    ],
)
def test_batches_of_others_cannot_be_told(loader: Any, name: str) -> None:
    cutting = Cutting(loader)

    assert cutting.samples_per_batch is None
    assert cutting.batches_from(2) is None
    assert cutting.batches_of(2) is None
    assert f"those of {name}," in str(cutting.obstacle(other_size=True, other_ranks=False))
    assert cutting.obstacle(other_size=False, other_ranks=False) is None


def test_a_loader_that_every_rank_reads_whole_is_not_cut() -> None:
    assert Cutting(DataLoader(range(SIZE), 4), 2).samples_per_batch is None


def test_a_window_is_kept_for_its_epoch_alone() -> None:
    loader = loader_of(LengthGroupedSampler(1, lengths=LENGTHS))
    cutting, own = Cutting(loader), loader.sampler.window
    cutting.keep_window(2, own + 3)

    assert [cutting.window(epoch) for epoch in (1, 2, 3)] == [own, own + 3, own]
    assert Cutting(loader_of()).window(0) is None
