"""How a run reads its loader: from a position on, with draws that follow from seed, epoch and position.

The reader owns what is read instead of the loader (a twin of it, so that the user's own stays as it is) and the workers
that are kept between epochs. The loader's samplers keep where a pass begins; datasets are the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from typing import Any, Literal, TypeAlias, get_args

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.datapipes.datapipe import IterDataPipe

from surestep.data.fetching import MapFetch, Seeding, StreamFetch, WorkerStart, unpacked
from surestep.data.loaders import set_epoch
from surestep.data.samplers import Rule, SeededRandomSampler
from surestep.data.seek import Order, Tier, is_plain, reads_samples, seekable, stream_from
from surestep.errors import CheckpointError, DataError
from surestep.runtime.generators import Draws, borrowed_defaults, derive
from surestep.runtime.nested import batch_length
from surestep.runtime.world import World

DataSeeding: TypeAlias = Literal["batch", "sample", "global"]
_END = object()


class Reader:
    """Gives the batches of a loader's epochs.

    `seeding` says what random draws of datasets and collators follow from: the position of the "batch", the position
    of each "sample", or, with "global", the default generators as they happen to be, as in the original. A loader
    that torch did not make, or that iterates in a way of its own, is read as it is, with generators seeded by the
    number of the batch; its workers, if it has some, are its own affair.
    """

    def __init__(self, loader: Any, *, seed: int, seeding: DataSeeding = "batch", world: World | None = None) -> None:
        self.loader = loader
        self.tier: Tier = seekable(loader)
        self._world = world or World()
        self._seeds = seeding != "global"
        self._seeding = Seeding(seed, per_sample=seeding == "sample", rank=self._world.rank)
        self._order = Order(loader, self._world, seed if self._seeds else None)
        self._twin: DataLoader[Any] | None = None
        self._next_epoch = -1

    def batches(self, epoch: int, *, start: int = 0, done: int = 0) -> Iterator[Any]:
        """Return the batches of an epoch from the sample `start` on, counted over all ranks, behind the first `done`.

        Where the sample lies inside a batch, a full one begins there; of a batch sampler of the user's comes the rest
        of that batch. Raises `DataError` where a loader that can only be read has no end of a batch there.
        """
        set_epoch(self.loader, epoch)
        if self.tier == "reads":
            own = 0 if start == 0 or not reads_samples(self.loader) else start
            return _after_batches(_after_samples(self._read(epoch, own), start - own), done)
        self._order.begin(epoch, start, done)
        return iter(self._map_twin())

    def state_dict(self) -> dict[str, Any]:
        """Return what of the reader goes into a checkpoint."""
        sampler = self._sampler_with_rule()
        return {"order": None if sampler is None else sampler.rule}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave: the order goes on by the rule that it began with."""
        sampler, rule = self._sampler_with_rule(), state["order"]
        if rule is not None and rule not in get_args(Rule):
            raise CheckpointError(
                f"the checkpoint's order of samples is drawn by the rule {rule!r}, and this version knows "
                f"{', '.join(get_args(Rule))}. Resume with the version that wrote it, or a later one."
            )
        if sampler is not None and rule is not None:
            sampler.rule = rule

    def _sampler_with_rule(self) -> Any:
        """Return the sampler that may draw its order by one rule or another."""
        batches = getattr(self.loader, "batch_sampler", None)
        parts = (batches, getattr(batches, "sampler", None), getattr(self.loader, "sampler", None))
        return next((part for part in parts if isinstance(part, SeededRandomSampler)), None)

    def _map_twin(self) -> DataLoader[Any]:
        loader = self.loader
        single = loader.batch_sampler is None
        if not self._seeds:
            return self._as_twin(keep=True, **{"sampler" if single else "batch_sampler": self._order})
        fetch = MapFetch(loader.dataset, loader.collate_fn, self._seeding, single=single)
        return self._as_twin(keep=True, dataset=fetch, batch_sampler=self._order, **_in_fetch(loader))

    def _read(self, epoch: int, start: int) -> Iterator[Any]:
        """Return the batches of an epoch; of a stream that is read sample by sample, from one of them on."""
        loader = self.loader
        stream = stream_from(loader.dataset, start, self._world) if start else None
        if not self._seeds:
            return iter(loader if stream is None else self._as_twin(keep=False, dataset=stream))
        if not is_plain(loader) or not isinstance(loader.dataset, IterableDataset) or _is_pipe(loader):
            return self._seeded_around(iter(loader), epoch)
        fetch = StreamFetch(
            loader.dataset if stream is None else stream,
            loader.collate_fn,
            self._seeding,
            epoch=epoch,
            first=start,
            batch_size=None if loader.batch_sampler is None else loader.batch_size,
            drop_last=loader.drop_last,
        )
        # Workers count epochs from where they began.
        goes_on, self._next_epoch = epoch == self._next_epoch, epoch + 1
        return iter(self._as_twin(keep=goes_on, dataset=fetch, batch_sampler=None, **_in_fetch(loader)))

    def _as_twin(self, *, keep: bool, **parts: Any) -> DataLoader[Any]:
        """Return a copy of the loader with other parts, and with the workers of the last if they are to be kept.

        A copy has whatever else a subclass holds.
        """
        twin: DataLoader[Any] = copy.copy(self.loader)
        # Past `__setattr__`, which guards these names once a loader is made.
        twin.__dict__.update(parts, _iterator=self._twin._iterator if keep and self._twin is not None else None)
        self._twin = twin
        return twin

    def _seeded_around(self, batches: Iterator[Any], epoch: int) -> Iterator[Any]:
        for number in count():
            seeds = derive(self._seeding.seed, kind=Draws.LOADER, epoch=epoch, place=number, part=self._seeding.rank)
            with borrowed_defaults(seeds):
                batch = next(batches, _END)
            if batch is _END:
                return
            yield batch


def _in_fetch(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return the parts of a loader that give way where batches are fetched in one piece."""
    start: Callable[[int], Any] = WorkerStart(loader.worker_init_fn)
    if loader.num_workers:
        from surestep.runtime.worker_signals import Spared

        start = Spared(start)
    return {"collate_fn": unpacked, "worker_init_fn": start}


def _is_pipe(loader: DataLoader[Any]) -> bool:
    return isinstance(loader.dataset, IterDataPipe)


def _after_batches(batches: Iterator[Any], done: int) -> Iterator[Any]:
    for _ in islice(batches, done):
        pass
    return batches


def _after_samples(batches: Iterator[Any], samples: int) -> Iterator[Any]:
    left = samples
    while left > 0:
        batch = next(batches, None)
        if batch is None:
            break
        size = batch_length(batch)
        if size is None or size > left:
            raise DataError(
                f"the loader can only be read to a position, and {samples} samples do not end one of its batches "
                f"(of {size} samples). Resume with the batch size of before, or train on a map-style dataset."
            )
        left -= size
    return batches
