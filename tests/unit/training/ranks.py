"""Several ranks in one process: a thread each, that gather nested outputs as the strategies of real ranks do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from tests.unit.metrics.world import Meeting
from tests.unit.metrics.world import ThreadRank as FlatRank
from torch import Tensor


class ThreadRank(FlatRank):
    """A rank that notes what it gave to be gathered."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, meeting)
        self.given: list[Any] = []

    def gather(self, value: Any, *, padding: int = -100) -> Any:
        self.given.append(value)
        parts = [one for one in self.gather_objects(value) if one is not None]
        return _joined(parts, padding) if parts else None


def _joined(parts: list[Any], padding: int) -> Any:
    if isinstance(parts[0], dict):
        return {name: _joined([one[name] for one in parts], padding) for name in parts[0]}
    width = max((one.shape[1] for one in parts if one.ndim > 1), default=0)
    return torch.cat([_filled(one, width, padding) for one in parts])


def _filled(one: Tensor, width: int, padding: int) -> Tensor:
    return one if one.ndim < 2 else torch.nn.functional.pad(one, (0, width - one.shape[1]), value=padding)


def on_ranks(size: int, work: Callable[[ThreadRank], Any]) -> list[Any]:
    """Return what `work` makes on each of so many ranks; an error of one is raised."""
    meeting, found, errors = Meeting(size), [None] * size, list[BaseException]()

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRank(rank, meeting))
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
    return found
