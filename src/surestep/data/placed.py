"""A loader of somebody else, taken over: its order made a function of seed and epoch, its batches put on the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from surestep.data.ranks import (
    RankBatches,
    RankOfBatches,
    RankStream,
    is_shared_out,
    knows_ranks,
    of_rank,
    refuse_split,
)
from surestep.data.samplers import adopt
from surestep.runtime.device import to_device
from surestep.runtime.world import World


class PlacedLoader(DataLoader[Any]):
    """A loader whose batches are on a device. It seeks and replays as the loader that it was made of."""

    # What `seek` asks: the iterator reads the indices as torch's own does.
    seeks_as_plain: ClassVar[bool] = True
    device: torch.device
    non_blocking: bool

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return (to_device(batch, self.device, self.non_blocking) for batch in super().__iter__())


def place_loader(
    loader: DataLoader[Any],
    *,
    seed: int,
    device: torch.device | None,
    world: World,
    split: bool = False,
    non_blocking: bool = False,
) -> DataLoader[Any]:
    """Return `loader` with a seeded order and, unless `device` is None or the CPU, with its batches on it.

    Among several ranks each gets its share of the order, as from a loader of the trainer's own: the batch size is that
    of one rank, or where it is `split`, of all together.

    Torch's plain samplers give way as `adopt` says, those inside a batch sampler of the user's as well. The loader that
    is given stays as it is. One with an iterator of its own is left alone: nobody knows what it reads.
    """
    if type(loader).__iter__ is not DataLoader.__iter__:
        return loader
    taken = copy.copy(loader)
    batches: Any = loader.batch_sampler
    if batches is not None and hasattr(batches, "sampler"):
        batches = copy.copy(batches)
        batches.sampler = adopt(batches.sampler, seed)
        # Past `__setattr__`, which guards these names once a loader is made.
        taken.__dict__["batch_sampler"] = batches
        if loader.batch_sampler.sampler is loader.sampler:  # type: ignore[union-attr]
            taken.__dict__["sampler"] = batches.sampler
    if world.size > 1:
        _share_out(taken, world, split=split)
    if device is None or device.type == "cpu":
        return taken
    placed = PlacedLoader.__new__(PlacedLoader)
    placed.__dict__.update(vars(taken), device=device, non_blocking=non_blocking)
    return placed


def _share_out(loader: DataLoader[Any], world: World, *, split: bool) -> None:
    """Let a loader read this rank's share, unless it does so already."""
    dataset, batches = loader.dataset, cast("BatchSampler | None", loader.batch_sampler)
    if isinstance(dataset, IterableDataset):
        size = loader.batch_size
        if size is not None and not is_shared_out(dataset):
            size = of_rank(size, world, split=split)
            loader.__dict__["dataset"] = RankStream(dataset, size, world, drop_last=loader.drop_last)
            loader.__dict__["batch_size"] = size
            if batches is not None:
                batches.batch_size = size
        return
    inner: Any = getattr(batches, "sampler", None)
    if batches is None or knows_ranks(batches) or knows_ranks(inner):
        return
    if type(batches) is BatchSampler:
        size = of_rank(batches.batch_size, world, split=split)
        shared: Any = RankBatches(inner, size, world, drop_last=batches.drop_last)
    else:
        refuse_split(batches, split=split)
        shared = RankOfBatches(batches, world)
    loader.__dict__["batch_sampler"] = shared
