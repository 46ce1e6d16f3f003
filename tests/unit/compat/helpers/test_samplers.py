"""Orders of samples, compared with the original index by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from transformers import trainer_pt_utils as theirs

from surestep.compat.helpers import samplers as ours
from surestep.compat.helpers.streams import IterableDatasetShard
from surestep.errors import ArgumentError

LENGTHS = torch.randint(1, 60, (103,), generator=torch.Generator().manual_seed(1)).tolist()
ROWS = [{"input_ids": list(range(length))} for length in LENGTHS]


def drawn(make: Any, passes: int = 2) -> list[list[int]]:
    torch.manual_seed(5)
    sampler = make()
    return [list(sampler) for _ in range(passes)]


@pytest.mark.parametrize("batch_size", [1, 4, 16, 103, 500])
@pytest.mark.parametrize("windows", [None, 1, 3])
def test_grouped_indices(batch_size: int, windows: int | None) -> None:
    orders = []
    for room in (ours, theirs):
        generator = torch.Generator().manual_seed(2)
        orders.append(room.get_length_grouped_indices(LENGTHS, batch_size, windows, generator=generator))

    assert orders[0] == orders[1]


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": LENGTHS},
        {"dataset": ROWS},
        {"lengths": torch.tensor(LENGTHS)},
        {"dataset": ROWS, "lengths": LENGTHS},
    ],
    ids=["lengths", "rows", "tensor", "both"],
)
def test_grouping_sampler(options: dict[str, Any]) -> None:
    assert drawn(lambda: ours.LengthGroupedSampler(4, **options)) == drawn(
        lambda: theirs.LengthGroupedSampler(4, **options)
    )


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("rank", [0, 2])
def test_grouping_sampler_of_several_processes(rank: int, drop_last: bool) -> None:
    parts = []
    for room in (ours, theirs):
        sampler = room.DistributedLengthGroupedSampler(
            4, num_replicas=3, rank=rank, seed=9, drop_last=drop_last, lengths=LENGTHS
        )
        sampler.set_epoch(1)
        parts.append((list(sampler), len(sampler)))

    assert parts[0] == parts[1]


def test_lengths_must_come_from_somewhere() -> None:
    with pytest.raises(ArgumentError, match="give one of them"):
        ours.LengthGroupedSampler(4)


@pytest.mark.parametrize("size", [1, 10, 24, 25])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_parts_of_processes(size: int, batch_size: int, rank: int) -> None:
    def parts(room: Any) -> list[Any]:
        looped = room.DistributedSamplerWithLoop(range(size), batch_size, num_replicas=3, rank=rank, shuffle=False)
        shards = [room.ShardSampler(range(size), batch_size, drop, 3, rank) for drop in (False, True)]
        return [list(looped), *((list(shard), len(shard)) for shard in shards)]

    assert parts(ours) == parts(theirs)


class Stream(IterableDataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size
        self.generator = torch.Generator()

    def __iter__(self) -> Any:
        return iter(torch.randperm(self.size, generator=self.generator).tolist())

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("size", [0, 1, 5, 12, 13])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_shards_of_a_stream(size: int, drop_last: bool, rank: int) -> None:
    def shard(kind: Any) -> tuple[list[list[int]], int, int]:
        made = kind(Stream(size), 2, drop_last, 3, rank, seed=4)
        passes = [list(made)]
        made.set_epoch(3)
        passes.append(list(made))
        return passes, len(made), made.num_examples

    assert shard(IterableDatasetShard) == shard(theirs.IterableDatasetShard)


def test_the_sampler_of_a_loader_is_found() -> None:
    rows = list(range(8))
    sampler = SequentialSampler(rows)
    batches = BatchSampler(sampler, 2, drop_last=False)

    assert ours.get_dataloader_sampler(DataLoader(rows, sampler=sampler)) is sampler
    assert ours.get_dataloader_sampler(DataLoader(rows, batch_sampler=batches)) is sampler
    assert ours.get_dataloader_sampler(rows) is None


@pytest.mark.parametrize("size", [1, 7, 12])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_what_processes_evaluate_comes_back_in_order(size: int, batch_size: int | None) -> None:
    """The pair of the 4.x years: stretches of the data, gathered step by step, are the data again."""
    parts = [list(ours.SequentialDistributedSampler(range(size), 3, rank, batch_size)) for rank in range(3)]
    gatherer = ours.DistributedTensorGatherer(3, size, make_multiple_of=batch_size)
    step = batch_size or len(parts[0])
    for start in range(0, len(parts[0]), step):
        rows = np.array([index for part in parts for index in part[start : start + step]])
        gatherer.add_arrays({"labels": rows, "scores": np.stack([rows, rows], 1)})
    gathered = gatherer.finalize()

    assert {len(part) for part in parts} == {len(parts[0])}
    assert gathered["labels"].tolist() == list(range(size))
    assert gathered["scores"].shape == (size, 2)
    assert ours.DistributedTensorGatherer(2, 4).finalize() is None
