"""A dataset, a sampler and a collator made into the loader that a run reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from surestep.data.ranks import RankBatches, RankOfBatches, RankStream, is_shared_out, knows_ranks
from surestep.data.samplers import SequentialSampler, adopt
from surestep.data.sources import as_dataset
from surestep.errors import ArgumentError, DataError
from surestep.runtime.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSettings:
    """How batches are fetched; the meanings are those of torch's `DataLoader`.

    Errors name the training arguments that the values come from (`dataloader_num_workers` and the like).
    """

    batch_size: int
    num_workers: int = 0
    pin_memory: bool = True
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    in_order: bool = True
    multiprocessing_context: str | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ArgumentError(f"the batch size is {self.batch_size}; give 1 or more")
        if self.num_workers < 0:
            raise ArgumentError(f"dataloader_num_workers={self.num_workers}; give 0 (no workers) or more")
        if self.prefetch_factor is not None and self.prefetch_factor < 1:
            raise ArgumentError(f"dataloader_prefetch_factor={self.prefetch_factor}; give 1 or more")
        if self.num_workers > 0:
            return
        for name, unset in {
            "persistent_workers": False,
            "prefetch_factor": None,
            "multiprocessing_context": None,
        }.items():
            value = getattr(self, name)
            if value != unset:
                raise ArgumentError(
                    f"dataloader_{name}={value!r} needs workers; set dataloader_num_workers, or leave this one out"
                )


class GuardedLoader(DataLoader[Any]):
    """A loader whose workers hear no signal before they know what to do with one."""

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        from surestep.runtime.worker_signals import held_back

        with held_back():
            return super()._get_iterator()


def build_loader(
    dataset: Any,
    collate_fn: Callable[[list[Any]], Any],
    settings: LoaderSettings,
    sampler: Any = None,
    *,
    training: bool,
    seed: int | None = None,
    world: World | None = None,
    name: str = "train_dataset",
) -> DataLoader[Any]:
    """Return the loader over `dataset`, with the settings that fit it.

    Without a `sampler` the order is the dataset's own. Torch's plain samplers give way to ours (see `adopt`), so that
    the order follows from `seed` and epoch; with `seed=None` random samplers stay as they are. A batch sampler brings
    its own batch size and tail. With several ranks in `world` each gets its own part of the order (see `data.ranks`).
    Workers of a `training` loader are seeded as the original seeds them: from torch's global generator at the start of
    the pass, apart for each rank. `name` is what errors call the dataset.
    """
    dataset = as_dataset(dataset, name)
    world = world or World()
    shared = world.size > 1
    options: dict[str, Any] = {
        "collate_fn": collate_fn,
        "num_workers": settings.num_workers,
        "pin_memory": settings.pin_memory and _can_pin(),
        "persistent_workers": settings.persistent_workers,
        "prefetch_factor": settings.prefetch_factor,
        "multiprocessing_context": settings.multiprocessing_context,
        "in_order": settings.in_order,
        "worker_init_fn": _start_of_workers(
            settings, world, seeded=training and not isinstance(dataset, IterableDataset)
        ),
    }
    if isinstance(dataset, IterableDataset):
        if sampler is not None:
            raise DataError(f"{name} is a stream, which has an order of its own; give no sampler with it")
        if shared and not is_shared_out(dataset):
            dataset = RankStream(dataset, settings.batch_size, world, drop_last=settings.drop_last)
        return GuardedLoader(dataset, batch_size=settings.batch_size, drop_last=settings.drop_last, **options)
    if len(dataset) == 0:
        raise DataError(f"{name} is empty; give a dataset with at least one sample")
    if training and len(dataset) < world.size:
        raise DataError(
            f"{name} has {len(dataset)} samples for {world.size} processes: some would have nothing to do. Start "
            "fewer processes, or give more samples."
        )
    if is_batch_sampler(sampler):
        if shared and not knows_ranks(sampler):
            sampler = RankOfBatches(sampler, world)
        return GuardedLoader(dataset, batch_sampler=sampler, **options)
    sampler = SequentialSampler(dataset) if sampler is None else adopt(sampler, seed)
    if shared and not knows_ranks(sampler):
        batches = RankBatches(sampler, settings.batch_size, world, drop_last=settings.drop_last)
        return GuardedLoader(dataset, batch_sampler=batches, **options)
    return GuardedLoader(
        dataset, batch_size=settings.batch_size, sampler=sampler, drop_last=settings.drop_last, **options
    )


def _start_of_workers(settings: LoaderSettings, world: World, *, seeded: bool) -> Callable[[int], Any] | None:
    """Return what begins a worker: signals are the main process's affair, and seeds those of the rank."""
    if not settings.num_workers:
        return None
    from surestep.runtime.worker_signals import Spared

    seeding = partial(seed_worker, num_workers=settings.num_workers, rank=world.rank)
    return Spared(seeding if seeded else None)


def is_batch_sampler(sampler: Any) -> bool:
    """Say whether `sampler` gives whole batches of indices: torch's, or a rebalancing one (ours or the original's)."""
    return isinstance(sampler, BatchSampler) or type(sampler).__name__ == "BatchRebalanceSampler"


def set_epoch(loader: Any, epoch: int) -> None:
    """Tell whatever shuffles in `loader` which epoch comes: the loader itself, its samplers, its dataset."""
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
        return
    batch_sampler = getattr(loader, "batch_sampler", None)
    if batch_sampler is None:
        batch_sampler = getattr(loader, "sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    parts: list[Any] = [batch_sampler, inner, getattr(inner, "sampler", None), getattr(loader, "dataset", None)]
    for part in parts:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def has_length(obj: Any) -> bool:
    """Say whether `len(obj)` gives a number."""
    try:
        return len(obj) is not None
    except (TypeError, AttributeError, NotImplementedError):
        return False


def num_samples(loader: Any) -> int:
    """Return the samples of an epoch: the dataset's length, or the loader's batches times its batch size."""
    dataset: Any = getattr(loader, "dataset", None)
    if has_length(dataset):
        return len(dataset)
    if not has_length(loader):
        raise DataError("neither the loader nor its dataset has a length; set max_steps, or add __len__ to the dataset")
    return len(loader) * (getattr(loader, "batch_size", None) or 1)


def reading_order(loader: Any) -> np.ndarray[Any, Any] | None:
    """Return the numbers of the samples in the order in which a length-grouped loader reads its next pass.

    None for any other loader: it reads in the dataset's order, or in one of its maker's own.
    """
    sampler = _own_sampler(loader)
    grouping = sampler is not None and type(sampler).__name__ == "LengthGroupedSampler"
    return sampler.order().numpy() if grouping else None


def reads_all(loader: Any) -> bool:
    """Say whether a pass gives every sample of the dataset once.

    Not so with `drop_last`, with a stream, and perhaps not with a loader or sampler of the user's.
    """
    sampler = _own_sampler(loader)
    if sampler is None or getattr(loader.batch_sampler, "drop_last", True):
        return False
    return has_length(loader.dataset) and len(sampler) == len(loader.dataset)


def _own_sampler(loader: Any) -> Any:
    """Return the sampler of a loader of ours where it goes through the dataset once, in order or grouped."""
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    once = isinstance(sampler, SequentialSampler) or type(sampler).__name__ == "LengthGroupedSampler"
    return sampler if once else None


def seed_worker(worker_id: int, num_workers: int, rank: int) -> None:  # noqa: ARG001 (torch passes the id)
    """Seed the generators of a worker process from the seed that torch gave it, apart for each rank."""
    seed = num_workers * rank + torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _can_pin() -> bool:
    """Say whether memory can be pinned: an accelerator is there, and not Apple's."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator is not None and accelerator.type != "mps"
