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

from surestep.data.fetching import EVALUATION, MapFetch, Mark, Onset, Seeding, StreamFetch, WorkerStart, unpacked
from surestep.data.held import HeldGenerators
from surestep.data.loaders import set_epoch
from surestep.data.marks import LoaderState, Marks
from surestep.data.samplers import Rule, SeededRandomSampler
from surestep.data.seek import Order, Tier, is_plain, reads_samples, seekable
from surestep.data.skipping import skipping
from surestep.data.streams import stream_from, untold
from surestep.data.workers import Workers
from surestep.errors import CheckpointError, DataError
from surestep.runtime.generators import Draws, borrowed_defaults, derive
from surestep.runtime.nested import batch_length
from surestep.runtime.world import World

DataSeeding: TypeAlias = Literal["batch", "sample", "global"]
# An epoch, a sample of it, and so many batches more.
Place: TypeAlias = tuple[int, int, int]
_END = object()


class Reader:
    """Gives the batches of a loader's epochs.

    `seeding` says what random draws of datasets and collators follow from: the position of the "batch", the position
    of each "sample", or, with "global", the default generators as they happen to be, as in the original. A loader
    that torch did not make, or that iterates in a way of its own, is read as it is, with generators seeded by the
    number of the batch; its workers, if it has some, are its own affair.

    A stream, or a loader, that tells its position is taken up there; any other is read again up to it.
    """

    def __init__(self, loader: Any, *, seed: int, seeding: DataSeeding = "batch", world: World | None = None) -> None:
        self.loader = loader
        self.tier: Tier = seekable(loader)
        self._world = world or World()
        self._seeds = seeding != "global"
        self._seeding = Seeding(seed, per_sample=seeding == "sample", rank=self._world.rank)
        self._order = Order(loader, self._world, seed if self._seeds else None)
        self._next_epoch: int | None = None
        self._workers = Workers()
        self.held = HeldGenerators(loader, walks=self.tier == "reads")
        self._is_stream = is_plain(loader) and isinstance(loader.dataset, IterableDataset)
        self._account = self._make_account()

    @property
    def tells(self) -> bool:
        """Whether a stream or loader tells its position, so that nothing is read to get there."""
        return self._account is not None

    def batches(self, epoch: int, *, start: int = 0, done: int = 0) -> Iterator[Any]:
        """Return the batches of an epoch from the sample `start` on, counted over all ranks, behind the first `done`.

        The epoch `EVALUATION` is none: it is told to nobody, and the same each time it is read.

        Where the sample lies inside a batch, a full one begins there; of a batch sampler of the user's comes the rest
        of that batch. Raises `DataError` where a loader that can only be read has no end of a batch there.
        """
        if epoch != EVALUATION:
            set_epoch(self.loader, epoch)
        self.held.begin(epoch)
        self._workers.begin(epoch)
        if self.tier == "reads":
            return self._read_to(epoch, start, done)
        self._order.begin(epoch, start, done)
        return iter(self._map_twin())

    def fetch_one(self, index: Any) -> Any:
        """Return the batch of a single sample of a dataset with indices, read in this process as the first of all."""
        single = self.loader.batch_sampler is None
        return self._map_fetch().__getitems__((0, 1, (0, index if single else [index])))[0]

    def first_fetch(self) -> Callable[[], Any]:
        """Return what fetches the first batch of the first epoch, in this process, as often as it is called.

        Loaders that torch did not make are asked for it, and workers of theirs with them.
        """
        set_epoch(self.loader, 0)
        if self.tier != "reads" and self._seeds:
            self._order.begin(0)
            read, fetch = next(iter(self._order)), self._map_fetch()
            return lambda: fetch.__getitems__(read)[0]
        if self._fetches_stream():
            return lambda: next(iter(self._stream_fetch(self.loader.dataset, 0)))[0]
        return lambda: next(self.batches(0))

    def state_dict(self) -> dict[str, Any]:
        """Return what of the reader goes into a checkpoint."""
        sampler = self._sampler_with_rule()
        return {
            "order": None if sampler is None else sampler.rule,
            "generators": self.held.state_dict(),
            "workers": self._workers.state_dict(),
            "stream": None if self._account is None else self._account.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what `state_dict` gave: the order goes on by the rule that it began with, a stream where it was."""
        sampler, rule = self._sampler_with_rule(), state["order"]
        if rule is not None and rule not in get_args(Rule):
            raise CheckpointError(
                f"the checkpoint's order of samples is drawn by the rule {rule!r}, and this version knows "
                f"{', '.join(get_args(Rule))}. Resume with the version that wrote it, or a later one."
            )
        if sampler is not None and rule is not None:
            sampler.rule = rule
        self.held.load_state_dict(state["generators"])
        self._workers.load_state_dict(state["workers"])
        if self._account is not None:
            self._account.load_state_dict(state.get("stream") or {})

    def _sampler_with_rule(self) -> Any:
        """Return the sampler that may draw its order by one rule or another."""
        batches = getattr(self.loader, "batch_sampler", None)
        parts = (batches, getattr(batches, "sampler", None), getattr(self.loader, "sampler", None))
        return next((part for part in parts if isinstance(part, SeededRandomSampler)), None)

    def _make_account(self) -> Marks | LoaderState | None:
        loader = self.loader
        if self._is_stream:
            told = self._fetches_stream() and untold(loader.dataset) is None
            return Marks(loader, self._world) if told else None
        methods = (getattr(loader, name, None) for name in ("state_dict", "load_state_dict"))
        return LoaderState(loader, self._world) if self.tier == "reads" and all(map(callable, methods)) else None

    def _map_twin(self) -> DataLoader[Any]:
        loader = self.loader
        single = loader.batch_sampler is None
        if not self._seeds:
            return self._as_twin(keep=True, **{"sampler" if single else "batch_sampler": self._order})
        return self._as_twin(keep=True, dataset=self._map_fetch(), batch_sampler=self._order, **_in_fetch(loader))

    def _read_to(self, epoch: int, start: int, done: int) -> Iterator[Any]:
        """Return the batches behind a place of an epoch, where the order is not known: told there, or read there."""
        account = self._account
        if isinstance(account, Marks):
            onset = account.onset(epoch, start, done)
            if onset is not None:
                return self._stream(epoch, onset=onset, place=(epoch, start, done))
            batches = self._from_sample(epoch, start, done, place=(epoch, start, 0))
            account.stand(epoch, start, done)
            return batches
        if account is None:
            return self._from_sample(epoch, start, done)
        if account.begin(epoch, start, done):
            return account.count(self._around(epoch, done))
        return account.count(self._after(self._around(epoch, 0), start, done))

    def _from_sample(self, epoch: int, start: int, done: int, place: Place | None = None) -> Iterator[Any]:
        """Return the batches behind a place; a stream that is read sample by sample may begin within a batch."""
        first = start if reads_samples(self.loader) else 0
        if self._fetches_stream():
            return self._after(self._stream(epoch, first=first, place=place), start - first, done)
        return self._after(self._around(epoch, 0, first), start - first, done)

    def _after(self, batches: Iterator[Any], start: int, done: int) -> Iterator[Any]:
        """Read batches and drop them, up to a sample and so many batches more."""
        if (start, done) == (0, 0):
            return batches
        with skipping(start, done, self.why_read()) as skipped:
            return _after_batches(_after_samples(batches, start, skipped), done, skipped)

    def why_read(self) -> str | None:
        """Say why a stream is read again, as far as it is known."""
        reason = untold(self.loader.dataset) if self._is_stream else None
        if reason is None and self._is_stream and not self._seeds:
            return "data_seeding='global' keeps no position of a stream"
        return reason

    def _stream(
        self, epoch: int, *, first: int = 0, onset: Onset | None = None, place: Place | None = None
    ) -> Iterator[Any]:
        """Return the batches of a stream, from its `first` sample or an onset on; with a place, marks are taken."""
        loader = self.loader
        fetch = self._stream_fetch(self._stream_from(first), epoch, onset or self._onset(first))
        # Workers count epochs from where they began, and those that exchanged their parts keep to that.
        goes_on, self._next_epoch = epoch == self._next_epoch, None if fetch.onset.shift else fetch.following(epoch)
        parts = _in_fetch(loader)
        if place is not None and loader.num_workers:
            parts["collate_fn"] = as_it_is
        marks = fetch.onset
        batches = iter(self._as_twin(keep=goes_on and not marks.marks, dataset=fetch, batch_sampler=None, **parts))
        account = self._account
        return account.read(batches, fetch, place, marks) if place and isinstance(account, Marks) else batches

    def _map_fetch(self) -> MapFetch:
        loader = self.loader
        return MapFetch(loader.dataset, loader.collate_fn, self._seeding, single=loader.batch_sampler is None)

    def _fetches_stream(self) -> bool:
        """Say whether batches of a stream are fetched in one piece, with draws seeded for them."""
        return self._seeds and self._is_stream and not isinstance(self.loader.dataset, IterDataPipe)

    def _stream_fetch(self, stream: Any, epoch: int, onset: Onset | None = None) -> StreamFetch:
        loader = self.loader
        return StreamFetch(
            stream,
            loader.collate_fn,
            self._seeding,
            epoch=epoch,
            batch_size=None if loader.batch_sampler is None else loader.batch_size,
            drop_last=loader.drop_last,
            onset=onset,
        )

    @staticmethod
    def _onset(first: int) -> Onset:
        """Return where a stream begins that was read up to a sample."""
        return Onset({0: Mark(0, first, first)}) if first else Onset()

    def _stream_from(self, first: int) -> Any:
        dataset = self.loader.dataset
        return stream_from(dataset, first, self._world, self.why_read()) if first else dataset

    def _around(self, epoch: int, number: int, first: int = 0) -> Iterator[Any]:
        """Return the batches of a loader that is read as it is, the first of which has a number."""
        loader = self._as_twin(keep=False, dataset=self._stream_from(first)) if first else self.loader
        return self._seeded_around(iter(loader), epoch, number) if self._seeds else iter(loader)

    def _as_twin(self, *, keep: bool, **parts: Any) -> DataLoader[Any]:
        """Return a copy of the loader with other parts, and with the workers of the last if they are to be kept.

        A copy has whatever else a subclass holds.
        """
        twin: DataLoader[Any] = copy.copy(self.loader)
        # Past `__setattr__`, which guards these names once a loader is made.
        twin.__dict__.update(parts, **self._workers.take_over(twin, keep=keep))
        return twin

    def _seeded_around(self, batches: Iterator[Any], epoch: int, first: int) -> Iterator[Any]:
        for number in count(first):
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


def as_it_is(batch: Any) -> Any:
    """Return a batch with what came along with it: a collator for workers that have finished their batches."""
    return batch


def _after_batches(batches: Iterator[Any], done: int, skipped: Callable[[int], Any]) -> Iterator[Any]:
    for _ in islice(batches, done):
        skipped(1)
    return batches


def _after_samples(batches: Iterator[Any], samples: int, skipped: Callable[[int], Any]) -> Iterator[Any]:
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
        skipped(size)
    return batches
