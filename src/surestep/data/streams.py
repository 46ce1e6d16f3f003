"""Streams that can say where they are, and go on from there.

A stream tells its position by two methods, `state_dict` and `load_state_dict`: the first gives a state as of the sample
that came last, the second is called before `iter` and has the next pass go on behind that sample. It is the protocol
of torchdata, and that of `datasets`, where some streams cannot keep it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from surestep.data.ranks import RankStream
from surestep.data.skipping import skipping
from surestep.data.sources import StreamDataset
from surestep.errors import DataError
from surestep.runtime.generators import Draws, borrowed_defaults, derive
from surestep.runtime.world import World

# The parts of a `datasets` stream whose state is exact. A shuffle buffer loses what it holds.
_EXACT_PARTS = {
    "ArrowExamplesIterable",
    "CyclingMultiSourcesExamplesIterable",
    "ExamplesIterable",
    "FilteredExamplesIterable",
    "FormattedExamplesIterable",
    "MappedExamplesIterable",
    "RandomlyCyclingMultiSourcesExamplesIterable",
    "RebatchedArrowExamplesIterable",
    "RepeatExamplesIterable",
    "SelectColumnsIterable",
    "SkipExamplesIterable",
    "StepExamplesIterable",
    "TakeExamplesIterable",
    "VerticallyConcatenatedMultiSourcesExamplesIterable",
}


def origin(stream: Any) -> Any:
    """Return the stream under what the loader put around it."""
    while isinstance(stream, RankStream | StreamDataset | Tail):
        stream = stream.source if isinstance(stream, StreamDataset) else stream.stream
    return stream


def untold(stream: Any) -> str | None:
    """Say why a stream cannot tell its position, and what to use instead; None where it can."""
    source = origin(stream)
    if isinstance(source, ShuffledStream):
        return untold(source.stream)
    if not (callable(getattr(source, "state_dict", None)) and callable(getattr(source, "load_state_dict", None))):
        return f"{type(source).__name__} does not tell its position; give it state_dict() and load_state_dict(state)"
    for part in _parts(source):
        if part == "BufferShuffledExamplesIterable":
            return (
                "the shuffle buffer of datasets is lost when a run stops; shuffle with "
                "surestep.ShuffledStream(stream, buffer_size, seed) instead of stream.shuffle()"
            )
        if part not in _EXACT_PARTS:
            return f"the position of a {part} of datasets is not known to be exact"
    return None


def _parts(source: Any) -> Iterator[str]:
    """Yield the names of the parts that a `datasets` stream is made of; nothing for any other stream."""
    waiting = [getattr(source, "_ex_iterable", None)]
    while waiting:
        part = waiting.pop()
        if part is not None:
            yield type(part).__name__
            waiting += [getattr(part, "ex_iterable", None), *getattr(part, "ex_iterables", ())]


def position_of(stream: Any) -> Any:
    """Return where a stream is: a state of its own that later reading does not change."""
    return copy.deepcopy(origin(stream).state_dict())


def at_position(stream: Any, state: Any) -> Any:
    """Return the stream such that its next pass goes on from `state`.

    A `datasets` stream would begin every pass there, so that it is a copy which does.
    """
    if isinstance(stream, RankStream | StreamDataset):
        wrapper, name = copy.copy(stream), "stream" if isinstance(stream, RankStream) else "source"
        setattr(wrapper, name, at_position(getattr(stream, name), state))
        return wrapper
    if hasattr(stream, "_ex_iterable"):
        twin = copy.copy(stream)
        # A copy of theirs shares its attributes.
        twin.__dict__ = dict(stream.__dict__)
        stream = twin
    stream.load_state_dict(state)
    return stream


def stream_from(stream: Any, samples: int, world: World, reason: str | None) -> IterableDataset[Any]:
    """Return a rank's stream behind the first `samples` of all ranks, which are read to get there, for a `reason`."""
    if isinstance(stream, RankStream):
        shared = copy.copy(stream)
        shared.stream = Tail(stream.stream, samples, reason)
        return shared
    return Tail(stream, samples // world.size, reason)


class Tail(IterableDataset[Any]):
    """A stream behind its first samples."""

    def __init__(self, stream: Any, skipped: int, reason: str | None) -> None:
        self.stream = stream
        self._skipped = skipped
        self._reason = reason

    def __iter__(self) -> Iterator[Any]:
        samples: Iterator[Any] = iter(self.stream)
        with skipping(self._skipped, 0, self._reason) as skipped:
            for _ in islice(samples, self._skipped):
                skipped(1)
        return samples


class ShuffledStream(IterableDataset[Any]):
    """A stream in random order, by windows of `buffer_size` samples, each in an order that follows from the seed.

    In place of a shuffle buffer: as every window is read from a known place on, the shuffled stream tells its position
    where `stream` does, and a resumed run reads one window again at most. With workers, each has windows of its own.

    Raises `DataError` where `buffer_size` is below 1.
    """

    def __init__(self, stream: Any, buffer_size: int = 1000, seed: int = 0) -> None:
        if buffer_size < 1:
            raise DataError(f"buffer_size={buffer_size}; write how many samples a window has, 1 or more")
        self.stream = stream
        self.buffer_size = buffer_size
        self.seed = seed
        self.epoch = 0
        self._at: dict[str, Any] = {"window": 0, "given": 0, "stream": None}
        self._begin: Mapping[str, Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch of the next pass, which has an order of its own."""
        self.epoch = epoch
        if hasattr(self.stream, "set_epoch"):
            self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        begin, self._begin = self._begin or {"window": 0, "given": 0, "stream": None}, None
        state, given = begin["stream"], begin["given"]
        stream = self.stream if state is None else at_position(self.stream, state)
        tells, samples = untold(stream) is None, iter(stream)
        for window in count(begin["window"]):
            held = self._window(samples, window)
            last = self.buffer_size - 1
            for index, place in enumerate(self._order(window, len(held))[given:], start=given):
                if index == last:
                    state = position_of(stream) if tells else None
                    self._at = {"window": window + 1, "given": 0, "stream": state}
                else:
                    self._at = {"window": window, "given": index + 1, "stream": state}
                yield held[place]
            given = 0
            if len(held) < self.buffer_size:
                return

    def _window(self, samples: Iterator[Any], window: int) -> list[Any]:
        """Read the samples of a window; what they draw follows from it, whenever it is read."""
        with borrowed_defaults(derive(self.seed, kind=Draws.STREAM, epoch=self.epoch, place=window, part=_worker())):
            return list(islice(samples, self.buffer_size))

    def _order(self, window: int, size: int) -> list[int]:
        seeds = [self.seed, self.epoch, _worker(), window]
        order: list[int] = np.random.default_rng(seeds).permutation(size).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        """Return the window at hand, how many of its samples were given, and where the stream was before it."""
        return dict(self._at)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass go on from what `state_dict` gave."""
        self._begin = state


def _worker() -> int:
    info = get_worker_info()
    return 0 if info is None else info.id
