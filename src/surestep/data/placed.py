"""A loader of somebody else, taken over: its order made a function of seed and epoch, its batches put on the device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch.utils.data import DataLoader

from surestep.data.samplers import adopt
from surestep.runtime.device import to_device


class PlacedLoader(DataLoader[Any]):
    """A loader whose batches are on a device. It seeks and replays as the loader that it was made of."""

    # What `seek` asks: the iterator reads the indices as torch's own does.
    seeks_as_plain: ClassVar[bool] = True
    device: torch.device

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return (to_device(batch, self.device) for batch in super().__iter__())


def place_loader(loader: DataLoader[Any], *, seed: int, device: torch.device | None) -> DataLoader[Any]:
    """Return `loader` with a seeded order and, unless `device` is None or the CPU, with its batches on it.

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
    if device is None or device.type == "cpu":
        return taken
    placed = PlacedLoader.__new__(PlacedLoader)
    placed.__dict__.update(vars(taken), device=device)
    return placed
