"""Several ranks in one process: a thread each, that meet at every exchange."""

from __future__ import annotations

import threading
from typing import Any

import torch

from surestep.metrics.bootstrap import Bootstrap
from surestep.metrics.named import make_metrics
from surestep.metrics.task import Reading
from surestep.runtime.world import World


class Meeting:
    """Where the ranks leave what they have, and find what the others have."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=20)
        self.values: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        everyone = list(self.values)
        self.barrier.wait()
        return everyone


class ThreadRank:
    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.world = World(rank=rank, size=len(meeting.values), local_rank=rank, local_size=len(meeting.values))
        self.meeting = meeting

    def gather(self, value: Any) -> Any:
        given = [one for one in self.meeting.exchange(self.world.rank, value) if one is not None]
        return torch.cat(given) if given else None

    def gather_objects(self, value: Any) -> list[Any]:
        return self.meeting.exchange(self.world.rank, value)

    def agree(self, number: int) -> list[int]:
        return self.meeting.exchange(self.world.rank, number)


def together(
    asked: Any, shares: list[list[Any]], bootstrap: Bootstrap | None = None, **settings: Any
) -> list[dict[str, float]]:
    """Return what each rank computes, whose batches are those of its share."""
    meeting, found = Meeting(len(shares)), [dict[str, float]() for _ in shares]
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            with make_metrics(asked, Reading(quiet=True, **settings), bootstrap) as metrics:
                for predictions, labels, positions in shares[rank]:
                    metrics.update(predictions, labels, None, positions)
                found[rank] = metrics.compute(ThreadRank(rank, meeting))
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
