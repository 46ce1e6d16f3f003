"""The share of a rank: which samples of the common order it reads, so that each is read once over all ranks.

A round is one batch on every rank. A full round is cut from the order as it stands: the first batch for rank 0, the
next for rank 1. What is left at the end of an epoch is dealt out as evenly as it goes, in the same manner, and nothing
is repeated to fill a rank up: in the last round batches are smaller, and where fewer samples are left than there are
ranks, some ranks have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, IterableDataset, Sampler

from surestep.data.samplers import Epochs, Seekable, SequentialSampler
from surestep.errors import ArgumentError
from surestep.runtime.collectives import from_main
from surestep.runtime.world import World


def share(
    order: Iterable[Any], batch_size: int, world: World, *, drop_last: bool, first: int = 0
) -> Iterator[tuple[int, list[Any]]]:
    """Yield a rank's batches of an order that all ranks have, each with the place of its first sample in that order.

    `first` is the place at which the order given begins. `drop_last` leaves out a round that is not full.
    """
    iterator = iter(order)
    whole, place = batch_size * world.size, first
    while chunk := list(islice(iterator, whole)):
        if len(chunk) < whole and drop_last:
            return
        if world.size == 1:
            yield place, chunk
        else:
            part = part_of(len(chunk), world)
            if batch := chunk[part]:
                yield place + part.start, batch
        place += len(chunk)


def part_of(samples: int, world: World) -> slice:
    """Return the rank's part of `samples` that lie in a row: parts differ by one sample at most, longer ones first."""
    size, more = divmod(samples, world.size)
    start = world.rank * size + min(world.rank, more)
    return slice(start, start + size + (world.rank < more))


class RankBatches(Sampler[list[int]]):
    """The batches of a rank from a sampler of single indices.

    `len` counts rounds, which are the same on all ranks. It seeks, in samples over all ranks, where the sampler does.
    """

    def __init__(self, sampler: Any, batch_size: int, world: World, *, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.world = world
        if isinstance(sampler, Seekable):
            self.seek = sampler.seek

    def __len__(self) -> int:
        return self.batches_from(0)

    def batches_from(self, samples: int) -> int:
        """Return the rounds that are left behind the first `samples` of the order."""
        rounds, rest = divmod(max(len(self.sampler) - samples, 0), self.samples_per_round)
        return rounds if self.drop_last else rounds + bool(rest)

    @property
    def samples_per_round(self) -> int:
        """The samples of a full round, over all ranks."""
        return self.batch_size * self.world.size

    @property
    def samples_per_epoch(self) -> int:
        """The samples of an epoch, over all ranks."""
        return len(self.sampler)

    def samples_before(self, batches: int) -> int:
        """Return the samples of all ranks in so many full rounds."""
        return batches * self.samples_per_round

    def __iter__(self) -> Iterator[list[int]]:
        return (batch for _, batch in self.placed())

    def placed(self, first: int = 0, leave_out: int = 0) -> Iterator[tuple[int, list[int]]]:
        """Yield the batches with their places in the common order.

        A sampler that was sought begins at `first`; of one that was not, as many samples are to `leave_out`.
        """
        order = islice(_one_order(self.sampler), leave_out, None) if leave_out else _one_order(self.sampler)
        return share(order, self.batch_size, self.world, drop_last=self.drop_last, first=first)


class RankOfBatches(Sampler[Any]):
    """A rank's batches of a batch sampler: one in so many as there are ranks.

    The batches are the sampler's own; at the end of an epoch some ranks may have one more than others.
    """

    def __init__(self, batches: BatchSampler, world: World) -> None:
        self.sampler = batches
        self.world = world

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.world.size)

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.placed())

    def placed(self, first: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the batches with their places among those of all ranks."""
        place = first
        for number, batch in enumerate(_one_order(self.sampler)):
            if number % self.world.size == self.world.rank:
                yield place, batch
            place += len(batch)


def _one_order(sampler: Any) -> Iterator[Any]:
    """Return an order that is the same on every rank: ours are, and of any other the main process's holds."""
    ours = isinstance(sampler, Epochs | SequentialSampler)
    order: Iterable[Any] = sampler if ours else from_main(list(sampler))
    return iter(order)


class RankStream(IterableDataset[Any]):
    """A rank's samples of a stream that every rank reads from end to end."""

    def __init__(self, stream: Any, batch_size: int, world: World, *, drop_last: bool = False) -> None:
        self.stream = stream
        self._share = (batch_size, world)
        self._drop_last = drop_last

    def __iter__(self) -> Iterator[Any]:
        for _, batch in share(self.stream, *self._share, drop_last=self._drop_last):
            yield from batch

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to a stream that asks for it."""
        if hasattr(self.stream, "set_epoch"):
            self.stream.set_epoch(epoch)


def of_rank(batch_size: int, world: World, *, split: bool) -> int:
    """Return the batch size of a rank: the one given, or its part where that is `split` among the ranks."""
    if not split:
        return batch_size
    if batch_size % world.size:
        raise ArgumentError(
            f"accelerator_config has split_batches=True, and a batch of {batch_size} cannot be split among "
            f"{world.size} processes. Write a multiple of {world.size}."
        )
    return batch_size // world.size


def refuse_split(batches: Any, *, split: bool) -> None:
    """Raise where the batches of a batch sampler, which are dealt out whole, are to be split."""
    if split:
        raise ArgumentError(
            f"accelerator_config has split_batches=True, and {type(batches).__name__} makes batches that are dealt out "
            "whole. Leave split_batches out."
        )


def is_shared_out(stream: Any) -> bool:
    """Say whether a stream gives each rank its own samples already (`datasets.distributed.split_dataset_by_node`)."""
    return getattr(stream, "_distributed", None) is not None


def knows_ranks(sampler: Any) -> bool:
    """Say whether a sampler gives each rank its own part by itself, as torch's `DistributedSampler` does."""
    return hasattr(sampler, "num_replicas") or hasattr(sampler, "dp_size")
