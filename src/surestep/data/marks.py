"""Where a pass over a stream has come, for those that can tell: kept in a checkpoint, and taken up from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import DataLoader

from surestep.data.fetching import Mark, Onset, StreamFetch
from surestep.data.ranks import RankStream, is_shared_out
from surestep.logs import get_logger
from surestep.runtime.world import World

logger = get_logger(__name__)


@dataclass(slots=True)
class Pass:
    """A pass of an epoch: the sample and the number of batches behind which it stands."""

    epoch: int
    start: int
    done: int
    moved: bool = False


class Account(ABC):
    """What a pass tells of its place, and what a checkpoint told of it.

    A state fits a run that goes on where it was taken, with as many ranks, or, where `ranks` is 0, with any number.
    """

    def __init__(self, loader: Any, world: World, ranks: int) -> None:
        self._samples_per_round = (getattr(loader, "batch_size", None) or 1) * world.size
        self._shape = {"ranks": ranks}
        self._pass: Pass | None = None
        self._saved: Mapping[str, Any] | None = None

    def take(self, epoch: int, start: int, done: int) -> Mapping[str, Any] | None:
        """Return, once, the state that a checkpoint has of this place; None where there is none that fits."""
        saved, self._saved = self._saved, None
        if saved is None or saved["epoch"] != epoch or (start, done) == (0, 0):
            return None
        for name, number in self._shape.items():
            if saved[name] != number:
                logger.warning(
                    "The stream was read by %d %s and is now by %d. It is read again from its beginning, and what is "
                    "left of the epoch may be other samples than those not seen yet.",
                    saved[name],
                    name,
                    number,
                )
                return None
        fits = saved["place"] == [start, done] or (saved["samples"], 0) == (start, done)
        return saved if fits else None

    def count(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield the batches and count them."""
        for batch in batches:
            self._count()
            yield batch

    def stand(self, epoch: int, start: int, done: int) -> None:
        """Count from this place on."""
        self._pass = Pass(epoch, start, done)

    def _count(self) -> None:
        assert self._pass is not None
        self._pass.done += 1
        self._pass.moved = True

    def state_dict(self) -> dict[str, Any]:
        """Return where the pass is; nothing before its first batch."""
        now = self._pass
        if now is None or not now.moved:
            return {}
        samples = now.start + now.done * self._samples_per_round
        place = {"epoch": now.epoch, "place": [now.start, now.done], "samples": samples}
        return place | self._shape | self._told()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep what `state_dict` gave for the next pass."""
        self._saved = state or None

    @abstractmethod
    def _told(self) -> dict[str, Any]:
        """Return what the stream itself says."""


class Marks(Account):
    """The marks that the workers of a loader leave in a stream; without workers, the training process itself."""

    def __init__(self, loader: DataLoader[Any], world: World) -> None:
        stream = loader.dataset
        whole = isinstance(stream, RankStream) or (world.size == 1 and not is_shared_out(stream))
        super().__init__(loader, world, 0 if whole else world.size)
        self._shape["workers"] = self._workers = loader.num_workers
        self._fetch: StreamFetch | None = None
        self._marks: dict[int, Mark] = {}
        self._last = 0

    def onset(self, epoch: int, start: int, done: int) -> Onset | None:
        """Return where the workers are to begin; None where that is the beginning."""
        saved = self.take(epoch, start, done)
        if saved is None:
            return None
        marks = {mark["worker"]: Mark(**mark) for mark in saved["marks"]}
        return Onset(marks, shift=(saved["last"] + 1) % max(self._workers, 1))

    def read(self, batches: Iterator[Any], fetch: StreamFetch, of: tuple[int, int, int], onset: Onset) -> Iterator[Any]:
        """Yield the batches of a pass that begins at a place: epoch, sample, batches."""
        self.stand(*of)
        self._fetch, self._marks, self._last = fetch, dict(onset.marks), onset.shift - 1
        return self._peeled(batches) if self._workers else self.count(batches)

    def _peeled(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch, mark in batches:
            self._marks[mark.worker], self._last = mark, mark.worker
            self._count()
            yield batch

    def _told(self) -> dict[str, Any]:
        assert self._fetch is not None
        marks = list(self._marks.values()) if self._workers else [self._fetch.mark()]
        return {"last": self._last, "marks": [asdict(mark) for mark in marks]}


class LoaderState(Account):
    """The state of a loader that has one, such as torchdata's `StatefulDataLoader`."""

    def __init__(self, loader: Any, world: World) -> None:
        super().__init__(loader, world, world.size)
        self._loader = loader

    def begin(self, epoch: int, start: int, done: int) -> bool:
        """Put the loader where the checkpoint left it, and say whether that was done."""
        self.stand(epoch, start, done)
        saved = self.take(epoch, start, done)
        if saved is not None:
            self._loader.load_state_dict(saved["loader"])
        return saved is not None

    def _told(self) -> dict[str, Any]:
        return {"loader": self._loader.state_dict()}
