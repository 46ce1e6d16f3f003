"""Fetching a batch with generators that are seeded for it: what stands in a loader for its dataset and its collator.

These objects go to the workers of a loader. Each batch is asked for with its epoch and its place in the order, so that
whoever fetches it draws the same numbers. The training process borrows its generators for a batch and gives them back;
those of a worker are nobody else's.

A dataset or collator with a generator of its own may have a method `set_batch_seed(seed)`, to seed that one by: it is
called before each batch, or before each sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice, repeat
from operator import getitem, itemgetter
from typing import Any, TypeAlias

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from surestep.data import streams
from surestep.data.ranks import RankStream
from surestep.runtime.generators import Draws, Seeds, derive, keep_defaults, put_back_defaults, seed_defaults

# The epoch, the distance of its samples in the order, the place of the first, and their indices.
Read: TypeAlias = tuple[int, int, tuple[int, Any]]
# A fetch gives the finished batch in a tuple; in a place of its own a stream can add what else it has to say.
unpacked = itemgetter(0)
# In the place of an epoch: reading that is no part of the training.
EVALUATION = -1


@dataclass(frozen=True, slots=True)
class Seeding:
    """What the draws of a run follow from: its seed, and whether each sample is to have draws of its own."""

    seed: int
    per_sample: bool = False
    rank: int = 0


class SeededFetch:
    """What fetching from maps and from streams has in common."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], seeding: Seeding) -> None:
        self.dataset = dataset
        self.collate = collate
        self.seeding = seeding
        self.in_worker = False
        parts = (dataset, getattr(collate, "data_collator", collate))
        self._own = [part.set_batch_seed for part in parts if hasattr(part, "set_batch_seed")]

    def seed(self, seeds: Seeds) -> None:
        """Seed every generator that the data draws from."""
        seed_defaults(seeds)
        for set_seed in self._own:
            set_seed(seeds[0])


class MapFetch(SeededFetch, Dataset[Any]):
    """Fetches batches of a dataset with indices. `single` is for a loader without a batch size: one sample each."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], seeding: Seeding, *, single: bool = False) -> None:
        super().__init__(dataset, collate, seeding)
        self._single = single
        self._one_by_one = not (single or seeding.per_sample or getattr(dataset, "__getitems__", None))

    def __getitems__(self, read: Read) -> tuple[Any]:
        """Return the collated batch."""
        epoch, _, (place, indices) = read
        kept = None if self.in_worker else keep_defaults()
        try:
            # Not by `seed`: each call counts here.
            seeds = derive(self.seeding.seed, epoch=epoch, place=place)
            seed_defaults(seeds)
            for set_seed in self._own:
                set_seed(seeds[0])
            samples = list(map(getitem, repeat(self.dataset), indices)) if self._one_by_one else self._samples(read)
            return (self.collate(samples),)
        finally:
            if kept is not None:
                put_back_defaults(kept)

    def _samples(self, read: Read) -> Any:
        epoch, stride, (place, indices) = read
        if self._single:
            return self.dataset[indices]
        if not self.seeding.per_sample:
            return self.dataset.__getitems__(indices)
        places = count(place, stride)
        samples = [self._sample(epoch, one, index) for one, index in zip(places, indices, strict=False)]
        self.seed(derive(self.seeding.seed, kind=Draws.COLLATION, epoch=epoch, place=place))
        return samples

    def _sample(self, epoch: int, place: int, index: Any) -> Any:
        self.seed(derive(self.seeding.seed, kind=Draws.SAMPLE, epoch=epoch, place=place))
        return self.dataset[index]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a worker stands in its part of a stream: behind so many batches and samples; the stream calls it `state`.

    Without a state the stream is one that begins there. They are counted so that no draws come twice.
    """

    worker: int
    batches: int = 0
    samples: int = 0
    state: Any = None


@dataclass(frozen=True, slots=True)
class Onset:
    """Where a pass over a stream begins: the marks that workers had, and which of them is to give the first batch.

    Torch asks its worker 0 first, so that the others take the part of one `shift` further.
    """

    marks: dict[int, Mark] = field(default_factory=dict)
    shift: int = 0

    def part(self, worker: int, workers: int) -> int:
        """Return whose part of the stream a worker has."""
        return (worker + self.shift) % workers


class StreamFetch(SeededFetch, IterableDataset[Any]):
    """Reads batches from a stream: what is drawn for one follows from the worker and the batches that it has read.

    Ranks that all read the stream from end to end must read the same, so that the rank counts for collating only.
    `epoch` is the first that will be read; workers that are kept count on from there. The first pass begins at `onset`.
    Where the stream tells its position, a worker adds its mark to each batch, and `mark` gives that of this process.
    """

    def __init__(
        self,
        stream: Any,
        collate: Callable[[Any], Any],
        seeding: Seeding,
        *,
        epoch: int,
        batch_size: int | None,
        drop_last: bool = False,
        onset: Onset | None = None,
    ) -> None:
        super().__init__(stream, collate, seeding)
        self.tells = streams.untold(stream) is None
        self.onset = onset or Onset()
        self._reading = stream
        self._mark = Mark(0)
        self._epoch = epoch
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._reading_rank = 0 if isinstance(stream, RankStream) else seeding.rank

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Read the epoch that comes next."""
        epoch, self._epoch = self._epoch, self.following(self._epoch)
        if self.in_worker and epoch != EVALUATION and hasattr(self.dataset, "set_epoch"):
            # Only the first epoch's copy of the dataset was told by the training process.
            self.dataset.set_epoch(epoch)
        info = get_worker_info()
        worker = 0 if info is None else info.id
        start, self.onset = self.onset.marks.get(worker), Onset()
        told = None if start is None else start.state
        self._reading = self.dataset if told is None else streams.at_position(self.dataset, told)
        return self._batches(epoch, start or Mark(worker))

    @staticmethod
    def following(epoch: int) -> int:
        """Return the epoch that is read after another."""
        return epoch if epoch == EVALUATION else epoch + 1

    def mark(self) -> Mark:
        """Return where this process stands, which must be where it has read to and given what it read."""
        return replace(self._mark, state=streams.position_of(self._reading))

    def _batches(self, epoch: int, start: Mark) -> Iterator[tuple[Any, ...]]:
        source: Iterator[Any] = iter(())
        worker, place = start.worker, start.samples
        for number in count(start.batches):
            kept = None if self.in_worker else keep_defaults()
            try:
                begins = number == start.batches
                # A stream begins its epoch with the same draws wherever the reading begins; one that tells its place
                # has them behind it.
                first = begins and start.state is None
                self._seed(Draws.STREAM, self._reading_rank, (epoch, worker, 0 if first else number))
                source = iter(self._reading) if begins else source
                samples = self._samples(source, (epoch, worker, place))
                if not samples or (self._drop_last and len(samples) < (self._batch_size or 1)):
                    return
                self._seed(Draws.COLLATION, self.seeding.rank, (epoch, worker, number))
                batch = self.collate(samples[0] if self._batch_size is None else samples)
            finally:
                if kept is not None:
                    put_back_defaults(kept)
            place += len(samples)
            self._mark = Mark(worker, number + 1, place)
            yield (batch, self.mark()) if self.in_worker and self.tells else (batch,)
            if len(samples) < (self._batch_size or 1):
                return

    def _samples(self, source: Iterator[Any], of: tuple[int, int, int]) -> list[Any]:
        """Return the samples of a batch; fewer where the stream ends."""
        size = self._batch_size or 1
        if not self.seeding.per_sample:
            return list(islice(source, size))
        epoch, worker, first = of
        samples: list[Any] = []
        for place in range(first, first + size):
            self._seed(Draws.SAMPLE, self._reading_rank, (epoch, worker, place))
            samples += islice(source, 1)
        return samples

    def _seed(self, kind: Draws, rank: int, of: tuple[int, int, int]) -> None:
        epoch, worker, number = of
        # Workers and ranks in one number, each with room enough.
        self.seed(derive(self.seeding.seed, kind=kind, epoch=epoch, place=number, part=worker + (rank << 32)))


class WorkerStart:
    """What a worker does first: it finds the user's dataset where torch keeps it, and does what the user asked for."""

    def __init__(self, user: Callable[[int], Any] | None) -> None:
        self._user = user

    def __call__(self, worker_id: int) -> None:
        """Begin in a worker."""
        info: Any = get_worker_info()
        fetch: SeededFetch = info.dataset
        fetch.in_worker = True
        # Past its guard: users look here for their dataset, to change it, and for the worker's part of it.
        object.__setattr__(info, "dataset", fetch.dataset)
        if isinstance(fetch, StreamFetch):
            worker_id = fetch.onset.part(worker_id, info.num_workers)
            object.__setattr__(info, "id", worker_id)
        if self._user is not None:
            self._user(worker_id)
