"""The order of a loader, read from any position on, as cheaply as the loader allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, count, islice, repeat
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from torch.utils.data import BatchSampler, DataLoader, IterableDataset
from torch.utils.data.datapipes.datapipe import MapDataPipe

from surestep.data.grouping import BatchRebalanceSampler
from surestep.data.ranks import RankBatches, RankOfBatches, knows_ranks, share
from surestep.data.samplers import Epochs, Seekable, SequentialSampler
from surestep.runtime.generators import Draws, borrowed_defaults, derive
from surestep.runtime.world import World

Tier: TypeAlias = Literal["seek", "indices", "reads"]
# The place of a first sample in the order of all ranks, and the indices from there: a batch, or a single one.
Placed: TypeAlias = tuple[int, Any]
# These say by themselves where their batches lie.
_PLACING = (RankBatches, RankOfBatches, BatchRebalanceSampler)
# These cut the order of a sampler of single indices.
_CUT = (BatchSampler, RankBatches)
_END = object()


def seekable(loader: Any) -> Tier:
    """Say how `loader` gets to a position: it seeks, replays its indices, or reads and drops batches.

    Only `reads` touches the dataset. A loader with an iterator of its own is read, for nobody knows what it does
    with its indices.
    """
    if not is_plain(loader) or isinstance(loader.dataset, IterableDataset | MapDataPipe):
        return "reads"
    return "seek" if _seeker(loader) is not None else "indices"


def is_plain(loader: Any) -> bool:
    """Say whether a loader is one of torch's, with its iterator or one known to read as that does."""
    # `type`, for some wrappers only claim to be a DataLoader.
    kind = type(loader)
    return issubclass(kind, DataLoader) and (
        kind.__iter__ is DataLoader.__iter__ or getattr(kind, "seeks_as_plain", False)
    )


def reads_samples(loader: Any) -> bool:
    """Say whether `loader` reads a stream sample by sample, in this process: then it can begin at any of them."""
    return is_plain(loader) and isinstance(loader.dataset, IterableDataset) and not loader.num_workers


class Order:
    """The indices of a loader's epochs, each batch with its place, for a loader to read instead of its own.

    `begin` says which epoch comes and where in it to start. With a `seed`, each batch is given with the epoch and the
    distance of its samples in the order, and a sampler that is none of ours draws from generators seeded for each of
    its batches but the first. Without one the indices are given as they are.
    """

    def __init__(self, loader: DataLoader[Any], world: World, seed: int | None) -> None:
        self._loader = loader
        self._world = world
        self._seed = seed
        self._epoch, self._start, self._done = 0, 0, 0

    def begin(self, epoch: int, start: int = 0, done: int = 0) -> None:
        """Have the next pass read `epoch` from the sample `start` of all ranks on, behind the first `done` batches.

        Where the sample lies inside a batch, a full one begins there; batches of a sampler of the user's are not cut,
        and the rest of that batch is given.
        """
        self._epoch, self._start, self._done = epoch, start, done

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        # Torch asks for an iterator twice and reads the second: nothing may begin before it is read. Iterators of C
        # from there, for a generator would cost a Python call for each batch.
        return chain.from_iterable(self._passes())

    @property
    def _indices(self) -> Any:
        return self._loader.sampler if self._loader.batch_sampler is None else self._loader.batch_sampler

    def _passes(self) -> Iterator[Iterable[Any]]:
        if self._seed is None:
            yield map(itemgetter(1), self._placed())
        else:
            yield zip(repeat(self._epoch), repeat(self._stride), self._placed(), strict=False)

    def _placed(self) -> Iterator[Placed]:
        place, seeker = self._place(), _seeker(self._loader)
        if seeker is not None and place is not None:
            seeker.seek(place)
            return self._drawn(self._from(place))
        if type(self._indices) in _CUT:
            return islice(self._drawn(self._from(self._start, self._start)), self._done, None)
        placed = self._drawn(self._from(0))
        return islice(self._behind(placed) if self._start else placed, self._done, None)

    def _place(self) -> int | None:
        """Return the place at which the pass begins; None where that takes a walk to know."""
        if self._done == 0:
            return self._start
        before = getattr(self._indices, "samples_before", None)
        if before is not None:
            samples: int | None = before(self._done)
        else:
            size = 1 if self._loader.batch_sampler is None else self._loader.batch_size
            samples = None if size is None else self._done * size
        sampler: Any = self._loader.sampler if before is None else self._indices
        whole: int = sampler.samples_per_epoch if hasattr(sampler, "samples_per_epoch") else len(sampler)
        return None if samples is None else min(self._start + samples, whole)

    def _from(self, first: int, leave_out: int = 0) -> Iterator[Placed]:
        """Return what the sampler gives from now on, or behind samples to `leave_out`; it stands at the place `first`.

        Only samples of a sampler that is cut into batches here can be left out.
        """
        batches, world = self._loader.batch_sampler, self._world
        if isinstance(batches, RankBatches) and leave_out:
            return batches.placed(first, leave_out)
        if isinstance(batches, _PLACING) and type(batches) in _PLACING:
            return batches.placed(first)
        own = first // self._stride
        if batches is None:
            placed: Iterator[Placed] = enumerate(self._loader.sampler, own)
        elif type(batches) is BatchSampler:
            order = islice(batches.sampler, leave_out // self._stride, None) if leave_out else batches.sampler
            placed = share(order, batches.batch_size, World(), drop_last=batches.drop_last, first=own)
        else:
            placed = _counted(batches, own)
        return placed if self._stride == 1 else ((world.rank + place * self._stride, one) for place, one in placed)

    @property
    def _stride(self) -> int:
        """How far apart the samples of a batch are: samplers that know the ranks take one in so many."""
        batches = self._indices
        theirs = type(batches) not in _PLACING and (
            knows_ranks(batches) or knows_ranks(getattr(batches, "sampler", None))
        )
        return self._world.size if theirs else 1

    def _drawn(self, placed: Iterator[Placed]) -> Iterator[Placed]:
        """Have a sampler that is none of ours draw from generators seeded for it, once it has begun.

        It begins with the generators of the run, as in the original: a resumed run puts these back first. Draws for
        later batches would lie between those of training steps, which a resumed run does not repeat.
        """
        inner = getattr(self._indices, "sampler", self._indices)
        ours = isinstance(self._indices, Epochs) or isinstance(inner, Epochs | SequentialSampler)
        return placed if ours or self._seed is None else self._drawing(placed, self._seed)

    def _drawing(self, placed: Iterator[Placed], seed: int) -> Iterator[Placed]:
        yield from islice(placed, 1)
        for number in count(1):
            with borrowed_defaults(derive(seed, kind=Draws.ORDER, epoch=self._epoch, place=number)):
                one: Any = next(placed, _END)
            if one is _END:
                return
            yield one

    def _behind(self, placed: Iterator[Placed]) -> Iterator[Placed]:
        """Leave out what lies before the start; the batch that holds it loses its first samples."""
        for place, indices in placed:
            before = len(range(place, self._start, self._stride))
            if before == 0:
                yield place, indices
            elif isinstance(indices, list | tuple) and before < len(indices):
                yield place + before * self._stride, indices[before:]


def _counted(batches: Iterable[Any], first: int) -> Iterator[Placed]:
    place = first
    for batch in batches:
        yield place, batch
        place += len(batch) if hasattr(batch, "__len__") else 1


def _seeker(loader: DataLoader[Any]) -> Seekable | None:
    """Return what of the loader can seek: its batch sampler, or the sampler under a plain one."""
    batches: Any = loader.batch_sampler
    if isinstance(batches, Seekable):
        return batches
    plain = batches is None or type(batches) is BatchSampler
    return loader.sampler if plain and isinstance(loader.sampler, Seekable) else None
